//! Clusters on machines that are reached by SSH: a lab of real hosts, as root.

use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::lab::Place;
use crate::sandbox::{Done, finish, kill, wait_until};

const ETCD: &str = "/usr/bin/etcd";

/// A lab with hosts, and a file for a cluster on the first three of them.
pub(crate) struct Hosts {
    pub(crate) place: Place,
    pub(crate) file: String,
}

impl Hosts {
    pub(crate) fn up(hosts: usize, extra: &str) -> Self {
        let place = Place::new();
        place.lab(&["up", "--hosts", &hosts.to_string()]).expect(0);
        let file = topology(&place, "", extra);
        Self { place, file }
    }

    pub(crate) fn provision(&self, args: &[&str]) -> Done {
        self.place.0.provision(args)
    }

    pub(crate) fn up_file(&self) -> Done {
        self.provision(&["up", &self.file])
    }

    pub(crate) fn no_change(&self) {
        self.provision(&["plan", "--detailed-exitcode", &self.file])
            .expect(0);
    }

    /// etcdctl on the lab's network, with the operator's certificate.
    pub(crate) fn etcdctl(&self, args: &[&str]) -> Done {
        let env = self
            .provision(&["env", "remote", "-o", "json"])
            .expect(0)
            .json();
        let variables: Vec<String> = env
            .as_object()
            .unwrap()
            .iter()
            .filter_map(|(name, value)| Some(format!("{name}={}", value.as_str()?)))
            .collect();
        let mut command = vec!["env"];
        command.extend(variables.iter().map(String::as_str));
        command.push("etcdctl");
        command.extend(args);
        self.place.inside(&command)
    }

    pub(crate) fn states(&self) -> Vec<String> {
        let states = self.of_members("state").into_iter();
        states
            .map(|state| state.as_str().unwrap().to_owned())
            .collect()
    }

    /// This field of each member's status.
    pub(crate) fn of_members(&self, field: &str) -> Vec<Value> {
        let status = self.provision(&["status", "remote", "-o", "json"]);
        let status: Value = status.json();
        let members = status["members"].as_array().unwrap().iter();
        members.map(|member| member[field].clone()).collect()
    }
}

/// What a command printed as its result.
pub(crate) trait Prints {
    fn prints(&self, parts: &[&str]);
}

impl Prints for Done {
    #[track_caller]
    fn prints(&self, parts: &[&str]) {
        for part in parts {
            assert!(
                self.stdout.contains(part),
                "{part:?} is not in:\n{}",
                self.stdout
            );
        }
    }
}

pub(crate) fn topology(place: &Place, host_defaults: &str, extra: &str) -> String {
    let text = format!(
        "name = \"remote\"\n[tls]\npeer = \"mutual\"\nclient = \"mutual\"\n{extra}\n[host-defaults]\nssh-config = \"{}\"\n{host_defaults}\n\
         [[member]]\nname = \"infra{{0..2}}\"\nhost = \"ssh://infra{{0..2}}.example.com\"\naddress = \"10.0.1.{{10..12}}\"\n",
        place.dir().join("ssh_config").display()
    );
    place.0.write("remote.toml", &text)
}

const HOME: &str = "/var/lib/provision/clusters/remote/members/infra0";
const UNIT: &str = "provision-remote-infra0.service";

