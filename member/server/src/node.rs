//! What the services of both ports see of the member.

use std::sync::Arc;
use std::time::{Duration, Instant};

use member_log::Log;
use member_proto::etcdserverpb as pb;
use member_state::{
    Alarm, AlarmAction, AlarmMember, AlarmType, Caller, CompactProgress, Op, Response, Store,
};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;
use tonic::Status;

use crate::auth::Callers;
use crate::barrier::Barrier;
use crate::connected::Connected;
use crate::consensus::{Consensus, Leadership, Progress};
use crate::engine::Engine;
use crate::leases::Leases;
use crate::metrics::Metrics;
use crate::proposals::Proposals;
use crate::removal::Removals;
use crate::replica::Replica;
use crate::watch::WatchHub;
use crate::write::{WriteError, Writer};

/// The etcd release whose API and behaviour the member offers; clients detect features by it.
pub const SERVER_VERSION: &str = "3.6.14";

/// The version on which all members agree, as etcd prints it.
pub(crate) const CLUSTER_VERSION: &str = "3.6.0";

/// The version of etcd's storage whose features the state has.
pub(crate) const STORAGE_VERSION: &str = "3.6.0";

/// How long after a failed step a compaction is tried again.
const COMPACTION_RETRY: Duration = Duration::from_secs(10);

/// The assembled member.
pub(crate) struct Node<E: Engine> {
    pub(crate) id: u64,
    pub(crate) cluster_id: u64,
    pub(crate) consensus: Arc<Consensus<E>>,
    pub(crate) log: Log,
    pub(crate) replica: Arc<Replica<E>>,
    pub(crate) proposals: Arc<Proposals>,
    pub(crate) writer: Writer<E>,
    pub(crate) barrier: Barrier,
    pub(crate) leases: Arc<Leases<E>>,
    pub(crate) callers: Callers,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) watches: Arc<WatchHub<E>>,
    /// Time between two progress notices of a watch.
    pub(crate) progress_notify_interval: Duration,
    /// Size above which a watch that allows it gets its events in fragments.
    pub(crate) fragment_bytes: usize,
    pub(crate) max_txn_ops: usize,
    pub(crate) patience: Duration,
    pub(crate) election_timeout: Duration,
    /// Since when the other members answer.
    pub(crate) connected: Connected,
    pub(crate) removals: Arc<Removals>,
    /// `--strict-reconfig-check`
    pub(crate) strict_reconfig: bool,
    /// What is done for clients that have gone; ends with their connections.
    pub(crate) errands: TaskTracker,
    /// The revision up to which compacted versions are removed.
    pub(crate) compacted: watch::Sender<i64>,
    pub(crate) compaction_pace: CompactionPace,
    /// The time above which a request is logged as slow.
    pub(crate) slow_request: Duration,
}

/// How fast compacted versions are removed; readers and writers get in between two steps.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CompactionPace {
    /// Revisions that one step visits.
    pub(crate) step: usize,
    pub(crate) pause: Duration,
}

/// Why the leadership was not handed over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MoveLeaderError {
    #[error("etcdserver: not leader")]
    NotLeader,
    #[error("etcdserver: bad leader transferee")]
    BadTarget,
    #[error("etcdserver: request timed out")]
    TimedOut,
    #[error("etcdserver: server stopped")]
    Stopped,
}

impl<E: Engine> Node<E> {
    /// The header of an answer that shows the state at `revision`.
    pub(crate) fn header(&self, revision: i64) -> pb::ResponseHeader {
        pb::ResponseHeader {
            cluster_id: self.cluster_id,
            member_id: self.id,
            revision,
            raft_term: self.consensus.leader_now().term,
        }
    }

    pub(crate) fn store(&self) -> Arc<Store<E::Backend>> {
        self.replica.store()
    }

    /// Writes what the member itself has to say, in nobody's name.
    pub(crate) async fn write(&self, op: Op) -> Result<Response, WriteError> {
        self.write_by(op, Caller::default()).await
    }

