//! What failed or was cut off is done again, and finishes.

use std::fs;

use crate::sandbox::{Sandbox, finish, kill, pids_in, wait_until};

const INT: i32 = 2;

fn with_gateway(sandbox: &Sandbox, name: &str, gateway: &str) -> String {
    let text =
        format!("name = \"{name}\"\n[[member]]\nname = \"infra0\"\n[[gateway]]\n{gateway}\n");
    sandbox.write(&format!("{name}.toml"), &text)
}

#[test]
fn a_discovery_that_came_to_nothing_is_done_again() {
    for protocol in ["private", "public", "v3"] {
        let sandbox = Sandbox::new();
        let bootstrap = format!(
            "[bootstrap]\nmethod = \"discovery\"\nservice = \"builtin\"\nprotocol = \"{protocol}\"\n"
        );
        let members = "[[member]]\nname = \"infra{0..1}\"\n[[member]]\nname = \"infra2\"\n";
        let wrong = format!(
            "name = \"demo\"\n{bootstrap}{members}flags = {{ wal-dir = \"/proc/nope\" }}\n"
        );
        let file = sandbox.write("demo.toml", &wrong);
        // All three have registered by the time that the third fails.
        sandbox
            .provision(&["up", &file])
            .expect(1)
            .says(&["member infra2: start", "what was started is stopped again"]);
        assert_eq!(pids_in(&sandbox.cluster("demo")), [0; 0]);
        sandbox.write(
            "demo.toml",
            &format!("name = \"demo\"\n{bootstrap}{members}"),
        );
        sandbox.provision(&["up", &file]).expect(0);
        sandbox
            .provision(&["plan", "--detailed-exitcode", &file])
            .expect(0);
        sandbox
            .provision(&["down", "--purge", "--yes", "demo"])
            .expect(0);
    }
}

#[test]
fn an_interrupted_first_boot_leaves_nothing_running() {
    let sandbox = Sandbox::new();
    let file = sandbox.write(
        "demo.toml",
        "name = \"demo\"\n[bootstrap]\nmethod = \"discovery\"\nservice = \"builtin\"\n[[member]]\nname = \"infra{0..2}\"\n",
    );
    let up = sandbox.spawn(&["up", &file]);
    let record = sandbox
        .cluster("demo")
        .join("services/discovery/process.json");
    wait_until("the discovery service runs", || record.exists());
    kill(up.id().try_into().unwrap(), INT);
    // It may have come up just before it was asked to stop.
    if finish(up).code == 130 {
        assert_eq!(pids_in(&sandbox.cluster("demo")), [0; 0]);
    }
    sandbox.provision(&["up", &file]).expect(0);
    sandbox
        .provision(&["down", "--purge", "--yes", "demo"])
        .expect(0);
}

#[test]
fn somebody_elses_answer_is_not_a_services_own() {
    let sandbox = Sandbox::new();
    let first = with_gateway(&sandbox, "first", "listen = \"127.0.0.1\"");
    let up = sandbox.provision(&["up", &first]).expect(0);
    let taken = up
        .stderr
        .lines()
        .find(|line| line.contains("gateway0  answers"))
        .and_then(|line| line.split(' ').find(|word| word.starts_with("127.0.0.1:")))
        .unwrap()
        .to_owned();
    let second = with_gateway(&sandbox, "second", &format!("listen = \"{taken}\""));
    sandbox.provision(&["up", &second]).expect(1).says(&[
        "gateway0  its port is taken",
        &format!("{taken} is held by pid "),
    ]);
    sandbox.provision(&["down", "first"]).expect(0);
    sandbox.provision(&["up", &second]).expect(0);
    for name in ["first", "second"] {
        sandbox
            .provision(&["down", "--purge", "--yes", name])
            .expect(0);
    }
}

#[test]
fn a_change_beside_the_members_is_remembered() {
    let sandbox = Sandbox::new();
    let file = with_gateway(&sandbox, "demo", "listen = \"127.0.0.1\"");
    sandbox.provision(&["up", &file]).expect(0);
    with_gateway(
        &sandbox,
        "demo",
        "listen = \"127.0.0.1\"\nbinary = \"/usr/bin/etcd\"",
    );
    sandbox
        .provision(&["up", &file])
        .expect(0)
        .says(&["gateway0  answers"]);
    for target in [file.as_str(), "demo"] {
        sandbox
            .provision(&["plan", "--detailed-exitcode", target])
            .expect(0);
    }
    sandbox
        .provision(&["down", "--purge", "--yes", "demo"])
        .expect(0);
}

#[test]
fn nothing_is_fixed_before_a_member_has_written() {
    let sandbox = Sandbox::new();
    let with = |extra: &str| {
        let text = format!("name = \"demo\"\n{extra}");
        sandbox.write("demo.toml", &text)
    };
    let file = with("[[member]]\nname = \"infra0\"\nflags = { wal-dir = \"/proc/nope\" }\n");
    sandbox
        .provision(&["up", &file])
        .expect(1)
        .says(&["cannot create directory /proc/nope"]);
    let data = sandbox.member("demo", "infra0").join("data");
    assert_eq!(fs::read_dir(&data).unwrap().count(), 1, "the claim alone");
    with("tls = { peer = \"mutual\", client = \"mutual\" }\n[[member]]\nname = \"infra0\"\n");
    sandbox.provision(&["up", &file]).expect(0);
    // Now it has.
    with("[[member]]\nname = \"infra0\"\n");
    sandbox
        .provision(&["up", &file])
        .expect(6)
        .says(&["cannot change"]);
    sandbox
        .provision(&["down", "--purge", "--yes", "demo"])
        .expect(0);
}
