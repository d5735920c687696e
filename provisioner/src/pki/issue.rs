//! Makes what `plan` listed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256,
};
use time::OffsetDateTime;

use super::action::{CertAction, CertKind};
use super::authority::{self, Authority, read_text};
use super::error::PkiError;
use super::plan::{Wanted, plan, wanted};
use super::write::{NewFile, write_files};
use crate::instance::{Instance, KeyPaths};
use crate::topology::Topology;

/// Plans and applies; returns what was done.
///
/// # Errors
/// As [`plan`] and [`apply`].
pub fn ensure(
    topology: &Topology,
    instance: &Instance,
    now: OffsetDateTime,
) -> Result<Vec<CertAction>, PkiError> {
    let actions = plan(topology, instance, now)?;
    apply(topology, instance, &actions, now)?;
    Ok(actions)
}

/// Makes the listed certificates. An action that was interrupted is planned again.
///
/// # Errors
/// The CA cannot be read, or a file cannot be written; every file is whole or absent.
pub fn apply(
    topology: &Topology,
    instance: &Instance,
    actions: &[CertAction],
    now: OffsetDateTime,
) -> Result<(), PkiError> {
    if actions.is_empty() {
        return Ok(());
    }
    let authority = authority(topology, instance, actions, now)?;
    // More than the one that signs, while it is being replaced.
    let trusted = read_text(&instance.ca().cert)?;
    let mut wanted = wanted(topology, instance)?;
    wanted.retain(|wanted| actions.iter().any(|action| action.kind == wanted.kind));
    let mut by_dir: BTreeMap<PathBuf, Vec<NewFile>> = BTreeMap::new();
    for wanted in &wanted {
        let dir = wanted
            .paths
            .cert
            .parent()
            .unwrap_or(Path::new("/"))
            .to_path_buf();
        by_dir
            .entry(dir)
            .or_default()
            .extend(issue(wanted, &authority, &trusted, topology, now)?);
    }
    // The time goes into fsync, so the directories are written side by side.
    let (sender, faults) = mpsc::channel();
    std::thread::scope(|scope| {
        for (dir, files) in &by_dir {
            let sender = sender.clone();
            scope.spawn(move || {
                if let Err(fault) = write_files(dir, files) {
                    // The receiver lives as long as the scope.
                    let _ = sender.send(fault);
                }
            });
        }
    });
    drop(sender);
    faults.try_recv().map_or(Ok(()), Err)
}

/// The CA to sign with: the one just made, the operator's, or the one on disk.
fn authority(
    topology: &Topology,
    instance: &Instance,
    actions: &[CertAction],
    now: OffsetDateTime,
) -> Result<Authority, PkiError> {
    let paths = instance.ca();
    let new = actions.iter().any(|action| action.kind == CertKind::Ca);
    let (authority, files) = match &topology.tls.ca {
        Some(own) => {
            let authority = Authority::read(&KeyPaths {
                cert: own.cert.clone(),
                key: own.key.clone(),
            })?;
            let files = vec![public(&paths.cert, &authority.cert_pem)];
            (authority, files)
        }
        None if new => {
            let authority = Authority::generate(&topology.name, now)?;
            // The key is placed first: a certificate without its key would be a CA that cannot sign.
            let files = vec![
                secret(&paths.key, &authority.key_pem),
                public(&paths.cert, &authority.cert_pem),
            ];
            (authority, files)
        }
        None => (Authority::read(&paths)?, Vec::new()),
    };
    if new {
        write_files(&instance.pki_dir, &files)?;
    }
    Ok(authority)
}

fn issue(
    wanted: &Wanted,
    authority: &Authority,
    trusted: &str,
    topology: &Topology,
    now: OffsetDateTime,
) -> Result<Vec<NewFile>, PkiError> {
    if matches!(wanted.kind, CertKind::Trust(_)) {
        return Ok(vec![public(&wanted.paths.cert, trusted)]);
    }
    let what = wanted.kind.to_string();
    let fault = |source| PkiError::Issue {
        what: what.clone(),
        source,
    };
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(fault)?;
    let mut params =
        CertificateParams::new(wanted.names.iter().cloned().collect::<Vec<_>>()).map_err(fault)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, wanted.common_name.as_str());
    params
        .distinguished_name
        .push(DnType::OrganizationName, topology.name.as_str());
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    // A server certificate is a client's too: a member calls its own client port from its JSON gateway.
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    if wanted.server_auth {
        params
            .extended_key_usages
            .push(ExtendedKeyUsagePurpose::ServerAuth);
    }
    params.use_authority_key_identifier_extension = true;
    (params.not_before, params.not_after) =
        authority::validity(now, i64::from(topology.tls.validity_days));
    let cert = authority.sign(&what, &params, &key)?;
    Ok(vec![
        secret(&wanted.paths.key, &key.serialize_pem()),
        public(&wanted.paths.cert, &cert),
    ])
}

pub(super) fn secret(path: &Path, pem: &str) -> NewFile {
    NewFile {
        path: path.to_path_buf(),
        bytes: pem.as_bytes().to_vec(),
        mode: 0o600,
    }
}

pub(super) fn public(path: &Path, pem: &str) -> NewFile {
    NewFile {
        path: path.to_path_buf(),
        bytes: pem.as_bytes().to_vec(),
        mode: 0o644,
    }
}