#[test]
fn a_cluster_lives_on_hosts_under_systemd() {
    let mut hosts = Hosts::up(3, "");
    let plan = hosts.provision(&["plan", &hosts.file]).expect(0);
    plan.prints(&[
        "install files for infra0, infra1, infra2",
        "/opt/provision/bin/member-",
    ]);
    hosts.up_file().expect(0).says(&["cluster remote is up"]);
    hosts.no_change();
    hosts.up_file().expect(0).says(&["no change"]);
    assert_eq!(hosts.states(), ["ready", "ready", "ready"]);
    hosts.etcdctl(&["put", "a", "b"]).expect(0);

    let on = |command: &str| hosts.place.on("infra0.example.com", command);
    // Ready is what the member tells systemd.
    on(&format!(
        "systemctl is-active {UNIT}; systemctl is-enabled {UNIT}"
    ))
    .expect(0)
    .prints(&["active", "enabled"]);
    let owners = on(&format!(
        "stat -c '%a %U' {HOME}/certs/server.key {HOME}/data {HOME}/member.env"
    ));
    assert_eq!(owners.expect(0).stdout, "600 etcd\n700 etcd\n600 root\n");
    let main = on(&format!(
        "ps -o user= -p $(systemctl show -p MainPID --value {UNIT})"
    ))
    .expect(0);
    assert_eq!(main.stdout.trim(), "etcd");
    // The agent is gone with the connection that started it.
    on("pgrep -f 'provision-[0-9a-f]* agent'").expect(1);
    no_secret_is_seen(&hosts);

    // A changed flag, one member at a time and the leader last.
    hosts.file = topology(&hosts.place, "", "[defaults]\nheartbeat-interval = 90");
    hosts
        .up_file()
        .expect(0)
        .says(&["longest write gap", " 0 of "]);
    hosts.no_change();
    on(&format!("grep -c HEARTBEAT_INTERVAL=90 {HOME}/member.env")).expect(0);

    // Drift is found and undone.
    on(&format!(
        "echo junk > {HOME}/certs/server.crt; echo '# edited' >> /etc/systemd/system/{UNIT}"
    ))
    .expect(0);
    hosts
        .provision(&["plan", "--detailed-exitcode", &hosts.file])
        .expect(2)
        .prints(&["install files for infra0", &format!("{UNIT} differs")]);
    hosts.up_file().expect(0);
    hosts.no_change();

    // systemd brings a killed member back, and a host its member.
    on(&format!("systemctl kill -s KILL {UNIT}")).expect(0);
    wait_until("the killed member is back", || {
        hosts.states() == ["ready"; 3]
    });
    hosts.place.lab(&["kill", "infra1"]).expect(0);
    hosts.provision(&["status", "remote"]).expect(4).prints(&[
        "infra1",
        "unreachable",
        "degraded, quorum held",
    ]);
    hosts
        .up_file()
        .expect(20)
        .says(&["the machine of member infra1 cannot be worked on", "fix:"]);
    hosts.etcdctl(&["put", "a", "c"]).expect(0);
    hosts.place.lab(&["start", "infra1"]).expect(0);
    wait_until("the host's member is back", || {
        hosts.states() == ["ready"; 3]
    });
    hosts.no_change();
    hosts
        .etcdctl(&["get", "a", "--print-value-only"])
        .expect(0)
        .prints(&["c"]);

    hosts
        .provision(&["logs", "-n", "3", "remote", "infra0"])
        .expect(0)
        .prints(&["\"level\":\"info\""]);
    hosts
        .provision(&["ssh", "remote", "infra2", "--", "hostname"])
        .expect(0)
        .prints(&["infra2"]);
    hosts.provision(&["down", "remote"]).expect(0);
    on(&format!("systemctl is-enabled {UNIT}"))
        .expect(1)
        .prints(&["disabled"]);
    hosts.up_file().expect(0);
    hosts
        .etcdctl(&["get", "a", "--print-value-only"])
        .expect(0)
        .prints(&["c"]);
    hosts
        .provision(&["down", "--purge", "--yes", "remote"])
        .expect(0);
    let left = on("find /var/lib/provision -type f; ls /etc/systemd/system | grep provision");
    assert_eq!(left.stdout, "");
}

