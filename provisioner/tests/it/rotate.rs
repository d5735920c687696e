//! Certificates and CAs that are replaced under load, and with the program killed in between.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::living::{CLUSTER, Cluster, kinds};
use crate::sandbox::{Done, Server, each_server, finish, wait_until};

const ALL: [&str; 3] = ["m0", "m1", "m2"];

each_server! {
    certificates_are_issued_again_and_nobody_restarts
    a_ca_is_replaced_stage_by_stage_without_losing_a_write
    a_rotation_that_is_killed_is_finished_by_the_next
    a_ca_that_the_operator_brings_takes_the_place_of_another
    a_cluster_goes_over_to_tls_while_clients_write
    a_way_to_tls_that_is_killed_is_finished_by_the_next
}

fn certificates_are_issued_again_and_nobody_restarts(server: Server) {
    let cluster = Cluster::up(server, true, &ALL);
    let (pids, before) = (cluster.pids(&ALL), certificates(&cluster));
    let mut writing = cluster.write();
    writing.acknowledge(100);
    rotate(&cluster, &["certs"]).expect(0);
    let after = certificates(&cluster);
    assert_eq!(before.len(), after.len());
    for ((path, old), (_, new)) in before.iter().zip(&after) {
        let is_ca = path.ends_with("ca.crt");
        assert_eq!(old == new, is_ca, "{}", path.display());
    }
    assert_eq!(cluster.pids(&ALL), pids);
    // A member shows the new one to whoever comes from now on.
    let endpoint = cluster.member("m0")["endpoints"][0]
        .as_str()
        .unwrap()
        .to_owned();
    let shown = shown(&cluster, &endpoint);
    let mine = fs::read_to_string(
        cluster
            .sandbox
            .member(CLUSTER, "m0")
            .join("certs/server.crt"),
    );
    let body = |pem: &str| pem.lines().nth(1).unwrap().to_owned();
    assert_eq!(body(&shown), body(&mine.unwrap()));
    writing.acknowledge(100);
    writing.judge();
}

fn a_ca_is_replaced_stage_by_stage_without_losing_a_write(server: Server) {
    let cluster = Cluster::up(server, true, &ALL);
    let pki = cluster.sandbox.cluster(CLUSTER).join("pki");
    let old = fs::read_to_string(pki.join("ca.crt")).unwrap();
    for stage in 1..=3 {
        // Who starts in this stage has the CA file and the certificate of the one before, and works until it is over.
        let mut writing = cluster.write();
        writing.acknowledge(100);
        let done = rotate(&cluster, &["ca", "--step", "-o", "json"]).expect(0);
        let receipt = done.json()["receipt"].clone();
        if stage != 2 {
            assert!(receipt["probes"].as_u64().unwrap() > 0, "{receipt}");
            assert_eq!(receipt["failed"], 0, "{receipt}");
        }
        if stage < 3 {
            done.says(&["its CA is being replaced", "provision rotate ca demo"]);
            writing.acknowledge(100);
        }
        writing.judge();
    }
    let new = fs::read_to_string(pki.join("ca.crt")).unwrap();
    assert_eq!(new.matches("BEGIN CERTIFICATE").count(), 1);
    assert_ne!(old, new);
    for member in ALL {
        let trusted = cluster.sandbox.member(CLUSTER, member).join("certs/ca.crt");
        assert_eq!(fs::read_to_string(trusted).unwrap(), new);
    }
    cluster.expect_no_change();
    // Nobody shows what the old CA has signed, and so nobody is trusted by who has only that.
    let old_ca = cluster.sandbox.write("old.crt", &old);
    let flags = ["--cacert", &old_ca, "endpoint", "health"];
    let denied = cluster.sandbox.etcdctl(CLUSTER, &flags);
    assert_ne!(denied.code, 0, "{}", denied.stdout);
    cluster
        .sandbox
        .etcdctl(CLUSTER, &["put", "k", "v"])
        .expect(0);
}

