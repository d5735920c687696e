//! Random histories: the store answers as the model does, at every moment, whatever is batched, crashed,
//! reopened or half compacted.

use bytes::Bytes;
use member_state::{
    Command, Compact, CompactProgress, Compare, CompareValue, DeleteRange, Error, Event,
    HistoryLimit, Lease, LeaseCheckpoint, LeaseGrant, LeaseRemainder, LeaseRevoke, LogPosition,
    MemoryBackend, Op, Put, Range, Response, Store, Table, Txn, TxnOp, TxnRequest,
    validate_delete_range, validate_put, validate_range, validate_txn,
};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use crate::model::Model;

/// Zero bytes and prefixes of each other are what an escaped order gets wrong first.
const KEYS: &[&[u8]] = &[
    b"\0",
    b"\0\0",
    b"\0\x01",
    b"a",
    b"a\0",
    b"a\0b",
    b"a\xff",
    b"aa",
    b"b",
    b"\xff",
    b"\xff\xff",
];
const ENDS: &[&[u8]] = &[
    b"\0", b"\0", b"\0\0", b"a", b"a\0", b"aa", b"b", b"c", b"\xff",
];

const VALUES: &[&[u8]] = &[b"", b"x", b"y", b"z\0"];

fn key() -> impl Strategy<Value = Bytes> {
    prop::sample::select(KEYS).prop_map(Bytes::from_static)
}

fn range_end() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        2 => Just(Bytes::new()),
        3 => prop::sample::select(ENDS).prop_map(Bytes::from_static),
    ]
}

fn value() -> impl Strategy<Value = Bytes> {
    prop::sample::select(VALUES).prop_map(Bytes::from_static)
}

fn revision() -> impl Strategy<Value = i64> {
    prop_oneof![1 => Just(0), 2 => -2i64..24]
}

fn filter() -> impl Strategy<Value = i64> {
    prop_oneof![6 => Just(0), 1 => -1i64..16]
}

prop_compose! {
    fn range()(
        key in key(), range_end in range_end(), revision in revision(),
        limit in prop_oneof![2 => Just(0), 3 => -1i64..5, 1 => Just(i64::MAX)],
        sort_order in 0..3, sort_target in 0..5, keys_only in prop::bool::weighted(0.2),
        count_only in prop::bool::weighted(0.1), serializable: bool,
        filters in [filter(), filter(), filter(), filter()],
    ) -> Range {
        let [min_mod_revision, max_mod_revision, min_create_revision, max_create_revision] = filters;
        Range {
            key, range_end, limit, revision, sort_order, sort_target, serializable, keys_only, count_only,
            min_mod_revision, max_mod_revision, min_create_revision, max_create_revision,
        }
    }
}

/// Neighbours, and the ends of the order of ids as the table sees it.
const LEASES: [i64; 6] = [1, 2, 0x100, i64::MAX, i64::MIN, -1];

fn lease() -> impl Strategy<Value = i64> {
    prop_oneof![8 => prop::sample::select(&LEASES[..2]), 8 => prop::sample::select(&LEASES[..]), 1 => Just(0)]
}

fn lease_of_put() -> impl Strategy<Value = i64> {
    prop_oneof![3 => Just(0), 2 => lease()]
}

fn lease_op() -> impl Strategy<Value = Op> {
    let ttl = prop_oneof![9 => 1i64..100, 1 => Just(9_000_000_000), 1 => Just(9_000_000_001)];
    let rests = prop::collection::vec((lease(), 0i64..9), 0..3);
    prop_oneof![
        4 => (lease(), ttl).prop_map(|(id, ttl)| Op::LeaseGrant(LeaseGrant { id, ttl })),
        2 => lease().prop_map(|id| Op::LeaseRevoke(LeaseRevoke { id })),
        1 => rests.prop_map(|rests| {
            let leases = rests.into_iter().map(|(id, remaining)| LeaseRemainder { id, remaining }).collect();
            Op::LeaseCheckpoint(LeaseCheckpoint { leases })
        }),
    ]
}

