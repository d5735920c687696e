//! What a plan is made of.

use std::path::PathBuf;

use serde::Serialize;

use super::quorum::Ledger;

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum Step {
    /// Write the instance down: ports, token, paths.
    Remember {
        /// Client and peer ports, ascending.
        ports: Vec<u16>,
        /// Whether the instance is new, so that its token is too.
        new_token: bool,
        /// Members that come, leave or are replaced.
        members: Vec<String>,
    },
    /// Issue or reissue certificates.
    WriteCertificates {
        /// Which and why.
        changes: Vec<CertChange>,
    },
    /// Bring programs and certificates to the members' machines.
    Install {
        /// To whom, and what.
        members: Vec<Installation>,
    },
    /// Start what runs beside the members, or start it again with other arguments; each answers before the next step.
    StartServices {
        /// Which.
        services: Vec<String>,
        /// What differs for those that run.
        why: Vec<String>,
    },
    /// Stop what runs beside the members.
    StopServices {
        /// Which.
        services: Vec<String>,
    },
    /// Tell the cluster's own discovery service how many members to wait for.
    PrepareDiscovery {
        /// How many.
        size: usize,
        /// Those who are about to register: what an earlier start of theirs left there is taken away.
        registering: Vec<String>,
    },
    /// Start processes, all at once.
    Start {
        /// Who.
        members: Vec<String>,
        /// Whether nobody has data: the members form the cluster together.
        first_boot: bool,
    },
    /// Wait until each answers a linearizable read.
    WaitReady {
        /// Who.
        members: Vec<String>,
    },
    /// Hand leadership over, so that the restart of the leader costs no election.
    MoveLeader {
        /// The leader.
        from: String,
        /// Who should lead.
        to: String,
    },
    /// Tell the cluster that a member is reached over TLS from now on, right before that one is restarted.
    Announce {
        /// Who.
        member: String,
    },
    /// Stop, start with the wanted arguments, wait until ready.
    Restart {
        /// Who.
        member: String,
        /// What differs.
        why: Vec<String>,
    },
    /// Stop processes, all at once.
    Stop {
        /// Who.
        members: Vec<String>,
    },
    /// Make a cluster of this member alone, with its data.
    Alone {
        /// Who.
        member: String,
    },
    /// Add a member to the cluster that does not vote yet.
    AddLearner {
        /// Who.
        member: String,
    },
    /// Start an added member with an empty data directory and wait until it has what the leader has.
    Join {
        /// Who.
        member: String,
    },
    /// Make a learner that is in sync a voter, and wait until it answers a linearizable read.
    Promote {
        /// Who.
        member: String,
    },
    /// Take a member out of the cluster.
    Remove {
        /// Who.
        member: String,
    },
    /// Stop a member that is no longer in the cluster and put its data where no member finds it.
    Retire {
        /// Who.
        member: String,
        /// Why nothing can be done on its machine.
        #[serde(skip_serializing_if = "Option::is_none")]
        out_of_reach: Option<String>,
    },
}

/// What is brought to one member's machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Installation {
    /// The member.
    pub member: String,
    /// Paths there.
    pub files: Vec<PathBuf>,
}

/// One certificate that is written and the reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CertChange {
    /// What the certificate is for.
    pub certificate: String,
    /// Why it is written.
    pub reason: String,
}

/// A step with its ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Planned {
    /// What is done.
    #[serde(flatten)]
    pub step: Step,
    /// Who is up at the worst moment of it. Steps that touch no process have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ledger: Option<Ledger>,
    /// Whether the step itself takes a member down below quorum.
    pub loses_quorum: bool,
}

/// Steps in their order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The cluster.
    pub cluster: String,
    /// Empty: nothing to do.
    pub steps: Vec<Planned>,
}

impl Plan {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Who hands leadership over first.
    #[must_use]
    pub fn moves_from(&self) -> Option<&str> {
        self.steps.iter().find_map(|planned| match &planned.step {
            Step::MoveLeader { from, .. } => Some(from.as_str()),
            _ => None,
        })
    }

    /// The first step that may not be taken unless downtime is accepted.
    #[must_use]
    pub fn first_losing_quorum(&self) -> Option<&Planned> {
        self.steps.iter().find(|planned| planned.loses_quorum)
    }
}
