//! Maintenance as an operator does it, with etcdctl, and hashes against those of etcd itself.

use serde_json::Value;

use crate::process::{ETCD, MEMBER, Server, etcdctl, http_get, wait_until};

fn ok(server: &Server, args: &[&str]) -> String {
    let (ok, out, err) = etcdctl(&server.endpoint(), args);
    assert!(ok, "{args:?}: {err}");
    out
}

fn json(server: &Server, args: &[&str]) -> Value {
    let mut args = args.to_vec();
    args.extend(["-w", "json"]);
    serde_json::from_str(&ok(server, &args)).expect("JSON")
}

/// Hash and compacted revision at a revision, 0 for the newest.
fn hash_kv(server: &Server, revision: u32) -> (u64, i64) {
    let revision = format!("--rev={revision}");
    let answer = json(server, &["endpoint", "hashkv", &revision]);
    let hash = &answer[0]["HashKV"];
    (
        hash["hash"].as_u64().expect("a hash"),
        hash["compact_revision"].as_i64().unwrap_or(0),
    )
}

#[test]
fn hashes_of_keys_are_etcds_at_every_revision_and_after_compactions() {
    let servers = [Server::started(ETCD, &[]), Server::started(MEMBER, &[])];
    let both = |args: &[&str]| {
        for server in &servers {
            ok(server, args);
        }
    };
    let same = |from: u32, to: u32| {
        for revision in (from..=to).chain([0]) {
            let [etcd, member] = [0, 1].map(|i| hash_kv(&servers[i], revision));
            assert_eq!(member, etcd, "at revision {revision}");
        }
    };
    same(1, 1);
    for i in 0..4 {
        both(&["put", &format!("k{i}"), &format!("value {i}")]);
    }
    both(&["put", "k0", "again"]);
    both(&["del", "k1"]);
    both(&["put", "k1", "reborn"]);
    both(&["put", "empty", ""]);
    both(&["del", "k2", "k4"]);
    // Revision 10. A tombstone at the compacted revision, and one before it.
    same(1, 10);
    both(&["compact", "--physical", "7"]);
    same(8, 10);
    both(&["put", "k0", "third"]);
    both(&["compact", "--physical", "10"]);
    same(11, 11);
    both(&["del", "", "--prefix"]);
    // Nothing is live any more: etcd then counts what the compaction kept.
    same(11, 12);
    both(&["compact", "--physical", "12"]);
    both(&["put", "k", "v"]);
    same(13, 13);
}

#[test]
fn a_full_member_raises_its_alarm_and_recovers_by_compaction_and_defragmentation() {
    let server = Server::started(MEMBER, &["--quota-backend-bytes=16777216"]);
    // Not compressible, so that what is written is what is stored.
    let mut state = 1u64;
    let value: String = (0..100_000)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            char::from(b'0' + u8::try_from((state >> 33) % 64).expect("below 64"))
        })
        .collect();
    let mut written = 0;
    let error = loop {
        let (done, _, error) = etcdctl(&server.endpoint(), &["put", "k", &value]);
        if !done {
            break error;
        }
        written += 1;
        assert!(written < 1000, "16 MiB take 100 kB {written} times");
    };
    assert!(
        error.contains("etcdserver: mvcc: database space exceeded"),
        "{error}"
    );
    assert!(written > 50, "{written}");
    assert!(ok(&server, &["alarm", "list"]).contains("alarm:NOSPACE"));
    let health = http_get(server.client_port, "/health").expect("an answer");
    assert_eq!(
        health,
        "{\"health\":\"false\",\"reason\":\"ALARM NOSPACE\"}"
    );
    let health = http_get(server.client_port, "/health?exclude=NOSPACE").expect("an answer");
    assert_eq!(health, "{\"health\":\"true\",\"reason\":\"\"}");
    let status = json(&server, &["endpoint", "status"])[0]["Status"].clone();
    let errors = status["errors"].to_string();
    assert!(errors.contains("alarm:NOSPACE "), "{errors}");
    let full = status["dbSize"].as_i64().expect("a size");
    let revision = status["header"]["revision"].to_string();
    ok(&server, &["get", "k", "--keys-only"]);
    ok(&server, &["compact", "--physical", &revision]);
    let status = json(&server, &["endpoint", "status"])[0]["Status"].clone();
    assert!(
        status["dbSizeInUse"].as_i64().expect("a size") < 1 << 20,
        "{status}"
    );
    ok(&server, &["defrag"]);
    let status = json(&server, &["endpoint", "status"])[0]["Status"].clone();
    let size = status["dbSize"].as_i64().expect("a size");
    assert!(size < full / 2, "{size} of {full}");
    let (done, _, error) = etcdctl(&server.endpoint(), &["put", "k", "small"]);
    assert!(
        !done && error.contains("database space exceeded"),
        "{error}"
    );
    assert!(ok(&server, &["alarm", "disarm"]).contains("alarm:NOSPACE"));
    assert_eq!(ok(&server, &["alarm", "list"]), "");
    ok(&server, &["put", "k", "small"]);
}

#[test]
fn revisions_beyond_a_number_are_compacted_by_the_period() {
    let server = Server::started(
        MEMBER,
        &[
            "--auto-compaction-mode=periodic",
            "--auto-compaction-retention=1s",
        ],
    );
    for i in 0..5 {
        ok(&server, &["put", "k", &i.to_string()]);
    }
    wait_until("the history is compacted", || {
        let (done, _, error) = etcdctl(&server.endpoint(), &["get", "k", "--rev=2"]);
        !done && error.contains("required revision has been compacted")
    });
    wait_until("it is said", || {
        server.log().contains("completed auto periodic compaction")
    });
    ok(&server, &["get", "k"]);
}

#[test]
fn metrics_tell_of_calls_and_quota() {
    let server = Server::started(MEMBER, &["--quota-backend-bytes=1000000000"]);
    ok(&server, &["put", "k", "v"]);
    let metrics = http_get(server.client_port, "/metrics").expect("an answer");
    for line in [
        "etcd_server_quota_backend_bytes 1000000000\n",
        "etcd_mvcc_put_total 1\n",
        "grpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"} 1\n",
        "etcd_cluster_version{cluster_version=\"3.6\"} 1\n",
    ] {
        assert!(metrics.contains(line), "{line} in\n{metrics}");
    }
    let families: Vec<&str> = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .collect();
    let distinct: std::collections::BTreeSet<_> = families.iter().collect();
    assert_eq!(distinct.len(), families.len(), "a family is described once");
    let variables = http_get(server.client_port, "/debug/vars").expect("an answer");
    let variables: Value = serde_json::from_str(&variables).expect("JSON");
    assert_eq!(variables["raft.status"]["raftState"], "StateLeader");
}
