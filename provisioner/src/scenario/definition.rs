//! What a scenario is, and the list of all.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use futures_util::future::LocalBoxFuture;
use serde::Serialize;

use super::cases::{self, Case};
use super::failure::Failure;
use super::matrix::{self, Cell};
use super::stage::Stage;
use super::subject::Subject;
use super::{bootstrap, paths, trouble};
use crate::render::Server;

/// A group of scenarios.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Suite {
    /// Every way to bring a cluster up.
    Bootstrap,
    /// Every way in which that fails, with etcd's text and exit code.
    BootstrapErrors,
}

/// One thing that is checked.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Unique, of words, `-` and `/`.
    pub id: String,
    /// Its group.
    pub suite: Suite,
    /// The section of a guide, or the rule, that it holds.
    pub source: &'static str,
    /// What is checked, as one sentence.
    pub checks: String,
    /// It has failed when it takes longer.
    pub limit: Duration,
    /// Whether it runs without `--full`.
    pub covering: bool,
    /// What it cannot run without.
    pub needs: Vec<Need>,
    pub(super) body: Body,
}

/// What a scenario cannot run without.
#[derive(Clone, Debug)]
pub enum Need {
    /// The included member, or an etcd of this release or a later one.
    Etcd {
        /// Major and minor version.
        minor: (u32, u32),
        /// What is missing before.
        why: &'static str,
    },
    /// The included member: etcd does something else.
    Member {
        /// What etcd does.
        why: &'static str,
    },
    /// Network namespaces, of root or of this user's own; without them `up` says so.
    PrivateNetwork,
    /// Programs of the system, by name.
    Programs(&'static [&'static str]),
}

/// The steps of a scenario that is written down as code.
pub(super) type Steps = for<'a> fn(&'a Stage) -> LocalBoxFuture<'a, Result<(), Failure>>;

#[derive(Clone, Debug)]
pub(super) enum Body {
    Cell(Cell),
    Case(Case),
    Steps(Steps),
}

/// Every scenario, in the order in which they run.
#[must_use]
pub fn all() -> Vec<Scenario> {
    [
        matrix::scenarios(),
        paths::scenarios(),
        cases::scenarios(),
        trouble::scenarios(),
    ]
    .concat()
}

impl Suite {
    /// As it is written on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bootstrap => "bootstrap",
            Self::BootstrapErrors => "bootstrap-errors",
        }
    }
}

impl Scenario {
    pub(super) async fn play(&self, stage: &Stage) -> Result<(), Failure> {
        match &self.body {
            Body::Cell(cell) => bootstrap::cell(stage, *cell).await,
            Body::Case(case) => cases::run(stage, case).await,
            Body::Steps(steps) => steps(stage).await,
        }
    }

    /// Why it cannot run with this server on this machine.
    pub(super) fn skip(&self, subject: &Subject) -> Option<String> {
        let missing = self.needs.iter().find_map(|need| need.missing(subject));
        missing.or_else(|| match &self.body {
            Body::Case(case) => case.not_of(subject),
            Body::Cell(_) | Body::Steps(_) => None,
        })
    }
}

impl Need {
    fn missing(&self, subject: &Subject) -> Option<String> {
        match (self, subject.server) {
            (Self::Etcd { minor: least, why }, Server::Etcd { minor }) if minor < *least => {
                Some((*why).to_owned())
            }
            (Self::Member { why }, Server::Etcd { .. }) => Some((*why).to_owned()),
            (Self::Etcd { .. } | Self::Member { .. } | Self::PrivateNetwork, _) => None,
            (Self::Programs(names), _) => names
                .iter()
                .find(|name| crate::host::local::resolve(&PathBuf::from(name)).is_err())
                .map(|name| format!("{name} is not installed")),
        }
    }
}

impl std::fmt::Display for Need {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Etcd {
                minor: (major, minor),
                why,
            } => write!(f, "member or etcd {major}.{minor}: {why}"),
            Self::Member { why } => write!(f, "member: {why}"),
            Self::PrivateNetwork => f.write_str("network namespaces"),
            Self::Programs(names) => f.write_str(&names.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ids_are_unique_and_every_scenario_says_where_it_comes_from() {
        let all = all();
        let ids: BTreeSet<&str> = all.iter().map(|scenario| scenario.id.as_str()).collect();
        assert_eq!(ids.len(), all.len());
        for scenario in &all {
            assert!(!scenario.source.is_empty(), "{}", scenario.id);
            assert!(!scenario.checks.is_empty(), "{}", scenario.id);
            assert!(
                scenario
                    .id
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "-/.".contains(c)),
                "{}",
                scenario.id
            );
        }
    }
}
