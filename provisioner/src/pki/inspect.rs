//! What a certificate on disk says.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use serde::Serialize;
use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::pem::Pem;

use super::error::PkiError;

/// The facts of one certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CertInfo {
    /// Common name of the subject.
    pub common_name: String,
    /// Common name of the issuer.
    pub issuer: String,
    /// In hex.
    pub serial: String,
    /// DNS names and IP addresses.
    pub names: BTreeSet<String>,
    /// First moment of validity, in seconds since 1970.
    pub not_before: i64,
    /// Last moment of validity, in seconds since 1970.
    pub not_after: i64,
    /// Whether it may sign others.
    pub is_ca: bool,
    /// For servers.
    pub server_auth: bool,
    /// For clients.
    pub client_auth: bool,
    /// DER of the public key, without its algorithm.
    #[serde(skip)]
    pub public_key: Vec<u8>,
    /// DER of the whole certificate.
    #[serde(skip)]
    pub der: Vec<u8>,
}

impl CertInfo {
    /// Whole days until the end, rounded down; negative after it.
    pub fn days_left(&self, now: OffsetDateTime) -> i64 {
        (self.not_after - now.unix_timestamp()).div_euclid(86_400)
    }

    /// Whether the CA's key made this certificate's signature.
    pub fn is_signed_by(&self, ca: &Self) -> bool {
        let parse = |der| {
            x509_parser::parse_x509_certificate(der)
                .ok()
                .map(|(_, certificate)| certificate)
        };
        match (parse(&self.der), parse(&ca.der)) {
            (Some(this), Some(ca)) => {
                this.issuer() == ca.subject()
                    && this.verify_signature(Some(ca.public_key())).is_ok()
            }
            _ => false,
        }
    }
}

/// Reads the first certificate of a PEM file.
///
/// # Errors
/// The file cannot be read, or holds no certificate.
pub fn inspect(path: &Path) -> Result<CertInfo, PkiError> {
    let bytes = std::fs::read(path).map_err(PkiError::io("read", path))?;
    parse(&bytes).map_err(|reason| PkiError::NotACertificate {
        path: path.to_path_buf(),
        reason,
    })
}

/// Reads the first certificate of PEM text; the error is a clause that says what is wrong.
pub(super) fn parse(pem: &[u8]) -> Result<CertInfo, String> {
    for block in Pem::iter_from_buffer(pem) {
        let block = block.map_err(|error| error.to_string())?;
        if block.label != "CERTIFICATE" {
            continue;
        }
        let (_, certificate) = x509_parser::parse_x509_certificate(&block.contents)
            .map_err(|error| error.to_string())?;
        return facts(&certificate, &block.contents)
            .ok_or_else(|| "its extensions are malformed".to_owned());
    }
    Err("it holds no certificate".to_owned())
}

fn facts(certificate: &X509Certificate<'_>, der: &[u8]) -> Option<CertInfo> {
    let common_name = |name: &x509_parser::x509::X509Name<'_>| {
        name.iter_common_name()
            .next()
            .and_then(|part| part.as_str().ok())
            .unwrap_or_default()
            .to_owned()
    };
    let names = certificate
        .subject_alternative_name()
        .ok()?
        .map(|extension| {
            extension
                .value
                .general_names
                .iter()
                .filter_map(general_name)
                .collect()
        })
        .unwrap_or_default();
    // A certificate that says nothing about its purpose serves all.
    let usage = certificate
        .extended_key_usage()
        .ok()?
        .map(|extension| extension.value.clone());
    let has = |purpose: fn(&x509_parser::extensions::ExtendedKeyUsage<'_>) -> bool| {
        usage
            .as_ref()
            .is_none_or(|usage| usage.any || purpose(usage))
    };
    let may_sign = certificate
        .key_usage()
        .ok()?
        .is_none_or(|usage| usage.value.key_cert_sign());
    Some(CertInfo {
        common_name: common_name(certificate.subject()),
        issuer: common_name(certificate.issuer()),
        serial: certificate
            .raw_serial()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect(),
        names,
        not_before: certificate.validity().not_before.timestamp(),
        not_after: certificate.validity().not_after.timestamp(),
        is_ca: certificate.is_ca() && may_sign,
        server_auth: has(|usage| usage.server_auth),
        client_auth: has(|usage| usage.client_auth),
        public_key: certificate.public_key().subject_public_key.data.to_vec(),
        der: der.to_vec(),
    })
}

fn general_name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let ip = match *bytes {
                [a, b, c, d] => IpAddr::from([*a, *b, *c, *d]),
                bytes => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?),
            };
            Some(ip.to_string())
        }
        _ => None,
    }
}
