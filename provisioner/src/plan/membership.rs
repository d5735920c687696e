//! Who comes, who goes, and in which order.
//!
//! The rules are those of etcd's guides: one member at a time; a new one is a learner until it is in sync; a dead one goes
//! before its replacement comes, a living one after it; the leader goes last and hands over first. What the cluster itself
//! lists decides, so that a run that was cut off anywhere is finished by the next.

use std::collections::{BTreeMap, BTreeSet};

use super::decide::{Draft, Wanted};
use super::refusal::Refusal;
use crate::instance::{Instance, Origin, Placement};
use crate::observe::{DataDir, ListedMember, MemberFacts, Observed};
use crate::render::{listed_peer_url, peer_url};
use crate::topology::{Member, Role, Topology};

/// What a member is to the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Not a member.
    Absent,
    /// Added and never started.
    Added {
        /// Whether it counts for quorum already.
        voter: bool,
    },
    /// Follows.
    Learner,
    /// Counts for quorum.
    Voter,
}

/// The standing of every member that is wanted or leaving.
#[derive(Debug)]
pub(super) struct Membership<'a> {
    wanted: &'a Wanted<'a>,
    standing: BTreeMap<String, Standing>,
}

impl<'a> Membership<'a> {
    /// As the cluster lists its members; while nobody can be asked, as they are remembered.
    pub(super) fn new(wanted: &'a Wanted<'a>, observed: &Observed) -> Result<Self, Refusal> {
        let standing = match &observed.membership {
            Some(listed) if wanted.remembered.is_some() => listed_standing(wanted, listed)?,
            _ => remembered_standing(wanted),
        };
        let membership = Self { wanted, standing };
        for member in &wanted.topology.members {
            let stays = !membership.is_replaced(&member.name);
            if member.role == Role::Learner
                && membership.of(&member.name) == Standing::Voter
                && stays
            {
                return Err(Refusal::Demoted {
                    member: member.name.clone(),
                });
            }
        }
        Ok(membership)
    }

    pub(super) fn of(&self, member: &str) -> Standing {
        self.standing
            .get(member)
            .copied()
            .unwrap_or(Standing::Absent)
    }

    pub(super) fn voters(&self) -> BTreeSet<String> {
        self.named(&[Standing::Voter, Standing::Added { voter: true }])
    }

    pub(super) fn learners(&self) -> BTreeSet<String> {
        self.named(&[Standing::Learner, Standing::Added { voter: false }])
    }

