//! One stream of watchers, as its owner sees it: create, cancel, and take what comes.
//!
//! History is read here, so that each stream goes at its own pace: nothing is read ahead of what was taken. Watchers
//! that lag close to one another share a read; those that are far apart take turns, so that a long way back holds up
//! nobody else.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use member_state::{Backend, Error, Event, EventKind, HistoryLimit, Store};
use tokio::task::JoinHandle;

use super::hub::WatchHub;
use super::index::{Index, Span};
use super::outbox::{Delivery, Lag, Outbox, Style};
use crate::engine::Engine;

/// One read of history. The revisions are etcd's (`watchBatchMaxRevs`); the rest bounds a stream's memory, and how long
/// a stream whose keys seldom change keeps a thread.
const LIMIT: HistoryLimit = HistoryLimit {
    visited: 10_000,
    revisions: 1000,
    bytes: 4 << 20,
};

/// Revisions within which lagging watchers share a read.
const TOGETHER: i64 = 1000;

/// What a watcher wants.
#[derive(Debug, Clone)]
pub(crate) struct Interest {
    /// Its keys.
    pub(crate) span: Span,
    /// The first revision; 0 is the next one.
    pub(crate) start_revision: i64,
    /// Whether it wants puts.
    pub(crate) puts: bool,
    /// Whether it wants deletes.
    pub(crate) deletes: bool,
    /// How its events are told.
    pub(crate) style: Style,
}

impl Interest {
    /// Everything that happens to `span` from a revision on.
    pub(crate) fn all(span: Span, start_revision: i64) -> Self {
        Self {
            span,
            start_revision,
            puts: true,
            deletes: true,
            style: Style::default(),
        }
    }

    fn wants(&self, event: &Event) -> bool {
        match event.kind {
            EventKind::Put => self.puts,
            EventKind::Delete => self.deletes,
        }
    }
}

/// Why a watcher was not created.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CreateError {
    #[error("mvcc: duplicate watch ID provided on the WatchStream")]
    DuplicateId,
}

/// Why a stream has ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ended {
    #[error("etcdserver: server stopped")]
    Stopped,
    #[error(transparent)]
    Failed(#[from] Error),
}

struct Own {
    watcher: u64,
    interest: Arc<Interest>,
}

/// A read of history under way.
struct Reading {
    lags: Vec<Lag>,
    task: JoinHandle<Result<Found, Missed>>,
}

/// What a read found for each of its watchers, in the order of its lags.
struct Found {
    events: Vec<Vec<Arc<Event>>>,
    next: i64,
    revision: i64,
}

enum Missed {
    Compacted(i64),
    Failed(Error),
}

/// The stream. Dropped, its watchers are gone.
pub(crate) struct WatchStream<E: Engine> {
    hub: Arc<WatchHub<E>>,
    outbox: Arc<Outbox>,
    /// By watch id.
    watchers: HashMap<i64, Own>,
    /// Watch ids by the hub's keys.
    ids: HashMap<u64, i64>,
    next_id: i64,
    ready: VecDeque<Delivery>,
    lagging: VecDeque<Lag>,
    reading: Option<Reading>,
}

impl<E: Engine> WatchStream<E> {
    pub(super) fn new(hub: Arc<WatchHub<E>>, outbox: Arc<Outbox>) -> Self {
        Self {
            hub,
            outbox,
            watchers: HashMap::new(),
            ids: HashMap::new(),
            next_id: 0,
            ready: VecDeque::new(),
            lagging: VecDeque::new(),
            reading: None,
        }
    }

    /// Creates a watcher; id 0 stands for the next one that is free. [`Delivery::Created`] comes before its events.
    pub(crate) fn create(&mut self, watch_id: i64, interest: Interest) -> Result<i64, CreateError> {
        let watch_id = if watch_id == 0 {
            while self.watchers.contains_key(&self.next_id) {
                self.next_id += 1;
            }
            self.next_id += 1;
            self.next_id - 1
        } else if self.watchers.contains_key(&watch_id) {
            return Err(CreateError::DuplicateId);
        } else {
            watch_id
        };
        let watcher = self.hub.register(&self.outbox, watch_id, &interest);
        self.ids.insert(watcher, watch_id);
        let interest = Arc::new(interest);
        self.watchers.insert(watch_id, Own { watcher, interest });
        Ok(watch_id)
    }

