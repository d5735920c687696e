//! `up`

use std::time::Duration;

use serde::Serialize;

use super::backup;
use crate::apply::{Applied, Apply, Interrupt, Lifetime, Receipt, Second};
use crate::cli::{ChangeArgs, UpArgs};
use crate::cluster::{Asked, Cluster};
use crate::context::Context;
use crate::duration;
use crate::error::{Error, ExitCode};
use crate::mirror;
use crate::output::{Document, Format, Table};
use crate::plan::{Plan, Refusal};
use crate::render::client_urls;
use crate::runtime::runtime;
use crate::topology::{ClientTls, Network, PeerTls, to_toml};

// A running member answers in milliseconds; one that hangs is waited for by a step with its own deadline.
pub(super) const OBSERVE_LIMIT: Duration = Duration::from_secs(3);

/// How a cluster is brought up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Options {
    pub(super) timeout: Duration,
    pub(super) accept_downtime: bool,
    pub(super) force_unlock: bool,
    pub(super) lifetime: Lifetime,
    pub(super) budget: Option<Duration>,
}

impl Options {
    /// What a verb that changes a running cluster was told.
    pub(super) fn of(args: &ChangeArgs) -> Self {
        Self {
            timeout: args.timeout,
            accept_downtime: args.accept_downtime,
            force_unlock: args.force_unlock,
            lifetime: Lifetime::Own,
            budget: None,
        }
    }
}

#[derive(Debug, Serialize)]
struct Report {
    name: String,
    changed: bool,
    steps: Plan,
    endpoints: Vec<String>,
    elapsed_ms: u64,
    receipt: Option<Receipt>,
}

impl Document for Report {
    // People read the progress on standard error; nothing is left to say here.
    fn table(&self) -> Table {
        Table::default()
    }
}

/// Runs `up`.
///
/// # Errors
/// Whatever keeps the cluster from being as the topology says.
pub fn run(args: &UpArgs, context: &Context) -> Result<ExitCode, Error> {
    runtime()?.block_on(async {
        let interrupt = Interrupt::listen(Second::Exits)?;
        let cluster = Cluster::open(&args.target, context)?;
        let options = Options {
            timeout: args.timeout,
            accept_downtime: args.accept_downtime,
            force_unlock: args.force_unlock,
            lifetime: Lifetime::Own,
            budget: None,
        };
        let (plan, applied) = converge(&cluster, options, context, &interrupt).await?;
        report(&cluster, plan, applied, context)
    })
}

/// Observes, plans and applies, under the cluster's lock.
pub(super) async fn converge(
    cluster: &Cluster,
    options: Options,
    context: &Context,
    interrupt: &Interrupt,
) -> Result<(Plan, Applied), Error> {
    carry_out("up", cluster, Asked::Nothing, options, context, interrupt).await
}

/// The same for a verb that asks for more than the topology.
pub(super) async fn carry_out(
    verb: &str,
    cluster: &Cluster,
    asked: Asked,
    options: Options,
    context: &Context,
    interrupt: &Interrupt,
) -> Result<(Plan, Applied), Error> {
    // A missing binary is found before anything is written.
    let programs = cluster.programs()?;
    let lock = cluster.dir.lock(verb, options.force_unlock)?;
    let result = async {
        let remembered = cluster.dir.load()?;
        let Cluster {
            topology, hosts, ..
        } = cluster;
        mirror::lock(
            hosts,
            topology,
            remembered.as_ref(),
            verb,
            options.force_unlock,
        )
        .await?;
        if let Asked::Ca(stage) = asked {
            cluster.take_ca_stage(stage)?;
        }
        let prepared = cluster.prepare(programs, asked)?;
        let observed = cluster
            .observe(&prepared, OBSERVE_LIMIT.min(options.timeout))
            .await?;
        let plan = cluster.plan(&prepared, &observed)?;
        let remember = || match prepared.asked {
            Asked::Lead(_) => Ok(()),
            Asked::Ca(stage) => {
                cluster.dir.save_topology(&to_toml(&cluster.topology))?;
                cluster.end_ca_stage(stage)
            }
            _ => Ok(cluster.dir.save_topology(&to_toml(&cluster.topology))?),
        };
        if plan.is_empty() {
            cluster.save_edit(&context.output)?;
            remember()?;
            // A machine that was lost in the run before has an older copy.
            mirror::keep(hosts, topology, &cluster.dir).await?;
            cluster.dir.end_restore()?;
            return Ok((plan, Applied::default()));
        }
        if let Some(planned) = plan
            .first_losing_quorum()
            .filter(|_| !options.accept_downtime)
        {
            return Err(Refusal::margin(planned).into());
        }
        interrupt.check()?;
        if prepared.asked == Asked::Upgrade {
            backup::take_before(cluster, options.timeout, context).await?;
        }
        cluster.save_edit(&context.output)?;
        let mut journal = cluster.dir.journal(verb, plan.steps.len())?;
        let apply = Apply {
            cluster,
            prepared: &prepared,
            observed: &observed,
            output: &context.output,
            timeout: options.timeout,
            accept_downtime: options.accept_downtime,
            lifetime: options.lifetime,
            budget: options.budget,
            interrupt,
        };
        let result = apply.run(&plan, &mut journal).await;
        if result.is_err() {
            context.output.note(format!(
                "every step of this run is in {}",
                journal.path().display()
            ));
        }
        let applied = result?;
        remember()?;
        mirror::keep(hosts, topology, &cluster.dir).await?;
        // All members run with the data that a restore has left.
        cluster.dir.end_restore()?;
        Ok((plan, applied))
    }
    .await;
    if result.is_err() {
        cluster.dir.discard_if_unused()?;
    }
    drop(lock);
    result
}

pub(super) fn report(
    cluster: &Cluster,
    plan: Plan,
    applied: Applied,
    context: &Context,
) -> Result<ExitCode, Error> {
    let output = &context.output;
    let name = cluster.topology.name.clone();
    let Some(instance) = cluster.dir.load()? else {
        return Err(Error::because(
            format!("cluster {name} has no instance after up"),
            "its state directory was removed meanwhile",
        ));
    };
    let elapsed = output.elapsed();
    if plan.is_empty() {
        output.note(format!(
            "no change: cluster {name} is as its topology says ({})",
            duration::show(elapsed)
        ));
    } else {
        if let Some(receipt) = &applied.receipt {
            output.note(receipt.to_string());
        }
        output.note(format!(
            "cluster {name} is up ({})",
            duration::show(elapsed)
        ));
        output.note(match cluster.topology.network {
            Network::Host => {
                format!("next: eval \"$(provision env {name})\" && etcdctl member list")
            }
            Network::Private => format!("next: provision exec {name} -- etcdctl member list"),
        });
    }
    if instance.rotation.is_some() {
        output.note(format!(
            "its CA is being replaced: `provision rotate ca {name}` goes on with that"
        ));
    }
    let tls = &cluster.topology.tls;
    if tls.peer == PeerTls::Prepared || tls.client == ClientTls::Both {
        output.note(
            "it is on the way to TLS, and answers whoever comes without: `provision rotate tls FILE` goes on with that",
        );
    }
    if output.format() != Format::Table {
        output.data(&Report {
            name,
            changed: !plan.is_empty(),
            endpoints: client_urls(&cluster.topology, &instance),
            steps: plan,
            elapsed_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
            receipt: applied.receipt,
        })?;
    }
    Ok(ExitCode::Ok)
}
