//! `rotate certs`, `rotate ca` and `rotate tls`

use std::time::Duration;

use crate::apply::{Interrupt, Second};
use crate::cli::{RotateArgs, Rotated};
use crate::cluster::{Asked, Cluster};
use crate::context::Context;
use crate::error::{Error, ExitCode};
use crate::instance::CaStage;
use crate::pki;
use crate::runtime::runtime;
use crate::topology::{ClientTls, PeerTls, Tls};

use super::plan;
use super::up::{self, OBSERVE_LIMIT, Options, carry_out};

/// Runs `rotate`.
///
/// # Errors
/// There is nothing to replace, a member does not come back, or the quorum would be lost.
pub fn run(args: &RotateArgs, context: &Context) -> Result<ExitCode, Error> {
    runtime()?.block_on(async {
        let interrupt = Interrupt::listen(Second::Exits)?;
        let cluster = Cluster::open(&args.change.target, context)?;
        if args.step && args.what == Rotated::Certs {
            return Err(Error::usage(
                "certificates are issued in one step",
                "leave out --step",
            ));
        }
        let stages = match args.what {
            Rotated::Certs => signed(cluster, |_| vec![Asked::Certificates])?,
            Rotated::Ca => signed(cluster, |from| {
                stages(from).into_iter().map(Asked::Ca).collect()
            })?,
            Rotated::Tls => to_tls(&cluster, args.change.timeout).await?,
        };
        let options = Options::of(&args.change);
        let taken = if args.step { 1 } else { stages.len() };
        let mut last = None;
        for (cluster, asked) in stages.into_iter().take(taken) {
            context.output.note(headline(&cluster, &asked));
            if args.change.dry_run {
                let change = &args.change;
                plan::show(
                    &cluster,
                    asked.clone(),
                    change.timeout,
                    change.accept_downtime,
                    context,
                )
                .await?;
                if asked == Asked::Tls {
                    // The next stage is planned from what this one leaves behind.
                    break;
                }
                continue;
            }
            let done = carry_out("rotate", &cluster, asked, options, context, &interrupt).await?;
            if let Some((_, (_, applied))) = last.replace((cluster, done))
                && let Some(receipt) = applied.receipt
            {
                context.output.note(receipt.to_string());
            }
        }
        match last {
            Some((cluster, (plan, applied))) => up::report(&cluster, plan, applied, context),
            None => Ok(ExitCode::Ok),
        }
    })
}

/// The stages for a cluster that has certificates.
fn signed(
    cluster: Cluster,
    stages: impl FnOnce(Option<CaStage>) -> Vec<Asked>,
) -> Result<Vec<(Cluster, Asked)>, Error> {
    if !pki::needs_ca(&cluster.topology) {
        return Err(Error::usage(
            format!(
                "cluster {} has no certificates that a CA has signed",
                cluster.topology.name
            ),
            "there is nothing to rotate; `tls` of the topology asks for them",
        ));
    }
    let rotation = cluster.dir.load()?.and_then(|instance| instance.rotation);
    let stages = stages(rotation).into_iter();
    Ok(stages.map(|asked| (cluster.clone(), asked)).collect())
}

/// The stages for a cluster whose file asks for TLS that its members do not have.
async fn to_tls(cluster: &Cluster, limit: Duration) -> Result<Vec<(Cluster, Asked)>, Error> {
    let name = &cluster.topology.name;
    let rotation = cluster.dir.load()?.and_then(|instance| instance.rotation);
    if rotation.is_some() {
        return Err(Error::refused(
            format!("the CA of cluster {name} is being replaced"),
            format!("finish that first: `provision rotate ca {name}`"),
        ));
    }
    let (begun, mut stages) = cluster.tls_stages()?;
    if let Some(begun) = begun {
        let prepared = begun.prepare(begun.programs()?, Asked::Tls)?;
        let observed = begun.observe(&prepared, OBSERVE_LIMIT.min(limit)).await?;
        if !begun.plan(&prepared, &observed)?.is_empty() {
            stages.insert(0, begun);
        }
    }
    if stages.is_empty() {
        return Err(Error::usage(
            format!("cluster {name} has the TLS that its file asks for"),
            "write peer = \"mutual\" and client = \"mutual\" below [tls] in the topology file, and name that file",
        ));
    }
    let stages = stages.into_iter();
    Ok(stages.map(|cluster| (cluster, Asked::Tls)).collect())
}

// Those that are still to be taken; one that was begun may not be finished.
fn stages(from: Option<CaStage>) -> Vec<CaStage> {
    let all = [CaStage::Trust, CaStage::Reissue, CaStage::Drop];
    let begun = all.iter().position(|stage| Some(*stage) == from);
    all[begun.unwrap_or(0)..].to_vec()
}

fn headline(cluster: &Cluster, asked: &Asked) -> String {
    match asked {
        Asked::Ca(CaStage::Trust) => {
            "1 of 3: every member trusts the new CA beside the old one".to_owned()
        }
        Asked::Ca(CaStage::Reissue) => {
            "2 of 3: every certificate is issued by the new CA".to_owned()
        }
        Asked::Ca(CaStage::Drop) => "3 of 3: nobody trusts the old CA any more".to_owned(),
        Asked::Tls => {
            let Tls { peer, client, .. } = cluster.topology.tls;
            let peers = match peer {
                PeerTls::Off | PeerTls::Auto => "as before",
                PeerTls::Prepared => "in plain text, with certificates for TLS",
                PeerTls::Mutual => "over TLS",
            };
            let clients = match client {
                ClientTls::Off | ClientTls::Auto => "as before",
                ClientTls::Both => "with and without TLS",
                ClientTls::Server => "over TLS only",
                ClientTls::Mutual => "over TLS only, with certificates",
            };
            format!("members call each other {peers}; clients call {clients}")
        }
        _ => "every certificate is issued again".to_owned(),
    }
}
