//! Gathering the facts of a whole cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::join_all;
use member_flags::ids;

use super::client::{Access, Client};
use super::data::DataOwner;
use super::facts::{Health, ListedMember, MemberFacts, Observed, PortTaken, Running, Vitals};
use super::member::{MemberSeen, MemberSight, NeededPort, running};
use crate::deployment;
use crate::error::Error;
use crate::host::remote::Hosts;
use crate::instance::{Instance, Origin};
use crate::render::listed_peer_url;
use crate::services;
use crate::state::{ClusterDir, Unit};
use crate::topology::{Keeper, Member, Role, SshHost, Topology};

// What a machine may take to read its processes and the programs that were installed.
const LOOK_LIMIT: Duration = Duration::from_secs(30);

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
    /// The machines of members that have one.
    pub hosts: &'a Hosts,
    /// By member, its files on its host.
    pub files: &'a BTreeMap<String, Vec<PathBuf>>,
    /// Whether the logs of members that do not run are read.
    pub logs: bool,
}

/// Looks at every member of the instance.
pub async fn look(sight: Sight<'_>, limit: Duration) -> Result<Observed, Error> {
    let members = sight.topology.members.iter();
    let here: BTreeSet<&str> = members
        .filter(|member| member.host.is_none())
        .map(|member| member.name.as_str())
        .collect();
    let mut observed = look_once(sight, limit).await?;
    for _ in 0..LOOKS_AGAIN {
        let died = |(name, facts): (&String, &MemberFacts)| {
            matches!(facts.health, Health::Silent { .. })
                && facts
                    .process
                    .as_ref()
                    .is_some_and(|running| !running.process.is_running())
                && here.contains(name.as_str())
        };
        if !observed.members.iter().any(died) {
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
    } = look_at_host(sight, limit).await?;
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
    let access = any_runs.then(|| Access::read(sight.topology, sight.instance, sight.hosts));
    let access = match access.transpose() {
        // Somebody else started what runs, and has them.
        Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => None,
        access => access?,
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
        ..Observed::default()
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
    // A member that has not applied the first entry of its log lists nobody yet.
    let membership = client.members(limit).await.ok();
    let membership = membership.filter(|listed| !listed.is_empty());
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
pub async fn look_at_host(sight: Sight<'_>, limit: Duration) -> Result<Observed, Error> {
    let cluster_id = expected_cluster_id(sight.topology, sight.instance);
    let looks = sight
        .instance
        .members
        .iter()
        .map(|(name, placement)| async move {
            let member = sight
                .topology
                .members
                .iter()
                .find(|member| member.name == *name);
            let unit = Unit::Member(name);
            let record = sight.dir.record(&unit)?;
            let had_data = record.is_some();
            let wanted = sight.wanted.members.get(name).unwrap_or(placement);
            let ports = [("client", wanted.client_port), ("peer", wanted.peer_port)];
            let needed = |(role, port): (&str, u16)| {
                Some(NeededPort {
                    role: role.to_owned(),
                    address: SocketAddr::new(member?.listen, port),
                })
            };
            let look = MemberSight {
                owner: DataOwner::of(sight.instance, name),
                cluster_id,
                data_dir: placement.data_dir.clone(),
                dir: placement
                    .host_dir
                    .clone()
                    .unwrap_or_else(|| sight.dir.unit_dir(&unit)),
                record,
                unit: None,
                ports: ports.into_iter().filter_map(needed).collect(),
                held: [placement.client_port, placement.peer_port],
                files: Vec::new(),
                log: sight.logs,
            };
            let host = member.and_then(|member| member.host.as_ref());
            let seen = match host {
                None => Ok(look.look()?),
                Some(host) => look_there(sight, host, name, look, limit).await,
            };
            let taken = |mut taken: PortTaken| {
                if let Some(host) = host {
                    taken.owner = format!("{} on {}", taken.owner, host.url());
                }
                taken
            };
            let facts = match seen {
                Ok(seen) => MemberFacts {
                    process: seen.process,
                    data: seen.data,
                    had_data,
                    version: seen.version,
                    log: seen.log,
                    ports_taken: seen.ports_taken.into_iter().map(taken).collect(),
                    checksums: seen.checksums,
                    health: Health::Stopped,
                    unreachable: None,
                },
                Err(error) => MemberFacts::unreachable(had_data, error),
            };
            Ok((name.clone(), facts))
        });
    let members: Result<BTreeMap<String, MemberFacts>, Error> =
        join_all(looks).await.into_iter().collect();
    Ok(Observed {
        members: members?,
        services: services(sight)?,
        ..Observed::default()
    })
}

async fn look_there(
    sight: Sight<'_>,
    host: &SshHost,
    name: &str,
    mut look: MemberSight,
    limit: Duration,
) -> Result<MemberSeen, Error> {
    let agent = sight.hosts.agent(host).await?;
    if host.keeper == Keeper::Systemd {
        look.unit = Some(deployment::unit_name(&sight.instance.cluster, name));
    }
    look.files = sight.files.get(name).cloned().unwrap_or_default();
    // Checksums of programs are taken, so that this is the disk's time and not the network's.
    agent.ask(&look, limit.max(LOOK_LIMIT)).await
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

/// What the founders' peer URLs and the token amount to.
#[must_use]
pub fn expected_cluster_id(topology: &Topology, instance: &Instance) -> u64 {
    let founders: Vec<String> = if instance.founders.is_empty() {
        let placed = topology.members.iter().filter_map(|member| {
            let placement = instance.members.get(&member.name)?;
            let founds = placement.origin == Origin::Founder;
            founds.then(|| listed_peer_url(topology, member, placement))
        });
        placed.collect()
    } else {
        let founders = instance.founders.iter();
        founders.map(|founder| founder.peer_url.clone()).collect()
    };
    let token = services::cluster_token(topology, instance);
    let members: Vec<u64> = founders
        .into_iter()
        .map(|url| ids::member_id(&[url], &token, None))
        .collect();
    ids::cluster_id(&members)
}
