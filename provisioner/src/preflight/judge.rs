//! From what machines have said to findings. Pure.

mod member;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use super::facts::{Claim, Machine, Reached, Role, Seen};
use super::finding::{Finding, Outcome, Verdict};
use super::rules;
use crate::instance::Instance;
use crate::observe::MemberFacts;
use crate::plan::CertChange;
use crate::topology::{Bootstrap, Check, Member, Network, Topology};

// What every machine is asked.
const OF_MACHINES: [Check; 13] = [
    Check::Architecture,
    Check::Libc,
    Check::Memory,
    Check::Swap,
    Check::OpenFiles,
    Check::Directories,
    Check::TimeZone,
    Check::TimeSync,
    Check::Clock,
    Check::Names,
    Check::PeerPorts,
    Check::ClientPorts,
    Check::Firewall,
];
const HEARTBEAT: &str = "heartbeat-interval";
const ELECTION: &str = "election-timeout";

/// What is judged.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// The topology.
    pub topology: &'a Topology,
    /// What the members should run with.
    pub instance: &'a Instance,
    /// Whether the cluster exists: its certificates should, then.
    pub exists: bool,
    /// The machines.
    pub machines: &'a [Machine],
    /// By name, what was seen of members.
    pub members: &'a BTreeMap<String, MemberFacts>,
    /// The certificates that `up` would write.
    pub certificates: &'a [CertChange],
    /// What other clusters want.
    pub claims: &'a [Claim],
}

/// Every check of every machine and member, in the order of [`Check::ALL`].
#[must_use]
pub fn judge(case: &Case<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for machine in case.machines {
        match &machine.seen {
            Ok(seen) => case.machine(machine, seen, &mut findings),
            Err(gone) => {
                let gone = Verdict::fail(gone.why.clone(), gone.fix.clone());
                findings.push(gone.of(Check::Reachable, &machine.name));
                let skipped = || Verdict::skipped("it was not reached");
                findings.extend(OF_MACHINES.map(|check| skipped().of(check, &machine.name)));
            }
        }
        for member in case.topology.members.iter() {
            if machine.members.contains(&member.name) {
                case.member(machine, member, &mut findings);
            }
        }
    }
    findings.push(case.round_trip().of(Check::RoundTrip, "cluster"));
    case.certificates(&mut findings);
    for finding in &mut findings {
        if matches!(finding.outcome, Outcome::Warn | Outcome::Fail)
            && let Some(reason) = case.topology.waived_checks.get(&finding.check)
        {
            finding.outcome = Outcome::Waived;
            finding.waiver = Some(reason.clone());
        }
    }
    findings.sort_by_key(|finding| finding.check);
    findings
}

