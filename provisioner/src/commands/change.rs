//! `restart`, `replace` and `move-leader`: what `up` does, and something more.

use crate::apply::{Interrupt, Lifetime, Second};
use crate::cli::{ChangeArgs, MoveLeaderArgs, ReplaceArgs, RestartArgs};
use crate::cluster::{Asked, Cluster, Known};
use crate::context::Context;
use crate::error::{Error, ExitCode};
use crate::runtime::runtime;

use super::up::{self, Options, carry_out};
use super::{plan, up::OBSERVE_LIMIT};

/// Runs `restart`.
///
/// # Errors
/// A member is unknown, the quorum would be lost, or a member does not come back.
pub fn restart(args: &RestartArgs, context: &Context) -> Result<ExitCode, Error> {
    run(
        "restart",
        Asked::Restart(args.members.clone()),
        &args.change,
        context,
    )
}

/// Runs `replace`.
///
/// # Errors
/// The member is unknown, the quorum would be lost, or the new member does not come up.
pub fn replace(args: &ReplaceArgs, context: &Context) -> Result<ExitCode, Error> {
    run(
        "replace",
        Asked::Replace(args.member.clone()),
        &args.change,
        context,
    )
}

/// Runs `move-leader`.
///
/// # Errors
/// The member is unknown, is not ready, or does not lead in the end.
pub fn move_leader(args: &MoveLeaderArgs, context: &Context) -> Result<ExitCode, Error> {
    run(
        "move-leader",
        Asked::Lead(args.to.clone()),
        &args.change,
        context,
    )
}

fn run(verb: &str, asked: Asked, args: &ChangeArgs, context: &Context) -> Result<ExitCode, Error> {
    runtime()?.block_on(async {
        let interrupt = Interrupt::listen(Second::Exits)?;
        let cluster = Cluster::open(&args.target, context)?;
        if args.dry_run {
            return plan::show(&cluster, asked, args.timeout, args.accept_downtime, context)
                .await
                .map(|_| ExitCode::Ok);
        }
        let options = Options {
            timeout: args.timeout,
            accept_downtime: args.accept_downtime,
            force_unlock: args.force_unlock,
            lifetime: Lifetime::Own,
        };
        let lead = match &asked {
            Asked::Lead(to) => Some(to.clone()),
            _ => None,
        };
        let (plan, applied) =
            carry_out(verb, &cluster, asked, options, context, &interrupt).await?;
        if let Some(to) = lead {
            let leader = leader(&cluster).await?;
            let moved = match &to {
                Some(to) => leader.as_ref() == Some(to),
                None => leader.is_some() && leader.as_deref() != plan.moves_from(),
            };
            if !moved {
                return Err(Error::failed(
                    format!(
                        "leadership did not move: {} leads",
                        leader.as_deref().unwrap_or("nobody")
                    ),
                    "see the members' logs, then try again; etcd before 3.4 cannot hand leadership over",
                ));
            }
        }
        up::report(&cluster, plan, applied, context)
    })
}

async fn leader(cluster: &Cluster) -> Result<Option<String>, Error> {
    let Some(known) = Known::load(cluster.dir.clone())? else {
        return Ok(None);
    };
    let observed = known.observe(OBSERVE_LIMIT).await?;
    let mut names = observed.members.keys();
    Ok(names.find(|name| observed.leads(name)).cloned())
}
