//! The figures of a v2 proxy.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::{Method, StatusCode};

use super::Histogram;
use super::render::head;

/// Why a request got no answer from a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Unanswered {
    /// No member is known or trusted.
    NoEndpoint,
    /// One member could not be asked.
    NotSent,
    /// None of them could.
    NoResponse,
}

impl Unanswered {
    fn label(self) -> &'static str {
        match self {
            Self::NoEndpoint => "zero_endpoints",
            Self::NotSent => "failed_sending_request",
            Self::NoResponse => "failed_getting_response",
        }
    }
}

/// What came and what became of it, by method.
#[derive(Debug, Default)]
pub(crate) struct Proxied(Mutex<BTreeMap<&'static str, OfMethod>>);

#[derive(Debug)]
struct OfMethod {
    came: u64,
    handled: BTreeMap<u16, u64>,
    dropped: BTreeMap<Unanswered, u64>,
    took: Histogram,
}

impl Default for OfMethod {
    fn default() -> Self {
        Self {
            came: 0,
            handled: BTreeMap::new(),
            dropped: BTreeMap::new(),
            took: Histogram::new(Duration::from_micros(500), 13),
        }
    }
}

/// The methods of HTTP by name. Those that clients make up share one, so that there is an end of them.
fn label(method: &Method) -> &'static str {
    let known = [
        "GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE",
    ];
    let found = known.into_iter().find(|known| method.as_str() == *known);
    found.unwrap_or("other")
}

impl Proxied {
    pub(crate) fn came(&self, method: &Method) {
        self.count(method, |of| of.came += 1);
    }

    pub(crate) fn handled(&self, method: &Method, status: StatusCode, took: Duration) {
        self.count(method, |of| {
            *of.handled.entry(status.as_u16()).or_default() += 1;
            of.took.observe(took);
        });
    }

    pub(crate) fn dropped(&self, method: &Method, why: Unanswered) {
        self.count(method, |of| *of.dropped.entry(why).or_default() += 1);
    }

    fn count(&self, method: &Method, change: impl FnOnce(&mut OfMethod)) {
        let mut methods = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(methods.entry(label(method)).or_default());
    }

    /// The exposition in Prometheus's text format. As in etcd, a family that counts nothing is left out.
    pub(crate) fn render(&self) -> String {
        let methods = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut dropped = String::new();
        let mut handled = String::new();
        let mut took = String::new();
        let mut came = String::new();
        let duration = "etcd_proxy_handling_duration_seconds";
        for (method, of) in methods.iter() {
            for (why, count) in &of.dropped {
                let why = why.label();
                let _ = writeln!(
                    dropped,
                    "etcd_proxy_dropped_total{{method=\"{method}\",proxying_error=\"{why}\"}} {count}"
                );
            }
            for (code, count) in &of.handled {
                let _ = writeln!(
                    handled,
                    "etcd_proxy_handled_total{{code=\"{code}\",method=\"{method}\"}} {count}"
                );
            }
            if !of.took.is_empty() {
                of.took
                    .render(&mut took, duration, &format!("method=\"{method}\","));
            }
            let _ = writeln!(
                came,
                "etcd_proxy_requests_total{{method=\"{method}\"}} {}",
                of.came
            );
        }
        let families = [
            (
                "etcd_proxy_dropped_total",
                "counter",
                "Counter of requests dropped on the proxy.",
                dropped,
            ),
            (
                "etcd_proxy_handled_total",
                "counter",
                "Counter of requests fully handled (by authoratitave servers)",
                handled,
            ),
            (
                duration,
                "histogram",
                "Bucketed histogram of handling time of successful events (non-watches), by method (GET/PUT etc.).",
                took,
            ),
            (
                "etcd_proxy_requests_total",
                "counter",
                "Counter requests incoming by method.",
                came,
            ),
        ];
        let mut out = String::new();
        for (name, kind, help, lines) in families {
            if !lines.is_empty() {
                head(&mut out, name, kind, help);
                out += &lines;
            }
        }
        out
    }
}
