//! What makes a process a proxy, what it keeps for its next start, and what it refuses.

use std::fs;
use std::net::TcpListener;

use super::{BINARIES, proxy, started, wait_for_endpoints};
use crate::discovery::Service;
use crate::process::{ETCD, ETCD_3_5, MEMBER, Server, free_ports, wait_until};
use crate::v2::client::ask;

#[test]
fn a_cluster_that_is_full_gets_a_proxy() {
    let mut service = Service::started();
    let url = service.token("full", "1");
    let discovery = format!("--discovery={url}");
    let [client, peer] = free_ports();
    let more = ["--enable-v2", discovery.as_str()];
    let mut member = Server::of_none(MEMBER, "infra0", client, peer, &more);
    member.start();
    member.wait_ready();
    let late = |binary| {
        let mut late = proxy(binary, &[&discovery, "--discovery-fallback=proxy"]);
        late.start();
        wait_for_endpoints(&late, 1);
        for text in [
            "discovery cluster is full, falling back to proxy",
            "failed to join discovery cluster (discovery: cluster is full)",
            "v2 API proxy starting",
            "proxy using peer URLS",
            "v2 proxy started listening on client requests",
        ] {
            assert!(late.log().contains(text), "{text}: {}", late.log());
        }
        let (status, _) = ask(late.client_port, "PUT", "/v2/keys/a", "value=1");
        assert!(matches!(status, 200 | 201), "{status}");
        late
    };
    drop((late(ETCD), late(ETCD_3_5)));
    let mut late = late(MEMBER);
    // etcd leaves a member's directory too, and refuses to start again for that.
    assert!(!late.data_dir().join("member").exists());
    late.signal("TERM");
    service.stop();
    late.start();
    wait_for_endpoints(&late, 1);
    let ignored = "discovery token ignored since the proxy has already been initialized; valid cluster file found";
    assert!(late.log().contains(ignored), "{}", late.log());
    let (status, _) = ask(late.client_port, "GET", "/v2/keys/a", "");
    assert_eq!(status, 200);
}

#[test]
fn a_proxy_takes_no_place_and_needs_the_service_once() {
    let mut service = Service::started();
    for binary in BINARIES {
        let url = service.token(&format!("place{}", binary.replace('/', "-")), "1");
        let mut proxy = proxy(binary, &["--proxy=on", &format!("--discovery={url}")]);
        proxy.start();
        wait_until("the proxy waits for the member", || {
            let log = proxy.log();
            ["waiting for more", "waiting for other nodes"]
                .iter()
                .any(|text| log.contains(text))
                || log.contains("found 0 peer(s), waiting for 1 more")
        });
        let [client, peer] = free_ports();
        let more = ["--enable-v2", &format!("--discovery={url}")];
        let mut member = Server::of_none(MEMBER, "infra0", client, peer, &more);
        member.start();
        member.wait_ready();
        wait_for_endpoints(&proxy, 1);
        service.stop();
        proxy.signal("TERM");
        proxy.start();
        wait_for_endpoints(&proxy, 1);
        let (status, _) = ask(proxy.client_port, "PUT", "/v2/keys/a", "value=1");
        assert_eq!(status, 201, "{binary}");
        let text = "proxy using peer URLS from cluster file";
        assert!(proxy.log().contains(text), "{}", proxy.log());
        service.again();
    }
}

/// What a process says that ends with exit code 1.
fn refusal(server: &mut Server) -> String {
    let status = server.wait_exit();
    assert_eq!(status.code(), Some(1), "{}", server.log());
    server.log().replace("\\\"", "\"")
}

#[test]
fn a_directory_is_a_members_or_a_proxys() {
    let made = |server: &Server, name: &str| {
        fs::create_dir_all(server.data_dir().join(name)).expect("made");
    };
    for binary in BINARIES {
        let mut both = proxy(binary, &["--proxy=on"]);
        made(&both, "member");
        made(&both, "proxy");
        both.start();
        let said = refusal(&mut both);
        assert!(
            said.contains("invalid datadir; both member and proxy directories exist"),
            "{said}"
        );

        let mut damaged = proxy(binary, &["--proxy=on"]);
        made(&damaged, "proxy");
        fs::write(damaged.data_dir().join("proxy/cluster"), "{\"Peer").expect("written");
        damaged.start();
        let said = refusal(&mut damaged);
        assert!(said.contains("discovery failed"), "{said}");
    }
    // etcd goes by the directory, whatever the flags ask for.
    let mut member = Server::started(MEMBER, &[]);
    member.kill();
    member.arg("--proxy=on");
    member.start();
    let said = refusal(&mut member);
    assert!(
        said.contains("--proxy is set, but data directory"),
        "{said}"
    );
    member.without("--proxy=");
    member.start();
    member.wait_ready();

    let mut proxy = started(MEMBER, std::slice::from_ref(&member), &[]);
    proxy.kill();
    proxy.without("--proxy=");
    proxy.without("--initial-cluster=");
    proxy.start();
    let said = refusal(&mut proxy);
    assert!(said.contains("is a proxy's: set --proxy"), "{said}");
    assert!(!proxy.data_dir().join("member").exists());
}

#[test]
fn a_start_that_fails_leaves_no_directory() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("bound").port();
    let listen = format!("--listen-client-urls=http://127.0.0.1:{port}");
    let file = tempfile::NamedTempFile::new().expect("a file");
    let no_directory = format!("--data-dir={}", file.path().display());
    for (flag, text) in [
        (listen.as_str(), "bind: address already in use"),
        (&no_directory, "cannot write to data directory"),
        ("--initial-cluster=", "the proxy knows no member to ask"),
        (
            "--initial-cluster=a",
            "error setting up initial cluster: URL scheme must be http, https, unix, or unixs: ",
        ),
    ] {
        let mut proxy = proxy(MEMBER, &["--proxy=on", flag]);
        proxy.start();
        let said = refusal(&mut proxy);
        assert!(said.contains(text), "{said}");
        assert!(!proxy.data_dir().join("proxy").exists(), "{flag}");
    }
}
