//! `up` and `plan`: first boot, convergence, restarts.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::sandbox::{Sandbox, Server, each_server, is_running, kill, wait_until};

each_server! {
    first_up_makes_a_cluster_that_etcdctl_uses_over_mutual_tls
    members_outlive_the_program_and_its_terminal
    killed_members_come_back_with_their_data_under_a_running_writer
    a_changed_flag_restarts_one_member_at_a_time_and_the_leader_last
    a_single_member_restarts_only_when_downtime_is_accepted
    a_lost_quorum_comes_back
    plaintext_and_server_tls_work
    down_keeps_and_purge_deletes
    client_ports_move_one_member_at_a_time
    a_missing_record_does_not_start_a_member_twice
}

fn first_up_makes_a_cluster_that_etcdctl_uses_over_mutual_tls(server: Server) {
    let sandbox = Sandbox::new();
    let file = sandbox.topology("demo", 3, true, server.binary);

    let plan = sandbox
        .provision(&["plan", "--detailed-exitcode", &file])
        .expect(2);
    assert!(plan.stdout.contains("start m0, m1, m2"), "{}", plan.stdout);
    assert!(!sandbox.state().exists(), "plan only looks");

    let up = sandbox.provision(&["up", &file, "-o", "json"]).expect(0);
    assert_eq!(up.json()["changed"], true);
    assert_eq!(up.json()["endpoints"].as_array().unwrap().len(), 3);

    sandbox.etcdctl("demo", &["put", "k", "v"]).expect(0);
    assert_eq!(
        sandbox.etcdctl("demo", &["get", "k"]).expect(0).stdout,
        "k\nv\n"
    );
    let listed = sandbox
        .etcdctl("demo", &["member", "list"])
        .expect(0)
        .stdout;
    assert_eq!(listed.lines().count(), 3, "{listed}");

    let again = sandbox
        .provision(&["up", &file, "-o", "json"])
        .expect(0)
        .json();
    assert_eq!(again["changed"], false);
    assert_eq!(again["steps"]["steps"].as_array().unwrap().len(), 0);
    sandbox
        .provision(&["plan", "--detailed-exitcode", &file])
        .expect(0);
    sandbox
        .provision(&["plan", "--detailed-exitcode", "demo"])
        .expect(0);

    let mut open = Vec::new();
    modes_below(&sandbox.cluster("demo"), &mut open);
    assert!(open.is_empty(), "others may read {open:?}");
}

// Directories 0700 and keys 0600; a member decides about its own files below its 0700 data directory.
fn modes_below(dir: &std::path::Path, open: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let (path, meta) = (entry.path(), entry.metadata().unwrap());
        let exposed = meta.permissions().mode() & 0o077 != 0;
        let secret = meta.is_dir()
            || path
                .extension()
                .is_some_and(|ext| ext == "key" || ext == "json");
        if exposed && secret {
            open.push(path.clone());
        }
        if meta.is_dir() && !path.ends_with("data") {
            modes_below(&path, open);
        }
    }
}

fn members_outlive_the_program_and_its_terminal(server: Server) {
    let sandbox = Sandbox::new();
    let file = sandbox.topology("demo", 1, false, server.binary);
    sandbox.provision(&["up", &file]).expect(0);
    let pid = sandbox.pid("demo", "m0").unwrap();
    assert!(is_running(pid));
    let session = Command::new("ps")
        .args(["-o", "sid=", "-p", &pid.to_string()])
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&session.stdout).trim(),
        pid.to_string()
    );
}

