//! The way back from a lost majority: a cluster of one survivor, and everybody else anew.

use std::collections::BTreeSet;

use super::decide::{Draft, Wanted, installations};
use super::refusal::Refusal;
use super::step::Plan;
use crate::observe::{DataDir, MemberFacts, Observed};
use crate::topology::Role;

/// Finds the member whose data the cluster goes on with: `from`, or the one that knows most.
///
/// Logs that are committed are beginnings of each other, so whoever knows of the highest committed index has all that the others
/// have. A term says nothing: a member that is alone raises it by itself.
///
/// # Errors
/// The cluster does not need it, a majority has its data still, or nobody is left.
pub fn survivor(
    wanted: &Wanted<'_>,
    observed: &Observed,
    from: Option<&str>,
) -> Result<String, Refusal> {
    let cluster = &wanted.topology.name;
    let refuse = |why: String, fix: String| Refusal::NotLost {
        cluster: cluster.clone(),
        why,
        fix,
    };
    let ready = |facts: &MemberFacts| {
        facts.is_ready() && facts.vitals().is_some_and(|vitals| !vitals.is_learner)
    };
    if let Some((name, _)) = observed.members.iter().find(|(_, facts)| ready(facts)) {
        return Err(refuse(
            format!("{name} answers linearizable reads, so it has a quorum"),
            format!(
                "bring the others back with `provision up {cluster}`, or `provision replace {cluster} MEMBER`"
            ),
        ));
    }
    let survivors: Vec<&String> = survivors(observed).map(|(name, _)| name).collect();
    let applied = wanted.applied.unwrap_or(wanted.topology);
    let voters = applied.members.iter();
    let voters: BTreeSet<&String> = voters
        .filter(|member| member.role == Role::Voter)
        .map(|member| &member.name)
        .collect();
    let left = survivors.iter().filter(|name| voters.contains(**name));
    if left.count() > voters.len() / 2 {
        let names: Vec<&str> = survivors.iter().map(|name| name.as_str()).collect();
        return Err(refuse(
            format!("{} have their data: a majority", names.join(", ")),
            format!("start them with `provision up {cluster}`, which loses nothing"),
        ));
    }
    if let Some(from) = from {
        return if survivors.iter().any(|name| *name == from) {
            Ok(from.to_owned())
        } else {
            Err(refuse(
                format!("{from} has no data to go on with, or its machine is out of reach"),
                "name another member with --from, or leave it out".to_owned(),
            ))
        };
    }
    let unknown = self::survivors(observed).find(|(_, facts)| facts.knows().is_none());
    if let Some((unknown, _)) = unknown.filter(|_| survivors.len() > 1) {
        return Err(refuse(
            format!("{unknown} has data and does not run, and its log does not tell how much"),
            "name the member to go on from with --from".to_owned(),
        ));
    }
    let index = |facts: &MemberFacts| facts.knows().map(|knows| knows.index);
    let best = self::survivors(observed).max_by_key(|(_, facts)| index(facts));
    best.map(|(name, _)| name.clone()).ok_or_else(|| {
        refuse(
            "no member has data, or their machines are out of reach".to_owned(),
            format!("restore a snapshot: `provision restore {cluster} SNAPSHOT`"),
        )
    })
}

/// Members with data that can be worked on.
pub fn survivors(observed: &Observed) -> impl Iterator<Item = (&String, &MemberFacts)> {
    let members = observed.members.iter();
    members.filter(|(_, facts)| facts.unreachable.is_none() && facts.data == DataDir::Ours)
}

