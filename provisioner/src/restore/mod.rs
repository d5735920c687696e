//! Restoring a whole cluster from one snapshot.
//!
//! ```text
//! snapshot ─► checked, revision bumped ─► stop all ─► old data aside ─► the same snapshot into each member ─► start all
//!             pending: what is restored, under which new token ────────────────────────────────────────────► forgotten
//! ```
//!
//! The restored cluster is a new one: a token of its own, so that no member of the old one joins it by mistake. Data directories
//! appear whole or not at all and name that token, so that a run that was cut off is finished by the next: what has the new token
//! stays, everything else is set aside. As long as the data are not complete, no other verb starts a member.

mod bump;
mod data;

pub use bump::bump;
pub use data::{Member, Restore};
