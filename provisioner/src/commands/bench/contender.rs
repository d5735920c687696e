//! A binary under test, and a cluster of it while one is up.

use std::path::Path;
use std::time::{Duration, Instant};

use testbed::traffic::load::Load;
use testbed::traffic::operation::{Keys, Operation, Order};
use testbed::traffic::{Target, Tls};

use super::Bench;
use crate::apply::{self, Lifetime, Until, stop_all};
use crate::cluster::{Cluster, Known};
use crate::commands::run::Ephemeral;
use crate::commands::up::{Options, converge};
use crate::context::Context;
use crate::error::Error;
use crate::output::Output;
use crate::render::client_urls;
use crate::topology::{Binary, ClientTls, Topology};

/// A binary under test: the topology with that binary on every member.
#[derive(Debug)]
pub(super) struct Contender {
    /// How it is called in the report.
    pub(super) label: String,
    topology: Topology,
}

/// A cluster that is up, ended and deleted when dropped.
pub(super) struct Live {
    /// From nothing to the first acknowledged write.
    pub(super) first_write: Duration,
    cluster: Cluster,
    context: Context,
    known: Known,
    // Last: the processes end before their directory goes.
    _ephemeral: Ephemeral,
}

/// The topology as it is, and with the other binary. Both binaries must exist.
pub(super) fn contenders(
    topology: &Topology,
    against: Option<&Path>,
) -> Result<Vec<Contender>, Error> {
    let mut topology = topology.clone();
    // Its own ports, so that it runs beside the cluster that the file fixes ports for.
    for member in &mut topology.members {
        (member.client_port, member.peer_port) = (None, None);
    }
    let mut contenders = vec![Contender {
        label: label(&topology),
        topology: topology.clone(),
    }];
    if let Some(binary) = against {
        for member in &mut topology.members {
            member.binary = Binary::Path(binary.to_owned());
        }
        let mut label = label(&topology);
        if label == contenders[0].label {
            label = format!("{label} ({})", binary.display());
        }
        contenders.push(Contender { label, topology });
    }
    for contender in &contenders {
        Cluster::new(contender.topology.clone(), Path::new("/")).programs()?;
    }
    Ok(contenders)
}

fn label(topology: &Topology) -> String {
    let mut names: Vec<String> = topology
        .members
        .iter()
        .map(|member| match &member.binary {
            Binary::Included => "member".to_owned(),
            Binary::Path(path) => path
                .file_name()
                .unwrap_or(path.as_os_str())
                .to_string_lossy()
                .into_owned(),
        })
        .collect();
    names.sort_unstable();
    names.dedup();
    names.join("+")
}

impl Contender {
    /// Brings a new cluster up and writes to it.
    pub(super) async fn up(&self, bench: &Bench<'_>) -> Result<Live, Error> {
        let begun = Instant::now();
        let ephemeral = Ephemeral::new(&self.topology.name)?;
        // Dozens of clusters come up in a run; each would print a line per member.
        let output = Output::silent(bench.context.output.format());
        let context = Context {
            output,
            state_root: ephemeral.root().to_owned(),
        };
        let cluster = Cluster::new(self.topology.clone(), &context.state_root);
        converge(&cluster, options(bench), &context, bench.interrupt).await?;
        let known = Known::load(cluster.dir.clone())?.ok_or_else(|| {
            Error::because(
                "the ephemeral cluster is gone",
                "its state directory was removed meanwhile",
            )
        })?;
        let mut live = Live {
            first_write: Duration::ZERO,
            cluster,
            context,
            known,
            _ephemeral: ephemeral,
        };
        live.write(bench).await?;
        live.first_write = begun.elapsed();
        Ok(live)
    }
}

