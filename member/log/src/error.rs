//! Why a log could not be opened or refused a request.

use std::io;
use std::path::PathBuf;

/// Failure of [`Log::open`](crate::Log::open) or of a later direct call.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Another process has the directory open.
    #[error("{} is in use by another process{}; stop it, or use another data directory", .dir.display(), named(*.holder))]
    InUse {
        /// The log's directory.
        dir: PathBuf,
        /// Process id that the holder wrote into the lock file.
        holder: Option<u32>,
    },
    /// A file that the log did not write.
    #[error("{} is not a log segment; move it out of the log directory", .path.display())]
    ForeignFile {
        /// The file.
        path: PathBuf,
    },
    /// A segment of another format.
    #[error("{} has format version {found}, this program reads version {expected}; open it with the program that wrote it", .path.display())]
    Version {
        /// The segment.
        path: PathBuf,
        /// Version in its header.
        found: u32,
        /// Version of this program.
        expected: u32,
    },
    /// A segment between others, or the oldest one that is needed, is gone.
    #[error("segment {sequence:016x} is missing from {}; restore it from a backup, or replace the member", .dir.display())]
    MissingSegment {
        /// The log's directory.
        dir: PathBuf,
        /// Sequence number of the missing segment.
        sequence: u64,
    },
    /// Bytes that were durable once do not verify any more.
    #[error("{} is corrupt at offset {offset}: {reason}; restore it from a backup, or replace the member", .path.display())]
    Corrupt {
        /// The segment.
        path: PathBuf,
        /// Where the first bad record starts.
        offset: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// The identity is recorded already and differs.
    #[error("{} belongs to member {:x} of cluster {:x}; use its own data directory for each member", .dir.display(), .found.member_id, .found.cluster_id)]
    Identity {
        /// The log's directory.
        dir: PathBuf,
        /// What is recorded.
        found: crate::Identity,
    },
    /// The operating system refused.
    #[error("cannot {action} {}", .path.display())]
    Io {
        /// Verb phrase of what was tried.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The log was closed, or failed before; `source` is the first failure.
    #[error("the log does not accept requests any more")]
    Stopped {
        /// The first failure.
        #[source]
        source: io::Error,
    },
}

fn named(pid: Option<u32>) -> String {
    pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
}

impl LogError {
    /// Adapter for `map_err`: names the action and the path.
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}
