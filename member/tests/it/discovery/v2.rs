//! The v2 service is a real etcd; what no etcd answers comes from a socket of the test.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::{Arc, Mutex};

use super::{certificates, members, strangers, wait_named};
use crate::process::{ETCD, MEMBER, Server, free_ports, http_get, wait_until};
use crate::server::start_all;

/// An etcd with the v2 API, as the guide's private discovery service.
pub(crate) struct Service(Server);

impl Service {
    pub(crate) fn started() -> Self {
        Self(Server::started(ETCD, &["--enable-v2"]))
    }

    fn port(&self) -> u16 {
        self.0.client_port
    }

    pub(crate) fn stop(&mut self) {
        self.0.kill();
    }

    /// Starts it once more, with what it knew.
    pub(crate) fn again(&mut self) {
        self.0.start();
        self.0.wait_ready();
    }

    /// The URL of a token whose cluster is to have so many members.
    pub(crate) fn token(&self, token: &str, size: &str) -> String {
        let url = format!("{}/v2/keys/discovery/{token}", self.0.endpoint());
        put_size(&url, size);
        url
    }
}

/// Says how many members the cluster of a registration is to have.
fn put_size(url: &str, size: &str) {
    let size_key = format!("{url}/_config/size");
    let put = Command::new("curl")
        .args([
            "-sSf",
            "-X",
            "PUT",
            &size_key,
            "-d",
            &format!("value={size}"),
        ])
        .output()
        .expect("curl runs");
    assert!(
        put.status.success(),
        "{}",
        String::from_utf8_lossy(&put.stderr)
    );
}

fn refused(server: &mut Server, texts: &[&str]) {
    let status = server.wait_exit();
    let log = server.log();
    assert_eq!(status.code(), Some(1), "{log}");
    for text in texts {
        assert!(log.contains(text), "{text}: {log}");
    }
}

#[test]
fn three_members_find_each_other_with_the_ids_of_etcd() {
    let service = Service::started();
    let mut found = Vec::new();
    let mut etcds: [Server; 3] = strangers(ETCD, &[]);
    let url = service.token("t", "3");
    etcds
        .iter_mut()
        .for_each(|etcd| etcd.arg(&format!("--discovery={url}")));
    start_all(&mut etcds);
    wait_named(&etcds);
    found.push(members(&etcds[0]));
    let ports = etcds
        .each_ref()
        .map(|etcd| (etcd.client_port, etcd.peer_port));
    drop(etcds);
    // The same token once more, without the registrations.
    let gone = Command::new("curl")
        .args(["-sSf", "-X", "DELETE", &format!("{url}?recursive=true")])
        .output();
    assert!(gone.expect("curl runs").status.success());
    assert_eq!(service.token("t", "3"), url);
    let mut servers: [Server; 3] = std::array::from_fn(|i| {
        let (client, peer) = ports[i];
        Server::of_none(MEMBER, &format!("infra{i}"), client, peer, &[])
    });
    servers[0].arg(&format!("--discovery={url}"));
    servers[1].env("ETCD_DISCOVERY", &url);
    servers[2].arg(&format!("--discovery={url}"));
    start_all(&mut servers);
    wait_named(&servers);
    found.push(members(&servers[0]));
    assert_eq!(found[0], found[1]);

    // There is no place left.
    let [mut late] = strangers::<1>(MEMBER, &[&format!("--discovery={url}")]);
    late.start();
    refused(
        &mut late,
        &[
            "failed to bootstrap; discovery token was already used",
            "failed to join discovery cluster (discovery: cluster is full)",
            "do not reuse discovery token; generate a new one to bootstrap a cluster",
        ],
    );
    assert!(!late.data_dir().join("member").exists());

    // With data the service is not asked, and need not be there.
    drop(service);
    servers[1].signal("TERM");
    servers[1].start();
    servers[1].wait_ready();
    let log = servers[1].log();
    assert!(
        log.contains(
            "discovery token is ignored since cluster already initialized; valid logs are found"
        ),
        "{log}"
    );
}

