//! What each run did, step by step: for people after a failure, and for the next run to say that it resumes.
//!
//! One JSON object a line, appended. It decides nothing: the next run plans from facts.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::dir::now_text;
use super::error::StateError;
use super::lock::Owner;

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Everything was done.
    Done,
    /// A step failed.
    Failed,
    /// Ctrl-C or a signal; the step was finished or undone.
    Interrupted,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Entry {
    at: String,
    run: u32,
    #[serde(flatten)]
    event: Event,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
enum Event {
    Begin {
        verb: String,
        steps: usize,
        // Releases before did not write it.
        #[serde(default)]
        who: String,
    },
    Step {
        step: String,
    },
    StepDone {
        step: String,
    },
    Note {
        text: String,
    },
    End {
        outcome: Outcome,
    },
}

/// One run, as its journal tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Past {
    /// When it began, as RFC 3339.
    pub began: String,
    /// When it ended; its last sign of life if it never came to an end.
    pub ended: String,
    /// The verb.
    pub verb: String,
    /// The user, and the machine.
    pub who: String,
    /// How many steps it had.
    pub planned: usize,
    /// Those that were done.
    pub steps: Vec<String>,
    /// What came of it: a receipt, an error.
    pub notes: Vec<String>,
    /// How it ended; `None`: it was cut off, or goes on.
    pub outcome: Option<Outcome>,
}

/// The runs that a journal tells of, the oldest first. What a crash cut short is left out.
pub fn past(path: &Path) -> Result<Vec<Past>, StateError> {
    let mut runs: Vec<Past> = Vec::new();
    for path in [path.with_extension("jsonl.1"), path.to_owned()] {
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(StateError::io("read", &path)(error)),
        };
        let entries = text.lines();
        for Entry { at, event, .. } in entries.filter_map(|line| serde_json::from_str(line).ok()) {
            if let Event::Begin { verb, steps, who } = event {
                runs.push(Past {
                    began: at.clone(),
                    ended: at,
                    verb,
                    who,
                    planned: steps,
                    steps: Vec::new(),
                    notes: Vec::new(),
                    outcome: None,
                });
                continue;
            }
            let Some(run) = runs.last_mut() else {
                continue;
            };
            run.ended = at;
            match event {
                Event::StepDone { step } => run.steps.push(step),
                Event::Note { text } => run.notes.push(text),
                Event::End { outcome } => run.outcome = Some(outcome),
                Event::Begin { .. } | Event::Step { .. } => {}
            }
        }
    }
    Ok(runs)
}

/// The open journal of one run.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    interrupted_at: Option<String>,
}

impl Journal {
    /// Opens the journal for a run of `verb` with so many steps.
    pub fn begin(path: &Path, verb: &str, steps: usize) -> Result<Self, StateError> {
        rotate(path);
        let interrupted_at = unfinished_step(path);
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path)
            .map_err(StateError::io("open", path))?;
        let mut journal = Self {
            path: path.to_owned(),
            file,
            interrupted_at,
        };
        journal.write(Event::Begin {
            verb: verb.to_owned(),
            steps,
            who: who(),
        })?;
        Ok(journal)
    }

    /// The step in which the run before was cut off without a word, if it was.
    #[must_use]
    pub fn interrupted_at(&self) -> Option<&str> {
        self.interrupted_at.as_deref()
    }

    /// The file, for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A step begins.
    pub fn step(&mut self, step: &str) -> Result<(), StateError> {
        self.write(Event::Step {
            step: step.to_owned(),
        })
    }

    /// The step is done.
    pub fn step_done(&mut self, step: &str) -> Result<(), StateError> {
        self.write(Event::StepDone {
            step: step.to_owned(),
        })
    }

    /// Something worth keeping.
    pub fn note(&mut self, text: &str) -> Result<(), StateError> {
        self.write(Event::Note {
            text: text.to_owned(),
        })
    }

    /// The run ends.
    pub fn end(&mut self, outcome: Outcome) -> Result<(), StateError> {
        self.write(Event::End { outcome })
    }

    fn write(&mut self, event: Event) -> Result<(), StateError> {
        let entry = Entry {
            at: now_text(),
            run: std::process::id(),
            event,
        };
        let mut line = serde_json::to_vec(&entry).map_err(|source| StateError::Damaged {
            path: self.path.clone(),
            source,
        })?;
        line.push(b'\n');
        self.file
            .write_all(&line)
            .map_err(StateError::io("write", &self.path))
    }
}

fn who() -> String {
    let me = Owner::me("");
    format!("{}@{}", me.user, me.host)
}

// A line that a crash cut short is skipped: the journal only informs.
fn unfinished_step(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let last = text
        .lines()
        .rev()
        .filter_map(|line| serde_json::from_str::<Entry>(line).ok())
        .find(|entry| !matches!(entry.event, Event::Note { .. }))?;
    match last.event {
        Event::Step { step } | Event::StepDone { step } => Some(step),
        Event::Begin { verb, .. } => Some(verb),
        Event::Note { .. } | Event::End { .. } => None,
    }
}

fn rotate(path: &Path) {
    // Some ten thousand lines: months of daily use.
    const LIMIT: u64 = 1024 * 1024;
    if fs::metadata(path).is_ok_and(|meta| meta.len() > LIMIT) {
        let _growing_is_harmless = fs::rename(path, path.with_extension("jsonl.1"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_ended_leaves_nothing_to_resume() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.jsonl");
        let mut first = Journal::begin(&path, "up", 1).unwrap();
        assert_eq!(first.interrupted_at(), None);
        first.step("start infra0").unwrap();
        first.step_done("start infra0").unwrap();
        first.end(Outcome::Done).unwrap();
        assert_eq!(
            Journal::begin(&path, "up", 0).unwrap().interrupted_at(),
            None
        );
    }

    #[test]
    fn a_run_that_was_cut_off_names_its_step() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.jsonl");
        let mut first = Journal::begin(&path, "up", 2).unwrap();
        first.step("start infra0").unwrap();
        first.note("something").unwrap();
        drop(first);
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"at\":\"2026").unwrap();
        assert_eq!(
            Journal::begin(&path, "up", 0).unwrap().interrupted_at(),
            Some("start infra0")
        );
    }
}
