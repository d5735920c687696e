//! Our files in etcd's own tool.

use std::io::Write;
use std::process::Command;

use member_bolt::{HashCheck, SnapshotFile, Status, schema};
use prost::Message;

use crate::{Memory, Rows, write};

fn history() -> Memory {
    let mut memory = Memory(
        schema::BUCKETS
            .map(|name| (name.to_owned(), Rows::new()))
            .into(),
    );
    let keys = memory.0.get_mut(schema::KEY).unwrap();
    for main in 2..4000i64 {
        let kv = schema::KeyValue {
            key: format!("key{:05}", main % 1000).into(),
            create_revision: 2 + (main - 2) % 1000,
            mod_revision: main,
            version: 1 + main / 1000,
            value: vec![b'v'; usize::try_from(main % 700).unwrap()].into(),
            lease: 0,
        };
        keys.insert(schema::revision(main, 0).to_vec(), kv.encode_to_vec());
    }
    let gone = schema::KeyValue {
        key: "key00001".into(),
        ..Default::default()
    };
    keys.insert(schema::tombstone(4000, 0).to_vec(), gone.encode_to_vec());
    let meta = memory.0.get_mut(schema::META).unwrap();
    meta.insert(schema::STORAGE_VERSION.into(), b"3.6.0".to_vec());
    memory
}

#[test]
fn etcdctl_reads_our_file_and_finds_the_same_hash_and_revision() {
    let memory = history();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&write(&memory)).unwrap();
    let database = SnapshotFile::open(file.path(), HashCheck::Skipped).unwrap();
    let ours = Status::of(&database).unwrap();
    assert_eq!(
        (ours.revision, ours.total_key, &ours.version[..]),
        (4000, 999, "3.6.0")
    );
    let output = Command::new("/usr/bin/etcdctl")
        .args(["snapshot", "status", "-w", "json"])
        .arg(file.path())
        .env("ETCDCTL_API", "3")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let rows: usize = memory.0.values().map(Rows::len).sum();
    assert_eq!(
        text.trim(),
        format!(
            "{{\"hash\":{},\"revision\":4000,\"totalKey\":{rows},\"totalSize\":{}}}",
            ours.hash, ours.total_size
        ),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
