//! The member's life as an operator sees it.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::{Duration, Instant};

use member_proto::etcdserverpb as pb;
use member_proto::etcdserverpb::kv_client::KvClient;
use member_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use pb::request_op::Request;

use crate::process::{
    ETCD, ETCD_3_5, MEMBER, Server, etcdctl, free_ports, http_get, readable_by_others, wait_until,
};

/// Three members that know each other, not started.
pub(crate) fn three() -> [Server; 3] {
    let ports: [u16; 6] = free_ports();
    let initial = format!(
        "infra0=http://127.0.0.1:{},infra1=http://127.0.0.1:{},infra2=http://127.0.0.1:{}",
        ports[3], ports[4], ports[5]
    );
    std::array::from_fn(|i| {
        Server::of_cluster(
            MEMBER,
            &format!("infra{i}"),
            ports[i],
            ports[i + 3],
            &initial,
            &["--initial-cluster-token=t"],
        )
    })
}

pub(crate) fn endpoints(servers: &[Server]) -> String {
    servers
        .iter()
        .map(Server::endpoint)
        .collect::<Vec<_>>()
        .join(",")
}

pub(crate) fn start_all(servers: &mut [Server]) {
    servers.iter_mut().for_each(Server::start);
    servers.iter_mut().for_each(Server::wait_ready);
}

#[test]
fn any_member_reads_and_writes_and_lists_the_members_as_etcd_does() {
    let mut servers = three();
    start_all(&mut servers);
    for (i, server) in servers.iter().enumerate() {
        let (ok, out, err) = etcdctl(&server.endpoint(), &["put", &format!("k{i}"), "v"]);
        assert!(ok && out == "OK\n", "{err}");
    }
    for server in &servers {
        let (ok, out, err) = etcdctl(&server.endpoint(), &["get", "--prefix", "k"]);
        assert!(ok, "{err}");
        assert_eq!(out, "k0\nv\nk1\nv\nk2\nv\n");
        let (ok, out, err) = etcdctl(&server.endpoint(), &["get", "--consistency=s", "k0"]);
        assert!(ok && out == "k0\nv\n", "{err}");
    }
    wait_until("every member is listed as started", || {
        etcdctl(&endpoints(&servers), &["member", "list"])
            .1
            .matches(", started, infra")
            .count()
            == 3
    });
    let (ok, table, err) = etcdctl(
        &endpoints(&servers),
        &["endpoint", "status", "--cluster", "-w", "table"],
    );
    assert!(ok, "{err}");
    assert_eq!(table.matches("http://127.0.0.1:").count(), 3, "{table}");
    assert_eq!(
        table.matches("|      true |").count(),
        1,
        "one leader: {table}"
    );
    let (ok, _, err) = etcdctl(&endpoints(&servers), &["endpoint", "health"]);
    assert!(ok, "{err}");
}

#[test]
fn ids_are_etcds() {
    let [client, peer] = free_ports();
    let initial = format!("infra0=http://127.0.0.1:{peer}");
    let list = |binary: &str| {
        let mut server = Server::of_cluster(binary, "infra0", client, peer, &initial, &[]);
        server.start();
        server.wait_ready();
        let (ok, out, err) = etcdctl(&server.endpoint(), &["get", "x", "-w", "json"]);
        assert!(ok, "{err}");
        let header: serde_json::Value = serde_json::from_str(&out).expect("JSON");
        (
            header["header"]["cluster_id"].clone(),
            header["header"]["member_id"].clone(),
        )
    };
    assert_eq!(list(MEMBER), list(ETCD));
}

