//! What was acknowledged survives kill -9 and restarts: the included member over the shipped topology, through the command line,
//! with writers at work all the while and every acknowledged write read back afterwards.

#![expect(
    clippy::print_stdout,
    reason = "what a run saw belongs in the test's output"
)]

use std::fs;
use std::path::Path;

use serde_json::Value;
use testbed::check::judge;
use testbed::check::read_back::read_back;
use testbed::traffic::writer::{Running, Writers};
use testbed::traffic::{Target, Tls};
use tokio::runtime::Runtime;

use crate::sandbox::{Done, PATIENCE, Sandbox, is_running, kill, wait_until};

const CLUSTER: &str = "three-node-tls";
const MEMBERS: [&str; 3] = ["infra0", "infra1", "infra2"];
/// Acknowledged writes between two faults: more than any pipeline between client and disk holds.
const SOME: u64 = 200;

#[test]
fn kill_of_each_member_in_turn_loses_no_acknowledged_write() {
    let cluster = Cluster::up("");
    let mut writers = cluster.write();
    for member in MEMBERS {
        writers.acknowledge(SOME);
        cluster.kill(&[member]);
        // The others go on, so that the member comes back to a log that has grown.
        writers.acknowledge(SOME);
        cluster.up_again(&[member]);
        writers.acknowledge(SOME);
        // And once more, to come back while it is being missed.
        cluster.kill(&[member]);
        cluster.up_again(&[member]);
    }
    writers.acknowledge(SOME);
    let refused = writers.judge();
    assert!(refused > 0, "some write must have met a dead member");
}

#[test]
fn kill_of_all_members_at_once_loses_no_acknowledged_write() {
    let cluster = Cluster::up("");
    let mut writers = cluster.write();
    for _ in 0..3 {
        writers.acknowledge(SOME);
        cluster.kill(&MEMBERS);
        cluster.provision(&["status", CLUSTER]).expect(5);
        cluster.up_again(&MEMBERS);
    }
    writers.acknowledge(SOME);
    let refused = writers.judge();
    assert!(refused > 0, "some write must have met a dead cluster");
}

#[test]
fn a_member_that_missed_more_than_the_log_keeps_comes_back_and_survives_another_kill() {
    let cluster = Cluster::up("snapshot-count = 200\nsnapshot-catchup-entries = 50\n");
    let mut writers = cluster.write();
    for member in MEMBERS {
        cluster.kill(&[member]);
        // Several snapshots further, so that the entries it needs are purged everywhere.
        writers.acknowledge(1_000);
        cluster.up_again(&[member]);
        let log = cluster.provision(&["logs", "-n", "100000", CLUSTER, member]);
        assert!(
            log.expect(0).stdout.contains("received a snapshot"),
            "{member} was to need a snapshot"
        );
        cluster.kill(&[member]);
        cluster.up_again(&[member]);
    }
    writers.acknowledge(SOME);
    writers.judge();
}

#[test]
fn a_changed_flag_rolls_through_one_member_at_a_time_and_loses_no_acknowledged_write() {
    let cluster = Cluster::up("");
    let mut writers = cluster.write();
    for heartbeat in ["90", "80"] {
        writers.acknowledge(SOME);
        let leader = cluster.leader();
        cluster.set(&format!("heartbeat-interval = {heartbeat}\n"));
        cluster
            .provision(&["plan", "--detailed-exitcode", &cluster.file])
            .expect(2);

        let mut up = cluster
            .sandbox
            .spawn(&["up", &cluster.file, "-o", "json", "-q"]);
        let mut most_down = 0;
        wait_until("the rolling restart ends", || {
            most_down = most_down.max(cluster.down());
            up.try_wait().unwrap().is_some()
        });
        let up = Done::from(up.wait_with_output().unwrap()).expect(0).json();
        assert_eq!(most_down, 1, "members that were down together");
        let restarted = restarts(&up);
        assert_eq!(restarted.len(), MEMBERS.len(), "{up}");
        assert_eq!(*restarted.last().unwrap(), leader, "the leader goes last");

        for member in MEMBERS {
            let pid = cluster.sandbox.pid(CLUSTER, member).unwrap();
            let argv = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
            let flag = format!("--heartbeat-interval={heartbeat}\0");
            assert!(argv.contains(&flag), "{argv}");
        }
        cluster.expect_no_change();
    }
    writers.acknowledge(SOME);
    writers.judge();
}

fn restarts(up: &Value) -> Vec<&str> {
    let steps = up["steps"]["steps"].as_array().unwrap().iter();
    steps
        .filter(|step| step["step"] == "restart")
        .map(|step| step["member"].as_str().unwrap())
        .collect()
}

/// The shipped three members with mutual TLS.
struct Cluster {
    sandbox: Sandbox,
    file: String,
}

impl Cluster {
    fn up(defaults: &str) -> Self {
        let sandbox = Sandbox::new();
        let file = sandbox.path().join(format!("{CLUSTER}.toml"));
        let cluster = Self {
            sandbox,
            file: file.display().to_string(),
        };
        cluster.set(defaults);
        cluster.provision(&["up", &cluster.file]).expect(0);
        cluster
    }

