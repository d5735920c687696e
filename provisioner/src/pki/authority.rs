//! The CA: made once per cluster, or the operator's own.

use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256,
};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use super::error::PkiError;
use super::inspect::{self, CertInfo};
use crate::instance::KeyPaths;

/// A cluster outlives its leaf certificates; replacing a CA is the costly step.
const CA_DAYS: i64 = 3650;
/// Clocks of other hosts may be behind.
const BACKDATED: Duration = Duration::HOUR;

/// A CA that can sign.
pub(super) struct Authority {
    pub(super) cert_pem: String,
    pub(super) key_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes a CA for a cluster.
    pub(super) fn generate(cluster: &str, now: OffsetDateTime) -> Result<Self, PkiError> {
        let fault = |source| PkiError::Issue {
            what: format!("the CA of {cluster}"),
            source,
        };
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(fault)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, format!("{cluster} CA"));
        params
            .distinguished_name
            .push(DnType::OrganizationName, "provision");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        (params.not_before, params.not_after) = validity(now, CA_DAYS);
        let cert_pem = params.self_signed(&key).map_err(fault)?.pem();
        let key_pem = key.serialize_pem();
        Ok(Self {
            cert_pem,
            key_pem,
            issuer: Issuer::new(params, key),
        })
    }

    /// Reads a CA and checks that it can sign now.
    pub(super) fn read(paths: &KeyPaths) -> Result<Self, PkiError> {
        let cert_pem = read_text(&paths.cert)?;
        let key_pem = read_text(&paths.key)?;
        let key = KeyPair::from_pem(&key_pem).map_err(|source| PkiError::NotAKey {
            path: paths.key.clone(),
            source,
        })?;
        let info =
            inspect::parse(cert_pem.as_bytes()).map_err(|reason| PkiError::NotACertificate {
                path: paths.cert.clone(),
                reason,
            })?;
        if key.public_key_raw() != info.public_key {
            return Err(PkiError::KeyOfAnother {
                cert: paths.cert.clone(),
                key: paths.key.clone(),
            });
        }
        let issuer =
            Issuer::from_ca_cert_pem(&cert_pem, key).map_err(|source| PkiError::Issue {
                what: "below this CA".into(),
                source,
            })?;
        Ok(Self {
            cert_pem,
            key_pem,
            issuer,
        })
    }

    /// Signs a certificate; PEM.
    pub(super) fn sign(
        &self,
        what: &str,
        params: &CertificateParams,
        key: &KeyPair,
    ) -> Result<String, PkiError> {
        let certificate =
            params
                .signed_by(key, &self.issuer)
                .map_err(|source| PkiError::Issue {
                    what: what.to_owned(),
                    source,
                })?;
        Ok(certificate.pem())
    }
}

/// Checks that a certificate is a CA's and valid now.
pub(super) fn check(
    cert: &Path,
    info: &CertInfo,
    now: OffsetDateTime,
    brought: bool,
) -> Result<(), PkiError> {
    if !info.is_ca {
        return Err(PkiError::NotACa {
            path: cert.to_path_buf(),
        });
    }
    let stamp = now.unix_timestamp();
    if stamp < info.not_before || stamp > info.not_after {
        return Err(PkiError::CaNotValid {
            cert: cert.to_path_buf(),
            from: show(info.not_before),
            to: show(info.not_after),
            now: show(stamp),
            brought,
        });
    }
    Ok(())
}

/// First and last moment of a certificate that is issued now.
pub(super) fn validity(now: OffsetDateTime, days: i64) -> (OffsetDateTime, OffsetDateTime) {
    (now - BACKDATED, now + Duration::days(days))
}

pub(super) fn read_text(path: &Path) -> Result<String, PkiError> {
    std::fs::read_to_string(path).map_err(PkiError::io("read", path))
}

fn show(stamp: i64) -> String {
    OffsetDateTime::from_unix_timestamp(stamp)
        .ok()
        .and_then(|moment| moment.format(&Rfc3339).ok())
        .unwrap_or_else(|| stamp.to_string())
}
