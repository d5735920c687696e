//! Bytes that nobody meant: whatever comes in, the answer is an error, never a panic, an endless walk or memory without
//! bound.
//!
//! Each target takes one seed after another for a few seconds, or for `PROVISION_FUZZ_SECONDS`. A failure prints its
//! seed; `PROVISION_FUZZ_SEED` runs that one alone.

use std::io::Write as _;
use std::time::{Duration, Instant};

use crate::process::{MEMBER, Server, http_get};

mod command;
mod gateway;
mod grpc;
mod peer;
mod snapshot;
mod wire;

const SECONDS: u64 = 3;
/// The most that a member may have held at once: an idle one holds 30 MB, and every input is far smaller.
const MEMORY_KIB: u64 = 256 << 10;

/// Numbers that look random and depend on the seed alone (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n.max(1) as u64).expect("below a usize")
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        (0..self.below(most + 1)).map(|_| self.byte()).collect()
    }

    /// Changes bytes here and there: flips, runs of 0xff (lengths that are too large), cuts, repetitions, insertions.
    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len().max(1));
            match self.below(8) {
                0 => bytes.truncate(at),
                1 => bytes.splice(at..at, self.bytes(9)).for_each(drop),
                2 => {
                    let end = (at + self.below(10)).min(bytes.len());
                    bytes[at.min(end)..end].fill(0xff);
                }
                3 => {
                    let end = (at + self.below(64)).min(bytes.len());
                    bytes.extend_from_within(at.min(end)..end);
                }
                4 if !bytes.is_empty() => {
                    let end = (at + self.below(16)).min(bytes.len());
                    bytes.drain(at..end);
                }
                5 if !bytes.is_empty() => bytes[at] = self.byte(),
                _ if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
                _ => {}
            }
        }
    }
}

/// Prints how to run a failed seed again.
struct Replay(u64);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let name = std::thread::current();
            let name = name.name().unwrap_or_default();
            let _ = writeln!(
                std::io::stderr(),
                "again: PROVISION_FUZZ_SEED={} cargo nextest run --release -p member -E 'test(={name})'",
                self.0
            );
        }
    }
}

/// Runs a target with seeds: from 0 on by default, from anywhere when there is more time.
fn each_seed(mut target: impl FnMut(&mut Random)) {
    let mut run = |seed: u64| {
        let _replay = Replay(seed);
        target(&mut Random(seed));
    };
    let given = |name| std::env::var(name).ok();
    if let Some(seed) = given("PROVISION_FUZZ_SEED") {
        return run(seed.parse().expect("a number"));
    }
    let seconds = given("PROVISION_FUZZ_SECONDS").map(|text| text.parse().expect("seconds"));
    let mut seed = match seconds {
        None => 0,
        Some(_) => std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), ()) >> 16,
    };
    let deadline = Instant::now() + Duration::from_secs(seconds.unwrap_or(SECONDS));
    while Instant::now() < deadline {
        run(seed);
        seed += 1;
    }
}

fn started() -> Server {
    let mut server = Server::single(MEMBER, &["--log-level=error"]);
    server.start();
    server.wait_ready();
    server
}

/// The member still serves, no task of it panicked, and it did not grow.
fn assert_well(server: &Server) {
    let health = http_get(server.client_port, "/health").unwrap_or_default();
    assert!(health.contains("\"health\":\"true\""), "{health}");
    let log = server.log();
    assert!(!log.contains("panicked"), "{log}");
    let peak = peak_kib(server.pid()).expect("it runs");
    assert!(peak < MEMORY_KIB, "{peak} KiB at its peak");
}

/// The most memory that a process held at once; `None` when it is no more.
fn peak_kib(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}