    fn named(&self, standings: &[Standing]) -> BTreeSet<String> {
        let all = self.standing.iter();
        all.filter(|(_, standing)| standings.contains(standing))
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Whether a member is in the cluster and is to stay there as it is.
    pub(super) fn stays(&self, member: &str) -> bool {
        matches!(self.of(member), Standing::Voter | Standing::Learner)
            && self.wanted.instance.members.contains_key(member)
            && !self.is_replaced(member)
    }

    /// Whether a place is for a member that has to come anew, though the cluster still has the old one under this name.
    fn is_replaced(&self, member: &str) -> bool {
        matches!(self.of(member), Standing::Voter | Standing::Learner)
            && self
                .wanted
                .instance
                .members
                .get(member)
                .is_some_and(|place| place.origin == Origin::Joining)
    }

    /// Whether some member is being replaced: it may be one of several that lost their data.
    pub(super) fn replaces_any(&self) -> bool {
        let asked = |name: &String| {
            let before = self
                .wanted
                .remembered
                .and_then(|before| before.members.get(name));
            before.is_some_and(|before| before.origin != Origin::Joining)
        };
        let mut members = self.wanted.instance.members.iter();
        members.any(|(name, place)| {
            place.origin == Origin::Joining && (asked(name) || self.is_replaced(name))
        })
    }

    /// Whether the port is that of a member which gives it up by leaving.
    pub(super) fn is_given_up(&self, port: u16) -> bool {
        let mut leaving = self.wanted.instance.leaving.values();
        leaving.any(|leaving| ports(&leaving.placement).contains(&port))
    }

    /// Plans the way from the members that are to those that are wanted.
    pub(super) fn change(&self, draft: &mut Draft<'_>, observed: &Observed) -> Result<(), Refusal> {
        let mut leaving: Vec<&String> = self.wanted.instance.leaving.keys().collect();
        // What is over already is tidied up, and who does not help to hold the quorum goes first.
        leaving.retain(|name| {
            if self.of(name) == Standing::Absent {
                draft.retire(name);
                return false;
            }
            true
        });
        let early = |name: &str, draft: &Draft<'_>| !draft.is_up(name) || !draft.is_voter(name);
        for name in take(&mut leaving, |name| early(name, draft)) {
            draft.depart(name, self.wanted.topology)?;
        }
        let mut coming = self.members(|member| match self.of(&member.name) {
            Standing::Absent | Standing::Added { .. } => true,
            Standing::Learner => member.role == Role::Voter || self.is_replaced(&member.name),
            Standing::Voter => self.is_replaced(&member.name),
        });
        for member in &coming {
            if self.is_replaced(&member.name) && early(&member.name, draft) {
                draft.depart(&member.name, self.wanted.topology)?;
            }
        }
        // etcd has room for one learner: half-done ones are finished first, and who is to stay one comes last.
        coming.sort_by_key(|member| {
            let (name, standing) = (&member.name, self.of(&member.name));
            let turn = match (self.is_replaced(name), standing, member.role) {
                (false, Standing::Added { .. } | Standing::Learner, _) => 0,
                (_, _, Role::Learner) => 3,
                (true, _, Role::Voter) if draft.is_voter(name) => 2,
                _ => 1,
            };
            (turn, draft.leads(name))
        });
        for member in coming {
            self.welcome(member, &mut leaving, draft, observed)?;
        }
        // The leader last: `false` sorts before `true`.
        leaving.sort_by_key(|name| draft.leads(name));
        for name in leaving {
            draft.depart(name, self.wanted.topology)?;
        }
        Ok(())
    }

    fn welcome(
        &self,
        member: &Member,
        leaving: &mut Vec<&String>,
        draft: &mut Draft<'_>,
        observed: &Observed,
    ) -> Result<(), Refusal> {
        let name = &member.name;
        if self.is_replaced(name) {
            if draft.is_voter(name) {
                draft.depart(name, self.wanted.topology)?;
            }
            return self.bring(member, Standing::Absent, draft);
        }
        let standing = self.of(name);
        if standing == Standing::Absent {
            let place = &self.wanted.instance.members[name];
            for name in take(leaving, |name| {
                let other = &self.wanted.instance.leaving[name].placement;
                ports(other).iter().any(|port| ports(place).contains(port))
            }) {
                draft.depart(name, self.wanted.topology)?;
            }
            // Somebody else removed it, or a run that was cut off did.
            let left_behind = observed
                .members
                .get(name)
                .is_some_and(|facts| facts.process.is_some() || facts.data == DataDir::Ours);
            if left_behind || self.wanted.instance.former.contains_key(name) {
                draft.retire(name);
            }
        }
        self.bring(member, standing, draft)
    }

    fn members(&self, keep: impl Fn(&Member) -> bool) -> Vec<&'a Member> {
        let members = self.wanted.topology.members.iter();
        members.filter(|member| keep(member)).collect()
    }

    fn bring(
        &self,
        member: &Member,
        standing: Standing,
        draft: &mut Draft<'_>,
    ) -> Result<(), Refusal> {
        let name = member.name.clone();
        if standing == Standing::Absent {
            let there: Vec<&str> = draft.learners().iter().map(String::as_str).collect();
            if there.len() >= most_learners(member) {
                return Err(Refusal::TooManyLearners {
                    member: name,
                    learners: there.join(", "),
                });
            }
            draft.add(&name)?;
        }
        if matches!(standing, Standing::Absent | Standing::Added { .. }) {
            draft.join(&name);
        }
        if member.role == Role::Voter && !draft.is_voter(&name) {
            draft.promote(&name)?;
        }
        Ok(())
    }
}

/// Finds the wanted or leaving member that an entry of the cluster's list means: by its name, which it has once it was started, or
/// by where it listens for the others.
pub(crate) fn whose(
    entry: &ListedMember,
    topology: &Topology,
    instance: &Instance,
) -> Option<String> {
    let leaving: Vec<Member> = instance.leaving_members().collect();
    let members = topology.members.iter().chain(&leaving);
    let mut known = members.filter_map(|one| Some((one, instance.place(&one.name)?)));
    let found = if entry.name.is_empty() {
        known.find(|(member, place)| {
            let urls = [
                peer_url(topology, member, place),
                listed_peer_url(topology, member, place),
            ];
            entry.peer_urls.iter().any(|url| urls.contains(url))
        })
    } else {
        known.find(|(member, _)| member.name == entry.name)
    };
    found.map(|(member, _)| member.name.clone())
}

