//! `bench`: puts ephemeral clusters of a topology under load, beside another binary if one is given, and judges the figures.
//!
//! The two binaries take turns, A B B A and so on, and no two clusters run at once, so that a slow minute of the machine hits
//! both. Owns the schedule; [`contender`] is a binary and its cluster, [`load`] one round on it, [`figures`] the judgement and
//! [`report`] its form.

mod contender;
mod figures;
mod load;
mod report;

use std::collections::BTreeMap;
use std::time::Duration;

use contender::{Contender, contenders};
use figures::{Metric, judge};
use load::Sizes;
use report::{Machine, Report};

use crate::apply::{Interrupt, Second};
use crate::cli::BenchArgs;
use crate::cluster::enter_network;
use crate::context::Context;
use crate::error::{Error, ExitCode};
use crate::runtime::runtime;
use crate::topology;

/// What was measured of one contender, in the order of the rounds.
#[derive(Debug, Default)]
struct Samples {
    figures: BTreeMap<Metric, Vec<f64>>,
    /// Failed requests by the text of the failure.
    errors: BTreeMap<String, u64>,
}

impl Samples {
    fn push(&mut self, metric: Metric, value: f64) {
        self.figures.entry(metric).or_default().push(value);
    }
}

/// Runs `bench`.
///
/// # Errors
/// A cluster does not come up, or a load cannot begin. Failed requests and missed targets are reported, not errors.
pub fn run(args: &BenchArgs, context: &Context) -> Result<ExitCode, Error> {
    let sizes = Sizes::new(args)?;
    let loaded = topology::load(&args.file)?;
    enter_network(&loaded, None)?;
    loaded.warn(&context.output);
    let topology = loaded.topology;
    if topology.members.iter().any(|member| member.host.is_some()) {
        return Err(Error::usage(
            "`bench` measures clusters of this machine: it reads what their processes use",
            "remove the members' `host`",
        ));
    }
    let contenders = contenders(&topology, args.against.as_deref())?;
    let machine = Machine::look();
    let mut samples: Vec<Samples> = contenders.iter().map(|_| Samples::default()).collect();
    runtime()?.block_on(async {
        let interrupt = Interrupt::listen(Second::Urges)?;
        let bench = Bench {
            context,
            sizes: &sizes,
            timeout: args.timeout,
            interrupt: &interrupt,
        };
        for turn in 0..sizes.cold_starts {
            for index in order(turn, contenders.len()) {
                bench
                    .cold_start(turn, &contenders[index], &mut samples[index])
                    .await?;
            }
        }
        for turn in 0..sizes.rounds {
            for index in order(turn, contenders.len()) {
                bench
                    .round(turn, &contenders[index], &mut samples[index])
                    .await?;
            }
        }
        if sizes.many_keys > 0 {
            for (contender, samples) in contenders.iter().zip(&mut samples) {
                bench.many_keys(contender, samples).await?;
            }
        }
        Ok::<(), Error>(())
    })?;
    let rows = judge(
        &samples[0].figures,
        samples.get(1).map(|other| &other.figures),
        sizes.judges_memory(),
    );
    let errors = contenders
        .iter()
        .zip(&samples)
        .map(|(contender, samples)| (contender.label.clone(), samples.errors.clone()));
    context.output.data(&Report {
        topology: topology.name.clone(),
        members: topology.members.len(),
        contenders: contenders
            .iter()
            .map(|contender| contender.label.clone())
            .collect(),
        puts: sizes.puts,
        value_bytes: load::VALUE_BYTES,
        many_keys: sizes.many_keys,
        rounds: sizes.rounds,
        cold_starts: sizes.cold_starts + sizes.rounds,
        machine,
        figures: rows,
        errors: errors.filter(|(_, errors)| !errors.is_empty()).collect(),
    })?;
    Ok(ExitCode::Ok)
}

/// A B, then B A, then A B: neither is always the one that comes first.
fn order(turn: usize, contenders: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..contenders).collect();
    if turn % 2 == 1 {
        order.reverse();
    }
    order
}

/// What every part of a run needs.
#[derive(Clone, Copy)]
struct Bench<'a> {
    context: &'a Context,
    sizes: &'a Sizes,
    timeout: Duration,
    interrupt: &'a Interrupt,
}

impl Bench<'_> {
    async fn cold_start(
        &self,
        turn: usize,
        contender: &Contender,
        samples: &mut Samples,
    ) -> Result<(), Error> {
        let line =
            self.context
                .output
                .line(format!("start {}/{}", turn + 1, self.sizes.cold_starts));
        line.set(format!("{}: bringing the cluster up", contender.label));
        let live = contender.up(self).await?;
        samples.push(Metric::FirstWrite, millis(live.first_write));
        line.done(format!(
            "{}: first write after {:.0} ms",
            contender.label,
            millis(live.first_write)
        ));
        Ok(())
    }

    async fn round(
        &self,
        turn: usize,
        contender: &Contender,
        samples: &mut Samples,
    ) -> Result<(), Error> {
        let line = self
            .context
            .output
            .line(format!("round {}/{}", turn + 1, self.sizes.rounds));
        line.set(format!("{}: bringing the cluster up", contender.label));
        let live = contender.up(self).await?;
        samples.push(Metric::FirstWrite, millis(live.first_write));
        load::round(self, &live, &line, contender, samples).await?;
        line.done(&contender.label);
        Ok(())
    }
}

impl Bench<'_> {
    async fn many_keys(&self, contender: &Contender, samples: &mut Samples) -> Result<(), Error> {
        let line = self.context.output.line("many keys");
        line.set(format!("{}: bringing the cluster up", contender.label));
        let live = contender.up(self).await?;
        load::many_keys(self, &live, &line, contender, samples).await?;
        line.done(&contender.label);
        Ok(())
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_contenders_take_turns() {
        let turns: Vec<usize> = (0..4).flat_map(|turn| order(turn, 2)).collect();
        assert_eq!(turns, [0, 1, 1, 0, 0, 1, 1, 0]);
        assert_eq!(order(1, 1), [0]);
    }
}
