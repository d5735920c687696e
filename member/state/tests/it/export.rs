//! What is exported and imported again is the same store, as far as a reader can tell.

use bytes::Bytes;
use member_state::{
    AccessControl, Backend, Command, Compact, CompactProgress, DeleteRange, Error, ImportError,
    Importer, KeyValue, Lease, LogPosition, MemoryBackend, Op, Permission, Put, Range, Record,
    Revision, Role, Store, Txn, TxnOp, TxnRequest, User, Version,
};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Act {
    Put(u8, usize),
    Delete(u8, u8),
    Txn(Vec<u8>),
    Compact(i64),
    Sweep(usize),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => (0u8..6, 0usize..5).prop_map(|(key, len)| Act::Put(key, len)),
        3 => (0u8..6, 0u8..7).prop_map(|(from, to)| Act::Delete(from, to)),
        2 => prop::collection::btree_set(0u8..6, 1..4).prop_map(|keys| Act::Txn(keys.into_iter().collect())),
        2 => (0i64..12).prop_map(Act::Compact),
        2 => (1usize..20).prop_map(Act::Sweep),
    ]
}

fn put(key: u8, len: usize) -> Put {
    Put {
        key: vec![key].into(),
        value: vec![key; len].into(),
        ..Put::default()
    }
}

fn run(acts: &[Act]) -> Store<MemoryBackend> {
    let store = Store::open(MemoryBackend::new()).unwrap();
    for (index, act) in acts.iter().enumerate() {
        let op = match act {
            Act::Put(key, len) => Op::Put(put(*key, *len)),
            Act::Delete(from, to) => Op::DeleteRange(DeleteRange {
                key: vec![*from].into(),
                range_end: vec![*to].into(),
                ..DeleteRange::default()
            }),
            Act::Txn(keys) => Op::Txn(Txn {
                success: keys
                    .iter()
                    .map(|key| TxnOp::from(TxnRequest::Put(put(*key, 1))))
                    .collect(),
                ..Txn::default()
            }),
            Act::Compact(back) => Op::Compact(Compact {
                revision: store.revision() - back,
                ..Compact::default()
            }),
            Act::Sweep(most) => {
                store.compact_step(*most).unwrap();
                continue;
            }
        };
        let position = LogPosition {
            term: 1,
            node: 1,
            index: index as u64,
        };
        let mut applier = store.begin();
        let _ = applier.apply(position, Some(&Command::new(0, op)), true);
        applier.commit().unwrap();
    }
    store
}

fn versions<B: Backend>(store: &Store<B>) -> Vec<Version> {
    let mut all = Vec::new();
    store
        .export()
        .unwrap()
        .versions::<Error>(|version| {
            all.push(version);
            Ok(())
        })
        .unwrap();
    all
}

fn import<B: Backend>(store: &Store<B>) -> Store<MemoryBackend> {
    let backend = MemoryBackend::new();
    let export = store.export().unwrap();
    let mut importer = Importer::new(&backend).unwrap();
    export
        .versions::<ImportError>(|version| importer.version(&version))
        .unwrap();
    importer
        .finish(export.revision(), export.compacted(), None)
        .unwrap();
    Store::open(backend).unwrap()
}

fn at<B: Backend>(store: &Store<B>, revision: i64) -> Vec<KeyValue> {
    let range = Range {
        key: Bytes::from_static(b"\0"),
        range_end: Bytes::from_static(b"\0"),
        revision,
        ..Range::default()
    };
    store.range(&range).unwrap().kvs
}

fn sweep<B: Backend>(store: &Store<B>) {
    while !matches!(
        store.compact_step(100).unwrap(),
        CompactProgress::Done { .. }
    ) {}
}

proptest! {
    #[test]
    fn an_imported_history_reads_as_the_exported(acts in prop::collection::vec(act(), 0..60)) {
        let store = run(&acts);
        let copy = import(&store);
        prop_assert_eq!(copy.revision(), store.revision());
        prop_assert_eq!(copy.applied(), None);
        prop_assert_eq!(copy.compact_revision().max(0), store.compact_revision().max(0));
        let readable = store.compact_revision().max(1)..=store.revision();
        for revision in readable.clone() {
            prop_assert_eq!(at(&copy, revision), at(&store, revision));
        }
        prop_assert_eq!(versions(&copy), versions(&store));
        // The copy's own sweep leaves nothing that the original's removes.
        sweep(&store);
        sweep(&copy);
        for revision in readable {
            prop_assert_eq!(at(&copy, revision), at(&store, revision));
        }
        prop_assert_eq!(versions(&copy), versions(&store));
    }
}