#[test]
fn a_member_registers_once_and_a_name_is_given_once() {
    let service = Service::started();
    let url = service.token("once", "3");
    let [mut first] = strangers::<1>(MEMBER, &[&format!("--discovery={url}")]);
    first.start();
    wait_until("the first waits", || {
        first.log().contains("waiting for more")
    });
    let status = first.signal("INT");
    assert_eq!(status.signal(), Some(2), "a signal ends the wait");
    first.start();
    refused(
        &mut first,
        &[
            "member has been registered with discovery service",
            "discovery: found duplicate id",
            "or use a new discovery token if previous bootstrap failed",
        ],
    );

    let url = service.token("names", "2");
    let mut twins: [Server; 2] = strangers(MEMBER, &["--name=same", &format!("--discovery={url}")]);
    twins.iter_mut().for_each(Server::start);
    for twin in &mut twins {
        refused(
            twin,
            &[
                "member with duplicated name has already been registered",
                "discovery: found duplicate name",
            ],
        );
    }
}

#[test]
fn a_taken_peer_port_costs_no_registration() {
    let service = Service::started();
    let url = service.token("port", "1");
    let [mut server] = strangers::<1>(MEMBER, &[&format!("--discovery={url}")]);
    let taken = TcpListener::bind(("127.0.0.1", server.peer_port)).expect("free a moment ago");
    server.start();
    refused(&mut server, &["bind: address already in use"]);
    drop(taken);
    server.start();
    server.wait_ready();
}

#[test]
fn a_proxy_stands_between() {
    let service = Service::started();
    let url = service.token("proxied", "1");
    let heads = Arc::new(Mutex::new(Vec::new()));
    let proxy = forwarder(service.port(), Arc::clone(&heads));
    let [mut by_flag] = strangers::<1>(MEMBER, &[&format!("--discovery={url}")]);
    by_flag.arg(&format!("--discovery-proxy=127.0.0.1:{proxy}"));
    by_flag.start();
    by_flag.wait_ready();
    assert!(
        by_flag.log().contains("running proxy with discovery"),
        "{}",
        by_flag.log()
    );
    let heads = heads.lock().expect("no panic").clone();
    assert!(
        heads
            .iter()
            .any(|head| head.starts_with(&format!("GET {url}/_config/size?"))),
        "a proxy is given the whole URL: {heads:?}"
    );
    let url = service.token("proxied-env", "1");
    let [mut by_env] = strangers::<1>(MEMBER, &[&format!("--discovery={url}")]);
    by_env.env("ETCD_DISCOVERY_PROXY", &format!("http://127.0.0.1:{proxy}"));
    by_env.start();
    by_env.wait_ready();
}

#[test]
fn members_follow_a_service_that_has_moved() {
    let service = Service::started();
    for (at, binary) in [MEMBER, MEMBER, MEMBER, MEMBER, ETCD].iter().enumerate() {
        let status = [301, 302, 307, 308, 307][at];
        let front = redirecting(status, format!("http://127.0.0.1:{}", service.port()));
        let token = format!("moved-{at}");
        service.token(&token, "1");
        let url = format!("http://127.0.0.1:{front}/v2/keys/discovery/{token}");
        let [mut server] = strangers::<1>(binary, &[&format!("--discovery={url}")]);
        server.start();
        server.wait_ready();
    }
    // Not for ever.
    let front = redirecting(307, String::new());
    let url = format!("http://127.0.0.1:{front}/v2/keys/discovery/t");
    let [mut server] = strangers::<1>(MEMBER, &[&format!("--discovery={url}")]);
    server.start();
    refused(
        &mut server,
        &["discovery: bad discovery endpoint: it redirects more than 10 times"],
    );
}

/// Sends every request to the same path of another place; the port. Nothing before the path: back to itself.
fn redirecting(status: u16, place: String) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut head = [0; 4096];
            let length = stream.read(&mut head).unwrap_or(0);
            let text = String::from_utf8_lossy(&head[..length]).into_owned();
            let target = text.split(' ').nth(1).unwrap_or_default();
            let answer = format!(
                "HTTP/1.1 {status} Moved\r\nLocation: {place}{target}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
            let _ = stream.write_all(answer.as_bytes());
            let _ = stream.shutdown(Shutdown::Write);
        }
    });
    port
}

