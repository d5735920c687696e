//! Leases as the cluster sees them: who answers for their time, who ends them.
//!
//! The leader answers from memory, once it is sure that it leads: within half an election timeout of its quorum's
//! last word by that alone, else by the check that linearizable reads share. Followers pass questions on, as many in
//! one message as are waiting. A leader revokes what is due in its own term or not at all: a deposed one must not
//! end what its successor has prolonged.

mod counters;
mod feed;
mod forward;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use member_proto::peerpb;
use member_state::{LeaseCheckpoint, LeaseRemainder, LeaseRevoke, Op};
use tokio_util::sync::CancellationToken;

pub(crate) use feed::{LeaseChange, LeaseFeed};
pub(crate) use forward::Question;

use crate::barrier::Barrier;
use crate::consensus::Consensus;
use crate::engine::Engine;
use crate::lessor::Found;
use crate::replica::Replica;
use crate::write::{WriteError, Writer};
use forward::Forward;

/// How often a leader looks for leases whose time is over, and how many it takes: a thousand per second, as etcd.
const TICK: Duration = Duration::from_millis(250);
const PER_TICK: usize = 250;

/// Revocations under way at once; etcd's figure.
const REVOKING: usize = 16;

/// Leases whose remainders one entry of the log records; etcd's figure.
const PER_CHECKPOINT: usize = 1000;

/// The pause before a question is asked again while there is no leader who can answer it.
const PAUSE: Duration = Duration::from_millis(20);

/// Why a question about a lease has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unanswered {
    #[error("etcdserver: no leader")]
    NoLeader,
    #[error("etcdserver: request timed out")]
    TimedOut,
    #[error("etcdserver: server stopped")]
    Stopped,
    #[error(transparent)]
    State(#[from] member_state::Error),
}

/// The leases of the cluster.
pub(crate) struct Leases<E: Engine> {
    consensus: Arc<Consensus<E>>,
    replica: Arc<Replica<E>>,
    barrier: Barrier,
    forward: Forward,
    election_timeout: Duration,
    patience: Duration,
    /// The shortest TTL, in seconds.
    min_ttl: i64,
    /// Ends the streams of clients.
    stopping: CancellationToken,
}

impl<E: Engine> Leases<E> {
    /// The leases, and the work of passing questions on, to be run by the owner.
    pub(crate) fn new(
        consensus: Arc<Consensus<E>>,
        replica: Arc<Replica<E>>,
        barrier: Barrier,
        election_timeout: Duration,
        patience: Duration,
        stopping: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let (forward, work) = Forward::new(Arc::clone(&consensus), election_timeout);
        let leases = Self {
            consensus,
            replica,
            barrier,
            forward,
            election_timeout,
            patience,
            min_ttl: min_ttl(election_timeout),
            stopping,
        };
        (leases, work)
    }

    /// Ends when streams of clients must.
    pub(crate) fn stopping(&self) -> CancellationToken {
        self.stopping.clone()
    }

    /// What is granted to those who ask for `ttl`.
    pub(crate) fn at_least(&self, ttl: i64) -> i64 {
        ttl.max(self.min_ttl)
    }

    /// Renews a lease: its TTL, or 0 when there is no such lease.
    pub(crate) async fn renew(&self, id: i64) -> Result<i64, Unanswered> {
        match self.find(Question { id, renew: true }).await? {
            Found::Alive { ttl, .. } => Ok(ttl),
            Found::Expired | Found::Missing | Found::Elsewhere => Ok(0),
        }
    }

    /// How long a lease lives and what it was granted, when it exists.
    pub(crate) async fn look(&self, id: i64) -> Result<Option<(i64, i64)>, Unanswered> {
        match self.find(Question { id, renew: false }).await? {
            Found::Alive { ttl, granted } => Ok(Some((ttl, granted))),
            Found::Expired | Found::Missing | Found::Elsewhere => Ok(None),
        }
    }

