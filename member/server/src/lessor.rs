//! When leases end: the leader's clockwork, as a pure function of what it is told and the time.
//!
//! Only a leader has deadlines. It makes them anew from the replicated leases when it is elected, so a change of
//! leaders prolongs leases and never shortens them. Renewals live here alone; nothing of them is replicated.
//!
//! Does not revoke: it says what is due, and hears from the state when a lease has ended.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::time::{Duration, Instant};

use member_state::Lease;

/// A revocation that had no effect after this long is asked for again; more than a request's own deadline with the
/// default timeouts, so that one is seldom proposed twice.
const RETRY: Duration = Duration::from_secs(8);

/// Leases that may end within one second of a new leader's reign: etcd's figure, three quarters of what a leader
/// revokes in a second, so that those which end later are not held up.
const ENDS_PER_SECOND: usize = 750;

/// So many places that belong to no lease are no burden.
const FEW: usize = 1024;

/// What became of a question about a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// It lives.
    Alive {
        /// Seconds left.
        ttl: i64,
        /// Seconds that it was granted.
        granted: i64,
    },
    /// Its time is over and its revocation under way: it cannot be renewed any more.
    Expired,
    /// There is no such lease.
    Missing,
    /// Not known here: this member does not lead, or does not yet know its leases.
    Elsewhere,
}

#[derive(Debug)]
struct Entry {
    ttl: i64,
    deadline: Instant,
    /// When the lease's place in the queue comes up. A renewal moves the deadline and leaves the place where it is.
    queued: Instant,
}

/// The deadlines of a leader's leases.
#[derive(Debug, Default)]
pub(crate) struct Lessor {
    /// The term in which this member leads.
    term: Option<u64>,
    leases: HashMap<i64, Entry>,
    queue: BinaryHeap<Reverse<(Instant, i64)>>,
    /// Until a new leader has read its leases: those that ended in the meantime.
    ended_while_loading: Option<HashSet<i64>>,
}

fn seconds(ttl: i64) -> Duration {
    Duration::from_secs(u64::try_from(ttl).unwrap_or(0))
}

/// Whole seconds, as etcd counts them: what is begun is not counted.
fn left(deadline: Instant, now: Instant) -> i64 {
    let left = deadline.saturating_duration_since(now).as_secs();
    i64::try_from(left).unwrap_or(i64::MAX)
}

impl Lessor {
    /// This member leads from now on; what it is told of leases counts, and [`Lessor::load`] must follow.
    pub(crate) fn lead(&mut self, term: u64) {
        *self = Lessor {
            term: Some(term),
            ended_while_loading: Some(HashSet::new()),
            ..Lessor::default()
        };
    }

    /// This member does not lead.
    pub(crate) fn follow(&mut self) {
        *self = Lessor::default();
    }

    /// Takes over the leases that were found in the state after [`Lessor::lead`]. Each gets its full time, or what
    /// was left of it at its last checkpoint, and `extend` on top: what an election may have taken from its holder.
    pub(crate) fn load(&mut self, term: u64, found: &[Lease], extend: Duration, now: Instant) {
        if self.term != Some(term) {
            return;
        }
        let Some(ended) = self.ended_while_loading.take() else {
            return;
        };
        let mut loaded: Vec<(Instant, &Lease)> = found
            .iter()
            .filter(|lease| !ended.contains(&lease.id) && !self.leases.contains_key(&lease.id))
            .map(|lease| {
                let rest = if lease.remaining > 0 {
                    lease.remaining
                } else {
                    lease.ttl
                };
                (now + seconds(rest) + extend, lease)
            })
            .collect();
        loaded.sort_unstable_by_key(|(deadline, lease)| (*deadline, lease.id));
        for at in ENDS_PER_SECOND..loaded.len() {
            let earliest = loaded[at - ENDS_PER_SECOND].0 + Duration::from_secs(1);
            loaded[at].0 = loaded[at].0.max(earliest);
        }
        for (deadline, lease) in loaded {
            self.insert(lease.id, lease.ttl, deadline);
        }
    }

    fn insert(&mut self, id: i64, ttl: i64, deadline: Instant) {
        let entry = Entry {
            ttl,
            deadline,
            queued: deadline,
        };
        self.leases.insert(id, entry);
        self.queue.push(Reverse((deadline, id)));
    }

    /// A lease was granted. Whether [`Lessor::next`] is sooner than before.
    pub(crate) fn granted(&mut self, id: i64, ttl: i64, now: Instant) -> bool {
        if self.term.is_none() {
            return false;
        }
        let before = self.next();
        self.insert(id, ttl, now + seconds(ttl));
        before.is_none_or(|before| self.next().is_some_and(|next| next < before))
    }

