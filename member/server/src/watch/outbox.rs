//! What waits for one stream: bounded, because what does not fit is read from history later.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use member_state::Event;
use tokio::sync::Notify;

/// Deliveries and bytes that wait for a stream before its watchers lag.
const MOST_DELIVERIES: usize = 1024;
const MOST_BYTES: usize = 1 << 20;

/// How a watcher wants its events told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Style {
    /// With the version before each event.
    pub(crate) prev_kv: bool,
    /// In several responses when one would be large.
    pub(crate) fragment: bool,
}

/// What a stream is told, in order.
#[derive(Debug, Clone)]
pub(crate) enum Delivery {
    /// A watcher exists; nothing of it came before.
    Created {
        /// The watcher.
        watch_id: i64,
        /// The current revision.
        revision: i64,
    },
    /// A watcher was not created.
    Refused {
        /// The current revision.
        revision: i64,
        /// Why.
        reason: String,
    },
    /// Events of a watcher: whole revisions.
    Events {
        /// The watcher.
        watch_id: i64,
        /// The revision of the events, or the current one when they come from history.
        revision: i64,
        /// Never empty.
        events: Vec<Arc<Event>>,
        /// What the watcher asked for.
        style: Style,
    },
    /// A watcher has ended on request.
    Canceled {
        /// The watcher.
        watch_id: i64,
        /// The current revision.
        revision: i64,
    },
    /// A watcher has ended because what it needs is compacted.
    Compacted {
        /// The watcher.
        watch_id: i64,
        /// The compacted revision.
        compact_revision: i64,
    },
    /// Everything up to a revision was delivered.
    Progress {
        /// The watcher; `None` for all of the stream.
        watch_id: Option<i64>,
        /// The revision.
        revision: i64,
    },
}

/// A watcher that must read history from `next` on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lag {
    pub(super) watcher: u64,
    pub(super) next: i64,
}

#[derive(Debug, Default)]
struct Inner {
    deliveries: VecDeque<Delivery>,
    bytes: usize,
    lagging: Vec<Lag>,
    closed: bool,
}

/// What [`Outbox::take`] found.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) deliveries: VecDeque<Delivery>,
    /// Watchers that lag since the last call; all they were told is in what was taken by now.
    pub(super) lagging: Vec<Lag>,
    pub(super) closed: bool,
}

/// The outbox.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    inner: Mutex<Inner>,
    rung: Notify,
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No step below leaves it in between.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts in a word that is not an event. Their number is bounded by the requests that ask for them.
    pub(super) fn tell(&self, delivery: Delivery) {
        self.lock().deliveries.push_back(delivery);
        self.rung.notify_one();
    }

    /// Puts in the events of one revision, unless the outbox is full.
    pub(super) fn offer(
        &self,
        watch_id: i64,
        revision: i64,
        events: Vec<Arc<Event>>,
        style: Style,
    ) -> bool {
        let mut inner = self.lock();
        if inner.deliveries.len() >= MOST_DELIVERIES || inner.bytes >= MOST_BYTES {
            return false;
        }
        inner.bytes += events.iter().map(|event| event.size()).sum::<usize>();
        inner.deliveries.push_back(Delivery::Events {
            watch_id,
            revision,
            events,
            style,
        });
        drop(inner);
        self.rung.notify_one();
        true
    }

    pub(super) fn lag(&self, lag: Lag) {
        self.lock().lagging.push(lag);
        self.rung.notify_one();
    }

    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.rung.notify_one();
    }

    pub(super) fn take(&self) -> Taken {
        let mut inner = self.lock();
        inner.bytes = 0;
        Taken {
            deliveries: std::mem::take(&mut inner.deliveries),
            lagging: std::mem::take(&mut inner.lagging),
            closed: inner.closed,
        }
    }

    /// Returns once something was put in since the last call.
    pub(super) async fn rung(&self) {
        self.rung.notified().await;
    }
}
