//! `ROOT/labs/NAME`: what is remembered of a lab between two runs. What of it runs is looked up.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::dir::names_with;
use super::error::StateError;
use super::file::{Durability, create_private_dir, read_json, replace_json};
use super::lock::Lock;

const VERSION: u32 = 1;

/// The state directory of one lab. It may be absent.
#[derive(Clone, Debug)]
pub struct LabDir {
    name: String,
    path: PathBuf,
}

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    version: u32,
    lab: String,
    hosts: u8,
}

impl LabDir {
    /// The directory of lab `name` under the state root; touches nothing.
    #[must_use]
    pub fn new(state_root: &Path, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            path: labs(state_root).join(name),
        }
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many hosts the lab has, if there is a lab.
    pub fn load(&self) -> Result<Option<u8>, StateError> {
        let Some(record) = read_json::<Record>(&self.file())? else {
            return Ok(None);
        };
        if record.version != VERSION {
            return Err(StateError::Newer {
                path: self.file(),
                found: record.version,
                known: VERSION,
            });
        }
        if record.lab != self.name {
            return Err(self.foreign(format!("it is the state of lab {}", record.lab)));
        }
        Ok(Some(record.hosts))
    }

    /// Creates the directory where needed and takes the lock.
    pub fn lock(&self, verb: &str) -> Result<Lock, StateError> {
        match fs::read_dir(&self.path) {
            Ok(mut entries) => {
                // A run that was killed early leaves the lock alone.
                let ours =
                    entries.all(|entry| entry.is_ok_and(|entry| entry.file_name() == "lock"));
                if !ours && !self.file().exists() {
                    return Err(self.foreign("it holds files that provision did not write".into()));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                create_private_dir(&self.path)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                return Err(self.foreign("it is not a directory".into()));
            }
            Err(error) => return Err(StateError::io("read", &self.path)(error)),
        }
        let what = format!("lab {}", self.name);
        Lock::acquire(&self.path.join("lock"), &what, verb, false)
    }

    /// Remembers how many hosts it has, before any of them is made.
    pub fn save(&self, hosts: u8) -> Result<(), StateError> {
        let record = Record {
            version: VERSION,
            lab: self.name.clone(),
            hosts,
        };
        replace_json(&self.file(), &record, Durability::Durable)
    }

    /// Deletes everything. The caller holds the lock and has ended the lab.
    pub fn purge(&self) -> Result<(), StateError> {
        fs::remove_dir_all(&self.path).map_err(StateError::io("delete", &self.path))
    }

    fn file(&self) -> PathBuf {
        self.path.join("lab.json")
    }

    fn foreign(&self, why: String) -> StateError {
        StateError::Foreign {
            path: self.path.clone(),
            whose: format!("lab {}", self.name),
            why,
        }
    }
}

/// The names of all labs under the state root, sorted.
pub fn list_labs(state_root: &Path) -> Result<Vec<String>, StateError> {
    names_with(&labs(state_root), "lab.json")
}

fn labs(state_root: &Path) -> PathBuf {
    state_root.join("labs")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lab_is_remembered_until_it_is_purged() {
        let root = tempfile::tempdir().unwrap();
        let dir = LabDir::new(root.path(), "demo");
        assert_eq!(dir.load().unwrap(), None);
        let lock = dir.lock("lab up").unwrap();
        dir.save(3).unwrap();
        assert_eq!(dir.load().unwrap(), Some(3));
        assert_eq!(list_labs(root.path()).unwrap(), ["demo"]);
        let error = dir.lock("lab down").unwrap_err().to_string();
        assert!(
            error.contains("lab demo is locked by `provision lab up`"),
            "{error}"
        );
        dir.purge().unwrap();
        drop(lock);
        assert_eq!(list_labs(root.path()).unwrap(), [""; 0]);
    }

    #[test]
    fn directories_of_others_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let dir = LabDir::new(root.path(), "demo");
        fs::create_dir_all(dir.path()).unwrap();
        fs::write(dir.path().join("thesis.tex"), "x").unwrap();
        assert!(matches!(
            dir.lock("lab up"),
            Err(StateError::Foreign { .. })
        ));
        fs::remove_dir_all(dir.path()).unwrap();
        fs::write(dir.path(), "x").unwrap();
        assert!(matches!(
            dir.lock("lab up"),
            Err(StateError::Foreign { .. })
        ));
    }
}