fn a_rotation_that_is_killed_is_finished_by_the_next(server: Server) {
    let cluster = Cluster::up(server, true, &ALL);
    let sandbox = &cluster.sandbox;
    let pki = sandbox.cluster(CLUSTER).join("pki");
    let old = fs::read_to_string(pki.join("ca.crt")).unwrap();
    let journal = sandbox.cluster(CLUSTER).join("journal.jsonl");
    let restarts = || {
        let text = fs::read_to_string(&journal).unwrap_or_default();
        text.matches("\"event\":\"step\",\"step\":\"restart")
            .count()
    };
    let cuts: [(&str, &dyn Fn() -> bool); 4] = [
        ("making the CA", &|| pki.join("next-ca.key").exists()),
        ("restarting one", &|| restarts() > 0),
        ("restarting another", &|| restarts() > 1),
        ("issuing", &|| {
            let bundle = fs::read_to_string(pki.join("ca.crt")).unwrap_or_default();
            bundle.ends_with(&old) && bundle != old
        }),
    ];
    for (what, reached) in cuts {
        let mut run = sandbox.spawn(&["rotate", "ca", CLUSTER]);
        wait_until(what, || reached() || run.try_wait().unwrap().is_some());
        run.kill().unwrap();
        let run = finish(run);
        assert!([0, 137].contains(&run.code), "{}", run.stderr);
        // Wherever it was cut off, the cluster is brought back as every other.
        sandbox.provision(&["up", CLUSTER]).expect(0);
        sandbox.etcdctl(CLUSTER, &["put", "k", what]).expect(0);
        cluster.expect_no_change();
    }
    rotate(&cluster, &["ca"]).expect(0);
    let new = fs::read_to_string(pki.join("ca.crt")).unwrap();
    assert!(!new.contains(&old) && new.matches("BEGIN").count() == 1);
    cluster.expect_no_change();
    sandbox.etcdctl(CLUSTER, &["get", "k"]).expect(0);
}

fn a_ca_that_the_operator_brings_takes_the_place_of_another(server: Server) {
    let cluster = Cluster::up(server, true, &ALL);
    // Another cluster's CA is as good as any.
    let other = cluster.sandbox.topology("other", 1, true, "");
    cluster.sandbox.provision(&["up", &other]).expect(0);
    let brought = cluster.sandbox.cluster("other").join("pki");
    let text = fs::read_to_string(&cluster.file).unwrap();
    let ca = format!(
        "[tls]\nca = {{ cert = \"{0}/ca.crt\", key = \"{0}/ca.key\" }}\n",
        brought.display()
    );
    fs::write(&cluster.file, text.replace("[tls]\n", &ca)).unwrap();
    cluster
        .sandbox
        .provision(&["up", &cluster.file])
        .expect(1)
        .says(&["is another CA", "provision rotate ca FILE"]);
    let file = cluster.file.clone();
    cluster
        .sandbox
        .provision(&["rotate", "ca", &file])
        .expect(0);
    cluster.expect_no_change();
    let pki = cluster.sandbox.cluster(CLUSTER).join("pki");
    let read = |path: PathBuf| fs::read_to_string(path).unwrap();
    assert_eq!(read(pki.join("ca.crt")), read(brought.join("ca.crt")));
    assert!(
        !pki.join("next-ca.key").exists(),
        "its key stays where it is"
    );
    cluster
        .sandbox
        .etcdctl(CLUSTER, &["put", "k", "v"])
        .expect(0);
}