/// Plans a cluster of `survivor` alone, which the others join anew. Machines that are out of reach are left out.
///
/// # Errors
/// A data directory is somebody else's.
pub fn recover(wanted: &Wanted<'_>, observed: &Observed, survivor: &str) -> Result<Plan, Refusal> {
    let voters = BTreeSet::from([survivor.to_owned()]);
    let mut draft = Draft::new(&wanted.topology.name, voters, observed);
    draft.nobody_serves();
    draft.prepare(wanted, installations(wanted, observed));
    let running = observed.members.iter();
    let running: Vec<String> = running
        .filter(|(_, facts)| facts.process.is_some())
        .map(|(name, _)| name.clone())
        .collect();
    if !running.is_empty() {
        draft.stop(running);
    }
    draft.alone(survivor);
    for member in &wanted.topology.members {
        let Some(facts) = observed.members.get(&member.name) else {
            continue;
        };
        if member.name == survivor || facts.unreachable.is_some() {
            continue;
        }
        if let DataDir::Foreign { why } = &facts.data {
            let place = wanted.instance.place(&member.name);
            let path = place.map(|place| place.data_dir.display().to_string());
            return Err(Refusal::ForeignData {
                member: member.name.clone(),
                path: path.unwrap_or_default(),
                why: why.clone(),
            });
        }
        if facts.data.is_written() || wanted.instance.former.contains_key(&member.name) {
            draft.retire(&member.name);
        }
        draft.add(&member.name)?;
        draft.join(&member.name);
        if member.role == Role::Voter {
            draft.promote(&member.name)?;
        }
    }
    Ok(draft.into_plan())
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::super::testing::{World, name};
    use super::*;
    use crate::observe::{Health, Unreachable};

    /// `lost` of five are out of reach, and the others know of this many entries.
    fn world(lost: &[usize], knows: [u64; 5]) -> World {
        let mut world = World::running(5, 0);
        for (index, knows) in knows.into_iter().enumerate() {
            if let Health::Up(vitals) = &mut world.facts(index).health {
                vitals.raft_index = knows;
                vitals.leader = 0;
                vitals.not_ready = Some("it knows no leader".to_owned());
            }
        }
        for index in lost {
            world.kill(*index);
            world.facts(*index).unreachable = Some(Unreachable {
                why: "gone".to_owned(),
                fix: String::new(),
            });
        }
        world
    }

    fn chosen(world: &World, from: Option<&str>) -> Result<String, String> {
        survivor(&world.wanted(), &world.observed, from).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn the_one_that_knows_most_goes_on() {
        assert_eq!(chosen(&world(&[0, 1, 2], [9; 5]), None).unwrap(), name(4));
        let world = world(&[0, 1, 2], [9, 9, 9, 8, 7]);
        assert_eq!(chosen(&world, None).unwrap(), name(3));
        assert_eq!(chosen(&world, Some("infra4")).unwrap(), name(4));
        assert!(chosen(&world, Some("infra0")).is_err());
    }

    #[test]
    fn nothing_is_recovered_that_is_not_lost() {
        let refused = chosen(&world(&[0, 1], [9; 5]), None).unwrap_err();
        assert!(refused.contains("a majority"), "{refused}");
        let refused = chosen(&World::running(5, 0), None).unwrap_err();
        assert!(refused.contains("it has a quorum"), "{refused}");
        let refused = chosen(&world(&[0, 1, 2, 3, 4], [9; 5]), None).unwrap_err();
        assert!(refused.contains("no member has data"), "{refused}");
    }

    #[test]
    fn the_survivor_stands_alone_and_who_is_there_joins() {
        let mut world = world(&[0, 1, 2], [9, 9, 9, 8, 7]);
        for index in [0, 1, 2, 4] {
            world.replace(index);
        }
        // One machine was replaced by another meanwhile.
        world.facts(2).unreachable = None;
        world.facts(2).data = DataDir::Empty;
        let plan = recover(&world.wanted(), &world.observed, "infra3").unwrap();
        assert_snapshot!(plan.to_string(), @r"
        cluster demo: 10 steps
          1. remember ports 23790-23799, and what becomes of infra0, infra1, infra2, infra4
          2. stop infra3, infra4                                                              voters 1, need 1, up 0, margin -1
          3. make a cluster of infra3 alone, with its data                                    voters 1, need 1, up 1, margin +0
          4. add infra2 as a learner                                                          voters 1, need 1, up 1, margin +0
          5. start infra2 and wait until it is in sync                                        voters 1, need 1, up 1, margin +0
          6. promote infra2 to a voter                                                        voters 2, need 2, up 2, margin +0
          7. stop infra4 and set its data aside                                               voters 2, need 2, up 2, margin +0
          8. add infra4 as a learner                                                          voters 2, need 2, up 2, margin +0
          9. start infra4 and wait until it is in sync                                        voters 2, need 2, up 2, margin +0
         10. promote infra4 to a voter                                                        voters 3, need 2, up 3, margin +1
        ");
    }
}
