//! Findings of machines in memory.

use super::*;
use crate::host::local::{Directory, Opened, Resolved, Surveyed, SyncTime, TimeSync};
use crate::observe::{DataDir, PortTaken, Unreachable};
use crate::plan::testing::World;
use crate::topology::SshHost;

const NAMES: [&str; 3] = ["infra0", "infra1", "infra2"];

struct Lab {
    world: World,
    machines: Vec<Machine>,
    claims: Vec<Claim>,
}

impl Lab {
    /// Three machines with a member each, and nothing wrong with them.
    fn fine() -> Self {
        let mut world = World::nothing(3);
        let machines = NAMES.iter().enumerate().map(|(index, name)| {
            let address = format!("10.0.1.1{index}");
            let member = &mut world.topology.members[index];
            member.host = Some(SshHost::at(&address));
            member.listen = address.parse().unwrap();
            member.address = format!("{name}.example.com");
            let place = world.instance.members.get_mut(*name).unwrap();
            (place.client_port, place.peer_port) = (2379, 2380);
            Machine {
                name: address.clone(),
                host: Some(SshHost::at(&address)),
                members: vec![(*name).to_owned()],
                seen: Ok(seen(name, &place.data_dir)),
            }
        });
        Self {
            machines: machines.collect(),
            world,
            claims: Vec::new(),
        }
    }

    fn seen(&mut self, index: usize) -> &mut Seen {
        self.machines[index].seen.as_mut().unwrap()
    }

    fn ways(&mut self, index: usize) -> &mut [Reached] {
        self.seen(index).reached.as_mut().unwrap()
    }

    fn findings(&self) -> Vec<Finding> {
        judge(&Case {
            topology: &self.world.topology,
            instance: &self.world.instance,
            exists: true,
            machines: &self.machines,
            members: &self.world.observed.members,
            certificates: &self.world.certificates,
            claims: &self.claims,
        })
    }

    /// All that is not as on machines with nothing wrong.
    fn faults(&self) -> Vec<(&'static str, String, Outcome)> {
        let findings = self.findings().into_iter();
        let bad = |finding: &Finding| !matches!(finding.outcome, Outcome::Pass);
        findings
            .filter(bad)
            .map(|finding| (finding.check.code(), finding.subject, finding.outcome))
            .collect()
    }
}

fn seen(own: &str, data: &std::path::Path) -> Seen {
    let reached = NAMES.iter().filter(|name| **name != own);
    Seen {
        surveyed: Surveyed {
            architecture: std::env::consts::ARCH.to_owned(),
            libc: Some("glibc 2.36".to_owned()),
            memory: 8 << 30,
            swap: 0,
            open_files: 1 << 20,
            most_open_files: 1 << 20,
            time_zone: "Etc/UTC".to_owned(),
            time_sync: TimeSync::By("chronyd".to_owned()),
            firewalls: Ok(Vec::new()),
            data: vec![Directory {
                path: data.to_owned(),
                mode: None,
                nearest: "/var/lib".into(),
                device: 1,
                free: 100 << 30,
                writable: true,
                runs_programs: true,
                sync: Ok(SyncTime {
                    writes: 200,
                    p99_us: 900,
                }),
            }],
            programs: None,
        },
        clock_us: 40,
        clock_error_us: 300,
        resolved: (0..3)
            .map(|index| Resolved {
                name: format!("infra{index}.example.com"),
                addresses: Ok([format!("10.0.1.1{index}").parse().unwrap()].into()),
                reverse: [format!("infra{index}.example.com")].into(),
            })
            .collect(),
        records: None,
        opened: [Role::Client, Role::Peer]
            .map(|role| ((own.to_owned(), role), Opened::Open))
            .into(),
        reached: Ok(reached
            .flat_map(|name| {
                [Role::Client, Role::Peer].map(|role| Reached {
                    member: (*name).to_owned(),
                    role,
                    round_trip: Some(Ok(400)),
                })
            })
            .collect()),
    }
}

#[test]
fn machines_with_nothing_wrong_pass_every_check() {
    let lab = Lab::fine();
    assert_eq!(lab.faults(), []);
    let found: BTreeSet<Check> = lab.findings().iter().map(|finding| finding.check).collect();
    // The cluster is not found by SRV records.
    let missing: Vec<&Check> = Check::ALL
        .iter()
        .filter(|check| !found.contains(check))
        .collect();
    assert_eq!(missing, [&Check::SrvRecords]);
}

#[test]
fn a_machine_that_is_not_reached_passes_nothing() {
    let mut lab = Lab::fine();
    let gone = Unreachable {
        why: "connection refused".to_owned(),
        fix: "start it".to_owned(),
    };
    lab.machines[1].seen = Err(gone.clone());
    lab.world
        .observed
        .members
        .get_mut("infra1")
        .unwrap()
        .unreachable = Some(gone);
    for seen in [0, 2] {
        let lost = lab
            .ways(seen)
            .iter_mut()
            .filter(|way| way.member == "infra1");
        lost.for_each(|way| way.round_trip = None);
    }
    for finding in lab.findings() {
        let own = ["10.0.1.11", "infra1"].contains(&finding.subject.as_str());
        match finding.check {
            Check::Reachable if own => assert_eq!(finding.outcome, Outcome::Fail),
            // Of what is remembered here.
            Check::PortClaims => assert_eq!(finding.outcome, Outcome::Pass),
            Check::PeerPorts | Check::ClientPorts => {
                assert_eq!(finding.outcome, Outcome::Skipped, "{finding:?}");
            }
            _ if own => assert_eq!(finding.outcome, Outcome::Skipped, "{finding:?}"),
            _ => assert_eq!(finding.outcome, Outcome::Pass, "{finding:?}"),
        }
    }
}

