//! What the planner will not plan.

use crate::error::Error;
use crate::plan::step::Planned;

/// Why there is no plan, or why it may not be applied. Nothing has been touched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The cluster has members that neither the topology nor the instance knows.
    #[error("cluster {cluster} itself lists members that provision does not know: {strangers}")]
    Listed {
        /// The cluster.
        cluster: String,
        /// Who is there and should not be.
        strangers: String,
    },
    /// A voter that should become a learner.
    #[error("member {member} is a voter and cannot become a learner")]
    Demoted {
        /// The member.
        member: String,
    },
    /// Every member comes as a learner, and the cluster takes no more of them.
    #[error(
        "member {member} cannot be added: the cluster has as many learners as it takes, {learners}"
    )]
    TooManyLearners {
        /// The member that should come.
        member: String,
        /// Who takes the place.
        learners: String,
    },
    /// Nobody would be left.
    #[error("member {member} is the only voter: without it there is no cluster")]
    LastVoter {
        /// The member.
        member: String,
    },
    /// The members cannot be changed because the cluster cannot write.
    #[error("step {step:?} needs a quorum that the cluster does not have ({ledger})")]
    NoQuorum {
        /// The cluster.
        cluster: String,
        /// The step.
        step: String,
        /// The ledger before it.
        ledger: String,
    },
    /// Leadership cannot go to this member, or to any.
    #[error("leadership of cluster {cluster} cannot move: {why}")]
    Leadership {
        /// The cluster.
        cluster: String,
        /// Why.
        why: String,
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
    /// Transport security that members with another one do not get on with.
    #[error("{what} TLS of cluster {cluster} cannot change from {from} to {to} {}", if *in_stages { "at once while it has data" } else { "while it has data" })]
    Tls {
        /// The cluster.
        cluster: String,
        /// peer or client.
        what: &'static str,
        /// As it is.
        from: String,
        /// As the topology wants it.
        to: String,
        /// Whether there is a way in stages.
        in_stages: bool,
    },
    /// A member that should be somewhere else.
    #[error("member {member} of cluster {cluster} cannot move from {from} to {to} with its data")]
    Moved {
        /// The cluster.
        cluster: String,
        /// The member.
        member: String,
        /// Its address.
        from: String,
        /// The topology's.
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
        /// The cluster.
        cluster: String,
        /// The member.
        member: String,
        /// Where the data should be.
        path: String,
    },
    /// There is no need to recover, or nothing to recover from.
    #[error("cluster {cluster} cannot be recovered from one member: {why}")]
    NotLost {
        /// The cluster.
        cluster: String,
        /// Why.
        why: String,
        /// What to do.
        fix: String,
    },
    /// A version that must not follow the one that wrote the data.
    #[error("member {member} of cluster {cluster} cannot go from {from} to {to}: {why}")]
    Version {
        /// The cluster.
        cluster: String,
        /// The member.
        member: String,
        /// What it runs.
        from: String,
        /// What it should run.
        to: String,
        /// The rule.
        why: String,
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
            Self::Listed { cluster, .. } => {
                format!(
                    "remove them with `provision exec {cluster} -- etcdctl member remove ID`, then add them to the file if they are wanted"
                )
            }
            Self::LastVoter { .. } => "add another voter to the file and run `up` first".to_owned(),
            Self::Demoted { member } => {
                format!(
                    "take {member} out of the file and run `up`, then put it back as a learner and run `up` again"
                )
            }
            Self::TooManyLearners { learners, .. } => {
                format!(
                    "make {learners} a voter or take it out of the file first, or raise the flag `max-learners` where the server has it"
                )
            }
            Self::NoQuorum { cluster, .. } => {
                format!(
                    "bring members back first: restore them in the file and run `up`; `provision status {cluster}` shows who is missing. Without a majority's data: `provision recover {cluster}`, or restore a snapshot"
                )
            }
            Self::Leadership { cluster, .. } => format!("see `provision status {cluster}`"),
            Self::Fixed { cluster, .. } => {
                format!(
                    "restore it in the file, or make the cluster anew: `provision down --purge {cluster}`, which deletes its data"
                )
            }
            Self::Tls {
                in_stages: true, ..
            } => "go there in stages, while it runs: `provision rotate tls FILE`, with this file"
                .to_owned(),
            Self::Tls { cluster, .. } => {
                format!(
                    "restore it in the file, or make the cluster anew: `provision down --purge {cluster}`, which deletes its data"
                )
            }
            Self::Moved { member, from, .. } => {
                format!(
                    "restore {from} in the file, or have an empty member take its place there: `provision replace FILE {member}`, with this file"
                )
            }
            Self::ForeignData { path, .. } => {
                format!(
                    "put the member's own data back, or move {path} away; of a cluster whose state directory was lost: `provision adopt FILE`"
                )
            }
            Self::LostData {
                cluster,
                member,
                path,
            } => {
                format!(
                    "put {path} back, or replace the member by an empty one: `provision replace {cluster} {member}`. A voter that forgot what it acknowledged can lose writes"
                )
            }
            Self::Version { cluster, .. } => {
                format!(
                    "upgrade to the next minor version first, `provision upgrade {cluster} --binary ETCD`; the way back is the snapshot from before: `provision restore {cluster} SNAPSHOT` with the older program in the file"
                )
            }
            Self::PortTaken { owner, .. } => {
                format!(
                    "stop {owner}, or give the member other ports with client-port and peer-port"
                )
            }
            Self::Margin { .. } => {
                "bring the other members up first, or accept the outage with --accept-downtime"
                    .to_owned()
            }
            Self::Unreachable { fix, .. } | Self::NotLost { fix, .. } => fix.clone(),
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
