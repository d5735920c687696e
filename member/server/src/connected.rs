//! Since when the other members answer: what etcd asks before it lets the members be changed.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::consensus::Consensus;
use crate::engine::Engine;
use crate::metrics::Peers;

/// How long a member must have been connected to count; etcd's figure.
const HEALTHY: Duration = Duration::from_secs(5);

/// Since when each of the other members answers without a break.
#[derive(Debug, Default)]
pub(crate) struct Connected(Mutex<HashMap<u64, Instant>>);

impl Connected {
    /// Whether the member answers.
    pub(crate) fn is_active(&self, id: u64) -> bool {
        self.since(id).is_some()
    }

    /// Whether the member has answered for long.
    pub(crate) fn is_steady(&self, id: u64) -> bool {
        self.since(id)
            .is_some_and(|since| since.elapsed() >= HEALTHY)
    }

    fn since(&self, id: u64) -> Option<Instant> {
        let since = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        since.get(&id).copied()
    }

    /// Asks the others again and again. Never returns.
    pub(crate) async fn watch<E: Engine>(
        &self,
        consensus: &Consensus<E>,
        peers: &Peers,
        patience: Duration,
    ) {
        loop {
            let asked = Instant::now();
            let others = consensus.nodes().into_iter().map(|node| node.id);
            let answers = others
                .filter(|id| *id != consensus.id())
                .map(|id| async move {
                    let alive = consensus.is_alive(id, patience).await;
                    peers.of(id).probed(alive.then(|| asked.elapsed()));
                    (id, alive)
                });
            let answers = futures_util::future::join_all(answers).await;
            {
                let mut since = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                let before = std::mem::take(&mut *since);
                since.extend(
                    answers
                        .into_iter()
                        .filter(|(_, alive)| *alive)
                        .map(|(id, _)| (id, before.get(&id).copied().unwrap_or(asked))),
                );
            }
            tokio::time::sleep(patience / 2).await;
        }
    }
}
