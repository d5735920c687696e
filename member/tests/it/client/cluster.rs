use std::process::Command;

use etcd_client::{
    AlarmAction, AlarmType, Client, ConnectOptions, Error, Member, MemberAddOptions, StatusResponse,
};
use sha2::{Digest, Sha256};
use tonic::Code;

use super::{Cluster, assert_refused, connect, eventually};
use crate::process::{MEMBER, Server, free_ports};

async fn status(server: &Server) -> StatusResponse {
    let mut at = Client::connect([server.endpoint()], None)
        .await
        .expect("connects");
    at.status().await.expect("a status")
}

/// The members once each has made its name known.
async fn named(client: &mut Client, count: usize) -> Vec<Member> {
    eventually("every member's name", async || {
        let listed = client.member_list().await.ok()?;
        let members = listed.members();
        let named = members.iter().all(|member| !member.name().is_empty());
        (members.len() == count && named).then(|| members.to_vec())
    })
    .await
}

#[tokio::test]
async fn a_learner_is_added_promoted_and_removed() -> Result<(), Error> {
    let mut cluster = Cluster::start().await;
    let client = &mut cluster.client;
    let mut members = named(client, 3).await;
    members.sort_by(|a, b| a.name().cmp(b.name()));
    for (member, server) in members.iter().zip(&cluster.servers) {
        assert_eq!(member.client_urls(), [server.endpoint()]);
        let peer = format!("http://127.0.0.1:{}", server.peer_port);
        assert_eq!(member.peer_urls(), [peer]);
        assert!(!member.is_learner());
    }
    client.put("before", "v", None).await?;

    let [client_port, peer_port] = free_ports();
    let url = format!("http://127.0.0.1:{peer_port}");
    let added = eventually("the addition", async || {
        let learner = Some(MemberAddOptions::new().with_is_learner());
        match client.member_add([&url], learner).await {
            Ok(added) => Some(added),
            // The members have not been connected for long enough.
            Err(Error::GRpcStatus(status)) if status.code() == Code::Unavailable => None,
            Err(error) => panic!("{error}"),
        }
    })
    .await;
    let id = added.member().expect("the member").id();
    assert!(added.member().expect("the member").is_learner());
    assert_eq!(added.member_list().len(), 4);
    let initial: Vec<String> = added
        .member_list()
        .iter()
        .map(|member| {
            let name = if member.id() == id {
                "learner"
            } else {
                member.name()
            };
            format!("{name}={}", member.peer_urls()[0])
        })
        .collect();
    let mut learner = Server::of_cluster(
        MEMBER,
        "learner",
        client_port,
        peer_port,
        &initial.join(","),
        &["--initial-cluster-state=existing"],
    );
    learner.start();
    let mut at = Client::connect([learner.endpoint()], None).await?;
    eventually("the learner serves what it may", async || {
        at.status().await.ok()?.is_learner().then_some(())
    })
    .await;
    // A learner answers no reads but its own.
    let refused = eventually("a refusal by the learner", async || {
        match at.get("before", None).await.err()? {
            Error::GRpcStatus(status) if status.message().contains("learner") => Some(status),
            _ => None,
        }
    })
    .await;
    assert_refused::<()>(
        Err(Error::GRpcStatus(refused)),
        Code::FailedPrecondition,
        "etcdserver: rpc not supported for learner",
    );
    eventually("the promotion", async || {
        client.member_promote(id).await.ok()
    })
    .await;
    assert_refused(
        client.member_promote(id).await,
        Code::FailedPrecondition,
        "etcdserver: can only promote a learner member",
    );
    eventually("the new member reads", async || {
        at.get("before", None).await.ok()
    })
    .await;
    let removed = eventually("the removal", async || client.member_remove(id).await.ok()).await;
    assert_eq!(removed.members().len(), 3);
    assert_eq!(learner.wait_exit().code(), Some(0));
    assert_refused(
        client.member_remove(id).await,
        Code::NotFound,
        "etcdserver: member not found",
    );
    client.put("after", "v", None).await?;
    Ok(())
}

#[tokio::test]
async fn leadership_goes_where_it_is_asked_to() -> Result<(), Error> {
    let cluster = Cluster::start().await;
    let mut all = cluster.client.clone();
    let members = named(&mut all, 3).await;
    let leader = status(&cluster.servers[0]).await.leader();
    let mut at_leader = None;
    for server in &cluster.servers {
        let told = status(server).await;
        if told.header().expect("a header").member_id() == leader {
            at_leader = Some(Client::connect([server.endpoint()], None).await?);
        } else {
            let mut follower = Client::connect([server.endpoint()], None).await?;
            assert_refused(
                follower.move_leader(leader).await,
                Code::FailedPrecondition,
                "etcdserver: not leader",
            );
        }
    }
    let mut at_leader = at_leader.expect("a leader");
    let target = members
        .iter()
        .map(Member::id)
        .find(|id| *id != leader)
        .expect("another");
    assert_refused(
        at_leader.move_leader(4711).await,
        Code::FailedPrecondition,
        "etcdserver: bad leader transferee",
    );
    at_leader.move_leader(target).await?;
    eventually("the members agree", async || {
        for server in &cluster.servers {
            (status(server).await.leader() == target).then_some(())?;
        }
        Some(())
    })
    .await;
    Ok(())
}

