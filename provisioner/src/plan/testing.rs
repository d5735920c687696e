//! Topologies and facts for tests.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::Path;

use super::decide::{Wanted, WantedFiles};
use super::quorum::Ledger;
use super::step::{CertChange, Plan, Step};
use crate::host::local::Process;
use crate::instance::{Instance, Leaving, Origin, Placement, Reach};
use crate::observe::{DataDir, Health, ListedMember, MemberFacts, Observed, Running, Vitals};
use crate::render::peer_url;
use crate::services::{Service, Turn};
use crate::topology::{
    Binary, Bootstrap, ClientTls, Member, Network, PeerTls, Role, Settings, Tls, Topology,
};

pub(crate) fn topology(members: usize) -> Topology {
    Topology {
        name: "demo".to_owned(),
        network: Network::Host,
        settings: Settings::Flags,
        bootstrap: Bootstrap::Static { token: None },
        gateways: Vec::new(),
        backup: None,
        waived_checks: BTreeMap::new(),
        tls: Tls {
            peer: PeerTls::Mutual,
            client: ClientTls::Mutual,
            ca: None,
            validity_days: 365,
            extra_sans: Vec::new(),
            clients: Vec::new(),
        },
        members: (0..members)
            .map(|index| Member {
                name: format!("infra{index}"),
                role: Role::Voter,
                binary: Binary::Included,
                host: None,
                address: "127.0.0.1".to_owned(),
                listen: Ipv4Addr::LOCALHOST.into(),
                zone: None,
                client_port: None,
                peer_port: None,
                flags: BTreeMap::new(),
            })
            .collect(),
    }
}

/// A cluster in memory: what is wanted and what is.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) topology: Topology,
    pub(crate) applied: Option<Topology>,
    pub(crate) remembered: Option<Instance>,
    pub(crate) instance: Instance,
    pub(crate) argv: BTreeMap<String, Vec<String>>,
    pub(crate) services: Vec<Service>,
    pub(crate) certificates: Vec<CertChange>,
    pub(crate) files: BTreeMap<String, WantedFiles>,
    pub(crate) observed: Observed,
    pub(crate) restart: BTreeSet<String>,
    pub(crate) versions: BTreeMap<String, String>,
    pub(crate) tls_stage: bool,
}

impl World {
    /// Nothing exists yet.
    pub(crate) fn nothing(members: usize) -> Self {
        let topology = topology(members);
        let dir = Path::new("/s/clusters/demo");
        let mut instance = Instance::new("demo", "demo-1", dir);
        let mut argv = BTreeMap::new();
        let mut observed = Observed::default();
        for (member, port) in topology.members.iter().zip((23_790..).step_by(2)) {
            instance.members.insert(
                member.name.clone(),
                Placement::new(dir, &member.name, port, port + 1),
            );
            argv.insert(member.name.clone(), self::argv(&member.name));
            observed
                .members
                .insert(member.name.clone(), stopped(DataDir::Empty));
        }
        Self {
            topology,
            applied: None,
            remembered: None,
            instance,
            argv,
            services: Vec::new(),
            certificates: Vec::new(),
            files: BTreeMap::new(),
            observed,
            restart: BTreeSet::new(),
            versions: BTreeMap::new(),
            tls_stage: false,
        }
    }

    /// Everything runs as wanted; `leader` leads.
    pub(crate) fn running(members: usize, leader: usize) -> Self {
        let mut world = Self::nothing(members);
        world.applied = Some(world.topology.clone());
        world.remembered = Some(world.instance.clone());
        for index in 0..members {
            world.observed.members.insert(
                name(index),
                running(index, leader, &world.argv[&name(index)]),
            );
        }
        world
    }

    pub(crate) fn kill(&mut self, index: usize) {
        self.observed
            .members
            .insert(name(index), stopped(DataDir::Ours));
    }

    pub(crate) fn facts(&mut self, index: usize) -> &mut MemberFacts {
        self.observed.members.get_mut(&name(index)).unwrap()
    }

    pub(crate) fn want_flag(&mut self, flag: &str) {
        for argv in self.argv.values_mut() {
            argv.push(flag.to_owned());
        }
    }

    pub(crate) fn wanted(&self) -> Wanted<'_> {
        Wanted {
            topology: &self.topology,
            applied: self.applied.as_ref(),
            remembered: self.remembered.as_ref(),
            instance: &self.instance,
            argv: &self.argv,
            services: &self.services,
            certificates: &self.certificates,
            files: &self.files,
            restart: &self.restart,
            versions: &self.versions,
            tls_stage: self.tls_stage,
        }
    }
}

/// Changes of the membership, and what `apply` would make of a plan.
impl World {
    /// Has the cluster tell its members: all of the topology.
    pub(crate) fn listed(mut self) -> Self {
        let members = self.topology.members.iter();
        let listed = members.map(|member| ListedMember {
            is_learner: member.role == Role::Learner,
            ..entry(&member.name, &self.topology, &self.instance)
        });
        self.observed.membership = Some(listed.collect());
        self
    }

