//! Where the apply of commands meets the leader's clockwork.
//!
//! A command that is no lease's own costs nothing here.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use member_state::{Lease, LeaseRemainder, Op};
use tokio::sync::{Notify, watch};

use super::counters::Counters;
use super::forward::Question;
use crate::lessor::{Found, Lessor};

/// What a command did to the set of leases.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LeaseChange {
    Granted { id: i64, ttl: i64 },
    Ended { id: i64 },
    Recorded { id: i64, remaining: i64 },
}

impl LeaseChange {
    /// Adds what an applied command changed.
    pub(crate) fn note(op: Option<&Op>, changes: &mut Vec<Self>) {
        match op {
            Some(Op::LeaseGrant(grant)) => changes.push(Self::Granted {
                id: grant.id,
                ttl: grant.ttl,
            }),
            Some(Op::LeaseRevoke(revoke)) => changes.push(Self::Ended { id: revoke.id }),
            Some(Op::LeaseCheckpoint(checkpoint)) => {
                changes.extend(checkpoint.leases.iter().map(|lease| Self::Recorded {
                    id: lease.id,
                    remaining: lease.remaining,
                }));
            }
            _ => {}
        }
    }
}

/// The clockwork, and those who wait for what it is told.
#[derive(Debug)]
pub(crate) struct LeaseFeed {
    lessor: Mutex<Lessor>,
    /// Rung when a lease ends sooner than the one that is waited for.
    sooner: Notify,
    /// Changes when a lease has ended.
    ended: watch::Sender<()>,
    pub(crate) counters: Counters,
}

impl LeaseFeed {
    /// `checkpoints`: whether this member records what is left of long leases while it leads.
    pub(crate) fn new(checkpoints: bool) -> Self {
        Self {
            lessor: Mutex::new(Lessor::new(checkpoints)),
            sooner: Notify::new(),
            ended: watch::Sender::default(),
            counters: Counters::default(),
        }
    }

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
                LeaseChange::Recorded { id, remaining } => lessor.recorded(id, remaining),
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

    /// Takes at most `most` of what is to be recorded of leases.
    pub(super) fn remainders(&self, most: usize) -> Vec<LeaseRemainder> {
        self.lock().remainders(most)
    }

    /// That could not be recorded, or nobody knows.
    pub(super) fn unrecorded(&self, remainders: &[LeaseRemainder]) {
        self.lock().unrecorded(remainders);
    }

    pub(super) fn answer(&self, term: u64, question: Question, now: Instant) -> Found {
        let Question { id, renew } = question;
        if !renew {
            return self.lock().look(term, id, now);
        }
        let mut lessor = self.lock();
        let found = lessor.renew(term, id, now);
        let recording = lessor.has_remainders();
        drop(lessor);
        if matches!(found, Found::Alive { .. }) {
            self.counters.renewed();
        }
        if recording {
            self.sooner.notify_one();
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
