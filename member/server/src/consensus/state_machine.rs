//! Applies committed entries to the store, many in one batch, and answers those who wait here.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use futures_util::{Stream, StreamExt};
use member_log::{Entry, LogId, Peer, TypeConfig};
use member_state::{Backend, Command, LogPosition, Op, Response};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::type_config::alias::{SnapshotMetaOf, SnapshotOf, StoredMembershipOf};
use openraft::{EntryPayload, RaftSnapshotBuilder, StoredMembership};
use tokio::sync::{mpsc, oneshot};

use super::snapshot::Checkpoint;
use super::wire;
use crate::engine::Engine;
use crate::leases::LeaseChange;
use crate::metrics::ApplyTimer;
use crate::proposals::{Outcome, Proposals};
use crate::removal::{self, Removals};
use crate::replica::Replica;

type C = TypeConfig;
type Answer = Result<Response, member_state::Error>;

/// Key of the membership in the store's own table.
pub(super) const MEMBERSHIP: &str = "membership";

/// Entries in one batch. Bounds the memory of a batch and how long its readers wait.
const BATCH: usize = 1024;
const BATCH_BYTES: usize = 4 << 20;

/// Bytes of entries after which the state is made durable even before the entries reach `--snapshot-count`.
const FLUSH_BYTES: u64 = 64 << 20;

/// A member that was removed, and where it was reached.
pub(super) type Departed = (u64, Vec<String>);

/// Applies committed entries.
pub(super) struct StateMachine<E: Engine> {
    replica: Arc<Replica<E>>,
    proposals: Arc<Proposals>,
    term: u64,
    checkpoints: Arc<AtomicU64>,
    /// Rung when enough was applied since the last durable point.
    flush_due: Arc<tokio::sync::Notify>,
    entries_to_flush: u64,
    unflushed: Unflushed,
    /// The members as of the last applied change.
    membership: StoredMembershipOf<C>,
    removed: BTreeSet<u64>,
    removals: Arc<Removals>,
    departing: mpsc::UnboundedSender<Departed>,
}

#[derive(Clone, Copy, Default)]
struct Unflushed {
    entries: u64,
    bytes: u64,
}

/// An entry, with its command if it has one.
type Decoded = (Entry, Option<Command>);

/// Entries that are applied together.
#[derive(Default)]
struct Run {
    entries: Vec<Decoded>,
    bytes: usize,
    may_be_long: bool,
}

impl Run {
    fn push(&mut self, entry: Entry) -> io::Result<()> {
        let mut command = None;
        if let EntryPayload::Normal(payload) = &entry.payload {
            self.bytes += payload.0.len();
            let decoded = Command::decode(payload.0.clone()).map_err(io::Error::other)?;
            self.may_be_long |= decoded.op.as_ref().is_some_and(Op::may_be_long);
            command = Some(decoded);
        }
        self.entries.push((entry, command));
        Ok(())
    }
}

impl<E: Engine> StateMachine<E> {
    pub(super) fn new(
        replica: Arc<Replica<E>>,
        proposals: Arc<Proposals>,
        flush_due: Arc<tokio::sync::Notify>,
        snapshot_count: u64,
        removals: Arc<Removals>,
        departing: mpsc::UnboundedSender<Departed>,
    ) -> io::Result<Self> {
        let store = replica.store();
        let term = store.applied().map_or(0, |position| position.term);
        let membership = membership_of(&store)?;
        let removed = Removals::stored(&store)?;
        drop(store);
        Ok(Self {
            membership,
            removed,
            removals,
            departing,
            replica,
            proposals,
            term,
            checkpoints: Arc::default(),
            flush_due,
            entries_to_flush: snapshot_count,
            unflushed: Unflushed::default(),
        })
    }

