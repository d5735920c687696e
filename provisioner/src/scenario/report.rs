//! What came of the scenarios, and the list of them.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Instant;

use serde::Serialize;
use serde_json::Value;

use super::definition::{Scenario, Suite};
use super::failure::Found;
use crate::duration;
use crate::error::ExitCode;
use crate::output::{Document, Table};

/// What came of one scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Everything was as expected.
    Passed,
    /// Something was not.
    Failed,
    /// It could not be found out.
    Error,
    /// It cannot run with this server or on this machine.
    Skipped,
}

/// One scenario and what came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// The scenario's.
    pub id: String,
    /// The scenario's.
    pub suite: Suite,
    /// The scenario's.
    pub source: &'static str,
    /// What came of it.
    pub verdict: Verdict,
    /// How long it took.
    pub seconds: f64,
    /// Why it was skipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why it did not pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<Found>,
}

/// A whole run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Path of the server under test.
    pub binary: String,
    /// What it says it is.
    pub version: String,
    /// How long the run took.
    pub seconds: f64,
    /// How many scenarios passed.
    pub passed: usize,
    /// How many failed.
    pub failed: usize,
    /// How many could not be judged.
    pub errors: usize,
    /// How many cannot run here.
    pub skipped: usize,
    /// All of them.
    pub scenarios: Vec<Outcome>,
}

impl Verdict {
    /// As it is printed.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Error => "error",
            Self::Skipped => "skipped",
        }
    }
}

impl Outcome {
    pub(super) fn of(scenario: &Scenario, verdict: Verdict, begun: Instant) -> Self {
        Self {
            id: scenario.id.clone(),
            suite: scenario.suite,
            source: scenario.source,
            verdict,
            seconds: begun.elapsed().as_secs_f64(),
            reason: None,
            failure: None,
        }
    }

    pub(super) fn because(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "    step:     {}", self.step)?;
        writeln!(f, "    expected: {}", self.expected.trim_end())?;
        writeln!(f, "    got:      {}", self.got.trim_end())?;
        for line in &self.log {
            writeln!(f, "    | {line}")?;
        }
        write!(f, "    again:    {}", self.again)
    }
}

impl Report {
    /// Counts the outcomes.
    #[must_use]
    pub fn new(binary: String, version: String, seconds: f64, scenarios: Vec<Outcome>) -> Self {
        let count = |verdict| {
            let of = scenarios
                .iter()
                .filter(|outcome| outcome.verdict == verdict);
            of.count()
        };
        Self {
            binary,
            version,
            seconds,
            passed: count(Verdict::Passed),
            failed: count(Verdict::Failed),
            errors: count(Verdict::Error),
            skipped: count(Verdict::Skipped),
            scenarios,
        }
    }

    /// 10 when a scenario failed, 11 when one could not be judged, or none was.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match (self.failed, self.errors, self.passed) {
            (0, 0, 1..) => ExitCode::Ok,
            (0, ..) => ExitCode::NotProvisioned,
            _ => ExitCode::NotConformant,
        }
    }

    /// Why nothing was found out, if all scenarios were skipped: the reasons, each once.
    #[must_use]
    pub fn nothing_checked(&self) -> Option<String> {
        if self.skipped == 0 || self.skipped < self.scenarios.len() {
            return None;
        }
        let reasons = self.scenarios.iter();
        let reasons: BTreeSet<&str> = reasons
            .filter_map(|outcome| outcome.reason.as_deref())
            .collect();
        Some(reasons.into_iter().collect::<Vec<_>>().join("; "))
    }
}

impl Document for Report {
    fn table(&self) -> Table {
        let not_passed: Vec<&Outcome> = self
            .scenarios
            .iter()
            .filter(|outcome| outcome.verdict != Verdict::Passed)
            .collect();
        let mut table = match not_passed.is_empty() {
            true => Table::default(),
            false => Table::new(["scenario", "outcome", "why"]),
        };
        for outcome in not_passed {
            let why = match (&outcome.reason, &outcome.failure) {
                (Some(reason), _) => reason.clone(),
                (None, Some(found)) => format!("{}: not {}", found.step, found.expected),
                (None, None) => String::new(),
            };
            table.row([
                outcome.id.clone(),
                outcome.verdict.name().to_owned(),
                first_line(&why, LONGEST_REASON),
            ]);
        }
        let time = std::time::Duration::try_from_secs_f64(self.seconds).unwrap_or_default();
        table.with_after(format!(
            "{} ({}): {} passed, {} failed, {} errors, {} skipped, in {}",
            self.binary,
            self.version,
            self.passed,
            self.failed,
            self.errors,
            self.skipped,
            duration::show(time)
        ))
    }

