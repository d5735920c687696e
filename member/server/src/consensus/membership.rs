//! Changes of the members: decided purely, made by the leader, one at a time, each in one entry of the log.
//!
//! Whether a change is wise (enough members started and connected) is asked before, by the member that serves the
//! call; here is what holds for every change, as etcd checks it when it applies one.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use member_log::{Log, Peer};
use member_proto::peerpb::control_request::Call;
use member_proto::peerpb::control_response::Answer;
use member_proto::peerpb::membership_request::Change as WireChange;
use member_proto::peerpb::membership_response::Refusal as WireRefusal;
use member_proto::peerpb::{self, AddMember, MembershipRequest, MembershipResponse, UpdateMember};
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::raft::Precondition;
use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
use openraft::{ChangeMembers, EntryPayload, Membership};

use super::{Consensus, Node};
use crate::engine::Engine;
use crate::peer::link::LinkError;

/// The share of the leader's log that a learner must have before it votes; etcd's figure.
const READY: f64 = 0.9;

/// A change takes as long as a request of a client may, two election timeouts aside.
const CHANGE_PATIENCE: Duration = Duration::from_secs(5);

/// What is to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Add(Node),
    Remove(u64),
    Update { id: u64, peer_urls: Vec<String> },
    Promote(u64),
}

/// Why a change was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("etcdserver: not leader")]
    NotLeader,
    /// Another change is under way; trying again may help.
    #[error("etcdserver: a change of the members is under way")]
    Busy,
    /// Nothing is known: the change may have been made.
    #[error("etcdserver: request timed out, possibly due to previous leader failure")]
    Unknown,
    #[error("etcdserver: member not found")]
    MemberNotFound,
    #[error("etcdserver: member ID already exist")]
    IdExists,
    #[error("etcdserver: Peer URLs already exists")]
    PeerUrlExists,
    #[error("etcdserver: too many learner members in cluster")]
    TooManyLearners,
    #[error("etcdserver: can only promote a learner member")]
    NotLearner,
    #[error("etcdserver: can only promote a learner member which is in sync with leader")]
    LearnerNotReady,
    #[error("etcdserver: re-configuration failed due to not enough started members")]
    NotEnoughStarted,
    #[error("etcdserver: unhealthy cluster")]
    Unhealthy,
    #[error("etcdserver: given member URLs are invalid")]
    BadUrls,
    #[error("etcdserver: request timed out")]
    TimedOut,
    #[error("etcdserver: server stopped")]
    Stopped,
}

/// How a change is written.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// It was made before.
    Made,
    /// Other voters or nodes.
    Members(Membership<u64, Peer>),
    /// The same members at other URLs.
    Urls(u64, Peer),
}

