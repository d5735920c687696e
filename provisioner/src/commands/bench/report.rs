//! The figures as a table for people and an object for programs.

use std::collections::BTreeMap;
use std::thread::available_parallelism;

use serde::Serialize;

use super::figures::{Figure, Metric, Row, Summary, Verdict};
use crate::output::{Document, Table};

/// What `bench` prints.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) topology: String,
    pub(super) members: usize,
    /// Ours first.
    pub(super) contenders: Vec<String>,
    pub(super) puts: u64,
    pub(super) value_bytes: usize,
    /// Keys of the cluster that holds many; 0 for none.
    pub(super) many_keys: u64,
    pub(super) rounds: usize,
    pub(super) cold_starts: usize,
    pub(super) machine: Machine,
    pub(super) figures: Vec<Row>,
    /// By contender, then by the failure's text.
    pub(super) errors: BTreeMap<String, BTreeMap<String, u64>>,
}

/// What absolute numbers depend on.
#[derive(Debug, Serialize)]
pub(super) struct Machine {
    cpus: usize,
    /// Of the minute before the run: what else the machine was doing.
    load_average: f64,
}

impl Machine {
    pub(super) fn look() -> Self {
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load_average = load
            .split(' ')
            .next()
            .and_then(|first| first.parse().ok())
            .unwrap_or(0.0);
        Self {
            cpus: available_parallelism().map_or(1, usize::from),
            load_average,
        }
    }
}

impl Document for Report {
    fn table(&self) -> Table {
        let versus = self.contenders.len() > 1;
        let mut heading = vec!["figure".to_owned(), "unit".to_owned()];
        heading.extend(self.contenders.iter().cloned());
        if versus {
            heading.push("ratio".to_owned());
        }
        heading.extend(["target", "verdict"].map(str::to_owned));
        let mut table = Table::new(heading);
        for row in self.figures.iter().filter(|row| !is_generator(row)) {
            let mut cells = vec![row.metric.to_string(), row.unit.to_owned(), cell(&row.ours)];
            if versus {
                cells.push(row.theirs.as_ref().map(cell).unwrap_or_default());
                cells.push(
                    row.ratio
                        .map(|ratio| format!("x{ratio:.2}"))
                        .unwrap_or_default(),
                );
            }
            cells.push(
                row.aims
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(", "),
            );
            cells.push(verdict(row));
            table.row(cells);
        }
        table.with_before(self.before()).with_after(self.after())
    }
}

impl Report {
    fn before(&self) -> String {
        format!(
            "{}: {} members, {} puts of {} bytes a round, {} rounds, {} starts; {} CPUs, load average {:.1} before\n\n",
            self.topology,
            self.members,
            self.puts,
            self.value_bytes,
            self.rounds,
            self.cold_starts,
            self.machine.cpus,
            self.machine.load_average,
        )
    }

    fn after(&self) -> String {
        let judged = |verdict| {
            self.figures
                .iter()
                .filter(|row| row.verdict == Some(verdict))
                .count()
        };
        let mut lines = vec![
            String::new(),
            format!("{} pass, {} short", judged(Verdict::Pass), judged(Verdict::Short)),
            "Medians over the rounds, with the lowest and the highest; a `?` marks a verdict that some round contradicts."
                .to_owned(),
            "Memory is that of the largest member; server CPU is the sum over the members for each request.".to_owned(),
        ];
        let generator: Vec<f64> = self
            .figures
            .iter()
            .filter(|row| is_generator(row))
            .map(|row| row.ours.median)
            .collect();
        if let (Some(least), Some(most)) = (
            generator.iter().copied().reduce(f64::min),
            generator.iter().copied().reduce(f64::max),
        ) {
            lines.push(format!(
                "Clients spread over all members, a single one talks to the leader.\n\
                 The load generator shares the CPUs and used {least:.0} to {most:.0} us for each request."
            ));
        }
        for (contender, errors) in &self.errors {
            for (error, count) in errors {
                lines.push(format!("{contender}: {count} requests failed: {error}"));
            }
        }
        lines.join("\n")
    }
}

fn is_generator(row: &Row) -> bool {
    matches!(
        row.metric,
        Metric::Load {
            figure: Figure::GeneratorCpu,
            ..
        }
    )
}

