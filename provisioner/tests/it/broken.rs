//! Verbs that lose a machine in their middle, with a client at work outside, and the same verbs run again.

#![expect(
    clippy::print_stdout,
    reason = "what a run said belongs in the test's output"
)]

use std::fs;

use crate::outside::Outside;
use crate::sandbox::{Done, ETCD, INCLUDED, Server, finish, kill, wait_until};

const NEW: &str = "/usr/local/lib/etcd-3.5.1/etcd";

/// Keeps a member's unit from starting for as long as this file is there, so that a verb stays in the middle of a start.
const HELD: &str = "/run/held";

/// What happens to a machine.
#[derive(Clone, Copy)]
enum Blow {
    /// It dies, as in a power cut.
    Killed,
    /// It dies once its member runs and waits for the others, whom it cannot reach.
    KilledWaiting,
    /// The other machines do not hear it any more; the operator does.
    CutOff,
    /// Nobody hears it any more.
    Unplugged,
}

use Blow::{CutOff, Killed, KilledWaiting, Unplugged};

/// A verb and what becomes of it.
struct Case<'a> {
    verb: &'a [&'a str],
    /// The step in which the blow falls.
    step: &'a str,
    blow: Blow,
    /// The machine that it falls on.
    on: usize,
    exit: i32,
    says: &'a [&'a str],
}

struct Broken {
    outside: Outside,
}

impl Broken {
    /// A cluster whose members are on the first three machines of five.
    fn up(server: Server) -> Self {
        let outside = Outside::new(server, 5);
        let hold = format!(
            "for member in 0 1 2 3; do dir=/etc/systemd/system/provision-life-m$member.service.d; mkdir -p $dir; \
             printf '[Service]\\nExecStartPre=+/bin/sh -c \"while [ -e {HELD} ]; do sleep 0.1; done\"\\n' > $dir/hold.conf; done"
        );
        for machine in 0..5 {
            outside.place.on(&name(machine), &hold).expect(0);
        }
        outside.want(&[0, 1, 2]);
        outside.verb(&["up", &outside.file]);
        Self { outside }
    }

    fn file(&self) -> &str {
        &self.outside.file
    }

    fn journal(&self) -> String {
        let dir = self.outside.place.0.cluster("life");
        fs::read_to_string(dir.join("journal.jsonl")).unwrap_or_default()
    }

    /// The operator has m0 lead, so that m1 is the first to be restarted.
    fn leads_m0(&self) {
        let place = &self.outside.place.0;
        place
            .provision(&["move-leader", "life", "--to", "m0"])
            .expect(0);
    }

    #[track_caller]
    fn breaks(&self, case: &Case<'_>) {
        self.leads_m0();
        let before = self.journal().len();
        let step = format!("\"event\":\"step\",\"step\":\"{}", case.step);
        let begun = || self.journal()[before..].contains(&step);
        // A machine that nobody hears is given up after 15 s; one that the operator hears could yet come round.
        let patience = match case.blow {
            CutOff => "15s",
            Killed | KilledWaiting | Unplugged => "50s",
        };
        let verb = [case.verb, &["--timeout", patience]].concat();
        // Starts can be held; other steps are over soon, so that the verb is.
        let done = if let Some(member) = case
            .step
            .strip_prefix("start ")
            .or(case.step.strip_prefix("restart "))
        {
            self.on(case.on, &format!("touch {HELD}"));
            let activating =
                format!("systemctl is-active provision-life-{member} | grep -qx activating");
            let starts = || begun() && self.outside.place.on(&name(case.on), &activating).code == 0;
            self.middle(&verb, starts, |_| self.hit(case.blow, case.on))
        } else {
            self.frozen(&verb, begun, || self.hit(case.blow, case.on))
        };
        println!(
            "{} in {:?}: {}",
            case.verb.join(" "),
            case.step,
            done.stderr
        );
        done.expect(case.exit).says(case.says).says(&["fix: "]);
        // The others go on without it.
        self.outside.works();
        self.mend(case.blow, case.on);
        self.outside.verb(case.verb);
        self.outside.works();
    }

    /// Runs a verb and does something in its middle.
    #[track_caller]
    fn middle(&self, verb: &[&str], reached: impl Fn() -> bool, then: impl FnOnce(i32)) -> Done {
        let mut running = self.outside.place.0.spawn(verb);
        let mut ended = false;
        wait_until("the verb is in its middle", || {
            ended = running.try_wait().unwrap().is_some();
            ended || reached()
        });
        if ended {
            let done = finish(running);
            panic!("it ended before, with {}: {}", done.code, done.stderr);
        }
        then(running.id().try_into().unwrap());
        finish(running)
    }

    /// The same while the verb stands still.
    #[track_caller]
    fn frozen(&self, verb: &[&str], reached: impl Fn() -> bool, then: impl FnOnce()) -> Done {
        self.middle(verb, reached, |pid| {
            kill(pid, 19);
            then();
            kill(pid, 18);
        })
    }

