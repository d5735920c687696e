//! Leases as clients see them: through any member, over expiry, over a change of leaders, and beside etcd's.

use std::time::{Duration, Instant};

use bytes::Bytes;
use member_proto::etcdserverpb as pb;
use member_proto::etcdserverpb::kv_client::KvClient;
use member_proto::etcdserverpb::lease_client::LeaseClient;
use tonic::transport::Channel;

use crate::differential::runtime;
use crate::process::{ETCD, MEMBER, Server, etcdctl, http_get, wait_until};
use crate::server::{endpoints, start_all, three};

/// What etcdctl prints; fails when etcdctl does.
fn ctl(endpoints: &str, args: &[&str]) -> String {
    let (ok, out, err) = etcdctl(endpoints, args);
    assert!(ok, "{args:?}: {err}");
    out
}

/// The id of a new lease of `ttl` seconds.
fn grant(endpoints: &str, ttl: &str) -> String {
    let out = ctl(endpoints, &["lease", "grant", ttl]);
    let id = out.split_whitespace().nth(1).expect("an id");
    id.to_owned()
}

#[test]
fn every_member_grants_lists_renews_and_revokes() {
    let mut servers = three();
    start_all(&mut servers);
    for (i, server) in servers.iter().enumerate() {
        let endpoint = server.endpoint();
        let id = grant(&endpoint, "100");
        let key = format!("k{i}");
        ctl(&endpoint, &["put", &key, "v", &format!("--lease={id}")]);
        let out = ctl(&endpoint, &["lease", "timetolive", &id, "--keys"]);
        assert!(
            out.starts_with(&format!("lease {id} granted with TTL(100s), remaining("))
                && out.ends_with(&format!("attached keys([{key}])\n")),
            "{out}"
        );
        for asked in &servers {
            // A list is read where it is asked for, and may be a moment behind, as etcd's.
            wait_until("the lease is listed", || {
                ctl(&asked.endpoint(), &["lease", "list"]).contains(&id)
            });
            let out = ctl(&asked.endpoint(), &["lease", "keep-alive", "--once", &id]);
            assert_eq!(out, format!("lease {id} keepalived with TTL(100)\n"));
        }
        let out = ctl(&endpoint, &["lease", "revoke", &id]);
        assert_eq!(out, format!("lease {id} revoked\n"));
        for asked in &servers {
            let out = ctl(&asked.endpoint(), &["lease", "timetolive", &id]);
            assert_eq!(out, format!("lease {id} already expired\n"));
            assert_eq!(ctl(&asked.endpoint(), &["get", &key]), "");
        }
        let (ok, _, err) = etcdctl(&endpoint, &["lease", "revoke", &id]);
        assert!(
            !ok && err.contains("etcdserver: requested lease not found"),
            "{err}"
        );
    }
    let counts = servers.each_ref().map(|server| {
        let metrics = http_get(server.client_port, "/metrics").expect("metrics");
        assert!(metrics.contains("\netcd_debugging_lease_granted_total 3\n"));
        assert!(metrics.contains("\netcd_debugging_lease_revoked_total 3\n"));
        metrics.contains("\netcd_debugging_lease_renewed_total 9\n")
    });
    assert_eq!(
        counts.iter().filter(|renewed| **renewed).count(),
        1,
        "the leader renews"
    );
}

#[test]
fn an_expired_lease_takes_all_its_keys_at_one_revision() {
    let mut server = Server::single(MEMBER, &[]);
    server.start();
    server.wait_ready();
    let id = grant(&server.endpoint(), "1");
    let lease = format!("--lease={id}");
    for i in 0..5 {
        ctl(&server.endpoint(), &["put", &format!("k{i}"), "v", &lease]);
    }
    ctl(&server.endpoint(), &["put", "other", "v"]);
    wait_until("the lease has ended", || {
        ctl(&server.endpoint(), &["lease", "list"]).starts_with("found 0 leases")
    });
    let out = ctl(
        &server.endpoint(),
        &["get", "", "--from-key", "--keys-only", "-w", "json"],
    );
    let left: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(left["header"]["revision"], 8, "{out}");
    assert_eq!(left["count"], 1, "{out}");
    let out = ctl(&server.endpoint(), &["get", "k", "--prefix", "--rev=7"]);
    assert_eq!(out.lines().count(), 10, "all were there before: {out}");
    let metrics = http_get(server.client_port, "/metrics").expect("metrics");
    assert!(metrics.contains("\netcd_debugging_server_lease_expired_total 1\n"));
}

