//! Stands in for the crate `base2histogram` 0.2.3, in which openraft keeps its statistics.
//!
//! The first use of the real one computes tables for sixteen precisions, of which openraft uses one: 20 MB resident in
//! every member for as long as it runs, seven tenths of what an idle member held. Here a value is counted by its power
//! of two, which is enough for statistics that this project does not show. To be dropped with the release of openraft
//! that no longer needs it. Covers what openraft calls, nothing else.

use std::fmt;
use std::marker::PhantomData;

const BUCKETS: usize = u64::BITS as usize + 1;

/// Counts values by their power of two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    counts: [u64; BUCKETS],
    data: PhantomData<T>,
}

impl<T> Histogram<T> {
    /// An empty histogram.
    #[must_use]
    pub fn new() -> Self {
        Self {
            counts: [0; BUCKETS],
            data: PhantomData,
        }
    }

    /// Counts a value.
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Counts a value `count` times.
    pub fn record_n(&mut self, value: u64, count: u64) {
        self.counts[(u64::BITS - value.leading_zeros()) as usize] += count;
    }

    /// How many values were counted.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The lower bound of the bucket in which the value of this rank, in thousandths, lies.
    fn per_mille(&self, rank: u64) -> u64 {
        let wanted = (self.total() * rank).div_ceil(1000).max(1);
        let mut below = 0;
        for (bits, count) in self.counts.iter().enumerate() {
            below += count;
            if below >= wanted {
                return if bits == 0 { 0 } else { 1 << (bits - 1) };
            }
        }
        0
    }

    /// A summary.
    #[must_use]
    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats {
            samples: self.total(),
            p0_1: self.per_mille(1),
            p1: self.per_mille(10),
            p5: self.per_mille(50),
            p10: self.per_mille(100),
            p50: self.per_mille(500),
            p90: self.per_mille(900),
            p99: self.per_mille(990),
            p99_9: self.per_mille(999),
        }
    }
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// A summary of a histogram: lower bounds of the percentiles' buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct PercentileStats {
    pub samples: u64,
    pub p0_1: u64,
    pub p1: u64,
    pub p5: u64,
    pub p10: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "n={} p50={} p90={} p99={}",
            self.samples, self.p50, self.p90, self.p99
        )
    }
}

/// Summaries one below the other.
#[derive(Clone, Debug, Default)]
pub struct AsciiChart {
    rows: Vec<(String, PercentileStats)>,
}

impl AsciiChart {
    /// An empty chart.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a row.
    #[must_use]
    pub fn add(mut self, name: impl Into<String>, histogram: Histogram) -> Self {
        self.rows.push((name.into(), histogram.percentile_stats()));
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, stats) in &self.rows {
            writeln!(f, "{name}: {stats}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_the_lower_bounds_of_their_buckets() {
        let mut histogram = Histogram::<()>::new();
        assert_eq!(histogram.percentile_stats().p99, 0, "empty");
        (0..100).for_each(|value| histogram.record(value));
        let stats = histogram.percentile_stats();
        assert_eq!(
            (stats.samples, stats.p1, stats.p50, stats.p99),
            (100, 0, 32, 64)
        );
    }
}
