//! From plain text to TLS while a cluster runs.
//!
//! In stages, each of which members and clients of the one before get on with. First every member has certificates, with which it
//! can call others over TLS, and its client port takes both. Then the members go over, one at a time: the cluster learns the new peer
//! URL of a member right before that one is started with it. When the clients have moved, plain text ends.

use std::fmt::Debug;

use super::refusal::Refusal;
use crate::topology::{ClientTls, PeerTls, Tls};

/// The settings to go through one after the other; the last one is `to`. None: nothing changes.
///
/// # Errors
/// There is no way that a running cluster can go.
pub fn tls_stages(cluster: &str, from: &Tls, to: &Tls) -> Result<Vec<Tls>, Refusal> {
    stages(from, to).ok_or_else(|| refusal(cluster, from, to, false))
}

/// Refuses another transport security than the members have, but for the next stage on the way to one if that was asked for.
pub(super) fn check(cluster: &str, from: &Tls, to: &Tls, stage: bool) -> Result<(), Refusal> {
    let same = (from.peer, from.client) == (to.peer, to.client);
    if same || stage && peer_follows(from.peer, to.peer) && client_follows(from.client, to.client) {
        return Ok(());
    }
    Err(refusal(cluster, from, to, stages(from, to).is_some()))
}

fn refusal(cluster: &str, from: &Tls, to: &Tls, in_stages: bool) -> Refusal {
    let words = |from: &dyn Debug, to: &dyn Debug| {
        let word = |value| format!("{value:?}").to_lowercase();
        (word(from), word(to))
    };
    let (what, (from, to)) = if from.peer == to.peer {
        ("client", words(&from.client, &to.client))
    } else {
        ("peer", words(&from.peer, &to.peer))
    };
    Refusal::Tls {
        cluster: cluster.to_owned(),
        what,
        from,
        to,
        in_stages,
    }
}

fn stages(from: &Tls, to: &Tls) -> Option<Vec<Tls>> {
    let mut stages = Vec::new();
    let (mut peer, mut client) = (from.peer, from.client);
    while (peer, client) != (to.peer, to.client) {
        let before = (peer, client);
        client = match (client, to.client) {
            (ClientTls::Off, ClientTls::Server | ClientTls::Mutual) => ClientTls::Both,
            // Clients get the time that the members take for themselves.
            (ClientTls::Both, ClientTls::Server | ClientTls::Mutual) if peer != to.peer => client,
            (_, to) if client_follows(client, to) => to,
            _ => client,
        };
        peer = match (peer, to.peer) {
            (PeerTls::Off, PeerTls::Mutual) => PeerTls::Prepared,
            (_, to) if peer_follows(peer, to) => to,
            _ => peer,
        };
        if (peer, client) == before {
            return None;
        }
        let to = to.clone();
        stages.push(Tls { peer, client, ..to });
    }
    Some(stages)
}

fn peer_follows(from: PeerTls, to: PeerTls) -> bool {
    use PeerTls::{Mutual, Off, Prepared};
    from == to
        || matches!(
            (from, to),
            (Off, Prepared) | (Prepared, Off) | (Prepared, Mutual)
        )
}

