//! The state's tables in RocksDB: the only crate that names it.
//!
//! Owns the tuning, the mapping of tables to column families, the durable point ([`RocksBackend::flush`]) and
//! checkpoints. It knows nothing about what the tables hold.
//!
//! Invariant: the write-ahead log of RocksDB is off, and all column families are flushed together, so that a crash
//! leaves the result of a prefix of the batches. Everything that was written before a successful flush is in that
//! prefix; whoever needs the rest replays it from the raft log, which must not be purged beyond a flush.

mod backend;
mod error;
mod options;

pub use backend::{MemoryStats, RocksBackend, RocksCursor, RocksSnapshot};
pub use error::StoreError;
pub use options::StoreOptions;
