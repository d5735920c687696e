//! What is wrong is said clearly, and nothing is lost.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::sandbox::{ETCD, Sandbox, Server, each_server, finish, is_running, kill, wait_until};

each_server! {
    a_data_directory_of_another_cluster_is_never_started
    lost_data_is_not_replaced_by_an_empty_directory
    what_members_agreed_on_is_not_changed_and_nothing_is_touched
    a_remembered_port_that_somebody_took_names_the_holder
}

// Says it is etcd and never answers.
const SLEEPS: &str = "exec sleep 600";

#[test]
fn a_taken_port_names_the_process_that_holds_it() {
    let sandbox = Sandbox::new();
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = held.local_addr().unwrap().port();
    let file = sandbox.topology(
        "demo",
        1,
        false,
        &format!("{}\nclient-port = {port}", ETCD.binary),
    );
    let me = format!("pid {}", std::process::id());
    for verb in ["plan", "up"] {
        sandbox.provision(&[verb, &file]).expect(1).says(&[
            &format!("port {port}"),
            "client port of member m0",
            &me,
            "fix:",
        ]);
    }
    assert!(!sandbox.cluster("demo").exists(), "nothing is left behind");
}

#[test]
fn a_missing_binary_says_where_it_was_looked_for() {
    let sandbox = Sandbox::new();
    let file = sandbox.topology("demo", 1, false, "binary = \"/nowhere/etcd\"");
    sandbox
        .provision(&["up", &file])
        .expect(1)
        .says(&["/nowhere/etcd", "looked at", "member m0"]);

    let file = sandbox.topology("included", 1, false, "");
    let missing = sandbox.path().join("member");
    let done = sandbox
        .command(&["up", &file])
        .env("PROVISION_MEMBER", &missing)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!(done.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains(&missing.display().to_string()) && stderr.contains("PROVISION_MEMBER"),
        "{stderr}"
    );
    assert!(!sandbox.state().exists());
}

#[test]
fn a_binary_that_is_no_server_is_refused() {
    let sandbox = Sandbox::new();
    let file = sandbox.topology("demo", 1, false, "binary = \"/bin/cat\"");
    sandbox
        .provision(&["up", &file])
        .expect(1)
        .says(&["/bin/cat is neither etcd nor member"]);
}

#[test]
fn a_foreign_state_directory_is_left_alone() {
    let sandbox = Sandbox::new();
    let file = sandbox.topology("demo", 1, false, ETCD.binary);
    fs::create_dir_all(sandbox.cluster("demo")).unwrap();
    fs::write(sandbox.cluster("demo").join("thesis.tex"), "precious").unwrap();
    for verb in ["plan", "up", "status"] {
        sandbox.provision(&[verb, &file]).expect(6).says(&[
            "is not the state of cluster demo",
            "did not write",
            "fix:",
        ]);
    }
    sandbox
        .provision(&["down", "--purge", "--yes", "demo"])
        .expect(6);
    let left: Vec<_> = fs::read_dir(sandbox.cluster("demo"))
        .unwrap()
        .flatten()
        .collect();
    assert_eq!(left.len(), 1);
}

#[test]
fn damaged_state_is_told_from_no_state() {
    let sandbox = Sandbox::new();
    let file = sandbox.topology("demo", 1, false, ETCD.binary);
    sandbox.provision(&["up", &file]).expect(0);
    let pid = sandbox.pid("demo", "m0").unwrap();
    fs::write(
        sandbox.cluster("demo").join("instance.json"),
        "{\"version\":1,",
    )
    .unwrap();
    sandbox
        .provision(&["up", &file])
        .expect(1)
        .says(&["instance.json is damaged", "fix:"]);
    fs::write(
        sandbox.cluster("demo").join("instance.json"),
        "{\"version\":9}",
    )
    .unwrap();
    sandbox
        .provision(&["up", &file])
        .expect(6)
        .says(&["has format 9"]);
    assert!(is_running(pid));
}

