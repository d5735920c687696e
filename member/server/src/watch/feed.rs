//! The way of events out of the apply: a short queue that the apply fills and never waits for.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use member_state::Event;
use tokio::sync::Notify;

/// Bytes and events above which the queue is given up and watchers read history instead.
const MOST_BYTES: usize = 32 << 20;
const MOST_EVENTS: usize = 64 << 10;

/// What one batch of commands did.
#[derive(Debug)]
pub(super) struct Batch {
    /// The revision before it.
    pub(super) before: i64,
    /// The revision after it.
    pub(super) after: i64,
    /// All its events; `None` when they were not collected.
    pub(super) events: Option<Vec<Event>>,
}

impl Batch {
    fn len(&self) -> usize {
        self.events.as_ref().map_or(0, Vec::len)
    }

    fn bytes(&self) -> usize {
        let events = self.events.iter().flatten();
        events.map(Event::size).sum()
    }
}

#[derive(Debug, Default)]
struct Queue {
    open: bool,
    batches: VecDeque<Batch>,
    bytes: usize,
    events: usize,
}

impl Queue {
    fn clear(&mut self) {
        self.batches.clear();
        self.bytes = 0;
        self.events = 0;
    }
}

/// The queue. Closed, which it is while nobody watches, it takes nothing.
#[derive(Debug, Default)]
pub(crate) struct Feed {
    queue: Mutex<Queue>,
    /// Follows `queue.open`, for the apply to look at before it begins a batch.
    wanted: AtomicBool,
    rung: Notify,
}

impl Feed {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // No step below leaves the queue in between.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is worth the while to collect events.
    pub(crate) fn wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }

    /// Takes what a committed batch did. Without events, or after a gap, watchers read history.
    pub(crate) fn publish(&self, before: i64, after: i64, events: Option<Vec<Event>>) {
        if before != after {
            self.push(Batch {
                before,
                after,
                events,
            });
        }
    }

    /// Tells that the store was replaced by one at `revision`.
    pub(crate) fn jump(&self, revision: i64) {
        self.push(Batch {
            before: revision,
            after: revision,
            events: None,
        });
    }

    fn push(&self, batch: Batch) {
        let mut queue = self.lock();
        if !queue.open {
            return;
        }
        if queue.bytes > MOST_BYTES || queue.events > MOST_EVENTS {
            // The gap that this leaves is seen by the next batch's `before`.
            queue.clear();
        }
        queue.bytes += batch.bytes();
        queue.events += batch.len();
        queue.batches.push_back(batch);
        drop(queue);
        self.rung.notify_one();
    }

    /// Opens the queue and returns the revision that `current` reads meanwhile: every batch that is committed after
    /// the read is in the queue.
    pub(super) fn open(&self, current: impl FnOnce() -> i64) -> i64 {
        let mut queue = self.lock();
        queue.open = true;
        self.wanted.store(true, Ordering::Relaxed);
        // Under the lock: a batch is committed before it is published, so one that is published before this line is
        // seen by `current`, and one that is published later meets the open queue.
        current()
    }

    pub(super) fn close(&self) {
        let mut queue = self.lock();
        queue.open = false;
        self.wanted.store(false, Ordering::Relaxed);
        queue.clear();
    }

    pub(super) fn pop(&self) -> Option<Batch> {
        let mut queue = self.lock();
        let batch = queue.batches.pop_front()?;
        queue.bytes -= batch.bytes();
        queue.events -= batch.len();
        Some(batch)
    }

    /// Returns once something was put in since the last call.
    pub(super) async fn rung(&self) {
        self.rung.notified().await;
    }
}