    fn lines(&self) -> Vec<Value> {
        self.scenarios
            .iter()
            .filter_map(|outcome| serde_json::to_value(outcome).ok())
            .collect()
    }
}

/// Of a reason in a table; all of it is in the other forms.
const LONGEST_REASON: usize = 120;

/// Columns of a terminal that the list fits.
const LIST_WIDTH: usize = 100;

/// What of a text fits so many columns.
fn first_line(text: &str, longest: usize) -> String {
    let line = text.lines().next().unwrap_or_default();
    if line.chars().count() <= longest {
        return line.to_owned();
    }
    let start: String = line.chars().take(longest.saturating_sub(1)).collect();
    format!("{start}…")
}

/// A scenario in the list.
#[derive(Debug, Serialize)]
struct Listed {
    id: String,
    suite: Suite,
    source: &'static str,
    checks: String,
    limit_seconds: u64,
    covering: bool,
    needs: Vec<String>,
}

/// The list of scenarios.
#[derive(Debug, Serialize)]
pub struct Listing {
    scenarios: Vec<Listed>,
}

/// Lists scenarios as `--list` prints them.
#[must_use]
pub fn listing(scenarios: &[Scenario]) -> Listing {
    let listed = |scenario: &Scenario| Listed {
        id: scenario.id.clone(),
        suite: scenario.suite,
        source: scenario.source,
        checks: scenario.checks.clone(),
        limit_seconds: scenario.limit.as_secs(),
        covering: scenario.covering,
        needs: scenario.needs.iter().map(ToString::to_string).collect(),
    };
    Listing {
        scenarios: scenarios.iter().map(listed).collect(),
    }
}

impl Document for Listing {
    fn table(&self) -> Table {
        let mut table = Table::new(["scenario", "run", "checks"]);
        let longest = self.scenarios.iter().map(|scenario| scenario.id.len());
        // Three columns between two, and the words of the second.
        let room = LIST_WIDTH.saturating_sub(longest.max().unwrap_or_default() + 3 + 6 + 3);
        for scenario in &self.scenarios {
            table.row([
                scenario.id.clone(),
                if scenario.covering {
                    "always"
                } else {
                    "--full"
                }
                .to_owned(),
                first_line(&scenario.checks, room),
            ]);
        }
        table.with_after("-o json has the whole texts, their sources, limits and needs")
    }

    fn lines(&self) -> Vec<Value> {
        self.scenarios
            .iter()
            .filter_map(|scenario| serde_json::to_value(scenario).ok())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(verdicts: &[Verdict]) -> Report {
        let outcome = |verdict: &Verdict| Outcome {
            id: "a".to_owned(),
            suite: Suite::Bootstrap,
            source: "a guide",
            verdict: *verdict,
            seconds: 0.0,
            reason: (*verdict == Verdict::Skipped).then(|| "needs more".to_owned()),
            failure: None,
        };
        let outcomes = verdicts.iter().map(outcome).collect();
        Report::new(String::new(), String::new(), 0.0, outcomes)
    }

    #[test]
    fn only_what_passed_is_success() {
        use Verdict::{Error, Failed, Passed, Skipped};
        for (verdicts, code) in [
            (&[Passed, Skipped][..], ExitCode::Ok),
            (&[Passed, Failed, Error], ExitCode::NotConformant),
            (&[Passed, Error], ExitCode::NotProvisioned),
            (&[Skipped, Skipped], ExitCode::NotProvisioned),
        ] {
            assert_eq!(report(verdicts).exit_code(), code, "{verdicts:?}");
        }
        let reasons = report(&[Skipped, Skipped]).nothing_checked();
        assert_eq!(reasons.as_deref(), Some("needs more"));
        assert_eq!(report(&[Skipped, Passed]).nothing_checked(), None);
    }

    #[test]
    fn the_list_fits_a_terminal() {
        let list = listing(&crate::scenario::all()).table().render();
        for line in list.lines() {
            assert!(line.chars().count() <= LIST_WIDTH, "{line}");
        }
        assert!(list.contains('…'));
    }
}
