//! `check`

use serde::Serialize;
use serde_json::Value;

use crate::cli::CheckArgs;
use crate::cluster::{Asked, Cluster};
use crate::context::Context;
use crate::error::{Error, ExitCode};
use crate::output::{Document, Table};
use crate::preflight::{
    Case, Finding, Machine, Outcome, Repair, claims, gather, judge, repair, repairs,
};
use crate::runtime::runtime;

#[derive(Serialize)]
struct Report {
    cluster: String,
    passed: bool,
    findings: Vec<Finding>,
    /// By machine and member's port, the time of a round trip.
    round_trips: Vec<RoundTrip>,
    /// What `--fix` did.
    repaired: Vec<Repair>,
}

#[derive(Serialize)]
struct RoundTrip {
    from: String,
    to: String,
    port: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    micros: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

impl Report {
    fn count(&self, outcome: Outcome) -> usize {
        let findings = self.findings.iter();
        findings
            .filter(|finding| finding.outcome == outcome)
            .count()
    }
}

impl Document for Report {
    fn table(&self) -> Table {
        let mut table = Table::new(["check", "of", "result", "found"]);
        let mut notes = Vec::new();
        for finding in &self.findings {
            let Finding { check, subject, .. } = finding;
            table.row([
                check.to_string(),
                subject.clone(),
                finding.outcome.text().to_owned(),
                finding.found.clone(),
            ]);
            match (&finding.waiver, &finding.fix) {
                (Some(reason), _) => notes.push(format!("{check}: waived: {reason}")),
                (None, Some(fix)) => notes.push(format!("{check} of {subject}: {fix}")),
                (None, None) => {}
            }
        }
        notes.dedup();
        let all = [
            (Outcome::Pass, "passed"),
            (Outcome::Warn, "warned"),
            (Outcome::Fail, "failed"),
            (Outcome::Skipped, "skipped"),
            (Outcome::Waived, "waived"),
        ];
        let counts: Vec<String> = all
            .into_iter()
            .filter(|(outcome, _)| self.count(*outcome) > 0)
            .map(|(outcome, word)| format!("{} {word}", self.count(outcome)))
            .collect();
        notes.push(format!(
            "cluster {} {} ({})",
            self.cluster,
            if self.passed {
                "can come up"
            } else {
                "would not come up"
            },
            counts.join(", ")
        ));
        table.with_after(notes.join("\n"))
    }

    fn lines(&self) -> Vec<Value> {
        let findings = self.findings.iter();
        findings
            .filter_map(|finding| serde_json::to_value(finding).ok())
            .collect()
    }
}

/// Runs `check`.
///
/// # Errors
/// The topology or a program of it cannot be used. Machines that cannot be reached are findings.
pub fn run(args: &CheckArgs, context: &Context) -> Result<ExitCode, Error> {
    runtime()?.block_on(check(args, context))
}

async fn check(args: &CheckArgs, context: &Context) -> Result<ExitCode, Error> {
    let cluster = Cluster::open(&args.target, context)?;
    let prepared = cluster.prepare(cluster.programs()?, Asked::Nothing)?;
    let instance = &prepared.proposal.instance;
    let look = async || -> Result<_, Error> {
        let observed = cluster.observe(&prepared, args.timeout).await?;
        let machines = gather(&cluster, instance, &observed, args.timeout).await;
        Ok((observed, machines))
    };
    let (mut observed, mut machines) = look().await?;
    let mut repaired = Vec::new();
    if args.fix {
        repaired = repairs(&machines);
        repair(&cluster, &repaired, args.timeout).await?;
        for done in &repaired {
            context.output.note(format!(
                "{}: {} {} with mode {:04o}",
                done.machine,
                if done.made { "made" } else { "closed" },
                done.path.display(),
                done.mode
            ));
        }
        if !repaired.is_empty() {
            (observed, machines) = look().await?;
        }
    }
    let claims = claims(&context.state_root, &cluster.topology.name)?;
    let findings = judge(&Case {
        topology: &cluster.topology,
        instance,
        exists: prepared.remembered.is_some(),
        machines: &machines,
        members: &observed.members,
        certificates: prepared.certificate_changes(),
        claims: &claims,
    });
    let mut bad = findings.iter();
    let passed = !bad.any(|finding| finding.outcome == Outcome::Fail);
    context.output.data(&Report {
        cluster: cluster.topology.name.clone(),
        passed,
        findings,
        round_trips: machines.iter().flat_map(round_trips).collect(),
        repaired,
    })?;
    Ok(if passed {
        ExitCode::Ok
    } else {
        ExitCode::Preflight
    })
}

fn round_trips(machine: &Machine) -> Vec<RoundTrip> {
    let seen = machine.seen.iter();
    seen.flat_map(|seen| seen.reached.iter().flatten())
        .filter_map(|reached| {
            let round_trip = reached.round_trip.clone()?;
            Some(RoundTrip {
                from: machine.name.clone(),
                to: reached.member.clone(),
                port: reached.role.text(),
                micros: round_trip.clone().ok(),
                problem: round_trip.err(),
            })
        })
        .collect()
}
