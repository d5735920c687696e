//! `exec`

use std::time::Duration;

use crate::cli::ExecArgs;
use crate::cluster::{Known, unset_beside};
use crate::context::Context;
use crate::error::{Error, ExitCode};
use crate::host::local::replace_with;
use crate::runtime::runtime;
use crate::topology::Network;

const LOOK_LIMIT: Duration = Duration::from_secs(5);

/// Runs `exec`: becomes the command, so that signals and its exit code need no forwarding.
///
/// # Errors
/// The cluster is unknown, its network is gone, or the command does not run.
pub fn run(args: &ExecArgs, context: &Context) -> Result<ExitCode, Error> {
    let known = Known::open(&args.target, context)?;
    if known.topology.network == Network::Private && !runs(&known)? {
        let name = known.dir.name();
        return Err(Error::failed(
            format!("cluster {name} is down, and its network is gone with its last process"),
            format!("bring it up with `provision up {name}`"),
        ));
    }
    let variables = known.variables_for(&args.command);
    let unset = unset_beside(&variables);
    let error = replace_with(&args.command, variables, &unset);
    Err(Error::Failed {
        what: "the command does not run".to_owned(),
        fix: Some("check its name and PATH".to_owned()),
        source: Some(error.into()),
    })
}

fn runs(known: &Known) -> Result<bool, Error> {
    let observed = runtime()?.block_on(known.look_at_host(LOOK_LIMIT))?;
    let mut members = observed.members.values();
    Ok(members.any(|facts| facts.process.is_some())
        || observed.services.values().any(Option::is_some))
}
