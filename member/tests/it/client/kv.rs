use std::cmp::Ordering;

use etcd_client::{
    Client, Compare, CompareOp, DeleteOptions, Error, GetOptions, KeyValue, PutOptions, SortOrder,
    SortTarget, Txn, TxnOp, TxnOpResponse,
};
use tonic::Code;

use super::{Cluster, assert_refused};

fn keys(kvs: &[KeyValue]) -> Vec<&str> {
    kvs.iter().map(|kv| kv.key_str().expect("text")).collect()
}

#[tokio::test]
async fn writes_are_read_by_every_member_and_tell_what_they_replaced() -> Result<(), Error> {
    let mut cluster = Cluster::start().await;
    let client = &mut cluster.client;
    let first = client.put("k", "1", None).await?;
    let first = first.header().expect("a header").revision();
    let with_previous = Some(PutOptions::new().with_prev_key());
    let second = client.put("k", "2", with_previous.clone()).await?;
    let previous = second.prev_key().expect("there was one");
    assert_eq!(
        (previous.value(), previous.mod_revision()),
        (&b"1"[..], first)
    );
    for server in &cluster.servers {
        let mut at = Client::connect([server.endpoint()], None).await?;
        let kv = at.get("k", None).await?.take_kvs().remove(0);
        assert_eq!(
            (kv.value(), kv.create_revision(), kv.version(), kv.lease()),
            (&b"2"[..], first, 2, 0)
        );
        let old = Some(GetOptions::new().with_revision(first));
        assert_eq!(at.get("k", old).await?.kvs()[0].value(), b"1");
    }

    let kept = Some(PutOptions::new().with_ignore_value().with_prev_key());
    client.put("k", "", kept).await?;
    assert_eq!(client.get("k", None).await?.kvs()[0].value(), b"2");
    assert_refused(
        client
            .put("none", "", Some(PutOptions::new().with_ignore_value()))
            .await,
        Code::InvalidArgument,
        "etcdserver: key not found",
    );
    assert_refused(
        client
            .put("k", "v", Some(PutOptions::new().with_ignore_value()))
            .await,
        Code::InvalidArgument,
        "etcdserver: value is provided",
    );
    assert_refused(
        client
            .put("k", "v", Some(PutOptions::new().with_lease(4711)))
            .await,
        Code::NotFound,
        "etcdserver: requested lease not found",
    );
    assert_refused(
        client.put("", "v", None).await,
        Code::InvalidArgument,
        "etcdserver: key is not provided",
    );

    for key in ["d/1", "d/2", "d/3", "e"] {
        client.put(key, key, None).await?;
    }
    let below = Some(DeleteOptions::new().with_prefix().with_prev_key());
    let deleted = client.delete("d/", below).await?;
    assert_eq!(deleted.deleted(), 3);
    assert_eq!(keys(deleted.prev_kvs()), ["d/1", "d/2", "d/3"]);
    assert_eq!(client.delete("d/1", None).await?.deleted(), 0);
    let rest = Some(GetOptions::new().with_all_keys());
    assert_eq!(keys(client.get("", rest).await?.kvs()), ["e", "k"]);
    Ok(())
}

fn order(target: SortTarget, a: &KeyValue, b: &KeyValue) -> Ordering {
    match target {
        SortTarget::Key => a.key().cmp(b.key()),
        SortTarget::Version => a.version().cmp(&b.version()),
        SortTarget::Create => a.create_revision().cmp(&b.create_revision()),
        SortTarget::Mod => a.mod_revision().cmp(&b.mod_revision()),
        SortTarget::Value => a.value().cmp(b.value()),
    }
}

