//! `exec`

use crate::cli::ExecArgs;
use crate::cluster::{Known, unset_beside};
use crate::context::Context;
use crate::error::{Error, ExitCode};
use crate::host::local::replace_with;

/// Runs `exec`: becomes the command, so that signals and its exit code need no forwarding.
///
/// # Errors
/// The cluster is unknown, or the command does not run.
pub fn run(args: &ExecArgs, context: &Context) -> Result<ExitCode, Error> {
    let known = Known::open(&args.target, context)?;
    let variables = known.variables_for(&args.command);
    let unset = unset_beside(&variables);
    let error = replace_with(&args.command, variables, &unset);
    Err(Error::Failed {
        what: "the command does not run".to_owned(),
        fix: Some("check its name and PATH".to_owned()),
        source: Some(error.into()),
    })
}