#[test]
fn each_fault_is_found_where_it_is() {
    type Fault = (&'static str, &'static str, Outcome);
    type Break = fn(&mut Lab);
    let cases: [(Break, &[Fault]); 10] = [
        (
            |lab| lab.seen(1).clock_us = 3_000_000,
            &[("clock", "10.0.1.11", Outcome::Fail)],
        ),
        (
            |lab| lab.seen(2).surveyed.swap = 1 << 30,
            &[("swap", "10.0.1.12", Outcome::Warn)],
        ),
        (
            |lab| lab.seen(0).surveyed.time_zone = "Asia/Tokyo".to_owned(),
            &[("time-zone", "10.0.1.10", Outcome::Warn)],
        ),
        (
            |lab| lab.seen(0).surveyed.data[0].free = 16 << 20,
            &[("disk-space", "infra0", Outcome::Fail)],
        ),
        (
            |lab| {
                lab.seen(1).surveyed.firewalls = Ok(vec!["nftables".to_owned()]);
                lab.ways(0)[1].round_trip = Some(Err("no answer".to_owned()));
            },
            &[
                ("peer-ports", "10.0.1.10", Outcome::Fail),
                ("firewall", "10.0.1.11", Outcome::Warn),
            ],
        ),
        (
            |lab| {
                let taken = PortTaken {
                    role: "client".to_owned(),
                    port: 2379,
                    owner: "pid 7".to_owned(),
                };
                let facts = lab.world.observed.members.get_mut("infra2").unwrap();
                facts.ports_taken = vec![taken];
            },
            &[("ports", "infra2", Outcome::Fail)],
        ),
        (
            |lab| {
                let facts = lab.world.observed.members.get_mut("infra2").unwrap();
                facts.data = DataDir::Foreign {
                    why: "x".to_owned(),
                };
            },
            &[("data", "infra2", Outcome::Fail)],
        ),
        (
            |lab| lab.seen(2).records = Some(Err("the DNS lacks x".to_owned())),
            &[("srv-records", "10.0.1.12", Outcome::Fail)],
        ),
        (
            |lab| {
                let opened = &mut lab.seen(0).opened;
                opened.insert(("infra0".to_owned(), Role::Client), Opened::NotHere);
            },
            &[("listen-address", "infra0", Outcome::Fail)],
        ),
        (
            |lab| {
                for index in 0..3 {
                    let ways = lab.ways(index).iter_mut();
                    ways.for_each(|way| way.round_trip = Some(Ok(150_000)));
                }
            },
            &[("round-trip", "cluster", Outcome::Warn)],
        ),
    ];
    for (case, (breaks, faults)) in cases.into_iter().enumerate() {
        let mut lab = Lab::fine();
        breaks(&mut lab);
        let wanted: Vec<_> = faults
            .iter()
            .map(|(check, subject, outcome)| (*check, (*subject).to_owned(), *outcome))
            .collect();
        assert_eq!(lab.faults(), wanted, "case {case}");
    }
}

#[test]
fn ways_that_were_not_told_of_are_skipped() {
    let mut lab = Lab::fine();
    lab.seen(0).reached = Err("it was cut off".to_owned());
    let skipped = |check| (check, "10.0.1.10".to_owned(), Outcome::Skipped);
    assert_eq!(
        lab.faults(),
        [skipped("peer-ports"), skipped("client-ports")]
    );
}

#[test]
fn ports_of_another_cluster_collide_on_the_same_machine_and_address_only() {
    let claim = |destination: Option<&str>, listen: &str, port| Claim {
        cluster: "other".to_owned(),
        member: "m".to_owned(),
        destination: destination.map(str::to_owned),
        listen: listen.parse().unwrap(),
        port,
    };
    for (claim, collides) in [
        (claim(Some("10.0.1.10"), "10.0.1.10", 2380), true),
        (claim(Some("10.0.1.10"), "0.0.0.0", 2379), true),
        (claim(Some("10.0.1.10"), "10.9.9.9", 2380), false),
        (claim(Some("10.0.1.10"), "10.0.1.10", 2381), false),
        (claim(Some("10.0.1.20"), "10.0.1.10", 2380), false),
        (claim(None, "10.0.1.10", 2380), false),
    ] {
        let mut lab = Lab::fine();
        lab.claims = vec![claim.clone()];
        let fault = ("port-claims", "infra0".to_owned(), Outcome::Fail);
        let wanted = if collides { vec![fault] } else { Vec::new() };
        assert_eq!(lab.faults(), wanted, "{claim:?}");
    }
}

#[test]
fn a_waiver_is_shown_with_its_reason_and_waives_its_check_alone() {
    let mut lab = Lab::fine();
    lab.seen(0).surveyed.swap = 1 << 30;
    lab.seen(0).clock_us = 9_000_000;
    let waived = &mut lab.world.topology.waived_checks;
    waived.insert(Check::Swap, "a sandbox".to_owned());
    let faults = lab.faults();
    assert_eq!(
        faults,
        [
            ("swap", "10.0.1.10".to_owned(), Outcome::Waived),
            ("clock", "10.0.1.10".to_owned(), Outcome::Fail),
        ]
    );
    let findings = lab.findings();
    let swap = findings
        .iter()
        .find(|finding| finding.outcome == Outcome::Waived);
    assert_eq!(swap.unwrap().waiver.as_deref(), Some("a sandbox"));
}

#[test]
fn the_middle_of_clocks_is_not_moved_by_one_that_is_off() {
    assert_eq!(median(vec![5, -3, 9_000_000]), 5);
    assert_eq!(median(vec![10, 20]), 15);
    assert_eq!(median(vec![]), 0);
    let zones = ["b", "a", "a", "b"];
    assert_eq!(common(zones.iter()), Some(&"b"));
}
