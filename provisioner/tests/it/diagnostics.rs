//! Bad topologies: each mistake gets its line, its words and what to do.

use std::path::Path;

use proptest::prelude::*;
use provisioner::topology::{self, Binary, Invalid, Loaded, Network, Severity};

fn parse(text: &str) -> Result<Loaded, Invalid> {
    topology::parse(
        "cluster.toml",
        text,
        Path::new("/base"),
        &|name| match name {
            "HOME" => Some("/home/op".into()),
            "PORT" => Some("4001".into()),
            _ => None,
        },
    )
}

fn valid(text: &str) -> Loaded {
    parse(text).unwrap_or_else(|error| panic!("{}", error.report(false).unwrap()))
}

/// `line:column message | help` of every problem.
fn problems(text: &str) -> Vec<String> {
    let invalid = match parse(text) {
        Ok(loaded) => panic!("valid: {:?}", loaded.topology),
        Err(invalid) => invalid,
    };
    invalid
        .problems()
        .iter()
        .map(|problem| {
            format!(
                "{}:{} {} | {}",
                problem.line,
                problem.column,
                problem.message,
                problem.help.as_deref().unwrap_or("-")
            )
        })
        .collect()
}

const TAIL: &str = "[[member]]\nname = \"infra{0..2}\"\n";

#[track_caller]
fn one(text: &str, place: &str, parts: &[&str]) {
    let found = problems(text);
    let [problem] = found.as_slice() else {
        panic!("not one problem: {found:#?}\n{text}")
    };
    assert!(
        problem.starts_with(place),
        "{place} is not the place of: {problem}"
    );
    for part in parts {
        assert!(problem.contains(part), "{part:?} is not in: {problem}");
    }
}

#[test]
fn text_that_is_not_toml() {
    one("name = \"a\n", "1:10 ", &["basic string"]);
    assert_eq!(
        problems("name = \"a\nother").len(),
        2,
        "each line has its own mistake"
    );
    one("name = \"a\"\nname = \"b\"\n", "2:1 ", &["duplicate key"]);
}

#[test]
fn names_that_cannot_be() {
    for name in ["", "A", "../x", "a/b", "-a", ".a", "a b"] {
        one(
            &format!("name = {name:?}\n{TAIL}"),
            "1:8 ",
            &["cannot be the name of a cluster", "lowercase letters"],
        );
    }
    for name in ["", "a=b", "a,b", "../x", "-x"] {
        one(
            &format!("name = \"a\"\n[[member]]\nname = {name:?}\n"),
            "3:8 ",
            &["cannot be the name of a member"],
        );
    }
}

#[test]
fn a_cluster_without_members() {
    one(
        "name = \"a\"\n",
        "1:8 ",
        &["the cluster has no members", "add a [[member]] table"],
    );
}

#[test]
fn bad_addresses() {
    for (address, part) in [
        ("http://10.0.0.1:2380", "is a URL"),
        ("10.0.0.1:2380", "has a port"),
        ("10.0.0.256", "is not an IP address"),
        ("0.0.0.0", "cannot be advertised"),
        ("a b", "neither an IP address nor a DNS name"),
    ] {
        one(
            &format!("name = \"a\"\n[[member]]\nname = \"m\"\naddress = {address:?}\n"),
            "4:11 ",
            &[part],
        );
    }
    one(
        "name = \"a\"\n[[member]]\nname = \"m\"\nlisten = \"eth0\"\n",
        "4:10 ",
        &["\"eth0\" is not an IP address"],
    );
}

#[test]
fn bad_ports() {
    for (port, part) in [
        ("0", "port 0 cannot be advertised"),
        ("65536", "65536 is not a port"),
        ("-1", "-1 is not a port"),
        ("\"http\"", "http is not a port"),
    ] {
        one(
            &format!("name = \"a\"\n[[member]]\nname = \"m\"\nclient-port = {port}\n"),
            "4:15 ",
            &[part],
        );
    }
}

