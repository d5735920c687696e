//! Counters and the text that Prometheus reads, under etcd's names.
//!
//! A figure is printed when something here measures it, and a family with a label per member, method or version when
//! there is one. What etcd prints and this member does not is listed with its reason in the integration test
//! `metrics`: mostly phases of bbolt, the v2 store, and Go's own runtime.

mod applies;
mod checks;
mod clients;
mod histogram;
mod peers;
mod process;
mod proxied;
mod render;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use member_flags::format_duration;
use member_state::{Op, Put, Txn, TxnRequest};

pub(crate) use applies::{Applies, ApplyTimer};
pub(crate) use clients::ClientVersions;
pub(crate) use histogram::Histogram;
pub(crate) use peers::{Counted, Peer, Peers, Way};
pub(crate) use proxied::{Proxied, Unanswered};
pub(crate) use render::{render, variables};

use checks::Checks;

use crate::rpc::Calls;

/// What is counted outside the member's own state.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) wal_fsync: Histogram,
    pub(crate) wal_write: Histogram,
    pub(crate) hash: Histogram,
    pub(crate) hash_rev: Histogram,
    /// Snapshots of the state that went to clients.
    pub(crate) snapshot: Histogram,
    /// Snapshots of the state that came from the leader, until they were on disk.
    pub(crate) snapshot_saved: Histogram,
    pub(crate) calls: Calls,
    pub(crate) applies: Applies,
    pub(crate) peers: Arc<Peers>,
    pub(crate) checks: Checks,
    /// Reads that the leader's index was asked for in vain.
    pub(crate) failed_read_indexes: Count,
    /// Reads that waited for this member to catch up, or gave up.
    pub(crate) slow_read_indexes: Count,
    pub(crate) late_heartbeats: Count,
    pub(crate) promotions: Count,
    /// Promotions that were refused: not a learner any more, not in sync, anything else.
    pub(crate) refused_promotions: Promotions,
    pub(crate) installing_snapshot: Count,
    backend_commit: Histogram,
    defrag: Histogram,
    defrag_under_way: Count,
    /// Ranges that were refused, and those that were answered.
    ranges: [Histogram; 2],
    compaction_pause: Histogram,
    compaction_total: Histogram,
    /// Seconds of the Unix epoch; 0 before the first.
    last_compaction: AtomicU64,
    slow_apply: Duration,
    slow_applies: Count,
    puts: Count,
    put_bytes: Count,
    deletes: Count,
    txns: Count,
    compacted_keys: Count,
    health_successes: Count,
    health_failures: Count,
    started: SystemTime,
}

