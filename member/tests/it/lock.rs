//! Locks and elections: through etcdctl, which brings its own queue, and through the services, over the loss of
//! holders, waiting clients and members.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use member_proto::etcdserverpb as pb;
use member_proto::etcdserverpb::kv_client::KvClient;
use member_proto::etcdserverpb::lease_client::LeaseClient;
use member_proto::v3electionpb as election;
use member_proto::v3electionpb::election_client::ElectionClient;
use member_proto::v3lockpb as lock;
use member_proto::v3lockpb::lock_client::LockClient;
use tokio::task::{JoinHandle, JoinSet};
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use crate::differential::runtime;
use crate::gateway::send;
use crate::process::{MEMBER, Server, etcdctl, wait_until};
use crate::server::{endpoints, start_all, three};

const DEADLINE: Duration = Duration::from_secs(60);

/// Clients of one member.
#[derive(Clone)]
struct Clients {
    kv: KvClient<Channel>,
    lease: LeaseClient<Channel>,
    lock: LockClient<Channel>,
    election: ElectionClient<Channel>,
}

impl Clients {
    async fn of(server: &Server) -> Self {
        let channel = Channel::from_shared(server.endpoint())
            .expect("a URL")
            .connect()
            .await
            .expect("connects");
        Self {
            kv: KvClient::new(channel.clone()),
            lease: LeaseClient::new(channel.clone()),
            lock: LockClient::new(channel.clone()),
            election: ElectionClient::new(channel),
        }
    }

    async fn grant(&mut self, ttl: i64) -> i64 {
        let request = pb::LeaseGrantRequest { ttl, id: 0 };
        let granted = self.lease.lease_grant(request).await.expect("granted");
        granted.into_inner().id
    }

    async fn revoke(&mut self, id: i64) {
        let request = pb::LeaseRevokeRequest { id };
        self.lease.lease_revoke(request).await.expect("revoked");
    }

    /// How many leases there are.
    async fn leases(&mut self) -> usize {
        let listed = self.lease.lease_leases(pb::LeaseLeasesRequest {}).await;
        listed.expect("listed").into_inner().leases.len()
    }

    async fn lock(&mut self, name: &str, lease: i64) -> Result<lock::LockResponse, Status> {
        let request = lock::LockRequest {
            name: name.to_owned().into(),
            lease,
        };
        Ok(self.lock.lock(request).await?.into_inner())
    }

    /// A lock that is waited for beside the test.
    fn locking(
        &self,
        name: &'static str,
        lease: i64,
    ) -> JoinHandle<Result<lock::LockResponse, Status>> {
        let mut clients = self.clone();
        tokio::spawn(async move { clients.lock(name, lease).await })
    }

    async fn unlock(&mut self, key: impl Into<bytes::Bytes>) {
        let request = lock::UnlockRequest { key: key.into() };
        self.lock.unlock(request).await.expect("unlocked");
    }

    async fn campaign(
        &mut self,
        name: &str,
        lease: i64,
        value: &str,
    ) -> Result<election::LeaderKey, Status> {
        let request = election::CampaignRequest {
            name: name.to_owned().into(),
            lease,
            value: value.to_owned().into(),
        };
        let answer = self.election.campaign(request).await?.into_inner();
        Ok(answer.leader.expect("a leader"))
    }

    fn campaigning(
        &self,
        name: &'static str,
        lease: i64,
        value: &'static str,
    ) -> JoinHandle<Result<election::LeaderKey, Status>> {
        let mut clients = self.clone();
        tokio::spawn(async move { clients.campaign(name, lease, value).await })
    }

    async fn proclaim(&mut self, leader: &election::LeaderKey, value: &str) -> Result<(), Status> {
        let request = election::ProclaimRequest {
            leader: Some(leader.clone()),
            value: value.to_owned().into(),
        };
        self.election.proclaim(request).await.map(|_| ())
    }

    async fn resign(&mut self, leader: &election::LeaderKey) {
        let request = election::ResignRequest {
            leader: Some(leader.clone()),
        };
        self.election.resign(request).await.expect("resigned");
    }

    async fn observe(&mut self, name: &str) -> Streaming<election::LeaderResponse> {
        let request = election::LeaderRequest {
            name: name.to_owned().into(),
        };
        let observed = self.election.observe(request).await;
        observed.expect("observed").into_inner()
    }

    /// The places of a queue by creation.
    async fn places(&mut self, name: &str) -> Vec<String> {
        let request = pb::RangeRequest {
            key: format!("{name}/").into(),
            range_end: format!("{name}0").into(),
            sort_order: pb::range_request::SortOrder::Ascend.into(),
            sort_target: pb::range_request::SortTarget::Create.into(),
            ..Default::default()
        };
        let answer = self.kv.range(request).await.expect("read").into_inner();
        answer.kvs.into_iter().map(|kv| text(&kv.key)).collect()
    }

