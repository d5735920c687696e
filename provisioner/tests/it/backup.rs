//! Backups: what is in them, who can read them, how long they stay, and the units that take them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use age::secrecy::ExposeSecret;
use provisioner::backup::{Manager, Timer};
use serde_json::Value;

use crate::sandbox::{ETCD, INCLUDED, Sandbox, Server, each_server, is_running, kill, wait_until};

const CLUSTER: &str = "demo";

each_server! {
    a_backup_is_what_the_cluster_holds
    a_cluster_that_has_lost_members_is_backed_up_all_the_same
}

fn up(server: Server, members: usize, tls: bool) -> Sandbox {
    let sandbox = Sandbox::new();
    let file = sandbox.topology(CLUSTER, members, tls, server.binary);
    sandbox.provision(&["up", &file]).expect(0);
    sandbox
}

fn backups(sandbox: &Sandbox) -> PathBuf {
    sandbox.state().join("backups").join(CLUSTER)
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap().flatten();
    let names = entries.map(|entry| entry.file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

fn backup(sandbox: &Sandbox, args: &[&str]) -> Value {
    let mut all = vec!["backup", CLUSTER, "-o", "json"];
    all.extend(args);
    sandbox.provision(&all).expect(0).json()
}

fn a_backup_is_what_the_cluster_holds(server: Server) {
    let sandbox = up(server, 3, true);
    for key in ["a", "b", "c", "d"] {
        sandbox.etcdctl(CLUSTER, &["put", key, key]).expect(0);
    }
    sandbox.etcdctl(CLUSTER, &["del", "b"]).expect(0);
    sandbox.etcdctl(CLUSTER, &["compact", "4"]).expect(0);
    let taken = backup(&sandbox, &["--verify"]);
    assert_eq!((&taken["revision"], &taken["keys"]), (&6.into(), &3.into()));
    assert_eq!(taken["verified"]["compact_revision"], 4);
    let status = sandbox.status(CLUSTER);
    let members = status["members"].as_array().unwrap();
    let from = members
        .iter()
        .find(|member| member["name"] == taken["member"]);
    assert_eq!(from.unwrap()["leader"], false, "{taken} {status}");

    let path = Path::new(taken["path"].as_str().unwrap());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(path), 0o600);
    assert_eq!(mode(&backups(&sandbox)), 0o700);
    let name = path.file_name().unwrap().to_str().unwrap().to_owned();
    assert!(name.starts_with("demo-6-20"), "{name}");
    // Nothing but the backup and what is known of it.
    assert_eq!(
        names(&backups(&sandbox)),
        [name.clone(), format!("{name}.json")]
    );
    let etcdctl = Command::new("etcdctl")
        .args(["snapshot", "status", "-w", "json", path.to_str().unwrap()])
        .env("ETCDCTL_API", "3")
        .output()
        .unwrap();
    let status: Value = serde_json::from_slice(&etcdctl.stdout).unwrap();
    assert_eq!(status["revision"], 6);

    // For people: the file, on standard output.
    let to = sandbox.path().join("one.db");
    let done = sandbox.provision(&["backup", CLUSTER, "--to", to.to_str().unwrap()]);
    assert_eq!(done.expect(0).stdout.trim(), to.to_str().unwrap());
    sandbox
        .provision(&["backup", CLUSTER, "--to", to.to_str().unwrap()])
        .expect(6)
        .says(&["exists", "never overwritten"]);
}

fn a_cluster_that_has_lost_members_is_backed_up_all_the_same(server: Server) {
    let sandbox = up(server, 3, false);
    sandbox.etcdctl(CLUSTER, &["put", "a", "b"]).expect(0);
    for member in ["m0", "m2"] {
        let pid = sandbox.pid(CLUSTER, member).unwrap();
        kill(pid, 9);
        wait_until("it is dead", || !is_running(pid));
    }
    let done = sandbox
        .provision(&["backup", CLUSTER, "-o", "json"])
        .expect(0);
    assert_eq!(done.json()["revision"], 2);
    done.says(&["m1 may have missed the last writes"]);
    sandbox.provision(&["down", CLUSTER]).expect(0);
    sandbox.provision(&["backup", CLUSTER]).expect(1).says(&[
        "no voting member of cluster demo answers",
        "provision up demo",
    ]);
    // They are not the cluster's own, so that they are there when it is gone.
    sandbox
        .provision(&["down", "--purge", "--yes", CLUSTER])
        .expect(0);
    assert_eq!(names(&backups(&sandbox)).len(), 2);
}

#[test]
fn an_encrypted_backup_never_lies_in_plain() {
    let sandbox = up(INCLUDED, 1, false);
    let secret = "nobody-else-may-read-this".repeat(40);
    sandbox.etcdctl(CLUSTER, &["put", "a", &secret]).expect(0);
    let key = age::x25519::Identity::generate();
    let recipient = key.to_public().to_string();
    let taken = backup(&sandbox, &["--encrypt-to", &recipient]);
    assert_eq!(taken["encrypted_to"], serde_json::json!([recipient]));
    assert_eq!(taken["keys"], Value::Null);
    let tried = backup(&sandbox, &["--encrypt-to", &recipient, "--verify"]);
    assert_eq!((&tried["keys"], &tried["revision"]), (&1.into(), &2.into()));
    let found = Command::new("grep")
        .args(["-rlF", &secret])
        .arg(backups(&sandbox))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
    assert_eq!(names(&backups(&sandbox)).len(), 4);
    let text = key.to_string();
    sandbox
        .provision(&["backup", CLUSTER, "--encrypt-to", text.expose_secret()])
        .expect(2)
        .says(&["is no age recipient", "age-keygen"]);
    assert_eq!(names(&backups(&sandbox)).len(), 4);
}

#[test]
fn old_backups_go_when_the_topology_says_so_and_the_list_shows_the_others() {
    let sandbox = Sandbox::new();
    let file = sandbox.topology(CLUSTER, 1, false, "");
    let text = fs::read_to_string(&file).unwrap();
    let text = format!("{text}\n[backup]\ndir = \"kept\"\nkeep = 2\nverify = true\n");
    let file = sandbox.write("demo.toml", &text);
    sandbox.provision(&["up", &file]).expect(0);
    let dir = sandbox.path().join("kept");
    sandbox
        .provision(&["backup", "--list", CLUSTER])
        .expect(0)
        .shows(&["no backups in", "kept"]);
    let mine = dir.join("demo-9-by-hand.db");
    for revision in 2..=4 {
        sandbox.etcdctl(CLUSTER, &["put", "a", "b"]).expect(0);
        // By its name: what the file says is remembered.
        let taken = backup(&sandbox, &[]);
        assert_eq!(taken["revision"], revision);
        assert_eq!(taken["verified"]["by"], "the included member");
        let deleted = taken["deleted"].as_array().unwrap();
        assert_eq!(deleted.len(), usize::from(revision == 4));
        fs::write(&mine, "").unwrap();
    }
    let list = sandbox
        .provision(&["backup", "--list", CLUSTER, "-o", "json"])
        .json();
    let revisions: Vec<i64> = list["backups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|backup| backup["revision"].as_i64().unwrap())
        .collect();
    assert_eq!(revisions, [4, 3]);
    assert_eq!(names(&dir).len(), 5, "{:?}", names(&dir));
    backup(&sandbox, &["--keep", "1"]);
    assert_eq!(names(&dir).len(), 3, "{:?}", names(&dir));
    sandbox
        .provision(&["backup", CLUSTER, "--keep", "1", "--to", "x.db"])
        .expect(2)
        .says(&["x.db is a file"]);
}

/// The server is etcd, and what restores its snapshots restores another one.
#[test]
fn a_backup_that_differs_from_the_cluster_is_not_kept() {
    let sandbox = Sandbox::new();
    let binary = sandbox.fake_etcd("exec /usr/bin/etcd \"$@\"");
    let file = sandbox.topology(CLUSTER, 1, false, &binary);
    sandbox.provision(&["up", &file]).expect(0);
    sandbox.etcdctl(CLUSTER, &["put", "a", "b"]).expect(0);
    let first = backup(&sandbox, &["--verify"]);
    sandbox.etcdctl(CLUSTER, &["put", "a", "c"]).expect(0);
    let tool = sandbox.path().join("etcdctl");
    let script = format!(
        "#!/bin/bash\nexec /usr/bin/etcdctl snapshot restore {} \"${{@:4}}\"\n",
        first["path"].as_str().unwrap()
    );
    fs::write(&tool, script).unwrap();
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
    let before = names(&backups(&sandbox));
    sandbox
        .provision(&["backup", CLUSTER, "--verify", "--timeout", "20s"])
        .expect(1)
        .says(&["not verified, and not kept"]);
    assert_eq!(names(&backups(&sandbox)), before);
    // It is the trial that refused.
    backup(&sandbox, &[]);
}

#[test]
fn a_timer_needs_a_schedule_that_systemd_knows() {
    let sandbox = Sandbox::new();
    let file = sandbox.topology(CLUSTER, 1, false, ETCD.binary);
    let text = fs::read_to_string(&file).unwrap();
    sandbox.provision(&["up", &file]).expect(0);
    let refused = |code, parts: &[&str]| {
        let install = ["backup", "--install-timer", CLUSTER];
        sandbox.provision(&install).expect(code).says(parts);
    };
    refused(2, &["does not say when", "schedule = \"daily\""]);
    let with = |schedule: &str| {
        let text = format!("{text}\n[backup]\nschedule = \"{schedule}\"\n");
        sandbox.write("demo.toml", &text)
    };
    let file = with("every so often");
    sandbox
        .provision(&["backup", "--install-timer", &file])
        .expect(2)
        .says(&["run `provision up`"]);
    sandbox.provision(&["up", &file]).expect(0);
    refused(1, &["\"every so often\" is no calendar event"]);
    sandbox
        .provision(&["validate", &with("daily\\nExecStart=/bin/sh")])
        .expect(2)
        .says(&["is no calendar event"]);
}

#[test]
fn systemd_takes_the_units() {
    let sandbox = Sandbox::new();
    let variables = [("HOME".to_owned(), "/root".to_owned())];
    let writes = [sandbox.path().join("with spaces")];
    for manager in [Manager::System, Manager::User] {
        let units = Timer {
            cluster: CLUSTER,
            schedule: "*-*-* 03:00:00",
            program: Path::new(env!("CARGO_BIN_EXE_provision")),
            state_root: &sandbox.state(),
            writes: &writes,
            variables: &variables,
            manager,
        }
        .units();
        let service = sandbox.write(&units.service, &units.service_text);
        let timer = sandbox.write(&units.timer, &units.timer_text);
        let verify = Command::new("systemd-analyze")
            .args(["verify", "--man=no", &service, &timer])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&verify.stderr).into_owned();
        let ours: Vec<&str> = said
            .lines()
            .filter(|line| line.contains("provision"))
            .collect();
        assert!(verify.status.success() && ours.is_empty(), "{said}");
    }
}
