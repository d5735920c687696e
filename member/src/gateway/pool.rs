//! Which endpoint the next connection goes to.
//!
//! RFC 2782: among those that live, the lowest priority; within it, by weight. The shares are kept by a smooth round
//! robin and not by chance, so that few connections are shared fairly too.

use std::sync::{Mutex, MutexGuard, PoisonError};

use member_discovery::Record;

/// A record of weight 0 beside weighted ones gets next to nothing, and yet something.
const SCALE: i64 = 100;

struct Endpoint {
    record: Record,
    alive: bool,
    /// How much it is owed.
    credit: i64,
}

/// The endpoints and what is known of them.
pub(super) struct Pool(Mutex<Vec<Endpoint>>);

impl Pool {
    pub(super) fn new(records: Vec<Record>) -> Self {
        let endpoints = records.into_iter().map(|record| Endpoint {
            record,
            alive: true,
            credit: 0,
        });
        Self(Mutex::new(endpoints.collect()))
    }

    /// The endpoint whose turn it is; None when none is alive.
    pub(super) fn next(&self) -> Option<Record> {
        let mut endpoints = self.lock();
        let best = endpoints
            .iter()
            .filter(|endpoint| endpoint.alive)
            .map(|endpoint| endpoint.record.priority)
            .min()?;
        let mut candidates: Vec<&mut Endpoint> = endpoints
            .iter_mut()
            .filter(|endpoint| endpoint.alive && endpoint.record.priority == best)
            .collect();
        let weighted = candidates.iter().any(|endpoint| endpoint.record.weight > 0);
        let mut total = 0;
        for endpoint in &mut candidates {
            let share = if weighted {
                (i64::from(endpoint.record.weight) * SCALE).max(1)
            } else {
                1
            };
            endpoint.credit += share;
            total += share;
        }
        // The first of equals, so that the order of the list is that of the turns.
        let turn = candidates
            .into_iter()
            .rev()
            .max_by_key(|endpoint| endpoint.credit)?;
        turn.credit -= total;
        Some(turn.record.clone())
    }

    /// Sets an endpoint aside, or takes it back; whether that changes anything.
    pub(super) fn mark(&self, record: &Record, alive: bool) -> bool {
        let mut endpoints = self.lock();
        let found = endpoints
            .iter_mut()
            .find(|endpoint| endpoint.record == *record && endpoint.alive != alive);
        match found {
            Some(endpoint) => {
                endpoint.alive = alive;
                endpoint.credit = 0;
                true
            }
            None => false,
        }
    }

    /// Those that were set aside.
    pub(super) fn dead(&self) -> Vec<Record> {
        let endpoints = self.lock();
        let dead = endpoints.iter().filter(|endpoint| !endpoint.alive);
        dead.map(|endpoint| endpoint.record.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Endpoint>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(target: &str, priority: u16, weight: u16) -> Record {
        Record {
            target: target.to_owned(),
            port: 1,
            priority,
            weight,
        }
    }

    fn turns(pool: &Pool, count: usize) -> String {
        (0..count)
            .filter_map(|_| pool.next())
            .map(|record| record.target)
            .collect()
    }

    #[test]
    fn equals_take_turns_and_the_dead_are_passed_over() {
        let pool = Pool::new(["a", "b", "c"].map(|name| record(name, 0, 0)).into());
        assert_eq!(turns(&pool, 6), "abcabc");
        assert!(pool.mark(&record("b", 0, 0), false));
        assert!(!pool.mark(&record("b", 0, 0), false), "already");
        assert!(!turns(&pool, 6).contains('b'));
        assert_eq!(pool.dead(), [record("b", 0, 0)]);
        assert!(pool.mark(&record("b", 0, 0), true));
        assert_eq!(turns(&pool, 3).len(), 3);
    }

    #[test]
    fn the_lowest_priority_comes_first_and_the_next_when_it_is_dead() {
        let pool = Pool::new(vec![record("b", 20, 0), record("a", 10, 0)]);
        assert_eq!(turns(&pool, 3), "aaa");
        pool.mark(&record("a", 10, 0), false);
        assert_eq!(turns(&pool, 2), "bb");
        pool.mark(&record("b", 20, 0), false);
        assert_eq!(pool.next(), None);
    }

    #[test]
    fn weights_are_shares() {
        let pool = Pool::new(vec![
            record("a", 0, 3),
            record("b", 0, 1),
            record("c", 0, 0),
        ]);
        let turns = turns(&pool, 4000);
        let share = |name| turns.matches(name).count();
        assert!((2980..3000).contains(&share("a")), "{}", share("a"));
        assert!((980..1005).contains(&share("b")), "{}", share("b"));
        assert!((1..20).contains(&share("c")), "{}", share("c"));
    }
}
