//! `test`

use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::apply::{Interrupt, Second};
use crate::cli::TestArgs;
use crate::context::Context;
use crate::error::{Error, ExitCode};
use crate::runtime::runtime;
use crate::scenario::{Report, Run, Scenario, Subject, all, junit, listing, run as play};

/// Runs `test`.
///
/// # Errors
/// Nothing was chosen, the server under test is not there, the JUnit file cannot be written, or the run was interrupted.
pub fn run(args: &TestArgs, context: &Context) -> Result<ExitCode, Error> {
    let scenarios = chosen(all(), args)?;
    if args.list {
        context.output.data(&listing(&scenarios))?;
        return Ok(ExitCode::Ok);
    }
    // Without a server there is no cluster to test, which is an exit code of its own.
    let subject = match Subject::find(args.binary.as_deref()) {
        Ok(subject) => subject,
        Err(error) => {
            context.output.error(&error);
            return Ok(ExitCode::NotProvisioned);
        }
    };
    let keep = args.keep.as_deref().map(empty_directory).transpose()?;
    let job = Run {
        scenarios,
        subject,
        jobs: args.jobs.get(),
        timeout: args.timeout,
        keep,
    };
    let begun = Instant::now();
    let (outcomes, interrupted) = runtime()?.block_on(async {
        // Everything that runs is ended by the first signal, and a second one cannot make that faster.
        let interrupt = Interrupt::listen(Second::Urges)?;
        let outcomes = play(&job, &interrupt, &context.output).await?;
        Ok::<_, Error>((outcomes, interrupt.check()))
    })?;
    let report = Report::new(
        job.subject.program.display().to_string(),
        job.subject.version.clone(),
        begun.elapsed().as_secs_f64(),
        outcomes,
    );
    if let Some(path) = &args.junit {
        std::fs::write(path, junit(&report)).map_err(Error::io("write", path))?;
    }
    interrupted?;
    context.output.data(&report)?;
    if let Some(reasons) = report.nothing_checked() {
        context.output.error(&Error::failed(
            format!("nothing was checked, because every scenario was skipped: {reasons}"),
            "choose others, or make what they need available",
        ));
    }
    Ok(report.exit_code())
}

// Files of an earlier run would be taken for those of this one.
fn empty_directory(path: &Path) -> Result<PathBuf, Error> {
    std::fs::create_dir_all(path).map_err(Error::io("create", path))?;
    let mut entries = std::fs::read_dir(path).map_err(Error::io("read", path))?;
    if entries.next().is_some() {
        return Err(Error::usage(
            format!("--keep: {} is not empty", path.display()),
            "name a new directory",
        ));
    }
    std::path::absolute(path).map_err(Error::io("resolve", path))
}

fn chosen(all: Vec<Scenario>, args: &TestArgs) -> Result<Vec<Scenario>, Error> {
    let filter = args.filter.as_deref().unwrap_or_default();
    let fits = |scenario: &Scenario| {
        (args.suite.is_empty() || args.suite.contains(&scenario.suite))
            && scenario.id.contains(filter)
    };
    let fitting: Vec<Scenario> = all.into_iter().filter(fits).collect();
    let any = !fitting.is_empty();
    let chosen: Vec<Scenario> = fitting
        .into_iter()
        .filter(|scenario| args.full || scenario.covering)
        .collect();
    if !chosen.is_empty() {
        return Ok(chosen);
    }
    let fix = match any {
        true => "add --full: what it matches is not in the covering subset",
        false => "see the names with `provision test --full --list`",
    };
    Err(Error::usage(format!("no scenario matches {filter:?}"), fix))
}