impl Live {
    /// Runs `up` once more; it must find nothing to do.
    pub(super) async fn up_again(&self, bench: &Bench<'_>) -> Result<Duration, Error> {
        let begun = Instant::now();
        let (plan, _) = converge(
            &self.cluster,
            options(bench),
            &self.context,
            bench.interrupt,
        )
        .await?;
        let elapsed = begun.elapsed();
        if plan.is_empty() {
            return Ok(elapsed);
        }
        Err(Error::failed(
            "a second `up` of the same cluster found something to do",
            "see what with `provision up FILE && provision plan FILE`",
        ))
    }

    /// Stops all members and starts them again: the time from the start until all are ready.
    pub(super) async fn restart(&self, bench: &Bench<'_>) -> Result<Duration, Error> {
        let observed = self.known.look_at_host(bench.timeout).await?;
        let members = observed.members.into_iter();
        let processes: Vec<_> = members
            .filter_map(|(name, facts)| Some((name, apply::Target::Here(facts.process?.process))))
            .collect();
        stop_all(&processes, Until::Restart, bench.timeout).await?;
        let begun = Instant::now();
        converge(
            &self.cluster,
            options(bench),
            &self.context,
            bench.interrupt,
        )
        .await?;
        Ok(begun.elapsed())
    }

    /// Where loads go: the leader's endpoint first, which is the one that a single client uses.
    pub(super) async fn target(&self, bench: &Bench<'_>) -> Result<Target, Error> {
        let observed = self.known.observe(bench.timeout).await?;
        let (topology, instance) = (&self.known.topology, &self.known.instance);
        let mut endpoints = client_urls(topology, instance);
        if let Some(leader) = topology
            .members
            .iter()
            .position(|member| observed.leads(&member.name))
        {
            endpoints.rotate_left(leader);
        }
        Ok(Target {
            endpoints,
            tls: self.tls(),
        })
    }

    /// The members' process ids.
    pub(super) async fn pids(&self, limit: Duration) -> Result<Vec<u32>, Error> {
        let observed = self.known.look_at_host(limit).await?;
        Ok(observed
            .members
            .into_values()
            .filter_map(|facts| Some(facts.process?.process.pid))
            .collect())
    }

    fn tls(&self) -> Option<Tls> {
        let operator = self.known.instance.operator();
        match self.known.topology.tls.client {
            ClientTls::Off => None,
            ClientTls::Auto => Some(Tls {
                ca: self.known.instance.made_certs(),
                identity: None,
            }),
            ClientTls::Server => Some(Tls {
                ca: self.known.instance.ca().cert,
                identity: None,
            }),
            ClientTls::Both | ClientTls::Mutual => Some(Tls {
                ca: self.known.instance.ca().cert,
                identity: Some((operator.cert, operator.key)),
            }),
        }
    }

    async fn write(&self, bench: &Bench<'_>) -> Result<(), Error> {
        let deadline = Instant::now() + bench.timeout;
        let target = Target {
            endpoints: client_urls(&self.known.topology, &self.known.instance),
            tls: self.tls(),
        };
        let keys = Keys {
            count: 1,
            order: Order::Sequential,
        };
        let one = Load {
            target,
            clients: 1,
            connections: 1,
            operation: Operation::Put {
                value_bytes: super::load::VALUE_BYTES,
                keys,
            },
            requests: Some(1),
            time: bench.timeout,
            servers: Vec::new(),
            seed: 0,
        };
        loop {
            let report = super::load::run(one.clone(), bench.interrupt).await?;
            if report.succeeded == 1 {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let why = report.errors.into_keys().next().unwrap_or_default();
                let error = Error::timed_out(
                    "the first write",
                    bench.timeout,
                    "look at the members' logs with `provision run FILE`",
                );
                return Err(Error::because(error.to_string(), why));
            }
        }
    }
}

fn options(bench: &Bench<'_>) -> Options {
    Options {
        timeout: bench.timeout,
        accept_downtime: false,
        force_unlock: false,
        lifetime: Lifetime::Ours,
        budget: None,
    }
}
