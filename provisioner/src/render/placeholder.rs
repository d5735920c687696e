//! A made-up instance, for settings that are shown or checked before the cluster exists.

use std::path::Path;

use crate::instance::{Instance, Origin, Placement};
use crate::services;
use crate::topology::{Role, Topology};

/// The same for the same topology, always: ports from 2379 up in one block where the file fixes none, and paths under
/// `/var/lib/provision`.
pub fn placeholder(topology: &Topology) -> Instance {
    let dir = Path::new("/var/lib/provision").join(&topology.name);
    let token = topology.bootstrap.token();
    let token = token.map_or_else(|| format!("{}-token", topology.name), Clone::clone);
    let mut instance = Instance::new(&topology.name, token, &dir);
    let fixed: Vec<u16> = topology
        .members
        .iter()
        .flat_map(|member| [member.client_port, member.peer_port])
        .chain(services::ports(topology).into_values())
        .flatten()
        .collect();
    let mut free = (2379..=u16::MAX).filter(|port| !fixed.contains(port));
    for member in &topology.members {
        // 64 members take 128 ports, so the iterator does not end.
        let client = member.client_port.or_else(|| free.next()).unwrap_or(2379);
        let peer = member.peer_port.or_else(|| free.next()).unwrap_or(2380);
        let mut place = Placement::of(member, &topology.name, &dir, client, peer);
        if member.role == Role::Learner {
            place.origin = Origin::Joining;
        }
        instance.members.insert(member.name.clone(), place);
    }
    for (name, fixed) in services::ports(topology) {
        let port = fixed.or_else(|| free.next()).unwrap_or(2379);
        instance.services.insert(name, port);
    }
    instance
}
