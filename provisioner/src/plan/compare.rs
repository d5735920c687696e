//! What may not change about a cluster that has data, and what a restart can change.

use std::collections::BTreeMap;

use super::refusal::Refusal;
use super::tls;
use crate::instance::{Instance, Origin};
use crate::pki::needs_ca;
use crate::topology::{Binary, CaFiles, Member, Topology};

/// Refuses changes of what members agreed on at their first start.
pub(super) fn fixed(
    before: &Topology,
    wanted: &Topology,
    instance: &Instance,
    tls_stage: bool,
) -> Result<(), Refusal> {
    let refuse = |what: String, from: String, to: String| {
        Err(Refusal::Fixed {
            cluster: wanted.name.clone(),
            what,
            from,
            to,
        })
    };
    let (old, new) = (&before.tls, &wanted.tls);
    tls::check(&wanted.name, old, new, tls_stage)?;
    if old.ca != new.ca && needs_ca(before) && instance.rotation.is_none() {
        let name = |ca: &Option<CaFiles>| {
            ca.as_ref()
                .map_or_else(|| "its own".to_owned(), |ca| ca.cert.display().to_string())
        };
        return refuse("the CA".to_owned(), name(&old.ca), name(&new.ca));
    }
    if before.network != wanted.network {
        return refuse(
            "the network".to_owned(),
            word(before.network),
            word(wanted.network),
        );
    }
    if let Some(token) = wanted
        .bootstrap
        .token()
        .filter(|token| **token != instance.token)
    {
        return refuse(
            "the token".to_owned(),
            instance.token.clone(),
            token.clone(),
        );
    }
    for member in &wanted.members {
        let Some(old) = before.members.iter().find(|old| old.name == member.name) else {
            continue;
        };
        let of = |what: &str| format!("the {what} of member {}", member.name);
        let place = instance.members.get(&member.name);
        let anew = place.is_some_and(|place| place.origin == Origin::Joining);
        if old.address != member.address && !anew {
            return Err(Refusal::Moved {
                cluster: wanted.name.clone(),
                member: member.name.clone(),
                from: old.address.clone(),
                to: member.address.clone(),
            });
        }
        if matches!(old.binary, Binary::Included) != matches!(member.binary, Binary::Included) {
            return refuse(of("binary"), binary(old), binary(member));
        }
    }
    Ok(())
}

/// Refuses another peer port than the members know of each other.
pub(super) fn peer_ports(remembered: &Instance, proposed: &Instance) -> Result<(), Refusal> {
    for (name, before) in &remembered.members {
        let Some(after) = proposed.members.get(name) else {
            continue;
        };
        // Who has yet to join is known to nobody.
        if before.peer_port != after.peer_port && before.origin != Origin::Joining {
            return Err(Refusal::Fixed {
                cluster: remembered.cluster.clone(),
                what: format!("the peer port of member {name}"),
                from: before.peer_port.to_string(),
                to: after.peer_port.to_string(),
            });
        }
    }
    Ok(())
}

/// What differs between two argument vectors, one phrase per flag.
#[must_use]
pub fn arguments(running: &[String], wanted: &[String]) -> Vec<String> {
    let mut why = Vec::new();
    let program = |argv: &[String]| argv.first().cloned().unwrap_or_default();
    if program(running) != program(wanted) {
        why.push(format!(
            "binary {} -> {}",
            program(running),
            program(wanted)
        ));
    }
    let (old, new) = (flags(running), flags(wanted));
    for (name, value) in &new {
        match old.get(name) {
            None => why.push(format!("{name} default -> {value}")),
            Some(before) if before != value => why.push(format!("{name} {before} -> {value}")),
            Some(_) => {}
        }
    }
    why.extend(
        old.iter()
            .filter(|(name, _)| !new.contains_key(*name))
            .map(|(name, value)| format!("{name} {value} -> default")),
    );
    if why.is_empty() && running != wanted {
        why.push("order of arguments".to_owned());
    }
    why
}

// Rendered arguments are `--name=value` or a bare `--name`.
fn flags(argv: &[String]) -> BTreeMap<&str, &str> {
    argv.iter()
        .skip(1)
        .map(|arg| arg.split_once('=').unwrap_or((arg, "true")))
        .collect()
}

fn word(value: impl std::fmt::Debug) -> String {
    format!("{value:?}").to_lowercase()
}

fn binary(member: &Member) -> String {
    match &member.binary {
        Binary::Included => "the included member".to_owned(),
        Binary::Path(path) => path.display().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn argv(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn each_changed_flag_is_named() {
        let running = argv("/b/etcd --name=a --heartbeat-interval=100 --pre-vote");
        let wanted = argv("/c/etcd --name=a --heartbeat-interval=50 --snapshot-count=5");
        assert_eq!(
            arguments(&running, &wanted),
            [
                "binary /b/etcd -> /c/etcd",
                "--heartbeat-interval 100 -> 50",
                "--snapshot-count default -> 5",
                "--pre-vote true -> default"
            ]
        );
        assert!(arguments(&running, &running).is_empty());
    }
}
