//! Backups: snapshots of a running cluster, as files that any etcd can be restored from.
//!
//! ```text
//! member ── snapshot, as it comes ──► hash ──► age? ──► unfinished file ── checked, flushed, renamed ──► NAME-REVISION-TIME.db
//!                                      └► with --verify: a scratch member that is restored from it says the same hash of keys
//! ```
//!
//! Owns the files, what is known about them and how long they are kept. Invariant: a file under its final name is a whole
//! snapshot with its manifest beside it. An encrypted one never lies on disk in plain, but for the trial that was asked for, which
//! works below the state directory, where the cluster's keys are.

mod manifest;
mod seal;
mod stream;
mod take;
mod timer;
mod verify;
mod work;

pub use manifest::{Backup, Manifest, Retention, Verified, list, prune};
pub use seal::{NoRecipient, Recipients, open};
pub use stream::{Content, copy};
pub use take::{Destination, Take, choose};
pub(crate) use take::{show_bytes, status};
pub use timer::{Manager, Timer, Units};
pub use work::WorkDir;
