//! Labs: real hosts, as root. What a lab leaves behind is looked for in the whole machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::sandbox::{Done, Sandbox, finish, kill, wait_until};

const ETCD: &str = "/usr/local/lib/etcd-3.5.1/etcd";

/// A sandbox whose lab ends with it, however the test ends.
pub(crate) struct Place(pub(crate) Sandbox);

/// The namespaces and the control group of a lab that runs.
struct Traces {
    /// When they were noted. The numbers of namespaces that are gone are given to others, another test's lab among them.
    noted: u64,
    namespaces: Vec<PathBuf>,
    group: PathBuf,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self(Sandbox::new())
    }

    /// With the shared root made, so that a lab comes up within seconds from now on.
    fn prepared() -> Self {
        let place = Self::new();
        place.lab(&["up", "--hosts", "1"]).expect(0);
        place.lab(&["down"]).expect(0);
        place
    }

    pub(crate) fn lab(&self, args: &[&str]) -> Done {
        self.0.provision(&[&["lab"], args].concat())
    }

    pub(crate) fn inside(&self, command: &[&str]) -> Done {
        self.lab(&[&["exec", "--"], command].concat())
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.0.state().join("labs/lab")
    }

    /// Plain ssh or scp, from outside.
    fn ssh(&self, program: &str, args: &[&str]) -> Done {
        let output: Output = Command::new(program)
            .arg("-F")
            .arg(self.dir().join("ssh_config"))
            .args(args)
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        output.into()
    }

    pub(crate) fn on(&self, host: &str, command: &str) -> Done {
        self.ssh("ssh", &[host, command])
    }

    fn traces(&self) -> Traces {
        let kinds = ["net", "mnt", "pid"].map(|kind| format!("/proc/1/ns/{kind}"));
        let kinds: Vec<&str> = kinds.iter().map(String::as_str).collect();
        let links = self
            .inside(&[&["readlink"], &kinds[..]].concat())
            .expect(0)
            .stdout;
        let group = self.inside(&["cat", "/proc/1/cgroup"]).expect(0).stdout;
        let group = group
            .lines()
            .find_map(|line| line.strip_prefix("0::/"))
            .unwrap();
        Traces {
            noted: ticks_since_boot(),
            namespaces: links.lines().map(PathBuf::from).collect(),
            group: control_groups().join(group.strip_suffix("/init").unwrap()),
        }
    }

    /// Nothing of it is left on the machine: no process, namespace, mount, bridge, control group or file.
    fn assert_gone(&self, traces: &Traces) {
        assert_eq!(traces.namespaces.len(), 3);
        wait_until("the lab's namespaces are gone", || {
            !namespaces_of_processes(traces.noted)
                .iter()
                .any(|namespace| traces.namespaces.contains(namespace))
        });
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(
            !mounts.contains(self.0.path().to_str().unwrap()),
            "{mounts}"
        );
        for namespace in &traces.namespaces {
            assert!(!mounts.contains(namespace.to_str().unwrap()), "{mounts}");
        }
        assert!(
            !Path::new("/sys/class/net/lab0").exists(),
            "a bridge outside the lab"
        );
        assert!(!traces.group.exists(), "{} is left", traces.group.display());
        assert!(!self.dir().exists(), "{} is left", self.dir().display());
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _gone_already = self.lab(&["down"]);
    }
}

/// Of those that ran at that time.
fn namespaces_of_processes(at: u64) -> Vec<PathBuf> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter(|process| started(&process.path()).is_some_and(|start| start <= at))
        .filter_map(|process| fs::read_dir(process.path().join("ns")).ok())
        .flat_map(|namespaces| namespaces.flatten())
        .filter_map(|namespace| fs::read_link(namespace.path()).ok())
        .collect()
}

