//! Certificates between a proxy and the members.

use std::path::Path;

use super::{proxy, wait_for_endpoints};
use crate::discovery::certificates;
use crate::process::{ETCD, ETCD_3_5, MEMBER, Server, free_ports, http_get, wait_until};
use crate::v2::client::ask;

#[test]
fn certificates_are_shown_and_checked_on_both_ports() {
    let dir = tempfile::TempDir::new().expect("a directory");
    certificates(dir.path(), "IP:127.0.0.1");
    let file = |name: &str| Path::join(dir.path(), name).display().to_string();
    let flags = |of: &str| {
        [
            format!("--{of}cert-file={}", file("m.crt")),
            format!("--{of}key-file={}", file("m.key")),
            format!("--{of}trusted-ca-file={}", file("ca.crt")),
        ]
    };
    for (behind, binaries) in [
        (MEMBER, [MEMBER, ETCD]),
        (ETCD, [MEMBER, ETCD]),
        (ETCD_3_5, [MEMBER, ETCD_3_5]),
    ] {
        let [client, peer, metrics] = free_ports();
        let secure = format!("https://127.0.0.1:{peer}");
        let mut member = Server::of_cluster(
            behind,
            "infra0",
            client,
            peer,
            &format!("infra0={secure}"),
            &[
                "--enable-v2",
                "--client-cert-auth",
                "--peer-client-cert-auth",
            ],
        );
        for arg in [
            format!("--listen-client-urls=https://127.0.0.1:{client}"),
            format!("--advertise-client-urls=https://127.0.0.1:{client}"),
            format!("--listen-metrics-urls=http://127.0.0.1:{metrics}"),
            format!("--listen-peer-urls={secure}"),
            format!("--initial-advertise-peer-urls={secure}"),
        ]
        .iter()
        .chain(&flags(""))
        .chain(&flags("peer-"))
        {
            member.arg(arg);
        }
        member.start();
        wait_until("the member serves", || {
            http_get(metrics, "/health").is_some_and(|body| body.contains("true"))
        });
        for binary in binaries {
            let proxy_of = |more: &[String]| {
                let mut proxy = proxy(binary, &["--proxy=on"]);
                proxy.arg(&format!("--initial-cluster=infra0={secure}"));
                more.iter().for_each(|arg| proxy.arg(arg));
                proxy.start();
                proxy
            };
            // With its own certificates for both ports, and with those of the peers for both.
            for more in [
                [flags(""), flags("peer-")].concat(),
                flags("peer-").to_vec(),
            ] {
                let proxy = proxy_of(&more);
                wait_for_endpoints(&proxy, 1);
                let (status, body) = ask(proxy.client_port, "PUT", "/v2/keys/a", "value=1");
                assert!(
                    matches!(status, 200 | 201),
                    "{binary} before {behind}: {body}"
                );
            }
            // An authority alone: it checks the member and has nothing to show.
            let proxy = proxy_of(&[format!("--peer-trusted-ca-file={}", file("ca.crt"))]);
            wait_until("the member turns it away", || {
                let said = "failed to get cluster from remote peers";
                let listens = http_get(proxy.client_port, "/metrics").is_some();
                listens && proxy.log().contains(said)
            });
            assert_eq!(ask(proxy.client_port, "GET", "/v2/keys/a", "").0, 503);
        }
    }
}