    /// A lease was revoked.
    pub(crate) fn ended(&mut self, id: i64) {
        if let Some(ended) = &mut self.ended_while_loading {
            ended.insert(id);
        }
        self.leases.remove(&id);
        // The places of leases that were revoked long before their time would stay until it has come.
        if self.leases.is_empty() || self.queue.len() > 2 * self.leases.len() + FEW {
            let leases = &self.leases;
            self.queue.retain(|Reverse((at, id))| {
                leases.get(id).is_some_and(|entry| entry.queued == *at)
            });
        }
    }

    fn knows_all(&self, term: u64) -> bool {
        self.term == Some(term) && self.ended_while_loading.is_none()
    }

    /// Gives a lease its full time again.
    pub(crate) fn renew(&mut self, term: u64, id: i64, now: Instant) -> Found {
        if !self.knows_all(term) {
            return Found::Elsewhere;
        }
        match self.leases.get_mut(&id) {
            None => Found::Missing,
            Some(entry) if entry.deadline <= now => Found::Expired,
            Some(entry) => {
                // A deadline that was put off when this member was elected must not come forward.
                entry.deadline = entry.deadline.max(now + seconds(entry.ttl));
                Found::Alive {
                    ttl: entry.ttl,
                    granted: entry.ttl,
                }
            }
        }
    }

    /// How long a lease lives.
    pub(crate) fn look(&self, term: u64, id: i64, now: Instant) -> Found {
        if !self.knows_all(term) {
            return Found::Elsewhere;
        }
        self.leases
            .get(&id)
            .map_or(Found::Missing, |entry| Found::Alive {
                ttl: left(entry.deadline, now),
                granted: entry.ttl,
            })
    }

    /// When a lease ends, where that is known.
    pub(crate) fn deadline(&self, id: i64) -> Option<Instant> {
        self.leases.get(&id).map(|entry| entry.deadline)
    }

