//! `adopt`

use crate::cli::AdoptArgs;
use crate::cluster::Cluster;
use crate::context::Context;
use crate::error::{Error, ExitCode};
use crate::host::remote::Hosts;
use crate::mirror::{self, Copy};
use crate::runtime::runtime;
use crate::state::ClusterDir;
use crate::topology::{self, SshHost, Topology};

/// Runs `adopt`.
///
/// # Errors
/// The cluster is known already, or no machine has a copy of its state.
pub fn run(args: &AdoptArgs, context: &Context) -> Result<ExitCode, Error> {
    runtime()?.block_on(async {
        let cluster = Cluster::open(&args.file, context)?;
        let Cluster {
            topology,
            dir,
            hosts,
            ..
        } = &cluster;
        let name = &topology.name;
        let lock = dir.lock("adopt", args.force_unlock)?;
        let adopted = adopt(args, topology, dir, hosts, context).await;
        if adopted.is_err() {
            dir.discard_if_unused()?;
        }
        drop(lock);
        let from = adopted?;
        context
            .output
            .note(format!("cluster {name} is adopted from {from}"));
        context
            .output
            .note(format!("next: provision plan {}", args.file));
        Ok(ExitCode::Ok)
    })
}

async fn adopt(
    args: &AdoptArgs,
    topology: &Topology,
    dir: &ClusterDir,
    hosts: &Hosts,
    context: &Context,
) -> Result<String, Error> {
    let name = &topology.name;
    if dir.load()?.is_some() {
        return Err(Error::refused(
            format!("cluster {name} is known here already"),
            format!("see `provision status {name}`"),
        ));
    }
    let members = topology.members.iter();
    let machines: Vec<&SshHost> = members
        .filter_map(|member| member.host.as_ref())
        .filter(|host| args.from.as_ref().is_none_or(|from| host.url() == *from))
        .collect();
    if machines.is_empty() {
        return Err(Error::usage(
            match &args.from {
                Some(from) => format!("no member of {} lives on {from}", args.file),
                None => format!("the members of {} live on no machines", args.file),
            },
            "a cluster is adopted from the machines that the file names",
        ));
    }
    let mut why = Vec::new();
    for host in machines {
        match mirror::find(hosts, host, name).await {
            Ok(Some(copy)) => {
                let from = copy.host.clone();
                check(&copy, topology)?;
                // Settings of ssh are this operator's, everything else is what was applied last.
                let applied = topology::parse(
                    &format!("the copy on {from}"),
                    &copy.topology,
                    "/".as_ref(),
                    &|_| None,
                )?;
                let applied = with_hosts_of(applied.topology, topology);
                copy.restore(hosts, &applied, dir).await?;
                return Ok(from);
            }
            Ok(None) => why.push(format!("{} has no copy of its state", host.url())),
            Err(error) => {
                context
                    .output
                    .warn(format!("{error}: {}", error.causes().join(": ")));
                why.push(format!("{} cannot be asked", host.url()));
            }
        }
    }
    Err(Error::failed(
        format!("cluster {name} cannot be adopted: {}", why.join(", ")),
        "copies are kept since the first `up` that ended well; give another machine with --from",
    ))
}

fn check(copy: &Copy, topology: &Topology) -> Result<(), Error> {
    if copy.instance.cluster == topology.name {
        return Ok(());
    }
    Err(Error::refused(
        format!(
            "the copy on {} is of cluster {}, not of {}",
            copy.host, copy.instance.cluster, topology.name
        ),
        "name the file of the cluster that lives there",
    ))
}

fn with_hosts_of(mut applied: Topology, file: &Topology) -> Topology {
    for member in &mut applied.members {
        let mut members = file.members.iter();
        let same = members.find(|it| it.name == member.name && it.address == member.address);
        if let Some(same) = same {
            member.host.clone_from(&same.host);
        }
    }
    applied
}
