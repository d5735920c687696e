//! The v2 API: on all members of a cluster, over restarts and snapshots, and as the discovery service of etcds.

pub(crate) mod client;
mod discovery;

use std::time::{Duration, Instant};

use client::{ask, request};

use crate::process::{MEMBER, Server, etcdctl, http_get, wait_until};
use crate::server::{endpoints, start_all, three};

/// Three members of which the first `serving` serve the v2 API.
fn cluster(serving: usize, more: &[&str]) -> [Server; 3] {
    let mut servers = three();
    for (at, server) in servers.iter_mut().enumerate() {
        if at < serving {
            server.arg("--enable-v2");
        }
        more.iter().for_each(|arg| server.arg(arg));
    }
    start_all(&mut servers);
    servers
}

fn put(at: &Server, key: &str, form: &str) -> String {
    let (status, body) = ask(at.client_port, "PUT", &format!("/v2/keys{key}"), form);
    assert!(matches!(status, 200 | 201), "{key}: {status} {body}");
    body
}

/// All keys but hidden ones, as this member has them.
fn keys(at: &Server) -> String {
    let target = "/v2/keys/?recursive=true&sorted=true";
    let (status, body) = ask(at.client_port, "GET", target, "");
    assert_eq!(status, 200, "{body}");
    body
}

fn index(at: &Server) -> u64 {
    let answer = request(at.client_port, "GET", "/v2/keys/", "", "");
    let index = answer.header("x-etcd-index");
    index
        .and_then(|index| index.parse().ok())
        .expect("an index")
}

/// Revision and hash of the v3 keys, of every member.
fn hashes(servers: &[Server]) -> Vec<(u64, u64)> {
    let args = ["endpoint", "hashkv", "-w", "json"];
    let (ok, out, err) = etcdctl(&endpoints(servers), &args);
    assert!(ok, "{err}");
    let json: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    let hashes = json.as_array().expect("a list").iter();
    hashes
        .map(|one| {
            let revision = one["HashKV"]["header"]["revision"].as_u64();
            let hash = one["HashKV"]["hash"].as_u64();
            (revision.expect("a revision"), hash.expect("a hash"))
        })
        .collect()
}

#[test]
fn some_members_serve_what_all_of_them_keep_beside_the_v3_keys() {
    let mut servers = cluster(2, &[]);
    let (ok, _, err) = etcdctl(&endpoints(&servers), &["put", "v3", "x"]);
    assert!(ok, "{err}");
    let mut before = Vec::new();
    wait_until("all members have the v3 key", || {
        before = hashes(&servers);
        before.iter().all(|one| *one == before[0])
    });
    for i in 0..20 {
        put(&servers[i % 2], &format!("/dir/k{i}"), "value=x");
        let target = format!("/v2/keys/dir/k{i}?quorum=true");
        let (status, _) = ask(servers[(i + 1) % 2].client_port, "GET", &target, "");
        assert_eq!(
            status, 200,
            "a quorum read sees what was acknowledged before"
        );
    }
    assert_eq!(hashes(&servers), before, "v3 knows nothing of it");
    assert_eq!(
        ask(servers[2].client_port, "GET", "/v2/keys/dir", ""),
        (404, "404 page not found\n".to_owned())
    );
    // What the third member kept without serving it shows once it does.
    let expected = keys(&servers[0]);
    servers[2].kill();
    servers[2].arg("--enable-v2");
    servers[2].start();
    servers[2].wait_ready();
    wait_until("the third member has the keys", || {
        keys(&servers[2]) == expected
    });
    let metrics = http_get(servers[0].client_port, "/metrics").expect("metrics");
    assert!(metrics.contains("op=\"PUT\",success=\"true\",version=\"v2\""));
}

#[test]
fn keys_events_and_deadlines_outlive_a_killed_cluster() {
    let mut servers = cluster(3, &[]);
    put(&servers[0], "/a/b", "value=1");
    let created = index(&servers[0]);
    put(&servers[1], "/a/soon", "value=1&ttl=3");
    put(&servers[2], "/a/later", "value=1&ttl=5000");
    for i in 0..50 {
        put(&servers[i % 3], "/a/b", &format!("value={i}"));
    }
    servers.iter_mut().for_each(Server::kill);
    start_all(&mut servers);
    for server in &servers {
        let target = format!("/v2/keys/a/b?wait=true&waitIndex={created}");
        let (_, body) = ask(server.client_port, "GET", &target, "");
        assert!(
            body.contains("\"value\":\"1\""),
            "the past is still there: {body}"
        );
    }
    wait_until("the first deadline", || {
        servers
            .iter()
            .all(|server| !keys(server).contains("/a/soon"))
    });
    let [first, second, third] = servers.each_ref().map(keys);
    assert!(
        first.contains("/a/later") && first.contains("\"value\":\"49\""),
        "{first}"
    );
    assert_eq!(
        [without_ttl(&second), without_ttl(&third)],
        [without_ttl(&first), without_ttl(&first)]
    );
}

