//! `member`: an etcd-compatible server. This crate only composes: flags, logs, storage engine, server, signals.

mod engine;
mod gateway;
mod logging;
mod run;
mod snapshot;

use std::process::ExitCode;

// RocksDB's threads and the server's share one heap: glibc's arenas keep freed pages of each for good.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    run::run()
}
