//! Compaction on a schedule, `--auto-compaction-mode` and `--auto-compaction-retention`.
//!
//! What to compact when is decided purely from the revisions seen so far; the leader acts on it. Every member looks, so
//! that a new leader knows the history it may give up.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use member_flags::{AutoCompaction, format_duration};
use member_state::{Compact, Op};

use crate::engine::Engine;
use crate::node::Node;
use crate::write::WriteError;

/// etcd's time between two compactions by number of revisions.
const REVISION_INTERVAL: Duration = Duration::from_secs(5 * 60);

/// etcd compacts once in a period, and once an hour when the period is longer.
const LONGEST_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// etcd looks ten times in an interval.
const LOOKS: u32 = 10;

/// The state of a schedule.
#[derive(Debug)]
enum Schedule {
    Periodic(Periodic),
    Revision { retention: i64, last: i64 },
}

#[derive(Debug)]
struct Periodic {
    period: Duration,
    /// The revisions of the looks in the last period, the oldest first.
    revisions: VecDeque<i64>,
    /// The revision last compacted, and when; at first the start.
    last: i64,
    since: Instant,
    /// How long after `since` the next compaction may be: the whole period once, then an interval.
    wait: Duration,
}

impl Schedule {
    fn new(setting: AutoCompaction, now: Instant) -> Self {
        match setting {
            AutoCompaction::Periodic(period) => Schedule::Periodic(Periodic {
                period,
                revisions: VecDeque::new(),
                last: 0,
                since: now,
                wait: period,
            }),
            AutoCompaction::Revision(retention) => Schedule::Revision { retention, last: 0 },
        }
    }

    /// The time between two looks.
    fn interval(&self) -> Duration {
        match self {
            Schedule::Periodic(periodic) => periodic.look(),
            Schedule::Revision { .. } => REVISION_INTERVAL,
        }
    }

    /// Notes the revision of this moment, before the wait for the next look.
    fn note(&mut self, revision: i64) {
        if let Schedule::Periodic(periodic) = self {
            periodic.revisions.push_back(revision);
            if periodic.revisions.len() > periodic.looks_kept() {
                periodic.revisions.pop_front();
            }
        }
    }

    /// The revision to compact at now, if any; `revision` is the current one.
    fn due(&mut self, revision: i64, now: Instant) -> Option<i64> {
        match self {
            Schedule::Periodic(periodic) => {
                let oldest = *periodic.revisions.front()?;
                if now.duration_since(periodic.since) < periodic.wait || oldest == periodic.last {
                    return None;
                }
                periodic.wait = periodic.period.min(LONGEST_INTERVAL);
                Some(oldest)
            }
            Schedule::Revision { retention, last } => {
                let target = revision.saturating_sub(*retention);
                (target > 0 && target != *last).then_some(target)
            }
        }
    }

    /// The compaction at `revision` is in force.
    fn done(&mut self, revision: i64, now: Instant) {
        match self {
            Schedule::Periodic(periodic) => {
                periodic.last = revision;
                periodic.since = now;
            }
            Schedule::Revision { last, .. } => *last = revision,
        }
    }
}

impl Periodic {
    fn look(&self) -> Duration {
        // A period below ten nanoseconds would never sleep.
        (self.period.min(LONGEST_INTERVAL) / LOOKS).max(Duration::from_millis(1))
    }

    fn looks_kept(&self) -> usize {
        let looks = self.period.as_nanos() / self.look().as_nanos();
        usize::try_from(looks)
            .unwrap_or(usize::MAX)
            .saturating_add(1)
    }
}

/// Compacts on schedule while this member leads. Never returns.
pub(crate) async fn run<E: Engine>(node: &Node<E>, setting: AutoCompaction) {
    let mut schedule = Schedule::new(setting, Instant::now());
    loop {
        schedule.note(node.store().revision());
        tokio::time::sleep(schedule.interval()).await;
        if node.leadership().leader != Some(node.id) {
            continue;
        }
        let Some(revision) = schedule.due(node.store().revision(), Instant::now()) else {
            continue;
        };
        compact(node, setting, &mut schedule, revision).await;
    }
}

async fn compact<E: Engine>(
    node: &Node<E>,
    setting: AutoCompaction,
    schedule: &mut Schedule,
    revision: i64,
) {
    match setting {
        AutoCompaction::Periodic(period) => tracing::info!(
            revision,
            "compact-period" = format_duration(period),
            "starting auto periodic compaction"
        ),
        AutoCompaction::Revision(retention) => tracing::info!(
            revision,
            "revision-compaction-retention" = retention,
            "starting auto revision compaction"
        ),
    }
    let began = Instant::now();
    let compact = Op::Compact(Compact {
        revision,
        physical: false,
    });
    match node.write(compact).await {
        Ok(_) | Err(WriteError::State(member_state::Error::Compacted)) => {
            schedule.done(revision, Instant::now());
            let took = format_duration(began.elapsed());
            match setting {
                AutoCompaction::Periodic(period) => tracing::info!(
                    revision,
                    "compact-period" = format_duration(period),
                    took,
                    "completed auto periodic compaction"
                ),
                AutoCompaction::Revision(retention) => tracing::info!(
                    revision,
                    "revision-compaction-retention" = retention,
                    took,
                    "completed auto revision compaction"
                ),
            }
        }
        Err(error) => {
            let retry = format_duration(schedule.interval());
            match setting {
                AutoCompaction::Periodic(period) => tracing::warn!(
                    revision,
                    "compact-period" = format_duration(period),
                    "retry-interval" = retry,
                    %error,
                    "failed auto periodic compaction"
                ),
                AutoCompaction::Revision(retention) => tracing::warn!(
                    revision,
                    "revision-compaction-retention" = retention,
                    "retry-interval" = retry,
                    %error,
                    "failed auto revision compaction"
                ),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the schedule over `looks` looks with ten revisions between two of them; the compactions with their look.
    fn compactions(setting: AutoCompaction, looks: u32) -> Vec<(u32, i64)> {
        let start = Instant::now();
        let mut schedule = Schedule::new(setting, start);
        let mut done = Vec::new();
        for look in 0..looks {
            schedule.note(i64::from(look) * 10 + 1);
            let now = start + schedule.interval() * (look + 1);
            if let Some(revision) = schedule.due(i64::from(look + 1) * 10 + 1, now) {
                schedule.done(revision, now);
                done.push((look + 1, revision));
            }
        }
        done
    }

    #[test]
    fn a_period_passes_before_the_first_compaction_and_between_two() {
        let period = AutoCompaction::Periodic(Duration::from_secs(300));
        assert_eq!(compactions(period, 31), [(10, 1), (20, 91), (30, 191)]);
    }

    #[test]
    fn a_long_period_is_kept_whole_and_compacted_every_hour() {
        let period = AutoCompaction::Periodic(Duration::from_secs(3 * 3600));
        assert_eq!(compactions(period, 51), [(30, 1), (40, 91), (50, 191)]);
    }

    #[test]
    fn a_number_of_revisions_is_kept() {
        assert_eq!(
            compactions(AutoCompaction::Revision(15), 4),
            [(2, 6), (3, 16), (4, 26)]
        );
    }

    #[test]
    fn nothing_is_compacted_twice() {
        let start = Instant::now();
        let mut schedule = Schedule::new(AutoCompaction::Revision(5), start);
        assert_eq!(schedule.due(10, start), Some(5));
        assert_eq!(schedule.due(10, start), Some(5), "a failure is tried again");
        schedule.done(5, start);
        assert_eq!(schedule.due(10, start), None);
    }
}
