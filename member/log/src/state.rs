//! What readers see and what waits for the flusher, behind one mutex.
//!
//! There are two views of the log. The *logical* one (`vote`, `purged`, `last`, `cache`, ...) changes when a request is
//! queued, so that entries are readable at once. The *written* one (`index`) changes when the flusher publishes what it
//! wrote, in the same order. They differ only by what is still queued.
//!
//! Invariant: every entry of the logical log is in the cache or located by the index, and an index location is used
//! only below the cache. That holds because entries are evicted only when they are written and no truncation is queued:
//! then the written view is a prefix of the logical one.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use openraft::EntryPayload;
use openraft::storage::IOFlushed;

use crate::config::{Entry, LogId, TypeConfig, Vote};
use crate::index::{Index, Run};
use crate::{Identity, LogOptions};

/// A request in the order in which it will stand in the file.
pub(crate) enum Op {
    Entry(Entry),
    /// Everything queued before this must be durable.
    Flushed(IOFlushed<TypeConfig>),
    Vote(Vote, tokio::sync::oneshot::Sender<io::Result<()>>),
    Identity(Identity, SyncSender<io::Result<()>>),
    Truncate(Option<LogId>),
    Purge(LogId),
}

/// What the flusher thread is doing, as far as a wake-up needs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flusher {
    Busy,
    /// Waits a moment for the committed position of what it just wrote.
    Lingering,
    Parked,
}

/// The first failure, kept to answer every later request.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) kind: io::ErrorKind,
    pub(crate) text: String,
}

impl Failure {
    pub(crate) fn error(&self) -> io::Error {
        io::Error::new(self.kind, self.clone())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}

/// Counters that are read without the mutex.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) fsyncs: AtomicU64,
    pub(crate) fsync_nanos: AtomicU64,
    pub(crate) written_bytes: AtomicU64,
    pub(crate) segments: AtomicU64,
}

#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    pub(crate) options: LogOptions,
    pub(crate) counters: Counters,
}

pub(crate) struct State {
    pub(crate) identity: Option<Identity>,
    pub(crate) vote: Option<Vote>,
    pub(crate) committed: Option<LogId>,
    pub(crate) purged: Option<LogId>,
    /// Last entry, or `purged` when there is none.
    pub(crate) last: Option<LogId>,

    cache: VecDeque<Entry>,
    cache_first: u64,
    pub(crate) cache_bytes: usize,

    pub(crate) index: Index,
    /// Truncations that the index does not reflect yet.
    pub(crate) pending_truncates: usize,

    pub(crate) queue: Vec<Op>,
    /// A committed position that no record holds yet. Only the newest matters, and it may wait.
    pub(crate) unsaved_committed: Option<LogId>,
    pub(crate) flusher: Flusher,
    pub(crate) failure: Option<Failure>,
    pub(crate) closing: bool,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("vote", &self.vote)
            .field("purged", &self.purged)
            .field("last", &self.last)
            .field("queued", &self.queue.len())
            .finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn new(options: LogOptions, state: State) -> Self {
        Self {
            state: Mutex::new(state),
            wake: Condvar::new(),
            options,
            counters: Counters::default(),
        }
    }

    /// A panic while the mutex is held leaves the state readable: every change below is complete before it unlocks
    /// or fails the log.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues requests under the mutex and wakes the flusher if it sleeps.
    pub(crate) fn request<T>(
        &self,
        queue: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut state = self.lock();
        if let Some(failure) = &state.failure {
            return Err(failure.error());
        }
        let answer = queue(&mut state)?;
        self.wake(state);
        Ok(answer)
    }

    pub(crate) fn wake(&self, mut state: MutexGuard<'_, State>) {
        // One system call per sleep, not per request.
        let sleeps = state.flusher != Flusher::Busy;
        state.flusher = Flusher::Busy;
        drop(state);
        if sleeps {
            self.wake.notify_one();
        }
    }

    pub(crate) fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.wake
            .wait(state)
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn wait_at_most<'a>(
        &self,
        state: MutexGuard<'a, State>,
        time: std::time::Duration,
    ) -> (MutexGuard<'a, State>, bool) {
        let (state, result) = self
            .wake
            .wait_timeout(state, time)
            .unwrap_or_else(PoisonError::into_inner);
        (state, result.timed_out())
    }

    pub(crate) fn count_fsync(&self, time: std::time::Duration) {
        self.counters.fsyncs.fetch_add(1, Ordering::Relaxed);
        self.counters.fsync_nanos.fetch_add(
            u64::try_from(time.as_nanos()).unwrap_or(u64::MAX),
            Ordering::Relaxed,
        );
        if let Some(hook) = &self.options.on_fsync {
            hook(time);
        }
    }
}

/// What a read has to fetch: first from files, then what was cloned from the cache.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) runs: Vec<Run>,
    pub(crate) cached: Vec<Entry>,
}

/// Files are read in pieces of this size, because the entries of a piece share one buffer.
const RUN_BYTES: usize = 1 << 20;

impl State {
    pub(crate) fn new(head: crate::segment::Head, index: Index) -> Self {
        Self {
            identity: head.identity,
            vote: head.vote,
            committed: head.committed,
            purged: head.purged,
            last: head.last,
            cache: VecDeque::new(),
            cache_first: 0,
            cache_bytes: 0,
            index,
            pending_truncates: 0,
            queue: Vec::new(),
            unsaved_committed: None,
            flusher: Flusher::Busy,
            failure: None,
            closing: false,
        }
    }

