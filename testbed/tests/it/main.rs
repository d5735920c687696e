//! The workloads and checks against a real three-member etcd on loopback, and the services that clusters find each other with.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking and prints what it measured"
)]

mod discovery;
mod dns;
mod etcd;
mod load;
mod writer;
