//! Members come and go while the cluster serves, driven by etcdctl alone, as an operator does it.

use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crate::process::{ETCD, MEMBER, Server, etcdctl, free_ports, wait_until};

/// A lone member, running.
fn founder(binary: &str, more: &[&str]) -> Server {
    let mut server = Server::single(binary, more);
    server.start();
    server.wait_ready();
    server
}

fn peer_url(server: &Server) -> String {
    format!("http://127.0.0.1:{}", server.peer_port)
}

fn endpoints<'a>(servers: impl IntoIterator<Item = &'a Server>) -> String {
    let endpoints: Vec<String> = servers.into_iter().map(Server::endpoint).collect();
    endpoints.join(",")
}

fn member_list(server: &Server) -> serde_json::Value {
    let (ok, out, err) = etcdctl(&server.endpoint(), &["member", "list", "-w", "json"]);
    assert!(ok, "{err}");
    serde_json::from_str(&out).expect("JSON")
}

/// The id of the member with this peer URL, as etcdctl takes it.
fn id_of(at: &Server, url: &str) -> Option<String> {
    member_list(at)["members"]
        .as_array()
        .expect("a list")
        .iter()
        .find(|member| member["peerURLs"][0] == url)
        .and_then(|member| member["ID"].as_u64())
        .map(|id| format!("{id:x}"))
}

/// Runs a change until the member that serves it has been connected to the others for long enough, and knows them.
fn once_healthy(at: &str, args: &[&str]) -> String {
    let mut out = String::new();
    wait_until(&args.join(" "), || {
        let (ok, stdout, err) = etcdctl(at, args);
        out = stdout;
        assert!(
            ok || err.contains("etcdserver: unhealthy cluster")
                // Who was just added may not have published its name here.
                || err.contains("not enough started members"),
            "{args:?}: {err}"
        );
        ok
    });
    out
}

/// The value that `member add` prints for the environment of the new member.
fn printed<'a>(out: &'a str, variable: &str) -> &'a str {
    let line = out
        .lines()
        .find_map(|line| line.strip_prefix(variable)?.strip_prefix("=\""));
    line.and_then(|value| value.strip_suffix('"'))
        .expect("printed by member add")
}

/// Adds a member through `at`, and gives it the flags that etcdctl prints; not started.
fn add(at: &Server, name: &str, more_add: &[&str], more: &[&str]) -> Server {
    let [client, peer] = free_ports();
    let urls = format!("--peer-urls=http://127.0.0.1:{peer}");
    let args = [&["member", "add", name, &urls], more_add].concat();
    let out = once_healthy(&at.endpoint(), &args);
    let state = format!(
        "--initial-cluster-state={}",
        printed(&out, "ETCD_INITIAL_CLUSTER_STATE")
    );
    let initial = printed(&out, "ETCD_INITIAL_CLUSTER");
    let more = [&[state.as_str()], more].concat();
    Server::of_cluster(MEMBER, name, client, peer, initial, &more)
}

fn join(at: &Server, name: &str, more: &[&str]) -> Server {
    let mut server = add(at, name, &[], more);
    server.start();
    server.wait_ready();
    server
}

/// Waits for a removed member's end, which is no failure.
fn assert_gone(server: &mut Server) {
    let status = server.wait_exit();
    assert_eq!(status.code(), Some(0), "{status}: {}", server.log());
    let log = server.log();
    assert!(
        log.contains("the member has been permanently removed from the cluster"),
        "{log}"
    );
    assert!(
        log.contains("data-dir used by this member must be removed"),
        "{log}"
    );
}

fn everything(server: &Server) -> String {
    etcdctl(
        &server.endpoint(),
        &["get", "", "--prefix", "--consistency=s", "-w", "json"],
    )
    .1
}

/// The pairs and their revisions, without the header, which names the member.
fn data(server: &Server) -> serde_json::Value {
    let json: serde_json::Value = serde_json::from_str(&everything(server)).unwrap_or_default();
    serde_json::json!([json["header"]["revision"], json["kvs"]])
}

