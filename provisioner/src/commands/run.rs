//! `run`

use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use rustix::process::Signal;
use tempfile::TempDir;

use super::up::{Options, converge};
use crate::apply::{Interrupt, Lifetime, Second};
use crate::cli::RunArgs;
use crate::cluster::{Cluster, Known, enter_network, unset_beside};
use crate::context::Context;
use crate::error::{Error, ExitCode};
use crate::host::local::{Exit, Process, foreground_owns_terminal, resolve, run_foreground};
use crate::runtime::runtime;
use crate::state::ClusterDir;
use crate::topology::{self, Network};

// What a test suite may take to end after it was asked to.
const COMMAND_GRACE: Duration = Duration::from_secs(10);
// The kernel takes killed processes away within milliseconds.
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// Runs `run`.
///
/// # Errors
/// The cluster does not come up, or the command does not run.
pub fn run(args: &RunArgs, context: &Context) -> Result<ExitCode, Error> {
    let loaded = topology::load(&args.file)?;
    enter_network(&loaded, None)?;
    loaded.warn(&context.output);
    let mut topology = loaded.topology;
    if topology.members.iter().any(|member| member.host.is_some()) {
        return Err(Error::usage(
            "`run` brings clusters up for one command, and only on this machine",
            "remove the members' `host`, or use `up`, `exec` and `down`",
        ));
    }
    // Its own ports, so that it runs beside the cluster that the file fixes ports for. In a network of its own it does anyway.
    if topology.network == Network::Host {
        for member in &mut topology.members {
            (member.client_port, member.peer_port) = (None, None);
        }
        for gateway in &mut topology.gateways {
            gateway.port = None;
        }
    }
    if let Some(program) = args.command.first() {
        // Found out before a cluster is brought up for nothing.
        resolve(Path::new(program)).map_err(|error| {
            Error::failed(error.to_string(), "check the command's name and PATH")
        })?;
    }
    let ephemeral = Ephemeral::new(&topology.name)?;
    let inner = Context {
        output: context.output.clone(),
        state_root: ephemeral.root.path().to_owned(),
    };
    let cluster = Cluster::new(topology, &inner.state_root);
    runtime()?.block_on(async {
        let interrupt = Interrupt::listen(Second::Urges)?;
        let options = Options {
            timeout: args.timeout,
            accept_downtime: false,
            force_unlock: false,
            lifetime: Lifetime::Ours,
            budget: None,
        };
        converge(&cluster, options, &inner, &interrupt).await?;
        let known = Known::load(cluster.dir.clone())?.ok_or_else(|| {
            Error::because(
                "the ephemeral cluster is gone",
                "its state directory was removed meanwhile",
            )
        })?;
        command(args, &known, &inner, &interrupt).await
    })
}

async fn command(
    args: &RunArgs,
    known: &Known,
    inner: &Context,
    interrupt: &Interrupt,
) -> Result<ExitCode, Error> {
    let mut variables = known.variables_for(&args.command);
    let unset = unset_beside(&variables);
    // `provision status NAME` inside the command finds this cluster.
    variables.push((
        "PROVISION_STATE_DIR",
        inner.state_root.display().to_string(),
    ));
    let mut child = run_foreground(&args.command, variables, &unset)
        .map_err(|error| Error::because("the command does not run", error))?;
    let process = child.id().and_then(|pid| Process::of(pid).ok());
    let status = tokio::select! {
        status = child.wait() => status,
        () = interrupt.token().cancelled() => {
            // The terminal has told the whole foreground group already; twice would look like impatience.
            let told = interrupt.is_ctrl_c() && foreground_owns_terminal();
            if let Some(process) = process.filter(|_| !told) {
                let signal = if interrupt.is_ctrl_c() { Signal::INT } else { Signal::TERM };
                process.signal(signal).map_err(|source| Error::because("cannot signal the command", source))?;
            }
            tokio::select! {
                _ = child.wait() => {}
                () = tokio::time::sleep(COMMAND_GRACE) => {}
                () = interrupt.urgent().cancelled() => {}
            }
            // Gone already in the usual case.
            let _gone = child.kill().await;
            return Ok(if interrupt.is_ctrl_c() { ExitCode::Interrupted } else { ExitCode::Terminated });
        }
    };
    let status = status.map_err(|source| Error::because("cannot wait for the command", source))?;
    Ok(ExitCode::Child(Exit::from(status).shell_code()))
}

/// A state root that takes its members with it, on every way out of this process.
pub(super) struct Ephemeral {
    root: TempDir,
    name: String,
}

impl Ephemeral {
    pub(super) fn new(name: &str) -> Result<Self, Error> {
        let root = tempfile::Builder::new().prefix("provision-run-").tempdir();
        let root = root.map_err(Error::io("create a directory in", &std::env::temp_dir()))?;
        Ok(Self {
            root,
            name: name.to_owned(),
        })
    }

    pub(super) fn root(&self) -> &Path {
        self.root.path()
    }
}

impl Drop for Ephemeral {
    fn drop(&mut self) {
        let dir = ClusterDir::new(self.root.path(), &self.name);
        let Ok(Some(known)) = Known::load(dir) else {
            return;
        };
        // Processes of this machine are looked at without waiting for anything.
        let Some(Ok(observed)) = known.look_at_host(KILL_LIMIT).now_or_never() else {
            return;
        };
        let processes: Vec<Process> = observed
            .members
            .into_values()
            .filter_map(|facts| facts.process)
            .chain(observed.services.into_values().flatten())
            .map(|running| running.process)
            .collect();
        for process in &processes {
            // Its data is thrown away, so nothing is gained by asking first.
            let _gone_already = process.signal(Signal::KILL);
        }
        let deadline = Instant::now() + KILL_LIMIT;
        // Files can only be deleted for good once nobody writes new ones.
        while processes.iter().any(Process::is_running) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
