//! Which program a member runs, as far as its flags differ.

use std::fmt;

use crate::topology::Binary;

/// A server program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// The included member.
    Member,
    /// An upstream etcd.
    Etcd {
        /// Major and minor version.
        minor: (u32, u32),
    },
}

impl Server {
    /// What a binary is by its name alone; `minor` is used for an upstream etcd.
    pub fn assumed(binary: &Binary, minor: (u32, u32)) -> Self {
        match binary {
            Binary::Included => Self::Member,
            Binary::Path(path) if path.file_stem().is_some_and(|name| name == "member") => {
                Self::Member
            }
            Binary::Path(_) => Self::Etcd { minor },
        }
    }

    /// Reads what `BINARY --version` prints; `None` when it is no server that is known.
    pub fn from_version(text: &str) -> Option<Self> {
        // The member says first which etcd it is compatible with.
        if text.lines().any(|line| line.starts_with("member Version:")) {
            return Some(Self::Member);
        }
        let first = text.lines().next()?;
        let version = first.strip_prefix("etcd Version:")?.trim();
        let mut parts = version.split('.');
        Some(Self::Etcd {
            minor: (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?),
        })
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Member => f.write_str("the included member"),
            Self::Etcd {
                minor: (major, minor),
            } => write!(f, "etcd {major}.{minor}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_the_servers_print() {
        let etcd = "etcd Version: 3.4.23\nGit SHA: Not provided (use ./build instead of go build)\nGo Version: go1.19.8\n";
        assert_eq!(
            Server::from_version(etcd),
            Some(Server::Etcd { minor: (3, 4) })
        );
        let member = "etcd Version: 3.6.14\nmember Version: 0.1.0\n";
        assert_eq!(Server::from_version(member), Some(Server::Member));
        assert_eq!(Server::from_version("GNU bash, version 5.2\n"), None);
        assert_eq!(Server::from_version(""), None);
    }
}
