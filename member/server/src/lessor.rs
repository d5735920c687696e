//! When leases end: the leader's clockwork, as a pure function of what it is told and the time.
//!
//! Only a leader has deadlines. It makes them anew from the replicated leases when it is elected, so a change of
//! leaders prolongs leases and never shortens them. Renewals live here alone; nothing of them is replicated, but that
//! they undo a checkpoint: what was left of a long lease, recorded so that a change of leaders prolongs it by less.
//!
//! Does not revoke or record: it says what is due, and hears from the state what became of it.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::time::{Duration, Instant};

use member_state::{Lease, LeaseRemainder};

/// A revocation that had no effect after this long is asked for again; more than a request's own deadline with the
/// default timeouts, so that one is seldom proposed twice.
const RETRY: Duration = Duration::from_secs(8);

/// Leases that may end within one second of a new leader's reign: etcd's figure, three quarters of what a leader
/// revokes in a second, so that those which end later are not held up.
const ENDS_PER_SECOND: usize = 750;

/// How often what is left of a lease is recorded; shorter leases are not. etcd's figure.
pub(crate) const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(5 * 60);

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

/// Whether the replicated lease says that less than its TTL is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Remainder {
    None,
    /// It says so, or may: a new leader would shorten what is renewed.
    Recorded,
    /// It is being changed.
    Changing,
}

#[derive(Debug)]
struct Entry {
    ttl: i64,
    deadline: Instant,
    /// When the lease's place in the queue comes up. A renewal moves the deadline and leaves the place where it is.
    queued: Instant,
    /// Its other place, at which what is left is recorded.
    checkpoint: Option<Instant>,
    remainder: Remainder,
}

/// What is heard of leases while a new leader reads them.
#[derive(Debug, Default)]
struct Meanwhile {
    ended: HashSet<i64>,
    recorded: HashMap<i64, i64>,
}

/// The deadlines of a leader's leases.
#[derive(Debug, Default)]
pub(crate) struct Lessor {
    /// The term in which this member leads.
    term: Option<u64>,
    leases: HashMap<i64, Entry>,
    queue: BinaryHeap<Reverse<(Instant, i64)>>,
    /// Until a new leader has read its leases.
    meanwhile: Option<Meanwhile>,
    checkpoints: bool,
    /// What is to be recorded; 0 for a lease that was renewed.
    remainders: Vec<LeaseRemainder>,
}

fn seconds(ttl: i64) -> Duration {
    Duration::from_secs(u64::try_from(ttl).unwrap_or(0))
}

/// Whole seconds, as etcd counts them: what is begun is not counted.
fn left(deadline: Instant, now: Instant) -> i64 {
    let left = deadline.saturating_duration_since(now).as_secs();
    i64::try_from(left).unwrap_or(i64::MAX)
}

/// When what is left of a lease is next recorded.
fn next_checkpoint(enabled: bool, deadline: Instant, now: Instant) -> Option<Instant> {
    let at = now + CHECKPOINT_INTERVAL;
    (enabled && at < deadline).then_some(at)
}

impl Lessor {
    /// A member that does not lead; `checkpoints`: whether it records what is left of leases when it does.
    pub(crate) fn new(checkpoints: bool) -> Self {
        Self {
            checkpoints,
            ..Self::default()
        }
    }

    /// This member leads from now on; what it is told of leases counts, and [`Lessor::load`] must follow.
    pub(crate) fn lead(&mut self, term: u64) {
        *self = Self {
            term: Some(term),
            meanwhile: Some(Meanwhile::default()),
            ..Self::new(self.checkpoints)
        };
    }

    /// This member does not lead.
    pub(crate) fn follow(&mut self) {
        *self = Self::new(self.checkpoints);
    }

    /// Takes over the leases that were found in the state after [`Lessor::lead`]. Each gets its full time, or what
    /// was left of it at its last checkpoint, and `extend` on top: what an election may have taken from its holder.
    pub(crate) fn load(&mut self, term: u64, found: &[Lease], extend: Duration, now: Instant) {
        if self.term != Some(term) {
            return;
        }
        let Some(meanwhile) = self.meanwhile.take() else {
            return;
        };
        let mut loaded: Vec<(Instant, Lease)> = found
            .iter()
            .filter(|lease| {
                !meanwhile.ended.contains(&lease.id) && !self.leases.contains_key(&lease.id)
            })
            .map(|lease| {
                let recorded = meanwhile.recorded.get(&lease.id);
                let remaining = recorded.copied().unwrap_or(lease.remaining);
                let rest = if remaining > 0 { remaining } else { lease.ttl };
                (
                    now + seconds(rest) + extend,
                    Lease {
                        remaining,
                        ..*lease
                    },
                )
            })
            .collect();
        loaded.sort_unstable_by_key(|(deadline, lease)| (*deadline, lease.id));
        for at in ENDS_PER_SECOND..loaded.len() {
            let earliest = loaded[at - ENDS_PER_SECOND].0 + Duration::from_secs(1);
            loaded[at].0 = loaded[at].0.max(earliest);
        }
        for (deadline, lease) in loaded {
            self.insert(lease, deadline, now);
        }
    }

