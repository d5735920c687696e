//! Why a lab cannot be made, looked at or ended.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why a lab cannot be made, looked at or ended.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// Namespaces, mounts and bridges need the rights of root.
    #[error("a lab needs root: it makes namespaces, mounts and a bridge")]
    NotRoot,
    /// A program is not installed.
    #[error("{program} is not installed")]
    Missing {
        /// The program.
        program: &'static str,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// The kernel's control groups cannot be used.
    #[error("no control group file system of version 2 is mounted")]
    NoControlGroups,
    /// Not enough room for the shared root.
    #[error(
        "{} has {} MiB free, and the hosts' root needs {} MiB while it is built",
        .path.display(), .free >> 20, .need >> 20
    )]
    NoSpace {
        /// The directory.
        path: PathBuf,
        /// Bytes that are free.
        free: u64,
        /// Bytes that are needed.
        need: u64,
    },
    /// A program could not be started.
    #[error("cannot run {program}")]
    Run {
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A program failed.
    #[error("{what} failed ({status}): {said}")]
    Failed {
        /// The command line, for people.
        what: String,
        /// How it ended.
        status: std::process::ExitStatus,
        /// The end of what it printed.
        said: String,
    },
    /// A file operation failed.
    #[error("cannot {action} {}", .path.display())]
    Io {
        /// A verb: read, write, create.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something took too long.
    #[error("{what} took longer than {} s{}", .waited.as_secs(), after_colon(.last))]
    TimedOut {
        /// What was awaited, as a noun phrase.
        what: String,
        /// How long.
        waited: Duration,
        /// What the last look said.
        last: String,
    },
    /// A process ended that should run.
    #[error("{what} ended{}", after_colon(.said))]
    Ended {
        /// What it was.
        what: String,
        /// The end of its log.
        said: String,
    },
    /// systemd of a host is up and some of its units are not.
    #[error("host {host} is {state}: {units}")]
    Degraded {
        /// The host.
        host: String,
        /// systemd's word for it.
        state: String,
        /// The units that failed.
        units: String,
    },
    /// The lab is not up.
    #[error("the lab is not running")]
    Down,
}

fn after_colon(text: &str) -> String {
    if text.is_empty() {
        String::new()
    } else {
        format!(": {text}")
    }
}

impl HostError {
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }

    /// What the user can do about it, where that is known.
    #[must_use]
    pub fn fix(&self) -> Option<String> {
        Some(match self {
            Self::NotRoot => "run the command with sudo".to_owned(),
            Self::Missing { package, .. } => {
                format!("install the package {package}; ci/setup installs all that labs need")
            }
            Self::NoControlGroups => {
                "mount one: mount -t cgroup2 cgroup2 /sys/fs/cgroup".to_owned()
            }
            Self::NoSpace { .. } => {
                "free some space there, or choose another place with XDG_CACHE_HOME".to_owned()
            }
            Self::Down => "bring it up with `provision lab up`".to_owned(),
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                "free some space on that file system and run the same command again".to_owned()
            }
            Self::TimedOut { .. } | Self::Ended { .. } | Self::Degraded { .. } => {
                "look at the host's console below the lab's state directory, and run `provision lab up` again"
                    .to_owned()
            }
            Self::Io { .. } | Self::Run { .. } | Self::Failed { .. } => return None,
        })
    }
}
