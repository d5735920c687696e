//! The checks behind `/livez` and `/readyz`, each by itself.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

/// Every check, under the path that runs it.
const CHECKS: [(&str, &str); 5] = [
    ("livez", "serializable_read"),
    ("readyz", "data_corruption"),
    ("readyz", "linearizable_read"),
    ("readyz", "non_learner"),
    ("readyz", "serializable_read"),
];

#[derive(Debug, Default)]
struct Results {
    passed: AtomicU64,
    failed: AtomicU64,
    /// 1 when the last one passed.
    last: AtomicU64,
}

/// What came of the checks.
#[derive(Debug, Default)]
pub(crate) struct Checks([Results; CHECKS.len()]);

impl Checks {
    pub(crate) fn ran(&self, path: &str, name: &str, passed: bool) {
        let at = CHECKS.iter().position(|check| *check == (path, name));
        let Some(results) = at.and_then(|at| self.0.get(at)) else {
            return;
        };
        let counter = if passed {
            &results.passed
        } else {
            &results.failed
        };
        counter.fetch_add(1, Ordering::Relaxed);
        results.last.store(u64::from(passed), Ordering::Relaxed);
    }

    pub(super) fn render(&self, out: &mut String) {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let ran = || {
            CHECKS
                .iter()
                .zip(&self.0)
                .filter(|(_, results)| get(&results.passed) + get(&results.failed) > 0)
        };
        if ran().next().is_none() {
            return;
        }
        let name = "etcd_server_healthcheck";
        let _ = writeln!(
            out,
            "# HELP {name} The result of each kind of healthcheck.\n# TYPE {name} gauge"
        );
        for ((path, check), results) in ran() {
            let last = get(&results.last);
            let _ = writeln!(out, "{name}{{name=\"{check}\",type=\"{path}\"}} {last}");
        }
        let name = "etcd_server_healthchecks_total";
        let _ = writeln!(
            out,
            "# HELP {name} The total number of each kind of healthcheck.\n# TYPE {name} counter"
        );
        for ((path, check), results) in ran() {
            for (status, counter) in [("error", &results.failed), ("success", &results.passed)] {
                let value = get(counter);
                if value > 0 {
                    let _ = writeln!(
                        out,
                        "{name}{{name=\"{check}\",status=\"{status}\",type=\"{path}\"}} {value}"
                    );
                }
            }
        }
    }
}
