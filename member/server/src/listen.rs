//! Listening ports: accept, encrypt, and serve HTTP/1 and HTTP/2 on one port.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use member_flags::Flags;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::tls::{Acceptor, Refused, Rejected};

/// A handshake that takes longer is given up: a silent client must not hold a slot for ever.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(10);

/// A URL that cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// No host and port.
    #[error("listen URL {url} has no host and port")]
    BadUrl {
        /// The URL.
        url: String,
    },
    /// The host resolves to nothing.
    #[error("listen tcp: lookup {host}: {source}")]
    Lookup {
        /// The host.
        host: String,
        /// Why.
        source: io::Error,
    },
    /// The address is taken or is not this machine's.
    #[error("listen tcp {address}: bind: {}", bind_text(source))]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The host is another machine's. etcd's sentence, then the facts.
    #[error(
        "listen tcp {}: bind: cannot assign requested address: {host} resolves to {}, and none of it is an address of this machine",
        addresses[0], texts(addresses)
    )]
    NotLocal {
        /// The host.
        host: String,
        /// What it resolves to; never empty.
        addresses: Vec<SocketAddr>,
    },
}

fn texts(addresses: &[SocketAddr]) -> String {
    let texts: Vec<String> = addresses.iter().map(|a| a.ip().to_string()).collect();
    texts.join(", ")
}

/// Go's words, which operators search for.
fn bind_text(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "address already in use".to_owned(),
        io::ErrorKind::AddrNotAvailable => "cannot assign requested address".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

/// Binds a listen URL.
pub(crate) async fn bind(url: &str) -> Result<TcpListener, ListenError> {
    let bad = || ListenError::BadUrl {
        url: url.to_owned(),
    };
    let uri: http::Uri = url.parse().map_err(|_| bad())?;
    let host = uri
        .host()
        .ok_or_else(bad)?
        .trim_start_matches('[')
        .trim_end_matches(']');
    bind_host(host, uri.port_u16().ok_or_else(bad)?).await
}

/// Binds a port of a host: of a name the first address that is this machine's, IPv4 first as in Go.
///
/// # Errors
/// The name has no address, none of this machine, or the port is taken.
pub async fn bind_host(host: &str, port: u16) -> Result<TcpListener, ListenError> {
    let lookup = |source| ListenError::Lookup {
        host: host.to_owned(),
        source,
    };
    let mut addresses: Vec<SocketAddr> = tokio::net::lookup_host((host, port))
        .await
        .map_err(lookup)?
        .collect();
    addresses.sort_by_key(SocketAddr::is_ipv6);
    if addresses.is_empty() {
        return Err(lookup(io::ErrorKind::NotFound.into()));
    }
    let named = host.parse::<std::net::IpAddr>().is_err();
    for &address in &addresses {
        // tokio sets SO_REUSEADDR, so that a restart does not wait for old connections to time out.
        match TcpListener::bind(address).await {
            Ok(listener) => return Ok(listener),
            Err(source) if named && source.kind() == io::ErrorKind::AddrNotAvailable => {}
            Err(source) => return Err(ListenError::Bind { address, source }),
        }
    }
    Err(ListenError::NotLocal {
        host: host.to_owned(),
        addresses,
    })
}

/// Settings of HTTP/2 on a port.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Http2 {
    pub(crate) max_concurrent_streams: u32,
    /// Time between two pings; `None`: no pings.
    pub(crate) keepalive_interval: Option<Duration>,
    pub(crate) keepalive_timeout: Duration,
}

impl Http2 {
    /// Those that the flags set for clients.
    pub(crate) fn of_clients(flags: &Flags) -> Self {
        Self {
            max_concurrent_streams: flags.max_concurrent_streams,
            // As in etcd, a zero in either of the two turns the pings off.
            keepalive_interval: Some(flags.grpc_keepalive_interval)
                .filter(|interval| !interval.is_zero() && !flags.grpc_keepalive_timeout.is_zero()),
            keepalive_timeout: flags.grpc_keepalive_timeout,
        }
    }
}

