//! `completions`: prints a completion script.

use clap::CommandFactory;

use crate::cli::{Cli, CompletionsArgs};
use crate::context::Context;
use crate::error::{Error, ExitCode};

/// Runs `completions`.
///
/// # Errors
/// Standard output is full.
pub fn run(args: &CompletionsArgs, context: &Context) -> Result<ExitCode, Error> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "provision", &mut script);
    context.output.raw(&script)?;
    Ok(ExitCode::Ok)
}
