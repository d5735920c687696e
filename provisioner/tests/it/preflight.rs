//! `provision check`: on hosts of a lab, as root, and on this machine.

use std::fs;

use serde_json::Value;

use crate::lab::Place;
use crate::sandbox::{Done, Sandbox, wait_until};

const HOME: &str = "/var/lib/provision/clusters/remote/members";

fn topology(place: &Place, address: &str, extra: &str) -> String {
    // A busy disk is not what is tested.
    let text = format!(
        "name = \"remote\"\n{extra}\n[tls]\npeer = \"mutual\"\nclient = \"mutual\"\n\
         [defaults]\nheartbeat-interval = 2000\nelection-timeout = 20000\n\
         [host-defaults]\nssh-config = \"{}\"\n\
         [[member]]\nname = \"infra{{0..2}}\"\nhost = \"ssh://infra{{0..2}}.example.com\"\n\
         address = \"{address}\"\nlisten = \"10.0.1.{{10..12}}\"\n",
        place.dir().join("ssh_config").display()
    );
    place.0.write("remote.toml", &text)
}

const ADDRESSES: &str = "10.0.1.{10..12}";
const NAMES: &str = "infra{0..2}.example.com";

fn check(place: &Place, file: &str, more: &[&str]) -> Done {
    place
        .0
        .provision(&[&["check", file, "-o", "json"], more].concat())
}

/// Where a check ended like this, with what it found there.
fn ended(report: &Value, check: &str, outcome: &str) -> Vec<(String, String)> {
    let findings = report["findings"].as_array().unwrap().iter();
    findings
        .filter(|finding| finding["check"] == check && finding["outcome"] == outcome)
        .map(|finding| {
            let text = |key: &str| finding[key].as_str().unwrap().to_owned();
            (text("subject"), text("found"))
        })
        .collect()
}

fn subjects(report: &Value, check: &str, outcome: &str) -> Vec<String> {
    let ended = ended(report, check, outcome).into_iter();
    ended.map(|(subject, _)| subject).collect()
}

fn failed(report: &Value) -> Vec<(String, String)> {
    let findings = report["findings"].as_array().unwrap().iter();
    findings
        .filter(|finding| finding["outcome"] == "fail")
        .map(|finding| {
            let text = |key: &str| finding[key].as_str().unwrap().to_owned();
            assert!(finding["fix"].is_string(), "{finding}");
            (text("check"), text("subject"))
        })
        .collect()
}

fn pairs(wanted: &[(&str, &str)]) -> Vec<(String, String)> {
    let wanted = wanted.iter();
    wanted
        .map(|(check, subject)| ((*check).to_owned(), (*subject).to_owned()))
        .collect()
}

const MACHINES: [&str; 3] = [
    "infra0.example.com",
    "infra1.example.com",
    "infra2.example.com",
];

#[test]
fn hosts_that_can_take_a_cluster_pass_and_keep_nothing_of_it() {
    let place = Place::new();
    place.lab(&["up", "--hosts", "3"]).expect(0);
    let file = topology(&place, ADDRESSES, "");
    let report = check(&place, &file, &[]).expect(0).json();
    assert_eq!(failed(&report), []);
    assert_eq!(report["passed"], true);
    for check in [
        "reachable",
        "peer-ports",
        "client-ports",
        "directories",
        "clock",
        "firewall",
    ] {
        assert_eq!(subjects(&report, check, "pass"), MACHINES, "{check}");
    }
    for check in ["ports", "data", "listen-address", "port-claims"] {
        let members = ["infra0", "infra1", "infra2"];
        assert_eq!(subjects(&report, check, "pass"), members, "{check}");
    }
    // Every machine to both ports of both others.
    let ways = report["round_trips"].as_array().unwrap();
    assert_eq!(ways.len(), 12);
    assert!(ways.iter().all(|way| way["micros"].is_u64()), "{ways:?}");
    assert_eq!(subjects(&report, "round-trip", "pass"), ["cluster"]);
    // A lab's hosts have no clocks of their own, which is not the same as being kept right.
    assert_eq!(subjects(&report, "time-sync", "skipped"), MACHINES);
    assert_eq!(subjects(&report, "certificates", "skipped"), ["cluster"]);

    let left = "find /var/lib/provision /opt/provision -not -name 'provision-*'; ss -Htln 'sport = :2379 or sport = :2380'";
    for machine in MACHINES {
        let left = place.on(machine, left).stdout;
        assert_eq!(left, "/opt/provision\n/opt/provision/bin\n");
    }
    assert!(!place.0.cluster("remote").exists(), "state is left");

    place.0.provision(&["up", &file]).expect(0);
    let report = check(&place, "remote", &[]).expect(0).json();
    assert_eq!(failed(&report), []);
    assert_eq!(report["round_trips"].as_array().unwrap().len(), 12);
    for (_, found) in ended(&report, "ports", "pass") {
        assert!(found.starts_with("its own, pid "), "{found}");
    }
    assert_eq!(subjects(&report, "certificates", "pass"), ["cluster"]);
    place
        .0
        .provision(&["up", "remote"])
        .expect(0)
        .says(&["no change"]);
}

