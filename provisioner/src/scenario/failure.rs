//! Why a scenario did not pass.

use serde::Serialize;

/// Whose fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The server, or this program, does something else than is expected.
    Check,
    /// What the check needs could not be had.
    Setup,
    /// It turned out that this machine cannot do what the check needs.
    Skip,
}

/// A check that does not hold, or could not be made.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) kind: Kind,
    pub(super) expected: String,
    pub(super) got: String,
}

/// A failure as it is reported.
#[derive(Clone, Debug, Serialize)]
pub struct Found {
    /// What was being done.
    pub step: String,
    /// What should have been.
    pub expected: String,
    /// What was.
    pub got: String,
    /// The ends of the servers' logs.
    pub log: Vec<String>,
    /// Runs this scenario alone.
    pub again: String,
}

impl Failure {
    pub(super) fn check(expected: impl Into<String>, got: impl Into<String>) -> Self {
        Self {
            kind: Kind::Check,
            expected: expected.into(),
            got: got.into(),
        }
    }

    pub(super) fn skip(reason: impl Into<String>) -> Self {
        Self {
            kind: Kind::Skip,
            expected: String::new(),
            got: reason.into(),
        }
    }

    /// The causes of `error` are kept.
    pub(super) fn setup(what: impl Into<String>, error: &dyn std::error::Error) -> Self {
        let mut got = error.to_string();
        let mut next = error.source();
        while let Some(cause) = next {
            got.push_str(&format!(": {cause}"));
            next = cause.source();
        }
        Self {
            kind: Kind::Setup,
            expected: what.into(),
            got,
        }
    }
}