    /// Says no to a request, in the order of the answers.
    pub(crate) fn refuse(&self, reason: String) {
        self.outbox.tell(Delivery::Refused {
            revision: self.hub.replica.store().revision(),
            reason,
        });
    }

    /// Ends a watcher, and tells so if there was one.
    pub(crate) fn cancel(&mut self, watch_id: i64) {
        if self.forget(watch_id) {
            self.outbox.tell(Delivery::Canceled {
                watch_id,
                revision: self.hub.replica.store().revision(),
            });
        }
    }

    fn forget(&mut self, watch_id: i64) -> bool {
        let Some(own) = self.watchers.remove(&watch_id) else {
            return false;
        };
        self.ids.remove(&own.watcher);
        self.hub.remove(own.watcher);
        true
    }

    /// Tells the revision up to which everything was delivered, if nothing is outstanding for any watcher.
    pub(crate) fn progress(&self) {
        if self.watchers.is_empty() {
            return;
        }
        let all = self.watchers.values();
        let all = all.map(|own| (own.watcher, own.interest.start_revision));
        self.hub.progress(&self.outbox, None, all);
    }

    /// The same for one watcher.
    pub(crate) fn progress_of(&self, watch_id: i64) {
        if let Some(own) = self.watchers.get(&watch_id) {
            let one = std::iter::once((own.watcher, own.interest.start_revision));
            self.hub.progress(&self.outbox, Some(watch_id), one);
        }
    }

    /// The next delivery. Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Result<Delivery, Ended> {
        loop {
            if let Some(delivery) = self.ready.pop_front() {
                self.count(&delivery);
                return Ok(delivery);
            }
            let taken = self.outbox.take();
            if taken.closed {
                return Err(Ended::Stopped);
            }
            self.ready = taken.deliveries;
            self.lagging.extend(taken.lagging);
            if self.reading.is_none() {
                self.start_reading();
            }
            let Some(reading) = &mut self.reading else {
                if self.ready.is_empty() {
                    self.outbox.rung().await;
                }
                continue;
            };
            // What a watcher was told before it lagged is in `ready` now, so what the read found may follow it.
            if !self.ready.is_empty() && !reading.task.is_finished() {
                continue;
            }
            tokio::select! {
                biased;
                found = &mut reading.task => {
                    let lags = std::mem::take(&mut reading.lags);
                    self.reading = None;
                    match found {
                        Ok(found) => self.finish_reading(lags, found)?,
                        // The runtime is shutting down.
                        Err(_) => return Err(Ended::Stopped),
                    }
                }
                () = self.outbox.rung() => {}
            }
        }
    }

    fn count(&self, delivery: &Delivery) {
        if let Delivery::Events { events, .. } = delivery {
            let counts = &self.hub.counts;
            let number = i64::try_from(events.len()).unwrap_or(i64::MAX);
            counts.pending.fetch_sub(number, Ordering::Relaxed);
            counts
                .events
                .fetch_add(events.len() as u64, Ordering::Relaxed);
        }
    }

    fn interest(&self, lag: &Lag) -> Option<&Arc<Interest>> {
        let id = self.ids.get(&lag.watcher)?;
        self.watchers.get(id).map(|own| &own.interest)
    }

    fn start_reading(&mut self) {
        // One that is gone must not decide whose turn it is: nobody might have it.
        let mut lagging = std::mem::take(&mut self.lagging);
        lagging.retain(|lag| self.interest(lag).is_some());
        let Some(first) = lagging.front().copied() else {
            return;
        };
        let (mut lags, mut interests) = (Vec::new(), Vec::new());
        for lag in lagging {
            let Some(interest) = self.interest(&lag) else {
                continue;
            };
            if (first.next..=first.next.saturating_add(TOGETHER)).contains(&lag.next) {
                interests.push(Arc::clone(interest));
                lags.push(lag);
            } else {
                self.lagging.push_back(lag);
            }
        }
        let store = self.hub.replica.store();
        let wanted = lags.clone();
        let task = tokio::task::spawn_blocking(move || read(&store, &wanted, &interests));
        self.reading = Some(Reading { lags, task });
    }

    fn finish_reading(
        &mut self,
        mut lags: Vec<Lag>,
        found: Result<Found, Missed>,
    ) -> Result<(), Ended> {
        match found {
            Ok(found) => {
                for (lag, events) in lags.iter_mut().zip(found.events) {
                    lag.next = lag.next.max(found.next);
                    if let Some(watch_id) = self.ids.get(&lag.watcher).copied()
                        && let Some(own) = self.watchers.get(&watch_id)
                        && !events.is_empty()
                    {
                        let number = i64::try_from(events.len()).unwrap_or(i64::MAX);
                        self.hub.counts.pending.fetch_add(number, Ordering::Relaxed);
                        self.ready.push_back(Delivery::Events {
                            watch_id,
                            revision: found.revision,
                            events,
                            style: own.interest.style,
                        });
                    }
                }
                self.lagging.extend(self.hub.sync(lags));
            }
            Err(Missed::Compacted(compact_revision)) => {
                for lag in lags {
                    match self.ids.get(&lag.watcher).copied() {
                        Some(watch_id) if lag.next < compact_revision => {
                            self.forget(watch_id);
                            self.ready.push_back(Delivery::Compacted {
                                watch_id,
                                compact_revision,
                            });
                        }
                        _ => self.lagging.push_back(lag),
                    }
                }
            }
            Err(Missed::Failed(error)) => {
                tracing::error!(%error, "cannot read the history that a watch needs");
                return Err(Ended::Failed(error));
            }
        }
        Ok(())
    }
}

