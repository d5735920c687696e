//! The bound on the size of the state, `--quota-backend-bytes`.
//!
//! The size is the storage's own figure, dead versions included, so that what a client frees only counts once it is
//! compacted and defragmented away, as in etcd. Asking for it takes the storage's lock: it is sampled.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How old a sample may be. At a hundred thousand small writes a second the state grows by some MiB meanwhile.
const SAMPLE_AGE: Duration = Duration::from_millis(100);

/// The bound, and the last sample of the size.
#[derive(Debug)]
pub(crate) struct Quota {
    /// `None` when it is off.
    limit: Option<u64>,
    size: AtomicU64,
    /// Milliseconds after `started` from which on the sample is too old; 0 before the first.
    due: AtomicU64,
    started: Instant,
}

impl Quota {
    pub(crate) fn new(limit: Option<u64>) -> Self {
        Self {
            limit,
            size: AtomicU64::new(0),
            due: AtomicU64::new(0),
            started: Instant::now(),
        }
    }

    pub(crate) fn limit(&self) -> Option<u64> {
        self.limit
    }

    /// Whether the state may grow by `cost` bytes; `measure` tells its size.
    pub(crate) fn admits(&self, cost: u64, measure: impl FnOnce() -> u64) -> bool {
        let Some(limit) = self.limit else { return true };
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        if now >= self.due.load(Ordering::Relaxed) {
            let age = u64::try_from(SAMPLE_AGE.as_millis()).unwrap_or(u64::MAX);
            self.due.store(now.saturating_add(age), Ordering::Relaxed);
            self.size.store(measure(), Ordering::Relaxed);
        }
        self.size.load(Ordering::Relaxed).saturating_add(cost) < limit
    }

    /// Forgets the sample, after something that changed the size at one stroke.
    pub(crate) fn forget(&self) {
        self.due.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_itself_is_refused_and_a_sample_is_kept() {
        let quota = Quota::new(Some(1000));
        assert!(quota.admits(99, || 900));
        assert!(!quota.admits(100, || unreachable!("sampled already")));
        quota.forget();
        assert!(quota.admits(100, || 800));
    }

    #[test]
    fn without_a_bound_nothing_is_measured() {
        assert!(Quota::new(None).admits(u64::MAX, || unreachable!("off")));
    }
}
