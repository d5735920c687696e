//! A restore that is under way: what a run that was cut off meant to do.

use std::fs;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::allocate::fresh_token;
use super::dir::ClusterDir;
use super::error::StateError;
use super::file::{Durability, read_json, replace_json};
use crate::topology::Topology;

/// A restore that has begun and not ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pending {
    /// The checksum of the snapshot.
    pub sha256: String,
    /// By how much its revision is raised.
    pub bump: i64,
    /// The token that the restored cluster gets.
    pub token: String,
    /// How far it has come.
    pub phase: Phase,
}

/// How far a restore has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Members may have old data, new data or none: none may start.
    Restoring,
    /// All have the new data: what is left is what `up` does.
    Starting,
}

impl Pending {
    /// A restore that is about to begin, under a token of its own.
    #[must_use]
    pub fn new(topology: &Topology, sha256: String, bump: i64) -> Self {
        Self {
            sha256,
            bump,
            token: fresh_token(topology),
            phase: Phase::Restoring,
        }
    }
}

impl ClusterDir {
    /// The restore that is under way, if one is.
    pub fn pending_restore(&self) -> Result<Option<Pending>, StateError> {
        read_json(&self.pending_file())
    }

    /// Remembers how far a restore has come; flushed to disk on return.
    pub fn save_restore(&self, pending: &Pending) -> Result<(), StateError> {
        replace_json(&self.pending_file(), pending, Durability::Durable)
    }

    /// Forgets the restore that has ended.
    pub fn end_restore(&self) -> Result<(), StateError> {
        let path = self.pending_file();
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StateError::io("delete", &path)(error))
            }
            _ => Ok(()),
        }
    }

    fn pending_file(&self) -> PathBuf {
        self.path().join("restore.json")
    }
}