    /// Makes the topology the shipped one with these flags of every member.
    fn set(&self, defaults: &str) {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../topologies");
        let shipped = fs::read_to_string(shipped.join(format!("{CLUSTER}.toml"))).unwrap();
        fs::write(&self.file, format!("{shipped}\n[defaults]\n{defaults}")).unwrap();
    }

    fn provision(&self, args: &[&str]) -> Done {
        self.sandbox.provision(args)
    }

    /// Kills members together and returns when they are dead. What they had handed to the kernel stays: this is no power cut.
    fn kill(&self, members: &[&str]) {
        let pids: Vec<i32> = members
            .iter()
            .map(|member| self.sandbox.pid(CLUSTER, member).unwrap())
            .collect();
        pids.iter().for_each(|pid| kill(*pid, 9));
        wait_until("the killed members are dead", || {
            !pids.iter().any(|pid| is_running(*pid))
        });
    }

    /// Runs `up`, which must start exactly these members and leave nothing to do.
    #[track_caller]
    fn up_again(&self, members: &[&str]) {
        let up = self.provision(&["up", &self.file, "-o", "json"]).expect(0);
        let steps = &up.json()["steps"]["steps"];
        assert_eq!(steps[0]["step"], "start", "{}", up.stdout);
        assert_eq!(
            steps[0]["members"],
            serde_json::json!(members),
            "{}",
            up.stdout
        );
        self.expect_no_change();
    }

    #[track_caller]
    fn expect_no_change(&self) {
        self.provision(&["plan", "--detailed-exitcode", &self.file])
            .expect(0);
    }

    fn leader(&self) -> String {
        let status = self.sandbox.status(CLUSTER);
        let mut members = status["members"].as_array().unwrap().iter();
        let leader = members.find(|member| member["leader"] == true).unwrap();
        leader["name"].as_str().unwrap().to_owned()
    }

    /// How many members are down at one moment.
    fn down(&self) -> usize {
        let running = || {
            MEMBERS.map(|member| {
                self.sandbox
                    .pid(CLUSTER, member)
                    .filter(|pid| is_running(*pid))
            })
        };
        // Members are looked at one after the other; only what is seen twice held for all of them at once.
        loop {
            let (first, second) = (running(), running());
            if first == second {
                return first.iter().filter(|pid| pid.is_none()).count();
            }
        }
    }

    /// Starts writers through all endpoints.
    fn write(&self) -> Writing<'_> {
        let env = self
            .provision(&["env", CLUSTER, "-o", "json"])
            .expect(0)
            .json();
        let text = |name: &str| env[name].as_str().unwrap().to_owned();
        let endpoints = text("ETCDCTL_ENDPOINTS");
        let plan = Writers {
            target: Target {
                endpoints: endpoints.split(',').map(str::to_owned).collect(),
                tls: Some(Tls {
                    ca: text("ETCDCTL_CACERT").into(),
                    identity: Some((text("ETCDCTL_CERT").into(), text("ETCDCTL_KEY").into())),
                }),
            },
            prefix: "writers/".to_owned(),
            writers: 6,
            keys_each: 3,
            read_every: 4,
            request_timeout: PATIENCE / 12,
            pause: std::time::Duration::from_millis(2),
            // Ended by the test; the bounds are for a test that hangs.
            operations_each: 1_000_000,
            time: PATIENCE * 10,
        };
        let runtime = Runtime::new().unwrap();
        let running = {
            let _entered = runtime.enter();
            plan.start().unwrap()
        };
        Writing {
            cluster: self,
            runtime,
            plan,
            running: Some(running),
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // The sandbox takes its files along; what failed is in the members' logs.
        if std::thread::panicking() {
            for args in [&["status", CLUSTER][..], &["logs", "-n", "200", CLUSTER]] {
                let Done { stdout, stderr, .. } = self.provision(args);
                println!("{stdout}{stderr}");
            }
        }
    }
}

/// Writers at work.
struct Writing<'a> {
    cluster: &'a Cluster,
    runtime: Runtime,
    plan: Writers,
    running: Option<Running>,
}

impl Writing<'_> {
    /// Waits until so many more writes are acknowledged.
    #[track_caller]
    fn acknowledge(&mut self, more: u64) {
        let running = self.running.as_mut().unwrap();
        let done = self
            .runtime
            .block_on(running.until_acknowledged(more, PATIENCE));
        done.unwrap();
    }

    /// Stops the writers and judges what they saw; returns how many writes were refused.
    #[track_caller]
    fn judge(mut self) -> usize {
        let running = self.running.take().unwrap();
        let history = self.runtime.block_on(running.stop()).unwrap();
        let (acknowledged, refused, unknown) = history.counts();
        let gap = history.longest_gap();
        println!("{acknowledged} acknowledged, {refused} refused, {unknown} unknown, gap {gap:?}");
        let Writers { target, prefix, .. } = &self.plan;
        let back = self
            .runtime
            .block_on(read_back(target, prefix, &history, PATIENCE))
            .unwrap();
        assert_eq!(back.latest.len(), MEMBERS.len());
        assert_eq!(judge(&history, &back), []);
        self.cluster.provision(&["status", CLUSTER]).expect(0);
        self.cluster.expect_no_change();
        refused
    }
}
