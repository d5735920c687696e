//! `provision test`: its list, its reports, what it makes of broken servers, and both suites against the member and real etcds.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::sandbox::{Done, Sandbox, finish, kill, pids_in, wait_until};

const ETCD_3_4: &str = "/usr/bin/etcd";
const ETCD_3_5: &str = "/usr/local/lib/etcd-3.5.1/etcd";

fn outcomes(done: &Done) -> Vec<Value> {
    done.json()["scenarios"].as_array().unwrap().clone()
}

#[test]
fn the_list_says_everything_and_runs_nothing() {
    let sandbox = Sandbox::new();
    let list = sandbox.provision(&["test", "--list", "--full", "-o", "json"]);
    let all = outcomes(&list.expect(0));
    assert!(all.len() > 200, "{}", all.len());
    for scenario in &all {
        for field in ["id", "suite", "source", "checks"] {
            assert!(
                scenario[field]
                    .as_str()
                    .is_some_and(|text| !text.is_empty()),
                "{field}: {scenario}"
            );
        }
        assert!(scenario["limit_seconds"].as_u64().unwrap() > 0);
    }
    let default = sandbox.provision(&["test", "--list", "-o", "json"]);
    let default = outcomes(&default.expect(0));
    let covering = all.iter().filter(|scenario| scenario["covering"] == true);
    assert_eq!(default.len(), covering.count());
    assert!(default.len() < all.len());
    let one = sandbox.provision(&["test", "--list", "--suite", "bootstrap-errors"]);
    assert!(!one.expect(0).stdout.contains("static-flags/"));
    assert!(!sandbox.state().exists());
}

#[test]
fn a_filter_that_matches_nothing_is_wrong_usage() {
    let sandbox = Sandbox::new();
    sandbox
        .provision(&["test", "--filter", "nothing-like-it"])
        .expect(2)
        .says(&["no scenario matches", "--list"]);
    sandbox
        .provision(&["test", "--filter", "discovery/service-hangs"])
        .expect(2)
        .says(&["add --full"]);
}

#[test]
fn the_junit_file_is_xml_with_a_case_for_each_scenario() {
    let sandbox = Sandbox::new();
    let path = sandbox.path().join("junit.xml");
    let file = path.to_str().unwrap();
    let args = [
        "test",
        "--filter",
        "start/bad-",
        "--junit",
        file,
        "-o",
        "jsonl",
    ];
    let done = sandbox.provision(&args).expect(0);
    let lines = done.stdout.lines().count();
    assert!(lines >= 3, "{}", done.stdout);
    // Python's parser is the judge.
    let script = "import sys, xml.etree.ElementTree as e; print(len(list(e.parse(sys.argv[1]).iter('testcase'))))";
    let parsed = Command::new("python3").args(["-c", script, file]).output();
    let parsed = parsed.unwrap();
    assert_eq!(
        String::from_utf8_lossy(&parsed.stdout).trim(),
        lines.to_string(),
        "{}",
        String::from_utf8_lossy(&parsed.stderr)
    );
}

/// A scenario of each kind.
const KINDS: [&str; 4] = [
    "static-flags/auto/3/ip",
    "start/client-port-in-use",
    "path/second-start",
    "tls/client-expired",
];

#[test]
fn a_server_that_does_nothing_passes_nothing() {
    let sandbox = Sandbox::new();
    sandbox.fake_etcd("exit 0");
    let binary = sandbox.path().join("etcd").display().to_string();
    for kind in KINDS {
        let args = [
            "test",
            "--full",
            "--filter",
            kind,
            "--binary",
            &binary,
            "--timeout",
            "5s",
            "-o",
            "json",
        ];
        let done = sandbox.provision(&args).expect(10);
        let outcomes = outcomes(&done);
        assert!(!outcomes.is_empty());
        for outcome in outcomes {
            assert_eq!(outcome["verdict"], "failed", "{outcome}");
            let failure = &outcome["failure"];
            assert!(
                failure["again"]
                    .as_str()
                    .is_some_and(|again| again.contains(kind) && again.contains(&binary)),
                "{failure}"
            );
        }
        let done = done.says(&["step:", "expected:", "got:", "again:"]);
        let passed = |line: &str| line.starts_with('✓');
        assert!(!done.stderr.lines().any(passed), "{}", done.stderr);
    }
}