#[test]
fn a_cluster_grows_to_five_and_shrinks_to_one_under_writes() {
    let mut servers = vec![founder(MEMBER, &[])];
    let targets = Arc::new(Mutex::new(endpoints(&servers)));
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (targets, stop) = (Arc::clone(&targets), Arc::clone(&stop));
        std::thread::spawn(move || {
            let mut acknowledged = Vec::new();
            for i in 0.. {
                if stop.load(Ordering::Relaxed) {
                    return acknowledged;
                }
                let to = targets.lock().expect("no panic").clone();
                let key = format!("k{i:05}");
                if etcdctl(&to, &["put", &key, "v", "--command-timeout=3s"]).0 {
                    acknowledged.push(key);
                }
            }
            acknowledged
        })
    };
    for i in 1..5 {
        let joined = join(&servers[i - 1], &format!("infra{i}"), &[]);
        servers.push(joined);
        *targets.lock().expect("no panic") = endpoints(&servers);
    }
    assert_eq!(
        member_list(&servers[0])["members"].as_array().map(Vec::len),
        Some(5)
    );
    while servers.len() > 1 {
        // The leader goes first each time but the last, asked of another member.
        wait_until("a leader", || servers.iter().any(Server::leads));
        let Some(leader) = servers.iter().position(Server::leads) else {
            continue;
        };
        let mut removed = servers.swap_remove(leader);
        *targets.lock().expect("no panic") = endpoints(&servers);
        let id = id_of(&servers[0], &peer_url(&removed)).expect("listed");
        once_healthy(&servers[0].endpoint(), &["member", "remove", &id]);
        assert_gone(&mut removed);
    }
    stop.store(true, Ordering::Relaxed);
    let acknowledged = writer.join().expect("the writer");
    assert!(acknowledged.len() > 20, "{} writes", acknowledged.len());
    let (ok, out, err) = etcdctl(
        &servers[0].endpoint(),
        &["get", "k", "--prefix", "--keys-only"],
    );
    assert!(ok, "{err}");
    let kept: std::collections::BTreeSet<&str> = out.lines().collect();
    for key in &acknowledged {
        assert!(
            kept.contains(key.as_str()),
            "{key} was acknowledged and is lost"
        );
    }
}

#[test]
fn a_killed_and_wiped_member_is_replaced_by_etcdctl_alone_and_catches_up_by_snapshot() {
    let short = ["--snapshot-count=50", "--snapshot-catchup-entries=10"];
    let mut servers = vec![founder(MEMBER, &short)];
    servers.push(join(&servers[0], "infra1", &short));
    servers.push(join(&servers[0], "infra2", &short));
    let mut lost = servers.pop().expect("three");
    lost.kill();
    std::fs::remove_dir_all(lost.data_dir()).expect("wiped");
    for i in 0..120 {
        let (ok, _, err) = etcdctl(
            &endpoints(&servers),
            &["put", &format!("k{}", i % 40), &format!("{i}")],
        );
        assert!(ok, "{err}");
    }
    // As it is, it may not come back: it could undo what it had acknowledged.
    lost.start();
    assert_eq!(lost.wait_exit().code(), Some(1));
    assert!(
        lost.log().contains("has already been bootstrapped"),
        "{}",
        lost.log()
    );

    let url = peer_url(&lost);
    let id = id_of(&servers[0], &url).expect("listed");
    let (ok, out, err) = etcdctl(&servers[0].endpoint(), &["member", "remove", &id]);
    assert!(ok && out.contains("removed from cluster"), "{out}{err}");
    let (ok, _, err) = etcdctl(&servers[0].endpoint(), &["member", "remove", &id]);
    assert!(!ok && err.contains("etcdserver: member not found"), "{err}");
    // The same URLs in another second make another id.
    let out = once_healthy(
        &servers[0].endpoint(),
        &["member", "add", "infra2", &format!("--peer-urls={url}")],
    );
    let mut back = Server::of_cluster(
        MEMBER,
        "infra2",
        lost.client_port,
        lost.peer_port,
        printed(&out, "ETCD_INITIAL_CLUSTER"),
        &[&["--initial-cluster-state=existing"], &short[..]].concat(),
    );
    back.start();
    back.wait_ready();
    assert_ne!(id_of(&servers[0], &url).as_deref(), Some(id.as_str()));
    assert!(back.log().contains("received a snapshot"), "{}", back.log());
    let expected = data(&servers[0]);
    assert_eq!(expected[1].as_array().map(Vec::len), Some(40));
    for server in servers.iter().chain([&back]) {
        wait_until("the same revision and data", || data(server) == expected);
    }
    // And it is a voter: the cluster lives without one of the others.
    wait_until("every member is listed as started", || {
        etcdctl(&back.endpoint(), &["member", "list"])
            .1
            .matches(", started, infra")
            .count()
            == 3
    });
    servers[1].kill();
    let (ok, _, err) = etcdctl(&endpoints([&servers[0], &back]), &["put", "after", "loss"]);
    assert!(ok, "{err}");
    // Restarts over its data, whatever the initial flags say.
    back.kill();
    back.arg("--initial-cluster=nobody=http://127.0.0.1:1");
    back.start();
    back.wait_ready();
}

