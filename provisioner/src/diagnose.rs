//! Why a member does not come up, in one line, and what to do: read from what it logs. Pure.
//!
//! The texts are etcd's, which the included member says too. Where etcd's guides tell what to do, the fix is theirs.
//! Rules stand in the order of how much they say, because one line may hold the texts of several.

use serde_json::Value;

/// A root cause and its cure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnosis {
    /// What is wrong.
    pub cause: String,
    /// What to do.
    pub fix: String,
}

/// Parts of a line, all of which it must hold, with cause and fix.
struct Rule(&'static [&'static str], &'static str, &'static str);

const RULES: &[Rule] = &[
    Rule(
        &["address already in use"],
        "another process holds one of its ports",
        "`ss -ltnp` shows who: stop it, or give the member another port",
    ),
    Rule(
        &["cannot assign requested address"],
        "it listens on an address that this host does not have",
        "correct `listen` or `address` of the member; `ip address` lists the host's",
    ),
    Rule(
        &["permission denied"],
        "it may not use one of its files or directories",
        "give the user that runs it its data directory (mode 0700) and its keys (mode 0600)",
    ),
    Rule(
        &["no space left on device"],
        "its disk is full",
        "free some space on the file system of its data directory, then run `provision up` again",
    ),
    Rule(
        &["doesn’t have a size configuration value"],
        "the discovery token has no size",
        "set it: curl -X PUT TOKEN-URL/_config/size -d value=3, or take a token from a service's /new?size=3",
    ),
    Rule(
        &["100: Key not found", "discovery"],
        "the discovery token has no size",
        "set it: curl -X PUT TOKEN-URL/_config/size -d value=3, or take a token from a service's /new?size=3",
    ),
    Rule(
        &["size key not found"],
        "the discovery token has no size",
        "put it into the service: etcdctl put /_etcd/registry/TOKEN/_config/size 3",
    ),
    Rule(
        &["size key is bad"],
        "the size of the discovery token is no number of members",
        "set it to the number of members: curl -X PUT TOKEN-URL/_config/size -d value=3",
    ),
    Rule(
        &["discovery", "cluster is full"],
        "as many members as the discovery token waits for have registered already",
        "a token is for one cluster, once: take a new one of the right size",
    ),
    Rule(
        &["found duplicate name"],
        "another member has registered under the same name with the discovery service",
        "a token is for one cluster, once: take a new one, and give every member its own name",
    ),
    Rule(
        &["found duplicate id"],
        "a member with the same URLs has registered with the discovery service",
        "a token is for one cluster, once: start over with `provision down --purge`, and with the URL of a new token if the file has one",
    ),
    Rule(
        &["bad discovery endpoint"],
        "what answers at the discovery URL is no discovery service",
        "correct the URL; `curl URL` should answer JSON",
    ),
    Rule(
        &["discovery", "URL must not contain"],
        "the discovery URL has more than a scheme, a host and the path of a token",
        "where it ends with /new?size=3, fetch it once with curl and take the URL that it answers",
    ),
    Rule(
        &["discovery", "URL scheme must be"],
        "the discovery URL is none of http or https",
        "correct the URL; `curl URL` should answer JSON",
    ),
    Rule(
        &["discovery", "parse \""],
        "the discovery URL is malformed",
        "correct the URL; `curl URL` should answer JSON",
    ),
    // etcd says it of whatever it has no other word for, so that everything else comes first.
    Rule(
        &["discovery token was already used"],
        "the discovery token belongs to a cluster that has been founded",
        "a token is for one cluster, once: take a new one",
    ),
    Rule(
        &["failed to join discovery cluster"],
        "the discovery service does not answer",
        "check its URL, and that this host reaches it: curl URL",
    ),
    Rule(
        &["error querying DNS SRV records", "connection refused"],
        "nobody answers at the address of the name server",
        "correct `nameserver` in /etc/resolv.conf, or start the name server",
    ),
    Rule(
        &["error querying DNS SRV records", "i/o timeout"],
        "the name server does not answer",
        "correct `nameserver` in /etc/resolv.conf, or make the name server reachable",
    ),
    Rule(
        &["error querying DNS SRV records"],
        "the domain has no SRV records of the cluster",
        "publish them: `provision render --format dns-zone` prints the zone; `dig +short SRV _etcd-server._tcp.DOMAIN` asks for them",
    ),
    Rule(
        &["setting up initial cluster", "SRV"],
        "the SRV records of the domain are not those of this cluster",
        "compare them with what `provision render --format dns-zone` prints",
    ),
    Rule(
        &["has different advertised URLs"],
        "it advertises other peer URLs than the cluster's list has for it",
        "make `address` and `peer-port` the ones that the others were told",
    ),
    Rule(
        &["missing from --initial-advertise-peer-urls"],
        "it advertises other peer URLs than the cluster's list has for it",
        "make `address` and `peer-port` the ones that the others were told",
    ),
    Rule(
        &["couldn't find local name"],
        "the cluster's list of members does not have its name",
        "make its name one of the list's; with SRV records, one record must resolve to what it advertises",
    ),
    Rule(
        &["cluster ID mismatch"],
        "it talks to a member of another cluster, made from the same addresses",
        "stop the other one, or remove the data that the older of them left",
    ),
    Rule(
        &["clusterID mismatch"],
        "it talks to a member of another cluster, made from the same addresses",
        "stop the other one, or remove the data that the older of them left",
    ),
    Rule(
        &["permanently removed from the cluster"],
        "the cluster has removed it",
        "remove its data directory and add it again: etcdctl member add",
    ),
    Rule(
        &["member count is unequal"],
        "it was told of another number of members than the cluster has",
        "add it first (etcdctl member add), then start it with the list that this prints",
    ),
    Rule(
        &["has already been bootstrapped"],
        "the cluster knows it with data that is gone",
        "restore its data directory, or replace it: etcdctl member remove, then member add",
    ),
    Rule(
        &["certificate has expired"],
        "a certificate has expired",
        "run `provision up`, which renews those that it made; renew your own",
    ),
    Rule(
        &["signed by unknown authority"],
        "a certificate is of another CA",
        "members and clients of one cluster must be given certificates of one CA",
    ),
    Rule(
        &["private key does not match public key"],
        "a certificate and its key are of different pairs",
        "put the pair right; `provision up` makes its own again when one is gone",
    ),
    Rule(
        &["failed to find any PEM data"],
        "a certificate file is no PEM",
        "put the file right; `provision up` makes its own again when it is gone",
    ),
];