impl Case<'_> {
    fn machine(&self, machine: &Machine, seen: &Seen, findings: &mut Vec<Finding>) {
        let mut add = |check, verdict: Verdict| findings.push(verdict.of(check, &machine.name));
        let surveyed = &seen.surveyed;
        let others: Vec<&Seen> = self.seen().collect();
        let members = machine.members.len() as u64;
        add(
            Check::Reachable,
            Verdict::pass(match &machine.host {
                Some(host) => host.url(),
                None => "here".to_owned(),
            }),
        );
        let here = std::env::consts::ARCH;
        add(
            Check::Architecture,
            rules::architecture(&surveyed.architecture, here),
        );
        // Without another one there is nothing to compare with.
        let newest = others
            .iter()
            .filter_map(|seen| seen.surveyed.libc.as_deref());
        let newest = newest.max_by_key(|text| version(text));
        add(Check::Libc, rules::libc(surveyed.libc.as_deref(), newest));
        add(Check::Memory, rules::memory(surveyed.memory, members));
        add(Check::Swap, rules::swap(surveyed.swap));
        let keeper = machine.host.as_ref().map(|host| host.keeper);
        add(
            Check::OpenFiles,
            rules::open_files(keeper, surveyed.open_files, surveyed.most_open_files),
        );
        add(
            Check::Directories,
            rules::directories(&surveyed.data, surveyed.programs.as_ref()),
        );
        let most = common(others.iter().map(|seen| &seen.surveyed.time_zone));
        add(
            Check::TimeZone,
            rules::time_zone(&surveyed.time_zone, most.unwrap_or(&surveyed.time_zone)),
        );
        add(Check::TimeSync, rules::time_sync(&surveyed.time_sync));
        let clocks: Vec<i64> = others.iter().map(|seen| seen.clock_us).collect();
        add(
            Check::Clock,
            if others.len() < 2 {
                Verdict::skipped("there is one machine only")
            } else {
                rules::clock(seen.clock_us - median(clocks), seen.clock_error_us)
            },
        );
        self.names(machine, seen, &mut add);
        for role in [Role::Peer, Role::Client] {
            let check = match role {
                Role::Peer => Check::PeerPorts,
                Role::Client => Check::ClientPorts,
            };
            let reached = match &seen.reached {
                Ok(reached) => reached.iter(),
                Err(why) => {
                    add(check, Verdict::skipped(why));
                    continue;
                }
            };
            let ways: Vec<_> = reached
                .filter(|reached| reached.role == role)
                .map(|reached| (reached.member.clone(), reached.round_trip.clone()))
                .collect();
            add(check, rules::reach(&ways, &self.firewalls(&ways)));
        }
        add(
            Check::Firewall,
            rules::firewall(&surveyed.firewalls, self.is_blocked(machine)),
        );
        match &seen.records {
            Some(Ok(())) => add(Check::SrvRecords, Verdict::pass("as they should be")),
            Some(Err(why)) => add(
                Check::SrvRecords,
                Verdict::fail(
                    why.clone(),
                    "correct the zone; `provision render --format dns-zone` prints what it must hold",
                ),
            ),
            None if matches!(self.topology.bootstrap, Bootstrap::DnsSrv { .. }) => add(
                Check::SrvRecords,
                Verdict::skipped("provision's own DNS server has them in this network"),
            ),
            None => {}
        }
    }

    fn names(&self, machine: &Machine, seen: &Seen, add: &mut impl FnMut(Check, Verdict)) {
        if self.topology.network == Network::Private {
            add(
                Check::Names,
                Verdict::skipped("provision's own DNS server answers in this network"),
            );
            return;
        }
        if seen.resolved.is_empty() {
            add(
                Check::Names,
                Verdict::skipped("members advertise addresses"),
            );
        }
        for resolved in &seen.resolved {
            let elsewhere = self.seen().flat_map(|seen| &seen.resolved);
            let elsewhere = elsewhere.filter(|other| other.name == resolved.name);
            let most = common(elsewhere.filter_map(|other| other.addresses.as_ref().ok()));
            let none = BTreeSet::new();
            let at_home = self.topology.members.iter().any(|member| {
                member.address == resolved.name && machine.members.contains(&member.name)
            });
            // A cluster on one machine may well live on its loopback.
            let all_here = self.machines.iter().all(|machine| machine.host.is_none());
            let mut verdict = rules::name(resolved, most.unwrap_or(&none), at_home);
            if all_here && verdict.outcome == Outcome::Warn {
                verdict.outcome = Outcome::Pass;
                verdict.fix = None;
            }
            add(Check::Names, verdict);
            if !all_here {
                add(Check::ReverseNames, rules::reverse_name(resolved));
            }
        }
    }

    fn round_trip(&self) -> Verdict {
        let reached = self.ways();
        let peers = reached.filter(|reached| reached.role == Role::Peer);
        let slowest = peers
            .filter_map(|reached| reached.round_trip.as_ref()?.as_ref().ok())
            .max();
        let least = |name, default| {
            let members = self.topology.members.iter();
            members
                .map(|member| number(member, name, default))
                .min()
                .unwrap_or(default)
        };
        if self.machines.len() == 1 {
            return Verdict::skipped("all members are on one machine");
        }
        rules::round_trip(
            slowest.copied(),
            least(HEARTBEAT, 100),
            least(ELECTION, 1000),
        )
    }

    fn certificates(&self, findings: &mut Vec<Finding>) {
        let mut add = |verdict: Verdict| findings.push(verdict.of(Check::Certificates, "cluster"));
        if !crate::pki::needs_ca(self.topology) {
            return;
        }
        if !self.exists {
            add(Verdict::skipped("`up` makes them"));
            return;
        }
        if self.certificates.is_empty() {
            add(Verdict::pass("valid, with the advertised addresses"));
        }
        for change in self.certificates {
            add(Verdict::warn(
                format!("{}: {}", change.certificate, change.reason),
                "`provision up` writes it again",
            ));
        }
    }

    fn seen(&self) -> impl Iterator<Item = &Seen> {
        self.machines
            .iter()
            .filter_map(|machine| machine.seen.as_ref().ok())
    }

    fn ways(&self) -> impl Iterator<Item = &Reached> {
        self.seen().flat_map(|seen| seen.reached.iter().flatten())
    }

    /// The firewalls of the machines that were not reached.
    fn firewalls(&self, ways: &[(String, Option<Result<u64, String>>)]) -> Vec<String> {
        let blocked = |member: &String| {
            ways.iter()
                .any(|(name, way)| name == member && matches!(way, Some(Err(_))))
        };
        let machines = self.machines.iter();
        let all: BTreeSet<String> = machines
            .filter(|machine| machine.members.iter().any(blocked))
            .filter_map(|machine| machine.seen.as_ref().ok())
            .flat_map(|seen| seen.surveyed.firewalls.iter().flatten().cloned())
            .collect();
        all.into_iter().collect()
    }

    /// Whether others were kept from the machine's members.
    fn is_blocked(&self, machine: &Machine) -> Option<bool> {
        let here = self
            .ways()
            .filter(|way| machine.members.contains(&way.member));
        let tried: Vec<bool> = here
            .filter_map(|way| Some(way.round_trip.as_ref()?.is_err()))
            .collect();
        (!tried.is_empty()).then(|| tried.contains(&true))
    }
}

fn number(member: &Member, flag: &str, default: u64) -> u64 {
    let given = member.flags.get(flag);
    given.and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn version(libc: &str) -> Vec<u32> {
    let number = libc.split_whitespace().last().unwrap_or_default();
    number
        .split('.')
        .filter_map(|part| part.parse().ok())
        .collect()
}

/// What most have; of equals the first.
fn common<'a, T: PartialEq + 'a>(all: impl Iterator<Item = &'a T>) -> Option<&'a T> {
    let all: Vec<&T> = all.collect();
    let count = |wanted: &T| all.iter().filter(|item| **item == wanted).count();
    let mut most: Option<&T> = None;
    for item in &all {
        if most.is_none_or(|most| count(item) > count(most)) {
            most = Some(item);
        }
    }
    most
}

/// The middle one, or the mean of both.
fn median(mut all: Vec<i64>) -> i64 {
    all.sort_unstable();
    let half = all.len() / 2;
    match (all.get(half), all.len() % 2) {
        (Some(middle), 1) => *middle,
        (Some(upper), _) => {
            let lower = all.get(half.wrapping_sub(1)).copied().unwrap_or(*upper);
            lower + (upper - lower) / 2
        }
        (None, _) => 0,
    }
}
