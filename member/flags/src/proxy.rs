//! The v2 proxy: which kind to run, and how it treats the members that it forwards to.
//!
//! etcd has it up to 3.5. Times are milliseconds, as there.

use std::time::Duration;

use crate::{FlagError, Flags, discovery::Fallback, flags::Fault, go::parse_u64};

/// `--proxy`: whether to run as a proxy, and for which requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyMode {
    /// As a member.
    Off,
    /// As a proxy that answers nothing but GET.
    Readonly,
    /// As a proxy.
    On,
}

impl ProxyMode {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Readonly => "readonly",
            Self::On => "on",
        }
    }
}

/// The flags of the v2 proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyFlags {
    /// `--proxy`
    pub mode: ProxyMode,
    /// `--proxy-failure-wait`: how long a failed endpoint is left alone.
    pub failure_wait_ms: u64,
    /// `--proxy-refresh-interval`: between two looks at the member list.
    pub refresh_interval_ms: u64,
    /// `--proxy-dial-timeout`; 0 for none.
    pub dial_timeout_ms: u64,
    /// `--proxy-write-timeout`; 0 for none.
    pub write_timeout_ms: u64,
    /// `--proxy-read-timeout`; 0 for none. It ends watches on which nothing happens.
    pub read_timeout_ms: u64,
}

impl Default for ProxyFlags {
    fn default() -> Self {
        Self {
            mode: ProxyMode::Off,
            failure_wait_ms: 5_000,
            refresh_interval_ms: 30_000,
            dial_timeout_ms: 1_000,
            write_timeout_ms: 5_000,
            read_timeout_ms: 0,
        }
    }
}

impl ProxyFlags {
    /// How long a failed endpoint is left alone.
    #[must_use]
    pub fn failure_wait(&self) -> Duration {
        Duration::from_millis(self.failure_wait_ms)
    }

    /// The time between two looks at the member list.
    #[must_use]
    pub fn refresh_interval(&self) -> Duration {
        Duration::from_millis(self.refresh_interval_ms)
    }

    /// How long connecting may take; `None` for as long as it takes.
    #[must_use]
    pub fn dial_timeout(&self) -> Option<Duration> {
        limit(self.dial_timeout_ms)
    }

    /// How long a connection may take no bytes; `None` for as long as it likes.
    #[must_use]
    pub fn write_timeout(&self) -> Option<Duration> {
        limit(self.write_timeout_ms)
    }

    /// How long a connection may give no bytes; `None` for as long as it likes.
    #[must_use]
    pub fn read_timeout(&self) -> Option<Duration> {
        limit(self.read_timeout_ms)
    }

    /// Sets a flag of this group; false when the name is another's.
    pub(crate) fn assign(&mut self, name: &str, value: &str) -> Result<bool, Fault> {
        match name {
            "proxy" => {
                // The definition has checked that it is one of the three words.
                self.mode = match value {
                    "on" => ProxyMode::On,
                    "readonly" => ProxyMode::Readonly,
                    _ => ProxyMode::Off,
                }
            }
            "proxy-failure-wait" => self.failure_wait_ms = parse_u64(value)?,
            "proxy-refresh-interval" => self.refresh_interval_ms = parse_u64(value)?,
            "proxy-dial-timeout" => self.dial_timeout_ms = parse_u64(value)?,
            "proxy-write-timeout" => self.write_timeout_ms = parse_u64(value)?,
            "proxy-read-timeout" => self.read_timeout_ms = parse_u64(value)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Every flag of this group with the text of its value.
    pub(crate) fn values(&self) -> [(&'static str, String); 6] {
        let Self {
            mode,
            failure_wait_ms,
            refresh_interval_ms,
            dial_timeout_ms,
            write_timeout_ms,
            read_timeout_ms,
        } = self;
        [
            ("proxy", mode.as_str().to_owned()),
            ("proxy-failure-wait", failure_wait_ms.to_string()),
            ("proxy-refresh-interval", refresh_interval_ms.to_string()),
            ("proxy-dial-timeout", dial_timeout_ms.to_string()),
            ("proxy-write-timeout", write_timeout_ms.to_string()),
            ("proxy-read-timeout", read_timeout_ms.to_string()),
        ]
    }
}

fn limit(ms: u64) -> Option<Duration> {
    (ms > 0).then(|| Duration::from_millis(ms))
}

impl Flags {
    /// Whether it is to become a proxy when the discovery cluster has no place left.
    #[must_use]
    pub fn falls_back_to_proxy(&self) -> bool {
        !self.discovery.url.is_empty() && self.discovery.fallback == Fallback::Proxy
    }

    /// Whether a proxy may come of it: by its own flag, or for want of a place in the cluster.
    #[must_use]
    pub fn may_be_proxy(&self) -> bool {
        self.proxy.mode != ProxyMode::Off || self.falls_back_to_proxy()
    }

    pub(crate) fn check_proxy(&self) -> Result<(), FlagError> {
        if self.may_be_proxy() {
            // etcd asks the members without a pause.
            return match self.proxy.refresh_interval_ms {
                0 => Err(FlagError::ProxyRefreshZero),
                _ => Ok(()),
            };
        }
        let defaults = ProxyFlags::default().values();
        let changed = self.proxy.values().into_iter().zip(defaults);
        for ((flag, value), (_, default)) in changed {
            if value != default {
                // As with other flags that mean nothing alone; etcd ignores it.
                return Err(FlagError::Companion {
                    flag,
                    needs: "proxy",
                });
            }
        }
        Ok(())
    }
}