fn a_cluster_goes_over_to_tls_while_clients_write(server: Server) {
    let cluster = Cluster::up(server, false, &ALL);
    let to_tls = || {
        cluster
            .sandbox
            .provision(&["rotate", "tls", "--step", &cluster.file])
    };
    let urls = |of: &str| {
        let urls = cluster.listed().into_iter();
        let urls = urls.map(|member| member[of][0].as_str().unwrap().to_owned());
        urls.collect::<Vec<_>>()
    };
    let mut plain = cluster.write();
    plain.acknowledge(100);
    want_tls(&cluster, "mutual", "mutual");
    let pids = cluster.pids(&ALL);
    cluster
        .sandbox
        .provision(&["up", &cluster.file])
        .expect(6)
        .says(&[
            "peer TLS of cluster demo cannot change from off to mutual at once",
            "provision rotate tls FILE",
        ]);
    assert_eq!(cluster.pids(&ALL), pids);

    let done = to_tls().expect(0);
    done.says(&[
        "members call each other in plain text, with certificates",
        "clients call with and without TLS",
        "on the way to TLS",
    ]);
    plain.acknowledge(100);
    // Clients move from now on.
    want_tls(&cluster, "prepared", "both");
    cluster.expect_no_change();
    let mut secure = cluster.write();
    secure.acknowledge(100);
    assert!(
        urls("peerURLs")
            .iter()
            .all(|url| url.starts_with("http://"))
    );

    want_tls(&cluster, "mutual", "mutual");
    to_tls()
        .expect(0)
        .says(&["members call each other over TLS"]);
    assert!(
        urls("peerURLs")
            .iter()
            .all(|url| url.starts_with("https://"))
    );
    plain.acknowledge(100);
    secure.acknowledge(100);
    want_tls(&cluster, "mutual", "both");
    plain.judge();

    want_tls(&cluster, "mutual", "mutual");
    to_tls()
        .expect(0)
        .says(&["clients call over TLS only, with certificates"]);
    secure.acknowledge(100);
    secure.judge();
    assert!(
        urls("clientURLs")
            .iter()
            .all(|url| url.starts_with("https://"))
    );
    let without = cluster
        .target()
        .endpoints
        .join(",")
        .replace("https", "http");
    let get = [
        "sh",
        "-c",
        "env -i ETCDCTL_API=3 PATH=\"$PATH\" etcdctl --command-timeout=2s --endpoints \"$1\" get k",
        "-",
        &without,
    ];
    let refused = cluster
        .sandbox
        .provision(&[&["exec", CLUSTER, "--"][..], &get].concat());
    assert_ne!(refused.code, 0, "{}", refused.stdout);
    to_tls()
        .expect(2)
        .says(&["has the TLS that its file asks for"]);
    // The founders agreed on other URLs, which nothing that comes later may mind.
    cluster.sandbox.provision(&["down", CLUSTER]).expect(0);
    cluster.apply();
    let text = fs::read_to_string(&cluster.file).unwrap();
    let more = format!("{text}[[member]]\nname = \"m3\"\n{}\n", server.binary);
    fs::write(&cluster.file, more).unwrap();
    cluster.apply();
    cluster.expect_voters(&["m0", "m1", "m2", "m3"]);
}

fn a_way_to_tls_that_is_killed_is_finished_by_the_next(server: Server) {
    let cluster = Cluster::up(server, false, &ALL);
    let sandbox = &cluster.sandbox;
    let journal = sandbox.cluster(CLUSTER).join("journal.jsonl");
    let begun = |step: &str, times: usize| {
        let text = fs::read_to_string(&journal).unwrap_or_default();
        let begun = format!("\"event\":\"step\",\"step\":\"{step}");
        text.matches(&begun).count() >= times
    };
    want_tls(&cluster, "mutual", "mutual");
    for (step, times) in [
        ("write", 1),
        ("restart", 1),
        ("restart", 2),
        ("have the others reach", 1),
        ("have the others reach", 2),
    ] {
        let mut run = sandbox.spawn(&["rotate", "tls", &cluster.file]);
        wait_until(step, || {
            begun(step, times) || run.try_wait().unwrap().is_some()
        });
        run.kill().unwrap();
        let run = finish(run);
        assert_eq!(run.code, 137, "{}", run.stderr);
        if step == "have the others reach" {
            // Nobody is left to ask how the members are reached.
            sandbox.provision(&["down", CLUSTER]).expect(0);
        }
        sandbox.provision(&["up", CLUSTER]).expect(0);
        sandbox.etcdctl(CLUSTER, &["put", "k", step]).expect(0);
    }
    sandbox
        .provision(&["rotate", "tls", &cluster.file])
        .expect(0);
    cluster.expect_no_change();
    sandbox
        .etcdctl(CLUSTER, &["get", "k"])
        .expect(0)
        .shows(&["have the others reach"]);
    assert!(cluster.target().tls.is_some());
}

