//! Snapshots cross over between etcd and the member, in both directions, with all their history.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::process::{ETCD, MEMBER, Server, etcdctl, free_ports};

mod damage;
mod stream;

/// A history with overwritten, deleted and recreated keys, a transaction, a large value, and a compaction in its midst.
fn write_history(endpoint: &str, dir: &Path) -> i64 {
    let put = |key: &str, value: &str| {
        let (ok, _, err) = etcdctl(endpoint, &["put", key, value]);
        assert!(ok, "{err}");
    };
    for i in 0..60 {
        put(&format!("k{:02}", i % 20), &format!("value {i}"));
    }
    for key in ["k03", "k04"] {
        assert!(etcdctl(endpoint, &["del", key]).0);
    }
    put("k04", "again");
    put("large", &"x".repeat(100_000));
    let (ok, _, err) = etcdctl(endpoint, &["lease", "grant", "6000"]);
    assert!(ok, "{err}");
    let (_, list, _) = etcdctl(endpoint, &["lease", "list"]);
    let lease = list.lines().last().unwrap_or_default().trim();
    let (ok, _, err) = etcdctl(
        endpoint,
        &["put", "leased", "v", &format!("--lease={lease}")],
    );
    assert!(ok, "{err}");
    let compacted = 40;
    let (ok, _, err) = etcdctl(endpoint, &["compact", &compacted.to_string(), "--physical"]);
    assert!(ok, "{err}");
    let txn = dir.join("txn");
    std::fs::write(&txn, "\nput t1 a\nput t2 b\n\n\n").expect("written");
    let status = Command::new("/usr/bin/etcdctl")
        .args(["--endpoints", endpoint, "txn"])
        .env("ETCDCTL_API", "3")
        .stdin(std::fs::File::open(&txn).expect("readable"))
        .output()
        .expect("etcdctl runs");
    assert!(
        status.status.success(),
        "{}",
        String::from_utf8_lossy(&status.stderr)
    );
    assert!(etcdctl(endpoint, &["del", "k05"]).0);
    compacted
}

/// Everything that a reader can see: the keys at every readable revision, and the refusals around them. The
/// header's ids and terms are the cluster's own.
fn seen(endpoint: &str, from: i64, to: i64) -> Vec<String> {
    let mut seen = Vec::new();
    for revision in from..=to {
        let revision = format!("--rev={revision}");
        let (_, out, err) = etcdctl(endpoint, &["get", "", "--prefix", &revision, "-w", "json"]);
        let keys = out.split_once("\"kvs\"").map_or("", |(_, kvs)| kvs);
        let error = err.lines().last().unwrap_or_default();
        seen.push(format!("{revision} {keys} {error}"));
    }
    seen
}

fn save(endpoint: &str, file: &Path) {
    let file = file.to_str().expect("text");
    let (ok, _, err) = etcdctl(endpoint, &["snapshot", "save", file]);
    assert!(ok, "{err}");
}

/// Restores with etcdctl or the member itself into the directory of a server that is not started yet.
fn restore(
    tool: &mut Command,
    file: &Path,
    dir: &Path,
    peer: u16,
    more: &[&str],
) -> (bool, String) {
    let peer = format!("http://127.0.0.1:{peer}");
    let output = tool
        .args(["snapshot", "restore"])
        .arg(file)
        .args(["--name=infra0", "--initial-cluster-token=restored"])
        .arg(format!("--initial-cluster=infra0={peer}"))
        .arg(format!("--initial-advertise-peer-urls={peer}"))
        .arg(format!("--data-dir={}", dir.display()))
        .args(more)
        .env("ETCDCTL_API", "3")
        .output()
        .expect("the tool runs");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.success(), text)
}

fn last_revision(endpoint: &str) -> i64 {
    let (ok, out, err) = etcdctl(endpoint, &["get", "none", "-w", "json"]);
    assert!(ok, "{err}");
    let (_, rest) = out.split_once("\"revision\":").expect("a revision");
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().expect("a number")
}