#[test]
fn duplicates() {
    one(
        "name = \"a\"\n[[member]]\nname = \"m\"\n[[member]]\nname = \"m\"\n",
        "5:8 ",
        &["two members are named m", "rename one"],
    );
    one(
        "name = \"a\"\n[[member]]\nname = \"m\"\naddress = \"127.0.0.{1..2}\"\n",
        "3:8 ",
        &["two members are named m", "put a range into `name` too"],
    );
    one(
        "name = \"a\"\n[[member]]\nname = \"m{0..1}\"\nclient-port = 2379\n",
        "4:15 ",
        &["the client-port of m1, 127.0.0.1:2379, is also that of m0 client-port"],
    );
    one(
        "name = \"a\"\n[[member]]\nname = \"m\"\nclient-port = 2379\npeer-port = 2379\n",
        "5:13 ",
        &["is also its own client-port", "different numbers"],
    );
    one(
        "name = \"a\"\n[[member]]\nname = \"m\"\nclient-port = 2379\nlisten = \"0.0.0.0\"\n[[member]]\nname = \"n\"\npeer-port = 2379\naddress = \"127.0.0.2\"\n",
        "8:13 ",
        &["is also that of m client-port"],
    );
    assert_eq!(valid("name = \"a\"\n[[member]]\nname = \"m{0..2}\"\naddress = \"127.0.0.{1..3}\"\nclient-port = 2379\npeer-port = 2380\n").topology.members.len(), 3);
}

#[test]
fn ranges_that_cannot_be() {
    one(
        "name = \"a\"\n[[member]]\nname = \"m{2..0}\"\n",
        "3:8 ",
        &["runs backwards"],
    );
    one(
        "name = \"a\"\n[[member]]\nname = \"m{0..2}\"\nzone = \"z{0..1}\"\n",
        "4:8 ",
        &["lock step", "same length"],
    );
    one(
        "name = \"a\"\n[[member]]\nname = \"m{0..1000000}\"\n",
        "3:8 ",
        &["more than 64 values"],
    );
}

#[test]
fn environment_that_is_missing() {
    one(
        "name = \"${NOPE}\"\n[[member]]\nname = \"m\"\n",
        "1:8 ",
        &["the environment variable NOPE is not set", "${NOPE:-value}"],
    );
    let loaded = valid(
        "name = \"a\"\n[[member]]\nname = \"m\"\nclient-port = \"${PORT}\"\npeer-port = \"${OTHER:-4002}\"\n",
    );
    assert_eq!(
        (
            loaded.topology.members[0].client_port,
            loaded.topology.members[0].peer_port
        ),
        (Some(4001), Some(4002))
    );
}

#[test]
fn flags_that_provision_sets_are_refused_with_the_reason() {
    one(
        &format!("name = \"a\"\n[defaults]\ndata-dir = \"/x\"\n{TAIL}"),
        "3:1 ",
        &["`data-dir` is set by provision", "state directory"],
    );
    one(
        &format!("name = \"a\"\n[defaults]\ncert-file = \"/x\"\n{TAIL}"),
        "3:1 ",
        &["`cert-file` is set by provision", "[tls]"],
    );
    one(
        "name = \"a\"\n[[member]]\nname = \"m\"\nflags = { initial-cluster-state = \"existing\" }\n",
        "4:11 ",
        &["is set by provision"],
    );
    one(
        &format!("name = \"a\"\n[defaults]\nwal-dir = \"/x\"\n{TAIL}"),
        "3:1 ",
        &["cannot be the same for all members"],
    );
}

#[test]
fn flags_that_do_not_exist_or_cannot_have_the_value() {
    one(
        &format!("name = \"a\"\n[defaults]\nheartbeat_intervall = 100\n{TAIL}"),
        "3:1 ",
        &["unknown flag", "did you mean `heartbeat-interval`?"],
    );
    one(
        &format!("name = \"a\"\n[defaults]\n--heartbeat-interval = 100\n{TAIL}"),
        "3:1 ",
        &["without dashes in front: `heartbeat-interval`"],
    );
    one(
        &format!("name = \"a\"\n[defaults]\nheartbeat-interval = \"fast\"\n{TAIL}"),
        "3:22 ",
        &["heartbeat-interval", "fast"],
    );
    one(
        &format!("name = \"a\"\n[defaults]\nmemory-mlock = true\n{TAIL}"),
        "3:16 ",
        &["memory-mlock"],
    );
    one(
        &format!("name = \"a\"\n[defaults]\nheartbeat-interval = 1000\n{TAIL}"),
        "3:22 ",
        &["election"],
    );
    one(
        &format!("name = \"a\"\n[defaults]\nelection-timeout = 60000\n{TAIL}"),
        "3:20 ",
        &["election"],
    );
}