// Neither arguments nor files that others may read hold a private key, here or there.
fn no_secret_is_seen(hosts: &Hosts) {
    let key = hosts.place.on(
        "infra0.example.com",
        &format!("sed -n 2p {HOME}/certs/server.key"),
    );
    let secret = key.expect(0).stdout.trim().to_owned();
    assert!(secret.len() > 40, "{secret}");
    let search = format!(
        "grep -rlsF -e {secret} /proc/[0-9]*/cmdline /proc/[0-9]*/environ /var/log /etc /opt /tmp /run/log; journalctl | grep -cF -e {secret}"
    );
    // The shell that searches, and ssh's own, hold it as an argument.
    let found = hosts.place.on("infra0.example.com", &search).stdout;
    let others: Vec<&str> = found
        .lines()
        .filter(|line| !line.starts_with("/proc/"))
        .collect();
    assert_eq!(others, ["0"], "{found}");
    let state = hosts.place.0.cluster("remote");
    let here = Command::new("grep")
        .args(["-rlF", &secret])
        .arg(&state)
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&here.stdout).trim(),
        state
            .join("members/infra0/certs/server.key")
            .to_str()
            .unwrap()
    );
}

#[test]
fn a_machine_that_is_destroyed_is_replaced_by_another() {
    let hosts = Hosts::up(4, "");
    hosts.up_file().expect(0);
    hosts.etcdctl(&["put", "a", "b"]).expect(0);
    let before = fs::read_to_string(&hosts.file).unwrap();
    hosts.place.lab(&["kill", "infra1"]).expect(0);
    hosts
        .provision(&["replace", &hosts.file, "infra1"])
        .expect(20)
        .says(&[
            "the machine of member infra1 cannot be worked on",
            "--with ssh://HOST",
        ]);
    let with = ["--with", "ssh://infra3.example.com"];
    let replace = |more: &[&str]| {
        hosts.provision(&[&["replace", &hosts.file, "infra1"], &with[..], more].concat())
    };
    replace(&[]).expect(1).says(&["give it with --address"]);
    let address = ["--address", "10.0.1.13"];
    replace(&[&address[..], &["--dry-run"]].concat())
        .expect(0)
        .prints(&[
            "remove infra1",
            "leave infra1 behind",
            "add infra1",
            "promote infra1",
        ]);
    assert_eq!(fs::read_to_string(&hosts.file).unwrap(), before);

    replace(&address).expect(0).says(&[
        "what member infra1 has on its machine is left there",
        "longest write gap",
        " 0 of ",
    ]);
    hosts.no_change();
    hosts
        .provision(&["plan", "--detailed-exitcode", "remote"])
        .expect(0);
    assert_eq!(hosts.states(), ["ready", "ready", "ready"]);
    hosts
        .etcdctl(&["get", "a", "--print-value-only"])
        .expect(0)
        .prints(&["b"]);
    let listed = hosts.etcdctl(&["member", "list"]).expect(0).stdout;
    assert!(listed.contains("https://10.0.1.13:2380") && !listed.contains("10.0.1.11"));

    // The machine comes back with a member that nobody knows any more.
    hosts.place.lab(&["start", "infra1"]).expect(0);
    hosts.etcdctl(&["put", "a", "c"]).expect(0);
    hosts.no_change();

    // One that lives moves as well, and leaves nothing but its data behind. What its namesake left there is set aside too.
    let back = [
        "--with",
        "ssh://infra1.example.com",
        "--address",
        "10.0.1.11",
    ];
    hosts
        .provision(&[&["replace", &hosts.file, "infra1"], &back[..]].concat())
        .expect(0)
        .says(&["its data is kept in /var/lib/provision/clusters/remote/removed/infra1.1"]);
    let aside = "ls /var/lib/provision/clusters/remote/removed";
    for host in ["infra1.example.com", "infra3.example.com"] {
        hosts.place.on(host, aside).expect(0).prints(&["infra1.1"]);
    }
    hosts.no_change();
    let left =
        "find /etc/systemd/system -name 'provision-*'; find /var/lib/provision -path '*members*'";
    let left = hosts.place.on("infra3.example.com", left);
    assert_eq!(left.stdout, "");
}