/// From one server by a snapshot to another, with every revision.
fn crosses_over(from: &str, to: &str, tool: &str) {
    let dir = TempDir::new().expect("a directory");
    let file = dir.path().join("snapshot.db");
    let mut source = Server::single(from, &[]);
    source.start();
    source.wait_ready();
    let compacted = write_history(&source.endpoint(), dir.path());
    let revision = last_revision(&source.endpoint());
    let expected = seen(&source.endpoint(), compacted - 1, revision + 1);
    save(&source.endpoint(), &file);

    let mut target = Server::single(to, &[]);
    let (ok, err) = restore(
        &mut Command::new(tool),
        &file,
        &target.data_dir(),
        target.peer_port,
        &[],
    );
    assert!(ok, "{err}");
    target.start();
    target.wait_ready();
    assert_eq!(
        seen(&target.endpoint(), compacted - 1, revision + 1),
        expected
    );
    let (ok, _, err) = etcdctl(&target.endpoint(), &["put", "after", "restore"]);
    assert!(ok, "{err}");
    assert_eq!(last_revision(&target.endpoint()), revision + 1);
    let (ok, list, err) = etcdctl(&target.endpoint(), &["lease", "list"]);
    assert!(ok, "{err}");
    let lease = list.lines().last().unwrap_or_default().trim();
    let (_, lived, _) = etcdctl(
        &target.endpoint(),
        &["lease", "timetolive", lease, "--keys"],
    );
    assert!(
        lived.contains("granted with TTL(6000s)") && lived.contains("attached keys([leased])"),
        "{lived}"
    );
    let (ok, _, err) = etcdctl(&target.endpoint(), &["lease", "revoke", lease]);
    assert!(ok, "{lease}: {err}");
    let (_, gone, _) = etcdctl(&target.endpoint(), &["get", "leased"]);
    assert_eq!(gone, "", "the restored lease had its key");
    // What was restored is as durable as what came after.
    target.kill();
    target.start();
    target.wait_ready();
    assert_eq!(
        seen(&target.endpoint(), compacted - 1, revision),
        expected[..expected.len() - 1]
    );
}

#[test]
fn etcd_serves_the_members_snapshot() {
    crosses_over(MEMBER, ETCD, "/usr/bin/etcdctl");
}

#[test]
fn the_member_serves_etcds_snapshot() {
    crosses_over(ETCD, MEMBER, MEMBER);
}

#[test]
fn the_member_serves_its_own_snapshot() {
    crosses_over(MEMBER, MEMBER, MEMBER);
}

/// etcd's own hash of the history that it keeps.
fn hash_kv(endpoint: &str, revision: i64) -> u64 {
    let revision = format!("--rev={revision}");
    let (ok, out, err) = etcdctl(endpoint, &["endpoint", "hashkv", &revision, "-w", "json"]);
    assert!(ok, "{err}");
    let json: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    json[0]["HashKV"]["hash"].as_u64().expect("a hash")
}

/// A server that starts from a file.
fn restored(binary: &str, tool: &str, file: &Path) -> Server {
    let mut server = Server::single(binary, &[]);
    let (ok, err) = restore(
        &mut Command::new(tool),
        file,
        &server.data_dir(),
        server.peer_port,
        &[],
    );
    assert!(ok, "{err}");
    server.start();
    server.wait_ready();
    server
}

#[test]
fn etcd_finds_no_difference_in_history_that_went_through_the_member() {
    let dir = TempDir::new().expect("a directory");
    let (first, second) = (dir.path().join("first.db"), dir.path().join("second.db"));
    let mut etcd = Server::single(ETCD, &[]);
    etcd.start();
    etcd.wait_ready();
    write_history(&etcd.endpoint(), dir.path());
    let revision = last_revision(&etcd.endpoint());
    save(&etcd.endpoint(), &first);
    let passage = restored(MEMBER, MEMBER, &first);
    save(&passage.endpoint(), &second);
    let arrived = restored(ETCD, "/usr/bin/etcdctl", &second);
    assert_eq!(
        hash_kv(&arrived.endpoint(), revision),
        hash_kv(&etcd.endpoint(), revision)
    );
}

