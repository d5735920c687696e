//! Cases measured on etcd 3.4, and those of its documentation.

use bytes::Bytes;
use member_state::{
    Command, Compact, CompactProgress, Compare, CompareValue, DeleteRange, Error, KeyValue,
    LogPosition, MemoryBackend, Op, Put, Range, RangeResponse, Response, SortTarget, Store, Table,
    Txn, TxnOp, TxnRequest, TxnResponse, validate_txn,
};

struct Member {
    store: Store<MemoryBackend>,
    index: u64,
}

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn put_request(key: &'static str, value: &'static str) -> Put {
    Put {
        key: bytes(key),
        value: bytes(value),
        ..Put::default()
    }
}

fn put(key: &'static str, value: &'static str) -> TxnRequest {
    TxnRequest::Put(put_request(key, value))
}

fn delete(key: &'static str, range_end: &'static str) -> TxnRequest {
    TxnRequest::DeleteRange(DeleteRange {
        key: bytes(key),
        range_end: bytes(range_end),
        prev_kv: false,
    })
}

fn get_request(key: &'static str, range_end: &'static str) -> Range {
    Range {
        key: bytes(key),
        range_end: bytes(range_end),
        ..Range::default()
    }
}

fn get(key: &'static str) -> TxnRequest {
    TxnRequest::Range(get_request(key, ""))
}

fn txn(success: impl IntoIterator<Item = TxnRequest>) -> Txn {
    Txn {
        success: success.into_iter().map(TxnOp::from).collect(),
        ..Txn::default()
    }
}

fn nested(success: impl IntoIterator<Item = TxnRequest>) -> TxnRequest {
    TxnRequest::Txn(txn(success))
}

impl Member {
    fn new() -> Self {
        Member {
            store: Store::open(MemoryBackend::new()).unwrap(),
            index: 0,
        }
    }

    fn apply(&mut self, op: Op) -> Result<Response, Error> {
        self.index += 1;
        let position = LogPosition {
            term: 1,
            node: 1,
            index: self.index,
        };
        let mut applier = self.store.begin();
        let response = applier.apply(position, Some(&Command::new(0, op)), true);
        applier.commit().unwrap();
        response
    }

    fn put(&mut self, key: &'static str, value: &'static str) {
        self.apply(Op::Put(put_request(key, value))).unwrap();
    }

    fn txn(&mut self, txn: Txn) -> TxnResponse {
        validate_txn(&txn, 128).unwrap();
        match self.apply(Op::Txn(txn)) {
            Ok(Response::Txn(response)) => response,
            other => panic!("{other:?}"),
        }
    }

    fn compact(&mut self, revision: i64) -> Result<Response, Error> {
        self.apply(Op::Compact(Compact {
            revision,
            physical: false,
        }))
    }

    fn get(&self, key: &'static str) -> Option<KeyValue> {
        self.store.range(&get_request(key, "")).unwrap().kvs.pop()
    }
}

fn deleted(revision: i64, deleted: i64) -> Response {
    Response::DeleteRange {
        revision,
        deleted,
        prevs: vec![],
    }
}

fn written(revision: i64) -> Response {
    Response::Put {
        revision,
        prev: None,
    }
}

#[test]
fn first_write_makes_revision_two() {
    let mut member = Member::new();
    assert_eq!(member.store.revision(), 1);
    let response = member.apply(Op::Put(put_request("k", "v"))).unwrap();
    assert_eq!(response, written(2));
    assert_eq!(member.store.revision(), 2);
}

#[test]
fn deleting_nothing_keeps_the_revision() {
    let mut member = Member::new();
    let delete = DeleteRange {
        key: bytes("k"),
        ..DeleteRange::default()
    };
    assert_eq!(
        member.apply(Op::DeleteRange(delete)).unwrap(),
        deleted(1, 0)
    );
    assert_eq!(member.store.revision(), 1);
}

#[test]
fn version_counts_from_the_last_creation() {
    let mut member = Member::new();
    member.put("k", "1");
    member.put("k", "2");
    member.txn(txn([delete("k", "")]));
    member.put("k", "3");
    member.put("k", "3");
    let kv = member.get("k").unwrap();
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version), (5, 6, 2));
}

