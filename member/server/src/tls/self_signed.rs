//! `--auto-tls`, `--peer-auto-tls`: certificates that the member makes for itself, and keeps.
//!
//! They encrypt and prove nothing: nobody signs them. Unlike etcd's they also name the advertised hosts, as the guide
//! says, and their keys are of curve P-256, which the TLS library can sign with.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use member_flags::Url;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use time::OffsetDateTime;

/// A year, as etcd counts it.
const DAYS_PER_YEAR: i64 = 365;

/// More would pass the year 9999, the last that a certificate can say.
const MOST_DAYS: i64 = 7900 * DAYS_PER_YEAR;

/// A certificate that cannot be made or kept.
#[derive(Debug, thiserror::Error)]
pub enum SelfSignedError {
    /// It cannot be made.
    #[error("cannot make a certificate for {hosts}")]
    Make {
        /// The names that it was to carry.
        hosts: String,
        /// Why.
        source: rcgen::Error,
    },
    /// It would be valid for longer than a date can say.
    #[error("--self-signed-cert-validity {years} is too long")]
    Validity {
        /// The years.
        years: u64,
    },
    /// It cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The files of a certificate in `dir`, which are made if one of them is missing.
pub(crate) fn ensure<'a>(
    dir: &Path,
    urls: impl IntoIterator<Item = &'a Url>,
    years: u64,
) -> Result<(PathBuf, PathBuf), SelfSignedError> {
    let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    if cert.exists() && key.exists() {
        return Ok((cert, key));
    }
    let hosts: BTreeSet<String> = urls
        .into_iter()
        .map(|url| url.host().trim_matches(['[', ']']).to_owned())
        .collect();
    let (cert_pem, key_pem) = make(hosts, years)?;
    let write = |path: &Path, text: &str, mode| {
        write_new(path, text, mode).map_err(|source| SelfSignedError::Write {
            path: path.to_owned(),
            source,
        })
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|source| SelfSignedError::Write {
            path: dir.to_owned(),
            source,
        })?;
    write(&key, &key_pem, 0o600)?;
    write(&cert, &cert_pem, 0o644)?;
    Ok((cert, key))
}

fn make(hosts: BTreeSet<String>, years: u64) -> Result<(String, String), SelfSignedError> {
    let start = OffsetDateTime::now_utc();
    let end = i64::try_from(years)
        .ok()
        .and_then(|years| years.checked_mul(DAYS_PER_YEAR))
        .filter(|days| *days < MOST_DAYS)
        .and_then(|days| start.checked_add(time::Duration::days(days)))
        .ok_or(SelfSignedError::Validity { years })?;
    let names = hosts.iter().cloned().collect::<Vec<_>>();
    let failed = |source| SelfSignedError::Make {
        hosts: names.join(", "),
        source,
    };
    let mut params = CertificateParams::new(names.clone()).map_err(failed)?;
    params.not_before = start;
    params.not_after = end;
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::OrganizationName, "etcd");
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
    ];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let key = KeyPair::generate().map_err(failed)?;
    let cert = params.self_signed(&key).map_err(failed)?;
    Ok((cert.pem(), key.serialize_pem()))
}

/// Writes a file whole or not at all.
fn write_new(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let partial = path.with_extension("tmp");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&partial)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&partial, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    use x509_parser::prelude::{FromDer, X509Certificate};

    use super::super::origin::Names;
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn a_certificate_is_made_once_and_again_when_a_file_is_missing() {
        let dir = tempfile::TempDir::new().unwrap();
        let dir = dir.path().join("fixtures/client");
        let urls = [
            url("https://10.0.1.10:2379"),
            url("https://[::1]:2379"),
            url("https://infra0.example.com:2379"),
        ];
        let (cert, key) = ensure(&dir, &urls, 2).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&dir), mode(&key), mode(&cert)), (0o700, 0o600, 0o644));
        let der = CertificateDer::from_pem_file(&cert).unwrap();
        let (_, parsed) = X509Certificate::from_der(&der).unwrap();
        assert_eq!(parsed.subject().to_string(), "O=etcd");
        let validity = parsed.validity();
        let seconds = validity.not_after.timestamp() - validity.not_before.timestamp();
        assert_eq!(seconds, 2 * 365 * 24 * 60 * 60);
        let names = Names::of(&der);
        assert_eq!(names.hosts, ["infra0.example.com"]);
        assert_eq!(names.addresses.len(), 2);

        let first = fs::read(&cert).unwrap();
        ensure(&dir, &urls, 1).unwrap();
        assert_eq!(fs::read(&cert).unwrap(), first);
        fs::remove_file(&key).unwrap();
        ensure(&dir, &urls, 1).unwrap();
        assert_ne!(fs::read(&cert).unwrap(), first);
    }

    #[test]
    fn a_certificate_that_cannot_be_is_refused_before_anything_is_written() {
        let dir = tempfile::TempDir::new().unwrap();
        for years in [u64::MAX, 8000] {
            let error = ensure(&dir.path().join("x"), &[url("https://a:1")], years).unwrap_err();
            assert!(matches!(error, SelfSignedError::Validity { .. }), "{error}");
        }
        assert!(!dir.path().join("x").exists());
    }
}
