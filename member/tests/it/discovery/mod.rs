//! Members that find each other: discovery services of both kinds, and DNS SRV records.

mod dns;
mod srv;
mod v2;
mod v3;

pub(crate) use v2::Service;

use crate::process::{Server, free_ports};

/// Members that are not told of one another, not started.
fn strangers<const N: usize>(binary: &str, more: &[&str]) -> [Server; N] {
    let ports: [[u16; 2]; N] = std::array::from_fn(|_| free_ports());
    std::array::from_fn(|i| {
        Server::of_none(binary, &format!("infra{i}"), ports[i][0], ports[i][1], more)
    })
}

/// The cluster's ID and its members' IDs with their names, as one of them lists them.
fn members(server: &Server) -> (u64, Vec<(u64, String)>) {
    let (ok, out, err) =
        crate::process::etcdctl(&server.endpoint(), &["member", "list", "-w", "json"]);
    assert!(ok, "{err}");
    let list: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    let mut members: Vec<(u64, String)> = list["members"]
        .as_array()
        .expect("members")
        .iter()
        .map(|member| {
            let name = member["name"].as_str().unwrap_or_default().to_owned();
            (member["ID"].as_u64().expect("an ID"), name)
        })
        .collect();
    members.sort();
    (
        list["header"]["cluster_id"].as_u64().expect("an ID"),
        members,
    )
}

/// Waits until all members have told their names.
fn wait_named(servers: &[Server]) {
    crate::process::wait_until("every member is listed by its name", || {
        members(&servers[0])
            .1
            .iter()
            .all(|(_, name)| name.starts_with("infra"))
    });
}

/// An authority, and a certificate of it for these names, in a directory.
pub(crate) fn certificates(dir: &std::path::Path, names: &str) {
    let openssl = |args: &[&str]| {
        let output = std::process::Command::new("openssl")
            .current_dir(dir)
            .args(args)
            .output()
            .expect("openssl is installed: run ci/setup");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    };
    let key = [
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
    ];
    let ca = [
        "req", "-x509", "-days", "2", "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.crt",
    ];
    openssl(&[&ca[..], &key].concat());
    let request = [
        "req",
        "-subj",
        "/CN=member",
        "-keyout",
        "m.key",
        "-out",
        "m.csr",
    ];
    openssl(&[&request[..], &key].concat());
    let names = format!("subjectAltName={names}\nextendedKeyUsage=serverAuth,clientAuth\n");
    std::fs::write(dir.join("names"), names).expect("written");
    openssl(&[
        "x509",
        "-req",
        "-in",
        "m.csr",
        "-days",
        "2",
        "-CA",
        "ca.crt",
        "-CAkey",
        "ca.key",
        "-CAcreateserial",
        "-extfile",
        "names",
        "-out",
        "m.crt",
    ]);
}
