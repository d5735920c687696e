//! Restoring clusters from backups: what comes back, what clients notice, what is refused, and the program killed anywhere.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use age::secrecy::ExposeSecret;
use serde_json::Value;

use crate::sandbox::{Done, ETCD, INCLUDED, Sandbox, Server, finish, is_running, wait_until};

const CLUSTER: &str = "demo";
/// Its tools know neither `--bump-revision` nor `--mark-compacted`.
const ETCD_35: Server = Server {
    binary: "binary = \"/usr/local/lib/etcd-3.5.1/etcd\"",
};

struct Cluster {
    sandbox: Sandbox,
    file: String,
}

impl Cluster {
    fn up(server: Server, members: usize, tls: bool) -> Self {
        let sandbox = Sandbox::new();
        let file = sandbox.topology(CLUSTER, members, tls, server.binary);
        sandbox.provision(&["up", &file]).expect(0);
        Self { sandbox, file }
    }

    fn put(&self, key: &str, value: &str) {
        self.sandbox
            .etcdctl(CLUSTER, &["put", key, value])
            .expect(0);
    }

    fn get(&self, key: &str) -> String {
        let got = self
            .sandbox
            .etcdctl(CLUSTER, &["get", key, "--print-value-only"]);
        got.expect(0).stdout.trim().to_owned()
    }

    fn backup(&self, args: &[&str]) -> String {
        let mut all = vec!["backup", CLUSTER];
        all.extend(args);
        let done = self.sandbox.provision(&all).expect(0);
        done.stdout.trim().to_owned()
    }

    fn restore(&self, args: &[&str]) -> Done {
        let mut all = vec!["restore", CLUSTER];
        all.extend(args);
        self.sandbox.provision(&all)
    }

    fn no_change(&self) {
        self.sandbox
            .provision(&["plan", "--detailed-exitcode", &self.file])
            .expect(0);
    }

    fn revision(&self) -> i64 {
        let status = self.sandbox.status(CLUSTER);
        let members = status["members"].as_array().unwrap().iter();
        members
            .map(|member| member["revision"].as_i64().unwrap())
            .max()
            .unwrap()
    }

    fn phase(&self) -> Option<String> {
        let file = self.sandbox.cluster(CLUSTER).join("restore.json");
        let pending: Value = serde_json::from_str(&fs::read_to_string(file).ok()?).ok()?;
        Some(pending["phase"].as_str()?.to_owned())
    }

    fn running(&self) -> Vec<i32> {
        let pids = ["m0", "m1", "m2"].map(|member| self.sandbox.pid(CLUSTER, member));
        pids.into_iter()
            .flatten()
            .filter(|pid| is_running(*pid))
            .collect()
    }
}

fn keys_come_back_and_clients_notice(server: Server) {
    let cluster = Cluster::up(server, 3, true);
    cluster.put("a", "old");
    cluster.put("gone", "x");
    cluster.sandbox.etcdctl(CLUSTER, &["del", "gone"]).expect(0);
    let file = cluster.backup(&["--verify"]);
    cluster.put("a", "new");
    cluster.put("later", "x");

    let impact = cluster
        .restore(&["--dry-run", "-o", "json", &file])
        .expect(0)
        .json();
    assert_eq!(
        (&impact["revision"], &impact["keys"]),
        (&4.into(), &1.into())
    );
    assert_eq!(impact["present"]["revision"], 6);
    assert_eq!(impact["present"]["keys"], 2);
    assert_eq!(impact["present"]["lost_revisions"], 2);
    cluster
        .restore(&["--yes", &file])
        .expect(6)
        .says(&["2 revisions would be lost", "--accept-data-loss"]);
    cluster
        .restore(&["--accept-data-loss", &file])
        .expect(6)
        .says(&["needs a confirmation"]);
    assert_eq!(cluster.get("a"), "new", "nothing was touched");

    cluster
        .restore(&["--accept-data-loss", "--yes", &file])
        .expect(0)
        .says(&[
            "old data are kept in",
            "restored from revision 4, at revision 1000000004",
        ]);
    assert_eq!(
        (cluster.get("a").as_str(), cluster.get("later").as_str()),
        ("old", "")
    );
    assert_eq!(cluster.get("gone"), "");
    assert_eq!(cluster.revision(), 1_000_000_004);
    cluster.no_change();
    for member in ["m0.1", "m1.1", "m2.1"] {
        let aside = cluster
            .sandbox
            .cluster(CLUSTER)
            .join("removed")
            .join(member);
        assert!(aside.join("member").is_dir(), "{}", aside.display());
    }
    // A client that has seen revision 5 must not be told that it missed nothing.
    let watch = ["exec", CLUSTER, "--", "etcdctl", "watch", "a", "--rev", "5"];
    let watch = finish(cluster.sandbox.spawn(&watch));
    assert!(
        format!("{}{}", watch.stdout, watch.stderr)
            .contains("required revision has been compacted"),
        "{}{}",
        watch.stdout,
        watch.stderr
    );
    cluster.put("a", "newest");
    assert_eq!(cluster.revision(), 1_000_000_005);
    // They agree on all of it, and the next backup is as good as the first.
    cluster.backup(&["--verify"]);
    cluster.sandbox.provision(&["restart", CLUSTER]).expect(0);
    assert_eq!(cluster.get("a"), "newest");
    cluster.no_change();
}

