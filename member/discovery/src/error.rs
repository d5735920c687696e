//! Why the members were not found, in etcd's words, and what an operator is to do about it.

use std::time::Duration;

use member_flags::UrlError;

use crate::DnsError;

/// Why the members were not found.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// The guide's sentence, then etcd's.
    #[error(
        "error: the cluster doesn\u{2019}t have a size configuration value in {token}/_config: failed to join discovery cluster ({refusal})"
    )]
    NoSize {
        /// The URL or the token of the registration.
        token: String,
        /// What the service said.
        refusal: Refusal,
    },
    /// A discovery service stands against it.
    #[error("failed to join discovery cluster ({refusal})")]
    Service {
        /// The URL or the token of the registration.
        token: String,
        /// Why.
        refusal: Refusal,
    },
    /// The SRV records do not give a cluster with this member.
    #[error("error setting up initial cluster: {reason}")]
    Srv {
        /// etcd's sentence, then what was found.
        reason: String,
    },
    /// The DNS gives no answer.
    #[error("error setting up initial cluster: {0}")]
    Dns(DnsError),
}

impl DiscoveryError {
    pub(crate) fn service(token: &str, refusal: Refusal) -> Self {
        let token = token.to_owned();
        match refusal {
            Refusal::NoSize | Refusal::Key { code: 100, .. } => Self::NoSize { token, refusal },
            refusal => Self::Service { token, refusal },
        }
    }

    /// Whether the cluster has no place left.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(
            self,
            Self::Service {
                refusal: Refusal::Full,
                ..
            }
        )
    }

    /// etcd's log line for it, and the lines of advice that follow.
    #[must_use]
    pub fn log_lines(&self) -> (&'static str, &'static [&'static str]) {
        const TOKEN: &[&str] =
            &["do not reuse discovery token; generate a new one to bootstrap a cluster"];
        let refusal = match self {
            Self::NoSize { refusal, .. } | Self::Service { refusal, .. } => refusal,
            Self::Srv { .. } | Self::Dns(_) => return ("discovery failed", &[]),
        };
        match refusal {
            Refusal::DuplicateId => (
                "member has been registered with discovery service",
                &[
                    "but etcd could not find valid cluster configuration",
                    "check data dir if previous bootstrap succeeded",
                    "or use a new discovery token if previous bootstrap failed",
                ],
            ),
            Refusal::DuplicateName => (
                "member with duplicated name has already been registered",
                &[
                    "cURL the discovery token URL for details",
                    "do not reuse discovery token; generate a new one to bootstrap a cluster",
                ],
            ),
            Refusal::Unreachable { .. } | Refusal::Setup { .. } => ("discovery failed", &[]),
            _ => (
                "failed to bootstrap; discovery token was already used",
                TOKEN,
            ),
        }
    }
}

/// What stands against a registration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No size is configured at the v3 service.
    #[error("discovery: size key not found")]
    NoSize,
    /// The size is not a number above zero.
    #[error("discovery: size key is bad: {value:?} is not a number of members")]
    BadSize {
        /// The value.
        value: String,
    },
    /// As many members as the size says have registered, and this one is not among them.
    #[error("discovery: cluster is full")]
    Full,
    /// This member has registered before.
    #[error("discovery: found duplicate id")]
    DuplicateId,
    /// Two members have the same name.
    #[error("discovery: found duplicate name")]
    DuplicateName,
    /// A registration that is no `NAME=URL`.
    #[error("discovery: invalid URL: {line:?}")]
    InvalidUrl {
        /// The registrations.
        line: String,
    },
    /// Something that is no etcd answers.
    #[error("discovery: bad discovery endpoint: {answer}")]
    BadEndpoint {
        /// What it answered.
        answer: String,
    },
    /// An error of etcd's key space.
    #[error("{code}: {message} ({cause}) [{index}]")]
    Key {
        /// etcd's number of it.
        code: u32,
        /// etcd's text.
        message: String,
        /// The key.
        cause: String,
        /// The index of the key space.
        index: u64,
    },
    /// The URL of the service is malformed.
    #[error("{0}")]
    Url(UrlError),
    /// Certificates or other settings for the service cannot be used.
    #[error("{reason}")]
    Setup {
        /// Why.
        reason: String,
    },
    /// No useful answer for too long.
    #[error(
        "discovery: no answer from {url} for {}s, last error: {last}; check that the service runs and can be reached",
        tried.as_secs()
    )]
    Unreachable {
        /// The service.
        url: String,
        /// For how long it was tried.
        tried: Duration,
        /// The last error.
        last: String,
    },
}