prop_compose! {
    fn put()(
        key in key(), value in value(), lease in lease_of_put(), prev_kv: bool,
        ignore_value in prop::bool::weighted(0.15), ignore_lease in prop::bool::weighted(0.15),
    ) -> Put {
        let value = if ignore_value { Bytes::new() } else { value };
        Put { key, value, lease: if ignore_lease { 0 } else { lease }, prev_kv, ignore_value, ignore_lease }
    }
}

prop_compose! {
    fn delete()(key in key(), range_end in range_end(), prev_kv: bool) -> DeleteRange {
        DeleteRange { key, range_end, prev_kv }
    }
}

fn compare() -> impl Strategy<Value = Compare> {
    let number = prop_oneof![0i64..3, 0i64..20];
    let given = prop_oneof![
        Just(None),
        number.clone().prop_map(|n| Some(CompareValue::Version(n))),
        number
            .clone()
            .prop_map(|n| Some(CompareValue::CreateRevision(n))),
        number
            .clone()
            .prop_map(|n| Some(CompareValue::ModRevision(n))),
        number.prop_map(|n| Some(CompareValue::Lease(n))),
        value().prop_map(|v| Some(CompareValue::Value(v))),
    ];
    (0..4, 0..5, key(), given, range_end()).prop_map(|(result, any, key, value, range_end)| {
        // Mostly a target that fits the value.
        let target = match (&value, any) {
            (_, 0) | (None, _) => any,
            (Some(CompareValue::Version(_)), _) => 0,
            (Some(CompareValue::CreateRevision(_)), _) => 1,
            (Some(CompareValue::ModRevision(_)), _) => 2,
            (Some(CompareValue::Value(_)), _) => 3,
            (Some(CompareValue::Lease(_)), _) => 4,
        };
        Compare {
            result,
            target,
            key,
            value,
            range_end,
        }
    })
}

fn txn_of(op: BoxedStrategy<TxnRequest>) -> impl Strategy<Value = Txn> {
    let ops = || prop::collection::vec(op.clone().prop_map(TxnOp::from), 0..4);
    let compares = prop::collection::vec(compare(), 0..3);
    (compares, ops(), ops()).prop_map(|(compare, success, failure)| Txn {
        compare,
        success,
        failure,
    })
}

fn txn() -> impl Strategy<Value = Txn> {
    let leaf = prop_oneof![
        2 => range().prop_map(TxnRequest::Range),
        3 => put().prop_map(TxnRequest::Put),
        1 => delete().prop_map(TxnRequest::DeleteRange),
    ];
    let op = leaf.prop_recursive(3, 16, 4, |op| txn_of(op).prop_map(TxnRequest::Txn).boxed());
    txn_of(op.boxed())
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => put().prop_map(Op::Put),
        2 => delete().prop_map(Op::DeleteRange),
        4 => txn().prop_map(Op::Txn),
        3 => lease_op(),
        1 => (-1i64..20, any::<bool>()).prop_map(|(revision, physical)| Op::Compact(Compact { revision, physical })),
    ]
}

fn read_txn() -> impl Strategy<Value = Txn> {
    txn_of(range().prop_map(TxnRequest::Range).boxed())
}

#[derive(Debug, Clone)]
enum Step {
    Apply(Op, bool),
    /// Compacts this many revisions before the current one, where the random ones seldom hit.
    CompactNear(i64),
    Blank,
    Range(Range),
    ReadTxn(Txn),
    Sweep(usize),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    Commit,
    Crash,
    CommitAndReopen,
}

#[derive(Debug, Clone)]
struct Round {
    steps: Vec<Step>,
    end: End,
}

fn round() -> impl Strategy<Value = Round> {
    let step = prop_oneof![
        8 => (op(), prop::bool::weighted(0.7)).prop_map(|(op, want)| Step::Apply(op, want)),
        1 => Just(Step::Blank),
        1 => (0i64..4).prop_map(Step::CompactNear),
        3 => range().prop_map(Step::Range),
        1 => read_txn().prop_map(Step::ReadTxn),
        2 => (0usize..5).prop_map(Step::Sweep),
    ];
    let end = prop_oneof![
        6 => Just(End::Commit),
        1 => Just(End::Crash),
        2 => Just(End::CommitAndReopen),
    ];
    (prop::collection::vec(step, 0..8), end).prop_map(|(steps, end)| Round { steps, end })
}