#[test]
fn a_database_copied_from_a_stopped_etcd_is_restored_without_a_hash() {
    let dir = TempDir::new().expect("a directory");
    let mut etcd = Server::single(ETCD, &[]);
    etcd.start();
    etcd.wait_ready();
    let compacted = write_history(&etcd.endpoint(), dir.path());
    let revision = last_revision(&etcd.endpoint());
    let expected = seen(&etcd.endpoint(), compacted, revision);
    assert!(etcd.signal("TERM").code().is_none_or(|code| code == 0));
    let file = etcd.data_dir().join("member/snap/db");
    let mut target = Server::single(MEMBER, &[]);
    let (ok, err) = restore(
        &mut Command::new(MEMBER),
        &file,
        &target.data_dir(),
        target.peer_port,
        &[],
    );
    assert!(
        !ok && err.contains("snapshot missing hash but --skip-hash-check=false"),
        "{err}"
    );
    let (ok, err) = restore(
        &mut Command::new(MEMBER),
        &file,
        &target.data_dir(),
        target.peer_port,
        &["--skip-hash-check"],
    );
    assert!(ok, "{err}");
    target.start();
    target.wait_ready();
    assert_eq!(seen(&target.endpoint(), compacted, revision), expected);
}

#[test]
fn access_control_travels_to_the_member_and_back() {
    let dir = TempDir::new().expect("a directory");
    let mut etcd = Server::single(ETCD, &[]);
    etcd.start();
    etcd.wait_ready();
    for args in [
        &["role", "add", "reader"][..],
        &["role", "grant-permission", "reader", "read", "a", "b"],
        &["user", "add", "root:secret"],
        &["user", "add", "ann:pass"],
        &["user", "grant-role", "root", "root"],
        &["user", "grant-role", "ann", "reader"],
        &["put", "a", "1"],
        &["auth", "enable"],
    ] {
        let (ok, _, err) = etcdctl(&etcd.endpoint(), args);
        assert!(ok, "{args:?}: {err}");
    }
    let save_as_root = |server: &Server, name: &str| {
        let file = dir.path().join(name);
        let path = file.to_str().expect("text").to_owned();
        let args = ["--user=root:secret", "snapshot", "save", &path];
        let (ok, _, err) = etcdctl(&server.endpoint(), &args);
        assert!(ok, "{err}");
        file
    };
    let passage = restored(MEMBER, MEMBER, &save_as_root(&etcd, "first.db"));
    let arrived = restored(
        ETCD,
        "/usr/bin/etcdctl",
        &save_as_root(&passage, "second.db"),
    );
    for server in [&passage, &arrived] {
        let ctl = |args: &[&str]| etcdctl(&server.endpoint(), args);
        let (ok, _, err) = ctl(&["get", "a"]);
        assert!(
            !ok && err.contains("etcdserver: user name is empty"),
            "{err}"
        );
        let (ok, _, err) = ctl(&["--user=ann:pass", "put", "a", "2"]);
        assert!(
            !ok && err.contains("etcdserver: permission denied"),
            "{err}"
        );
        assert_eq!(ctl(&["--user=ann:pass", "get", "a"]).1, "a\n1\n");
        for args in [&["role", "get", "reader"][..], &["user", "get", "ann"]] {
            let as_root = [&["--user=root:secret"], args].concat();
            assert_eq!(
                ctl(&as_root),
                etcdctl(&etcd.endpoint(), &as_root),
                "{args:?}"
            );
        }
    }
}

/// A saved snapshot of a member with a few keys.
fn saved(dir: &TempDir) -> PathBuf {
    let file = dir.path().join("snapshot.db");
    let mut source = Server::single(MEMBER, &[]);
    source.start();
    source.wait_ready();
    for key in ["a", "b", "c"] {
        assert!(etcdctl(&source.endpoint(), &["put", key, "1"]).0);
    }
    save(&source.endpoint(), &file);
    file
}

