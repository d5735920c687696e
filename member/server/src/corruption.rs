//! Whether all members hold the same keys: by the hash of the keys and their history at one revision.
//!
//! The leader asks the others now and then, at its newest revision or at the last compacted one, and raises the alarm
//! CORRUPT; a member that starts may ask before it takes part. Hashes tell something only when they were taken above
//! the same compaction: a member that is behind or ahead is not suspected.
//!
//! Who is suspected: those that differ from a majority of all members. Without a majority nobody knows, and the alarm
//! is raised for member 0, which stands for the cluster (etcd 3.6, compaction hashes).
//!
//! Nothing is repaired: an operator replaces the member.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use member_proto::peerpb::control_request::Call;
use member_proto::peerpb::control_response::Answer;
use member_proto::peerpb::hash_response::Refusal;
use member_proto::peerpb::{HashRequest, HashResponse, MemberKnownRequest};
use member_state::{AlarmAction, AlarmMember, AlarmType, Backend, Error, KeyValueHash, Store};

use crate::consensus::stored_members;
use crate::engine::Engine;
use crate::node::Node;
use crate::peer::links::Links;

/// A member's answer to another one; failures other than refusals are the caller's.
pub(crate) fn answer(found: Result<KeyValueHash, Error>) -> io::Result<HashResponse> {
    let refused = |refusal: Refusal| HashResponse {
        refusal: refusal.into(),
        ..HashResponse::default()
    };
    match found {
        Ok(found) => Ok(HashResponse {
            refusal: Refusal::None.into(),
            hash: found.hash,
            compact_revision: found.compact_revision,
            current_revision: found.current,
        }),
        Err(Error::Compacted) => Ok(refused(Refusal::Compacted)),
        Err(Error::FutureRevision) => Ok(refused(Refusal::Future)),
        Err(error) => Err(io::Error::other(error)),
    }
}

/// The members whose hash is not that of a majority of `members`; `None` when there is no majority. Nobody, when all
/// hashes are equal.
fn suspects(hashes: &[(u64, u32)], members: usize) -> Option<Vec<u64>> {
    let mut groups = BTreeMap::<u32, usize>::new();
    for (_, hash) in hashes {
        *groups.entry(*hash).or_default() += 1;
    }
    if groups.len() <= 1 {
        return Some(Vec::new());
    }
    let (majority, _) = groups.into_iter().find(|(_, n)| *n > members / 2)?;
    let others = hashes.iter().filter(|(_, hash)| *hash != majority);
    Some(others.map(|(id, _)| *id).collect())
}

/// The check of a member that is about to start.
pub(crate) struct InitialCheck<'a> {
    pub(crate) id: u64,
    pub(crate) links: &'a Links,
    /// How long another member may take to show that it is there.
    pub(crate) alive: Duration,
    /// How long it may take to hash its keys.
    pub(crate) patience: Duration,
}

impl InitialCheck<'_> {
    /// Whether the keys are those of the members that can be asked.
    pub(crate) async fn run<B: Backend + 'static>(
        &self,
        store: &std::sync::Arc<Store<B>>,
    ) -> io::Result<bool> {
        let id = self.id;
        tracing::info!(
            "local-member-id" = %format_args!("{id:x}"),
            timeout = ?self.patience,
            "starting initial corruption check"
        );
        let own = {
            let store = std::sync::Arc::clone(store);
            tokio::task::spawn_blocking(move || store.hash_kv(0))
        };
        let own = own
            .await
            .map_err(io::Error::other)?
            .map_err(io::Error::other)?;
        let members = stored_members(store)?;
        let others = members.iter().filter(|(other, _)| *other != id);
        let answers = others.map(|(other, urls)| async move {
            let link = self.links.to(*other, urls);
            // Members that start together do not answer yet, and must not wait for each other for long.
            let known = Call::MemberKnown(MemberKnownRequest { id });
            let asked = match link.call(known, self.alive).await {
                Ok(_) => {
                    let question = Call::Hash(HashRequest {
                        revision: own.revision,
                    });
                    link.call(question, self.patience).await
                }
                Err(error) => Err(error),
            };
            (*other, urls, asked)
        });
        let mut differing = 0;
        for (other, urls, answer) in futures_util::future::join_all(answers).await {
            let found = match answer {
                Ok(Answer::Hash(found)) => found,
                Ok(_) => continue,
                Err(error) => {
                    tracing::warn!(
                        "local-member-id" = %format_args!("{id:x}"),
                        "requested-revision" = own.revision,
                        "remote-peer-id" = %format_args!("{other:x}"),
                        "remote-peer-endpoint" = ?urls,
                        %error,
                        "failed hash kv request"
                    );
                    continue;
                }
            };
            let message = match found.refusal() {
                Refusal::None if found.hash == own.hash => continue,
                Refusal::None if found.compact_revision == own.compact_revision => {
                    differing += 1;
                    "found different hash values from remote peer"
                }
                Refusal::None => "found different compact revision values from remote peer",
                Refusal::Future => "cannot fetch hash from slow remote peer",
                Refusal::Compacted => "cannot fetch hash from remote peer; local member is behind",
            };
            tracing::warn!(
                "local-member-id" = %format_args!("{id:x}"),
                "local-member-revision" = own.revision,
                "local-member-compact-revision" = own.compact_revision,
                "local-member-hash" = own.hash,
                "remote-peer-id" = %format_args!("{other:x}"),
                "remote-peer-endpoints" = ?urls,
                "remote-peer-revision" = found.current_revision,
                "remote-peer-compact-revision" = found.compact_revision,
                "remote-peer-hash" = found.hash,
                "{message}"
            );
        }
        if differing == 0 {
            tracing::info!(
                "local-member-id" = %format_args!("{id:x}"),
                "initial corruption checking passed; no corruption"
            );
        }
        Ok(differing == 0)
    }
}

