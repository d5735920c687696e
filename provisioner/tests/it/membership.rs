//! Members that come, go, are replaced and restart, with writers and readers at work, and with the program killed anywhere.

#![expect(
    clippy::print_stdout,
    reason = "what a run saw belongs in the test's output"
)]

use std::fs;

use serde_json::Value;

use crate::living::{CLUSTER, Cluster, kinds, steps};
use crate::sandbox::{Server, each_server, finish, wait_until};

/// Acknowledged writes before and after each change.
const SOME: u64 = 100;

each_server! {
    three_grow_to_five_and_shrink_to_other_three_without_losing_a_write
    a_change_that_is_killed_at_any_step_is_finished_by_the_next_up
    a_member_without_data_is_replaced
    a_living_leader_is_replaced
    a_member_moves_to_another_address
    a_name_is_used_again_with_fresh_data
    members_restart_on_request_and_the_leader_moves
    a_learner_stays_one_until_the_file_says_otherwise
    members_are_added_to_a_cluster_that_was_stopped
}

fn three_grow_to_five_and_shrink_to_other_three_without_losing_a_write(server: Server) {
    let cluster = Cluster::up(server, true, &["m0", "m1", "m2"]);
    let founders = cluster.pids(&["m0", "m1", "m2"]);
    let mut writing = cluster.write();
    writing.acknowledge(SOME);

    cluster.want(&["m0", "m1", "m2", "m3", "m4"]);
    let grown = cluster.apply();
    assert_eq!(
        kinds(&grown),
        [
            "remember",
            "write-certificates",
            "add-learner",
            "join",
            "promote",
            "add-learner",
            "join",
            "promote"
        ]
    );
    cluster.expect_voters(&["m0", "m1", "m2", "m3", "m4"]);
    assert_eq!(
        cluster.pids(&["m0", "m1", "m2"]),
        founders,
        "nobody restarts because others come"
    );
    writing.acknowledge(SOME);

    // The leader is among those that go.
    let leader = cluster.leader();
    let stays = ["m0", "m1", "m2", "m3", "m4"].map(str::to_owned);
    let mut stays: Vec<String> = stays.into_iter().filter(|name| *name != leader).collect();
    stays.remove(0);
    let stays: Vec<&str> = stays.iter().map(String::as_str).collect();
    cluster.want(&stays);
    let shrunk = cluster.apply();
    let steps = steps(&shrunk);
    let removed: Vec<&Value> = steps
        .iter()
        .filter(|step| step["step"] == "remove")
        .collect();
    assert_eq!(removed.len(), 2, "{shrunk}");
    assert_eq!(removed[1]["member"], leader.as_str(), "{shrunk}");
    assert!(steps.iter().any(|step| step["step"] == "move-leader"));
    assert!(
        shrunk["receipt"]["probes"].as_u64().unwrap() > 0,
        "{shrunk}"
    );
    cluster.expect_voters(&stays);
    let aside = cluster.sandbox.cluster(CLUSTER).join("removed");
    assert!(aside.join(format!("{leader}.1")).is_dir());
    writing.acknowledge(SOME);
    writing.judge();
    for step in steps {
        assert!(
            step["ledger"]["margin"]
                .as_i64()
                .is_none_or(|margin| margin >= 0),
            "{step}"
        );
    }
}

fn a_change_that_is_killed_at_any_step_is_finished_by_the_next_up(server: Server) {
    let cluster = Cluster::up(server, false, &["m0", "m1", "m2"]);
    let sandbox = &cluster.sandbox;
    sandbox.etcdctl(CLUSTER, &["put", "k", "before"]).expect(0);
    let leaves = cluster.leader();
    let mut wanted = vec!["m3"];
    wanted.extend(["m0", "m1", "m2"].iter().filter(|name| **name != leaves));
    cluster.want(&wanted);
    let journal = sandbox.cluster(CLUSTER).join("journal.jsonl");
    let begun = |step: &str| {
        let text = fs::read_to_string(&journal).unwrap_or_default();
        text.contains(&format!("\"event\":\"step\",\"step\":\"{step}"))
    };
    let started = sandbox.member(CLUSTER, "m3").join("process.json");
    let cuts: [(&str, &dyn Fn() -> bool); 7] = [
        ("remembering", &|| begun("remember")),
        ("adding", &|| begun("add m3")),
        ("starting", &|| begun("start m3")),
        ("having started", &|| started.exists()),
        ("promoting", &|| begun("promote m3")),
        ("removing", &|| begun("remove ")),
        ("stopping", &|| begun("stop ")),
    ];
    for (what, reached) in cuts {
        let mut up = sandbox.spawn(&["up", &cluster.file]);
        wait_until(what, || reached() || up.try_wait().unwrap().is_some());
        up.kill().unwrap();
        let up = finish(up);
        println!("killed when {what}: {}", up.stderr);
        assert!([0, 137].contains(&up.code), "{}", up.stderr);
    }
    // By its name, as somebody would who has no file at hand.
    sandbox.provision(&["up", CLUSTER]).expect(0);
    cluster.expect_no_change();
    cluster.expect_voters(&wanted);
    let gone = sandbox.member(CLUSTER, &leaves);
    assert!(!gone.join("data").exists() && !gone.join("process.json").exists());
    let get = sandbox.etcdctl(CLUSTER, &["get", "k", "--print-value-only"]);
    assert_eq!(get.expect(0).stdout, "before\n");
    assert_eq!(
        crate::sandbox::pids_in(sandbox.path()).len(),
        3,
        "nobody else runs"
    );
}

