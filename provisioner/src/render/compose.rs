//! Members as services of a compose file.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::container::{Image, Paths, needs_certificates, stands_alone};
use super::error::RenderError;
use super::flags::placed;
use crate::instance::Instance;
use crate::topology::{Member, Topology};

const PATHS: Paths = Paths {
    data: "/var/lib/etcd",
    certs: "/etc/etcd/certs",
};
// As in the systemd unit.
const OPEN_FILES: u32 = 65_536;

/// A compose file with these members.
///
/// Each uses the network of its machine, so that addresses and ports are those of the topology: members on one machine come up
/// together, of members on several each machine starts its own service.
///
/// # Errors
/// The settings cannot be rendered for the image's etcd.
pub fn compose(
    topology: &Topology,
    members: &[&Member],
    instance: &Instance,
    image: &Image,
) -> Result<Value, RenderError> {
    stands_alone(topology)?;
    let mut services = Map::new();
    let mut volumes = Map::new();
    for member in members {
        let place = placed(instance, member)?;
        let data = format!("{}-data", member.name);
        let mut mounts = vec![json!({
            "type": "volume",
            "source": data,
            "target": PATHS.data,
        })];
        if needs_certificates(topology) {
            mounts.push(json!({
                "type": "bind",
                "source": shown(&place.seen_there().cert_dir),
                "target": PATHS.certs,
                "read_only": true,
            }));
        }
        let mut test = vec!["CMD".to_owned()];
        test.extend(PATHS.health(topology, member, place));
        let service = json!({
            "image": image.name,
            "command": PATHS.command(topology, member, instance, image)?,
            "network_mode": "host",
            "restart": "unless-stopped",
            "stop_grace_period": "30s",
            "ulimits": { "nofile": OPEN_FILES },
            "volumes": mounts,
            "healthcheck": {
                "test": test,
                "interval": "10s",
                "timeout": "10s",
                "retries": 3,
                // The first member waits for the others.
                "start_period": "60s",
            },
        });
        services.insert(member.name.clone(), literal(service));
        volumes.insert(data, json!({}));
    }
    Ok(json!({
        "name": project(&topology.name),
        "services": services,
        "volumes": volumes,
    }))
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

// compose-spec, "Interpolation": `$` starts a variable in every value.
fn literal(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(text.replace('$', "$$")),
        Value::Array(values) => values.into_iter().map(literal).collect(),
        Value::Object(fields) => fields
            .into_iter()
            .map(|(name, value)| (name, literal(value)))
            .collect(),
        other => other,
    }
}

// A project's name may hold lowercase letters, digits, `-` and `_`.
fn project(cluster: &str) -> String {
    cluster.replace('.', "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_taken_for_a_variable() {
        let value = literal(json!({"a": ["$HOME", "${x}"], "b": 1}));
        assert_eq!(value, json!({"a": ["$$HOME", "$${x}"], "b": 1}));
    }
}