#[test]
fn an_unreadable_state_directory_says_so() {
    let sandbox = Sandbox::new();
    let file = sandbox.topology("demo", 1, false, ETCD.binary);
    sandbox.provision(&["up", &file]).expect(0);
    // Another user, who may reach the program and the file but not the state.
    open_to_all(sandbox.path());
    let program = sandbox.path().join("provision");
    fs::copy(env!("CARGO_BIN_EXE_provision"), &program).unwrap();
    let run = |verb: &str| {
        let output = Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(&program)
            .args([verb, &file])
            .env("PROVISION_STATE_DIR", sandbox.state())
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    for verb in ["status", "up", "plan"] {
        let (code, stderr) = run(verb);
        assert_eq!(code, Some(1), "{stderr}");
        assert!(
            stderr.contains("cannot read") && stderr.contains("Permission denied")
                || stderr.contains("permission denied"),
            "{stderr}"
        );
    }
    sandbox.provision(&["status", "demo"]).expect(0);
}

fn open_to_all(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_second_up_is_refused_while_the_first_runs_and_ctrl_c_undoes_the_first() {
    let sandbox = Sandbox::new();
    let file = sandbox.topology("demo", 2, false, &sandbox.fake_etcd(SLEEPS));
    let first = sandbox.spawn(&["up", &file]);
    wait_until("the members are started", || {
        sandbox.pid("demo", "m0").is_some() && sandbox.pid("demo", "m1").is_some()
    });
    let members = [
        sandbox.pid("demo", "m0").unwrap(),
        sandbox.pid("demo", "m1").unwrap(),
    ];

    let holder = format!("pid {}", first.id());
    for verb in ["up", "down"] {
        sandbox.provision(&[verb, "demo"]).expect(6).says(&[
            "is locked by",
            "provision up",
            &holder,
            "since 20",
            "on host",
        ]);
    }
    sandbox
        .provision(&["up", "--force-unlock", "demo"])
        .expect(6)
        .says(&["kill"]);
    assert!(members.iter().all(|pid| is_running(*pid)));

    kill(i32::try_from(first.id()).unwrap(), 2);
    finish(first)
        .expect(130)
        .says(&["interrupted", "stopped again"]);
    assert!(
        members.iter().all(|pid| !is_running(*pid)),
        "the first boot is undone"
    );
    // The lock is free again, and what was begun can be purged.
    sandbox
        .provision(&["down", "--purge", "--yes", "demo"])
        .expect(0);
}

#[test]
fn the_second_ctrl_c_exits_at_once_and_the_next_up_takes_over() {
    let sandbox = Sandbox::new();
    let script = "trap '' TERM; while :; do sleep 0.1; done";
    let file = sandbox.topology("demo", 1, false, &sandbox.fake_etcd(script));
    let first = sandbox.spawn(&["up", &file]);
    wait_until("the member is started", || {
        sandbox.pid("demo", "m0").is_some()
    });
    let pid = i32::try_from(first.id()).unwrap();
    wait_until("the member ignores SIGTERM", || {
        ignores_sigterm(sandbox.pid("demo", "m0").unwrap())
    });
    kill(pid, 2);
    // Undoing takes until the member, which does not listen, is killed.
    std::thread::scope(|scope| {
        let repeat = scope.spawn(|| {
            wait_until("the program is gone", || {
                kill(pid, 2);
                !is_running(pid)
            });
        });
        let done = finish(first).expect(130);
        assert!(
            !done.stderr.contains("stopped again"),
            "it did not wait: {}",
            done.stderr
        );
        repeat.join().unwrap();
    });
    let journal = fs::read_to_string(sandbox.cluster("demo").join("journal.jsonl")).unwrap();
    assert!(!journal.contains("\"event\":\"end\""), "{journal}");
    sandbox
        .provision(&["up", "--timeout", "300ms", &file])
        .expect(7)
        .says(&["resuming", "took longer than 300 ms", "Connection refused"]);
}

fn ignores_sigterm(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .unwrap()
        .trim();
    u64::from_str_radix(mask, 16).unwrap() & 1 << 14 != 0
}

#[test]
fn a_member_that_dies_at_its_start_shows_its_last_lines() {
    let sandbox = Sandbox::new();
    let script = "echo 'the disk is on fire' >&2; echo 'giving up' >&2; exit 3";
    let file = sandbox.topology("demo", 3, false, &sandbox.fake_etcd(script));
    let done = sandbox.provision(&["up", &file]).expect(1);
    let done = done.says(&[
        "died at its start: exit code 3",
        "the disk is on fire\n",
        "giving up",
        "members/m",
        "/log",
    ]);
    assert!(done.stderr.contains("journal.jsonl"), "{}", done.stderr);
    assert_eq!(
        sandbox.provision(&["list", "-o", "json"]).json()["clusters"][0]["running"],
        0
    );

    // Correcting the cause and running the same command again is enough.
    fs::copy("/usr/bin/etcd", sandbox.path().join("etcd")).unwrap();
    sandbox.provision(&["up", &file]).expect(0);
}

#[test]
fn a_member_that_never_answers_times_out() {
    let sandbox = Sandbox::new();
    let file = sandbox.topology("demo", 1, false, &sandbox.fake_etcd(SLEEPS));
    sandbox
        .provision(&["up", "--timeout", "300ms", &file])
        .expect(7)
        .says(&[
            "member m0",
            "took longer than 300 ms",
            "provision logs demo m0",
        ]);
    assert!(!is_running(sandbox.pid("demo", "m0").unwrap()));
}

/// A file system so small that certificates do not fit.
struct TinyDisk<'a>(&'a Path);

impl<'a> TinyDisk<'a> {
    fn mount(path: &'a Path) -> Self {
        fs::create_dir_all(path).unwrap();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=64k,mode=0700", "tmpfs"])
            .arg(path)
            .status()
            .unwrap();
        assert!(mount.success(), "mounting needs root");
        Self(path)
    }
}

impl Drop for TinyDisk<'_> {
    fn drop(&mut self) {
        Command::new("umount")
            .arg("-l")
            .arg(self.0)
            .status()
            .unwrap();
    }
}

