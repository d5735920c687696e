//! The settings of a member.

use member_flags::{Flags, Support};

use super::error::RenderError;
use super::server::Server;
use super::urls::{advertised_client_urls, listen_client_urls, listen_peer_url, peer_url};
use crate::instance::{Instance, Origin, Placement};
use crate::services;
use crate::topology::{Bootstrap, ClientTls, Discovery, Member, PeerTls, Protocol, Topology};

/// Where a member lives.
///
/// # Errors
/// The instance does not have it.
pub fn placed<'i>(instance: &'i Instance, member: &Member) -> Result<&'i Placement, RenderError> {
    let place = instance.members.get(&member.name);
    place.ok_or_else(|| RenderError::NotPlaced {
        member: member.name.clone(),
    })
}

/// Decides every setting of a member: its own flags, and what follows from its place in the cluster.
///
/// Flags that only an upstream etcd has are left out here; `argv` and its like add them for such a server.
///
/// # Errors
/// The member has no place in the instance, or a flag is refused.
pub fn flags(
    topology: &Topology,
    member: &Member,
    instance: &Instance,
) -> Result<Flags, RenderError> {
    let place = placed(instance, member)?.seen_there();
    let place = &place;
    let mut settings: Vec<(&str, String)> = Vec::new();
    let upstream = Server::assumed(&member.binary, (3, 6)) != Server::Member;
    for (name, value) in &member.flags {
        if !(upstream && refused_by_member(name)) {
            settings.push((name, value.clone()));
        }
    }
    let path = |path: &std::path::Path| path.to_string_lossy().into_owned();
    settings.extend([
        ("name", member.name.clone()),
        ("data-dir", path(&place.data_dir)),
        ("listen-peer-urls", listen_peer_url(topology, member, place)),
        (
            "listen-client-urls",
            listen_client_urls(topology, member, place),
        ),
        (
            "initial-advertise-peer-urls",
            peer_url(topology, member, place),
        ),
        (
            "advertise-client-urls",
            advertised_client_urls(topology, member, place),
        ),
    ]);
    settings.extend(bootstrap(topology, instance, place)?);
    if topology.tls.client == ClientTls::Auto {
        settings.push(("auto-tls", "true".to_owned()));
    }
    if topology.tls.peer == PeerTls::Auto {
        settings.push(("peer-auto-tls", "true".to_owned()));
    }
    if topology.tls.client.is_signed() {
        let files = place.server();
        settings.extend([
            ("cert-file", path(&files.cert)),
            ("key-file", path(&files.key)),
        ]);
    }
    if topology.tls.client == ClientTls::Mutual {
        settings.extend([
            ("client-cert-auth", "true".to_owned()),
            ("trusted-ca-file", path(&place.ca_cert())),
        ]);
    }
    if topology.tls.peer.is_signed() {
        let files = place.peer();
        settings.extend([
            ("peer-cert-file", path(&files.cert)),
            ("peer-key-file", path(&files.key)),
            ("peer-client-cert-auth", "true".to_owned()),
            ("peer-trusted-ca-file", path(&place.ca_cert())),
        ]);
    }
    let mut flags = Flags::default();
    for (name, value) in settings {
        flags
            .set(name, &value)
            .map_err(|source| RenderError::Flag {
                member: member.name.clone(),
                flag: name.to_owned(),
                source: Box::new(source),
            })?;
    }
    Ok(flags)
}

/// How a member finds the others. Who joins is told who is there, whatever way the founders found each other.
fn bootstrap(
    topology: &Topology,
    instance: &Instance,
    place: &Placement,
) -> Result<Vec<(&'static str, String)>, RenderError> {
    let present = match &place.origin {
        Origin::Founder => None,
        Origin::Joining => Some(initial_cluster(topology, instance, |_| true)?),
        Origin::Joined(initial_cluster) => Some(initial_cluster.clone()),
    };
    if let Some(present) = present {
        return Ok(vec![
            ("initial-cluster", present),
            ("initial-cluster-state", "existing".to_owned()),
            ("initial-cluster-token", instance.token.clone()),
        ]);
    }
    let mut settings = match &topology.bootstrap {
        Bootstrap::Discovery { service, proxy } => {
            let mut settings = match service {
                Discovery::Endpoints { endpoints, token } => {
                    vec![
                        ("discovery-token", token.clone()),
                        ("discovery-endpoints", endpoints.join(",")),
                    ]
                }
                Discovery::BuiltIn(Protocol::V3) => vec![
                    ("discovery-token", instance.token.clone()),
                    ("discovery-endpoints", services::discovery_backend(instance)),
                ],
                Discovery::Url(_) | Discovery::BuiltIn(Protocol::Private | Protocol::Public) => {
                    vec![
                        ("discovery", services::cluster_token(topology, instance)),
                        // A member without a place is an error here, not a proxy that nobody asked for.
                        ("discovery-fallback", "exit".to_owned()),
                    ]
                }
            };
            settings.extend(proxy.clone().map(|proxy| ("discovery-proxy", proxy)));
            return Ok(settings);
        }
        Bootstrap::DnsSrv {
            domain, srv_name, ..
        } => {
            let mut settings = vec![("discovery-srv", domain.clone())];
            settings.extend(srv_name.clone().map(|name| ("discovery-srv-name", name)));
            settings
        }
        Bootstrap::Static { .. } => vec![("initial-cluster", founders(topology, instance)?)],
    };
    settings.extend([
        ("initial-cluster-state", "new".to_owned()),
        ("initial-cluster-token", instance.token.clone()),
    ]);
    Ok(settings)
}

/// Whether the included member refuses a flag that etcd has.
fn refused_by_member(name: &str) -> bool {
    member_flags::lookup(name).is_some_and(|def| matches!(def.support, Support::Refused { .. }))
}

fn founders(topology: &Topology, instance: &Instance) -> Result<String, RenderError> {
    if instance.founders.is_empty() {
        return initial_cluster(topology, instance, |place| place.origin == Origin::Founder);
    }
    let entries: Vec<String> = instance
        .founders
        .iter()
        .map(|founder| format!("{}={}", founder.name, founder.peer_url))
        .collect();
    Ok(entries.join(","))
}

fn initial_cluster(
    topology: &Topology,
    instance: &Instance,
    of: impl Fn(&Placement) -> bool,
) -> Result<String, RenderError> {
    let mut entries = Vec::new();
    for member in &topology.members {
        let place = placed(instance, member)?;
        if of(place) {
            let url = peer_url(topology, member, place);
            entries.push(format!("{}={url}", member.name));
        }
    }
    Ok(entries.join(","))
}