    async fn find(&self, question: Question) -> Result<Found, Unanswered> {
        // What most renewals need, without a timer.
        if let found @ Found::Alive { .. } = self.answer_at_once(question) {
            return Ok(found);
        }
        match tokio::time::timeout(self.patience, self.ask(question)).await {
            Ok(found) => found,
            Err(_) if self.consensus.seen_leadership().leader.is_none() => {
                Err(Unanswered::NoLeader)
            }
            Err(_) => Err(Unanswered::TimedOut),
        }
    }

    /// Asks whoever leads until there is an answer.
    async fn ask(&self, question: Question) -> Result<Found, Unanswered> {
        let mut leadership = self.consensus.leadership();
        loop {
            let now = *leadership.borrow_and_update();
            let found = match now.leader {
                None => Found::Elsewhere,
                Some(leader) if leader == self.consensus.id() => {
                    let answers = self.answer_here(&[question]).await;
                    answers.first().copied().unwrap_or(Found::Elsewhere)
                }
                Some(leader) => self
                    .forward
                    .ask(leader, question)
                    .await
                    .ok_or(Unanswered::Stopped)?,
            };
            match found {
                Found::Alive { .. } | Found::Missing => return Ok(found),
                // As etcd: who renews too late hears so when the lease has ended, or asks its new leader.
                Found::Expired => tokio::select! {
                    gone = self.gone(question.id) => return gone.map(|()| Found::Missing),
                    changed = leadership.changed() => changed.map_err(|_| Unanswered::Stopped)?,
                },
                Found::Elsewhere => {
                    let _ = tokio::time::timeout(PAUSE, leadership.changed()).await;
                }
            }
        }
    }

    /// Waits until a lease has ended here.
    async fn gone(&self, id: i64) -> Result<(), Unanswered> {
        let mut ended = self.replica.leases.ended();
        while self.replica.store().lease(id)?.is_some() {
            ended.changed().await.map_err(|_| Unanswered::Stopped)?;
        }
        Ok(())
    }

    /// The leader's answer when it needs no check, else [`Found::Elsewhere`].
    fn answer_at_once(&self, question: Question) -> Found {
        let now = self.consensus.leader_now();
        if now.leader == Some(self.consensus.id())
            && self
                .consensus
                .quorum_acked_within(self.election_timeout / 2)
        {
            self.replica
                .leases
                .answer(now.term, question, Instant::now())
        } else {
            Found::Elsewhere
        }
    }

    /// The leader's answers, after a check where one is needed: a lease that is not found may just not be applied.
    async fn answer_here(&self, questions: &[Question]) -> Vec<Found> {
        let now = self.consensus.leader_now();
        let answer = |question: &Question| {
            self.replica
                .leases
                .answer(now.term, *question, Instant::now())
        };
        let elsewhere = || vec![Found::Elsewhere; questions.len()];
        if now.leader != Some(self.consensus.id()) {
            return elsewhere();
        }
        let mut answers = if self
            .consensus
            .quorum_acked_within(self.election_timeout / 2)
        {
            let answers: Vec<Found> = questions.iter().map(answer).collect();
            if !answers.contains(&Found::Missing) {
                return answers;
            }
            answers
        } else {
            vec![Found::Missing; questions.len()]
        };
        let checked = tokio::time::timeout(self.election_timeout, self.barrier.pass()).await;
        if !matches!(checked, Ok(Ok(()))) || self.consensus.leader_now() != now {
            return elsewhere();
        }
        for (found, question) in answers.iter_mut().zip(questions) {
            if *found == Found::Missing {
                *found = answer(question);
            }
        }
        answers
    }

    /// Answers what another member passes on.
    pub(crate) async fn answer(&self, request: peerpb::LeaseRequest) -> peerpb::LeaseResponse {
        let questions: Vec<Question> = request.questions.iter().map(forward::question_in).collect();
        let answers = self.answer_here(&questions).await;
        peerpb::LeaseResponse {
            answers: answers.into_iter().map(forward::found_out).collect(),
        }
    }