#[test]
fn what_is_wrong_with_hosts_is_found_where_it_is() {
    let place = Place::new();
    place.lab(&["up", "--hosts", "3"]).expect(0);
    let file = topology(&place, NAMES, "");
    let on = |machine: &str, command: &str| place.on(machine, command).expect(0);
    let report = check(&place, &file, &[]).expect(0).json();
    assert_eq!(subjects(&report, "names", "pass").len(), 9, "{report:#}");

    // A firewall in front of one port.
    on(
        MACHINES[1],
        "nft add table inet t && nft add chain inet t in '{ type filter hook input priority 0; }' && nft add rule inet t in tcp dport 2380 drop",
    );
    let report = check(&place, &file, &[]).expect(3).json();
    let blocked = [("peer-ports", MACHINES[0]), ("peer-ports", MACHINES[2])];
    assert_eq!(failed(&report), pairs(&blocked));
    for (_, found) in ended(&report, "peer-ports", "fail") {
        assert_eq!(found, "not reached: infra1: no answer within 2 s");
    }
    assert_eq!(subjects(&report, "firewall", "warn"), [MACHINES[1]]);
    let fix = place.0.provision(&["check", &file]).expect(3);
    fix.shows(&["open the port in nftables", "would not come up"]);
    on(MACHINES[1], "nft delete table inet t");

    // A small disk, which is no cause to fail for who accepts it.
    on(
        MACHINES[0],
        "mkdir -p /var/lib/provision && mount -t tmpfs -o size=16m tmpfs /var/lib/provision",
    );
    let report = check(&place, &file, &[]).expect(3).json();
    assert_eq!(failed(&report), pairs(&[("disk-space", "infra0")]));
    let waived = topology(
        &place,
        NAMES,
        "[checks]\nallow = { disk-space = \"a test\" }",
    );
    let report = check(&place, &waived, &[]).expect(0).json();
    assert_eq!(subjects(&report, "disk-space", "waived"), ["infra0"]);
    on(MACHINES[0], "mount -o remount,ro /var/lib/provision");
    let report = check(&place, &waived, &[]).expect(3).json();
    assert_eq!(failed(&report), pairs(&[("directories", MACHINES[0])]));
    assert_eq!(subjects(&report, "disk-sync", "skipped"), ["infra0"]);
    on(MACHINES[0], "umount /var/lib/provision");

    // Somebody else's data, somebody else's port, a name that means something else, and a machine that is gone.
    let file = topology(&place, NAMES, "");
    on(MACHINES[0], &format!("mkdir -p {HOME}/infra0/data/member"));
    on(
        MACHINES[1],
        "systemd-run --quiet --unit=holder perl -MSocket -e 'socket(S, PF_INET, SOCK_STREAM, 0); bind(S, sockaddr_in(2379, INADDR_ANY)); listen(S, 5); sleep 600'; echo 10.0.1.99 infra0.example.com >> /etc/hosts",
    );
    // A port that was held open for the others leaves nothing that keeps another from it.
    wait_until("the port is held", || {
        place.on(MACHINES[1], "ss -tln | grep -q :2379").code == 0
    });
    let report = check(&place, &file, &[]).expect(3).json();
    let names = ended(&report, "names", "warn");
    assert_eq!(names.len(), 1, "{names:?}");
    assert_eq!(names[0].0, MACHINES[1]);
    assert!(
        names[0].1.contains("10.0.1.99, and 10.0.1.10 elsewhere"),
        "{names:?}"
    );
    let found = failed(&report);
    assert!(
        found.contains(&pairs(&[("data", "infra0")])[0]),
        "{found:?}"
    );
    assert!(
        found.contains(&pairs(&[("ports", "infra1")])[0]),
        "{found:?}"
    );
    place.lab(&["kill", "infra2"]).expect(0);
    let report = check(&place, &file, &[]).expect(3).json();
    assert_eq!(subjects(&report, "reachable", "fail"), [MACHINES[2]]);
    assert_eq!(subjects(&report, "ports", "skipped"), ["infra2"]);
    assert_eq!(subjects(&report, "memory", "skipped"), [MACHINES[2]]);
    place.lab(&["start", "infra2"]).expect(0);
    on(
        MACHINES[1],
        "systemctl stop holder; sed -i /10.0.1.99/d /etc/hosts",
    );
    on(MACHINES[0], "rm -r /var/lib/provision");

    // What may be put right is, and is said.
    on(
        MACHINES[2],
        &format!("mkdir -p {HOME}/infra2/data && chmod 755 {HOME}/infra2/data"),
    );
    let report = check(&place, &file, &[]).expect(0).json();
    assert_eq!(subjects(&report, "directories", "warn"), [MACHINES[2]]);
    let fixed = check(&place, &file, &["--fix"]).expect(0);
    let report = fixed.json();
    fixed.says(&[
        "infra2.example.com: closed",
        "infra0.example.com: made /var/lib/provision with mode 0755",
    ]);
    assert_eq!(subjects(&report, "directories", "pass"), MACHINES);
    let modes = on(MACHINES[2], &format!("stat -c %a {HOME}/infra2/data"));
    assert_eq!(modes.stdout, "700\n");
    place.0.provision(&["up", &file]).expect(0);
}

