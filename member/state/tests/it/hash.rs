//! The hash against a model that knows etcd's rules and nothing of the tables, over random histories.

use member_state::{
    Command, Compact, CompactProgress, DeleteRange, HistoryRecord, LogPosition, MemoryBackend, Op,
    Put, Revision, Store,
};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Action {
    Put(u8, u8),
    Delete(u8, u8),
    Compact(i64),
    Sweep(usize),
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => (0u8..4, any::<u8>()).prop_map(|(key, value)| Action::Put(key, value)),
        2 => (0u8..4, 0u8..5).prop_map(|(from, to)| Action::Delete(from, to)),
        1 => (0i64..20).prop_map(Action::Compact),
        1 => (1usize..4).prop_map(Action::Sweep),
    ]
}

/// main, sub, key, live
type Write = (i64, u32, u8, bool);

fn modelled(writes: &[Write], compacted: i64, revision: i64) -> Vec<Write> {
    let newest = |key: u8, at: i64| {
        writes
            .iter()
            .rfind(|write| write.2 == key && write.0 <= at)
            .copied()
    };
    let any_live = (0..4).any(|key| newest(key, revision).is_some_and(|write| write.3));
    let at = if any_live { revision } else { compacted };
    writes
        .iter()
        .filter(|write| write.0 <= revision)
        .filter(|write| write.0 > compacted || (write.3 && newest(write.2, at) == Some(**write)))
        .copied()
        .collect()
}

fn collect(store: &Store<MemoryBackend>, step: usize) -> Vec<HistoryRecord> {
    let bounds = store.history_bounds();
    let mut records = Vec::new();
    let mut from = Revision { main: 0, sub: 0 };
    while let Some(next) = store
        .history_records(bounds, from, step, |record| records.push(record))
        .unwrap()
    {
        from = next;
    }
    records
}

fn crc(records: &[HistoryRecord]) -> u32 {
    let mut bytes = b"key".to_vec();
    let mut part = Vec::new();
    for record in records {
        record.stored_key(&mut part);
        bytes.extend_from_slice(&part);
        record.stored_value(&mut part);
        bytes.extend_from_slice(&part);
    }
    crc32c::crc32c(&bytes)
}

proptest! {
    #[test]
    fn hash_covers_what_etcds_rules_say(actions in prop::collection::vec(action(), 0..40), step in 1usize..5) {
        let store = Store::open(MemoryBackend::new()).unwrap();
        let mut all: Vec<HistoryRecord> = Vec::new();
        let mut writes: Vec<Write> = Vec::new();
        for (index, action) in actions.into_iter().enumerate() {
            let op = match action {
                Action::Put(key, value) => Op::Put(Put { key: vec![key].into(), value: vec![value].into(), ..Put::default() }),
                Action::Delete(from, to) => Op::DeleteRange(DeleteRange { key: vec![from].into(), range_end: vec![to].into(), prev_kv: false }),
                Action::Compact(revision) => Op::Compact(Compact { revision, physical: false }),
                Action::Sweep(max) => { store.compact_step(max).unwrap(); continue }
            };
            let before = store.revision();
            let position = LogPosition { term: 1, node: 0, index: index as u64 + 1 };
            let mut applier = store.begin();
            let _ = applier.apply(position, Some(&Command::new(1, op)), false);
            applier.commit().unwrap();
            for record in collect(&store, step) {
                if record.revision.main > before {
                    writes.push((record.revision.main, record.revision.sub, record.key_value.key[0], !record.tombstone));
                    all.push(record);
                }
            }
        }
        let compacted = store.compact_revision();
        let expect = |revision: i64| {
            let kept = modelled(&writes, compacted, revision);
            let records: Vec<_> = all
                .iter()
                .filter(|record| kept.iter().any(|write| (write.0, write.1) == (record.revision.main, record.revision.sub)))
                .cloned()
                .collect();
            crc(&records)
        };
        let revisions: Vec<i64> = (compacted.max(1)..=store.revision()).collect();
        for revision in &revisions {
            prop_assert_eq!(store.hash_kv(*revision).unwrap().hash, expect(*revision), "at {}", revision);
        }
        while matches!(store.compact_step(3).unwrap(), CompactProgress::More { .. }) {}
        for revision in &revisions {
            prop_assert_eq!(store.hash_kv(*revision).unwrap().hash, expect(*revision), "swept, at {}", revision);
        }
        let live: usize = collect(&store, step).len();
        prop_assert!(live <= all.len());
        if all.is_empty() {
            prop_assert_eq!(store.size_in_use(), 0);
        }
    }
}

#[test]
fn what_is_in_use_shrinks_with_the_sweep_and_not_before() {
    let backend = MemoryBackend::new();
    let store = Store::open(backend.clone()).unwrap();
    for index in 1..=10 {
        let op = Op::Put(Put {
            key: "k".into(),
            value: vec![0; 1000].into(),
            ..Put::default()
        });
        let mut applier = store.begin();
        let position = LogPosition {
            term: 1,
            node: 0,
            index,
        };
        applier
            .apply(position, Some(&Command::new(index, op)), false)
            .unwrap();
        applier.commit().unwrap();
    }
    let full = store.size_in_use();
    assert!(full > 10_000);
    let mut applier = store.begin();
    let compact = Op::Compact(Compact {
        revision: 11,
        physical: false,
    });
    let position = LogPosition {
        term: 1,
        node: 0,
        index: 11,
    };
    applier
        .apply(position, Some(&Command::new(11, compact)), false)
        .unwrap();
    applier.commit().unwrap();
    assert_eq!(store.size_in_use(), full);
    while matches!(store.compact_step(3).unwrap(), CompactProgress::More { .. }) {}
    assert_eq!(store.size_in_use(), full / 10);
    assert_eq!(Store::open(backend).unwrap().size_in_use(), full / 10);
}
