//! DNS SRV records as the guide has them; the name server and all members are in one namespace.

use std::net::Ipv4Addr;
use std::process::Command;

use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::Record;

use super::dns::{Zone, a, cname, in_namespace, srv};
use super::{certificates, members, strangers, wait_named};
use crate::process::{ETCD_3_5, MEMBER, Server, wait_until};
use crate::server::start_all;

/// infra0, infra1 and infra2 of example.com.
fn hosts() -> Vec<Record> {
    (0..3)
        .map(|i| a(&format!("infra{i}.example.com"), Ipv4Addr::LOCALHOST))
        .collect()
}

/// The guide's records of a service for these ports.
fn records(service: &str, ports: &[u16]) -> Vec<Record> {
    let of = |(i, port): (usize, &u16)| srv(service, 0, 0, *port, &format!("infra{i}.example.com"));
    ports.iter().enumerate().map(of).collect()
}

/// Members that advertise host names, as in the guide.
fn named<const N: usize>(binary: &str, more: &[&str]) -> [Server; N] {
    let mut servers = strangers(binary, more);
    for (i, server) in servers.iter_mut().enumerate() {
        let peer = server.peer_port;
        server.arg(&format!(
            "--initial-advertise-peer-urls=http://infra{i}.example.com:{peer}"
        ));
        server.arg("--discovery-srv=example.com");
        server.arg("--initial-cluster-token=etcd-cluster-1");
    }
    servers
}

fn peer_ports(servers: &[Server]) -> Vec<u16> {
    servers.iter().map(|server| server.peer_port).collect()
}

fn zone(zone: &Zone, parts: Vec<Vec<Record>>) {
    zone.set([hosts(), parts.concat()].concat());
}

#[test]
fn plain_records_make_a_cluster_with_the_ids_of_etcd() {
    in_namespace(
        "discovery::srv::plain_records_make_a_cluster_with_the_ids_of_etcd",
        || {
            let dns = Zone::served();
            let mut etcds: [Server; 3] = named(ETCD_3_5, &[]);
            zone(&dns, vec![records("etcd-server", &peer_ports(&etcds))]);
            start_all(&mut etcds);
            wait_named(&etcds);
            let expected = members(&etcds[0]);
            let ports = etcds
                .each_ref()
                .map(|etcd| (etcd.client_port, etcd.peer_port));
            drop(etcds);
            let mut servers: [Server; 3] = std::array::from_fn(|i| {
                let (client, peer) = ports[i];
                let host = format!("infra{i}.example.com");
                // The guide's own commands listen on names.
                let listen = [
                    format!("--listen-peer-urls=http://{host}:{peer}"),
                    format!("--listen-client-urls=http://{host}:{client}"),
                    format!("--advertise-client-urls=http://{host}:{client}"),
                    format!("--initial-advertise-peer-urls=http://{host}:{peer}"),
                    "--discovery-srv=example.com".to_owned(),
                    "--initial-cluster-token=etcd-cluster-1".to_owned(),
                ];
                let listen = listen.each_ref().map(String::as_str);
                Server::of_none(MEMBER, &format!("infra{i}"), client, peer, &listen)
            });
            start_all(&mut servers);
            wait_named(&servers);
            assert_eq!(members(&servers[0]), expected);

            // A restart needs no SRV records.
            dns.set(hosts());
            servers[0].signal("TERM");
            servers[0].start();
            servers[0].wait_ready();
        },
    );
}

#[test]
fn addresses_may_be_advertised_and_a_name_of_the_service_given() {
    in_namespace(
        "discovery::srv::addresses_may_be_advertised_and_a_name_of_the_service_given",
        || {
            let dns = Zone::served();
            let mut servers: [Server; 3] = strangers(
                MEMBER,
                &["--discovery-srv=example.com", "--discovery-srv-name=foo"],
            );
            let ports = peer_ports(&servers);
            // The default name's records are of another cluster.
            zone(
                &dns,
                vec![
                    records("etcd-server-foo", &ports),
                    records("etcd-server", &[1, 2, 3]),
                ],
            );
            start_all(&mut servers);
            wait_named(&servers);
            let (ok, out, err) =
                crate::process::etcdctl(&servers[0].endpoint(), &["member", "list"]);
            assert!(ok, "{err}");
            for (i, port) in ports.iter().enumerate() {
                assert!(
                    out.contains(&format!("http://infra{i}.example.com:{port}")),
                    "{out}"
                );
            }
        },
    );
}

