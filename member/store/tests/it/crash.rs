//! Processes that are killed: what was flushed is there, and the rest is there up to one point in all tables.
//!
//! The child is this test binary again, told by an environment variable which part to play.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bytes::Bytes;
use member_state::{Backend, Batch, Cursor, Table};
use member_store::{RocksBackend, StoreOptions};

const DIR: &str = "MEMBER_STORE_TEST_DIR";
const WRITER: &str = "crash::child_writes_until_it_is_killed";
const APPLIED: &[u8] = b"applied";

/// Small buffers: RocksDB flushes by itself all the time, at moments that the child does not choose.
fn open(dir: &Path) -> RocksBackend {
    let options = StoreOptions {
        write_buffer_bytes: 256 << 10,
        total_write_buffer_bytes: 1 << 20,
        ..StoreOptions::default()
    };
    RocksBackend::open(dir, options).unwrap()
}

fn applied(backend: &RocksBackend) -> u64 {
    let value = backend.get(Table::Meta, APPLIED).unwrap();
    value.map_or(0, |value| u64::from_be_bytes(value[..].try_into().unwrap()))
}

/// Write number `n` puts one entry into each table and removes its predecessor's from one.
fn write(n: u64) -> Batch {
    let key = || Bytes::copy_from_slice(&n.to_be_bytes());
    let mut batch = Batch::new();
    batch.put(Table::Current, key(), Bytes::from(vec![b'c'; 200]));
    batch.put(
        Table::Old,
        key(),
        Bytes::from(vec![b'o'; usize::try_from(n % 50).unwrap()]),
    );
    batch.put(Table::Revisions, key(), key());
    batch.delete(
        Table::Revisions,
        Bytes::copy_from_slice(&(n - 1).to_be_bytes()),
    );
    batch.put(Table::Meta, Bytes::from_static(APPLIED), key());
    batch
}

fn keys(backend: &RocksBackend, table: Table) -> Vec<u64> {
    let mut cursor = backend.cursor(table, b"", None).unwrap();
    let mut keys = Vec::new();
    while let Some((key, _)) = cursor.next().unwrap() {
        keys.push(u64::from_be_bytes(key.try_into().unwrap()));
    }
    keys
}

/// Not a test by itself: without the variable it has nothing to do.
#[test]
fn child_writes_until_it_is_killed() {
    let Some(dir) = std::env::var_os(DIR).map(PathBuf::from) else {
        return;
    };
    let backend = open(&dir);
    for n in applied(&backend) + 1.. {
        backend.write(&write(n)).unwrap();
        if n % 500 == 0 {
            backend.flush().unwrap();
            println!("\nflushed {n}");
        }
    }
}

#[test]
fn kill_9_loses_only_what_was_not_flushed_and_leaves_a_prefix() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..6 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", WRITER, "--nocapture", "--test-threads=1"])
            .env(DIR, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap())
            .lines()
            .map_while(Result::ok);
        let mut number = || {
            lines.by_ref().find_map(|line| {
                line.strip_prefix("flushed ")
                    .and_then(|rest| rest.parse::<u64>().ok())
            })
        };
        let mut flushed = 0;
        for _ in 0..=round {
            flushed = number().expect("the child flushes until it is killed");
        }
        child.kill().unwrap();
        while let Some(last) = number() {
            flushed = last;
        }
        child.wait().unwrap();

        let backend = open(dir.path());
        let last = applied(&backend);
        assert!(last >= flushed, "{flushed} was flushed, {last} is there");
        let all: Vec<u64> = (1..=last).collect();
        assert_eq!(keys(&backend, Table::Current), all);
        assert_eq!(keys(&backend, Table::Old), all);
        assert_eq!(keys(&backend, Table::Revisions), [last]);
    }
}

#[test]
fn closing_flushes() {
    let dir = tempfile::tempdir().unwrap();
    let backend = open(dir.path());
    backend.write(&write(1)).unwrap();
    drop(backend);
    assert_eq!(applied(&open(dir.path())), 1);
}
