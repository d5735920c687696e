//! A certificate authority of a scenario, and the certificates, good and bad ones, that it signs.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use time::OffsetDateTime;

use super::failure::Failure;
use super::stage::Stage;

/// A certificate authority.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    cert: String,
    key: String,
}

/// A certificate to sign.
pub(super) struct Leaf<'a> {
    /// Its common name, and the name of its files.
    pub(super) name: &'a str,
    pub(super) serial: u64,
    /// Addresses and names that it is good for.
    pub(super) hosts: &'a [&'a str],
    pub(super) expired: bool,
}

impl Authority {
    pub(super) fn new(name: &str) -> Result<Self, Failure> {
        let mut params = CertificateParams::default();
        params.distinguished_name = named(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let make = || -> Result<_, rcgen::Error> {
            let key = KeyPair::generate()?;
            let cert = params.self_signed(&key)?;
            Ok((cert.pem(), key.serialize_pem(), key))
        };
        let (cert, pem, key) = make().map_err(certificate)?;
        Ok(Self {
            issuer: Issuer::new(params, key),
            cert,
            key: pem,
        })
    }

    pub(super) fn cert_pem(&self) -> &str {
        &self.cert
    }

    pub(super) fn key_pem(&self) -> &str {
        &self.key
    }

    /// Signs a certificate and writes it, its key and the authority's own certificate.
    pub(super) fn issue(&self, stage: &Stage, leaf: &Leaf<'_>) -> Result<(), Failure> {
        let make = || -> Result<_, rcgen::Error> {
            let hosts: Vec<String> = leaf.hosts.iter().map(|&host| host.to_owned()).collect();
            let mut params = CertificateParams::new(hosts)?;
            params.distinguished_name = named(leaf.name);
            params.serial_number = Some(SerialNumber::from(leaf.serial));
            if leaf.expired {
                let now = OffsetDateTime::now_utc();
                params.not_before = now - time::Duration::days(3);
                params.not_after = now - time::Duration::days(1);
            }
            let key = KeyPair::generate()?;
            let cert = params.signed_by(&key, &self.issuer)?;
            Ok((cert.pem(), key.serialize_pem()))
        };
        let (cert, key) = make().map_err(certificate)?;
        stage.write(&format!("{}.crt", leaf.name), cert)?;
        stage.write(&format!("{}.key", leaf.name), key)?;
        stage.write("ca.crt", &self.cert)?;
        Ok(())
    }

    /// Writes the list of revoked certificates; its path.
    pub(super) fn revoke(&self, stage: &Stage, serials: &[u64]) -> Result<String, Failure> {
        let now = OffsetDateTime::now_utc();
        let revoked = serials.iter().map(|&serial| RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: now,
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: now,
            next_update: now + time::Duration::days(1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.issuer).map_err(certificate)?;
        let path = stage.write("list.crl", list.pem().map_err(certificate)?)?;
        Ok(path.display().to_string())
    }
}

fn named(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

fn certificate(error: rcgen::Error) -> Failure {
    Failure::setup("a certificate", &error)
}