#[test]
fn values_that_are_impossible_together_are_shown_where_they_stand() {
    let text = "name = \"a\"\n[[member]]\nname = \"m{0..1}\"\n[[member]]\nname = \"n\"\nflags = { heartbeat-interval = 900 }\n";
    one(
        text,
        "6:32 ",
        &["--election-timeout[1000ms] should be at least as 5 times"],
    );
}

#[test]
fn an_upstream_etcd_may_have_flags_that_the_included_member_refuses() {
    let text = "name = \"a\"\n[defaults]\nbackend-batch-limit = 100\n[[member]]\nname = \"m\"\nbinary = \"/usr/bin/etcd\"\n";
    let loaded = valid(text);
    let member = &loaded.topology.members[0];
    let instance = provisioner::render::placeholder(&loaded.topology);
    let etcd = provisioner::render::Server::Etcd { minor: (3, 4) };
    let args = provisioner::render::argv(&loaded.topology, member, &instance, etcd).unwrap();
    assert!(
        args.contains(&"--backend-batch-limit=100".to_owned()),
        "{args:?}"
    );
    // The name of the binary misled: it is the included member after all.
    let error = provisioner::render::argv(
        &loaded.topology,
        member,
        &instance,
        provisioner::render::Server::Member,
    )
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "member m runs the included member, which has no flag backend-batch-limit"
    );
}

#[test]
fn a_flag_that_the_etcd_version_lacks_is_refused() {
    let text = "name = \"a\"\n[[member]]\nname = \"m\"\nbinary = \"etcd\"\nflags = { memory-mlock = true }\n";
    let loaded = valid(text);
    let instance = provisioner::render::placeholder(&loaded.topology);
    let args = |minor| {
        provisioner::render::argv(
            &loaded.topology,
            &loaded.topology.members[0],
            &instance,
            provisioner::render::Server::Etcd { minor },
        )
    };
    assert!(
        args((3, 6))
            .unwrap()
            .contains(&"--memory-mlock=true".to_owned())
    );
    assert_eq!(
        args((3, 4)).unwrap_err().to_string(),
        "member m runs etcd 3.4, which has no flag memory-mlock"
    );
}

#[test]
fn what_comes_later_is_refused_by_name() {
    one(
        "name = \"a\"\n[[member]]\nname = \"m\"\nrole = \"learner\"\n",
        "4:8 ",
        &["the cluster has no voter"],
    );
}

#[test]
fn hosts_are_checked() {
    one(
        &format!("name = \"a\"\nhost-defaults = {{ user = \"root\" }}\n{TAIL}"),
        "2:17 ",
        &["[host-defaults] has no meaning: no member has a host"],
    );
    let member = |keys: &str| format!("name = \"a\"\n[[member]]\nname = \"m\"\n{keys}\n");
    for (keys, part) in [
        ("host = \"10.0.1.10\"", "\"10.0.1.10\" is not a host"),
        ("host = \"ssh://-oProxyCommand=x\"", "is not a host"),
        (
            "host = \"ssh://a\"\n[[member]]\nname = \"n\"",
            "n has no host, and other members have one",
        ),
        (
            "host = \"ssh://a\"\n[tls]\nclient = \"auto\"",
            "client = \"auto\": certificates that members make",
        ),
        (
            "host = \"ssh://a\"\n[bootstrap]\nmethod = \"discovery\"\nservice = \"builtin\"",
            "service = \"builtin\" needs all members on this machine",
        ),
        (
            "host = \"ssh://a\"\n[host-defaults]\ndata-dir = \"srv\"",
            "\"srv\" is not a directory of a host",
        ),
        (
            "host = \"ssh://a\"\n[host-defaults]\nrun-as = \"a;b\"",
            "\"a;b\" is not the name of a user",
        ),
        (
            "host = \"ssh://a\"\n[host-defaults]\njump = [\"-x\"]",
            "\"-x\" is not a host to jump over",
        ),
    ] {
        one(&member(keys), "", &[part]);
    }
}

