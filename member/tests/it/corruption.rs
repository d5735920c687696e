//! A member whose storage was damaged behind its back is found by its hash.

use bytes::Bytes;
use member_state::{Backend, Batch, Table};
use member_store::{RocksBackend, StoreOptions};

use crate::process::{Server, etcdctl, wait_until};
use crate::server::{start_all, three};

/// Changes the value of a key on a stopped member's disk; its revision stays as it is.
fn corrupt(server: &Server, key: &'static str) {
    let state = server.data_dir().join("member/state");
    let current = std::fs::read_to_string(state.join("CURRENT")).expect("the name of a database");
    let dir = state.join(current.trim());
    let backend = RocksBackend::open(&dir, StoreOptions::default()).expect("opens");
    let key = Bytes::from_static(key.as_bytes());
    let record = backend.get(Table::Current, &key).expect("readable");
    let mut record = record.expect("the key is there").to_vec();
    *record.last_mut().expect("a value") ^= 1;
    let mut batch = Batch::new();
    batch.put(Table::Current, key, record.into());
    backend.write(&batch).expect("written");
    backend.flush().expect("flushed");
}

fn put(server: &Server, key: &str) {
    let (ok, _, err) = etcdctl(&server.endpoint(), &["put", key, "value"]);
    assert!(ok, "{err}");
}

fn id(server: &Server) -> u64 {
    let (ok, out, err) = etcdctl(&server.endpoint(), &["endpoint", "status", "-w", "json"]);
    assert!(ok, "{err}");
    let status: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    status[0]["Status"]["header"]["member_id"]
        .as_u64()
        .expect("an id")
}

/// Three members with data, of which the last was damaged while it was stopped.
fn damaged(flags: &[&str]) -> ([Server; 3], u64) {
    let mut servers = three();
    for server in &mut servers {
        flags.iter().for_each(|flag| server.arg(flag));
    }
    start_all(&mut servers);
    for key in ["a", "b", "c"] {
        put(&servers[0], key);
    }
    let victim = id(&servers[2]);
    servers[2].signal("TERM");
    corrupt(&servers[2], "b");
    (servers, victim)
}

fn all_logs(servers: &[Server]) -> String {
    servers.iter().map(Server::log).collect()
}

/// Waits for the alarm about the member and for nobody else's.
fn assert_alarm(server: &Server, victim: u64) {
    let expected = format!("memberID:{victim} alarm:CORRUPT \n");
    let mut out = String::new();
    wait_until("the alarm is raised", || {
        out = etcdctl(&server.endpoint(), &["alarm", "list"]).1;
        !out.is_empty()
    });
    assert_eq!(out, expected);
    let (ok, _, err) = etcdctl(&server.endpoint(), &["put", "a", "b"]);
    assert!(!ok && err.contains("etcdserver: corrupt cluster"), "{err}");
}

#[test]
fn the_periodic_check_raises_the_alarm_for_the_member_that_differs() {
    let (mut servers, victim) = damaged(&["--corrupt-check-time=200ms"]);
    servers[2].start();
    servers[2].wait_ready();
    assert_alarm(&servers[0], victim);
    assert!(all_logs(&servers).contains("same compact revision then hashes must match"));
}

#[test]
fn the_check_of_compactions_raises_it_too() {
    let (mut servers, victim) = damaged(&[
        "--feature-gates=CompactHashCheck=true",
        "--experimental-compact-hash-check-time=200ms",
    ]);
    servers[2].start();
    servers[2].wait_ready();
    let (ok, _, err) = etcdctl(&servers[0].endpoint(), &["compact", "3"]);
    assert!(ok, "{err}");
    assert_alarm(&servers[0], victim);
    assert!(all_logs(&servers).contains("Detected compaction hash mismatch"));
}

#[test]
fn equal_members_raise_no_alarm() {
    let mut servers = three();
    for server in &mut servers {
        server.arg("--corrupt-check-time=50ms");
        server.arg("--feature-gates=CompactHashCheck=true");
        server.arg("--compact-hash-check-time=50ms");
        server.arg("--experimental-initial-corrupt-check");
    }
    start_all(&mut servers);
    for i in 0..30 {
        put(&servers[i % 3], &format!("k{}", i % 7));
        if i % 10 == 9 {
            let (ok, _, err) = etcdctl(&servers[0].endpoint(), &["compact", &i.to_string()]);
            assert!(ok, "{err}");
        }
    }
    servers[1].signal("TERM");
    servers[1].start();
    servers[1].wait_ready();
    assert!(
        servers[1]
            .log()
            .contains("initial corruption checking passed; no corruption"),
        "{}",
        servers[1].log()
    );
    wait_until("both checks have passed", || {
        let logs = all_logs(&servers);
        logs.contains("finished peer corruption check")
            && logs.contains("successfully checked hash on whole cluster")
    });
    assert_eq!(etcdctl(&servers[0].endpoint(), &["alarm", "list"]).1, "");
}

#[test]
fn a_damaged_member_refuses_to_start_with_the_initial_check() {
    let (mut servers, victim) = damaged(&["--experimental-initial-corrupt-check"]);
    servers[2].start();
    let status = servers[2].wait_exit();
    let log = servers[2].log();
    assert_eq!(status.code(), Some(1), "{log}");
    for line in [
        "starting initial corruption check",
        "found different hash values from remote peer",
        &format!("{victim:x} found data inconsistency with peers"),
    ] {
        assert!(log.contains(line), "{line} in {log}");
    }
    // The others do without it.
    put(&servers[0], "d");
}
