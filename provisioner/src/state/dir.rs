//! `ROOT/clusters/NAME` and the files in it.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::error::StateError;
use super::file::{Durability, create_private_dir, read_json, replace, replace_json};
use super::journal::Journal;
use super::lock::{Lock, Owner};
use crate::host::local::Process;
use crate::instance::{self, Instance};

const MARKER_KIND: &str = "provision-cluster";
const RECORD: &str = "process.json";
const LOG: &str = "log";

/// The state directory of one cluster. Its files may be absent: a cluster begins as an empty place.
#[derive(Clone, Debug)]
pub struct ClusterDir {
    name: String,
    path: PathBuf,
}

/// One process of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit<'a> {
    /// The member of this name.
    Member(&'a str),
    /// What runs beside the members under this name.
    Service(&'a str),
}

impl Unit<'_> {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Member(name) | Self::Service(name) => name,
        }
    }
}

/// Says that a directory is ours and whose.
#[derive(Debug, Serialize, Deserialize)]
struct Marker {
    kind: String,
    cluster: String,
}

/// What was remembered when a process was started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The process, maybe gone by now.
    pub process: Process,
    /// Its argument vector, program first.
    pub argv: Vec<String>,
    /// When it was started, as RFC 3339.
    pub started_at: String,
}

impl ClusterDir {
    /// The directory of cluster `name` under the state root; touches nothing.
    #[must_use]
    pub fn new(state_root: &Path, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            path: clusters(state_root).join(name),
        }
    }

    /// The cluster's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the instance, after checking that the directory is this cluster's.
    pub fn load(&self) -> Result<Option<Instance>, StateError> {
        if !self.check()? {
            return Ok(None);
        }
        let path = self.instance_file();
        // The version comes first: a later format must not be reported as damage.
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let Some(Versioned { version }) = read_json(&path)? else {
            return Ok(None);
        };
        if version != instance::VERSION {
            return Err(StateError::Newer {
                path,
                found: version,
                known: instance::VERSION,
            });
        }
        let Some(instance) = read_json::<Instance>(&path)? else {
            return Ok(None);
        };
        if instance.cluster != self.name {
            return Err(self.foreign(format!("its instance is of cluster {}", instance.cluster)));
        }
        Ok(Some(instance))
    }

    /// Creates the directory where needed and takes the lock.
    pub fn lock(&self, verb: &str, force: bool) -> Result<Lock, StateError> {
        if !self.check()? {
            create_private_dir(&self.path)?;
            let marker = Marker {
                kind: MARKER_KIND.to_owned(),
                cluster: self.name.clone(),
            };
            replace_json(&self.marker_file(), &marker, Durability::Volatile)?;
        }
        // Modes may have been loosened by hand or by a copy; keys live below.
        fs::set_permissions(&self.path, fs::Permissions::from_mode(0o700))
            .map_err(StateError::io("protect", &self.path))?;
        Lock::acquire(
            &self.lock_file(),
            &format!("cluster {}", self.name),
            verb,
            force,
        )
    }

    /// Who changes the cluster right now, if anybody does.
    #[must_use]
    pub fn holder(&self) -> Option<Owner> {
        Lock::holder(&self.lock_file())
    }

    /// Remembers the instance; flushed to disk on return.
    pub fn save(&self, instance: &Instance) -> Result<(), StateError> {
        replace_json(&self.instance_file(), instance, Durability::Durable)
    }

    /// Remembers the topology that was applied, as its source text.
    pub fn save_topology(&self, source: &str) -> Result<(), StateError> {
        let path = self.topology_file();
        // An `up` without changes should not write.
        if fs::read_to_string(&path).is_ok_and(|old| old == source) {
            return Ok(());
        }
        replace(&path, source.as_bytes(), Durability::Durable)
    }

    /// The topology that was applied last.
    #[must_use]
    pub fn topology_file(&self) -> PathBuf {
        self.path.join("topology.toml")
    }

    /// The directory of one process: its log, record, certificates and data.
    #[must_use]
    pub fn unit_dir(&self, unit: &Unit<'_>) -> PathBuf {
        match unit {
            Unit::Member(name) => self.path.join("members").join(name),
            Unit::Service(name) => self.services_dir().join(name),
        }
    }

    /// Creates the directory of one process.
    pub fn create_unit_dir(&self, unit: &Unit<'_>) -> Result<PathBuf, StateError> {
        let dir = self.unit_dir(unit);
        create_private_dir(&dir)?;
        Ok(dir)
    }

    /// What one process prints.
    #[must_use]
    pub fn unit_log(&self, unit: &Unit<'_>) -> PathBuf {
        self.unit_dir(unit).join(LOG)
    }

    /// The names of what was started beside the members, now or once.
    pub fn services(&self) -> Result<Vec<String>, StateError> {
        names_with(&self.services_dir(), LOG)
    }

    /// Writes a file that a process is about to be given, unless it is there.
    pub fn save_given(&self, path: &Path, text: &str) -> Result<(), StateError> {
        if fs::read_to_string(path).is_ok_and(|old| old == text) {
            return Ok(());
        }
        replace(path, text.as_bytes(), Durability::Volatile)
    }

    /// The record of a process.
    pub fn record(&self, unit: &Unit<'_>) -> Result<Option<Record>, StateError> {
        read_json(&self.record_file(unit))
    }

    /// Remembers a process.
    pub fn save_record(
        &self,
        unit: &Unit<'_>,
        process: &Process,
        argv: &[String],
    ) -> Result<(), StateError> {
        let record = Record {
            process: process.clone(),
            argv: argv.to_vec(),
            started_at: now_text(),
        };
        replace_json(&self.record_file(unit), &record, Durability::Volatile)
    }

    /// Forgets a process.
    pub fn forget_record(&self, unit: &Unit<'_>) -> Result<(), StateError> {
        let record = self.record_file(unit);
        match fs::remove_file(&record) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StateError::io("delete", &record)(error))
            }
            _ => Ok(()),
        }
    }

    /// Moves the data of a member that is in the cluster no more to where no member will find it, and says where. Its process is
    /// forgotten as well: the next one under this name is another member.
    pub fn set_aside(&self, member: &str, data: &Path) -> Result<Option<PathBuf>, StateError> {
        self.forget_record(&Unit::Member(member))?;
        if !data.exists() {
            return Ok(None);
        }
        let removed = self.path.join("removed");
        create_private_dir(&removed)?;
        let mut names = (1..).map(|number| removed.join(format!("{member}.{number}")));
        let place = names.find(|place| !place.exists()).unwrap_or(removed);
        fs::rename(data, &place).map_err(StateError::io("move", data))?;
        Ok(Some(place))
    }

    /// Opens the journal for one run.
    pub fn journal(&self, verb: &str, steps: usize) -> Result<Journal, StateError> {
        Journal::begin(&self.journal_file(), verb, steps)
    }

    /// Where [`Self::journal`] writes.
    #[must_use]
    pub fn journal_file(&self) -> PathBuf {
        self.path.join("journal.jsonl")
    }

    /// Removes the directory again when nothing came to be remembered in it. The caller holds the lock.
    pub fn discard_if_unused(&self) -> Result<(), StateError> {
        if self.instance_file().exists() {
            Ok(())
        } else {
            self.purge()
        }
    }

    /// Deletes everything. The caller holds the lock and has stopped the members.
    pub fn purge(&self) -> Result<(), StateError> {
        if self.check()? {
            fs::remove_dir_all(&self.path).map_err(StateError::io("delete", &self.path))?;
        }
        Ok(())
    }

    fn instance_file(&self) -> PathBuf {
        self.path.join("instance.json")
    }

    fn marker_file(&self) -> PathBuf {
        self.path.join("cluster.json")
    }

    fn lock_file(&self) -> PathBuf {
        self.path.join("lock")
    }

    fn services_dir(&self) -> PathBuf {
        self.path.join("services")
    }

    fn record_file(&self, unit: &Unit<'_>) -> PathBuf {
        self.unit_dir(unit).join(RECORD)
    }

    fn foreign(&self, why: impl Into<String>) -> StateError {
        StateError::Foreign {
            path: self.path.clone(),
            whose: format!("cluster {}", self.name),
            why: why.into(),
        }
    }

    // Whether the directory is this cluster's and this user's; `false`: there is nothing.
    fn check(&self) -> Result<bool, StateError> {
        let meta = match fs::metadata(&self.path) {
            Ok(meta) => meta,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(StateError::io("read", &self.path)(error)),
        };
        if !meta.is_dir() {
            return Err(self.foreign("it is not a directory"));
        }
        let me = rustix::process::geteuid().as_raw();
        if meta.uid() != me {
            return Err(self.foreign(format!(
                "it belongs to uid {}, and this is uid {me}",
                meta.uid()
            )));
        }
        match read_json::<Marker>(&self.marker_file())? {
            Some(marker) if marker.kind != MARKER_KIND => {
                Err(self.foreign("its cluster.json was not written by provision"))
            }
            Some(marker) if marker.cluster != self.name => {
                Err(self.foreign(format!("it is the state of cluster {}", marker.cluster)))
            }
            Some(_) => Ok(true),
            None if self.is_empty()? => Ok(false),
            None => Err(self.foreign("it holds files that provision did not write")),
        }
    }

    fn is_empty(&self) -> Result<bool, StateError> {
        let mut entries = fs::read_dir(&self.path).map_err(StateError::io("read", &self.path))?;
        Ok(entries.next().is_none())
    }
}

