//! etcd's database file: the pages of bbolt, and etcd's buckets in them.
//!
//! Owns the file format in both directions ([`Plan`] writes, [`Database`] reads), the rows of etcd's buckets
//! ([`schema`]), the hash at the end of a snapshot ([`SnapshotFile`]) and what `snapshot status` says ([`Status`]). It
//! does not know where the rows come from or go to, and it never changes a file in place.
//!
//! Invariants: writing needs memory for one page of each level of the tree, and its size is known before the first
//! byte. Reading trusts nothing in the file: what is not a database is an error, never a panic, an endless walk or
//! memory without bound.
//!
//! ```text
//! file   meta 0 | meta 1 | free list | pages of the first bucket .. of the last | root: name to tree
//! page   id(8) flags(2) count(2) overflow(4)  elements  keys and values
//! ```

mod error;
mod format;
mod read;
pub mod schema;
mod snapshot;
mod status;
mod write;

pub use error::{ReadError, SnapshotError, WriteError};
pub use read::{Bucket, Buckets, Database, Item, Walk};
pub use snapshot::{HashCheck, SnapshotFile};
pub use status::Status;
pub use write::{Plan, Row, Source};
