//! Which endpoints a request may go to, and in what order.
//!
//! etcd's rules: each look at the member list brings a new order by chance, so that proxies do not all load one member,
//! and trusts what had failed again; until then a failed endpoint is left alone for a while.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::Uri;
use http::uri::{Authority, PathAndQuery, Scheme};

/// Where a member serves clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    scheme: Scheme,
    authority: Authority,
}

impl Endpoint {
    /// Reads a client URL.
    pub(super) fn parse(url: &str) -> Option<Self> {
        let parts = url.parse::<Uri>().ok()?.into_parts();
        let scheme = parts
            .scheme
            .filter(|scheme| [Scheme::HTTP, Scheme::HTTPS].contains(scheme))?;
        let authority = parts.authority?;
        authority.port_u16()?;
        Some(Self { scheme, authority })
    }

    /// The place of a path there.
    pub(super) fn at(&self, path: &PathAndQuery) -> Result<Uri, http::Error> {
        Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(path.clone())
            .build()
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.authority)
    }
}

struct Known {
    endpoint: Endpoint,
    /// When it failed, unless it is trusted.
    failed: Option<Instant>,
}

/// The endpoints and what is known of them.
pub(super) struct Director {
    failure_wait: Duration,
    known: Mutex<Vec<Known>>,
}

impl Director {
    pub(super) fn new(failure_wait: Duration) -> Self {
        Self {
            failure_wait,
            known: Mutex::default(),
        }
    }

    /// Forgets all endpoints for these, which it shuffles.
    pub(super) fn replace(&self, mut endpoints: Vec<Endpoint>) {
        for last in (1..endpoints.len()).rev() {
            // Without chance the order stays, which costs no more than balance.
            let chance = getrandom::u64().unwrap_or_default();
            let other = usize::try_from(chance % (last as u64 + 1)).unwrap_or(last);
            endpoints.swap(last, other);
        }
        let known = endpoints.into_iter().map(|endpoint| Known {
            endpoint,
            failed: None,
        });
        *self.lock() = known.collect();
    }

    /// The endpoints that may be tried now, in that order.
    pub(super) fn available(&self, now: Instant) -> Vec<Endpoint> {
        let mut available = Vec::new();
        for known in self.lock().iter_mut() {
            match known.failed {
                Some(failed) if now.duration_since(failed) < self.failure_wait => continue,
                Some(_) => {
                    known.failed = None;
                    tracing::info!(endpoint = %known.endpoint, "marked endpoint available, to retest connectivity");
                }
                None => {}
            }
            available.push(known.endpoint.clone());
        }
        available
    }

    /// Leaves an endpoint alone for a while.
    pub(super) fn failed(&self, endpoint: &Endpoint, now: Instant) {
        let mut known = self.lock();
        let known = known
            .iter_mut()
            .find(|known| known.endpoint == *endpoint && known.failed.is_none());
        if let Some(known) = known {
            known.failed = Some(now);
            tracing::info!(%endpoint, "marked endpoint unavailable");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_secs(5);

    fn endpoints() -> Vec<Endpoint> {
        ["http://a:1", "https://b:2", "http://[::1]:3"]
            .map(|url| Endpoint::parse(url).unwrap())
            .into()
    }

    #[test]
    fn an_endpoint_that_failed_is_left_alone_for_a_while() {
        let director = Director::new(WAIT);
        let start = Instant::now();
        assert!(director.available(start).is_empty());
        director.replace(endpoints());
        let order = director.available(start);
        assert_eq!(order.len(), 3);
        director.failed(&order[1], start);
        // A second failure of the same kind does not make the wait longer.
        director.failed(&order[1], start + WAIT / 2);
        let rest = [order[0].clone(), order[2].clone()];
        assert_eq!(director.available(start + WAIT * 9 / 10), rest);
        assert_eq!(director.available(start + WAIT), order);
        director.failed(&order[0], start);
        director.replace(endpoints());
        assert_eq!(director.available(start).len(), 3, "a new list is trusted");
    }

    #[test]
    fn every_endpoint_comes_first_at_times() {
        let director = Director::new(WAIT);
        let mut first = Vec::new();
        for _ in 0..200 {
            director.replace(endpoints());
            first.push(director.available(Instant::now())[0].to_string());
        }
        for endpoint in endpoints() {
            assert!(first.contains(&endpoint.to_string()), "{endpoint}");
        }
    }

    #[test]
    fn a_client_url_is_read_and_written_as_it_is() {
        for url in ["http://127.0.0.1:2379", "https://[::1]:1"] {
            assert_eq!(Endpoint::parse(url).unwrap().to_string(), url);
        }
        for bad in ["", "h:1", "ftp://h:1", "http://h", "unix:///a"] {
            assert!(Endpoint::parse(bad).is_none(), "{bad}");
        }
        let path = PathAndQuery::from_static("/v2/keys/a?wait=true");
        let uri = endpoints()[0].at(&path).unwrap();
        assert_eq!(uri.to_string(), "http://a:1/v2/keys/a?wait=true");
    }
}