mod keys_come_back_and_clients_notice {
    #[test]
    fn included() {
        super::keys_come_back_and_clients_notice(super::INCLUDED);
    }

    #[test]
    fn etcd_3_4() {
        super::keys_come_back_and_clients_notice(super::ETCD);
    }

    #[test]
    fn etcd_3_5() {
        super::keys_come_back_and_clients_notice(super::ETCD_35);
    }
}

fn a_restore_that_is_killed_anywhere_is_finished_by_the_same_command(server: Server) {
    let cluster = Cluster::up(server, 3, false);
    let sandbox = &cluster.sandbox;
    cluster.put("a", "old");
    let file = cluster.backup(&[]);
    let filled = || {
        let filled = |member: &&str| {
            let owner = sandbox.member(CLUSTER, member).join("data/provision.json");
            let pending = sandbox.cluster(CLUSTER).join("restore.json");
            let token = fs::read_to_string(pending).ok().and_then(|text| {
                let pending: Value = serde_json::from_str(&text).ok()?;
                Some(pending["token"].as_str()?.to_owned())
            });
            token.is_some_and(|token| {
                fs::read_to_string(owner).is_ok_and(|owner| owner.contains(&token))
            })
        };
        ["m0", "m1", "m2"]
            .iter()
            .filter(|member| filled(member))
            .count()
    };
    type Cut<'c> = (&'c str, Box<dyn Fn() -> bool + 'c>);
    let cuts: Vec<Cut<'_>> = vec![
        ("remembered", Box::new(|| cluster.phase().is_some())),
        (
            "data aside",
            Box::new(|| {
                cluster.phase().is_some() && !sandbox.member(CLUSTER, "m1").join("data").exists()
            }),
        ),
        ("one filled", Box::new(|| filled() >= 1)),
        (
            "starting",
            Box::new(|| cluster.phase().as_deref() == Some("starting")),
        ),
        (
            "one started",
            Box::new(|| {
                cluster.phase().as_deref() == Some("starting") && !cluster.running().is_empty()
            }),
        ),
    ];
    for (cut, reached) in &cuts {
        cluster.put("a", "new");
        let args = ["restore", CLUSTER, "--yes", "--accept-data-loss", &file];
        let mut child = sandbox.spawn(&args);
        wait_until(cut, || reached() || child.try_wait().unwrap().is_some());
        child.kill().unwrap();
        child.wait().unwrap();
        if cluster.phase().as_deref() == Some("restoring") {
            sandbox.provision(&["up", CLUSTER]).expect(6).says(&[
                "a restore of cluster demo was cut off",
                "provision restore demo",
            ]);
            sandbox.provision(&["restart", CLUSTER]).expect(6);
        }
        sandbox.provision(&args).expect(0);
        assert_eq!(cluster.get("a"), "old", "cut when {cut}");
        assert_eq!(cluster.phase(), None);
        cluster.no_change();
        let home = sandbox.member(CLUSTER, "m0");
        let left: Vec<PathBuf> = fs::read_dir(home)
            .unwrap()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.file_name().unwrap().to_string_lossy().starts_with('.'))
            .collect();
        assert!(left.is_empty(), "cut when {cut}: {left:?}");
    }
}

mod a_restore_that_is_killed_anywhere_is_finished_by_the_same_command {
    #[test]
    fn included() {
        super::a_restore_that_is_killed_anywhere_is_finished_by_the_same_command(super::INCLUDED);
    }

    #[test]
    fn etcd() {
        super::a_restore_that_is_killed_anywhere_is_finished_by_the_same_command(super::ETCD);
    }
}

