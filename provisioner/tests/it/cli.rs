//! The verbs that touch nothing, through the program itself.

use std::path::Path;
use std::process::Output;

use assert_cmd::Command;
use serde_json::Value;

fn provision(state: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_provision"));
    command
        .env_remove("PROVISION_STATE_DIR")
        .env("XDG_STATE_HOME", state)
        .env("NO_COLOR", "1")
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    command
}

struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

fn run(args: &[&str], stdin: &str) -> Ran {
    let state = tempfile::tempdir().unwrap();
    let Output {
        status,
        stdout,
        stderr,
    } = provision(state.path())
        .args(args)
        .write_stdin(stdin)
        .output()
        .unwrap();
    assert_eq!(
        std::fs::read_dir(state.path()).unwrap().count(),
        0,
        "{args:?} touched the state"
    );
    Ran {
        code: status.code().unwrap(),
        stdout: String::from_utf8(stdout).unwrap(),
        stderr: String::from_utf8(stderr).unwrap(),
    }
}

#[test]
fn validate_reports_on_stdout_and_explains_on_stderr() {
    let good = run(&["validate", "topologies/three-node-tls.toml"], "");
    assert_eq!((good.code, good.stderr.as_str()), (0, ""));
    assert!(
        good.stdout.contains("three-node-tls") && good.stdout.contains("valid"),
        "{}",
        good.stdout
    );

    let bad = run(
        &["validate", "-"],
        "name = \"a\"\n[[member]]\nnane = \"m\"\n",
    );
    assert_eq!(bad.code, 2);
    assert!(
        bad.stderr.contains("did you mean `name`?") && bad.stderr.contains("standard input:3:1"),
        "{}",
        bad.stderr
    );
}

#[test]
fn validate_can_fail_on_warnings() {
    let text = "name = \"a\"\n[[member]]\nname = \"m{0..1}\"\n";
    let lenient = run(&["validate", "-"], text);
    assert_eq!(lenient.code, 0);
    assert!(
        lenient.stderr.contains("even-members"),
        "{}",
        lenient.stderr
    );
    assert_eq!(run(&["validate", "--deny-warnings", "-"], text).code, 2);
    assert_eq!(run(&["-q", "validate", "-"], text).stderr, "");
}

#[test]
fn validate_has_a_machine_form_with_places() {
    let bad = run(
        &["validate", "-o", "json", "-"],
        "name = \"a\"\n[[member]]\nname = \"m\"\naddress = \"10.0.0.256\"\n",
    );
    let report: Value = serde_json::from_str(&bad.stdout).unwrap();
    assert_eq!(report["schema_version"], 1);
    assert_eq!(report["files"][0]["valid"], false);
    assert_eq!(
        (
            &report["files"][0]["problems"][0]["line"],
            &report["files"][0]["problems"][0]["column"]
        ),
        (&4.into(), &11.into())
    );
    let error: Value = serde_json::from_str(&bad.stderr).unwrap();
    assert_eq!(error["error"]["code"], 2);
    assert_eq!(error["error"]["kind"], "topology");
}

#[test]
fn a_missing_file_says_what_to_do() {
    let ran = run(&["validate", "none.toml"], "");
    assert_eq!(ran.code, 2);
    assert!(
        ran.stderr
            .starts_with("error: cannot read the topology none.toml\n  because: No such file"),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("provision init"), "{}", ran.stderr);
}

#[test]
fn render_needs_no_cluster_and_is_the_same_each_time() {
    for format in ["flags", "env", "yaml"] {
        let args = ["render", "--format", format, "topologies/mixed-flags.toml"];
        let (first, second) = (run(&args, ""), run(&args, ""));
        assert_eq!((first.code, first.stderr.as_str()), (0, ""), "{format}");
        assert_eq!(first.stdout, second.stdout);
        assert!(
            first.stdout.contains("infra2") && first.stdout.contains("12381"),
            "{}",
            first.stdout
        );
    }
}

#[test]
fn one_rendered_member_is_a_file_that_etcds_reader_takes() {
    let ran = run(
        &[
            "render",
            "--format",
            "yaml",
            "--member",
            "infra1",
            "topologies/three-node-tls.toml",
        ],
        "",
    );
    let yaml: Value = serde_yaml_ng::from_str(&ran.stdout).unwrap();
    assert_eq!(yaml["name"], "infra1");
    assert_eq!(yaml["client-transport-security"]["client-cert-auth"], true);
    let unknown = run(
        &[
            "render",
            "--member",
            "infra9",
            "topologies/three-node-tls.toml",
        ],
        "",
    );
    assert_eq!(unknown.code, 2);
    assert!(
        unknown.stderr.contains("has no member infra9")
            && unknown.stderr.contains("infra0, infra1, infra2"),
        "{}",
        unknown.stderr
    );
}

#[test]
fn render_takes_the_environment_of_the_process() {
    let state = tempfile::tempdir().unwrap();
    let output = provision(state.path())
        .args(["render", "-o", "json", "topologies/mixed-flags.toml"])
        .env("SNAPSHOT_COUNT", "777")
        .output()
        .unwrap();
    let rendered: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(rendered["placeholder"], true);
    let args: Vec<&str> = rendered["members"][0]["args"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .collect();
    assert!(args.contains(&"--snapshot-count=777"), "{args:?}");
}

#[test]
fn init_writes_a_valid_topology_and_never_over_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cluster.toml");
    let path = file.to_str().unwrap();
    assert_eq!(
        run(&["init", "--template", "five-node-tls", path], "").code,
        0
    );
    assert_eq!(run(&["validate", "--deny-warnings", path], "").code, 0);
    let again = run(&["init", path], "");
    assert_eq!(again.code, 6);
    assert!(again.stderr.contains("exists already"), "{}", again.stderr);
    assert!(
        std::fs::read_to_string(&file)
            .unwrap()
            .contains("five-node-tls")
    );
    let printed = run(&["init", "--template", "single-node", "-"], "");
    assert_eq!(run(&["validate", "-"], &printed.stdout).code, 0);
}

#[test]
fn generated_texts_name_every_verb() {
    let man = run(&["man"], "").stdout;
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            run(&["completions", shell], "").stdout.contains("validate"),
            "{shell}"
        );
    }
    for verb in [
        "init",
        "validate",
        "render",
        "schema",
        "plan",
        "up",
        "status",
        "env",
        "list",
        "logs",
        "exec",
        "run",
        "down",
        "bench",
        "completions",
        "man",
    ] {
        assert!(
            man.contains(&format!(".SH {}\n", verb.to_uppercase())),
            "{verb}"
        );
        let help = run(&[verb, "--help"], "");
        assert_eq!(help.code, 0, "{verb}");
    }
}

#[test]
fn wrong_usage_is_two_and_names_the_near_verb() {
    let ran = run(&["vaildate", "x"], "");
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("validate"), "{}", ran.stderr);
    assert_eq!(run(&["up"], "").code, 2);
}

#[test]
fn the_schema_is_json() {
    let schema: Value = serde_json::from_str(&run(&["schema"], "").stdout).unwrap();
    assert_eq!(schema["title"], "provision topology");
    assert_eq!(schema["additionalProperties"], false);
}
