//! Transport security of both ports: rustls with ring, TLS 1.2 and 1.3, files in PEM.
//!
//! Error texts are etcd's where etcd has one, because operators search for them.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::SystemTime;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::auth::ClientName;
use crate::authority::AuthorityFix;

/// The certificate files of one port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TlsFiles {
    /// Certificate chain.
    pub(crate) cert: PathBuf,
    /// Its private key.
    pub(crate) key: PathBuf,
    /// The CA whose certificates are trusted from the other side; its presence demands one from clients, as in etcd.
    pub(crate) trusted_ca: Option<PathBuf>,
}

/// Certificate files that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("open {}: {}", path.display(), go_io_text(source))]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No PEM block of the wanted kind.
    #[error("tls: failed to find any PEM data in {what} input ({})", path.display())]
    NoPem {
        /// `certificate` or `key`.
        what: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// Certificate and key do not belong together, or are of a kind that rustls refuses.
    #[error("tls: cannot use {} with {}", cert.display(), key.display())]
    Pair {
        /// Certificate file.
        cert: PathBuf,
        /// Key file.
        key: PathBuf,
        /// rustls's reason.
        source: rustls::Error,
    },
    /// The CA file holds nothing that can verify a certificate.
    #[error("trusted CA file {} has no usable CA certificate", path.display())]
    BadCa {
        /// The file.
        path: PathBuf,
    },
}

fn go_io_text(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Open {
        path: path.to_owned(),
        source,
    })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read(path)?;
    let no_pem = || TlsError::NoPem {
        what: "certificate",
        path: path.to_owned(),
    };
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    found
        .ok()
        .filter(|found| !found.is_empty())
        .ok_or_else(no_pem)
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let pem = read(path)?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|_| TlsError::NoPem {
        what: "key",
        path: path.to_owned(),
    })
}

fn roots(path: &Path) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates(path)?);
    if roots.is_empty() {
        return Err(TlsError::BadCa {
            path: path.to_owned(),
        });
    }
    Ok(Arc::new(roots))
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

impl TlsFiles {
    /// What a listening port offers and demands.
    ///
    /// # Errors
    /// When a file is missing, is not PEM, or does not fit the others.
    pub(crate) fn server_config(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|source| self.pair(source))?;
        let builder = match &self.trusted_ca {
            None => builder.with_no_client_auth(),
            Some(ca) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(roots(ca)?, provider())
                    .build()
                    .map_err(|_| TlsError::BadCa { path: ca.clone() })?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder
            .with_single_cert(certificates(&self.cert)?, key(&self.key)?)
            .map_err(|source| self.pair(source))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// What a member shows and demands when it calls another.
    fn client_config(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let ca = match &self.trusted_ca {
            Some(ca) => roots(ca)?,
            // As etcd: without an authority of the cluster's own, those of this machine.
            None => Arc::new(member_discovery::system_roots()),
        };
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|source| self.pair(source))?
            .with_root_certificates(ca)
            .with_client_auth_cert(certificates(&self.cert)?, key(&self.key)?)
            .map_err(|source| self.pair(source))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(config))
    }

    fn stamp(&self) -> Stamp {
        let paths = [Some(&self.cert), Some(&self.key), self.trusted_ca.as_ref()];
        let stamp = |path: &PathBuf| {
            let metadata = std::fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.ino(), metadata.len()))
        };
        paths.into_iter().flatten().map(stamp).collect()
    }

    fn pair(&self, source: rustls::Error) -> TlsError {
        TlsError::Pair {
            cert: self.cert.clone(),
            key: self.key.clone(),
            source,
        }
    }
}

/// A connection, encrypted or not.
pub(crate) enum Transport<S> {
    Plain(S),
    Tls(Box<TlsStream<S>>),
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
    fix: AuthorityFix,
}

