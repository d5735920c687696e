//! What a new instance needs and the topology leaves open: a token, and one block of ports.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::net::Ipv4Addr;
use std::ops::Range;
use std::path::Path;

use super::dir::{ClusterDir, list};
use super::error::StateError;
use crate::fnv;
use crate::host::local::free_block;
use crate::instance::{Founder, Instance, Leaving, Origin, Placement, Reach};
use crate::render::listed_peer_url;
use crate::services;
use crate::topology::{Bootstrap, Member, PeerTls, Role, Topology};

/// The instance that `up` would work with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// Every member of the topology has a placement; those that are remembered and not in the topology are leaving.
    pub instance: Instance,
    /// Whether it must be remembered before anything is started.
    pub is_new: bool,
}

/// Completes what is remembered with what the topology asks for. Only looks; the plan's first step remembers it.
///
/// A remembered instance keeps its token, its paths and its allocated ports. Fixed ports of the topology win. `applied` is the
/// topology that was applied last. Members in `anew` come with nothing, as if they had never been there.
pub fn propose(
    topology: &Topology,
    applied: Option<&Topology>,
    anew: &[&str],
    found: Option<&Instance>,
    dir: &ClusterDir,
    state_root: &Path,
) -> Result<Proposal, StateError> {
    match found {
        Some(remembered) => {
            let mut instance = remembered.clone();
            change_members(topology, applied, anew, &mut instance, dir, state_root)?;
            change_peers(topology, applied, remembered, &mut instance);
            for member in &topology.members {
                if let Some(placement) = instance.members.get_mut(&member.name) {
                    placement.client_port = member.client_port.unwrap_or(placement.client_port);
                    placement.peer_port = member.peer_port.unwrap_or(placement.peer_port);
                }
            }
            services(topology, &mut instance, dir, state_root)?;
            Ok(Proposal {
                is_new: instance != *remembered,
                instance,
            })
        }
        None => {
            let mut instance = Instance::new(&topology.name, token(topology), dir.path());
            let members: Vec<&Member> = topology.members.iter().collect();
            for (member, place) in places(&members, &instance, dir, state_root)? {
                // A learner has somebody to learn from.
                let origin = match member.role {
                    Role::Voter => Origin::Founder,
                    Role::Learner => Origin::Joining,
                };
                instance
                    .members
                    .insert(member.name.clone(), Placement { origin, ..place });
            }
            services(topology, &mut instance, dir, state_root)?;
            Ok(Proposal {
                instance,
                is_new: true,
            })
        }
    }
}

// Who is new gets a place, who is gone is leaving, and who was leaving may come back.
fn change_members(
    topology: &Topology,
    applied: Option<&Topology>,
    anew: &[&str],
    instance: &mut Instance,
    dir: &ClusterDir,
    state_root: &Path,
) -> Result<(), StateError> {
    let before = instance.members.clone();
    for member in &topology.members {
        if let Some(leaving) = instance.leaving.remove(&member.name) {
            instance
                .members
                .insert(member.name.clone(), leaving.placement);
        }
    }
    let wanted = |name: &String| topology.members.iter().any(|member| member.name == *name);
    let gone = instance.members.extract_if(.., |name, _| !wanted(name));
    let gone: Vec<(String, Placement)> = gone.collect();
    let new: Vec<&Member> = topology
        .members
        .iter()
        .filter(|member| !instance.members.contains_key(&member.name))
        .collect();
    if instance.founders.is_empty() && !(gone.is_empty() && new.is_empty() && anew.is_empty()) {
        let known = Instance {
            members: before,
            ..instance.clone()
        };
        instance.founders = founders(applied.unwrap_or(topology), &known);
    }
    let was = |name: &str| {
        let mut members = applied.into_iter().flat_map(|applied| &applied.members);
        members.find(|member| member.name == name)
    };
    for (name, placement) in gone {
        let leaving = leaving(was(&name), placement);
        instance.leaving.insert(name, leaving);
    }
    for member in &topology.members {
        let Some(place) = instance.members.get_mut(&member.name) else {
            continue;
        };
        if anew.contains(&member.name.as_str()) {
            place.origin = Origin::Joining;
        }
        // Who has yet to come may come from anywhere.
        if let Some(was) = was(&member.name).filter(|_| place.origin == Origin::Joining)
            && (&was.host, &was.address) != (&member.host, &member.address)
        {
            let (client, peer) = (place.client_port, place.peer_port);
            let mut moved = Placement::of(member, &instance.cluster, dir.path(), client, peer);
            moved.origin = Origin::Joining;
            let placement = std::mem::replace(place, moved);
            let former = &mut instance.former;
            former
                .entry(member.name.clone())
                .or_insert_with(|| leaving(Some(was), placement));
        }
    }
    for (member, place) in places(&new, instance, dir, state_root)? {
        let origin = Origin::Joining;
        instance
            .members
            .insert(member.name.clone(), Placement { origin, ..place });
    }
    Ok(())
}

