//! Machines that are reached by SSH.
//!
//! ```text
//! provision ── one ssh per machine and run ──► provision agent      the same program, put there under the name of its checksum
//!      HTTP/2 on its standard streams:  POST /NAME  a question or order, see `Ask`
//!                                       PUT         a file
//!                                       CONNECT     a connection to a port of that machine
//! ```
//!
//! The agent answers with the code that looks at and changes this machine, so a member on a host and a process here are seen and
//! handled alike, nothing is parsed out of a shell, and secrets travel in the stream and never on a command line. It ends with
//! its connection, leaves nothing running, and listens nowhere. Ports of members are reached through it, so that a firewall or a
//! jump host between the operator and the clients' network is no obstacle.

mod agent;
mod ask;
mod error;
mod hosts;
mod serve;
mod ssh;

pub use agent::{Agent, Tunnel};
pub use ask::Ask;
pub use error::SshError;
pub use hosts::Hosts;
pub use serve::{answer, serve};
pub use ssh::arguments as ssh_arguments;