#[test]
fn a_stream_from_the_past_sends_all_since_then_and_goes_on() {
    let server = Server::started(MEMBER, &["--enable-v2"]);
    let first = put(&server, "/past/a", "value=1");
    let since = index(&server);
    let second = put(&server, "/past/b", "value=2");
    let target = format!("/v2/keys/past?wait=true&recursive=true&stream=true&waitIndex={since}");
    let mut stream = request(server.client_port, "GET", &target, "", "");
    assert_eq!([stream.part(), stream.part()], [first, second]);
    let third = put(&server, "/past/c", "value=3");
    assert_eq!(stream.part(), third);
}

/// What is left of a TTL depends on when it is asked for.
fn without_ttl(body: &str) -> String {
    let fields = body
        .split(',')
        .filter(|field| !field.starts_with("\"ttl\""));
    fields.collect::<Vec<_>>().join(",")
}

#[test]
fn a_snapshot_brings_the_keys_and_wakes_those_who_wait() {
    let mut servers = cluster(
        3,
        &[
            "--snapshot-count=50",
            "--snapshot-catchup-entries=10",
            "--election-timeout=500",
            "--heartbeat-interval=50",
        ],
    );
    let follower = (0..3).find(|i| !servers[*i].leads()).expect("a follower");
    let other = (follower + 1) % 3;
    let fill =
        || (0..60).for_each(|i| drop(put(&servers[other], &format!("/k{}", i % 20), "value=x")));
    let mut round = 0;
    // What is on its way when the member stops may reach it yet: until the log no longer does.
    wait_until("a snapshot was needed", || {
        round += 1;
        let target = format!("/v2/keys/last{round}?wait=true");
        let mut waiting = request(servers[follower].client_port, "GET", &target, "", "");
        let active = || counted(&servers, follower, "etcd_network_active_peers");
        wait_until("the others reach it", || active() == 4);
        signal(&servers[follower], "STOP");
        fill();
        wait_until("the others gave it up", || active() < 4);
        fill();
        let last = put(&servers[other], &format!("/last{round}"), "value=1");
        signal(&servers[follower], "CONT");
        assert_eq!(waiting.part(), last);
        servers[follower].log().contains("received a snapshot")
    });
    let expected = keys(&servers[other]);
    wait_until("the same keys", || keys(&servers[follower]) == expected);
    servers[follower].kill();
    servers[follower].start();
    servers[follower].wait_ready();
    wait_until("the same keys after a kill", || {
        keys(&servers[follower]) == expected
    });
}

/// The sum of a metric over its labels and all members but one.
fn counted(servers: &[Server], but: usize, name: &str) -> u64 {
    let others = (0..servers.len()).filter(|at| *at != but);
    let metrics = others.filter_map(|at| http_get(servers[at].client_port, "/metrics"));
    let counts = metrics.flat_map(|text| {
        let found = text
            .lines()
            .filter(|line| line.starts_with(&format!("{name}{{")));
        let counts = found.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok());
        counts.collect::<Vec<_>>()
    });
    counts.sum()
}

fn signal(server: &Server, name: &str) {
    let pid = server.pid().to_string();
    let sent = std::process::Command::new("kill")
        .args(["-s", name, &pid])
        .status();
    assert!(sent.expect("kill runs").success());
}

#[test]
fn those_who_wait_hold_nobody_up_and_are_let_go_at_the_end() {
    let mut server = Server::started(MEMBER, &["--enable-v2"]);
    let port = server.client_port;
    let wait = |key: String| request(port, "GET", &format!("/v2/keys/{key}?wait=true"), "", "");
    let mut waiting: Vec<_> = (0..200).map(|i| wait(format!("never{}", i % 10))).collect();
    let mut woken: Vec<_> = (0..100).map(|_| wait("woken".to_owned())).collect();
    let stats = || ask(port, "GET", "/v2/stats/store", "").1;
    assert!(stats().contains("\"watchers\":300"), "{}", stats());
    for i in 0..20 {
        put(&server, &format!("/other{i}"), "value=1");
    }
    put(&server, "/woken", "value=1");
    for answer in &mut woken {
        assert!(answer.part().contains("\"key\":\"/woken\""));
        assert_eq!(answer.part(), "");
    }
    drop(woken);
    wait_until("the woken are gone", || {
        stats().contains("\"watchers\":200")
    });
    let began = Instant::now();
    server.signal("TERM");
    // A cut-off would come after three seconds of patience, and say so.
    assert!(!server.log().contains("cut off"), "{}", server.log());
    assert!(began.elapsed() < Duration::from_secs(60));
    for answer in &mut waiting {
        assert_eq!(answer.part(), "", "the body ends");
    }
}

