//! Another CA in place of a cluster's, while the cluster runs.
//!
//! In three stages, between which every member is restarted: all trust the old and the new CA; all show certificates of the new
//! one; nobody trusts the old one any more. The CA's certificate file is a bundle meanwhile, and the first certificate in it is the
//! one that signs. A stage that was cut off is taken again from its beginning.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use time::OffsetDateTime;
use time::macros::format_description;

use super::authority::{self, Authority, read_text};
use super::error::PkiError;
use super::inspect;
use super::issue::{public, secret};
use super::write::{NewFile, write_files};
use crate::instance::{CaStage, Instance, KeyPaths};
use crate::topology::Topology;

/// Brings the CA's own files to a stage.
///
/// # Errors
/// The new CA cannot be used, or a file cannot be read or written.
pub fn take_stage(
    topology: &Topology,
    instance: &Instance,
    stage: CaStage,
    now: OffsetDateTime,
) -> Result<(), PkiError> {
    let (ca, next, old) = (instance.ca(), instance.next_ca(), instance.old_ca());
    match stage {
        CaStage::Trust => {
            make_next(topology, instance, now)?;
            if !old.exists() {
                let former = first(&read_text(&ca.cert)?).to_owned();
                place(instance, vec![public(&old, &former)])?;
            }
            let bundle = read_text(&old)? + &read_text(&next.cert)?;
            place(instance, vec![public(&ca.cert, &bundle)])
        }
        CaStage::Reissue => {
            let bundle = read_text(&next.cert)? + &read_text(&old)?;
            let mut files = Vec::new();
            if topology.tls.ca.is_none() {
                // The key is placed first, as when a CA is made.
                files.push(secret(&ca.key, &read_text(&next.key)?));
            }
            files.push(public(&ca.cert, &bundle));
            place(instance, files)
        }
        CaStage::Drop => {
            // A run that was cut off may have come so far already.
            if next.cert.exists() {
                place(instance, vec![public(&ca.cert, &read_text(&next.cert)?)])?;
            }
            for path in [&next.key, &next.cert, &old] {
                match fs::remove_file(path) {
                    Err(error) if error.kind() != ErrorKind::NotFound => {
                        return Err(PkiError::io("delete", path)(error));
                    }
                    _ => {}
                }
            }
            Ok(())
        }
    }
}

// The CA that comes: the operator's own, or a new one.
fn make_next(
    topology: &Topology,
    instance: &Instance,
    now: OffsetDateTime,
) -> Result<(), PkiError> {
    let next = instance.next_ca();
    if let Some(own) = &topology.tls.ca {
        let pair = KeyPaths {
            cert: own.cert.clone(),
            key: own.key.clone(),
        };
        let authority = Authority::read(&pair)?;
        authority::check(&own.cert, &inspect::inspect(&own.cert)?, now, true)?;
        return place(instance, vec![public(&next.cert, &authority.cert_pem)]);
    }
    if next.cert.exists() && Authority::read(&next).is_ok() {
        return Ok(());
    }
    // A name of its own, so that people and programs can tell the two apart.
    let date = format_description!("[year]-[month]-[day] [hour]:[minute]:[second]");
    let name = format!(
        "{} {}",
        topology.name,
        now.format(&date).unwrap_or_else(|_| "next".to_owned())
    );
    let authority = Authority::generate(&name, now)?;
    let files = vec![
        secret(&next.key, &authority.key_pem),
        public(&next.cert, &authority.cert_pem),
    ];
    place(instance, files)
}

fn place(instance: &Instance, files: Vec<NewFile>) -> Result<(), PkiError> {
    write_files(&instance.pki_dir, &files)
}

/// The first certificate of a bundle.
fn first(pem: &str) -> &str {
    const END: &str = "-----END CERTIFICATE-----\n";
    pem.find(END).map_or(pem, |at| &pem[..at + END.len()])
}

/// Whether a file holds the same bytes as another.
pub(super) fn same(one: &Path, other: &Path) -> bool {
    matches!((fs::read(one), fs::read(other)), (Ok(one), Ok(other)) if one == other)
}

#[cfg(test)]
mod tests {
    use super::super::{CertKind, ensure, plan};
    use super::*;
    use crate::instance::Placement;
    use crate::plan::testing::topology;

    fn stages(cut_off: bool) {
        let dir = tempfile::tempdir().unwrap();
        let topology = topology(1);
        let mut instance = Instance::new("demo", "t", dir.path());
        let place = Placement::new(dir.path(), "infra0", 1, 2);
        instance.members.insert("infra0".to_owned(), place.clone());
        let now = OffsetDateTime::now_utc();
        ensure(&topology, &instance, now).unwrap();
        let first_ca = inspect::inspect(&instance.ca().cert).unwrap();
        let times = if cut_off { 2 } else { 1 };
        let mut written = Vec::new();
        for stage in [CaStage::Trust, CaStage::Reissue, CaStage::Drop] {
            instance.rotation = Some(stage);
            for _ in 0..times {
                take_stage(&topology, &instance, stage, now).unwrap();
            }
            let actions = ensure(&topology, &instance, now).unwrap();
            let leaves = |kind: &CertKind| !matches!(kind, CertKind::Trust(_));
            written.push(actions.iter().filter(|action| leaves(&action.kind)).count());
            assert!(plan(&topology, &instance, now).unwrap().is_empty());
            // What a member shows is trusted by who has the bundle of this stage.
            let shown = inspect::inspect(&place.peer().cert).unwrap();
            let bundle = fs::read_to_string(place.ca_cert()).unwrap();
            let count = bundle.matches("BEGIN CERTIFICATE").count();
            assert_eq!(count, if stage == CaStage::Drop { 1 } else { 2 });
            let signer = inspect::parse(bundle.as_bytes()).unwrap();
            assert!(shown.is_signed_by(&signer), "{stage:?}");
        }
        assert_eq!(written, [0, 3, 0], "operator, peer and server");
        let last_ca = inspect::inspect(&instance.ca().cert).unwrap();
        assert_ne!(first_ca.public_key, last_ca.public_key);
        assert_ne!(first_ca.common_name, last_ca.common_name);
        let mut left: Vec<_> = fs::read_dir(&instance.pki_dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["ca.crt", "ca.key", "operator.crt", "operator.key"]);
    }

    #[test]
    fn the_ca_is_replaced_in_three_stages() {
        stages(false);
    }

    #[test]
    fn a_stage_that_was_cut_off_is_taken_again() {
        stages(true);
    }
}