#[test]
fn clusters_on_one_machine_do_not_claim_the_same_ports() {
    let sandbox = Sandbox::new();
    let member = "binary = \"/usr/bin/etcd\"\nclient-port = 24790\npeer-port = 24791";
    let timing = "[defaults]\nheartbeat-interval = 2000\nelection-timeout = 20000\n";
    let file = |name: &str| {
        let path = sandbox.topology(name, 1, false, member);
        let text = fs::read_to_string(&path).unwrap();
        sandbox.write(
            &format!("{name}.toml"),
            &text.replace("[[member]]", &format!("{timing}[[member]]")),
        )
    };
    let (one, two) = (file("one"), file("two"));
    let check = |file: &str, code| {
        sandbox
            .provision(&["check", file, "-o", "json"])
            .expect(code)
            .json()
    };
    let report = check(&two, 0);
    assert_eq!(subjects(&report, "peer-ports", "skipped"), ["this machine"]);
    assert!(!sandbox.state().exists(), "state is left");

    sandbox.provision(&["up", &one]).expect(0);
    assert_eq!(failed(&check("one", 0)), []);
    let both = [("ports", "m0"), ("port-claims", "m0")];
    assert_eq!(failed(&check(&two, 3)), pairs(&both));
    sandbox.provision(&["down", "one"]).expect(0);
    assert_eq!(failed(&check(&two, 3)), pairs(&both[1..]));
    sandbox
        .provision(&["down", "--purge", "--yes", "one"])
        .expect(0);
    assert_eq!(failed(&check(&two, 0)), []);
}

#[test]
fn a_waiver_names_a_check_and_gives_a_reason() {
    let sandbox = Sandbox::new();
    let validate = |checks: &str| {
        let text =
            format!("name = \"a\"\n[checks]\nallow = {{ {checks} }}\n[[member]]\nname = \"m\"\n");
        sandbox.provision(&["validate", &sandbox.write("a.toml", &text)])
    };
    validate("swap = \"a sandbox\"").expect(0);
    validate("swop = \"a sandbox\"")
        .expect(2)
        .says(&["there is no check `swop`", "did you mean `swap`?"]);
    validate("swap = \" \"")
        .expect(2)
        .says(&["the waiver of `swap` gives no reason"]);
}