    /// Those that a change leaves out; they are in the set of the removed from now on.
    fn depart(&mut self, next: &StoredMembershipOf<C>) -> Vec<Departed> {
        let stays = |id: &u64| next.membership().get_node(id).is_some();
        let gone: Vec<Departed> = self
            .membership
            .nodes()
            .filter(|(id, _)| !stays(id))
            .map(|(id, peer)| (*id, peer.peer_urls.clone()))
            .collect();
        self.removed.extend(gone.iter().map(|(id, _)| *id));
        self.membership = next.clone();
        gone
    }

    /// Applies a run of entries where nobody has to wait for it: heartbeats must not wait for a command that deletes a
    /// million keys, or the cluster elects one leader after the other meanwhile.
    async fn apply_run(&mut self, run: Run) -> io::Result<()> {
        if !run.may_be_long {
            return self.apply_batch(run.entries);
        }
        let mut lent = self.lend();
        *self = blocking(move || lent.apply_batch(run.entries).map(|()| lent)).await?;
        Ok(())
    }

    /// The machine for another thread, to be taken back from there.
    fn lend(&self) -> Self {
        Self {
            replica: Arc::clone(&self.replica),
            proposals: Arc::clone(&self.proposals),
            term: self.term,
            checkpoints: Arc::clone(&self.checkpoints),
            flush_due: Arc::clone(&self.flush_due),
            entries_to_flush: self.entries_to_flush,
            unflushed: self.unflushed,
            membership: self.membership.clone(),
            removed: self.removed.clone(),
            removals: Arc::clone(&self.removals),
            departing: self.departing.clone(),
        }
    }

    /// Applies a run of entries as one batch and answers their waiters.
    fn apply_batch(&mut self, entries: Vec<Decoded>) -> io::Result<()> {
        let Some(last) = entries.last().map(|(entry, _)| entry.log_id.index) else {
            return Ok(());
        };
        let mut answers: VecDeque<(oneshot::Sender<Outcome>, Answer)> =
            VecDeque::with_capacity(entries.len());
        let mut compacted = false;
        let mut v2 = false;
        let mut leases = Vec::new();
        let mut departed = Vec::new();
        let mut grown = false;
        let began = Instant::now();
        let store = self.replica.store();
        let mut applier = store.begin();
        let before = applier.revision();
        if self.replica.feed.wanted() {
            applier.collect_events();
        }
        let metrics = Arc::clone(&self.replica.metrics);
        let mut timer = ApplyTimer::new(&metrics.applies, began);
        let count = entries.len() as u64;
        self.unflushed.entries += count;
        for (entry, command) in entries {
            let position = position(&entry.log_id);
            if position.term > self.term {
                self.term = position.term;
                self.proposals.term_applied(position.term);
            }
            if let EntryPayload::Normal(payload) = &entry.payload {
                self.unflushed.bytes += payload.0.len() as u64;
            }
            match (entry.payload, command) {
                (EntryPayload::Membership(membership), _) => {
                    let stored =
                        StoredMembership::<_, _, Peer>::new(Some(entry.log_id), membership);
                    applier.put_meta(MEMBERSHIP, serde_json::to_vec(&stored)?.into());
                    let gone = self.depart(&stored);
                    if !gone.is_empty() {
                        gone.iter().for_each(|(id, _)| applier.forget_member(*id));
                        applier.put_meta(removal::KEY, serde_json::to_vec(&self.removed)?.into());
                        departed.extend(gone);
                    }
                    fatal(applier.apply(position, None, false))?;
                }
                (_, None) => fatal(applier.apply(position, None, false))?,
                (_, Some(command)) => {
                    let waiter = self.proposals.take(command.id);
                    timer.next(command.op.as_ref());
                    let answer = applier.apply(position, Some(&command), waiter.is_some());
                    timer.applied(answer.is_ok());
                    if let Err(error) = &answer
                        && error.is_fatal()
                    {
                        return Err(io::Error::other(error.clone()));
                    }
                    if answer.is_ok() {
                        LeaseChange::note(command.op.as_ref(), &mut leases);
                    }
                    if let (Ok(_), Some(op)) = (&answer, &command.op) {
                        grown |= op.cost() > 0;
                        metrics.applied(op);
                        if let Op::Auth(op) = op {
                            self.replica.tokens.observe(op, position.index);
                        }
                    }
                    v2 |= matches!(command.op, Some(Op::V2(_)));
                    compacted |= answer.is_ok() && matches!(command.op, Some(Op::Compact(_)));
                    if let Some(waiter) = waiter {
                        answers.push_back((waiter, answer));
                    }
                }
            }
        }
        let (after, events) = (applier.revision(), applier.take_events());
        let committing = Instant::now();
        timer.end(committing);
        applier.commit().map_err(io::Error::other)?;
        self.replica.leases.applied(&leases);
        self.replica.feed.publish(before, after, events);
        if v2 {
            self.replica.v2_changed.send_replace(());
        }
        // Before the entry counts as applied: who waits for that sees the removal.
        if !departed.is_empty() {
            self.removals.set(self.removed.clone());
        }
        metrics.applied_batch(began, committing, count, last);
        self.replica.publish(last + 1);
        for (id, urls) in departed {
            tracing::info!("removed-remote-peer-id" = %format_args!("{id:x}"), "removed member");
            // Nobody is told once consensus has ended.
            let _ = self.departing.send((id, urls));
        }
        for (waiter, answer) in answers {
            // A client that went away in the meantime is no error.
            let _ = waiter.send(Outcome::Applied(answer));
        }
        if compacted {
            self.replica.compaction.notify_one();
        }
        if grown && !self.replica.has_room(0) && !store.is_out_of_space() {
            self.replica.over_quota.notify_one();
        }
        if self.unflushed.entries >= self.entries_to_flush || self.unflushed.bytes >= FLUSH_BYTES {
            self.unflushed = Unflushed::default();
            self.flush_due.notify_one();
        }
        Ok(())
    }
}

