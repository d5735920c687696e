//! What is known of a backup without opening it: a small JSON file beside it. And which backups a directory holds.
//!
//! Invariant: nothing is deleted but files that a manifest of the same cluster stands beside, and never the newest.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

use super::seal::with_suffix;
use crate::error::Error;
use crate::host::local::Put;

const KIND: &str = "provision-backup";
const SUFFIX: &str = ".json";
const VERSION: u32 = 1;

/// What a backup holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Says that the file is ours.
    kind: String,
    /// Format of this record.
    version: u32,
    /// The cluster.
    pub cluster: String,
    /// Its ID, in hexadecimal.
    pub cluster_id: String,
    /// The member that it comes from.
    pub member: String,
    /// What that runs.
    pub server_version: String,
    /// When it was taken.
    #[serde(with = "rfc3339")]
    pub taken_at: OffsetDateTime,
    /// The last revision in it; at least this one where the backup is encrypted and was not verified.
    pub revision: i64,
    /// How many keys it holds; not known where it is encrypted and was not verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<u64>,
    /// Bytes of the snapshot, with its checksum.
    pub snapshot_size: u64,
    /// The checksum at its end.
    pub snapshot_sha256: String,
    /// Bytes of the file, which is longer where it is encrypted.
    pub file_size: u64,
    /// Who can decrypt it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub encrypted_to: Vec<String>,
    /// How it was tried out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified: Option<Verified>,
}

/// What came of restoring a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// What served it.
    pub by: String,
    /// The hash of its keys, which the cluster gave for the same revision.
    pub hash_kv: u32,
    /// From which revision on its history is kept.
    pub compact_revision: i64,
}

/// A backup in a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Backup {
    /// Where.
    pub path: PathBuf,
    /// What.
    #[serde(flatten)]
    pub manifest: Manifest,
}

/// How long backups are kept. One is deleted when none of the given rules keeps it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// The last so many.
    pub count: Option<usize>,
    /// Those that are younger.
    pub age: Option<Duration>,
}

impl Manifest {
    /// A manifest of a backup that is not encrypted, counted or verified.
    #[must_use]
    pub fn new(cluster: &str, taken_at: OffsetDateTime) -> Self {
        Self {
            kind: KIND.to_owned(),
            version: VERSION,
            cluster: cluster.to_owned(),
            cluster_id: String::new(),
            member: String::new(),
            server_version: String::new(),
            taken_at,
            revision: 0,
            keys: None,
            snapshot_size: 0,
            snapshot_sha256: String::new(),
            file_size: 0,
            encrypted_to: Vec::new(),
            verified: None,
        }
    }

    /// The name that its file gets.
    #[must_use]
    pub fn file_name(&self) -> String {
        let form =
            format_description!("[year][month][day]T[hour][minute][second].[subsecond digits:3]Z");
        let time = self.taken_at.format(&form).unwrap_or_default();
        let encrypted = if self.encrypted_to.is_empty() {
            ""
        } else {
            ".age"
        };
        format!("{}-{}-{time}.db{encrypted}", self.cluster, self.revision)
    }

    /// When it was taken, for people.
    #[must_use]
    pub fn time(&self) -> String {
        self.taken_at.format(&Rfc3339).unwrap_or_default()
    }

    /// Writes it beside its backup.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, backup: &Path) -> Result<(), Error> {
        let mut bytes = serde_json::to_vec_pretty(self)
            .map_err(|error| Error::because("cannot write a manifest", error))?;
        bytes.push(b'\n');
        let put = Put {
            path: with_suffix(backup, SUFFIX),
            mode: 0o600,
            owner: None,
            keep: false,
        };
        put.write(&bytes)
    }

    /// Reads the one beside a backup; `None` where there is none that is ours.
    ///
    /// # Errors
    /// It is there and cannot be read.
    pub fn read(backup: &Path) -> Result<Option<Self>, Error> {
        let path = with_suffix(backup, SUFFIX);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("read", &path)(error)),
        };
        let manifest = serde_json::from_slice::<Self>(&bytes).ok();
        Ok(manifest.filter(|manifest| manifest.kind == KIND))
    }

    /// Removes the one beside a backup that did not come to be.
    pub(super) fn remove(backup: &Path) {
        let _best_effort = fs::remove_file(with_suffix(backup, SUFFIX));
    }
}

/// The backups of a cluster in a directory, the newest first.
///
/// # Errors
/// The directory cannot be read; one that does not exist holds none.
pub fn list(dir: &Path, cluster: &str) -> Result<Vec<Backup>, Error> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("read", dir)(error)),
    };
    let mut backups = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str().and_then(|name| name.strip_suffix(SUFFIX)) else {
            continue;
        };
        let path = dir.join(name);
        if let Some(manifest) = Manifest::read(&path)?
            && manifest.cluster == cluster
            && fs::symlink_metadata(&path)
                .is_ok_and(|meta| meta.is_file() && meta.len() == manifest.file_size)
        {
            backups.push(Backup { path, manifest });
        }
    }
    backups.sort_by(|a, b| {
        let key = |backup: &Backup| (backup.manifest.taken_at, backup.path.clone());
        key(b).cmp(&key(a))
    });
    Ok(backups)
}

