//! The one module that names openraft: proposing, reading by index, membership, and the peers' calls coming in.
//!
//! Everything else in the crate speaks of terms, indexes and member ids.

mod founding;
mod inbound;
mod membership;
mod network;
mod snapshot;
mod state_machine;
mod wire;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use member_log::{Log, Payload, Peer, Ticket, TypeConfig};
use openraft::async_runtime::{Instant as _, WatchReceiver};
use openraft::errors::{InitializeError, RaftError};
use openraft::{Config, Raft, ReadPolicy, ServerState, SnapshotPolicy};
use tokio::sync::{Mutex, Notify, mpsc, watch};

use crate::engine::Engine;
use crate::peer::links::Links;
use crate::proposals::Proposals;
use crate::removal::Removals;
use crate::replica::Replica;
pub use founding::Founding;
pub(crate) use membership::{Change, Refusal, force_new_cluster};
use state_machine::{Departed, StateMachine};
pub(crate) use state_machine::{membership_urls, stored_members};

/// How consensus is timed and when the log is cut; all from flags.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) heartbeat: Duration,
    pub(crate) election_timeout: Duration,
    pub(crate) pre_vote: bool,
    pub(crate) snapshot_count: u64,
    /// Entries kept behind a durable point for slow followers.
    pub(crate) catch_up_entries: u64,
    /// Whether a promotion needs a quorum of started members.
    pub(crate) strict_reconfig: bool,
    pub(crate) max_learners: u64,
}

/// Who leads, as far as this member knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Leadership {
    pub(crate) term: u64,
    pub(crate) leader: Option<u64>,
}

/// One member of the cluster's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) id: u64,
    pub(crate) peer_urls: Vec<String>,
    pub(crate) learner: bool,
}

/// Where this member's log stands.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    pub(crate) committed: u64,
}

/// A leadership check that failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadIndexError {
    #[error("this member does not lead")]
    NotLeader,
    #[error("a quorum did not confirm the leadership")]
    NoQuorum,
    #[error("consensus has stopped")]
    Stopped,
}

/// Consensus has ended; the member must stop.
#[derive(Debug, thiserror::Error)]
#[error("consensus has stopped: {0}")]
pub(crate) struct Stopped(String);

/// Hears the ids of proposals that were refused before they were appended.
type Refused = Arc<dyn Fn(u64) + Send + Sync>;

/// This member's part in the cluster's agreement.
pub(crate) struct Consensus<E: Engine> {
    id: u64,
    raft: Raft<TypeConfig, StateMachine<E>>,
    replica: Arc<Replica<E>>,
    proposals: Arc<Proposals>,
    refused: Refused,
    links: Arc<Links>,
    leadership: watch::Sender<Leadership>,
    leader_changes: AtomicU64,
    flush_due: Arc<Notify>,
    incoming: AtomicU64,
    election_timeout: Duration,
    started: Instant,
    /// Milliseconds after `started` at which a leader was last heard.
    heard: Arc<AtomicU64>,
    removals: Arc<Removals>,
    /// Members that were removed, to be told so.
    departed: Mutex<mpsc::UnboundedReceiver<Departed>>,
    /// Held by the change of the members that is under way: they have one order.
    changing: Mutex<()>,
    /// Whether this member is a learner, for the requests that ask each time.
    learner: AtomicBool,
    strict_reconfig: bool,
    max_learners: u64,
}

