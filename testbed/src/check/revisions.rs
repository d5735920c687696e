//! Revisions follow real time: an operation that began after another had ended sees at least its revision, and a write a
//! higher one. No revision is given twice, and the store does not end behind what it has answered.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::history::{Action, Op, Outcome};
use super::{History, ReadBack, Violation};

/// Compares the revisions of all writers with the order of their operations.
pub fn check(history: &History, read_back: &ReadBack) -> Vec<Violation> {
    let mut found = Vec::new();

    let mut given: BTreeMap<i64, &str> = BTreeMap::new();
    let mut reused = BTreeSet::new();
    for write in history.acknowledged() {
        if let Some(first) = given.insert(write.revision, write.value) {
            reused.insert(write.revision);
            found.push(Violation::Reused {
                revision: write.revision,
                first: first.to_owned(),
                second: write.value.to_owned(),
            });
        }
    }

    let answered = Answered::new(history);
    for op in &history.ops {
        let (Some((revision, wrote)), Some(seen)) = (answer(op), answered.before(op.start)) else {
            continue;
        };
        // Two writes with one revision were reported above.
        if revision < seen || (wrote && revision == seen && !reused.contains(&seen)) {
            found.push(Violation::WentBack {
                writer: op.writer,
                revision,
                seen,
            });
        }
    }

    for latest in &read_back.latest {
        if let Some(seen) = answered
            .highest()
            .filter(|seen| latest.header_revision < *seen)
        {
            let endpoint = latest.endpoint.clone();
            found.push(Violation::Behind {
                endpoint,
                revision: latest.header_revision,
                seen,
            });
        }
    }
    found
}

/// The revision that an operation was answered with, and whether it is its own.
fn answer(op: &Op) -> Option<(i64, bool)> {
    match &op.action {
        Action::Put {
            outcome: Outcome::Acknowledged { revision },
            ..
        } => Some((*revision, true)),
        Action::Get {
            outcome: Ok(get), ..
        } => Some((get.header_revision, false)),
        _ => None,
    }
}

/// The highest revision answered up to each moment.
struct Answered(Vec<(Duration, i64)>);

impl Answered {
    fn new(history: &History) -> Self {
        let mut ends: Vec<_> = history
            .ops
            .iter()
            .filter_map(|op| Some((op.end, answer(op)?.0)))
            .collect();
        ends.sort_unstable();
        let mut highest = i64::MIN;
        for (_, revision) in &mut ends {
            highest = highest.max(*revision);
            *revision = highest;
        }
        Self(ends)
    }

    fn before(&self, moment: Duration) -> Option<i64> {
        let earlier = self.0.partition_point(|(end, _)| *end < moment);
        Some(self.0[earlier.checked_sub(1)?].1)
    }

    fn highest(&self) -> Option<i64> {
        self.0.last().map(|(_, revision)| *revision)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{acknowledged, correct, get, put};
    use super::*;

    fn found(mutate: impl FnOnce(&mut History, &mut ReadBack)) -> Vec<Violation> {
        let (mut history, mut read_back) = correct();
        mutate(&mut history, &mut read_back);
        check(&history, &read_back)
    }

    #[test]
    fn revision_given_twice_is_reused() {
        let found =
            found(|history, _| history.ops.push(put(0, 50, "w0/1", "0-9", acknowledged(5))));
        assert!(
            matches!(&found[..], [Violation::Reused { revision: 5, .. }]),
            "{found:?}"
        );
    }

    #[test]
    fn lower_revision_after_a_higher_one_went_back() {
        let found = found(|history, back| {
            history.ops.push(put(0, 50, "w0/1", "0-9", acknowledged(9)));
            history.ops.push(put(1, 60, "w1/1", "1-9", acknowledged(8)));
            back.latest[0].header_revision = 9;
        });
        assert_eq!(
            found,
            [Violation::WentBack {
                writer: 1,
                revision: 8,
                seen: 9
            }]
        );
    }

    #[test]
    fn overlapping_writes_may_be_answered_in_either_order() {
        let found = found(|history, back| {
            history.ops.push(put(0, 50, "w0/1", "0-9", acknowledged(9)));
            history.ops.push(put(1, 52, "w1/1", "1-9", acknowledged(8)));
            back.latest[0].header_revision = 9;
        });
        assert_eq!(found, []);
    }

    #[test]
    fn read_with_an_older_header_went_back() {
        let found = found(|history, _| history.ops.push(get(0, 50, "w0/0", 4, None)));
        assert_eq!(
            found,
            [Violation::WentBack {
                writer: 0,
                revision: 4,
                seen: 5
            }]
        );
    }

    #[test]
    fn write_that_repeats_the_revision_a_read_had_seen_went_back() {
        let found = found(|history, back| {
            history.ops.push(get(0, 50, "w0/0", 7, None));
            history.ops.push(put(0, 60, "w0/1", "0-9", acknowledged(7)));
            back.latest[0].header_revision = 7;
        });
        // Nobody wrote revision 7 before the read, so it is not a write's revision given twice.
        assert_eq!(
            found,
            [Violation::WentBack {
                writer: 0,
                revision: 7,
                seen: 7
            }]
        );
    }

    #[test]
    fn store_that_ends_at_an_older_revision_is_behind() {
        let found = found(|_, back| back.latest[0].header_revision = 4);
        assert!(
            matches!(
                &found[..],
                [Violation::Behind {
                    revision: 4,
                    seen: 5,
                    ..
                }]
            ),
            "{found:?}"
        );
    }
}