#[test]
fn leadership_moves_on_request_and_before_a_graceful_stop() {
    let mut servers = three();
    start_all(&mut servers);
    let leader = || servers.iter().position(Server::leads);
    wait_until("a leader", || leader().is_some());
    let first = leader().expect("a leader");
    let target = (first + 1) % 3;
    let (ok, out, err) = etcdctl(
        &servers[target].endpoint(),
        &["endpoint", "status", "-w", "json"],
    );
    assert!(ok, "{err}");
    let status: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    let id = status[0]["Status"]["header"]["member_id"]
        .as_u64()
        .expect("an id");
    let (ok, _, err) = etcdctl(
        &servers[first].endpoint(),
        &["move-leader", &format!("{id:x}")],
    );
    assert!(ok, "{err}");
    wait_until("the target leads", || leader() == Some(target));
    let (ok, _, err) = etcdctl(
        &servers[first].endpoint(),
        &["move-leader", &format!("{id:x}")],
    );
    assert!(!ok && err.contains("no leader endpoint given"), "{err}");

    let status = servers[target].signal("TERM");
    assert_eq!(
        status.signal(),
        Some(15),
        "the signal is raised again, as etcd does"
    );
    assert!(
        servers[target]
            .log()
            .contains("leadership transfer starting"),
        "{}",
        servers[target].log()
    );
    let rest: Vec<&Server> = servers
        .iter()
        .enumerate()
        .filter(|(i, _)| *i != target)
        .map(|(_, s)| s)
        .collect();
    let (ok, _, err) = etcdctl(&rest[0].endpoint(), &["put", "after", "stop"]);
    assert!(ok, "{err}");
}

#[test]
fn a_killed_cluster_keeps_what_it_acknowledged() {
    let mut servers = three();
    start_all(&mut servers);
    for round in 0..3 {
        for i in 0..10 {
            let (ok, _, err) = etcdctl(
                &endpoints(&servers),
                &["put", &format!("r{round}/{i}"), &format!("{round}.{i}")],
            );
            assert!(ok, "{err}");
        }
        servers.iter_mut().for_each(Server::kill);
        start_all(&mut servers);
    }
    let (ok, out, err) = etcdctl(&endpoints(&servers), &["get", "--prefix", "r"]);
    assert!(ok, "{err}");
    let expected: String = (0..3)
        .flat_map(|r| (0..10).map(move |i| format!("r{r}/{i}\n{r}.{i}\n")))
        .collect();
    assert_eq!(out, expected);
}

#[test]
fn a_member_that_was_away_longer_than_the_log_reaches_gets_a_snapshot() {
    let mut servers = three();
    for server in &mut servers {
        server.arg("--snapshot-count=50");
        server.arg("--snapshot-catchup-entries=10");
    }
    start_all(&mut servers);
    servers[2].kill();
    let rest = endpoints(&servers[..2]);
    for i in 0..200 {
        let (ok, _, err) = etcdctl(&rest, &["put", &format!("k{}", i % 50), &format!("{i}")]);
        assert!(ok, "{err}");
    }
    servers[2].start();
    servers[2].wait_ready();
    let read = |server: &Server| {
        etcdctl(
            &server.endpoint(),
            &["get", "--prefix", "k", "--consistency=s"],
        )
        .1
    };
    wait_until("the same data everywhere", || {
        read(&servers[2]) == read(&servers[0])
    });
    assert!(
        servers[2].log().contains("received a snapshot"),
        "{}",
        servers[2].log()
    );
    // And it holds after a kill: what the snapshot brought is durable.
    servers[2].kill();
    servers[2].start();
    servers[2].wait_ready();
    wait_until("the same data after a kill", || {
        read(&servers[2]) == read(&servers[0])
    });
}

#[test]
fn initial_flags_are_ignored_at_a_second_start() {
    let mut server = Server::single(MEMBER, &[]);
    server.start();
    server.wait_ready();
    assert!(etcdctl(&server.endpoint(), &["put", "a", "b"]).0);
    server.kill();
    server.arg("--initial-cluster-token=other");
    server.arg("--initial-cluster=nobody=http://127.0.0.1:1");
    server.start();
    server.wait_ready();
    assert_eq!(etcdctl(&server.endpoint(), &["get", "a"]).1, "a\nb\n");
}