    fn first(&self) -> u64 {
        self.purged.map_or(0, |purged| purged.index + 1)
    }

    /// Index after the last entry.
    fn next(&self) -> u64 {
        self.last.map_or(0, |last| last.index + 1)
    }

    /// First index that the cache holds; the cache always reaches to the end of the log.
    fn cache_start(&self) -> u64 {
        if self.cache.is_empty() {
            self.next()
        } else {
            self.cache_first
        }
    }

    pub(crate) fn append(&mut self, entry: Entry) -> io::Result<()> {
        let id = entry.log_id;
        if self.last.is_some() && id.index != self.next() {
            let text = format!(
                "entry {id} does not follow the last entry, {}",
                self.next() - 1
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        if payload_bytes(&entry) > crate::record::MAX_BODY_BYTES / 2 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("entry {id} is larger than 512 MiB"),
            ));
        }
        if self.cache.is_empty() {
            self.cache_first = id.index;
        }
        self.cache_bytes += weight(&entry);
        self.cache.push_back(entry.clone());
        self.last = Some(id);
        self.queue.push(Op::Entry(entry));
        Ok(())
    }

    pub(crate) fn truncate(&mut self, last: Option<LogId>) {
        if last.map(|last| last.index) >= self.last.map(|last| last.index) {
            return;
        }
        let next = last.map_or(0, |last| last.index + 1).max(self.first());
        while self
            .cache
            .back()
            .is_some_and(|entry| entry.log_id.index >= next)
            && let Some(entry) = self.cache.pop_back()
        {
            self.cache_bytes -= weight(&entry);
        }
        self.last = last.max(self.purged);
        self.pending_truncates += 1;
        self.queue.push(Op::Truncate(last));
    }

    pub(crate) fn purge(&mut self, upto: LogId) {
        if self.purged.is_some_and(|purged| purged.index >= upto.index) {
            return;
        }
        while !self.cache.is_empty() && self.cache_first <= upto.index {
            self.evict_one();
        }
        self.purged = Some(upto);
        // After a snapshot was installed, the log is purged beyond its end.
        if self.next() <= upto.index {
            self.last = Some(upto);
        }
        self.queue.push(Op::Purge(upto));
    }

    /// Takes entries that are written out of the cache until it is small enough.
    pub(crate) fn evict(&mut self, limit: usize, evicted: &mut Vec<Entry>) {
        if self.pending_truncates > 0 {
            return;
        }
        while self.cache_bytes > limit && self.cache_first < self.index.next() {
            match self.evict_one() {
                Some(entry) => evicted.push(entry),
                None => break,
            }
        }
        if self.cache.capacity() > 4096 && self.cache.len() < self.cache.capacity() / 4 {
            self.cache.shrink_to(self.cache.len() * 2);
        }
    }

    fn evict_one(&mut self) -> Option<Entry> {
        let entry = self.cache.pop_front()?;
        self.cache_first += 1;
        self.cache_bytes -= weight(&entry);
        Some(entry)
    }

    /// Plans a read of `from..to`, clamped to what the log holds, of about `bytes` bytes and at least one entry.
    pub(crate) fn plan(&self, from: u64, to: u64, bytes: usize) -> Plan {
        let from = from.max(self.first());
        let to = to.min(self.next());
        let cache_start = self.cache_start();
        let mut plan = Plan {
            runs: Vec::new(),
            cached: Vec::new(),
        };
        if from >= to {
            return plan;
        }
        let mut left = bytes;
        let mut from = from;
        if from < cache_start {
            // The log may begin later than the last purge says: the very first entry need not be number 0.
            from = from.max(self.index.start());
            let end = to.min(cache_start);
            if from < end {
                plan.runs = self.index.runs(from, end, bytes, RUN_BYTES);
                let located = plan
                    .runs
                    .iter()
                    .map(|run| run.offsets.len() as u64)
                    .sum::<u64>();
                let size = plan
                    .runs
                    .iter()
                    .map(|run| (run.end - run.offsets[0]) as usize)
                    .sum::<usize>();
                from += located;
                left = left.saturating_sub(size);
                if from < end || left == 0 {
                    return plan;
                }
            }
        }
        let skip = usize::try_from(from.max(cache_start) - cache_start).unwrap_or(usize::MAX);
        let count = usize::try_from(to.saturating_sub(from.max(cache_start))).unwrap_or(usize::MAX);
        let mut any = !plan.runs.is_empty();
        for entry in self.cache.range(skip.min(self.cache.len())..).take(count) {
            let size = weight(entry);
            if any && size > left {
                break;
            }
            any = true;
            left = left.saturating_sub(size);
            plan.cached.push(entry.clone());
        }
        plan
    }
}

fn payload_bytes(entry: &Entry) -> usize {
    match &entry.payload {
        EntryPayload::Normal(payload) => payload.0.len(),
        EntryPayload::Blank => 0,
        // Rare, and of a size that does not matter for the bound.
        EntryPayload::Membership(_) => 512,
    }
}

/// Memory that an entry takes in the cache: itself, its shared buffer and the allocator's share.
fn weight(entry: &Entry) -> usize {
    size_of::<Entry>() + 32 + payload_bytes(entry)
}