/// The last thing in a log that explains itself.
#[must_use]
pub fn diagnose(lines: &[String]) -> Option<Diagnosis> {
    lines.iter().rev().find_map(|line| of(&said(line)))
}

fn of(line: &str) -> Option<Diagnosis> {
    wrong_name(line).or_else(|| {
        let Rule(_, cause, fix) = RULES
            .iter()
            .find(|Rule(parts, ..)| parts.iter().all(|part| holds(line, part)))?;
        Some(Diagnosis {
            cause: (*cause).to_owned(),
            fix: (*fix).to_owned(),
        })
    })
}

// The system's own texts begin with a capital letter in Rust and with a small one in Go.
fn holds(line: &str, part: &str) -> bool {
    line.to_ascii_lowercase()
        .contains(&part.to_ascii_lowercase())
}

/// A certificate that does not hold the name or address by which its owner is reached.
fn wrong_name(line: &str) -> Option<Diagnosis> {
    let (missing, held) = if let Some((_, rest)) = line.split_once("certificate is valid for ") {
        let (held, rest) = rest.split_once(", not ")?;
        (rest.split([' ', '"', ')']).next()?, held.to_owned())
    } else {
        let (before, after) = line.split_once(" does not match any of DNSNames [")?;
        let names = after.split(']').next()?;
        let missing = before.trim_end_matches(['"', '\\']);
        let missing = missing.rsplit(['"', '\\', ' ']).next()?;
        (missing, names.replace(['"', '\\'], ""))
    };
    let held = if held.is_empty() {
        "no name".to_owned()
    } else {
        held
    };
    Some(Diagnosis {
        cause: format!("the certificate of {missing} does not hold {missing}: it holds {held}"),
        fix: format!(
            "add \"{missing}\" to extra-sans in [tls] and run `provision up` again; add it to a certificate of your own"
        ),
    })
}