/// A blank entry cannot fail but for a broken store.
fn fatal(answer: Answer) -> io::Result<()> {
    answer.map(drop).map_err(io::Error::other)
}

pub(super) fn position(id: &LogId) -> LogPosition {
    let term = wire::log_id_out(id).term;
    LogPosition {
        term,
        node: 0,
        index: id.index,
    }
}

fn log_id(position: LogPosition) -> LogId {
    wire::log_id_in(member_proto::peerpb::LogId {
        term: position.term,
        index: position.index,
    })
}

fn meta_of<B: Backend>(store: &member_state::Store<B>) -> io::Result<SnapshotMetaOf<C>> {
    Ok(SnapshotMetaOf::<C> {
        last_log_id: store.applied().map(log_id),
        last_membership: membership_of(store)?,
    })
}

fn membership_of<B: Backend>(store: &member_state::Store<B>) -> io::Result<StoredMembershipOf<C>> {
    match store.get_meta(MEMBERSHIP).map_err(io::Error::other)? {
        Some(json) => Ok(serde_json::from_slice(&json)?),
        None => Ok(StoredMembership::default()),
    }
}

/// The peer URLs of a member as of the last applied change.
pub(crate) fn membership_urls<B: Backend>(
    store: &member_state::Store<B>,
    id: u64,
) -> io::Result<Option<Vec<String>>> {
    let stored = membership_of(store)?;
    Ok(stored
        .membership()
        .get_node(&id)
        .map(|peer| peer.peer_urls.clone()))
}

/// The members as of the last applied change, with their peer URLs.
pub(crate) fn stored_members<B: Backend>(
    store: &member_state::Store<B>,
) -> io::Result<Vec<(u64, Vec<String>)>> {
    let stored = membership_of(store)?;
    Ok(stored
        .nodes()
        .map(|(id, peer)| (*id, peer.peer_urls.clone()))
        .collect())
}