    /// Waits until a queue has this many places, and returns them.
    async fn wait_places(&mut self, name: &str, count: usize) -> Vec<String> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let places = self.places(name).await;
            if places.len() == count {
                return places;
            }
            assert!(Instant::now() < deadline, "{places:?} are not {count}");
            tokio::task::yield_now().await;
        }
    }

    async fn wait_leases(&mut self, count: usize) {
        let deadline = Instant::now() + DEADLINE;
        while self.leases().await != count {
            assert!(Instant::now() < deadline, "not {count} leases");
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

async fn in_time<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, what).await.expect("in time")
}

/// What a call that was waited for beside the test has given.
async fn done<T>(task: JoinHandle<Result<T, Status>>) -> Result<T, Status> {
    in_time(task).await.expect("a task of ours")
}

async fn told(leaders: &mut Streaming<election::LeaderResponse>) -> (String, i64, i64) {
    let answer = in_time(leaders.message()).await.expect("no error");
    let answer = answer.expect("not the end");
    let kv = answer.kv.expect("a leader");
    let revision = answer.header.expect("a header").revision;
    (text(&kv.value), kv.create_revision, revision)
}

fn started() -> [Server; 3] {
    let mut servers = three();
    start_all(&mut servers);
    servers
}

/// Where the leader is, once there is one.
fn leader(servers: &[Server]) -> usize {
    wait_until("a leader", || servers.iter().any(Server::leads));
    servers.iter().position(Server::leads).expect("a leader")
}

#[test]
fn contenders_at_all_members_hold_a_lock_one_at_a_time_in_the_order_of_their_keys() {
    let servers = started();
    runtime().block_on(async {
        let mut all = Vec::new();
        for server in &servers {
            all.push(Clients::of(server).await);
        }
        let mut first = all[0].clone();
        let lease = first.grant(600).await;
        let held = first.lock("l", lease).await.expect("free");
        let holders = Arc::new(AtomicUsize::new(0));
        let mut contenders = JoinSet::new();
        let (order, mut got) = tokio::sync::mpsc::unbounded_channel();
        for i in 0..15 {
            let mut clients = all[i % 3].clone();
            let (holders, order) = (Arc::clone(&holders), order.clone());
            contenders.spawn(async move {
                let lease = clients.grant(600).await;
                let lock = clients.lock("l", lease).await.expect("in its turn");
                assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0, "alone");
                // Something to be alone with.
                let header = lock.header.expect("a header");
                let places = clients.places("l").await;
                assert_eq!(places.first(), Some(&text(&lock.key)));
                assert!(header.revision > 2);
                order.send(text(&lock.key)).expect("heard");
                assert_eq!(holders.fetch_sub(1, Ordering::SeqCst), 1, "still alone");
                clients.unlock(lock.key).await;
            });
        }
        let places = first.wait_places("l", 16).await;
        assert_eq!(places[0], text(&held.key));
        assert!(got.try_recv().is_err(), "the lock is held");
        first.unlock(held.key).await;
        for place in &places[1..] {
            assert_eq!(in_time(got.recv()).await.as_ref(), Some(place));
        }
        while let Some(done) = in_time(contenders.join_next()).await {
            done.expect("a contender");
        }
        assert!(first.places("l").await.is_empty());
    });
}

#[test]
fn a_lock_passes_on_when_its_holders_lease_ends() {
    let servers = started();
    runtime().block_on(async {
        let mut holder = Clients::of(&servers[0]).await;
        let mut next = Clients::of(&servers[1]).await;
        let lease = holder.grant(2).await;
        let held = holder.lock("l", lease).await.expect("free");
        // Under a lease of the server's own.
        let got = in_time(next.lock("l", 0)).await.expect("in its turn");
        assert_ne!(held.key, got.key);
        assert_eq!(next.places("l").await, [text(&got.key)]);
        let leader = holder.grant(2).await;
        let led = holder.campaign("e", leader, "a").await.expect("free");
        let leader = in_time(next.campaign("e", 0, "b")).await.expect("won");
        assert!(leader.rev > led.rev && leader.lease != 0);
        assert_eq!(next.places("e").await, [text(&leader.key)]);
    });
}

