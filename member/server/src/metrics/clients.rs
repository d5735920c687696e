//! Which versions of the API clients say they were made for.

use std::fmt::Write as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Versions that are told apart; a client can say anything, and each becomes a line.
const VERSIONS: usize = 32;

/// The version of who says none, or one too many.
const UNKNOWN: &str = "unknown";

#[derive(Debug, Default)]
struct Counts {
    unary: AtomicU64,
    stream: AtomicU64,
}

#[derive(Debug)]
struct Version {
    name: Box<str>,
    counts: Counts,
}

/// Requests by the version that their client named.
#[derive(Debug, Default)]
pub(crate) struct ClientVersions {
    known: [OnceLock<Version>; VERSIONS],
    unknown: Counts,
}

impl ClientVersions {
    pub(crate) fn count(&self, version: Option<&[u8]>, unary: bool) {
        let counts = version.and_then(|version| self.of(version));
        let counts = counts.unwrap_or(&self.unknown);
        let counter = if unary { &counts.unary } else { &counts.stream };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn of(&self, version: &[u8]) -> Option<&Counts> {
        for place in &self.known {
            let known = match place.get() {
                Some(known) => known,
                None => {
                    let name = label(version)?;
                    place.get_or_init(|| Version {
                        name,
                        counts: Counts::default(),
                    })
                }
            };
            if known.name.as_bytes() == version {
                return Some(&known.counts);
            }
        }
        None
    }

    pub(crate) fn render(&self, out: &mut String) {
        let name = "etcd_server_client_requests_total";
        let _ = writeln!(
            out,
            "# HELP {name} The total number of client requests per client version.\n# TYPE {name} counter"
        );
        let known = self.known.iter().filter_map(OnceLock::get);
        let known = known.map(|version| (&*version.name, &version.counts));
        for (version, counts) in known.chain([(UNKNOWN, &self.unknown)]) {
            for (kind, counter) in [("stream", &counts.stream), ("unary", &counts.unary)] {
                let value = counter.load(Ordering::Relaxed);
                if value > 0 {
                    let _ = writeln!(
                        out,
                        "{name}{{client_api_version=\"{version}\",type=\"{kind}\"}} {value}"
                    );
                }
            }
        }
    }
}

/// What may stand in a label: a version and no more.
fn label(version: &[u8]) -> Option<Box<str>> {
    let fit = |byte: &u8| byte.is_ascii_alphanumeric() || b".-+_".contains(byte);
    if version.is_empty() || version.len() > 32 || !version.iter().all(fit) {
        return None;
    }
    std::str::from_utf8(version).ok().map(Box::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_counted_and_bounded() {
        let versions = ClientVersions::default();
        versions.count(Some(b"3.5"), true);
        versions.count(Some(b"3.5"), true);
        versions.count(Some(b"3.5"), false);
        versions.count(None, true);
        versions.count(Some(b"\"}"), true);
        for i in 0..100 {
            versions.count(Some(format!("1.{i}").as_bytes()), true);
        }
        let mut out = String::new();
        versions.render(&mut out);
        let line = |version: &str, kind: &str, value: u64| {
            format!(
                "etcd_server_client_requests_total{{client_api_version=\"{version}\",type=\"{kind}\"}} {value}\n"
            )
        };
        assert!(out.contains(&line("3.5", "unary", 2)), "{out}");
        assert!(out.contains(&line("3.5", "stream", 1)), "{out}");
        let rest = 2 + 100 - (VERSIONS as u64 - 1);
        assert!(out.contains(&line("unknown", "unary", rest)), "{out}");
    }
}
