//! Flags from a YAML file.

use std::{fs, time::Duration};

use member_flags::{Flags, LogOutput, Origin, Warning};

use crate::{run, run_file};

const WHOLE: &str = "
# A file as etcd's own sample has it.
name: 'infra0'
data-dir: /var/lib/etcd
wal-dir:
snapshot-count: 5000
heartbeat-interval: 50
election-timeout: 500
quota-backend-bytes: 0
listen-peer-urls: https://10.0.1.10:2380
listen-client-urls: https://10.0.1.10:2379,http://127.0.0.1:2379
initial-advertise-peer-urls: https://10.0.1.10:2380
advertise-client-urls: https://10.0.1.10:2379
discovery-fallback: 'proxy'
initial-cluster: infra0=https://10.0.1.10:2380
initial-cluster-token: 'etcd-cluster-1'
initial-cluster-state: 'new'
strict-reconfig-check: yes
enable-pprof: false
proxy: 'off'
client-transport-security:
  cert-file: c.crt
  key-file: c.key
  client-cert-auth: true
  trusted-ca-file: ca.crt
  auto-tls: false
peer-transport-security:
  cert-file: p.crt
  key-file: p.key
  client-cert-auth: true
  trusted-ca-file: pca.crt
grpc-keepalive-interval: 1000000000
grpc-keepalive-timeout: 1m30s
log-level: debug
log-outputs: [stderr, /var/log/etcd.log]
force-new-cluster: false
auto-compaction-mode: periodic
auto-compaction-retention: \"0\"
";

#[test]
fn a_whole_file_is_read() {
    let run = run_file(WHOLE).unwrap();
    let flags = &run.flags;
    assert_eq!(flags.name, "infra0");
    assert_eq!(flags.wal_dir, None);
    assert_eq!(
        flags.listen_client_urls.to_string(),
        "http://127.0.0.1:2379,https://10.0.1.10:2379"
    );
    assert_eq!(flags.cert_file.as_deref(), Some("c.crt".as_ref()));
    assert_eq!(
        flags.peer_trusted_ca_file.as_deref(),
        Some("pca.crt".as_ref())
    );
    assert!(flags.client_cert_auth && flags.peer_client_cert_auth);
    assert_eq!(
        (flags.grpc_keepalive_interval, flags.grpc_keepalive_timeout),
        (Duration::from_secs(1), Duration::from_secs(90))
    );
    assert!(flags.log_outputs.contains(&LogOutput::Stderr) && flags.log_outputs.len() == 2);
    assert_eq!(
        run.warnings,
        [Warning::ConfigFileLoaded {
            path: "etcd.yaml".into()
        }]
    );
    assert_eq!(
        run.origins["peer-cert-file"],
        Origin::ConfigFile("etcd.yaml".into())
    );
    flags.check_first_start(&|_, _| Err(String::new())).unwrap();
}

#[test]
fn an_empty_file_is_all_defaults() {
    for text in ["", "# nothing\n", "---\n", "{}"] {
        assert_eq!(run_file(text).unwrap().flags, Flags::default(), "{text:?}");
    }
}

#[test]
fn a_file_puts_flags_and_variables_out_of_force() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("etcd.yaml");
    fs::write(
        &path,
        "name: from-file\nlisten-client-urls: http://127.0.0.1:1\n",
    )
    .unwrap();
    let path = path.to_str().unwrap();
    let env = [
        ("ETCD_CONFIG_FILE", path),
        ("ETCD_NAME", "from-env"),
        ("ETCD_BOGUS", "1"),
        ("ETCD_HEARTBEAT_INTERVAL", "abc"),
    ];
    let run = run(&["--name=from-flag", "--auto-tls"], &env);
    assert_eq!(run.flags.name, "from-file");
    assert_eq!(
        run.flags.advertise_client_urls.to_string(),
        "http://localhost:2379",
        "the default stays, unlike on the command line"
    );
    let texts: Vec<String> = run.warnings.iter().map(Warning::to_string).collect();
    assert_eq!(
        texts,
        [
            "loaded server configuration, other configuration command line flags and environment variables will be ignored if provided",
            "ignored, because a configuration file is given: --name, --auto-tls, ETCD_NAME, ETCD_HEARTBEAT_INTERVAL",
        ]
    );
}

#[test]
fn an_unknown_key_is_a_warning_by_name() {
    let run =
        run_file("data_dir: x\nbogus: 1\npeer-transport-security:\n  ca-file: x\n  cert-fil: y\n")
            .unwrap();
    let texts: Vec<String> = run
        .warnings
        .iter()
        .skip(1)
        .map(Warning::to_string)
        .collect();
    assert_eq!(
        texts,
        [
            "unknown key data_dir in the configuration file; did you mean data-dir?",
            "unknown key bogus in the configuration file",
            "unknown key peer-transport-security.ca-file in the configuration file",
            "unknown key peer-transport-security.cert-fil in the configuration file; did you mean cert-file?",
        ]
    );
}

#[test]
fn a_tls_key_outside_its_section_counts_and_is_mentioned() {
    let run = run_file("cert-file: c.crt\n").unwrap();
    assert_eq!(run.flags.cert_file.as_deref(), Some("c.crt".as_ref()));
    assert_eq!(
        run.warnings[1].to_string(),
        "key cert-file at the top level of the configuration file: etcd takes it only inside client-transport-security"
    );
}

#[test]
fn sections_without_support_are_refused_unless_empty() {
    run_file("discovery-config: {}\nsocket-options:\n").unwrap();
    let error = run_file("socket-options:\n  reuse-port: true\n").unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("--socket-options is not supported by this release of member: "),
        "{error}"
    );
}

#[test]
fn a_section_inside_a_section_is_read() {
    let text = "discovery-config:\n  endpoints: [http://127.0.0.1:1, http://127.0.0.1:2]\n  token: t\n  secure:\n    cacert: ca.crt\n    bogus: 1\n  auth:\n    username: u\n";
    let run = run_file(text).unwrap();
    let found = &run.flags.discovery;
    assert_eq!(
        found.endpoints,
        ["http://127.0.0.1:1", "http://127.0.0.1:2"]
    );
    assert_eq!((found.token.as_str(), found.user.as_str()), ("t", "u"));
    assert_eq!(found.cacert.as_deref(), Some("ca.crt".as_ref()));
    assert_eq!(
        run.warnings[1].to_string(),
        "unknown key discovery-config.secure.bogus in the configuration file"
    );
}
