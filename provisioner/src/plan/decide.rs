//! The decisions.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::compare;
use super::membership::{Membership, lost};
use super::quorum::Ledger;
use super::refusal::Refusal;
use super::step::{CertChange, Installation, Plan, Planned, Step};
use super::version;
use crate::instance::{Instance, Reach};
use crate::observe::{DataDir, Health, MemberFacts, Observed, Running, Unreachable};
use crate::services::{self, Service, Turn};
use crate::topology::{Role, Topology};

/// What the cluster should be.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The topology.
    pub topology: &'a Topology,
    /// The topology that was applied last, if one was.
    pub applied: Option<&'a Topology>,
    /// The instance as it is remembered, if it is.
    pub remembered: Option<&'a Instance>,
    /// The instance that the members should run with.
    pub instance: &'a Instance,
    /// Each member's argument vector, program first.
    pub argv: &'a BTreeMap<String, Vec<String>>,
    /// The version of each member's program.
    pub versions: &'a BTreeMap<String, String>,
    /// What runs beside the members.
    pub services: &'a [Service],
    /// Certificates that are missing or no longer right.
    pub certificates: &'a [CertChange],
    /// What members need on their hosts, where they have one.
    pub files: &'a BTreeMap<String, WantedFiles>,
    /// Members to restart although nothing about them changed.
    pub restart: &'a BTreeSet<String>,
    /// Whether the topology is the next stage on the way to TLS.
    pub tls_stage: bool,
}

/// The files of a member on its host, by path, with their checksums.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WantedFiles {
    /// Replaced while it runs. `None`: its content is made by an earlier step, so it differs.
    pub installed: BTreeMap<PathBuf, Option<String>>,
    /// Replaced by a restart.
    pub given: BTreeMap<PathBuf, String>,
}

/// Plans the way from what is to what is wanted.
pub fn up(wanted: &Wanted<'_>, observed: &Observed) -> Result<Plan, Refusal> {
    let membership = Membership::new(wanted, observed)?;
    check(wanted, observed, &membership)?;
    version::gate(wanted, observed)?;
    let names = |keep: &dyn Fn(&str, &MemberFacts) -> bool| -> Vec<String> {
        wanted
            .topology
            .members
            .iter()
            .filter(|member| {
                observed
                    .members
                    .get(&member.name)
                    .is_some_and(|facts| keep(&member.name, facts))
            })
            .map(|member| member.name.clone())
            .collect()
    };
    // Those that lost their data wait for their own replacement; `check` has refused them otherwise.
    let runs =
        |name: &str, facts: &MemberFacts| membership.stays(name) && !lost(name, facts, &membership);
    let mut draft = Draft::new(&wanted.topology.name, membership.voters(), observed);
    draft.learners = membership.learners();
    let members = || wanted.topology.members.iter().map(|member| &member.name);
    let out_of_reach = members().find(|name| may_be_out_of_reach(wanted, name));
    if let Some(lost) = out_of_reach
        && observed.leads(lost)
    {
        // That is why the others do not answer; they do once another one leads.
        draft.up = names(&|_, facts| matches!(facts.health, Health::Up(_)));
    }
    // Where the others can do without, one that they may not reach is started once they are told how to.
    let voters = membership.voters().len();
    let enough = voters > 0 && Ledger::new(voters, voters - 1).margin >= 0;
    let later = |name: &str| enough && out_of_reach.is_some_and(|lost| lost == name);

    draft.prepare(wanted, installations(wanted, observed));
    draft.stop_services(observed.services.iter().filter(|(name, running)| {
        running.is_some() && wanted.services.iter().all(|service| service.name != **name)
    }));
    draft.start_services(wanted, observed, Turn::BeforeMembers);
    let stopped =
        names(&|name, facts| facts.process.is_none() && runs(name, facts) && !later(name));
    if !stopped.is_empty() {
        let first_boot = observed
            .members
            .values()
            .all(|facts| facts.process.is_none() && !facts.data.is_written());
        // One that has no data registers, and is refused if it did before: at a first start that came to nothing.
        let registering: Vec<String> = stopped
            .iter()
            .filter(|name| {
                let facts = observed.members.get(*name);
                facts.is_some_and(|facts| !facts.data.is_written())
            })
            .cloned()
            .collect();
        if let Some(registration) = services::registration(wanted.topology, wanted.instance)
            .filter(|_| !registering.is_empty())
        {
            draft.quiet(Step::PrepareDiscovery {
                size: registration.size,
                registering,
            });
        }
        draft.start(stopped, first_boot);
    }
    let differs = |name: &str, facts: &MemberFacts| {
        facts.process.as_ref().is_some_and(|running| {
            let argv = wanted.argv.get(name);
            let asked = wanted.restart.contains(name);
            let other = argv.is_some_and(|argv| *argv != running.argv);
            let newer = other_version(wanted, name, facts).is_some();
            let stale = newer || !stale(wanted, name, facts).is_empty();
            let plain = goes_over_to_tls(wanted, name);
            membership.stays(name) && (asked || other || stale || plain)
        })
    };
    // A member that is about to be restarted is waited for then; its old arguments may be why it is not ready.
    let waiting = names(&|name, facts| {
        !facts.is_ready() && runs(name, facts) && !differs(name, facts) && !later(name)
    });
    if !waiting.is_empty() {
        draft.wait(waiting);
    }
    membership.change(&mut draft, observed)?;

    // One that is down is started as the others know it, and then told to them anew.
    let restarts = |name: &str, facts: &MemberFacts| {
        let was_down = facts.process.is_none() && runs(name, facts);
        differs(name, facts) || was_down && goes_over_to_tls(wanted, name)
    };
    for name in restart_order(wanted, observed, &draft, names(&restarts)) {
        draft.hand_over(&name, wanted.topology);
        let plain = goes_over_to_tls(wanted, &name);
        if plain {
            draft.announce(&name)?;
        }
        let running = observed
            .members
            .get(&name)
            .and_then(|facts| facts.process.as_ref());
        let mut why = match (running, wanted.argv.get(&name)) {
            (Some(running), Some(argv)) => compare::arguments(&running.argv, argv),
            _ => Vec::new(),
        };
        // Settings that differ show in the arguments already; a unit also says how the member is kept.
        if why.is_empty()
            && let Some(facts) = observed.members.get(&name)
        {
            let stale = stale(wanted, &name, facts);
            why.extend(
                stale
                    .iter()
                    .map(|path| format!("{} differs", path.display())),
            );
        }
        let facts = observed.members.get(&name);
        if let Some((from, to)) = facts.and_then(|facts| other_version(wanted, &name, facts)) {
            why.push(format!("version {from} -> {to}"));
        }
        if plain {
            why.push("the other members reach it over TLS".to_owned());
        }
        if why.is_empty() {
            why.push("as asked".to_owned());
        }
        draft.restart(name, why);
    }
    draft.start_services(wanted, observed, Turn::AfterMembers);
    Ok(draft.into_plan())
}

