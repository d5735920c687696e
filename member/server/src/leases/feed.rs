//! Where the apply of commands meets the leader's clockwork.
//!
//! A command that is no lease's own costs nothing here.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use member_state::{Lease, Op};
use tokio::sync::{Notify, watch};

use super::counters::Counters;
use super::forward::Question;
use crate::lessor::{Found, Lessor};

/// What a command did to the set of leases.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LeaseChange {
    Granted { id: i64, ttl: i64 },
    Ended { id: i64 },
}

impl LeaseChange {
    /// What an applied command changed.
    pub(crate) fn of(op: Option<&Op>) -> Option<Self> {
        match op? {
            Op::LeaseGrant(grant) => Some(Self::Granted {
                id: grant.id,
                ttl: grant.ttl,
            }),
            Op::LeaseRevoke(revoke) => Some(Self::Ended { id: revoke.id }),
            _ => None,
        }
    }
}

/// The clockwork, and those who wait for what it is told.
#[derive(Debug, Default)]
pub(crate) struct LeaseFeed {
    lessor: Mutex<Lessor>,
    /// Rung when a lease ends sooner than the one that is waited for.
    sooner: Notify,
    /// Changes when a lease has ended.
    ended: watch::Sender<()>,
    pub(crate) counters: Counters,
}

impl LeaseFeed {
    /// Hears what was committed, in the order of the log, before anyone else is told.
    pub(crate) fn applied(&self, changes: &[LeaseChange]) {
        if changes.is_empty() {
            return;
        }
        let now = Instant::now();
        let (mut sooner, mut ended) = (false, false);
        let mut lessor = self.lock();
        for change in changes {
            match *change {
                LeaseChange::Granted { id, ttl } => {
                    sooner |= lessor.granted(id, ttl, now);
                    self.counters.granted(ttl);
                }
                LeaseChange::Ended { id } => {
                    lessor.ended(id);
                    ended = true;
                    self.counters.revoked();
                }
            }
        }
        drop(lessor);
        if sooner {
            self.sooner.notify_one();
        }
        if ended {
            self.ended.send_replace(());
        }
    }

    /// Another state took the place of the one before.
    pub(crate) fn replaced(&self) {
        self.ended.send_replace(());
    }

    /// Changes whenever leases have ended.
    pub(super) fn ended(&self) -> watch::Receiver<()> {
        self.ended.subscribe()
    }

    /// Returns when [`LeaseFeed::next`] may be sooner than it was.
    pub(super) async fn sooner(&self) {
        self.sooner.notified().await;
    }

    pub(super) fn lead(&self, term: u64) {
        self.lock().lead(term);
    }

    pub(super) fn load(&self, term: u64, found: &[Lease], extend: Duration, now: Instant) {
        self.lock().load(term, found, extend, now);
    }

    pub(super) fn follow(&self) {
        self.lock().follow();
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.lock().next()
    }

    pub(super) fn due(&self, now: Instant, most: usize) -> Vec<i64> {
        self.lock().due(now, most)
    }

    pub(super) fn answer(&self, term: u64, question: Question, now: Instant) -> Found {
        let Question { id, renew } = question;
        if !renew {
            return self.lock().look(term, id, now);
        }
        let found = self.lock().renew(term, id, now);
        if matches!(found, Found::Alive { .. }) {
            self.counters.renewed();
        }
        found
    }

    /// Sorts leases as etcd lists them, the first to end first; by id where nobody knows when they end.
    pub(crate) fn sort(&self, leases: &mut [Lease]) {
        let lessor = self.lock();
        leases.sort_by_cached_key(|lease| (lessor.deadline(lease.id), lease.id));
    }

    fn lock(&self) -> MutexGuard<'_, Lessor> {
        // A panic in the clockwork is a bug that the next call would meet again; what it holds is not half changed.
        self.lessor.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
