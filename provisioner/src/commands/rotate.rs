//! `rotate certs` and `rotate ca`

use crate::apply::{Interrupt, Second};
use crate::cli::{RotateArgs, Rotated};
use crate::cluster::{Asked, Cluster};
use crate::context::Context;
use crate::error::{Error, ExitCode};
use crate::instance::CaStage;
use crate::pki;
use crate::runtime::runtime;

use super::plan;
use super::up::{self, Options, carry_out};

/// Runs `rotate`.
///
/// # Errors
/// The cluster has no CA of its own, a member does not come back, or the quorum would be lost.
pub fn run(args: &RotateArgs, context: &Context) -> Result<ExitCode, Error> {
    runtime()?.block_on(async {
        let interrupt = Interrupt::listen(Second::Exits)?;
        let cluster = Cluster::open(&args.change.target, context)?;
        let name = &cluster.topology.name;
        if !pki::needs_ca(&cluster.topology) {
            return Err(Error::usage(
                format!("cluster {name} has no certificates that a CA has signed"),
                "there is nothing to rotate; `tls` of the topology asks for them",
            ));
        }
        if args.step && args.what == Rotated::Certs {
            return Err(Error::usage(
                "certificates are issued in one step",
                "leave out --step",
            ));
        }
        let rotation = cluster.dir.load()?.and_then(|instance| instance.rotation);
        let stages = match (args.what, rotation) {
            (Rotated::Certs, _) => vec![Asked::Certificates],
            (Rotated::Ca, from) => stages(from).into_iter().map(Asked::Ca).collect(),
        };
        let options = Options::of(&args.change);
        let taken = if args.step { 1 } else { stages.len() };
        let mut last = None;
        for asked in stages.into_iter().take(taken) {
            if let Asked::Ca(stage) = asked {
                context.output.note(headline(stage));
            }
            if args.change.dry_run {
                let change = &args.change;
                plan::show(
                    &cluster,
                    asked,
                    change.timeout,
                    change.accept_downtime,
                    context,
                )
                .await?;
                continue;
            }
            let done = carry_out("rotate", &cluster, asked, options, context, &interrupt).await?;
            if let Some((_, applied)) = last.replace(done)
                && let Some(receipt) = applied.receipt
            {
                context.output.note(receipt.to_string());
            }
        }
        match last {
            Some((plan, applied)) => up::report(&cluster, plan, applied, context),
            None => Ok(ExitCode::Ok),
        }
    })
}

// Those that are still to be taken; one that was begun may not be finished.
fn stages(from: Option<CaStage>) -> Vec<CaStage> {
    let all = [CaStage::Trust, CaStage::Reissue, CaStage::Drop];
    let begun = all.iter().position(|stage| Some(*stage) == from);
    all[begun.unwrap_or(0)..].to_vec()
}

fn headline(stage: CaStage) -> &'static str {
    match stage {
        CaStage::Trust => "1 of 3: every member trusts the new CA beside the old one",
        CaStage::Reissue => "2 of 3: every certificate is issued by the new CA",
        CaStage::Drop => "3 of 3: nobody trusts the old CA any more",
    }
}