/// A number of things.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn one(&self) {
        self.add(1);
    }

    /// Counts one for as long as the guard lives.
    pub(crate) fn during(&self) -> impl Drop + '_ {
        struct Under<'a>(&'a Count);
        impl Drop for Under<'_> {
            fn drop(&mut self) {
                self.0.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        self.one();
        Under(self)
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Why promotions failed, in etcd's words.
const PROMOTION_FAILURES: [&str; 3] = [
    "can only promote a learner member",
    "can only promote a learner member which is in sync with leader",
    "member not found",
];

/// Promotions that failed, by reason.
#[derive(Debug, Default)]
pub(crate) struct Promotions([Count; PROMOTION_FAILURES.len()]);

impl Promotions {
    /// `reason` as etcd's error says it; others are none of the promotion's own.
    pub(crate) fn failed(&self, reason: &str) {
        let reason = reason.trim_start_matches("etcdserver: ");
        for (known, count) in PROMOTION_FAILURES.iter().zip(&self.0) {
            if *known == reason {
                count.one();
            }
        }
    }
}

/// etcd counts the operations of a transaction, and a transaction when it has several.
fn count_txn(txn: &Txn, metrics: &Metrics) {
    // Which branch ran is not known any more; the longer one is the one that transactions are made for.
    let (success, failure) = (&txn.success, &txn.failure);
    let branch = if success.len() >= failure.len() {
        success
    } else {
        failure
    };
    for op in branch {
        match &op.request {
            Some(TxnRequest::Put(put)) => metrics.put(put),
            Some(TxnRequest::DeleteRange(_)) => metrics.deletes.one(),
            Some(TxnRequest::Txn(nested)) => count_txn(nested, metrics),
            Some(TxnRequest::Range(_)) | None => {}
        }
    }
}

impl Metrics {
    /// Applying longer than `slow_apply` is logged.
    pub(crate) fn new(slow_apply: Duration) -> Self {
        let millis = Duration::from_millis;
        // etcd: from 1 ms to 8 s.
        let disk = || Histogram::new(millis(1), 14);
        // etcd: from 0.1 ms to 52 s.
        let range = || Histogram::new(Duration::from_micros(100), 20);
        Self {
            wal_fsync: disk(),
            wal_write: disk(),
            backend_commit: disk(),
            // etcd: from 10 ms to 163 s, 10 ms to 655 s, 100 ms to 51 s, and 100 ms to 409 s.
            hash: Histogram::new(millis(10), 15),
            hash_rev: Histogram::new(millis(10), 15),
            snapshot: Histogram::new(millis(10), 17),
            snapshot_saved: Histogram::new(millis(100), 10),
            defrag: Histogram::new(millis(100), 13),
            calls: Calls::default(),
            applies: Applies::default(),
            peers: Arc::default(),
            checks: Checks::default(),
            failed_read_indexes: Count::default(),
            slow_read_indexes: Count::default(),
            late_heartbeats: Count::default(),
            promotions: Count::default(),
            refused_promotions: Promotions::default(),
            installing_snapshot: Count::default(),
            defrag_under_way: Count::default(),
            ranges: [range(), range()],
            // etcd: from 1 ms to 4 s, and from 100 ms to 819 s.
            compaction_pause: Histogram::in_millis(millis(1), 13),
            compaction_total: Histogram::in_millis(millis(100), 14),
            last_compaction: AtomicU64::new(0),
            slow_apply,
            slow_applies: Count::default(),
            puts: Count::default(),
            put_bytes: Count::default(),
            deletes: Count::default(),
            txns: Count::default(),
            compacted_keys: Count::default(),
            health_successes: Count::default(),
            health_failures: Count::default(),
            started: SystemTime::now(),
        }
    }

    fn put(&self, put: &Put) {
        self.puts.one();
        self.put_bytes.add((put.key.len() + put.value.len()) as u64);
    }

    /// A command was applied.
    pub(crate) fn applied(&self, op: &Op) {
        match op {
            Op::Put(put) => self.put(put),
            Op::DeleteRange(_) => self.deletes.one(),
            Op::Txn(txn) => {
                self.txns.one();
                count_txn(txn, self);
            }
            _ => {}
        }
    }

    /// A batch of `entries` that ends with the entry `last` was applied and committed.
    pub(crate) fn applied_batch(
        &self,
        began: Instant,
        committing: Instant,
        entries: u64,
        last: u64,
    ) {
        let now = Instant::now();
        self.backend_commit.observe(now - committing);
        let took = now - began;
        if took > self.slow_apply {
            self.slow_applies.one();
            tracing::warn!(
                took = format_duration(took),
                "expected-duration" = format_duration(self.slow_apply),
                prefix = "",
                request = format!("{entries} entries up to index {last}, applied together"),
                "apply request took too long"
            );
        }
    }

    /// A range was answered or refused.
    pub(crate) fn ranged(&self, took: Duration, answered: bool) {
        self.ranges[usize::from(answered)].observe(took);
    }

    /// One step of a compaction.
    pub(crate) fn compacted(&self, removed: usize, took: Duration) {
        self.compacted_keys.add(removed as u64);
        self.compaction_pause.observe(took);
    }

    /// A whole compaction, with the pauses between its steps.
    pub(crate) fn compaction_done(&self, took: Duration) {
        self.compaction_total.observe(took);
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        self.last_compaction
            .store(now.unwrap_or_default().as_secs(), Ordering::Relaxed);
    }

    /// Counts a defragmentation for as long as the guard lives.
    pub(crate) fn defragmenting(&self) -> impl Drop + '_ {
        self.defrag_under_way.during()
    }

    pub(crate) fn defragmented(&self, took: Duration) {
        self.defrag.observe(took);
    }

    /// A health probe was answered.
    pub(crate) fn health(&self, healthy: bool) {
        if healthy {
            self.health_successes.one();
        } else {
            self.health_failures.one();
        }
    }
}