#[test]
fn a_learner_serves_little_and_is_promoted_when_it_has_the_log() {
    let first = founder(MEMBER, &[]);
    for i in 0..20 {
        assert!(etcdctl(&first.endpoint(), &["put", &format!("k{i}"), "v"]).0);
    }
    let mut learner = add(&first, "infra1", &["--learner"], &[]);
    let id = id_of(&first, &peer_url(&learner)).expect("listed");
    let at = first.endpoint();
    let refused = |args: &[&str], sentence: &str| {
        let (ok, _, err) = etcdctl(&at, args);
        assert!(!ok && err.contains(sentence), "{args:?}: {err}");
    };
    refused(
        &["member", "promote", &id],
        "etcdserver: can only promote a learner member which is in sync with leader",
    );
    refused(
        &[
            "member",
            "add",
            "other",
            "--learner",
            "--peer-urls=http://127.0.0.1:1",
        ],
        "etcdserver: too many learner members in cluster",
    );
    // A learner that does not run costs no quorum.
    assert!(etcdctl(&at, &["put", "a", "b"]).0);
    learner.start();
    wait_until("the learner has the data", || {
        data(&learner) == data(&first)
    });
    let (ok, out, err) = etcdctl(&learner.endpoint(), &["endpoint", "status", "-w", "json"]);
    assert!(ok && out.contains("\"isLearner\":true"), "{out}{err}");
    assert!(
        !etcdctl(
            &learner.endpoint(),
            &["put", "a", "c", "--command-timeout=1s"]
        )
        .0
    );
    assert!(!etcdctl(&learner.endpoint(), &["get", "a", "--command-timeout=1s"]).0);
    let (ok, _, err) = etcdctl(&at, &["move-leader", &id]);
    assert!(!ok && err.contains("bad leader transferee"), "{err}");

    let (ok, out, err) = etcdctl(&at, &["member", "promote", &id]);
    assert!(ok && out.contains("promoted in cluster"), "{out}{err}");
    refused(
        &["member", "promote", &id],
        "etcdserver: can only promote a learner member",
    );
    learner.wait_ready();
    wait_until("it serves as the others", || {
        etcdctl(&learner.endpoint(), &["put", "a", "c"]).0
    });
    assert_eq!(etcdctl(&at, &["get", "a"]).1, "a\nc\n");
}

#[test]
fn a_member_removed_while_it_was_down_learns_it_at_its_start() {
    let first = founder(MEMBER, &[]);
    let second = join(&first, "infra1", &[]);
    let mut third = join(&first, "infra2", &[]);
    let id = id_of(&first, &peer_url(&third)).expect("listed");
    assert_eq!(third.signal("TERM").signal(), Some(15));
    wait_until("its absence is noticed and it is removed", || {
        etcdctl(&second.endpoint(), &["member", "remove", &id]).0
    });
    for _ in 0..2 {
        third.start();
        assert_gone(&mut third);
    }
}

