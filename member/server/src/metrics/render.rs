//! The exposition in Prometheus's text format, and Go's variables as JSON.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use member_state::Range;

use super::process::Process;
use super::{Metrics, PROMOTION_FAILURES};
use crate::engine::Engine;
use crate::node::{CLUSTER_VERSION, Node, SERVER_VERSION, alarm_name};

/// The exposition in Prometheus's text format.
pub(crate) fn render<E: Engine>(node: &Node<E>) -> String {
    let mut out = String::with_capacity(64 << 10);
    render_server(node, &mut out);
    render_store(node, &mut out);
    render_debugging(node, &mut out);
    render_process(&node.metrics, &mut out);
    node.replica.leases.counters.render(&mut out);
    render_members(node, &mut out);
    node.metrics.peers.render(&mut out, node.id);
    node.metrics.checks.render(&mut out);
    render_times(&node.metrics, &mut out);
    node.metrics.calls.render(&mut out);
    out
}

pub(super) fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn one(out: &mut String, name: &str, kind: &str, help: &str, value: impl std::fmt::Display) {
    head(out, name, kind, help);
    let _ = writeln!(out, "{name} {value}");
}

fn render_server<E: Engine>(node: &Node<E>, out: &mut String) {
    let leadership = node.seen_leadership();
    let metrics = &node.metrics;
    one(
        out,
        "etcd_server_has_leader",
        "gauge",
        "Whether or not a leader exists. 1 is existence, 0 is not.",
        u64::from(leadership.leader.is_some()),
    );
    one(
        out,
        "etcd_server_is_leader",
        "gauge",
        "Whether or not this member is a leader. 1 if is, 0 otherwise.",
        u64::from(leadership.leader == Some(node.id)),
    );
    one(
        out,
        "etcd_server_is_learner",
        "gauge",
        "Whether or not this member is a learner. 1 if is, 0 otherwise.",
        u64::from(node.is_learner()),
    );
    one(
        out,
        "etcd_server_leader_changes_seen_total",
        "counter",
        "The number of leader changes seen.",
        node.consensus.leader_changes(),
    );
    one(
        out,
        "etcd_server_proposals_committed_total",
        "gauge",
        "The total number of consensus proposals committed.",
        node.progress().committed,
    );
    one(
        out,
        "etcd_server_proposals_applied_total",
        "gauge",
        "The total number of consensus proposals applied.",
        node.applied_index(),
    );
    one(
        out,
        "etcd_server_proposals_pending",
        "gauge",
        "The current number of pending proposals to commit.",
        node.proposals.pending().0,
    );
    one(
        out,
        "etcd_server_proposals_failed_total",
        "counter",
        "The total number of failed proposals seen.",
        node.proposals.failed(),
    );
    one(
        out,
        "etcd_server_read_indexes_failed_total",
        "counter",
        "The total number of failed read indexes seen.",
        metrics.failed_read_indexes.get(),
    );
    one(
        out,
        "etcd_server_slow_read_indexes_total",
        "counter",
        "The total number of pending read indexes not in sync with leader's or timed out read index requests.",
        metrics.slow_read_indexes.get(),
    );
    one(
        out,
        "etcd_server_heartbeat_send_failures_total",
        "counter",
        "The total number of leader heartbeat send failures (likely overloaded from slow disk).",
        metrics.late_heartbeats.get(),
    );
    one(
        out,
        "etcd_server_slow_apply_total",
        "counter",
        "The total number of slow apply requests (likely overloaded from slow disk).",
        metrics.slow_applies.get(),
    );
    one(
        out,
        "etcd_server_snapshot_apply_in_progress_total",
        "gauge",
        "1 if the server is applying the incoming snapshot. 0 if none.",
        metrics.installing_snapshot.get(),
    );
    one(
        out,
        "etcd_server_learner_promote_successes",
        "counter",
        "The total number of successful learner promotions while this member is leader.",
        metrics.promotions.get(),
    );
    one(
        out,
        "etcd_server_health_success",
        "counter",
        "The total number of successful health checks",
        metrics.health_successes.get(),
    );
    one(
        out,
        "etcd_server_health_failures",
        "counter",
        "The total number of failed health checks",
        metrics.health_failures.get(),
    );
    one(
        out,
        "etcd_server_quota_backend_bytes",
        "gauge",
        "Current backend storage quota size in bytes.",
        node.replica.quota.limit().unwrap_or(0),
    );
    let failed = PROMOTION_FAILURES
        .iter()
        .zip(&metrics.refused_promotions.0)
        .filter(|(_, count)| count.get() > 0);
    for (at, (reason, count)) in failed.enumerate() {
        let name = "etcd_server_learner_promote_failures";
        if at == 0 {
            head(
                out,
                name,
                "counter",
                "The total number of failed learner promotions (likely learner not ready) while this member is leader.",
            );
        }
        let _ = writeln!(out, "{name}{{Reason=\"{reason}\"}} {}", count.get());
    }
    let cluster = CLUSTER_VERSION
        .rsplit_once('.')
        .map_or("", |(minor, _)| minor);
    let version = "Which version is running. 1 for";
    for (name, help, label, value) in [
        (
            "etcd_server_version",
            format!("{version} 'server_version' label with current version."),
            "server_version",
            SERVER_VERSION.to_owned(),
        ),
        (
            "etcd_cluster_version",
            format!("{version} 'cluster_version' label with current cluster version"),
            "cluster_version",
            cluster.to_owned(),
        ),
        (
            "etcd_server_id",
            "Server or member ID in hexadecimal format. 1 for 'server_id' label with current ID."
                .to_owned(),
            "server_id",
            format!("{:x}", node.id),
        ),
    ] {
        head(out, name, "gauge", &help);
        let _ = writeln!(out, "{name}{{{label}=\"{value}\"}} 1");
    }
}