/// What the ingress does before it proposes.
fn valid(op: &Op) -> bool {
    match op {
        Op::Put(put) => validate_put(put).is_ok(),
        Op::DeleteRange(delete) => validate_delete_range(delete).is_ok(),
        Op::Txn(txn) => validate_txn(txn, 128).is_ok(),
        _ => true,
    }
}

fn check_range(
    store: &Store<MemoryBackend>,
    model: &Model,
    range: &Range,
) -> Result<(), TestCaseError> {
    prop_assert!(validate_range(range).is_ok());
    let got = store.range(range).map_err(|error| error.text());
    let expected = model.range(range).map_err(str::to_owned);
    prop_assert_eq!(got, expected, "{:?}", range);
    Ok(())
}

fn check_all(store: &Store<MemoryBackend>, model: &Model) -> Result<(), TestCaseError> {
    prop_assert_eq!(store.revision(), model.revision);
    prop_assert_eq!(store.compact_revision(), model.compacted);
    let mut leases = store.leases().unwrap();
    leases.sort_by_key(|lease| lease.id);
    let expected: Vec<Lease> = model.leases.values().copied().collect();
    prop_assert_eq!(leases, expected);
    for id in LEASES {
        prop_assert_eq!(store.lease(id).unwrap(), model.leases.get(&id).copied());
        prop_assert_eq!(
            store.lease_keys(id).unwrap(),
            model.lease_keys(id),
            "{}",
            id
        );
    }
    let everything = Range {
        key: Bytes::from_static(b"\0"),
        range_end: Bytes::from_static(b"\0"),
        ..Range::default()
    };
    for revision in -1..=model.revision + 1 {
        check_range(
            store,
            model,
            &Range {
                revision,
                ..everything.clone()
            },
        )?;
        for key in KEYS {
            let key = Bytes::from_static(key);
            check_range(
                store,
                model,
                &Range {
                    key,
                    revision,
                    ..Range::default()
                },
            )?;
        }
    }
    Ok(())
}

/// Events of the compacted revision that another of the same revision superseded may be swept or not.
fn settled(mut events: Vec<Event>, compacted: i64) -> Vec<Event> {
    let all = events.clone();
    let mut at = 0;
    events.retain(|event| {
        at += 1;
        event.revision() != compacted
            || !all[at..]
                .iter()
                .any(|later| later.revision() == compacted && later.kv.key == event.kv.key)
    });
    events
}

fn check_events(store: &Store<MemoryBackend>, model: &Model) -> Result<(), TestCaseError> {
    let (revision, compacted) = (model.revision, model.compacted);
    let limit = |each| HistoryLimit {
        visited: each,
        revisions: each,
        bytes: usize::MAX,
    };
    prop_assert!(matches!(
        store.events(compacted - 1, &limit(9), |_| true),
        Err(Error::Compacted)
    ));
    for from in compacted..=revision + 2 {
        let expected = settled(model.events(from), compacted);
        for each in [1, 3, usize::MAX] {
            let (mut found, mut next) = (Vec::new(), from);
            while next <= revision {
                let part = store.events(next, &limit(each), |_| true).unwrap();
                prop_assert!(part.next > next, "the walk goes on");
                prop_assert_eq!(part.revision, revision);
                prop_assert!(part.events.iter().all(|event| event.revision() < part.next));
                next = part.next;
                found.extend(part.events);
            }
            for event in &mut found {
                event.prev = store.previous(&event.kv.key, event.revision()).unwrap();
            }
            prop_assert_eq!(settled(found, compacted), expected.clone(), "from {}", from);
        }
        let only = store
            .events(from, &limit(usize::MAX), |key| key == b"a")
            .unwrap();
        let found: Vec<_> = only.events.iter().map(Event::revision).collect();
        let expected = settled(model.events(from), compacted);
        let expected: Vec<_> = expected
            .iter()
            .filter(|event| event.kv.key == b"a"[..])
            .map(Event::revision)
            .collect();
        prop_assert_eq!(
            settled(only.events, compacted).len(),
            expected.len(),
            "{:?}",
            found
        );
    }
    Ok(())
}

