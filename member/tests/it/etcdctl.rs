//! Every command of etcdctl, in two releases of it, against a cluster of three.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use crate::process::{MEMBER, Server, wait_until};
use crate::server::{endpoints, start_all, three};

/// Debian's etcdctl 3.4, and the 3.5 that `ci/setup` installs.
const RELEASES: [&str; 2] = ["/usr/bin/etcdctl", "/usr/local/lib/etcd-3.5.1/etcdctl"];

/// etcdctl, set up for one cluster.
struct Ctl {
    binary: &'static str,
    endpoints: String,
    user: Option<&'static str>,
}

impl Ctl {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.binary);
        command
            .env_clear()
            .env("ETCDCTL_API", "3")
            .arg(format!("--endpoints={}", self.endpoints))
            .arg("--command-timeout=30s")
            .args(self.user.map(|user| format!("--user={user}")))
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        command
    }

    /// What a command prints; it must succeed.
    fn ok(&self, args: &[&str]) -> String {
        self.fed(args, "")
    }

    /// What a command prints after it was given `input`.
    fn fed(&self, args: &[&str], input: &str) -> String {
        let mut child = self
            .command(args)
            .stderr(Stdio::piped())
            .spawn()
            .expect("etcdctl: run ci/setup");
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(input.as_bytes()).expect("taken");
        drop(stdin);
        let output = child.wait_with_output().expect("ended");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        let (out, err) = (text(output.stdout), text(output.stderr));
        assert!(
            output.status.success(),
            "{} {args:?}: {out}{err}",
            self.binary
        );
        out
    }

    /// What a command says that must fail.
    fn refused(&self, args: &[&str]) -> String {
        let output = self
            .command(args)
            .stderr(Stdio::piped())
            .output()
            .expect("etcdctl");
        assert!(!output.status.success(), "{args:?} succeeded");
        String::from_utf8(output.stderr).expect("text")
    }

    /// A command that goes on until it is dropped.
    fn running(&self, args: &[&str]) -> Running {
        let mut child = self.command(args).spawn().expect("etcdctl");
        let stdout = child.stdout.take().expect("piped");
        Running {
            stdin: child.stdin.take().expect("piped"),
            lines: BufReader::new(stdout).lines(),
            child,
        }
    }
}