fn member(args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(MEMBER).args(args).output().expect("runs");
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

#[test]
fn three_members_found_a_new_cluster_from_one_snapshot() {
    let dir = TempDir::new().expect("a directory");
    let file = saved(&dir);
    let ports: [u16; 6] = free_ports();
    let initial = (0..3)
        .map(|i| format!("infra{i}=http://127.0.0.1:{}", ports[i + 3]))
        .collect::<Vec<_>>()
        .join(",");
    let mut servers: Vec<Server> = (0..3)
        .map(|i| {
            Server::of_cluster(
                MEMBER,
                &format!("infra{i}"),
                ports[i],
                ports[i + 3],
                &initial,
                &[],
            )
        })
        .collect();
    for (i, server) in servers.iter_mut().enumerate() {
        let (code, _, err) = member(&[
            "snapshot",
            "restore",
            file.to_str().expect("text"),
            &format!("--name=infra{i}"),
            "--initial-cluster",
            &initial,
            &format!(
                "--initial-advertise-peer-urls=http://127.0.0.1:{}",
                ports[i + 3]
            ),
            &format!("--data-dir={}", server.data_dir().display()),
        ]);
        assert_eq!(code, Some(0), "{err}");
        server.start();
    }
    for server in &mut servers {
        server.wait_ready();
        assert_eq!(last_revision(&server.endpoint()), 4);
        assert_eq!(etcdctl(&server.endpoint(), &["get", "c"]).1, "c\n1\n");
    }
    assert!(etcdctl(&servers[1].endpoint(), &["put", "d", "1"]).0);
    assert_eq!(etcdctl(&servers[2].endpoint(), &["get", "d"]).1, "d\n1\n");
}

#[test]
fn a_bumped_revision_compacts_all_before_it() {
    let dir = TempDir::new().expect("a directory");
    let file = saved(&dir);
    let mut target = Server::single(MEMBER, &[]);
    let bump = ["--bump-revision=1000", "--mark-compacted"];
    let (ok, err) = restore(
        &mut Command::new(MEMBER),
        &file,
        &target.data_dir(),
        target.peer_port,
        &bump,
    );
    assert!(ok, "{err}");
    target.start();
    target.wait_ready();
    assert_eq!(last_revision(&target.endpoint()), 1004);
    assert_eq!(etcdctl(&target.endpoint(), &["get", "a"]).1, "a\n1\n");
    let (_, _, err) = etcdctl(&target.endpoint(), &["get", "a", "--rev=4"]);
    assert!(
        err.contains("required revision has been compacted"),
        "{err}"
    );
}

#[test]
fn a_database_without_a_hash_is_restored_on_demand_and_is_private() {
    let dir = TempDir::new().expect("a directory");
    let file = saved(&dir);
    let bytes = std::fs::read(&file).expect("readable");
    std::fs::write(&file, &bytes[..bytes.len() - 32]).expect("written");
    let wal = dir.path().join("wal");
    let mut target = Server::single(MEMBER, &[&format!("--wal-dir={}", wal.display())]);
    let more = ["--skip-hash-check", &format!("--wal-dir={}", wal.display())];
    let (ok, err) = restore(
        &mut Command::new(MEMBER),
        &file,
        &target.data_dir(),
        target.peer_port,
        &more,
    );
    assert!(ok, "{err}");
    for path in [&target.data_dir(), &wal] {
        let mode = path.metadata().expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{}", path.display());
    }
    target.start();
    target.wait_ready();
    assert_eq!(etcdctl(&target.endpoint(), &["get", "b"]).1, "b\n1\n");
    // The log may also be elsewhere in the data directory.
    let data = dir.path().join("other");
    let wal = format!("--wal-dir={}", data.join("log/wal").display());
    let more = ["--skip-hash-check", &wal];
    let (ok, err) = restore(&mut Command::new(MEMBER), &file, &data, 1, &more);
    assert!(ok, "{err}");
    assert!(data.join("log/wal").is_dir() && data.join("member/state").is_dir());
}

#[test]
fn status_is_what_etcdctl_says() {
    let dir = TempDir::new().expect("a directory");
    let file = saved(&dir);
    let text = file.to_str().expect("text");
    let (code, ours, err) = member(&["snapshot", "status", text, "-w", "json"]);
    assert_eq!(code, Some(0), "{err}");
    let (ok, etcds, err) = etcdctl(
        "http://127.0.0.1:1",
        &["snapshot", "status", text, "-w", "json"],
    );
    assert!(ok, "{err}");
    let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("JSON");
    for field in ["hash", "revision", "totalSize"] {
        assert_eq!(json(&ours)[field], json(&etcds)[field], "{field}");
    }
    assert_eq!(json(&ours)["totalKey"], 3);
    assert_eq!(json(&ours)["version"], "3.6.0");
    let (code, _, err) = member(&["snapshot", "status", text, "-w", "xml"]);
    assert_eq!(
        (code, &err[..]),
        (Some(4), "Error: unsupported output format\n")
    );
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 128 {
        bytes.push(u8::try_from(number % 128).expect("seven bits") | 128);
        number /= 128;
    }
    bytes.push(u8::try_from(number).expect("seven bits"));
    bytes
}

/// What etcd records of a lease that is checkpointed takes five minutes to come about, so it is written into a file.
#[test]
fn what_was_left_of_a_lease_counts_until_it_is_renewed() {
    let dir = TempDir::new().expect("a directory");
    let file = dir.path().join("backup.db");
    let etcd = Server::started(ETCD, &[]);
    // As many bytes as 12,000 and a remainder take together.
    let (ok, out, err) = etcdctl(&etcd.endpoint(), &["lease", "grant", "9000000000"]);
    assert!(ok, "{err}");
    let lease = out.split_whitespace().nth(1).expect("an id");
    let id = varint(u64::from_str_radix(lease, 16).expect("an id"));
    save(&etcd.endpoint(), &file);
    let record = |rest: &[&[u8]]| [&[8], &id[..], &[16], &rest.concat()].concat();
    let granted = record(&[&varint(9_000_000_000)]);
    let checkpointed = record(&[&varint(12_000), &[24], &varint(200)]);
    let mut bytes = std::fs::read(&file).expect("readable");
    let places: Vec<usize> = bytes
        .windows(granted.len())
        .enumerate()
        .filter(|(_, window)| *window == granted)
        .map(|(at, _)| at)
        .collect();
    assert!(!places.is_empty(), "the lease is in the file");
    for at in places {
        bytes[at..at + granted.len()].copy_from_slice(&checkpointed);
    }
    std::fs::write(&file, bytes).expect("written");

    let mut server = Server::single(MEMBER, &[]);
    let (ok, err) = restore(
        &mut Command::new(MEMBER),
        &file,
        &server.data_dir(),
        server.peer_port,
        &["--skip-hash-check"],
    );
    assert!(ok, "{err}");
    let left = |server: &Server| -> u64 {
        let (ok, out, err) = etcdctl(&server.endpoint(), &["lease", "timetolive", lease]);
        assert!(ok, "{err}");
        let words = out.split_once("remaining(").expect("a rest").1;
        words
            .split('s')
            .next()
            .expect("seconds")
            .parse()
            .expect("a number")
    };
    server.start();
    server.wait_ready();
    assert!(left(&server) <= 202, "{}", left(&server));
    let (ok, out, err) = etcdctl(
        &server.endpoint(),
        &["lease", "keep-alive", "--once", lease],
    );
    assert!(ok && out.contains("TTL(12000)"), "{out}{err}");
    server.kill();
    server.start();
    server.wait_ready();
    assert!(
        left(&server) > 11_000,
        "a renewal outlives its leader: {}",
        left(&server)
    );
}