#[test]
fn a_member_stopped_before_its_cluster_was_founded_founds_it_later() {
    let mut servers = three();
    for server in &mut servers {
        server.start();
        let port = server.peer_port;
        wait_until("the peer port answers", || {
            http_get(port, "/version").is_some()
        });
        server.signal("TERM");
    }
    start_all(&mut servers);
    assert!(etcdctl(&endpoints(&servers), &["put", "a", "b"]).0);
}

#[test]
fn a_member_that_lost_its_data_is_refused_by_those_who_know_it() {
    let mut servers = three();
    start_all(&mut servers);
    wait_until("every member is listed as started", || {
        etcdctl(&endpoints(&servers), &["member", "list"])
            .1
            .matches(", started, infra")
            .count()
            == 3
    });
    servers[2].kill();
    std::fs::remove_dir_all(servers[2].data_dir()).expect("removed");
    servers[2].start();
    assert_eq!(servers[2].wait_exit().code(), Some(1));
    assert!(
        servers[2].log().contains("has already been bootstrapped"),
        "{}",
        servers[2].log()
    );
    assert!(!servers[2].data_dir().exists(), "nothing was made");
}

fn txn(ops: Vec<pb::request_op::Request>) -> pb::TxnRequest {
    let op = |request| pb::RequestOp {
        request: Some(request),
    };
    pb::TxnRequest {
        success: ops.into_iter().map(op).collect(),
        ..Default::default()
    }
}

/// A member with keys of nine digits.
async fn with_keys(keys: usize) -> (Server, KvClient<tonic::transport::Channel>) {
    let mut server = Server::single(MEMBER, &[]);
    server.start();
    server.wait_ready();
    let mut kv = KvClient::connect(server.endpoint())
        .await
        .expect("connects");
    for from in (0..keys).step_by(100) {
        let put = |i| {
            Request::RequestPut(pb::PutRequest {
                key: format!("{i:09}").into(),
                ..Default::default()
            })
        };
        let puts = (from..from + 100).map(put).collect();
        kv.txn(txn(puts)).await.expect("written");
    }
    (server, kv)
}

