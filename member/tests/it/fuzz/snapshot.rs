//! Files that look like a snapshot.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use member_bolt::{Database, HashCheck, ReadError, SnapshotFile, Status, schema};
use tempfile::TempDir;

use super::{MEMORY_KIB, Random, each_seed, peak_kib};
use crate::process::{ETCD, MEMBER, Server, etcdctl};

const PAGE: usize = 4096;
const HASH: usize = 32;

/// A snapshot with keys, leases, users, and a compaction, without the hash.
fn saved(binary: &str) -> Vec<u8> {
    let mut server = Server::single(binary, &[]);
    server.start();
    server.wait_ready();
    let at = server.endpoint();
    let ok = |args: &[&str]| {
        let (ok, out, err) = etcdctl(&at, args);
        assert!(ok, "{args:?}: {err}");
        out
    };
    for i in 0..40 {
        ok(&["put", &format!("k{:02}", i % 15), &"v".repeat(i * 20)]);
    }
    let lease = ok(&["lease", "grant", "6000"]);
    let lease = lease.split(' ').nth(1).expect("an id").to_owned();
    ok(&["put", "leased", "v", &format!("--lease={lease}")]);
    ok(&["del", "k03"]);
    ok(&["compact", "10"]);
    ok(&["user", "add", "alice:pw"]);
    ok(&["role", "add", "r"]);
    ok(&["role", "grant-permission", "r", "read", "a", "b"]);
    let dir = TempDir::new().expect("a directory");
    let file = dir.path().join("snapshot");
    ok(&["snapshot", "save", file.to_str().expect("text")]);
    let mut bytes = std::fs::read(&file).expect("readable");
    bytes.truncate(bytes.len() - HASH);
    bytes
}

/// Changes pages: single bits and numbers mostly in their headers and elements, whole pages, the length.
fn damaged(random: &mut Random, files: &[Vec<u8>; 2]) -> Vec<u8> {
    let mut bytes = random.pick(files).clone();
    let pages = bytes.len() / PAGE;
    for _ in 0..=random.below(4) {
        let page = random.below(pages) * PAGE;
        let reach = *random.pick(&[16, 80, PAGE]);
        let at = page + random.below(reach);
        match random.below(8) {
            0 => {
                let from = random.below(pages) * PAGE;
                bytes.copy_within(from..from + PAGE, page);
            }
            1 => {
                let other = random.pick(files);
                let from = random.below(other.len() / PAGE) * PAGE;
                bytes[page..page + PAGE].copy_from_slice(&other[from..from + PAGE]);
            }
            2 => bytes[at] = 0xff,
            3 => bytes[at] = random.byte(),
            4 => {
                let number = u32::try_from(random.below(2 * pages)).expect("small");
                let at = at.min(page + PAGE - 4);
                bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
            }
            _ => bytes[at] ^= 1 << random.below(8),
        }
    }
    if random.one_in(6) {
        bytes.truncate(random.below(bytes.len()));
    }
    bytes
}

/// Reads everything that an import reads; the rows and bytes that came out.
fn read(path: &Path) -> Result<(usize, usize), ReadError> {
    let Ok(database) = SnapshotFile::open(path, HashCheck::Skipped) else {
        return Ok((0, 0));
    };
    let _ = Status::of(&database)?;
    let mut found = (0, 0);
    rows(&database, &mut found)?;
    Ok(found)
}

fn rows(database: &Database, found: &mut (usize, usize)) -> Result<(), ReadError> {
    let mut buckets = database.buckets();
    while let Some((_, bucket)) = buckets.next_bucket()? {
        let mut walk = database.walk(&bucket);
        while let Some(item) = walk.next_row()? {
            found.0 += 1;
            found.1 += item.key.len() + item.value.len();
            let (key, value) = (item.key, item.value);
            // Each as if its bucket were the one that holds such rows: the bytes may say anything.
            let _ = schema::read_row(key, value);
            let _ = schema::read_lease(key, value);
            let _ = schema::read_alarm(key);
            let _ = schema::read_user(key, value);
            let _ = schema::read_role(key, value);
            let _ = schema::read_auth_revision(value);
        }
    }
    Ok(())
}

#[test]
fn a_damaged_snapshot_is_read_within_its_size_or_refused() {
    let files = [saved(ETCD), saved(MEMBER)];
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("snapshot");
    let mut refused = 0;
    each_seed(|random| {
        let bytes = damaged(random, &files);
        std::fs::write(&path, &bytes).expect("written");
        match read(&path) {
            // No byte of a file is told twice, so that memory and time are bounded by its size.
            Ok((_, told)) => assert!(told <= bytes.len(), "{told} of {}", bytes.len()),
            Err(_) => refused += 1,
        }
    });
    assert!(refused > 0 || std::env::var_os("PROVISION_FUZZ_SEED").is_some());
}

#[test]
fn a_damaged_snapshot_is_restored_or_refused_and_leaves_nothing() {
    let files = [saved(ETCD), saved(MEMBER)];
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("snapshot");
    let target = dir.path().join("target");
    each_seed(|random| {
        std::fs::write(&path, damaged(random, &files)).expect("written");
        let mut child = Command::new(MEMBER)
            .args(["snapshot", "restore", "--skip-hash-check"])
            .arg(&path)
            .arg(format!("--data-dir={}", target.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the member starts");
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut peak = 0;
        while child.try_wait().expect("a child").is_none() {
            peak = peak_kib(child.id()).unwrap_or(peak);
            if Instant::now() > deadline {
                let _ = child.kill();
            }
            std::thread::park_timeout(Duration::from_millis(2));
        }
        let output = child.wait_with_output().expect("a child");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(!told.contains("panicked"), "{told}");
        assert!(peak < MEMORY_KIB, "{peak} KiB at its peak");
        match output.status.code() {
            Some(0) => std::fs::remove_dir_all(&target).expect("restored"),
            Some(1) => assert!(told.contains("Error: "), "{told}"),
            _ => panic!("{}: {told}", output.status),
        }
        let left: Vec<_> = std::fs::read_dir(dir.path())
            .expect("readable")
            .flatten()
            .map(|entry| entry.file_name())
            .filter(|name| name != "snapshot")
            .collect();
        assert!(left.is_empty(), "{left:?}");
    });
}
