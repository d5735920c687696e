//! What is measured, what is aimed at, and whether it was reached. Pure.
//!
//! A figure is the median over the rounds, with the lowest and the highest beside it. Each round is judged as well, because the
//! two binaries of a round ran within minutes of each other: where the rounds disagree with the median, the verdict says so.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Serialize, Serializer};

/// What is measured, in the report's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Metric {
    /// `up` from nothing to the first acknowledged write.
    FirstWrite,
    /// `up` with nothing to do.
    Unchanged,
    /// Memory of the largest member before any load.
    IdleMemory,
    /// Memory of the largest member after the puts.
    LoadedMemory,
    /// Time to load many keys.
    ManyKeysLoad,
    /// Memory of the largest member that holds many keys.
    ManyKeysMemory,
    /// The same after a restart.
    ManyKeysMemoryRestarted,
    /// From the start of stopped members that hold many keys until all are ready.
    ManyKeysRestart,
    /// Time to take a snapshot of many keys.
    ManyKeysSnapshot,
    /// A figure of a load.
    Load {
        /// What the clients did.
        kind: Kind,
        /// How many there were.
        clients: usize,
        /// What was measured of it.
        figure: Figure,
    },
}

/// What clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Put,
    Linearizable,
    Serializable,
    Txn,
    Some,
    Page,
    /// The same out of many keys.
    PageOfMany,
    /// Clients that watch one key; the figures are those of the events.
    WatchOne,
    /// Clients that watch a key each.
    WatchDistinct,
    /// Clients that keep a lease each alive.
    KeepAlive,
}

/// What is measured of a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Figure {
    Throughput,
    P50,
    P99,
    /// Of all members together.
    ServerCpu,
    GeneratorCpu,
}

/// An aim for a metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Aim {
    Below(f64),
    RatioAtLeast(f64),
    RatioAtMost(f64),
}

/// A metric's samples in short.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Summary {
    pub(super) median: f64,
    pub(super) lowest: f64,
    pub(super) highest: f64,
    pub(super) samples: Vec<f64>,
}

/// Whether the aims were reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    Pass,
    Short,
}

/// A metric, judged.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Row {
    #[serde(serialize_with = "as_text")]
    pub(super) metric: Metric,
    pub(super) unit: &'static str,
    pub(super) ours: Summary,
    pub(super) theirs: Option<Summary>,
    /// Our median over theirs.
    pub(super) ratio: Option<f64>,
    #[serde(serialize_with = "as_texts")]
    pub(super) aims: Vec<Aim>,
    pub(super) verdict: Option<Verdict>,
    /// Whether every single round gives the same verdict as the medians.
    pub(super) rounds_agree: bool,
}

/// Judges all metrics. `loaded_memory`: whether enough was written for that target to apply.
pub(super) fn judge(
    ours: &BTreeMap<Metric, Vec<f64>>,
    theirs: Option<&BTreeMap<Metric, Vec<f64>>>,
    loaded_memory: bool,
) -> Vec<Row> {
    ours.iter()
        .filter(|(_, samples)| !samples.is_empty())
        .map(|(metric, ours)| {
            let theirs = theirs
                .and_then(|theirs| theirs.get(metric))
                .filter(|samples| !samples.is_empty());
            let mut aims = metric.aims();
            if (*metric == Metric::LoadedMemory && !loaded_memory) || theirs.is_none() {
                let applies = *metric != Metric::LoadedMemory || loaded_memory;
                aims.retain(|aim| applies && matches!(aim, Aim::Below(_)));
            }
            let (ours, theirs) = (
                Summary::of(ours),
                theirs.map(|samples| Summary::of(samples)),
            );
            let ratio = theirs.as_ref().map(|theirs| ours.median / theirs.median);
            let verdict = Verdict::of(&aims, ours.median, ratio);
            let single = |(round, value): (usize, &f64)| {
                let other = theirs
                    .as_ref()
                    .map(|theirs| theirs.samples.get(round).unwrap_or(&theirs.median));
                Verdict::of(&aims, *value, other.map(|other| value / other))
            };
            let rounds_agree = ours
                .samples
                .iter()
                .enumerate()
                .map(single)
                .all(|single| single == verdict);
            Row {
                metric: *metric,
                unit: metric.unit(),
                ours,
                theirs,
                ratio,
                aims,
                verdict,
                rounds_agree,
            }
        })
        .collect()
}

