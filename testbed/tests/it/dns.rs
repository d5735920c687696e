//! The DNS server, asked by dig.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;

use testbed::service::dns::{Behaviour, DnsError, DnsServer};
use testbed::service::zone::Zone;

const ANY_PORT: &str = "127.0.0.1:0";

fn zone(text: &str) -> Behaviour {
    Behaviour::Serve(Arc::new(Zone::parse(text).unwrap()))
}

/// What dig says: its exit code and output.
async fn dig(server: SocketAddr, args: &[&str]) -> (i32, String) {
    let (at, port) = (format!("@{}", server.ip()), server.port().to_string());
    let args: Vec<String> = [at, "-p".to_owned(), port]
        .into_iter()
        .chain(args.iter().map(|arg| (*arg).to_owned()))
        .collect();
    let output = tokio::task::spawn_blocking(move || Command::new("dig").args(args).output());
    let output = output.await.unwrap().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    (output.status.code().unwrap(), text)
}

async fn short(server: SocketAddr, args: &[&str]) -> String {
    let (code, text) = dig(server, &[args, &["+short"]].concat()).await;
    assert_eq!(code, 0, "{text}");
    text.trim().to_owned()
}

#[tokio::test]
async fn every_type_is_answered_over_udp_and_tcp() {
    let records = "\
infra0.example.com. 60 A 10.0.1.10
infra0.example.com. 60 AAAA fd00::10
10.1.0.10.in-addr.arpa. 60 PTR infra0.example.com.
_etcd-server-ssl._tcp.example.com. 60 SRV 1 2 2380 infra0.example.com.
_etcd-client-foo._tcp.example.com. 60 SRV 0 0 0 .
";
    let server = DnsServer::start(ANY_PORT.parse().unwrap(), zone(records))
        .await
        .unwrap();
    let at = server.address();
    for transport in ["+notcp", "+tcp"] {
        let ask = async |args: &[&str]| short(at, &[args, &[transport]].concat()).await;
        assert_eq!(ask(&["infra0.example.com", "A"]).await, "10.0.1.10");
        assert_eq!(ask(&["infra0.example.com", "AAAA"]).await, "fd00::10");
        assert_eq!(ask(&["-x", "10.0.1.10"]).await, "infra0.example.com.");
        let service = ask(&["_etcd-server-ssl._tcp.example.com", "SRV"]).await;
        assert_eq!(service, "1 2 2380 infra0.example.com.");
        let service = ask(&["_etcd-client-foo._tcp.example.com", "SRV"]).await;
        assert_eq!(service, "0 0 0 .");
        let (_, text) = dig(at, &["nosuch.com", transport]).await;
        assert!(text.contains("status: NXDOMAIN"), "{text}");
    }
    assert!(server.stop().await);
    let (code, _) = dig(at, &["infra0.example.com", "+tcp", "+time=1", "+tries=1"]).await;
    assert_eq!(code, 9, "a stopped server does not answer");
}

#[tokio::test]
async fn an_answer_too_long_for_a_packet_comes_over_tcp() {
    let name = "_etcd-server._tcp.example.com.";
    let records: String = (0..200)
        .map(|index| format!("{name} 60 SRV 0 0 2380 infra{index}.example.com.\n"))
        .collect();
    let server = DnsServer::start(ANY_PORT.parse().unwrap(), zone(&records))
        .await
        .unwrap();
    let (_, cut) = dig(server.address(), &[name, "SRV", "+ignore"]).await;
    assert!(cut.contains("flags: qr aa tc"), "{cut}");
    let whole = short(server.address(), &[name, "SRV"]).await;
    assert_eq!(whole.lines().count(), 200);
}

#[tokio::test]
async fn faults_are_served_from_the_next_question_on() {
    let good = "_etcd-server._tcp.example.com. 5 SRV 0 0 2380 infra0.example.com.\n";
    let server = DnsServer::start(ANY_PORT.parse().unwrap(), zone(good))
        .await
        .unwrap();
    let ask = [&[
        "_etcd-server._tcp.example.com",
        "SRV",
        "+time=1",
        "+tries=1",
    ][..]]
    .concat();
    let status = async || dig(server.address(), &ask).await;
    assert!(status().await.1.contains("status: NOERROR"));
    server.set(Behaviour::Fail);
    assert!(status().await.1.contains("status: SERVFAIL"));
    server.set(zone("example.com. 5 A 10.0.1.10\n"));
    assert!(status().await.1.contains("status: NXDOMAIN"));
    server.set(Behaviour::Silent);
    assert_eq!(status().await.0, 9, "dig times out");
    server.set(zone(
        "_etcd-server._tcp.example.com. 5 CNAME _etcd-server._tcp.example.com.\n",
    ));
    assert!(status().await.1.contains("CNAME"));
    server.set(zone(good));
    assert!(status().await.1.contains("2380 infra0.example.com."));
}

#[tokio::test]
async fn a_zone_file_is_read_again_when_it_changes() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("zone");
    let replace = |text: &str| {
        let beside = dir.path().join("new");
        fs::write(&beside, text).unwrap();
        fs::rename(&beside, &file).unwrap();
    };
    let start = || DnsServer::start_from_file(ANY_PORT.parse().unwrap(), &file);
    assert!(matches!(start().await, Err(DnsError::Read { .. })));
    replace("what is this");
    assert!(matches!(start().await, Err(DnsError::Zone { .. })));
    replace("a.example. 5 A 10.0.0.1\n");
    let server = start().await.unwrap();
    assert_eq!(short(server.address(), &["a.example"]).await, "10.0.0.1");
    replace("a.example. 5 A 10.0.0.2\n");
    assert_eq!(short(server.address(), &["a.example"]).await, "10.0.0.2");
    replace("a.example. 5 A nonsense\n");
    let (_, text) = dig(server.address(), &["a.example"]).await;
    assert!(text.contains("status: SERVFAIL"), "{text}");
    fs::remove_file(&file).unwrap();
    let (_, text) = dig(server.address(), &["a.example"]).await;
    assert!(text.contains("status: SERVFAIL"), "{text}");
    replace("a.example. 5 A 10.0.0.3\n");
    assert_eq!(short(server.address(), &["a.example"]).await, "10.0.0.3");
}

#[tokio::test]
async fn a_taken_port_is_an_error() {
    let address = ANY_PORT.parse().unwrap();
    let first = DnsServer::start(address, zone("")).await.unwrap();
    let second = DnsServer::start(first.address(), zone("")).await;
    assert!(matches!(second, Err(DnsError::Listen { .. })));
}
