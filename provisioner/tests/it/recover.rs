//! Clusters that lost the majority of their members, and go on from one of the others.

use std::fs;

use crate::living::{CLUSTER, Cluster, kinds};
use crate::sandbox::{Done, ETCD, Server, each_server, is_running, kill, wait_until};

const ALL: [&str; 5] = ["m0", "m1", "m2", "m3", "m4"];

each_server! {
    five_come_back_from_the_survivor_that_knows_most
    a_recovery_that_is_killed_is_finished_by_the_next
}

fn five_come_back_from_the_survivor_that_knows_most(server: Server) {
    let cluster = Cluster::up(server, true, &ALL);
    put(&cluster, "before").expect(0);
    // The one that has not heard of the last writes: it is dead while they are made.
    let behind = if cluster.leader() == "m4" { "m3" } else { "m4" };
    let knows = if behind == "m4" { "m3" } else { "m4" };
    cluster.kill(behind);
    for number in 0..20 {
        put(&cluster, &format!("write {number}")).expect(0);
    }
    let lost = ["m0", "m1", "m2"];
    recover(&cluster, &["--accept-data-loss"])
        .expect(6)
        .says(&["answers linearizable reads, so it has a quorum"]);
    destroy(&cluster, &lost);
    wait_until("the survivors know that they are too few", || {
        let status = cluster.sandbox.status(CLUSTER);
        status["members"]
            .as_array()
            .unwrap()
            .iter()
            .all(|member| member["state"] != "ready")
    });
    cluster.sandbox.provision(&["status", CLUSTER]).expect(5);

    // A member that does not run is judged by its log, where that is etcd's.
    let from: &[&str] = if server.binary.is_empty() {
        recover(&cluster, &["--dry-run"])
            .expect(6)
            .says(&[&format!("{behind} has data and does not run"), "--from"]);
        &["--from", knows]
    } else {
        &[]
    };
    let dry = recover(&cluster, &[from, &["--dry-run"]].concat()).expect(0);
    let chosen = dry.stderr.lines().find(|line| line.ends_with("goes on"));
    let expected = format!("{knows} has data: term ");
    assert!(chosen.unwrap().starts_with(&expected), "{}", dry.stderr);
    dry.shows(&[&format!("make a cluster of {knows} alone, with its data")]);
    recover(&cluster, from).expect(6).says(&[
        &format!("would go on with what {knows} knows"),
        "--accept-data-loss",
    ]);

    let sure = [from, &["--accept-data-loss", "-o", "json"]].concat();
    let up = recover(&cluster, &sure);
    let up = up.expect(0).json();
    assert!(kinds(&up).contains(&"alone"), "{up}");
    cluster.expect_voters(&ALL);
    cluster.expect_no_change();
    get(&cluster, "write 19");
    // What the other survivor had is kept.
    let aside = cluster.sandbox.cluster(CLUSTER).join("removed");
    assert!(aside.join(format!("{behind}.1")).is_dir());
    // Nothing of the exception is left: it starts as every other, and knows the others.
    cluster
        .sandbox
        .provision(&["restart", CLUSTER])
        .expect(0)
        .says(&[" 0 of "]);
    cluster.expect_voters(&ALL);
    get(&cluster, "write 19");
}

fn a_recovery_that_is_killed_is_finished_by_the_next(server: Server) {
    let cluster = Cluster::up(server, false, &ALL);
    put(&cluster, "before").expect(0);
    destroy(&cluster, &["m0", "m1", "m2"]);
    let sandbox = &cluster.sandbox;
    let journal = sandbox.cluster(CLUSTER).join("journal.jsonl");
    let begun = |step: &str| {
        let text = fs::read_to_string(&journal).unwrap_or_default();
        text.contains(&format!("\"event\":\"step\",\"step\":\"{step}"))
    };
    let flags = ["recover", CLUSTER, "--from", "m3", "--accept-data-loss"];
    for cut in ["remember", "stop", "make a cluster"] {
        let mut run = sandbox.spawn(&flags);
        wait_until(cut, || begun(cut) || run.try_wait().unwrap().is_some());
        run.kill().unwrap();
        run.wait().unwrap();
    }
    // Once the survivor stands alone there is a cluster, which `up` completes.
    let again = sandbox.provision(&flags);
    if again.code != 0 {
        assert_eq!(again.code, 6, "{}", again.stderr);
        again.says(&["it has a quorum"]);
        sandbox.provision(&["up", CLUSTER]).expect(0);
    }
    cluster.expect_voters(&ALL);
    cluster.expect_no_change();
    get(&cluster, "before");
}

#[test]
fn survivors_that_do_not_run_are_judged_by_their_logs() {
    let cluster = Cluster::up(ETCD, false, &ALL);
    put(&cluster, "before").expect(0);
    let behind = if cluster.leader() == "m4" { "m3" } else { "m4" };
    let knows = if behind == "m4" { "m3" } else { "m4" };
    cluster.kill(behind);
    for number in 0..20 {
        put(&cluster, &format!("write {number}")).expect(0);
    }
    destroy(&cluster, &["m0", "m1", "m2"]);
    cluster.kill(knows);
    let up = recover(&cluster, &["--accept-data-loss"]).expect(0);
    let line = up.stderr.lines().find(|line| line.ends_with("goes on"));
    assert!(line.unwrap().starts_with(knows), "{}", up.stderr);
    cluster.expect_voters(&ALL);
    // The last write may have ended with those who knew that it was committed.
    let get = cluster
        .sandbox
        .etcdctl(CLUSTER, &["get", "k", "--print-value-only"]);
    let last = get.expect(0).stdout;
    assert!(
        ["write 18", "write 19"].contains(&last.trim_end()),
        "{last}"
    );
}

#[test]
fn a_majority_that_has_its_data_is_not_given_up() {
    let cluster = Cluster::up(ETCD, false, &["m0", "m1", "m2"]);
    for name in ["m0", "m1", "m2"] {
        cluster.kill(name);
    }
    recover(&cluster, &["--accept-data-loss"])
        .expect(6)
        .says(&["have their data: a majority", "provision up demo"]);
    cluster.sandbox.provision(&["up", CLUSTER]).expect(0);
    let file = cluster.sandbox.topology("new", 3, false, "");
    cluster
        .sandbox
        .provision(&["recover", "--accept-data-loss", &file])
        .expect(2)
        .says(&["has not been brought up"]);
}

fn recover(cluster: &Cluster, flags: &[&str]) -> Done {
    let args = [&["recover"], flags, &[CLUSTER]].concat();
    cluster.sandbox.provision(&args)
}

fn put(cluster: &Cluster, value: &str) -> Done {
    cluster.sandbox.etcdctl(CLUSTER, &["put", "k", value])
}

#[track_caller]
fn get(cluster: &Cluster, value: &str) {
    let get = cluster
        .sandbox
        .etcdctl(CLUSTER, &["get", "k", "--print-value-only"]);
    assert_eq!(get.expect(0).stdout.trim_end(), value);
}

/// Ends members and takes their disks away.
fn destroy(cluster: &Cluster, names: &[&str]) {
    for name in names {
        let pid = cluster.sandbox.pid(CLUSTER, name).unwrap();
        kill(pid, 9);
        wait_until("the destroyed member is dead", || !is_running(pid));
        let data = cluster.sandbox.member(CLUSTER, name).join("data");
        fs::remove_dir_all(data).unwrap();
    }
}
