//! Lints: a topology that works but is rarely meant. Each has a code, and the file waives it with a reason:
//! `[lints] allow = { even-members = "moving from four to five" }`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::invalid::Problem;
use super::model::{Backup, Bootstrap, ClientTls, Member, PeerTls, Role, Topology};
use super::schema::File;
use super::spans::{Path, Spans};
use super::suggest::nearest;

/// A lint and what it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LintDef {
    /// What `[lints] allow` names.
    pub code: &'static str,
    /// What it warns of.
    pub meaning: &'static str,
}

const EVEN: &str = "even-members";
const MANY: &str = "many-members";
const ZONE: &str = "zone-majority";
const LOOPBACK: &str = "advertised-loopback";
const MIXED: &str = "http-beside-https";
const TOKEN: &str = "fixed-token";
const ELECTION: &str = "election-timeout";
const TIMING: &str = "uneven-timing";
const UNUSED_CA: &str = "unused-ca";
const NO_BACKUP: &str = "no-backup";
const UNUSED: &str = "unused-waiver";

/// Every lint.
pub const LINTS: &[LintDef] = &[
    LintDef {
        code: EVEN,
        meaning: "an even number of voters survives no more failures than one fewer",
    },
    LintDef {
        code: MANY,
        meaning: "more than seven voters make every write slower",
    },
    LintDef {
        code: ZONE,
        meaning: "one zone holds a majority: losing it loses the cluster",
    },
    LintDef {
        code: LOOPBACK,
        meaning: "a loopback address is advertised to members or clients on other machines",
    },
    LintDef {
        code: MIXED,
        meaning: "one port is encrypted and the other is not",
    },
    LintDef {
        code: TOKEN,
        meaning: "clusters made from one token can mix",
    },
    LintDef {
        code: ELECTION,
        meaning: "the election timeout is under ten heartbeats",
    },
    LintDef {
        code: TIMING,
        meaning: "members with different heartbeats or election timeouts disturb each other",
    },
    LintDef {
        code: UNUSED_CA,
        meaning: "a CA is given and no port shows a certificate that it signs",
    },
    LintDef {
        code: NO_BACKUP,
        meaning: "members on hosts hold data that nothing backs up",
    },
    LintDef {
        code: UNUSED,
        meaning: "a waiver for a warning that does not occur",
    },
];

/// Warnings of the lints that are not waived; errors for waivers that name no lint or give no reason.
pub(super) fn lint(topology: &Topology, raw: &File, spans: &Spans<'_>) -> Vec<Problem> {
    let mut found = Vec::new();
    members(topology, spans, &mut found);
    zones(topology, raw, spans, &mut found);
    loopback(topology, spans, &mut found);
    security(topology, spans, &mut found);
    timing(topology, spans, &mut found);
    backups(topology, spans, &mut found);
    waive(found, &raw.lints.allow, spans)
}

fn waive(found: Vec<Problem>, allow: &BTreeMap<String, String>, spans: &Spans<'_>) -> Vec<Problem> {
    let base = Path::root().key("lints").key("allow");
    let mut kept = Vec::new();
    for (code, reason) in allow {
        let path = base.key(code);
        if LINTS.iter().all(|lint| lint.code != code) {
            let codes: Vec<&str> = LINTS.iter().map(|lint| lint.code).collect();
            let help = match nearest(code, codes.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("the lints are: {}", codes.join(", ")),
            };
            kept.push(
                Problem::error(
                    spans.key(&path),
                    format!("there is no lint `{code}`"),
                    "unknown lint",
                )
                .help(help),
            );
        } else if reason.trim().is_empty() {
            kept.push(
                Problem::error(
                    spans.value(&path),
                    format!("the waiver of `{code}` gives no reason"),
                    "empty",
                )
                .help("say why it is right here, for the next reader"),
            );
        } else if found.iter().all(|problem| problem.code != Some(code))
            && !allow.contains_key(UNUSED)
        {
            kept.push(
                Problem::warning(
                    spans.key(&path),
                    UNUSED,
                    format!("the waiver of `{code}` is not needed"),
                    "nothing to waive",
                )
                .help("remove it"),
            );
        }
    }
    kept.extend(
        found
            .into_iter()
            .filter(|problem| problem.code.is_none_or(|code| !allow.contains_key(code))),
    );
    kept
}

fn members(topology: &Topology, spans: &Spans<'_>, found: &mut Vec<Problem>) {
    let voters = topology.members.iter();
    let count = voters.filter(|member| member.role == Role::Voter).count();
    let place = spans.value(&Path::root().key("name"));
    if count.is_multiple_of(2) {
        let survives = count / 2 - 1;
        found.push(
            Problem::warning(
                place.clone(),
                EVEN,
                format!(
                    "{count} members survive {survives} failure{}, as {} do",
                    if survives == 1 { "" } else { "s" },
                    count - 1
                ),
                "this cluster",
            )
            .help("use 3 or 5 members, or 1 for a sandbox"),
        );
    }
    if count > 7 {
        found.push(
            Problem::warning(
                place,
                MANY,
                format!("{count} voters make every write wait for {}", count / 2 + 1),
                "this cluster",
            )
            .help("use 5, or at most 7"),
        );
    }
}