#[test]
fn a_member_told_to_remove_itself_answers_and_goes() {
    let first = founder(MEMBER, &[]);
    let mut second = join(&first, "infra1", &[]);
    let id = id_of(&first, &peer_url(&second)).expect("listed");
    once_healthy(&second.endpoint(), &["member", "remove", &id]);
    assert_gone(&mut second);
    assert!(etcdctl(&first.endpoint(), &["put", "a", "b"]).0);
}

#[test]
fn changes_are_refused_in_etcds_words() {
    /// The last line of what etcdctl says, without the part that names addresses.
    fn refusal(at: &str, args: &[&str]) -> String {
        let (ok, out, err) = etcdctl(at, args);
        assert!(!ok, "{args:?}: {out}");
        let line = err.lines().last().unwrap_or_default();
        line.split("Error: ").last().unwrap_or_default().to_owned()
    }
    let refusals = |binary: &str| {
        let mut first = Server::single(binary, &[]);
        first.start();
        first.wait_ready();
        let own = id_of(&first, &peer_url(&first)).expect("listed");
        let at = first.endpoint();
        let url = format!("--peer-urls={}", peer_url(&first));
        let other = "--peer-urls=http://127.0.0.1:1";
        let mut texts = vec![
            refusal(&at, &["member", "add", "x", &url]),
            refusal(&at, &["member", "add", "x", "--peer-urls=ftp://h:1"]),
            refusal(&at, &["member", "add", "x", "--peer-urls=http://h:1/path"]),
            refusal(&at, &["member", "remove", &own]),
            refusal(&at, &["member", "remove", "1"]),
            refusal(&at, &["member", "promote", "1"]),
            refusal(&at, &["member", "promote", &own]),
            refusal(&at, &["member", "update", "1", other]),
        ];
        // A second member that does not run: the first has lost its quorum, and no change is safe.
        assert!(etcdctl(&at, &["member", "add", "x", other]).0);
        texts.push(refusal(
            &at,
            &["member", "add", "y", "--peer-urls=http://127.0.0.1:2"],
        ));
        texts.push(refusal(&at, &["member", "remove", &own]));
        texts
    };
    assert_eq!(refusals(MEMBER), refusals(ETCD));
}

#[test]
fn a_member_that_cannot_join_says_why_as_etcd_does() {
    let first = founder(MEMBER, &[]);
    let [client, peer, nobody] = free_ports();
    let known = format!("infra0={}", peer_url(&first));
    let own = format!("infra1=http://127.0.0.1:{peer}");
    let attempt = |initial: &str| {
        [MEMBER, ETCD].map(|binary| {
            let mut server = Server::of_cluster(
                binary,
                "infra1",
                client,
                peer,
                initial,
                &["--initial-cluster-state=existing"],
            );
            server.start();
            let status = server.wait_exit();
            assert_eq!(status.code(), Some(1), "{}", server.log());
            (server.log(), server.data_dir().exists())
        })
    };
    let cases = [
        (
            format!("infra0=http://127.0.0.1:{nobody},{own}"),
            "cannot fetch cluster info from peer urls: could not retrieve cluster information from the given URLs",
        ),
        (format!("{known},{own}"), "member count is unequal"),
        (
            known.clone(),
            "couldn't find local name \\\"infra1\\\" in the initial cluster configuration",
        ),
    ];
    for (initial, sentence) in cases {
        let [(ours, made), (etcds, _)] = attempt(&initial);
        assert!(ours.contains(sentence), "{initial}: {ours}");
        let plain = sentence.replace('\\', "");
        assert!(etcds.contains(&plain), "{initial}: {etcds}");
        assert!(!made, "{initial}: data was made");
    }
    // Right count, another URL.
    assert!(
        etcdctl(
            &first.endpoint(),
            &["member", "add", "x", "--peer-urls=http://127.0.0.1:1"]
        )
        .0
    );
    let [(ours, _), (etcds, _)] = attempt(&format!("{known},{own}"));
    for log in [ours, etcds] {
        assert!(
            log.contains("PeerURLs: no match found for existing member ("),
            "{log}"
        );
        assert!(
            log.contains("[http://127.0.0.1:1]), last resolver error ("),
            "{log}"
        );
    }
}