fn verdict(row: &Row) -> String {
    let word = match row.verdict {
        Some(Verdict::Pass) => "pass",
        Some(Verdict::Short) => "short",
        None => return String::new(),
    };
    format!("{word}{}", if row.rounds_agree { "" } else { "?" })
}

fn cell(summary: &Summary) -> String {
    let median = number(summary.median);
    if summary.samples.len() < 2 {
        return median;
    }
    format!(
        "{median} ({}-{})",
        number(summary.lowest),
        number(summary.highest)
    )
}

/// Three digits, or all that stand before the point.
fn number(value: f64) -> String {
    let decimals = match value {
        small if small < 9.995 => 2,
        middle if middle < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::super::figures::{Kind, judge};
    use super::*;

    fn report(theirs: bool) -> Report {
        let put = |figure| Metric::Load {
            kind: Kind::Put,
            clients: 100,
            figure,
        };
        let samples = |factor: f64| {
            BTreeMap::from([
                (Metric::FirstWrite, vec![400.0 * factor, 500.0 * factor]),
                (put(Figure::Throughput), vec![9000.0 / factor]),
                (put(Figure::ServerCpu), vec![50.25 * factor]),
                (put(Figure::GeneratorCpu), vec![7.0]),
            ])
        };
        let other = theirs.then(|| samples(2.1));
        let mut contenders = vec!["member".to_owned()];
        contenders.extend(theirs.then(|| "etcd".to_owned()));
        Report {
            topology: "three-node".to_owned(),
            members: 3,
            contenders,
            puts: 100_000,
            value_bytes: 256,
            many_keys: 0,
            rounds: 1,
            cold_starts: 2,
            machine: Machine {
                cpus: 2,
                load_average: 0.5,
            },
            figures: judge(&samples(1.0), other.as_ref(), true),
            errors: BTreeMap::from([(
                "etcd".to_owned(),
                BTreeMap::from([("gRPC status 14".to_owned(), 2)]),
            )]),
        }
    }

    #[test]
    fn two_binaries_are_compared_line_by_line() {
        let text = report(true).table().render();
        let lines: Vec<Vec<&str>> = text
            .lines()
            .map(|line| {
                line.split("  ")
                    .map(str::trim)
                    .filter(|cell| !cell.is_empty())
                    .collect()
            })
            .collect();
        assert!(
            lines.contains(&vec![
                "FIGURE", "UNIT", "MEMBER", "ETCD", "RATIO", "TARGET", "VERDICT"
            ]),
            "{text}"
        );
        assert!(
            lines.contains(&vec![
                "up to first write",
                "ms",
                "450 (400-500)",
                "945 (840-1050)",
                "x0.48",
                "< 1000, <= x0.5",
                "pass"
            ]),
            "{text}"
        );
        assert!(
            lines.contains(&vec![
                "put, 100 clients: throughput",
                "/s",
                "9000",
                "4286",
                "x2.10",
                ">= x1.5",
                "pass"
            ]),
            "{text}"
        );
        assert!(text.contains("3 pass, 0 short"), "{text}");
        assert!(
            text.contains("etcd: 2 requests failed: gRPC status 14"),
            "{text}"
        );
        assert!(!text.contains("generator CPU"), "{text}");
    }

    #[test]
    fn one_binary_alone_has_no_ratio() {
        let text = report(false).table().render();
        assert!(
            !text.contains("RATIO") && text.contains("< 1000 "),
            "{text}"
        );
    }

    #[test]
    fn programs_get_every_sample() {
        let json = serde_json::to_value(report(true)).unwrap();
        let first = &json["figures"][0];
        assert_eq!(first["metric"], "up to first write");
        assert_eq!(first["ours"]["samples"], serde_json::json!([400.0, 500.0]));
        assert_eq!(
            (&first["verdict"], &first["aims"][1]),
            (&"pass".into(), &"<= x0.5".into())
        );
    }

    #[test]
    fn numbers_keep_three_digits() {
        assert_eq!(
            [0.5, 9.999, 12.34, 99.97, 1234.5].map(number),
            ["0.50", "10.0", "12.3", "100", "1234"]
        );
    }
}