    /// When to call [`Lessor::due`] next; `None`: there is nothing to wait for.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.queue.peek().map(|Reverse((at, _))| *at)
    }

    /// Takes at most `most` leases whose time is over, the earliest first. Each comes again after a while, until
    /// it has ended.
    pub(crate) fn due(&mut self, now: Instant, most: usize) -> Vec<i64> {
        let mut due = Vec::new();
        while due.len() < most
            && let Some(Reverse((at, id))) = self.queue.peek().copied()
            && at <= now
        {
            self.queue.pop();
            // A place that belongs to no lease, or to an earlier one of the same id, falls away.
            let Some(entry) = self.leases.get_mut(&id).filter(|entry| entry.queued == at) else {
                continue;
            };
            entry.queued = if entry.deadline > now {
                entry.deadline
            } else {
                due.push(id);
                now + RETRY
            };
            self.queue.push(Reverse((entry.queued, id)));
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERM: u64 = 3;
    const SECOND: Duration = Duration::from_secs(1);

    fn lease(id: i64, ttl: i64) -> Lease {
        Lease {
            id,
            ttl,
            remaining: 0,
        }
    }

    fn leading(leases: &[Lease], now: Instant) -> Lessor {
        let mut lessor = Lessor::default();
        lessor.lead(TERM);
        lessor.load(TERM, leases, SECOND, now);
        lessor
    }

    fn alive(ttl: i64, granted: i64) -> Found {
        Found::Alive { ttl, granted }
    }

    #[test]
    fn a_lease_is_due_when_its_time_is_over_and_again_until_it_ends() {
        let start = Instant::now();
        let mut lessor = leading(&[], start);
        assert!(lessor.granted(1, 5, start));
        assert!(
            !lessor.granted(2, 9, start),
            "a later one moves nothing forward"
        );
        assert_eq!(lessor.next(), Some(start + 5 * SECOND));
        assert!(lessor.due(start + 4 * SECOND, 9).is_empty());
        assert_eq!(lessor.due(start + 5 * SECOND, 9), [1]);
        assert!(lessor.due(start + 6 * SECOND, 9).is_empty());
        assert_eq!(lessor.due(start + 5 * SECOND + RETRY, 9), [2, 1]);
        lessor.ended(1);
        lessor.ended(2);
        assert_eq!(lessor.next(), None, "no leases, no timer");
    }

    #[test]
    fn a_renewal_puts_the_end_off() {
        let start = Instant::now();
        let mut lessor = leading(&[], start);
        lessor.granted(1, 5, start);
        assert_eq!(lessor.renew(TERM, 1, start + 4 * SECOND), alive(5, 5));
        assert_eq!(lessor.look(TERM, 1, start + 6 * SECOND), alive(3, 5));
        assert!(lessor.due(start + 5 * SECOND, 9).is_empty());
        assert_eq!(lessor.next(), Some(start + 9 * SECOND));
        assert_eq!(lessor.due(start + 9 * SECOND, 9), [1]);
    }

    #[test]
    fn an_expired_lease_is_not_renewed() {
        let start = Instant::now();
        let mut lessor = leading(&[], start);
        lessor.granted(1, 5, start);
        let over = start + 5 * SECOND;
        assert_eq!(lessor.renew(TERM, 1, over), Found::Expired);
        assert_eq!(lessor.look(TERM, 1, over), alive(0, 5));
        lessor.ended(1);
        assert_eq!(lessor.renew(TERM, 1, over), Found::Missing);
        assert_eq!(lessor.look(TERM, 1, over), Found::Missing);
    }

    #[test]
    fn a_new_leader_gives_all_leases_their_full_time_and_the_election_on_top() {
        let start = Instant::now();
        let checkpointed = Lease {
            remaining: 2,
            ..lease(2, 60)
        };
        let lessor = leading(&[lease(1, 60), checkpointed], start);
        assert_eq!(lessor.deadline(1), Some(start + 61 * SECOND));
        assert_eq!(lessor.deadline(2), Some(start + 3 * SECOND));
    }

    #[test]
    fn ends_are_spread_over_seconds_under_a_new_leader() {
        let start = Instant::now();
        let leases: Vec<Lease> = (1..=2000).map(|id| lease(id, 10)).collect();
        let mut lessor = leading(&leases, start);
        let counts: Vec<usize> = (11..14)
            .map(|second| {
                let due = lessor.due(start + second * SECOND, usize::MAX);
                due.iter().for_each(|id| lessor.ended(*id));
                due.len()
            })
            .collect();
        assert_eq!(counts, [750, 750, 500]);
    }

    #[test]
    fn what_happens_while_leases_are_read_counts() {
        let start = Instant::now();
        let mut lessor = Lessor::default();
        lessor.lead(TERM);
        assert_eq!(lessor.renew(TERM, 1, start), Found::Elsewhere);
        lessor.granted(3, 7, start);
        lessor.ended(2);
        lessor.load(
            TERM,
            &[lease(1, 5), lease(2, 5), lease(3, 7)],
            SECOND,
            start,
        );
        assert_eq!(lessor.look(TERM, 1, start), alive(6, 5));
        assert_eq!(lessor.look(TERM, 2, start), Found::Missing);
        assert_eq!(lessor.look(TERM, 3, start), alive(7, 7));
    }

    #[test]
    fn a_follower_knows_nothing() {
        let start = Instant::now();
        let mut lessor = leading(&[lease(1, 5)], start);
        assert_eq!(lessor.renew(TERM + 1, 1, start), Found::Elsewhere);
        lessor.follow();
        assert!(!lessor.granted(2, 5, start));
        assert_eq!(lessor.look(TERM, 1, start), Found::Elsewhere);
        assert_eq!(lessor.next(), None);
        lessor.load(TERM, &[lease(1, 5)], SECOND, start);
        assert_eq!(
            lessor.deadline(1),
            None,
            "leases read for an earlier term are dropped"
        );
    }

    #[test]
    fn an_id_that_is_granted_again_has_one_place() {
        let start = Instant::now();
        let mut lessor = leading(&[lease(9, 1000)], start);
        for _ in 0..3 {
            lessor.granted(1, 5, start);
            lessor.ended(1);
        }
        lessor.granted(1, 6, start);
        assert!(lessor.due(start + 5 * SECOND, 9).is_empty());
        assert_eq!(lessor.due(start + 6 * SECOND, 9), [1]);
        assert_eq!(lessor.queue.len(), 2);
    }

    #[test]
    fn leases_that_are_revoked_early_leave_nothing_behind() {
        let start = Instant::now();
        let mut lessor = leading(&[lease(9, 1000)], start);
        for id in 10..100_010 {
            lessor.granted(id, 1_000_000, start);
            lessor.ended(id);
        }
        assert!(lessor.queue.len() <= FEW + 3, "{}", lessor.queue.len());
        assert_eq!(lessor.due(start + 1001 * SECOND, 9), [9]);
    }

    #[test]
    fn no_more_are_taken_than_asked_for() {
        let start = Instant::now();
        let mut lessor = leading(&[], start);
        for id in 1..=5 {
            lessor.granted(id, 5, start);
        }
        let over = start + 5 * SECOND;
        assert_eq!(lessor.due(over, 3), [1, 2, 3]);
        assert_eq!(lessor.due(over, 3), [4, 5]);
    }
}