#[tokio::test]
async fn a_delete_of_many_keys_holds_up_nobody() {
    let (server, mut kv) = with_keys(100_000).await;
    let mut maintenance = MaintenanceClient::connect(server.endpoint())
        .await
        .expect("connects");
    let began = Instant::now();
    let deleting = tokio::spawn(async move {
        let everything = pb::DeleteRangeRequest {
            key: "0".into(),
            range_end: "a".into(),
            ..Default::default()
        };
        let deleted = kv.delete_range(everything).await.expect("deleted");
        assert_eq!(deleted.into_inner().deleted, 100_000);
        began.elapsed()
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    // The heartbeats of a cluster wait for the same thread.
    maintenance
        .status(pb::StatusRequest::default())
        .await
        .expect("a status");
    let waited = began.elapsed();
    let deleting = deleting.await.expect("no panic");
    assert!(waited * 2 < deleting, "{waited:?} of {deleting:?}");
}

#[tokio::test]
async fn a_transaction_that_looks_at_everything_holds_up_nobody() {
    let (_server, mut kv) = with_keys(50_000).await;
    // Each range looks at every key, and finds none.
    let range = Request::RequestRange(pb::RangeRequest {
        key: "0".into(),
        range_end: "a".into(),
        max_create_revision: 1,
        ..Default::default()
    });
    // Or compares every key.
    let compare = pb::Compare {
        key: "0".into(),
        range_end: "a".into(),
        result: pb::compare::CompareResult::Greater.into(),
        ..Default::default()
    };
    for long in [
        txn(vec![range; 128]),
        pb::TxnRequest {
            compare: vec![compare; 128],
            ..Default::default()
        },
    ] {
        let mut other = kv.clone();
        let mut long = tokio::spawn(async move { other.txn(long).await });
        let begun = tokio::time::timeout(Duration::from_millis(100), &mut long).await;
        assert!(begun.is_err(), "the transaction is too short to tell");
        let put = pb::PutRequest {
            key: "a".into(),
            ..Default::default()
        };
        kv.put(put).await.expect("written");
        assert!(!long.is_finished(), "the write waited for the reader");
        long.await.expect("no panic").expect("read");
    }
}

#[test]
fn https_without_certificates_never_serves_plain_text() {
    for (flag, sentence) in [
        (
            "--listen-client-urls=https://127.0.0.1:1",
            "TLS key/cert (--cert-file, --key-file) must be provided",
        ),
        (
            "--listen-peer-urls=https://127.0.0.1:1",
            "cannot listen on TLS for 127.0.0.1:1: KeyFile and CertFile are not presented",
        ),
        (
            "--heartbeat-interval=500",
            "should be at least as 5 times as --heartbeat-interval",
        ),
    ] {
        let mut server = Server::single(MEMBER, &[flag]);
        server.start();
        assert_eq!(server.wait_exit().code(), Some(1), "{flag}");
        assert!(server.log().contains(sentence), "{flag}: {}", server.log());
        assert!(!server.data_dir().exists());
    }
}

#[test]
fn a_stopped_follower_that_gets_a_snapshot_applies_nothing_twice() {
    let mut servers = three();
    for server in &mut servers {
        server.arg("--snapshot-count=50");
        server.arg("--snapshot-catchup-entries=10");
    }
    start_all(&mut servers);
    let follower = (0..3).find(|i| !servers[*i].leads()).expect("a follower");
    let pause = |signal: &str| {
        let pid = servers[follower].pid().to_string();
        assert!(
            Command::new("kill")
                .args(["-s", signal, &pid])
                .status()
                .expect("kill runs")
                .success()
        );
    };
    // Writes through the follower, each to a key of its own, while it is stopped again and again for long enough to
    // need a snapshot: none may be applied twice, whatever its writer was told.
    let endpoint = servers[follower].endpoint();
    let rest: Vec<String> = (0..3)
        .filter(|i| *i != follower)
        .map(|i| servers[i].endpoint())
        .collect();
    let rest = rest.join(",");
    for round in 0..3 {
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let endpoint = endpoint.clone();
                std::thread::spawn(move || {
                    for i in 0..8 {
                        let key = format!("own/{round}/{writer}/{i}");
                        etcdctl(&endpoint, &["--command-timeout=20s", "put", &key, "v"]);
                    }
                })
            })
            .collect();
        let written = || {
            etcdctl(
                &rest,
                &["get", "--prefix", &format!("own/{round}/"), "--keys-only"],
            )
            .1
            .lines()
            .count()
        };
        wait_until("the first writes", || written() > 4);
        pause("STOP");
        for i in 0..120 {
            assert!(etcdctl(&rest, &["put", "fill", &i.to_string()]).0);
        }
        pause("CONT");
        writers
            .into_iter()
            .for_each(|writer| writer.join().expect("a writer"));
    }
    let (ok, out, err) = etcdctl(&rest, &["get", "--prefix", "own/", "-w", "json"]);
    assert!(ok, "{err}");
    let found: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    for kv in found["kvs"].as_array().expect("keys") {
        assert_eq!(kv["version"], 1, "written once, applied once: {kv}");
    }
}

#[test]
fn a_first_start_that_contradicts_the_cluster_exits_with_the_guides_sentence() {
    for (flag, sentence) in [
        (
            "--initial-cluster=other=http://127.0.0.1:1",
            "infra0 not listed in the initial cluster config",
        ),
        (
            "--initial-cluster=infra0=http://127.0.0.1:1",
            "infra0 has different advertised URLs in the cluster and advertised peer URLs list",
        ),
        (
            "--initial-cluster-state=existing",
            "cannot fetch cluster info from peer urls: could not retrieve cluster information from the given URLs",
        ),
    ] {
        let mut server = Server::single(MEMBER, &[flag]);
        server.start();
        let status = server.wait_exit();
        assert_eq!(status.code(), Some(1), "{flag}: {}", server.log());
        assert!(server.log().contains(sentence), "{flag}: {}", server.log());
    }
}