#[test]
fn a_new_leader_prolongs_leases_and_ends_them_later() {
    const TTL: Duration = Duration::from_secs(4);
    const ELECTION: Duration = Duration::from_secs(1);
    let mut servers = three();
    start_all(&mut servers);
    let id = grant(&endpoints(&servers), "4");
    ctl(
        &endpoints(&servers),
        &["put", "k", "v", &format!("--lease={id}")],
    );
    wait_until("a leader", || servers.iter().any(Server::leads));
    let leader = servers.iter().position(Server::leads).expect("a leader");
    servers[leader].kill();
    let killed = Instant::now();
    let rest: Vec<String> = servers
        .iter()
        .enumerate()
        .filter(|(i, _)| *i != leader)
        .map(|(_, server)| server.endpoint())
        .collect();
    let rest = rest.join(",");
    wait_until("the lease has ended", || {
        let (ok, found, _) = etcdctl(&rest, &["get", "k"]);
        ok && found.is_empty()
    });
    // At the least: its full time from the election on, which took an election timeout, and one more.
    assert!(killed.elapsed() >= TTL + 2 * ELECTION);
    assert!(ctl(&rest, &["lease", "list"]).starts_with("found 0 leases"));
}

#[test]
fn a_stream_of_renewals_through_a_follower_keeps_a_lease_alive() {
    let mut servers = three();
    start_all(&mut servers);
    wait_until("a leader", || servers.iter().any(Server::leads));
    let follower = servers.iter().find(|server| !server.leads());
    runtime().block_on(async {
        let mut clients = Clients::connect(follower.expect("a follower")).await;
        let lease = clients
            .lease
            .lease_grant(pb::LeaseGrantRequest { ttl: 1, id: 0 })
            .await
            .expect("granted")
            .into_inner();
        assert!(lease.id > 0);
        assert_eq!(lease.ttl, 2, "raised to what outlives an election");
        clients
            .kv
            .put(put("k", lease.id))
            .await
            .expect("a put with a lease");
        let (renewals, requests) = tokio::sync::mpsc::channel(1);
        let renewal = pb::LeaseKeepAliveRequest { id: lease.id };
        renewals.send(renewal).await.expect("sent");
        let mut answers = clients
            .lease
            .lease_keep_alive(tokio_stream::wrappers::ReceiverStream::new(requests))
            .await
            .expect("a stream")
            .into_inner();
        let begin = Instant::now();
        let mut pace = tokio::time::interval(Duration::from_millis(300));
        loop {
            let answer = answers.message().await.expect("answered").expect("open");
            assert_eq!((answer.id, answer.ttl), (lease.id, 2));
            if begin.elapsed() > Duration::from_secs(5) {
                break;
            }
            pace.tick().await;
            renewals.send(renewal).await.expect("sent");
        }
        let mut key = pb::RangeRequest {
            key: "k".into(),
            ..Default::default()
        };
        let kept = clients.kv.range(key.clone()).await.expect("read");
        assert_eq!(kept.into_inner().kvs[0].lease, lease.id);
        key.count_only = true;
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut count = 1;
        while count > 0 {
            assert!(Instant::now() < deadline, "nobody renews, and it lives on");
            pace.tick().await;
            let left = clients.kv.range(key.clone()).await.expect("read");
            count = left.into_inner().count;
        }
        renewals.send(renewal).await.expect("sent");
        let answer = answers.message().await.expect("answered").expect("open");
        assert_eq!(answer.ttl, 0, "no error: the stream serves others");
    });
}

#[test]
fn renewals_in_great_number_share_their_way() {
    let mut servers = three();
    start_all(&mut servers);
    runtime().block_on(async {
        for server in &servers {
            let mut client = LeaseClient::connect(server.endpoint())
                .await
                .expect("connects");
            let granted = client
                .lease_grant(pb::LeaseGrantRequest { ttl: 600, id: 0 })
                .await
                .expect("granted")
                .into_inner();
            let streams = (0..50).map(|_| {
                let mut client = client.clone();
                async move {
                    let renewals =
                        (0..100).map(move |_| pb::LeaseKeepAliveRequest { id: granted.id });
                    let mut answers = client
                        .lease_keep_alive(tokio_stream::iter(renewals))
                        .await
                        .expect("a stream")
                        .into_inner();
                    let mut renewed = 0;
                    while let Some(answer) = answers.message().await.expect("answers") {
                        assert_eq!((answer.id, answer.ttl), (granted.id, 600));
                        renewed += 1;
                    }
                    renewed
                }
            });
            let mut tasks = tokio::task::JoinSet::new();
            streams.for_each(|stream| {
                tasks.spawn(stream);
            });
            assert_eq!(tasks.join_all().await.iter().sum::<usize>(), 5000);
        }
    });
}

