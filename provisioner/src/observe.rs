//! Observing: facts from this host and from the members. Looks, never changes.
//!
//! Owns what is true: processes, data directories, ports and what each member answers. What the facts mean is for the planner.
//! Every question to a member has a deadline, and all members are asked at once.

mod client;
mod data;
mod facts;
mod look;
mod member;

pub use client::{Access, CallError, Client, KeysHash, SnapshotStream};
pub use data::{DataError, DataOwner, claim, inspect, owner_file};
pub use facts::{
    DataDir, Health, Knows, ListedMember, MemberFacts, Observed, PortTaken, Running, Unreachable,
    Vitals,
};
pub use look::{Sight, expected_cluster_id, look, look_at, look_at_host};
pub use member::{MemberSeen, MemberSight, VERSION_FILE};
