//! Members that come to run another version, under load, and go back.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::living::{CLUSTER, Cluster, steps};
use crate::sandbox::{Done, ETCD, Sandbox, is_running};

const OLD: &str = "/usr/bin/etcd";
const NEW: &str = "/usr/local/lib/etcd-3.5.1/etcd";
const ALL: [&str; 3] = ["m0", "m1", "m2"];

#[test]
fn three_members_go_one_minor_up_without_losing_a_write() {
    let cluster = Cluster::up(ETCD, true, &ALL);
    assert_eq!(written(&cluster), ["3.4.23/etcd3\n"; 3]);
    let leader = cluster.leader();
    let mut writing = cluster.write();
    writing.acknowledge(100);
    let up = upgrade(&cluster, &["--binary", NEW, "-o", "json", &cluster.file])
        .expect(0)
        .says(&["the way back is ", "provision restore demo FILE"])
        .json();
    let backups = cluster
        .sandbox
        .provision(&["backup", "--list", CLUSTER, "-o", "json"]);
    let backups = backups.expect(0).json();
    assert_eq!(backups["backups"].as_array().unwrap().len(), 1, "{backups}");
    let restarted: Vec<&Value> = steps(&up)
        .iter()
        .filter(|step| step["step"] == "restart")
        .collect();
    assert_eq!(restarted.len(), 3, "{up}");
    assert_eq!(restarted[2]["member"], leader.as_str(), "the leader last");
    assert_eq!(up["receipt"]["failed"], 0, "{up}");
    writing.acknowledge(100);
    writing.judge();
    assert_eq!(versions(&cluster), ["3.5.1"; 3]);
    assert_eq!(written(&cluster), ["3.5.1/etcd3\n"; 3]);
    let text = fs::read_to_string(&cluster.file).unwrap();
    assert_eq!(text.matches(NEW).count(), 3, "{text}");
    // The cluster's version has risen, and there is no way back by itself.
    let before = cluster.pids(&ALL);
    upgrade(&cluster, &["--rollback", &cluster.file])
        .expect(6)
        .says(&[
            "cannot go from 3.5.1 to 3.4.23",
            "not for the older one",
            "fix:",
        ]);
    assert_eq!(cluster.pids(&ALL), before);
    assert!(before.iter().all(|pid| is_running(*pid)));
    assert_eq!(fs::read_to_string(&cluster.file).unwrap(), text);
}

#[test]
fn one_member_tries_a_version_and_goes_back() {
    let cluster = Cluster::up(ETCD, false, &ALL);
    let file = cluster.file.clone();
    upgrade(&cluster, &["--rollback", &file])
        .expect(2)
        .says(&["was not upgraded"]);
    let one = ["--member", "m1", "--binary", NEW, &file];
    upgrade(&cluster, &one).expect(0);
    cluster.expect_no_change();
    assert_eq!(versions(&cluster), ["3.4.23", "3.5.1", "3.4.23"]);
    upgrade(&cluster, &["--rollback", &file]).expect(0);
    cluster.expect_no_change();
    assert_eq!(versions(&cluster), ["3.4.23"; 3]);
    assert_eq!(written(&cluster), ["3.4.23/etcd3\n"; 3]);
}

#[test]
fn an_upgrade_halts_when_writes_wait_too_long() {
    let cluster = Cluster::up(ETCD, false, &ALL);
    let file = cluster.file.clone();
    upgrade(&cluster, &["--budget", "1ms", "--binary", NEW, &file])
        .expect(6)
        .says(&[
            "halted before the next member",
            "longer than 1 ms",
            "--rollback",
        ]);
    let halted = versions(&cluster);
    assert!(
        halted.iter().any(|version| version == "3.4.23"),
        "{halted:?}"
    );
    // The file is changed, so that the same command goes on.
    upgrade(&cluster, &["--binary", NEW, &file]).expect(0);
    cluster.expect_no_change();
    assert_eq!(versions(&cluster), ["3.5.1"; 3]);
}

#[test]
fn a_leap_and_another_server_are_refused() {
    let cluster = Cluster::up(ETCD, false, &ALL);
    let sandbox = &cluster.sandbox;
    let leap = program(sandbox, "leap", "echo 'etcd Version: 3.6.0'");
    let before = fs::read_to_string(&cluster.file).unwrap();
    upgrade(&cluster, &["--binary", &leap, &cluster.file])
        .expect(6)
        .says(&["cannot go from 3.4.23 to 3.6.0", "one minor at a time"]);
    upgrade(&cluster, &["--binary", "/nowhere/etcd", &cluster.file])
        .expect(1)
        .says(&["no /nowhere/etcd binary"]);
    assert_eq!(fs::read_to_string(&cluster.file).unwrap(), before);
    cluster.expect_no_change();
}

#[test]
fn a_program_that_was_replaced_in_its_place_is_noticed() {
    let sandbox = Sandbox::new();
    let path = sandbox.path().join("etcd");
    fs::copy(OLD, &path).unwrap();
    let binary = format!("binary = \"{}\"", path.display());
    let file = sandbox.topology(CLUSTER, 1, false, &binary);
    sandbox.provision(&["up", &file]).expect(0);
    fs::remove_file(&path).unwrap();
    fs::copy(NEW, &path).unwrap();
    sandbox
        .provision(&["plan", "--detailed-exitcode", "--accept-downtime", &file])
        .expect(2)
        .shows(&["restart m0", "version 3.4.23 -> 3.5.1"]);
    // One member alone is without quorum while it restarts.
    sandbox
        .provision(&["up", "--accept-downtime", &file])
        .expect(0);
    sandbox
        .provision(&["plan", "--detailed-exitcode", &file])
        .expect(0);
}

fn upgrade(cluster: &Cluster, args: &[&str]) -> Done {
    cluster.sandbox.provision(&[&["upgrade"], args].concat())
}

fn versions(cluster: &Cluster) -> Vec<String> {
    let status = cluster.sandbox.status(CLUSTER);
    let members = status["members"].as_array().unwrap().iter();
    members
        .map(|member| member["version"].as_str().unwrap().to_owned())
        .collect()
}

/// What stands beside the members' data.
fn written(cluster: &Cluster) -> Vec<String> {
    let file = |member: &&str| cluster.sandbox.member(CLUSTER, member).join("version.txt");
    let files = ALL.iter().map(file);
    files
        .map(|file| fs::read_to_string(file).unwrap())
        .collect()
}

fn program(sandbox: &Sandbox, name: &str, script: &str) -> String {
    let path = sandbox.path().join(name);
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.display().to_string()
}
