//! Machines in odd circumstances: claimed by another cluster, reached by detours and without root, read-only, or many.

use std::fs;
use std::time::Instant;

use crate::hosts::{Hosts, Prints, topology};
use crate::sandbox::{finish, wait_until};

const ONE: &str = "infra1.example.com";

#[test]
fn a_machine_with_another_cluster_is_left_alone() {
    let hosts = Hosts::up(3, "");
    hosts.up_file().expect(0);
    hosts.etcdctl(&["put", "a", "b"]).expect(0);
    let pids = hosts.of_members("pid");
    let other = |ports: &str| {
        let text = format!(
            "name = \"other\"\n[host-defaults]\nssh-config = \"{}\"\n\
             [[member]]\nname = \"b0\"\nhost = \"ssh://{ONE}\"\naddress = \"10.0.1.11\"\n{ports}\n",
            hosts.place.dir().join("ssh_config").display()
        );
        hosts.place.0.write("other.toml", &text)
    };
    let file = other("");
    hosts.provision(&["up", &file]).expect(1).says(&[
        "port 2379, the client port of member b0, is held by",
        "on ssh://infra1.example.com",
        "fix: stop ",
        "give the member other ports",
    ]);
    assert!(!hosts.place.0.cluster("other").exists(), "state is left");
    hosts
        .provision(&["check", &file])
        .expect(3)
        .prints(&["port-claims", "fail"]);
    let untouched = || {
        assert_eq!(hosts.of_members("pid"), pids);
        hosts
            .etcdctl(&["get", "a", "--print-value-only"])
            .expect(0)
            .prints(&["b"]);
        hosts.no_change();
    };
    untouched();

    // With ports of its own it is welcome, and leaves without a trace.
    let file = other("client-port = 3379\npeer-port = 3380");
    hosts.provision(&["up", &file]).expect(0);
    untouched();
    hosts
        .provision(&["down", "--purge", "--yes", "other"])
        .expect(0);
    let left = "find /var/lib/provision/clusters/other -type f; ls /etc/systemd/system | grep provision-other";
    let left = hosts.place.on(ONE, left);
    assert_eq!(left.stdout, "");
    untouched();
}

#[test]
fn a_rollout_that_is_killed_is_finished_by_the_next() {
    let mut hosts = Hosts::up(3, "");
    let cut = |file: &str, step: &str| {
        let journal = hosts.place.0.cluster("remote").join("journal.jsonl");
        let text = || fs::read_to_string(&journal).unwrap_or_default();
        let before = text().len();
        let step = format!("\"event\":\"step\",\"step\":\"{step}");
        let mut up = hosts.place.0.spawn(&["up", file]);
        wait_until("the step begins", || text()[before..].contains(&step));
        up.kill().unwrap();
        finish(up).expect(137)
    };
    cut(&hosts.file, "install ");
    cut(&hosts.file, "start ").says(&["resuming: an earlier run was cut off in \"install "]);
    cut(&hosts.file, "wait until ").says(&["resuming: an earlier run was cut off in \"start "]);
    // By now all may be up.
    hosts.up_file().expect(0);
    hosts.no_change();
    hosts.etcdctl(&["put", "a", "b"]).expect(0);

    let file = topology(&hosts.place, "", "[defaults]\nheartbeat-interval = 90");
    cut(&file, "restart ");
    hosts.file = file;
    hosts
        .up_file()
        .expect(0)
        .says(&["longest write gap", " 0 of "]);
    hosts.no_change();
    assert_eq!(hosts.states(), ["ready"; 3]);
    hosts
        .etcdctl(&["get", "a", "--print-value-only"])
        .expect(0)
        .prints(&["b"]);
}

#[test]
fn a_disk_that_turned_read_only_is_named() {
    let hosts = Hosts::up(3, "");
    hosts.up_file().expect(0);
    let on = |command: &str| hosts.place.on(ONE, command).expect(0);
    on(
        "mount --bind /var/lib/provision /var/lib/provision && mount -o remount,bind,ro /var/lib/provision",
    );
    hosts.provision(&["restart", "remote"]).expect(1).says(&[
        "member infra1: take the cluster's lock",
        "ssh://infra1.example.com: cannot open",
        "Read-only file system",
        "fix: make the file system writable",
    ]);
    on("umount /var/lib/provision");
    hosts.provision(&["restart", "remote"]).expect(0);
    on(
        "mount --bind /etc/systemd/system /etc/systemd/system && mount -o remount,bind,ro /etc/systemd/system",
    );
    hosts.provision(&["down", "remote"]).expect(1).says(&[
        "member infra1: stop",
        "ssh://infra1.example.com: systemctl disable",
        "Read-only file system",
    ]);
    on("umount /etc/systemd/system");
    hosts.up_file().expect(0);
    hosts.no_change();
}

