//! The URLs of members.

use super::zone::record_name;
use crate::instance::{Instance, Placement, Reach};
use crate::topology::{Bootstrap, ClientTls, Member, PeerTls, Role, Topology};

/// `host` as a URL holds it.
pub fn url_host(host: &str) -> String {
    if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    }
}

pub(super) fn peer_scheme(topology: &Topology, place: &Placement) -> &'static str {
    match topology.tls.peer {
        PeerTls::Off | PeerTls::Prepared => "http",
        PeerTls::Mutual if place.reach != Reach::AsWanted => "http",
        PeerTls::Auto | PeerTls::Mutual => "https",
    }
}

/// The scheme of the client URLs.
pub fn client_scheme(topology: &Topology) -> &'static str {
    match topology.tls.client {
        ClientTls::Off => "http",
        ClientTls::Auto | ClientTls::Both | ClientTls::Server | ClientTls::Mutual => "https",
    }
}

/// The URL at which other members reach this one.
pub fn peer_url(topology: &Topology, member: &Member, place: &Placement) -> String {
    format!(
        "{}://{}:{}",
        peer_scheme(topology, place),
        url_host(&member.address),
        place.peer_port
    )
}

/// The URL that the members know this one by at first: what the SRV records name, where they are found by those.
pub fn listed_peer_url(topology: &Topology, member: &Member, place: &Placement) -> String {
    match (&topology.bootstrap, record_name(topology, member)) {
        (Bootstrap::DnsSrv { .. }, Some(name)) => {
            format!(
                "{}://{name}:{}",
                peer_scheme(topology, place),
                place.peer_port
            )
        }
        _ => peer_url(topology, member, place),
    }
}

/// The URL at which clients reach this member.
pub fn client_url(topology: &Topology, member: &Member, place: &Placement) -> String {
    format!(
        "{}://{}:{}",
        client_scheme(topology),
        url_host(&member.address),
        place.client_port
    )
}

/// The client URLs of all voters that are placed, in the file's order: what `ETCDCTL_ENDPOINTS` holds. A learner refuses most calls.
pub fn client_urls(topology: &Topology, instance: &Instance) -> Vec<String> {
    topology
        .members
        .iter()
        .filter(|member| member.role == Role::Voter)
        .filter_map(|member| {
            Some(client_url(
                topology,
                member,
                instance.members.get(&member.name)?,
            ))
        })
        .collect()
}

pub(super) fn listen_peer_url(topology: &Topology, member: &Member, place: &Placement) -> String {
    format!(
        "{}://{}:{}",
        peer_scheme(topology, place),
        url_host(&member.listen.to_string()),
        place.peer_port
    )
}

/// Where a member listens for clients.
pub(super) fn listen_client_urls(
    topology: &Topology,
    member: &Member,
    place: &Placement,
) -> String {
    every_client_url(topology, &member.listen.to_string(), place)
}

/// Where a member says that clients reach it.
pub(super) fn advertised_client_urls(
    topology: &Topology,
    member: &Member,
    place: &Placement,
) -> String {
    every_client_url(topology, &member.address, place)
}

fn every_client_url(topology: &Topology, host: &str, place: &Placement) -> String {
    let at = format!("{}:{}", url_host(host), place.client_port);
    match topology.tls.client {
        ClientTls::Both => format!("http://{at},https://{at}"),
        _ => format!("{}://{at}", client_scheme(topology)),
    }
}