/// Serves a port until `stopping`; its connections finish their requests first. The service is told who calls.
pub(crate) async fn serve<S, F, B>(
    listener: TcpListener,
    acceptor: Acceptor,
    http2: Http2,
    service: S,
    tasks: TaskTracker,
    stopping: CancellationToken,
) where
    S: Fn(SocketAddr, Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // As Go writes them: names of headers have no case, but scripts search for `X-Etcd-Index`.
    builder.http1().title_case_headers(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(http2.max_concurrent_streams)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .max_frame_size(64 << 10)
        .keep_alive_interval(http2.keepalive_interval)
        .keep_alive_timeout(http2.keepalive_timeout);
    loop {
        let accepted = tokio::select! {
            () = stopping.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, remote) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, mostly: accepting again at once would only spin.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let connection = serve_connection(
            stream,
            remote,
            acceptor.clone(),
            builder.clone(),
            service.clone(),
            stopping.clone(),
        );
        tasks.spawn(connection);
    }
}

async fn serve_connection<S, F, B>(
    stream: TcpStream,
    remote: SocketAddr,
    acceptor: Acceptor,
    builder: auto::Builder<TokioExecutor>,
    service: S,
    stopping: CancellationToken,
) where
    S: Fn(SocketAddr, Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    // Without it small answers wait for the client's delayed acknowledgement.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let transport = match tokio::time::timeout(
        HANDSHAKE_PATIENCE,
        acceptor.accept(stream, remote.ip()),
    )
    .await
    {
        Ok(Ok(transport)) => transport,
        Ok(Err(Rejected { error, names })) => {
            let (addresses, hosts) = (&names.addresses, &names.hosts);
            tracing::warn!("remote-addr" = %remote, "server-name" = "", "ip-addresses" = ?addresses, "dns-names" = ?hosts, error = go_tls_text(&error), "rejected connection");
            return;
        }
        Err(_) => {
            tracing::warn!("remote-addr" = %remote, "server-name" = "", error = "EOF", "rejected connection");
            return;
        }
    };
    let (client, mark) = (transport.client_name(), transport.mark());
    let service = service_fn(move |mut request: Request<Incoming>| {
        if let Some(mark) = mark {
            request.extensions_mut().insert(mark);
        }
        if let Some(client) = &client {
            request.extensions_mut().insert(client.clone());
        }
        let response = service(remote, request);
        async move { Ok::<_, Infallible>(response.await) }
    });
    let connection = builder.serve_connection(TokioIo::new(transport), service);
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%remote, %error, "connection ended");
    }
}

/// The words of Go's TLS for a failed handshake, which operators search for.
fn go_tls_text(error: &io::Error) -> String {
    use rustls::{AlertDescription, CertificateError, Error};
    let Some(tls) = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<Error>())
    else {
        return if error.kind() == io::ErrorKind::UnexpectedEof {
            "EOF".to_owned()
        } else {
            error.to_string()
        };
    };
    let unverified = "tls: failed to verify client certificate: x509";
    match tls {
        Error::NoCertificatesPresented => "tls: client didn't provide a certificate".to_owned(),
        Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => {
            format!("{unverified}: certificate signed by unknown authority")
        }
        Error::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        ) => format!("{unverified}: certificate has expired or is not yet valid"),
        Error::InvalidCertificate(
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. },
        ) => format!("{unverified}: certificate specifies an incompatible key usage"),
        Error::InvalidCertificate(CertificateError::Other(other)) => {
            match other.0.downcast_ref::<Refused>() {
                Some(refused) => refused.to_string(),
                None => tls.to_string(),
            }
        }
        Error::InvalidMessage(_) => {
            "tls: first record does not look like a TLS handshake".to_owned()
        }
        Error::AlertReceived(AlertDescription::UnknownCA) => {
            "remote error: tls: unknown certificate authority".to_owned()
        }
        Error::AlertReceived(
            AlertDescription::BadCertificate | AlertDescription::CertificateUnknown,
        ) => "remote error: tls: bad certificate".to_owned(),
        other => other.to_string(),
    }
}
