//! `plan`

use std::time::Duration;

use crate::cli::PlanArgs;
use crate::cluster::{Asked, Cluster};
use crate::context::Context;
use crate::error::{Error, ExitCode};
use crate::plan::{Plan, Refusal};
use crate::runtime::runtime;

/// Runs `plan`.
///
/// # Errors
/// There is no plan, or `up` would refuse it.
pub fn run(args: &PlanArgs, context: &Context) -> Result<ExitCode, Error> {
    runtime()?.block_on(async {
        let cluster = Cluster::open(&args.target, context)?;
        let plan = show(
            &cluster,
            Asked::Nothing,
            args.timeout,
            args.accept_downtime,
            context,
        )
        .await?;
        // As terraform's: 2 means that there is something to do.
        Ok(if args.detailed_exitcode && !plan.is_empty() {
            ExitCode::Usage
        } else {
            ExitCode::Ok
        })
    })
}

/// Prints what a verb would do. Fails where the verb would be refused.
pub(super) async fn show(
    cluster: &Cluster,
    asked: Asked,
    timeout: Duration,
    accept_downtime: bool,
    context: &Context,
) -> Result<Plan, Error> {
    let programs = cluster.programs()?;
    let prepared = cluster.prepare(programs, asked)?;
    if let Some(owner) = cluster.dir.holder() {
        context.output.warn(format!(
            "the cluster is being changed by {owner}: this plan may be out of date"
        ));
    }
    let observed = cluster.observe(&prepared, timeout).await?;
    let plan = cluster.plan(&prepared, &observed)?;
    context.output.data(&plan)?;
    match plan.first_losing_quorum().filter(|_| !accept_downtime) {
        Some(planned) => Err(Refusal::margin(planned).into()),
        None => Ok(plan),
    }
}
