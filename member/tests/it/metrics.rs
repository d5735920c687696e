//! What Prometheus reads, against what two releases of etcd say after the same calls.

use std::collections::{BTreeMap, BTreeSet};

use crate::process::{ETCD, ETCD_3_5, MEMBER, Server, etcdctl, free_ports, http_get, wait_until};

/// What etcd prints and the member does not, and why. A name that ends in `*` stands for all that begin so.
const ONLY_ETCD: [(&str, &str); 13] = [
    ("go_*", "figures of Go's runtime"),
    ("promhttp_*", "figures of the Prometheus library for Go"),
    ("etcd_server_go_version", "it is not written in Go"),
    (
        "etcd_grpc_proxy_*",
        "figures of a proxy that is not part of it, zero in etcd's server too",
    ),
    ("etcd_debugging_store_*", "figures of the v2 store"),
    (
        "etcd_debugging_disk_backend_commit_*",
        "phases of a bbolt commit; etcd_disk_backend_commit_duration_seconds has the whole",
    ),
    (
        "etcd_mvcc_db_open_read_transactions",
        "its storage has no read transactions: a reader holds no lock and no pages",
    ),
    (
        "etcd_debugging_mvcc_index_compaction_pause_duration_milliseconds",
        "it has no index apart from the storage",
    ),
    (
        "etcd_debugging_snap_save_marshalling_duration_seconds",
        "its durable points are not marshalled",
    ),
    (
        "etcd_debugging_snap_save_total_duration_seconds",
        "its durable points are no files of their own",
    ),
    ("etcd_snap_fsync_duration_seconds", "as above"),
    (
        "etcd_snap_db_fsync_duration_seconds",
        "a snapshot comes in several files; etcd_snap_db_save_total_duration_seconds has the whole",
    ),
    (
        "etcd_network_server_stream_failures_total",
        "streams that end early are counted by their code in grpc_server_handled_total",
    ),
];

/// One family: what tells a dashboard how to read it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Family {
    kind: String,
    labels: BTreeSet<String>,
    buckets: Vec<String>,
}

fn families(text: &str) -> BTreeMap<String, Family> {
    let mut families = BTreeMap::<String, Family>::new();
    for line in text.lines() {
        if let Some((name, kind)) = line
            .strip_prefix("# TYPE ")
            .and_then(|line| line.split_once(' '))
        {
            let family = families.entry(name.to_owned()).or_default();
            assert_eq!(family.kind, "", "{name} is described once");
            family.kind = kind.to_owned();
        } else if !line.starts_with('#') {
            let end = line.find(['{', ' ']).expect("a name and a value");
            let name = &line[..end];
            let base = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|part| name.strip_suffix(part))
                .filter(|base| families.contains_key(*base))
                .unwrap_or(name);
            let family = families.get_mut(base).expect("described before");
            let labels = line
                .split_once('{')
                .and_then(|(_, rest)| rest.split_once('}'));
            let Some((labels, _)) = labels else { continue };
            for label in labels.split("\",") {
                let (label, value) = label.split_once("=\"").expect("a label");
                let value = value.trim_end_matches('"').to_owned();
                if label == "le" {
                    if !family.buckets.contains(&value) {
                        family.buckets.push(value);
                    }
                } else {
                    family.labels.insert(label.to_owned());
                }
            }
        }
    }
    families
}

fn metrics(server: &Server) -> BTreeMap<String, Family> {
    families(&http_get(server.client_port, "/metrics").expect("an answer"))
}

fn is_only_etcds(name: &str) -> bool {
    ONLY_ETCD.iter().any(|(known, _)| {
        known
            .strip_suffix('*')
            .map_or(name == *known, |start| name.starts_with(start))
    })
}

/// What differs, for all families of etcd.
fn differences(etcd: &BTreeMap<String, Family>, member: &BTreeMap<String, Family>) -> Vec<String> {
    let mut found = Vec::new();
    for (name, wanted) in etcd {
        match member.get(name) {
            None if is_only_etcds(name) => {}
            None => found.push(format!("{name}: missing")),
            Some(_) if is_only_etcds(name) => found.push(format!("{name}: is there after all")),
            Some(family) if family == wanted => {}
            Some(family) => found.push(format!("{name}: {family:?} instead of {wanted:?}")),
        }
    }
    found
}

fn value(server: &Server, line: &str) -> Option<f64> {
    let text = http_get(server.client_port, "/metrics")?;
    let value = text
        .lines()
        .find_map(|found| found.strip_prefix(line)?.strip_prefix(' '));
    value?.parse().ok()
}

