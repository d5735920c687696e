//! Finding the other members of a cluster that no `--initial-cluster` lists: discovery services and DNS SRV records.
//!
//! Owns: the protocols of the v2 service ([`find`] by URL) and of the v3 service (endpoints and token), the queries for
//! SRV records and what they mean ([`srv`], also for clients and gateways), and the errors with etcd's texts.
//!
//! Does not: check the list that it finds against the member's flags, or start anything. That is `member-flags`' and
//! `member-server`'s.
//!
//! Invariant: everything is bounded. A service that does not answer is given up, before this member has registered
//! soon, and afterwards late, because a registration cannot be made again. Waiting for members that have not registered
//! yet is the one wait without an end, as in etcd: each of them shows in the log, and a signal ends it.

mod connected;
mod dns;
mod error;
mod http;
mod patience;
mod roster;
pub mod srv;
mod tls;
mod v2;
mod v3;

use member_flags::{Flags, InitialCluster, Scheme, Source, ids};

pub use dns::{Dns, DnsError, Record};
pub use error::{DiscoveryError, Refusal};
pub use tls::{AnyServer, system_roots, verify_server};

/// A cluster that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The members, as `--initial-cluster` lists them.
    pub cluster: InitialCluster,
    /// The token that the members' IDs are made with.
    pub token: String,
}

/// Whether a service is to be told of this member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registration {
    /// It is a first start.
    New,
    /// An earlier start has registered, and was stopped before the cluster was founded.
    Done,
    /// It is a proxy, which takes no place.
    None,
}

/// This member, as the others are to see it.
struct Me {
    name: String,
    urls: Vec<String>,
}

impl Me {
    /// `NAME=URL` for each of its URLs.
    fn line(&self) -> String {
        let items: Vec<String> = self
            .urls
            .iter()
            .map(|url| format!("{}={url}", self.name))
            .collect();
        items.join(",")
    }

    /// The ID under which it registers: that of its URLs, with the name of the registration as the token.
    fn id(&self, token: &str) -> String {
        format!("{:x}", ids::member_id(&self.urls, token, None))
    }
}

/// Checks the URL of a v2 token as a member does before it asks for it.
///
/// # Errors
/// It cannot be asked for.
pub fn check_url(token: &str) -> Result<(), Refusal> {
    http::split(token).map(drop)
}

/// Checks the proxy towards a v2 service as a member does before it uses it.
///
/// # Errors
/// It is none of plain HTTP.
pub fn check_proxy(proxy: &str) -> Result<(), Refusal> {
    v2::proxy_url(proxy).map(drop)
}

/// Checks an endpoint of a v3 service, `host:port` or a URL, as a member does before it asks it.
///
/// # Errors
/// It is neither.
pub fn check_endpoint(endpoint: &str) -> Result<(), Refusal> {
    v3::endpoint_url(endpoint, Scheme::Https).map(drop)
}

/// Finds the members in the way that the flags choose; None when they are listed in the flags.
///
/// # Errors
/// The service or the DNS refuses, answers nonsense, or does not answer for too long.
pub async fn find(
    flags: &Flags,
    registration: Registration,
) -> Result<Option<Found>, DiscoveryError> {
    let me = Me {
        name: flags.name.clone(),
        urls: flags.initial_advertise_peer_urls.to_strings(),
    };
    let (cluster, token) = match flags.source() {
        Source::Static => return Ok(None),
        Source::V2 => {
            let url = &flags.discovery.url;
            let service = |refusal| DiscoveryError::service(url, refusal);
            let mut registry = v2::Service::new(url, &flags.discovery.proxy).map_err(service)?;
            let found = roster::find(&mut registry, &me, url, registration).await;
            (found.map_err(service)?, url.clone())
        }
        Source::V3 => {
            let token = &flags.discovery.token;
            let service = |refusal| DiscoveryError::service(token, refusal);
            let mut registry = v3::Service::new(&flags.discovery).map_err(service)?;
            let found = roster::find(&mut registry, &me, token, registration).await;
            (found.map_err(service)?, token.clone())
        }
        Source::Srv => {
            let found = srv::members(flags, registration).await?;
            (found, flags.initial_cluster_token.clone())
        }
    };
    Ok(Some(Found { cluster, token }))
}