impl<E: Engine> Drop for WatchStream<E> {
    fn drop(&mut self) {
        for own in self.watchers.values() {
            self.hub.remove(own.watcher);
        }
        let left = self.outbox.take().deliveries;
        for delivery in self.ready.iter().chain(&left) {
            if let Delivery::Events { events, .. } = delivery {
                let number = i64::try_from(events.len()).unwrap_or(i64::MAX);
                self.hub.counts.pending.fetch_sub(number, Ordering::Relaxed);
            }
        }
        self.hub.counts.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

fn read<B: Backend>(
    store: &Store<B>,
    lags: &[Lag],
    interests: &[Arc<Interest>],
) -> Result<Found, Missed> {
    let mut index = Index::default();
    for (at, interest) in interests.iter().enumerate() {
        index.insert(&interest.span, at as u64);
    }
    let from = lags.iter().map(|lag| lag.next).min().unwrap_or(0);
    let history = match store.events(from, &LIMIT, |key| index.any(key)) {
        Ok(history) => history,
        Err(Error::Compacted) => return Err(Missed::Compacted(store.compact_revision())),
        Err(error) => return Err(Missed::Failed(error)),
    };
    let prev_kv = interests.iter().any(|interest| interest.style.prev_kv);
    let mut found = Found {
        events: vec![Vec::new(); lags.len()],
        next: history.next,
        revision: history.revision,
    };
    for mut event in history.events {
        if prev_kv && !event.is_create() {
            let prev = store.previous(&event.kv.key, event.revision());
            event.prev = prev.map_err(Missed::Failed)?;
        }
        let event = Arc::new(event);
        index.matches(&event.kv.key, |at| {
            let at = usize::try_from(at).unwrap_or(usize::MAX);
            if let (Some(lag), Some(interest)) = (lags.get(at), interests.get(at))
                && lag.next <= event.revision()
                && interest.wants(&event)
            {
                found.events[at].push(Arc::clone(&event));
            }
        });
    }
    Ok(found)
}
