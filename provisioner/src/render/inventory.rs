//! The cluster as an inventory of Ansible.

use serde_json::{Map, Value, json};

use super::error::RenderError;
use super::flags::placed;
use super::forms::{env, quote};
use super::server::Server;
use super::urls::{client_url, client_urls, listed_peer_url, peer_url};
use crate::instance::{Instance, Placement};
use crate::topology::{Binary, Member, Role, SshHost, Topology};

/// A YAML inventory with the group `etcd`: how each machine is reached, and what its member is.
///
/// # Errors
/// The settings cannot be rendered for a member's server.
pub fn inventory(
    topology: &Topology,
    members: &[&Member],
    instance: &Instance,
    minor: (u32, u32),
) -> Result<Value, RenderError> {
    let mut hosts = Map::new();
    for member in members {
        let place = placed(instance, member)?;
        let mut variables = match &member.host {
            Some(host) => reached(host),
            None => Map::from_iter([
                ("ansible_host".to_owned(), json!(member.address)),
                ("ansible_connection".to_owned(), json!("local")),
            ]),
        };
        variables.extend(described(topology, member, instance, place, minor)?);
        hosts.insert(member.name.clone(), Value::Object(variables));
    }
    let initial: Vec<String> = topology
        .members
        .iter()
        .filter_map(|member| {
            let place = instance.members.get(&member.name)?;
            let url = listed_peer_url(topology, member, place);
            Some(format!("{}={url}", member.name))
        })
        .collect();
    Ok(json!({
        "etcd": {
            "hosts": hosts,
            "vars": {
                "etcd_cluster_name": topology.name,
                "etcd_endpoints": client_urls(topology, instance),
                "etcd_initial_cluster": initial.join(","),
                "etcd_initial_cluster_token": instance.token,
            },
        },
    }))
}

fn reached(host: &SshHost) -> Map<String, Value> {
    let mut variables = Map::new();
    let mut set = |name: &str, value: Value| variables.insert(name.to_owned(), value);
    set("ansible_host", json!(host.destination));
    if let Some(user) = &host.user {
        set("ansible_user", json!(user));
    }
    if let Some(port) = host.port {
        set("ansible_port", json!(port));
    }
    if let Some(identity) = &host.identity {
        set("ansible_ssh_private_key_file", json!(identity));
    }
    let mut args = Vec::new();
    if let Some(config) = &host.ssh_config {
        args.push(format!("-F {}", quote(&config.display().to_string())));
    }
    if !host.jump.is_empty() {
        args.push(format!("-o ProxyJump={}", quote(&host.jump.join(","))));
    }
    if !args.is_empty() {
        set("ansible_ssh_common_args", json!(args.join(" ")));
    }
    if host.sudo {
        set("ansible_become", json!(true));
    }
    variables
}

fn described(
    topology: &Topology,
    member: &Member,
    instance: &Instance,
    place: &Placement,
    minor: (u32, u32),
) -> Result<Map<String, Value>, RenderError> {
    let server = Server::assumed(&member.binary, minor);
    let settings: Map<String, Value> = env(topology, member, instance, server)?
        .into_iter()
        .map(|(name, value)| (name, value.into()))
        .collect();
    let role = match member.role {
        Role::Voter => "voter",
        Role::Learner => "learner",
    };
    let program = match &member.binary {
        Binary::Included => "member".into(),
        Binary::Path(path) => path.display().to_string(),
    };
    let mut variables = json!({
        "etcd_member_name": member.name,
        "etcd_role": role,
        "etcd_binary": program,
        "etcd_client_port": place.client_port,
        "etcd_client_url": client_url(topology, member, place),
        "etcd_data_dir": place.data_dir,
        "etcd_cert_dir": place.seen_there().cert_dir,
        "etcd_environment": settings,
        "etcd_peer_port": place.peer_port,
        "etcd_peer_url": peer_url(topology, member, place),
    });
    match variables.as_object_mut() {
        Some(variables) => {
            if let Some(zone) = &member.zone {
                variables.insert("etcd_zone".to_owned(), json!(zone));
            }
            Ok(std::mem::take(variables))
        }
        None => Ok(Map::new()),
    }
}
