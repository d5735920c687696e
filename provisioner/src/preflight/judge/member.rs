//! The checks of one member.

use std::net::IpAddr;

use super::super::facts::{Claim, Machine, Role};
use super::super::finding::{Finding, Verdict};
use super::super::rules;
use super::{Case, HEARTBEAT, number};
use crate::host::local::Opened;
use crate::observe::{DataDir, MemberFacts};
use crate::topology::{Check, Member, Network};

impl Case<'_> {
    pub(super) fn member(&self, machine: &Machine, member: &Member, findings: &mut Vec<Finding>) {
        let mut add = |check, verdict: Verdict| findings.push(verdict.of(check, &member.name));
        if let Some(facts) = self.members.get(&member.name)
            && facts.unreachable.is_none()
        {
            add(Check::Ports, ports(facts));
            add(Check::Data, data(facts));
        } else {
            for check in [Check::Ports, Check::Data] {
                add(check, Verdict::skipped("its machine was not reached"));
            }
        }
        add(Check::PortClaims, self.port_claims(machine, member));
        let Ok(seen) = &machine.seen else {
            for check in [Check::DiskSpace, Check::DiskSync, Check::ListenAddress] {
                add(check, Verdict::skipped("its machine was not reached"));
            }
            return;
        };
        let opened = |role| seen.opened.get(&(member.name.clone(), role));
        let bad = |opened: &&Opened| matches!(opened, Opened::NotHere | Opened::Failed(_));
        let opened = opened(Role::Client)
            .filter(bad)
            .or_else(|| opened(Role::Peer));
        add(
            Check::ListenAddress,
            rules::listen_address(opened, member.listen),
        );
        let place = self.instance.members.get(&member.name);
        let dir = place.and_then(|place| {
            let mut dirs = seen.surveyed.data.iter();
            dirs.find(|dir| dir.path == place.data_dir)
        });
        let Some(dir) = dir else { return };
        let heartbeat = number(member, HEARTBEAT, 100);
        add(Check::DiskSync, rules::disk_sync(&dir.sync, heartbeat));
        // Members on one file system fill it together.
        let beside: Vec<&Member> = self
            .topology
            .members
            .iter()
            .filter(|other| {
                let place = self.instance.members.get(&other.name);
                let mut dirs = seen.surveyed.data.iter();
                place.is_some_and(|place| {
                    machine.members.contains(&other.name)
                        && dirs
                            .any(|other| other.path == place.data_dir && other.device == dir.device)
                })
            })
            .collect();
        let quota = |member: &&Member| match number(member, "quota-backend-bytes", 0) {
            0 => rules::QUOTA,
            quota => quota,
        };
        let quotas = beside.iter().map(quota).sum();
        add(
            Check::DiskSpace,
            rules::disk_space(dir, quotas, beside.len() as u64),
        );
    }

    fn port_claims(&self, machine: &Machine, member: &Member) -> Verdict {
        if self.topology.network == Network::Private {
            return Verdict::pass("its network is its own");
        }
        let Some(place) = self.instance.members.get(&member.name) else {
            return Verdict::skipped("it has no ports yet");
        };
        let destination = machine.host.as_ref().map(|host| &host.destination);
        let collides = |claim: &&Claim| {
            let ip: IpAddr = member.listen;
            claim.destination.as_ref() == destination
                && [place.client_port, place.peer_port].contains(&claim.port)
                && (claim.listen == ip || claim.listen.is_unspecified() || ip.is_unspecified())
        };
        match self.claims.iter().find(collides) {
            Some(claim) => Verdict::fail(
                format!(
                    "port {} is that of member {} of cluster {}",
                    claim.port, claim.member, claim.cluster
                ),
                format!(
                    "give one of them other ports, or `provision down --purge {}`",
                    claim.cluster
                ),
            ),
            None => Verdict::pass("no other cluster of this state directory wants its ports"),
        }
    }
}

fn ports(facts: &MemberFacts) -> Verdict {
    let taken: Vec<String> = facts
        .ports_taken
        .iter()
        .map(|taken| {
            format!(
                "{} port {} is held by {}",
                taken.role, taken.port, taken.owner
            )
        })
        .collect();
    match (taken.is_empty(), &facts.process) {
        (false, _) => Verdict::fail(
            taken.join("; "),
            "stop what holds it, or give the member other ports",
        ),
        (true, Some(running)) => Verdict::pass(format!("its own, pid {}", running.process.pid)),
        (true, None) => Verdict::pass("free"),
    }
}

fn data(facts: &MemberFacts) -> Verdict {
    match &facts.data {
        DataDir::Empty => Verdict::pass("none yet"),
        DataDir::Claimed | DataDir::Ours => Verdict::pass("its own"),
        DataDir::Foreign { why } => Verdict::fail(
            format!("its data directory is not of this cluster: {why}"),
            "move it away, or give the cluster another `data-dir` in [host-defaults]",
        ),
    }
}
