//! What the planner will not plan.

use crate::error::Error;
use crate::plan::step::Planned;

/// Why there is no plan, or why it may not be applied. Nothing has been touched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The topology lists other members than the cluster has.
    #[error("the topology changes the membership of cluster {cluster}: {change}")]
    Membership {
        /// The cluster.
        cluster: String,
        /// Who comes and goes.
        change: String,
    },
    /// The members themselves have another membership than was applied.
    #[error("cluster {cluster} itself lists other members than the topology: it {change}")]
    Listed {
        /// The cluster.
        cluster: String,
        /// Who is there and should not be, and the reverse.
        change: String,
    },
    /// Something that the members agreed on at their first start.
    #[error("{what} of cluster {cluster} cannot change from {from} to {to} while it has data")]
    Fixed {
        /// The cluster.
        cluster: String,
        /// What.
        what: String,
        /// As it is.
        from: String,
        /// As the topology wants it.
        to: String,
    },
    /// A data directory that holds something else.
    #[error("the data directory {path} of member {member} is not of this cluster: {why}")]
    ForeignData {
        /// The member.
        member: String,
        /// Its data directory.
        path: String,
        /// What it holds.
        why: String,
    },
    /// A data directory is gone although the cluster has been up.
    #[error(
        "the data directory {path} of member {member} is gone, and the other members have data"
    )]
    LostData {
        /// The member.
        member: String,
        /// Where the data should be.
        path: String,
    },
    /// Somebody else listens where a member must.
    #[error("port {port}, the {role} port of member {member}, is held by {owner}")]
    PortTaken {
        /// The member.
        member: String,
        /// client or peer.
        role: String,
        /// The port.
        port: u16,
        /// The process that holds it.
        owner: String,
    },
    /// A member's machine cannot be looked at.
    #[error("the machine of member {member} cannot be worked on: {why}")]
    Unreachable {
        /// The member.
        member: String,
        /// Why.
        why: String,
        /// What to do.
        fix: String,
    },
    /// A step would leave fewer members than quorum needs.
    #[error("step {step:?} leaves the cluster without quorum ({ledger})")]
    Margin {
        /// The step.
        step: String,
        /// Its ledger.
        ledger: String,
    },
}

impl Refusal {
    /// The refusal of a step that loses quorum.
    #[must_use]
    pub fn margin(planned: &Planned) -> Self {
        Self::Margin {
            step: planned.step.to_string(),
            ledger: planned
                .ledger
                .map(|ledger| ledger.to_string())
                .unwrap_or_default(),
        }
    }

    /// What the user can do about it.
    #[must_use]
    pub fn fix(&self) -> String {
        match self {
            Self::Membership { .. } => {
                "growing and shrinking a running cluster is not in this release: restore the members in the file, or make a new cluster under another name".to_owned()
            }
            Self::Listed { cluster, .. } => {
                format!("undo what was done with `provision exec {cluster} -- etcdctl member ...`; following such changes is not in this release")
            }
            Self::Fixed { cluster, .. } => {
                format!("restore it in the file, or make the cluster anew: `provision down --purge {cluster}`, which deletes its data")
            }
            Self::ForeignData { path, .. } => format!("put the member's own data back, or move {path} away"),
            Self::LostData { path, .. } => {
                format!("put {path} back: a voter that forgot what it acknowledged can lose writes, and replacing a member is not in this release")
            }
            Self::PortTaken { owner, .. } => {
                format!("stop {owner}, or give the member other ports with client-port and peer-port")
            }
            Self::Unreachable { fix, .. } => fix.clone(),
            Self::Margin { .. } => "bring the other members up first, or accept the outage with --accept-downtime".to_owned(),
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        let fix = refusal.fix();
        match refusal {
            // Nothing unsafe was asked for; the host is not ready for it.
            Refusal::PortTaken { .. } => Self::failed(refusal.to_string(), fix),
            Refusal::Unreachable { .. } => Self::Unreachable {
                what: refusal.to_string(),
                fix,
            },
            _ => Self::refused(refusal.to_string(), fix),
        }
    }
}