// Members that speak to each other in plain text, and are to do so over TLS, change one at a time.
fn change_peers(
    topology: &Topology,
    applied: Option<&Topology>,
    remembered: &Instance,
    instance: &mut Instance,
) {
    let mutual = topology.tls.peer == PeerTls::Mutual;
    let before = applied.filter(|applied| mutual && applied.tls.peer == PeerTls::Prepared);
    if let Some(before) = before
        && instance.founders.is_empty()
    {
        instance.founders = founders(before, remembered);
    }
    for place in instance.members.values_mut() {
        if !mutual || place.origin == Origin::Joining {
            place.reach = Reach::AsWanted;
        } else if before.is_some() {
            place.reach = Reach::Plain;
        }
    }
}

fn leaving(member: Option<&Member>, placement: Placement) -> Leaving {
    Leaving {
        placement,
        address: member.map_or_else(|| "127.0.0.1".to_owned(), |member| member.address.clone()),
        listen: member.map_or(Ipv4Addr::LOCALHOST.into(), |member| member.listen),
        host: member.and_then(|member| member.host.clone()),
        learner: member.is_some_and(|member| member.role == Role::Learner),
    }
}

fn founders(topology: &Topology, instance: &Instance) -> Vec<Founder> {
    let placed = topology.members.iter().filter_map(|member| {
        let place = instance.members.get(&member.name)?;
        (place.origin == Origin::Founder).then(|| Founder {
            name: member.name.clone(),
            peer_url: listed_peer_url(topology, member, place),
        })
    });
    placed.collect()
}

fn places<'m>(
    members: &[&'m Member],
    instance: &Instance,
    dir: &ClusterDir,
    state_root: &Path,
) -> Result<Vec<(&'m Member, Placement)>, StateError> {
    let ports = ports(members, instance, dir, state_root)?;
    let members = members.iter().zip(ports);
    Ok(members
        .map(|(member, (client, peer))| {
            let cluster = &instance.cluster;
            let place = Placement::of(member, cluster, dir.path(), client, peer);
            (*member, place)
        })
        .collect())
}

// Client and peer port of each member, side by side as 2379 and 2380 are. A fixed port leaves its place in the block unused,
// so that fixing or freeing one member's port moves no other's.
fn ports(
    members: &[&Member],
    instance: &Instance,
    dir: &ClusterDir,
    state_root: &Path,
) -> Result<Vec<(u16, u16)>, StateError> {
    if members
        .iter()
        .all(|member| member.client_port.is_some() && member.peer_port.is_some())
    {
        return Ok(members
            .iter()
            .filter_map(|member| member.client_port.zip(member.peer_port))
            .collect());
    }
    let len = u16::try_from(members.len() * 2).unwrap_or(u16::MAX);
    let mut avoid = remembered_blocks(state_root)?;
    avoid.extend(ports_of(instance));
    avoid.extend(
        members
            .iter()
            .flat_map(|member| [member.client_port, member.peer_port])
            .flatten()
            .map(|port| port..port + 1),
    );
    // Different places start their search at different ports, so that clusters made at the same moment rarely meet.
    let base = free_block(
        len,
        fnv::hash(dir.path().as_os_str().as_encoded_bytes()),
        &avoid,
    )?;
    Ok(members
        .iter()
        .zip((base..).step_by(2))
        .map(|(member, port)| {
            (
                member.client_port.unwrap_or(port),
                member.peer_port.unwrap_or(port + 1),
            )
        })
        .collect())
}