impl<E: Engine> RaftStateMachine<C> for StateMachine<E> {
    type SnapshotData = Checkpoint;
    type SnapshotBuilder = Builder<E>;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembershipOf<C>), io::Error> {
        let meta = meta_of(&self.replica.store())?;
        Ok((meta.last_log_id, meta.last_membership))
    }

    async fn apply<S>(&mut self, entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<C>, io::Error>> + Unpin + Send,
    {
        let mut batches = entries.ready_chunks(BATCH);
        while let Some(batch) = batches.next().await {
            let mut run = Run::default();
            let mut responders = Vec::new();
            for item in batch {
                let (entry, responder) = item?;
                run.push(entry)?;
                responders.extend(responder);
                if run.bytes > BATCH_BYTES {
                    self.apply_run(std::mem::take(&mut run)).await?;
                }
            }
            self.apply_run(run).await?;
            for responder in responders {
                responder.send(());
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder<E> {
        Builder {
            replica: Arc::clone(&self.replica),
            checkpoints: Arc::clone(&self.checkpoints),
        }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMetaOf<C>,
        snapshot: Checkpoint,
    ) -> Result<(), io::Error> {
        let metrics = Arc::clone(&self.replica.metrics);
        let _installing = metrics.installing_snapshot.during();
        let replica = Arc::clone(&self.replica);
        blocking(move || {
            let backend = replica.engine().replace(snapshot.dir()?)?;
            replica.replace(backend)
        })
        .await?;
        let installed = meta_of(&self.replica.store())?;
        self.membership = installed.last_membership.clone();
        self.removed = Removals::stored(&self.replica.store())?;
        self.removals.set(self.removed.clone());
        if installed.last_log_id != meta.last_log_id {
            return Err(io::Error::other(
                "the snapshot's content does not reach the entry it claims",
            ));
        }
        if let Some(id) = &meta.last_log_id {
            let term = wire::log_id_out(id).term;
            self.term = self.term.max(term);
            self.proposals.snapshot_installed(term);
        }
        // The state that came may hold a compaction that was not finished.
        self.replica.compaction.notify_one();
        Ok(())
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<SnapshotOf<C, Checkpoint>>, io::Error> {
        if self.replica.store().applied().is_none() {
            return Ok(None);
        }
        // Nothing is applied while this runs: both are called by one worker.
        self.get_snapshot_builder()
            .await
            .checkpoint()
            .await
            .map(Some)
    }
}

/// Makes the state durable, and copies of it.
pub(super) struct Builder<E: Engine> {
    replica: Arc<Replica<E>>,
    checkpoints: Arc<AtomicU64>,
}

impl<E: Engine> Builder<E> {
    async fn checkpoint(&self) -> io::Result<SnapshotOf<C, Checkpoint>> {
        let number = self.checkpoints.fetch_add(1, Ordering::Relaxed);
        let replica = Arc::clone(&self.replica);
        blocking(move || {
            let store = replica.store();
            let meta = meta_of(&store)?;
            let dir = replica.engine().scratch().join(format!("out-{number}"));
            replica.engine().checkpoint(store.backend(), &dir)?;
            Ok(SnapshotOf::<C, Checkpoint> {
                meta,
                snapshot: Checkpoint::own(dir),
            })
        })
        .await
    }
}

impl<E: Engine> RaftSnapshotBuilder<C> for Builder<E> {
    type SnapshotData = Checkpoint;

    /// A durable point: openraft purges the log up to what it returns. The copy itself is made when a follower
    /// needs one.
    async fn build_snapshot(&mut self) -> Result<SnapshotOf<C, Checkpoint>, io::Error> {
        let replica = Arc::clone(&self.replica);
        blocking(move || {
            let store = replica.store();
            // Taken before the flush, so that what it names is certainly durable after it.
            let meta = meta_of(&store)?;
            replica.engine().flush(store.backend())?;
            Ok(SnapshotOf::<C, Checkpoint> {
                meta,
                snapshot: Checkpoint::none(),
            })
        })
        .await
    }
}

/// Runs a call that waits for the disk where it does not hold up the reactor.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)?
}