/// Deletes those that no rule keeps, and says which. `backups` are the newest first.
///
/// # Errors
/// A file cannot be deleted.
pub fn prune(
    backups: &[Backup],
    retention: Retention,
    now: OffsetDateTime,
) -> Result<Vec<PathBuf>, Error> {
    let mut deleted = Vec::new();
    for backup in expired(backups, retention, now) {
        for path in [backup.path.clone(), with_suffix(&backup.path, SUFFIX)] {
            fs::remove_file(&path).map_err(Error::io("delete", &path))?;
        }
        deleted.push(backup.path.clone());
    }
    Ok(deleted)
}

fn expired(backups: &[Backup], retention: Retention, now: OffsetDateTime) -> Vec<&Backup> {
    let Retention { count, age } = retention;
    if count.is_none() && age.is_none() {
        return Vec::new();
    }
    let is_kept = |(index, backup): &(usize, &Backup)| {
        *index == 0
            || count.is_some_and(|count| *index < count)
            || age.is_some_and(|age| now - backup.manifest.taken_at < age)
    };
    let backups = backups.iter().enumerate();
    let gone = backups.filter(|backup| !is_kept(backup));
    gone.map(|(_, backup)| backup).collect()
}

mod rfc3339 {
    use serde::{Deserialize, Deserializer, Serializer, de, ser};
    use time::OffsetDateTime;
    use time::format_description::well_known::Rfc3339;

    pub(super) fn serialize<S: Serializer>(
        time: &OffsetDateTime,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.serialize_str(&time.format(&Rfc3339).map_err(ser::Error::custom)?)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<OffsetDateTime, D::Error> {
        let text = String::deserialize(from)?;
        OffsetDateTime::parse(&text, &Rfc3339).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    const NOW: OffsetDateTime = datetime!(2026-11-22 12:00 UTC);

    fn backup(dir: &Path, cluster: &str, revision: i64, days: i64) -> Backup {
        let mut manifest = Manifest::new(cluster, NOW - time::Duration::days(days));
        manifest.revision = revision;
        manifest.file_size = 3;
        let path = dir.join(manifest.file_name());
        manifest.write(&path).unwrap();
        fs::write(&path, "abc").unwrap();
        Backup { path, manifest }
    }

    fn revisions(backups: &[Backup]) -> Vec<i64> {
        backups
            .iter()
            .map(|backup| backup.manifest.revision)
            .collect()
    }

    #[test]
    fn a_backup_is_named_after_its_cluster_revision_and_time() {
        let mut manifest = Manifest::new("demo", NOW);
        manifest.revision = 17;
        assert_eq!(manifest.file_name(), "demo-17-20261122T120000.000Z.db");
        manifest.encrypted_to.push("age1x".to_owned());
        assert_eq!(manifest.file_name(), "demo-17-20261122T120000.000Z.db.age");
    }

    #[test]
    fn only_what_no_rule_keeps_is_deleted_and_never_the_newest() {
        let dir = tempfile::tempdir().unwrap();
        for (revision, days) in [(1, 40), (2, 20), (3, 10), (4, 1)] {
            backup(dir.path(), "demo", revision, days);
        }
        let all = list(dir.path(), "demo").unwrap();
        assert_eq!(revisions(&all), [4, 3, 2, 1]);
        let gone = |count, days: Option<u64>| {
            let age = days.map(|days| Duration::from_secs(days * 86_400));
            let gone = expired(&all, Retention { count, age }, NOW);
            gone.into_iter()
                .map(|backup| backup.manifest.revision)
                .collect::<Vec<_>>()
        };
        assert_eq!(gone(None, None), [0_i64; 0]);
        assert_eq!(gone(Some(2), None), [2, 1]);
        assert_eq!(gone(None, Some(15)), [2, 1]);
        assert_eq!(gone(Some(1), Some(15)), [2, 1]);
        assert_eq!(gone(Some(3), Some(15)), [1]);
        assert_eq!(gone(Some(0), Some(0)), [3, 2, 1]);
    }

    #[test]
    fn files_of_others_are_neither_listed_nor_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let old = backup(dir.path(), "demo", 1, 30);
        let other = backup(dir.path(), "other", 1, 90);
        let changed = backup(dir.path(), "demo", 2, 80);
        fs::write(&changed.path, "longer").unwrap();
        fs::write(dir.path().join("demo-3-20260101T000000Z.db"), "abc").unwrap();
        fs::write(dir.path().join("notes.json"), "{}").unwrap();
        fs::write(dir.path().join("notes"), "").unwrap();
        backup(dir.path(), "demo", 4, 0);
        let all = list(dir.path(), "demo").unwrap();
        assert_eq!(revisions(&all), [4, 1]);
        let count = Some(1);
        let deleted = prune(&all, Retention { count, age: None }, NOW).unwrap();
        assert_eq!(deleted, [old.path]);
        assert!(other.path.exists() && changed.path.exists());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 9);
    }
}