impl Metric {
    /// The targets that the project has set itself.
    fn aims(self) -> Vec<Aim> {
        match self {
            Self::FirstWrite => vec![Aim::Below(1000.0), Aim::RatioAtMost(0.5)],
            Self::Unchanged => vec![Aim::Below(200.0)],
            Self::IdleMemory => vec![Aim::Below(24.0)],
            Self::LoadedMemory => vec![Aim::Below(80.0)],
            Self::ManyKeysLoad
            | Self::ManyKeysMemory
            | Self::ManyKeysMemoryRestarted
            | Self::ManyKeysRestart
            | Self::ManyKeysSnapshot => vec![Aim::RatioAtMost(1.0)],
            Self::Load {
                kind: Kind::WatchOne | Kind::WatchDistinct,
                figure,
                ..
            } => match figure {
                Figure::P99 => vec![Aim::RatioAtMost(1.0)],
                _ => Vec::new(),
            },
            Self::Load {
                kind: Kind::KeepAlive,
                figure,
                ..
            } => match figure {
                Figure::Throughput => vec![Aim::RatioAtLeast(1.0)],
                _ => Vec::new(),
            },
            // Of all members, but only one answers: the read of another member costs the leader nothing to speak of.
            Self::Load {
                kind: Kind::PageOfMany,
                figure: Figure::ServerCpu,
                ..
            } => vec![Aim::Below(1000.0)],
            // A single client measures the network and the disk, and serializable gets need no quorum: no worse than the other.
            Self::Load {
                clients: 1, figure, ..
            }
            | Self::Load {
                kind: Kind::Serializable,
                figure,
                ..
            } => match figure {
                Figure::Throughput => vec![Aim::RatioAtLeast(1.0)],
                _ => Vec::new(),
            },
            Self::Load { figure, .. } => match figure {
                Figure::Throughput => vec![Aim::RatioAtLeast(1.5)],
                Figure::P99 => vec![Aim::RatioAtMost(0.7)],
                Figure::ServerCpu => vec![Aim::RatioAtMost(0.6)],
                Figure::P50 | Figure::GeneratorCpu => Vec::new(),
            },
        }
    }

    fn unit(self) -> &'static str {
        match self {
            Self::FirstWrite
            | Self::Unchanged
            | Self::ManyKeysLoad
            | Self::ManyKeysRestart
            | Self::ManyKeysSnapshot => "ms",
            Self::IdleMemory
            | Self::LoadedMemory
            | Self::ManyKeysMemory
            | Self::ManyKeysMemoryRestarted => "MiB",
            Self::Load { figure, .. } => match figure {
                Figure::Throughput => "/s",
                Figure::P50 | Figure::P99 => "ms",
                Figure::ServerCpu | Figure::GeneratorCpu => "us",
            },
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FirstWrite => f.write_str("up to first write"),
            Self::Unchanged => f.write_str("up without change"),
            Self::IdleMemory => f.write_str("memory, idle"),
            Self::LoadedMemory => f.write_str("memory after the puts"),
            Self::ManyKeysLoad => f.write_str("many keys: loaded after"),
            Self::ManyKeysMemory => f.write_str("many keys: memory"),
            Self::ManyKeysMemoryRestarted => f.write_str("many keys: memory after a restart"),
            Self::ManyKeysRestart => f.write_str("many keys: restart until ready"),
            Self::ManyKeysSnapshot => f.write_str("many keys: snapshot taken after"),
            Self::Load {
                kind,
                clients,
                figure,
            } => {
                let what = match figure {
                    Figure::Throughput => "throughput",
                    Figure::P50 => "p50",
                    Figure::P99 => "p99",
                    Figure::ServerCpu => "server CPU",
                    Figure::GeneratorCpu => "generator CPU",
                };
                let clients = if *clients == 1 {
                    "1 client".to_owned()
                } else {
                    format!("{clients} clients")
                };
                write!(f, "{kind}, {clients}: {what}")
            }
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Put => "put",
            Self::Linearizable => "get",
            Self::Serializable => "serializable get",
            Self::Txn => "txn",
            Self::Some => "get of 1000 keys",
            Self::Page => "page of 500",
            Self::PageOfMany => "many keys: page of 500",
            Self::WatchOne => "watch of one key",
            Self::WatchDistinct => "watch of distinct keys",
            Self::KeepAlive => "lease keepalive",
        })
    }
}

impl Aim {
    fn reached(self, value: f64, ratio: Option<f64>) -> bool {
        match self {
            Self::Below(limit) => value < limit,
            Self::RatioAtLeast(limit) => ratio.is_some_and(|ratio| ratio >= limit),
            Self::RatioAtMost(limit) => ratio.is_some_and(|ratio| ratio <= limit),
        }
    }
}

