//! Labs: hosts with systemd and sshd of their own, on a network of their own. The only code of this crate that starts processes.
//!
//! A lab is one control group and, in it, one process that holds three namespaces:
//!
//! ```text
//! control group provision-lab-ID
//!   init      holds the lab's process, mount and network namespaces: bridge lab0, 10.0.1.2
//!   dns       the DNS server for example.com on 10.0.1.2
//!   infra0    systemd-nspawn: an overlay on the shared root, a network namespace with 10.0.1.10
//!   infra1    ...
//! ```
//!
//! What runs is read from the control groups each time, so nothing that is remembered can be wrong. Everything else (mounts,
//! namespaces, bridge, addresses) exists inside the namespaces only: when their holder dies, however, the kernel
//! takes all of it away, and no two labs can see each other. Programs are started by argument vector.

mod command;
mod error;
mod lab;
mod nspawn;
mod root;
mod space;
mod ssh;

pub use error::HostError;
pub use lab::{Change, Host, Lab, Seen};