    fn hit(&self, blow: Blow, machine: usize) {
        let lab = |args: &[&str]| drop(self.outside.place.lab(args).expect(0));
        let short = format!("infra{machine}");
        match blow {
            Killed => lab(&["kill", &short]),
            Unplugged => lab(&["exec", "--", "ip", "link", "set", &short, "down"]),
            CutOff => self.cut_off(machine),
            KilledWaiting => {
                let started = || {
                    let member = self.outside.place.0.member("life", "m1");
                    fs::read_to_string(member.join("process.json")).unwrap_or_default()
                };
                let before = started();
                self.cut_off(machine);
                wait_until("the member is started", || started() != before);
                lab(&["kill", &short]);
            }
        }
    }

    // From all machines of the lab, but not from the operator.
    fn cut_off(&self, machine: usize) {
        self.on(
            machine,
            &format!(
                "nft add table inet cut; nft add chain inet cut in '{{ type filter hook input priority 0; }}'; \
                 nft add rule inet cut in iifname eth0 ip saddr 10.0.1.10-10.0.1.30 drop; rm -f {HELD}"
            ),
        );
    }

    fn mend(&self, blow: Blow, machine: usize) {
        let lab = |args: &[&str]| drop(self.outside.place.lab(args).expect(0));
        let short = format!("infra{machine}");
        match blow {
            Killed => lab(&["start", &short]),
            CutOff => self.on(machine, "nft delete table inet cut"),
            KilledWaiting => {
                // The network is not the machine's: what kept it from the others still does, and its member waits for them.
                lab(&["start", &short]);
                self.on(machine, "nft delete table inet cut");
            }
            Unplugged => {
                lab(&["exec", "--", "ip", "link", "set", &short, "up"]);
                self.on(machine, &format!("rm -f {HELD}"));
                // The lock goes with the connection of the run before, of whose end the machine has yet to hear.
                let lock = "flock -n /var/lib/provision/clusters/life/lock true";
                wait_until("the lock is free", || {
                    self.outside.place.on(&name(machine), lock).code == 0
                });
            }
        }
    }

    #[track_caller]
    fn on(&self, machine: usize, command: &str) {
        self.outside.place.on(&name(machine), command).expect(0);
    }

    /// Does it with a client at work, of which no acknowledged write is lost.
    fn under_load(&self, cases: impl FnOnce()) {
        let client = self.outside.client(0);
        cases();
        self.outside.stop(client);
        self.outside.judge();
    }
}

fn name(machine: usize) -> String {
    format!("infra{machine}.example.com")
}

#[test]
fn restarts_that_lose_a_machine_are_finished_by_the_next() {
    let broken = Broken::up(INCLUDED);
    let file = broken.file();
    broken.under_load(|| {
        broken
            .outside
            .want_with(&[0, 1, 2], "heartbeat-interval = 90");
        broken.breaks(&Case {
            verb: &["up", file],
            step: "restart m1",
            blow: Killed,
            on: 1,
            exit: 20,
            says: &["member m1: start", "ssh://infra1.example.com is lost"],
        });
        broken.breaks(&Case {
            verb: &["restart", "life"],
            step: "restart m1",
            blow: KilledWaiting,
            on: 1,
            exit: 20,
            says: &[
                "m1  its machine is lost",
                "member m1: wait until it is ready",
                "ssh://infra1.example.com is lost",
            ],
        });
        broken.breaks(&Case {
            verb: &["rotate", "ca", "life"],
            step: "restart m2",
            blow: Killed,
            on: 2,
            exit: 20,
            says: &[
                "1 of 3",
                "member m2: start",
                "ssh://infra2.example.com is lost",
            ],
        });
    });
}

#[test]
fn what_restarts_nobody_loses_a_machine_and_is_done_again() {
    let broken = Broken::up(INCLUDED);
    broken.under_load(|| {
        broken.breaks(&Case {
            verb: &["rotate", "certs", "life"],
            step: "install ",
            blow: Killed,
            on: 1,
            exit: 20,
            says: &["member m1: install", "ssh://infra1.example.com is lost"],
        });
        broken.breaks(&Case {
            verb: &["move-leader", "life", "--to", "m1"],
            step: "move leadership from m0 to m1",
            blow: Killed,
            on: 0,
            exit: 20,
            says: &["member m0: ", "ssh://infra0.example.com is lost"],
        });
        a_backup_loses_the_machine_that_it_comes_from(&broken);
    });
}