/// What a line says: text and error of a JSON line, or the line.
fn said(line: &str) -> String {
    match serde_json::from_str::<Value>(line) {
        Ok(Value::Object(fields)) => {
            let texts = fields.values().filter_map(Value::as_str);
            texts.collect::<Vec<_>>().join(": ")
        }
        _ => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cause(line: &str) -> Option<String> {
        diagnose(&[line.to_owned()]).map(|diagnosis| diagnosis.cause)
    }

    #[test]
    fn a_wrong_name_says_which_is_missing_from_which_certificate() {
        let etcd = r#"{"level":"warn","msg":"rejected connection","remote-addr":"10.0.1.12:1","error":"tls: \"10.0.1.12\" does not match any of DNSNames [\"localhost\" \"infra2\"]"}"#;
        assert_eq!(
            cause(etcd).unwrap(),
            "the certificate of 10.0.1.12 does not hold 10.0.1.12: it holds localhost infra2"
        );
        let old = r#"embed: rejected connection from "10.0.1.12:1" (error "tls: \"10.0.1.12\" does not match any of DNSNames []", ServerName "")"#;
        assert_eq!(
            cause(old).unwrap(),
            "the certificate of 10.0.1.12 does not hold 10.0.1.12: it holds no name"
        );
        let client = "x509: certificate is valid for 127.0.0.1, localhost, not infra0.example.com";
        assert_eq!(
            cause(client).unwrap(),
            "the certificate of infra0.example.com does not hold infra0.example.com: it holds 127.0.0.1, localhost"
        );
    }

    #[test]
    fn a_failed_discovery_is_told_by_its_reason() {
        let line = |reason: &str| {
            format!(
                r#"{{"level":"fatal","msg":"failed to bootstrap; discovery token was already used","error":"failed to join discovery cluster ({reason})"}}"#
            )
        };
        for (reason, expected) in [
            (
                r#"discovery: bad discovery endpoint: 200 OK "<html>""#,
                "what answers at the discovery URL is no discovery service",
            ),
            (
                "discovery: bad discovery endpoint: it redirects more than 10 times",
                "what answers at the discovery URL is no discovery service",
            ),
            (
                "URL must not contain a user, a query or a fragment: http://h/new?size=3",
                "the discovery URL has more than a scheme, a host and the path of a token",
            ),
            (
                r#"parse "http://[::1/x": missing ']' in host"#,
                "the discovery URL is malformed",
            ),
            (
                r#"parse "http://h:99999/x": invalid port"#,
                "the discovery URL is malformed",
            ),
            (
                "URL scheme must be http, https, unix, or unixs: foo",
                "the discovery URL is none of http or https",
            ),
            (
                r#"discovery: size key is bad: "0" is not a number of members"#,
                "the size of the discovery token is no number of members",
            ),
            (
                "100: Key not found (/discovery/t) [7]",
                "the discovery token has no size",
            ),
            (
                "discovery: cluster is full",
                "as many members as the discovery token waits for have registered already",
            ),
            (
                "105: Key already exists (/discovery/t/1) [9]",
                "the discovery token belongs to a cluster that has been founded",
            ),
        ] {
            assert_eq!(cause(&line(reason)).as_deref(), Some(expected), "{reason}");
        }
        assert_eq!(
            cause(
                "failed to join discovery cluster (discovery: no answer from http://h:1 for 30s)"
            )
            .unwrap(),
            "the discovery service does not answer"
        );
    }

    #[test]
    fn a_name_server_that_is_silent_is_told_from_one_without_records() {
        for (reason, expected) in [
            (
                "read udp 127.0.0.1:38034->127.0.0.1:53: read: connection refused",
                "nobody answers at the address of the name server",
            ),
            ("i/o timeout", "the name server does not answer"),
            (
                "no such host",
                "the domain has no SRV records of the cluster",
            ),
        ] {
            let line = format!(
                "error setting up initial cluster: error querying DNS SRV records for _etcd-server \
                 lookup _etcd-server._tcp.example.com on 127.0.0.1:53: {reason}"
            );
            assert_eq!(cause(&line).as_deref(), Some(expected), "{reason}");
        }
    }

    #[test]
    fn the_last_line_that_explains_something_counts() {
        let lines = [
            "listen tcp: bind: address already in use",
            "no space left on device",
            "bye",
        ];
        let diagnosis = diagnose(&lines.map(str::to_owned)).unwrap();
        assert_eq!(diagnosis.cause, "its disk is full");
        assert_eq!(
            cause("Permission denied (os error 13)"),
            cause("open /x: permission denied")
        );
        assert_eq!(diagnose(&["all is well".to_owned()]), None);
    }
}