impl fmt::Display for Aim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Below(limit) => write!(f, "< {limit}"),
            Self::RatioAtLeast(limit) => write!(f, ">= x{limit}"),
            Self::RatioAtMost(limit) => write!(f, "<= x{limit}"),
        }
    }
}

impl Summary {
    fn of(samples: &[f64]) -> Self {
        let mut sorted = samples.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let median = match sorted.len() {
            0 => f64::NAN,
            even if even % 2 == 0 => f64::midpoint(sorted[middle - 1], sorted[middle]),
            _ => sorted[middle],
        };
        let end = |value: Option<&f64>| value.copied().unwrap_or(f64::NAN);
        Self {
            median,
            lowest: end(sorted.first()),
            highest: end(sorted.last()),
            samples: samples.to_vec(),
        }
    }
}

impl Verdict {
    fn of(aims: &[Aim], value: f64, ratio: Option<f64>) -> Option<Self> {
        let reached = aims.iter().all(|aim| aim.reached(value, ratio));
        (!aims.is_empty()).then_some(if reached { Self::Pass } else { Self::Short })
    }
}

fn as_text<S: Serializer>(metric: &Metric, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(metric)
}

fn as_texts<S: Serializer>(aims: &[Aim], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(aims.iter().map(ToString::to_string))
}

#[cfg(test)]
mod tests {
    use super::*;

    const THROUGHPUT: Metric = Metric::Load {
        kind: Kind::Put,
        clients: 100,
        figure: Figure::Throughput,
    };

    fn row(metric: Metric, ours: &[f64], theirs: Option<&[f64]>) -> Row {
        let of = |samples: &[f64]| BTreeMap::from([(metric, samples.to_vec())]);
        judge(&of(ours), theirs.map(of).as_ref(), true).remove(0)
    }

    #[test]
    fn the_median_is_judged_and_the_spread_kept() {
        let row = row(
            THROUGHPUT,
            &[300.0, 100.0, 200.0],
            Some(&[100.0, 100.0, 100.0]),
        );
        assert_eq!(
            (row.ours.median, row.ours.lowest, row.ours.highest),
            (200.0, 100.0, 300.0)
        );
        assert_eq!((row.ratio, row.verdict), (Some(2.0), Some(Verdict::Pass)));
        assert!(!row.rounds_agree, "the second round is short");
        assert_eq!(Summary::of(&[1.0, 3.0]).median, 2.0);
    }

    #[test]
    fn a_ratio_is_taken_within_each_round() {
        let row = row(
            THROUGHPUT,
            &[200.0, 20.0, 400.0],
            Some(&[100.0, 10.0, 200.0]),
        );
        assert_eq!((row.verdict, row.rounds_agree), (Some(Verdict::Pass), true));
    }

    #[test]
    fn both_targets_of_the_first_write_must_be_reached() {
        for (ours, theirs, verdict) in [
            (900.0, 2000.0, Verdict::Pass),
            (900.0, 1000.0, Verdict::Short),
            (1000.0, 4000.0, Verdict::Short),
        ] {
            assert_eq!(
                row(Metric::FirstWrite, &[ours], Some(&[theirs])).verdict,
                Some(verdict),
                "{ours} {theirs}"
            );
        }
    }

    #[test]
    fn without_a_second_binary_only_absolute_targets_remain() {
        assert_eq!(row(THROUGHPUT, &[1.0], None).verdict, None);
        let first = row(Metric::FirstWrite, &[900.0], None);
        assert_eq!(
            (first.aims, first.verdict),
            (vec![Aim::Below(1000.0)], Some(Verdict::Pass))
        );
    }

    #[test]
    fn loaded_memory_is_judged_only_after_enough_puts() {
        let samples = BTreeMap::from([
            (Metric::LoadedMemory, vec![70.0]),
            (Metric::IdleMemory, vec![30.0]),
        ]);
        let verdicts = |enough| {
            judge(&samples, None, enough)
                .into_iter()
                .map(|row| row.verdict)
                .collect::<Vec<_>>()
        };
        assert_eq!(verdicts(true), [Some(Verdict::Short), Some(Verdict::Pass)]);
        assert_eq!(verdicts(false), [Some(Verdict::Short), None]);
    }

    #[test]
    fn latency_of_single_clients_and_serializable_gets_has_no_target() {
        for (kind, clients) in [(Kind::Put, 1), (Kind::Serializable, 100)] {
            let metric = Metric::Load {
                kind,
                clients,
                figure: Figure::P99,
            };
            assert_eq!(row(metric, &[1.0], Some(&[1.0])).verdict, None);
        }
    }
}
