//! Gathering the facts of a whole cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use member_flags::ids;

use super::client::{Access, Client};
use super::data::inspect;
use super::facts::{Health, ListedMember, MemberFacts, Observed, PortTaken, Running, Vitals};
use crate::error::Error;
use crate::host::local::{Listener, find_by_argument, listeners, owner_of};
use crate::instance::Instance;
use crate::render::listed_peer_url;
use crate::services;
use crate::state::{ClusterDir, Record, Unit};
use crate::topology::{Member, Role, Topology};

// A healthy member answers a linearizable read within a few round trips. One that takes longer is reported as not
// ready, and whoever needs it waits with a deadline of their own.
const READ_LIMIT: Duration = Duration::from_millis(1500);

// A member may end between the look at its process and the question to it; once for each that a quorum can spare.
const LOOKS_AGAIN: usize = 3;

/// What to look at.
#[derive(Clone, Copy, Debug)]
pub struct Sight<'a> {
    /// The topology.
    pub topology: &'a Topology,
    /// The instance that the members run with: the remembered one, if there is one.
    pub instance: &'a Instance,
    /// The instance that they should run with. Differs only in ports.
    pub wanted: &'a Instance,
    /// Its state directory.
    pub dir: &'a ClusterDir,
}

/// Looks at every member of the instance.
pub async fn look(sight: Sight<'_>, limit: Duration) -> Result<Observed, Error> {
    let mut observed = look_once(sight, limit).await?;
    for _ in 0..LOOKS_AGAIN {
        let died = |facts: &MemberFacts| {
            matches!(facts.health, Health::Silent { .. })
                && facts
                    .process
                    .as_ref()
                    .is_some_and(|running| !running.process.is_running())
        };
        if !observed.members.values().any(died) {
            break;
        }
        observed = look_once(sight, limit).await?;
    }
    Ok(observed)
}

async fn look_once(sight: Sight<'_>, limit: Duration) -> Result<Observed, Error> {
    let Observed {
        members: hosts,
        services,
        ..
    } = look_at_host(sight)?;
    let voters: BTreeSet<&str> = sight
        .topology
        .members
        .iter()
        .filter(|member| member.role == Role::Voter)
        .map(|member| member.name.as_str())
        .collect();
    let running = hosts
        .iter()
        .filter(|(name, facts)| facts.process.is_some() && voters.contains(name.as_str()))
        .count();
    let quorum_runs = running > voters.len() / 2;
    // Without a running member nobody is asked, and the certificates may not exist yet.
    let any_runs = hosts.values().any(|facts| facts.process.is_some());
    let access = if any_runs {
        Some(Access::read(sight.topology, sight.instance)?)
    } else {
        None
    };

    let asked = sight.topology.members.iter().filter_map(|member| {
        let access = access.as_ref()?;
        let running = hosts.get(&member.name)?.process.as_ref()?;
        let port = running
            .client_port()
            .or(Some(sight.instance.members.get(&member.name)?.client_port))?;
        Some(async move {
            (
                member.name.clone(),
                ask(access, member, port, quorum_runs, limit).await,
            )
        })
    });
    let answers = join_all(asked).await;

    let mut observed = Observed {
        members: hosts,
        services,
        membership: None,
    };
    let mut is_fresh = false;
    for (name, (health, membership)) in answers {
        if let Some(facts) = observed.members.get_mut(&name) {
            facts.health = health;
            // Who answers a linearizable read knows of every change; another may have missed the last ones.
            if membership.is_some() && (observed.membership.is_none() || !is_fresh) {
                is_fresh = facts.is_ready();
                observed.membership = membership;
            }
        }
    }
    Ok(observed)
}

/// Asks one member how it is.
pub async fn look_at(access: &Access, member: &Member, port: u16, limit: Duration) -> Health {
    ask(access, member, port, true, limit).await.0
}

async fn ask(
    access: &Access,
    member: &Member,
    port: u16,
    quorum_runs: bool,
    limit: Duration,
) -> (Health, Option<Vec<ListedMember>>) {
    let silent = |why: String| (Health::Silent { why }, None);
    let client = match access.connect(member, port, limit).await {
        Ok(client) => client,
        Err(error) => return silent(error.to_string()),
    };
    let mut vitals = match client.status(limit).await {
        Ok(vitals) => vitals,
        Err(error) => return silent(error.to_string()),
    };
    vitals.not_ready = not_ready(&client, &vitals, quorum_runs, limit).await;
    let membership = client.members(limit).await.ok();
    (Health::Up(vitals), membership)
}

async fn not_ready(
    client: &Client,
    vitals: &Vitals,
    quorum_runs: bool,
    limit: Duration,
) -> Option<String> {
    // A read would hang until its deadline; the answer is known without it.
    if !quorum_runs {
        return Some("the quorum is not running".to_owned());
    }
    if vitals.leader == 0 {
        return Some("it knows no leader".to_owned());
    }
    // A learner follows and answers no such reads.
    if vitals.is_learner {
        return None;
    }
    client
        .linearizable_read(limit.min(READ_LIMIT))
        .await
        .err()
        .map(|error| format!("a linearizable read fails: {error}"))
}

