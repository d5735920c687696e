//! `recover`

use crate::apply::{Interrupt, Second};
use crate::cli::RecoverArgs;
use crate::cluster::{Asked, Cluster, Prepared};
use crate::context::Context;
use crate::error::{Error, ExitCode};
use crate::observe::Observed;
use crate::plan::survivors;
use crate::runtime::runtime;

use super::plan;
use super::up::{self, OBSERVE_LIMIT, Options, carry_out};

/// Runs `recover`.
///
/// # Errors
/// The cluster has a majority, nobody is left, or somebody does not come up.
pub fn run(args: &RecoverArgs, context: &Context) -> Result<ExitCode, Error> {
    runtime()?.block_on(async {
        let change = &args.change;
        let interrupt = Interrupt::listen(Second::Exits)?;
        let cluster = Cluster::open(&change.target, context)?;
        let name = &cluster.topology.name;
        let prepared = cluster.prepare(cluster.programs()?, Asked::Recover(String::new()))?;
        let observed = cluster
            .observe(&prepared, OBSERVE_LIMIT.min(change.timeout))
            .await?;
        let survivor = choose(&cluster, &prepared, &observed, args, context)?;
        if change.dry_run {
            let asked = Asked::Recover(survivor);
            return plan::show(&cluster, asked, change.timeout, true, context)
                .await
                .map(|_| ExitCode::Ok);
        }
        if !args.accept_data_loss {
            return Err(Error::refused(
                format!(
                    "cluster {name} would go on with what {survivor} knows: what only the lost majority has is lost"
                ),
                "bring lost members back if that is possible at all; else repeat the command with --accept-data-loss, after a look at --dry-run",
            ));
        }
        let options = Options {
            accept_downtime: true,
            ..Options::of(change)
        };
        let asked = Asked::Recover(survivor);
        let (plan, applied) =
            carry_out("recover", &cluster, asked, options, context, &interrupt).await?;
        for (name, facts) in &observed.members {
            if facts.unreachable.is_some() {
                context.output.warn(format!(
                    "{name} is not in the cluster: its machine is out of reach. `provision replace {} {name} --with ssh://HOST` brings it back on another, or take it out of the file",
                    cluster.topology.name
                ));
            }
        }
        up::report(&cluster, plan, applied, context)
    })
}

// Says who is left and what they know.
fn choose(
    cluster: &Cluster,
    prepared: &Prepared,
    observed: &Observed,
    args: &RecoverArgs,
    context: &Context,
) -> Result<String, Error> {
    let survivor = cluster.survivor(prepared, observed, args.from.as_deref())?;
    for (name, facts) in survivors(observed) {
        let knows = match facts.knows() {
            Some(known) => format!("term {}, committed index {}", known.term, known.index),
            None => "nobody knows how much".to_owned(),
        };
        let chosen = if *name == survivor { ", goes on" } else { "" };
        context
            .output
            .note(format!("{name} has data: {knows}{chosen}"));
    }
    Ok(survivor)
}
