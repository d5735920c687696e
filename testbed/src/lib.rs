//! Where clusters live in tests, benchmarks and fault runs: the hosts they run on, what they find each other with, what loads
//! them and what judges them.
//!
//! Owns labs of real hosts ([`host`]), DNS and discovery ([`service`]), workloads ([`traffic`]) and the properties that a run
//! must keep ([`check`]), and the ports that tests start servers on ([`port`]). It does not bring clusters up and knows no member binary: it is given endpoints, and process ids
//! where it should measure. Invariant: a workload is bounded in count and in time, whatever the servers do.

pub mod check;
pub mod host;
pub mod port;
pub mod service;
pub mod traffic;