#[test]
fn an_export_is_of_one_moment() {
    let store = run(&[Act::Put(1, 1), Act::Put(2, 2)]);
    let export = store.export().unwrap();
    let mut applier = store.begin();
    let position = LogPosition {
        term: 1,
        node: 1,
        index: 9,
    };
    let delete = Op::DeleteRange(DeleteRange {
        key: vec![1].into(),
        ..DeleteRange::default()
    });
    applier
        .apply(position, Some(&Command::new(0, delete)), true)
        .unwrap();
    applier.commit().unwrap();
    for _ in 0..2 {
        let mut seen = Vec::new();
        export
            .versions::<Error>(|version| {
                seen.push((version.revision.main, version.deleted));
                Ok(())
            })
            .unwrap();
        assert_eq!(seen, [(2, false), (3, false)]);
    }
    assert_eq!((export.revision(), export.compacted()), (3, None));
}

#[test]
fn history_that_no_command_writes_is_refused() {
    let backend = MemoryBackend::new();
    let mut importer = Importer::new(&backend).unwrap();
    let version = |main, sub| Version {
        revision: Revision { main, sub },
        kv: KeyValue {
            key: Bytes::from_static(b"k"),
            create_revision: main,
            mod_revision: main,
            version: 1,
            ..KeyValue::default()
        },
        deleted: false,
    };
    importer.version(&version(5, 1)).unwrap();
    for (main, sub) in [(5, 1), (5, 0), (4, 9)] {
        assert!(matches!(
            importer.version(&version(main, sub)),
            Err(ImportError::Order { .. })
        ));
    }
    let mut other = version(6, 0);
    other.kv.version = 0;
    assert!(matches!(
        importer.version(&other),
        Err(ImportError::Version { main: 6 })
    ));
    let mut other = version(6, 0);
    other.kv.key = Bytes::new();
    assert!(matches!(
        importer.version(&other),
        Err(ImportError::Version { main: 6 })
    ));
    assert!(matches!(
        importer.finish(5, Some(6), None),
        Err(ImportError::Compacted { .. })
    ));
    let backend = MemoryBackend::new();
    Importer::new(&backend)
        .unwrap()
        .finish(1, None, None)
        .unwrap();
    assert!(matches!(
        Importer::new(&backend),
        Err(ImportError::NotEmpty)
    ));
}

#[test]
fn what_would_use_up_numbers_is_refused() {
    let backend = MemoryBackend::new();
    let mut importer = Importer::new(&backend).unwrap();
    let version = |main: i64, create, version| Version {
        revision: Revision { main, sub: 0 },
        kv: KeyValue {
            key: Bytes::from_static(b"k"),
            create_revision: create,
            mod_revision: main,
            version,
            ..KeyValue::default()
        },
        deleted: false,
    };
    assert!(matches!(
        importer.version(&version(i64::MAX, 2, 1)),
        Err(ImportError::Exhausted { .. })
    ));
    assert!(matches!(
        importer.version(&version(7, 5, i64::MAX)),
        Err(ImportError::Version { main: 7 })
    ));
    importer.version(&version(7, 5, 3)).unwrap();
    for (ttl, remaining) in [(i64::MAX, 0), (-1, 0), (60, i64::MAX), (60, -1)] {
        let lease = Lease {
            id: 1,
            ttl,
            remaining,
        };
        assert!(matches!(
            importer.lease(&lease),
            Err(ImportError::Lease { id: 1 })
        ));
    }
    assert!(matches!(
        importer.finish(i64::MAX, None, None),
        Err(ImportError::Exhausted { .. })
    ));
}

#[test]
fn records_beside_the_history_are_carried() {
    let records = [
        Record::Alarm {
            kind: 1,
            member_id: u64::MAX,
        },
        Record::AccessControl(AccessControl {
            enabled: true,
            revision: 9,
        }),
        Record::Role(
            "reader".to_owned(),
            Role {
                permissions: vec![Permission {
                    kind: 2,
                    key: Bytes::from_static(b"a"),
                    range_end: Bytes::from_static(b"\0"),
                }],
            },
        ),
        Record::User(
            "root".to_owned(),
            User {
                password: Bytes::from_static(b"$2a$10$"),
                roles: vec!["root".to_owned()],
                no_password: false,
            },
        ),
        Record::Downgrade("3.5.0".to_owned()),
    ];
    let backend = MemoryBackend::new();
    let mut importer = Importer::new(&backend).unwrap();
    for record in &records {
        importer.record(record);
    }
    importer.put_meta("mine", Bytes::from_static(b"1"));
    let applied = LogPosition {
        term: 0,
        node: 0,
        index: 0,
    };
    importer.finish(1, None, Some(applied)).unwrap();
    let store = Store::open(backend).unwrap();
    assert_eq!(store.applied(), Some(applied));
    let export = store.export().unwrap();
    assert_eq!(export.records().unwrap(), records);
    assert_eq!(
        export.get_meta("mine").unwrap(),
        Some(Bytes::from_static(b"1"))
    );
}