fn sweep(
    store: &Store<MemoryBackend>,
    model: &Model,
    max_keys: usize,
) -> Result<bool, TestCaseError> {
    let CompactProgress::Done { revision, .. } = store.compact_step(max_keys).unwrap() else {
        return Ok(false);
    };
    prop_assert_eq!(revision, model.compacted);
    let (current, old) = model.survivors();
    prop_assert_eq!(store.backend().len(Table::Current), current);
    prop_assert_eq!(store.backend().len(Table::Old), old);
    prop_assert_eq!(store.backend().len(Table::Revisions), current + old);
    Ok(true)
}

fn run(rounds: Vec<Round>) -> Result<(), TestCaseError> {
    let mut store = Store::open(MemoryBackend::new()).unwrap();
    let mut model = Model::new();
    let mut index = 0;
    for Round { steps, end } in rounds {
        let mut applier = store.begin();
        applier.collect_events();
        let begun = applier.revision();
        let mut next = model.clone();
        let mut last = store.applied();
        for step in steps {
            let step = match step {
                Step::CompactNear(back) => {
                    let revision = applier.revision() - back;
                    Step::Apply(
                        Op::Compact(Compact {
                            revision,
                            physical: false,
                        }),
                        true,
                    )
                }
                step => step,
            };
            match step {
                Step::Apply(op, want) if valid(&op) => {
                    index += 1;
                    let position = LogPosition {
                        term: 1,
                        node: 7,
                        index,
                    };
                    let command = Command::new(index, op);
                    let decoded = Command::decode(command.encode()).unwrap();
                    prop_assert_eq!(&decoded, &command);
                    let got = applier
                        .apply(position, Some(&decoded), want)
                        .map_err(|error| error.text());
                    let expected = next
                        .apply(command.op.as_ref().unwrap())
                        .map_err(str::to_owned);
                    let expected = if want {
                        expected
                    } else {
                        expected.map(|_| Response::Empty)
                    };
                    prop_assert_eq!(got, expected, "{:?}", command);
                    prop_assert_eq!(applier.revision(), next.revision);
                    last = Some(position);
                }
                Step::Apply(..) | Step::CompactNear(_) => {}
                Step::Blank => {
                    index += 1;
                    let position = LogPosition {
                        term: 2,
                        node: 7,
                        index,
                    };
                    prop_assert_eq!(
                        applier.apply(position, None, true).unwrap(),
                        Response::Empty
                    );
                    last = Some(position);
                }
                Step::Range(range) => check_range(&store, &model, &range)?,
                Step::ReadTxn(txn) => {
                    let got = store
                        .read_txn(&txn)
                        .map(Response::Txn)
                        .map_err(|error| error.text());
                    let expected = model.clone().txn(&txn).map_err(str::to_owned);
                    prop_assert_eq!(got, expected, "{:?}", txn);
                }
                Step::Sweep(max_keys) => {
                    sweep(&store, &model, max_keys)?;
                }
            }
        }
        if end == End::Crash {
            drop(applier);
        } else {
            let mut events = applier.take_events().unwrap();
            applier.commit().unwrap();
            let mut expected = next.events(begun + 1);
            // The applier has what was there before at hand, and does not ask whether it is compacted since; it does
            // not look behind a version of the same revision.
            for (event, expected) in events.iter_mut().zip(&mut expected) {
                if event.prev.is_none() || expected.prev.is_none() {
                    event.prev = None;
                    expected.prev = None;
                }
            }
            prop_assert_eq!(events, expected);
            model = next;
            check_events(&store, &model)?;
            prop_assert_eq!(store.applied(), last);
        }
        if end != End::Commit {
            let backend = store.backend().clone();
            let applied = store.applied();
            store = Store::open(backend).unwrap();
            prop_assert_eq!(store.applied(), applied);
        }
        check_all(&store, &model)?;
    }
    let mut steps = 0;
    while !sweep(&store, &model, 3)? {
        check_events(&store, &model)?;
        check_all(&store, &model)?;
        steps += 1;
        prop_assert!(steps < 10_000, "the sweep does not end");
    }
    check_events(&store, &model)?;
    check_all(&store, &model)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    #[test]
    fn store_answers_as_the_model(rounds in prop::collection::vec(round(), 1..10)) {
        run(rounds)?;
    }
}