#[test]
fn a_way_to_tls_that_was_begun_can_be_gone_back() {
    let sandbox = crate::sandbox::Sandbox::new();
    let plain = sandbox.topology("demo", 1, false, "");
    let rotate = |file: &str, more: &[&str]| {
        let args = [&["rotate", "tls", "--accept-downtime"], more, &[file]].concat();
        sandbox.provision(&args)
    };
    sandbox.provision(&["up", &plain]).expect(0);
    sandbox.etcdctl("demo", &["put", "k", "v"]).expect(0);
    rotate(&plain, &[])
        .expect(2)
        .says(&["has the TLS that its file asks for"]);
    let secure = sandbox.topology("demo", 1, true, "");
    sandbox
        .provision(&["rotate", "tls", "--step", &secure])
        .expect(6)
        .says(&["restart"]);
    rotate(&secure, &["--dry-run"])
        .expect(0)
        .shows(&["restart"]);
    rotate(&secure, &["--step"])
        .expect(0)
        .says(&["clients call with and without TLS"]);
    let plain = sandbox.topology("demo", 1, false, "");
    rotate(&plain, &[]).expect(0);
    sandbox
        .provision(&["plan", "--detailed-exitcode", &plain])
        .expect(0);
    sandbox
        .etcdctl("demo", &["get", "k"])
        .expect(0)
        .shows(&["v"]);
    let secure = sandbox.topology("demo", 1, true, "");
    rotate(&secure, &[]).expect(0).says(&[
        "members call each other over TLS",
        "clients call over TLS only",
    ]);
    sandbox
        .provision(&["plan", "--detailed-exitcode", &secure])
        .expect(0);
    sandbox
        .etcdctl("demo", &["get", "k"])
        .expect(0)
        .shows(&["v"]);
}

#[test]
fn what_cannot_be_rotated_is_said() {
    let sandbox = crate::sandbox::Sandbox::new();
    let file = sandbox.topology("plain", 1, false, "");
    sandbox
        .provision(&["rotate", "ca", &file])
        .expect(2)
        .says(&["has no certificates that a CA has signed", "fix:"]);
    let file = sandbox.topology("demo", 1, true, "");
    sandbox
        .provision(&["rotate", "ca", &file])
        .expect(2)
        .says(&["has not been brought up", "provision up"]);
    sandbox
        .provision(&["rotate", "certs", "--step", &file])
        .expect(2)
        .says(&["in one step"]);
    assert!(!sandbox.cluster("demo").exists());
    sandbox.provision(&["up", &file]).expect(0);
    let plan = sandbox.provision(&[
        "rotate",
        "ca",
        "--dry-run",
        "--accept-downtime",
        "-o",
        "json",
        &file,
    ]);
    let plan = plan.expect(0).says(&["1 of 3", "2 of 3", "3 of 3"]);
    let first: Value = serde_json::Deserializer::from_str(&plan.stdout)
        .into_iter::<Value>()
        .next()
        .unwrap()
        .unwrap();
    assert!(kinds(&serde_json::json!({ "steps": first })).contains(&"restart"));
    assert!(!sandbox.cluster("demo").join("pki/next-ca.crt").exists());
}

/// Writes another transport security into the file.
fn want_tls(cluster: &Cluster, peer: &str, client: &str) {
    let text = fs::read_to_string(&cluster.file).unwrap();
    let line = |line: &str| match line.split_once(" = ") {
        Some(("peer", _)) => format!("peer = \"{peer}\"\n"),
        Some(("client", _)) => format!("client = \"{client}\"\n"),
        _ => format!("{line}\n"),
    };
    fs::write(&cluster.file, text.lines().map(line).collect::<String>()).unwrap();
}

fn rotate(cluster: &Cluster, what: &[&str]) -> Done {
    let args = [&["rotate"], what, &[CLUSTER]].concat();
    cluster.sandbox.provision(&args)
}

/// Every certificate of the cluster, by its path.
fn certificates(cluster: &Cluster) -> Vec<(PathBuf, String)> {
    let dir = cluster.sandbox.cluster(CLUSTER);
    let mut dirs = vec![dir.join("pki")];
    dirs.extend(ALL.map(|name| cluster.sandbox.member(CLUSTER, name).join("certs")));
    let mut found = Vec::new();
    for dir in dirs {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|it| it == "crt") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    found.sort();
    found
}

/// The certificate that a member shows, as PEM.
fn shown(cluster: &Cluster, endpoint: &str) -> String {
    let address = endpoint.trim_start_matches("https://");
    let script =
        format!("openssl s_client -connect {address} </dev/null 2>/dev/null | openssl x509");
    let done = cluster
        .sandbox
        .provision(&["exec", CLUSTER, "--", "sh", "-c", &script]);
    done.expect(0).stdout
}