fn render_store<E: Engine>(node: &Node<E>, out: &mut String) {
    let store = node.store();
    let metrics = &node.metrics;
    let ranges: u64 = metrics.ranges.iter().map(super::Histogram::count).sum();
    let size = store.size();
    one(
        out,
        "etcd_mvcc_db_total_size_in_bytes",
        "gauge",
        "Total size of the underlying database physically allocated in bytes.",
        size,
    );
    one(
        out,
        "etcd_mvcc_db_total_size_in_use_in_bytes",
        "gauge",
        "Total size of the underlying database logically in use in bytes.",
        store.size_in_use().min(size),
    );
    one(
        out,
        "etcd_mvcc_put_total",
        "counter",
        "Total number of puts seen by this member.",
        metrics.puts.get(),
    );
    one(
        out,
        "etcd_mvcc_delete_total",
        "counter",
        "Total number of deletes seen by this member.",
        metrics.deletes.get(),
    );
    one(
        out,
        "etcd_mvcc_txn_total",
        "counter",
        "Total number of txns seen by this member.",
        metrics.txns.get(),
    );
    one(
        out,
        "etcd_mvcc_range_total",
        "counter",
        "Total number of ranges seen by this member.",
        ranges,
    );
    // The names of before etcd 3.5, which dashboards still ask for.
    one(
        out,
        "etcd_debugging_mvcc_db_total_size_in_bytes",
        "gauge",
        "Total size of the underlying database physically allocated in bytes.",
        size,
    );
    one(
        out,
        "etcd_debugging_mvcc_put_total",
        "counter",
        "Total number of puts seen by this member.",
        metrics.puts.get(),
    );
    one(
        out,
        "etcd_debugging_mvcc_delete_total",
        "counter",
        "Total number of deletes seen by this member.",
        metrics.deletes.get(),
    );
    one(
        out,
        "etcd_debugging_mvcc_txn_total",
        "counter",
        "Total number of txns seen by this member.",
        metrics.txns.get(),
    );
    one(
        out,
        "etcd_debugging_mvcc_range_total",
        "counter",
        "Total number of ranges seen by this member.",
        ranges,
    );
    one(
        out,
        "etcd_debugging_mvcc_total_put_size_in_bytes",
        "gauge",
        "The total size of put kv pairs seen by this member.",
        metrics.put_bytes.get(),
    );
    one(
        out,
        "etcd_debugging_mvcc_db_compaction_keys_total",
        "counter",
        "Total number of db keys compacted.",
        metrics.compacted_keys.get(),
    );
    one(
        out,
        "etcd_debugging_mvcc_db_compaction_last",
        "gauge",
        "The unix time of the last db compaction. Resets to 0 on start.",
        metrics.last_compaction.load(Ordering::Relaxed),
    );
    one(
        out,
        "etcd_debugging_mvcc_current_revision",
        "gauge",
        "The current revision of store.",
        store.revision(),
    );
    one(
        out,
        "etcd_debugging_mvcc_compact_revision",
        "gauge",
        "The revision of the last compaction in store.",
        store.compact_revision().max(0),
    );
    one(
        out,
        "etcd_debugging_auth_revision",
        "gauge",
        "The current revision of auth store.",
        store.auth().revision(),
    );
    one(
        out,
        "etcd_disk_wal_write_bytes_total",
        "gauge",
        "Total number of bytes written in WAL.",
        node.log.stats().written_bytes,
    );
    one(
        out,
        "etcd_disk_defrag_inflight",
        "gauge",
        "Whether or not defrag is active on the member. 1 means active, 0 means not.",
        metrics.defrag_under_way.get(),
    );
    // Until the keys are counted, only a walk over all of them could tell.
    if store.is_counted() {
        let all = Range {
            key: Bytes::from_static(&[0]),
            range_end: Bytes::from_static(&[0]),
            count_only: true,
            ..Range::default()
        };
        if let Ok(found) = store.range(&all) {
            one(
                out,
                "etcd_debugging_mvcc_keys_total",
                "gauge",
                "Total number of keys.",
                found.count,
            );
        }
    }
}