/// Decides a change against the members of now.
fn decide(
    now: &Membership<u64, Peer>,
    removed: &BTreeSet<u64>,
    max_learners: u64,
    change: &Change,
    again: bool,
) -> Result<Step, Refusal> {
    let mut voters: BTreeSet<u64> = now.voter_ids().collect();
    let mut nodes: BTreeMap<u64, Peer> =
        now.nodes().map(|(id, node)| (*id, node.clone())).collect();
    let taken = |urls: &[String], by_other_than: u64| {
        nodes.iter().any(|(id, node)| {
            *id != by_other_than && node.peer_urls.iter().any(|u| urls.contains(u))
        })
    };
    match change {
        Change::Add(node) => {
            if removed.contains(&node.id) {
                return Err(Refusal::MemberNotFound);
            }
            if let Some(known) = nodes.get(&node.id) {
                let made = again && known.peer_urls == node.peer_urls;
                return if made {
                    Ok(Step::Made)
                } else {
                    Err(Refusal::IdExists)
                };
            }
            if taken(&node.peer_urls, node.id) {
                return Err(Refusal::PeerUrlExists);
            }
            if node.learner {
                let learners = nodes.len().saturating_sub(voters.len());
                if u64::try_from(learners).unwrap_or(u64::MAX) >= max_learners {
                    return Err(Refusal::TooManyLearners);
                }
            } else {
                voters.insert(node.id);
            }
            let peer_urls = node.peer_urls.clone();
            nodes.insert(node.id, Peer { peer_urls });
        }
        Change::Remove(id) => {
            if again && removed.contains(id) {
                return Ok(Step::Made);
            }
            nodes.remove(id).ok_or(Refusal::MemberNotFound)?;
            voters.remove(id);
        }
        Change::Update { id, peer_urls } => {
            if removed.contains(id) || !nodes.contains_key(id) {
                return Err(Refusal::MemberNotFound);
            }
            if taken(peer_urls, *id) {
                return Err(Refusal::PeerUrlExists);
            }
            let peer_urls = peer_urls.clone();
            return Ok(Step::Urls(*id, Peer { peer_urls }));
        }
        Change::Promote(id) => {
            if !nodes.contains_key(id) {
                return Err(Refusal::MemberNotFound);
            }
            if !voters.insert(*id) {
                return if again {
                    Ok(Step::Made)
                } else {
                    Err(Refusal::NotLearner)
                };
            }
        }
    }
    // Fails only without voters, which the last one's removal would leave.
    Membership::new(vec![voters], nodes)
        .ok()
        .filter(|members| members.voter_ids().next().is_some())
        .map(Step::Members)
        .ok_or(Refusal::NotEnoughStarted)
}

impl<E: Engine> Consensus<E> {
    /// Makes a change, as the leader. Returns the index of its entry, or None when the entry waits for the new member:
    /// a lone member's cluster cannot commit before its second one runs.
    pub(crate) async fn change_members(
        &self,
        change: &Change,
        again: bool,
    ) -> Result<Option<u64>, Refusal> {
        let patience = CHANGE_PATIENCE + 2 * self.election_timeout;
        let made = tokio::time::timeout(patience, self.change_in_turn(change, again))
            .await
            .unwrap_or(Err(Refusal::Unknown));
        if let Change::Promote(_) = change {
            let metrics = &self.replica.metrics;
            match &made {
                Ok(_) => metrics.promotions.one(),
                Err(refusal) => metrics.refused_promotions.failed(&refusal.to_string()),
            }
        }
        made
    }

    async fn change_in_turn(&self, change: &Change, again: bool) -> Result<Option<u64>, Refusal> {
        let _turn = self.changing.lock().await;
        if self.leader_now().leader != Some(self.id) {
            return Err(Refusal::NotLeader);
        }
        let server = self.raft.server_metrics();
        let stored = Arc::clone(&server.borrow_watched().membership_config);
        let now = stored.membership();
        if let Change::Promote(id) = change {
            self.check_ready(now, *id)?;
        }
        let step = decide(now, &self.removals.ids(), self.max_learners, change, again)?;
        if *change == Change::Remove(self.id) && now.voter_ids().count() > 1 {
            // Whoever leads next removes this member.
            let successor = self.successor().ok_or(Refusal::Busy)?;
            return match self.transfer_leader(successor, self.election_timeout).await {
                Ok(_) => Err(Refusal::NotLeader),
                Err(_) => Err(Refusal::Stopped),
            };
        }
        tracing::info!(?change, "changing the members");
        let unchanged = Precondition::LastMembershipLogId {
            last_membership_log_id: *stored.log_id(),
        };
        let written = match step {
            Step::Made => return Ok(stored.log_id().map(|id| id.index)),
            Step::Urls(id, peer) => {
                let nodes = BTreeMap::from([(id, peer)]);
                self.raft
                    .change_membership(ChangeMembers::SetNodes(nodes), true)
                    .await
                    .map(|response| response.log_id.index)
            }
            Step::Members(members) => {
                let second = members
                    .voter_ids()
                    .find(|_| now.voter_ids().count() == 1 && members.voter_ids().count() == 2);
                let append = self
                    .raft
                    .append_membership(members, EntryPayload::Blank, [unchanged]);
                tokio::select! {
                    appended = append => appended.map(|response| response.log_id.index),
                    () = self.until_members_change(*stored.log_id()), if second.is_some() => return Ok(None),
                }
            }
        };
        written.map(Some).map_err(|error| refusal_of(&error))
    }