fn client_follows(from: ClientTls, to: ClientTls) -> bool {
    use ClientTls::{Both, Mutual, Off, Server};
    from == to
        || matches!(
            (from, to),
            (Off, Both) | (Both, Off) | (Both, Server) | (Both, Mutual)
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::Reach;
    use crate::observe::Health;
    use crate::plan::testing::{World, name, topology};
    use crate::plan::{Step, up};

    fn tls(peer: PeerTls, client: ClientTls) -> Tls {
        Tls {
            peer,
            client,
            ..topology(1).tls
        }
    }

    fn way(from: (PeerTls, ClientTls), to: (PeerTls, ClientTls)) -> Option<String> {
        let stages = tls_stages("demo", &tls(from.0, from.1), &tls(to.0, to.1)).ok()?;
        let words = stages
            .iter()
            .map(|stage| format!("{:?}/{:?}", stage.peer, stage.client));
        Some(words.collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn each_way_is_made_of_steps_that_members_get_on_with() {
        use ClientTls as C;
        use PeerTls as P;
        for (from, to, expected) in [
            (
                (P::Off, C::Off),
                (P::Mutual, C::Mutual),
                Some("Prepared/Both Mutual/Both Mutual/Mutual"),
            ),
            (
                (P::Off, C::Off),
                (P::Mutual, C::Off),
                Some("Prepared/Off Mutual/Off"),
            ),
            (
                (P::Off, C::Off),
                (P::Off, C::Server),
                Some("Off/Both Off/Server"),
            ),
            (
                (P::Off, C::Mutual),
                (P::Mutual, C::Mutual),
                Some("Prepared/Mutual Mutual/Mutual"),
            ),
            (
                (P::Prepared, C::Both),
                (P::Mutual, C::Mutual),
                Some("Mutual/Both Mutual/Mutual"),
            ),
            ((P::Prepared, C::Both), (P::Off, C::Off), Some("Off/Off")),
            ((P::Mutual, C::Mutual), (P::Mutual, C::Mutual), Some("")),
            ((P::Mutual, C::Mutual), (P::Off, C::Off), None),
            ((P::Off, C::Auto), (P::Off, C::Mutual), None),
            ((P::Auto, C::Off), (P::Mutual, C::Mutual), None),
        ] {
            assert_eq!(way(from, to).as_deref(), expected, "{from:?} {to:?}");
        }
    }

    #[test]
    fn every_stage_follows_the_one_before() {
        use ClientTls as C;
        use PeerTls as P;
        let all: Vec<Tls> = [P::Off, P::Auto, P::Prepared, P::Mutual]
            .iter()
            .flat_map(|peer| {
                let clients = [C::Off, C::Auto, C::Both, C::Server, C::Mutual];
                clients.map(|client| tls(*peer, client))
            })
            .collect();
        for from in &all {
            for to in &all {
                let Ok(stages) = tls_stages("demo", from, to) else {
                    continue;
                };
                let mut last = from;
                for stage in &stages {
                    check("demo", last, stage, true).unwrap();
                    let refused = check("demo", last, stage, false).unwrap_err();
                    assert!(matches!(
                        refused,
                        Refusal::Tls {
                            in_stages: true,
                            ..
                        }
                    ));
                    last = stage;
                }
                assert_eq!((last.peer, last.client), (to.peer, to.client));
            }
        }
    }

    fn going_over() -> World {
        let mut world = World::running(3, 0).listed();
        let mut before = world.topology.clone();
        before.tls.peer = PeerTls::Prepared;
        world.applied = Some(before);
        world.topology.tls.peer = PeerTls::Mutual;
        for place in world.instance.members.values_mut() {
            place.reach = Reach::Plain;
        }
        world.tls_stage = true;
        world
    }

    /// Who goes over, in this order, each right before its restart; after that there is nothing to do.
    fn order(mut world: World) -> Vec<String> {
        let plan = up(&world.wanted(), &world.observed).unwrap();
        assert_eq!(plan.first_losing_quorum(), None);
        let mut over = Vec::new();
        let mut steps = plan.steps.iter().map(|planned| &planned.step);
        while let Some(step) = steps.next() {
            match step {
                Step::Start { .. } => assert!(over.is_empty()),
                Step::Announce { member } => {
                    let restart = steps.next();
                    assert!(
                        matches!(restart, Some(Step::Restart { member: same, .. }) if same == member)
                    );
                    over.push(member.clone());
                }
                Step::Restart { member, .. } => panic!("{member} is not announced"),
                _ => {}
            }
        }
        world.carry_out(&plan);
        let again = up(&world.wanted(), &world.observed).unwrap();
        assert!(again.is_empty(), "{again}");
        over
    }

    #[test]
    fn members_go_over_one_at_a_time_and_those_that_are_down_are_started_first() {
        assert_eq!(order(going_over()), [name(1), name(2), name(0)]);
        for down in [vec![1], vec![0, 1, 2]] {
            let mut world = going_over();
            down.iter().for_each(|index| world.kill(*index));
            let mut over = order(world);
            over.sort();
            assert_eq!(over, [name(0), name(1), name(2)], "{down:?}");
        }
    }

    #[test]
    fn one_that_nobody_may_reach_goes_over_first() {
        for index in 0..3 {
            let mut world = going_over();
            let place = world.instance.members.get_mut(&name(index)).unwrap();
            place.reach = Reach::Unknown;
            assert_eq!(order(world.clone())[0], name(index));
            // It leads, and so the others answer no reads.
            if index == 0 {
                for other in [1, 2] {
                    if let Health::Up(vitals) = &mut world.facts(other).health {
                        vitals.not_ready = Some("no answer".to_owned());
                    }
                }
                assert_eq!(order(world.clone())[0], name(index));
            }
            // It is not started as it was: it might lead again.
            for other in 0..3 {
                world.kill(other);
            }
            let plan = up(&world.wanted(), &world.observed).unwrap();
            let started = plan.steps.iter().find_map(|planned| match &planned.step {
                Step::Start { members, .. } => Some(members.clone()),
                _ => None,
            });
            assert!(!started.unwrap().contains(&name(index)));
            assert_eq!(order(world)[0], name(index));
        }
    }
}