#[test]
fn compaction_at_zero_is_accepted_once() {
    let mut member = Member::new();
    assert!(matches!(member.compact(-1), Err(Error::Compacted)));
    assert_eq!(
        member.compact(0).unwrap(),
        Response::Compact { revision: 1 }
    );
    assert!(matches!(member.compact(0), Err(Error::Compacted)));
    assert!(matches!(member.compact(2), Err(Error::FutureRevision)));
}

#[test]
fn compacted_revision_itself_stays_readable() {
    let mut member = Member::new();
    for value in ["1", "2", "3", "4"] {
        member.put("k", value);
    }
    member.compact(3).unwrap();
    let at = |revision| Range {
        revision,
        ..get_request("k", "")
    };
    assert!(matches!(member.store.range(&at(2)), Err(Error::Compacted)));
    assert_eq!(member.store.range(&at(3)).unwrap().kvs[0].value, "2");
    assert!(matches!(
        member.store.range(&at(6)),
        Err(Error::FutureRevision)
    ));
    // The header is of the time of reading, not of the revision read.
    assert_eq!(member.store.range(&at(3)).unwrap().revision, 5);
}

#[test]
fn tombstone_at_the_compacted_revision_lives_until_the_next_compaction() {
    let mut member = Member::new();
    member.put("k", "1");
    member.txn(txn([delete("k", "")]));
    member.put("other", "1");
    let left = |member: &Member| {
        let mut steps = 0;
        while let CompactProgress::More { .. } = member.store.compact_step(1).unwrap() {
            steps += 1;
            assert!(steps < 10, "the sweep does not end");
        }
        [Table::Current, Table::Old, Table::Revisions]
            .map(|table| member.store.backend().len(table))
    };
    member.compact(3).unwrap();
    assert_eq!(left(&member), [1, 1, 2]);
    member.compact(4).unwrap();
    assert_eq!(left(&member), [1, 0, 1]);
}

#[test]
fn from_key_delete_and_put_share_a_transaction() {
    let mut member = Member::new();
    let first = member.txn(txn([delete("a", "\0"), put("b", "1")]));
    assert_eq!(
        (first.revision, first.responses),
        (2, vec![deleted(1, 0), written(2)])
    );
    let second = member.txn(txn([put("b", "1"), delete("a", "\0")]));
    assert_eq!(
        (second.revision, second.responses),
        (3, vec![written(3), deleted(3, 1)])
    );
    assert_eq!(member.get("b"), None);
    member.txn(txn([delete("a", "\0"), put("b", "1")]));
    let again = member.txn(txn([delete("a", "\0"), put("b", "1")]));
    assert_eq!(again.responses, [deleted(5, 1), written(5)]);
    let kv = member.get("b").unwrap();
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version), (5, 5, 1));
}

#[test]
fn nested_transaction_has_no_revision_of_its_own() {
    let mut member = Member::new();
    member.put("b", "1");
    let response = member.txn(txn([nested([put("b", "2")]), nested([delete("b", "")])]));
    let inner = |response| {
        Response::Txn(TxnResponse {
            revision: 0,
            succeeded: true,
            responses: vec![response],
        })
    };
    assert_eq!(response.revision, 3);
    assert_eq!(
        response.responses,
        [inner(written(3)), inner(deleted(3, 1))]
    );
    assert_eq!(member.get("b"), None);
}

#[test]
fn nested_compares_look_at_the_state_before_the_transaction() {
    let mut member = Member::new();
    let guarded = Txn {
        compare: vec![Compare {
            key: bytes("k"),
            value: Some(CompareValue::Version(0)),
            ..Compare::default()
        }],
        ..txn([put("other", "absent")])
    };
    let response = member.txn(txn([put("k", "v"), TxnRequest::Txn(guarded)]));
    let Response::Txn(inner) = &response.responses[1] else {
        panic!("{response:?}");
    };
    assert!(inner.succeeded);
}