#[test]
fn a_service_with_tls_is_checked_by_what_this_machine_trusts() {
    let dir = tempfile::TempDir::new().expect("a directory");
    certificates(dir.path(), "IP:127.0.0.1");
    let file = |name: &str| dir.path().join(name).display().to_string();
    let mut service = Service(Server::single(ETCD, &["--enable-v2"]));
    let [metrics] = free_ports();
    let secure = format!("https://127.0.0.1:{}", service.port());
    service.0.arg(&format!(
        "--listen-client-urls={secure},http://127.0.0.1:{metrics}"
    ));
    service.0.arg(&format!("--advertise-client-urls={secure}"));
    service.0.arg(&format!("--cert-file={}", file("m.crt")));
    service.0.arg(&format!("--key-file={}", file("m.key")));
    service.0.start();
    wait_until("the service serves", || {
        http_get(metrics, "/health").is_some_and(|body| body.contains("true"))
    });
    let heads = Arc::new(Mutex::new(Vec::new()));
    let proxy = forwarder(service.port(), Arc::clone(&heads));
    let plain = format!("http://127.0.0.1:{metrics}");
    for more in [None, Some(format!("--discovery-proxy=127.0.0.1:{proxy}"))] {
        let token = format!("tls-{}", more.is_some());
        put_size(&format!("{plain}/v2/keys/discovery/{token}"), "1");
        let url = format!("{secure}/v2/keys/discovery/{token}");
        let [mut server] = strangers::<1>(MEMBER, &[&format!("--discovery={url}")]);
        server.env("SSL_CERT_FILE", &file("ca.crt"));
        more.iter().for_each(|arg| server.arg(arg));
        server.start();
        server.wait_ready();
    }
    let heads = heads.lock().expect("no panic");
    assert!(
        heads
            .iter()
            .all(|head| head.starts_with("CONNECT 127.0.0.1:")),
        "{heads:?}"
    );
    assert!(!heads.is_empty());
}

#[test]
fn the_service_may_restart_while_members_wait() {
    let mut service = Service::started();
    let url = service.token("restart", "2");
    let mut servers: [Server; 2] = strangers(MEMBER, &[&format!("--discovery={url}")]);
    servers[0].start();
    wait_until("the first waits", || {
        servers[0].log().contains("waiting for more")
    });
    service.0.kill();
    wait_until("the first notices", || {
        servers[0]
            .log()
            .contains("retry connecting to discovery service")
    });
    service.0.start();
    service.0.wait_ready();
    servers[1].start();
    servers.iter_mut().for_each(Server::wait_ready);
}

#[test]
fn a_service_that_never_answers_is_given_up() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let silent_port = silent.local_addr().expect("bound").port();
    let broken = answering("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n");
    let refusing = crate::process::free_ports::<1>()[0];
    let mut servers: [Server; 4] = strangers(MEMBER, &[]);
    for (server, port) in servers
        .iter_mut()
        .zip([silent_port, broken, refusing, silent_port])
    {
        server.arg(&format!(
            "--discovery=http://127.0.0.1:{port}/v2/keys/discovery/t"
        ));
    }
    servers[3].arg(&format!("--discovery-proxy=http://127.0.0.1:{refusing}"));
    servers.iter_mut().for_each(Server::start);
    for (server, last) in servers.iter_mut().zip([
        "no answer within 5s",
        "server error [500 Internal Server Error]",
        "Connection refused",
        "Connection refused",
    ]) {
        refused(
            server,
            &["discovery: no answer from http://127.0.0.1:", last],
        );
        assert!(!server.data_dir().join("member").exists());
    }
}

/// Gives every request the same answer; the port.
fn answering(answer: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(answer.as_bytes());
            let _ = stream.shutdown(Shutdown::Write);
        }
    });
    port
}

/// Passes connections on and keeps the beginning of each; the port. etcd answers requests that name the whole URL.
fn forwarder(to: u16, heads: Arc<Mutex<Vec<String>>>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let heads = Arc::clone(&heads);
            std::thread::spawn(move || {
                let mut head = [0; 4096];
                let length = client.read(&mut head).unwrap_or(0);
                let text = String::from_utf8_lossy(&head[..length]).into_owned();
                let tunnel = text.starts_with("CONNECT ");
                heads.lock().expect("no panic").push(text);
                let mut server = TcpStream::connect(("127.0.0.1", to)).expect("the service runs");
                let _ = match tunnel {
                    true => client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n"),
                    false => server.write_all(&head[..length]),
                };
                let (mut up, mut down) = (
                    server.try_clone().expect("a handle"),
                    client.try_clone().expect("a handle"),
                );
                let back = std::thread::spawn(move || {
                    let _ = std::io::copy(&mut up, &mut down);
                    let _ = down.shutdown(Shutdown::Both);
                });
                let _ = std::io::copy(&mut client, &mut server);
                let _ = server.shutdown(Shutdown::Both);
                let _ = back.join();
            });
        }
    });
    port
}