impl Inbound {
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

/// What certificate files say, read again when they change: a renewed certificate is served from the next connection
/// on. Files that cannot be used leave the former ones in force, with a warning, so that a half-finished renewal cuts
/// nobody off.
pub(crate) struct Reloaded<T> {
    files: TlsFiles,
    build: fn(&TlsFiles) -> Result<Arc<T>, TlsError>,
    current: Mutex<(Stamp, Arc<T>)>,
}

/// Tells one state of the files from another; inode and length catch a change within the clock's grain.
type Stamp = Vec<Option<(SystemTime, u64, u64)>>;

impl<T> Reloaded<T> {
    pub(crate) fn new(
        files: TlsFiles,
        build: fn(&TlsFiles) -> Result<Arc<T>, TlsError>,
    ) -> Result<Self, TlsError> {
        let stamp = files.stamp();
        let current = Mutex::new((stamp, build(&files)?));
        Ok(Self {
            files,
            build,
            current,
        })
    }

    pub(crate) fn current(&self) -> Arc<T> {
        let stamp = self.files.stamp();
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.0 != stamp {
            match (self.build)(&self.files) {
                Ok(built) => {
                    tracing::info!(cert = %self.files.cert.display(), "certificate files were read again");
                    current.1 = built;
                }
                Err(error) => {
                    tracing::warn!(%error, "changed certificate files cannot be used; keeping the former ones");
                }
            }
            current.0 = stamp;
        }
        Arc::clone(&current.1)
    }
}

/// The listening side of a port.
#[derive(Clone)]
pub(crate) struct Acceptor(Option<Arc<Reloaded<ServerConfig>>>);

impl Acceptor {
    pub(crate) fn new(files: Option<TlsFiles>) -> Result<Self, TlsError> {
        let reloaded = files
            .map(|files| Reloaded::new(files, TlsFiles::server_config))
            .transpose()?;
        Ok(Self(reloaded.map(Arc::new)))
    }

    /// Without TLS.
    pub(crate) fn plain() -> Self {
        Self(None)
    }

    pub(crate) fn is_secure(&self) -> bool {
        self.0.is_some()
    }

    pub(crate) async fn accept(&self, stream: TcpStream) -> io::Result<Inbound> {
        let stream = match &self.0 {
            None => Transport::Plain(stream),
            Some(files) => {
                let acceptor = TlsAcceptor::from(files.current());
                Transport::Tls(Box::new(TlsStream::Server(acceptor.accept(stream).await?)))
            }
        };
        Ok(Inbound {
            stream,
            fix: AuthorityFix::new(),
        })
    }
}

/// Calls other members' peer ports.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_files_are_read_again_and_bad_ones_leave_the_former_in_force() {
        let dir = tempfile::TempDir::new().unwrap();
        let cert = dir.path().join("cert");
        let files = TlsFiles {
            cert: cert.clone(),
            key: dir.path().join("key"),
            trusted_ca: None,
        };
        let build = |files: &TlsFiles| match read(&files.cert)? {
            text if text.starts_with(b"bad") => Err(TlsError::NoPem {
                what: "certificate",
                path: files.cert.clone(),
            }),
            text => Ok(Arc::new(text)),
        };
        assert!(matches!(
            Reloaded::new(files.clone(), build),
            Err(TlsError::Open { .. })
        ));
        let write = |text: &str| {
            let next = dir.path().join("next");
            std::fs::write(&next, text).unwrap();
            std::fs::rename(&next, &cert).unwrap();
        };
        write("one");
        let reloaded = Reloaded::new(files, build).unwrap();
        assert_eq!(*reloaded.current(), b"one");
        write("two");
        assert_eq!(*reloaded.current(), b"two");
        write("bad");
        assert_eq!(*reloaded.current(), b"two");
        std::fs::remove_file(&cert).unwrap();
        assert_eq!(*reloaded.current(), b"two");
        write("three");
        assert_eq!(*reloaded.current(), b"three");
    }
}