    /// Keeps the deadlines and ends leases for as long as this member leads. Returns when consensus ends.
    pub(crate) async fn run(&self, writer: &Writer<E>) {
        let mut leadership = self.consensus.leadership();
        loop {
            let now = *leadership.borrow_and_update();
            if now.leader == Some(self.consensus.id()) {
                let deposed = leadership.wait_for(|seen| *seen != now);
                tokio::select! {
                    () = self.reign(now.term, writer) => {}
                    deposed = deposed => if deposed.is_err() { return },
                }
                self.replica.leases.follow();
            } else if leadership.changed().await.is_err() {
                return;
            }
        }
    }

    /// One term as the leader. Never returns.
    async fn reign(&self, term: u64, writer: &Writer<E>) {
        let feed = &self.replica.leases;
        feed.lead(term);
        loop {
            // What earlier leaders committed may not be applied yet, and with it the end of a remainder.
            if self.barrier.pass().await.is_err() {
                tokio::time::sleep(TICK).await;
                continue;
            }
            let store = self.replica.store();
            match tokio::task::spawn_blocking(move || store.leases()).await {
                Ok(Ok(found)) => {
                    feed.load(term, &found, self.election_timeout, Instant::now());
                    break;
                }
                Ok(Err(error)) => tracing::error!(%error, "cannot read the leases"),
                Err(error) => tracing::error!(%error, "cannot read the leases"),
            }
            tokio::time::sleep(TICK).await;
        }
        let mut waiting = VecDeque::new();
        let mut revoking = FuturesUnordered::new();
        let mut recording = FuturesUnordered::new();
        let mut earliest = Instant::now();
        loop {
            while revoking.len() < REVOKING
                && let Some(id) = waiting.pop_front()
            {
                revoking.push(self.revoke(term, id, writer));
            }
            if recording.is_empty() {
                let remainders = feed.remainders(PER_CHECKPOINT);
                if !remainders.is_empty() {
                    recording.push(self.record(term, remainders, writer));
                }
            }
            let next = feed
                .next()
                .filter(|_| waiting.is_empty())
                .map(|next| next.max(earliest));
            tokio::select! {
                Some(()) = revoking.next() => {}
                Some(()) = recording.next() => {}
                () = until(next) => {
                    let now = Instant::now();
                    earliest = now + TICK;
                    waiting.extend(feed.due(now, PER_TICK));
                }
                () = feed.sooner() => {}
            }
        }
    }

    async fn record(&self, term: u64, leases: Vec<LeaseRemainder>, writer: &Writer<E>) {
        let checkpoint = LeaseCheckpoint { leases };
        let written = writer.write_in(term, Op::LeaseCheckpoint(checkpoint.clone()));
        if let Err(error) = written.await {
            tracing::warn!(leases = checkpoint.leases.len(), %error, "failed to checkpoint leases");
            self.replica.leases.unrecorded(&checkpoint.leases);
        }
    }

    async fn revoke(&self, term: u64, id: i64, writer: &Writer<E>) {
        let revoke = Op::LeaseRevoke(LeaseRevoke { id });
        match writer.write_in(term, revoke).await {
            Ok(_) => {
                self.replica.leases.counters.expired();
                tracing::debug!(lease = %format_args!("{id:016x}"), "revoked expired lease");
            }
            Err(WriteError::State(member_state::Error::LeaseNotFound)) => {}
            Err(error) => {
                tracing::warn!(lease = %format_args!("{id:016x}"), %error, "failed to revoke lease");
            }
        }
    }
}

/// etcd: one and a half election timeouts, in whole seconds, so that a lease can outlive an election.
fn min_ttl(election_timeout: Duration) -> i64 {
    let millis = (election_timeout * 3 / 2).as_millis();
    i64::try_from(millis.div_ceil(1000)).unwrap_or(i64::MAX)
}

/// Waits until a moment, or for ever.
async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_ttl_is_one_and_a_half_elections_in_whole_seconds() {
        for (millis, seconds) in [(1000, 2), (500, 1), (2000, 3), (50_000, 75), (100, 1)] {
            assert_eq!(min_ttl(Duration::from_millis(millis)), seconds);
        }
    }
}
