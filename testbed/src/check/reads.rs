//! No linearizable read is stale: it shows the key's last write that was acknowledged before the read began, or a later one.

use std::collections::BTreeMap;
use std::time::Duration;

use super::history::{Action, Outcome};
use super::{History, Violation};

/// Compares each read with the writes to its key.
pub fn check(history: &History) -> Vec<Violation> {
    let mut writes: BTreeMap<&str, Vec<(&str, Duration, &Outcome)>> = BTreeMap::new();
    for op in &history.ops {
        if let Action::Put {
            key,
            value,
            outcome,
        } = &op.action
        {
            writes
                .entry(key)
                .or_default()
                .push((value, op.end, outcome));
        }
    }
    let mut found = Vec::new();
    for op in &history.ops {
        let Action::Get {
            key,
            outcome: Ok(get),
        } = &op.action
        else {
            continue;
        };
        let writes = writes
            .get(key.as_str())
            .map(Vec::as_slice)
            .unwrap_or_default();
        let seen = get.kv.as_ref().map(|state| state.mod_revision);
        let due = writes.iter().filter_map(|(_, end, outcome)| match outcome {
            Outcome::Acknowledged { revision } if *end < op.start => Some(*revision),
            _ => None,
        });
        if let Some(revision) = due.max().filter(|due| seen.is_none_or(|seen| seen < *due)) {
            found.push(Violation::Stale {
                writer: op.writer,
                key: key.clone(),
                revision,
                found: seen,
            });
        }
        if let Some(state) = &get.kv {
            let explained = writes.iter().any(|(value, _, outcome)| {
                *value == state.value
                    && match outcome {
                        Outcome::Acknowledged { revision } => *revision == state.mod_revision,
                        Outcome::Unknown { .. } => true,
                        Outcome::Refused { .. } => false,
                    }
            });
            if !explained {
                found.push(Violation::Phantom {
                    writer: op.writer,
                    key: key.clone(),
                    found: state.value.clone(),
                    revision: state.mod_revision,
                });
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::tests::{correct, get, state};
    use super::*;

    fn found_with(kv: Option<crate::check::history::KeyState>) -> Vec<Violation> {
        let (mut history, _) = correct();
        history.ops.push(get(1, 50, "w1/0", 6, kv));
        check(&history)
    }

    #[test]
    fn last_acknowledged_write_and_later_unknown_one_may_be_read() {
        assert_eq!(found_with(Some(state("1-3", 5, 2))), []);
        assert_eq!(found_with(Some(state("1-1", 6, 3))), []);
    }

    #[test]
    fn older_write_and_absence_are_stale() {
        for (kv, seen) in [(Some(state("1-0", 3, 1)), Some(3)), (None, None)] {
            let found = found_with(kv);
            assert!(
                matches!(&found[..], [Violation::Stale { revision: 5, found, .. }] if *found == seen),
                "{found:?}"
            );
        }
    }

    #[test]
    fn value_at_a_wrong_revision_or_of_another_key_is_a_phantom() {
        for kv in [state("1-3", 6, 3), state("0-2", 6, 3), state("never", 6, 3)] {
            let found = found_with(Some(kv));
            assert!(
                matches!(&found[..], [Violation::Phantom { .. }]),
                "{found:?}"
            );
        }
    }
}
