//! `status`

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;

use crate::apply::{Interrupt, Second};
use crate::cli::StatusArgs;
use crate::cluster::{Asked, Cluster, Known};
use crate::context::Context;
use crate::error::{Error, ExitCode};
use crate::observe::{Health, MemberFacts, Observed};
use crate::output::{Document, Format, Table};
use crate::pki;
use crate::plan::{Ledger, arguments};
use crate::render::client_url;
use crate::runtime::runtime;
use crate::services::{self, Service};
use crate::topology::{Member, Role};

const WATCH_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, Serialize)]
struct Status {
    name: String,
    health: Verdict,
    quorum: Ledger,
    members: Vec<MemberStatus>,
    /// What runs beside the members.
    services: Vec<ServiceStatus>,
}

#[derive(Debug, Serialize)]
struct ServiceStatus {
    name: String,
    state: &'static str,
    /// Where it listens; nothing when the topology has it no more.
    address: Option<SocketAddr>,
    pid: Option<u32>,
    /// Whether the cluster is degraded without it.
    needed: bool,
    drift: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Verdict {
    Healthy,
    Degraded,
    QuorumLost,
}

#[derive(Debug, Serialize)]
struct MemberStatus {
    name: String,
    state: &'static str,
    id: Option<String>,
    pid: Option<u32>,
    host: String,
    role: &'static str,
    leader: bool,
    term: Option<u64>,
    revision: Option<i64>,
    applied_index: Option<u64>,
    applied_lag: Option<u64>,
    db_size: Option<i64>,
    version: Option<String>,
    endpoints: Vec<String>,
    cert_days_left: Option<i64>,
    alarms: Vec<String>,
    drift: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

impl Document for Status {
    fn table(&self) -> Table {
        let mut table = Table::new([
            "member",
            "state",
            "id",
            "role",
            "term",
            "revision",
            "lag",
            "db size",
            "version",
            "cert days",
            "pid",
            "endpoint",
        ]);
        let show = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        let mut notes = Vec::new();
        for member in &self.members {
            table.row([
                member.name.clone(),
                member.state.to_owned(),
                show(member.id.clone()),
                if member.leader {
                    "leader".to_owned()
                } else {
                    member.role.to_owned()
                },
                show(member.term.map(|term| term.to_string())),
                show(member.revision.map(|revision| revision.to_string())),
                show(member.applied_lag.map(|lag| lag.to_string())),
                show(member.db_size.map(bytes)),
                show(member.version.clone()),
                show(member.cert_days_left.map(|days| days.to_string())),
                show(member.pid.map(|pid| pid.to_string())),
                member.endpoints.join(","),
            ]);
            notes.extend(
                member
                    .problem
                    .iter()
                    .map(|problem| format!("{}: {problem}", member.name)),
            );
            notes.extend(
                member
                    .alarms
                    .iter()
                    .map(|alarm| format!("{}: alarm {alarm}", member.name)),
            );
            notes.extend(
                member
                    .drift
                    .iter()
                    .map(|drift| format!("{}: differs from the topology: {drift}", member.name)),
            );
        }
        for service in &self.services {
            notes.push(format!("{}: {}", service.name, service.line(&self.name)));
            let drift = service.drift.iter();
            notes.extend(
                drift.map(|drift| format!("{}: differs from the topology: {drift}", service.name)),
            );
        }
        let verdict = match self.health {
            Verdict::Healthy => "is healthy",
            Verdict::Degraded => "is degraded, quorum held",
            Verdict::QuorumLost => "has lost its quorum",
        };
        let missing = self.services.iter().filter(|service| service.is_missing());
        let missing: String = missing
            .map(|service| format!("; {} is stopped", service.name))
            .collect();
        notes.push(format!(
            "cluster {} {verdict} ({}{missing})",
            self.name, self.quorum
        ));
        table.with_after(notes.join("\n"))
    }

    fn lines(&self) -> Vec<Value> {
        self.members
            .iter()
            .filter_map(|member| serde_json::to_value(member).ok())
            .collect()
    }
}

impl ServiceStatus {
    fn is_missing(&self) -> bool {
        self.needed && self.pid.is_none()
    }