#[test]
fn settings_that_contradict_one_another_are_no_failed_discovery() {
    for (binary, exact) in [(MEMBER, true), (ETCD_3_5, true), (ETCD, false)] {
        let mut server = Server::single(binary, &[]);
        server.without("--advertise-client-urls=");
        server.start();
        let status = server.wait_exit();
        let log = server.log();
        assert_eq!(status.code(), Some(1), "{log}");
        let sentence =
            "--advertise-client-urls is required when --listen-client-urls is set explicitly";
        assert!(log.contains(sentence), "{log}");
        assert!(!log.contains("discovery failed"), "{log}");
        for line in [
            "failed to verify flags",
            "advertise client URLs are not set",
        ] {
            assert_eq!(log.contains(line), exact, "{binary}: {log}");
        }
    }
}

#[test]
fn flags_that_are_not_honoured_are_refused_by_name() {
    for flag in [
        "--enable-pprof",
        "--experimental-memory-mlock",
        "--experimental-enable-v2v3=/v2",
    ] {
        let mut server = Server::single(MEMBER, &[flag]);
        server.start();
        let status = server.wait_exit();
        let name = flag.split('=').next().expect("a name");
        assert!(!status.success(), "{flag}");
        assert!(
            server.log().contains(name) && server.log().contains("not supported by this release"),
            "{}",
            server.log()
        );
        assert!(!server.data_dir().exists(), "{flag}: nothing was touched");
    }
}

#[test]
fn a_taken_port_changes_nothing() {
    let mut first = Server::single(MEMBER, &[]);
    first.start();
    first.wait_ready();
    let [peer] = free_ports();
    let mut second = Server::of_cluster(
        MEMBER,
        "infra0",
        first.client_port,
        peer,
        &format!("infra0=http://127.0.0.1:{peer}"),
        &[],
    );
    second.start();
    assert_eq!(second.wait_exit().code(), Some(1));
    assert!(
        second.log().contains("bind: address already in use"),
        "{}",
        second.log()
    );
    assert!(!second.data_dir().exists());
}

#[test]
fn a_data_directory_in_use_names_its_holder() {
    let mut first = Server::single(MEMBER, &[]);
    first.start();
    first.wait_ready();
    let mut second = Server::single(
        MEMBER,
        &[&format!("--data-dir={}", first.data_dir().display())],
    );
    second.start();
    assert_eq!(second.wait_exit().code(), Some(1));
    assert!(
        second.log().contains(&format!("(pid {})", first.pid())),
        "{}",
        second.log()
    );
    assert!(
        second.log().contains("waiting for it to exit"),
        "{}",
        second.log()
    );
}

#[test]
fn state_without_its_log_is_refused() {
    let mut server = Server::single(MEMBER, &[]);
    server.start();
    server.wait_ready();
    server.kill();
    std::fs::remove_dir_all(server.data_dir().join("member/wal")).expect("removed");
    server.start();
    assert_eq!(server.wait_exit().code(), Some(1));
    assert!(server.log().contains("holds no log"), "{}", server.log());
}

#[test]
fn data_is_private() {
    let mut server = Server::single(MEMBER, &[]);
    server.start();
    server.wait_ready();
    assert_eq!(
        readable_by_others(&server.data_dir()),
        Vec::<std::path::PathBuf>::new()
    );
}

