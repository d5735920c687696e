//! The planner: what must happen for the cluster to be as wanted. The only brain, and pure.
//!
//! `(Wanted, Observed) -> Plan` of typed [`Step`]s, each with its quorum [`Ledger`]. It does no IO and knows no clock: `provision plan` and
//! `provision up` call the same function, so `plan` cannot lie. It does not know how a step is done; `apply` does.
//!
//! Invariant: no step lowers the number of members that are up below quorum unless downtime was accepted, and a plan
//! made from what a finished plan leaves behind is empty.

mod compare;
mod decide;
mod display;
mod membership;
mod quorum;
mod recover;
mod refusal;
mod step;
#[cfg(test)]
pub(crate) mod testing;
mod tls;
mod version;

pub use compare::arguments;
pub use decide::{Wanted, WantedFiles, down, move_leader, up};
pub(crate) use membership::whose;
pub use quorum::Ledger;
pub use recover::{recover, survivor, survivors};
pub use refusal::Refusal;
pub use step::{CertChange, Installation, Plan, Planned, Step};
pub use tls::tls_stages;
