//! Linearizable reads: one leadership check serves every read that waits when it starts.
//!
//! A read that arrives while a check is under way waits for the next one: the check may have begun before the
//! write that the read must see.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::consensus::{Consensus, ReadIndexError};
use crate::engine::Engine;
use crate::replica::Replica;

/// Reads that wait; more than clients can have in flight makes them wait for a place.
const QUEUE: usize = 64 * 1024;

/// The door of linearizable reads.
#[derive(Clone)]
pub(crate) struct Barrier {
    readers: mpsc::Sender<oneshot::Sender<()>>,
}

/// The member is stopping.
#[derive(Debug)]
pub(crate) struct Closed;

impl Barrier {
    /// The door, and the work behind it, to be run by the owner until every door is dropped.
    pub(crate) fn new<E: Engine>(
        consensus: Arc<Consensus<E>>,
        replica: Arc<Replica<E>>,
        election_timeout: Duration,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let (readers, queue) = mpsc::channel(QUEUE);
        (
            Self { readers },
            run(consensus, replica, election_timeout, queue),
        )
    }

    /// Returns when a read of the local state sees every write that was acknowledged before this call.
    pub(crate) async fn pass(&self) -> Result<(), Closed> {
        let (released, release) = oneshot::channel();
        self.readers.send(released).await.map_err(|_| Closed)?;
        release.await.map_err(|_| Closed)
    }
}

async fn run<E: Engine>(
    consensus: Arc<Consensus<E>>,
    replica: Arc<Replica<E>>,
    election_timeout: Duration,
    mut queue: mpsc::Receiver<oneshot::Sender<()>>,
) {
    let mut waiting = Vec::new();
    while queue.recv_many(&mut waiting, usize::MAX).await > 0 {
        let mut failed = false;
        loop {
            // Readers have their own deadlines; there is no point in asking for those that gave up.
            waiting.retain(|reader| !reader.is_closed());
            if waiting.is_empty() {
                if failed {
                    replica.metrics.slow_read_indexes.one();
                }
                break;
            }
            match check(&consensus, election_timeout).await {
                Ok(index) => {
                    // The entry may never come: its leader may be gone, and the next one may need fewer. A later
                    // answer is as good for all who wait.
                    if tokio::time::timeout(election_timeout, replica.wait_applied(index))
                        .await
                        .is_ok()
                    {
                        for reader in waiting.drain(..) {
                            let _ = reader.send(());
                        }
                        failed = false;
                    } else {
                        replica.metrics.slow_read_indexes.one();
                    }
                }
                Err(ReadIndexError::Stopped) => return,
                Err(error) => {
                    tracing::debug!(%error, "leadership check failed");
                    // Once for all tries: they are many while there is no leader.
                    if !std::mem::replace(&mut failed, true) {
                        replica.metrics.failed_read_indexes.one();
                    }
                    await_change(&consensus).await;
                }
            }
        }
    }
}

async fn check<E: Engine>(
    consensus: &Consensus<E>,
    patience: Duration,
) -> Result<u64, ReadIndexError> {
    match consensus.leader_now().leader {
        None => Err(ReadIndexError::NotLeader),
        Some(leader) if leader == consensus.id() => consensus.read_index().await,
        Some(leader) => consensus.remote_read_index(leader, patience).await,
    }
}

/// Waits until another leader is known, or a moment: a quorum that was lost comes back without a new leader.
async fn await_change<E: Engine>(consensus: &Consensus<E>) {
    let mut leadership = consensus.leadership();
    leadership.mark_unchanged();
    let _ = tokio::time::timeout(Duration::from_millis(20), leadership.changed()).await;
}