/// Plans to have `to` lead, or any other voter than the leader.
pub fn move_leader(
    wanted: &Wanted<'_>,
    observed: &Observed,
    to: Option<&str>,
) -> Result<Plan, Refusal> {
    let membership = Membership::new(wanted, observed)?;
    let name = &wanted.topology.name;
    let mut draft = Draft::new(name, membership.voters(), observed);
    let refuse = |why: String| Refusal::Leadership {
        cluster: name.clone(),
        why,
    };
    let Some(from) = draft.leader.clone() else {
        return Err(refuse("no member says who leads".to_owned()));
    };
    let to = match to {
        Some(to) if !draft.is_voter(to) => return Err(refuse(format!("{to} is no voter"))),
        Some(to) if !draft.is_up(to) => return Err(refuse(format!("{to} is not ready"))),
        Some(to) => to.to_owned(),
        None => successor(wanted.topology, &from, &draft)
            .ok_or_else(|| refuse(format!("no other voter than {from} is ready")))?,
    };
    if to != from {
        draft.step(Step::MoveLeader { from, to });
    }
    Ok(draft.into_plan())
}

/// Plans the stop of everything that runs.
///
/// The leader comes last: it looks for somebody to lead in its place, and finds out sooner that nobody is left than that
/// those it asks are about to go.
#[must_use]
pub fn down(topology: &Topology, observed: &Observed) -> Plan {
    let running = observed
        .members
        .iter()
        .filter(|(_, facts)| facts.process.is_some())
        .map(|(name, _)| name.clone());
    let (leader, followers): (Vec<String>, Vec<String>) =
        running.partition(|name| observed.leads(name));
    let voters = topology.members.iter();
    let voters = voters.filter(|member| member.role == Role::Voter);
    let voters = voters.map(|member| member.name.clone()).collect();
    let mut draft = Draft::new(&topology.name, voters, observed);
    for members in [followers, leader] {
        if !members.is_empty() {
            draft.stop(members);
        }
    }
    draft.stop_services(observed.services.iter());
    draft.into_plan()
}