    async fn until_members_change(&self, from: Option<member_log::LogId>) {
        let mut server = self.raft.server_metrics();
        while *server.borrow_and_update().membership_config.log_id() == from {
            if server.changed().await.is_err() {
                return;
            }
        }
    }

    /// A learner votes when it has nearly everything that the leader has, and when the voters do not lose their quorum
    /// by it.
    fn check_ready(&self, now: &Membership<u64, Peer>, id: u64) -> Result<(), Refusal> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let replication = metrics.replication.as_ref().ok_or(Refusal::NotLeader)?;
        if now.get_node(&id).is_none() {
            return Err(Refusal::MemberNotFound);
        }
        if now.voter_ids().any(|voter| voter == id) {
            return Ok(());
        }
        let matched = replication
            .get(&id)
            .and_then(|at| at.as_ref().map(|at| at.index))
            .unwrap_or(0);
        let last = metrics.last_log_index.unwrap_or(0);
        #[expect(
            clippy::cast_precision_loss,
            reason = "a ratio of indexes, as etcd computes it"
        )]
        let behind = (matched as f64) < last as f64 * READY;
        if behind {
            return Err(Refusal::LearnerNotReady);
        }
        if self.strict_reconfig {
            let attributes = self.replica.store().attributes().unwrap_or_default();
            let voters = now.voter_ids().count() + 1;
            let started = 1 + now
                .voter_ids()
                .filter(|voter| attributes.get(voter).is_some_and(|a| !a.name.is_empty()))
                .count();
            if started < voters / 2 + 1 {
                return Err(Refusal::NotEnoughStarted);
            }
        }
        Ok(())
    }

    /// Has the leader make a change.
    pub(crate) async fn ask_change(
        &self,
        leader: u64,
        change: &Change,
        again: bool,
    ) -> Result<Option<u64>, Refusal> {
        let urls = self.peer_urls(leader).ok_or(Refusal::NotLeader)?;
        let call = Call::Membership(MembershipRequest {
            again,
            change: Some(change_out(change)),
        });
        let patience = CHANGE_PATIENCE + 2 * self.election_timeout;
        match self.links.to(leader, &urls).call(call, patience).await {
            Ok(Answer::Membership(response)) => response_in(response),
            Err(LinkError::Unreachable(_)) => Err(Refusal::Busy),
            Ok(_) | Err(_) => Err(Refusal::Unknown),
        }
    }

    /// Answers a member that passes a change on.
    pub(super) async fn change_for_peer(&self, request: MembershipRequest) -> MembershipResponse {
        let made = match request.change.map(change_in) {
            Some(change) => self.change_members(&change, request.again).await,
            None => Err(Refusal::MemberNotFound),
        };
        response_out(made)
    }

    /// Whether this leader has ever had an acknowledgement from the member.
    pub(super) fn has_replicated_to(&self, id: u64) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics
            .replication
            .as_ref()
            .and_then(|replication| replication.get(&id))
            .is_some_and(Option::is_some)
    }

    /// Tells a member that it was removed, until it hears or has had time to find out.
    pub(super) fn tell_removed(&self, id: u64, peer_urls: &[String]) {
        let link = self.links.detached(id, peer_urls);
        let patience = self.election_timeout;
        self.links.spawn(async move {
            let notice = Call::Removed(peerpb::RemovedNotice { id });
            let heard = link.call(notice, patience).await;
            tracing::info!(
                "removed-remote-peer-id" = %format_args!("{id:x}"),
                heard = heard.is_ok(),
                "told a removed member"
            );
        });
    }
}

