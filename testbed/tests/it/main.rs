//! The workloads and checks against a real three-member etcd on loopback.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking and prints what it measured"
)]

mod etcd;
mod load;
mod writer;
