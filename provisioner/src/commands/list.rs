//! `list`

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use crate::cluster::Known;
use crate::context::Context;
use crate::error::{Error, ExitCode};
use crate::output::{Document, Table};
use crate::render::client_urls;
use crate::runtime::runtime;
use crate::state::{self, ClusterDir};

const LOOK_LIMIT: Duration = Duration::from_secs(5);

/// One cluster that this machine knows.
#[derive(Debug, Serialize)]
struct Entry {
    name: String,
    state: &'static str,
    members: usize,
    running: usize,
    endpoints: Vec<String>,
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

#[derive(Debug, Serialize)]
struct List {
    clusters: Vec<Entry>,
}

impl Document for List {
    fn table(&self) -> Table {
        if self.clusters.is_empty() {
            return Table::text("no clusters; bring one up with `provision up FILE`");
        }
        let mut table = Table::new(["name", "state", "running", "endpoints"]);
        for entry in &self.clusters {
            let endpoints = entry
                .problem
                .clone()
                .unwrap_or_else(|| entry.endpoints.join(","));
            table.row([
                entry.name.clone(),
                entry.state.to_owned(),
                format!("{}/{}", entry.running, entry.members),
                endpoints,
            ]);
        }
        table
    }

    fn lines(&self) -> Vec<Value> {
        self.clusters
            .iter()
            .filter_map(|entry| serde_json::to_value(entry).ok())
            .collect()
    }
}

/// Runs `list`.
///
/// # Errors
/// The state cannot be read. One damaged cluster is listed with its problem.
pub fn run(context: &Context) -> Result<ExitCode, Error> {
    runtime()?.block_on(list(context))
}

async fn list(context: &Context) -> Result<ExitCode, Error> {
    let mut clusters = Vec::new();
    for name in state::list(&context.state_root)? {
        let dir = ClusterDir::new(&context.state_root, &name);
        let path = dir.path().display().to_string();
        match entry(dir).await {
            Ok(Some(entry)) => clusters.push(entry),
            Ok(None) => {}
            Err(error) => clusters.push(Entry {
                name,
                state: "unreadable",
                members: 0,
                running: 0,
                endpoints: Vec::new(),
                path,
                problem: Some(error.to_string()),
            }),
        }
    }
    context.output.data(&List { clusters })?;
    Ok(ExitCode::Ok)
}

async fn entry(dir: ClusterDir) -> Result<Option<Entry>, Error> {
    let Some(known) = Known::load(dir)? else {
        return Ok(None);
    };
    let observed = known.look_at_host(LOOK_LIMIT).await?;
    let running = observed
        .members
        .values()
        .filter(|facts| facts.process.is_some())
        .count();
    let members = known.instance.members.len();
    let unreachable = observed
        .members
        .values()
        .find_map(|facts| facts.unreachable.as_ref());
    let state = match running {
        0 if unreachable.is_some() => "unreachable",
        0 => "stopped",
        some if some == members => "running",
        _ => "partly running",
    };
    Ok(Some(Entry {
        name: known.dir.name().to_owned(),
        state,
        members,
        running,
        endpoints: client_urls(&known.topology, &known.instance),
        path: known.dir.path().display().to_string(),
        problem: unreachable.map(|unreachable| unreachable.why.clone()),
    }))
}