fn listed_standing(
    wanted: &Wanted<'_>,
    listed: &[ListedMember],
) -> Result<BTreeMap<String, Standing>, Refusal> {
    let mut standing = BTreeMap::new();
    let mut strangers = Vec::new();
    for entry in listed {
        let Some(name) = whose(entry, wanted.topology, wanted.instance) else {
            strangers.push(if entry.name.is_empty() {
                format!("one at {}", entry.peer_urls.join(","))
            } else {
                entry.name.clone()
            });
            continue;
        };
        // A founder is nameless for a moment after its first start, and has voted since.
        let place = wanted.instance.place(&name);
        let founds = place.is_some_and(|place| place.origin == Origin::Founder);
        let is = match (entry.name.is_empty() && !founds, entry.is_learner) {
            (true, learner) => Standing::Added { voter: !learner },
            (false, true) => Standing::Learner,
            (false, false) => Standing::Voter,
        };
        standing.insert(name, is);
    }
    if strangers.is_empty() {
        return Ok(standing);
    }
    Err(Refusal::Listed {
        cluster: wanted.topology.name.clone(),
        strangers: strangers.join(", "),
    })
}

fn remembered_standing(wanted: &Wanted<'_>) -> BTreeMap<String, Standing> {
    let staying = wanted.topology.members.iter().map(|member| {
        let place = wanted.instance.members.get(&member.name);
        let before = wanted
            .remembered
            .and_then(|before| before.members.get(&member.name));
        // One that is only now to be replaced is still there.
        let joins =
            |place: Option<&Placement>| place.is_none_or(|place| place.origin == Origin::Joining);
        let standing = match member.role {
            _ if joins(place) && joins(before) => Standing::Absent,
            Role::Voter => Standing::Voter,
            Role::Learner => Standing::Learner,
        };
        (member.name.clone(), standing)
    });
    let leaving = wanted.instance.leaving.iter().map(|(name, leaving)| {
        let standing = match (&leaving.placement.origin, leaving.learner) {
            (Origin::Joining, _) => Standing::Absent,
            (_, true) => Standing::Learner,
            (_, false) => Standing::Voter,
        };
        (name.clone(), standing)
    });
    staying.chain(leaving).collect()
}

// etcd's default, and its flag from 3.6 and from 3.5 on.
fn most_learners(member: &Member) -> usize {
    let flags = ["max-learners", "experimental-max-learners"];
    let set = flags.iter().find_map(|flag| member.flags.get(*flag));
    set.and_then(|value| value.parse().ok()).unwrap_or(1)
}

fn ports(place: &Placement) -> [u16; 2] {
    [place.client_port, place.peer_port]
}

/// Takes out what matches, in order.
fn take<T: Copy>(from: &mut Vec<T>, matches: impl Fn(T) -> bool) -> Vec<T> {
    from.extract_if(.., |one| matches(*one)).collect()
}

