//! How often and how long a service that fails is tried.

use std::time::Duration;

use tokio::time::Instant;

use crate::Refusal;

/// Before this member has registered, giving up costs nothing: the next start begins anew.
const BEFORE_REGISTRATION: Duration = Duration::from_secs(30);

/// Afterwards it costs the registration, which cannot be made a second time with a v2 service: a restart of the
/// service must be waited for.
const AFTER_REGISTRATION: Duration = Duration::from_secs(600);

/// A wait for the next registration is begun anew after this time, so that a service which has gone silently is noticed.
pub(crate) const WATCH: Duration = Duration::from_secs(60);

/// etcd: the pauses double, from 2 s up to 2^8 s.
const MAX_DOUBLINGS: u32 = 8;

pub(crate) struct Patience {
    url: String,
    registered: bool,
    failures: u32,
    /// The last useful answer, or the beginning.
    answered: Instant,
}

impl Patience {
    pub(crate) fn new(url: String) -> Self {
        Self {
            url,
            registered: false,
            failures: 0,
            answered: Instant::now(),
        }
    }

    pub(crate) fn answered(&mut self) {
        self.failures = 0;
        self.answered = Instant::now();
    }

    pub(crate) fn registered(&mut self) {
        self.registered = true;
    }

    /// Pauses after a failure, unless that has lasted too long.
    pub(crate) async fn pause(&mut self, step: &'static str, last: String) -> Result<(), Refusal> {
        self.failures += 1;
        let pause = Duration::from_secs(1 << self.failures.min(MAX_DOUBLINGS));
        let limit = if self.registered {
            AFTER_REGISTRATION
        } else {
            BEFORE_REGISTRATION
        };
        let tried = self.answered.elapsed();
        if tried >= limit {
            return Err(Refusal::Unreachable {
                url: self.url.clone(),
                tried,
                last,
            });
        }
        let pause = pause.min(limit - tried);
        tracing::warn!(url = self.url, reason = step, backoff = ?pause, error = last, "retry connecting to discovery service");
        tokio::time::sleep(pause).await;
        Ok(())
    }
}