    /// Edits the file: these members, by their numbers, and no others.
    pub(crate) fn want(&mut self, members: &[(usize, Role)]) {
        let dir = Path::new("/s/clusters/demo");
        let all = topology(members.iter().map(|(index, _)| index + 1).max().unwrap());
        self.topology.members = members
            .iter()
            .map(|(index, role)| Member {
                role: *role,
                ..all.members[*index].clone()
            })
            .collect();
        let wanted = |name: &String| {
            members
                .iter()
                .any(|(index, _)| super::testing::name(*index) == *name)
        };
        for (gone, placement) in self
            .instance
            .members
            .extract_if(.., |name, _| !wanted(name))
        {
            let leaving = Leaving {
                placement,
                address: "127.0.0.1".to_owned(),
                listen: Ipv4Addr::LOCALHOST.into(),
                host: None,
                learner: false,
            };
            self.instance.leaving.insert(gone, leaving);
        }
        for (index, _) in members {
            let name = name(*index);
            if let Some(leaving) = self.instance.leaving.remove(&name) {
                self.instance.members.insert(name, leaving.placement);
            } else if !self.instance.members.contains_key(&name) {
                let port = 23_790 + 2 * u16::try_from(*index).unwrap();
                let mut place = Placement::new(dir, &name, port, port + 1);
                place.origin = Origin::Joining;
                self.instance.members.insert(name.clone(), place);
                self.argv.entry(name.clone()).or_insert_with(|| argv(&name));
                let members = &mut self.observed.members;
                members.entry(name).or_insert(stopped(DataDir::Empty));
            }
        }
    }

    /// Asks for a member to be made anew.
    pub(crate) fn replace(&mut self, index: usize) {
        let place = self.instance.members.get_mut(&name(index)).unwrap();
        place.origin = Origin::Joining;
    }

    /// Does in memory what `apply` does for real.
    pub(crate) fn carry_out(&mut self, plan: &Plan) {
        for planned in &plan.steps {
            self.step(&planned.step);
            if let Some(ledger) = planned.ledger
                && self.observed.membership.is_some()
            {
                self.check(&planned.step, ledger);
            }
        }
    }

    pub(crate) fn step(&mut self, step: &Step) {
        match step {
            Step::Remember { .. } => {
                self.remembered = Some(self.instance.clone());
                self.applied = Some(self.topology.clone());
            }
            Step::WriteCertificates { .. } => self.certificates.clear(),
            Step::Install { members } => {
                for to in members {
                    let wanted = self.files[&to.member].installed.clone();
                    let sums = wanted.into_iter();
                    let sums = sums.map(|(path, sum)| (path, sum.unwrap_or_default()));
                    let facts = self.observed.members.get_mut(&to.member).unwrap();
                    facts.checksums.extend(sums);
                }
            }
            Step::Start { members, .. } | Step::WaitReady { members } | Step::Stop { members } => {
                members.iter().for_each(|member| self.revive(member));
            }
            Step::Announce { member } => {
                self.instance.members.get_mut(member).unwrap().reach = Reach::AsWanted;
                self.remembered = Some(self.instance.clone());
                let urls = entry(member, &self.topology, &self.instance).peer_urls;
                let mut listed = self.observed.membership.iter_mut().flatten();
                listed
                    .find(|entry| entry.name == *member)
                    .unwrap()
                    .peer_urls = urls;
            }
            Step::Restart { member, .. } => {
                self.restart.remove(member);
                self.revive(member);
            }
            Step::StartServices { services, .. } => {
                for service in self
                    .services
                    .iter()
                    .filter(|one| services.contains(&one.name))
                {
                    let running = process(&service.argv);
                    self.observed
                        .services
                        .insert(service.name.clone(), Some(running));
                }
            }
            Step::StopServices { services } => {
                for name in services {
                    self.observed.services.insert(name.clone(), None);
                }
            }
            Step::MoveLeader { to, .. } => self.lead(index(to)),
            Step::PrepareDiscovery { .. } => {}
            Step::Alone { member } => {
                let listed = self.observed.membership.get_or_insert_default();
                listed.retain(|entry| entry.name == *member);
                self.revive(member);
                self.lead(index(member));
            }
            Step::AddLearner { member } => {
                let entry = ListedMember {
                    name: String::new(),
                    is_learner: true,
                    ..entry(member, &self.topology, &self.instance)
                };
                let listed = self.observed.membership.get_or_insert_default();
                listed.push(entry);
                let learners = listed.iter().filter(|entry| entry.is_learner);
                assert_eq!(learners.count(), 1, "etcd takes one learner");
            }
            Step::Join { member } => {
                let url = entry(member, &self.topology, &self.instance).peer_urls;
                let mut listed = self.observed.membership.iter_mut().flatten();
                listed.find(|entry| entry.peer_urls == url).unwrap().name = member.clone();
                self.instance.members.get_mut(member).unwrap().origin =
                    Origin::Joined(String::new());
                self.remembered = Some(self.instance.clone());
                self.revive(member);
            }
            Step::Promote { member } => {
                let mut listed = self.observed.membership.iter_mut().flatten();
                listed
                    .find(|entry| entry.name == *member)
                    .unwrap()
                    .is_learner = false;
            }
            Step::Remove { member } => {
                let listed = self.observed.membership.as_mut().unwrap();
                let before = listed.len();
                listed.retain(|entry| entry.name != *member);
                assert_eq!(listed.len() + 1, before, "{member} was there");
                if self.observed.leads(member) {
                    assert!(self.observed.members.len() == 1, "{member} leads");
                }
            }
            Step::Retire { member, .. } => {
                self.observed
                    .members
                    .insert(member.clone(), stopped(DataDir::Empty));
                match self.instance.members.get_mut(member) {
                    Some(place) => place.origin = Origin::Joining,
                    None => drop(self.observed.members.remove(member)),
                }
                self.instance.leaving.remove(member);
                self.instance.former.remove(member);
                self.remembered = Some(self.instance.clone());
            }
        }
    }

