//! Writes: from a checked request to the answer of its local apply.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use member_state::{Caller, Command, Op, Response};

use crate::consensus::{Consensus, Leadership};
use crate::engine::Engine;
use crate::proposals::{Outcome, Proposals};

/// A member with this many writes, or bytes of them, under way refuses more, so that memory stays bounded.
const MAX_PENDING: usize = 64 * 1024;
const MAX_PENDING_BYTES: usize = 256 << 20;

/// Entries that may be committed and not applied: etcd's figure.
const MAX_BACKLOG: u64 = 5000;

/// A power of two: of so many writes one looks at the backlog.
const BACKLOG_CHECK: u64 = 32;

/// The pause before a write that was refused is proposed again; doubled each time, so that a leader that lost its
/// quorum is not kept busy refusing.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(640);

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
    /// Whether the last look found too much committed and not applied.
    behind: AtomicBool,
}

impl<E: Engine> Writer<E> {
    pub(crate) fn new(
        consensus: Arc<Consensus<E>>,
        proposals: Arc<Proposals>,
        max_request_bytes: usize,
        patience: Duration,
    ) -> Self {
        Self {
            consensus,
            proposals,
            max_request_bytes,
            patience,
            behind: AtomicBool::new(false),
        }
    }

    /// Whether the member is too far behind with applying to take in more. While it is not, few writes look.
    fn is_behind(&self, id: u64) -> bool {
        if id.is_multiple_of(BACKLOG_CHECK) || self.behind.load(Ordering::Relaxed) {
            let behind = self.consensus.backlog() > MAX_BACKLOG;
            self.behind.store(behind, Ordering::Relaxed);
            return behind;
        }
        false
    }

    /// Proposes `op` in the name of `caller` and waits for its effect here.
    pub(crate) async fn write(&self, op: Op, caller: Caller) -> Result<Response, WriteError> {
        let (writes, bytes) = self.proposals.pending();
        if writes >= MAX_PENDING || bytes >= MAX_PENDING_BYTES {
            return Err(WriteError::TooManyRequests);
        }
        let id = self.proposals.next_id();
        if self.is_behind(id) {
            return Err(WriteError::TooManyRequests);
        }
        let command = Command::new(id, op).by(caller);
        let encoded = command.encode();
        if encoded.len() > self.max_request_bytes {
            return Err(WriteError::TooLarge);
        }
        let first = self.consensus.leader_now();
        match tokio::time::timeout(self.patience, self.until_applied(command, encoded)).await {
            Ok(answer) => answer,
            Err(_) => {
                let leader_lost = first.leader.is_some() && self.consensus.leader_now() != first;
                Err(if leader_lost {
                    WriteError::LeaderLost
                } else {
                    WriteError::TimedOut
                })
            }
        }
    }

    /// Proposes `op` here in the member's own name, as the leader of `term`, or not at all; waits for its effect.
    pub(crate) async fn write_in(&self, term: u64, op: Op) -> Result<Response, WriteError> {
        let command = Command::new(self.proposals.next_id(), op).by(Caller::member());
        let encoded = command.encode();
        let mut pending = self.proposals.register(command.id, term, encoded.len());
        self.consensus
            .propose(term, command.id, encoded)
            .await
            .map_err(|_| WriteError::Stopped)?;
        match tokio::time::timeout(self.patience, &mut pending.answer).await {
            Ok(Ok(Outcome::Applied(answer))) => Ok(answer?),
            Ok(Ok(Outcome::Lost | Outcome::Unknown)) => Err(WriteError::LeaderLost),
            Ok(Err(_)) => Err(WriteError::Stopped),
            Err(_) => Err(WriteError::TimedOut),
        }
    }

    /// Proposes the command in term after term until it is applied: a command that a term lost for certain goes
    /// into the next one.
    async fn until_applied(
        &self,
        mut command: Command,
        mut encoded: Bytes,
    ) -> Result<Response, WriteError> {
        let mut lost = None;
        let mut pause = FIRST_PAUSE;
        loop {
            let (leader, term) = self.leader(lost, pause).await?;
            let id = command.id;
            let mut pending = self.proposals.register(id, term, encoded.len());
            if leader == self.consensus.id() {
                self.consensus
                    .propose(term, id, encoded.clone())
                    .await
                    .map_err(|_| WriteError::Stopped)?;
            } else {
                self.consensus
                    .forward(leader, term, id, encoded.clone())
                    .await;
            }
            match (&mut pending.answer).await {
                Ok(Outcome::Applied(answer)) => return Ok(answer?),
                Ok(Outcome::Unknown) => return Err(WriteError::LeaderLost),
                Ok(Outcome::Lost) => {}
                Err(_) => return Err(WriteError::Stopped),
            }
            pause = if lost == Some(term) {
                (pause * 2).min(LONGEST_PAUSE)
            } else {
                FIRST_PAUSE
            };
            lost = Some(term);
            // A refusal of this attempt may come twice, late: it must not meet the next one.
            command.id = self.proposals.next_id();
            encoded = command.encode();
        }
    }

    /// The leader to propose to; after a loss in a term that of a later one, or the same one after a pause.
    async fn leader(&self, lost: Option<u64>, pause: Duration) -> Result<(u64, u64), WriteError> {
        let mut leadership = self.consensus.leadership();
        let known = |now: &Leadership| now.leader.map(|leader| (leader, now.term));
        if let Some(lost) = lost {
            let newer = leadership.wait_for(|now| now.leader.is_some() && now.term > lost);
            if let Ok(Ok(now)) = tokio::time::timeout(pause, newer).await
                && let Some(found) = known(&now)
            {
                return Ok(found);
            }
        }
        let now = leadership
            .wait_for(|now| now.leader.is_some())
            .await
            .map_err(|_| WriteError::Stopped)?;
        known(&now).ok_or(WriteError::Stopped)
    }
}