#[test]
fn a_server_that_lies_about_one_thing_is_found_out() {
    let sandbox = Sandbox::new();
    // etcd as it is, but for a token that it takes for itself.
    sandbox.fake_etcd(&format!(
        "exec {ETCD_3_4} \"$@\" --initial-cluster-token=mine"
    ));
    let binary = sandbox.path().join("etcd").display().to_string();
    let args = [
        "test",
        "--full",
        "--filter",
        "static-flags/http/1/ip",
        "--binary",
        &binary,
    ];
    sandbox
        .provision(&args)
        .expect(10)
        .says(&["member and cluster IDs", "static-flags/http/1/ip"]);
}

#[test]
fn what_is_no_server_is_not_tested() {
    let sandbox = Sandbox::new();
    for (binary, says) in [
        ("/bin/true", "neither etcd nor member"),
        ("/nowhere/etcd", "looked at /nowhere/etcd"),
    ] {
        sandbox
            .provision(&["test", "--binary", binary])
            .expect(11)
            .says(&[says]);
    }
}

#[test]
fn nothing_checked_is_not_passed() {
    let sandbox = Sandbox::new();
    let args = ["test", "--full", "--filter", "dns-srv/http/1/name"];
    sandbox
        .provision(&[&args[..], &["--binary", ETCD_3_4]].concat())
        .expect(11)
        .says(&["every scenario was skipped: etcd 3.4 ends when there are no"]);
}

#[test]
fn an_interrupted_run_leaves_nothing_but_what_it_found_out() {
    let sandbox = Sandbox::new();
    let temporary = sandbox.path().join("tmp");
    fs::create_dir(&temporary).unwrap();
    let junit = sandbox.path().join("junit.xml");
    let mut child = sandbox
        .command(&[
            "test",
            "--full",
            "--filter",
            "static-flags/http",
            "--jobs=1",
        ])
        .arg("--junit")
        .arg(&junit)
        .env("TMPDIR", &temporary)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let members = |dir: &Path| {
        let stages = fs::read_dir(dir).unwrap().flatten();
        stages
            .filter(|stage| stage.path().join("state/clusters/cell/members").exists())
            .count()
    };
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    let first = said.next().unwrap().unwrap();
    let first = first.strip_prefix("✓ ").unwrap().split(' ').next().unwrap();
    wait_until("a second cluster comes up", || members(&temporary) > 0);
    kill(i32::try_from(child.id()).unwrap(), 2);
    finish(child).expect(130);
    let junit = fs::read_to_string(&junit).unwrap();
    let passed = |case: &&str| case.contains("<testcase") && case.ends_with("/>");
    let passed: Vec<&str> = junit.lines().filter(passed).collect();
    assert!(
        passed.len() == 1 && passed[0].contains(&format!("name=\"{first}\"")),
        "{junit}"
    );
    assert!(
        junit.contains("<skipped message=\"interrupted\"/>"),
        "{junit}"
    );
    assert!(junit.contains("failures=\"0\" errors=\"0\""), "{junit}");
    assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0);
    assert_eq!(pids_in(&temporary), Vec::<i32>::new());
}

/// Nothing may fail, at least so many pass, and what is skipped has one of these reasons.
fn passes(more: &[&str], least: usize, skipped: &[&str]) {
    let sandbox = Sandbox::new();
    let args = [&["test", "-o", "json"], more].concat();
    let done = sandbox.provision(&args).expect(0);
    let outcomes = outcomes(&done);
    let passed = outcomes.iter().filter(|one| one["verdict"] == "passed");
    assert!(passed.count() >= least, "{}", done.stdout);
    for outcome in &outcomes {
        let reason = outcome["reason"].as_str().unwrap_or_default();
        assert!(
            outcome["verdict"] == "passed"
                || skipped.iter().any(|allowed| reason.contains(allowed)),
            "{outcome}"
        );
    }
}

#[test]
fn the_member_passes_both_suites() {
    passes(&[], 100, &[]);
}

#[test]
fn etcd_3_4_passes_both_suites() {
    passes(&["--binary", ETCD_3_4], 90, ETCD_SKIPS);
}

#[test]
fn etcd_3_5_passes_what_3_4_does_not_have_and_the_errors() {
    let binary = ["--binary", ETCD_3_5];
    let plain_records = ["--suite", "bootstrap", "--filter", "dns-srv/http"];
    passes(&[&binary[..], &plain_records].concat(), 1, ETCD_SKIPS);
    let errors = ["--suite", "bootstrap-errors"];
    passes(&[&binary[..], &errors].concat(), 60, ETCD_SKIPS);
}

const ETCD_SKIPS: &[&str] = &["the guide", "etcd", "the v2 proxy is not there"];