#[test]
fn keys_of_a_method_are_checked_against_it() {
    for (keys, part) in [
        (
            "domain = \"x\"",
            "`domain` has no meaning with method = \"static\"",
        ),
        (
            "server = \"builtin\", network = 1",
            "unknown key `network` in [bootstrap]",
        ),
        (
            "method = \"discovery\"",
            "discovery needs one of `service`, `url` and `endpoints`",
        ),
        (
            "method = \"discovery\", service = \"builtin\", url = \"http://x/y\"",
            "discovery needs one of `service`, `url` and `endpoints`",
        ),
        ("method = \"discovery\", service = \"other\"", "builtin"),
        (
            "method = \"discovery\", url = \"http://x\"",
            "\"http://x\" is not the URL of a discovery token",
        ),
        (
            "method = \"discovery\", url = \"ftp://x/y\"",
            "is not the URL of a discovery token",
        ),
        (
            "method = \"discovery\", url = \"http://x/new?size=5\"",
            "fetch it once, and put the URL that it answers here: curl 'http://x/new?size=5'",
        ),
        (
            "method = \"discovery\", url = \"http://x/new\"",
            "curl 'http://x/new?size=3'",
        ),
        (
            "method = \"discovery\", url = \"http://x/y?size=3\"",
            "is not the URL of a discovery token: URL must not contain a user, a query or a fragment",
        ),
        (
            "method = \"discovery\", url = \"http://127.0.0.1:99999/x\"",
            "invalid port",
        ),
        (
            "method = \"discovery\", url = \"http://[::1/x\"",
            "missing ']' in host",
        ),
        (
            "method = \"discovery\", url = \"http://x/y\", proxy = \"foo bar\"",
            "\"foo bar\" is not a proxy that can be used: parse \"http://foo bar\": invalid character \" \" in host name",
        ),
        (
            "method = \"discovery\", url = \"http://x/y\", proxy = \"https://x:1\"",
            "write the URL of an HTTP proxy: http://HOST:PORT",
        ),
        (
            "method = \"discovery\", endpoints = [\"x\"], token = \"t\"",
            "\"x\" is not a client URL: URL address does not have the form \"host:port\"",
        ),
        (
            "method = \"discovery\", endpoints = [\"http://x:1\"], token = \"a b\"",
            "write the one under which the size of the cluster stands in the service",
        ),
        (
            "token = \"a b\"",
            "or remove the key: a unique one is generated and remembered",
        ),
        (
            "method = \"discovery\", url = \"http://x/y\", protocol = \"v3\"",
            "`protocol` is that of the built-in service",
        ),
        (
            "method = \"discovery\", url = \"http://x/y\", token = \"t\"",
            "the token is a part of the discovery URL",
        ),
        (
            "method = \"discovery\", endpoints = [], token = \"t\"",
            "the service has no endpoint",
        ),
        (
            "method = \"discovery\", endpoints = [\"http://x:1\"]",
            "v3 discovery needs a `token`",
        ),
        (
            "method = \"discovery\", service = \"builtin\", protocol = \"v3\", proxy = \"http://x\"",
            "v3 discovery knows no proxy",
        ),
        ("method = \"dns-srv\"", "SRV records need a `domain`"),
        (
            "method = \"dns-srv\", domain = \"a..b\"",
            "\"a..b\" is not a DNS name",
        ),
        (
            "method = \"dns-srv\", domain = \"a.b\", srv-name = \"c.d\"",
            "\"c.d\" cannot end a service name",
        ),
        (
            "method = \"dns-srv\", domain = \"a.b\", url = \"http://x/y\"",
            "`url` has no meaning",
        ),
    ] {
        let found = problems(&format!("name = \"a\"\nbootstrap = {{ {keys} }}\n{TAIL}"));
        assert!(
            found.iter().any(|problem| problem.contains(part)),
            "{part}: {found:#?}"
        );
    }
}