#[test]
fn clients_that_go_away_while_they_wait_leave_no_place_and_no_lease() {
    let mut server = Server::single(MEMBER, &[]);
    server.start();
    server.wait_ready();
    runtime().block_on(async {
        let mut clients = Clients::of(&server).await;
        let (first, own) = (clients.grant(600).await, clients.grant(600).await);
        let held = clients.lock("q", first).await.expect("free");
        let waiting = [
            clients.locking("q", own),
            clients.locking("q", 0),
            clients.locking("q", 0),
        ];
        clients.wait_places("q", 4).await;
        waiting.iter().for_each(JoinHandle::abort);
        clients.wait_places("q", 1).await;
        clients.wait_leases(2).await;

        let led = clients.campaign("q", own, "v");
        let led = tokio::time::timeout(Duration::from_millis(300), led).await;
        assert!(led.is_err(), "it shares the queue of the lock");
        let campaigns = [
            clients.campaigning("q", own, "v"),
            clients.campaigning("q", 0, "v"),
        ];
        clients.wait_places("q", 3).await;
        campaigns.iter().for_each(JoinHandle::abort);
        clients.wait_places("q", 1).await;

        // As JSON: the end of the connection is all that is heard of such a client.
        for path in ["lock/lock", "election/campaign"] {
            let head = format!("POST /v3/{path}");
            let stream = send(server.client_port, &head, r#"{"name":"cQ=="}"#);
            clients.wait_places("q", 2).await;
            drop(stream);
            clients.wait_places("q", 1).await;
        }
        clients.wait_leases(2).await;

        // Nobody is before whoever comes next.
        clients.unlock(held.key).await;
        in_time(clients.lock("q", own)).await.expect("free");
    });
}

#[test]
fn who_loses_the_lease_while_waiting_does_not_get_the_lock() {
    let mut server = Server::single(MEMBER, &[]);
    server.start();
    server.wait_ready();
    runtime().block_on(async {
        let mut clients = Clients::of(&server).await;
        let (first, second) = (clients.grant(600).await, clients.grant(600).await);
        let held = clients.lock("l", first).await.expect("free");
        let led = clients.campaign("e", first, "v").await.expect("free");
        let locking = clients.locking("l", second);
        let campaigning = clients.campaigning("e", second, "v");
        clients.wait_places("l", 2).await;
        clients.wait_places("e", 2).await;
        clients.revoke(second).await;
        clients.unlock(held.key).await;
        clients.resign(&led).await;
        for refused in [
            done(locking).await.expect_err("its place is gone"),
            done(campaigning).await.expect_err("its place is gone"),
        ] {
            assert_eq!(refused.code(), tonic::Code::Unknown);
            assert!(
                ["mutex: session is expired", "election: not leader"].contains(&refused.message()),
                "{refused}"
            );
        }
    });
}

#[test]
fn observers_are_told_every_leader_and_what_it_proclaims() {
    let servers = started();
    runtime().block_on(async {
        let mut all = Vec::new();
        let mut observers = Vec::new();
        for server in &servers {
            let mut clients = Clients::of(server).await;
            // Before there is a leader.
            observers.push(clients.observe("e").await);
            all.push(clients);
        }
        let mut first = all[0].clone();
        let leases = [
            first.grant(600).await,
            first.grant(600).await,
            first.grant(600).await,
        ];
        let one = first.campaign("e", leases[0], "one").await.expect("free");
        for observer in &mut observers {
            assert_eq!(told(observer).await, ("one".to_owned(), one.rev, one.rev));
        }
        first.proclaim(&one, "one again").await.expect("leads");
        let two = all[1].campaigning("e", leases[1], "two");
        first.wait_places("e", 2).await;
        let three = all[2].campaigning("e", leases[2], "three");
        first.wait_places("e", 3).await;
        for observer in &mut observers {
            let (value, created, _) = told(observer).await;
            assert_eq!((&value[..], created), ("one again", one.rev));
        }
        first.resign(&one).await;
        let two = done(two).await.expect("in its turn");
        for observer in &mut observers {
            let (value, created, _) = told(observer).await;
            assert_eq!((&value[..], created), ("two", two.rev));
        }
        let refused = first.proclaim(&one, "late").await.expect_err("resigned");
        assert_eq!(refused.message(), "election: not leader");
        // Who resigned before does no harm to who leads now.
        first.resign(&one).await;
        first.revoke(leases[1]).await;
        let three = done(three).await.expect("in its turn");
        for observer in &mut observers {
            let (value, created, _) = told(observer).await;
            assert_eq!((&value[..], created), ("three", three.rev));
        }
        let request = election::LeaderRequest { name: "e".into() };
        let shown = first.election.leader(request).await.expect("a leader");
        let kv = shown.into_inner().kv.expect("a leader");
        assert_eq!(text(&kv.value), "three");
        // A late observer is told who leads.
        let mut late = all[1].observe("e").await;
        assert_eq!(told(&mut late).await.0, "three");
    });
}

#[test]
fn waiting_outlives_the_loss_of_the_leader() {
    let mut servers = started();
    let leader = leader(&servers);
    let rest: Vec<usize> = (0..3).filter(|i| *i != leader).collect();
    runtime().block_on(async {
        let mut holder = Clients::of(&servers[rest[0]]).await;
        let mut waiter = Clients::of(&servers[rest[1]]).await;
        let lease = holder.grant(600).await;
        let held = holder.lock("l", lease).await.expect("free");
        let led = holder.campaign("e", lease, "v").await.expect("free");
        let locking = waiter.locking("l", 0);
        let campaigning = waiter.campaigning("e", 0, "w");
        waiter.wait_places("l", 2).await;
        waiter.wait_places("e", 2).await;
        let mut observer = waiter.observe("e").await;
        assert_eq!(told(&mut observer).await.0, "v");
        servers[leader].kill();
        holder.unlock(held.key).await;
        holder.resign(&led).await;
        let got = done(locking).await.expect("in its turn");
        assert_eq!(waiter.places("l").await, [text(&got.key)]);
        let won = done(campaigning).await.expect("in its turn");
        assert_eq!(waiter.places("e").await, [text(&won.key)]);
        assert_eq!(told(&mut observer).await.0, "w");
    });
}

#[test]
fn a_member_that_stops_gives_up_the_places_of_those_who_wait_there() {
    let [one, _two, mut three] = started();
    runtime().block_on(async {
        let mut holder = Clients::of(&one).await;
        let waiter = Clients::of(&three).await;
        let (first, second) = (holder.grant(600).await, holder.grant(600).await);
        let held = holder.lock("l", first).await.expect("free");
        let waiting = [waiter.locking("l", second), waiter.locking("l", 0)];
        holder.wait_places("l", 3).await;
        // Beside the clients, which must hear of it.
        let stopping = tokio::task::spawn_blocking(move || {
            three.signal("TERM");
            three.log()
        });
        for task in waiting {
            let refused = done(task).await.expect_err("the member stops");
            assert_eq!(refused.code(), tonic::Code::Unavailable, "{refused}");
        }
        let log = in_time(stopping).await.expect("stopped");
        assert!(!log.contains("cut off"), "{log}");
        assert_eq!(holder.places("l").await, [text(&held.key)]);
        assert_eq!(holder.leases().await, 2);
    });
}

#[test]
fn etcdctl_locks_around_a_command() {
    let servers = started();
    let script = ["lock", "deploy", "/usr/bin/printenv", "ETCD_LOCK_KEY"];
    let (ok, out, err) = etcdctl(&endpoints(&servers), &script);
    assert!(ok && out.starts_with("deploy/"), "{out}{err}");
    let (ok, out, _) = etcdctl(&endpoints(&servers), &["get", "deploy", "--prefix"]);
    assert!(ok && out.is_empty(), "{out}");
    // Its lock and the service's are one.
    runtime().block_on(async {
        let mut clients = Clients::of(&servers[1]).await;
        let held = clients.lock("deploy", 0).await.expect("free");
        let child = Command::new("etcdctl")
            .env_clear()
            .env("ETCDCTL_API", "3")
            .arg(format!("--endpoints={}", servers[2].endpoint()))
            .args(script)
            .stdout(Stdio::piped())
            .spawn()
            .expect("etcdctl is installed: run ci/setup");
        let places = clients.wait_places("deploy", 2).await;
        assert_eq!(places[0], text(&held.key));
        clients.unlock(held.key).await;
        let output = child.wait_with_output().expect("a child of ours");
        assert!(output.status.success());
        assert_eq!(text(&output.stdout).trim(), places[1]);
    });
}

#[test]
fn etcdctl_elects_and_the_service_shows_whom() {
    let servers = started();
    let mut child = Command::new("etcdctl")
        .env_clear()
        .env("ETCDCTL_API", "3")
        .arg(format!("--endpoints={}", endpoints(&servers)))
        .args(["elect", "e", "me"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("etcdctl is installed: run ci/setup");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut line = || lines.next().expect("a line").expect("text");
    let (key, value) = (line(), line());
    assert_eq!(value, "me");
    runtime().block_on(async {
        let mut clients = Clients::of(&servers[1]).await;
        let mut observer = clients.observe("e").await;
        assert_eq!(told(&mut observer).await.0, "me");
        assert_eq!(clients.places("e").await, [key]);
        let next = clients.campaigning("e", 0, "you");
        clients.wait_places("e", 2).await;
        let interrupted = Command::new("kill")
            .args(["-s", "INT", &child.id().to_string()])
            .status();
        assert!(interrupted.expect("kill runs").success());
        done(next).await.expect("in its turn");
        assert_eq!(told(&mut observer).await.0, "you");
    });
    child.wait().expect("a child of ours");
}