#[test]
fn the_same_places_under_both_schemes_are_one_cluster() {
    in_namespace(
        "discovery::srv::the_same_places_under_both_schemes_are_one_cluster",
        || {
            let dns = Zone::served();
            let mut servers: [Server; 3] = named(MEMBER, &[]);
            let ports = peer_ports(&servers);
            zone(
                &dns,
                vec![
                    records("etcd-server", &ports),
                    records("etcd-server-ssl", &ports),
                ],
            );
            start_all(&mut servers);
            wait_named(&servers);
            assert_eq!(members(&servers[0]).1.len(), 3);
        },
    );
}

#[test]
fn records_that_give_no_cluster_are_explained() {
    in_namespace(
        "discovery::srv::records_that_give_no_cluster_are_explained",
        || {
            let dns = Zone::served();
            let ending = |records: Vec<Record>, more: &[&str], texts: &[&str]| {
                let [mut server] = named::<1>(MEMBER, more);
                let own = server.peer_port;
                let mut all = [hosts(), records].concat();
                // Port 7 stands for the member's own.
                for record in &mut all {
                    if let hickory_resolver::proto::rr::RData::SRV(srv) = &mut record.data
                        && srv.port == 7
                    {
                        srv.port = own;
                    }
                }
                dns.set(all);
                server.start();
                let status = server.wait_exit();
                let log = server.log().replace("\\\"", "\"");
                assert_eq!(status.code(), Some(1), "{log}");
                for text in texts {
                    assert!(log.contains(text), "{text}: {log}");
                }
                assert!(!server.data_dir().join("member").exists());
            };
            let missing = "error setting up initial cluster: error querying DNS SRV records for _etcd-server-ssl lookup _etcd-server-ssl._tcp.example.com on 127.0.0.1:53: no such host; error querying DNS SRV records for _etcd-server lookup _etcd-server._tcp.example.com on 127.0.0.1:53: no such host";
            ending(vec![], &[], &[missing]);
            let stranger = "cannot find local etcd member \"infra0\" in SRV records";
            let other = srv("etcd-server", 0, 0, 8, "infra1.example.com");
            let own = |service| srv(service, 0, 0, 7, "infra0.example.com");
            ending(
                vec![other.clone()],
                &[],
                &[
                    stranger,
                    "the records name http://infra1.example.com:8 (127.0.0.1:8)",
                ],
            );
            ending(
                vec![own("etcd-server-ssl")],
                &[],
                &[stranger, "scheme mismatch"],
            );
            // Records that name no place are passed over by name.
            let dead = srv("etcd-server", 0, 0, 0, "infra0.example.com");
            let dot = srv("etcd-server", 0, 0, 7, ".");
            ending(
                vec![dead, dot],
                &[],
                &["SRV record ignored: it names no host and port", missing],
            );
            let nowhere = srv("etcd-server", 0, 0, 7, "infra9.example.com");
            ending(
                vec![nowhere.clone()],
                &[],
                &[
                    "SRV record ignored: its host has no address",
                    "infra9.example.com",
                ],
            );
            let loops = [
                cname("infra9.example.com", "infra8.example.com"),
                cname("infra8.example.com", "infra9.example.com"),
            ];
            ending(
                [vec![nowhere], loops.to_vec()].concat(),
                &[],
                &["error setting up initial cluster: "],
            );
            ending(
                vec![own("etcd-server"), own("etcd-server")],
                &[],
                &["failed to resolve http://infra0.example.com:", "len(["],
            );
            dns.fail(ResponseCode::ServFail);
            let [mut server] = named::<1>(MEMBER, &[]);
            server.start();
            assert_eq!(server.wait_exit().code(), Some(1));
            assert!(
                server
                    .log()
                    .contains("lookup infra0.example.com on 127.0.0.1:53: "),
                "{}",
                server.log()
            );
        },
    );
}

