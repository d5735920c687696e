//! Servers as processes, on loopback, each with a directory of its own; gone when dropped.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
pub(crate) use testbed::port::claim as free_ports;

pub(crate) const MEMBER: &str = env!("CARGO_BIN_EXE_member");
pub(crate) const ETCD: &str = "/usr/bin/etcd";
pub(crate) const ETCD_3_5: &str = "/usr/local/lib/etcd-3.5.1/etcd";

const DEADLINE: Duration = Duration::from_secs(60);

/// Waits until the condition holds.
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}: not within {DEADLINE:?}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// One server process.
pub(crate) struct Server {
    pub(crate) client_port: u16,
    pub(crate) peer_port: u16,
    binary: PathBuf,
    args: Vec<String>,
    env: Vec<(String, String)>,
    dir: TempDir,
    child: Option<Child>,
}

impl Server {
    /// A single-member cluster, not started yet.
    pub(crate) fn single(binary: &str, more: &[&str]) -> Self {
        let [client_port, peer_port] = free_ports();
        let initial = format!("infra0=http://127.0.0.1:{peer_port}");
        Self::of_cluster(binary, "infra0", client_port, peer_port, &initial, more)
    }

    /// A single-member cluster that serves.
    pub(crate) fn started(binary: &str, more: &[&str]) -> Self {
        let mut server = Self::single(binary, more);
        server.start();
        server.wait_ready();
        server
    }

    /// One member of a cluster, not started yet.
    pub(crate) fn of_cluster(
        binary: &str,
        name: &str,
        client_port: u16,
        peer_port: u16,
        initial_cluster: &str,
        more: &[&str],
    ) -> Self {
        let mut server = Self::of_none(binary, name, client_port, peer_port, &[]);
        server.arg(&format!("--initial-cluster={initial_cluster}"));
        more.iter().for_each(|arg| server.arg(arg));
        server
    }

    /// One member that is not told of the others, not started yet.
    pub(crate) fn of_none(
        binary: &str,
        name: &str,
        client_port: u16,
        peer_port: u16,
        more: &[&str],
    ) -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        let client = format!("http://127.0.0.1:{client_port}");
        let peer = format!("http://127.0.0.1:{peer_port}");
        let mut args = vec![
            format!("--name={name}"),
            format!("--data-dir={}", dir.path().join("data").display()),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
        ];
        args.extend(more.iter().map(|arg| (*arg).to_owned()));
        Self {
            client_port,
            peer_port,
            binary: binary.into(),
            args,
            env: Vec::new(),
            dir,
            child: None,
        }
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub(crate) fn log_path(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.client_port)
    }

    /// Whether it says that it is the leader.
    pub(crate) fn leads(&self) -> bool {
        http_get(self.client_port, "/metrics")
            .is_some_and(|metrics| metrics.contains("\netcd_server_is_leader 1\n"))
    }

    pub(crate) fn arg(&mut self, arg: &str) {
        self.args.push(arg.to_owned());
    }

    /// Takes back the arguments that begin so.
    pub(crate) fn without(&mut self, prefix: &str) {
        self.args.retain(|arg| !arg.starts_with(prefix));
    }

    pub(crate) fn env(&mut self, name: &str, value: &str) {
        self.env.push((name.to_owned(), value.to_owned()));
    }

    /// Starts the process; its output goes to [`Server::log`].
    pub(crate) fn start(&mut self) {
        assert!(self.child.is_none(), "runs already");
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_path())
            .expect("a log file");
        let child = Command::new(&self.binary)
            .args(&self.args)
            .env_clear()
            .envs(self.env.iter().cloned())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("the server starts");
        self.child = Some(child);
    }

    /// Waits until a linearizable read answers.
    pub(crate) fn wait_ready(&mut self) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if http_get(self.client_port, "/health")
                .is_some_and(|body| body.contains("\"health\":\"true\""))
            {
                return;
            }
            if let Some(child) = &mut self.child
                && let Some(status) = child.try_wait().expect("a child")
            {
                panic!(
                    "{} ended with {status}:\n{}",
                    self.binary.display(),
                    self.log()
                );
            }
            assert!(Instant::now() < deadline, "not ready:\n{}", self.log());
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("runs").id()
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("a child of ours");
            child.wait().expect("a child of ours");
        }
    }

    /// Sends a signal and waits for the end.
    pub(crate) fn signal(&mut self, signal: &str) -> ExitStatus {
        let pid = self.pid().to_string();
        let sent = Command::new("kill")
            .args(["-s", signal, &pid])
            .status()
            .expect("kill runs");
        assert!(sent.success());
        self.wait_exit()
    }

    /// Waits for the process to end by itself.
    pub(crate) fn wait_exit(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("runs");
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = child.try_wait().expect("a child") {
                return status;
            }
            if Instant::now() > deadline {
                let _ = child.kill();
                let _ = child.wait();
                panic!("did not end:\n{}", self.log());
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            // To this process's own standard error: the test's output is what explains a failure.
            let _ = writeln!(
                std::io::stderr(),
                "---- log of {} ({:?})\n{}",
                self.binary.display(),
                self.args.first(),
                tail(&self.log())
            );
        }
    }
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

/// The body of a plain GET, whatever its status.
pub(crate) fn http_get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .ok()?;
    // The older version: its answers do not come in chunks.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
    let mut response = String::new();
    stream.read_to_string(&mut response).ok()?;
    response
        .split_once("\r\n\r\n")
        .map(|(_, body)| body.to_owned())
}

/// Runs etcdctl against endpoints: success, standard output, standard error.
pub(crate) fn etcdctl(endpoints: &str, args: &[&str]) -> (bool, String, String) {
    let output = Command::new("etcdctl")
        .env_clear()
        .env("ETCDCTL_API", "3")
        .arg(format!("--endpoints={endpoints}"))
        .args(args)
        .output()
        .expect("etcdctl is installed: run ci/setup");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (
        output.status.success(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// Whether a file below `dir` is readable by others than its owner.
pub(crate) fn readable_by_others(dir: &Path) -> Vec<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let mut found = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).expect("readable").flatten() {
            let metadata = entry.metadata().expect("metadata");
            if metadata.permissions().mode() & 0o077 != 0 {
                found.push(entry.path());
            }
            if metadata.is_dir() {
                open.push(entry.path());
            }
        }
    }
    found
}
