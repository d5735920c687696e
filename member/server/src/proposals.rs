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
}

struct Waiter {
    term: u64,
    answer: oneshot::Sender<Outcome>,
}

/// The writes that wait for their local apply.
pub(crate) struct Proposals {
    next_id: AtomicU64,
    waiters: Mutex<HashMap<u64, Waiter, IdHash>>,
    failed: AtomicU64,
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
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let millis = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
        let first = (member_id << 48) | ((millis << 8) & 0x0000_FFFF_FFFF_FFFF);
        Self { next_id: AtomicU64::new(first), waiters: Mutex::default(), failed: AtomicU64::new(0) }
    }

    /// An id for a new command.
    pub(crate) fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Registers interest in the command `id`, about to be proposed in `term`.
    pub(crate) fn register(&self, id: u64, term: u64) -> oneshot::Receiver<Outcome> {
        let (answer, receiver) = oneshot::channel();
        let previous = self.lock().insert(id, Waiter { term, answer });
        assert!(previous.is_none(), "proposal id {id:x} used twice");
        receiver
    }

    /// Forgets the command: its waiter gave up.
    pub(crate) fn forget(&self, id: u64) {
        if self.lock().remove(&id).is_some() {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The waiter of a command that is being applied, if it was proposed by this process.
    pub(crate) fn take(&self, id: u64) -> Option<oneshot::Sender<Outcome>> {
        self.lock().remove(&id).map(|waiter| waiter.answer)
    }

    /// Commands that a member refused to propose.
    pub(crate) fn refused(&self, ids: impl IntoIterator<Item = u64>) {
        let mut waiters = self.lock();
        for id in ids {
            if let Some(waiter) = waiters.remove(&id) {
                let _ = waiter.answer.send(Outcome::Lost);
            }
        }
    }

    /// An entry of `term` is applied: what was proposed in earlier terms and is not applied is lost.
    pub(crate) fn term_applied(&self, term: u64) {
        for (_, waiter) in self.lock().extract_if(|_, waiter| waiter.term < term) {
            let _ = waiter.answer.send(Outcome::Lost);
        }
    }

    /// Writes that wait now.
    pub(crate) fn pending(&self) -> usize {
        self.lock().len()
    }

    /// Writes whose waiter gave up, since the start.
    pub(crate) fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Waiter, IdHash>> {
        // A panic while the lock is held cannot leave the map half changed.
        self.waiters.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