#[test]
fn a_member_that_got_a_snapshot_knows_the_leases_in_it() {
    let mut servers = three();
    for server in &mut servers {
        server.arg("--snapshot-count=50");
        server.arg("--snapshot-catchup-entries=10");
    }
    start_all(&mut servers);
    servers[2].kill();
    let rest = [servers[0].endpoint(), servers[1].endpoint()];
    let id = grant(&rest.join(","), "600");
    ctl(
        &rest.join(","),
        &["put", "k", "v", &format!("--lease={id}")],
    );
    runtime().block_on(async {
        let mut clients = Clients::connect(&servers[0]).await;
        for _ in 0..300 {
            clients.kv.put(put("fill", 0)).await.expect("a put");
        }
    });
    servers[2].start();
    servers[2].wait_ready();
    let out = ctl(
        &servers[2].endpoint(),
        &["lease", "timetolive", &id, "--keys"],
    );
    assert!(out.ends_with("attached keys([k])\n"), "{out}");
    assert!(
        servers[2].log().contains("received a snapshot"),
        "{}",
        servers[2].log()
    );
    ctl(&servers[2].endpoint(), &["lease", "revoke", &id]);
    assert_eq!(ctl(&servers[2].endpoint(), &["get", "k"]), "");
}

#[test]
fn leases_survive_a_restart_of_all() {
    let mut server = Server::single(MEMBER, &[]);
    server.start();
    server.wait_ready();
    let kept = grant(&server.endpoint(), "600");
    ctl(
        &server.endpoint(),
        &["put", "kept", "v", &format!("--lease={kept}")],
    );
    let short = grant(&server.endpoint(), "2");
    ctl(
        &server.endpoint(),
        &["put", "short", "v", &format!("--lease={short}")],
    );
    server.kill();
    server.start();
    server.wait_ready();
    wait_until("the short lease has ended", || {
        ctl(&server.endpoint(), &["get", "short"]).is_empty()
    });
    let out = ctl(&server.endpoint(), &["lease", "list"]);
    assert_eq!(out, format!("found 1 leases\n{kept}\n"));
    assert_eq!(ctl(&server.endpoint(), &["get", "kept"]), "kept\nv\n");
}

