//! `audit`

use serde::Serialize;
use serde_json::Value;

use crate::cli::AuditArgs;
use crate::cluster::Known;
use crate::context::Context;
use crate::error::{Error, ExitCode};
use crate::output::{Document, Table};
use crate::state::{Outcome, Past, past};

#[derive(Debug, Serialize)]
struct Run {
    number: usize,
    #[serde(flatten)]
    past: Past,
}

#[derive(Debug, Serialize)]
struct Audit {
    name: String,
    runs: Vec<Run>,
    #[serde(skip)]
    whole: bool,
}

impl Document for Audit {
    fn table(&self) -> Table {
        if self.whole {
            return Table::text(self.runs.iter().map(Run::text).collect::<String>());
        }
        if self.runs.is_empty() {
            return Table::text("nothing was done yet");
        }
        let mut table = Table::new(["run", "began", "verb", "by", "steps", "outcome", "notes"]);
        for Run { number, past } in &self.runs {
            table.row([
                number.to_string(),
                past.began.clone(),
                past.verb.clone(),
                past.who.clone(),
                format!("{}/{}", past.steps.len(), past.planned),
                outcome(past.outcome).to_owned(),
                past.notes.join("; "),
            ]);
        }
        table
    }

    fn lines(&self) -> Vec<Value> {
        let runs = self.runs.iter();
        runs.filter_map(|run| serde_json::to_value(run).ok())
            .collect()
    }
}

impl Run {
    fn text(&self) -> String {
        let Past {
            began,
            ended,
            verb,
            who,
            steps,
            notes,
            outcome: end,
            ..
        } = &self.past;
        let mut text = format!(
            "run {}: {verb} by {who}, {began} to {ended}, {}\n",
            self.number,
            outcome(*end)
        );
        for (kind, lines) in [("done", steps), ("note", notes)] {
            for line in lines {
                text.push_str(&format!("  {kind}  {line}\n"));
            }
        }
        text
    }
}

/// Runs `audit`.
///
/// # Errors
/// The cluster or the run is unknown, or the journal cannot be read.
pub fn run(args: &AuditArgs, context: &Context) -> Result<ExitCode, Error> {
    let known = Known::open(&args.target, context)?;
    let name = known.dir.name().to_owned();
    let all = past(&known.dir.journal_file())?.into_iter();
    let mut runs: Vec<Run> = all
        .zip(1..)
        .map(|(past, number)| Run { number, past })
        .collect();
    if let Some(wanted) = args.run {
        let count = runs.len();
        runs.retain(|run| run.number == wanted);
        if runs.is_empty() {
            return Err(Error::usage(
                format!("cluster {name} has no run {wanted}"),
                format!("there are {count}; see `provision audit {name}`"),
            ));
        }
    }
    context.output.data(&Audit {
        name,
        runs,
        whole: args.run.is_some(),
    })?;
    Ok(ExitCode::Ok)
}

fn outcome(outcome: Option<Outcome>) -> &'static str {
    match outcome {
        Some(Outcome::Done) => "done",
        Some(Outcome::Failed) => "failed",
        Some(Outcome::Interrupted) => "interrupted",
        None => "cut off",
    }
}