pub(super) fn installations(wanted: &Wanted<'_>, observed: &Observed) -> Vec<Installation> {
    let members = wanted.topology.members.iter();
    let installations = members.filter_map(|member| {
        let facts = observed.members.get(&member.name)?;
        if facts.unreachable.is_some() {
            return None;
        }
        let files = wanted.files.get(&member.name)?.installed.iter();
        let differ = files.filter(|(path, checksum)| {
            checksum.is_none() || facts.checksums.get(*path) != checksum.as_ref()
        });
        let files: Vec<PathBuf> = differ.map(|(path, _)| path.clone()).collect();
        (!files.is_empty()).then(|| Installation {
            member: member.name.clone(),
            files,
        })
    });
    installations.collect()
}

// Whether the others are to reach a member over TLS and do not yet.
fn goes_over_to_tls(wanted: &Wanted<'_>, name: &str) -> bool {
    let place = wanted.instance.members.get(name);
    place.is_some_and(|place| place.reach != Reach::AsWanted)
}

// Whether a run was cut off just when it told the others.
fn may_be_out_of_reach(wanted: &Wanted<'_>, name: &str) -> bool {
    let place = wanted.instance.members.get(name);
    place.is_some_and(|place| place.reach == Reach::Unknown)
}

// What a running member was not started with.
fn stale<'w>(wanted: &Wanted<'w>, name: &str, facts: &MemberFacts) -> Vec<&'w PathBuf> {
    let files = wanted.files.get(name).map(|files| files.given.iter());
    files
        .into_iter()
        .flatten()
        .filter(|(path, checksum)| facts.checksums.get(*path) != Some(checksum))
        .map(|(path, _)| path)
        .collect()
}

// What a member runs and should not: its program may have been replaced in its place.
fn other_version<'f>(
    wanted: &Wanted<'f>,
    name: &str,
    facts: &'f MemberFacts,
) -> Option<(&'f str, &'f str)> {
    let runs = facts.vitals()?.version.as_str();
    let should = wanted.versions.get(name)?.as_str();
    (runs != should).then_some((runs, should))
}

/// Whose part in the cluster changes.
fn movers(wanted: &Wanted<'_>) -> Vec<String> {
    let Some(before) = wanted.remembered else {
        return Vec::new();
    };
    let members = wanted.instance.members.iter().filter(|(name, place)| {
        let old = before.members.get(*name);
        old.is_none_or(|old| old.origin != place.origin)
    });
    let leaving = wanted.instance.leaving.keys();
    let leaving = leaving.filter(|name| !before.leaving.contains_key(*name));
    members
        .map(|(name, _)| name)
        .chain(leaving)
        .cloned()
        .collect()
}

fn check(
    wanted: &Wanted<'_>,
    observed: &Observed,
    membership: &Membership<'_>,
) -> Result<(), Refusal> {
    if let Some(remembered) = wanted.remembered {
        // Members that have not written anything have not agreed on anything.
        let agreed = |facts: &MemberFacts| facts.process.is_some() || facts.data.is_written();
        let agreed = observed.members.values().any(agreed);
        if agreed {
            compare::peer_ports(remembered, wanted.instance)?;
        }
        if let Some(applied) = wanted.applied.filter(|_| agreed) {
            compare::fixed(applied, wanted.topology, wanted.instance, wanted.tls_stage)?;
        }
    }
    let path = |name: &str| {
        wanted
            .instance
            .place(name)
            .map(|at| at.data_dir.display().to_string())
            .unwrap_or_default()
    };
    let anybody_has_data = observed
        .members
        .values()
        .any(|facts| facts.data == DataDir::Ours);
    for (name, facts) in &observed.members {
        if let Some(Unreachable { why, fix }) = &facts.unreachable {
            return Err(Refusal::Unreachable {
                member: name.clone(),
                why: why.clone(),
                fix: format!(
                    "{fix}; if the machine is gone for good: `provision replace {} {name} --with ssh://HOST`",
                    wanted.topology.name
                ),
            });
        }
        match &facts.data {
            DataDir::Foreign { why } => {
                return Err(Refusal::ForeignData {
                    member: name.clone(),
                    path: path(name),
                    why: why.clone(),
                });
            }
            DataDir::Empty
                if anybody_has_data
                    && lost(name, facts, membership)
                    && !membership.replaces_any() =>
            {
                return Err(Refusal::LostData {
                    cluster: wanted.topology.name.clone(),
                    member: name.clone(),
                    path: path(name),
                });
            }
            DataDir::Empty | DataDir::Claimed | DataDir::Ours => {}
        }
    }
    let stays = |name: &String| wanted.instance.members.contains_key(name);
    for (name, facts) in observed.members.iter().filter(|(name, _)| stays(name)) {
        let mut taken = facts.ports_taken.iter();
        if let Some(taken) = taken.find(|taken| !membership.is_given_up(taken.port)) {
            return Err(Refusal::PortTaken {
                member: name.clone(),
                role: taken.role.clone(),
                port: taken.port,
                owner: taken.owner.clone(),
            });
        }
    }
    Ok(())
}

