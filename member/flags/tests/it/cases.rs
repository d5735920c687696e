//! Command lines that do not start a member: text and exit code.
//!
//! Addresses are loopback and ports 0, so that a real etcd can be given the same lines. `{file}` stands for a
//! configuration file with the case's content.

/// What an etcd 3.4 does with the same line.
pub(crate) enum Etcd {
    /// The same text and exit code.
    Same,
    /// This text, which ends the member's own, and the same exit code.
    Ends(&'static str),
    /// Something else, or nothing wrong.
    Differs,
}

/// One command line.
pub(crate) struct Case {
    pub(crate) args: &'static [&'static str],
    pub(crate) env: &'static [(&'static str, &'static str)],
    pub(crate) file: Option<&'static str>,
    pub(crate) exit: u8,
    pub(crate) text: &'static str,
    pub(crate) etcd: Etcd,
}

const fn line(args: &'static [&'static str], exit: u8, text: &'static str) -> Case {
    Case {
        args,
        env: &[],
        file: None,
        exit,
        text,
        etcd: Etcd::Same,
    }
}

const fn env(
    env: &'static [(&'static str, &'static str)],
    args: &'static [&'static str],
    text: &'static str,
) -> Case {
    Case {
        args,
        env,
        file: None,
        exit: 1,
        text,
        etcd: Etcd::Same,
    }
}

const fn file(content: &'static str, text: &'static str) -> Case {
    Case {
        args: &["--config-file={file}"],
        env: &[],
        file: Some(content),
        exit: 1,
        text,
        etcd: Etcd::Same,
    }
}

const fn member_only(args: &'static [&'static str], exit: u8, text: &'static str) -> Case {
    Case {
        args,
        env: &[],
        file: None,
        exit,
        text,
        etcd: Etcd::Differs,
    }
}

const fn guide(args: &'static [&'static str], text: &'static str, etcd: &'static str) -> Case {
    Case {
        args,
        env: &[],
        file: None,
        exit: 1,
        text,
        etcd: Etcd::Ends(etcd),
    }
}

