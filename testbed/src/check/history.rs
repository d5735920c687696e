//! What the clients of a run saw: every operation with its times and outcome.

use std::time::Duration;

/// The operations of all writers; those of one writer in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// Every operation that was begun.
    pub ops: Vec<Op>,
}

/// One operation of one writer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    /// Which writer; a writer has one operation in flight.
    pub writer: usize,
    /// Index of the endpoint that was asked.
    pub endpoint: usize,
    /// When it was begun, since the run's start.
    pub start: Duration,
    /// When its outcome was known or given up.
    pub end: Duration,
    /// What it was and what came of it.
    pub action: Action,
}

/// An operation and its outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// A write; no two of a run write the same value.
    Put {
        /// Written by one writer only.
        key: String,
        /// Unique in the run.
        value: String,
        /// What the cluster said.
        outcome: Outcome,
    },
    /// A linearizable read.
    Get {
        /// The key read.
        key: String,
        /// What was seen, or the error's text.
        outcome: Result<Get, String>,
    },
}

/// What became of a write, as far as its client knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The cluster answered: it is durable.
    Acknowledged {
        /// The revision that the write made.
        revision: i64,
    },
    /// It has not happened and will not: never sent, or refused for what it is.
    Refused {
        /// The error's text.
        error: String,
    },
    /// It may have happened, or may yet.
    Unknown {
        /// The error's text.
        error: String,
    },
}

/// What a read saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Get {
    /// The store's revision at the read.
    pub header_revision: i64,
    /// The key, if it was there.
    pub kv: Option<KeyState>,
}

/// One key at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyState {
    /// Its value.
    pub value: String,
    /// The revision of its last write.
    pub mod_revision: i64,
    /// How many writes it has had since it was created.
    pub version: i64,
}

/// An acknowledged write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acknowledged<'a> {
    /// Its key.
    pub key: &'a str,
    /// Its value.
    pub value: &'a str,
    /// Its revision.
    pub revision: i64,
    /// When the answer arrived.
    pub end: Duration,
}

impl History {
    /// The acknowledged writes, in the history's order.
    pub fn acknowledged(&self) -> impl Iterator<Item = Acknowledged<'_>> {
        self.ops.iter().filter_map(|op| match &op.action {
            Action::Put {
                key,
                value,
                outcome: Outcome::Acknowledged { revision },
            } => Some(Acknowledged {
                key,
                value,
                revision: *revision,
                end: op.end,
            }),
            _ => None,
        })
    }

    /// How many writes were acknowledged, refused and of unknown outcome.
    pub fn counts(&self) -> (usize, usize, usize) {
        self.ops.iter().fold(
            (0, 0, 0),
            |(acknowledged, refused, unknown), op| match &op.action {
                Action::Put {
                    outcome: Outcome::Acknowledged { .. },
                    ..
                } => (acknowledged + 1, refused, unknown),
                Action::Put {
                    outcome: Outcome::Refused { .. },
                    ..
                } => (acknowledged, refused + 1, unknown),
                Action::Put {
                    outcome: Outcome::Unknown { .. },
                    ..
                } => (acknowledged, refused, unknown + 1),
                Action::Get { .. } => (acknowledged, refused, unknown),
            },
        )
    }

    /// The longest time without any acknowledgement between the first and the last one: the write gap of a fault.
    pub fn longest_gap(&self) -> Duration {
        let mut ends: Vec<_> = self.acknowledged().map(|write| write.end).collect();
        ends.sort_unstable();
        ends.windows(2)
            .map(|pair| pair[1] - pair[0])
            .max()
            .unwrap_or_default()
    }
}
