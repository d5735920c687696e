//! A state root of its own for each test, and everything that was started in it gone afterwards.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Long enough for a busy machine; a test that passes never waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A server that the tests run against.
#[derive(Clone, Copy)]
pub(crate) struct Server {
    /// The member's `binary` key, or nothing for the included member.
    pub(crate) binary: &'static str,
}

pub(crate) const ETCD: Server = Server {
    binary: "binary = \"/usr/bin/etcd\"",
};

/// The member that is built beside the program; `cargo build --release -p member` makes it.
pub(crate) const INCLUDED: Server = Server { binary: "" };

pub(crate) struct Sandbox {
    dir: TempDir,
}

/// What a finished verb left.
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Done {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }

    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(
            self.code, code,
            "stdout: {}\nstderr: {}",
            self.stdout, self.stderr
        );
        self
    }

    #[track_caller]
    pub(crate) fn shows(self, parts: &[&str]) -> Self {
        for part in parts {
            assert!(
                self.stdout.contains(part),
                "{part:?} is not in: {}",
                self.stdout
            );
        }
        self
    }

    #[track_caller]
    pub(crate) fn says(self, parts: &[&str]) -> Self {
        for part in parts {
            assert!(
                self.stderr.contains(part),
                "{part:?} is not in: {}",
                self.stderr
            );
        }
        self
    }
}

impl From<Output> for Done {
    fn from(output: Output) -> Self {
        use std::os::unix::process::ExitStatusExt;
        Self {
            code: output
                .status
                .code()
                .unwrap_or_else(|| 128 + output.status.signal().unwrap()),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Sandbox {
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::Builder::new()
                .prefix("provision-it-")
                .tempdir()
                .unwrap(),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.path().join("state")
    }

    pub(crate) fn cluster(&self, name: &str) -> PathBuf {
        self.state().join("clusters").join(name)
    }

    pub(crate) fn member(&self, cluster: &str, member: &str) -> PathBuf {
        self.cluster(cluster).join("members").join(member)
    }

    /// Writes a topology of so many members; `extra` goes into each `[[member]]`, after the binary.
    pub(crate) fn topology(&self, name: &str, members: usize, tls: bool, extra: &str) -> String {
        let tls = if tls { "mutual" } else { "off" };
        let mut text = format!("name = \"{name}\"\n");
        text.push_str(&format!("[tls]\npeer = \"{tls}\"\nclient = \"{tls}\"\n"));
        for index in 0..members {
            text.push_str(&format!("[[member]]\nname = \"m{index}\"\n{extra}\n"));
        }
        self.write(&format!("{name}.toml"), &text)
    }

    pub(crate) fn write(&self, file: &str, text: &str) -> String {
        let path = self.path().join(file);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// A program that says it is etcd and then does what `script` says.
    pub(crate) fn fake_etcd(&self, script: &str) -> String {
        use std::os::unix::fs::PermissionsExt;
        let path = self.path().join("etcd");
        let text = format!(
            "#!/bin/sh\nif [ \"$1\" = --version ]; then echo 'etcd Version: 3.4.23'; exit 0; fi\n{script}\n"
        );
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        format!("binary = \"{}\"", path.display())
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_provision"));
        command
            .args(args)
            .env("PROVISION_STATE_DIR", self.state())
            .env_remove("PROVISION_MEMBER")
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn provision(&self, args: &[&str]) -> Done {
        self.command(args).output().unwrap().into()
    }

    pub(crate) fn spawn(&self, args: &[&str]) -> Child {
        self.command(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    pub(crate) fn etcdctl(&self, cluster: &str, args: &[&str]) -> Done {
        let mut all = vec!["exec", cluster, "--", "etcdctl"];
        all.extend(args);
        self.provision(&all)
    }

    /// The pid that is remembered for a member, living or not.
    pub(crate) fn pid(&self, cluster: &str, member: &str) -> Option<i32> {
        let text = fs::read_to_string(self.member(cluster, member).join("process.json")).ok()?;
        let record: Value = serde_json::from_str(&text).ok()?;
        record["process"]["pid"].as_i64()?.try_into().ok()
    }

    pub(crate) fn status(&self, cluster: &str) -> Value {
        self.provision(&["status", cluster, "-o", "json"]).json()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // Whoever was started in here mentions the directory, on the command line or as its working directory.
        for pid in pids_in(self.path()) {
            kill(pid, 9);
            wait_until("a process of the sandbox ends", || !is_running(pid));
        }
    }
}

pub(crate) fn pids_in(dir: &Path) -> Vec<i32> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != i32::try_from(std::process::id()).unwrap())
        .filter(|pid| {
            let cwd = fs::read_link(format!("/proc/{pid}/cwd"));
            cwd.is_ok_and(|cwd| cwd.starts_with(dir))
        })
        .collect()
}

pub(crate) fn kill(pid: i32, signal: i32) {
    let status = Command::new("kill")
        .args([format!("-{signal}"), pid.to_string()])
        .stderr(Stdio::null())
        .status();
    status.unwrap();
}

/// Whether a process lives; a zombie does not.
pub(crate) fn is_running(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        stat.rsplit(')')
            .next()
            .is_some_and(|rest| !rest.trim_start().starts_with(['Z', 'X']))
    })
}

#[track_caller]
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A command that hangs fails the test instead of hanging it.
pub(crate) fn finish(mut child: Child) -> Done {
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("the command does not end");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap().into()
}

/// Makes one test per server.
macro_rules! each_server {
    ($($name:ident)*) => {
        mod included {
            $(#[test]
            fn $name() {
                super::$name($crate::sandbox::INCLUDED);
            })*
        }

        mod etcd {
            $(#[test]
            fn $name() {
                super::$name($crate::sandbox::ETCD);
            })*
        }
    };
}
pub(crate) use each_server;