#[test]
fn a_name_server_that_is_down_is_an_error_soon() {
    in_namespace(
        "discovery::srv::a_name_server_that_is_down_is_an_error_soon",
        || {
            let [mut server] = named::<1>(MEMBER, &[]);
            server.start();
            assert_eq!(server.wait_exit().code(), Some(1));
            let log = server.log();
            assert!(
                log.contains("lookup infra0.example.com on 127.0.0.1:53: "),
                "{log}"
            );
        },
    );
}

#[test]
fn a_host_name_that_is_another_machines_is_not_listened_on() {
    in_namespace(
        "discovery::srv::a_host_name_that_is_another_machines_is_not_listened_on",
        || {
            let dns = Zone::served();
            dns.set(vec![a("far.example.com", Ipv4Addr::new(10, 9, 9, 9))]);
            for (host, text) in [
                (
                    "far.example.com",
                    "listen tcp 10.9.9.9:2379: bind: cannot assign requested address: far.example.com resolves to 10.9.9.9, and none of it is an address of this machine",
                ),
                (
                    "nosuch.example.com",
                    "listen tcp: lookup nosuch.example.com: ",
                ),
            ] {
                let mut server = Server::single(MEMBER, &[]);
                server.arg(&format!("--listen-client-urls=http://{host}:2379"));
                server.start();
                assert_eq!(server.wait_exit().code(), Some(1));
                assert!(server.log().contains(text), "{}", server.log());
            }
        },
    );
}

#[test]
fn a_gateway_finds_a_cluster_by_its_records() {
    in_namespace(
        "discovery::srv::a_gateway_finds_a_cluster_by_its_records",
        || {
            let dns = Zone::served();
            let mut servers: [Server; 2] = std::array::from_fn(|_| Server::single(MEMBER, &[]));
            start_all(&mut servers);
            for (server, value) in servers.iter().zip(["first", "second"]) {
                assert!(crate::process::etcdctl(&server.endpoint(), &["put", "who", value]).0);
            }
            let record = |priority, i: usize| {
                srv(
                    "etcd-client",
                    priority,
                    0,
                    servers[i].client_port,
                    "infra0.example.com",
                )
            };
            zone(&dns, vec![vec![record(20, 0), record(10, 1)]]);
            let gateway = crate::tcp_gateway::Gateway::started(&[
                "--discovery-srv=example.com",
                "--retry-delay=1s",
            ]);
            assert!(
                gateway.log().contains("discovered endpoint is insecure"),
                "{}",
                gateway.log()
            );
            let who = || {
                crate::process::etcdctl(&gateway.endpoint(), &["get", "who", "--print-value-only"])
                    .1
            };
            assert_eq!(who(), "second\n", "the lower priority comes first");
            servers[1].kill();
            wait_until("the other one answers", || who() == "first\n");

            let output = Command::new(MEMBER)
                .args(["gateway", "start", "--discovery-srv=nosuch.com"])
                .output()
                .expect("runs");
            assert_eq!(output.status.code(), Some(1));
            assert_eq!(
                String::from_utf8_lossy(&output.stderr),
                "dns lookup errors: lookup _etcd-client-ssl._tcp.nosuch.com on 127.0.0.1:53: no such host and lookup _etcd-client._tcp.nosuch.com on 127.0.0.1:53: no such host\n"
            );
        },
    );
}

