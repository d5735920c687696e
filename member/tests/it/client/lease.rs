use etcd_client::{Error, GetOptions, LeaseGrantOptions, LeaseTimeToLiveOptions, PutOptions};
use tonic::Code;

use super::{Cluster, assert_refused, eventually, in_time};

#[tokio::test]
async fn a_lease_holds_its_keys_until_it_is_revoked() -> Result<(), Error> {
    let mut cluster = Cluster::start().await;
    let client = &mut cluster.client;
    let chosen = Some(LeaseGrantOptions::new().with_id(4711));
    let granted = client.lease_grant(600, chosen.clone()).await?;
    assert_eq!((granted.id(), granted.ttl()), (4711, 600));
    assert_refused(
        client.lease_grant(600, chosen).await,
        Code::FailedPrecondition,
        "etcdserver: lease already exists",
    );
    let other = client.lease_grant(600, None).await?.id();
    for key in ["a", "b"] {
        client
            .put(key, "v", Some(PutOptions::new().with_lease(4711)))
            .await?;
    }
    client
        .put("c", "v", Some(PutOptions::new().with_lease(other)))
        .await?;
    let with_keys = Some(LeaseTimeToLiveOptions::new().with_keys());
    let left = client.lease_time_to_live(4711, with_keys.clone()).await?;
    assert_eq!(left.granted_ttl(), 600);
    assert!((500..=600).contains(&left.ttl()), "{left:?}");
    let mut keys = left.keys().to_vec();
    keys.sort();
    assert_eq!(keys, [b"a", b"b"]);

    let (mut keeper, mut stream) = client.lease_keep_alive(4711).await?;
    for _ in 0..3 {
        keeper.keep_alive().await?;
        let kept = in_time("a renewal", stream.message()).await?;
        let kept = kept.expect("not the end");
        assert_eq!((kept.id(), kept.ttl()), (4711, 600));
    }

    let listed = client.leases().await?;
    let mut ids: Vec<i64> = listed.leases().iter().map(|lease| lease.id()).collect();
    ids.sort_unstable();
    let mut expected = [4711, other];
    expected.sort_unstable();
    assert_eq!(ids, expected);

    client.lease_revoke(4711).await?;
    assert_refused(
        client.lease_revoke(4711).await,
        Code::NotFound,
        "etcdserver: requested lease not found",
    );
    assert_eq!(client.lease_time_to_live(4711, with_keys).await?.ttl(), -1);
    let gone = client.lease_keep_alive(4711).await;
    assert!(matches!(gone, Err(Error::LeaseKeepAliveError(_))));
    let all = Some(GetOptions::new().with_all_keys());
    let left = client.get("", all).await?;
    assert_eq!(left.kvs().len(), 1);
    assert_eq!(left.kvs()[0].lease(), other);
    Ok(())
}

#[tokio::test]
async fn a_lease_that_nobody_renews_ends_and_one_that_is_renewed_stays() -> Result<(), Error> {
    let mut cluster = Cluster::start().await;
    let client = &mut cluster.client;
    let ids = [
        client.lease_grant(2, None).await?.id(),
        client.lease_grant(2, None).await?.id(),
    ];
    for (key, id) in [("renewed", ids[0]), ("left", ids[1])] {
        client
            .put(key, "v", Some(PutOptions::new().with_lease(id)))
            .await?;
    }
    let (mut keeper, _stream) = client.lease_keep_alive(ids[0]).await?;
    let mut reader = client.clone();
    eventually("the end of the lease", async || {
        keeper.keep_alive().await.expect("renewed");
        let left = reader.get("left", None).await.expect("an answer");
        (left.count() == 0).then_some(())
    })
    .await;
    assert_eq!(client.get("renewed", None).await?.count(), 1);
    assert_eq!(client.lease_time_to_live(ids[1], None).await?.ttl(), -1);
    Ok(())
}