impl<E: Engine> Consensus<E> {
    /// Starts from what the log and the state hold.
    pub(crate) async fn start(
        id: u64,
        settings: &Settings,
        log: Log,
        replica: Arc<Replica<E>>,
        proposals: Arc<Proposals>,
        links: Arc<Links>,
        removals: Arc<Removals>,
    ) -> Result<Self, Stopped> {
        let (departing, departed) = mpsc::unbounded_channel();
        let config = Arc::new(config(settings)?);
        let flush_due = Arc::new(Notify::new());
        let machine = StateMachine::new(
            Arc::clone(&replica),
            Arc::clone(&proposals),
            Arc::clone(&flush_due),
            settings.snapshot_count,
            Arc::clone(&removals),
            departing,
        )
        .map_err(|e| Stopped(e.to_string()))?;
        let network =
            network::Network::new(Arc::clone(&links), Arc::clone(&replica.metrics), settings);
        let raft = Raft::new(id, config, network, log, machine)
            .await
            .map_err(|e| Stopped(e.to_string()))?;
        let local = Arc::clone(&proposals);
        Ok(Self {
            id,
            raft,
            replica,
            proposals,
            refused: Arc::new(move |id| local.refused([id])),
            links,
            leadership: watch::Sender::default(),
            leader_changes: AtomicU64::new(0),
            flush_due,
            incoming: AtomicU64::new(0),
            election_timeout: settings.election_timeout,
            started: Instant::now(),
            heard: Arc::default(),
            removals,
            departed: Mutex::new(departed),
            changing: Mutex::default(),
            learner: AtomicBool::new(false),
            strict_reconfig: settings.strict_reconfig,
            max_learners: settings.max_learners,
        })
    }

    /// This member's id.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Whether this member has a configuration, its own or a leader's.
    pub(crate) async fn is_initialized(&self) -> Result<bool, Stopped> {
        self.raft
            .is_initialized()
            .await
            .map_err(|e| Stopped(e.to_string()))
    }

    /// Founds the cluster and stands for election. Several founders with equal members agree on one leader.
    pub(crate) async fn found(&self, members: BTreeMap<u64, Vec<String>>) -> Result<(), Stopped> {
        let nodes: BTreeMap<u64, Peer> = members
            .into_iter()
            .map(|(id, peer_urls)| (id, Peer { peer_urls }))
            .collect();
        match self.raft.initialize(nodes).await {
            // Another founder was faster, and its entries are here already.
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(error) => Err(Stopped(error.to_string())),
        }
    }

    /// Keeps [`Consensus::leadership`] current and makes the state durable when due; ends when consensus does.
    pub(crate) async fn run(&self) -> Stopped {
        let mut metrics = self.raft.server_metrics();
        let mut departed = self.departed.lock().await;
        let mut followed = None;
        loop {
            let (state, leader, vote, members) = {
                let now = metrics.borrow_and_update();
                let members = Arc::clone(&now.membership_config);
                (now.state, now.current_leader, now.vote, members)
            };
            if followed != Some(*members.log_id()) {
                followed = Some(*members.log_id());
                let nodes = self.nodes();
                let learner = nodes.iter().any(|node| node.id == self.id && node.learner);
                self.learner.store(learner, Ordering::Relaxed);
                self.links.follow(&nodes, self.id);
            }
            // A leader that was deposed without a successor still names itself until it hears of one.
            let leader = leader.filter(|leader| *leader != self.id || state == ServerState::Leader);
            let now = Leadership {
                term: vote.leader_id.term,
                leader,
            };
            self.leadership.send_if_modified(|known| {
                if now.leader.is_some() && now.leader != known.leader {
                    self.leader_changes.fetch_add(1, Ordering::Relaxed);
                    tracing::info!(term = now.term, leader = %format_args!("{:x}", now.leader.unwrap_or(0)), "elected leader");
                }
                std::mem::replace(known, now) != now
            });
            tokio::select! {
                changed = metrics.changed() => if changed.is_err() { break },
                Some((id, peer_urls)) = departed.recv() => if id != self.id {
                    self.tell_removed(id, &peer_urls);
                },
                () = self.flush_due.notified() => if self.raft.trigger().snapshot().await.is_err() { break },
            }
        }
        let reason = self.raft.metrics().borrow_watched().running_state.clone();
        Stopped(reason.map_or_else(|e| e.to_string(), |()| "shut down".to_owned()))
    }

