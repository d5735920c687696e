//! What is missing or wrong among a cluster's certificates. Reads files, changes none.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rcgen::KeyPair;
use time::OffsetDateTime;

use super::action::{CertAction, CertKind, Reason};
use super::authority;
use super::error::PkiError;
use super::inspect::{CertInfo, inspect};
use super::rotate::same;
use crate::instance::{Instance, KeyPaths, Placement};
use crate::render::record_name;
use crate::topology::{Bootstrap, Member, Topology};

/// Leaf certificates are renewed this many days before their end, or at two thirds of a shorter life.
const RENEW_DAYS: i64 = 30;

/// The name that etcd's authentication takes from the operator's certificate: its administrator.
pub const OPERATOR: &str = "root";

/// Whether any port needs certificates that a CA has signed.
pub fn needs_ca(topology: &Topology) -> bool {
    topology.tls.peer.is_signed() || topology.tls.client.is_signed()
}

/// Lists what `apply` would write, in the order in which it must be done. Empty when all is well or no port needs any.
///
/// # Errors
/// The CA cannot be used: not readable, not a CA, expired, changed, or its key is another's or lost.
pub fn plan(
    topology: &Topology,
    instance: &Instance,
    now: OffsetDateTime,
) -> Result<Vec<CertAction>, PkiError> {
    if !needs_ca(topology) {
        return Ok(Vec::new());
    }
    let mut actions = Vec::new();
    let ca = ca(topology, instance, now, &mut actions)?;
    let days = i64::from(topology.tls.validity_days);
    for wanted in wanted(topology, instance)? {
        if let Some(reason) = fault(&wanted, &instance.ca().cert, ca.as_ref(), days, now) {
            actions.push(CertAction {
                kind: wanted.kind,
                paths: wanted.paths,
                reason,
            });
        }
    }
    // Only what is signed needs the key; a copy of the CA's certificate does not.
    let signs = actions
        .iter()
        .any(|action| !matches!(action.kind, CertKind::Ca | CertKind::Trust(_)));
    let makes_ca = actions.iter().any(|action| action.kind == CertKind::Ca);
    if signs && !makes_ca && topology.tls.ca.is_none() && !instance.ca().key.exists() {
        return Err(PkiError::CaKeyLost {
            key: instance.ca().key,
        });
    }
    Ok(actions)
}

/// Lists what [`plan`] does, and every certificate that is well.
///
/// # Errors
/// As [`plan`].
pub fn plan_all(
    topology: &Topology,
    instance: &Instance,
    now: OffsetDateTime,
) -> Result<Vec<CertAction>, PkiError> {
    let mut actions = plan(topology, instance, now)?;
    if !needs_ca(topology) {
        return Ok(actions);
    }
    for wanted in wanted(topology, instance)? {
        let listed = actions.iter().any(|action| action.kind == wanted.kind);
        if !listed && !matches!(wanted.kind, CertKind::Trust(_)) {
            actions.push(CertAction {
                kind: wanted.kind,
                paths: wanted.paths,
                reason: Reason::Asked,
            });
        }
    }
    if topology.tls.ca.is_none() && instance.ca().cert.exists() && !instance.ca().key.exists() {
        return Err(PkiError::CaKeyLost {
            key: instance.ca().key,
        });
    }
    Ok(actions)
}