#[test]
fn a_leader_that_does_not_serve_the_keys_ends_those_that_expire() {
    let servers = cluster(1, &[]);
    if servers[0].leads() {
        let (ok, out, err) = etcdctl(
            &servers[1].endpoint(),
            &["endpoint", "status", "-w", "json"],
        );
        assert!(ok, "{err}");
        let status: serde_json::Value = serde_json::from_str(&out).expect("JSON");
        let to = status[0]["Status"]["header"]["member_id"].as_u64();
        let to = format!("{:x}", to.expect("an id"));
        let (ok, _, err) = etcdctl(&servers[0].endpoint(), &["move-leader", &to]);
        assert!(ok, "{err}");
    }
    put(&servers[0], "/dir/deep/file", "value=1");
    let target = "/v2/keys/dir/deep/file?wait=true";
    let mut below = request(servers[0].client_port, "GET", target, "", "");
    let set = put(&servers[0], "/dir", "ttl=1&prevExist=true");
    assert!(set.contains("\"ttl\":1"), "{set}");
    let expired = below.part();
    assert!(
        expired.starts_with("{\"action\":\"expire\",\"node\":{\"key\":\"/dir\",\"dir\":true,"),
        "{expired}"
    );
    assert_eq!(
        ask(servers[0].client_port, "GET", "/v2/keys/dir", "").0,
        404
    );
}

#[test]
fn members_are_added_and_removed() {
    let mut servers = vec![Server::started(MEMBER, &["--enable-v2"])];
    let port = servers[0].client_port;
    let [client, peer] = crate::process::free_ports();
    let url = format!("http://127.0.0.1:{peer}");
    let body = format!("{{\"peerURLs\":[\"{url}\"]}}");
    let change = |method: &str, target: &str, body: &str| {
        let mut answer = request(port, method, target, "application/json", body);
        let body = answer.body();
        (answer.status, body)
    };
    let (status, added) = change("POST", "/v2/members", &body);
    assert_eq!(status, 201, "{added}");
    assert!(
        added.ends_with(&format!(
            ",\"name\":\"\",\"peerURLs\":[\"{url}\"],\"clientURLs\":[]}}\n"
        )),
        "{added}"
    );
    let id = added.split('"').nth(3).expect("an id").to_owned();
    let initial = format!(
        "infra0=http://127.0.0.1:{},second={url}",
        servers[0].peer_port
    );
    let more = ["--initial-cluster-state=existing", "--enable-v2"];
    servers.push(Server::of_cluster(
        MEMBER, "second", client, peer, &initial, &more,
    ));
    servers[1].start();
    servers[1].wait_ready();
    let list = |port| ask(port, "GET", "/v2/members", "").1;
    wait_until("both list both", || {
        list(client).contains("\"second\"") && list(client) == list(port)
    });
    let machines = ask(client, "GET", "/v2/machines", "").1;
    assert_eq!(machines.split(", ").count(), 2, "{machines}");
    let follower = if servers[0].leads() { client } else { port };
    assert_eq!(
        ask(follower, "GET", "/v2/stats/leader", ""),
        (403, "{\"message\":\"not current leader\"}".to_owned())
    );
    assert_eq!(
        ask(follower, "GET", "/v2/members/leader", ""),
        ask(port, "GET", "/v2/members/leader", "")
    );
    let target = format!("/v2/members/{id}");
    // Not before the members have been connected for long enough.
    let settled = |method: &str, target: &str| {
        let mut answer = (500, String::new());
        wait_until("a change is no risk", || {
            answer = change(method, target, "");
            answer.0 != 500
        });
        answer
    };
    assert_eq!(settled("DELETE", &target), (204, String::new()));
    let gone = format!("{{\"message\":\"Member permanently removed: {id}\"}}");
    assert_eq!(change("DELETE", &target, ""), (410, gone));
    assert_eq!(servers[1].wait_exit().code(), Some(0));
}

#[test]
fn members_are_not_changed_past_the_users_of_v3() {
    let server = Server::started(MEMBER, &["--enable-v2", "--bcrypt-cost=4"]);
    for args in [
        &["user", "add", "root:pw"][..],
        &["user", "grant-role", "root", "root"],
        &["auth", "enable"],
    ] {
        let (ok, _, err) = etcdctl(&server.endpoint(), args);
        assert!(ok, "{err}");
    }
    let body = "{\"peerURLs\":[\"http://127.0.0.1:1\"]}";
    let mut answer = request(
        server.client_port,
        "POST",
        "/v2/members",
        "application/json",
        body,
    );
    assert_eq!(
        (answer.status, answer.body()),
        (401, "{\"message\":\"Insufficient credentials\"}".to_owned())
    );
    // As in etcd, users of v3 are none of v2: its keys stay open.
    put(&server, "/a", "value=1");
}

#[test]
fn without_a_quorum_reads_of_one_member_go_on() {
    let mut servers = cluster(3, &["--election-timeout=500", "--heartbeat-interval=50"]);
    put(&servers[0], "/a", "value=1");
    wait_until("the first member has it", || {
        keys(&servers[0]).contains("/a")
    });
    servers[1].kill();
    servers[2].kill();
    assert_eq!(ask(servers[0].client_port, "GET", "/v2/keys/a", "").0, 200);
    for (method, target) in [("PUT", "/v2/keys/b"), ("GET", "/v2/keys/a?quorum=true")] {
        let (status, body) = ask(servers[0].client_port, method, target, "");
        assert_eq!(status, 500, "{body}");
        assert!(
            body.starts_with(
                "{\"errorCode\":300,\"message\":\"Raft Internal Error\",\"cause\":\"etcdserver: "
            ),
            "{body}"
        );
    }
}