    fn insert(&mut self, lease: Lease, deadline: Instant, now: Instant) {
        let checkpoint = next_checkpoint(self.checkpoints, deadline, now);
        let entry = Entry {
            ttl: lease.ttl,
            deadline,
            queued: deadline,
            checkpoint,
            remainder: if lease.remaining > 0 {
                Remainder::Recorded
            } else {
                Remainder::None
            },
        };
        self.leases.insert(lease.id, entry);
        for at in checkpoint.into_iter().chain([deadline]) {
            self.queue.push(Reverse((at, lease.id)));
        }
    }

    /// A lease was granted. Whether [`Lessor::next`] is sooner than before.
    pub(crate) fn granted(&mut self, id: i64, ttl: i64, now: Instant) -> bool {
        if self.term.is_none() {
            return false;
        }
        let before = self.next();
        let lease = Lease {
            id,
            ttl,
            remaining: 0,
        };
        self.insert(lease, now + seconds(ttl), now);
        before.is_none_or(|before| self.next().is_some_and(|next| next < before))
    }

    /// A lease was revoked.
    pub(crate) fn ended(&mut self, id: i64) {
        if let Some(meanwhile) = &mut self.meanwhile {
            meanwhile.ended.insert(id);
        }
        self.leases.remove(&id);
        // The places of leases that were revoked long before their time would stay until it has come.
        if self.leases.is_empty() || self.queue.len() > 4 * self.leases.len() + FEW {
            let leases = &self.leases;
            self.queue.retain(|Reverse((at, id))| {
                let entry = leases.get(id);
                entry.is_some_and(|entry| entry.queued == *at || entry.checkpoint == Some(*at))
            });
        }
    }

    /// What is left of a lease was recorded; 0: that it has its TTL.
    pub(crate) fn recorded(&mut self, id: i64, remaining: i64) {
        if let Some(meanwhile) = &mut self.meanwhile {
            meanwhile.recorded.insert(id, remaining);
        }
        if let Some(entry) = self.leases.get_mut(&id) {
            entry.remainder = if remaining > 0 {
                Remainder::Recorded
            } else {
                Remainder::None
            };
        }
    }

    /// Whether that was recorded is not known, and may yet be.
    pub(crate) fn unrecorded(&mut self, remainders: &[LeaseRemainder]) {
        for remainder in remainders {
            if let Some(entry) = self.leases.get_mut(&remainder.id)
                && entry.remainder == Remainder::Changing
            {
                entry.remainder = Remainder::Recorded;
            }
        }
    }

    /// Whether there is something to be recorded.
    pub(crate) fn has_remainders(&self) -> bool {
        !self.remainders.is_empty()
    }

    /// Takes at most `most` of what is to be recorded.
    pub(crate) fn remainders(&mut self, most: usize) -> Vec<LeaseRemainder> {
        let some = self.remainders.len().min(most);
        self.remainders.drain(..some).collect()
    }

    fn knows_all(&self, term: u64) -> bool {
        self.term == Some(term) && self.meanwhile.is_none()
    }