    // The ledger is that of the cluster as the step leaves it, but for what is down in its course.
    fn check(&self, step: &Step, ledger: Ledger) {
        let voters = self.observed.membership.iter().flatten();
        let voters: Vec<&String> = voters
            .filter(|entry| !entry.is_learner)
            .map(|entry| &entry.name)
            .collect();
        assert_eq!(ledger.voters, voters.len(), "{step}");
        if !matches!(step, Step::Start { .. } | Step::Restart { .. }) {
            let ready = |name: &&&String| {
                self.observed
                    .members
                    .get(**name)
                    .is_some_and(MemberFacts::is_ready)
            };
            assert_eq!(ledger.up, voters.iter().filter(ready).count(), "{step}");
        }
    }

    fn revive(&mut self, member: &str) {
        let leader = self.observed.leader().unwrap_or(100 + index(member) as u64);
        let mut facts = running(index(member), 0, &self.argv[member]);
        if let Health::Up(vitals) = &mut facts.health {
            vitals.leader = leader;
        }
        self.observed.members.insert(member.to_owned(), facts);
    }

    fn lead(&mut self, index: usize) {
        for facts in self.observed.members.values_mut() {
            if let Health::Up(vitals) = &mut facts.health {
                vitals.leader = 100 + index as u64;
                // Whoever did not answer for want of a leader does so now.
                vitals.not_ready = None;
            }
        }
    }
}

fn entry(name: &str, topology: &Topology, instance: &Instance) -> ListedMember {
    let member = topology
        .members
        .iter()
        .find(|member| member.name == name)
        .unwrap();
    let place = &instance.members[name];
    ListedMember {
        id: 100 + index(name) as u64,
        name: name.to_owned(),
        peer_urls: vec![peer_url(topology, member, place)],
        client_urls: Vec::new(),
        is_learner: false,
    }
}

fn index(name: &str) -> usize {
    name.trim_start_matches("infra").parse().unwrap()
}

fn argv(name: &str) -> Vec<String> {
    vec!["/bin/member".to_owned(), format!("--name={name}")]
}

pub(crate) fn name(index: usize) -> String {
    format!("infra{index}")
}

fn stopped(data: DataDir) -> MemberFacts {
    let had_data = data == DataDir::Ours;
    MemberFacts {
        process: None,
        data,
        had_data,
        version: None,
        log: None,
        ports_taken: Vec::new(),
        checksums: BTreeMap::new(),
        unreachable: None,
        health: Health::Stopped,
    }
}

fn running(index: usize, leader: usize, argv: &[String]) -> MemberFacts {
    let vitals = Vitals {
        cluster_id: 1,
        id: 100 + index as u64,
        leader: 100 + leader as u64,
        term: 2,
        revision: 1,
        raft_index: 9,
        applied_index: 9,
        db_size: 4096,
        version: "3.6.0".to_owned(),
        is_learner: false,
        errors: Vec::new(),
        not_ready: None,
    };
    MemberFacts {
        process: Some(process(argv)),
        data: DataDir::Ours,
        had_data: true,
        version: None,
        log: None,
        ports_taken: Vec::new(),
        checksums: BTreeMap::new(),
        unreachable: None,
        health: Health::Up(vitals),
    }
}

pub(crate) fn process(argv: &[String]) -> Running {
    Running {
        process: Process {
            pid: 1000,
            start_ticks: 1,
            boot_id: "boot".to_owned(),
        },
        argv: argv.to_vec(),
    }
}

pub(crate) fn service(name: &str, turn: Turn) -> Service {
    Service {
        name: name.to_owned(),
        turn,
        address: (Ipv4Addr::LOCALHOST, 1).into(),
        argv: vec!["/bin/provision".to_owned(), name.to_owned()],
        file: None,
    }
}