/// The names of all clusters under the state root, sorted.
pub fn list(state_root: &Path) -> Result<Vec<String>, StateError> {
    names_with(&clusters(state_root), "cluster.json")
}

/// The names of the directories in `path` that hold a file, sorted; none if there is no such path.
pub(super) fn names_with(path: &Path, file: &str) -> Result<Vec<String>, StateError> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(StateError::io("read", path)(error)),
    };
    let mut names: Vec<String> = entries
        .flatten()
        .filter(|entry| entry.path().join(file).is_file())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    Ok(names)
}

pub(super) fn clusters(state_root: &Path) -> PathBuf {
    state_root.join("clusters")
}

pub(super) fn now_text() -> String {
    OffsetDateTime::now_utc()
        .replace_nanosecond(0)
        .ok()
        .and_then(|now| now.format(&Rfc3339).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir(root: &Path) -> ClusterDir {
        ClusterDir::new(root, "demo")
    }

    #[test]
    fn an_instance_is_remembered_until_it_is_purged() {
        let root = tempfile::tempdir().unwrap();
        let dir = dir(root.path());
        assert_eq!(dir.load().unwrap(), None);
        let lock = dir.lock("up", false).unwrap();
        assert_eq!(dir.load().unwrap(), None);
        let instance = Instance::new("demo", "t", dir.path());
        dir.save(&instance).unwrap();
        assert_eq!(dir.load().unwrap(), Some(instance));
        assert_eq!(list(root.path()).unwrap(), ["demo"]);
        dir.purge().unwrap();
        drop(lock);
        assert_eq!(list(root.path()).unwrap(), [""; 0]);
    }

    #[test]
    fn directories_of_others_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let dir = dir(root.path());
        fs::create_dir_all(dir.path()).unwrap();
        fs::write(dir.path().join("thesis.tex"), "x").unwrap();
        let error = dir.lock("up", false).unwrap_err();
        assert!(matches!(error, StateError::Foreign { .. }), "{error}");
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            1,
            "nothing was added"
        );

        fs::remove_file(dir.path().join("thesis.tex")).unwrap();
        drop(dir.lock("up", false).unwrap());
        let renamed = ClusterDir::new(root.path(), "other");
        fs::rename(dir.path(), renamed.path()).unwrap();
        let error = renamed.load().unwrap_err().to_string();
        assert!(error.contains("state of cluster demo"), "{error}");
    }

    #[test]
    fn a_file_in_place_of_the_directory_is_refused() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("clusters")).unwrap();
        fs::write(root.path().join("clusters/demo"), "").unwrap();
        assert!(matches!(
            dir(root.path()).load(),
            Err(StateError::Foreign { .. })
        ));
    }

    #[test]
    fn a_later_format_is_told_from_damage() {
        let root = tempfile::tempdir().unwrap();
        let dir = dir(root.path());
        let _lock = dir.lock("up", false).unwrap();
        fs::write(dir.instance_file(), r#"{"version":99,"anything":true}"#).unwrap();
        assert!(matches!(
            dir.load(),
            Err(StateError::Newer { found: 99, .. })
        ));
        fs::write(dir.instance_file(), "{").unwrap();
        assert!(matches!(dir.load(), Err(StateError::Damaged { .. })));
    }
}
