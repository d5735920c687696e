//! `member gateway start` in front of members, and its texts beside those of etcd's gateway.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};

use tempfile::TempDir;

use crate::process::{MEMBER, Server, etcdctl, free_ports, wait_until};
use crate::server::{endpoints, start_all, three};

/// A gateway of its own port.
pub(crate) struct Gateway {
    port: u16,
    dir: TempDir,
    child: Child,
}

impl Gateway {
    /// Starts one and waits until it takes connections.
    pub(crate) fn started(more: &[&str]) -> Self {
        let [port] = free_ports();
        let dir = TempDir::new().expect("a directory");
        let log = File::create(dir.path().join("log")).expect("a file");
        let child = Command::new(MEMBER)
            .args([
                "gateway",
                "start",
                &format!("--listen-addr=127.0.0.1:{port}"),
            ])
            .args(more)
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("starts");
        let gateway = Self { port, dir, child };
        wait_until("the gateway is ready", || {
            gateway.log().contains("ready to proxy client requests")
        });
        gateway
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn stop(mut self) -> ExitStatus {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .arg(&pid)
                .status()
                .expect("kill runs")
                .success()
        );
        self.child.wait().expect("a child")
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_dead_member_is_set_aside_and_taken_back() {
    let mut servers = three();
    start_all(&mut servers);
    // The scheme is taken off.
    let gateway = Gateway::started(&[
        &format!("--endpoints={}", endpoints(&servers)),
        "--retry-delay=1s",
    ]);
    let (ok, _, err) = etcdctl(&gateway.endpoint(), &["put", "a", "b"]);
    assert!(ok, "{err}");
    servers[1].kill();
    for i in 0..6 {
        let (ok, _, err) = etcdctl(&gateway.endpoint(), &["put", "a", &i.to_string()]);
        assert!(ok, "{err}");
    }
    assert!(
        gateway.log().contains("deactivated endpoint"),
        "{}",
        gateway.log()
    );
    servers[1].start();
    servers[1].wait_ready();
    wait_until("the gateway notices", || {
        gateway.log().contains("\"activated\"")
    });
    let (ok, out, err) = etcdctl(&gateway.endpoint(), &["get", "a"]);
    assert!(ok && out == "a\n5\n", "{err}");
    assert_eq!(gateway.stop().signal(), Some(15), "ended by the signal");
}

#[test]
fn nobody_behind_it_closes_the_connection_and_a_member_that_comes_is_found() {
    let mut server = Server::single(MEMBER, &[]);
    let gateway = Gateway::started(&[
        &format!("--endpoints={}", server.endpoint()),
        "--retry-delay=1s",
    ]);
    assert_eq!(
        crate::process::http_get(gateway.port, "/health").unwrap_or_default(),
        ""
    );
    server.start();
    server.wait_ready();
    wait_until("the member is found", || {
        crate::process::http_get(gateway.port, "/health").is_some_and(|body| body.contains("true"))
    });
}
