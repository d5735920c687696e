//! A cluster on this machine with writers at work, for tests of the verbs that change it.

#![expect(
    clippy::print_stdout,
    reason = "what a run saw belongs in the test's output"
)]

use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::Value;
use testbed::check::judge;
use testbed::check::read_back::read_back;
use testbed::traffic::writer::{Running, Writers};
use testbed::traffic::{Target, Tls};
use tokio::runtime::Runtime;

use crate::sandbox::{Done, PATIENCE, Sandbox, Server, is_running, kill, wait_until};

pub(crate) const CLUSTER: &str = "demo";

pub(crate) struct Cluster {
    pub(crate) sandbox: Sandbox,
    pub(crate) file: String,
    pub(crate) server: Server,
    pub(crate) tls: bool,
}

impl Cluster {
    pub(crate) fn new(server: Server, tls: bool) -> Self {
        let sandbox = Sandbox::new();
        let file = sandbox.path().join("demo.toml").display().to_string();
        Self {
            sandbox,
            file,
            server,
            tls,
        }
    }

    pub(crate) fn up(server: Server, tls: bool, members: &[&str]) -> Self {
        let cluster = Self::new(server, tls);
        cluster.want(members);
        cluster.sandbox.provision(&["up", &cluster.file]).expect(0);
        cluster
    }

    /// Writes the file anew: these members, those with `:learner` after their names as learners.
    pub(crate) fn want(&self, members: &[&str]) {
        let tls = if self.tls { "mutual" } else { "off" };
        let mut text =
            format!("name = \"{CLUSTER}\"\n[tls]\npeer = \"{tls}\"\nclient = \"{tls}\"\n");
        for member in members {
            let (name, role) = member.split_once(':').unwrap_or((member, "voter"));
            let binary = self.server.binary;
            text.push_str(&format!(
                "[[member]]\nname = \"{name}\"\nrole = \"{role}\"\n{binary}\n"
            ));
        }
        fs::write(&self.file, text).unwrap();
    }

    /// Runs `up`, after which there is nothing to do.
    #[track_caller]
    pub(crate) fn apply(&self) -> Value {
        let up = self.sandbox.provision(&["up", &self.file, "-o", "json"]);
        let up = up.expect(0).json();
        self.expect_no_change();
        up
    }

    #[track_caller]
    pub(crate) fn expect_no_change(&self) {
        for target in [self.file.as_str(), CLUSTER] {
            self.sandbox
                .provision(&["plan", "--detailed-exitcode", target])
                .expect(0);
        }
    }

    pub(crate) fn listed(&self) -> Vec<Value> {
        let listed = self
            .sandbox
            .etcdctl(CLUSTER, &["member", "list", "-w", "json"]);
        let listed = listed.expect(0).json();
        listed["members"].as_array().unwrap().clone()
    }

    /// The cluster has these voters and no other members.
    #[track_caller]
    pub(crate) fn expect_voters(&self, names: &[&str]) {
        let listed = self.listed();
        assert!(
            listed.iter().all(|member| member["isLearner"] != true),
            "{listed:?}"
        );
        let mut found: Vec<&str> = listed
            .iter()
            .map(|member| member["name"].as_str().unwrap())
            .collect();
        found.sort_unstable();
        let mut names = names.to_vec();
        names.sort_unstable();
        assert_eq!(found, names);
    }

    pub(crate) fn member(&self, name: &str) -> Value {
        let status = self.sandbox.status(CLUSTER);
        let mut members = status["members"].as_array().unwrap().iter();
        members
            .find(|member| member["name"] == name)
            .unwrap()
            .clone()
    }

    pub(crate) fn id(&self, name: &str) -> String {
        self.member(name)["id"].as_str().unwrap().to_owned()
    }

    pub(crate) fn leader(&self) -> String {
        let status = self.sandbox.status(CLUSTER);
        let mut members = status["members"].as_array().unwrap().iter();
        let leader = members.find(|member| member["leader"] == true).unwrap();
        leader["name"].as_str().unwrap().to_owned()
    }

    pub(crate) fn pids(&self, names: &[&str]) -> Vec<i32> {
        let pid = |name: &&str| self.sandbox.pid(CLUSTER, name).unwrap();
        names.iter().map(pid).collect()
    }

    pub(crate) fn kill(&self, name: &str) {
        let pid = self.sandbox.pid(CLUSTER, name).unwrap();
        kill(pid, 9);
        wait_until("the killed member is dead", || !is_running(pid));
    }

    pub(crate) fn target(&self) -> Target {
        let env = self.sandbox.provision(&["env", CLUSTER, "-o", "json"]);
        let env = env.expect(0).json();
        let text = |name: &str| env[name].as_str().unwrap().to_owned();
        Target {
            endpoints: text("ETCDCTL_ENDPOINTS")
                .split(',')
                .map(str::to_owned)
                .collect(),
            tls: env.get("ETCDCTL_CACERT").map(|ca| Tls {
                ca: ca.as_str().unwrap().into(),
                identity: Some((text("ETCDCTL_CERT").into(), text("ETCDCTL_KEY").into())),
            }),
        }
    }

    /// Starts writers, which read as well, through all endpoints of now.
    pub(crate) fn write(&self) -> Writing<'_> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        // What others wrote before must not be taken for theirs.
        let prefix = format!("writers-{}/", NUMBER.fetch_add(1, Ordering::Relaxed));
        let plan = Writers {
            target: self.target(),
            prefix: prefix.clone(),
            writers: 4,
            keys_each: 3,
            read_every: 4,
            request_timeout: PATIENCE / 12,
            pause: Duration::from_millis(5),
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
            prefix,
            runtime,
            running: Some(running),
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // The sandbox takes its files along; what failed is in the members' logs.
        if std::thread::panicking() {
            for args in [&["status", CLUSTER][..], &["logs", "-n", "60", CLUSTER]] {
                let Done { stdout, stderr, .. } = self.sandbox.provision(args);
                println!("{stdout}{stderr}");
            }
        }
    }
}

/// Writers at work.
pub(crate) struct Writing<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) prefix: String,
    pub(crate) runtime: Runtime,
    pub(crate) running: Option<Running>,
}

impl Writing<'_> {
    /// Waits until so many more writes are acknowledged.
    #[track_caller]
    pub(crate) fn acknowledge(&mut self, more: u64) {
        let running = self.running.as_mut().unwrap();
        let done = running.until_acknowledged(more, PATIENCE);
        self.runtime.block_on(done).unwrap();
    }

    /// Stops the writers and holds what they saw against what the members of now have.
    #[track_caller]
    pub(crate) fn judge(mut self) {
        let running = self.running.take().unwrap();
        let history = self.runtime.block_on(running.stop()).unwrap();
        let (acknowledged, refused, unknown) = history.counts();
        let gap = history.longest_gap();
        println!("{acknowledged} acknowledged, {refused} refused, {unknown} unknown, gap {gap:?}");
        let target = self.cluster.target();
        let back = read_back(&target, &self.prefix, &history, PATIENCE);
        let back = self.runtime.block_on(back).unwrap();
        assert_eq!(back.latest.len(), target.endpoints.len());
        assert_eq!(judge(&history, &back), []);
        self.cluster
            .sandbox
            .provision(&["status", CLUSTER])
            .expect(0);
        self.cluster.expect_no_change();
    }
}

pub(crate) fn steps(up: &Value) -> &Vec<Value> {
    up["steps"]["steps"].as_array().unwrap()
}

pub(crate) fn kinds(up: &Value) -> Vec<&str> {
    let steps = steps(up).iter();
    steps.map(|step| step["step"].as_str().unwrap()).collect()
}
