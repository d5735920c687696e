//! A member as the discovery service of etcds, as the clustering guide sets one up.

use std::process::Command;

use crate::process::{ETCD, ETCD_3_5, MEMBER, Server, etcdctl, free_ports};

const TOKEN: &str = "6c007a14875d53d9bf0ef5a6fc0257c817f0fb83";

/// The guide's way to say how many members a token stands for.
fn curl_size(url: &str, size: usize) {
    let value = format!("value={size}");
    let size_url = format!("{url}/_config/size");
    let output = Command::new("curl")
        .args([
            "-sS",
            "--noproxy",
            "*",
            "-X",
            "PUT",
            &size_url,
            "-d",
            &value,
        ])
        .output()
        .expect("curl is installed");
    let answer = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(answer.contains("\"action\":\"set\""), "{answer}");
}

fn discovering(binary: &str, name: &str, url: &str) -> Server {
    let [client, peer] = free_ports();
    let discovery = format!("--discovery={url}");
    let more = [discovery.as_str(), "--discovery-fallback=exit"];
    let mut server = Server::of_cluster(binary, name, client, peer, "", &more);
    server.without("--initial-cluster=");
    server
}

/// Three etcds that know a URL and nothing of each other form a cluster; a fourth is told that it is full.
fn form(binary: &str) {
    let service = Server::started(MEMBER, &["--enable-v2"]);
    let url = format!("{}/v2/keys/discovery/{TOKEN}", service.endpoint());
    curl_size(&url, 3);
    let mut servers = ["infra0", "infra1", "infra2"].map(|name| discovering(binary, name, &url));
    servers.iter_mut().for_each(Server::start);
    servers.iter_mut().for_each(Server::wait_ready);
    let (ok, members, err) = etcdctl(&servers[0].endpoint(), &["member", "list"]);
    assert!(ok, "{err}");
    for server in &servers {
        assert!(
            members.contains(&format!(", http://127.0.0.1:{}, ", server.peer_port)),
            "{members}"
        );
    }
    let (ok, _, err) = etcdctl(&servers[1].endpoint(), &["put", "a", "b"]);
    assert!(ok, "{err}");
    assert_eq!(etcdctl(&servers[2].endpoint(), &["get", "a"]).1, "a\nb\n");
    let mut fourth = discovering(binary, "infra3", &url);
    fourth.start();
    assert_eq!(fourth.wait_exit().code(), Some(1), "{}", fourth.log());
    assert!(fourth.log().contains("cluster is full"), "{}", fourth.log());
}

#[test]
fn etcds_of_3_4_find_each_other_through_a_member() {
    form(ETCD);
}

#[test]
fn etcds_of_3_5_find_each_other_through_a_member() {
    form(ETCD_3_5);
}

#[test]
fn an_etcd_is_told_of_a_token_without_a_size() {
    let service = Server::started(MEMBER, &["--enable-v2"]);
    let url = format!("{}/v2/keys/discovery/{TOKEN}", service.endpoint());
    let mut server = discovering(ETCD, "infra0", &url);
    server.start();
    assert_eq!(server.wait_exit().code(), Some(1), "{}", server.log());
    let sentence = "100: Key not found (/discovery";
    assert!(server.log().contains(sentence), "{}", server.log());
}