// No step of a backup is in the journal: what a machine sends tells that it is in the middle.
fn a_backup_loses_the_machine_that_it_comes_from(broken: &Broken) {
    let place = &broken.outside.place;
    let fill = "head -c 700000 /dev/urandom | base64 -w 0 > \"$0\"; \
        for i in $(seq 40); do etcdctl put big/$i < \"$0\" || exit 1; done";
    let value = place.0.path().join("value").display().to_string();
    broken.outside.inside(&["sh", "-c", fill, &value]).expect(0);
    let sent = || {
        let text = place.inside(&["cat", "/proc/net/dev"]).expect(0).stdout;
        let of = |machine: usize| {
            let of = format!("infra{machine}:");
            let line = text.lines().find_map(|line| line.trim().strip_prefix(&of));
            let first = line.unwrap().split_whitespace().next().unwrap();
            first.parse::<u64>().unwrap()
        };
        [0, 1, 2].map(of)
    };
    // Much more than anything else that a machine sends meanwhile, and much less than all of it.
    let much = 4_000_000;
    let before = sent();
    let from = || {
        sent()
            .iter()
            .zip(before)
            .position(|(now, before)| now - before > much)
    };
    let mut machine = 0;
    let backup = ["backup", "--timeout", "50s", "life"];
    let done = broken.frozen(
        &backup,
        || from().is_some(),
        || {
            machine = from().unwrap();
            broken.hit(Killed, machine);
        },
    );
    println!("backup: {}", done.stderr);
    done.expect(20).says(&[
        &format!("member m{machine}: take a snapshot"),
        &format!("ssh://infra{machine}.example.com is lost"),
        "fix: ",
    ]);
    let backups = place.0.state().join("backups/life");
    assert_eq!(
        fs::read_dir(&backups).unwrap().count(),
        0,
        "half a backup is left"
    );
    // Another member has all of it as well.
    place.0.provision(&backup).expect(0);
    broken.mend(Killed, machine);
    broken.outside.verb(&["backup", "--verify", "life"]);
}

#[test]
fn members_that_come_and_go_lose_a_machine_and_are_finished_by_the_next() {
    let broken = Broken::up(INCLUDED);
    let file = broken.file();
    let adopt = |machine: usize| {
        let from = "cat /var/lib/provision/clusters/life/state/*.{json,toml}";
        broken
            .outside
            .place
            .on(&name(machine), &format!("bash -c '{from}'"))
            .expect(0)
            .stdout
    };
    broken.under_load(|| {
        broken.outside.want(&[0, 1, 2, 3]);
        broken.breaks(&Case {
            verb: &["up", file],
            step: "promote m3",
            blow: Killed,
            on: 3,
            exit: 20,
            says: &[
                "member m3: promote it to a voter",
                "ssh://infra3.example.com is lost",
            ],
        });
        broken.outside.want(&[0, 1, 2]);
        broken.breaks(&Case {
            verb: &["up", file],
            step: "remove m3",
            blow: Killed,
            on: 3,
            exit: 20,
            says: &["member m3: ", "ssh://infra3.example.com is lost"],
        });
        let with = [
            "--with",
            "ssh://infra4.example.com",
            "--address",
            "10.0.1.14",
        ];
        broken.breaks(&Case {
            verb: &[&["replace", file, "m1"], &with[..]].concat(),
            step: "start m1",
            blow: Killed,
            on: 4,
            exit: 20,
            says: &["member m1: start", "ssh://infra4.example.com is lost"],
        });
        // The cluster grows although one of the others is lost, whose copy of the state is then older until the next run.
        broken.outside.want(&[0, 4, 2, 3]);
        broken.breaks(&Case {
            verb: &["up", file],
            step: "add m3",
            blow: Killed,
            on: 2,
            exit: 20,
            says: &[
                "m3  votes",
                "member m2: keep a copy of the state",
                "ssh://infra2.example.com is lost",
            ],
        });
        assert_eq!(adopt(2), adopt(0));
    });
}

#[test]
fn verbs_go_on_once_a_machine_that_was_cut_off_is_back() {
    let broken = Broken::up(ETCD);
    let file = broken.file();
    broken.under_load(|| {
        broken.breaks(&Case {
            verb: &["restart", "life"],
            step: "restart m1",
            blow: CutOff,
            on: 1,
            exit: 7,
            says: &[
                "member m1: wait until it is ready on ssh://infra1.example.com, last seen: ",
                "took longer than 15s",
            ],
        });
        broken.outside.want(&[0, 1, 2, 3]);
        broken.breaks(&Case {
            verb: &["up", file],
            step: "start m3",
            blow: CutOff,
            on: 3,
            // It gives up by itself.
            exit: 1,
            says: &[
                "member m3: start on ssh://infra3.example.com",
                "the process died at its start",
                "could not retrieve cluster information",
                "all of its log is in `provision logs life m3`",
            ],
        });
        broken.breaks(&Case {
            verb: &["upgrade", "--binary", NEW, file],
            step: "restart m1",
            blow: Unplugged,
            on: 1,
            exit: 20,
            says: &["member m1: start", "ssh://infra1.example.com is lost"],
        });
    });
}
