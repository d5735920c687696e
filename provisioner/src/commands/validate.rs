//! `validate`: checks topology files and touches nothing.

use serde::Serialize;

use crate::cli::ValidateArgs;
use crate::context::Context;
use crate::error::{Error, ExitCode};
use crate::output::{Document, Table};
use crate::topology::{self, ClientTls, PeerTls, Problem, Topology};

#[derive(Serialize)]
struct Report {
    files: Vec<FileReport>,
}

#[derive(Serialize)]
struct FileReport {
    file: String,
    valid: bool,
    cluster: Option<String>,
    members: Vec<String>,
    peer_tls: Option<&'static str>,
    client_tls: Option<&'static str>,
    problems: Vec<Problem>,
}

impl Document for Report {
    fn table(&self) -> Table {
        let mut table = Table::new([
            "file",
            "result",
            "cluster",
            "members",
            "peer tls",
            "client tls",
            "warnings",
        ]);
        for file in &self.files {
            let result = if file.valid { "valid" } else { "invalid" };
            let or_dash = |text: Option<&str>| text.unwrap_or("-").to_owned();
            table.row([
                file.file.clone(),
                result.to_owned(),
                or_dash(file.cluster.as_deref()),
                file.members.len().to_string(),
                or_dash(file.peer_tls),
                or_dash(file.client_tls),
                file.problems
                    .iter()
                    .filter(|problem| problem.code.is_some())
                    .count()
                    .to_string(),
            ]);
        }
        table
    }

    fn lines(&self) -> Vec<serde_json::Value> {
        self.files
            .iter()
            .filter_map(|file| serde_json::to_value(file).ok())
            .collect()
    }
}

/// Runs `validate`.
///
/// # Errors
/// Standard output is full. Invalid files are reported and give exit code 2.
pub fn run(args: &ValidateArgs, context: &Context) -> Result<ExitCode, Error> {
    let mut report = Report { files: Vec::new() };
    for path in &args.files {
        match topology::load(path) {
            Ok(loaded) => {
                loaded.warn(&context.output);
                report
                    .files
                    .push(valid(loaded.file, &loaded.topology, loaded.warnings));
            }
            Err(invalid) => {
                let problems = invalid.problems().to_vec();
                context.output.error(&invalid.into());
                report.files.push(FileReport {
                    file: path.display().to_string(),
                    valid: false,
                    cluster: None,
                    members: Vec::new(),
                    peer_tls: None,
                    client_tls: None,
                    problems,
                });
            }
        }
    }
    let bad = report
        .files
        .iter()
        .any(|file| !file.valid || (args.deny_warnings && !file.problems.is_empty()));
    context.output.data(&report)?;
    Ok(if bad { ExitCode::Usage } else { ExitCode::Ok })
}

fn valid(file: String, topology: &Topology, problems: Vec<Problem>) -> FileReport {
    FileReport {
        file,
        valid: true,
        cluster: Some(topology.name.clone()),
        members: topology
            .members
            .iter()
            .map(|member| member.name.clone())
            .collect(),
        peer_tls: Some(match topology.tls.peer {
            PeerTls::Off => "off",
            PeerTls::Auto => "auto",
            PeerTls::Prepared => "prepared",
            PeerTls::Mutual => "mutual",
        }),
        client_tls: Some(match topology.tls.client {
            ClientTls::Off => "off",
            ClientTls::Auto => "auto",
            ClientTls::Both => "both",
            ClientTls::Server => "server",
            ClientTls::Mutual => "mutual",
        }),
        problems,
    }
}
