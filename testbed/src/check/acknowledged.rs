//! No acknowledged write is missing, altered, or applied twice.
//!
//! The latest state of a key may be newer than its last acknowledged write only by a write of unknown outcome. Each
//! acknowledged write is also looked up at its own revision, so that one which a later write covers is not overlooked.

use std::collections::{BTreeMap, BTreeSet};

use super::history::{Action, KeyState, Outcome};
use super::read_back::Latest;
use super::{History, ReadBack, Violation};

/// Compares the acknowledged writes with what the cluster holds.
pub fn check(history: &History, read_back: &ReadBack) -> Vec<Violation> {
    let writes = Writes::by_key(history);
    let mut found = Vec::new();
    for latest in &read_back.latest {
        for (key, writes) in &writes {
            found.extend(writes.judge(key, latest));
        }
        for (key, state) in latest
            .keys
            .iter()
            .filter(|(key, _)| !writes.contains_key(key.as_str()))
        {
            found.push(unexplained(latest, key, state));
        }
    }
    for write in history.acknowledged() {
        let state = read_back
            .at_revision
            .get(&write.revision)
            .and_then(Option::as_ref);
        if state
            .is_none_or(|state| state.value != write.value || state.mod_revision != write.revision)
        {
            found.push(Violation::Rewritten {
                key: write.key.to_owned(),
                value: write.value.to_owned(),
                revision: write.revision,
                found: state.map(|state| state.value.clone()),
            });
        }
    }
    found
}

/// The writes to one key.
#[derive(Default)]
struct Writes<'a> {
    /// Revision to value.
    acknowledged: BTreeMap<i64, &'a str>,
    unknown: BTreeSet<&'a str>,
}

impl<'a> Writes<'a> {
    fn by_key(history: &'a History) -> BTreeMap<&'a str, Self> {
        let mut keys: BTreeMap<&str, Self> = BTreeMap::new();
        for op in &history.ops {
            let Action::Put {
                key,
                value,
                outcome,
            } = &op.action
            else {
                continue;
            };
            let writes = keys.entry(key).or_default();
            match outcome {
                Outcome::Acknowledged { revision } => {
                    writes.acknowledged.insert(*revision, value);
                }
                Outcome::Unknown { .. } => {
                    writes.unknown.insert(value);
                }
                Outcome::Refused { .. } => {}
            }
        }
        keys
    }

    fn judge(&self, key: &str, latest: &Latest) -> Vec<Violation> {
        let last = self.acknowledged.last_key_value();
        let Some(state) = latest.keys.get(key) else {
            return last
                .map(|(revision, value)| lost(latest, key, *revision, value, None))
                .into_iter()
                .collect();
        };
        let mut found = Vec::new();
        match last {
            Some((revision, value)) if state.mod_revision < *revision => {
                found.push(lost(
                    latest,
                    key,
                    *revision,
                    value,
                    Some(state.mod_revision),
                ));
            }
            Some((revision, value)) if state.mod_revision == *revision => {
                if state.value != *value {
                    found.push(unexplained(latest, key, state));
                }
            }
            _ if self.unknown.contains(state.value.as_str()) => {}
            _ => found.push(unexplained(latest, key, state)),
        }
        let count = |writes: usize| i64::try_from(writes).unwrap_or(i64::MAX);
        let least = count(self.acknowledged.len());
        let most = least + count(self.unknown.len());
        if !(least..=most).contains(&state.version) {
            found.push(Violation::Miscounted {
                endpoint: latest.endpoint.clone(),
                key: key.to_owned(),
                version: state.version,
                least,
                most,
            });
        }
        found
    }
}

fn lost(latest: &Latest, key: &str, revision: i64, value: &str, found: Option<i64>) -> Violation {
    Violation::Lost {
        endpoint: latest.endpoint.clone(),
        key: key.to_owned(),
        value: value.to_owned(),
        revision,
        found,
    }
}

fn unexplained(latest: &Latest, key: &str, state: &KeyState) -> Violation {
    Violation::Unexplained {
        endpoint: latest.endpoint.clone(),
        key: key.to_owned(),
        found: state.value.clone(),
        revision: state.mod_revision,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{correct, state};
    use super::*;

    fn found(mutate: impl FnOnce(&mut History, &mut ReadBack)) -> Vec<Violation> {
        let (mut history, mut read_back) = correct();
        mutate(&mut history, &mut read_back);
        check(&history, &read_back)
    }

    #[test]
    fn missing_key_is_lost() {
        let found = found(|_, back| drop(back.latest[0].keys.remove("w1/0")));
        assert!(
            matches!(
                &found[..],
                [Violation::Lost {
                    revision: 5,
                    found: None,
                    ..
                }]
            ),
            "{found:?}"
        );
    }

    #[test]
    fn older_write_as_the_latest_is_lost() {
        let found = found(|_, back| {
            drop(
                back.latest[0]
                    .keys
                    .insert("w1/0".to_owned(), state("1-0", 3, 2)),
            )
        });
        assert!(
            matches!(
                &found[..],
                [Violation::Lost {
                    revision: 5,
                    found: Some(3),
                    ..
                }]
            ),
            "{found:?}"
        );
    }

    #[test]
    fn loss_on_one_of_two_members_is_found() {
        let found = found(|_, back| {
            let mut second = back.latest[0].clone();
            second.endpoint = "http://b".to_owned();
            second.keys.remove("w0/0");
            back.latest.push(second);
        });
        assert!(
            matches!(&found[..], [Violation::Lost { endpoint, .. }] if endpoint == "http://b"),
            "{found:?}"
        );
    }

    #[test]
    fn refused_foreign_and_altered_values_are_unexplained() {
        for (key, wrong) in [
            ("w1/1", state("1-2", 6, 1)),
            ("w1/0", state("0-1", 6, 2)),
            ("w1/0", state("garbled", 5, 2)),
            ("w9/9", state("x", 6, 1)),
        ] {
            let found = found(|_, back| drop(back.latest[0].keys.insert(key.to_owned(), wrong)));
            assert!(
                matches!(&found[..], [Violation::Unexplained { .. }, ..]),
                "{key}: {found:?}"
            );
        }
    }

    #[test]
    fn write_applied_twice_or_dropped_in_between_is_miscounted() {
        for version in [1, 4] {
            let found = found(|_, back| {
                drop(
                    back.latest[0]
                        .keys
                        .insert("w0/0".to_owned(), state("0-1", 6, version)),
                )
            });
            assert!(
                matches!(
                    &found[..],
                    [Violation::Miscounted {
                        least: 2,
                        most: 3,
                        ..
                    }]
                ),
                "{found:?}"
            );
        }
    }

    #[test]
    fn covered_write_that_its_revision_does_not_show_is_rewritten() {
        for wrong in [None, Some(state("0-1", 2, 1)), Some(state("0-0", 1, 1))] {
            let found = found(|_, back| drop(back.at_revision.insert(2, wrong)));
            assert!(
                matches!(&found[..], [Violation::Rewritten { revision: 2, .. }]),
                "{found:?}"
            );
        }
    }
}