fn a_member_without_data_is_replaced(server: Server) {
    let cluster = Cluster::up(server, true, &["m0", "m1", "m2"]);
    let sandbox = &cluster.sandbox;
    let mut writing = cluster.write();
    writing.acknowledge(SOME);
    let id = cluster.id("m1");
    cluster.kill("m1");
    fs::remove_dir_all(sandbox.member(CLUSTER, "m1").join("data")).unwrap();
    sandbox
        .provision(&["up", &cluster.file])
        .expect(6)
        .says(&["m1 is gone", "provision replace demo m1"]);
    let plan = sandbox.provision(&["replace", "--dry-run", CLUSTER, "m1"]);
    let plan = plan.expect(0).stdout;
    assert!(plan.contains("remove m1 from the cluster"), "{plan}");
    assert!(plan.contains("voters 2, need 2, up 2, margin +0"), "{plan}");
    assert_eq!(cluster.listed().len(), 3, "a dry run takes no step");

    let replaced = sandbox.provision(&["replace", CLUSTER, "m1", "-o", "json"]);
    let replaced = replaced.expect(0).json();
    assert!(replaced["receipt"]["probes"].as_u64().unwrap() > 0);
    assert_ne!(cluster.id("m1"), id);
    cluster.expect_no_change();
    cluster.expect_voters(&["m0", "m1", "m2"]);
    // It holds its own against the next failure.
    cluster.kill("m0");
    writing.acknowledge(SOME);
    sandbox.provision(&["up", &cluster.file]).expect(0);
    writing.judge();
}

fn a_living_leader_is_replaced(server: Server) {
    let cluster = Cluster::up(server, false, &["m0", "m1", "m2"]);
    let leader = cluster.leader();
    let id = cluster.id(&leader);
    cluster
        .sandbox
        .provision(&["replace", CLUSTER, &leader])
        .expect(0)
        .says(&["its data is kept in"]);
    assert_ne!(cluster.id(&leader), id);
    cluster.expect_no_change();
    cluster.expect_voters(&["m0", "m1", "m2"]);

    let alone = Cluster::up(server, false, &["m0"]);
    let before = alone.pids(&["m0"]);
    alone
        .sandbox
        .provision(&["replace", CLUSTER, "m0"])
        .expect(6)
        .says(&["m0 is the only voter"]);
    assert_eq!(alone.pids(&["m0"]), before);
    alone.expect_no_change();
    alone
        .sandbox
        .provision(&["replace", CLUSTER, "m9"])
        .expect(2)
        .says(&["its members are m0"]);
}

fn a_name_is_used_again_with_fresh_data(server: Server) {
    let cluster = Cluster::up(server, false, &["m0", "m1", "m2"]);
    let id = cluster.id("m2");
    for round in 1..=2 {
        cluster.want(&["m0", "m1"]);
        cluster.apply();
        cluster.expect_voters(&["m0", "m1"]);
        cluster.want(&["m0", "m1", "m2"]);
        cluster.apply();
        cluster.expect_voters(&["m0", "m1", "m2"]);
        let aside = cluster.sandbox.cluster(CLUSTER).join("removed");
        assert!(aside.join(format!("m2.{round}/member")).is_dir());
    }
    assert_ne!(cluster.id("m2"), id);
}

