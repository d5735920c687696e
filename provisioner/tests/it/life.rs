//! The whole life of a cluster on machines, with a client outside of it that writes and reads all the time.

use std::fs;

use crate::outside::Outside;
use crate::sandbox::ETCD;

const NEW: &str = "/usr/local/lib/etcd-3.5.1/etcd";

#[test]
fn a_cluster_on_machines_lives_through_everything() {
    let life = Outside::new(ETCD, 7);
    let file = life.file.as_str();
    life.want(&[0, 1, 2]);
    life.verb(&["up", file]);
    let client = life.client(0);

    life.want(&[0, 1, 2, 3, 4]);
    life.verb(&["up", file]);
    life.works();

    life.place.lab(&["kill", "infra1"]).expect(0);
    let with = [
        "--with",
        "ssh://infra5.example.com",
        "--address",
        "10.0.1.15",
    ];
    life.verb(&[&["replace", file, "m1"], &with[..]].concat());
    life.works();

    life.verb(&["rotate", "ca", file]);
    life.works();
    life.verb(&["rotate", "certs", file]);
    life.works();

    life.verb(&["upgrade", "--binary", NEW, file]);
    life.works();

    life.verb(&["backup", "--verify", file]);
    life.works();

    life.stop(client);
    life.judge();

    // Three of five are gone for good. What was acknowledged is known to all by now: the client has read it.
    for machine in ["infra0", "infra2", "infra5"] {
        life.place.lab(&["kill", machine]).expect(0);
    }
    let recover = ["recover", "--accept-data-loss", file];
    life.place.0.provision(&recover).expect(0).says(&[
        "goes on",
        "m0 is not in the cluster: its machine is out of reach",
    ]);
    life.judge();
    let last = life.acknowledged().last().copied().unwrap();
    let client = life.client(last);
    // The machines of two are given up, and the third member comes anew elsewhere.
    let text = fs::read_to_string(file).unwrap();
    let kept: Vec<&str> = text
        .split("[[member]]\n")
        .filter(|entry| !entry.contains("\"m0\"") && !entry.contains("\"m2\""))
        .collect();
    fs::write(file, kept.join("[[member]]\n")).unwrap();
    let with = [
        "--with",
        "ssh://infra6.example.com",
        "--address",
        "10.0.1.16",
    ];
    life.verb(&[&["replace", file, "m1"], &with[..]].concat());
    life.works();
    life.stop(client);
    life.judge();
}
