//! Readers and a sweep beside a writer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use bytes::Bytes;
use member_state::{
    Backend, BackendError, Batch, Command, Compact, Error, LogPosition, MemoryBackend, Op, Put,
    Range, Response, Store, Table, Txn, TxnOp, TxnRequest,
};

/// Lets others run just before a read is opened, where a commit must not slip in.
struct Yielding(MemoryBackend);

impl Backend for Yielding {
    type Cursor<'a> = <MemoryBackend as Backend>::Cursor<'a>;
    type Snapshot<'a> = MemoryBackend;

    fn snapshot(&self) -> Result<MemoryBackend, BackendError> {
        self.0.snapshot()
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, BackendError> {
        thread::yield_now();
        self.0.get(table, key)
    }

    fn cursor<'a>(
        &'a self,
        table: Table,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> Result<Self::Cursor<'a>, BackendError> {
        thread::yield_now();
        self.0.cursor(table, from, to)
    }

    fn write(&self, batch: &Batch) -> Result<(), BackendError> {
        self.0.write(batch)
    }

    fn size(&self) -> u64 {
        self.0.size()
    }
}

const PAIR: [&str; 2] = ["left", "right"];
const COMMITS: u64 = 1000;

fn pair(value: u64) -> Op {
    let put = |key: &'static str| {
        TxnOp::from(TxnRequest::Put(Put {
            key: Bytes::from_static(key.as_bytes()),
            value: value.to_string().into(),
            ..Put::default()
        }))
    };
    Op::Txn(Txn {
        success: PAIR.map(put).into(),
        ..Txn::default()
    })
}

fn read(key: &'static str, range_end: &'static str, revision: i64) -> Range {
    Range {
        key: Bytes::from_static(key.as_bytes()),
        range_end: Bytes::from_static(range_end.as_bytes()),
        revision,
        ..Range::default()
    }
}

/// Both keys of a pair are always of one transaction, whichever way and whenever they are read.
fn observe(store: &Store<Yielding>) {
    let whole = store.range(&read("left", "s", 0)).unwrap();
    if let [left, right] = &whole.kvs[..] {
        assert_eq!(left.value, right.value);
        assert_eq!(
            (left.mod_revision, right.mod_revision),
            (whole.revision, whole.revision)
        );
    }
    // Revision 1 is the empty store; 0 would be the newest.
    for revision in [whole.revision, (whole.revision - 1).max(1)] {
        match store.range(&read("left", "s", revision)) {
            Ok(past) if past.kvs.is_empty() => assert!(revision <= 1),
            Ok(past) => {
                assert_eq!(past.kvs.len(), 2);
                assert!(past.kvs.iter().all(|kv| kv.mod_revision == revision));
            }
            Err(error) => assert!(matches!(error, Error::Compacted), "{error}"),
        }
    }
    let points = PAIR.map(|key| TxnOp::from(TxnRequest::Range(read(key, "", 0))));
    let txn = Txn {
        success: points.into(),
        ..Txn::default()
    };
    let answers = store.read_txn(&txn).unwrap().responses;
    let [Response::Range(left), Response::Range(right)] = &answers[..] else {
        panic!("{answers:?}");
    };
    let values =
        |answer: &member_state::RangeResponse| answer.kvs.first().map(|kv| kv.value.clone());
    assert_eq!(values(left), values(right));
}

#[test]
fn readers_never_see_half_a_transaction() {
    let store = Store::open(Yielding(MemoryBackend::new())).unwrap();
    let writing = AtomicBool::new(true);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while writing.load(Ordering::Relaxed) {
                    observe(&store);
                }
            });
        }
        scope.spawn(|| {
            while writing.load(Ordering::Relaxed) {
                store.compact_step(3).unwrap();
            }
        });
        let mut index = 0;
        for value in 0..COMMITS {
            let mut applier = store.begin();
            let mut ops = vec![pair(value)];
            if value % 16 == 15 {
                ops.push(Op::Compact(Compact {
                    revision: store.revision() - 2,
                    physical: false,
                }));
            }
            for op in ops {
                index += 1;
                let position = LogPosition {
                    term: 1,
                    node: 1,
                    index,
                };
                applier
                    .apply(position, Some(&Command::new(0, op)), false)
                    .unwrap();
            }
            applier.commit().unwrap();
        }
        writing.store(false, Ordering::Relaxed);
    });
    assert_eq!(store.revision(), 1 + i64::try_from(COMMITS).unwrap());
}