#[test]
fn a_dns_server_and_its_network_belong_together() {
    let srv = |server: &str| {
        format!("bootstrap = {{ method = \"dns-srv\", domain = \"a.b\", server = \"{server}\" }}\n")
    };
    one(
        &format!("name = \"a\"\nnetwork = \"host\"\n{}{TAIL}", srv("builtin")),
        "2:11 ",
        &["a DNS server of the cluster's own needs a network of its own"],
    );
    one(
        &format!(
            "name = \"a\"\nnetwork = \"private\"\n{}{TAIL}",
            srv("system")
        ),
        "3:60 ",
        &["the resolvers of this machine are out of reach of a private network"],
    );
    let network = |text: &str| {
        valid(&format!("name = \"a\"\n{text}{TAIL}"))
            .topology
            .network
    };
    assert_eq!(network(&srv("builtin")), Network::Private);
    assert_eq!(network(&srv("system")), Network::Host);
    assert_eq!(network("network = \"private\"\n"), Network::Private);
}

#[test]
fn a_gateway_listens_where_nobody_else_does() {
    for (listen, part) in [
        ("", "\"\" is not an address to listen on"),
        ("localhost:2379", "is not an address to listen on"),
        ("127.0.0.1:0", "is not an address to listen on"),
        ("http://127.0.0.1:1", "is not an address to listen on"),
        (
            "127.0.0.1:12379",
            "is the address of a member or of another gateway",
        ),
        (
            "0.0.0.0:12379",
            "is the address of a member or of another gateway",
        ),
    ] {
        one(
            &format!(
                "name = \"a\"\n[[member]]\nname = \"m\"\nclient-port = 12379\n[[gateway]]\nlisten = \"{listen}\"\n"
            ),
            "6:10 ",
            &[part],
        );
    }
    let two = "name = \"a\"\n[[member]]\nname = \"m\"\n[[gateway]]\nlisten = \"127.0.0.1:1\"\n[[gateway]]\nlisten = \"127.0.0.1:1\"\n";
    one(two, "7:10 ", &["of another gateway"]);
}

#[test]
fn impossible_security_settings() {
    one(
        &format!("name = \"a\"\n[tls]\nvalidity-days = 0\n{TAIL}"),
        "3:17 ",
        &["`validity-days` cannot be 0"],
    );
    one(
        &format!("name = \"a\"\n[tls]\nextra-sans = [\"ok.example\", \"not ok\"]\n{TAIL}"),
        "3:29 ",
        &["neither an IP address nor a DNS name"],
    );
    one(
        &format!("name = \"a\"\n[tls]\nca = {{ cert = \"x\" }}\n{TAIL}"),
        "3:6 ",
        &["has no `key`"],
    );
    for (clients, part) in [
        ("\"root\"", "there is a client certificate of root already"),
        ("\"a\", \"a\"", "there is a client certificate of a already"),
        ("\"../a\"", "\"../a\" cannot be the name of a client"),
        ("\"\"", "\"\" cannot be the name of a client"),
    ] {
        let text = format!(
            "name = \"a\"\n[tls]\nclient = \"mutual\"\npeer = \"mutual\"\nclients = [{clients}]\n{TAIL}"
        );
        one(&text, "5:", &[part]);
    }
    one(
        &format!("name = \"a\"\n[tls]\nclients = [\"a\"]\n{TAIL}"),
        "3:11 ",
        &["certificates of clients are checked with client = \"mutual\" only"],
    );
    one(
        &format!("name = \"a\"\n[bootstrap]\ntoken = \"\"\n{TAIL}"),
        "3:9 ",
        &["the token is empty"],
    );
}