#[test]
fn a_cluster_that_is_gone_comes_back_smaller_from_an_encrypted_backup() {
    let cluster = Cluster::up(INCLUDED, 3, true);
    let sandbox = &cluster.sandbox;
    cluster.put("a", "b");
    let key = age::x25519::Identity::generate();
    let backup = cluster.backup(&["--encrypt-to", &key.to_public().to_string()]);
    sandbox
        .provision(&["down", "--purge", "--yes", CLUSTER])
        .expect(0);
    let file = sandbox.topology(CLUSTER, 1, true, "");
    let restore = |args: &[&str]| {
        let mut all = vec!["restore", &file, &backup];
        all.extend(args);
        sandbox.provision(&all)
    };
    restore(&[])
        .expect(2)
        .says(&["is encrypted", "pass --identity FILE"]);
    let wrong = age::x25519::Identity::generate();
    let wrong = sandbox.write("wrong.txt", wrong.to_string().expose_secret());
    restore(&["--identity", &wrong])
        .expect(1)
        .says(&["no key in", "wrong.txt"]);
    let none = sandbox.write("none.txt", "not a key");
    restore(&["--identity", &none])
        .expect(1)
        .says(&["holds no age identity"]);
    assert!(!sandbox.cluster(CLUSTER).exists(), "nothing was touched");

    let right = sandbox.write("key.txt", key.to_string().expose_secret());
    restore(&["--identity", &right, "--bump-revision", "0"]).expect(0);
    assert_eq!(cluster.get("a"), "b");
    assert_eq!(cluster.revision(), 2);
    sandbox
        .provision(&["plan", "--detailed-exitcode", &file])
        .expect(0);
    // What was in plain meanwhile is gone.
    let dir = sandbox.state().join("backups").join(CLUSTER);
    assert_eq!(fs::read_dir(dir).unwrap().count(), 2);
}

#[test]
fn what_cannot_be_restored_is_said_before_anything_is_touched() {
    let cluster = Cluster::up(INCLUDED, 1, false);
    let sandbox = &cluster.sandbox;
    cluster.put("a", "b");
    let good = cluster.backup(&[]);
    let bytes = fs::read(&good).unwrap();
    let bad = |name: &str, bytes: &[u8]| {
        let path = sandbox.path().join(name);
        fs::write(&path, bytes).unwrap();
        path.display().to_string()
    };
    let mut flipped = bytes.clone();
    flipped[5000] ^= 1;
    let refused = |path: &str, code, parts: &[&str]| {
        let args = ["--yes", "--accept-data-loss", path];
        cluster.restore(&args).expect(code).says(parts);
    };
    let damaged = "is damaged";
    refused(
        &bad("cut", &bytes[..bytes.len() - 7]),
        1,
        &[damaged, "was cut off", "--list"],
    );
    refused(
        &bad("flipped", &flipped),
        1,
        &[damaged, "is not what its checksum says"],
    );
    refused(&bad("empty", b""), 1, &[damaged]);
    refused(
        &bad("text", b"name = \"demo\""),
        1,
        &[damaged, "is no snapshot"],
    );
    refused(
        "/no/such/file",
        1,
        &["cannot open /no/such/file", "check the path"],
    );

    // Another cluster's is taken, with a warning.
    let text = fs::read_to_string(&cluster.file).unwrap();
    let other = sandbox.write("other.toml", &text.replace(CLUSTER, "other"));
    sandbox
        .provision(&["restore", "--dry-run", &other, &good])
        .expect(0)
        .says(&["the snapshot is of cluster demo, ID "]);
    assert!(!sandbox.cluster("other").exists());

    let with = |extra: &str| sandbox.write("demo.toml", &format!("{text}{extra}"));
    let file = with("flags = { wal-dir = \"/x\" }\n");
    sandbox
        .provision(&["restore", &file, &good])
        .expect(2)
        .says(&["`wal-dir`"]);
    let file = with("[bootstrap]\ntoken = \"t\"\n");
    sandbox
        .provision(&["restore", &file, &good])
        .expect(2)
        .says(&["remove `token` from the file"]);
    let binary = sandbox.fake_etcd("exec /usr/bin/etcd \"$@\"");
    let file = with(&format!("{binary}\n"));
    sandbox
        .provision(&["restore", &file, &good])
        .expect(1)
        .says(&[
            "no etcdutl or etcdctl binary",
            "put etcdutl or etcdctl of the same release beside it",
        ]);
    assert_eq!(cluster.get("a"), "b");
    cluster.phase().ok_or(()).unwrap_err();
}

/// A file system of so many KiB, gone with this.
struct Small(PathBuf);

impl Small {
    fn new(path: PathBuf, kib: u32) -> Self {
        fs::create_dir(&path).unwrap();
        let size = format!("size={kib}k");
        run("mount", &["-t", "tmpfs", "-o", &size, "tmpfs"], &path);
        Self(path)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        run("umount", &[], &self.0);
    }
}

fn run(program: &str, args: &[&str], path: &Path) {
    let status = Command::new(program).args(args).arg(path).status();
    assert!(status.unwrap().success(), "{program}");
}

#[test]
fn a_full_disk_leaves_nothing_behind() {
    let cluster = Cluster::up(INCLUDED, 1, false);
    cluster.put("a", &"x".repeat(100_000));
    let small = Small::new(cluster.sandbox.path().join("small"), 64);
    let to = format!("{}/", small.0.display());
    cluster
        .sandbox
        .provision(&["backup", CLUSTER, "--to", &to])
        .expect(1)
        .says(&["cannot write", "free some space"]);
    assert_eq!(fs::read_dir(&small.0).unwrap().count(), 0);
}