fn refusal_of(
    error: &RaftError<member_log::TypeConfig, ClientWriteError<member_log::TypeConfig>>,
) -> Refusal {
    match error {
        RaftError::Fatal(_) => Refusal::Stopped,
        RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => Refusal::NotLeader,
        RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)) => Refusal::Unknown,
        RaftError::APIError(ClientWriteError::ChangeMembershipError(
            ChangeMembershipError::InProgress(_) | ChangeMembershipError::UncommittedLeaderLog(_),
        )) => Refusal::Busy,
        RaftError::APIError(error) => {
            tracing::warn!(%error, "a change of the members was not accepted");
            Refusal::Busy
        }
    }
}

fn change_out(change: &Change) -> WireChange {
    match change {
        Change::Add(node) => WireChange::Add(AddMember {
            id: node.id,
            peer_urls: node.peer_urls.clone(),
            learner: node.learner,
        }),
        Change::Remove(id) => WireChange::Remove(*id),
        Change::Update { id, peer_urls } => WireChange::Update(UpdateMember {
            id: *id,
            peer_urls: peer_urls.clone(),
        }),
        Change::Promote(id) => WireChange::Promote(*id),
    }
}

fn change_in(change: WireChange) -> Change {
    match change {
        WireChange::Add(add) => Change::Add(Node {
            id: add.id,
            peer_urls: add.peer_urls,
            learner: add.learner,
        }),
        WireChange::Remove(id) => Change::Remove(id),
        WireChange::Update(UpdateMember { id, peer_urls }) => Change::Update { id, peer_urls },
        WireChange::Promote(id) => Change::Promote(id),
    }
}

/// Each refusal that a leader gives, with its number on the wire; the rest never leaves a member.
const REFUSALS: [(Refusal, WireRefusal); 10] = [
    (Refusal::NotLeader, WireRefusal::NotLeader),
    (Refusal::Busy, WireRefusal::Busy),
    (Refusal::MemberNotFound, WireRefusal::MemberNotFound),
    (Refusal::IdExists, WireRefusal::IdExists),
    (Refusal::PeerUrlExists, WireRefusal::PeerUrlExists),
    (Refusal::TooManyLearners, WireRefusal::TooManyLearners),
    (Refusal::NotLearner, WireRefusal::NotLearner),
    (Refusal::LearnerNotReady, WireRefusal::LearnerNotReady),
    (Refusal::NotEnoughStarted, WireRefusal::NotEnoughStarted),
    (Refusal::Unknown, WireRefusal::Stopped),
];

fn response_out(made: Result<Option<u64>, Refusal>) -> MembershipResponse {
    let (index, refusal) = match made {
        Ok(index) => (index, WireRefusal::None),
        Err(refusal) => {
            let known = REFUSALS.iter().find(|(known, _)| *known == refusal);
            (None, known.map_or(WireRefusal::Stopped, |(_, wire)| *wire))
        }
    };
    MembershipResponse {
        refusal: refusal.into(),
        index: index.map(|index| peerpb::LogId { term: 0, index }),
    }
}

fn response_in(response: MembershipResponse) -> Result<Option<u64>, Refusal> {
    let refusal = response.refusal();
    if refusal == WireRefusal::None {
        return Ok(response.index.map(|id| id.index));
    }
    let known = REFUSALS.iter().find(|(_, wire)| *wire == refusal);
    Err(known.map_or(Refusal::Unknown, |(refusal, _)| *refusal))
}