/// The CA that is in force; `None` when it is still to be made.
fn ca(
    topology: &Topology,
    instance: &Instance,
    now: OffsetDateTime,
    actions: &mut Vec<CertAction>,
) -> Result<Option<CertInfo>, PkiError> {
    let paths = instance.ca();
    let current = match inspect(&paths.cert) {
        Ok(info) => Some(info),
        Err(PkiError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let given = match &topology.tls.ca {
        None => None,
        Some(files) => {
            let info = inspect(&files.cert)?;
            authority::check(&files.cert, &info, now, true)?;
            // The pair is read here so that `validate` and `plan` find a wrong key before anything is written.
            authority::Authority::read(&KeyPaths {
                cert: files.cert.clone(),
                key: files.key.clone(),
            })?;
            Some((files, info))
        }
    };
    match (current, given) {
        (Some(current), Some((files, info)))
            if current.der != info.der && instance.rotation.is_none() =>
        {
            Err(PkiError::CaChanged {
                given: files.cert.clone(),
                current: paths.cert,
            })
        }
        // Only the certificate is copied: the key stays where the operator keeps it.
        (None, Some((_, info))) => {
            actions.push(CertAction {
                kind: CertKind::Ca,
                paths,
                reason: Reason::Missing,
            });
            Ok(Some(info))
        }
        (Some(current), given) => {
            authority::check(&paths.cert, &current, now, given.is_some())?;
            Ok(Some(current))
        }
        (None, None) => {
            actions.push(CertAction {
                kind: CertKind::Ca,
                paths,
                reason: Reason::Missing,
            });
            Ok(None)
        }
    }
}

/// A certificate that should exist.
pub(super) struct Wanted {
    pub(super) kind: CertKind,
    pub(super) paths: KeyPaths,
    pub(super) common_name: String,
    pub(super) names: BTreeSet<String>,
    pub(super) server_auth: bool,
}

/// Every certificate below the CA that the topology asks for.
pub(super) fn wanted(topology: &Topology, instance: &Instance) -> Result<Vec<Wanted>, PkiError> {
    let mut wanted = Vec::new();
    if topology.tls.client.has_clients_certificates() {
        wanted.push(Wanted {
            kind: CertKind::Operator,
            paths: instance.operator(),
            common_name: OPERATOR.to_owned(),
            names: BTreeSet::new(),
            server_auth: false,
        });
        wanted.extend(topology.tls.clients.iter().map(|name| Wanted {
            kind: CertKind::Client(name.clone()),
            paths: instance.client(name),
            common_name: name.clone(),
            names: BTreeSet::new(),
            server_auth: false,
        }));
    }
    for member in &topology.members {
        let place = instance
            .members
            .get(&member.name)
            .ok_or_else(|| PkiError::NotPlaced {
                member: member.name.clone(),
            })?;
        wanted.push(trust(member, place));
        let names = names(topology, member);
        let leaf = |kind, paths| Wanted {
            kind,
            paths,
            common_name: member.name.clone(),
            names: names.clone(),
            server_auth: true,
        };
        if topology.tls.peer.is_signed() {
            wanted.push(leaf(CertKind::Peer(member.name.clone()), place.peer()));
        }
        if topology.tls.client.is_signed() {
            wanted.push(leaf(CertKind::Server(member.name.clone()), place.server()));
        }
    }
    Ok(wanted)
}

fn trust(member: &Member, place: &Placement) -> Wanted {
    let cert = place.ca_cert();
    Wanted {
        kind: CertKind::Trust(member.name.clone()),
        paths: KeyPaths {
            key: cert.clone(),
            cert,
        },
        common_name: String::new(),
        names: BTreeSet::new(),
        server_auth: false,
    }
}

/// The names in a member's certificates: where others reach it, and this machine itself.
fn names(topology: &Topology, member: &Member) -> BTreeSet<String> {
    let mut names: BTreeSet<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
    names.insert(member.address.trim_end_matches('.').to_owned());
    if !member.listen.is_unspecified() {
        names.insert(member.listen.to_string());
    }
    // Members and clients that found each other by SRV records connect to the name that these have, and expect the domain in the
    // certificate, as etcd's do.
    if let Bootstrap::DnsSrv { domain, .. } = &topology.bootstrap {
        names.insert(domain.trim_end_matches('.').to_owned());
        names.extend(record_name(topology, member));
    }
    // A gateway passes TLS through, so that clients see the member's certificate at the gateway's address.
    let gateways = topology.gateways.iter();
    names.extend(
        gateways
            .filter(|gateway| !gateway.listen.is_unspecified())
            .map(|gateway| gateway.listen.to_string()),
    );
    names.extend(
        topology
            .tls
            .extra_sans
            .iter()
            .map(|name| name.trim_end_matches('.').to_owned()),
    );
    names
}

fn fault(
    wanted: &Wanted,
    ca_cert: &Path,
    ca: Option<&CertInfo>,
    days: i64,
    now: OffsetDateTime,
) -> Option<Reason> {
    let info = match inspect(&wanted.paths.cert) {
        Ok(info) => info,
        Err(error) => return Some(unreadable(error)),
    };
    let Some(ca) = ca else {
        return Some(Reason::WrongCa);
    };
    if matches!(wanted.kind, CertKind::Trust(_)) {
        let same = info.der == ca.der && (!ca_cert.exists() || same(&wanted.paths.cert, ca_cert));
        return (!same).then_some(Reason::WrongCa);
    }
    if !info.is_signed_by(ca) {
        return Some(Reason::WrongCa);
    }
    if info.common_name != wanted.common_name {
        return Some(Reason::WrongSubject {
            found: info.common_name,
        });
    }
    if info.names != wanted.names {
        let missing = wanted.names.difference(&info.names).cloned().collect();
        let extra = info.names.difference(&wanted.names).cloned().collect();
        return Some(Reason::WrongNames { missing, extra });
    }
    if !info.client_auth || (wanted.server_auth && !info.server_auth) {
        return Some(Reason::WrongUsage);
    }
    if now.unix_timestamp() < info.not_before {
        return Some(Reason::NotYetValid);
    }
    let renew_before = (RENEW_DAYS * 86_400).min(days * 86_400 / 3);
    if info.not_after - now.unix_timestamp() < renew_before {
        return Some(Reason::Expiring {
            days_left: info.days_left(now),
        });
    }
    key_fault(&wanted.paths.key, &info)
}

fn key_fault(path: &Path, info: &CertInfo) -> Option<Reason> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(source) => {
            return Some(unreadable(PkiError::Io {
                action: "read",
                path: path.to_path_buf(),
                source,
            }));
        }
    };
    let Ok(key) = KeyPair::from_pem(&text) else {
        return Some(Reason::Unreadable {
            why: format!("{} is not a private key", path.display()),
        });
    };
    if key.public_key_raw() != info.public_key {
        return Some(Reason::WrongKey);
    }
    let mode = std::fs::metadata(path).ok()?.permissions().mode() & 0o7777;
    (mode & 0o077 != 0).then_some(Reason::Exposed { mode })
}

fn unreadable(error: PkiError) -> Reason {
    match error {
        PkiError::Io { source, .. } if source.kind() == ErrorKind::NotFound => Reason::Missing,
        PkiError::Io { source, path, .. } => Reason::Unreadable {
            why: format!("{}: {source}", path.display()),
        },
        error => Reason::Unreadable {
            why: error.to_string(),
        },
    }
}