/// When a process was started, in ticks since boot.
fn started(process: &Path) -> Option<u64> {
    let stat = fs::read_to_string(process.join("stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(19)?.parse().ok()
}

fn ticks_since_boot() -> u64 {
    // Seconds with two digits, and a tick is a hundredth.
    let uptime = fs::read_to_string("/proc/uptime").unwrap();
    let (seconds, _) = uptime.split_once(' ').unwrap();
    seconds.replace('.', "").parse().unwrap()
}

fn control_groups() -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let mount = mounts
        .lines()
        .find(|line| line.split(' ').nth(2) == Some("cgroup2"));
    PathBuf::from(mount.unwrap().split(' ').nth(1).unwrap())
}

#[test]
fn hosts_are_reached_by_name_and_a_cluster_finds_itself_by_dns() {
    let place = Place::new();
    place.lab(&["up", "--hosts", "3"]).expect(0).says(&[
        "infra0  ready, infra0.example.com, 10.0.1.10",
        "lab lab is up",
    ]);
    place
        .lab(&["up"])
        .expect(0)
        .says(&["no change: lab lab is up"]);
    place
        .lab(&["up", "--hosts", "2"])
        .expect(2)
        .says(&["has 3 hosts, not 2"]);
    let status = place.lab(&["status", "-o", "json"]).expect(0).json();
    assert_eq!(status["hosts"][2]["name"], "infra2.example.com");
    assert_eq!(status["hosts"][2]["address"], "10.0.1.12");
    let traces = place.traces();

    let host = place
        .on(
            "infra0.example.com",
            "hostname; systemctl is-system-running",
        )
        .expect(0);
    assert_eq!(host.stdout, "infra0\nrunning\n");
    let verb = place.lab(&["ssh", "infra1", "--", "exit", "7"]);
    verb.expect(7);
    let names = place
        .on(
            "infra0",
            "getent hosts infra2.example.com; getent hosts 10.0.1.11",
        )
        .expect(0);
    assert!(
        names.stdout.contains("10.0.1.12") && names.stdout.contains("infra1.example.com"),
        "{}",
        names.stdout
    );
    let pwd = place.inside(&["pwd"]).expect(0).stdout;
    assert_eq!(Path::new(pwd.trim()), std::env::current_dir().unwrap());
    place
        .on("infra0", "ping -c 1 -W 1 192.0.2.1")
        .expect(2)
        .says(&["Network is unreachable"]);
    strict_host_keys(&place);

    cluster_by_dns(&place);

    place
        .lab(&["kill", "infra1"])
        .expect(0)
        .says(&["infra1  killed"]);
    assert_eq!(
        place.lab(&["status", "-o", "json"]).expect(4).json()["hosts"][1]["state"],
        "stopped"
    );
    place
        .lab(&["ssh", "infra1"])
        .expect(1)
        .says(&["provision lab start infra1"]);
    place
        .lab(&["start", "infra1"])
        .expect(0)
        .says(&["infra1  ready"]);
    place.on("infra1", "test -d /var/lib/etcd/member").expect(0);

    let pid = place.inside(&[
        "sh",
        "-c",
        "cat /sys/fs/cgroup/provision-lab-*/dns/cgroup.procs",
    ]);
    // Labs of other tests have a server too; only this lab's has a number here.
    let pid = pid.expect(0).stdout;
    let pid = pid.lines().find(|pid| *pid != "0").unwrap().to_owned();
    place.inside(&["kill", "-9", &pid]).expect(0);
    let dig = ["dig", "+time=1", "+tries=1", "infra2.example.com"];
    wait_until("the server is away", || place.inside(&dig).code == 9);
    place.lab(&["up"]).expect(0).says(&["dns  answers"]);
    place
        .on("infra0", "getent hosts infra2.example.com")
        .expect(0);

    place.lab(&["down"]).expect(0).says(&["lab lab is gone"]);
    place.assert_gone(&traces);
    place
        .lab(&["down"])
        .expect(2)
        .says(&["there is no lab lab"]);
}

fn strict_host_keys(place: &Place) {
    let file = place.dir().join("known_hosts");
    let known = fs::read_to_string(&file).unwrap();
    let mut lines: Vec<&str> = known.lines().collect();
    let swapped = lines[0].replace(
        lines[0].split(' ').nth(2).unwrap(),
        lines[1].split(' ').nth(2).unwrap(),
    );
    lines[0] = &swapped;
    fs::write(&file, lines.join("\n")).unwrap();
    place
        .on("infra0.example.com", "true")
        .expect(255)
        .says(&["Host key verification failed"]);
    fs::write(&file, &known).unwrap();
    place.on("infra0.example.com", "true").expect(0);
}

fn cluster_by_dns(place: &Place) {
    let zone = place.dir().join("zone");
    let mut text = fs::read_to_string(&zone).unwrap();
    for index in 0..3 {
        text.push_str(&format!(
            "_etcd-server._tcp.example.com. SRV 0 0 2380 infra{index}.example.com.\n\
             _etcd-client._tcp.example.com. SRV 0 0 2379 infra{index}.example.com.\n"
        ));
    }
    fs::write(&zone, text).unwrap();
    for index in 0..3 {
        let host = format!("infra{index}");
        let name = format!("{host}.example.com");
        place
            .ssh("scp", &["-q", ETCD, &format!("{host}:/usr/local/bin/etcd")])
            .expect(0);
        let start = format!(
            "systemd-run --quiet --unit=etcd etcd --name {host} --data-dir /var/lib/etcd --discovery-srv example.com \
             --initial-advertise-peer-urls http://{name}:2380 --listen-peer-urls http://10.0.1.1{index}:2380 \
             --advertise-client-urls http://{name}:2379 --listen-client-urls http://10.0.1.1{index}:2379 \
             --initial-cluster-token etcd-cluster-1 --initial-cluster-state new"
        );
        place.on(&name, &start).expect(0);
    }
    let list = [
        "etcdctl",
        "--discovery-srv",
        "example.com",
        "member",
        "list",
    ];
    wait_until("the members have found each other", || {
        place.inside(&list).stdout.matches("started").count() == 3
    });
    let members = place.inside(&list).expect(0).stdout;
    // As the guide's cluster has them anywhere: they follow from names, URLs and token.
    for id in ["a434bc977dbbaf3e", "89315860d4cce8f0", "518d77c6d7c5a9c1"] {
        assert!(members.contains(id), "{members}");
    }
}

#[test]
fn a_killed_lab_is_repaired_and_leaves_nothing() {
    let place = Place::new();
    place.lab(&["up", "--hosts", "1"]).expect(0);
    let traces = place.traces();
    let first = fs::read_to_string(traces.group.join("init/cgroup.procs")).unwrap();
    kill(first.trim().parse().unwrap(), 9);
    wait_until("the hosts die with the lab", || {
        place.lab(&["status", "-o", "json"]).json()["state"] == "stopped"
    });
    place
        .lab(&["exec", "--", "true"])
        .expect(1)
        .says(&["the lab is not running"]);
    place
        .lab(&["up"])
        .expect(0)
        .says(&["network  bridge, disks and keys", "infra0  ready"]);
    place.on("infra0", "true").expect(0);

    let again = place.traces();
    let first = fs::read_to_string(again.group.join("init/cgroup.procs")).unwrap();
    kill(first.trim().parse().unwrap(), 9);
    place.lab(&["down"]).expect(0);
    place.assert_gone(&traces);
    place.assert_gone(&again);
}

#[test]
fn an_interrupted_up_takes_everything_back() {
    let place = Place::prepared();
    let up = place.0.spawn(&["lab", "up", "--hosts", "2"]);
    wait_until("a host is starting", || {
        place.dir().join("infra0.log").exists()
    });
    // Held, so that it is still at it when the signal comes.
    let pid = up.id().try_into().unwrap();
    kill(pid, 19);
    let traces = place.traces();
    kill(pid, 2);
    kill(pid, 18);
    finish(up).expect(130);
    place.assert_gone(&traces);
}

#[test]
fn a_half_made_lab_is_made_whole() {
    let place = Place::prepared();
    let up = place.0.spawn(&["lab", "up", "--hosts", "2"]);
    wait_until("its first process runs", || {
        place.inside(&["true"]).code == 0
    });
    kill(up.id().try_into().unwrap(), 9);
    finish(up);
    place.lab(&["up"]).expect(0);
    place.on("infra1", "true").expect(0);
    let traces = place.traces();
    fs::remove_dir_all(place.dir()).unwrap();
    place.lab(&["down"]).expect(0);
    place.assert_gone(&traces);
}

#[test]
fn what_cannot_be_a_lab_is_refused() {
    let place = Place::new();
    for hosts in ["0", "33", "three", "-1"] {
        place.lab(&["up", "--hosts", hosts]).expect(2);
    }
    place
        .lab(&["up", "--name", "../x"])
        .expect(2)
        .says(&["lowercase letters"]);
    for verb in [
        &["status"][..],
        &["ssh", "infra0"],
        &["kill", "infra0"],
        &["exec", "--", "true"],
    ] {
        place
            .lab(verb)
            .expect(2)
            .says(&["there is no lab lab", "provision lab up"]);
    }
    fs::create_dir_all(place.dir()).unwrap();
    fs::write(place.dir().join("thesis.tex"), "x").unwrap();
    place
        .lab(&["up"])
        .expect(6)
        .says(&["holds files that provision did not write"]);
    fs::remove_dir_all(place.dir()).unwrap();

    let bare: Done = place
        .0
        .command(&["lab", "list"])
        .env("PATH", "")
        .output()
        .unwrap()
        .into();
    bare.expect(1)
        .says(&["debootstrap is not installed", "ci/setup"]);

    let program = place.0.path().join("provision");
    fs::copy(env!("CARGO_BIN_EXE_provision"), &program).unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(place.0.path(), open).unwrap();
    let other: Done = Command::new("setpriv")
        .args(["--reuid=65534", "--clear-groups", "--"])
        .arg(&program)
        .args(["lab", "up", "--state-dir", "/nonexistent"])
        .output()
        .unwrap()
        .into();
    other.expect(1).says(&["a lab needs root", "sudo"]);
}