/// Whether a member lost the data that it should have.
pub(super) fn lost(name: &str, facts: &MemberFacts, membership: &Membership<'_>) -> bool {
    facts.data == DataDir::Empty
        && facts.had_data
        && facts.process.is_none()
        && membership.stays(name)
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use proptest::prelude::*;

    use super::super::decide::up;
    use super::super::testing::{World, name};
    use super::*;
    use crate::observe::Health;
    use crate::plan::Step;

    const ALL: [(usize, Role); 7] = [
        (0, Role::Voter),
        (1, Role::Voter),
        (2, Role::Voter),
        (3, Role::Voter),
        (4, Role::Voter),
        (5, Role::Voter),
        (6, Role::Voter),
    ];

    fn shown(world: &World) -> String {
        match up(&world.wanted(), &world.observed) {
            Ok(plan) => plan.to_string(),
            Err(refusal) => refusal.to_string(),
        }
    }

    fn steps(world: &World) -> Vec<String> {
        let plan = up(&world.wanted(), &world.observed).unwrap();
        let steps = plan.steps.iter();
        steps.map(|planned| planned.step.to_string()).collect()
    }

    #[test]
    fn three_grow_to_five_one_at_a_time() {
        let mut world = World::running(3, 0).listed();
        world.want(&ALL[..5]);
        assert_snapshot!(shown(&world), @r"
        cluster demo: 7 steps
          1. remember ports 23790-23799, and what becomes of infra3, infra4
          2. add infra3 as a learner                                          voters 3, need 2, up 3, margin +1
          3. start infra3 and wait until it is in sync                        voters 3, need 2, up 3, margin +1
          4. promote infra3 to a voter                                        voters 4, need 3, up 4, margin +1
          5. add infra4 as a learner                                          voters 4, need 3, up 4, margin +1
          6. start infra4 and wait until it is in sync                        voters 4, need 3, up 4, margin +1
          7. promote infra4 to a voter                                        voters 5, need 3, up 5, margin +2
        ");
    }

    #[test]
    fn five_shrink_to_three_and_the_leader_goes_last() {
        let mut world = World::running(5, 3).listed();
        world.want(&ALL[..3]);
        assert_snapshot!(shown(&world), @r"
        cluster demo: 6 steps
          1. remember ports 23790-23795, and what becomes of infra3, infra4
          2. remove infra4 from the cluster                                   voters 4, need 3, up 4, margin +1
          3. stop infra4 and set its data aside                               voters 4, need 3, up 4, margin +1
          4. move leadership from infra3 to infra0                            voters 4, need 3, up 4, margin +1
          5. remove infra3 from the cluster                                   voters 3, need 2, up 3, margin +1
          6. stop infra3 and set its data aside                               voters 3, need 2, up 3, margin +1
        ");
    }

    #[test]
    fn the_dead_leave_before_others_come_and_the_living_after() {
        let mut world = World::running(3, 0).listed();
        world.want(&[ALL[0], ALL[1], ALL[3]]);
        assert_eq!(
            steps(&world)[1..],
            [
                "add infra3 as a learner",
                "start infra3 and wait until it is in sync",
                "promote infra3 to a voter",
                "remove infra2 from the cluster",
                "stop infra2 and set its data aside",
            ]
        );
        world.kill(2);
        assert_eq!(
            steps(&world)[1..],
            [
                "remove infra2 from the cluster",
                "stop infra2 and set its data aside",
                "add infra3 as a learner",
                "start infra3 and wait until it is in sync",
                "promote infra3 to a voter",
            ]
        );
    }

    #[test]
    fn who_needs_the_ports_of_one_that_leaves_waits_for_them() {
        let mut world = World::running(3, 2).listed();
        world.want(&[ALL[0], ALL[1], ALL[3]]);
        let port = world.instance.leaving["infra2"].placement.client_port;
        world
            .instance
            .members
            .get_mut("infra3")
            .unwrap()
            .client_port = port;
        let steps = steps(&world);
        assert_eq!(steps[1], "move leadership from infra2 to infra0");
        assert_eq!(steps[2], "remove infra2 from the cluster");
        assert_eq!(steps[4], "add infra3 as a learner");
    }

    #[test]
    fn a_member_without_data_is_replaced() {
        let mut world = World::running(3, 0).listed();
        world.kill(2);
        world.facts(2).data = DataDir::Empty;
        assert_snapshot!(shown(&world), @r"
        the data directory /s/clusters/demo/members/infra2/data of member infra2 is gone, and the other members have data
        ");
        world.replace(2);
        assert_snapshot!(shown(&world), @r"
        cluster demo: 6 steps
          1. remember ports 23790-23795, and what becomes of infra2
          2. remove infra2 from the cluster                           voters 2, need 2, up 2, margin +0
          3. stop infra2 and set its data aside                       voters 2, need 2, up 2, margin +0
          4. add infra2 as a learner                                  voters 2, need 2, up 2, margin +0
          5. start infra2 and wait until it is in sync                voters 2, need 2, up 2, margin +0
          6. promote infra2 to a voter                                voters 3, need 2, up 3, margin +1
        ");
    }

    #[test]
    fn a_living_leader_is_replaced_after_it_hands_over() {
        let mut world = World::running(3, 2).listed();
        world.replace(2);
        assert_snapshot!(shown(&world), @r"
        cluster demo: 7 steps
          1. remember ports 23790-23795, and what becomes of infra2
          2. move leadership from infra2 to infra0                    voters 3, need 2, up 3, margin +1
          3. remove infra2 from the cluster                           voters 2, need 2, up 2, margin +0
          4. stop infra2 and set its data aside                       voters 2, need 2, up 2, margin +0
          5. add infra2 as a learner                                  voters 2, need 2, up 2, margin +0
          6. start infra2 and wait until it is in sync                voters 2, need 2, up 2, margin +0
          7. promote infra2 to a voter                                voters 3, need 2, up 3, margin +1
        ");
    }

    #[test]
    fn one_of_several_that_lost_their_data_is_replaced_after_the_other() {
        let mut world = World::running(5, 0).listed();
        for lost in [3, 4] {
            world.kill(lost);
            world.facts(lost).data = DataDir::Empty;
        }
        world.replace(3);
        let plan = up(&world.wanted(), &world.observed).unwrap();
        assert!(plan.first_losing_quorum().is_none(), "{plan}");
        world.carry_out(&plan);
        assert!(
            shown(&world).contains("infra4 is gone"),
            "{}",
            shown(&world)
        );
        world.replace(4);
        world.carry_out(&up(&world.wanted(), &world.observed).unwrap());
        assert!(up(&world.wanted(), &world.observed).unwrap().is_empty());
    }

    #[test]
    fn members_do_not_change_without_a_quorum() {
        let mut world = World::running(3, 0).listed();
        for lost in [1, 2] {
            world.kill(lost);
            world.facts(lost).data = DataDir::Empty;
        }
        world.replace(2);
        assert_eq!(
            shown(&world),
            r#"step "remove infra2 from the cluster" needs a quorum that the cluster does not have (voters 3, need 2, up 1, margin -1)"#
        );
    }

    #[test]
    fn a_removal_that_leaves_no_quorum_needs_consent() {
        let mut world = World::running(5, 0).listed();
        for lost in [3, 4] {
            world.kill(lost);
            world.facts(lost).data = DataDir::Empty;
        }
        world.replace(2);
        let plan = up(&world.wanted(), &world.observed).unwrap();
        assert_eq!(
            Refusal::margin(plan.first_losing_quorum().unwrap()).to_string(),
            r#"step "remove infra2 from the cluster" leaves the cluster without quorum (voters 4, need 3, up 2, margin -1)"#
        );

        let mut world = World::running(2, 0).listed();
        world.replace(1);
        let plan = up(&world.wanted(), &world.observed).unwrap();
        assert!(plan.first_losing_quorum().is_none(), "{plan}");

        let mut world = World::running(1, 0).listed();
        world.replace(0);
        assert_eq!(
            shown(&world),
            "member infra0 is the only voter: without it there is no cluster"
        );
    }

    #[test]
    fn learners_come_last_stay_learners_and_become_voters_when_the_file_says_so() {
        let mut world = World::running(3, 0).listed();
        world.want(&[ALL[0], ALL[1], ALL[2], (3, Role::Learner)]);
        let plan = up(&world.wanted(), &world.observed).unwrap();
        assert_snapshot!(plan.to_string(), @r"
        cluster demo: 3 steps
          1. remember ports 23790-23797, and what becomes of infra3
          2. add infra3 as a learner                                  voters 3, need 2, up 3, margin +1
          3. start infra3 and wait until it is in sync                voters 3, need 2, up 3, margin +1
        ");
        world.carry_out(&plan);
        assert!(up(&world.wanted(), &world.observed).unwrap().is_empty());

        let mut more = world.clone();
        more.want(&[ALL[0], ALL[1], ALL[2], (3, Role::Learner), ALL[4]]);
        assert_eq!(
            shown(&more),
            "member infra4 cannot be added: the cluster has as many learners as it takes, infra3"
        );

        world.want(&ALL[..4]);
        assert_eq!(steps(&world), ["promote infra3 to a voter"]);
        world.want(&[ALL[0], ALL[1], (2, Role::Learner)]);
        assert_eq!(
            shown(&world),
            "member infra2 is a voter and cannot become a learner"
        );
    }

    #[test]
    fn what_was_cut_off_is_finished() {
        let mut world = World::running(3, 0).listed();
        world.want(&ALL[..4]);
        let plan = up(&world.wanted(), &world.observed).unwrap();
        let mut rest = Vec::new();
        for done in 0..=plan.steps.len() {
            let mut cut = world.clone();
            plan.steps[..done]
                .iter()
                .for_each(|planned| cut.step(&planned.step));
            rest.push(steps(&cut).join("; "));
        }
        assert_snapshot!(rest.join("\n"), @r"
        remember ports 23790-23797, and what becomes of infra3; add infra3 as a learner; start infra3 and wait until it is in sync; promote infra3 to a voter
        add infra3 as a learner; start infra3 and wait until it is in sync; promote infra3 to a voter
        start infra3 and wait until it is in sync; promote infra3 to a voter
        promote infra3 to a voter
        ");
    }

    #[test]
    fn a_member_that_somebody_else_removed_comes_back_as_a_new_one() {
        let mut world = World::running(3, 0).listed();
        let listed = world.observed.membership.as_mut().unwrap();
        listed.retain(|entry| entry.name != "infra2");
        assert_eq!(
            steps(&world),
            [
                "stop infra2 and set its data aside",
                "add infra2 as a learner",
                "start infra2 and wait until it is in sync",
                "promote infra2 to a voter"
            ]
        );
        world.observed.membership.as_mut().unwrap()[1].name = "stranger".to_owned();
        assert_eq!(
            shown(&world),
            "cluster demo itself lists members that provision does not know: stranger"
        );
    }

    #[test]
    fn one_that_leaves_leads_as_long_as_nobody_else_can() {
        let mut world = World::running(2, 0).listed();
        world.want(&ALL[..1]);
        world.replace(0);
        let steps = steps(&world);
        assert_eq!(steps[1], "move leadership from infra0 to infra1");
        assert_eq!(steps[2], "remove infra0 from the cluster");
        assert_eq!(steps[7], "move leadership from infra1 to infra0");
        assert_eq!(steps[8], "remove infra1 from the cluster");
    }

    #[test]
    fn a_stopped_cluster_changes_its_members_once_it_runs() {
        let mut world = World::running(3, 0);
        (0..3).for_each(|index| world.kill(index));
        world.want(&[ALL[0], ALL[1], ALL[3]]);
        let steps = steps(&world);
        assert_eq!(steps[1], "start infra0, infra1");
        assert_eq!(steps[3], "remove infra2 from the cluster");
    }

    proptest! {
        /// From any membership to any other, cut off anywhere and with members dying at that moment.
        #[test]
        fn every_change_keeps_the_quorum_and_ends(
            before in 1_usize..=5,
            leader in 0_usize..5,
            wanted in proptest::sample::subsequence((0..7).collect::<Vec<usize>>(), 1..=7),
            learner in any::<bool>(),
            replace in proptest::option::of(0_usize..7),
            dead in proptest::collection::vec(any::<bool>(), 7),
            cut in 0_usize..30,
            dies in 0_usize..7,
        ) {
            let mut world = World::running(before, leader % before).listed();
            let new = |index: &usize| *index >= before;
            let learner = wanted
                .iter()
                .rev()
                .copied()
                .find(|index| learner && new(index) && wanted.len() > 1);
            let role = |index| if learner == Some(index) { Role::Learner } else { Role::Voter };
            let members: Vec<(usize, Role)> =
                wanted.iter().map(|index| (*index, role(*index))).collect();
            world.want(&members);
            if let Some(index) = replace.filter(|index| *index < before && wanted.contains(index)) {
                world.replace(index);
            }
            for index in (0..before).filter(|index| dead[*index]) {
                world.kill(index);
            }
            let plan = match up(&world.wanted(), &world.observed) {
                Ok(plan) if plan.first_losing_quorum().is_none() => plan,
                refused => {
                    // The dead that stay come back first. Without a quorum then, or to replace the only member, there is
                    // nothing that can be done.
                    let back = |index: &usize| wanted.contains(index) && replace != Some(*index);
                    let up = (0..before).filter(|index| !dead[*index] || back(index));
                    let holds = up.count() > before / 2;
                    let alone = before == 1 && replace == Some(0);
                    prop_assert!(!holds || alone, "{refused:?}");
                    return Ok(());
                }
            };
            for planned in plan.steps.iter().take(cut) {
                world.step(&planned.step);
            }
            let mut runs = vec![plan];
            let runs_still = world.observed.members.get(&name(dies));
            let runs_still = runs_still.is_some_and(|facts| facts.process.is_some());
            if cut < runs[0].steps.len() && runs_still {
                world.facts(dies).health = Health::Silent { why: String::new() };
            }
            for _ in 0..2 {
                let plan = match up(&world.wanted(), &world.observed) {
                    Ok(plan) if plan.first_losing_quorum().is_none() => plan,
                    // The one that died was needed.
                    _ => return Ok(()),
                };
                for planned in &plan.steps {
                    let changes = matches!(
                        planned.step,
                        Step::AddLearner { .. } | Step::Promote { .. } | Step::Remove { .. }
                    );
                    let ledger = planned.ledger;
                    prop_assert!(!changes || ledger.is_some_and(|ledger| ledger.margin >= 0), "{plan}");
                }
                world.carry_out(&plan);
                runs.push(plan);
            }
            let again = up(&world.wanted(), &world.observed).unwrap();
            prop_assert!(
                runs[2].is_empty() && again.is_empty(),
                "{}{}{}then\n{again}", runs[0], runs[1], runs[2]
            );
        }
    }
}