/// Looks at processes, directories and ports only; no member is asked.
pub fn look_at_host(sight: Sight<'_>) -> Result<Observed, Error> {
    let cluster_id = expected_cluster_id(sight);
    let mut facts = BTreeMap::new();
    let mut listening: Option<Vec<Listener>> = None;
    for (name, placement) in &sight.instance.members {
        let record = sight.dir.record(&Unit::Member(name))?;
        let had_data = record.is_some();
        let data_dir = format!("--data-dir={}", placement.data_dir.display());
        let config = format!(
            "--config-file={}/",
            sight.dir.unit_dir(&Unit::Member(name)).display()
        );
        let process = running(record, &|arg| arg == data_dir || arg.starts_with(&config))?;
        let data = match inspect(sight.instance, name, cluster_id) {
            Ok(data) => data,
            Err(error) => {
                return Err(Error::Io {
                    action: error.action,
                    path: error.path,
                    source: error.source,
                });
            }
        };
        let mut ports_taken = Vec::new();
        let member = sight
            .topology
            .members
            .iter()
            .find(|member| member.name == *name);
        let wanted = sight.wanted.members.get(name).unwrap_or(placement);
        // What a member holds itself is no conflict.
        let held = process.as_ref().map(|running| {
            [
                running.client_port().unwrap_or(placement.client_port),
                placement.peer_port,
            ]
        });
        let needed = [("client", wanted.client_port), ("peer", wanted.peer_port)];
        let needed = needed
            .into_iter()
            .filter(|(_, port)| held.is_none_or(|held| !held.contains(port)));
        for ((role, port), member) in needed.filter_map(|needed| Some((needed, member?))) {
            let listening = match &mut listening {
                Some(listening) => listening,
                None => listening.insert(listeners().map_err(|source| {
                    Error::because("cannot read which ports are in use", source)
                })?),
            };
            ports_taken.extend(taken(listening, member, role, port)?);
        }
        facts.insert(
            name.clone(),
            MemberFacts {
                process,
                data,
                had_data,
                ports_taken,
                health: Health::Stopped,
            },
        );
    }
    Ok(Observed {
        members: facts,
        services: services(sight)?,
        membership: None,
    })
}

fn services(sight: Sight<'_>) -> Result<BTreeMap<String, Option<Running>>, Error> {
    let mut services = BTreeMap::new();
    for name in sight.dir.services()? {
        let unit = Unit::Service(&name);
        let dir = format!("{}/", sight.dir.unit_dir(&unit).display());
        let record = sight.dir.record(&unit)?;
        let running = running(record, &|arg| arg.contains(&dir))?;
        services.insert(name, running);
    }
    Ok(services)
}

fn running(
    record: Option<Record>,
    its_own: &dyn Fn(&str) -> bool,
) -> Result<Option<Running>, Error> {
    let recorded = record.filter(|record| record.process.is_running());
    if let Some(Record { process, argv, .. }) = recorded {
        let now = process.argv().unwrap_or_default();
        // An interpreter or a wrapper script puts itself in front of what was asked for; the flags tell. What sets variables
        // leaves what comes after them.
        let same = argv.get(1..).is_some_and(|flags| now.ends_with(flags))
            || (!now.is_empty() && argv.ends_with(&now));
        return Ok(Some(Running {
            process,
            argv: if same { argv } else { now },
        }));
    }
    // The record is written after the start, so a run that was killed in between leaves a process without one.
    let look = |source| Error::because("cannot list processes", source);
    let found = find_by_argument(its_own).map_err(look)?;
    Ok(found.into_iter().next().map(|process| {
        let argv = process.argv().unwrap_or_default();
        Running { process, argv }
    }))
}

fn taken(
    listening: &[Listener],
    member: &Member,
    role: &'static str,
    port: u16,
) -> Result<Option<PortTaken>, Error> {
    let address = SocketAddr::new(member.listen, port);
    let Some(listener) = listening.iter().find(|listener| listener.blocks(address)) else {
        return Ok(None);
    };
    let owner = owner_of(listener)
        .map_err(|source| Error::because("cannot look up who holds a port", source))?;
    Ok(Some(PortTaken {
        role,
        port,
        owner: owner.to_string(),
    }))
}

fn expected_cluster_id(sight: Sight<'_>) -> u64 {
    let founders: Vec<String> = if sight.instance.founders.is_empty() {
        let placed = sight.topology.members.iter().filter_map(|member| {
            let placement = sight.instance.members.get(&member.name)?;
            Some(listed_peer_url(sight.topology, member, placement))
        });
        placed.collect()
    } else {
        let founders = sight.instance.founders.iter();
        founders.map(|founder| founder.peer_url.clone()).collect()
    };
    let token = services::cluster_token(sight.topology, sight.instance);
    let members: Vec<u64> = founders
        .into_iter()
        .map(|url| ids::member_id(&[url], &token, None))
        .collect();
    ids::cluster_id(&members)
}