fn render_debugging<E: Engine>(node: &Node<E>, out: &mut String) {
    let watches = &node.watches.counts;
    let gauge = |value: &AtomicI64| value.load(Ordering::Relaxed).max(0);
    one(
        out,
        "etcd_debugging_mvcc_watch_stream_total",
        "gauge",
        "Total number of watch streams.",
        gauge(&watches.streams),
    );
    one(
        out,
        "etcd_debugging_mvcc_watcher_total",
        "gauge",
        "Total number of watchers.",
        gauge(&watches.watchers),
    );
    one(
        out,
        "etcd_debugging_mvcc_slow_watcher_total",
        "gauge",
        "Total number of unsynced slow watchers.",
        gauge(&watches.lagging),
    );
    one(
        out,
        "etcd_debugging_mvcc_pending_events_total",
        "gauge",
        "Total number of pending events to be sent.",
        gauge(&watches.pending),
    );
    one(
        out,
        "etcd_debugging_mvcc_events_total",
        "counter",
        "Total number of events sent by this member.",
        watches.events.load(Ordering::Relaxed),
    );
}

fn render_process(metrics: &Metrics, out: &mut String) {
    let started = metrics
        .started
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    one(
        out,
        "process_start_time_seconds",
        "gauge",
        "Start time of the process since unix epoch in seconds.",
        started.as_secs_f64(),
    );
    let Some(process) = Process::read() else {
        return;
    };
    one(
        out,
        "process_resident_memory_bytes",
        "gauge",
        "Resident memory size in bytes.",
        process.resident_bytes,
    );
    one(
        out,
        "process_virtual_memory_bytes",
        "gauge",
        "Virtual memory size in bytes.",
        process.virtual_bytes,
    );
    one(
        out,
        "process_virtual_memory_max_bytes",
        "gauge",
        "Maximum amount of virtual memory available in bytes.",
        process.max_virtual_bytes,
    );
    one(
        out,
        "process_open_fds",
        "gauge",
        "Number of open file descriptors.",
        process.open_files,
    );
    one(
        out,
        "process_max_fds",
        "gauge",
        "Maximum number of open file descriptors.",
        process.max_files,
    );
    one(
        out,
        "os_fd_used",
        "gauge",
        "The number of used file descriptors.",
        process.open_files,
    );
    one(
        out,
        "os_fd_limit",
        "gauge",
        "The file descriptor limit.",
        process.max_files,
    );
    one(
        out,
        "process_cpu_seconds_total",
        "counter",
        "Total user and system CPU time spent in seconds.",
        process.cpu.as_secs_f64(),
    );
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

fn render_times(metrics: &Metrics, out: &mut String) {
    let histograms = [
        (
            &metrics.wal_fsync,
            "etcd_disk_wal_fsync_duration_seconds",
            "The latency distributions of fsync called by WAL.",
        ),
        (
            &metrics.wal_write,
            "etcd_disk_wal_write_duration_seconds",
            "The latency distributions of write called by WAL.",
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
            &metrics.snapshot,
            "etcd_disk_backend_snapshot_duration_seconds",
            "The latency distribution of backend snapshots.",
        ),
        (
            &metrics.snapshot_saved,
            "etcd_snap_db_save_total_duration_seconds",
            "The total latency distributions of v3 snapshot save",
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
        (
            &metrics.compaction_pause,
            "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds",
            "Bucketed histogram of db compaction pause duration.",
        ),
        (
            &metrics.compaction_total,
            "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds",
            "Bucketed histogram of db compaction total duration.",
        ),
    ];
    for (histogram, name, help) in histograms {
        head(out, name, "histogram", help);
        histogram.render(out, name, "");
    }
    let name = "etcd_server_range_duration_seconds";
    if metrics.ranges.iter().any(|ranges| !ranges.is_empty()) {
        head(
            out,
            name,
            "histogram",
            "The latency distributions of txn.Range",
        );
    }
    for (histogram, success) in metrics.ranges.iter().zip(["false", "true"]) {
        if !histogram.is_empty() {
            histogram.render(out, name, &format!("success=\"{success}\","));
        }
    }
    let name = "etcd_server_apply_duration_seconds";
    if metrics.applies.any() {
        head(
            out,
            name,
            "histogram",
            "The latency distributions of v2 apply called by backend.",
        );
        metrics.applies.render(out, name);
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