struct Running {
    child: Child,
    stdin: ChildStdin,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Running {
    fn line(&mut self) -> String {
        self.lines.next().expect("a line").expect("text")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn each_release(check: fn(&Ctl, &[Server; 3])) {
    for binary in RELEASES {
        let mut servers = three();
        start_all(&mut servers);
        let ctl = Ctl {
            binary,
            endpoints: endpoints(&servers),
            user: None,
        };
        check(&ctl, &servers);
    }
}

#[test]
fn keys_are_written_read_compared_compacted_and_watched() {
    each_release(|ctl, _| {
        assert_eq!(ctl.ok(&["put", "a", "1"]), "OK\n");
        assert_eq!(ctl.fed(&["put", "b"], "from stdin"), "OK\n");
        assert_eq!(ctl.ok(&["get", "a"]), "a\n1\n");
        assert_eq!(
            ctl.ok(&["get", "", "--prefix", "--keys-only"]),
            "a\n\nb\n\n"
        );
        assert_eq!(ctl.ok(&["get", "b", "--print-value-only"]), "from stdin\n");
        let mut watch = ctl.running(&["watch", "a", "--rev=2", "--prev-kv"]);
        assert_eq!(
            [watch.line(), watch.line(), watch.line()],
            ["PUT", "a", "1"]
        );
        let txn = "value(\"a\") = \"1\"\n\nput a 2\nget b\n\nput a 3\n\n";
        let out = ctl.fed(&["txn"], txn);
        assert_eq!(
            out.lines()
                .filter(|line| !line.is_empty())
                .collect::<Vec<_>>(),
            ["SUCCESS", "OK", "b", "from stdin"]
        );
        let told: Vec<_> = (0..5).map(|_| watch.line()).collect();
        assert_eq!(told, ["PUT", "a", "1", "a", "2"]);
        let mut interactive = ctl.running(&["watch", "-i"]);
        interactive
            .stdin
            .write_all(b"watch --rev=3 b\n")
            .expect("taken");
        assert_eq!([interactive.line(), interactive.line()], ["PUT", "b"]);
        assert_eq!(ctl.ok(&["del", "b", "--prev-kv"]), "1\nb\nfrom stdin\n");
        assert_eq!(
            ctl.ok(&["compaction", "4", "--physical"]),
            "compacted revision 4\n"
        );
        let err = ctl.refused(&["get", "a", "--rev=2"]);
        assert!(
            err.contains("etcdserver: mvcc: required revision has been compacted"),
            "{err}"
        );
        let mut late = ctl.running(&["watch", "a", "--rev=2"]);
        assert!(late.child.wait().is_ok_and(|status| !status.success()));
    });
}

#[test]
fn leases_locks_and_elections_work() {
    each_release(|ctl, _| {
        let granted = ctl.ok(&["lease", "grant", "600"]);
        let id = granted.split_whitespace().nth(1).expect("an id");
        assert_eq!(ctl.ok(&["put", "k", "v", &format!("--lease={id}")]), "OK\n");
        let left = ctl.ok(&["lease", "timetolive", id, "--keys"]);
        assert!(
            left.contains("granted with TTL(600s)") && left.ends_with("attached keys([k])\n"),
            "{left}"
        );
        assert_eq!(
            ctl.ok(&["lease", "list"]),
            format!("found 1 leases\n{id}\n")
        );
        let kept = ctl.ok(&["lease", "keep-alive", "--once", id]);
        assert_eq!(kept, format!("lease {id} keepalived with TTL(600)\n"));
        assert_eq!(
            ctl.ok(&["lease", "revoke", id]),
            format!("lease {id} revoked\n")
        );
        assert_eq!(ctl.ok(&["get", "k"]), "");

        let mut first = ctl.running(&["lock", "mutex"]);
        assert!(first.line().starts_with("mutex/"));
        let mut second = ctl.running(&["lock", "mutex"]);
        wait_until("the second one waits", || keys_below(ctl, "mutex/") == 2);
        first.end();
        assert!(second.line().starts_with("mutex/"));
        second.end();
        assert_eq!(ctl.ok(&["lock", "mutex", "/bin/echo", "held"]), "held\n");

        let mut leader = ctl.running(&["elect", "e", "one"]);
        assert!(leader.line().starts_with("e/"));
        assert_eq!(leader.line(), "one");
        let mut observer = ctl.running(&["elect", "-l", "e"]);
        assert!(observer.line().starts_with("e/"));
        assert_eq!(observer.line(), "one");
        let mut next = ctl.running(&["elect", "e", "two"]);
        wait_until("the second candidate waits", || keys_below(ctl, "e/") == 2);
        leader.end();
        assert!(next.line().starts_with("e/"));
        assert_eq!(next.line(), "two");
        assert!(observer.line().starts_with("e/"));
        assert_eq!(observer.line(), "two");
        next.end();
    });
}

/// The number of keys that begin with `prefix`.
fn keys_below(ctl: &Ctl, prefix: &str) -> usize {
    let keys = ctl.ok(&["get", prefix, "--prefix", "--keys-only"]);
    keys.lines().filter(|line| !line.is_empty()).count()
}

impl Running {
    /// Ends a command as a user at a terminal does, and waits for it.
    fn end(&mut self) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill")
            .args(["-INT", &pid])
            .status()
            .expect("kill");
        assert!(sent.success());
        self.child.wait().expect("ended");
    }
}

#[test]
fn members_and_endpoints_are_shown_and_changed() {
    each_release(|ctl, servers| {
        // 3.4 asks one member what it knows: the name that a member told last reaches the others a moment later.
        wait_until("all three have told their names", || {
            let list = ctl.ok(&["member", "list"]);
            assert_eq!(list.lines().count(), 3, "{list}");
            list.lines().all(|line| line.contains(", started, infra"))
        });
        ctl.ok(&["endpoint", "health", "--cluster"]);
        let hashes = ctl.ok(&["endpoint", "hashkv"]);
        let mut hashes: Vec<_> = hashes
            .lines()
            .filter_map(|line| line.split(", ").nth(1))
            .collect();
        hashes.dedup();
        assert_eq!(hashes.len(), 1, "{hashes:?}");
        let status: serde_json::Value =
            serde_json::from_str(&ctl.ok(&["endpoint", "status", "-w", "json"])).expect("JSON");
        let leader = status[0]["Status"]["leader"].as_u64().expect("a leader");
        let leads = servers
            .iter()
            .zip(status.as_array().expect("a list"))
            .find(|(_, status)| status["Status"]["header"]["member_id"].as_u64() == Some(leader));
        let (leads, _) = leads.expect("the leader is one of them");
        let other = (0..3)
            .filter_map(|i| status[i]["Status"]["header"]["member_id"].as_u64())
            .find(|id| *id != leader)
            .expect("a follower");
        let at_leader = Ctl {
            endpoints: leads.endpoint(),
            ..*ctl
        };
        let (from, to) = (format!("{leader:x}"), format!("{other:x}"));
        assert_eq!(
            at_leader.ok(&["move-leader", &to]),
            format!("Leadership transferred from {from} to {to}\n")
        );
        let mut added = String::new();
        wait_until("the members have been connected for long enough", || {
            let url = "--peer-urls=http://127.0.0.1:9";
            let add = ctl
                .command(&["member", "add", "infra3", url, "--learner"])
                .output();
            let add = add.expect("etcdctl");
            added = String::from_utf8(add.stdout).expect("text");
            add.status.success()
        });
        let id = added.split_whitespace().nth(1).expect("an id");
        assert!(
            added.contains("ETCD_INITIAL_CLUSTER_STATE=\"existing\""),
            "{added}"
        );
        ctl.ok(&["member", "update", id, "--peer-urls=http://127.0.0.1:7"]);
        assert!(
            ctl.ok(&["member", "list"])
                .contains("unstarted, , http://127.0.0.1:7")
        );
        let err = ctl.refused(&["member", "promote", id]);
        assert!(
            err.contains("can only promote a learner member which is in sync with leader"),
            "{err}"
        );
        let removed = ctl.ok(&["member", "remove", id]);
        // etcdctl pads the ID to sixteen places.
        assert!(
            removed.starts_with("Member ")
                && removed.contains(&format!(" {id} removed from cluster")),
            "{removed}"
        );
    });
}

#[test]
fn users_and_roles_guard_keys() {
    each_release(|ctl, _| {
        assert_eq!(
            ctl.ok(&["user", "add", "root:secret"]),
            "User root created\n"
        );
        assert_eq!(ctl.ok(&["role", "add", "root"]), "Role root created\n");
        ctl.ok(&["user", "grant-role", "root", "root"]);
        assert_eq!(
            ctl.fed(&["user", "add", "dev", "--interactive=false"], "d"),
            "User dev created\n"
        );
        ctl.ok(&["role", "add", "writer"]);
        ctl.ok(&[
            "role",
            "grant-permission",
            "writer",
            "--prefix=true",
            "readwrite",
            "app/",
        ]);
        ctl.ok(&["user", "grant-role", "dev", "writer"]);
        assert_eq!(ctl.ok(&["auth", "enable"]), "Authentication Enabled\n");
        let err = ctl.refused(&["get", "app/x"]);
        assert!(err.contains("etcdserver: user name is empty"), "{err}");
        let by = |user| Ctl {
            user: Some(user),
            endpoints: ctl.endpoints.clone(),
            ..*ctl
        };
        let (root, dev) = (by("root:secret"), by("dev:d"));
        assert_eq!(dev.ok(&["put", "app/x", "1"]), "OK\n");
        let err = dev.refused(&["put", "other", "1"]);
        assert!(err.contains("etcdserver: permission denied"), "{err}");
        let err = by("dev:wrong").refused(&["get", "app/x"]);
        assert!(
            err.contains("etcdserver: authentication failed, invalid user ID or password"),
            "{err}"
        );
        let mut watch = dev.running(&["watch", "--prefix", "app/", "--rev=1"]);
        assert_eq!([watch.line(), watch.line()], ["PUT", "app/x"]);
        let mut denied = dev.running(&["watch", "other"]);
        assert!(denied.child.wait().is_ok_and(|status| !status.success()));
        assert!(
            root.ok(&["role", "get", "writer"])
                .contains("[app/, app0) (prefix app/)")
        );
        assert_eq!(root.ok(&["user", "list"]), "dev\nroot\n");
        assert!(root.ok(&["user", "get", "dev"]).contains("Roles: writer"));
        root.ok(&[
            "role",
            "revoke-permission",
            "writer",
            "--prefix=true",
            "app/",
        ]);
        let err = dev.refused(&["put", "app/x", "2"]);
        assert!(err.contains("etcdserver: permission denied"), "{err}");
        root.fed(&["user", "passwd", "dev", "--interactive=false"], "new");
        root.ok(&["user", "revoke-role", "dev", "writer"]);
        root.ok(&["user", "delete", "dev"]);
        root.ok(&["role", "delete", "writer"]);
        assert_eq!(root.ok(&["role", "list"]), "root\n");
        assert_eq!(root.ok(&["auth", "disable"]), "Authentication Disabled\n");
        assert_eq!(ctl.ok(&["get", "app/x"]), "app/x\n1\n");
    });
}

#[test]
fn maintenance_commands_work() {
    each_release(|ctl, servers| {
        ctl.ok(&["put", "k", "v"]);
        assert_eq!(ctl.ok(&["alarm", "list"]), "");
        assert_eq!(ctl.ok(&["alarm", "disarm"]), "");
        let defragmented = ctl.ok(&["defrag"]);
        assert_eq!(
            defragmented
                .matches("Finished defragmenting etcd member")
                .count(),
            3
        );
        let one = Ctl {
            endpoints: servers[0].endpoint(),
            ..*ctl
        };
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("backup.db");
        let file = file.to_str().expect("text");
        one.ok(&["snapshot", "save", file]);
        assert!(Path::new(file).exists());
        let status: serde_json::Value =
            serde_json::from_str(&ctl.ok(&["snapshot", "status", file, "-w", "json"]))
                .expect("JSON");
        assert_eq!(status["revision"], 2, "{status}");

        let mut target = Server::single(MEMBER, &[]);
        target.start();
        target.wait_ready();
        let mut mirror = ctl.running(&["make-mirror", &target.endpoint(), "--dest-prefix=copy/"]);
        let at_target = Ctl {
            endpoints: target.endpoint(),
            ..*ctl
        };
        wait_until("the first keys are there", || {
            at_target.ok(&["get", "copy/k"]) == "copy/k\nv\n"
        });
        ctl.ok(&["put", "later", "1"]);
        ctl.ok(&["del", "k"]);
        wait_until("changes follow", || {
            at_target.ok(&["get", "", "--prefix"]) == "copy/later\n1\n"
        });
        mirror.end();
    });
}

#[test]
fn load_and_scale_checks_pass() {
    each_release(|ctl, _| {
        let out = ctl.ok(&["check", "datascale", "--load=s"]);
        assert!(
            out.contains("PASS: Approximate system memory used"),
            "{out}"
        );
    });
}
