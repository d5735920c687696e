//! Writes: from a checked request to the answer of its local apply.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use member_state::{Command, Op, Response};
use tokio::time::Instant;

use crate::consensus::{Consensus, Leadership};
use crate::engine::Engine;
use crate::proposals::{Outcome, Proposals};

/// A member whose queue of writes is this long refuses more, so that memory stays bounded.
const MAX_PENDING: usize = 64 * 1024;

/// Why a write has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    /// Refused by the state.
    #[error(transparent)]
    State(#[from] member_state::Error),
    /// Larger than `--max-request-bytes`.
    #[error("etcdserver: request is too large")]
    TooLarge,
    /// Too many writes wait.
    #[error("etcdserver: too many requests")]
    TooManyRequests,
    /// No answer in time; the write may or may not take effect.
    #[error("etcdserver: request timed out")]
    TimedOut,
    /// As `TimedOut`; the leader was lost meanwhile.
    #[error("etcdserver: request timed out, possibly due to previous leader failure")]
    LeaderLost,
    /// The member is stopping.
    #[error("etcdserver: server stopped")]
    Stopped,
}

/// Sends writes through consensus.
pub(crate) struct Writer<E: Engine> {
    consensus: Arc<Consensus<E>>,
    proposals: Arc<Proposals>,
    max_request_bytes: usize,
    patience: Duration,
}

impl<E: Engine> Writer<E> {
    pub(crate) fn new(
        consensus: Arc<Consensus<E>>,
        proposals: Arc<Proposals>,
        max_request_bytes: usize,
        patience: Duration,
    ) -> Self {
        Self { consensus, proposals, max_request_bytes, patience }
    }

    /// Proposes `op` and waits for its effect here.
    pub(crate) async fn write(&self, op: Op) -> Result<Response, WriteError> {
        if self.proposals.pending() >= MAX_PENDING {
            return Err(WriteError::TooManyRequests);
        }
        let id = self.proposals.next_id();
        let command = Command::new(id, op).encode();
        if command.len() > self.max_request_bytes {
            return Err(WriteError::TooLarge);
        }
        let first = self.consensus.leader_now();
        match tokio::time::timeout(self.patience, self.until_applied(id, command)).await {
            Ok(answer) => answer,
            Err(_) => {
                self.proposals.forget(id);
                let leader_lost = first.leader.is_some() && self.consensus.leader_now() != first;
                Err(if leader_lost { WriteError::LeaderLost } else { WriteError::TimedOut })
            }
        }
    }

    /// Proposes the command in term after term until it is applied: a command that a term lost for certain goes
    /// into the next one.
    async fn until_applied(&self, id: u64, command: Bytes) -> Result<Response, WriteError> {
        let mut after = None;
        loop {
            let (leader, term) = self.leader(after).await?;
            let answer = self.proposals.register(id, term);
            if leader == self.consensus.id() {
                self.consensus.propose(term, id, command.clone()).await.map_err(|_| WriteError::Stopped)?;
            } else {
                self.consensus.forward(leader, term, id, command.clone()).await;
            }
            match answer.await {
                Ok(Outcome::Applied(answer)) => return Ok(answer?),
                Ok(Outcome::Lost) => after = Some((term, Instant::now())),
                Err(_) => return Err(WriteError::Stopped),
            }
        }
    }

    /// The leader to propose to; after a loss in `term`, the next one, or the same one a moment later.
    async fn leader(&self, after: Option<(u64, Instant)>) -> Result<(u64, u64), WriteError> {
        let mut leadership = self.consensus.leadership();
        let known = |now: &Leadership| now.leader.map(|leader| (leader, now.term));
        if let Some((lost, at)) = after {
            let newer = leadership.wait_for(|now| now.leader.is_some() && now.term > lost);
            if let Ok(Ok(now)) = tokio::time::timeout_at(at + Duration::from_millis(20), newer).await
                && let Some(found) = known(&now)
            {
                return Ok(found);
            }
        }
        let now = leadership.wait_for(|now| now.leader.is_some()).await.map_err(|_| WriteError::Stopped)?;
        known(&now).ok_or(WriteError::Stopped)
    }
}