    /// Writes in the name of a caller, if this member's storage has room for it.
    pub(crate) async fn write_by(&self, op: Op, caller: Caller) -> Result<Response, WriteError> {
        let cost = op.cost();
        if cost > 0 && !self.replica.has_room(cost) {
            self.raise_out_of_space().await?;
            return Err(WriteError::State(member_state::Error::NoSpace));
        }
        self.writer.write(op, caller).await
    }

    /// A positive id that no lease of the cluster had before.
    pub(crate) fn new_lease_id(&self) -> i64 {
        (self.proposals.next_id() & i64::MAX.cast_unsigned()).cast_signed()
    }

    /// Raises this member's alarm that its state has outgrown its quota, unless it is on.
    async fn raise_out_of_space(&self) -> Result<(), WriteError> {
        let own = AlarmMember {
            member_id: self.id,
            alarm: AlarmType::Nospace,
        };
        if self.store().alarms()?.contains(&own) {
            return Ok(());
        }
        tracing::warn!("message exceeded backend quota; raising alarm");
        self.change_alarm(AlarmAction::Activate, own.member_id, own.alarm)
            .await
            .map(drop)
    }

    /// Raises or clears alarms on every member; which ones.
    pub(crate) async fn change_alarm(
        &self,
        action: AlarmAction,
        member_id: u64,
        alarm: AlarmType,
    ) -> Result<Vec<AlarmMember>, WriteError> {
        let change = Alarm {
            action: action.into(),
            member_id,
            alarm: alarm.into(),
        };
        match self
            .writer
            .write(Op::Alarm(change), Caller::default())
            .await?
        {
            Response::Alarm(alarms) => {
                for on in &alarms {
                    let raised = action == AlarmAction::Activate;
                    tracing::warn!(
                        alarm = %alarm_name(on.alarm),
                        from = %format_args!("{:x}", on.member_id),
                        "{}", if raised { "alarm raised" } else { "alarm disarmed" }
                    );
                }
                Ok(alarms)
            }
            _ => Ok(Vec::new()),
        }
    }

    /// Raises the alarm when writes of other members' clients fill this one's storage. Never returns.
    pub(crate) async fn guard_quota(&self) {
        loop {
            self.replica.over_quota.notified().await;
            if let Err(error) = self.raise_out_of_space().await {
                tracing::warn!(%error, "failed to raise an alarm");
            }
        }
    }

    /// Gives back the space of what was compacted away; returns when it is done.
    pub(crate) async fn defragment(&self) -> Result<(), String> {
        let replica = Arc::clone(&self.replica);
        let before = self.store().size();
        tracing::info!("starting defragment");
        let began = Instant::now();
        let under_way = self.metrics.defragmenting();
        let work = tokio::task::spawn_blocking(move || {
            let store = replica.store();
            let done = replica.engine().defragment(store.backend());
            replica.quota.forget();
            done.map_err(|error| error.to_string())
        });
        let done = work.await.unwrap_or_else(|error| Err(error.to_string()));
        drop(under_way);
        self.metrics.defragmented(began.elapsed());
        match &done {
            Ok(()) => tracing::info!(
                "current-db-size-bytes-diff" =
                    i128::from(self.store().size()) - i128::from(before),
                "current-db-size-bytes" = self.store().size(),
                took = ?began.elapsed(),
                "finished defragment"
            ),
            Err(error) => tracing::error!(error, "failed to defragment"),
        }
        done
    }