/// Makes `own` the only member, over whatever the log holds: an entry that says so goes to its end. Everything before it
/// counts as committed, which takes in what was never acknowledged and loses nothing that was.
pub(crate) async fn force_new_cluster(
    log: &mut Log,
    own: u64,
    peer_urls: Vec<String>,
) -> io::Result<()> {
    let Some(last) = log.get_log_state().await?.last_log_id else {
        return Ok(());
    };
    let nodes = BTreeMap::from([(own, Peer { peer_urls })]);
    let members = Membership::new(vec![BTreeSet::from([own])], nodes).map_err(io::Error::other)?;
    let entry = member_log::Entry {
        log_id: member_log::LogId {
            index: last.index + 1,
            ..last
        },
        payload: EntryPayload::Membership(members),
    };
    log.blocking_append([entry]).await.map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(id: u64) -> Vec<String> {
        vec![format!("http://h:{id}")]
    }

    fn members(voters: &[u64], learners: &[u64]) -> Membership<u64, Peer> {
        let nodes: BTreeMap<u64, Peer> = voters
            .iter()
            .chain(learners)
            .map(|id| {
                (
                    *id,
                    Peer {
                        peer_urls: url(*id),
                    },
                )
            })
            .collect();
        Membership::new(vec![voters.iter().copied().collect()], nodes).unwrap()
    }

    fn add(id: u64, learner: bool) -> Change {
        Change::Add(Node {
            id,
            peer_urls: url(id),
            learner,
        })
    }

    #[test]
    fn changes_are_decided_as_etcd_decides_them() {
        let now = members(&[1, 2, 3], &[4]);
        let removed = BTreeSet::from([9]);
        let update = |id, to| Change::Update {
            id,
            peer_urls: url(to),
        };
        let moved = |id, to| Step::Urls(id, Peer { peer_urls: url(to) });
        let table = [
            (
                add(5, false),
                Ok(Step::Members(members(&[1, 2, 3, 5], &[4]))),
            ),
            (add(5, true), Err(Refusal::TooManyLearners)),
            (add(3, false), Err(Refusal::IdExists)),
            (add(9, false), Err(Refusal::MemberNotFound)),
            (
                Change::Add(Node {
                    id: 5,
                    peer_urls: url(4),
                    learner: false,
                }),
                Err(Refusal::PeerUrlExists),
            ),
            (Change::Remove(2), Ok(Step::Members(members(&[1, 3], &[4])))),
            (
                Change::Remove(4),
                Ok(Step::Members(members(&[1, 2, 3], &[]))),
            ),
            (Change::Remove(9), Err(Refusal::MemberNotFound)),
            (Change::Remove(7), Err(Refusal::MemberNotFound)),
            (update(2, 8), Ok(moved(2, 8))),
            (update(2, 2), Ok(moved(2, 2))),
            (update(2, 3), Err(Refusal::PeerUrlExists)),
            (update(7, 8), Err(Refusal::MemberNotFound)),
            (
                Change::Promote(4),
                Ok(Step::Members(members(&[1, 2, 3, 4], &[]))),
            ),
            (Change::Promote(3), Err(Refusal::NotLearner)),
            (Change::Promote(7), Err(Refusal::MemberNotFound)),
        ];
        for (change, expected) in table {
            assert_eq!(
                decide(&now, &removed, 1, &change, false),
                expected,
                "{change:?}"
            );
        }
    }

    #[test]
    fn a_change_that_was_made_already_succeeds_when_it_is_asked_for_again() {
        let now = members(&[1, 2, 3], &[]);
        let removed = BTreeSet::from([9]);
        for change in [add(3, false), Change::Remove(9), Change::Promote(3)] {
            assert_eq!(
                decide(&now, &removed, 1, &change, true),
                Ok(Step::Made),
                "{change:?}"
            );
        }
    }

    #[test]
    fn the_last_voter_stays() {
        for now in [members(&[1], &[]), members(&[1], &[2])] {
            let refused = decide(&now, &BTreeSet::new(), 1, &Change::Remove(1), false);
            assert_eq!(refused, Err(Refusal::NotEnoughStarted));
        }
    }

    #[test]
    fn a_leaders_refusals_cross_the_wire() {
        for (refusal, _) in REFUSALS {
            assert_eq!(response_in(response_out(Err(refusal))), Err(refusal));
        }
        assert_eq!(response_in(response_out(Ok(Some(7)))), Ok(Some(7)));
        assert_eq!(response_in(response_out(Ok(None))), Ok(None));
    }
}