#[test]
fn a_full_disk_while_writing_certificates_leaves_no_half_file() {
    let sandbox = Sandbox::new();
    let state = sandbox.state();
    let _disk = TinyDisk::mount(&state);
    let file = sandbox.topology("demo", 5, true, ETCD.binary);
    sandbox.provision(&["up", &file]).expect(1).says(&[
        "cannot write",
        "fix: free some space",
        "/certs/",
    ]);
    let mut checked = 0;
    check_pem(&state, &mut checked);
    assert!(checked > 0, "the disk was full before any certificate");
    assert_eq!(
        sandbox.pid("demo", "m0"),
        None,
        "no member is started without its certificates"
    );

    // With space the same command goes on from there.
    let more = Command::new("mount")
        .args(["-o", "remount,size=1g"])
        .arg(&state)
        .status()
        .unwrap();
    assert!(more.success());
    sandbox.provision(&["up", &file]).expect(0);
    sandbox.provision(&["down", "demo"]).expect(0);
}

fn check_pem(dir: &Path, checked: &mut usize) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            check_pem(&path, checked);
        } else if path
            .extension()
            .is_some_and(|extension| extension == "crt" || extension == "key")
        {
            let text = fs::read_to_string(&path).unwrap();
            assert!(
                text.trim_end().ends_with("-----"),
                "{} is cut short",
                path.display()
            );
            *checked += 1;
        }
    }
}

fn a_data_directory_of_another_cluster_is_never_started(server: Server) {
    let sandbox = Sandbox::new();
    let ours = sandbox.topology("ours", 1, false, server.binary);
    let theirs = sandbox.topology("theirs", 1, false, server.binary);
    for file in [&ours, &theirs] {
        sandbox.provision(&["up", file]).expect(0);
    }
    for name in ["ours", "theirs"] {
        sandbox.provision(&["down", name]).expect(0);
    }
    let data = |name: &str| sandbox.member(name, "m0").join("data");
    fs::rename(data("ours"), sandbox.path().join("aside")).unwrap();
    copy(&data("theirs"), &data("ours"));
    for verb in ["plan", "up"] {
        sandbox.provision(&[verb, &ours]).expect(6).says(&[
            "is not of this cluster",
            "member m0 of cluster theirs",
            "fix:",
        ]);
    }
    assert!(!is_running(sandbox.pid("ours", "m0").unwrap()));

    // The right data back, and all is well.
    fs::remove_dir_all(data("ours")).unwrap();
    fs::rename(sandbox.path().join("aside"), data("ours")).unwrap();
    sandbox.provision(&["up", &ours]).expect(0);
}

