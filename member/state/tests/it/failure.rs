//! A backend that fails takes nothing with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use member_state::{
    Backend, BackendError, Batch, Command, Error, LogPosition, MemoryBackend, Op, Put, Range,
    Store, Table,
};

#[derive(Clone, Default)]
struct Failing {
    memory: MemoryBackend,
    reads_fail: Arc<AtomicBool>,
    writes_fail: Arc<AtomicBool>,
}

impl Failing {
    fn check(switch: &AtomicBool) -> Result<(), BackendError> {
        if switch.load(Ordering::Relaxed) {
            return Err(BackendError::new("the disk is gone"));
        }
        Ok(())
    }
}

impl Backend for Failing {
    type Cursor<'a> = <MemoryBackend as Backend>::Cursor<'a>;
    type Snapshot<'a> = MemoryBackend;

    fn snapshot(&self) -> Result<MemoryBackend, BackendError> {
        Failing::check(&self.reads_fail)?;
        self.memory.snapshot()
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, BackendError> {
        Failing::check(&self.reads_fail)?;
        self.memory.get(table, key)
    }

    fn cursor<'a>(
        &'a self,
        table: Table,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> Result<Self::Cursor<'a>, BackendError> {
        Failing::check(&self.reads_fail)?;
        self.memory.cursor(table, from, to)
    }

    fn write(&self, batch: &Batch) -> Result<(), BackendError> {
        Failing::check(&self.writes_fail)?;
        self.memory.write(batch)
    }

    fn size(&self) -> u64 {
        self.memory.size()
    }
}

fn put(key: &'static str) -> Command {
    let key = Bytes::from_static(key.as_bytes());
    Command::new(
        0,
        Op::Put(Put {
            key,
            ..Put::default()
        }),
    )
}

fn position(index: u64) -> LogPosition {
    LogPosition {
        term: 1,
        node: 1,
        index,
    }
}

fn count(store: &Store<Failing>) -> i64 {
    let all = Range {
        key: Bytes::from_static(b"\0"),
        range_end: Bytes::from_static(b"\0"),
        ..Range::default()
    };
    store.range(&all).unwrap().count
}

#[test]
fn failed_write_publishes_nothing() {
    let backend = Failing::default();
    let store = Store::open(backend.clone()).unwrap();
    backend.writes_fail.store(true, Ordering::Relaxed);
    let mut applier = store.begin();
    applier.apply(position(1), Some(&put("a")), true).unwrap();
    let error = applier.commit().unwrap_err();
    assert_eq!(
        std::error::Error::source(&error).unwrap().to_string(),
        "the disk is gone"
    );
    assert_eq!((store.revision(), store.applied()), (1, None));
    assert_eq!(count(&store), 0);
}

#[test]
fn failed_read_stops_the_applier_for_good() {
    let backend = Failing::default();
    let store = Store::open(backend.clone()).unwrap();
    let mut applier = store.begin();
    applier.apply(position(1), Some(&put("a")), true).unwrap();
    backend.reads_fail.store(true, Ordering::Relaxed);
    let error = applier
        .apply(position(2), Some(&put("b")), true)
        .unwrap_err();
    assert!(error.is_fatal());
    assert_eq!(error.text(), "etcdserver: state storage failed");
    backend.reads_fail.store(false, Ordering::Relaxed);
    let error = applier
        .apply(position(3), Some(&put("c")), true)
        .unwrap_err();
    assert!(matches!(error, Error::Backend(_)));
    applier.commit().unwrap_err();
    assert_eq!((store.revision(), store.applied()), (1, None));
    assert_eq!(count(&store), 0);
}

#[test]
fn failed_sweep_is_taken_up_again() {
    let backend = Failing::default();
    let store = Store::open(backend.clone()).unwrap();
    let mut applier = store.begin();
    for index in 1..=3 {
        applier
            .apply(position(index), Some(&put("a")), true)
            .unwrap();
    }
    let compact = Command::new(
        0,
        Op::Compact(member_state::Compact {
            revision: 4,
            physical: true,
        }),
    );
    applier.apply(position(4), Some(&compact), true).unwrap();
    applier.commit().unwrap();
    backend.writes_fail.store(true, Ordering::Relaxed);
    store.compact_step(10).unwrap_err();
    assert_eq!(backend.memory.len(Table::Old), 2);
    backend.writes_fail.store(false, Ordering::Relaxed);
    store.compact_step(10).unwrap();
    assert_eq!(backend.memory.len(Table::Old), 0);
}
