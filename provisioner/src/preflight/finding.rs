//! What a check has come to.

use serde::Serialize;

use crate::topology::Check;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// All is well.
    Pass,
    /// The cluster would run, but not well.
    Warn,
    /// The cluster would not come up, or not stay up.
    Fail,
    /// It could not be made.
    Skipped,
    /// It would not have passed, and the topology accepts that.
    Waived,
}

impl Outcome {
    /// As it is shown.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Warn => "warn",
            Self::Fail => "fail",
            Self::Skipped => "skipped",
            Self::Waived => "waived",
        }
    }
}

/// One check of one machine or member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which check.
    pub check: Check,
    /// Of which machine or member.
    pub subject: String,
    /// How it ended.
    pub outcome: Outcome,
    /// What was found, or why nothing was.
    pub found: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
    /// Why it is accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiver: Option<String>,
}

/// What a rule says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) outcome: Outcome,
    pub(super) found: String,
    pub(super) fix: Option<String>,
}

impl Verdict {
    pub(super) fn pass(found: impl Into<String>) -> Self {
        Self::new(Outcome::Pass, found, None)
    }

    pub(super) fn warn(found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(Outcome::Warn, found, Some(fix.into()))
    }

    pub(super) fn fail(found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(Outcome::Fail, found, Some(fix.into()))
    }

    pub(super) fn skipped(why: impl Into<String>) -> Self {
        Self::new(Outcome::Skipped, why, None)
    }

    fn new(outcome: Outcome, found: impl Into<String>, fix: Option<String>) -> Self {
        Self {
            outcome,
            found: found.into(),
            fix,
        }
    }

    pub(super) fn of(self, check: Check, subject: &str) -> Finding {
        Finding {
            check,
            subject: subject.to_owned(),
            outcome: self.outcome,
            found: self.found,
            fix: self.fix,
            waiver: None,
        }
    }
}
