//! The facts that plans are made from.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::host::local::Process;

/// What is true about a cluster right now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// By member name; every member of the instance.
    pub members: BTreeMap<String, MemberFacts>,
    /// What runs beside the members, by name: all that is wanted, and all that was started once. `None`: it does not run.
    pub services: BTreeMap<String, Option<Running>>,
    /// The membership as the cluster itself tells it, if any member could.
    pub membership: Option<Vec<ListedMember>>,
    /// Why the machines of members that leave them could not be looked at, by member name. What runs there counts as stopped.
    pub out_of_reach: BTreeMap<String, Unreachable>,
}

/// What is true about one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberFacts {
    /// Its process, if it runs.
    pub process: Option<Running>,
    /// What its data directory holds.
    pub data: DataDir,
    /// Whether it has been started before, so that its data directory should not be empty.
    pub had_data: bool,
    /// The version that it ran when it was last ready, as it is written beside its data.
    pub version: Option<String>,
    /// What its log says, where that was read.
    pub log: Option<Knows>,
    /// Its ports that somebody else holds; looked up only when it does not run.
    pub ports_taken: Vec<PortTaken>,
    /// Checksums of its files on its host, where it has one.
    pub checksums: BTreeMap<PathBuf, String>,
    /// What it answers.
    pub health: Health,
    /// Why its host could not be looked at. Everything else is as if it did not run then.
    pub unreachable: Option<Unreachable>,
}

/// How much of the cluster's history a member has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Knows {
    /// The highest index that it knows to be committed.
    pub index: u64,
    /// Its term.
    pub term: u64,
}

/// Why a machine could not be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreachable {
    /// What went wrong.
    pub why: String,
    /// What to do.
    pub fix: String,
}

/// A member's running process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// Its identity.
    pub process: Process,
    /// Its argument vector, program first.
    pub argv: Vec<String>,
}

/// What a data directory holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DataDir {
    /// Nothing.
    Empty,
    /// The claim of this member of this instance, which has never come so far as to write data.
    Claimed,
    /// Data of this member of this instance.
    Ours,
    /// Something else.
    Foreign {
        /// What.
        why: String,
    },
}

impl DataDir {
    /// Whether it holds what a member has written.
    #[must_use]
    pub fn is_written(&self) -> bool {
        matches!(self, Self::Ours | Self::Foreign { .. })
    }
}

/// A port that a member needs and somebody else holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortTaken {
    /// client or peer.
    pub role: String,
    /// The port.
    pub port: u16,
    /// Who holds it.
    pub owner: String,
}

/// What a member answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It was not asked, because it does not run.
    Stopped,
    /// It does not answer.
    Silent {
        /// Why, as far as the client can tell.
        why: String,
    },
    /// It answers.
    Up(Vitals),
}

/// What a member says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vitals {
    /// The cluster's ID.
    pub cluster_id: u64,
    /// Its ID.
    pub id: u64,
    /// The leader's ID, 0 when it knows none.
    pub leader: u64,
    /// Its raft term.
    pub term: u64,
    /// Its revision.
    pub revision: i64,
    /// The last index of its log.
    pub raft_index: u64,
    /// The last index that it applied.
    pub applied_index: u64,
    /// Bytes of its database.
    pub db_size: i64,
    /// The version it reports.
    pub version: String,
    /// Whether it is a learner.
    pub is_learner: bool,
    /// Alarms and other trouble that it reports.
    pub errors: Vec<String>,
    /// Why it does not answer a linearizable read; `None`: it does.
    pub not_ready: Option<String>,
}

/// A member as the cluster lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedMember {
    /// Its ID.
    pub id: u64,
    /// Its name; empty until it has started once.
    pub name: String,
    /// Where other members reach it.
    pub peer_urls: Vec<String>,
    /// Where clients reach it.
    pub client_urls: Vec<String>,
    /// Whether it does not vote.
    pub is_learner: bool,
}

impl Running {
    /// The client port that it was started with, where its arguments say so: the topology may want another by now.
    #[must_use]
    pub fn client_port(&self) -> Option<u16> {
        let urls = self.argv.iter().find_map(|arg| {
            arg.strip_prefix("--listen-client-urls=")
                .or_else(|| arg.strip_prefix("ETCD_LISTEN_CLIENT_URLS="))
        })?;
        urls.split(',').next()?.rsplit(':').next()?.parse().ok()
    }
}

impl MemberFacts {
    pub(super) fn unreachable(had_data: bool, error: Error) -> Self {
        let causes = error.causes();
        let why = match causes.last() {
            Some(last) => {
                let lines: Vec<&str> = last.lines().map(str::trim).collect();
                format!("{error}: {}", lines.join("; "))
            }
            None => error.to_string(),
        };
        Self {
            process: None,
            data: DataDir::Empty,
            had_data,
            version: None,
            log: None,
            ports_taken: Vec::new(),
            checksums: BTreeMap::new(),
            health: Health::Stopped,
            unreachable: Some(Unreachable {
                why,
                fix: error.fix().unwrap_or_default(),
            }),
        }
    }

    /// Whether it answers linearizable reads.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.vitals()
            .is_some_and(|vitals| vitals.not_ready.is_none())
    }

    /// How much it knows, as it says itself or as its log does.
    #[must_use]
    pub fn knows(&self) -> Option<Knows> {
        let said = self.vitals().map(|vitals| Knows {
            index: vitals.raft_index,
            term: vitals.term,
        });
        said.or(self.log)
    }

    /// What it says about itself, if it answers.
    #[must_use]
    pub fn vitals(&self) -> Option<&Vitals> {
        match &self.health {
            Health::Up(vitals) => Some(vitals),
            Health::Stopped | Health::Silent { .. } => None,
        }
    }
}

impl Observed {
    /// The leader as the member with the highest term sees it.
    #[must_use]
    pub fn leader(&self) -> Option<u64> {
        let vitals = self.members.values().filter_map(MemberFacts::vitals);
        vitals
            .filter(|vitals| vitals.leader != 0)
            .max_by_key(|vitals| vitals.term)
            .map(|vitals| vitals.leader)
    }

    /// Whether this member leads.
    #[must_use]
    pub fn leads(&self, member: &str) -> bool {
        let id = self
            .members
            .get(member)
            .and_then(MemberFacts::vitals)
            .map(|vitals| vitals.id);
        id.is_some() && id == self.leader()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_port_is_read_from_the_arguments() {
        let running = |arg: &str| Running {
            process: Process {
                pid: 1,
                start_ticks: 1,
                boot_id: String::new(),
            },
            argv: vec!["/bin/member".to_owned(), arg.to_owned()],
        };
        assert_eq!(
            running("--listen-client-urls=https://[::1]:23790").client_port(),
            Some(23_790)
        );
        assert_eq!(
            running("--listen-peer-urls=https://127.0.0.1:1").client_port(),
            None
        );
    }
}
