//! Where the log lives and how much memory and disk it may take.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Called by the flusher with the duration of each write or fdatasync; must not block.
pub type TimeHook = Arc<dyn Fn(Duration) + Send + Sync>;

/// How to open a [`Log`](crate::Log).
#[derive(Clone)]
pub struct LogOptions {
    /// Directory of the segments; created (0700) when absent.
    pub dir: PathBuf,
    /// Size to which a segment is preallocated. etcd's WAL uses 64 MB too: rolling over is rare and a purge frees
    /// disk in useful steps.
    pub segment_bytes: u32,
    /// Memory for entries that are already in a file. Entries that are not written yet are kept on top of it.
    pub cache_bytes: usize,
    /// Bytes after which one read for replication stops (at least one entry is returned).
    pub read_bytes: usize,
    /// Observer of fdatasync durations.
    pub on_fsync: Option<TimeHook>,
    /// Observer of the durations of writes to the files.
    pub on_write: Option<TimeHook>,
}

impl LogOptions {
    /// Defaults for a member: 64 MiB segments, 8 MiB of recent entries, reads of 1 MiB.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            segment_bytes: 64 << 20,
            cache_bytes: 8 << 20,
            read_bytes: 1 << 20,
            on_fsync: None,
            on_write: None,
        }
    }
}

impl fmt::Debug for LogOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogOptions")
            .field("dir", &self.dir)
            .field("segment_bytes", &self.segment_bytes)
            .field("cache_bytes", &self.cache_bytes)
            .field("read_bytes", &self.read_bytes)
            .finish_non_exhaustive()
    }
}
