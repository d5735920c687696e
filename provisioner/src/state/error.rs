//! Why the state directory cannot be used.

use std::io;
use std::path::{Path, PathBuf};

use super::lock::Owner;
use crate::error::Error;
use crate::host::local::PortError;

/// Why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A file operation failed.
    #[error("cannot {action} {}", .path.display())]
    Io {
        /// A verb: read, write, create.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The directory is there and was not made by `provision` for this.
    #[error("{} is not the state of {whose}: {why}", .path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// What was asked for, such as `cluster demo`.
        whose: String,
        /// What is wrong with it.
        why: String,
    },
    /// A file of the state directory does not hold what `provision` writes.
    #[error("{} is damaged", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where it stops making sense.
        #[source]
        source: serde_json::Error,
    },
    /// Written by a later release.
    #[error("{} has format {found}, this release reads {known}", .path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The format of this release.
        known: u32,
    },
    /// Another run holds the lock.
    #[error("{what} is locked by {owner}")]
    Locked {
        /// What was asked for, such as `cluster demo`.
        what: String,
        /// Who holds it.
        owner: Box<Owner>,
        /// Whether the kernel still holds the lock for a living process of this host.
        alive: bool,
    },
    /// No ports for the members.
    #[error(transparent)]
    Ports(#[from] PortError),
}

impl StateError {
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }

    /// What the user can do about it.
    #[must_use]
    pub fn fix(&self) -> String {
        match self {
            Self::Io { source, path, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied => {
                    format!(
                        "check who owns {}, or choose another place with --state-dir",
                        path.display()
                    )
                }
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    "free some space on that file system and run the same command again".to_owned()
                }
                io::ErrorKind::ReadOnlyFilesystem => {
                    "choose a writable place with --state-dir".to_owned()
                }
                _ => "check the path, or choose another place with --state-dir".to_owned(),
            },
            Self::Foreign { path, .. } => {
                format!(
                    "move {} away if nothing there is needed, or choose another place with --state-dir",
                    path.display()
                )
            }
            Self::Damaged { path, .. } => format!(
                "restore {} from a copy; without one, stop the members by hand and move the cluster's directory away",
                path.display()
            ),
            Self::Newer { .. } => "use the release of provision that wrote it".to_owned(),
            Self::Locked {
                alive: true, owner, ..
            } => format!("wait for it, or stop it with `kill {}`", owner.pid),
            Self::Locked { alive: false, .. } => {
                "if that run is surely gone, take the lock over with --force-unlock".to_owned()
            }
            Self::Ports(_) => {
                "stop a cluster that is not needed, or set the ports in the topology".to_owned()
            }
        }
    }
}

impl From<StateError> for Error {
    fn from(error: StateError) -> Self {
        let fix = error.fix();
        match error {
            StateError::Io {
                action,
                path,
                source,
            } => Self::Io {
                action,
                path,
                source,
            },
            StateError::Foreign { .. } | StateError::Newer { .. } | StateError::Locked { .. } => {
                Self::refused(error.to_string(), fix)
            }
            other => Self::Failed {
                what: "the state directory cannot be used".to_owned(),
                fix: Some(fix),
                source: Some(Box::new(other)),
            },
        }
    }
}
