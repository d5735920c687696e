//! Properties that a run must have kept: one per file, each a pure function of what was recorded.
//!
//! [`history`] is what clients saw, [`read_back`] what the cluster holds afterwards. [`acknowledged`]: no write that was
//! answered is missing or altered. [`revisions`]: revisions follow real time. [`reads`]: no linearizable read is stale.
//! A write whose outcome is unknown may have happened, now or later, once; nothing else is forgiven.
//! The checks are sound but not complete: a violation is a fault of the cluster, silence is not a proof.

pub mod acknowledged;
pub mod history;
pub mod read_back;
pub mod reads;
pub mod revisions;
mod violation;

pub use history::History;
pub use read_back::ReadBack;
pub use violation::Violation;

/// Every violation of every property, in the order of the properties.
pub fn judge(history: &History, read_back: &ReadBack) -> Vec<Violation> {
    let mut found = acknowledged::check(history, read_back);
    found.extend(revisions::check(history, read_back));
    found.extend(reads::check(history));
    found
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use super::history::{Action, Get, KeyState, Op, Outcome};
    use super::read_back::Latest;
    use super::*;

    pub(crate) fn put(writer: usize, from_ms: u64, key: &str, value: &str, outcome: Outcome) -> Op {
        op(
            writer,
            from_ms,
            Action::Put {
                key: key.to_owned(),
                value: value.to_owned(),
                outcome,
            },
        )
    }

    pub(crate) fn acknowledged(revision: i64) -> Outcome {
        Outcome::Acknowledged { revision }
    }

    pub(crate) fn unknown() -> Outcome {
        Outcome::Unknown {
            error: "deadline".to_owned(),
        }
    }

    pub(crate) fn state(value: &str, mod_revision: i64, version: i64) -> KeyState {
        KeyState {
            value: value.to_owned(),
            mod_revision,
            version,
        }
    }

    pub(crate) fn get(
        writer: usize,
        from_ms: u64,
        key: &str,
        header_revision: i64,
        kv: Option<KeyState>,
    ) -> Op {
        op(
            writer,
            from_ms,
            Action::Get {
                key: key.to_owned(),
                outcome: Ok(Get {
                    header_revision,
                    kv,
                }),
            },
        )
    }

    /// Each operation takes 5 ms, so that those ten apart do not overlap.
    fn op(writer: usize, from_ms: u64, action: Action) -> Op {
        let start = Duration::from_millis(from_ms);
        Op {
            writer,
            endpoint: 0,
            start,
            end: start + Duration::from_millis(5),
            action,
        }
    }

    /// A correct run: two writers, one write of unknown outcome that took effect late, one that never did.
    pub(crate) fn correct() -> (History, ReadBack) {
        let history = History {
            ops: vec![
                put(0, 0, "w0/0", "0-0", acknowledged(2)),
                put(1, 1, "w1/0", "1-0", acknowledged(3)),
                put(0, 10, "w0/0", "0-1", unknown()),
                get(1, 11, "w1/0", 3, Some(state("1-0", 3, 1))),
                put(0, 20, "w0/0", "0-2", acknowledged(4)),
                put(1, 21, "w1/0", "1-1", unknown()),
                put(
                    1,
                    30,
                    "w1/1",
                    "1-2",
                    Outcome::Refused {
                        error: "bad".to_owned(),
                    },
                ),
                get(0, 31, "w0/0", 4, Some(state("0-2", 4, 2))),
                put(1, 40, "w1/0", "1-3", acknowledged(5)),
            ],
        };
        let keys = [("w0/0", state("0-1", 6, 3)), ("w1/0", state("1-3", 5, 2))];
        let latest = Latest {
            endpoint: "http://a".to_owned(),
            header_revision: 6,
            keys: keys
                .into_iter()
                .map(|(key, state)| (key.to_owned(), state))
                .collect(),
        };
        let at_revision = [
            (2, Some(state("0-0", 2, 1))),
            (3, Some(state("1-0", 3, 1))),
            (4, Some(state("0-2", 4, 2))),
            (5, Some(state("1-3", 5, 2))),
        ];
        (
            history,
            ReadBack {
                latest: vec![latest],
                at_revision: at_revision.into(),
            },
        )
    }

    #[test]
    fn correct_run_has_no_violation() {
        let (history, read_back) = correct();
        assert_eq!(judge(&history, &read_back), []);
    }

    #[test]
    fn every_lost_suffix_of_revisions_is_found() {
        // As after a member that came back without the end of its log and became the leader.
        let (history, full) = correct();
        for lost_from in 2..=5 {
            let mut read_back = full.clone();
            read_back.latest[0].header_revision = lost_from - 1;
            read_back.latest[0]
                .keys
                .retain(|_, state| state.mod_revision < lost_from);
            read_back
                .at_revision
                .retain(|revision, _| *revision < lost_from);
            assert!(
                !judge(&history, &read_back).is_empty(),
                "lost from {lost_from}"
            );
        }
    }
}
