//! `plan`

use crate::cli::PlanArgs;
use crate::cluster::Cluster;
use crate::context::Context;
use crate::error::{Error, ExitCode};
use crate::plan::Refusal;
use crate::runtime::runtime;

/// Runs `plan`.
///
/// # Errors
/// There is no plan, or `up` would refuse it.
pub fn run(args: &PlanArgs, context: &Context) -> Result<ExitCode, Error> {
    runtime()?.block_on(async {
        let cluster = Cluster::open(&args.target, context)?;
        let programs = cluster.programs()?;
        let prepared = cluster.prepare(&programs)?;
        if let Some(owner) = cluster.dir.holder() {
            context.output.warn(format!(
                "the cluster is being changed by {owner}: this plan may be out of date"
            ));
        }
        let observed = cluster.observe(&prepared, args.timeout).await?;
        let plan = cluster.plan(&prepared, &observed)?;
        context.output.data(&plan)?;
        if let Some(planned) = plan.first_losing_quorum().filter(|_| !args.accept_downtime) {
            return Err(Refusal::margin(planned).into());
        }
        // As terraform's: 2 means that there is something to do.
        Ok(if args.detailed_exitcode && !plan.is_empty() {
            ExitCode::Usage
        } else {
            ExitCode::Ok
        })
    })
}
