//! Flags from the environment, and what is said about them.

use member_flags::{Origin, Warning};

use crate::run;

#[test]
fn a_variable_counts_when_its_flag_is_not_given() {
    let run = run(
        &[
            "-election-timeout",
            "2000",
            "--pre-vote=false",
            "--strict-reconfig-check",
        ],
        &[
            ("ETCD_NAME", "infra0"),
            ("ETCD_HEARTBEAT_INTERVAL", "0x64"),
            ("ETCDCTL_API", "3"),
            ("PATH", "/bin"),
        ],
    );
    assert_eq!(run.flags.name, "infra0");
    assert_eq!(
        (
            run.flags.heartbeat_interval_ms,
            run.flags.election_timeout_ms,
            run.flags.pre_vote
        ),
        (100, 2000, false)
    );
    assert_eq!(run.warnings, []);
    assert_eq!(run.origins["election-timeout"], Origin::CommandLine);
    assert_eq!(
        run.origins["name"],
        Origin::Environment {
            variable: "ETCD_NAME".to_owned(),
            value: "infra0".to_owned()
        }
    );
    assert_eq!(run.origins.len(), 5);
}

#[test]
fn an_unknown_variable_is_a_warning() {
    let run = run(
        &[],
        &[
            ("ETCD_BOGUS_VAR", "x"),
            ("ETCD_NAME", ""),
            ("ETCD_VERSION", "v3.5"),
            ("ETCD_UNSUPPORTED_ARCH", "arm64"),
        ],
    );
    let texts: Vec<String> = run.warnings.iter().map(Warning::to_string).collect();
    assert_eq!(
        texts,
        [
            "unrecognized environment variable ETCD_BOGUS_VAR=x",
            "unrecognized environment variable ETCD_NAME=",
            "cannot set special environment variable ETCD_VERSION",
        ]
    );
    assert_eq!(run.flags.name, "default");
}

#[test]
fn a_deprecated_flag_is_taken_with_a_warning() {
    let run = run(
        &["--experimental-snapshot-catchup-entries=9"],
        &[("ETCD_DEBUG", "true")],
    );
    assert_eq!(run.flags.snapshot_catchup_entries, 9);
    let texts: Vec<String> = run.warnings.iter().map(Warning::to_string).collect();
    assert_eq!(
        texts,
        [
            "--debug is deprecated; use --log-level=debug",
            "--experimental-snapshot-catchup-entries is deprecated; use --snapshot-catchup-entries",
        ]
    );
}

#[test]
fn the_empty_text_leaves_urls_at_their_default() {
    let run = run(
        &[
            "--listen-peer-urls=",
            "--listen-client-urls=",
            "--advertise-client-urls=",
        ],
        &[],
    );
    assert_eq!(run.flags, member_flags::Flags::default());
}

#[test]
fn a_url_given_twice_is_listened_on_once() {
    let run = run(
        &["--listen-peer-urls=http://127.0.0.1:1,http://127.0.0.1:1"],
        &[],
    );
    assert_eq!(run.flags.listen_peer_urls.len(), 1);
}

#[test]
fn what_is_likely_not_meant_is_said() {
    let run = run(
        &["--cert-file=a", "--key-file=b", "--client-cert-auth"],
        &[],
    );
    let texts: Vec<String> = run
        .flags
        .warnings()
        .iter()
        .map(Warning::to_string)
        .collect();
    assert_eq!(
        texts,
        [
            "it isn't recommended to use default name, please set a value for --name. Note that etcd might run into issue when multiple members have the same default name",
            "scheme is HTTP while key and cert files are present; ignoring key and cert files (http://localhost:2379)",
            "scheme is HTTP while --client-cert-auth is enabled; ignoring client cert auth for this URL (http://localhost:2379)",
        ]
    );
}