// Those that are not ready first: restarting them costs nothing. The leader last: its restart costs an election, and a cluster
// whose followers did not survive the change still has it.
fn restart_order(
    wanted: &Wanted<'_>,
    observed: &Observed,
    draft: &Draft<'_>,
    mut names: Vec<String>,
) -> Vec<String> {
    let position = |name: &str| {
        let mut members = wanted.topology.members.iter();
        members.position(|member| member.name == name)
    };
    names.sort_by_key(|name| {
        let ready = observed
            .members
            .get(name)
            .is_some_and(MemberFacts::is_ready);
        // Those whom the others try to reach over TLS already wait for it, above all a leader that nobody reaches.
        let lost = may_be_out_of_reach(wanted, name);
        let waits = !goes_over_to_tls(wanted, name);
        (!lost, draft.leads(name), ready, !waits, position(name))
    });
    names
}

// Whoever is up already runs as wanted when the leader's turn comes; topology order keeps plans stable.
fn successor(topology: &Topology, leader: &str, draft: &Draft<'_>) -> Option<String> {
    let could = |name: &String| name != leader && draft.is_voter(name) && draft.is_up(name);
    let mut staying = topology.members.iter().map(|member| &member.name);
    let staying = staying.find(|name| could(name));
    // One that leaves later leads until then.
    let anybody = || draft.voters.iter().find(|name| could(name));
    staying.or_else(anybody).cloned()
}

