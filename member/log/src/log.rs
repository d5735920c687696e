//! The log's handle: opening, identity, figures, closing, and openraft's storage trait.

use std::fs::File;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use openraft::LogState;
use openraft::storage::{IOFlushed, RaftLogStorage};
use serde::{Deserialize, Serialize};

use crate::config::{Entry, LogId, TypeConfig, Vote};
use crate::flusher::Flusher;
use crate::reader::LogReader;
use crate::recover::{create_dir, recover};
use crate::state::{Flusher as Activity, Op, Shared, State};
use crate::{LogError, LogOptions, lock};

/// Whose log this is. Written once at bootstrap, as the metadata record of etcd's WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Cluster id.
    pub cluster_id: u64,
    /// Id of this member in it.
    pub member_id: u64,
}

/// Figures for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogStats {
    /// fdatasync calls of the flusher since the log was opened.
    pub fsyncs: u64,
    /// Time spent in them.
    pub fsync_time: Duration,
    /// Bytes written since the log was opened.
    pub written_bytes: u64,
    /// Segment files.
    pub segments: u64,
    /// Memory of the cached entries.
    pub cache_bytes: usize,
    /// Requests that wait for the flusher.
    pub queued: usize,
    /// Last purged index.
    pub purged_index: Option<u64>,
    /// Last index.
    pub last_index: Option<u64>,
}

/// The write-ahead log. Clones share it; the last one to go closes it.
#[derive(Clone, Debug)]
pub struct Log {
    shared: Arc<Shared>,
    thread: Arc<Thread>,
}

/// The flusher thread and the directory's lock, which outlives it.
#[derive(Debug)]
struct Thread {
    shared: Arc<Shared>,
    running: Mutex<Option<(JoinHandle<()>, File)>>,
}

impl Log {
    /// Opens the log in `options.dir`, creating it when the directory is absent or empty.
    ///
    /// A torn write at the end is cut off with a warning. The call blocks: it reads every segment that is not purged.
    ///
    /// # Errors
    ///
    /// [`LogError::InUse`] while another process has the directory; it does not wait. Corruption, gaps and files that
    /// do not belong here are errors of their own.
    pub fn open(options: LogOptions) -> Result<Self, LogError> {
        create_dir(&options.dir)?;
        let lock = lock::acquire(&options.dir)?;
        let mut recovered = recover(&options)?;
        let index = std::mem::take(&mut recovered.index);
        let dir = options.dir.clone();
        let shared = Arc::new(Shared::new(
            options,
            State::new(recovered.head.clone(), index),
        ));
        let flusher = Flusher::new(shared.clone(), recovered);
        let thread = thread::Builder::new()
            .name("log-flusher".to_owned())
            .spawn(move || flusher.run())
            .map_err(LogError::io("start the flusher thread for", dir))?;
        let thread = Thread {
            shared: shared.clone(),
            running: Mutex::new(Some((thread, lock))),
        };
        Ok(Self {
            shared,
            thread: Arc::new(thread),
        })
    }

    /// Whether anything was voted or appended; an identity alone is no history.
    pub fn has_history(&self) -> bool {
        let state = self.shared.lock();
        state.vote.is_some() || state.last.is_some()
    }

    /// The identity, if it was set.
    pub fn identity(&self) -> Option<Identity> {
        self.shared.lock().identity
    }

    /// Records the identity; durable on return. Setting the same one again is a no-op.
    ///
    /// Blocks for one fdatasync.
    ///
    /// # Errors
    ///
    /// [`LogError::Identity`] when another one is recorded, [`LogError::Stopped`] when the log failed or is closed.
    pub fn set_identity(&self, identity: Identity) -> Result<(), LogError> {
        match self.identity() {
            Some(found) if found == identity => return Ok(()),
            Some(found) => {
                return Err(LogError::Identity {
                    dir: self.shared.options.dir.clone(),
                    found,
                });
            }
            None => {}
        }
        let (done, answer) = mpsc::sync_channel(1);
        self.shared
            .request(|state| {
                state.queue.push(Op::Identity(identity, done));
                Ok(())
            })
            .and_then(|()| answer.recv().unwrap_or_else(|_| Err(gone())))
            .map_err(|source| LogError::Stopped { source })
    }

    /// Queues that everything up to `last` is in the state, without waiting for it.
    pub(crate) fn begin_after(&self, last: LogId) -> Result<(), io::Error> {
        self.shared.request(|state| {
            state.purge(last);
            Ok(())
        })
    }

    /// A handle for reading.
    pub fn reader(&self) -> LogReader {
        LogReader::new(self.shared.clone())
    }

    /// The current figures.
    pub fn stats(&self) -> LogStats {
        let counters = &self.shared.counters;
        let state = self.shared.lock();
        LogStats {
            fsyncs: counters.fsyncs.load(Ordering::Relaxed),
            fsync_time: Duration::from_nanos(counters.fsync_nanos.load(Ordering::Relaxed)),
            written_bytes: counters.written_bytes.load(Ordering::Relaxed),
            segments: counters.segments.load(Ordering::Relaxed),
            cache_bytes: state.cache_bytes,
            queued: state.queue.len(),
            purged_index: state.purged.map(|id| id.index),
            last_index: state.last.map(|id| id.index),
        }
    }

    /// Makes everything queued durable, stops the flusher thread and unlocks the directory. Later requests fail.
    ///
    /// Blocks until the thread has ended.
    pub fn close(&self) {
        self.thread.stop();
    }
}

impl Thread {
    fn stop(&self) {
        let running = self
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some((thread, lock)) = running else {
            return;
        };
        let mut state = self.shared.lock();
        state.closing = true;
        self.shared.wake(state);
        // A callback may own the last handle, and a thread cannot wait for itself.
        if thread.thread().id() != thread::current().id() && thread.join().is_err() {
            tracing::error!("the log's flusher thread panicked");
        }
        drop(lock);
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.stop();
    }
}

fn gone() -> io::Error {
    io::Error::other("the log's flusher thread has ended")
}

impl RaftLogStorage<TypeConfig> for Log {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let state = self.shared.lock();
        Ok(LogState {
            last_purged_log_id: state.purged,
            last_log_id: state.last,
        })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        self.reader()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let (done, answer) = tokio::sync::oneshot::channel();
        self.shared.request(|state| {
            state.queue.push(Op::Vote(*vote, done));
            Ok(())
        })?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Queues the position to be written with the next batch, without a flush of its own: after a power failure an
    /// older one is found, which openraft allows.
    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        let Some(committed) = committed else {
            return Ok(());
        };
        let mut state = self.shared.lock();
        if let Some(failure) = &state.failure {
            return Err(failure.error());
        }
        if state.committed == Some(committed) {
            return Ok(());
        }
        state.committed = Some(committed);
        state.unsaved_committed = Some(committed);
        if state.flusher == Activity::Parked {
            self.shared.wake(state);
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.shared.lock().committed)
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: IOFlushed<TypeConfig>,
    ) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let mut callback = Some(callback);
        let queued = self.shared.request(|state| {
            for entry in entries {
                state.append(entry)?;
            }
            state.queue.extend(callback.take().map(Op::Flushed));
            Ok(())
        });
        if let (Err(error), Some(callback)) = (&queued, callback) {
            callback.io_completed(Err(io::Error::new(error.kind(), error.to_string())));
        }
        queued
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        self.shared.request(|state| {
            state.truncate(last);
            Ok(())
        })
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        self.shared.request(|state| {
            state.purge(upto);
            Ok(())
        })
    }
}