/// The first three machines let nobody in but the fifth, which lets nobody in but the fourth.
fn behind_two_jumps(hosts: &Hosts) {
    let only = |machine: usize, from: usize| {
        let rule = format!(
            "nft add table inet door && nft add chain inet door in '{{ type filter hook input priority 0; }}' && \
             nft add rule inet door in ct state new tcp dport 22 ip saddr != 10.0.1.{} reject with tcp reset",
            10 + from
        );
        let machine = format!("infra{machine}.example.com");
        hosts.place.on(&machine, &rule).expect(0);
        hosts.place.on(&machine, "true").expect(255);
    };
    for machine in 0..3 {
        only(machine, 4);
    }
    only(4, 3);
}

#[test]
fn machines_behind_jumps_are_worked_on_by_a_user_with_sudo() {
    let mut hosts = Hosts::up(5, "");
    let add_user = "useradd --create-home --shell /bin/sh ops && install -d -m 700 -o ops /home/ops/.ssh && \
        install -m 600 -o ops /root/.ssh/authorized_keys /home/ops/.ssh/";
    for machine in 0..3 {
        let machine = format!("infra{machine}.example.com");
        hosts.place.on(&machine, add_user).expect(0);
    }
    let may_sudo = "echo 'ops ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/ops";
    let user = |more: &str| topology(&hosts.place, &format!("user = \"ops\"\n{more}"), "");
    let refused = |file: &str, what: &str, fix: &str| {
        hosts.provision(&["up", file]).expect(20).says(&[
            "error: the machine of member infra",
            "cannot be worked on: ssh://ops@infra",
            what,
            fix,
        ]);
        assert!(!hosts.place.0.cluster("remote").exists(), "state is left");
    };
    refused(&user(""), "cannot write there", "or set `sudo = true`");
    refused(
        &user("sudo = true"),
        "cannot become root with sudo",
        "fix: allow the user to run commands with sudo without a password",
    );
    for machine in 0..3 {
        let machine = format!("infra{machine}.example.com");
        hosts.place.on(&machine, may_sudo).expect(0);
    }

    behind_two_jumps(&hosts);
    refused(
        &user("sudo = true"),
        "cannot be reached",
        "fix: see whether",
    );
    let jump = "jump = [\"root@infra3.example.com\", \"root@infra4.example.com\"]";
    let file = user(&format!("sudo = true\n{jump}"));
    hosts.file = file;
    hosts.up_file().expect(0);
    hosts.no_change();
    assert_eq!(hosts.states(), ["ready"; 3]);
    hosts.etcdctl(&["put", "a", "b"]).expect(0);
    let there = "id -un; stat -c %U /opt/provision/bin /var/lib/provision/clusters/remote/members/infra0/data";
    hosts
        .provision(&[
            "ssh",
            "remote",
            "infra0",
            "--",
            "sh",
            "-c",
            &format!("'{}'", there.replace("stat", "sudo stat")),
        ])
        .expect(0)
        .prints(&["ops\nroot\netcd\n"]);
    hosts
        .provision(&["restart", "remote"])
        .expect(0)
        .says(&[" 0 of "]);

    // One of them may not any more.
    let no_sudo = [
        "ssh",
        "remote",
        "infra1",
        "--",
        "sudo",
        "rm",
        "/etc/sudoers.d/ops",
    ];
    hosts.provision(&no_sudo).expect(0);
    hosts.provision(&["restart", "remote"]).expect(20).says(&[
        "error: the machine of member infra1 cannot be worked on",
        "cannot become root with sudo",
    ]);
    hosts.place.lab(&["kill", "infra4"]).expect(0);
    hosts.up_file().expect(20).says(&["cannot be reached"]);
    hosts
        .etcdctl(&["get", "a", "--print-value-only"])
        .expect(0)
        .prints(&["b"]);
}

#[test]
fn sixteen_machines_come_up_in_one_go() {
    let hosts = Hosts::up(16, "");
    let took = |file: &str| {
        let began = Instant::now();
        hosts.provision(&["up", file]).expect(0);
        began.elapsed()
    };
    let three = took(&hosts.file);
    hosts
        .provision(&["down", "--purge", "--yes", "remote"])
        .expect(0);
    let text = fs::read_to_string(&hosts.file).unwrap();
    let text = text
        .replace("{0..2}", "{0..15}")
        .replace("{10..12}", "{10..25}");
    fs::write(&hosts.file, text).unwrap();
    let sixteen = took(&hosts.file);
    println!("three in {three:?}, sixteen in {sixteen:?}");
    assert_eq!(hosts.states(), ["ready"; 16]);
    hosts.no_change();
    hosts.etcdctl(&["put", "a", "b"]).expect(0);
    // Five times the machines: an effort that grows with their square takes 28 times as long.
    assert!(
        sixteen < three * 20,
        "three in {three:?}, sixteen in {sixteen:?}"
    );
}
