//! Errors that take several servers, certificates or time, each provoked on purpose.
//!
//! Where a server must not do something, such as serve a client, the scenario waits for the line of the log that says that it
//! refused, and then looks: it never takes a timeout for a refusal.

mod cluster;
mod discovery;
mod srv;
mod tls;

use std::time::Duration;

use super::definition::{Body, Need, Scenario, Steps, Suite};

/// An error, and how it is provoked.
struct Trouble {
    id: &'static str,
    source: &'static str,
    checks: &'static str,
    limit: Duration,
    covering: bool,
    needs: &'static [Need],
    steps: Steps,
}

// Several servers start in it, on a busy machine.
const LIMIT: Duration = Duration::from_secs(90);

impl Trouble {
    const fn new(
        id: &'static str,
        source: &'static str,
        checks: &'static str,
        steps: Steps,
    ) -> Self {
        Self {
            id,
            source,
            checks,
            limit: LIMIT,
            covering: true,
            needs: &[],
            steps,
        }
    }
}

pub(super) fn scenarios() -> Vec<Scenario> {
    let troubles = cluster::TROUBLES
        .iter()
        .chain(discovery::TROUBLES)
        .chain(srv::TROUBLES)
        .chain(tls::TROUBLES);
    let scenario = |trouble: &Trouble| Scenario {
        id: trouble.id.to_owned(),
        suite: Suite::BootstrapErrors,
        source: trouble.source,
        checks: trouble.checks.to_owned(),
        limit: trouble.limit,
        covering: trouble.covering,
        needs: [&[Need::Programs(&["etcdctl"])], trouble.needs].concat(),
        body: Body::Steps(trouble.steps),
    };
    troubles.map(scenario).collect()
}
