//! `run`: a cluster around a command.

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};

use crate::sandbox::{Sandbox, Server, each_server, finish, is_running, kill, wait_until};

each_server! {
    the_command_uses_the_cluster_and_its_code_is_returned
    signals_tear_everything_down
    even_a_killed_run_leaves_no_member
    two_runs_of_a_file_with_fixed_ports_do_not_meet
}

#[test]
fn a_command_that_does_not_exist_starts_nothing() {
    let sandbox = Sandbox::new();
    let file = sandbox.topology("demo", 1, false, "binary = \"/bin/false\"");
    sandbox
        .provision(&["run", &file, "--", "no-such-command"])
        .expect(1)
        .says(&["no-such-command"]);
}

// Writes the members' pids to a file and then waits or ends.
fn script(then: &str) -> String {
    let provision = env!("CARGO_BIN_EXE_provision");
    format!("{provision} status demo -o json > \"$OUT.tmp\"; mv \"$OUT.tmp\" \"$OUT\"; {then}")
}

fn spawn(sandbox: &Sandbox, file: &str, out: &Path, then: &str) -> Child {
    let mut command = sandbox.command(&["run", file, "--", "sh", "-c", &script(then)]);
    command
        .env("OUT", out)
        .env("TMPDIR", sandbox.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn pids(out: &Path) -> Vec<i32> {
    let status: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(out).unwrap()).unwrap();
    let members = status["members"].as_array().unwrap();
    members
        .iter()
        .map(|member| member["pid"].as_i64().unwrap().try_into().unwrap())
        .collect()
}

fn leftovers(sandbox: &Sandbox) -> usize {
    let entries = fs::read_dir(sandbox.path()).unwrap().flatten();
    entries
        .filter(|entry| {
            entry
                .file_name()
                .to_string_lossy()
                .starts_with("provision-run-")
        })
        .count()
}

fn the_command_uses_the_cluster_and_its_code_is_returned(server: Server) {
    let sandbox = Sandbox::new();
    let file = sandbox.topology("demo", 3, true, server.binary);
    let out = sandbox.path().join("out");
    let done = finish(spawn(
        &sandbox,
        &file,
        &out,
        "etcdctl put a b && etcdctl get a; exit 42",
    ))
    .expect(42);
    assert_eq!(done.stdout, "OK\na\nb\n");
    assert_eq!(pids(&out).len(), 3);
    assert!(pids(&out).iter().all(|pid| !is_running(*pid)));
    assert_eq!(leftovers(&sandbox), 0);
    assert!(!sandbox.state().exists(), "it leaves no trace in the state");
}

fn signals_tear_everything_down(server: Server) {
    for (signal, code) in [(2, 130), (15, 143), (1, 143)] {
        let sandbox = Sandbox::new();
        let file = sandbox.topology("demo", 1, false, server.binary);
        let out = sandbox.path().join("out");
        let run = spawn(&sandbox, &file, &out, "exec sleep 600");
        wait_until("the command runs", || out.exists());
        kill(i32::try_from(run.id()).unwrap(), signal);
        finish(run).expect(code);
        assert!(pids(&out).iter().all(|pid| !is_running(*pid)));
        assert_eq!(leftovers(&sandbox), 0);
    }
}

fn even_a_killed_run_leaves_no_member(server: Server) {
    let sandbox = Sandbox::new();
    let file = sandbox.topology("demo", 1, false, server.binary);
    let out = sandbox.path().join("out");
    // The command itself ends soon after: nobody can clean up for a process that is killed.
    let run = spawn(
        &sandbox,
        &file,
        &out,
        "while kill -0 $PPID 2>/dev/null; do sleep 0.05; done",
    );
    wait_until("the command runs", || out.exists());
    kill(i32::try_from(run.id()).unwrap(), 9);
    finish(run).expect(137);
    wait_until("the members are gone", || {
        pids(&out).iter().all(|pid| !is_running(*pid))
    });
}

fn two_runs_of_a_file_with_fixed_ports_do_not_meet(server: Server) {
    let sandbox = Sandbox::new();
    let extra = format!("{}\nclient-port = 23791\npeer-port = 23792", server.binary);
    let file = sandbox.topology("demo", 1, false, &extra);
    let inner = sandbox.path().join("inner");
    let nested = format!(
        "{} run {file} -- etcdctl put a b",
        env!("CARGO_BIN_EXE_provision")
    );
    let done = finish(spawn(&sandbox, &file, &inner, &nested)).expect(0);
    assert_eq!(done.stdout, "OK\n");
}