fn members_restart_on_request_and_the_leader_moves(server: Server) {
    let cluster = Cluster::up(server, true, &["m0", "m1", "m2"]);
    let all = ["m0", "m1", "m2"];
    let mut writing = cluster.write();
    writing.acknowledge(SOME);
    let before = cluster.pids(&all);
    let leader = cluster.leader();
    let restarted = cluster
        .sandbox
        .provision(&["restart", CLUSTER, "-o", "json"]);
    let restarted = restarted.expect(0).json();
    let steps = steps(&restarted);
    assert_eq!(
        kinds(&restarted),
        ["restart", "restart", "move-leader", "restart"]
    );
    assert_eq!(steps[3]["member"], leader.as_str());
    let after = cluster.pids(&all);
    assert!(before.iter().all(|pid| !after.contains(pid)));
    cluster.expect_no_change();
    writing.acknowledge(SOME);

    cluster
        .sandbox
        .provision(&["restart", CLUSTER, "m1"])
        .expect(0);
    let changed = cluster.pids(&all);
    assert_eq!((changed[0], changed[2]), (after[0], after[2]));
    assert_ne!(changed[1], after[1]);

    let leader = cluster.leader();
    let to = all.into_iter().find(|name| *name != leader).unwrap();
    cluster
        .sandbox
        .provision(&["move-leader", CLUSTER, "--to", to])
        .expect(0);
    assert_eq!(cluster.leader(), to);
    cluster
        .sandbox
        .provision(&["move-leader", CLUSTER, "--to", to])
        .expect(0)
        .says(&["no change"]);
    cluster
        .sandbox
        .provision(&["move-leader", CLUSTER])
        .expect(0);
    assert_ne!(cluster.leader(), to);
    cluster.expect_no_change();
    writing.acknowledge(SOME);
    writing.judge();
}

fn a_learner_stays_one_until_the_file_says_otherwise(server: Server) {
    let cluster = Cluster::new(server, false);
    cluster.want(&["m0", "m1:learner"]);
    cluster.apply();
    let listed = cluster.listed();
    let learner = listed.iter().find(|member| member["name"] == "m1").unwrap();
    assert_eq!(learner["isLearner"], true, "{listed:?}");
    let status = cluster.sandbox.status(CLUSTER);
    assert_eq!(status["health"], "healthy", "{status}");
    assert_eq!(status["members"][1]["role"], "learner", "{status}");
    let env = cluster.sandbox.provision(&["env", CLUSTER]).expect(0);
    assert_eq!(env.stdout.matches("http://").count(), 1, "{}", env.stdout);
    // It comes back as what it is.
    cluster.kill("m1");
    cluster.apply();
    cluster.want(&["m0", "m1:learner", "m2"]);
    cluster
        .sandbox
        .provision(&["up", &cluster.file])
        .expect(6)
        .says(&["m2 cannot be added", "m1"]);

    cluster.want(&["m0", "m1"]);
    assert_eq!(kinds(&cluster.apply()), ["promote"]);
    cluster.expect_voters(&["m0", "m1"]);
    cluster.want(&["m0", "m1:learner"]);
    cluster
        .sandbox
        .provision(&["up", &cluster.file])
        .expect(6)
        .says(&["cannot become a learner"]);
}

fn a_member_moves_to_another_address(server: Server) {
    let cluster = Cluster::up(server, false, &["m0", "m1", "m2"]);
    let sandbox = &cluster.sandbox;
    sandbox.etcdctl(CLUSTER, &["put", "k", "v"]).expect(0);
    let text = fs::read_to_string(&cluster.file).unwrap();
    let moved = text.replace("name = \"m1\"", "name = \"m1\"\naddress = \"127.0.0.2\"");
    fs::write(&cluster.file, moved).unwrap();
    sandbox.provision(&["up", &cluster.file]).expect(6).says(&[
        "member m1 of cluster demo cannot move from 127.0.0.1 to 127.0.0.2",
        "provision replace FILE m1",
    ]);
    sandbox
        .provision(&["replace", &cluster.file, "m1"])
        .expect(0)
        .says(&[" 0 of "]);
    cluster.expect_voters(&["m0", "m1", "m2"]);
    cluster.expect_no_change();
    let listed = format!("{:?}", cluster.listed());
    assert!(listed.contains("http://127.0.0.2:"), "{listed}");
    // It knows who formed the cluster when all of them start again, too.
    sandbox.provision(&["down", CLUSTER]).expect(0);
    cluster.apply();
    let get = sandbox.etcdctl(CLUSTER, &["get", "k", "--print-value-only"]);
    assert_eq!(get.expect(0).stdout, "v\n");
}

fn members_are_added_to_a_cluster_that_was_stopped(server: Server) {
    let cluster = Cluster::up(server, false, &["m0"]);
    cluster
        .sandbox
        .etcdctl(CLUSTER, &["put", "k", "v"])
        .expect(0);
    cluster.sandbox.provision(&["down", CLUSTER]).expect(0);
    cluster.want(&["m0", "m1", "m2"]);
    cluster.apply();
    cluster.expect_voters(&["m0", "m1", "m2"]);
    // Who joined starts from what it remembers as the founder does.
    cluster.sandbox.provision(&["down", CLUSTER]).expect(0);
    let up = cluster.apply();
    assert_eq!(kinds(&up), ["start", "wait-ready"]);
    let get = cluster
        .sandbox
        .etcdctl(CLUSTER, &["get", "k", "--print-value-only"]);
    assert_eq!(get.expect(0).stdout, "v\n");
}