#[test]
fn http_answers_as_etcds() {
    let mut server = Server::single(MEMBER, &[]);
    server.start();
    server.wait_ready();
    let get = |path| http_get(server.client_port, path).expect("answers");
    assert_eq!(get("/health"), r#"{"health":"true","reason":""}"#);
    assert_eq!(
        get("/version"),
        r#"{"etcdserver":"3.6.14","etcdcluster":"3.6.0"}"#
    );
    assert_eq!(get("/livez"), "ok\n");
    assert!(get("/readyz?verbose").contains("[+]linearizable_read ok\n"));
    assert!(get("/metrics").contains("\netcd_server_has_leader 1\n"));
    assert_eq!(get("/nothing"), "404 page not found\n");
    let members = http_get(server.peer_port, "/members").expect("answers");
    assert!(
        members.contains("\"peerURLs\":[\"http://127.0.0.1:"),
        "{members}"
    );
}

#[test]
fn without_a_quorum_nothing_is_acknowledged_and_health_says_so() {
    let mut servers = three();
    start_all(&mut servers);
    servers[0].kill();
    servers[1].kill();
    let (ok, _, err) = etcdctl(
        &servers[2].endpoint(),
        &["--command-timeout=2s", "put", "a", "b"],
    );
    assert!(!ok && err.contains("context deadline exceeded"), "{err}");
    wait_until("health says that there is no quorum", || {
        http_get(servers[2].client_port, "/health")
            .is_some_and(|body| body.contains("\"health\":\"false\""))
    });
    let (ok, _, err) = etcdctl(&servers[2].endpoint(), &["get", "--consistency=s", "a"]);
    assert!(ok, "a serializable read needs no quorum: {err}");
    servers[0].start();
    servers[0].wait_ready();
    let (ok, _, err) = etcdctl(&servers[2].endpoint(), &["put", "a", "b"]);
    assert!(ok, "{err}");
}

#[test]
fn settings_come_from_the_environment_and_a_file_too() {
    let [client, peer] = free_ports();
    let dir = tempfile::TempDir::new().expect("a directory");
    let file = dir.path().join("member.yaml");
    let yaml = format!(
        "name: infra0\ndata-dir: {}\nlisten-client-urls: http://127.0.0.1:{client}\nadvertise-client-urls: http://127.0.0.1:{client}\n\
         listen-peer-urls: http://127.0.0.1:{peer}\ninitial-advertise-peer-urls: http://127.0.0.1:{peer}\n\
         initial-cluster: infra0=http://127.0.0.1:{peer}\n",
        dir.path().join("data").display()
    );
    std::fs::write(&file, yaml).expect("written");
    let mut child = Command::new(MEMBER)
        .env_clear()
        .env("ETCD_CONFIG_FILE", &file)
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("starts");
    wait_until("ready", || {
        http_get(client, "/health").is_some_and(|body| body.contains("true"))
    });
    child.kill().expect("ours");
    child.wait().expect("ours");
}

#[test]
fn calls_that_there_are_not_are_refused_in_etcds_words() {
    let mut servers = [MEMBER, ETCD].map(|binary| Server::single(binary, &[]));
    start_all(&mut servers);
    let refusals = servers.each_ref().map(|server| {
        crate::differential::runtime().block_on(async {
            let channel = tonic::transport::Endpoint::from_shared(server.endpoint())
                .expect("a URL")
                .connect()
                .await
                .expect("connects");
            let mut client = tonic::client::Grpc::new(channel);
            let mut refusals = Vec::new();
            for path in ["/etcdserverpb.KV/Nothing", "/etcdserverpb.Nothing/Range"] {
                client.ready().await.expect("ready");
                let codec =
                    tonic_prost::ProstCodec::<pb::RangeRequest, pb::RangeResponse>::default();
                let request = tonic::Request::new(pb::RangeRequest::default());
                let refusal = client
                    .unary(request, path.parse().expect("a path"), codec)
                    .await;
                let refusal = refusal.expect_err("refused");
                refusals.push((refusal.code(), refusal.message().to_owned()));
            }
            refusals
        })
    });
    assert_eq!(refusals[0], refusals[1]);
}
