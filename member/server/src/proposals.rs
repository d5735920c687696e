//! Writes on their way through consensus: who waits for which command, and when one may be sent again.
//!
//! The local apply answers a write, wherever it was proposed. A command is proposed in one term only, so as soon
//! as an entry of a later term is applied here, every command of an earlier term that was not applied is known to
//! be lost and is proposed again: exactly once, without the client noticing more than the time of an election.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use member_state::{Error, Response};
use tokio::sync::oneshot;

/// What became of a proposal.
pub(crate) enum Outcome {
    /// Applied here; the state's answer.
    Applied(Result<Response, Error>),
    /// Certainly not in the log and never will be: it may be proposed again.
    Lost,
    /// Perhaps inside a snapshot that replaced the state: nobody can say.
    Unknown,
}

struct Waiter {
    term: u64,
    answer: oneshot::Sender<Outcome>,
}

/// The writes that wait for their local apply.
pub(crate) struct Proposals {
    next_id: AtomicU64,
    waiting: Mutex<Waiting>,
    failed: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    waiters: HashMap<u64, Waiter, IdHash>,
    /// Bytes of the commands that wait.
    bytes: usize,
    /// The highest term of which something is applied here.
    applied_term: u64,
}

/// A write that waits; gives its place back when dropped, answered or not.
pub(crate) struct Pending<'a> {
    proposals: &'a Proposals,
    id: u64,
    bytes: usize,
    pub(crate) answer: oneshot::Receiver<Outcome>,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        let mut waiting = self.proposals.lock();
        waiting.bytes -= self.bytes;
        if waiting.waiters.remove(&self.id).is_some() {
            self.proposals.failed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Ids are unique and well mixed in their low bits already.
#[derive(Clone, Default)]
struct IdHash;

struct IdHasher(u64);

impl std::hash::BuildHasher for IdHash {
    type Hasher = IdHasher;
    fn build_hasher(&self) -> IdHasher {
        IdHasher(0)
    }
}

impl std::hash::Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }
    fn write_u64(&mut self, id: u64) {
        self.0 = id.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
    fn finish(&self) -> u64 {
        self.0
    }
}

impl Proposals {
    /// Ids are unique in the cluster over restarts, as etcd's: 16 bits of the member, then milliseconds of the
    /// start and a counter.
    pub(crate) fn new(member_id: u64) -> Self {
        let since_epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let millis = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
        let first = (member_id << 48) | ((millis << 8) & 0x0000_FFFF_FFFF_FFFF);
        Self {
            next_id: AtomicU64::new(first),
            waiting: Mutex::default(),
            failed: AtomicU64::new(0),
        }
    }

    /// An id for a new command.
    pub(crate) fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Registers interest in the command `id` of `bytes`, about to be proposed in `term`.
    pub(crate) fn register(&self, id: u64, term: u64, bytes: usize) -> Pending<'_> {
        let (answer, receiver) = oneshot::channel();
        let mut waiting = self.lock();
        waiting.bytes += bytes;
        if term < waiting.applied_term {
            // The caller's idea of the leader was old: this term takes no more proposals.
            let _ = answer.send(Outcome::Lost);
        } else {
            let previous = waiting.waiters.insert(id, Waiter { term, answer });
            assert!(previous.is_none(), "proposal id {id:x} used twice");
        }
        Pending {
            proposals: self,
            id,
            bytes,
            answer: receiver,
        }
    }

    /// The waiter of a command that is being applied, if it was proposed by this process.
    pub(crate) fn take(&self, id: u64) -> Option<oneshot::Sender<Outcome>> {
        self.lock().waiters.remove(&id).map(|waiter| waiter.answer)
    }

    /// Commands that a member refused to propose.
    pub(crate) fn refused(&self, ids: impl IntoIterator<Item = u64>) {
        let mut waiting = self.lock();
        for id in ids {
            if let Some(waiter) = waiting.waiters.remove(&id) {
                let _ = waiter.answer.send(Outcome::Lost);
            }
        }
    }

    /// An entry of `term` is applied: what was proposed in earlier terms and is not applied is lost.
    pub(crate) fn term_applied(&self, term: u64) {
        let mut waiting = self.lock();
        waiting.applied_term = waiting.applied_term.max(term);
        for (_, waiter) in waiting.waiters.extract_if(|_, waiter| waiter.term < term) {
            let _ = waiter.answer.send(Outcome::Lost);
        }
    }

    /// A snapshot that ends in `term` replaced the state: it may hold any command of that term or before.
    pub(crate) fn snapshot_installed(&self, term: u64) {
        let mut waiting = self.lock();
        waiting.applied_term = waiting.applied_term.max(term);
        for (_, waiter) in waiting.waiters.extract_if(|_, waiter| waiter.term <= term) {
            let _ = waiter.answer.send(Outcome::Unknown);
        }
    }

    /// Writes that wait now, and the bytes of their commands.
    pub(crate) fn pending(&self) -> (usize, usize) {
        let waiting = self.lock();
        (waiting.waiters.len(), waiting.bytes)
    }

    /// Writes whose waiter gave up, since the start.
    pub(crate) fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        // A panic while the lock is held cannot leave the map half changed.
        self.waiting
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(pending: &mut Pending<'_>) -> Option<&'static str> {
        match pending.answer.try_recv() {
            Ok(Outcome::Applied(_)) => Some("applied"),
            Ok(Outcome::Lost) => Some("lost"),
            Ok(Outcome::Unknown) => Some("unknown"),
            Err(_) => None,
        }
    }

    #[test]
    fn what_an_earlier_term_did_not_apply_is_lost() {
        let proposals = Proposals::new(1);
        let (mut old, mut new) = (proposals.register(1, 1, 10), proposals.register(2, 2, 10));
        proposals.term_applied(2);
        assert_eq!((outcome(&mut old), outcome(&mut new)), (Some("lost"), None));
        let mut late = proposals.register(3, 1, 10);
        assert_eq!(
            outcome(&mut late),
            Some("lost"),
            "registered with an old idea of the leader"
        );
    }

    #[test]
    fn what_a_snapshot_may_hold_is_never_proposed_again() {
        let proposals = Proposals::new(1);
        let (mut old, mut new) = (proposals.register(1, 1, 10), proposals.register(2, 2, 10));
        proposals.snapshot_installed(1);
        proposals.term_applied(2);
        assert_eq!(
            (outcome(&mut old), outcome(&mut new)),
            (Some("unknown"), None)
        );
    }

    #[test]
    fn a_writer_that_goes_away_leaves_nothing_behind() {
        let proposals = Proposals::new(1);
        drop(proposals.register(1, 1, 10));
        assert_eq!(proposals.pending(), (0, 0));
        assert_eq!(proposals.failed(), 1);
        let answered = proposals.register(2, 1, 10);
        assert!(proposals.take(2).is_some());
        drop(answered);
        assert_eq!((proposals.pending(), proposals.failed()), ((0, 0), 1));
    }
}
