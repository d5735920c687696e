//! The state directory: what `provision` must remember about a cluster between two runs.
//!
//! Owns `ROOT/labs/NAME`, and `ROOT/clusters/NAME`: the lock, the instance (ports, token, paths), the topology that was applied last, the record of
//! each member's process and the journal. It holds no facts that can be looked up: whether a process lives, what it
//! runs and whether it is healthy is observed afresh each time.
//!
//! Invariant: directories are 0700 and files 0600; every file but the journal is replaced as a whole or not at all; nothing
//! is written without holding the lock.

mod allocate;
mod dir;
mod error;
mod file;
mod journal;
mod lab;
mod lock;
mod pending;

pub use allocate::{Proposal, propose};
pub use dir::{ClusterDir, Record, Unit, list};
pub use error::StateError;
pub use file::replace_text;
pub use journal::{Journal, Outcome, Past, past};
pub use lab::{LabDir, list_labs};
pub use lock::{Lock, Owner};
pub use pending::{Pending, Phase};
