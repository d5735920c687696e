//! The hub: deals the feed's events out to synced watchers.
//!
//! One lock guards who watches what and up to which revision everything was dealt out. It is held for a batch at most,
//! never across an await, and the apply never takes it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use member_state::{Event, EventKind};

use super::feed::Batch;
use super::index::{Index, Span};
use super::outbox::{Delivery, Lag, Outbox, Style};
use super::stream::{Interest, WatchStream};
use crate::engine::Engine;
use crate::replica::Replica;

/// What Prometheus is told of watches.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) streams: AtomicI64,
    pub(crate) watchers: AtomicI64,
    pub(crate) lagging: AtomicI64,
    pub(crate) pending: AtomicI64,
    pub(crate) events: AtomicU64,
}

#[derive(Debug)]
struct Watcher {
    outbox: Arc<Outbox>,
    watch_id: i64,
    span: Span,
    puts: bool,
    deletes: bool,
    style: Style,
    /// The first revision that it was not told of.
    next: i64,
    synced: bool,
}

#[derive(Debug, Default)]
pub(super) struct Registry {
    watchers: HashMap<u64, Watcher>,
    /// The synced ones.
    index: Index,
    /// Synced watchers were told everything up to this revision.
    dealt: i64,
    last: u64,
    streams: Vec<Weak<Outbox>>,
    closed: bool,
}

/// The hub of a member.
pub(crate) struct WatchHub<E: Engine> {
    pub(super) replica: Arc<Replica<E>>,
    registry: Mutex<Registry>,
    pub(crate) counts: Counts,
}

impl<E: Engine> WatchHub<E> {
    pub(crate) fn new(replica: Arc<Replica<E>>) -> Arc<Self> {
        Arc::new(Self {
            replica,
            registry: Mutex::default(),
            counts: Counts::default(),
        })
    }

    /// Deals out what the apply feeds. Never returns.
    pub(crate) async fn run(&self) {
        loop {
            self.replica.feed.rung().await;
            while self.deal_one() {
                tokio::task::yield_now().await;
            }
        }
    }

    /// A new stream of watchers.
    pub(crate) fn stream(self: &Arc<Self>) -> WatchStream<E> {
        let outbox = Arc::new(Outbox::default());
        let mut registry = self.lock();
        if registry.closed {
            outbox.close();
        }
        if registry.streams.len() == registry.streams.capacity() {
            registry.streams.retain(|stream| stream.strong_count() > 0);
        }
        registry.streams.push(Arc::downgrade(&outbox));
        drop(registry);
        self.counts.streams.fetch_add(1, Ordering::Relaxed);
        WatchStream::new(Arc::clone(self), outbox)
    }

    /// Ends every stream, present and to come.
    pub(crate) fn close(&self) {
        let mut registry = self.lock();
        registry.closed = true;
        for outbox in registry
            .streams
            .drain(..)
            .filter_map(|outbox| outbox.upgrade())
        {
            outbox.close();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        // A panic while it is held is a bug that the member does not hide: dealing out asserts nothing.
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The registry, with everything dealt out that was committed before the call.
    fn current(&self) -> MutexGuard<'_, Registry> {
        let mut registry = self.lock();
        while let Some(batch) = self.replica.feed.pop() {
            registry.deal(batch, &self.counts);
        }
        registry
    }

    fn deal_one(&self) -> bool {
        let mut registry = self.lock();
        match self.replica.feed.pop() {
            Some(batch) => {
                registry.deal(batch, &self.counts);
                true
            }
            None => false,
        }
    }

    /// Registers a watcher and tells its stream. One that starts in the past lags at once.
    pub(super) fn register(&self, outbox: &Arc<Outbox>, watch_id: i64, interest: &Interest) -> u64 {
        let mut registry = self.current();
        if registry.watchers.is_empty() {
            registry.dealt = self.replica.feed.open(|| self.replica.store().revision());
        }
        let revision = self.replica.store().revision();
        let next = match interest.start_revision {
            0 => revision + 1,
            start => start,
        };
        registry.last += 1;
        let key = registry.last;
        outbox.tell(Delivery::Created { watch_id, revision });
        let watcher = Watcher {
            outbox: Arc::clone(outbox),
            watch_id,
            span: interest.span.clone(),
            puts: interest.puts,
            deletes: interest.deletes,
            style: interest.style,
            next,
            synced: false,
        };
        registry.watchers.insert(key, watcher);
        self.counts.watchers.fetch_add(1, Ordering::Relaxed);
        self.counts.lagging.fetch_add(1, Ordering::Relaxed);
        if !registry.sync(key, next, &self.counts) {
            outbox.lag(Lag { watcher: key, next });
        }
        key
    }

    /// Removes a watcher.
    pub(super) fn remove(&self, key: u64) {
        let mut registry = self.lock();
        let Some(watcher) = registry.watchers.remove(&key) else {
            return;
        };
        if watcher.synced {
            registry.index.remove(&watcher.span, key);
        } else {
            self.counts.lagging.fetch_sub(1, Ordering::Relaxed);
        }
        self.counts.watchers.fetch_sub(1, Ordering::Relaxed);
        if registry.watchers.is_empty() {
            self.replica.feed.close();
        }
    }

    /// Hands back lagging watchers that have read history; those that lack something again are returned.
    pub(super) fn sync(&self, lagging: Vec<Lag>) -> Vec<Lag> {
        let mut registry = self.lock();
        let mut behind = lagging;
        behind.retain(|lag| !registry.sync(lag.watcher, lag.next, &self.counts));
        behind
    }

    /// Tells the stream that everything is delivered, if all of `watchers` are synced and have begun.
    pub(super) fn progress(
        &self,
        outbox: &Outbox,
        watch_id: Option<i64>,
        mut watchers: impl Iterator<Item = (u64, i64)>,
    ) {
        let registry = self.current();
        let revision = registry.dealt;
        let told = watchers.all(|(key, start)| {
            start <= revision && registry.watchers.get(&key).is_some_and(|w| w.synced)
        });
        if told {
            outbox.tell(Delivery::Progress { watch_id, revision });
        }
    }
}

impl Registry {
    fn sync(&mut self, key: u64, next: i64, counts: &Counts) -> bool {
        // A watcher that was cancelled meanwhile lacks nothing.
        let Some(watcher) = self.watchers.get_mut(&key) else {
            return true;
        };
        if next <= self.dealt {
            return false;
        }
        watcher.next = next;
        watcher.synced = true;
        self.index.insert(&watcher.span, key);
        counts.lagging.fetch_sub(1, Ordering::Relaxed);
        true
    }

