//! The v2 proxy of etcd 3.4 and 3.5: passes HTTP requests of clients on to the members of a cluster.
//!
//! It is no member and keeps no keys. It asks the members' peer ports who they are, keeps their peer URLs in a file for
//! its next start, and sends each request to one of the client URLs that they advertise, and to the next when that one
//! fails. As in etcd a request may so be made twice, if a member fails after it has taken it.
//!
//! It does not serve v3 over gRPC; JSON below `/v3/` passes through.

mod cluster;
mod director;
mod forward;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Request;
use hyper::body::Incoming;
use member_flags::{Flags, ProxyMode};

use crate::access::Access;
use crate::discover::peer_name;
use crate::listen::{self, Http2};
use crate::member::{DRAIN_PATIENCE, MemberError, Part, bind};
use crate::tls::{Acceptor, PeerConnector, TlsFiles};
use cluster::Cluster;
use director::Director;
use forward::Forwarder;

/// As in etcd: with the default interval or a longer one, members that are not found are looked for more often.
const LONG_INTERVAL: Duration = Duration::from_secs(30);
const SHORT_INTERVAL: Duration = Duration::from_secs(1);

/// Where a proxy keeps what it knows.
pub(crate) fn dir(flags: &Flags) -> PathBuf {
    flags.effective_data_dir().join("proxy")
}

/// A running proxy.
pub struct Proxy(Part);

impl Proxy {
    /// Starts a proxy: binds, learns the members, and serves. Members that cannot be reached are looked for again.
    ///
    /// # Errors
    /// When the flags, the certificates, the ports, the discovery service or the directory do not allow it.
    pub async fn start(flags: &Flags) -> Result<Self, MemberError> {
        flags.check_settings().map_err(MemberError::Settings)?;
        flags.check_transport()?;
        tracing::info!("v2 API proxy starting");
        let fixtures = flags.effective_data_dir().join("fixtures");
        let tls = Acceptor::new(TlsFiles::of_clients(flags, &fixtures)?)?;
        let towards_peers = PeerConnector::http1(TlsFiles::towards_peers(flags, &fixtures)?)?;
        let towards_clients = PeerConnector::http1(TlsFiles::towards_clients(flags, &fixtures)?)?;
        let ports = bind(&flags.listen_client_urls, &tls).await?;
        let metrics_ports = bind(&flags.listen_metrics_urls, &tls).await?;
        let mut cluster = Cluster::open(flags, towards_peers.named(peer_name(flags))).await?;
        let director = Arc::new(Director::new(flags.proxy.failure_wait()));
        director.replace(cluster.look().await);

        let part = Part::default();
        let forwarder = Arc::new(Forwarder::new(
            flags,
            towards_clients,
            Arc::clone(&director),
        ));
        let http2 = Http2::of_clients(flags);
        for (listener, tls) in ports {
            let forwarder = Arc::clone(&forwarder);
            let access = Arc::new(Access::new(flags, tls.is_secure()));
            let service = move |remote, request: Request<Incoming>| {
                let (forwarder, access) = (Arc::clone(&forwarder), Arc::clone(&access));
                async move { forwarder.answer(&access, remote, request).await }
            };
            let (tasks, stopping) = (part.tasks.clone(), part.stopping.clone());
            part.tasks.spawn(listen::serve(
                listener, tls, http2, service, tasks, stopping,
            ));
        }
        for (listener, tls) in metrics_ports {
            let forwarder = Arc::clone(&forwarder);
            let service = move |_, request: Request<Incoming>| {
                let forwarder = Arc::clone(&forwarder);
                async move { forwarder.answer_metrics(&request) }
            };
            let (tasks, stopping) = (part.tasks.clone(), part.stopping.clone());
            part.tasks.spawn(listen::serve(
                listener, tls, http2, service, tasks, stopping,
            ));
        }
        for url in &flags.listen_client_urls {
            tracing::info!(
                host = url.as_str(),
                "v2 proxy started listening on client requests"
            );
        }
        let interval = flags.proxy.refresh_interval();
        part.spawn(async move { follow(&director, cluster, interval).await });
        Ok(Self(part))
    }

    /// Stops, and lets requests in flight finish.
    pub async fn stop(self) {
        if !self.0.stop(DRAIN_PATIENCE).await {
            tracing::warn!("client requests were cut off");
        }
        tracing::info!("stopped");
    }
}

/// Keeps the endpoints those of the members. Never returns.
async fn follow(director: &Director, mut cluster: Cluster, interval: Duration) {
    let mut found = false;
    loop {
        let endpoints = director.available(Instant::now());
        if !endpoints.is_empty() && !found {
            found = true;
            let texts: Vec<String> = endpoints.iter().map(ToString::to_string).collect();
            tracing::info!(endpoints = ?texts, "endpoints found");
        }
        let pause = if endpoints.is_empty() && interval >= LONG_INTERVAL {
            SHORT_INTERVAL
        } else {
            interval
        };
        tokio::time::sleep(pause).await;
        director.replace(cluster.look().await);
    }
}

/// Whether nothing but GET is answered.
fn is_readonly(flags: &Flags) -> bool {
    flags.proxy.mode == ProxyMode::Readonly
}
