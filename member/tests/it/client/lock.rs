use etcd_client::{Error, LockOptions, ProclaimOptions, ResignOptions};
use tonic::Code;

use super::{Cluster, assert_refused, eventually, in_time};

#[tokio::test]
async fn a_lock_has_one_holder_and_goes_on_to_the_next() -> Result<(), Error> {
    let mut cluster = Cluster::start().await;
    let client = &mut cluster.client;
    let first = client.lock("l", None).await?;
    assert!(first.key().starts_with(b"l/"));
    let lease = client.lease_grant(600, None).await?.id();
    let waiting = tokio::spawn({
        let mut client = client.clone();
        async move {
            client
                .lock("l", Some(LockOptions::new().with_lease(lease)))
                .await
        }
    });
    let mut reader = client.clone();
    eventually("the second in the queue", async || {
        let options = etcd_client::GetOptions::new().with_prefix();
        let queue = reader.get("l/", Some(options)).await.expect("an answer");
        (queue.count() == 2).then_some(())
    })
    .await;
    assert!(!waiting.is_finished());
    client.unlock(first.key()).await?;
    let second = in_time("the lock", waiting).await.expect("no panic")?;
    assert_ne!(first.key(), second.key());

    let third = tokio::spawn({
        let mut client = client.clone();
        async move { client.lock("l", None).await }
    });
    // The end of a holder's lease is the end of its hold.
    client.lease_revoke(lease).await?;
    let third = in_time("the lock", third).await.expect("no panic")?;
    client.unlock(third.key()).await?;
    assert_refused(
        client
            .lock("l", Some(LockOptions::new().with_lease(4711)))
            .await,
        // etcd: its own client's errors pass through the lock service without their code.
        Code::Unknown,
        "etcdserver: requested lease not found",
    );
    Ok(())
}

#[tokio::test]
async fn an_election_has_one_leader_whom_observers_see() -> Result<(), Error> {
    let mut cluster = Cluster::start().await;
    let client = &mut cluster.client;
    assert_refused(
        client.leader("e").await,
        Code::Unknown,
        "election: no leader",
    );
    let leases = [
        client.lease_grant(600, None).await?.id(),
        client.lease_grant(600, None).await?.id(),
    ];
    let won = client.campaign("e", "one", leases[0]).await?;
    let leader = won.leader().expect("a leader").clone();
    assert_eq!((leader.name(), leader.lease()), (&b"e"[..], leases[0]));
    let mut observed = client.observe("e").await?;
    let mut see = async |value: &str| {
        loop {
            let seen = in_time(value, observed.message()).await;
            let seen = seen.expect("no error").expect("not the end");
            if seen.kv().expect("a key").value() == value.as_bytes() {
                return seen.kv().expect("a key").key().to_vec();
            }
        }
    };
    assert_eq!(see("one").await, leader.key());
    let other = tokio::spawn({
        let mut client = client.clone();
        async move { client.campaign("e", "other", leases[1]).await }
    });
    let proclaim = Some(ProclaimOptions::new().with_leader(leader.clone()));
    client.proclaim("two", proclaim.clone()).await?;
    assert_eq!(see("two").await, leader.key());
    let now = client.leader("e").await?;
    assert_eq!(now.kv().expect("a key").value(), b"two");
    assert!(!other.is_finished());

    let resign = Some(ResignOptions::new().with_leader(leader.clone()));
    client.resign(resign).await?;
    let next = in_time("the other's turn", other)
        .await
        .expect("no panic")?;
    let next = next.leader().expect("a leader").clone();
    assert_eq!(next.lease(), leases[1]);
    assert_eq!(see("other").await, next.key());
    assert_refused(
        client.proclaim("three", proclaim).await,
        Code::Unknown,
        "election: not leader",
    );
    Ok(())
}