/// One request of the list that both servers answer.
#[derive(Clone, Debug)]
enum Request {
    Grant(i64, i64),
    Revoke(i64),
    Renew(i64),
    Look(i64),
    List,
    Put(pb::PutRequest),
    Delete(&'static str),
    Txn(Vec<pb::PutRequest>),
    Get(&'static str),
}

struct Clients {
    kv: KvClient<Channel>,
    lease: LeaseClient<Channel>,
}

impl Clients {
    async fn connect(server: &Server) -> Self {
        let endpoint = server.endpoint();
        Self {
            kv: KvClient::connect(endpoint.clone()).await.expect("connects"),
            lease: LeaseClient::connect(endpoint).await.expect("connects"),
        }
    }

    /// The answer without ids of the cluster and without how much time has passed.
    async fn ask(&mut self, request: Request) -> Result<String, (tonic::Code, String)> {
        let revision = |header: Option<pb::ResponseHeader>| header.map(|header| header.revision);
        let plain = |status: tonic::Status| (status.code(), status.message().to_owned());
        Ok(match request {
            Request::Grant(id, ttl) => {
                let request = pb::LeaseGrantRequest { ttl, id };
                let answer = self.lease.lease_grant(request).await.map_err(plain)?;
                let answer = answer.into_inner();
                format!("{:?} {} {}", revision(answer.header), answer.id, answer.ttl)
            }
            Request::Revoke(id) => {
                let request = pb::LeaseRevokeRequest { id };
                let answer = self.lease.lease_revoke(request).await.map_err(plain)?;
                format!("{:?}", revision(answer.into_inner().header))
            }
            Request::Renew(id) => {
                let request = pb::LeaseKeepAliveRequest { id };
                let answers = self
                    .lease
                    .lease_keep_alive(tokio_stream::once(request))
                    .await
                    .map_err(plain)?;
                let answer = answers.into_inner().message().await.map_err(plain)?;
                let answer = answer.expect("an answer");
                format!("{:?} {} {}", revision(answer.header), answer.id, answer.ttl)
            }
            Request::Look(id) => {
                let request = pb::LeaseTimeToLiveRequest { id, keys: true };
                let answer = self
                    .lease
                    .lease_time_to_live(request)
                    .await
                    .map_err(plain)?;
                let mut answer = answer.into_inner();
                // etcd lists the keys in no order.
                answer.keys.sort();
                let passed = answer.granted_ttl - answer.ttl;
                let left = if (0..30).contains(&passed) && answer.granted_ttl > 0 {
                    "lives".to_owned()
                } else {
                    answer.ttl.to_string()
                };
                let (id, granted, keys) = (answer.id, answer.granted_ttl, answer.keys);
                format!(
                    "{:?} {id} {left} {granted} {keys:?}",
                    revision(answer.header)
                )
            }
            Request::List => {
                let answer = self
                    .lease
                    .lease_leases(pb::LeaseLeasesRequest {})
                    .await
                    .map_err(plain)?
                    .into_inner();
                let ids: Vec<i64> = answer.leases.iter().map(|lease| lease.id).collect();
                format!("{:?} {ids:?}", revision(answer.header))
            }
            Request::Put(put) => {
                let answer = self.kv.put(put).await.map_err(plain)?.into_inner();
                format!("{:?} {:?}", revision(answer.header), answer.prev_kv)
            }
            Request::Delete(key) => {
                let request = pb::DeleteRangeRequest {
                    key: key.into(),
                    ..Default::default()
                };
                let answer = self.kv.delete_range(request).await.map_err(plain)?;
                format!("{:?}", answer.into_inner().deleted)
            }
            Request::Txn(puts) => {
                let success = puts.into_iter().map(|put| pb::RequestOp {
                    request: Some(pb::request_op::Request::RequestPut(put)),
                });
                let request = pb::TxnRequest {
                    success: success.collect(),
                    ..Default::default()
                };
                let answer = self.kv.txn(request).await.map_err(plain)?.into_inner();
                format!("{:?} {:?}", revision(answer.header), answer.responses)
            }
            Request::Get(prefix) => {
                let request = pb::RangeRequest {
                    key: prefix.into(),
                    range_end: Bytes::from_static(b"\0"),
                    ..Default::default()
                };
                let answer = self.kv.range(request).await.map_err(plain)?.into_inner();
                format!("{:?} {:?}", revision(answer.header), answer.kvs)
            }
        })
    }
}

fn put(key: &'static str, lease: i64) -> pb::PutRequest {
    pb::PutRequest {
        key: key.into(),
        value: "v".into(),
        lease,
        prev_kv: true,
        ..Default::default()
    }
}

#[test]
fn answers_about_leases_equal_etcds() {
    use Request::{Delete, Get, Grant, List, Look, Put, Renew, Revoke, Txn};
    let keep = pb::PutRequest {
        ignore_lease: true,
        ..put("a", 0)
    };
    let script = vec![
        List,
        Grant(7, 1000),
        Grant(7, 2000),
        Grant(7, 9_000_000_001),
        Grant(8, 9_000_000_000),
        Grant(9, 0),
        Revoke(9),
        Grant(9, -5),
        Revoke(9),
        Grant(-3, 3000),
        Grant(i64::MIN, 4000),
        List,
        Look(7),
        Look(99),
        Look(0),
        Renew(7),
        Renew(99),
        Renew(0),
        Revoke(99),
        Revoke(0),
        Put(put("a", 7)),
        Put(put("b", 7)),
        Put(put("c", -3)),
        Put(put("d", 99)),
        Put(keep.clone()),
        Look(7),
        Look(-3),
        Put(put("b", -3)),
        Look(7),
        Look(-3),
        Txn(vec![put("e", 7), put("f", 99)]),
        Txn(vec![put("e", 7), put("f", -3)]),
        Txn(vec![keep, put("b", 0)]),
        Look(7),
        Look(-3),
        Delete("a"),
        Look(7),
        Put(put("a", i64::MIN)),
        Put(put("z", i64::MIN)),
        Put(put("y", i64::MIN)),
        Get("a"),
        Revoke(i64::MIN),
        Get("a"),
        Look(i64::MIN),
        Renew(i64::MIN),
        Revoke(8),
        Revoke(7),
        Revoke(-3),
        Get("a"),
        List,
    ];
    let (mut member, mut etcd) = (Server::single(MEMBER, &[]), Server::single(ETCD, &[]));
    for server in [&mut member, &mut etcd] {
        server.start();
        server.wait_ready();
    }
    runtime().block_on(async {
        let (mut ours, mut theirs) = (
            Clients::connect(&member).await,
            Clients::connect(&etcd).await,
        );
        for (step, request) in script.into_iter().enumerate() {
            let expected = theirs.ask(request.clone()).await;
            let found = ours.ask(request.clone()).await;
            assert_eq!(found, expected, "step {step}: {request:?}");
        }
    });
}