// Ports of what runs beside the members, in a block of their own: a service can be added to a cluster that exists.
fn services(
    topology: &Topology,
    instance: &mut Instance,
    dir: &ClusterDir,
    state_root: &Path,
) -> Result<(), StateError> {
    let wanted = services::ports(topology);
    instance
        .services
        .retain(|name, _| wanted.contains_key(name));
    let mut missing = Vec::new();
    for (name, fixed) in wanted {
        match fixed {
            Some(port) => drop(instance.services.insert(name, port)),
            None if instance.services.contains_key(&name) => {}
            None => missing.push(name),
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let mut avoid = remembered_blocks(state_root)?;
    avoid.extend(ports_of(instance));
    let len = u16::try_from(missing.len()).unwrap_or(u16::MAX);
    let base = free_block(
        len,
        fnv::hash(dir.path().as_os_str().as_encoded_bytes()),
        &avoid,
    )?;
    instance.services.extend(missing.into_iter().zip(base..));
    Ok(())
}

fn ports_of(instance: &Instance) -> impl Iterator<Item = Range<u16>> {
    let leaving = instance.leaving.values().map(|leaving| &leaving.placement);
    let members = instance.members.values().chain(leaving);
    members
        .flat_map(|at| [at.client_port, at.peer_port])
        .chain(instance.services.values().copied())
        .map(|port| port..port.saturating_add(1))
}

// Ports of stopped clusters are free now and wanted again later.
fn remembered_blocks(state_root: &Path) -> Result<Vec<Range<u16>>, StateError> {
    let mut blocks = Vec::new();
    for name in list(state_root)? {
        // Another cluster's damaged state is not this cluster's problem.
        let Ok(Some(instance)) = ClusterDir::new(state_root, &name).load() else {
            continue;
        };
        blocks.extend(ports_of(&instance));
    }
    Ok(blocks)
}

fn token(topology: &Topology) -> String {
    let token = topology.bootstrap.token();
    token.cloned().unwrap_or_else(|| fresh_token(topology))
}

/// A token that no other cluster has.
pub(super) fn fresh_token(topology: &Topology) -> String {
    // Each state is seeded from the system's randomness; uniqueness is all that a token needs.
    let random = || RandomState::new().build_hasher().finish();
    let digits = format!("{:016x}{:016x}", random(), random());
    match &topology.bootstrap {
        // Tokens of the public service are 32 digits, and nothing else.
        Bootstrap::Discovery { .. } => digits,
        Bootstrap::Static { .. } | Bootstrap::DnsSrv { .. } => {
            format!("{}-{digits}", topology.name)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::testing::topology;

    #[test]
    fn a_new_instance_has_one_block_and_its_own_token() {
        let root = tempfile::tempdir().unwrap();
        let dir = ClusterDir::new(root.path(), "demo");
        let topology = topology(3);
        let first = propose(&topology, None, &[], None, &dir, root.path()).unwrap();
        let second = propose(&topology, None, &[], None, &dir, root.path()).unwrap();
        assert!(first.is_new);
        assert_ne!(first.instance.token, second.instance.token);
        let ports: Vec<u16> = first
            .instance
            .members
            .values()
            .flat_map(|at| [at.client_port, at.peer_port])
            .collect();
        assert!(
            ports.windows(2).all(|pair| pair[0] + 1 == pair[1]),
            "{ports:?}"
        );
        assert!(!dir.path().exists(), "proposing only looks");
    }

    #[test]
    fn what_is_remembered_stays_and_fixed_ports_win() {
        let root = tempfile::tempdir().unwrap();
        let dir = ClusterDir::new(root.path(), "demo");
        let mut topology = topology(3);
        let first = propose(&topology, None, &[], None, &dir, root.path())
            .unwrap()
            .instance;
        let found = Some(first.clone());
        let again = propose(&topology, None, &[], found.as_ref(), &dir, root.path()).unwrap();
        assert_eq!(
            again,
            Proposal {
                instance: first.clone(),
                is_new: false
            }
        );

        topology.members[1].client_port = Some(9_999);
        let moved = propose(&topology, None, &[], found.as_ref(), &dir, root.path()).unwrap();
        assert!(moved.is_new);
        assert_eq!(moved.instance.members["infra1"].client_port, 9_999);
        assert_eq!(
            moved.instance.members["infra1"].peer_port,
            first.members["infra1"].peer_port
        );
    }

    #[test]
    fn members_come_and_go_and_the_founders_stay_as_they_were() {
        let root = tempfile::tempdir().unwrap();
        let dir = ClusterDir::new(root.path(), "demo");
        let before = topology(3);
        let first = propose(&before, None, &[], None, &dir, root.path())
            .unwrap()
            .instance;
        let mut wanted = topology(4);
        wanted.members.remove(2);
        let formed = founders(&before, &first);
        for founders in [formed.clone(), Vec::new()] {
            let older = Instance {
                founders,
                ..first.clone()
            };
            let found = Some(older);
            let changed = propose(
                &wanted,
                Some(&before),
                &[],
                found.as_ref(),
                &dir,
                root.path(),
            )
            .unwrap()
            .instance;
            assert_eq!(changed.founders, formed);
            assert_eq!(changed.leaving["infra2"].placement, first.members["infra2"]);
            let new = &changed.members["infra3"];
            assert_eq!(new.origin, Origin::Joining);
            let taken: Vec<u16> = ports_of(&first).map(|port| port.start).collect();
            assert!(!taken.contains(&new.client_port) && !taken.contains(&new.peer_port));

            let found = Some(changed);
            let back = propose(
                &before,
                Some(&wanted),
                &[],
                found.as_ref(),
                &dir,
                root.path(),
            )
            .unwrap()
            .instance;
            assert_eq!(back.members, first.members, "it comes back as it was");
            assert_eq!(back.leaving.keys().collect::<Vec<_>>(), ["infra3"]);
        }
    }

    #[test]
    fn ports_of_a_stopped_cluster_are_not_given_away() {
        let root = tempfile::tempdir().unwrap();
        let one = ClusterDir::new(root.path(), "one");
        let first = propose(&topology(3), None, &[], None, &one, root.path())
            .unwrap()
            .instance;
        let _lock = one.lock("up", false).unwrap();
        let first = Instance {
            cluster: "one".to_owned(),
            ..first
        };
        one.save(&first).unwrap();
        assert!(remembered_blocks(root.path()).unwrap().len() == 6);
        let mut same_place = topology(3);
        same_place.name = "one".to_owned();
        let second = propose(&same_place, None, &[], None, &one, root.path())
            .unwrap()
            .instance;
        let ports = |instance: &Instance| {
            instance
                .members
                .values()
                .map(|at| at.client_port)
                .collect::<Vec<_>>()
        };
        assert!(
            ports(&first)
                .iter()
                .all(|port| !ports(&second).contains(port))
        );
    }
}
