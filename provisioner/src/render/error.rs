//! Why settings cannot be rendered.

use member_flags::FlagError;
use thiserror::Error;

/// Why settings cannot be rendered.
#[derive(Debug, Error)]
pub enum RenderError {
    /// The instance does not know the member.
    #[error("member {member} has no place in this instance of the cluster")]
    NotPlaced {
        /// The member's name.
        member: String,
    },
    /// A flag or its value is refused.
    #[error("member {member} cannot have the flag {flag}")]
    Flag {
        /// The member's name.
        member: String,
        /// The flag's name.
        flag: String,
        /// Why.
        #[source]
        source: Box<FlagError>,
    },
    /// The server that the member runs lacks the flag.
    #[error("member {member} runs {server}, which has no flag {flag}")]
    Unsupported {
        /// The member's name.
        member: String,
        /// The flag's name.
        flag: String,
        /// The server in words.
        server: String,
    },
    /// The server finds nobody by SRV records without TLS.
    #[error("member {member} runs {server}, which finds no members by SRV records without TLS")]
    PlainSrv {
        /// The member's name.
        member: String,
        /// The server in words.
        server: String,
    },
    /// Without `provision` the members would not find each other.
    #[error(
        "the members find each other through a discovery service that provision runs beside them"
    )]
    BuiltInDiscovery,
    /// Two members would write to the same directory.
    #[error("members {} and {} are both at {address}, and a kubelet runs one etcd", .members.0, .members.1)]
    SharedMachine {
        /// Their names.
        members: (String, String),
        /// The address of both.
        address: String,
    },
    /// The settings have no equivalent in the server's version.
    #[error("member {member} runs {server}, which cannot be given these flags")]
    Version {
        /// The member's name.
        member: String,
        /// The server in words.
        server: String,
        /// Why.
        #[source]
        source: Box<FlagError>,
    },
}

impl RenderError {
    /// What to do.
    pub fn fix(&self) -> Option<String> {
        match self {
            Self::NotPlaced { .. } => {
                Some("run `provision up` with the topology that has this member".into())
            }
            Self::Flag { flag, .. } | Self::Unsupported { flag, .. } => Some(format!(
                "remove `{flag}` from [defaults] or from the member's `flags`"
            )),
            Self::PlainSrv { .. } => Some(
                "set peer = \"mutual\" in [tls], or give the member a binary of etcd 3.5".into(),
            ),
            Self::BuiltInDiscovery => Some(
                "set method = \"static\" in [bootstrap], or give the `url` or `endpoints` of a service".into(),
            ),
            Self::SharedMachine { .. } => Some("give every member the `address` of its node".into()),
            Self::Version { .. } => {
                Some("remove the flag, or give the member a binary that has it".into())
            }
        }
    }
}