    /// Gives a lease its full time again. Of a lease with a recorded remainder nobody is told so before that is undone:
    /// [`Found::Elsewhere`] until then, and [`Lessor::remainders`] has what to record.
    pub(crate) fn renew(&mut self, term: u64, id: i64, now: Instant) -> Found {
        if !self.knows_all(term) {
            return Found::Elsewhere;
        }
        let Some(entry) = self.leases.get_mut(&id) else {
            return Found::Missing;
        };
        if entry.deadline <= now {
            return Found::Expired;
        }
        // A deadline that was put off when this member was elected must not come forward.
        entry.deadline = entry.deadline.max(now + seconds(entry.ttl));
        match entry.remainder {
            Remainder::Changing => return Found::Elsewhere,
            Remainder::Recorded => {
                entry.remainder = Remainder::Changing;
                self.remainders.push(LeaseRemainder { id, remaining: 0 });
                return Found::Elsewhere;
            }
            Remainder::None => {}
        }
        if entry.checkpoint.is_none() {
            entry.checkpoint = next_checkpoint(self.checkpoints, entry.deadline, now);
            self.queue
                .extend(entry.checkpoint.map(|at| Reverse((at, id))));
        }
        Found::Alive {
            ttl: entry.ttl,
            granted: entry.ttl,
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
    /// it has ended. What is left of others may have to be recorded afterwards.
    pub(crate) fn due(&mut self, now: Instant, most: usize) -> Vec<i64> {
        let mut due = Vec::new();
        while due.len() < most
            && let Some(Reverse((at, id))) = self.queue.peek().copied()
            && at <= now
        {
            self.queue.pop();
            // A place that belongs to no lease, or to an earlier one of the same id, falls away.
            let Some(entry) = self.leases.get_mut(&id) else {
                continue;
            };
            if entry.checkpoint == Some(at) {
                entry.checkpoint = next_checkpoint(self.checkpoints, entry.deadline, now);
                self.queue
                    .extend(entry.checkpoint.map(|at| Reverse((at, id))));
                // A second that is begun counts: the holder must not be given less than it was promised.
                let remaining = left(entry.deadline, now).saturating_add(1);
                if remaining < entry.ttl
                    && entry.deadline > now
                    && entry.remainder != Remainder::Changing
                {
                    entry.remainder = Remainder::Changing;
                    self.remainders.push(LeaseRemainder { id, remaining });
                }
                continue;
            }
            if entry.queued != at {
                continue;
            }
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
        let mut lessor = Lessor::new(true);
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
        let mut lessor = leading(&[lease(9, 250)], start);
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

    fn remainder(id: i64, remaining: i64) -> LeaseRemainder {
        LeaseRemainder { id, remaining }
    }

    #[test]
    fn what_is_left_of_a_long_lease_is_recorded_every_five_minutes() {
        let start = Instant::now();
        let mut lessor = leading(&[], start);
        lessor.granted(2, 300, start);
        assert_eq!(lessor.next(), Some(start + 300 * SECOND));
        lessor.ended(2);
        lessor.granted(1, 700, start);
        assert!(lessor.due(start + 299 * SECOND, 9).is_empty());
        assert!(lessor.remainders(9).is_empty());
        assert!(lessor.due(start + 300 * SECOND, 9).is_empty());
        assert_eq!(lessor.remainders(9), [remainder(1, 401)]);
        lessor.recorded(1, 401);
        assert_eq!(lessor.next(), Some(start + 600 * SECOND));
        assert!(lessor.due(start + 600 * SECOND, 9).is_empty());
        assert_eq!(lessor.remainders(9), [remainder(1, 101)]);
        assert_eq!(lessor.next(), Some(start + 700 * SECOND));
    }

    #[test]
    fn a_lease_that_was_just_renewed_has_nothing_to_record() {
        let start = Instant::now();
        let mut lessor = leading(&[], start);
        lessor.granted(1, 700, start);
        assert_eq!(lessor.renew(TERM, 1, start + 300 * SECOND), alive(700, 700));
        assert!(lessor.due(start + 300 * SECOND, 9).is_empty());
        assert!(lessor.remainders(9).is_empty());
    }

    #[test]
    fn a_renewal_counts_when_the_recorded_remainder_is_undone() {
        let start = Instant::now();
        let mut lessor = leading(&[], start);
        lessor.granted(1, 700, start);
        lessor.due(start + 300 * SECOND, 9);
        let at = start + 301 * SECOND;
        assert_eq!(
            lessor.renew(TERM, 1, at),
            Found::Elsewhere,
            "it may be recorded after the renewal"
        );
        assert_eq!(lessor.remainders(9), [remainder(1, 401)]);
        lessor.recorded(1, 401);
        assert_eq!(lessor.renew(TERM, 1, at), Found::Elsewhere);
        assert_eq!(lessor.renew(TERM, 1, at), Found::Elsewhere);
        assert_eq!(lessor.remainders(9), [remainder(1, 0)], "once");
        lessor.unrecorded(&[remainder(1, 0)]);
        assert_eq!(lessor.renew(TERM, 1, at), Found::Elsewhere);
        assert_eq!(lessor.remainders(9), [remainder(1, 0)]);
        lessor.recorded(1, 0);
        assert_eq!(lessor.renew(TERM, 1, at), alive(700, 700));
        assert!(lessor.remainders(9).is_empty());
        assert_eq!(lessor.deadline(1), Some(at + 700 * SECOND));
    }

    #[test]
    fn a_new_leader_undoes_what_an_earlier_one_recorded() {
        let start = Instant::now();
        let mut lessor = Lessor::new(false);
        lessor.lead(TERM);
        lessor.recorded(1, 50);
        lessor.recorded(2, 0);
        let stale = Lease {
            remaining: 9,
            ..lease(2, 60)
        };
        lessor.load(TERM, &[lease(1, 60), stale], SECOND, start);
        assert_eq!(lessor.deadline(1), Some(start + 51 * SECOND));
        assert_eq!(lessor.deadline(2), Some(start + 61 * SECOND));
        assert_eq!(lessor.renew(TERM, 1, start), Found::Elsewhere);
        assert_eq!(lessor.remainders(9), [remainder(1, 0)]);
        assert_eq!(lessor.renew(TERM, 2, start), alive(60, 60));
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
