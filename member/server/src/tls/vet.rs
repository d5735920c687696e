//! What a certificate must be beside genuine: not revoked, and of an allowed name.
//!
//! Source: etcd 3.5, `client/pkg/transport/listener.go` and `listener_tls.go`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

use super::files::go_io_text;

/// Why a genuine certificate is refused, in etcd's words.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    /// Its names are not allowed.
    #[error("client certificate authentication failed")]
    Name,
    /// It is on the list.
    #[error("transport: certificate serial {serial} revoked")]
    Revoked {
        /// In hexadecimal digits.
        serial: String,
    },
    /// There is no list, and so nobody is let in.
    #[error("open {}: {}", path.display(), go_io_text(source))]
    NoList {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The list or the certificate is no such thing.
    #[error("x509: malformed {what}")]
    Malformed {
        /// `crl` or `certificate`.
        what: &'static str,
    },
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        let other = OtherError(Arc::new(refused));
        Self::InvalidCertificate(CertificateError::Other(other))
    }
}

/// The rules of one port; empty ones ask for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rules {
    /// The list of revoked certificates of those who call. It is read for each of them, as in etcd.
    pub(crate) crl: Option<PathBuf>,
    /// Common names, of which a certificate must have one.
    pub(crate) common_names: Vec<String>,
    /// Names, for one of which a certificate must be good.
    pub(crate) hosts: Vec<String>,
}

impl Rules {
    fn check_name(&self, leaf: &CertificateDer<'_>) -> Result<(), Refused> {
        if !self.common_names.is_empty() {
            let name = common_name(leaf)?;
            if !self.common_names.contains(&name) {
                return Err(Refused::Name);
            }
        }
        if self.hosts.is_empty() {
            return Ok(());
        }
        let parsed = ParsedCertificate::try_from(leaf).map_err(|_| malformed("certificate"))?;
        let good = self.hosts.iter().any(|host| {
            ServerName::try_from(host.as_str())
                .is_ok_and(|host| rustls::client::verify_server_name(&parsed, &host).is_ok())
        });
        if good { Ok(()) } else { Err(Refused::Name) }
    }

    fn check_list(&self, chain: &[&CertificateDer<'_>]) -> Result<(), Refused> {
        let Some(path) = &self.crl else {
            return Ok(());
        };
        let revoked = revoked(path)?;
        for certificate in chain {
            let (_, certificate) =
                X509Certificate::from_der(certificate).map_err(|_| malformed("certificate"))?;
            let serial = hex(&certificate.tbs_certificate.serial.to_bytes_be());
            if revoked.contains(&serial) {
                return Err(Refused::Revoked { serial });
            }
        }
        Ok(())
    }
}

fn malformed(what: &'static str) -> Refused {
    Refused::Malformed { what }
}

fn common_name(leaf: &CertificateDer<'_>) -> Result<String, Refused> {
    let (_, leaf) = X509Certificate::from_der(leaf).map_err(|_| malformed("certificate"))?;
    // Go takes the last of several.
    let name = leaf.subject().iter_common_name().last();
    Ok(name
        .and_then(|name| name.as_str().ok())
        .unwrap_or_default()
        .to_owned())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The serial numbers that a list, in DER or PEM, names. Who signed it is not asked, as in etcd.
fn revoked(path: &Path) -> Result<Vec<String>, Refused> {
    let mut list = std::fs::read(path).map_err(|source| Refused::NoList {
        path: path.to_owned(),
        source,
    })?;
    if let Ok(der) = CertificateRevocationListDer::from_pem_slice(&list) {
        list = der.to_vec();
    }
    let (_, list) = CertificateRevocationList::from_der(&list).map_err(|_| malformed("crl"))?;
    let serials = list.iter_revoked_certificates();
    Ok(serials
        .map(|entry| hex(&entry.user_certificate.to_bytes_be()))
        .collect())
}

/// Checks those who call.
#[derive(Debug)]
pub(super) struct Callers {
    pub(super) genuine: Arc<dyn ClientCertVerifier>,
    pub(super) rules: Rules,
}

impl ClientCertVerifier for Callers {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.genuine.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.genuine.verify_client_cert(leaf, chain, now)?;
        self.rules.check_name(leaf)?;
        let shown: Vec<&CertificateDer<'_>> = [leaf].into_iter().chain(chain).collect();
        self.rules.check_list(&shown)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.genuine.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.genuine.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.genuine.supported_verify_schemes()
    }
}

/// Checks those who are called.
#[derive(Debug)]
pub(super) struct Called {
    pub(super) genuine: Arc<dyn ServerCertVerifier>,
    pub(super) rules: Rules,
}

impl ServerCertVerifier for Called {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let genuine = &self.genuine;
        let verified = genuine.verify_server_cert(leaf, chain, name, ocsp, now)?;
        self.rules.check_name(leaf)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.genuine.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.genuine.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.genuine.supported_verify_schemes()
    }
}
