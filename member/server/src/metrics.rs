//! Counters and the text that Prometheus reads, with etcd's names and types.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use crate::engine::Engine;
use crate::node::{Node, SERVER_VERSION};

/// etcd's buckets of `etcd_disk_wal_fsync_duration_seconds`: 1 ms doubled thirteen times.
const FSYNC_BUCKETS: usize = 14;
const FIRST_BUCKET: Duration = Duration::from_millis(1);

/// A histogram with etcd's exponential buckets.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    buckets: [AtomicU64; FSYNC_BUCKETS],
    count: AtomicU64,
    nanos: AtomicU64,
}

impl Histogram {
    pub(crate) fn observe(&self, duration: Duration) {
        let mut bound = FIRST_BUCKET;
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
        let mut bound = FIRST_BUCKET;
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
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) wal_fsync: Histogram,
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
    node.metrics.wal_fsync.render(
        &mut out,
        "etcd_disk_wal_fsync_duration_seconds",
        "The latency distributions of fsync called by WAL.",
    );
    out
}

/// What the kernel says of this process.
struct Process {
    resident_bytes: u64,
    open_files: u64,
    cpu: Duration,
}

impl Process {
    fn read() -> Option<Self> {
        let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
        let resident_pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
        let open_files = std::fs::read_dir("/proc/self/fd").ok()?.count() as u64;
        let clock = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        let cpu = Duration::new(
            u64::try_from(clock.tv_sec).ok()?,
            u32::try_from(clock.tv_nsec).ok()?,
        );
        Some(Self {
            resident_bytes: resident_pages * rustix::param::page_size() as u64,
            open_files,
            cpu,
        })
    }
}