/// Steps so far and who is up after them.
pub(super) struct Draft<'a> {
    cluster: &'a str,
    voters: BTreeSet<String>,
    learners: BTreeSet<String>,
    leader: Option<String>,
    up: Vec<String>,
    out_of_reach: &'a BTreeMap<String, Unreachable>,
    steps: Vec<Planned>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(cluster: &'a str, voters: BTreeSet<String>, observed: &'a Observed) -> Self {
        let mut names = observed.members.keys();
        let leader = names.find(|name| observed.leads(name)).cloned();
        let up = observed
            .members
            .iter()
            .filter(|(_, facts)| facts.is_ready())
            .map(|(name, _)| name.clone())
            .collect();
        Self {
            cluster,
            voters,
            learners: BTreeSet::new(),
            leader,
            up,
            out_of_reach: &observed.out_of_reach,
            steps: Vec::new(),
        }
    }

    /// Remembers, issues and installs what is needed before any process is touched.
    pub(super) fn prepare(&mut self, wanted: &Wanted<'_>, installations: Vec<Installation>) {
        if wanted.remembered != Some(wanted.instance) {
            let members = wanted.instance.members.values();
            let mut ports: Vec<u16> = members
                .flat_map(|at| [at.client_port, at.peer_port])
                .chain(wanted.instance.services.values().copied())
                .collect();
            ports.sort_unstable();
            // Members on hosts of their own have the same ones.
            ports.dedup();
            self.quiet(Step::Remember {
                ports,
                new_token: wanted.remembered.is_none(),
                members: movers(wanted),
            });
        }
        if !wanted.certificates.is_empty() {
            self.quiet(Step::WriteCertificates {
                changes: wanted.certificates.to_vec(),
            });
        }
        if !installations.is_empty() {
            self.quiet(Step::Install {
                members: installations,
            });
        }
    }

    /// Whoever runs has no quorum to serve with.
    pub(super) fn nobody_serves(&mut self) {
        self.up.clear();
        self.leader = None;
    }

    /// Makes a cluster of this member alone.
    pub(super) fn alone(&mut self, member: &str) {
        self.up.push(member.to_owned());
        self.step(Step::Alone {
            member: member.to_owned(),
        });
    }

    pub(super) fn is_up(&self, member: &str) -> bool {
        self.up.iter().any(|up| up == member)
    }

    pub(super) fn is_voter(&self, member: &str) -> bool {
        self.voters.contains(member)
    }

    pub(super) fn leads(&self, member: &str) -> bool {
        self.leader.as_deref() == Some(member)
    }

    pub(super) fn learners(&self) -> &BTreeSet<String> {
        &self.learners
    }

    pub(super) fn add(&mut self, member: &str) -> Result<(), Refusal> {
        self.learners.insert(member.to_owned());
        let now = self.ledger(&self.up);
        let member = member.to_owned();
        self.change(now, Step::AddLearner { member }, now)
    }

    pub(super) fn announce(&mut self, member: &str) -> Result<(), Refusal> {
        let now = self.ledger(&self.up);
        let member = member.to_owned();
        self.change(now, Step::Announce { member }, now)
    }

    pub(super) fn join(&mut self, member: &str) {
        self.step(Step::Join {
            member: member.to_owned(),
        });
        self.up.push(member.to_owned());
    }

    pub(super) fn promote(&mut self, member: &str) -> Result<(), Refusal> {
        let before = self.ledger(&self.up);
        self.learners.remove(member);
        self.voters.insert(member.to_owned());
        let after = self.ledger(&self.up);
        let member = member.to_owned();
        self.change(before, Step::Promote { member }, after)
    }

    /// Takes a member out of the cluster, after another one leads.
    pub(super) fn depart(&mut self, member: &str, topology: &Topology) -> Result<(), Refusal> {
        if self.is_voter(member) && self.voters.len() == 1 {
            return Err(Refusal::LastVoter {
                member: member.to_owned(),
            });
        }
        self.hand_over(member, topology);
        let before = self.ledger(&self.up);
        self.voters.remove(member);
        self.learners.remove(member);
        self.up.retain(|up| up != member);
        let after = self.ledger(&self.up);
        let name = member.to_owned();
        self.change(before, Step::Remove { member: name }, after)?;
        self.retire(member);
        Ok(())
    }

    pub(super) fn retire(&mut self, member: &str) {
        self.step(Step::Retire {
            member: member.to_owned(),
            out_of_reach: self.out_of_reach.get(member).map(|it| it.why.clone()),
        });
    }

    // A change of the members is a write: without quorum there is none.
    fn change(&mut self, before: Ledger, step: Step, after: Ledger) -> Result<(), Refusal> {
        if before.margin < 0 && self.steps.iter().all(|planned| !planned.loses_quorum) {
            return Err(Refusal::NoQuorum {
                cluster: self.cluster.to_owned(),
                step: step.to_string(),
                ledger: before.to_string(),
            });
        }
        self.steps.push(Planned {
            step,
            ledger: Some(after),
            loses_quorum: after.margin < 0,
        });
        Ok(())
    }

    /// Has another member lead, if this one does and there is another.
    pub(super) fn hand_over(&mut self, member: &str, topology: &Topology) {
        if self.leads(member)
            && let Some(to) = successor(topology, member, self)
        {
            self.leader = Some(to.clone());
            self.step(Step::MoveLeader {
                from: member.to_owned(),
                to,
            });
        }
    }

    fn quiet(&mut self, step: Step) {
        self.steps.push(Planned {
            step,
            ledger: None,
            loses_quorum: false,
        });
    }

    fn start_services(&mut self, wanted: &Wanted<'_>, observed: &Observed, turn: Turn) {
        let (mut services, mut why) = (Vec::new(), Vec::new());
        for service in wanted
            .services
            .iter()
            .filter(|service| service.turn == turn)
        {
            let running = observed
                .services
                .get(&service.name)
                .and_then(Option::as_ref);
            match running {
                Some(running) if running.argv == service.argv => continue,
                Some(running) => {
                    let changes = compare::arguments(&running.argv, &service.argv);
                    why.extend(
                        changes
                            .iter()
                            .map(|change| format!("{}: {change}", service.name)),
                    );
                }
                None => {}
            }
            services.push(service.name.clone());
        }
        if !services.is_empty() {
            self.quiet(Step::StartServices { services, why });
        }
    }

    fn stop_services<'s>(
        &mut self,
        services: impl Iterator<Item = (&'s String, &'s Option<Running>)>,
    ) {
        let running = services.filter(|(_, running)| running.is_some());
        let services: Vec<String> = running.map(|(name, _)| name.clone()).collect();
        if !services.is_empty() {
            self.quiet(Step::StopServices { services });
        }
    }

    fn step(&mut self, step: Step) {
        let ledger = self.ledger(&self.up);
        self.steps.push(Planned {
            step,
            ledger: Some(ledger),
            loses_quorum: false,
        });
    }

    fn start(&mut self, members: Vec<String>, first_boot: bool) {
        // They count once they are ready, which is the next step.
        self.step(Step::Start {
            members,
            first_boot,
        });
    }

    fn wait(&mut self, members: Vec<String>) {
        self.up.extend(members.iter().cloned());
        self.step(Step::WaitReady { members });
    }

    fn restart(&mut self, member: String, why: Vec<String>) {
        let low: Vec<String> = self
            .up
            .iter()
            .filter(|name| **name != member)
            .cloned()
            .collect();
        let (before, ledger) = (self.ledger(&self.up), self.ledger(&low));
        let loses_quorum = ledger.up < before.up && ledger.margin < 0;
        if !self.up.contains(&member) {
            self.up.push(member.clone());
        }
        self.steps.push(Planned {
            step: Step::Restart { member, why },
            ledger: Some(ledger),
            loses_quorum,
        });
    }

    // Stopping everything is what `down` is asked for, so it is shown and not refused.
    pub(super) fn stop(&mut self, members: Vec<String>) {
        self.up.retain(|name| !members.contains(name));
        self.step(Step::Stop { members });
    }

    fn ledger(&self, up: &[String]) -> Ledger {
        let alive = self.voters.iter().filter(|voter| up.contains(voter));
        Ledger::new(self.voters.len(), alive.count())
    }

    pub(super) fn into_plan(self) -> Plan {
        Plan {
            cluster: self.cluster.to_owned(),
            steps: self.steps,
        }
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use proptest::prelude::*;

    use super::super::testing::{World, name, process, service};
    use super::*;
    use crate::observe::{Health, PortTaken};
    use crate::topology::{Binary, PeerTls};

    fn shown(world: &World) -> String {
        up(&world.wanted(), &world.observed).unwrap().to_string()
    }

    fn refused(world: &World) -> String {
        up(&world.wanted(), &world.observed)
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn first_boot_starts_all_at_once() {
        let mut world = World::nothing(3);
        world.certificates = ["ca", "operator", "infra0 peer"]
            .map(|what| CertChange {
                certificate: what.to_owned(),
                reason: "missing".to_owned(),
            })
            .to_vec();
        assert_snapshot!(shown(&world), @r"
        cluster demo: 4 steps
          1. remember ports 23790-23795 and a new token
          2. write 3 certificates
               ca: missing
               operator: missing
               infra0 peer: missing
          3. start infra0, infra1, infra2                                   voters 3, need 2, up 0, margin -2
          4. wait until infra0, infra1, infra2 answer a linearizable read   voters 3, need 2, up 3, margin +1
        ");
    }

    #[test]
    fn what_is_as_wanted_needs_nothing() {
        assert_eq!(
            shown(&World::running(3, 1)),
            "no change: cluster demo is as its topology says\n"
        );
    }

    #[test]
    fn a_dead_member_is_started_and_waited_for() {
        let mut world = World::running(3, 0);
        world.kill(1);
        assert_snapshot!(shown(&world), @r"
        cluster demo: 2 steps
          1. start infra1                                    voters 3, need 2, up 2, margin +0
          2. wait until infra1 answers a linearizable read   voters 3, need 2, up 3, margin +1
        ");
    }

    #[test]
    fn a_changed_flag_restarts_one_at_a_time_and_the_leader_last() {
        let mut world = World::running(3, 0);
        world.want_flag("--heartbeat-interval=50");
        assert_snapshot!(shown(&world), @r"
        cluster demo: 4 steps
          1. restart infra1                          voters 3, need 2, up 2, margin +0
               --heartbeat-interval default -> 50
          2. restart infra2                          voters 3, need 2, up 2, margin +0
               --heartbeat-interval default -> 50
          3. move leadership from infra0 to infra1   voters 3, need 2, up 3, margin +1
          4. restart infra0                          voters 3, need 2, up 2, margin +0
               --heartbeat-interval default -> 50
        ");
    }

    #[test]
    fn the_dead_come_back_before_the_living_restart() {
        let mut world = World::running(3, 2);
        world.want_flag("--snapshot-count=5");
        world.kill(0);
        let plan = up(&world.wanted(), &world.observed).unwrap();
        let kinds: Vec<String> = plan
            .steps
            .iter()
            .map(|planned| planned.step.to_string())
            .collect();
        assert_eq!(
            kinds,
            [
                "start infra0",
                "wait until infra0 answers a linearizable read",
                "restart infra1",
                "move leadership from infra2 to infra0",
                "restart infra2"
            ]
        );
        assert!(plan.first_losing_quorum().is_none());
    }

    #[test]
    fn a_single_member_cannot_restart_without_an_outage() {
        let mut world = World::running(1, 0);
        world.want_flag("--snapshot-count=5");
        let plan = up(&world.wanted(), &world.observed).unwrap();
        let refusal = Refusal::margin(plan.first_losing_quorum().unwrap());
        assert_eq!(
            refusal.to_string(),
            r#"step "restart infra0" leaves the cluster without quorum (voters 1, need 1, up 0, margin -1)"#
        );
        assert!(
            plan.steps
                .iter()
                .all(|planned| !matches!(planned.step, Step::MoveLeader { .. }))
        );
    }

    #[test]
    fn a_member_that_is_not_ready_restarts_first() {
        let mut world = World::running(3, 0);
        world.want_flag("--snapshot-count=5");
        world.facts(2).health = Health::Silent {
            why: "connection refused".to_owned(),
        };
        let plan = up(&world.wanted(), &world.observed).unwrap();
        assert_eq!(plan.steps[0].step.to_string(), "restart infra2");
        assert_eq!(plan.steps[0].ledger.unwrap().up, 2, "it was not up before");
    }

    #[test]
    fn a_silent_member_that_runs_as_wanted_is_waited_for() {
        let mut world = World::running(3, 0);
        world.facts(1).health = Health::Silent {
            why: "timed out".to_owned(),
        };
        let plan = up(&world.wanted(), &world.observed).unwrap();
        assert_eq!(plan.steps.len(), 1);
        assert_eq!(
            plan.steps[0].step,
            Step::WaitReady {
                members: vec![name(1)]
            }
        );
    }

    #[test]
    fn what_members_agreed_on_cannot_change() {
        let mut world = World::running(3, 0);
        world.topology.tls.peer = PeerTls::Off;
        assert_eq!(
            refused(&world),
            "peer TLS of cluster demo cannot change from mutual to off while it has data"
        );

        let mut world = World::running(3, 0);
        world.topology.members[1].address = "10.0.0.1".to_owned();
        assert!(
            refused(&world).starts_with("member infra1 of cluster demo cannot move from 127.0.0.1")
        );

        let mut world = World::running(3, 0);
        world.topology.members[1].binary = Binary::Path("/usr/bin/etcd".into());
        assert!(refused(&world).contains("from the included member to /usr/bin/etcd"));

        let mut world = World::running(3, 0);
        world.instance.members.get_mut("infra1").unwrap().peer_port = 1;
        assert!(refused(&world).starts_with("the peer port of member infra1"));
    }

    #[test]
    fn foreign_lost_and_contested_places_are_refused() {
        let mut world = World::nothing(3);
        world.facts(1).data = DataDir::Foreign {
            why: "it belongs to cluster prod".to_owned(),
        };
        assert_eq!(
            refused(&world),
            "the data directory /s/clusters/demo/members/infra1/data of member infra1 is not of this cluster: it belongs to cluster prod"
        );

        let mut world = World::running(3, 0);
        world.kill(2);
        world.facts(2).data = DataDir::Empty;
        assert!(refused(&world).contains("infra2 is gone"));

        let mut world = World::nothing(3);
        let taken = PortTaken {
            role: "peer".to_owned(),
            port: 23_793,
            owner: "pid 7 (nc -l)".to_owned(),
        };
        world.facts(1).ports_taken.push(taken);
        assert_eq!(
            refused(&world),
            "port 23793, the peer port of member infra1, is held by pid 7 (nc -l)"
        );
    }

    #[test]
    fn a_restart_that_was_asked_for_is_rolling() {
        let mut world = World::running(3, 1);
        world.restart = [name(0), name(1)].into();
        assert_snapshot!(shown(&world), @r"
        cluster demo: 3 steps
          1. restart infra0                          voters 3, need 2, up 2, margin +0
               as asked
          2. move leadership from infra1 to infra0   voters 3, need 2, up 3, margin +1
          3. restart infra1                          voters 3, need 2, up 2, margin +0
               as asked
        ");
        world.kill(0);
        let steps = up(&world.wanted(), &world.observed).unwrap().steps;
        let restarts = |planned: &&Planned| matches!(planned.step, Step::Restart { .. });
        assert_eq!(
            steps.iter().filter(restarts).count(),
            1,
            "the dead one is started"
        );
    }

    #[test]
    fn leadership_goes_to_a_ready_voter() {
        let mut world = World::running(3, 1);
        world.kill(0);
        let lead = |world: &World, to: Option<&str>| match move_leader(
            &world.wanted(),
            &world.observed,
            to,
        ) {
            Ok(plan) => plan.to_string(),
            Err(refusal) => refusal.to_string(),
        };
        assert_snapshot!(lead(&world, None), @r"
        cluster demo: 1 step
          1. move leadership from infra1 to infra2   voters 3, need 2, up 2, margin +0
        ");
        assert!(lead(&world, Some("infra1")).starts_with("no change"));
        assert_eq!(
            lead(&world, Some("infra0")),
            "leadership of cluster demo cannot move: infra0 is not ready"
        );
        world.kill(1);
        assert!(lead(&world, None).contains("no member says who leads"));
    }

    #[test]
    fn down_stops_what_runs() {
        let mut world = World::running(3, 0);
        world.kill(1);
        let plan = down(&world.topology, &world.observed);
        let steps: Vec<String> = plan
            .steps
            .iter()
            .map(|planned| planned.step.to_string())
            .collect();
        assert_eq!(steps, ["stop infra2", "stop infra0"], "the leader last");
        assert_eq!(plan.steps[1].ledger.unwrap().up, 0);
        assert!(down(&World::nothing(3).topology, &World::nothing(3).observed).is_empty());
    }

    #[test]
    fn services_are_there_before_the_members_that_need_them_and_gateways_come_last() {
        let mut world = World::nothing(1);
        world.services = vec![
            service("dns", Turn::BeforeMembers),
            service("gateway0", Turn::AfterMembers),
        ];
        let steps = |plan: &Plan| -> Vec<String> {
            let steps = plan.steps.iter();
            steps.map(|planned| planned.step.to_string()).collect()
        };
        let plan = up(&world.wanted(), &world.observed).unwrap();
        assert_eq!(
            steps(&plan),
            [
                "remember ports 23790-23791 and a new token",
                "start dns",
                "start infra0",
                "wait until infra0 answers a linearizable read",
                "start gateway0"
            ]
        );

        let mut world = World {
            services: world.services,
            ..World::running(1, 0)
        };
        let older = process(&["/bin/provision".to_owned(), "--endpoints=old".to_owned()]);
        for name in ["gateway0", "gateway1"] {
            let services = &mut world.observed.services;
            services.insert(name.to_owned(), Some(older.clone()));
        }
        assert_snapshot!(shown(&world), @r"
        cluster demo: 3 steps
          1. stop gateway1
          2. start dns
          3. start gateway0
               gateway0: gateway0 default -> true
               gateway0: --endpoints old -> default
        ");
        let plan = down(&world.topology, &world.observed);
        assert_eq!(steps(&plan), ["stop infra0", "stop gateway0, gateway1"]);
    }

    proptest! {
        #[test]
        fn a_plan_from_what_a_plan_leaves_behind_is_empty(
            members in 1_usize..=7,
            new in any::<bool>(),
            flag in any::<bool>(),
            states in proptest::collection::vec(0_u8..3, 7),
            services in proptest::collection::vec(0_u8..3, 3),
        ) {
            let mut world = if new { World::nothing(members) } else { World::running(members, members / 2) };
            world.services = vec![service("dns", Turn::BeforeMembers), service("gateway0", Turn::AfterMembers)];
            for (name, state) in ["dns", "gateway0", "gateway1"].into_iter().zip(&services) {
                let running = match state {
                    0 => None,
                    1 => Some(process(&["/bin/provision".to_owned(), name.to_owned()])),
                    _ => Some(process(&["/bin/older".to_owned()])),
                };
                world.observed.services.insert(name.to_owned(), running);
            }
            if flag {
                world.want_flag("--snapshot-count=5");
            }
            for (index, state) in states.iter().take(members).enumerate().filter(|_| !new) {
                match state {
                    0 => world.kill(index),
                    1 => world.facts(index).health = Health::Silent { why: String::new() },
                    _ => {}
                }
            }
            let plan = up(&world.wanted(), &world.observed).unwrap();
            world.carry_out(&plan);
            let again = up(&world.wanted(), &world.observed).unwrap();
            prop_assert!(again.is_empty(), "{plan}\nthen\n{again}");
        }

        #[test]
        fn only_a_restart_of_the_last_of_the_quorum_loses_it(members in 1_usize..=7, leader in 0_usize..7, dead in 0_usize..=3) {
            let mut world = World::running(members, leader % members);
            world.want_flag("--snapshot-count=5");
            for index in 0..dead.min(members) {
                world.kill(index);
            }
            let plan = up(&world.wanted(), &world.observed).unwrap();
            // The dead come back first, so only clusters that tolerate no failure at all lose quorum.
            let tolerant = members > 2;
            let restarts = plan.steps.iter().any(|planned| matches!(planned.step, Step::Restart { .. }));
            prop_assert_eq!(plan.first_losing_quorum().is_some(), !tolerant && restarts);
        }
    }
}
