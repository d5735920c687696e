//! Hosts: where member processes live. The only code of this crate that starts or signals processes.
//!
//! Owns spawning, process identity, port look-ups and finding binaries. It knows nothing of clusters:
//! callers hand it programs and arguments, always as an argument vector, never as a shell line.
//! Invariant: a signal reaches the very process that was recorded or none, however pids are reused.

pub mod local;
pub mod remote;
