//! What a program sees of the loss of members.

use std::time::Duration;

use etcd_client::{Client, ConnectOptions, Error, GetOptions, WatchOptions};

use super::{Cluster, connect, eventually, in_time};

#[tokio::test]
async fn requests_go_on_while_members_are_killed_one_after_another() -> Result<(), Error> {
    let mut cluster = Cluster::start().await;
    let mut client = cluster.client.clone();
    for round in 0..3 {
        cluster.servers[round].kill();
        for i in 0..20 {
            // Calls that met the dead member fail at once, and are made again.
            eventually("a write", async || {
                client.put(format!("{round}/{i:02}"), "v", None).await.ok()
            })
            .await;
        }
        cluster.servers[round].start();
        cluster.servers[round].wait_ready();
    }
    let all = eventually("a read", async || {
        let options = GetOptions::new().with_all_keys().with_keys_only();
        client.get("", Some(options)).await.ok()
    })
    .await;
    assert_eq!(all.count(), 60);
    Ok(())
}

#[tokio::test]
async fn a_watch_whose_member_dies_goes_on_at_another_without_loss_or_repetition()
-> Result<(), Error> {
    let mut cluster = Cluster::start().await;
    let mut at = Client::connect([cluster.servers[0].endpoint()], None).await?;
    let rest = connect(&cluster.servers[1..], ConnectOptions::new()).await;
    let first = at.put("w", "0", None).await?;
    let first = first.header().expect("a header").revision();
    let writer = tokio::spawn({
        let mut rest = rest.clone();
        async move {
            for i in 1..=300 {
                while rest.put(format!("w{i}"), "v", None).await.is_err() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
            rest.get("w", None).await
        }
    });
    let mut revisions: Vec<i64> = Vec::new();
    let mut watching = at.clone();
    let mut lost = 0;
    loop {
        let from = revisions.last().map_or(first, |last| last + 1);
        let options = WatchOptions::new().with_prefix().with_start_revision(from);
        let Ok(mut stream) = watching.watch("w", Some(options)).await else {
            continue;
        };
        while let Ok(Some(response)) = in_time("a response", stream.message()).await {
            let events = response.events().iter();
            revisions.extend(events.map(|event| event.kv().expect("a key").mod_revision()));
            if revisions.len() >= 100 && lost == 0 {
                cluster.servers[0].kill();
            }
            if revisions.len() >= 301 {
                break;
            }
        }
        if revisions.len() >= 301 {
            break;
        }
        lost += 1;
        watching = rest.clone();
    }
    assert!(lost > 0, "the member was killed too late");
    let last = in_time("the writes", writer).await.expect("no panic")?;
    let last = last.header().expect("a header").revision();
    // Every revision since the first was a put below the prefix.
    let expected: Vec<i64> = (first..=last).collect();
    assert_eq!(revisions[..expected.len().min(revisions.len())], expected);
    Ok(())
}

#[tokio::test]
async fn a_client_of_one_member_finds_it_again_after_a_restart() -> Result<(), Error> {
    let mut cluster = Cluster::start().await;
    let mut at = Client::connect([cluster.servers[1].endpoint()], None).await?;
    at.put("k", "before", None).await?;
    let lease = at.lease_grant(600, None).await?.id();
    let (mut keeper, mut renewals) = at.lease_keep_alive(lease).await?;
    cluster.servers[1].kill();
    let _ = keeper.keep_alive().await;
    let end = in_time("the stream's end", renewals.message()).await;
    assert!(!matches!(end, Ok(Some(_))), "{end:?}");
    assert!(in_time("a refusal", at.get("k", None)).await.is_err());
    cluster.servers[1].start();
    cluster.servers[1].wait_ready();
    let found = eventually("an answer", async || at.get("k", None).await.ok()).await;
    assert_eq!(found.kvs()[0].value(), b"before");
    at.lease_keep_alive(lease).await?;
    Ok(())
}
