//! `down`

use std::time::Duration;

use futures_util::future::try_join_all;
use serde::Serialize;

use super::confirm::confirm;
use crate::apply::{Target, Until, stop_all};
use crate::cli::DownArgs;
use crate::cluster::Known;
use crate::context::Context;
use crate::deployment;
use crate::error::{Error, ExitCode};
use crate::mirror;
use crate::output::{Document, Format, Table};
use crate::plan::{self, Step};
use crate::runtime::runtime;
use crate::state::Outcome;

// A data directory of gigabytes is many files.
const PURGE_LIMIT: Duration = Duration::from_secs(120);
const LEADER_LIMIT: Duration = Duration::from_millis(500);

#[derive(Debug, Serialize)]
struct Report {
    name: String,
    stopped: Vec<String>,
    purged: bool,
}

impl Document for Report {
    fn table(&self) -> Table {
        Table::default()
    }
}

/// Runs `down`.
///
/// # Errors
/// The cluster is unknown or locked, the purge was not confirmed, or a process would not end.
pub fn run(args: &DownArgs, context: &Context) -> Result<ExitCode, Error> {
    let known = Known::open(&args.target, context)?;
    if args.purge && !args.yes {
        let name = known.dir.name();
        let effect = format!("deletes all data, certificates and logs of cluster {name}");
        confirm(name, "deleting", "deleted", &effect)?;
    }
    runtime()?.block_on(down(args, &known, context))
}

async fn down(args: &DownArgs, known: &Known, context: &Context) -> Result<ExitCode, Error> {
    let output = &context.output;
    let name = known.dir.name();
    let lock = known.dir.lock("down", args.force_unlock)?;
    let remembered = Some(&known.instance);
    mirror::lock(
        &known.hosts,
        &known.topology,
        remembered,
        "down",
        args.force_unlock,
    )
    .await?;
    // Who leads is worth a short question; without an answer everything is stopped all the same.
    let observed = match known.observe(LEADER_LIMIT).await {
        Ok(observed) => observed,
        Err(_) => known.look_at_host(args.timeout).await?,
    };
    let plan = plan::down(&known.topology, &observed);
    let mut stopped = Vec::new();
    if !plan.is_empty() {
        let mut journal = known.dir.journal("down", plan.steps.len())?;
        for planned in &plan.steps {
            let (names, services) = match &planned.step {
                Step::Stop { members } => (members, false),
                Step::StopServices { services } => (services, true),
                _ => continue,
            };
            let text = planned.step.to_string();
            journal.step(&text)?;
            if let Some(ledger) = planned.ledger {
                output.detail(format!("{text}: {ledger}"));
            }
            let line = output.line(name);
            line.set(&text);
            let mut targets = Vec::new();
            for name in names {
                let target = if services {
                    let running = observed.services.get(name).and_then(Option::as_ref);
                    running.map(|running| Target::Here(running.process.clone()))
                } else {
                    let Known {
                        topology,
                        instance,
                        hosts,
                        ..
                    } = known;
                    Target::of(name, topology, instance, &observed, hosts).await?
                };
                targets.extend(target.map(|target| (name.clone(), target)));
            }
            stop_all(&targets, Until::Started, args.timeout).await?;
            line.done(format!("stopped {}", names.join(", ")));
            journal.step_done(&text)?;
            stopped.extend(names.iter().cloned());
        }
        journal.end(Outcome::Done)?;
    }
    if args.purge {
        purge_hosts(known).await?;
        known.dir.purge()?;
    }
    drop(lock);
    let what = match (args.purge, stopped.is_empty()) {
        (true, _) => "deleted, with its data, certificates and logs".to_owned(),
        (false, true) => "already stopped".to_owned(),
        (false, false) => {
            format!("stopped; its data stays, and `provision up {name}` brings it back")
        }
    };
    output.note(format!("cluster {name} is {what}"));
    if output.format() != Format::Table {
        output.data(&Report {
            name: name.to_owned(),
            stopped,
            purged: args.purge,
        })?;
    }
    Ok(ExitCode::Ok)
}

/// Removes what members have on their hosts: data, certificates, settings and units. Programs stay: others may run them.
async fn purge_hosts(known: &Known) -> Result<(), Error> {
    let members = known.topology.members.iter();
    let purges = members.filter_map(|member| {
        let host = member.host.as_ref()?;
        let place = known.instance.members.get(&member.name)?;
        Some(async move {
            let agent = known.hosts.agent(host).await?;
            let mut traces = deployment::traces(host, known.dir.name(), &member.name, place);
            let homes = place.host_dir.iter();
            traces
                .all
                .extend(homes.map(|home| deployment::removed_dir(home)));
            traces.all.extend(mirror::traces(host, known.dir.name()));
            agent
                .ask(&traces, PURGE_LIMIT)
                .await
                .map_err(|error| error.at(&member.name, "purge"))
        })
    });
    try_join_all(purges).await.map(drop)
}