    /// Returns when a read of the local state is linearizable.
    pub(crate) async fn linearize(&self) -> Result<(), Status> {
        match tokio::time::timeout(self.patience, self.barrier.pass()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Status::unavailable("etcdserver: server stopped")),
            Err(_) if self.seen_leadership().leader.is_none() => {
                Err(Status::unavailable("etcdserver: no leader"))
            }
            Err(_) => Err(Status::unavailable("etcdserver: request timed out")),
        }
    }

    pub(crate) fn max_txn_ops(&self) -> usize {
        self.max_txn_ops
    }

    pub(crate) fn leadership(&self) -> Leadership {
        self.consensus.leader_now()
    }

    /// Who leads, for those who watch the member: nobody, once nothing is heard from a leader or its quorum.
    pub(crate) fn seen_leadership(&self) -> Leadership {
        self.consensus.seen_leadership()
    }

    pub(crate) fn progress(&self) -> Progress {
        self.consensus.progress()
    }

    pub(crate) fn applied_index(&self) -> u64 {
        self.replica.applied_index()
    }

    pub(crate) fn is_learner(&self) -> bool {
        self.consensus.is_learner()
    }

    /// The members as etcd lists them: sorted by id, without name and client URLs until they have started.
    pub(crate) fn members(&self) -> Result<Vec<pb::Member>, member_state::Error> {
        let mut attributes = self.store().attributes()?;
        Ok(self
            .consensus
            .nodes()
            .into_iter()
            .map(|node| {
                let published = attributes.remove(&node.id).unwrap_or_default();
                pb::Member {
                    id: node.id,
                    name: published.name,
                    peer_ur_ls: node.peer_urls,
                    client_ur_ls: published.client_urls,
                    is_learner: node.learner,
                }
            })
            .collect())
    }

    /// Hands the leadership to `target`.
    pub(crate) async fn move_leader(&self, target: u64) -> Result<(), MoveLeaderError> {
        if self.leadership().leader != Some(self.id) {
            return Err(MoveLeaderError::NotLeader);
        }
        if target == self.id {
            return Ok(());
        }
        if !self
            .consensus
            .nodes()
            .iter()
            .any(|node| node.id == target && !node.learner)
        {
            return Err(MoveLeaderError::BadTarget);
        }
        match self
            .consensus
            .transfer_leader(target, self.election_timeout)
            .await
        {
            Ok(true) => Ok(()),
            Ok(false) => Err(MoveLeaderError::TimedOut),
            Err(_) => Err(MoveLeaderError::Stopped),
        }
    }

    /// Returns when everything that a compaction at `revision` made unreadable is removed.
    pub(crate) async fn wait_compacted(&self, revision: i64) {
        let mut compacted = self.compacted.subscribe();
        // The sender lives as long as self.
        let _ = compacted.wait_for(|done| *done >= revision).await;
    }

    /// Counts the keys of a store that opened with many, so that ranges need not. Never returns.
    pub(crate) async fn count_keys(&self) {
        loop {
            let store = self.store();
            if !store.is_counted() {
                let counted = tokio::task::spawn_blocking(move || store.count_keys()).await;
                match counted {
                    Ok(Ok(())) => tracing::info!("counted the keys"),
                    Ok(Err(error)) => {
                        tracing::error!(%error, "cannot count the keys; ranges with a limit are slow");
                    }
                    // The runtime is about to end.
                    Err(_) => {}
                }
            }
            self.replica.replaced.notified().await;
        }
    }

    /// Removes what compactions made unreadable; what an earlier run left is taken up first. Never returns.
    pub(crate) async fn compact(&self) {
        // Of the compaction that is under way.
        let mut first = None;
        let mut at_start = true;
        loop {
            let began = Instant::now();
            match self.store().compact_step(self.compaction_pace.step) {
                Ok(CompactProgress::More { removed }) => {
                    self.metrics.compacted(removed, began.elapsed());
                    first.get_or_insert(began);
                    tokio::time::sleep(self.compaction_pace.pause).await;
                }
                Ok(CompactProgress::Done { revision, removed }) => {
                    let known = *self.compacted.borrow();
                    // At the start there is mostly nothing to take up.
                    if first.is_some() || removed > 0 || (!at_start && revision > known) {
                        self.metrics.compacted(removed, began.elapsed());
                        self.metrics
                            .compaction_done(first.take().unwrap_or(began).elapsed());
                    }
                    if removed > 0 {
                        tracing::info!(revision, "finished scheduled compaction");
                    }
                    at_start = false;
                    self.compacted.send_replace(revision);
                    self.replica.compaction.notified().await;
                }
                Err(error) => {
                    tracing::error!(%error, "compaction failed; trying again");
                    let _ =
                        tokio::time::timeout(COMPACTION_RETRY, self.replica.compaction.notified())
                            .await;
                }
            }
        }
    }
}

/// etcd's name of an alarm.
pub(crate) fn alarm_name(alarm: AlarmType) -> &'static str {
    match alarm {
        AlarmType::None => "NONE",
        AlarmType::Nospace => "NOSPACE",
        AlarmType::Corrupt => "CORRUPT",
    }
}
