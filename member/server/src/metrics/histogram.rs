//! Histograms with etcd's exponential buckets: each bound is twice the one before.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counts durations by how long they were.
#[derive(Debug)]
pub(crate) struct Histogram {
    first: Duration,
    /// Bounds and sums in milliseconds, not seconds.
    millis: bool,
    buckets: Box<[AtomicU64]>,
    count: AtomicU64,
    nanos: AtomicU64,
}

impl Histogram {
    pub(super) fn new(first: Duration, buckets: usize) -> Self {
        Self {
            first,
            millis: false,
            buckets: (0..buckets).map(|_| AtomicU64::new(0)).collect(),
            count: AtomicU64::new(0),
            nanos: AtomicU64::new(0),
        }
    }

    pub(super) fn in_millis(first: Duration, buckets: usize) -> Self {
        Self {
            millis: true,
            ..Self::new(first, buckets)
        }
    }

    pub(crate) fn observe(&self, duration: Duration) {
        self.observe_each(duration, 1);
    }

    /// `n` things that took `duration` each.
    pub(super) fn observe_each(&self, duration: Duration, n: u64) {
        let mut bound = self.first;
        for bucket in &self.buckets {
            if duration <= bound {
                bucket.fetch_add(n, Ordering::Relaxed);
                break;
            }
            bound *= 2;
        }
        self.count.fetch_add(n, Ordering::Relaxed);
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.nanos
            .fetch_add(nanos.saturating_mul(n), Ordering::Relaxed);
    }

    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    pub(super) fn total(&self) -> Duration {
        Duration::from_nanos(self.nanos.load(Ordering::Relaxed))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count() == 0
    }

    fn scaled(&self, duration: Duration) -> f64 {
        // One division of whole numbers, so that a bound is the nearest number to what Go prints.
        duration.as_nanos() as f64 / if self.millis { 1e6 } else { 1e9 }
    }

    /// The lines of one family, whose labels are `labels`, each followed by a comma.
    pub(super) fn render(&self, out: &mut String, name: &str, labels: &str) {
        let mut bound = self.first;
        let mut below = 0;
        for bucket in &self.buckets {
            below += bucket.load(Ordering::Relaxed);
            let le = self.scaled(bound);
            let _ = writeln!(out, "{name}_bucket{{{labels}le=\"{le}\"}} {below}");
            bound *= 2;
        }
        let count = self.count();
        let sum = self.scaled(Duration::from_nanos(self.nanos.load(Ordering::Relaxed)));
        let _ = writeln!(out, "{name}_bucket{{{labels}le=\"+Inf\"}} {count}");
        let outer = labels.trim_end_matches(',');
        let outer = if outer.is_empty() {
            String::new()
        } else {
            format!("{{{outer}}}")
        };
        let _ = writeln!(out, "{name}_sum{outer} {sum}\n{name}_count{outer} {count}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_printed_as_go_prints_them() {
        let render = |histogram: &Histogram, labels| {
            let mut out = String::new();
            histogram.render(&mut out, "x", labels);
            out
        };
        let micros = Histogram::new(Duration::from_micros(100), 20);
        micros.observe_each(Duration::from_micros(150), 3);
        let text = render(&micros, "To=\"a\",");
        for line in [
            "x_bucket{To=\"a\",le=\"0.0001\"} 0\n",
            "x_bucket{To=\"a\",le=\"0.0002\"} 3\n",
            "x_bucket{To=\"a\",le=\"1.6384\"} 3\n",
            "x_bucket{To=\"a\",le=\"52.4288\"} 3\n",
            "x_bucket{To=\"a\",le=\"+Inf\"} 3\n",
            "x_count{To=\"a\"} 3\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
        let millis = Histogram::in_millis(Duration::from_millis(100), 14);
        millis.observe(Duration::from_millis(250));
        let text = render(&millis, "");
        for line in [
            "x_bucket{le=\"100\"} 0\n",
            "x_bucket{le=\"819200\"} 1\n",
            "x_sum 250\n",
            "x_count 1\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
    }
}