#[test]
fn a_backup_table_says_what_can_be_done() {
    for (line, column, part) in [
        ("keep = 0", 8, "`keep` cannot be 0"),
        ("keep-for = \"30\"", 12, "\"30\" has no unit"),
        ("schedule = \" \"", 12, "\" \" is no calendar event"),
        (
            "encrypt-to = [\"age1x\"]",
            15,
            "\"age1x\" is no age recipient",
        ),
        ("dir = \"a\\nb\"", 7, "is not a directory"),
    ] {
        let text = format!("name = \"a\"\n[backup]\n{line}\n{TAIL}");
        one(&text, &format!("3:{column} "), &[part]);
    }
}

#[test]
fn all_problems_of_a_file_are_reported_together_once_each() {
    let text = "nmae = \"a\"\n[tls]\npeer = \"mutal\"\n[defaults]\nheartbeat-interval = true\n[[member]]\nname = 3\nadress = \"x\"\n";
    let found = problems(text);
    assert_eq!(found.len(), 5, "{found:#?}");
    // Five members share one place in the file.
    assert_eq!(
        problems(
            "name = \"a\"\n[defaults]\nsnapshot-count = \"x\"\n[[member]]\nname = \"m{0..4}\"\n"
        )
        .len(),
        1
    );
}

#[test]
fn the_report_is_golden() {
    let text = "name = \"demo\"\n\n[tls]\npeer = \"mutal\"\n\n[[member]]\nname    = \"infra{0..2}\"\nadress  = \"10.0.1.{10..12}\"\n";
    insta::assert_snapshot!("report", parse(text).unwrap_err().report(false).unwrap());
}

/// `code line:column` of every warning.
fn warnings(text: &str) -> Vec<String> {
    let loaded = valid(text);
    assert!(
        loaded
            .warnings
            .iter()
            .all(|warning| warning.severity == Severity::Warning)
    );
    loaded
        .warnings
        .iter()
        .map(|warning| {
            format!(
                "{} {}:{}",
                warning.code.unwrap(),
                warning.line,
                warning.column
            )
        })
        .collect()
}

#[test]
fn lints_warn_where_the_cause_stands() {
    let members = |count: usize| format!("[[member]]\nname = \"m{{1..{count}}}\"\n");
    for (text, expected) in [
        (members(2), "even-members 1:8"),
        (members(9), "many-members 1:8"),
        ("[[member]]\nname = \"m{0..2}\"\nzone = \"{a,a,b}\"\n".into(), "zone-majority 4:8"),
        ("[[member]]\nname = \"m{0..2}\"\naddress = \"{127.0.0.1,10.0.0.1,10.0.0.2}\"\n".into(), "advertised-loopback 2:1"),
        ("[[member]]\nname = \"m\"\nlisten = \"0.0.0.0\"\n".into(), "advertised-loopback 2:1"),
        (format!("[tls]\nclient = \"mutual\"\n{}", members(3)), "http-beside-https 2:2"),
        (format!("[bootstrap]\ntoken = \"t\"\n{}", members(3)), "fixed-token 3:9"),
        (format!("[defaults]\nelection-timeout = 900\n{}", members(3)), "election-timeout 3:20"),
        (format!("[tls]\nca = {{ cert = \"c\", key = \"k\" }}\n{}", members(3)), "unused-ca 3:1"),
        ("[[member]]\nname = \"m{0..1}\"\n[[member]]\nname = \"n\"\nflags = { heartbeat-interval = 90 }\n".into(), "uneven-timing 2:1"),
        ("[[member]]\nname = \"m\"\nhost = \"ssh://a\"\n".into(), "no-backup 1:8"),
    ] {
        let text = format!("name = \"a\"\n{text}");
        assert_eq!(warnings(&text), [expected], "{text}");
    }
}

#[test]
fn lints_are_waived_with_a_reason() {
    let text = |allow: &str| {
        format!("name = \"a\"\n[lints]\nallow = {{ {allow} }}\n[[member]]\nname = \"m{{0..1}}\"\n")
    };
    assert_eq!(
        warnings(&text("even-members = \"moving to three\"")),
        Vec::<String>::new()
    );
    assert_eq!(
        warnings(&text("even-members = \"x\", fixed-token = \"y\"")),
        ["unused-waiver 3:31"]
    );
    one(
        &text("even-member = \"x\""),
        "3:11 ",
        &[
            "there is no lint `even-member`",
            "did you mean `even-members`?",
        ],
    );
    one(&text("even-members = \" \""), "3:26 ", &["gives no reason"]);
}

