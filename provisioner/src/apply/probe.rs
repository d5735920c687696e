//! The availability receipt: a client that writes and reads while the cluster is changed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::duration;
use crate::observe::{Access, CallError, Client};
use crate::topology::Member;

// Outside what people and Kubernetes use as prefixes; deleted at the end.
const KEY: &[u8] = b"\0provision/availability-probe";
const PAUSE: Duration = Duration::from_millis(10);
// Shorter than an election, so that a probe moves on to a member that answers.
const ATTEMPT_LIMIT: Duration = Duration::from_millis(500);
// Twice round: the second time the new leader may be known.
const ROUNDS: usize = 2;

/// What a client saw while a verb changed the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Receipt {
    /// A write followed by a linearizable read each.
    pub probes: u64,
    /// Probes that no member answered.
    pub failed: u64,
    /// The longest time between two acknowledged writes.
    pub longest_write_gap_ms: u64,
}

/// The running probe.
#[derive(Debug)]
pub struct Probe {
    stop: CancellationToken,
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Seen {
    receipt: Receipt,
    last_write: Instant,
}

impl Seen {
    // The gap that is open counts as well.
    fn now(&self) -> Receipt {
        let open = u64::try_from(self.last_write.elapsed().as_millis()).unwrap_or(u64::MAX);
        Receipt {
            longest_write_gap_ms: self.receipt.longest_write_gap_ms.max(open),
            ..self.receipt.clone()
        }
    }
}

impl Receipt {
    /// The longest time between two acknowledged writes.
    #[must_use]
    pub fn longest_write_gap(&self) -> Duration {
        Duration::from_millis(self.longest_write_gap_ms)
    }
}

impl std::fmt::Display for Receipt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let gap = duration::show(self.longest_write_gap());
        write!(
            f,
            "longest write gap {gap}, {} of {} probes failed",
            self.failed, self.probes
        )
    }
}

impl Probe {
    /// Starts to write and read through the members in turn.
    #[must_use]
    pub fn start(access: Access, members: Vec<(Member, u16)>) -> Self {
        let stop = CancellationToken::new();
        let seen = Arc::new(Mutex::new(Seen {
            receipt: Receipt::default(),
            last_write: Instant::now(),
        }));
        let task = tokio::spawn(run(access, members, Arc::clone(&seen), stop.clone()));
        Self { stop, seen, task }
    }

    /// What it has seen so far.
    #[must_use]
    pub fn so_far(&self) -> Receipt {
        lock(&self.seen).now()
    }

    /// Ends it and says what it saw.
    pub async fn finish(self) -> Option<Receipt> {
        self.stop.cancel();
        self.task.await.ok()?;
        let seen = lock(&self.seen);
        Some(seen.receipt.clone())
    }
}

struct Endpoints {
    access: Access,
    members: Vec<(Member, u16)>,
    at: usize,
    client: Option<Client>,
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn run(
    access: Access,
    members: Vec<(Member, u16)>,
    seen: Arc<Mutex<Seen>>,
    stop: CancellationToken,
) {
    let mut endpoints = Endpoints {
        access,
        members,
        at: 0,
        client: None,
    };
    let mut number = 0;
    while !stop.is_cancelled() {
        number += 1;
        let done = endpoints.write_and_read(number).await;
        {
            let mut seen = lock(&seen);
            seen.receipt.probes += 1;
            if done {
                seen.receipt = seen.now();
                seen.last_write = Instant::now();
            } else {
                seen.receipt.failed += 1;
            }
        }
        tokio::select! {
            () = sleep(PAUSE) => {}
            () = stop.cancelled() => {}
        }
    }
    {
        let mut seen = lock(&seen);
        seen.receipt = seen.now();
    }
    endpoints.clean_up().await;
}

impl Endpoints {
    async fn write_and_read(&mut self, number: u64) -> bool {
        for _ in 0..self.members.len() * ROUNDS {
            let done = async {
                let client = self.client().await?;
                client
                    .put(KEY, number.to_string().into_bytes(), ATTEMPT_LIMIT)
                    .await?;
                client.get(KEY, ATTEMPT_LIMIT).await
            };
            // A read that does not find what was just written is as bad as none.
            if done.await.unwrap_or(false) {
                return true;
            }
            self.client = None;
            self.at += 1;
        }
        false
    }

    async fn clean_up(&mut self) {
        if let Ok(client) = self.client().await {
            // A key that stays behind is overwritten and deleted by the next verb.
            let _best_effort = client.delete(KEY, ATTEMPT_LIMIT).await;
        }
    }

    async fn client(&mut self) -> Result<Client, CallError> {
        if let Some(client) = &self.client {
            return Ok(client.clone());
        }
        let (member, port) = &self.members[self.at % self.members.len()];
        let client = self.access.connect(member, *port, ATTEMPT_LIMIT).await?;
        Ok(self.client.insert(client).clone())
    }
}
