//! The DNS records by which members and clients find a cluster.

use std::fmt::{self, Write};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::urls::{client_scheme, peer_scheme};
use crate::instance::Instance;
use crate::topology::{Bootstrap, Member, Role, Topology};

/// One SRV record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SrvRecord {
    /// `etcd-server`, `etcd-client-ssl` and so on: what stands between `_` and `._tcp`.
    pub service: String,
    /// The domain, without a dot at its end.
    pub domain: String,
    /// The port.
    pub port: u16,
    /// The host, without a dot at its end.
    pub target: String,
}

impl fmt::Display for SrvRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            service,
            domain,
            port,
            target,
        } = self;
        write!(f, "_{service}._tcp.{domain}. SRV 0 0 {port} {target}.")
    }
}

/// The SRV records of a cluster that is found by them; none of another.
pub fn srv_records(topology: &Topology, instance: &Instance) -> Vec<SrvRecord> {
    let Bootstrap::DnsSrv {
        domain, srv_name, ..
    } = &topology.bootstrap
    else {
        return Vec::new();
    };
    let suffix = srv_name.as_ref().map(|name| format!("-{name}"));
    let mut records = Vec::new();
    for member in &topology.members {
        let Some((place, target)) = instance
            .members
            .get(&member.name)
            .zip(record_name(topology, member))
        else {
            continue;
        };
        let ports = [
            ("server", peer_scheme(topology, place), place.peer_port),
            ("client", client_scheme(topology), place.client_port),
        ];
        for (whose, scheme, port) in ports {
            // Members that find each other by these records wait for everybody in them, and a learner comes later.
            if whose == "server" && member.role == Role::Learner {
                continue;
            }
            let ssl = if scheme == "https" { "-ssl" } else { "" };
            records.push(SrvRecord {
                service: format!("etcd-{whose}{ssl}{}", suffix.as_deref().unwrap_or_default()),
                domain: relative(domain).to_owned(),
                port,
                target: target.clone(),
            });
        }
    }
    records.sort();
    records
}

/// Whether there is anything to publish.
pub fn has_records(topology: &Topology) -> bool {
    let mut members = topology.members.iter();
    members.any(|member| record_name(topology, member).is_some())
}

/// A zone file: the addresses of the members' names, and the SRV records where the cluster is found by them.
pub fn zone(topology: &Topology, instance: &Instance) -> String {
    let mut zone = format!("; Records of cluster {}.\n$TTL 60\n", topology.name);
    // Writing to a string does not fail.
    if let Bootstrap::DnsSrv { domain, .. } = &topology.bootstrap {
        let domain = relative(domain);
        let _ = writeln!(
            zone,
            "{domain}. SOA ns.{domain}. root.{domain}. 1 60 60 60 60"
        );
    }
    for member in &topology.members {
        if let Some(name) = record_name(topology, member) {
            let (kind, address) = match reached(member) {
                IpAddr::V4(ip) => ("A", ip.to_string()),
                IpAddr::V6(ip) => ("AAAA", ip.to_string()),
            };
            let _ = writeln!(zone, "{name}. {kind} {address}");
        }
    }
    for record in srv_records(topology, instance) {
        let _ = writeln!(zone, "{record}");
    }
    zone
}

/// The name of a member: SRV records need one, so a member that advertises an address gets one in the domain.
pub fn record_name(topology: &Topology, member: &Member) -> Option<String> {
    match (member.address.parse::<IpAddr>(), &topology.bootstrap) {
        (Err(_), _) => Some(relative(&member.address).to_owned()),
        (Ok(_), Bootstrap::DnsSrv { domain, .. }) => {
            Some(format!("{}.{}", member.name, relative(domain)))
        }
        (Ok(_), _) => None,
    }
}

fn reached(member: &Member) -> IpAddr {
    match member.address.parse() {
        Ok(ip) => ip,
        Err(_) if member.listen.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
        Err(_) => member.listen,
    }
}

fn relative(name: &str) -> &str {
    name.trim_end_matches('.')
}