#[test]
fn paths_are_below_the_file_or_home_and_names_are_looked_up() {
    let text = "name = \"a\"\n[tls]\npeer = \"mutual\"\nclient = \"mutual\"\nca = { cert = \"pki/ca.crt\", key = \"~/ca.key\" }\n[[member]]\nname = \"m\"\nbinary = \"./etcd\"\n[[member]]\nname = \"n\"\nbinary = \"etcd\"\n[[member]]\nname = \"o\"\n";
    let topology = valid(text).topology;
    let ca = topology.tls.ca.unwrap();
    assert_eq!(
        (ca.cert.as_path(), ca.key.as_path()),
        (Path::new("/base/pki/ca.crt"), Path::new("/home/op/ca.key"))
    );
    let binaries: Vec<Binary> = topology
        .members
        .into_iter()
        .map(|member| member.binary)
        .collect();
    assert_eq!(
        binaries,
        [
            Binary::Path("/base/./etcd".into()),
            Binary::Path("etcd".into()),
            Binary::Included
        ]
    );
}

#[test]
fn files_that_are_no_topologies() {
    let temp = tempfile::tempdir().unwrap();
    let binary = temp.path().join("binary.toml");
    std::fs::write(&binary, b"name = \"a\"\n\xff\xfe").unwrap();
    let invalid = topology::load(&binary).unwrap_err();
    assert_eq!(
        (
            invalid.problems()[0].line,
            invalid.problems()[0].message.as_str()
        ),
        (2, "the file is not text in UTF-8")
    );
    let missing = topology::load(&temp.path().join("none.toml")).unwrap_err();
    assert!(missing.fix().unwrap().contains("provision init"));
    assert!(topology::load(temp.path()).is_err());
    let huge = temp.path().join("huge.toml");
    std::fs::write(&huge, vec![b'#'; (4 << 20) + 1]).unwrap();
    assert!(matches!(topology::load(&huge), Err(Invalid::Read { .. })));
}

proptest! {
    #[test]
    fn any_text_is_valid_or_located(text in "[ -~\n]{0,200}") {
        if let Err(invalid) = parse(&text) {
            prop_assert!(invalid.problems().iter().all(|problem| problem.line >= 1 && problem.column >= 1 && problem.span.end <= text.len()));
            invalid.report(false);
        }
    }

    #[test]
    fn any_value_of_any_key_is_valid_or_located(
        key in "(name|address|listen|zone|binary|client-port|peer-port|host|role|other)",
        value in "[a-z0-9{}.,:/$-]{0,12}",
    ) {
        let text = format!("name = \"a\"\n[[member]]\nname = \"m\"\n[[member]]\n{key} = \"{value}\"\n");
        if let Err(invalid) = parse(&text) {
            prop_assert!(!invalid.problems().is_empty());
        }
    }

    #[test]
    fn the_resolved_form_means_the_same(
        count in 1_usize..8,
        zones in proptest::option::of("[a-z $]{1,8}[a-z]"),
        days in 1_u32..3650,
        heartbeat in 10_u32..100,
        peer in "(off|mutual)",
        client in "(off|server|mutual)",
        ports in proptest::option::of(1024_u16..60000),
    ) {
        let mut text = format!("name = \"a\"\n[tls]\npeer = \"{peer}\"\nclient = \"{client}\"\nvalidity-days = {days}\n[defaults]\nheartbeat-interval = {heartbeat}\n[[member]]\nname = \"m{{1..{count}}}\"\n");
        if let Some(zone) = zones {
            text.push_str(&format!("zone = \"{zone}\"\n"));
        }
        if let Some(port) = ports {
            text.push_str(&format!("client-port = \"{{{port}..{}}}\"\n", usize::from(port) + count - 1));
        }
        let topology = valid(&text).topology;
        let resolved = topology::to_toml(&topology);
        prop_assert_eq!(valid(&resolved).topology, topology, "{}", resolved);
    }
}
