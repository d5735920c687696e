//! Asking all machines.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use futures_util::future::join_all;

use super::facts::{Claim, Machine, Reached, Role, Seen};
use super::records::AskRecords;
use crate::cluster::{Cluster, Known};
use crate::error::Error;
use crate::host::local::{Clock, ClosePorts, OpenPorts, Opened, Reach, Resolve, Survey, now_us};
use crate::host::remote::{Agent, Ask, Hosts};
use crate::instance::Instance;
use crate::observe::{Observed, Unreachable};
use crate::render::{srv_records, url_host};
use crate::state::{self, ClusterDir};
use crate::topology::{Member, Network, SshHost, Topology};

// The best of these is the one that waited least on its way.
const CLOCK_ASKS: usize = 5;

/// Where questions go.
#[derive(Clone)]
pub(super) enum Station {
    Here,
    There(Agent),
}

impl Station {
    pub(super) async fn of(host: Option<&SshHost>, hosts: &Hosts) -> Result<Self, Error> {
        match host {
            None => Ok(Self::Here),
            Some(host) => Ok(Self::There(hosts.agent(host).await?)),
        }
    }

    pub(super) async fn ask<A: Ask>(&self, ask: A, limit: Duration) -> Result<A::Answer, Error> {
        match self {
            Self::Here => ask.answer().await,
            Self::There(agent) => agent.ask(&ask, limit).await,
        }
    }
}

struct Asked<'a> {
    topology: &'a Topology,
    instance: &'a Instance,
    observed: &'a Observed,
    limit: Duration,
}

struct Target<'a> {
    member: &'a Member,
    role: Role,
    port: u16,
}

/// Asks all machines of a cluster, each question with this limit.
pub async fn gather(
    cluster: &Cluster,
    instance: &Instance,
    observed: &Observed,
    limit: Duration,
) -> Vec<Machine> {
    let asked = Asked {
        topology: &cluster.topology,
        instance,
        observed,
        limit,
    };
    let mut machines = machines(&cluster.topology);
    let connects = machines
        .iter()
        .map(|(host, _)| Station::of(host.as_ref(), &cluster.hosts));
    let stations = join_all(connects).await;
    let looks = machines
        .iter()
        .zip(stations)
        .map(|((_, members), station)| async {
            let station = station?;
            let seen = asked.look(&station, members).await?;
            Ok::<_, Error>((station, seen))
        });
    let mut seen = join_all(looks).await;
    // Only once all ports are open, and the disks are at rest.
    let opened: BTreeMap<(String, Role), Opened> = seen
        .iter()
        .flatten()
        .flat_map(|(_, seen)| seen.opened.clone())
        .collect();
    let reaches = machines.iter().zip(&mut seen).map(|((_, members), seen)| {
        let (asked, opened) = (&asked, &opened);
        async move {
            let Ok((station, seen)) = seen else { return };
            let reached = asked.reach(station, members, opened).await;
            seen.reached = reached.map_err(|error| error.to_string());
        }
    });
    join_all(reaches).await;
    let closes = seen
        .iter()
        .flatten()
        .map(|(station, _)| station.ask(ClosePorts, limit));
    // Who does not answer any more holds no port for long either.
    drop(join_all(closes).await);
    machines
        .drain(..)
        .zip(seen)
        .map(|((host, members), seen)| Machine {
            name: name_of(host.as_ref()),
            host,
            members: members.iter().map(|member| member.name.clone()).collect(),
            seen: seen.map(|(_, seen)| seen).map_err(|error| Unreachable {
                why: std::iter::once(error.to_string())
                    .chain(error.causes())
                    .collect::<Vec<_>>()
                    .join(": "),
                fix: error.fix().unwrap_or_default(),
            }),
        })
        .collect()
}

fn machines(topology: &Topology) -> Vec<(Option<SshHost>, Vec<&Member>)> {
    let mut machines: Vec<(Option<SshHost>, Vec<&Member>)> = Vec::new();
    for member in &topology.members {
        match machines.iter_mut().find(|(host, _)| *host == member.host) {
            Some((_, members)) => members.push(member),
            None => machines.push((member.host.clone(), vec![member])),
        }
    }
    machines
}

pub(super) fn name_of(host: Option<&SshHost>) -> String {
    host.map_or_else(
        || "this machine".to_owned(),
        |host| host.destination.clone(),
    )
}

