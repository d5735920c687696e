//! TLS towards discovery services and discovered endpoints.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use member_flags::DiscoveryFlags;

/// The authorities that this machine trusts; `SSL_CERT_FILE` and `SSL_CERT_DIR` take their place, as in Go.
#[must_use]
pub fn system_roots() -> RootCertStore {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "cannot read a trusted certificate of this machine");
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    roots
}

fn roots(ca: Option<&Path>) -> Result<RootCertStore, String> {
    let Some(ca) = ca else {
        return Ok(system_roots());
    };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates(ca)?);
    if roots.is_empty() {
        return Err(format!(
            "trusted CA file {} has no usable CA certificate",
            ca.display()
        ));
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let unusable = |reason: String| format!("cannot use {}: {reason}", path.display());
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path)
        .map_err(|error| unusable(error.to_string()))?
        .collect();
    found.map_err(|error| unusable(error.to_string()))
}

/// What is trusted and shown on a connection.
pub(crate) struct Trust<'a> {
    pub(crate) ca: Option<&'a Path>,
    pub(crate) pair: Option<(&'a Path, &'a Path)>,
    /// Take any certificate.
    pub(crate) blind: bool,
}

impl<'a> Trust<'a> {
    /// The machine's authorities.
    pub(crate) const SYSTEM: Trust<'static> = Trust {
        ca: None,
        pair: None,
        blind: false,
    };

    pub(crate) fn of(flags: &'a DiscoveryFlags) -> Self {
        Self {
            ca: flags.cacert.as_deref(),
            pair: flags.cert.as_deref().zip(flags.key.as_deref()),
            blind: flags.insecure_skip_tls_verify,
        }
    }

    pub(crate) fn connector(&self, alpn: &[u8]) -> Result<TlsConnector, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let builder = if self.blind {
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AnyServer(provider)))
        } else {
            builder.with_root_certificates(roots(self.ca)?)
        };
        let mut config = match self.pair {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => {
                let key_error = |error| format!("cannot use {}: {error}", key.display());
                let key = PrivateKeyDer::from_pem_file(key).map_err(key_error)?;
                builder
                    .with_client_auth_cert(certificates(cert)?, key)
                    .map_err(|error| format!("cannot use {}: {error}", cert.display()))?
            }
        };
        config.alpn_protocols = vec![alpn.to_vec()];
        Ok(TlsConnector::from(Arc::new(config)))
    }
}

/// A connection, encrypted or not.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}
pub(crate) type Line = Box<dyn Stream>;

/// Begins TLS, if there is to be any, with a server that must be called `name`.
pub(crate) async fn open(
    connector: Option<&TlsConnector>,
    name: &str,
    stream: TcpStream,
) -> io::Result<Line> {
    let Some(connector) = connector else {
        return Ok(Box::new(stream));
    };
    let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
    Ok(Box::new(connector.connect(name, stream).await?))
}

/// Whether a server at `address` shows a certificate that a CA file, or else the machine, trusts for `name`.
///
/// # Errors
/// It does not, or cannot be reached; why.
pub async fn verify_server(address: &str, name: &str, ca: Option<&Path>) -> Result<(), String> {
    let trust = Trust {
        ca,
        ..Trust::SYSTEM
    };
    let connector = trust.connector(b"h2")?;
    let stream = TcpStream::connect(address)
        .await
        .map_err(|error| error.to_string())?;
    open(Some(&connector), name, stream)
        .await
        .map(drop)
        .map_err(|error| error.to_string())
}

/// Takes any certificate, as Go does with `InsecureSkipVerify`; that its key is the server's is checked.
#[derive(Debug)]
pub struct AnyServer(pub Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