/// Why a check was given up; the next one may go better.
#[derive(Debug, thiserror::Error)]
enum Unchecked {
    #[error(transparent)]
    State(#[from] Error),
    #[error("the hash was given up")]
    Task(#[from] tokio::task::JoinError),
    #[error("not a leader with a quorum")]
    NotConfirmed,
}

async fn own_hash<E: Engine>(node: &Node<E>, revision: i64) -> Result<KeyValueHash, Unchecked> {
    let store = node.store();
    Ok(tokio::task::spawn_blocking(move || store.hash_kv(revision)).await??)
}

/// What the others answer; `None` for one that does not.
async fn ask_all<E: Engine>(node: &Node<E>, revision: i64) -> Vec<(u64, Option<HashResponse>)> {
    let others = node.consensus.nodes().into_iter();
    let answers = others
        .filter(|other| other.id != node.id)
        .map(|other| async move {
            let question = Call::Hash(HashRequest { revision });
            let answer = node.consensus.call(other.id, question, node.patience).await;
            let found = match answer {
                Some(Answer::Hash(found)) => Some(found),
                _ => {
                    tracing::warn!(
                        "local-member-id" = %format_args!("{:x}", node.id),
                        "requested-revision" = revision,
                        "remote-peer-id" = %format_args!("{:x}", other.id),
                        "failed hash kv request"
                    );
                    None
                }
            };
            (other.id, found)
        });
    futures_util::future::join_all(answers).await
}

/// Raises the alarm for a member, unless it is on.
async fn raise<E: Engine>(node: &Node<E>, member: u64) {
    let alarm = AlarmMember {
        member_id: member,
        alarm: AlarmType::Corrupt,
    };
    if matches!(node.store().alarms(), Ok(on) if on.contains(&alarm)) {
        return;
    }
    if let Err(error) = node
        .change_alarm(AlarmAction::Activate, member, AlarmType::Corrupt)
        .await
    {
        tracing::warn!(%error, "failed to raise an alarm");
    }
}

/// Compares the newest revision with the other members', again and again where this member leads. Never returns.
pub(crate) async fn check_periodically<E: Engine>(node: &Node<E>, pause: Duration) {
    tracing::info!(
        "local-member-id" = %format_args!("{:x}", node.id),
        interval = ?pause,
        "enabled corruption checking"
    );
    loop {
        tokio::time::sleep(pause).await;
        if node.leadership().leader == Some(node.id)
            && let Err(error) = check_newest(node).await
        {
            tracing::warn!(%error, "failed to check hash KV");
        }
    }
}

async fn check_newest<E: Engine>(node: &Node<E>) -> Result<(), Unchecked> {
    let first = own_hash(node, 0).await?;
    let answers = ask_all(node, first.revision).await;
    // What the others answered is no newer than what is read after this.
    node.linearize()
        .await
        .map_err(|_| Unchecked::NotConfirmed)?;
    let second = own_hash(node, 0).await?;
    let mut suspected = Vec::new();
    if second.hash != first.hash
        && second.revision == first.revision
        && second.compact_revision == first.compact_revision
    {
        tracing::warn!(
            "revision-1" = first.revision,
            "compact-revision-1" = first.compact_revision,
            "hash-1" = first.hash,
            "revision-2" = second.revision,
            "compact-revision-2" = second.compact_revision,
            "hash-2" = second.hash,
            "found hash mismatch"
        );
        suspected.push(node.id);
    }
    let members = answers.len() + 1;
    let mut checked = 0;
    let mut hashes = vec![(node.id, first.hash)];
    for (other, found) in answers {
        let Some(found) = found.filter(|found| found.refusal() == Refusal::None) else {
            continue;
        };
        checked += 1;
        let follower = format_args!("{other:x}").to_string();
        if found.current_revision > second.current {
            tracing::warn!(
                "leader-revision" = second.current,
                "follower-revision" = found.current_revision,
                "follower-peer-id" = follower,
                "revision from follower must be less than or equal to leader's"
            );
            suspected.push(other);
        }
        if found.compact_revision > second.compact_revision {
            tracing::warn!(
                "leader-compact-revision" = second.compact_revision,
                "follower-compact-revision" = found.compact_revision,
                "follower-peer-id" = follower,
                "compact revision from follower must be less than or equal to leader's"
            );
            suspected.push(other);
        }
        if found.compact_revision == first.compact_revision {
            hashes.push((other, found.hash));
            if found.hash != first.hash {
                tracing::warn!(
                    "leader-compact-revision" = second.compact_revision,
                    "leader-hash" = first.hash,
                    "follower-compact-revision" = found.compact_revision,
                    "follower-hash" = found.hash,
                    "follower-peer-id" = follower,
                    "same compact revision then hashes must match"
                );
            }
        }
    }
    suspected.extend(suspects(&hashes, members).unwrap_or_else(|| vec![0]));
    suspected.sort_unstable();
    suspected.dedup();
    for member in suspected {
        raise(node, member).await;
    }
    tracing::info!(
        "number-of-peers-checked" = checked,
        "finished peer corruption check"
    );
    Ok(())
}

/// Compares the last compacted revision with the other members', again and again where this member leads. Cheaper and
/// surer than the newest one: nobody writes there any more. Never returns.
pub(crate) async fn check_compactions<E: Engine>(node: &Node<E>, pause: Duration) {
    tracing::info!(
        "local-member-id" = %format_args!("{:x}", node.id),
        interval = ?pause,
        "enabled compact hash checking"
    );
    let mut checked = 0;
    loop {
        tokio::time::sleep(pause).await;
        let compacted = node.store().compact_revision();
        if node.leadership().leader != Some(node.id) || compacted <= checked {
            continue;
        }
        match check_compaction(node, compacted).await {
            Ok(true) => checked = compacted,
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "failed to check the hash of a compaction"),
        }
    }
}

/// Whether all members were compared, or found to differ.
async fn check_compaction<E: Engine>(node: &Node<E>, revision: i64) -> Result<bool, Unchecked> {
    let leader = format_args!("{:x}", node.id).to_string();
    tracing::info!(
        "local-member-id" = leader,
        timeout = ?node.patience,
        "starting compact hash check"
    );
    let own = own_hash(node, revision).await?;
    let answers = ask_all(node, revision).await;
    let peers = answers.len();
    let mut hashes = vec![(node.id, own.hash)];
    for (other, found) in answers {
        match found.filter(|found| found.refusal() == Refusal::None) {
            Some(found) if found.compact_revision == own.compact_revision => {
                hashes.push((other, found.hash));
            }
            found => tracing::warn!(
                "number-of-peers" = peers,
                "leader-id" = leader,
                "peer-id" = %format_args!("{other:x}"),
                reason = match found {
                    None => "no response",
                    Some(_) => "the peer's CompactRevision doesn't match leader's CompactRevision",
                },
                "Skipped peer's hash"
            ),
        }
    }
    let checked = hashes.len() - 1;
    let suspected = suspects(&hashes, peers + 1);
    if matches!(&suspected, Some(none) if none.is_empty()) {
        if checked == peers {
            tracing::info!(
                "number-of-peers-checked" = checked,
                revision,
                compactRevision = own.compact_revision,
                "successfully checked hash on whole cluster"
            );
        }
        tracing::info!(
            "number-of-hashes-checked" = 1,
            "finished compaction hash check"
        );
        return Ok(checked == peers);
    }
    for (member, hash) in &hashes {
        tracing::error!(
            "leader-id" = leader,
            "leader-revision" = own.revision,
            "leader-compact-revision" = own.compact_revision,
            "leader-hash" = own.hash,
            "peer-hash" = hash,
            "peer-ids" = %format_args!("{member:x}"),
            "quorum-exist" = suspected.is_some(),
            "Detected compaction hash mismatch"
        );
    }
    if suspected.is_none() {
        tracing::error!(
            "leader-id" = leader,
            "leader-revision" = own.revision,
            "leader-compact-revision" = own.compact_revision,
            "leader-hash" = own.hash,
            "Detected compaction hash mismatch but cannot identify the corrupted members, so intentionally set the memberID as 0"
        );
    }
    for member in suspected.unwrap_or_else(|| vec![0]) {
        raise(node, member).await;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_differs_from_a_majority_is_suspected() {
        let cases = [
            (vec![7], 1, Some(vec![])),
            (vec![7, 7, 7], 3, Some(vec![])),
            (vec![7, 8, 7], 3, Some(vec![1])),
            (vec![8, 7, 7], 3, Some(vec![0])),
            (vec![7, 8], 2, None),
            // One of three did not answer.
            (vec![7, 8], 3, None),
            (vec![7, 8, 9, 7, 7], 5, Some(vec![1, 2])),
        ];
        for (hashes, members, expected) in cases {
            let hashes: Vec<(u64, u32)> = (0..).zip(hashes).collect();
            assert_eq!(suspects(&hashes, members), expected, "{hashes:?}");
        }
    }
}