#[test]
fn operators_of_two_machines_do_not_meet_and_lost_state_is_adopted() {
    let hosts = Hosts::up(3, "");
    hosts.up_file().expect(0);
    hosts.etcdctl(&["put", "a", "b"]).expect(0);
    let state = hosts.place.0.cluster("remote");
    let other = hosts.place.0.path().join("other");
    let second = |args: &[&str]| -> Done {
        let mut command = hosts.place.0.command(args);
        command.env("PROVISION_STATE_DIR", &other);
        command.output().unwrap().into()
    };

    // Without its state the cluster is somebody else's, until the state is fetched.
    second(&["up", &hosts.file])
        .expect(6)
        .says(&["is not of this cluster", "provision adopt FILE"]);
    second(&["adopt", &hosts.file])
        .expect(0)
        .says(&["adopted from ssh://infra0.example.com"]);
    second(&["adopt", &hosts.file])
        .expect(6)
        .says(&["is known here already"]);
    for target in [hosts.file.as_str(), "remote"] {
        second(&["plan", "--detailed-exitcode", target]).expect(0);
    }
    let mode = "stat -c '%a %U' /var/lib/provision/clusters/remote/state/ca.key";
    let mode = hosts.place.on("infra1.example.com", mode).expect(0);
    assert_eq!(mode.stdout, "600 root\n");

    // One of them works, and is stopped in the middle of it.
    let first = hosts.place.0.spawn(&["restart", "remote"]);
    let lock = "flock -n /var/lib/provision/clusters/remote/lock true";
    wait_until("the lock is taken", || {
        hosts.place.on("infra2.example.com", lock).code == 1
    });
    let pid = i32::try_from(first.id()).unwrap();
    kill(pid, 19);
    for verb in ["up", "down"] {
        second(&[verb, "remote"]).expect(6).says(&[
            "cluster remote is being changed by `provision restart`, pid ",
            "--force-unlock",
        ]);
    }
    second(&["status", "remote"]);
    second(&["up", "--force-unlock", "remote"]).expect(0);
    kill(pid, 18);
    let first = finish(first);
    assert_ne!(first.code, 0, "{}", first.stderr);
    second(&["plan", "--detailed-exitcode", "remote"]).expect(0);

    // The state of the first is lost, and what the machines have is as good.
    fs::rename(&state, hosts.place.0.path().join("lost")).unwrap();
    let from = ["--from", "ssh://infra2.example.com"];
    hosts
        .provision(&[&["adopt", &hosts.file], &from[..]].concat())
        .expect(0)
        .says(&["adopted from ssh://infra2.example.com"]);
    hosts.no_change();
    assert_eq!(hosts.states(), ["ready", "ready", "ready"]);
    hosts
        .etcdctl(&["get", "a", "--print-value-only"])
        .expect(0)
        .prints(&["b"]);
    hosts
        .provision(&["adopt", "--from", "ssh://infra9.example.com", &hosts.file])
        .expect(6);
}

#[test]
fn stock_etcd_is_rolled_out_and_runs_without_systemd_too() {
    let mut hosts = Hosts::up(3, "");
    let with = |hosts: &Hosts, host_defaults: &str| {
        let file = topology(&hosts.place, host_defaults, "");
        let text = fs::read_to_string(&file).unwrap();
        let text = text.replace(
            "[[member]]\n",
            &format!("[[member]]\nbinary = \"{ETCD}\"\n"),
        );
        hosts.place.0.write("etcd.toml", &text)
    };
    hosts.file = with(&hosts, "");
    hosts.up_file().expect(0);
    hosts.no_change();
    hosts.etcdctl(&["put", "a", "b"]).expect(0);
    hosts
        .provision(&["down", "--purge", "--yes", "remote"])
        .expect(0);

    hosts.file = with(
        &hosts,
        "service = \"process\"\ndata-dir = \"/srv/etcd\"\nrun-as = \"daemon\"",
    );
    hosts.up_file().expect(0);
    hosts.no_change();
    hosts.etcdctl(&["put", "a", "b"]).expect(0);
    let on = |command: &str| hosts.place.on("infra0.example.com", command);
    on("systemctl list-units --all | grep provision-remote").expect(1);
    let user = on("ps -o user= -p $(pgrep -o -f data-dir=/srv/etcd/clusters/remote)").expect(0);
    assert_eq!(user.stdout.trim(), "daemon");
    // Nothing brings this one back but `up`.
    on("pkill -KILL -o -f data-dir=/srv/etcd/clusters/remote").expect(0);
    wait_until("it is gone", || hosts.states()[0] == "stopped");
    hosts.up_file().expect(0).says(&["infra0  ready"]);
    let log = hosts
        .provision(&["logs", "-n", "1", "remote", "infra0"])
        .expect(0);
    assert_eq!(log.stdout.lines().count(), 1, "{}", log.stdout);
    hosts
        .provision(&["down", "--purge", "--yes", "remote"])
        .expect(0);
    assert_eq!(on("find /srv/etcd -type f").stdout, "");
}

