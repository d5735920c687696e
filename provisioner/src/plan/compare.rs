//! What may not change about a cluster that has data, and what a restart can change.

use std::collections::{BTreeMap, BTreeSet};

use super::refusal::Refusal;
use crate::instance::Instance;
use crate::observe::ListedMember;
use crate::topology::{Binary, CaFiles, Member, Role, Topology};

/// Refuses members that the instance does not have, and the reverse.
pub(super) fn membership(topology: &Topology, instance: &Instance) -> Result<(), Refusal> {
    let wanted: BTreeSet<&str> = topology
        .members
        .iter()
        .map(|member| member.name.as_str())
        .collect();
    let known: BTreeSet<&str> = instance.members.keys().map(String::as_str).collect();
    let added: Vec<&str> = wanted.difference(&known).copied().collect();
    let removed: Vec<&str> = known.difference(&wanted).copied().collect();
    if added.is_empty() && removed.is_empty() {
        return Ok(());
    }
    let part = |verb: &str, names: &[&str]| {
        (!names.is_empty()).then(|| format!("{verb} {}", names.join(", ")))
    };
    let change = [part("adds", &added), part("removes", &removed)]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join(" and ");
    Err(Refusal::Membership {
        cluster: topology.name.clone(),
        change,
    })
}

/// Refuses a cluster whose own list of members is another one.
pub(super) fn listed(topology: &Topology, listed: &[ListedMember]) -> Result<(), Refusal> {
    let wanted: BTreeSet<&str> = topology
        .members
        .iter()
        .map(|member| member.name.as_str())
        .collect();
    let there: BTreeSet<&str> = listed
        .iter()
        .map(|member| member.name.as_str())
        .filter(|name| !name.is_empty())
        .collect();
    // A member has no name until it has started once, so that one without may be the one that is missed.
    let unnamed = listed.len() - there.len();
    let strangers: Vec<&str> = there.difference(&wanted).copied().collect();
    let missing: Vec<&str> = wanted.difference(&there).copied().collect();
    if strangers.is_empty() && missing.len() == unnamed {
        return Ok(());
    }
    let part = |verb: &str, names: &[&str]| {
        (!names.is_empty()).then(|| format!("{verb} {}", names.join(", ")))
    };
    let unnamed = (unnamed > missing.len())
        .then(|| format!("has {} more without a name", unnamed - missing.len()));
    let parts = [part("has", &strangers), part("lacks", &missing), unnamed];
    let change = parts
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join(" and ");
    Err(Refusal::Listed {
        cluster: topology.name.clone(),
        change,
    })
}

/// Refuses changes of what members agreed on at their first start.
pub(super) fn fixed(
    before: &Topology,
    wanted: &Topology,
    instance: &Instance,
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
    if old.peer != new.peer {
        return refuse("peer TLS".to_owned(), word(old.peer), word(new.peer));
    }
    if old.client != new.client {
        return refuse("client TLS".to_owned(), word(old.client), word(new.client));
    }
    if old.ca != new.ca {
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
        if old.address != member.address {
            return refuse(of("address"), old.address.clone(), member.address.clone());
        }
        if old.role != member.role {
            return refuse(of("role"), role(old).to_owned(), role(member).to_owned());
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
        if before.peer_port != after.peer_port {
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

fn role(member: &Member) -> &'static str {
    match member.role {
        Role::Voter => "voter",
        Role::Learner => "learner",
    }
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
