//! Plays scenarios, several at once, each on a stage of its own that is cleared whatever happens.

use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::iter;
use tokio::time::timeout;

use super::answers::Services;
use super::definition::Scenario;
use super::failure::{Failure, Found, Kind};
use super::report::{Outcome, Verdict};
use super::stage::Stage;
use super::subject::Subject;
use crate::apply::Interrupt;
use crate::duration;
use crate::error::Error;
use crate::output::Output;

/// What to run, and how.
#[derive(Clone, Debug)]
pub struct Run {
    /// In this order, as far as there is room.
    pub scenarios: Vec<Scenario>,
    /// The server under test.
    pub subject: Subject,
    /// How many at once.
    pub jobs: usize,
    /// In place of each scenario's own bound.
    pub timeout: Option<Duration>,
    /// Where the scenarios' files stay.
    pub keep: Option<PathBuf>,
}

const INTERRUPTED: &str = "interrupted";

struct Runner<'a> {
    run: &'a Run,
    subject: Rc<Subject>,
    services: Rc<Services>,
    interrupt: &'a Interrupt,
    output: &'a Output,
}

/// Runs them; the outcomes in the order of the scenarios. What an interrupt ends counts as skipped.
///
/// # Errors
/// A service of the scenarios cannot be ended.
pub async fn run(run: &Run, interrupt: &Interrupt, output: &Output) -> Result<Vec<Outcome>, Error> {
    let runner = Runner {
        run,
        subject: Rc::new(run.subject.clone()),
        services: Rc::default(),
        interrupt,
        output,
    };
    let mut outcomes: Vec<(usize, Outcome)> = iter(run.scenarios.iter().enumerate())
        .map(|(index, scenario)| {
            let played = runner.play(scenario);
            async move { (index, played.await) }
        })
        .buffer_unordered(run.jobs)
        .collect()
        .await;
    let left = runner.services.finish().await;
    left.map_err(|failure| Error::failed(failure.got, "end it by hand, and report this"))?;
    outcomes.sort_by_key(|(index, _)| *index);
    Ok(outcomes.into_iter().map(|(_, outcome)| outcome).collect())
}

impl Runner<'_> {
    async fn play(&self, scenario: &Scenario) -> Outcome {
        let begun = Instant::now();
        if self.interrupt.token().is_cancelled() {
            return Outcome::of(scenario, Verdict::Skipped, begun).because(INTERRUPTED);
        }
        if let Some(reason) = scenario.skip(&self.subject) {
            return self.skipped(Outcome::of(scenario, Verdict::Skipped, begun).because(reason));
        }
        let line = self.output.line(&scenario.id);
        let outcome = match self.judge(scenario).await {
            Ok(()) => Outcome::of(scenario, Verdict::Passed, begun),
            Err((failure, _)) if failure.kind == Kind::Skip => {
                Outcome::of(scenario, Verdict::Skipped, begun).because(failure.got)
            }
            Err((failure, place)) => {
                let verdict = match failure.kind {
                    Kind::Setup => Verdict::Error,
                    Kind::Check | Kind::Skip => Verdict::Failed,
                };
                let mut outcome = Outcome::of(scenario, verdict, begun);
                outcome.failure = Some(Found {
                    step: place.step,
                    expected: failure.expected,
                    got: failure.got,
                    log: place.log,
                    again: self.again(scenario),
                });
                outcome
            }
        };
        if self.interrupt.token().is_cancelled() {
            // A terminal interrupts the servers too: what fails from now on says nothing of them.
            return match outcome.verdict {
                Verdict::Passed => outcome,
                _ => Outcome::of(scenario, Verdict::Skipped, begun).because(INTERRUPTED),
            };
        }
        match &outcome.failure {
            None if outcome.verdict == Verdict::Passed => line.done("passed"),
            None => {
                drop(line);
                return self.skipped(outcome);
            }
            Some(found) => {
                line.fail(outcome.verdict.name());
                self.output.note(found.to_string());
            }
        }
        outcome
    }

    fn skipped(&self, outcome: Outcome) -> Outcome {
        let reason = outcome.reason.as_deref().unwrap_or_default();
        self.output
            .detail(format!("- {}  skipped: {reason}", outcome.id));
        outcome
    }

    /// Plays it and clears the stage.
    async fn judge(&self, scenario: &Scenario) -> Result<(), (Failure, Place)> {
        let stage = Stage::new(
            &scenario.id,
            Rc::clone(&self.subject),
            Rc::clone(&self.services),
            self.run.keep.as_deref(),
        )
        .map_err(|failure| (failure, Place::default()))?;
        let limit = self.run.timeout.unwrap_or(scenario.limit);
        let played = tokio::select! {
            played = timeout(limit, scenario.play(&stage)) => played.unwrap_or_else(|_| {
                Err(Failure::check(
                    format!("an end within {}", duration::show(limit)),
                    "it still waits",
                ))
            }),
            () = self.interrupt.token().cancelled() => Err(Failure::skip(INTERRUPTED)),
        };
        let place = Place {
            step: stage.current_step(),
            log: match &played {
                Ok(()) => Vec::new(),
                Err(_) => stage.logs(),
            },
        };
        let cleared = stage.finish().await;
        played.map_err(|failure| (failure, place))?;
        cleared.map_err(|failure| {
            let place = Place {
                step: "clear the stage".to_owned(),
                ..Place::default()
            };
            (failure, place)
        })
    }

    /// The command that runs it alone.
    fn again(&self, scenario: &Scenario) -> String {
        let mut command = format!(
            "provision test --suite {} --filter {}",
            scenario.suite.name(),
            scenario.id
        );
        if !scenario.covering {
            command.push_str(" --full");
        }
        if let Some(binary) = &self.subject.given {
            command.push_str(&format!(" --binary {}", binary.display()));
        }
        command
    }
}

/// Where a scenario failed.
#[derive(Default)]
struct Place {
    step: String,
    log: Vec<String>,
}
