//! `status`, `list`, `env`, `exec`, `logs`.

use std::process::Command;

use crate::sandbox::{Sandbox, Server, each_server, kill, wait_until};

each_server! {
    status_shows_every_member_and_its_health
    clusters_are_listed_by_name
    env_makes_etcdctl_work_in_a_shell
    exec_returns_the_commands_code
    kube_apiserver_uses_the_cluster_with_the_flags_that_are_printed
    logs_are_shown_and_followed
}

fn status_shows_every_member_and_its_health(server: Server) {
    let sandbox = Sandbox::new();
    let file = sandbox.topology("demo", 3, true, server.binary);
    sandbox.provision(&["up", &file]).expect(0);
    let status = sandbox.status("demo");
    assert_eq!(status["name"], "demo");
    let members = status["members"].as_array().unwrap();
    assert_eq!(
        members
            .iter()
            .filter(|member| member["leader"] == true)
            .count(),
        1
    );
    for member in members {
        let id = member["id"].as_str().unwrap();
        assert!(u64::from_str_radix(id, 16).is_ok(), "{id}");
        assert!(member["pid"].as_u64().is_some() && member["db_size"].as_i64().is_some());
        assert!(member["term"].as_u64().unwrap() > 0 && member["revision"].as_i64().unwrap() > 0);
        assert!(member["applied_index"].as_u64().unwrap() > 0);
        assert!(member["cert_days_left"].as_i64().unwrap() > 0);
        assert_eq!(member["role"], "voter");
        assert_eq!(member["host"], "127.0.0.1");
        assert!(
            member["endpoints"][0]
                .as_str()
                .unwrap()
                .starts_with("https://127.0.0.1:")
        );
    }
    let table = sandbox.provision(&["status", "demo"]).expect(0).stdout;
    assert!(
        table.contains("leader") && table.contains("cluster demo is healthy"),
        "{table}"
    );

    kill(sandbox.pid("demo", "m2").unwrap(), 9);
    wait_until("degraded", || {
        sandbox.provision(&["status", "demo"]).code == 4
    });
    let status = sandbox.status("demo");
    assert_eq!(status["members"][2]["state"], "stopped");
}