#[test]
fn a_member_that_moves_is_dialled_at_its_new_urls() {
    let first = founder(MEMBER, &[]);
    let second = join(&first, "infra1", &[]);
    let mut third = join(&first, "infra2", &[]);
    let [peer] = free_ports();
    let (old, new) = (peer_url(&third), format!("http://127.0.0.1:{peer}"));
    let id = id_of(&first, &old).expect("listed");
    third.kill();
    let (ok, out, err) = etcdctl(
        &second.endpoint(),
        &["member", "update", &id, &format!("--peer-urls={new}")],
    );
    assert!(ok && out.contains("updated in cluster"), "{out}{err}");
    assert_eq!(id_of(&second, &new).as_deref(), Some(id.as_str()));
    third.arg(&format!("--listen-peer-urls={new}"));
    third.arg(&format!("--initial-advertise-peer-urls={new}"));
    third.peer_port = peer;
    third.start();
    third.wait_ready();
    assert!(etcdctl(&first.endpoint(), &["put", "a", "b"]).0);
    wait_until("it follows at its new place", || {
        data(&third) == data(&first)
    });
}

#[test]
fn a_survivor_of_a_lost_quorum_starts_a_cluster_of_its_own_over_its_data() {
    let mut first = founder(MEMBER, &[]);
    let mut second = join(&first, "infra1", &[]);
    let mut third = join(&first, "infra2", &[]);
    assert!(etcdctl(&endpoints([&first, &second, &third]), &["put", "a", "b"]).0);
    let before = member_list(&first);
    [&mut first, &mut second, &mut third]
        .into_iter()
        .for_each(Server::kill);
    first.arg("--force-new-cluster");
    first.start();
    first.wait_ready();
    let after = member_list(&first);
    assert_eq!(
        after["header"]["cluster_id"],
        before["header"]["cluster_id"]
    );
    assert_eq!(after["header"]["member_id"], before["header"]["member_id"]);
    assert_eq!(after["members"].as_array().map(Vec::len), Some(1));
    assert_eq!(etcdctl(&first.endpoint(), &["get", "a"]).1, "a\nb\n");
    // The next start is a plain one, and others can join again; those of before may not.
    first.kill();
    first.arg("--force-new-cluster=false");
    first.start();
    first.wait_ready();
    second.start();
    assert_gone(&mut second);
    let joined = join(&first, "infra3", &[]);
    assert_eq!(etcdctl(&joined.endpoint(), &["get", "a"]).1, "a\nb\n");
}

#[test]
fn a_member_that_joins_a_restored_cluster_gets_the_restored_keys() {
    let dir = tempfile::TempDir::new().expect("a directory");
    let file = dir.path().join("snapshot.db");
    let path = file.to_str().expect("text");
    let source = founder(MEMBER, &[]);
    assert!(etcdctl(&source.endpoint(), &["put", "old", "1"]).0);
    let (ok, _, err) = etcdctl(&source.endpoint(), &["snapshot", "save", path]);
    assert!(ok, "{err}");
    let mut restored = Server::single(MEMBER, &[]);
    let output = std::process::Command::new(MEMBER)
        .args(["snapshot", "restore", path, "--name=infra0"])
        .arg(format!("--initial-cluster=infra0={}", peer_url(&restored)))
        .arg(format!(
            "--initial-advertise-peer-urls={}",
            peer_url(&restored)
        ))
        .arg(format!("--data-dir={}", restored.data_dir().display()))
        .output()
        .expect("runs");
    assert!(output.status.success());
    restored.start();
    restored.wait_ready();
    assert!(etcdctl(&restored.endpoint(), &["put", "new", "1"]).0);
    let mut joined = add(&restored, "infra1", &[], &[]);
    joined.start();
    joined.wait_ready();
    for (key, value) in [("old", "old\n1\n"), ("new", "new\n1\n")] {
        let (_, found, err) = etcdctl(&joined.endpoint(), &["get", key, "--consistency=s"]);
        assert_eq!(found, value, "{err}");
    }
}
