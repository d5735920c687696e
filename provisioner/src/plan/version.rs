//! Which versions may take each other's place.
//!
//! etcd's rules: a cluster goes up by one minor version at a time, and while some member still runs the older one, the others may go
//! back to it. Once all run the newer one the cluster's version rises, and data that it has written are not for the older one.

use super::decide::Wanted;
use super::refusal::Refusal;
use crate::observe::{MemberFacts, Observed};

/// Major and minor of a version such as `3.4.23`.
type Minor = (u32, u32);

/// Refuses programs that must not follow those whose data there are.
pub(super) fn gate(wanted: &Wanted<'_>, observed: &Observed) -> Result<(), Refusal> {
    let known = |facts: &MemberFacts| minor(version(facts)?);
    // What the cluster as a whole can be.
    let Some(lowest) = observed.members.values().filter_map(known).min() else {
        return Ok(());
    };
    for (name, facts) in &observed.members {
        let (Some(from), Some(to)) = (version(facts), wanted.versions.get(name)) else {
            continue;
        };
        let (Some(old), Some(new)) = (minor(from), minor(to)) else {
            continue;
        };
        let why = if new == old {
            continue;
        } else if new.0 != old.0 {
            "another major version needs a way of its own"
        } else if new > old && new.1 - lowest.1 > 1 {
            "versions go up by one minor at a time, and every member must be there before the next"
        } else if new < old && new != lowest {
            "what the newer version has written is not for the older one"
        } else {
            continue;
        };
        return Err(Refusal::Version {
            cluster: wanted.topology.name.clone(),
            member: name.clone(),
            from: from.to_owned(),
            to: to.clone(),
            why: why.to_owned(),
        });
    }
    Ok(())
}

/// What a member runs, or ran before it was stopped.
pub(super) fn version(facts: &MemberFacts) -> Option<&str> {
    let running = facts.vitals().map(|vitals| vitals.version.as_str());
    running.or(facts.version.as_deref())
}

fn minor(version: &str) -> Option<Minor> {
    let mut parts = version.split('.').map(str::parse);
    match (parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Some((major, minor)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::decide::up;
    use super::super::testing::{World, name};
    use crate::observe::Health;

    fn world(running: &[&str], wanted: &str) -> World {
        let mut world = World::running(running.len(), 0);
        for (index, version) in running.iter().enumerate() {
            world.versions.insert(name(index), wanted.to_owned());
            if let Health::Up(vitals) = &mut world.facts(index).health {
                vitals.version = (*version).to_owned();
            }
        }
        world
    }

    fn planned(world: &World) -> Result<usize, String> {
        let plan = up(&world.wanted(), &world.observed);
        plan.map(|plan| plan.steps.len())
            .map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn one_minor_up_patches_and_back_while_somebody_is_there() {
        // Three restarts, and leadership is handed over before the last.
        for (running, wanted, steps) in [
            (["3.4.23", "3.4.23", "3.4.23"], "3.5.1", 4),
            (["3.4.23", "3.4.23", "3.4.23"], "3.4.1", 4),
            (["3.5.1", "3.4.23", "3.4.23"], "3.5.1", 2),
            (["3.4.23", "3.5.1", "3.5.1"], "3.4.23", 2),
            (["3.5.1", "3.5.1", "3.5.1"], "3.5.1", 0),
        ] {
            assert_eq!(planned(&world(&running, wanted)), Ok(steps), "{running:?}");
        }
    }

    #[test]
    fn leaps_and_downgrades_are_refused() {
        for (running, wanted, why) in [
            (["3.4.23"; 3], "3.6.0", "one minor at a time"),
            (["3.5.1", "3.4.23", "3.5.1"], "3.6.0", "one minor at a time"),
            (["3.5.1"; 3], "3.4.23", "not for the older one"),
            (["3.5.1"; 3], "4.5.1", "major version"),
        ] {
            let refused = planned(&world(&running, wanted)).unwrap_err();
            assert!(refused.contains(why), "{refused}");
        }
    }

    #[test]
    fn a_stopped_member_counts_by_what_it_wrote_down() {
        let mut world = world(&["3.5.1", "3.5.1", "3.5.1"], "3.4.23");
        world.kill(2);
        world.facts(2).version = Some("3.4.23".to_owned());
        assert!(planned(&world).is_ok());
        world.facts(2).version = Some("3.5.1".to_owned());
        assert!(planned(&world).is_err());
    }
}