#[test]
fn stock_etcd_on_hosts_goes_over_to_tls() {
    let hosts = Hosts::up(3, "");
    let secure = fs::read_to_string(&hosts.file).unwrap();
    let secure = secure.replace(
        "[[member]]\n",
        &format!("[[member]]\nbinary = \"{ETCD}\"\n"),
    );
    fs::write(&hosts.file, secure.replace("\"mutual\"", "\"off\"")).unwrap();
    hosts.up_file().expect(0);
    hosts.etcdctl(&["put", "a", "b"]).expect(0);
    fs::write(&hosts.file, secure).unwrap();
    hosts
        .up_file()
        .expect(6)
        .says(&["provision rotate tls FILE"]);
    hosts.provision(&["rotate", "tls", &hosts.file]).expect(0);
    hosts.no_change();
    hosts.etcdctl(&["get", "a"]).expect(0).prints(&["b"]);
    let listed = hosts.etcdctl(&["member", "list"]).expect(0).stdout;
    assert!(!listed.contains("http://"), "{listed}");
    let plain = ["curl", "-s", "-m", "5", "http://10.0.1.10:2379/health"];
    assert_ne!(hosts.place.inside(&plain).code, 0);
}

#[test]
fn what_is_wrong_with_a_host_is_said_and_nothing_is_touched() {
    let hosts = Hosts::up(3, "");
    let config = hosts.place.dir().join("ssh_config");
    let good = fs::read_to_string(&config).unwrap();
    let known = hosts.place.dir().join("known_hosts");
    let keys = fs::read_to_string(&known).unwrap();
    let refused = |text: &str| {
        hosts
            .up_file()
            .expect(20)
            .says(&["error: the machine of member infra", text, "fix:"]);
        assert!(!hosts.place.0.cluster("remote").exists(), "state is left");
    };

    fs::write(&known, "").unwrap();
    refused("its host key is not known");
    let swapped: Vec<String> = keys
        .lines()
        .zip(keys.lines().cycle().skip(1))
        .map(|(line, other)| {
            let names = line.split(' ').next().unwrap();
            let key: Vec<&str> = other.split(' ').skip(1).collect();
            format!("{names} {}", key.join(" "))
        })
        .collect();
    fs::write(&known, swapped.join("\n")).unwrap();
    refused("its host key has changed");
    fs::write(&known, &keys).unwrap();

    fs::write(&config, good.replace("User root", "User nobody")).unwrap();
    refused("it does not accept the login");
    fs::write(&config, &good).unwrap();

    hosts.place.lab(&["kill", "infra2"]).expect(0);
    refused("cannot be reached");
    hosts.place.lab(&["start", "infra2"]).expect(0);

    let on = |command: &str| hosts.place.on("infra1.example.com", command).expect(0);
    on("mkdir -p /opt/provision && mount -t tmpfs -o size=1m tmpfs /opt/provision");
    refused("its disk is full");
    on("mount -o remount,ro /opt/provision");
    refused("cannot write there");
    on("umount /opt/provision");

    // A port that somebody holds, and data of somebody else.
    on(
        "systemd-run --quiet --unit=holder perl -MSocket -e 'socket(S, PF_INET, SOCK_STREAM, 0); bind(S, sockaddr_in(2379, INADDR_ANY)); listen(S, 5); sleep 600'",
    );
    wait_until("the port is held", || {
        hosts
            .place
            .on("infra1.example.com", "ss -tln | grep -q :2379")
            .code
            == 0
    });
    hosts
        .up_file()
        .expect(1)
        .says(&["port 2379, the client port of member infra1, is held by"]);
    on("systemctl stop holder");
    on("mkdir -p /var/lib/provision/clusters/remote/members/infra1/data/member");
    hosts.up_file().expect(6).says(&["is not of this cluster"]);
    on("rm -r /var/lib/provision");
    hosts.up_file().expect(0);
    hosts.no_change();
}