pub(crate) const CASES: &[Case] = &[
    // What Go's flag package refuses.
    line(
        &["--bogus-flag"],
        2,
        "flag provided but not defined: -bogus-flag",
    ),
    line(
        &["-bogus-flag", "x"],
        2,
        "flag provided but not defined: -bogus-flag",
    ),
    line(&["---x"], 2, "bad flag syntax: ---x"),
    line(&["--=x"], 2, "bad flag syntax: --=x"),
    line(&["--name"], 2, "flag needs an argument: -name"),
    line(
        &["--heartbeat-interval", "abc"],
        2,
        "invalid value \"abc\" for flag -heartbeat-interval: parse error",
    ),
    line(
        &["--heartbeat-interval=99999999999999999999"],
        2,
        "invalid value \"99999999999999999999\" for flag -heartbeat-interval: value out of range",
    ),
    line(
        &["--snapshot-count", "-1"],
        2,
        "invalid value \"-1\" for flag -snapshot-count: parse error",
    ),
    line(
        &["--max-txn-ops=-1"],
        2,
        "invalid value \"-1\" for flag -max-txn-ops: parse error",
    ),
    line(
        &["--max-concurrent-streams=abc"],
        2,
        "invalid value \"abc\" for flag -max-concurrent-streams: strconv.ParseUint: parsing \"abc\": invalid syntax",
    ),
    line(
        &["--max-concurrent-streams=5000000000"],
        2,
        "invalid value \"5000000000\" for flag -max-concurrent-streams: strconv.ParseUint: parsing \"5000000000\": value out of range",
    ),
    line(
        &["--grpc-keepalive-min-time=abc"],
        2,
        "invalid value \"abc\" for flag -grpc-keepalive-min-time: parse error",
    ),
    line(
        &["--grpc-keepalive-timeout=5"],
        2,
        "invalid value \"5\" for flag -grpc-keepalive-timeout: parse error",
    ),
    line(
        &["--pre-vote=maybe"],
        2,
        "invalid boolean value \"maybe\" for -pre-vote: parse error",
    ),
    line(
        &["--pre-vote="],
        2,
        "invalid boolean value \"\" for -pre-vote: parse error",
    ),
    line(
        &["--enable-v2=maybe"],
        2,
        "invalid boolean value \"maybe\" for -enable-v2: parse error",
    ),
    line(
        &["--proxy=bogus"],
        2,
        "invalid value \"bogus\" for flag -proxy: invalid value",
    ),
    line(&["--proxy"], 2, "flag needs an argument: -proxy"),
    line(
        &["--proxy=on", "--proxy-failure-wait=5s"],
        2,
        "invalid value \"5s\" for flag -proxy-failure-wait: parse error",
    ),
    line(
        &["--proxy-read-timeout=-1"],
        2,
        "invalid value \"-1\" for flag -proxy-read-timeout: parse error",
    ),
    line(
        &["--discovery-fallback=bogus"],
        2,
        "invalid value \"bogus\" for flag -discovery-fallback: invalid value",
    ),
    line(
        &["--experimental-corrupt-check-time=abc"],
        2,
        "invalid value \"abc\" for flag -experimental-corrupt-check-time: parse error",
    ),
    line(
        &["--initial-cluster-state=bogus"],
        2,
        "invalid value \"bogus\" for flag -initial-cluster-state: invalid value",
    ),
    // URLs.
    line(
        &["--listen-peer-urls=ftp://10.0.1.10:2380"],
        2,
        "invalid value \"ftp://10.0.1.10:2380\" for flag -listen-peer-urls: URL scheme must be http, https, unix, or unixs: ftp://10.0.1.10:2380",
    ),
    line(
        &["--advertise-client-urls=ftp://10.0.1.10:2379"],
        2,
        "invalid value \"ftp://10.0.1.10:2379\" for flag -advertise-client-urls: URL scheme must be http, https, unix, or unixs: ftp://10.0.1.10:2379",
    ),
    line(
        &["--listen-peer-urls=10.0.1.10:2380"],
        2,
        "invalid value \"10.0.1.10:2380\" for flag -listen-peer-urls: parse \"10.0.1.10:2380\": first path segment in URL cannot contain colon",
    ),
    line(
        &["--listen-peer-urls=localhost"],
        2,
        "invalid value \"localhost\" for flag -listen-peer-urls: URL scheme must be http, https, unix, or unixs: localhost",
    ),
    line(
        &["--listen-client-urls=http://10.0.1.10:2379/foo"],
        2,
        "invalid value \"http://10.0.1.10:2379/foo\" for flag -listen-client-urls: URL must not contain a path: http://10.0.1.10:2379/foo",
    ),
    line(
        &["--listen-client-urls=http://10.0.1.10:2379/"],
        2,
        "invalid value \"http://10.0.1.10:2379/\" for flag -listen-client-urls: URL must not contain a path: http://10.0.1.10:2379/",
    ),
    line(
        &["--listen-client-urls=http://10.0.1.10:abc"],
        2,
        "invalid value \"http://10.0.1.10:abc\" for flag -listen-client-urls: parse \"http://10.0.1.10:abc\": invalid port \":abc\" after host",
    ),
    line(
        &["--listen-client-urls=http://127.0.0.1"],
        2,
        "invalid value \"http://127.0.0.1\" for flag -listen-client-urls: URL address does not have the form \"host:port\": http://127.0.0.1",
    ),
    line(
        &["--listen-peer-urls=http://a b:1"],
        2,
        "invalid value \"http://a b:1\" for flag -listen-peer-urls: parse \"http://a b:1\": invalid character \" \" in host name",
    ),
    line(
        &["--listen-peer-urls=http://[::1:12380"],
        2,
        "invalid value \"http://[::1:12380\" for flag -listen-peer-urls: parse \"http://[::1:12380\": missing ']' in host",
    ),
    // The multi-member command of the Kubernetes guide, as printed there.
    line(
        &[
            "--listen-client-urls=http://10.0.1.10:2379,",
            "http://10.0.1.11:2379,",
        ],
        2,
        "invalid value \"http://10.0.1.10:2379,\" for flag -listen-client-urls: URL scheme must be http, https, unix, or unixs: ",
    ),
    member_only(
        &["--listen-client-urls=http://u:p@127.0.0.1:1"],
        2,
        "invalid value \"http://u:p@127.0.0.1:1\" for flag -listen-client-urls: URL must not contain a user, a query or a fragment: http://u:p@127.0.0.1:1",
    ),
    // Arguments that are no flags.
    line(&["foo"], 1, "'foo' is not a valid flag"),
    line(&["--name=x", "foo", "bar"], 1, "'foo' is not a valid flag"),
    line(&["-", "--name=x"], 1, "'-' is not a valid flag"),
    line(
        &["--name=x", "--", "--bogus"],
        1,
        "'--bogus' is not a valid flag",
    ),
    line(&["--pre-vote", "true"], 1, "'true' is not a valid flag"),
    line(&["--name", "--data-dir", "x"], 1, "'x' is not a valid flag"),
    member_only(
        &["grpc-proxy"],
        1,
        "the sub-command grpc-proxy is not supported by this release of member",
    ),
    // The environment.
    env(
        &[("ETCD_NAME", "infra0")],
        &["--name=infra0"],
        "conflicting environment variable \"ETCD_NAME\" is shadowed by corresponding command-line flag (either unset environment variable or disable flag)",
    ),
    env(
        &[("ETCD_NAME", "")],
        &["--name=infra0"],
        "conflicting environment variable \"ETCD_NAME\" is shadowed by corresponding command-line flag (either unset environment variable or disable flag)",
    ),
    env(
        &[("ETCD_NAME", "infra0"), ("ETCD_HEARTBEAT_INTERVAL", "abc")],
        &["--name=infra0"],
        "conflicting environment variable \"ETCD_NAME\" is shadowed by corresponding command-line flag (either unset environment variable or disable flag)",
    ),
    env(
        &[("ETCD_HEARTBEAT_INTERVAL", "abc")],
        &[],
        "invalid value \"abc\" for ETCD_HEARTBEAT_INTERVAL: parse error",
    ),
    env(
        &[("ETCD_PRE_VOTE", "maybe")],
        &[],
        "invalid value \"maybe\" for ETCD_PRE_VOTE: parse error",
    ),
    env(
        &[
            ("ETCD_HEARTBEAT_INTERVAL", "abc"),
            ("ETCD_SNAPSHOT_COUNT", "abc"),
            ("ETCD_PRE_VOTE", "maybe"),
        ],
        &[],
        "invalid value \"abc\" for ETCD_SNAPSHOT_COUNT: parse error",
    ),
    env(
        &[("ETCD_LISTEN_PEER_URLS", "ftp://x:1")],
        &[],
        "invalid value \"ftp://x:1\" for ETCD_LISTEN_PEER_URLS: URL scheme must be http, https, unix, or unixs: ftp://x:1",
    ),
    env(
        &[("ETCD_CONFIG_FILE", "/nonexistent.yaml")],
        &[],
        "open /nonexistent.yaml: no such file or directory",
    ),
    env(
        &[("ETCD_LISTEN_CLIENT_URLS", "http://127.0.0.1:0")],
        &[],
        "--advertise-client-urls is required when --listen-client-urls is set explicitly",
    ),
    // The configuration file.
    line(
        &["--config-file=/nonexistent.yaml"],
        1,
        "open /nonexistent.yaml: no such file or directory",
    ),
    file(
        "a: [1",
        "error converting YAML to JSON: yaml: line 1: did not find expected ',' or ']'",
    ),
    file(
        "a: 1\nb: [1\nc: 2\n",
        "error converting YAML to JSON: yaml: line 2: did not find expected ',' or ']'",
    ),
    file(
        "a: \"x\n",
        "error converting YAML to JSON: yaml: line 2: found unexpected end of stream",
    ),
    file(
        "a:\n\t- x\n",
        "error converting YAML to JSON: yaml: line 2: found character that cannot start any token",
    ),
    file(
        "a: 1\n  b: 2\n",
        "error converting YAML to JSON: yaml: line 2: mapping values are not allowed in this context",
    ),
    file(
        "foo\n",
        "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal string into Go value of type embed.configYAML",
    ),
    file(
        "heartbeat-interval: abc",
        "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal string into Go struct field configYAML.heartbeat-interval of type uint",
    ),
    file(
        "heartbeat-interval: -5",
        "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal number -5 into Go struct field configYAML.heartbeat-interval of type uint",
    ),
    file(
        "heartbeat-interval: 1.5",
        "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal number 1.5 into Go struct field configYAML.heartbeat-interval of type uint",
    ),
    file(
        "name: 5",
        "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal number into Go struct field configYAML.name of type string",
    ),
    file(
        "pre-vote: 5",
        "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal number into Go struct field configYAML.pre-vote of type bool",
    ),
    file(
        "peer-transport-security: 5",
        "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal number into Go struct field configYAML.peer-transport-security of type embed.securityConfig",
    ),
    file(
        "peer-transport-security:\n  client-cert-auth: 5\n",
        "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal number into Go struct field securityConfig.peer-transport-security.client-cert-auth of type bool",
    ),
    file(
        "listen-client-urls: ftp://x:1",
        "unexpected error setting up listen-client-urls: URL scheme must be http, https, unix, or unixs: ftp://x:1",
    ),
    file(
        "initial-cluster-state: bogus",
        "unexpected clusterState \"bogus\"",
    ),
    file(
        "heartbeat-interval: 0",
        "--heartbeat-interval must be >0 (set to 0ms)",
    ),
    // Values that do not agree.
    line(
        &["--heartbeat-interval=0"],
        1,
        "--heartbeat-interval must be >0 (set to 0ms)",
    ),
    line(
        &["--election-timeout=0"],
        1,
        "--election-timeout must be >0 (set to 0ms)",
    ),
    line(
        &["--election-timeout=499"],
        1,
        "--election-timeout[499ms] should be at least as 5 times as --heartbeat-interval[100ms]",
    ),
    line(
        &["--election-timeout=50001"],
        1,
        "--election-timeout[50001ms] is too long, and should be set less than 50000ms",
    ),
    line(
        &["--listen-client-urls=http://127.0.0.1:0"],
        1,
        "--advertise-client-urls is required when --listen-client-urls is set explicitly",
    ),
    line(
        &["--listen-peer-urls=http://:2380"],
        1,
        "expected IP in URL for binding (http://:2380)",
    ),
    line(
        &["--initial-advertise-peer-urls=http://:2380"],
        1,
        "--initial-advertise-peer-urls \"http://:2380\" must be \"host:port\" (unexpected empty host (http://:2380))",
    ),
    line(
        &["--advertise-client-urls=http://:2379,http://a:1"],
        1,
        "--advertise-client-urls \"http://:2379,http://a:1\" must be \"host:port\" (unexpected empty host (http://:2379))",
    ),
    line(&["--logger=bogus"], 1, "unknown logger option \"bogus\""),
    line(
        &["--logger=zap", "--log-outputs=default,stderr"],
        1,
        "multi logoutput for \"default\" is not supported yet",
    ),
    member_only(
        &["--log-format=xml"],
        1,
        "unknown log format: xml, supported values json, console",
    ),
    member_only(
        &["--log-level=bogus"],
        2,
        "invalid value \"bogus\" for flag -log-level: unrecognized level: \"bogus\"",
    ),
    // etcd's checks in etcd's order: the first of two faults is reported.
    line(
        &["--heartbeat-interval=0", "--listen-peer-urls=http://:2380"],
        1,
        "expected IP in URL for binding (http://:2380)",
    ),
    line(
        &[
            "--heartbeat-interval=0",
            "--listen-client-urls=http://127.0.0.1:0",
        ],
        1,
        "--heartbeat-interval must be >0 (set to 0ms)",
    ),
    // Listeners.
    line(
        &[
            "--listen-peer-urls=https://127.23.80.1:2380",
            "--listen-client-urls=http://127.0.0.1:0",
            "--advertise-client-urls=http://127.0.0.1:1",
        ],
        1,
        "cannot listen on TLS for 127.23.80.1:2380: KeyFile and CertFile are not presented",
    ),
    line(
        &[
            "--listen-peer-urls=http://127.0.0.1:0",
            "--listen-client-urls=https://127.23.80.1:2380",
            "--advertise-client-urls=https://127.0.0.1:1",
        ],
        1,
        "TLS key/cert (--cert-file, --key-file) must be provided for client url https://127.23.80.1:2380 with HTTPS scheme",
    ),
    line(
        &[
            "--listen-peer-urls=http://127.0.0.1:0",
            "--listen-client-urls=http://127.0.0.1:99999",
            "--advertise-client-urls=http://127.0.0.1:1",
        ],
        1,
        "listen tcp: address 99999: invalid port",
    ),
    line(
        &[
            "--listen-peer-urls=https://127.23.80.1:2380",
            "--listen-client-urls=http://127.0.0.1:0",
            "--advertise-client-urls=http://127.0.0.1:1",
            "--peer-cert-file=/nonexistent.crt",
        ],
        1,
        "KeyFile and CertFile must both be present[key: , cert: /nonexistent.crt]",
    ),
    member_only(
        &[
            "--listen-client-urls=https://127.23.80.1:2380",
            "--advertise-client-urls=https://127.0.0.1:1",
            "--cert-file=a",
            "--key-file=b",
            "--client-cert-auth",
        ],
        1,
        "--client-cert-auth needs --trusted-ca-file: this release of member does not trust the system's certificate authorities",
    ),
    member_only(
        &["--listen-peer-urls=unix://localhost:1"],
        1,
        "unix sockets are not supported by this release of member: unix://localhost:1 in --listen-peer-urls",
    ),
    // Bootstrap. The first two are the guide's own, the very first with its https listener.
    member_only(
        &[
            "--name",
            "infra1",
            "--initial-advertise-peer-urls",
            "http://10.0.1.11:2380",
            "--listen-peer-urls",
            "https://10.0.1.11:2380",
            "--listen-client-urls",
            "http://10.0.1.11:2379,http://127.0.0.1:2379",
            "--advertise-client-urls",
            "http://10.0.1.11:2379",
            "--initial-cluster",
            "infra0=http://10.0.1.10:2380",
            "--initial-cluster-state",
            "new",
        ],
        1,
        "infra1 not listed in the initial cluster config: couldn't find local name \"infra1\" in the initial cluster configuration",
    ),
    guide(
        &[
            "--name=infra0",
            "--initial-advertise-peer-urls=http://127.0.0.1:2380",
            "--listen-peer-urls=http://127.0.0.1:0",
            "--listen-client-urls=http://127.0.0.1:0",
            "--advertise-client-urls=http://10.0.1.10:2379",
            "--initial-cluster=infra0=http://10.0.1.10:2380,infra1=http://10.0.1.11:2380,infra2=http://10.0.1.12:2380",
            "--initial-cluster-state=new",
        ],
        "error setting up initial cluster: infra0 has different advertised URLs in the cluster and advertised peer URLs list: --initial-cluster has infra0=http://10.0.1.10:2380 but missing from --initial-advertise-peer-urls=http://127.0.0.1:2380 (resolved urls: \"http://127.0.0.1:2380\" != \"http://10.0.1.10:2380\")",
        "--initial-cluster has infra0=http://10.0.1.10:2380 but missing from --initial-advertise-peer-urls=http://127.0.0.1:2380 (resolved urls: \"http://127.0.0.1:2380\" != \"http://10.0.1.10:2380\")",
    ),
    guide(
        &[
            "--name=infra1",
            "--listen-peer-urls=http://127.0.0.1:0",
            "--listen-client-urls=http://127.0.0.1:0",
            "--advertise-client-urls=http://127.0.0.1:1",
            "--initial-cluster=infra0=http://10.0.1.10:2380",
        ],
        "infra1 not listed in the initial cluster config: couldn't find local name \"infra1\" in the initial cluster configuration",
        "couldn't find local name \"infra1\" in the initial cluster configuration",
    ),
    guide(
        &[
            "--name=infra0",
            "--listen-peer-urls=http://127.0.0.1:0",
            "--listen-client-urls=http://127.0.0.1:0",
            "--advertise-client-urls=http://127.0.0.1:1",
            "--initial-cluster=",
        ],
        "infra0 not listed in the initial cluster config: couldn't find local name \"infra0\" in the initial cluster configuration",
        "couldn't find local name \"infra0\" in the initial cluster configuration",
    ),
    guide(
        &[
            "--name=infra0",
            "--listen-peer-urls=http://127.0.0.1:0",
            "--listen-client-urls=http://127.0.0.1:0",
            "--advertise-client-urls=http://127.0.0.1:1",
            "--initial-advertise-peer-urls=http://localhost:2380",
            "--initial-cluster=infra0=http://127.0.0.1:2380",
        ],
        "error setting up initial cluster: infra0 has different advertised URLs in the cluster and advertised peer URLs list: --initial-cluster has infra0=http://127.0.0.1:2380 but missing from --initial-advertise-peer-urls=http://localhost:2380 (resolved urls: \"http://localhost:2380\" != \"http://127.0.0.1:2380\")",
        "--initial-cluster has infra0=http://127.0.0.1:2380 but missing from --initial-advertise-peer-urls=http://localhost:2380 (resolved urls: \"http://localhost:2380\" != \"http://127.0.0.1:2380\")",
    ),
    guide(
        &[
            "--name=infra0",
            "--listen-peer-urls=http://127.0.0.1:0",
            "--listen-client-urls=http://127.0.0.1:0",
            "--advertise-client-urls=http://127.0.0.1:1",
            "--initial-advertise-peer-urls=http://10.0.1.10:2380,http://127.0.0.1:2380",
            "--initial-cluster=infra0=http://10.0.1.10:2380",
        ],
        "error setting up initial cluster: infra0 has different advertised URLs in the cluster and advertised peer URLs list: --initial-advertise-peer-urls has http://127.0.0.1:2380 but missing from --initial-cluster=infra0=http://10.0.1.10:2380,infra0=http://127.0.0.1:2380",
        "--initial-advertise-peer-urls has http://127.0.0.1:2380 but missing from --initial-cluster=infra0=http://10.0.1.10:2380,infra0=http://127.0.0.1:2380",
    ),
    guide(
        &[
            "--name=infra0",
            "--listen-peer-urls=http://127.0.0.1:0",
            "--listen-client-urls=http://127.0.0.1:0",
            "--advertise-client-urls=http://127.0.0.1:1",
            "--initial-advertise-peer-urls=http://10.0.1.10:2380",
            "--initial-cluster=infra0=http://10.0.1.10:2380,infra0=http://10.0.1.11:2380",
        ],
        "error setting up initial cluster: infra0 has different advertised URLs in the cluster and advertised peer URLs list: --initial-cluster has infra0=http://10.0.1.11:2380 but missing from --initial-advertise-peer-urls=http://10.0.1.10:2380 (len([\"http://10.0.1.10:2380\"]) != len([\"http://10.0.1.10:2380\" \"http://10.0.1.11:2380\"]))",
        "--initial-cluster has infra0=http://10.0.1.11:2380 but missing from --initial-advertise-peer-urls=http://10.0.1.10:2380 (len([\"http://10.0.1.10:2380\"]) != len([\"http://10.0.1.10:2380\" \"http://10.0.1.11:2380\"]))",
    ),
    guide(
        &[
            "--listen-peer-urls=http://127.0.0.1:0",
            "--listen-client-urls=http://127.0.0.1:0",
            "--advertise-client-urls=http://127.0.0.1:1",
            "--initial-advertise-peer-urls=http://127.0.0.1:12380",
        ],
        "error setting up initial cluster: default has different advertised URLs in the cluster and advertised peer URLs list: --initial-cluster has default=http://localhost:2380 but missing from --initial-advertise-peer-urls=http://127.0.0.1:12380 (resolved urls: \"http://127.0.0.1:12380\" != \"http://localhost:2380\")",
        "--initial-cluster has default=http://localhost:2380 but missing from --initial-advertise-peer-urls=http://127.0.0.1:12380 (resolved urls: \"http://127.0.0.1:12380\" != \"http://localhost:2380\")",
    ),
    line(
        &[
            "--name=infra0",
            "--listen-peer-urls=http://127.0.0.1:0",
            "--listen-client-urls=http://127.0.0.1:0",
            "--advertise-client-urls=http://127.0.0.1:1",
            "--initial-advertise-peer-urls=http://10.0.1.10:2380",
            "--initial-cluster=infra0=http://10.0.1.10:2380,infra1=http://10.0.1.10:2380",
        ],
        1,
        "initial cluster infra0=http://10.0.1.10:2380,infra1=http://10.0.1.10:2380 has duplicate url",
    ),
    line(
        &[
            "--name=infra0",
            "--listen-peer-urls=http://127.0.0.1:0",
            "--listen-client-urls=http://127.0.0.1:0",
            "--advertise-client-urls=http://127.0.0.1:1",
            "--initial-cluster-state=existing",
            "--initial-cluster=infra0=http://10.0.1.10:2380,infra1=http://10.0.1.10:2380",
        ],
        1,
        "initial cluster infra0=http://10.0.1.10:2380,infra1=http://10.0.1.10:2380 has duplicate url",
    ),
    line(
        &[
            "--name=infra0",
            "--listen-peer-urls=http://127.0.0.1:0",
            "--listen-client-urls=http://127.0.0.1:0",
            "--advertise-client-urls=http://127.0.0.1:1",
            "--initial-cluster=infra0",
        ],
        1,
        "error setting up initial cluster: URL scheme must be http, https, unix, or unixs: ",
    ),
    // What this release cannot honour.
    member_only(
        &["--enable-pprof"],
        1,
        "--enable-pprof is not supported by this release of member: Go's profiles do not exist in it",
    ),
    member_only(
        &["--logger=capnslog"],
        1,
        "--logger is not supported by this release of member: etcd itself gave up capnslog in 3.5; leave the flag out",
    ),
    // How members are found.
    line(
        &[
            "--discovery=http://127.0.0.1:1/x",
            "--initial-cluster=infra0=http://127.0.0.1:1",
        ],
        1,
        "multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \"discovery\" or \"discovery-srv\"",
    ),
    line(
        &[
            "--discovery=http://127.0.0.1:1/x",
            "--discovery-srv=example.com",
        ],
        1,
        "multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \"discovery\" or \"discovery-srv\"",
    ),
    line(
        &[
            "--initial-cluster=infra0=http://127.0.0.1:1",
            "--discovery-srv=example.com",
        ],
        1,
        "multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \"discovery\" or \"discovery-srv\"",
    ),
    member_only(
        &[
            "--discovery-srv=example.com",
            "--discovery-endpoints=http://127.0.0.1:1",
            "--discovery-token=t",
        ],
        1,
        "multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \"discovery\", \"discovery-endpoints\" or \"discovery-srv\"",
    ),
    member_only(
        &["--discovery-token=t"],
        1,
        "both --discovery-token and --discovery-endpoints must be set",
    ),
    member_only(
        &["--discovery=http://127.0.0.1:1/x", "--discovery-token=t"],
        1,
        "both v2 discovery settings (discovery, discovery-proxy) and v3 discovery settings (discovery-token, discovery-endpoints, discovery-cert, discovery-key, discovery-cacert, discovery-user, discovery-password) are set",
    ),
    member_only(
        &[
            "--discovery-endpoints=http://127.0.0.1:1",
            "--discovery-token=t",
            "--discovery-fallback=proxy",
        ],
        1,
        "--discovery-fallback=proxy is set, but not --discovery, without which it means nothing",
    ),
    member_only(
        &["--proxy-dial-timeout=7"],
        1,
        "--proxy-dial-timeout is set, but not --proxy, without which it means nothing",
    ),
    member_only(
        &["--proxy=on", "--proxy-refresh-interval=0"],
        1,
        "--proxy-refresh-interval must be more than 0",
    ),
    member_only(
        &["--discovery-srv-name=x"],
        1,
        "--discovery-srv-name is set, but not --discovery-srv, without which it means nothing",
    ),
    Case {
        args: &[],
        env: &[("ETCD_MAX_WALS", "1")],
        file: None,
        exit: 1,
        text: "--max-wals is not supported by this release of member: its log keeps what --snapshot-count and --snapshot-catchup-entries ask for; there are no files to count",
        etcd: Etcd::Differs,
    },
    Case {
        args: &["--config-file={file}"],
        env: &[],
        file: Some("enable-pprof: true\n"),
        exit: 1,
        text: "--enable-pprof is not supported by this release of member: Go's profiles do not exist in it",
        etcd: Etcd::Differs,
    },
];