fn clusters_are_listed_by_name(server: Server) {
    let sandbox = Sandbox::new();
    assert_eq!(
        sandbox.provision(&["list", "-o", "json"]).expect(0).json()["clusters"],
        serde_json::json!([])
    );
    for name in ["two", "one"] {
        let file = sandbox.topology(name, 1, false, server.binary);
        sandbox.provision(&["up", &file]).expect(0);
    }
    sandbox.provision(&["down", "two"]).expect(0);
    let clusters = sandbox.provision(&["list", "-o", "json"]).expect(0).json();
    let names: Vec<(&str, &str)> = clusters["clusters"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| {
            (
                entry["name"].as_str().unwrap(),
                entry["state"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(names, [("one", "running"), ("two", "stopped")]);
    assert_ne!(
        clusters["clusters"][0]["endpoints"],
        clusters["clusters"][1]["endpoints"]
    );
}

fn env_makes_etcdctl_work_in_a_shell(server: Server) {
    let sandbox = Sandbox::new();
    let file = sandbox.topology("demo", 1, true, server.binary);
    sandbox.provision(&["up", &file]).expect(0);
    let script = format!(
        "eval \"$({} env {file})\" && etcdctl put k v && etcdctl get k",
        env!("CARGO_BIN_EXE_provision")
    );
    let output = Command::new("sh")
        .args(["-c", &script])
        .env("PROVISION_STATE_DIR", sandbox.state())
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "OK\nk\nv\n",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn exec_returns_the_commands_code(server: Server) {
    let sandbox = Sandbox::new();
    let file = sandbox.topology("demo", 1, true, server.binary);
    sandbox
        .provision(&["exec", &file, "--", "true"])
        .expect(2)
        .says(&["provision up"]);
    sandbox.provision(&["up", &file]).expect(0);
    sandbox
        .provision(&["exec", "demo", "--", "sh", "-c", "exit 42"])
        .expect(42);
    let seen = sandbox
        .provision(&["exec", "demo", "--", "printenv", "ETCDCTL_CERT"])
        .expect(0)
        .stdout;
    assert!(std::path::Path::new(seen.trim()).is_file(), "{seen}");
    sandbox
        .provision(&["exec", "demo", "--", "no-such-command"])
        .expect(1)
        .says(&["no-such-command"]);
}

fn logs_are_shown_and_followed(server: Server) {
    let sandbox = Sandbox::new();
    let file = sandbox.topology("demo", 3, false, server.binary);
    sandbox.provision(&["up", &file]).expect(0);
    let all = sandbox.provision(&["logs", "demo"]).expect(0).stdout;
    for member in ["m0 | ", "m1 | ", "m2 | "] {
        assert!(all.contains(member), "{all}");
    }
    crate::sandbox::wait_until("three lines of one member", || {
        let logged = sandbox.provision(&["logs", "demo", "m1"]).expect(0).stdout;
        logged.lines().count() >= 3
    });
    let one = sandbox
        .provision(&["logs", "-n", "3", "demo", "m1"])
        .expect(0)
        .stdout;
    assert_eq!(one.lines().count(), 3);
    assert!(!one.contains("m1 | "), "one member needs no prefix");
    sandbox
        .provision(&["logs", "demo", "m9"])
        .expect(2)
        .says(&["m0, m1, m2"]);

    let mut follow = sandbox.spawn(&["logs", "-f", "-n", "1", "demo", "m0"]);
    let mut stdout = std::io::BufReader::new(follow.stdout.take().unwrap());
    let mut line = String::new();
    // Once the last line is there, everything that comes after it is followed.
    std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
    assert!(!line.is_empty());
    kill(sandbox.pid("demo", "m0").unwrap(), 15);
    line.clear();
    std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
    assert!(!line.is_empty());
    kill(i32::try_from(follow.id()).unwrap(), 2);
    assert_eq!(crate::sandbox::finish(follow).code, 130);
}

fn kube_apiserver_uses_the_cluster_with_the_flags_that_are_printed(server: Server) {
    let sandbox = Sandbox::new();
    let gateway = format!("[[gateway]]\nlisten = \"127.0.0.1\"\n{}\n", server.binary);
    let text = |clients: &str, gateway: &str| {
        format!(
            "name = \"demo\"\n[tls]\npeer = \"mutual\"\nclient = \"mutual\"\nclients = [{clients}]\n{gateway}\n\
             [[member]]\nname = \"m\"\n{}\n",
            server.binary
        )
    };
    let file = sandbox.write("demo.toml", &text("\"kube-apiserver\"", &gateway));
    sandbox.provision(&["up", &file]).expect(0);
    let render = ["render", "--format", "kube-apiserver", &file];
    let flags = sandbox.provision(&render).expect(0).stdout;
    let value = |name: &str| {
        let flag = format!("--etcd-{name}=");
        let found = flags.lines().find_map(|line| line.strip_prefix(&flag));
        found
            .unwrap_or_else(|| panic!("{name}: {flags}"))
            .to_owned()
    };
    assert_eq!(value("prefix"), "/registry");
    let status = sandbox.status("demo");
    let member = status["members"][0]["endpoints"][0].as_str().unwrap();
    assert_ne!(value("servers"), member, "the gateway's");
    let put = [
        format!("--endpoints={}", value("servers")),
        format!("--cacert={}", value("cafile")),
        format!("--cert={}", value("certfile")),
        format!("--key={}", value("keyfile")),
    ];
    let mut args: Vec<&str> = put.iter().map(String::as_str).collect();
    args.extend(["put", "/registry/a", "b"]);
    sandbox.etcdctl("demo", &args).expect(0);
    let subject = Command::new("openssl")
        .args(["x509", "-noout", "-subject", "-in", &value("certfile")])
        .output()
        .unwrap();
    let subject = String::from_utf8(subject.stdout).unwrap();
    assert!(subject.contains("CN = kube-apiserver"), "{subject}");
    sandbox
        .provision(&["plan", "--detailed-exitcode", &file])
        .expect(0);

    // A client that the topology does not have any more is not renewed; a new one needs no restart.
    sandbox.write(
        "demo.toml",
        &text("\"kube-apiserver\", \"backup\"", &gateway),
    );
    let plan = sandbox.provision(&["plan", &file]).expect(0).stdout;
    assert!(
        plan.starts_with("cluster demo: 1 step\n")
            && plan.contains("client certificate of backup: missing"),
        "{plan}"
    );
    sandbox.provision(&["up", &file]).expect(0);
    sandbox
        .provision(&["down", "--purge", "--yes", "demo"])
        .expect(0);
}

#[test]
fn what_was_done_is_listed_with_its_outcome() {
    let sandbox = Sandbox::new();
    let file = sandbox.topology("demo", 3, false, "");
    sandbox.provision(&["up", &file]).expect(0);
    sandbox.provision(&["restart", "demo", "m1"]).expect(0);
    let refused = sandbox.provision(&["audit", "demo", "3"]).expect(2);
    refused.says(&["has no run 3"]);
    let runs = sandbox
        .provision(&["audit", "demo", "-o", "json"])
        .expect(0)
        .json();
    let of = |run: usize, key: &str| runs["runs"][run][key].clone();
    assert_eq!(
        (of(0, "verb"), of(1, "verb")),
        ("up".into(), "restart".into())
    );
    assert_eq!(of(1, "outcome"), "done");
    assert_eq!(of(1, "planned"), of(1, "steps").as_array().unwrap().len());
    assert!(of(1, "who").as_str().unwrap().contains('@'));
    sandbox
        .provision(&["audit", "demo"])
        .expect(0)
        .shows(&["RUN", "restart", "longest write gap"]);
    sandbox
        .provision(&["audit", "demo", "2"])
        .expect(0)
        .shows(&[
            "run 2: restart by ",
            "done  restart m1",
            "note  longest write gap",
        ]);
}
