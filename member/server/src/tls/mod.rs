//! Transport security of both ports: rustls with ring, TLS 1.2 and 1.3, files in PEM.
//!
//! Error texts are etcd's where etcd has one, because operators search for them.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::{Connected, Connection};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use x509_parser::prelude::{FromDer, X509Certificate};

mod files;
mod origin;
mod self_signed;
mod vet;

pub use files::TlsError;
pub(crate) use files::TlsFiles;
pub(crate) use vet::Refused;

use crate::auth::ClientName;
use crate::authority::AuthorityFix;
use files::Reloaded;
use origin::Names;

/// A connection, encrypted or not.
pub(crate) enum Transport<S> {
    Plain(S),
    Tls(Box<TlsStream<S>>),
}

impl<S> Connection for Transport<S> {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Transport<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Transport<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// A connection from a client, whose requests are made acceptable to h2 on their way in.
pub(crate) struct Inbound {
    stream: Transport<TcpStream>,
    marked: bool,
    fix: AuthorityFix,
}

impl Inbound {
    /// What its requests have to be marked with.
    pub(crate) fn mark(&self) -> Option<InPlainText> {
        self.marked.then_some(InPlainText)
    }

    /// The common name of the certificate that the client showed, whose chain was verified.
    pub(crate) fn client_name(&self) -> Option<ClientName> {
        let Transport::Tls(stream) = &self.stream else {
            return None;
        };
        let leaf = stream.get_ref().1.peer_certificates()?.first()?;
        let (_, leaf) = X509Certificate::from_der(leaf).ok()?;
        let name = leaf.subject().iter_common_name().next()?.as_str().ok()?;
        (!name.is_empty()).then(|| ClientName(name.into()))
    }
}

impl AsyncRead for Inbound {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(cx, buf);
        this.fix.mend(&mut buf.filled_mut()[before..]);
        polled
    }
}

impl AsyncWrite for Inbound {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

/// The listening side of a port.
#[derive(Clone)]
pub(crate) struct Acceptor {
    files: Option<Arc<Reloaded<ServerConfig>>>,
    /// Whether who calls may do so without TLS.
    plain: bool,
    /// Whether who calls must do so from an address that its certificate names.
    origin: bool,
}

/// Marks the requests that came without TLS over a port that takes both.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InPlainText;

/// Why a connection was not taken, and what its certificate says that tells whose it was.
pub(crate) struct Rejected {
    pub(crate) error: io::Error,
    pub(crate) names: Names,
}

impl From<io::Error> for Rejected {
    fn from(error: io::Error) -> Self {
        Self {
            error,
            names: Names::default(),
        }
    }
}

impl Acceptor {
    pub(crate) fn new(files: Option<TlsFiles>) -> Result<Self, TlsError> {
        let reloaded = files
            .map(|files| Reloaded::new(files, TlsFiles::server_config))
            .transpose()?;
        Ok(Self {
            plain: reloaded.is_none(),
            files: reloaded.map(Arc::new),
            origin: false,
        })
    }

    /// Takes callers with and without TLS.
    pub(crate) fn and_plain(self) -> Self {
        Self {
            plain: true,
            ..self
        }
    }

    /// Asks who calls to do so from an address that its certificate names, if it names any.
    pub(crate) fn checking_origin(mut self) -> Self {
        self.origin = true;
        self
    }

    /// Without TLS.
    pub(crate) fn plain() -> Self {
        Self {
            files: None,
            plain: true,
            origin: false,
        }
    }

    pub(crate) fn is_secure(&self) -> bool {
        self.files.is_some()
    }

    // What TLS begins with is the beginning of no request.
    async fn is_called_in_plain_text(&self, stream: &TcpStream) -> io::Result<bool> {
        const HANDSHAKE: u8 = 0x16;
        let mut first = [0];
        Ok(stream.peek(&mut first).await? == 0 || first != [HANDSHAKE])
    }

    pub(crate) async fn accept(
        &self,
        stream: TcpStream,
        from: IpAddr,
    ) -> Result<Inbound, Rejected> {
        let mut marked = false;
        let stream = match &self.files {
            None => Transport::Plain(stream),
            Some(_) if self.plain && self.is_called_in_plain_text(&stream).await? => {
                marked = true;
                Transport::Plain(stream)
            }
            Some(files) => {
                let acceptor = TlsAcceptor::from(files.current());
                let stream = acceptor.accept(stream).await?;
                let shown = stream.get_ref().1.peer_certificates();
                if let Some(leaf) = shown
                    .and_then(|chain| chain.first())
                    .filter(|_| self.origin)
                {
                    let names = Names::of(leaf);
                    if let Err(reason) = names.check(from).await {
                        let error = io::Error::other(reason);
                        return Err(Rejected { error, names });
                    }
                }
                Transport::Tls(Box::new(TlsStream::Server(stream)))
            }
        };
        Ok(Inbound {
            stream,
            marked,
            fix: AuthorityFix::new(),
        })
    }
}

/// Calls the ports of other members.
#[derive(Clone)]
pub(crate) struct PeerConnector {
    files: Option<Arc<Reloaded<ClientConfig>>>,
    /// What certificates must name, if not the URL's host.
    name: Option<String>,
}

impl PeerConnector {
    pub(crate) fn new(files: Option<TlsFiles>) -> Result<Self, TlsError> {
        let reloaded = files
            .map(|files| Reloaded::new(files, TlsFiles::client_config))
            .transpose()?;
        Ok(Self {
            files: reloaded.map(Arc::new),
            name: None,
        })
    }

    /// One that speaks HTTP/1 with whoever listens, which may be an etcd.
    pub(crate) fn http1(files: TlsFiles) -> Result<Self, TlsError> {
        let reloaded = Reloaded::new(files, TlsFiles::http1_config)?;
        Ok(Self {
            files: Some(Arc::new(reloaded)),
            name: None,
        })
    }

    /// Demands certificates for this name instead of the URL's host.
    pub(crate) fn named(self, name: Option<String>) -> Self {
        Self { name, ..self }
    }

    /// Connects to a peer URL; its host is what the certificate must name, unless another name is set.
    pub(crate) async fn connect(&self, url: &str) -> io::Result<Transport<TcpStream>> {
        let bad = || {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("peer URL {url} has no host and port"),
            )
        };
        let uri: http::Uri = url.parse().map_err(|_| bad())?;
        let host = uri
            .host()
            .ok_or_else(bad)?
            .trim_start_matches('[')
            .trim_end_matches(']');
        let stream = TcpStream::connect((host, uri.port_u16().ok_or_else(bad)?)).await?;
        stream.set_nodelay(true)?;
        if uri.scheme_str() != Some("https") {
            return Ok(Transport::Plain(stream));
        }
        let files = self.files.as_ref().ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("peer URL {url} needs --peer-cert-file and --peer-key-file"),
            )
        })?;
        let connector = TlsConnector::from(files.current());
        let name = ServerName::try_from(self.name.clone().unwrap_or_else(|| host.to_owned()))
            .map_err(io::Error::other)?;
        Ok(Transport::Tls(Box::new(TlsStream::Client(
            connector.connect(name, stream).await?,
        ))))
    }
}
