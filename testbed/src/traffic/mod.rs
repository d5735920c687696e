//! Workloads against the v3 KV API.
//!
//! [`load`] measures: it is built to cost little, because it shares the machine's cores with the servers.
//! [`streams`] measures what comes without being asked for each time: events and renewals.
//! [`writer`] records: every write with its outcome, so that [`crate::check`] can judge a run with faults.
//! Both take a [`Target`] and are bounded in count and time.

pub mod load;
pub mod operation;
pub mod streams;
pub mod target;
pub mod usage;
mod wire;
pub mod writer;

pub use target::{Target, Tls};
