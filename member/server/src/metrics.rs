//! Counters and the text that Prometheus reads, with etcd's names and types.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use member_flags::format_duration;
use member_state::{Op, Put, Txn, TxnRequest};

use crate::engine::Engine;
use crate::node::{CLUSTER_VERSION, Node, SERVER_VERSION, alarm_name};
use crate::rpc::Calls;

/// A histogram with etcd's exponential buckets: each bound is twice the one before.
#[derive(Debug)]
pub(crate) struct Histogram {
    first: Duration,
    buckets: Box<[AtomicU64]>,
    count: AtomicU64,
    nanos: AtomicU64,
}

impl Histogram {
    fn new(first: Duration, buckets: usize) -> Self {
        Self {
            first,
            buckets: (0..buckets).map(|_| AtomicU64::new(0)).collect(),
            count: AtomicU64::new(0),
            nanos: AtomicU64::new(0),
        }
    }

    pub(crate) fn observe(&self, duration: Duration) {
        let mut bound = self.first;
        for bucket in &self.buckets {
            if duration <= bound {
                bucket.fetch_add(1, Ordering::Relaxed);
                break;
            }
            bound *= 2;
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        self.nanos.fetch_add(
            u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX),
            Ordering::Relaxed,
        );
    }

    fn render(&self, out: &mut String, name: &str, help: &str) {
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} histogram");
        let mut bound = self.first;
        let mut below = 0;
        for bucket in &self.buckets {
            below += bucket.load(Ordering::Relaxed);
            let _ = writeln!(
                out,
                "{name}_bucket{{le=\"{}\"}} {below}",
                bound.as_secs_f64()
            );
            bound *= 2;
        }
        let count = self.count.load(Ordering::Relaxed);
        let sum = Duration::from_nanos(self.nanos.load(Ordering::Relaxed)).as_secs_f64();
        let _ = writeln!(
            out,
            "{name}_bucket{{le=\"+Inf\"}} {count}\n{name}_sum {sum}\n{name}_count {count}"
        );
    }
}

/// What is counted outside the member's own state.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) wal_fsync: Histogram,
    pub(crate) hash: Histogram,
    pub(crate) hash_rev: Histogram,
    pub(crate) calls: Calls,
    backend_commit: Histogram,
    defrag: Histogram,
    slow_apply: Duration,
    slow_applies: AtomicU64,
    puts: AtomicU64,
    put_bytes: AtomicU64,
    deletes: AtomicU64,
    txns: AtomicU64,
    ranges: AtomicU64,
    compacted_keys: AtomicU64,
    health_successes: AtomicU64,
    health_failures: AtomicU64,
    started: SystemTime,
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
            Some(TxnRequest::DeleteRange(_)) => {
                metrics.deletes.fetch_add(1, Ordering::Relaxed);
            }
            Some(TxnRequest::Txn(nested)) => count_txn(nested, metrics),
            Some(TxnRequest::Range(_)) | None => {}
        }
    }
}

impl Metrics {
    /// Applying longer than `slow_apply` is logged.
    pub(crate) fn new(slow_apply: Duration) -> Self {
        let millis = Duration::from_millis;
        Self {
            // etcd: from 1 ms to 8 s.
            wal_fsync: Histogram::new(millis(1), 14),
            backend_commit: Histogram::new(millis(1), 14),
            // etcd: from 10 ms to 163 s, and from 100 ms to 409 s.
            hash: Histogram::new(millis(10), 15),
            hash_rev: Histogram::new(millis(10), 15),
            defrag: Histogram::new(millis(100), 13),
            calls: Calls::default(),
            slow_apply,
            slow_applies: AtomicU64::new(0),
            puts: AtomicU64::new(0),
            put_bytes: AtomicU64::new(0),
            deletes: AtomicU64::new(0),
            txns: AtomicU64::new(0),
            ranges: AtomicU64::new(0),
            compacted_keys: AtomicU64::new(0),
            health_successes: AtomicU64::new(0),
            health_failures: AtomicU64::new(0),
            started: SystemTime::now(),
        }
    }

    fn put(&self, put: &Put) {
        self.puts.fetch_add(1, Ordering::Relaxed);
        self.put_bytes
            .fetch_add((put.key.len() + put.value.len()) as u64, Ordering::Relaxed);
    }