    /// Who leads, now and in future.
    pub(crate) fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.subscribe()
    }

    /// Who leads now.
    pub(crate) fn leader_now(&self) -> Leadership {
        *self.leadership.borrow()
    }

    /// Who leads, for those who watch this member. As etcd, which steps down then, a leader whose quorum is silent for
    /// two election timeouts is none, nor is one that its follower has not heard for as long.
    pub(crate) fn seen_leadership(&self) -> Leadership {
        let now = self.leader_now();
        let long = 2 * self.election_timeout;
        let seen = now.leader.is_some_and(|leader| {
            if leader == self.id {
                self.quorum_acked_within(long)
            } else {
                let heard = Duration::from_millis(self.heard.load(Ordering::Relaxed));
                self.started.elapsed().saturating_sub(heard) < long
            }
        });
        Leadership {
            leader: now.leader.filter(|_| seen),
            ..now
        }
    }

    /// Whether this leader's quorum answered so lately, or it needs no one else's answer. Within an election
    /// timeout no other member can have been elected but by its own doing.
    pub(crate) fn quorum_acked_within(&self, time: Duration) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics
            .last_quorum_acked
            .as_ref()
            .is_some_and(|at| at.elapsed() < time)
            || metrics.membership_config.voter_ids().count() == 1
    }

    pub(crate) fn leader_changes(&self) -> u64 {
        self.leader_changes.load(Ordering::Relaxed)
    }

    /// Proposes an encoded command of this member's client in `term`, where this member leads, or not at all.
    pub(crate) async fn propose(&self, term: u64, id: u64, command: Bytes) -> Result<(), Stopped> {
        self.propose_for(term, id, command, Arc::clone(&self.refused))
            .await
    }

    /// Proposes an encoded command in `term` or not at all; `refused` hears of the latter.
    async fn propose_for(
        &self,
        term: u64,
        id: u64,
        command: Bytes,
        refused: Refused,
    ) -> Result<(), Stopped> {
        let ticket = Ticket::new(id, refused);
        let write = self
            .raft
            .write(Payload(command))
            .with_leader(term)
            .responder(ticket);
        write.await.map_err(|e| Stopped(e.to_string()))
    }

    /// Passes an encoded command on to the leader of `term`.
    pub(crate) async fn forward(&self, leader: u64, term: u64, id: u64, command: Bytes) {
        match self.peer_urls(leader) {
            Some(urls) => {
                self.links
                    .to(leader, &urls)
                    .forward(id, term, command)
                    .await
            }
            None => self.proposals.refused([id]),
        }
    }

    /// The index that a linearizable read must see applied; confirmed by a quorum. Leader only.
    pub(crate) async fn read_index(&self) -> Result<u64, ReadIndexError> {
        use openraft::errors::LinearizableReadError;
        match self.raft.get_read_linearizer(ReadPolicy::ReadIndex).await {
            Ok(linearizer) => Ok(linearizer.read_log_id().index()),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(_))) => {
                Err(ReadIndexError::NotLeader)
            }
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => {
                Err(ReadIndexError::NoQuorum)
            }
            Err(RaftError::Fatal(_)) => Err(ReadIndexError::Stopped),
        }
    }

    /// The leader's read index, asked over the wire.
    pub(crate) async fn remote_read_index(
        &self,
        leader: u64,
        patience: Duration,
    ) -> Result<u64, ReadIndexError> {
        use member_proto::peerpb::control_request::Call;
        use member_proto::peerpb::control_response::Answer;
        let urls = self.peer_urls(leader).ok_or(ReadIndexError::NotLeader)?;
        let link = self.links.to(leader, &urls);
        match link
            .call(
                Call::ReadIndex(member_proto::peerpb::ReadIndexRequest {}),
                patience,
            )
            .await
        {
            Ok(Answer::ReadIndex(response)) => response
                .index
                .map(|id| id.index)
                .ok_or(ReadIndexError::NotLeader),
            Ok(_) | Err(_) => Err(ReadIndexError::NoQuorum),
        }
    }

    /// Makes one small call to another member; `None` when there is no answer.
    pub(crate) async fn call(
        &self,
        member: u64,
        call: member_proto::peerpb::control_request::Call,
        patience: Duration,
    ) -> Option<member_proto::peerpb::control_response::Answer> {
        let urls = self.peer_urls(member)?;
        self.links.to(member, &urls).call(call, patience).await.ok()
    }

    /// The members of the current configuration, sorted by id.
    pub(crate) fn nodes(&self) -> Vec<Node> {
        let metrics = self.raft.server_metrics();
        let membership = Arc::clone(&metrics.borrow_watched().membership_config);
        let voters: std::collections::BTreeSet<u64> = membership.voter_ids().collect();
        membership
            .nodes()
            .map(|(id, node)| Node {
                id: *id,
                peer_urls: node.peer_urls.clone(),
                learner: !voters.contains(id),
            })
            .collect()
    }

    /// Whether this member is a learner.
    pub(crate) fn is_learner(&self) -> bool {
        self.learner.load(Ordering::Relaxed)
    }

    fn peer_urls(&self, id: u64) -> Option<Vec<String>> {
        let metrics = self.raft.server_metrics();
        let membership = Arc::clone(&metrics.borrow_watched().membership_config);
        membership
            .nodes()
            .find(|(node, _)| **node == id)
            .map(|(_, node)| node.peer_urls.clone())
    }

    /// Where this member's log stands.
    pub(crate) fn progress(&self) -> Progress {
        let metrics = self.raft.metrics();
        let now = metrics.borrow_watched();
        Progress {
            committed: now.local_committed.as_ref().map_or(0, |id| id.index),
        }
    }

    /// Entries that are committed and not applied here.
    pub(crate) fn backlog(&self) -> u64 {
        self.progress()
            .committed
            .saturating_sub(self.replica.applied_index())
    }

    /// Hands leadership to `target` and returns when this member knows it leads, or after the election timeout.
    pub(crate) async fn transfer_leader(
        &self,
        target: u64,
        patience: Duration,
    ) -> Result<bool, Stopped> {
        self.raft
            .trigger()
            .transfer_leader(target)
            .await
            .map_err(|e| Stopped(e.to_string()))?;
        let mut leadership = self.leadership();
        let reached = leadership.wait_for(|now| now.leader == Some(target));
        Ok(matches!(
            tokio::time::timeout(patience, reached).await,
            Ok(Ok(_))
        ))
    }

    /// The voter that is best suited to lead next: the one whose log is furthest.
    pub(crate) fn successor(&self) -> Option<u64> {
        let metrics = self.raft.metrics();
        let now = metrics.borrow_watched();
        let replication = now.replication.as_ref()?;
        let voters: std::collections::BTreeSet<u64> = now.membership_config.voter_ids().collect();
        replication
            .iter()
            .filter(|(id, _)| **id != self.id && voters.contains(id))
            .max_by_key(|(_, matched)| matched.as_ref().map(|id| id.index))
            .map(|(id, _)| *id)
    }

    /// Whether a member answers now.
    pub(crate) async fn is_alive(&self, member: u64, patience: Duration) -> bool {
        use member_proto::peerpb::control_request::Call;
        let Some(urls) = self.peer_urls(member) else {
            return false;
        };
        let question = Call::MemberKnown(member_proto::peerpb::MemberKnownRequest { id: self.id });
        self.links
            .to(member, &urls)
            .call(question, patience)
            .await
            .is_ok()
    }

    /// Stops taking part. What was acknowledged is in the log already.
    pub(crate) async fn shutdown(&self) -> io::Result<()> {
        self.raft.shutdown().await.map_err(io::Error::other)
    }
}

fn config(settings: &Settings) -> Result<Config, Stopped> {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let election = millis(settings.election_timeout);
    Config {
        cluster_name: "etcd".to_owned(),
        heartbeat_interval: millis(settings.heartbeat),
        // openraft stands for election after its leader lease (the maximum) plus a random time between the two:
        // 1.5 to 2 times --election-timeout, where etcd needs 1 to 2.
        election_timeout_min: (election / 2).max(1),
        election_timeout_max: election.max(2),
        install_snapshot_timeout: 10 * 60 * 1000,
        // When to make the state durable is decided by entries and bytes: see the state machine.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: settings.catch_up_entries,
        // A batch is bounded by the log reader's 1 MiB.
        max_payload_entries: 4096,
        enable_pre_vote: Some(settings.pre_vote),
        // A leader that restarts must not lead before a quorum says so: its state may be behind what it answered.
        enable_leader_restore: Some(false),
        quorum_loss_probe_interval: Some(election * 2),
        ..Config::default()
    }
    .validate()
    .map_err(|e| Stopped(e.to_string()))
}
