//! Conformance: named scenarios that the included member and a real etcd must both pass.
//!
//! Owns what is checked and the runner. A scenario does what a user does: it starts this same program with a state directory
//! of its own, or the server itself, and judges what they print. It knows nothing of the planner or of the member's insides.
//!
//! ```text
//! matrix (every bootstrap cell) ──┐
//! paths (the other ways to begin) ├─► Scenario ─► runner: a Stage each ─► Outcome ─► report, JUnit
//! cases.txt, trouble (errors) ────┘
//! ```
//!
//! Invariants: what cannot run here is skipped with a reason and never passed; whatever a scenario started is gone when its
//! outcome is known; every wait has a bound; what a real etcd does differently stands beside the check, with the reason.

mod answers;
mod authority;
mod bootstrap;
mod cases;
mod definition;
mod failure;
mod junit;
mod matrix;
mod paths;
mod report;
mod runner;
mod server;
mod stage;
mod subject;
mod trouble;

pub use definition::{Need, Scenario, Suite, all};
pub use failure::Found;
pub use junit::junit;
pub use report::{Listing, Outcome, Report, Verdict, listing};
pub use runner::{Run, run};
pub use subject::Subject;