#[test]
fn where_nobody_answers_for_names_a_member_says_so_as_etcd_does() {
    in_namespace(
        "discovery::srv::where_nobody_answers_for_names_a_member_says_so_as_etcd_does",
        || {
            for binary in [ETCD_3_5, MEMBER] {
                let [mut server] = strangers::<1>(binary, &["--discovery-srv=example.com"]);
                server.start();
                let status = server.wait_exit();
                let log = server.log();
                assert_eq!(status.code(), Some(1), "{log}");
                assert!(log.contains("error setting up initial cluster"), "{log}");
                assert!(log.contains("connection refused"), "{log}");
                assert!(!log.contains("i/o timeout"), "{log}");
            }
        },
    );
}

#[test]
fn without_an_authority_of_their_own_peers_must_show_the_domain() {
    in_namespace(
        "discovery::srv::without_an_authority_of_their_own_peers_must_show_the_domain",
        || {
            let dns = Zone::served();
            let dir = tempfile::TempDir::new().expect("a directory");
            certificates(dir.path(), "DNS:example.com");
            let file = |name: &str| dir.path().join(name).display().to_string();
            for binary in [ETCD_3_5, MEMBER] {
                let files = [
                    format!("--peer-cert-file={}", file("m.crt")),
                    format!("--peer-key-file={}", file("m.key")),
                    "--discovery-srv=example.com".to_owned(),
                ];
                let mut servers: [Server; 3] =
                    strangers(binary, &files.each_ref().map(String::as_str));
                for (i, server) in servers.iter_mut().enumerate() {
                    let peer = server.peer_port;
                    server.arg(&format!("--listen-peer-urls=https://127.0.0.1:{peer}"));
                    server.arg(&format!(
                        "--initial-advertise-peer-urls=https://infra{i}.example.com:{peer}"
                    ));
                    // What this machine trusts.
                    server.env("SSL_CERT_FILE", &file("ca.crt"));
                }
                zone(
                    &dns,
                    vec![records("etcd-server-ssl", &peer_ports(&servers))],
                );
                start_all(&mut servers);
                wait_named(&servers);
            }
        },
    );
}

#[test]
fn a_gateway_takes_endpoints_that_show_the_domain() {
    in_namespace(
        "discovery::srv::a_gateway_takes_endpoints_that_show_the_domain",
        || {
            let dns = Zone::served();
            let dir = tempfile::TempDir::new().expect("a directory");
            certificates(dir.path(), "DNS:example.com");
            let file = |name: &str| dir.path().join(name).display().to_string();
            let mut server = Server::single(MEMBER, &[]);
            let client = server.client_port;
            server.arg(&format!("--listen-client-urls=https://127.0.0.1:{client}"));
            server.arg(&format!(
                "--advertise-client-urls=https://127.0.0.1:{client}"
            ));
            server.arg(&format!("--cert-file={}", file("m.crt")));
            server.arg(&format!("--key-file={}", file("m.key")));
            server.start();
            wait_until("the member serves", || {
                server.log().contains("serving client traffic securely")
            });
            zone(
                &dns,
                vec![vec![srv(
                    "etcd-client-ssl",
                    0,
                    0,
                    client,
                    "infra0.example.com",
                )]],
            );
            let trusted = format!("--trusted-ca-file={}", file("ca.crt"));
            let gateway =
                crate::tcp_gateway::Gateway::started(&["--discovery-srv=example.com", &trusted]);
            let endpoint = gateway.endpoint().replace("http://", "https://");
            let cacert = format!("--cacert={}", file("ca.crt"));
            let get = [
                cacert.as_str(),
                "--discovery-srv=example.com",
                "--insecure-discovery=false",
                "member",
                "list",
            ];
            let (ok, out, err) = crate::process::etcdctl(&endpoint, &get);
            assert!(
                ok && out.contains("infra0"),
                "etcdctl finds it by the same records: {err}"
            );

            let output = Command::new(MEMBER)
                .args([
                    "gateway",
                    "start",
                    "--discovery-srv=example.com",
                    "--listen-addr=127.0.0.1:0",
                ])
                .output()
                .expect("runs");
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{said}");
            assert!(
                said.contains("failed to validate discovered endpoints"),
                "{said}"
            );
            assert!(said.ends_with("no endpoints found\n"), "{said}");
        },
    );
}