/// One call of each kind that leaves a trace.
fn exercise(server: &Server) {
    let endpoint = server.endpoint();
    let run = |args: &[&str]| {
        let (ok, out, err) = etcdctl(&endpoint, args);
        assert!(ok, "{args:?}: {err}");
        out
    };
    run(&["put", "a", "b"]);
    run(&["get", "a"]);
    run(&["del", "a"]);
    let granted = run(&["lease", "grant", "60"]);
    let lease = granted.split(' ').nth(1).expect("an id");
    run(&["lease", "keep-alive", "--once", lease]);
    run(&["lease", "revoke", lease]);
    run(&["compact", "2", "--physical"]);
    run(&["defrag"]);
    run(&["endpoint", "hashkv"]);
    let dir = tempfile::TempDir::new().expect("a directory");
    run(&[
        "snapshot",
        "save",
        &dir.path().join("f").display().to_string(),
    ]);
    http_get(server.client_port, "/health").expect("an answer");
    // A refusal.
    let (ok, _, err) = etcdctl(&endpoint, &["get", "a", "--rev=100"]);
    assert!(
        !ok && err.contains("required revision is a future revision"),
        "{err}"
    );
}

#[test]
fn names_types_labels_and_buckets_are_those_of_two_releases_of_etcd() {
    let member = Server::started(MEMBER, &[]);
    exercise(&member);
    for binary in [ETCD, ETCD_3_5] {
        let etcd = Server::started(binary, &[]);
        exercise(&etcd);
        assert_eq!(
            differences(&metrics(&etcd), &metrics(&member)),
            Vec::<String>::new(),
            "{binary}"
        );
        for line in [
            "etcd_mvcc_put_total",
            "etcd_mvcc_delete_total",
            "etcd_mvcc_txn_total",
            "etcd_debugging_mvcc_keys_total",
            "etcd_debugging_mvcc_total_put_size_in_bytes",
            "etcd_debugging_mvcc_current_revision",
            "etcd_debugging_mvcc_compact_revision",
            "etcd_debugging_lease_granted_total",
            "etcd_debugging_lease_renewed_total",
            "etcd_debugging_lease_revoked_total",
            "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds_count",
            "etcd_disk_backend_snapshot_duration_seconds_count",
            "etcd_disk_backend_defrag_duration_seconds_count",
            "etcd_mvcc_hash_rev_duration_seconds_count",
            "etcd_server_health_success",
            "etcd_server_client_requests_total{client_api_version=\"3.4\",type=\"unary\"}",
            "etcd_server_client_requests_total{client_api_version=\"3.4\",type=\"stream\"}",
            "grpc_server_msg_received_total{grpc_method=\"LeaseKeepAlive\",grpc_service=\"etcdserverpb.Lease\",grpc_type=\"bidi_stream\"}",
        ] {
            assert_eq!(
                value(&member, line),
                value(&etcd, line),
                "{line} of {binary}"
            );
        }
        for line in [
            "etcd_network_client_grpc_received_bytes_total",
            "etcd_disk_wal_write_bytes_total",
            "etcd_network_client_grpc_sent_bytes_total",
        ] {
            assert!(value(&member, line) > Some(0.0), "{line}");
        }
    }
    // Ids of leases differ in length, nothing else does.
    let received = "etcd_network_client_grpc_received_bytes_total";
    let etcd = Server::started(ETCD, &[]);
    let member = Server::started(MEMBER, &[]);
    for server in [&etcd, &member] {
        for i in 0..5 {
            let value = "v".repeat(1000 * i + 1);
            assert!(etcdctl(&server.endpoint(), &["put", "k", &value]).0);
        }
    }
    assert_eq!(value(&member, received), value(&etcd, received));
}

#[test]
fn what_is_counted_of_other_members_is_named_as_etcd_names_it() {
    let clusters = [ETCD, MEMBER].map(|binary| {
        let ports: [u16; 6] = free_ports();
        let initial = format!(
            "infra0=http://127.0.0.1:{},infra1=http://127.0.0.1:{},infra2=http://127.0.0.1:{}",
            ports[3], ports[4], ports[5]
        );
        let mut servers: [Server; 3] = std::array::from_fn(|i| {
            Server::of_cluster(
                binary,
                &format!("infra{i}"),
                ports[i],
                ports[i + 3],
                &initial,
                &[],
            )
        });
        crate::server::start_all(&mut servers);
        assert!(etcdctl(&servers[0].endpoint(), &["put", "a", "b"]).0);
        servers
    });
    let [mut etcd, mut member] = clusters;
    let wanted = [
        "etcd_network_peer_sent_bytes_total",
        "etcd_network_peer_received_bytes_total",
        "etcd_network_peer_round_trip_time_seconds",
        "etcd_network_active_peers",
    ];
    for servers in [&etcd, &member] {
        wait_until("the peers are counted", || {
            let found = metrics(&servers[0]);
            wanted.iter().all(|name| found.contains_key(*name))
        });
    }
    for servers in [&mut etcd, &mut member] {
        servers[2].kill();
        wait_until("the loss is counted", || {
            let found = metrics(&servers[0]);
            found.contains_key("etcd_network_disconnected_peers_total")
        });
    }
    let network = |servers: &[Server; 3]| {
        let mut found = metrics(&servers[0]);
        found.retain(|name, _| name.starts_with("etcd_network_"));
        found
    };
    assert_eq!(
        differences(&network(&etcd), &network(&member)),
        Vec::<String>::new()
    );
}
