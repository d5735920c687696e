//! Random histories on the database and in memory, compared step by step.

use bytes::Bytes;
use member_state::{Backend, Batch, Cursor, MemoryBackend, Table};
use member_store::{RocksBackend, StoreOptions};
use proptest::prelude::*;

type Pairs = Vec<(Bytes, Bytes)>;

#[derive(Clone, Debug)]
enum Op {
    Write(Vec<(Table, Bytes, Option<Bytes>)>),
    Get(Table, Bytes),
    Walk(Table, Bytes, Option<Bytes>),
    /// A cursor that is read after another write must not see it.
    WalkAcross(Table, Bytes, Vec<(Table, Bytes, Option<Bytes>)>),
    /// Steps, then a seek, then the rest.
    Seek(Table, Bytes, Option<Bytes>, usize, Bytes),
    Flush,
    Checkpoint,
    Reopen,
}

fn table() -> impl Strategy<Value = Table> {
    prop::sample::select(&Table::ALL[..])
}

/// Few letters, the extremes among them, so that keys repeat and are prefixes of each other.
fn key() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(prop::sample::select(&[0_u8, 1, b'a', 0xff][..]), 0..5)
        .prop_map(Bytes::from)
}

fn writes() -> impl Strategy<Value = Vec<(Table, Bytes, Option<Bytes>)>> {
    let value = prop::option::weighted(
        0.8,
        prop::collection::vec(any::<u8>(), 0..300).prop_map(Bytes::from),
    );
    prop::collection::vec((table(), key(), value), 0..20)
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => writes().prop_map(Op::Write),
        4 => (table(), key()).prop_map(|(table, key)| Op::Get(table, key)),
        6 => (table(), key(), prop::option::of(key())).prop_map(|(table, from, to)| Op::Walk(table, from, to)),
        2 => (table(), key(), writes()).prop_map(|(table, from, writes)| Op::WalkAcross(table, from, writes)),
        4 => (table(), key(), prop::option::of(key()), 0usize..3, key())
            .prop_map(|(table, from, to, steps, key)| Op::Seek(table, from, to, steps, key)),
        2 => Just(Op::Flush),
        1 => Just(Op::Checkpoint),
        1 => Just(Op::Reopen),
    ]
}

fn batch(writes: Vec<(Table, Bytes, Option<Bytes>)>) -> Batch {
    let mut batch = Batch::new();
    for (table, key, value) in writes {
        match value {
            Some(value) => batch.put(table, key, value),
            None => batch.delete(table, key),
        }
    }
    batch
}

fn rest(mut cursor: impl Cursor) -> Pairs {
    let mut pairs = Vec::new();
    while let Some((key, value)) = cursor.next().unwrap() {
        pairs.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
    }
    assert!(
        cursor.next().unwrap().is_none(),
        "a cursor stays at its end"
    );
    pairs
}

/// Steps, seeks forward if `key` is ahead, and yields what is left.
fn seek(mut cursor: impl Cursor, steps: usize, key: &[u8]) -> Pairs {
    let mut last = None;
    for _ in 0..steps {
        if let Some((key, _)) = cursor.next().unwrap() {
            last = Some(key.to_vec());
        }
    }
    if last.is_none_or(|last| last[..] < *key) {
        cursor.seek(key).unwrap();
    }
    rest(cursor)
}

fn walk(backend: &impl Backend, table: Table, from: &[u8], to: Option<&[u8]>) -> Pairs {
    rest(backend.cursor(table, from, to).unwrap())
}

fn everything(backend: &impl Backend) -> [Pairs; 5] {
    Table::ALL.map(|table| walk(backend, table, b"", None))
}

fn run(ops: Vec<Op>) {
    let scratch = tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap();
    let dir = scratch.path().join("db");
    // Buffers of a few entries, so that RocksDB flushes and compacts by itself, too.
    let options = StoreOptions {
        write_buffer_bytes: 64 << 10,
        ..StoreOptions::default()
    };
    let mut rocks = RocksBackend::open(&dir, options).unwrap();
    let memory = MemoryBackend::new();
    for (number, op) in ops.into_iter().enumerate() {
        match op {
            Op::Write(writes) => {
                let batch = batch(writes);
                rocks.write(&batch).unwrap();
                memory.write(&batch).unwrap();
            }
            Op::Get(table, key) => assert_eq!(
                rocks.get(table, &key).unwrap(),
                memory.get(table, &key).unwrap()
            ),
            Op::Walk(table, from, to) => {
                assert_eq!(
                    walk(&rocks, table, &from, to.as_deref()),
                    walk(&memory, table, &from, to.as_deref())
                );
            }
            Op::WalkAcross(table, from, writes) => {
                let batch = batch(writes);
                let mut cursors = (
                    rocks.cursor(table, &from, None).unwrap(),
                    memory.cursor(table, &from, None).unwrap(),
                );
                assert_eq!(cursors.0.next().unwrap(), cursors.1.next().unwrap());
                rocks.write(&batch).unwrap();
                memory.write(&batch).unwrap();
                assert_eq!(rest(cursors.0), rest(cursors.1));
            }
            Op::Seek(table, from, to, steps, key) if from <= key => {
                let to = to.as_deref();
                let rocks = seek(rocks.cursor(table, &from, to).unwrap(), steps, &key);
                let memory = seek(memory.cursor(table, &from, to).unwrap(), steps, &key);
                assert_eq!(rocks, memory);
            }
            Op::Seek(..) => {}
            Op::Flush => rocks.flush().unwrap(),
            Op::Checkpoint => {
                let copy = scratch.path().join(format!("copy-{number}"));
                rocks.checkpoint(&copy).unwrap();
                assert_eq!(
                    everything(&RocksBackend::open(&copy, options).unwrap()),
                    everything(&memory)
                );
            }
            Op::Reopen => {
                drop(rocks);
                rocks = RocksBackend::open(&dir, options).unwrap();
            }
        }
    }
    assert_eq!(everything(&rocks), everything(&memory));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_database_behaves_like_the_backend_in_memory(ops in prop::collection::vec(op(), 1..40)) {
        run(ops);
    }
}
