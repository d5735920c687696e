//! What machines have said.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Serialize;

use crate::host::local::{Opened, Resolved, RoundTrip, Surveyed};
use crate::observe::Unreachable;
use crate::topology::SshHost;

/// A machine with members.
#[derive(Clone, Debug)]
pub struct Machine {
    /// As it is shown.
    pub name: String,
    /// How it is reached; `None`: it is this one.
    pub host: Option<SshHost>,
    /// Its members, in the file's order.
    pub members: Vec<String>,
    /// What it has said.
    pub seen: Result<Seen, Unreachable>,
}

/// What a machine has said.
#[derive(Clone, Debug)]
pub struct Seen {
    /// What it is like.
    pub surveyed: Surveyed,
    /// How far its clock is ahead of this machine's, in microseconds.
    pub clock_us: i64,
    /// By how much that may be wrong.
    pub clock_error_us: i64,
    /// What the advertised names mean there.
    pub resolved: Vec<Resolved>,
    /// What is wrong with the SRV records as it sees them; `None`: it was not asked.
    pub records: Option<Result<(), String>>,
    /// By member and port, what became of listening there; nothing of members that run.
    pub opened: BTreeMap<(String, Role), Opened>,
    /// How it reached the members on other machines; or why it was not told.
    pub reached: Result<Vec<Reached>, String>,
}

/// A way from a machine to a member's port.
#[derive(Clone, Debug)]
pub struct Reached {
    /// The member.
    pub member: String,
    /// Its port.
    pub role: Role,
    /// The time that it takes; `None`: nothing listens there.
    pub round_trip: Option<RoundTrip>,
}

/// A member's port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// For clients.
    Client,
    /// For the other members.
    Peer,
}

impl Role {
    /// As it is shown.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Peer => "peer",
        }
    }
}

/// A port that another cluster's member wants on a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The cluster.
    pub cluster: String,
    /// The member.
    pub member: String,
    /// Where ssh goes; `None`: this machine.
    pub destination: Option<String>,
    /// Where it listens.
    pub listen: IpAddr,
    /// The port.
    pub port: u16,
}
