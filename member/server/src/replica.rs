//! The replicated state of this member, as readers see it: the current store and how far it has applied.

use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use member_state::Store;
use tokio::sync::{Notify, watch};

use crate::auth::SimpleTokens;
use crate::engine::Engine;
use crate::leases::LeaseFeed;
use crate::metrics::Metrics;
use crate::quota::Quota;
use crate::watch::Feed;

/// The store that readers use, replaced as a whole when a snapshot is installed.
pub(crate) struct Replica<E: Engine> {
    engine: E,
    store: ArcSwap<Store<E::Backend>>,
    /// One more than the index of the last applied entry; 0 before the first.
    applied: watch::Sender<u64>,
    /// Rung when a compaction was applied and has keys to remove.
    pub(crate) compaction: Notify,
    /// Rung when another store took the place of the one before.
    pub(crate) replaced: Notify,
    /// Hears which leases come and go.
    pub(crate) leases: LeaseFeed,
    /// Rung when the v2 keys may have changed.
    pub(crate) v2_changed: watch::Sender<()>,
    /// Takes the events of what is applied.
    pub(crate) feed: Feed,
    pub(crate) quota: Quota,
    /// Rung when applied writes have brought the state over its quota.
    pub(crate) over_quota: Notify,
    pub(crate) metrics: Arc<Metrics>,
    /// The tokens that the log made known.
    pub(crate) tokens: SimpleTokens,
}

impl<E: Engine> Replica<E> {
    /// Opens the state of the engine's last durable point.
    pub(crate) fn open(
        engine: E,
        quota: Quota,
        tokens: SimpleTokens,
        metrics: Arc<Metrics>,
        checkpoints_leases: bool,
    ) -> io::Result<Self> {
        let store = Store::open(engine.open()?).map_err(io::Error::other)?;
        let applied = store.applied().map_or(0, |position| position.index + 1);
        Ok(Self {
            engine,
            store: ArcSwap::from_pointee(store),
            applied: watch::Sender::new(applied),
            compaction: Notify::new(),
            replaced: Notify::new(),
            leases: LeaseFeed::new(checkpoints_leases),
            v2_changed: watch::Sender::default(),
            feed: Feed::default(),
            quota,
            over_quota: Notify::new(),
            metrics,
            tokens,
        })
    }

    /// Whether the state may grow by `cost` bytes.
    pub(crate) fn has_room(&self, cost: u64) -> bool {
        self.quota.admits(cost, || self.store().size())
    }

    /// The store of this moment; one request uses one.
    pub(crate) fn store(&self) -> Arc<Store<E::Backend>> {
        self.store.load_full()
    }

    /// Whether calls are checked; cheap enough for every call.
    pub(crate) fn auth_enabled(&self) -> bool {
        self.store.load().auth_enabled()
    }

    pub(crate) fn engine(&self) -> &E {
        &self.engine
    }

    /// Replaces the store by one that a snapshot brought.
    pub(crate) fn replace(&self, backend: E::Backend) -> io::Result<()> {
        let store = Store::open(backend).map_err(io::Error::other)?;
        let applied = store.applied().map_or(0, |position| position.index + 1);
        let revision = store.revision();
        let (users_before, users) = (self.store().auth(), store.auth());
        self.store.store(Arc::new(store));
        self.tokens.replaced(&users_before, &users);
        self.replaced.notify_one();
        self.leases.replaced();
        self.v2_changed.send_replace(());
        self.feed.jump(revision);
        self.publish(applied);
        Ok(())
    }

    /// Tells waiters that everything below `next_index` is applied.
    pub(crate) fn publish(&self, next_index: u64) {
        self.applied.send_if_modified(|applied| {
            let forward = next_index > *applied;
            if forward {
                *applied = next_index;
            }
            forward
        });
    }

    /// Waits until the entry at `index` is applied.
    pub(crate) async fn wait_applied(&self, index: u64) {
        let mut applied = self.applied.subscribe();
        // The sender lives as long as self, so the channel cannot close while we wait.
        let _ = applied.wait_for(|next| *next > index).await;
    }

    /// Index of the last applied entry; 0 before the first, as etcd reports it.
    pub(crate) fn applied_index(&self) -> u64 {
        self.applied.borrow().saturating_sub(1)
    }
}
