//! Preflight: whether machines can take a cluster, found out before anything is brought to them.
//!
//! ```text
//! topology, instance ─► gather ─► Machine (what each machine is like, and how it reaches the others) ─► judge (pure) ─► Finding
//! ```
//!
//! `gather` asks every machine the same questions, this one included. While machines try to reach each other, ports of members that
//! do not run are held open, so that a firewall is found where it stands. `rules` are thresholds with their reasons, `judge` applies
//! them. Invariant: what could not be found out is skipped with the reason, and never passes.

mod facts;
mod finding;
mod gather;
mod judge;
mod records;
mod repair;
mod rules;

pub use facts::{Claim, Machine, Reached, Role, Seen};
pub use finding::{Finding, Outcome};
pub use gather::{claims, gather};
pub use judge::{Case, judge};
pub use records::AskRecords;
pub use repair::{Repair, repair, repairs};