    /// A command was applied.
    pub(crate) fn applied(&self, op: &Op) {
        match op {
            Op::Put(put) => self.put(put),
            Op::DeleteRange(_) => {
                self.deletes.fetch_add(1, Ordering::Relaxed);
            }
            Op::Txn(txn) => {
                self.txns.fetch_add(1, Ordering::Relaxed);
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
            self.slow_applies.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(
                took = format_duration(took),
                "expected-duration" = format_duration(self.slow_apply),
                prefix = "",
                request = format!("{entries} entries up to index {last}, applied together"),
                "apply request took too long"
            );
        }
    }

    /// A range was answered.
    pub(crate) fn ranged(&self) {
        self.ranges.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn compacted(&self, removed: usize) {
        self.compacted_keys
            .fetch_add(removed as u64, Ordering::Relaxed);
    }

    pub(crate) fn defragmented(&self, took: Duration) {
        self.defrag.observe(took);
    }

    /// A health probe was answered.
    pub(crate) fn health(&self, healthy: bool) {
        let counter = if healthy {
            &self.health_successes
        } else {
            &self.health_failures
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// The exposition in Prometheus's text format.
pub(crate) fn render<E: Engine>(node: &Node<E>) -> String {
    let mut out = String::with_capacity(4096);
    let mut one = |name: &str, kind: &str, help: &str, value: u64| {
        let _ = writeln!(
            out,
            "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}"
        );
    };
    let leadership = node.seen_leadership();
    let progress = node.progress();
    let store = node.store();
    one(
        "etcd_server_has_leader",
        "gauge",
        "Whether or not a leader exists. 1 is existence, 0 is not.",
        u64::from(leadership.leader.is_some()),
    );
    one(
        "etcd_server_is_leader",
        "gauge",
        "Whether or not this member is a leader. 1 if is, 0 otherwise.",
        u64::from(leadership.leader == Some(node.id)),
    );
    one(
        "etcd_server_is_learner",
        "gauge",
        "Whether or not this member is a learner. 1 if is, 0 otherwise.",
        u64::from(node.is_learner()),
    );
    one(
        "etcd_server_leader_changes_seen_total",
        "counter",
        "The number of leader changes seen.",
        node.consensus.leader_changes(),
    );
    one(
        "etcd_server_proposals_committed_total",
        "gauge",
        "The total number of consensus proposals committed.",
        progress.committed,
    );
    one(
        "etcd_server_proposals_applied_total",
        "gauge",
        "The total number of consensus proposals applied.",
        node.applied_index(),
    );
    one(
        "etcd_server_proposals_pending",
        "gauge",
        "The current number of pending proposals to commit.",
        node.proposals.pending().0 as u64,
    );
    one(
        "etcd_server_proposals_failed_total",
        "counter",
        "The total number of failed proposals seen.",
        node.proposals.failed(),
    );
    one(
        "etcd_mvcc_db_total_size_in_bytes",
        "gauge",
        "Total size of the underlying database physically allocated in bytes.",
        store.size(),
    );
    let metrics = &node.metrics;
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let now = [
        (
            "etcd_mvcc_db_total_size_in_use_in_bytes",
            "gauge",
            "Total size of the underlying database logically in use in bytes.",
            store.size_in_use().min(store.size()),
        ),
        (
            "etcd_server_quota_backend_bytes",
            "gauge",
            "Current backend storage quota size in bytes.",
            node.replica.quota.limit().unwrap_or(0),
        ),
        (
            "etcd_server_slow_apply_total",
            "counter",
            "The total number of slow apply requests (likely overloaded from slow disk).",
            count(&metrics.slow_applies),
        ),
        (
            "etcd_mvcc_put_total",
            "counter",
            "Total number of puts seen by this member.",
            count(&metrics.puts),
        ),
        (
            "etcd_mvcc_delete_total",
            "counter",
            "Total number of deletes seen by this member.",
            count(&metrics.deletes),
        ),
        (
            "etcd_mvcc_txn_total",
            "counter",
            "Total number of txns seen by this member.",
            count(&metrics.txns),
        ),
        (
            "etcd_mvcc_range_total",
            "counter",
            "Total number of ranges seen by this member.",
            count(&metrics.ranges),
        ),
        (
            "etcd_debugging_mvcc_total_put_size_in_bytes",
            "gauge",
            "The total size of put kv pairs seen by this member.",
            count(&metrics.put_bytes),
        ),
        (
            "etcd_debugging_mvcc_db_compaction_keys_total",
            "counter",
            "Total number of db keys compacted.",
            count(&metrics.compacted_keys),
        ),
        (
            "etcd_server_health_success",
            "counter",
            "The total number of successful health checks",
            count(&metrics.health_successes),
        ),
        (
            "etcd_server_health_failures",
            "counter",
            "The total number of failed health checks",
            count(&metrics.health_failures),
        ),
    ];
    for (name, kind, help, value) in now {
        one(name, kind, help, value);
    }
    one(
        "etcd_debugging_store_current_revision",
        "gauge",
        "The current revision of the store.",
        u64::try_from(store.revision()).unwrap_or(0),
    );
    one(
        "etcd_debugging_mvcc_current_revision",
        "gauge",
        "The current revision of store.",
        u64::try_from(store.revision()).unwrap_or(0),
    );
    one(
        "etcd_debugging_mvcc_compact_revision",
        "gauge",
        "The revision of the last compaction in store.",
        u64::try_from(store.compact_revision()).unwrap_or(0),
    );
    let watches = &node.watches.counts;
    let gauge = |value: &AtomicI64| u64::try_from(value.load(Ordering::Relaxed)).unwrap_or(0);
    one(
        "etcd_debugging_mvcc_watch_stream_total",
        "gauge",
        "Total number of watch streams.",
        gauge(&watches.streams),
    );
    one(
        "etcd_debugging_mvcc_watcher_total",
        "gauge",
        "Total number of watchers.",
        gauge(&watches.watchers),
    );
    one(
        "etcd_debugging_mvcc_slow_watcher_total",
        "gauge",
        "Total number of unsynced slow watchers.",
        gauge(&watches.lagging),
    );
    one(
        "etcd_debugging_mvcc_pending_events_total",
        "gauge",
        "Total number of pending events to be sent.",
        gauge(&watches.pending),
    );
    one(
        "etcd_debugging_mvcc_events_total",
        "counter",
        "Total number of events sent by this member.",
        watches.events.load(Ordering::Relaxed),
    );
    if let Some(process) = Process::read() {
        one(
            "process_resident_memory_bytes",
            "gauge",
            "Resident memory size in bytes.",
            process.resident_bytes,
        );
        one(
            "process_open_fds",
            "gauge",
            "Number of open file descriptors.",
            process.open_files,
        );
        one(
            "process_max_fds",
            "gauge",
            "Maximum number of open file descriptors.",
            process.max_files,
        );
        one(
            "process_virtual_memory_bytes",
            "gauge",
            "Virtual memory size in bytes.",
            process.virtual_bytes,
        );
        one(
            "os_fd_used",
            "gauge",
            "The number of used file descriptors.",
            process.open_files,
        );
        one(
            "os_fd_limit",
            "gauge",
            "The file descriptor limit.",
            process.max_files,
        );
        let started = metrics.started.duration_since(UNIX_EPOCH);
        let _ = writeln!(
            out,
            "# HELP process_start_time_seconds Start time of the process since unix epoch in seconds.\n\
             # TYPE process_start_time_seconds gauge\n\
             process_start_time_seconds {}",
            started.unwrap_or_default().as_secs_f64()
        );
        let _ = writeln!(
            out,
            "# HELP process_cpu_seconds_total Total user and system CPU time spent in seconds.\n\
             # TYPE process_cpu_seconds_total counter\n\
             process_cpu_seconds_total {}",
            process.cpu.as_secs_f64()
        );
    }
    let _ = writeln!(
        out,
        "# HELP etcd_server_version Which version is running. 1 for 'server_version' label with current version.\n\
         # TYPE etcd_server_version gauge\n\
         etcd_server_version{{server_version=\"{SERVER_VERSION}\"}} 1\n\
         # HELP etcd_server_id Server or member ID in hexadecimal format. 1 for 'server_id' label with current ID.\n\
         # TYPE etcd_server_id gauge\n\
         etcd_server_id{{server_id=\"{:x}\"}} 1",
        node.id
    );
    node.replica.leases.counters.render(&mut out);
    let cluster = CLUSTER_VERSION
        .rsplit_once('.')
        .map_or("", |(minor, _)| minor);
    let _ = writeln!(
        out,
        "# HELP etcd_cluster_version Which version is running. 1 for 'cluster_version' label with current cluster version\n\
         # TYPE etcd_cluster_version gauge\n\
         etcd_cluster_version{{cluster_version=\"{cluster}\"}} 1"
    );
    render_members(node, &mut out);
    let histograms = [
        (
            &metrics.wal_fsync,
            "etcd_disk_wal_fsync_duration_seconds",
            "The latency distributions of fsync called by WAL.",
        ),
        (
            &metrics.backend_commit,
            "etcd_disk_backend_commit_duration_seconds",
            "The latency distributions of commit called by backend.",
        ),
        (
            &metrics.defrag,
            "etcd_disk_backend_defrag_duration_seconds",
            "The latency distribution of backend defragmentation.",
        ),
        (
            &metrics.hash,
            "etcd_mvcc_hash_duration_seconds",
            "The latency distribution of storage hash operation.",
        ),
        (
            &metrics.hash_rev,
            "etcd_mvcc_hash_rev_duration_seconds",
            "The latency distribution of storage hash by revision operation.",
        ),
    ];
    for (histogram, name, help) in histograms {
        histogram.render(&mut out, name, help);
    }
    metrics.calls.render(&mut out);
    out
}

/// What has a label for each member.
fn render_members<E: Engine>(node: &Node<E>, out: &mut String) {
    let own = node.id;
    let others: Vec<u64> = node
        .consensus
        .nodes()
        .into_iter()
        .map(|other| other.id)
        .filter(|id| *id != own)
        .collect();
    if !others.is_empty() {
        out.push_str(
            "# HELP etcd_network_known_peers The current number of known peers.\n\
             # TYPE etcd_network_known_peers gauge\n",
        );
        for other in others {
            let _ = writeln!(
                out,
                "etcd_network_known_peers{{Local=\"{own:x}\",Remote=\"{other:x}\"}} 1"
            );
        }
    }
    let alarms = node.store().alarms().unwrap_or_default();
    if !alarms.is_empty() {
        out.push_str(
            "# HELP etcd_debugging_server_alarms Alarms for every member in cluster. 1 for 'server_id' label with current ID. 2 for 'alarm_type' label with type of this alarm\n\
             # TYPE etcd_debugging_server_alarms gauge\n",
        );
        for alarm in alarms {
            let _ = writeln!(
                out,
                "etcd_debugging_server_alarms{{alarm_type=\"{}\",server_id=\"{:x}\"}} 1",
                alarm_name(alarm.alarm),
                alarm.member_id
            );
        }
    }
}

/// The variables that etcd publishes as JSON; Go's statistics of its own memory have no counterpart.
pub(crate) fn variables<E: Engine>(node: &Node<E>) -> String {
    let leadership = node.leadership();
    let arguments: Vec<String> = std::env::args_os()
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    let state = match leadership.leader {
        Some(leader) if leader == node.id => "StateLeader",
        _ if node.is_learner() => "StateLearner",
        Some(_) => "StateFollower",
        None => "StateCandidate",
    };
    let variables = serde_json::json!({
        "cmdline": arguments,
        "file_descriptor_limit": Process::read().map_or(0, |process| process.max_files),
        "raft.status": {
            "id": format!("{:x}", node.id),
            "term": leadership.term,
            "commit": node.progress().committed,
            "applied": node.applied_index(),
            "lead": format!("{:x}", leadership.leader.unwrap_or(0)),
            "raftState": state,
        },
    });
    format!("{variables:#}\n")
}

/// What the kernel says of this process.
struct Process {
    resident_bytes: u64,
    virtual_bytes: u64,
    open_files: u64,
    max_files: u64,
    cpu: Duration,
}

impl Process {
    fn read() -> Option<Self> {
        let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
        let mut pages = statm.split_whitespace();
        let virtual_pages: u64 = pages.next()?.parse().ok()?;
        let resident_pages: u64 = pages.next()?.parse().ok()?;
        let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
        let max_files = limits
            .lines()
            .find_map(|line| line.strip_prefix("Max open files"))
            .and_then(|line| line.split_whitespace().next()?.parse().ok())
            // "unlimited"
            .unwrap_or(u64::MAX);
        let open_files = std::fs::read_dir("/proc/self/fd").ok()?.count() as u64;
        let clock = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        let cpu = Duration::new(
            u64::try_from(clock.tv_sec).ok()?,
            u32::try_from(clock.tv_nsec).ok()?,
        );
        Some(Self {
            resident_bytes: resident_pages * rustix::param::page_size() as u64,
            virtual_bytes: virtual_pages * rustix::param::page_size() as u64,
            open_files,
            max_files,
            cpu,
        })
    }
}