    /// What of it stands behind its name.
    fn line(&self, cluster: &str) -> String {
        let mut line = self.state.to_owned();
        if let Some(address) = self.address {
            line.push_str(&format!(", {address}"));
        }
        match self.pid {
            Some(pid) => line.push_str(&format!(", pid {pid}")),
            None if self.needed => {
                line.push_str(&format!(", which `provision up {cluster}` starts"))
            }
            None => line.push_str(", which only members without data need"),
        }
        line
    }
}

/// Runs `status`.
///
/// # Errors
/// The cluster is unknown or its state cannot be read.
pub fn run(args: &StatusArgs, context: &Context) -> Result<ExitCode, Error> {
    runtime()?.block_on(async {
        let known = Known::open(&args.target, context)?;
        if !args.watch {
            return show(&known, args.timeout, context).await;
        }
        let interrupt = Interrupt::listen(Second::Exits)?;
        let clear = std::io::stdout().is_terminal() && context.output.format() == Format::Table;
        loop {
            if clear {
                // Home and erase: the table replaces the one before.
                context.output.raw(b"\x1b[H\x1b[2J")?;
            }
            show(&known, args.timeout, context).await?;
            tokio::select! {
                () = tokio::time::sleep(WATCH_EVERY) => {}
                () = interrupt.token().cancelled() => return Ok(ExitCode::Interrupted),
            }
        }
    })
}

async fn show(known: &Known, limit: Duration, context: &Context) -> Result<ExitCode, Error> {
    let observed = known.observe(limit).await?;
    let status = status(known, &observed, context);
    let code = match status.health {
        Verdict::Healthy => ExitCode::Ok,
        Verdict::Degraded => ExitCode::Degraded,
        Verdict::QuorumLost => ExitCode::QuorumLost,
    };
    context.output.data(&status)?;
    Ok(code)
}

fn status(known: &Known, observed: &Observed, context: &Context) -> Status {
    let mut topology = known.topology.clone();
    topology
        .members
        .retain(|member| !known.leaving.contains(&member.name));
    let cluster = Cluster::new(topology, &context.state_root);
    // Without its binary a member's wanted arguments cannot be told; everything else can.
    let (wanted, wanted_services) = cluster
        .programs()
        .and_then(|programs| cluster.prepare(programs, Asked::Nothing))
        .map(|prepared| (prepared.argv, prepared.services))
        .unwrap_or_default();
    let services = service_status(known, observed, &wanted_services);
    let leader_index = known
        .topology
        .members
        .iter()
        .filter(|member| observed.leads(&member.name))
        .find_map(|member| {
            observed
                .members
                .get(&member.name)?
                .vitals()
                .map(|vitals| vitals.raft_index)
        });
    let members: Vec<MemberStatus> = known
        .topology
        .members
        .iter()
        .filter_map(|member| {
            let facts = observed.members.get(&member.name)?;
            let mut status = member_status(
                known,
                member,
                facts,
                observed.leads(&member.name),
                leader_index,
            );
            if let (Some(running), Some(argv)) = (&facts.process, wanted.get(&member.name)) {
                status.drift = arguments(&running.argv, argv);
            }
            Some(status)
        })
        .collect();

    let voters: Vec<&Member> = known
        .topology
        .members
        .iter()
        .filter(|member| member.role == Role::Voter)
        .collect();
    let up = voters
        .iter()
        .filter(|member| {
            observed
                .members
                .get(&member.name)
                .is_some_and(MemberFacts::is_ready)
        })
        .count();
    let quorum = Ledger::new(voters.len(), up);
    let all_well = observed.members.values().all(|facts| {
        facts.is_ready()
            && facts
                .vitals()
                .is_some_and(|vitals| vitals.errors.is_empty())
    });
    let all_well = all_well && !services.iter().any(ServiceStatus::is_missing);
    let health = match (quorum.margin, all_well) {
        (..0, _) => Verdict::QuorumLost,
        (_, false) => Verdict::Degraded,
        (_, true) => Verdict::Healthy,
    };
    Status {
        name: known.dir.name().to_owned(),
        health,
        quorum,
        members,
        services,
    }
}

/// Those that the topology wants, and those that run all the same.
fn service_status(known: &Known, observed: &Observed, wanted: &[Service]) -> Vec<ServiceStatus> {
    let places = services::places(&known.topology, &known.instance);
    let unwanted = observed
        .services
        .iter()
        .filter(|(name, running)| running.is_some() && !places.contains_key(*name));
    let names: BTreeSet<&String> = places
        .keys()
        .chain(unwanted.map(|(name, _)| name))
        .collect();
    let status = names.into_iter().map(|name| {
        let place = places.get(name);
        let running = observed.services.get(name).and_then(Option::as_ref);
        let wanted = wanted.iter().find(|service| service.name == *name);
        ServiceStatus {
            name: name.clone(),
            state: if running.is_some() {
                "running"
            } else {
                "stopped"
            },
            address: place.map(|place| place.address),
            pid: running.map(|running| running.process.pid),
            needed: place.is_some_and(|place| place.needed),
            drift: match (running, wanted) {
                (Some(running), Some(wanted)) => arguments(&running.argv, &wanted.argv),
                _ => Vec::new(),
            },
        }
    });
    status.collect()
}

fn member_status(
    known: &Known,
    member: &Member,
    facts: &MemberFacts,
    leader: bool,
    leader_index: Option<u64>,
) -> MemberStatus {
    let vitals = facts.vitals();
    let (state, problem) = match (&facts.unreachable, &facts.health) {
        (Some(unreachable), _) => ("unreachable", Some(unreachable.why.clone())),
        (None, health) => state(health),
    };
    let placement = known.instance.members.get(&member.name);
    MemberStatus {
        name: member.name.clone(),
        state,
        id: vitals.map(|vitals| format!("{:x}", vitals.id)),
        pid: facts.process.as_ref().map(|running| running.process.pid),
        host: match &member.host {
            Some(host) => host.url(),
            None => member.address.clone(),
        },
        role: match (vitals, member.role) {
            _ if known.leaving.contains(&member.name) => "leaving",
            (Some(vitals), _) if vitals.is_learner => "learner",
            (Some(_), _) | (None, Role::Voter) => "voter",
            (None, Role::Learner) => "learner",
        },
        leader,
        term: vitals.map(|vitals| vitals.term),
        revision: vitals.map(|vitals| vitals.revision),
        applied_index: vitals.map(|vitals| vitals.applied_index),
        applied_lag: vitals
            .zip(leader_index)
            .map(|(vitals, index)| index.saturating_sub(vitals.applied_index)),
        db_size: vitals.map(|vitals| vitals.db_size),
        version: vitals.map(|vitals| vitals.version.clone()),
        endpoints: placement
            .map(|placement| client_url(&known.topology, member, placement))
            .into_iter()
            .collect(),
        cert_days_left: placement.and_then(|placement| {
            let now = OffsetDateTime::now_utc();
            let files = [placement.server().cert, placement.peer().cert];
            files
                .iter()
                .filter_map(|path| Some(pki::inspect(path).ok()?.days_left(now)))
                .min()
        }),
        alarms: vitals
            .map(|vitals| vitals.errors.clone())
            .unwrap_or_default(),
        drift: Vec::new(),
        problem,
    }
}

fn state(health: &Health) -> (&'static str, Option<String>) {
    match health {
        Health::Stopped => ("stopped", None),
        Health::Silent { why } => ("silent", Some(why.clone())),
        Health::Up(vitals) => match &vitals.not_ready {
            None => ("ready", None),
            Some(why) => ("not ready", Some(why.clone())),
        },
    }
}

fn bytes(size: i64) -> String {
    const UNITS: [&str; 4] = ["B", "KiB", "MiB", "GiB"];
    let mut unit = 0;
    let mut tenths = i128::from(size) * 10;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    if unit == 0 {
        format!("{size} B")
    } else {
        format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        let shown = [0, 1023, 1024, 20_480, 1_572_864, i64::MAX].map(bytes);
        assert_eq!(
            shown,
            [
                "0 B",
                "1023 B",
                "1.0 KiB",
                "20.0 KiB",
                "1.5 MiB",
                "8589934591.9 GiB"
            ]
        );
    }
}