#[test]
fn inverted_delete_overlaps_nothing_and_reads_see_own_writes() {
    let mut member = Member::new();
    let response = member.txn(txn([delete("z", "a"), put("b", "1"), get("b")]));
    let kv = KeyValue {
        key: bytes("b"),
        create_revision: 2,
        mod_revision: 2,
        version: 1,
        value: bytes("1"),
        lease: 0,
    };
    let read = RangeResponse {
        revision: 2,
        kvs: vec![kv],
        more: false,
        count: 1,
    };
    assert_eq!(
        response.responses,
        [deleted(1, 0), written(2), Response::Range(read)]
    );
}

#[test]
fn sort_target_without_order_sorts_only_what_the_limit_fetched() {
    let mut member = Member::new();
    for (key, value) in [("b", "1"), ("c", "x"), ("d", "x"), ("e", "x"), ("b", "y")] {
        member.put(key, value);
    }
    let range = Range {
        limit: 2,
        sort_target: SortTarget::Mod.into(),
        ..get_request("a", "\0")
    };
    let response = member.store.range(&range).unwrap();
    let keys: Vec<_> = response.kvs.iter().map(|kv| &kv.key[..]).collect();
    assert_eq!(keys, [b"c", b"d"]);
    assert!(response.more);
    assert_eq!(response.count, 4);
}

#[test]
fn refused_transaction_changes_nothing() {
    let mut member = Member::new();
    member.put("k", "v");
    let future = TxnRequest::Range(Range {
        revision: 3,
        ..get_request("k", "")
    });
    let missing = TxnRequest::Put(Put {
        ignore_value: true,
        ..put_request("missing", "")
    });
    let leased = TxnRequest::Put(Put {
        lease: 1,
        ..put_request("leased", "v")
    });
    for (bad, expected) in [
        (
            future,
            "etcdserver: mvcc: required revision is a future revision",
        ),
        (missing, "etcdserver: key not found"),
        (leased, "etcdserver: requested lease not found"),
    ] {
        for ops in [
            vec![put("a", "1"), bad.clone()],
            vec![put("a", "1"), nested([bad])],
        ] {
            let error = member.apply(Op::Txn(txn(ops))).unwrap_err();
            assert_eq!(error.text(), expected);
            assert_eq!(member.store.revision(), 2);
            assert_eq!(member.get("a"), None);
        }
    }
}

#[test]
fn keeping_the_value_of_a_key_deleted_on_the_way_is_refused() {
    let mut member = Member::new();
    member.put("b", "1");
    let keep = TxnRequest::Put(Put {
        ignore_value: true,
        ..put_request("b", "")
    });
    let refused = txn([put("a", "1"), delete("b", "\0"), keep.clone()]);
    validate_txn(&refused, 128).unwrap();
    let error = member.apply(Op::Txn(refused)).unwrap_err();
    assert!(matches!(error, Error::KeyNotFound));
    assert_eq!(member.get("a"), None);
    assert_eq!(member.get("b").unwrap().version, 1);
    let kept = member.txn(txn([delete("c", "\0"), keep]));
    assert_eq!(kept.responses, [deleted(2, 0), written(3)]);
}

#[test]
fn missing_lease_is_told_before_a_missing_key_outside_a_transaction() {
    let mut member = Member::new();
    let put = Put {
        lease: 1,
        ignore_value: true,
        ..put_request("k", "")
    };
    let error = member.apply(Op::Put(put.clone())).unwrap_err();
    assert!(matches!(error, Error::LeaseNotFound));
    let error = member
        .apply(Op::Txn(txn([TxnRequest::Put(put)])))
        .unwrap_err();
    assert!(matches!(error, Error::KeyNotFound));
}

#[test]
fn unknown_compare_result_holds() {
    let mut member = Member::new();
    let compare = |result, target| Compare {
        key: bytes("k"),
        result,
        target,
        ..Compare::default()
    };
    member.put("k", "v");
    for (compare, expected) in [
        (compare(9, 0), true),
        (compare(0, 9), true),
        (compare(1, 9), false),
    ] {
        let guarded = Txn {
            compare: vec![compare],
            ..Txn::default()
        };
        assert_eq!(member.txn(guarded).succeeded, expected);
    }
}
