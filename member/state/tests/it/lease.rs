//! What leases do to keys, case by case. The order of errors was measured on etcd 3.4.

use bytes::Bytes;
use member_state::{
    Command, DeleteRange, Error, LeaseGrant, LeaseRevoke, LogPosition, MemoryBackend, Op, Put,
    Range, Response, Store, Table, Txn, TxnRequest,
};

struct Member {
    store: Store<MemoryBackend>,
    index: u64,
}

impl Member {
    fn with_leases(ids: &[i64]) -> Self {
        let mut member = Member {
            store: Store::open(MemoryBackend::new()).unwrap(),
            index: 0,
        };
        for id in ids {
            let granted = member.apply(Op::LeaseGrant(LeaseGrant { id: *id, ttl: 5 }));
            assert_eq!(granted.unwrap(), Response::LeaseGrant { revision: 1 });
        }
        member
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

    fn put(&mut self, key: &'static str, lease: i64) {
        self.apply(Op::Put(put(key, lease))).unwrap();
    }

    fn keys(&self, lease: i64) -> Vec<Bytes> {
        self.store.lease_keys(lease).unwrap()
    }
}

fn put(key: &'static str, lease: i64) -> Put {
    Put {
        key: Bytes::from_static(key.as_bytes()),
        lease,
        ..Put::default()
    }
}

#[test]
fn a_revoked_lease_takes_its_keys_with_it_at_one_revision() {
    let mut member = Member::with_leases(&[7, 8]);
    for key in ["b", "a", "c"] {
        member.put(key, 7);
    }
    member.put("d", 8);
    member.put("e", 0);
    assert_eq!(member.keys(7), ["a", "b", "c"]);
    let revoked = member.apply(Op::LeaseRevoke(LeaseRevoke { id: 7 }));
    assert_eq!(revoked.unwrap(), Response::LeaseRevoke { revision: 7 });
    assert_eq!(member.store.revision(), 7);
    let all = Range {
        key: Bytes::from_static(b"\0"),
        range_end: Bytes::from_static(b"\0"),
        ..Range::default()
    };
    let left = member.store.range(&all).unwrap().kvs;
    let left: Vec<_> = left.iter().map(|kv| &kv.key[..]).collect();
    assert_eq!(left, [b"d", b"e"]);
    assert_eq!(member.store.lease(7).unwrap(), None);
    assert_eq!(member.store.lease(8).unwrap().unwrap().ttl, 5);
}

#[test]
fn a_lease_without_keys_ends_without_a_revision() {
    let mut member = Member::with_leases(&[7]);
    let revoked = member.apply(Op::LeaseRevoke(LeaseRevoke { id: 7 }));
    assert_eq!(revoked.unwrap(), Response::LeaseRevoke { revision: 1 });
    let again = member.apply(Op::LeaseRevoke(LeaseRevoke { id: 7 }));
    assert!(matches!(again, Err(Error::LeaseNotFound)));
}

#[test]
fn a_key_belongs_to_the_lease_of_its_last_put() {
    let mut member = Member::with_leases(&[1, 2]);
    member.put("k", 1);
    member.put("k", 2);
    assert_eq!((member.keys(1), member.keys(2)), (vec![], vec!["k".into()]));
    let keep = Put {
        ignore_lease: true,
        ..put("k", 0)
    };
    member.apply(Op::Put(keep)).unwrap();
    assert_eq!(member.keys(2), ["k"]);
    member.put("k", 0);
    assert_eq!(member.keys(2), Vec::<Bytes>::new());
    member.put("k", 2);
    let delete = DeleteRange {
        key: Bytes::from_static(b"k"),
        ..DeleteRange::default()
    };
    member.apply(Op::DeleteRange(delete)).unwrap();
    assert_eq!(member.keys(2), Vec::<Bytes>::new());
    assert_eq!(member.store.backend().len(Table::Leases), 2);
}

#[test]
fn grants_are_refused_in_etcds_order() {
    let mut member = Member::with_leases(&[1]);
    for (id, ttl, expected) in [
        (0, 9_000_000_001, "etcdserver: requested lease not found"),
        (1, 9_000_000_001, "etcdserver: too large lease TTL"),
        (1, 9_000_000_000, "etcdserver: lease already exists"),
    ] {
        let refused = member.apply(Op::LeaseGrant(LeaseGrant { id, ttl }));
        assert_eq!(refused.unwrap_err().text(), expected);
    }
}

#[test]
fn a_transaction_with_an_unknown_lease_writes_nothing() {
    let mut member = Member::with_leases(&[1]);
    let ops = [put("a", 1), put("b", 2)];
    let txn = Txn {
        success: ops
            .into_iter()
            .map(|put| TxnRequest::Put(put).into())
            .collect(),
        ..Txn::default()
    };
    let refused = member.apply(Op::Txn(txn));
    assert!(matches!(refused, Err(Error::LeaseNotFound)));
    assert_eq!(member.keys(1), Vec::<Bytes>::new());
    assert_eq!(member.store.revision(), 1);
}

#[test]
fn a_put_without_a_lease_touches_no_lease() {
    let mut member = Member::with_leases(&[1]);
    let before = member.store.backend().len(Table::Leases);
    member.put("a", 0);
    member.put("a", 0);
    assert_eq!(member.store.backend().len(Table::Leases), before);
}