    /// Takes a watcher out of those that are told what comes next.
    fn desync(&mut self, key: u64, counts: &Counts) {
        if let Some(watcher) = self.watchers.get_mut(&key)
            && watcher.synced
        {
            watcher.synced = false;
            self.index.remove(&watcher.span, key);
            counts.lagging.fetch_add(1, Ordering::Relaxed);
            watcher.outbox.lag(Lag {
                watcher: key,
                next: watcher.next,
            });
        }
    }

    /// Makes every watcher read what was committed up to `revision`.
    fn skip(&mut self, revision: i64, counts: &Counts) {
        let dealt = self.dealt;
        let missing: Vec<u64> = self
            .watchers
            .iter_mut()
            .filter(|(_, watcher)| watcher.synced && watcher.next <= revision)
            .map(|(key, watcher)| {
                watcher.next = watcher.next.max(dealt + 1);
                *key
            })
            .collect();
        for key in missing {
            self.desync(key, counts);
        }
        self.dealt = revision;
    }

    fn deal(&mut self, batch: Batch, counts: &Counts) {
        if batch.before > self.dealt {
            self.skip(batch.before, counts);
        }
        if batch.after <= self.dealt {
            return;
        }
        let Some(events) = batch.events else {
            self.skip(batch.after, counts);
            return;
        };
        let mut events = events.into_iter().map(Arc::new).peekable();
        let mut hits: HashMap<u64, Vec<Arc<Event>>> = HashMap::new();
        // In the order of first hits, so that equal watchers are told in one order.
        let mut order = Vec::new();
        while let Some(first) = events.next() {
            let revision = first.revision();
            let mut event = first;
            loop {
                if revision > self.dealt {
                    self.index
                        .matches(&event.kv.key, |key| match hits.entry(key) {
                            Entry::Occupied(mut found) => found.get_mut().push(Arc::clone(&event)),
                            Entry::Vacant(new) => {
                                new.insert(vec![Arc::clone(&event)]);
                                order.push(key);
                            }
                        });
                }
                match events.next_if(|next| next.revision() == revision) {
                    Some(next) => event = next,
                    None => break,
                }
            }
            for key in order.drain(..) {
                if let Some(events) = hits.remove(&key) {
                    self.tell(key, revision, events, counts);
                }
            }
            self.dealt = self.dealt.max(revision);
        }
        self.dealt = batch.after;
    }

    fn tell(&mut self, key: u64, revision: i64, mut events: Vec<Arc<Event>>, counts: &Counts) {
        let Some(watcher) = self.watchers.get_mut(&key) else {
            return;
        };
        if revision < watcher.next {
            return;
        }
        if !(watcher.puts && watcher.deletes) {
            events.retain(|event| match event.kind {
                EventKind::Put => watcher.puts,
                EventKind::Delete => watcher.deletes,
            });
        }
        // What it missed starts here, should there be no room.
        watcher.next = revision;
        let count = i64::try_from(events.len()).unwrap_or(i64::MAX);
        let (id, style) = (watcher.watch_id, watcher.style);
        if events.is_empty() || watcher.outbox.offer(id, revision, events, style) {
            watcher.next = revision + 1;
            counts.pending.fetch_add(count, Ordering::Relaxed);
        } else {
            self.desync(key, counts);
        }
    }
}