#[test]
fn a_cluster_on_hosts_is_backed_up_and_restored() {
    let hosts = Hosts::up(3, "[backup]\nschedule = \"daily\"");
    hosts.up_file().expect(0);
    hosts.etcdctl(&["put", "a", "old"]).expect(0);
    let backup = hosts.provision(&["backup", "--verify", "remote"]).expect(0);
    let backup = backup.stdout.trim().to_owned();
    hosts.etcdctl(&["put", "a", "new"]).expect(0);
    // One of them fails at every start, and systemd tries it again and again.
    let on = |command: &str| hosts.place.on("infra0.example.com", command);
    on(&format!(
        "echo junk > {HOME}/data/member/state/CURRENT; systemctl kill -s KILL {UNIT}"
    ))
    .expect(0);
    hosts
        .provision(&["restore", "--yes", "remote", &backup])
        .expect(6)
        .says(&["1 revisions would be lost"]);
    hosts
        .provision(&["restore", "--yes", "--accept-data-loss", "remote", &backup])
        .expect(0)
        .says(&[
            "infra0  restored",
            "cluster remote is restored from revision 2",
        ]);
    assert_eq!(hosts.states(), ["ready", "ready", "ready"]);
    hosts
        .etcdctl(&["get", "a", "--print-value-only"])
        .expect(0)
        .prints(&["old"]);
    hosts.no_change();
    let there = on(&format!(
        "systemctl is-enabled {UNIT}; stat -c '%a %U' {HOME}/data {HOME}/data/member {HOME}/data/provision.json; \
         ls -A {HOME}; ls /var/lib/provision/clusters/remote/removed"
    ));
    let there = there.expect(0).stdout;
    assert_eq!(
        there,
        "enabled\n700 etcd\n700 etcd\n600 etcd\ncerts\ndata\nmember.env\nversion.txt\ninfra0.1\n"
    );

    // The program and the included member are there: a cluster of the host's own, and a timer that backs it up.
    on("cd /root && ln -s /opt/provision/bin/provision-* provision && ln -s /opt/provision/bin/member-* member && \
        printf 'name = \"own\"\n[backup]\nschedule = \"daily\"\nverify = true\n[[member]]\nname = \"m0\"\n' > own.toml")
        .expect(0);
    let own = |args: &str| {
        on(&format!(
            "cd /root && PROVISION_MEMBER=/root/member ./provision {args}"
        ))
    };
    own("up own.toml").expect(0);
    own("backup --install-timer own")
        .expect(0)
        .says(&["is backed up by", "daily"]);
    on("systemctl is-active provision-backup-own.timer && systemctl is-enabled provision-backup-own.timer")
        .expect(0);
    on("systemctl start provision-backup-own.service || { journalctl -u provision-backup-own; exit 1; }").expect(0);
    let list = own("backup --list own -o json").expect(0).json();
    assert_eq!(
        list["backups"][0]["verified"]["by"], "the included member",
        "{list}"
    );
    own("backup --remove-timer own").expect(0);
    on("ls /etc/systemd/system | grep provision-backup").expect(1);
    own("backup --remove-timer own")
        .expect(0)
        .says(&["no timer backs cluster own up"]);
    own("down --purge --yes own").expect(0);
}