fn copy(from: &Path, to: &Path) {
    assert!(
        Command::new("cp")
            .arg("-a")
            .arg(from)
            .arg(to)
            .status()
            .unwrap()
            .success()
    );
}

// An upstream etcd's own files give the cluster away even when only they were swapped.
#[test]
fn the_log_inside_a_data_directory_is_checked_as_well() {
    let sandbox = Sandbox::new();
    for name in ["ours", "theirs"] {
        let file = sandbox.topology(name, 1, false, ETCD.binary);
        sandbox.provision(&["up", &file]).expect(0);
        sandbox.provision(&["down", name]).expect(0);
    }
    let data = |name: &str| sandbox.member(name, "m0").join("data/member");
    fs::remove_dir_all(data("ours")).unwrap();
    copy(&data("theirs"), &data("ours"));
    sandbox
        .provision(&["up", "ours"])
        .expect(6)
        .says(&["write-ahead log is of cluster ID"]);
}

fn lost_data_is_not_replaced_by_an_empty_directory(server: Server) {
    let sandbox = Sandbox::new();
    let file = sandbox.topology("demo", 3, false, server.binary);
    sandbox.provision(&["up", &file]).expect(0);
    let pid = sandbox.pid("demo", "m1").unwrap();
    kill(pid, 9);
    wait_until("the member is dead", || !is_running(pid));
    fs::remove_dir_all(sandbox.member("demo", "m1").join("data")).unwrap();
    sandbox
        .provision(&["up", &file])
        .expect(6)
        .says(&["of member m1 is gone", "provision replace demo m1"]);
}

fn what_members_agreed_on_is_not_changed_and_nothing_is_touched(server: Server) {
    let sandbox = Sandbox::new();
    let file = sandbox.topology("demo", 3, false, server.binary);
    sandbox.provision(&["up", &file]).expect(0);
    let pids = || ["m0", "m1", "m2"].map(|member| sandbox.pid("demo", member).unwrap());
    let before = pids();
    let text = fs::read_to_string(&file).unwrap();
    let cases = [(
        text.replace("peer = \"off\"", "peer = \"mutual\""),
        "peer TLS",
    )];
    for (changed, says) in cases {
        fs::write(&file, changed).unwrap();
        for verb in ["plan", "up"] {
            sandbox
                .provision(&[verb, &file])
                .expect(6)
                .says(&[says, "fix:"]);
        }
    }
    fs::write(&file, text).unwrap();
    sandbox
        .provision(&["plan", "--detailed-exitcode", &file])
        .expect(0);
    assert_eq!(pids(), before);
}

fn a_remembered_port_that_somebody_took_names_the_holder(server: Server) {
    let sandbox = Sandbox::new();
    let file = sandbox.topology("demo", 1, false, server.binary);
    sandbox.provision(&["up", &file]).expect(0);
    let instance = fs::read_to_string(sandbox.cluster("demo").join("instance.json")).unwrap();
    let instance: serde_json::Value = serde_json::from_str(&instance).unwrap();
    let port = instance["members"]["m0"]["peer_port"].as_u64().unwrap();
    sandbox.provision(&["down", "demo"]).expect(0);
    let held = TcpListener::bind(format!("127.0.0.1:{port}")).unwrap();
    sandbox.provision(&["up", &file]).expect(1).says(&[
        "peer port of member m0",
        &format!("pid {}", std::process::id()),
    ]);
    drop(held);
    let up = sandbox
        .command(&["up", &file])
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(up.success());
}