#[tokio::test]
async fn ranges_hold_what_sort_limit_and_bounds_say() -> Result<(), Error> {
    let mut cluster = Cluster::start().await;
    let client = &mut cluster.client;
    // Key, creation, last write, version and value each give another order.
    for (key, value) in [
        ("r/c", "5"),
        ("r/a", "4"),
        ("r/e", "1"),
        ("r/b", "9"),
        ("r/a", "3"),
        ("r/c", "7"),
        ("r/a", "6"),
        ("r/d", "2"),
    ] {
        client.put(key, value, None).await?;
    }
    let prefix = || GetOptions::new().with_prefix();
    let all = client.get("r/", Some(prefix())).await?.take_kvs();
    assert_eq!(keys(&all), ["r/a", "r/b", "r/c", "r/d", "r/e"]);
    for target in [
        SortTarget::Key,
        SortTarget::Version,
        SortTarget::Create,
        SortTarget::Mod,
        SortTarget::Value,
    ] {
        for sort in [SortOrder::None, SortOrder::Ascend, SortOrder::Descend] {
            for limit in 0..7 {
                let mut expected = all.clone();
                if sort == SortOrder::None && limit > 0 {
                    // etcd: without a direction, only one key more than the limit is looked at before sorting.
                    expected.truncate(usize::try_from(limit).expect("small") + 1);
                }
                // etcd: an order without a direction is ascending, and equals stay in the order of keys.
                expected.sort_by(|a, b| match sort {
                    SortOrder::Descend => order(target, b, a),
                    _ => order(target, a, b),
                });
                let options = prefix().with_sort(target, sort).with_limit(limit);
                let answer = client.get("r/", Some(options)).await?;
                let take = if limit == 0 { 5 } else { limit.min(5) };
                let expected = &keys(&expected)[..usize::try_from(take).expect("small")];
                let what = format!("{target:?} {sort:?} {limit}");
                assert_eq!(keys(answer.kvs()), expected, "{what}");
                assert_eq!(answer.count(), 5, "{what}");
                assert_eq!(answer.more(), take < 5, "{what}");
            }
        }
    }

    let values = |options: GetOptions| {
        let mut client = client.clone();
        async move { client.get("r/", Some(options)).await }
    };
    let counted = values(prefix().with_count_only()).await?;
    assert_eq!((counted.count(), counted.kvs().len()), (5, 0));
    let bare = values(prefix().with_keys_only().with_serializable()).await?;
    assert!(bare.kvs().iter().all(|kv| kv.value().is_empty()));
    assert_eq!(bare.kvs().len(), 5);
    let middle = all[2].mod_revision();
    for (options, expected) in [
        (prefix().with_min_mod_revision(middle), "r/a r/c r/d"),
        (prefix().with_max_mod_revision(middle), "r/b r/c r/e"),
        (prefix().with_min_create_revision(middle), "r/d"),
        (prefix().with_max_create_revision(3), "r/a r/c"),
        (GetOptions::new().with_range("r/c"), "r/a r/b"),
        (GetOptions::new().with_from_key().with_limit(2), "r/a r/b"),
    ] {
        let what = format!("{options:?}");
        assert_eq!(
            keys(values(options).await?.kvs()).join(" "),
            expected,
            "{what}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_compacted_revision_is_refused_and_what_is_left_stays() -> Result<(), Error> {
    let mut cluster = Cluster::start().await;
    let client = &mut cluster.client;
    let mut revisions = Vec::new();
    for value in ["1", "2", "3"] {
        let answer = client.put("k", value, None).await?;
        revisions.push(answer.header().expect("a header").revision());
    }
    client.compact(revisions[1], None).await?;
    let at = |revision| Some(GetOptions::new().with_revision(revision));
    assert_eq!(
        client.get("k", at(revisions[1])).await?.kvs()[0].value(),
        b"2"
    );
    assert_refused(
        client.get("k", at(revisions[0])).await,
        Code::OutOfRange,
        "etcdserver: mvcc: required revision has been compacted",
    );
    assert_refused(
        client.get("k", at(revisions[2] + 1)).await,
        Code::OutOfRange,
        "etcdserver: mvcc: required revision is a future revision",
    );
    assert_refused(
        client.compact(revisions[1], None).await,
        Code::OutOfRange,
        "etcdserver: mvcc: required revision has been compacted",
    );
    assert_refused(
        client.compact(revisions[2] + 1, None).await,
        Code::OutOfRange,
        "etcdserver: mvcc: required revision is a future revision",
    );
    Ok(())
}

#[tokio::test]
async fn a_transaction_takes_one_of_two_ways_at_one_revision() -> Result<(), Error> {
    let mut cluster = Cluster::start().await;
    let client = &mut cluster.client;
    client.put("k", "1", None).await?;
    let before = client.put("t/x", "x", None).await?;
    let before = before.header().expect("a header").revision();
    let txn = Txn::new()
        .when([
            Compare::value("k", CompareOp::Equal, "1"),
            Compare::version("k", CompareOp::Less, 2),
            Compare::create_revision("none", CompareOp::Equal, 0),
            Compare::mod_revision("t/", CompareOp::Greater, 1).with_prefix(),
            Compare::lease("k", CompareOp::NotEqual, 7),
        ])
        .and_then([
            TxnOp::put("k", "2", Some(PutOptions::new().with_prev_key())),
            TxnOp::get("k", None),
            TxnOp::txn(
                Txn::new()
                    .when([Compare::value("k", CompareOp::Equal, "2")])
                    .and_then([TxnOp::put("inner", "then", None)])
                    .or_else([TxnOp::put("inner", "else", None)]),
            ),
            TxnOp::delete("t/", Some(DeleteOptions::new().with_prefix())),
        ])
        .or_else([TxnOp::get("k", None)]);
    let answer = client.txn(txn.clone()).await?;
    assert!(answer.succeeded());
    let ops = answer.op_responses();
    assert!(matches!(&ops[0], TxnOpResponse::Put(put)
        if put.prev_key().is_some_and(|kv| kv.value() == b"1")));
    assert!(matches!(&ops[1], TxnOpResponse::Get(get) if get.kvs()[0].value() == b"2"));
    // etcd: the comparisons of a transaction inside another see the state before the first operation.
    assert!(matches!(&ops[2], TxnOpResponse::Txn(inner) if !inner.succeeded()));
    assert!(matches!(&ops[3], TxnOpResponse::Delete(delete) if delete.deleted() == 1));
    for key in ["k", "inner"] {
        let kv = client.get(key, None).await?.take_kvs().remove(0);
        assert_eq!(kv.mod_revision(), before + 1, "{key}");
    }
    let answer = client.txn(txn).await?;
    assert!(!answer.succeeded());
    let ops = answer.op_responses();
    assert!(matches!(&ops[..], [TxnOpResponse::Get(get)] if get.kvs()[0].value() == b"2"));
    assert_eq!(answer.header().expect("a header").revision(), before + 1);

    let twice = Txn::new().and_then([TxnOp::put("k", "1", None), TxnOp::put("k", "2", None)]);
    assert_refused(
        client.txn(twice).await,
        Code::InvalidArgument,
        "etcdserver: duplicate key given in txn request",
    );
    let many: Vec<TxnOp> = (0..129)
        .map(|i| TxnOp::put(format!("{i}"), "", None))
        .collect();
    assert_refused(
        client.txn(Txn::new().and_then(many)).await,
        Code::InvalidArgument,
        "etcdserver: too many operations in txn request",
    );
    Ok(())
}