fn zones(topology: &Topology, raw: &File, spans: &Spans<'_>, found: &mut Vec<Problem>) {
    let mut zones: BTreeMap<&str, usize> = BTreeMap::new();
    for zone in topology
        .members
        .iter()
        .filter_map(|member| member.zone.as_deref())
    {
        *zones.entry(zone).or_default() += 1;
    }
    let majority = topology.members.len() / 2 + 1;
    // A single zone is a choice, not a spread that went wrong.
    if zones.len() < 2 {
        return;
    }
    let index = raw
        .member
        .iter()
        .position(|member| member.zone.is_some())
        .unwrap_or(0);
    let place = spans.value(&Path::root().key("member").index(index).key("zone"));
    for (zone, count) in zones.into_iter().filter(|(_, count)| *count >= majority) {
        found.push(
            Problem::warning(
                place.clone(),
                ZONE,
                format!(
                    "zone {zone} holds {count} of {} members: losing it loses the cluster",
                    topology.members.len()
                ),
                "zones",
            )
            .help("spread the members over at least three zones"),
        );
    }
}

fn is_loopback(host: &str) -> bool {
    host.parse::<IpAddr>()
        .map_or(host == "localhost" || host.ends_with(".localhost"), |ip| {
            ip.is_loopback()
        })
}

fn loopback(topology: &Topology, spans: &Spans<'_>, found: &mut Vec<Problem>) {
    let reachable = |member: &Member| !is_loopback(&member.address);
    let listens_outside = |member: &Member| !member.listen.is_loopback();
    let others_outside = topology.members.iter().any(reachable);
    let Some(member) = topology
        .members
        .iter()
        .find(|member| is_loopback(&member.address) && (others_outside || listens_outside(member)))
    else {
        return;
    };
    let why = if others_outside {
        "members elsewhere cannot reach it"
    } else {
        "clients elsewhere are told to come there"
    };
    let place = spans.value(&Path::root().key("member"));
    found.push(
        Problem::warning(
            place,
            LOOPBACK,
            format!("{} advertises {}, and {why}", member.name, member.address),
            "members",
        )
        .help("give every member an `address` that all others and the clients reach"),
    );
}

fn security(topology: &Topology, spans: &Spans<'_>, found: &mut Vec<Problem>) {
    let tls = &topology.tls;
    let path = Path::root().key("tls");
    let (peer, client) = (tls.peer != PeerTls::Off, tls.client != ClientTls::Off);
    if peer != client {
        let (plain, safe) = if peer {
            ("client", "peer")
        } else {
            ("peer", "client")
        };
        found.push(
            Problem::warning(
                spans.key(&path),
                MIXED,
                format!("the {plain} port speaks plain HTTP beside an encrypted {safe} port"),
                "transport security",
            )
            .help(format!("set {plain} = \"mutual\"")),
        );
    }
    if tls.ca.is_some() && !tls.peer.is_signed() && !tls.client.is_signed() {
        found.push(
            Problem::warning(
                spans.key(&path.key("ca")),
                UNUSED_CA,
                "a CA is given, and no port shows a certificate that it signs",
                "not used",
            )
            .help("set peer = \"mutual\" and client = \"mutual\""),
        );
    }
    let in_url = matches!(topology.bootstrap, Bootstrap::Discovery { .. });
    if topology.bootstrap.token().is_some() && !in_url {
        found.push(
            Problem::warning(
                spans.value(&Path::root().key("bootstrap").key("token")),
                TOKEN,
                "a token in the file is shared by every cluster that is made from it, and their members can mix",
                "fixed token",
            )
            .help("remove it: a unique one is generated and remembered"),
        );
    }
}

// A cluster of processes here is a sandbox; one on hosts is there to last.
fn backups(topology: &Topology, spans: &Spans<'_>, found: &mut Vec<Problem>) {
    let scheduled = |backup: &Backup| backup.schedule.is_some();
    let on_hosts = topology.members.iter().any(|member| member.host.is_some());
    if !on_hosts || topology.backup.as_ref().is_some_and(scheduled) {
        return;
    }
    found.push(
        Problem::warning(
            spans.value(&Path::root().key("name")),
            NO_BACKUP,
            "nothing backs this cluster up",
            "this cluster",
        )
        .help("add [backup] with `schedule = \"daily\"`, then run `provision backup --install-timer`; or waive this where something else does it"),
    );
}

fn timing(topology: &Topology, spans: &Spans<'_>, found: &mut Vec<Problem>) {
    let root = Path::root();
    let place = |name: &str| {
        let in_defaults = root.key("defaults").key(name);
        if spans.has(&in_defaults) {
            spans.value(&in_defaults)
        } else {
            spans.value(&root.key("member"))
        }
    };
    let millis = |member: &Member, name: &str, default: u64| {
        member
            .flags
            .get(name)
            .map_or(Some(default), |text| text.parse().ok())
    };
    let mut pairs = BTreeSet::new();
    for member in &topology.members {
        // Values that are no numbers were refused before.
        let (Some(heartbeat), Some(election)) = (
            millis(member, "heartbeat-interval", 100),
            millis(member, "election-timeout", 1000),
        ) else {
            continue;
        };
        if pairs.insert((heartbeat, election)) && election < heartbeat.saturating_mul(10) {
            found.push(
                Problem::warning(
                    place("election-timeout"),
                    ELECTION,
                    format!("an election timeout of {election} ms is under ten heartbeats of {heartbeat} ms: a short pause elects a new leader"),
                    "election timeout",
                )
                .help(format!("use at least {} ms, and ten round trips between the members", heartbeat.saturating_mul(10))),
            );
        }
    }
    if pairs.len() > 1 {
        found.push(
            Problem::warning(
                place("heartbeat-interval"),
                TIMING,
                "members have different heartbeats or election timeouts",
                "timing",
            )
            .help("set both in [defaults], the same for all"),
        );
    }
}
