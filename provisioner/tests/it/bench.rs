use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};

use crate::sandbox::{Done, ETCD, Sandbox};

fn leftovers(dir: &Path) -> Vec<String> {
    let names = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    names
        .filter(|name| name.starts_with("provision-run-"))
        .collect()
}

/// Processes that name the sandbox's directory in an argument, other than `except`.
fn processes_in(dir: &Path, except: u32) -> Vec<u32> {
    let pids = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    let names_dir = |pid: &u32| {
        let argv = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&argv).contains(dir.to_str().unwrap())
    };
    pids.filter(|pid| *pid != except)
        .filter(names_dir)
        .collect()
}

fn interrupt(child: &Child) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
}

#[test]
fn members_on_hosts_are_refused() {
    let sandbox = Sandbox::new();
    let file = sandbox.write(
        "demo.toml",
        "name = \"demo\"\n[[member]]\nname = \"infra0\"\nhost = \"ssh://10.0.1.10\"\n",
    );
    for args in [&["bench", &file][..], &["run", &file, "--", "true"]] {
        sandbox
            .provision(args)
            .expect(2)
            .says(&["this machine", "remove the members' `host`"]);
    }
}

#[test]
fn quick_bench_compares_two_binaries_and_leaves_nothing() {
    let sandbox = Sandbox::new();
    let file = sandbox.topology("demo", 1, true, ETCD.binary);
    let mut command = sandbox.command(&[
        "bench",
        "--quick",
        "--clients",
        "1,20",
        "--puts",
        "400",
        "-o",
        "json",
        &file,
    ]);
    command
        .args(["--against", "/usr/bin/etcd"])
        .env("TMPDIR", sandbox.path());
    let done = Done::from(command.output().unwrap()).expect(0);
    let report = done.json();
    assert_eq!(report["schema_version"], 1);
    assert_eq!(
        report["contenders"],
        serde_json::json!(["etcd", "etcd (/usr/bin/etcd)"])
    );
    assert_eq!(report["errors"], serde_json::json!({}));
    let figures = report["figures"].as_array().unwrap();
    for metric in [
        "up to first write",
        "memory, idle",
        "put, 1 client: p99",
        "get, 20 clients: throughput",
    ] {
        let row = figures
            .iter()
            .find(|row| row["metric"] == metric)
            .unwrap_or_else(|| panic!("{metric}: {report}"));
        for side in ["ours", "theirs"] {
            assert!(row[side]["median"].as_f64().unwrap() > 0.0, "{row}");
        }
        assert!(row["ratio"].as_f64().unwrap() > 0.0, "{row}");
    }
    assert_eq!(leftovers(sandbox.path()), Vec::<String>::new());
    assert!(
        !sandbox.state().exists(),
        "the user's own state is not touched"
    );
}

#[test]
fn interrupted_bench_takes_its_cluster_with_it() {
    let sandbox = Sandbox::new();
    let file = sandbox.topology("demo", 1, false, ETCD.binary);
    let mut command =
        sandbox.command(&["-v", "bench", "--rounds", "1", "--puts", "10000000", &file]);
    let mut child = command
        .env("TMPDIR", sandbox.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap())
        .lines()
        .map(Result::unwrap);
    // The load is at work when the second thing about it is said; the rest is read so that the pipe never fills.
    let mut lines = lines.skip_while(|line| !line.contains("filling"));
    assert!(lines.next().is_some());
    assert_eq!(leftovers(sandbox.path()).len(), 1);
    interrupt(&child);
    let said: Vec<String> = lines.collect();
    let code = child.wait().unwrap().code();
    assert_eq!(code, Some(130), "{said:?}");
    assert_eq!(leftovers(sandbox.path()), Vec::<String>::new());
    assert_eq!(processes_in(sandbox.path(), child.id()), Vec::<u32>::new());
}

#[test]
fn bench_without_its_binary_starts_nothing() {
    let sandbox = Sandbox::new();
    let file = sandbox.topology("demo", 1, false, ETCD.binary);
    let against = sandbox.path().join("missing").display().to_string();
    sandbox
        .provision(&["bench", &file, "--against", &against])
        .expect(1)
        .says(&[&against]);
    sandbox
        .provision(&["bench", &file, "--clients", "0"])
        .expect(2)
        .says(&["--clients must be at least 1"]);
    assert!(!sandbox.state().exists());
}
