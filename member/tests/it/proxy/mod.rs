//! The v2 proxy, beside that of real etcds: what passes through it, what it answers itself, and what becomes of it when
//! members, discovery service and data directory change.

mod fake;
mod forward;
mod start;
mod tls;

use crate::process::{ETCD, ETCD_3_5, MEMBER, Server, free_ports, http_get, wait_until};

const BINARIES: [&str; 3] = [MEMBER, ETCD, ETCD_3_5];

/// A proxy, not started.
fn proxy(binary: &str, more: &[&str]) -> Server {
    let [client, peer] = free_ports();
    let logs = ["--logger=zap", "--log-outputs=stderr"];
    Server::of_none(binary, "proxy", client, peer, &[&logs, more].concat())
}

/// A proxy in front of members that runs.
fn started(binary: &str, members: &[Server], more: &[&str]) -> Server {
    let peers: Vec<String> = members
        .iter()
        .enumerate()
        .map(|(i, member)| format!("infra{i}=http://127.0.0.1:{}", member.peer_port))
        .collect();
    let mut proxy = proxy(binary, &["--proxy=on"]);
    proxy.arg(&format!("--initial-cluster={}", peers.join(",")));
    more.iter().for_each(|arg| proxy.arg(arg));
    proxy.start();
    wait_for_endpoints(&proxy, members.len());
    proxy
}

/// The endpoints that a proxy would use now.
fn endpoints(proxy: &Server) -> Vec<String> {
    let answer = http_get(proxy.client_port, "/v2/config/local/proxy").unwrap_or_default();
    let json: serde_json::Value = serde_json::from_str(&answer).unwrap_or_default();
    let endpoints = json["endpoints"].as_array().into_iter().flatten();
    endpoints
        .filter_map(|endpoint| endpoint.as_str().map(str::to_owned))
        .collect()
}

fn wait_for_endpoints(proxy: &Server, count: usize) {
    wait_until("the proxy has found the members", || {
        endpoints(proxy).len() == count
    });
}

fn cluster_file(proxy: &Server) -> String {
    std::fs::read_to_string(proxy.data_dir().join("proxy/cluster")).unwrap_or_default()
}
