//! The same requests against the member and against etcd 3.4, answers compared field by field.
//!
//! `scripts/*.txt` hold the requests of one cluster each, `scripts/*.golden` what etcd answered, and
//! `differences.txt` every step at which the member answers otherwise, with the reason. The test runs both
//! servers: an answer of etcd that is not in the golden file fails it too. After a change of a script,
//! `DIFFERENTIAL_UPDATE=1` writes the golden file from etcd's answers.
//!
//! A line of a script is `Service.Method`, then the request in protobuf's text format. `{repeat N x}` in a string
//! stands for N times x. `@key=value` before the method adds metadata; `$name` stands for what an earlier
//! line kept by `=> field $name` at its end. `NAME = Watch.Watch` opens a stream, `NAME < request` sends to it, `NAME > N` reads N answers. The
//! lines of a script over plain HTTP are those of `http.rs`.

mod http;
mod random;
mod script;

pub(crate) use random::runtime;

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::process::{ETCD, MEMBER, Server};
use script::{Session, Step};

fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/differential")
}

/// Steps at which the member may differ: script and line's text to the member's answers, in their order.
fn differences() -> BTreeMap<(String, String), VecDeque<String>> {
    let text = std::fs::read_to_string(dir().join("differences.txt")).expect("readable");
    let mut known: BTreeMap<_, VecDeque<_>> = BTreeMap::new();
    for block in text.split("\n\n").filter(|block| !block.trim().is_empty()) {
        let mut lines = block.lines().filter(|line| !line.is_empty());
        let reasons = lines
            .by_ref()
            .take_while(|line| line.starts_with('#'))
            .count();
        let mut lines = block.lines().filter(|line| !line.starts_with('#'));
        let Some(head) = lines.next() else { continue };
        assert!(reasons > 0, "a difference without its reason: {head}");
        let (script, step) = head.split_once(": ").expect("script: step");
        let answer = lines.collect::<Vec<_>>().join("\n");
        known
            .entry((script.to_owned(), step.to_owned()))
            .or_default()
            .push_back(answer);
    }
    known
}

fn script_path(name: &str) -> PathBuf {
    dir().join("scripts").join(format!("{name}.txt"))
}

fn script(name: &str) -> String {
    std::fs::read_to_string(script_path(name)).expect("readable")
}

/// What the steps of a script have shown so far.
struct Verdict {
    name: String,
    known: BTreeMap<(String, String), VecDeque<String>>,
    golden: String,
    unexplained: String,
}

impl Verdict {
    fn new(name: &str) -> Self {
        let mut known = differences();
        known.retain(|(script, _), _| script == name);
        Self {
            name: name.to_owned(),
            known,
            golden: String::new(),
            unexplained: String::new(),
        }
    }

    /// One step: the answer of the member, and that of etcd.
    fn step(&mut self, step: &str, found: &str, expected: &str) {
        writeln!(self.golden, "> {step}\n{expected}\n").expect("a string");
        if found == expected {
            return;
        }
        let name = &self.name;
        let listed = self.known.get_mut(&(name.clone(), step.to_owned()));
        match listed.and_then(VecDeque::pop_front) {
            Some(allowed) if allowed.trim() == found.trim() => {}
            _ => {
                writeln!(
                    self.unexplained,
                    "{name}: {step}\n  member: {found}\n  etcd:   {expected}"
                )
                .expect("a string");
            }
        }
    }

    /// Every difference is listed, every listed one was met, and etcd answered what the golden file says.
    fn pass(mut self) {
        let name = &self.name;
        let stored = script_path(name).with_extension("golden");
        if std::env::var_os("DIFFERENTIAL_UPDATE").is_some() {
            std::fs::write(&stored, &self.golden).expect("writable");
        }
        assert!(
            self.unexplained.is_empty(),
            "unexplained:\n{}",
            self.unexplained
        );
        self.known.retain(|_, answers| !answers.is_empty());
        assert!(
            self.known.is_empty(),
            "listed as different, but equal or not asked: {:?}",
            self.known.keys()
        );
        let stored = std::fs::read_to_string(&stored).unwrap_or_default();
        for (line, (found, expected)) in self.golden.lines().zip(stored.lines()).enumerate() {
            assert_eq!(found, expected, "{name}.golden, line {}", line + 1);
        }
        assert_eq!(
            self.golden.lines().count(),
            stored.lines().count(),
            "{name}.golden"
        );
    }
}

/// Runs one script on a fresh pair of servers.
fn compare(name: &str, member_args: &[&str], etcd_args: &[&str]) {
    let (mut member, mut etcd) = (
        Server::single(MEMBER, member_args),
        Server::single(ETCD, etcd_args),
    );
    for server in [&mut member, &mut etcd] {
        server.start();
        server.wait_ready();
    }
    let steps: Vec<Step> = script(name).lines().filter_map(Step::parse).collect();
    let mut verdict = Verdict::new(name);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let mut ours = Session::connect(&member.endpoint()).await;
        let mut theirs = Session::connect(&etcd.endpoint()).await;
        for step in &steps {
            let expected = theirs.run(step).await;
            let found = ours.run(step).await;
            verdict.step(&step.to_string(), &found, &expected);
        }
    });
    verdict.pass();
}

#[test]
fn key_value_answers_equal_etcds() {
    compare("kv", &[], &[]);
}

#[test]
fn lease_answers_equal_etcds() {
    compare("lease", &[], &[]);
}

#[test]
fn watch_answers_equal_etcds() {
    compare("watch", &[], &[]);
}

#[test]
fn maintenance_answers_equal_etcds() {
    compare("maintenance", &[], &[]);
}

#[test]
fn membership_answers_equal_etcds() {
    compare("cluster", &[], &[]);
}

#[test]
fn auth_answers_equal_etcds() {
    // A cheap cost: the script checks many passwords.
    compare("auth", &["--bcrypt-cost=4"], &["--bcrypt-cost=4"]);
}

#[test]
fn v2_answers_equal_etcds() {
    http::compare("v2", &["--enable-v2"]);
}

#[test]
fn lock_and_election_answers_equal_etcds() {
    compare("lock", &[], &[]);
}
