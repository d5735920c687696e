//! What `plan` says is to be done.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use crate::instance::KeyPaths;

/// Which certificate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind", content = "member")]
pub enum CertKind {
    /// The cluster's CA.
    Ca,
    /// The operator's client certificate.
    Operator,
    /// Another client's certificate.
    Client(String),
    /// The CA's certificate beside a member's own.
    Trust(String),
    /// A member's peer port.
    Peer(String),
    /// A member's client port.
    Server(String),
}

impl CertKind {
    /// The member whose files it is among.
    pub fn member(&self) -> Option<&str> {
        match self {
            Self::Ca | Self::Operator | Self::Client(_) => None,
            Self::Trust(member) | Self::Peer(member) | Self::Server(member) => Some(member),
        }
    }
}

impl fmt::Display for CertKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ca => f.write_str("CA"),
            Self::Operator => f.write_str("operator certificate"),
            Self::Client(name) => write!(f, "client certificate of {name}"),
            Self::Trust(member) => write!(f, "CA certificate for {member}"),
            Self::Peer(member) => write!(f, "peer certificate of {member}"),
            Self::Server(member) => write!(f, "server certificate of {member}"),
        }
    }
}

/// Why it is to be made or made again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "reason")]
pub enum Reason {
    /// It does not exist.
    Missing,
    /// It ends soon, or has ended.
    Expiring {
        /// Whole days that are left; negative after the end.
        days_left: i64,
    },
    /// It begins in the future.
    NotYetValid,
    /// Its names are not those of the topology.
    WrongNames {
        /// Wanted and absent.
        missing: BTreeSet<String>,
        /// Present and unwanted.
        extra: BTreeSet<String>,
    },
    /// Another CA signed it, or it is a copy of another CA.
    WrongCa,
    /// It lacks a purpose that it needs.
    WrongUsage,
    /// Its subject is another's.
    WrongSubject {
        /// What it says.
        found: String,
    },
    /// The key beside it is another's.
    WrongKey,
    /// Nothing is wrong with it.
    Asked,
    /// Others than the owner may read the key.
    Exposed {
        /// The mode of the file.
        mode: u32,
    },
    /// It cannot be read as what it should be.
    Unreadable {
        /// What is wrong.
        why: String,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |names: &BTreeSet<String>| {
            names
                .iter()
                .map(String::as_str)
                .collect::<Vec<_>>()
                .join(", ")
        };
        match self {
            Self::Missing => f.write_str("missing"),
            Self::Expiring { days_left } if *days_left < 0 => f.write_str("expired"),
            Self::Expiring { days_left } => write!(f, "{days_left} days left"),
            Self::NotYetValid => f.write_str("not valid yet"),
            Self::WrongNames { missing, extra } if extra.is_empty() => {
                write!(f, "lacks the names {}", list(missing))
            }
            Self::WrongNames { missing, extra } if missing.is_empty() => {
                write!(f, "has the unwanted names {}", list(extra))
            }
            Self::WrongNames { missing, extra } => write!(
                f,
                "lacks the names {}, and has the unwanted names {}",
                list(missing),
                list(extra)
            ),
            Self::WrongCa => f.write_str("of another CA"),
            Self::WrongUsage => f.write_str("lacks a purpose that it needs"),
            Self::WrongSubject { found } => write!(f, "made for {found}"),
            Self::Asked => f.write_str("as asked"),
            Self::WrongKey => f.write_str("its key is another's"),
            Self::Exposed { mode } => write!(f, "others may read its key (mode {mode:04o})"),
            Self::Unreadable { why } => write!(f, "unreadable: {why}"),
        }
    }
}

/// One certificate that is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertAction {
    /// Which.
    pub kind: CertKind,
    /// Where. A copy of the CA's certificate has no key.
    pub paths: KeyPaths,
    /// Why.
    pub reason: Reason,
}

impl fmt::Display for CertAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "issue {}: {}", self.kind, self.reason)
    }
}
