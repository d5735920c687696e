//! Topologies and facts for tests.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;

use super::decide::{Wanted, WantedFiles};
use super::step::CertChange;
use crate::host::local::Process;
use crate::instance::{Instance, Placement};
use crate::observe::{DataDir, Health, MemberFacts, Observed, Running, Vitals};
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
            argv.insert(
                member.name.clone(),
                vec!["/bin/member".to_owned(), format!("--name={}", member.name)],
            );
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
        }
    }
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