fn killed_members_come_back_with_their_data_under_a_running_writer(server: Server) {
    let sandbox = Sandbox::new();
    let file = sandbox.topology("demo", 3, true, server.binary);
    sandbox.provision(&["up", &file]).expect(0);
    let endpoints = || sandbox.provision(&["env", "demo"]).expect(0).stdout;
    let before = endpoints();

    let stop = AtomicBool::new(false);
    let written = AtomicUsize::new(0);
    let acknowledged = std::thread::scope(|scope| {
        // A failed assertion below must end the writer too, or the scope waits for it without end.
        let stopped = StopOnDrop(&stop);
        let writer = scope.spawn(|| {
            let mut acknowledged = Vec::new();
            let mut number = 0;
            while !stop.load(Ordering::Relaxed) {
                number += 1;
                let key = format!("k{number}");
                if sandbox.etcdctl("demo", &["put", &key, "v"]).code == 0 {
                    acknowledged.push(key);
                    written.fetch_add(1, Ordering::Relaxed);
                }
            }
            acknowledged
        });
        for member in ["m0", "m1", "m2"] {
            let before = written.load(Ordering::Relaxed);
            wait_until("the writer writes", || {
                written.load(Ordering::Relaxed) > before
            });
            let pid = sandbox.pid("demo", member).unwrap();
            kill(pid, 9);
            wait_until("the member is dead", || !is_running(pid));
            let up = sandbox
                .provision(&["up", &file, "-o", "json"])
                .expect(0)
                .json();
            assert_eq!(up["steps"]["steps"][0]["step"], "start");
            assert_eq!(up["steps"]["steps"][0]["members"][0], member);
            assert_ne!(sandbox.pid("demo", member).unwrap(), pid);
            sandbox
                .provision(&["plan", "--detailed-exitcode", &file])
                .expect(0);
        }
        drop(stopped);
        writer.join().unwrap()
    });
    assert_eq!(endpoints(), before, "ports are remembered");
    let present = sandbox
        .etcdctl("demo", &["get", "k", "--prefix", "--keys-only"])
        .expect(0)
        .stdout;
    let present: Vec<&str> = present.split_whitespace().collect();
    let lost: Vec<&String> = acknowledged
        .iter()
        .filter(|key| !present.contains(&key.as_str()))
        .collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn a_changed_flag_restarts_one_member_at_a_time_and_the_leader_last(server: Server) {
    let sandbox = Sandbox::new();
    let file = sandbox.topology("demo", 3, true, server.binary);
    sandbox.provision(&["up", &file]).expect(0);
    let status = sandbox.status("demo");
    let leader = status["members"]
        .as_array()
        .unwrap()
        .iter()
        .find(|member| member["leader"] == true)
        .unwrap();
    let leader = leader["name"].as_str().unwrap().to_owned();

    let text = fs::read_to_string(&file)
        .unwrap()
        .replace("[tls]", "[defaults]\nheartbeat-interval = 90\n[tls]");
    fs::write(&file, text).unwrap();
    let plan = sandbox.provision(&["plan", &file]).expect(0).stdout;
    assert!(
        plan.contains("--heartbeat-interval default -> 90")
            || plan.contains("--heartbeat-interval 100 -> 90"),
        "{plan}"
    );

    let up = sandbox
        .provision(&["up", &file, "-o", "json"])
        .expect(0)
        .json();
    let restarts: Vec<&str> = up["steps"]["steps"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|step| step["step"] == "restart")
        .map(|step| step["member"].as_str().unwrap())
        .collect();
    assert_eq!(restarts.len(), 3);
    assert_eq!(*restarts.last().unwrap(), leader);
    assert_eq!(up["receipt"]["failed"], 0, "{up}");
    assert!(up["receipt"]["probes"].as_u64().unwrap() > 0);
    for member in ["m0", "m1", "m2"] {
        let argv = fs::read_to_string(format!(
            "/proc/{}/cmdline",
            sandbox.pid("demo", member).unwrap()
        ))
        .unwrap();
        assert!(argv.contains("--heartbeat-interval=90"), "{argv}");
    }
    sandbox
        .provision(&["plan", "--detailed-exitcode", &file])
        .expect(0);
    let keys = sandbox
        .etcdctl("demo", &["get", "", "--prefix", "--keys-only"])
        .expect(0)
        .stdout;
    assert_eq!(keys.trim(), "", "the probe cleans up");
}

fn a_single_member_restarts_only_when_downtime_is_accepted(server: Server) {
    let sandbox = Sandbox::new();
    let file = sandbox.topology("demo", 1, false, server.binary);
    sandbox.provision(&["up", &file]).expect(0);
    let pid = sandbox.pid("demo", "m0").unwrap();
    let text = fs::read_to_string(&file)
        .unwrap()
        .replace("[tls]", "[defaults]\nheartbeat-interval = 90\n[tls]");
    fs::write(&file, text).unwrap();
    for verb in ["plan", "up"] {
        sandbox.provision(&[verb, &file]).expect(6).says(&[
            "without quorum",
            "margin -1",
            "--accept-downtime",
        ]);
    }
    assert!(is_running(pid), "a refusal touches nothing");
    sandbox
        .provision(&["up", "--accept-downtime", &file])
        .expect(0);
    assert_ne!(sandbox.pid("demo", "m0").unwrap(), pid);
    sandbox
        .provision(&["plan", "--detailed-exitcode", &file])
        .expect(0);
}

fn a_lost_quorum_comes_back(server: Server) {
    let sandbox = Sandbox::new();
    let file = sandbox.topology("demo", 3, false, server.binary);
    sandbox.provision(&["up", &file]).expect(0);
    sandbox.etcdctl("demo", &["put", "k", "v"]).expect(0);
    kill(sandbox.pid("demo", "m0").unwrap(), 9);
    wait_until("degraded", || {
        sandbox.provision(&["status", "demo"]).code == 4
    });
    kill(sandbox.pid("demo", "m1").unwrap(), 9);
    wait_until("quorum lost", || {
        sandbox.provision(&["status", "demo"]).code == 5
    });
    sandbox.provision(&["up", "demo"]).expect(0);
    sandbox.provision(&["status", "demo"]).expect(0);
    assert_eq!(
        sandbox.etcdctl("demo", &["get", "k"]).expect(0).stdout,
        "k\nv\n"
    );
}

fn plaintext_and_server_tls_work(server: Server) {
    let sandbox = Sandbox::new();
    let file = sandbox.topology("plain", 1, false, server.binary);
    sandbox.provision(&["up", &file]).expect(0);
    sandbox.etcdctl("plain", &["put", "k", "v"]).expect(0);

    let file = sandbox.topology("half", 1, true, server.binary);
    let text = fs::read_to_string(&file)
        .unwrap()
        .replace("client = \"mutual\"", "client = \"server\"");
    fs::write(&file, text).unwrap();
    sandbox.provision(&["up", &file]).expect(0);
    sandbox.etcdctl("half", &["put", "k", "v"]).expect(0);
    let env = sandbox.provision(&["env", "half"]).expect(0).stdout;
    assert!(
        env.contains("export ETCDCTL_CACERT=") && env.contains("unset ETCDCTL_CERT\n"),
        "{env}"
    );
}

fn down_keeps_and_purge_deletes(server: Server) {
    let sandbox = Sandbox::new();
    let file = sandbox.topology("demo", 3, false, server.binary);
    sandbox.provision(&["up", &file]).expect(0);
    sandbox.etcdctl("demo", &["put", "k", "v"]).expect(0);
    let pids: Vec<i32> = ["m0", "m1", "m2"]
        .iter()
        .map(|member| sandbox.pid("demo", member).unwrap())
        .collect();
    sandbox.provision(&["down", "demo"]).expect(0);
    assert!(pids.iter().all(|pid| !is_running(*pid)));
    sandbox
        .provision(&["down", "demo"])
        .expect(0)
        .says(&["already stopped"]);
    sandbox.provision(&["status", "demo"]).expect(5);

    sandbox.provision(&["up", "demo"]).expect(0);
    assert_eq!(
        sandbox.etcdctl("demo", &["get", "k"]).expect(0).stdout,
        "k\nv\n"
    );
    sandbox
        .provision(&["down", "--purge", "demo"])
        .expect(6)
        .says(&["needs a confirmation", "--yes"]);
    sandbox
        .provision(&["down", "--purge", "--yes", "demo"])
        .expect(0);
    assert!(!sandbox.cluster("demo").exists());
    sandbox
        .provision(&["status", "demo"])
        .expect(2)
        .says(&["neither a topology file nor a known cluster"]);
}

fn client_ports_move_one_member_at_a_time(server: Server) {
    let sandbox = Sandbox::new();
    let file = sandbox.topology("demo", 3, false, server.binary);
    sandbox.provision(&["up", &file]).expect(0);
    let taken: Vec<TcpListener> = (0..3)
        .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    let ports: Vec<u16> = taken
        .iter()
        .map(|listener| listener.local_addr().unwrap().port())
        .collect();
    let mut text = fs::read_to_string(&file).unwrap();
    for (index, port) in ports.iter().enumerate() {
        let name = format!("name = \"m{index}\"");
        text = text.replace(&name, &format!("{name}\nclient-port = {port}"));
    }
    fs::write(&file, text).unwrap();
    let before = sandbox.pid("demo", "m0");
    sandbox
        .provision(&["up", &file])
        .expect(1)
        .says(&["client port of member m0", "is held by pid"]);
    assert_eq!(
        sandbox.pid("demo", "m0"),
        before,
        "a running member is not stopped for a port that it cannot have"
    );
    drop(taken);

    let up = sandbox
        .provision(&["up", &file, "-o", "json"])
        .expect(0)
        .json();
    assert_eq!(up["receipt"]["failed"], 0, "{up}");
    assert_eq!(up["endpoints"][2], format!("http://127.0.0.1:{}", ports[2]));
    sandbox.etcdctl("demo", &["endpoint", "health"]).expect(0);
    sandbox
        .provision(&["plan", "--detailed-exitcode", &file])
        .expect(0);
}

fn a_missing_record_does_not_start_a_member_twice(server: Server) {
    let sandbox = Sandbox::new();
    let file = sandbox.topology("demo", 1, false, server.binary);
    sandbox.provision(&["up", &file]).expect(0);
    let pid = sandbox.pid("demo", "m0").unwrap();
    fs::remove_file(sandbox.member("demo", "m0").join("process.json")).unwrap();
    let again = sandbox
        .provision(&["up", &file, "-o", "json"])
        .expect(0)
        .json();
    assert_eq!(again["changed"], false, "{again}");
    assert!(is_running(pid));
    sandbox.provision(&["down", "demo"]).expect(0);
    assert!(!is_running(pid));
}

// Not per server: what the members inherit is this program's business.
#[test]
fn settings_of_the_users_shell_do_not_reach_members() {
    let sandbox = Sandbox::new();
    let file = sandbox.topology("demo", 1, false, crate::sandbox::ETCD.binary);
    let up = sandbox
        .command(&["up", &file])
        .env("ETCD_NAME", "intruder")
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(up.success());
    let environment = fs::read(format!(
        "/proc/{}/environ",
        sandbox.pid("demo", "m0").unwrap()
    ))
    .unwrap();
    assert!(!String::from_utf8_lossy(&environment).contains("ETCD_NAME"));
}

#[test]
fn members_that_make_their_own_certificates_are_trusted_by_them() {
    let sandbox = Sandbox::new();
    let text = "name = \"auto\"\n[tls]\npeer = \"auto\"\nclient = \"auto\"\n[[member]]\nname = \"m{0..2}\"\n";
    let file = sandbox.write("auto.toml", text);
    sandbox.provision(&["up", &file]).expect(0);
    sandbox.etcdctl("auto", &["put", "k", "v"]).expect(0);
    sandbox
        .provision(&["up", "auto"])
        .expect(0)
        .says(&["no change"]);

    // A member that lost its certificate makes another, which clients are told of.
    let pid = sandbox.pid("auto", "m1").unwrap();
    kill(pid, 9);
    wait_until("m1 is gone", || !is_running(pid));
    let fixtures = sandbox.member("auto", "m1").join("data/fixtures");
    fs::remove_dir_all(fixtures).unwrap();
    sandbox.provision(&["up", "auto"]).expect(0);
    let health = ["endpoint", "health"];
    sandbox.etcdctl("auto", &health).expect(0);
    let env = sandbox.provision(&["env", "auto"]).expect(0).stdout;
    assert!(env.contains("export ETCDCTL_ENDPOINTS=https://"), "{env}");

    // Nobody else is trusted: the file is all that etcdctl goes by.
    let other = sandbox.topology("other", 1, true, "");
    sandbox.provision(&["up", &other]).expect(0);
    fs::copy(
        sandbox.cluster("other").join("pki/ca.crt"),
        sandbox.cluster("auto").join("pki/made-by-members.crt"),
    )
    .unwrap();
    sandbox.etcdctl("auto", &health).expect(1);
}

#[test]
fn certificates_that_etcd_makes_are_refused_where_provision_must_trust_them() {
    let sandbox = Sandbox::new();
    let text = |tls: &str| {
        format!(
            "name = \"auto\"\n[tls]\n{tls}\n[[member]]\nname = \"m{{0..2}}\"\nbinary = \"/usr/bin/etcd\"\n"
        )
    };
    let file = sandbox.write("auto.toml", &text("client = \"auto\""));
    sandbox
        .provision(&["up", &file])
        .expect(2)
        .says(&["P-521", "peer = \"auto\" works"]);
    let file = sandbox.write("auto.toml", &text("peer = \"auto\""));
    sandbox.provision(&["up", &file]).expect(0);
    sandbox.etcdctl("auto", &["put", "k", "v"]).expect(0);
}
