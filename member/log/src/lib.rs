//! The replicated log: openraft's types for this project, and the write-ahead log that holds votes and entries.
//!
//! Owns the segment files, the thread that makes them durable, and the bounded memory of recent entries from which
//! replication and apply read. It does not know what an entry means ([`Payload`] is bytes), and it links no database.
//!
//! Invariant: what was acknowledged (a completed append callback, a returned [`save_vote`]) is read back by every later
//! [`Log::open`]; anything else that the files hold is either a torn tail, which is cut off with a warning, or
//! corruption, which is an error that names file and offset.
//!
//! ```text
//! append ─► State (cache, readable at once) ─► queue ─► flusher thread: encode, write, fdatasync ─► callbacks
//!                    ▲                                        │ publish: offsets, eviction
//! readers ───────────┴── older than the cache: pread ◄────────┘
//! ```
//!
//! [`save_vote`]: openraft::storage::RaftLogStorage::save_vote

mod config;
mod error;
mod flusher;
mod found;
mod index;
mod lock;
mod log;
mod options;
mod reader;
mod record;
mod recover;
mod segment;
mod state;

pub use config::{Entry, LogId, NodeId, Payload, Peer, Ticket, TypeConfig, Vote};
pub use error::LogError;
pub use found::FoundedMembership;
pub use log::{Identity, Log, LogStats};
pub use options::{LogOptions, TimeHook};
pub use reader::LogReader;