#[tokio::test]
async fn maintenance_answers_for_each_member_alike() -> Result<(), Error> {
    let mut cluster = Cluster::start().await;
    let client = &mut cluster.client;
    for i in 0..50 {
        client
            .put(format!("k{}", i % 20), format!("{i}"), None)
            .await?;
    }
    let last = client.delete("k7", None).await?;
    let last = last.header().expect("a header").revision();
    client.compact(last - 10, None).await?;
    let mut hashes = Vec::new();
    for server in &cluster.servers {
        let mut at = connect(std::slice::from_ref(server), ConnectOptions::new()).await;
        // Linearizable, so that the member has applied everything.
        at.get("k", None).await?;
        let told = at.status().await?;
        assert!(told.version().starts_with("3.6."), "{told:?}");
        assert!(
            told.db_size() > 0 && told.raft_used_db_size() > 0,
            "{told:?}"
        );
        assert!(told.raft_applied_index() <= told.raft_index(), "{told:?}");
        assert!(told.leader() != 0 && told.raft_term() > 0, "{told:?}");
        assert!(told.errors().is_empty() && !told.is_learner(), "{told:?}");
        let hash = at.hash_kv(last).await?;
        hashes.push((hash.hash(), hash.compact_version()));
        assert_ne!(at.hash().await?.hash(), 0);
        at.defragment().await?;
        let alarms = at.alarm(AlarmAction::Get, AlarmType::None, None).await?;
        assert!(alarms.alarms().is_empty());
    }
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
    assert_eq!(hashes[0].1, last - 10);
    Ok(())
}

#[tokio::test]
async fn an_alarm_stops_writes_until_it_is_cleared() -> Result<(), Error> {
    let mut cluster = Cluster::start().await;
    let client = &mut cluster.client;
    let id = client.status().await?.leader();
    let mut at = etcd_client::AlarmOptions::new();
    at.with_member(id);
    client
        .alarm(AlarmAction::Activate, AlarmType::Nospace, Some(at.clone()))
        .await?;
    let refused = eventually("a refusal", async || client.put("k", "v", None).await.err()).await;
    assert_refused::<()>(
        Err(refused),
        Code::ResourceExhausted,
        "etcdserver: mvcc: database space exceeded",
    );
    let raised = client
        .alarm(AlarmAction::Get, AlarmType::None, None)
        .await?;
    assert_eq!(raised.alarms().len(), 1);
    assert_eq!(raised.alarms()[0].member_id(), id);
    client
        .alarm(AlarmAction::Deactivate, AlarmType::Nospace, Some(at))
        .await?;
    eventually("writes again", async || {
        client.put("k", "v", None).await.ok()
    })
    .await;
    Ok(())
}

#[tokio::test]
async fn a_snapshot_streamed_to_a_program_is_a_database_file() -> Result<(), Error> {
    let cluster = Cluster::start().await;
    // One member: another may not have applied the last put when it takes the snapshot.
    let mut client = connect(&cluster.servers[..1], ConnectOptions::new()).await;
    for i in 0..200 {
        client
            .put(format!("k{i:03}"), "x".repeat(2000), None)
            .await?;
    }
    let mut stream = client.snapshot().await?;
    let mut bytes = Vec::new();
    let mut left = None;
    while let Some(part) = stream.message().await? {
        let size = u64::try_from(part.blob().len()).expect("small");
        // The hash comes after the last byte that is announced.
        if let Some(left @ 1..) = left {
            assert_eq!(part.remaining_bytes() + size, left);
        }
        left = Some(part.remaining_bytes());
        bytes.extend_from_slice(part.blob());
    }
    assert_eq!(left, Some(0));
    let (database, hash) = bytes.split_at(bytes.len() - 32);
    assert_eq!(hash, Sha256::digest(database).as_slice());
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("snapshot");
    std::fs::write(&path, &bytes).expect("written");
    let told = Command::new("etcdctl")
        .env("ETCDCTL_API", "3")
        .args(["snapshot", "status", "-w", "json"])
        .arg(&path)
        .output()
        .expect("etcdctl is installed: run ci/setup");
    let told: serde_json::Value = serde_json::from_slice(&told.stdout).expect("JSON");
    assert_eq!(told["revision"], 201);
    Ok(())
}
