//! The v3 service is a real etcd 3.5, and then the member itself.

use super::{strangers, wait_named};
use crate::process::{ETCD_3_5, MEMBER, Server, etcdctl, wait_until};
use crate::server::start_all;

fn put(service: &Server, key: &str, value: &str) {
    let (ok, _, err) = etcdctl(&service.endpoint(), &["put", key, "--", value]);
    assert!(ok, "{err}");
}

#[test]
fn three_members_find_each_other_by_token_and_a_fourth_has_no_place() {
    for binary in [ETCD_3_5, MEMBER] {
        let service = Server::started(binary, &[]);
        put(&service, "/_etcd/registry/t/_config/size", "3");
        // The first endpoint is dead: the next one's turn comes.
        let [dead] = crate::process::free_ports();
        let endpoints = format!(
            "--discovery-endpoints=127.0.0.1:{dead},{}",
            service.endpoint()
        );
        let more = ["--discovery-token=t", &endpoints];
        let mut servers: [Server; 3] = strangers(MEMBER, &more);
        servers[2].start();
        wait_until("the first waits", || {
            servers[2].log().contains("waiting for more")
        });
        // Registering again is allowed.
        servers[2].signal("TERM");
        start_all(&mut servers);
        wait_named(&servers);
        let (ok, out, err) = etcdctl(
            &service.endpoint(),
            &["get", "--prefix", "/_etcd/registry/t/members/"],
        );
        assert!(ok, "{err}");
        assert_eq!(out.matches("=http://127.0.0.1:").count(), 3, "{out}");

        let [mut late] = strangers::<1>(MEMBER, &more);
        late.start();
        assert_eq!(late.wait_exit().code(), Some(1));
        assert!(
            late.log().contains("discovery: cluster is full"),
            "{}",
            late.log()
        );

        let ignored = "discovery token is ignored since cluster already initialized";
        drop(service);
        servers[0].signal("TERM");
        servers[0].start();
        servers[0].wait_ready();
        assert!(servers[0].log().contains(ignored), "{}", servers[0].log());
    }
}

#[test]
fn what_the_service_says_of_the_token_is_an_error() {
    let service = Server::started(ETCD_3_5, &[]);
    for (token, size) in [("zero", "0"), ("minus", "-1"), ("text", "abc")] {
        put(
            &service,
            &format!("/_etcd/registry/{token}/_config/size"),
            size,
        );
    }
    for (token, text) in [
        (
            "none",
            "failed to join discovery cluster (discovery: size key not found)",
        ),
        ("zero", "discovery: size key is bad"),
        ("minus", "discovery: size key is bad"),
        ("text", "discovery: size key is bad"),
    ] {
        let endpoints = format!("--discovery-endpoints={}", service.endpoint());
        let [mut server] =
            strangers::<1>(MEMBER, &[&format!("--discovery-token={token}"), &endpoints]);
        server.start();
        assert_eq!(server.wait_exit().code(), Some(1));
        assert!(server.log().contains(text), "{token}: {}", server.log());
    }
}

#[test]
fn a_service_with_users_wants_one() {
    let service = Server::started(ETCD_3_5, &[]);
    put(&service, "/_etcd/registry/t/_config/size", "1");
    for args in [
        ["user", "add", "root:secret"].as_slice(),
        &["user", "grant-role", "root", "root"],
        &["auth", "enable"],
    ] {
        let (ok, _, err) = etcdctl(&service.endpoint(), args);
        assert!(ok, "{args:?}: {err}");
    }
    let endpoints = format!("--discovery-endpoints={}", service.endpoint());
    for (more, text) in [
        (&[][..], "user name is empty"),
        (
            &["--discovery-user=root", "--discovery-password=wrong"],
            "authentication failed, invalid user ID or password",
        ),
    ] {
        let [mut server] = strangers::<1>(MEMBER, &["--discovery-token=t", &endpoints]);
        more.iter().for_each(|arg| server.arg(arg));
        server.start();
        assert_eq!(server.wait_exit().code(), Some(1));
        assert!(server.log().contains(text), "{}", server.log());
    }
    let [mut server] = strangers::<1>(MEMBER, &["--discovery-token=t", &endpoints]);
    server.arg("--discovery-user=root");
    server.arg("--discovery-password=secret");
    server.start();
    server.wait_ready();
}
