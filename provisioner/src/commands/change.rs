//! `restart`, `replace`, `move-leader` and `upgrade`: what `up` does, and something more.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::apply::{Interrupt, Second};
use crate::cli::{ChangeArgs, MoveLeaderArgs, ReplaceArgs, RestartArgs, UpgradeArgs};
use crate::cluster::{Asked, Cluster, Known};
use crate::context::Context;
use crate::error::{Error, ExitCode};
use crate::runtime::runtime;
use crate::topology::Edit;

use super::up::{self, Options, carry_out};
use super::{plan, up::OBSERVE_LIMIT};

/// Runs `restart`.
///
/// # Errors
/// A member is unknown, the quorum would be lost, or a member does not come back.
pub fn restart(args: &RestartArgs, context: &Context) -> Result<ExitCode, Error> {
    let asked = Asked::Restart(args.members.clone());
    run("restart", asked, &[], None, &args.change, context)
}

/// Runs `replace`.
///
/// # Errors
/// The member is unknown, the quorum would be lost, or the new member does not come up.
pub fn replace(args: &ReplaceArgs, context: &Context) -> Result<ExitCode, Error> {
    let edits = args.with.iter().map(|url| Edit::Host {
        member: &args.member,
        url,
        address: args.address.as_deref(),
    });
    let edits: Vec<Edit<'_>> = edits.collect();
    let asked = Asked::Replace(args.member.clone());
    run("replace", asked, &edits, None, &args.change, context)
}

/// Runs `move-leader`.
///
/// # Errors
/// The member is unknown, is not ready, or does not lead in the end.
pub fn move_leader(args: &MoveLeaderArgs, context: &Context) -> Result<ExitCode, Error> {
    let asked = Asked::Lead(args.to.clone());
    run("move-leader", asked, &[], None, &args.change, context)
}

/// Runs `upgrade`.
///
/// # Errors
/// The version must not follow the one that runs, the budget is exceeded, or a member does not come back.
pub fn upgrade(args: &UpgradeArgs, context: &Context) -> Result<ExitCode, Error> {
    let target = &args.change.target;
    let binary = match &args.binary {
        Some(binary) => Some(absolute(binary)?),
        None => None,
    };
    let mut edits: Vec<Edit<'_>> = Vec::new();
    let before;
    if args.rollback {
        before = programs_before(target, context)?;
        edits.extend(
            before
                .iter()
                .map(|(binary, members)| Edit::Binary { members, binary }),
        );
    } else if let Some(binary) = &binary {
        edits.push(Edit::Binary {
            members: &args.members,
            binary,
        });
    }
    let asked = if args.rollback {
        Asked::Rollback
    } else {
        Asked::Upgrade
    };
    let budget = Some(args.budget);
    run("upgrade", asked, &edits, budget, &args.change, context)
}

// The file may lie in another directory than the one that a relative path is meant for.
fn absolute(binary: &str) -> Result<String, Error> {
    if !binary.contains('/') {
        return Ok(binary.to_owned());
    }
    let path = std::path::absolute(binary).map_err(Error::io("find", binary.as_ref()))?;
    Ok(path.display().to_string())
}

/// Programs from before the last upgrade, with those who ran them.
fn programs_before(
    target: &str,
    context: &Context,
) -> Result<BTreeMap<String, Vec<String>>, Error> {
    let known = Known::open(target, context)?;
    let mut programs: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (member, binary) in &known.instance.before_upgrade {
        let members = programs.entry(binary.display().to_string()).or_default();
        members.push(member.clone());
    }
    if programs.is_empty() {
        return Err(Error::usage(
            format!("cluster {} was not upgraded", known.dir.name()),
            "name the program to go back to with --binary",
        ));
    }
    Ok(programs)
}

fn run(
    verb: &str,
    asked: Asked,
    edits: &[Edit<'_>],
    budget: Option<Duration>,
    args: &ChangeArgs,
    context: &Context,
) -> Result<ExitCode, Error> {
    runtime()?.block_on(async {
        let interrupt = Interrupt::listen(Second::Exits)?;
        let cluster = Cluster::open_with(&args.target, edits, context)?;
        if args.dry_run {
            return plan::show(&cluster, asked, args.timeout, args.accept_downtime, context)
                .await
                .map(|_| ExitCode::Ok);
        }
        let options = Options {
            budget,
            ..Options::of(args)
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