impl Asked<'_> {
    async fn look(&self, station: &Station, members: &[&Member]) -> Result<Seen, Error> {
        let (clock_us, clock_error_us) = self.clock(station).await?;
        let private = self.topology.network == Network::Private;
        let wanted = srv_records(self.topology, self.instance);
        let records = if wanted.is_empty() || private {
            None
        } else {
            Some(station.ask(AskRecords(wanted), self.limit).await?)
        };
        let names: BTreeSet<&str> = self
            .topology
            .members
            .iter()
            .map(|member| member.address.as_str())
            .filter(|address| address.parse::<IpAddr>().is_err() && !private)
            .collect();
        let resolve = Resolve(names.into_iter().map(str::to_owned).collect());
        let resolved = station.ask(resolve, self.limit).await?;
        let places = members
            .iter()
            .filter_map(|member| self.instance.members.get(&member.name));
        let host = members.first().and_then(|member| member.host.as_ref());
        let survey = Survey {
            data: places.map(|place| place.data_dir.clone()).collect(),
            programs: host.map(|host| host.install_dir.join("bin")),
        };
        Ok(Seen {
            surveyed: station.ask(survey, self.limit).await?,
            clock_us,
            clock_error_us,
            resolved,
            records,
            opened: self.open(station, members).await?,
            reached: Ok(Vec::new()),
        })
    }

    async fn clock(&self, station: &Station) -> Result<(i64, i64), Error> {
        let mut best: Option<(i64, i64)> = None;
        for _ in 0..CLOCK_ASKS {
            let before = now_us();
            let there = station.ask(Clock, self.limit).await?;
            let half = (now_us() - before) / 2;
            if best.is_none_or(|(_, error)| half < error) {
                best = Some((there - before - half, half));
            }
        }
        Ok(best.unwrap_or_default())
    }

    fn targets<'t>(&'t self, members: &'t [&Member]) -> impl Iterator<Item = Target<'t>> {
        members.iter().flat_map(|member| {
            let place = self.instance.members.get(&member.name);
            let ports = place.map(|place| {
                [
                    (Role::Client, place.client_port),
                    (Role::Peer, place.peer_port),
                ]
            });
            ports
                .into_iter()
                .flatten()
                .map(move |(role, port)| Target { member, role, port })
        })
    }

    fn runs(&self, member: &Member) -> bool {
        let facts = self.observed.members.get(&member.name);
        facts.is_some_and(|facts| facts.process.is_some())
    }

    async fn open(
        &self,
        station: &Station,
        members: &[&Member],
    ) -> Result<BTreeMap<(String, Role), Opened>, Error> {
        let targets: Vec<Target<'_>> = self
            .targets(members)
            .filter(|target| !self.runs(target.member))
            .collect();
        let address = |target: &Target<'_>| SocketAddr::new(target.member.listen, target.port);
        let open = OpenPorts(targets.iter().map(address).collect());
        let opened = station.ask(open, self.limit).await?;
        Ok(targets
            .iter()
            .map(|target| (target.member.name.clone(), target.role))
            .zip(opened)
            .collect())
    }

    async fn reach(
        &self,
        station: &Station,
        members: &[&Member],
        opened: &BTreeMap<(String, Role), Opened>,
    ) -> Result<Vec<Reached>, Error> {
        let here = |member: &Member| members.iter().any(|other| other.name == member.name);
        let others: Vec<&Member> = self
            .topology
            .members
            .iter()
            .filter(|member| !here(member))
            .collect();
        let answers = |target: &Target<'_>| {
            let opened = opened.get(&(target.member.name.clone(), target.role));
            self.runs(target.member) || matches!(opened, Some(Opened::Open | Opened::Taken))
        };
        let (answering, silent): (Vec<_>, Vec<_>) = self.targets(&others).partition(answers);
        let address =
            |target: &Target<'_>| format!("{}:{}", url_host(&target.member.address), target.port);
        let reach = Reach(answering.iter().map(address).collect());
        // Every connection may have to wait for its end.
        let limit = self
            .limit
            .saturating_mul(1 + u32::try_from(answering.len()).unwrap_or(0) / 8);
        let times = station.ask(reach, limit).await?;
        let reached = |target: &Target<'_>, round_trip| Reached {
            member: target.member.name.clone(),
            role: target.role,
            round_trip,
        };
        let mut all: Vec<Reached> = answering
            .iter()
            .zip(times)
            .map(|(target, time)| reached(target, Some(time)))
            .collect();
        all.extend(silent.iter().map(|target| reached(target, None)));
        Ok(all)
    }
}

/// The ports that other clusters of a state directory want. One that cannot be read wants none that are known.
pub fn claims(state_root: &Path, except: &str) -> Result<Vec<Claim>, Error> {
    let mut claims = Vec::new();
    for name in state::list(state_root)? {
        if name == except {
            continue;
        }
        let Ok(Some(known)) = Known::load(ClusterDir::new(state_root, &name)) else {
            continue;
        };
        // Its ports are those of a network of its own.
        if known.topology.network == Network::Private {
            continue;
        }
        for member in &known.topology.members {
            let Some(place) = known.instance.place(&member.name) else {
                continue;
            };
            let ports = [place.client_port, place.peer_port];
            claims.extend(ports.map(|port| Claim {
                cluster: name.clone(),
                member: member.name.clone(),
                destination: member.host.as_ref().map(|host| host.destination.clone()),
                listen: member.listen,
                port,
            }));
        }
    }
    Ok(claims)
}
