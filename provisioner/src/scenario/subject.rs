//! The server under test.

use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::host::local::{included_member, resolve, version_text};
use crate::render::Server;

/// The server under test.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Absolute path.
    pub program: PathBuf,
    /// What it says it is.
    pub server: Server,
    /// What its `--version` says first.
    pub version: String,
    /// As the user named it; `None` is the included member.
    pub given: Option<PathBuf>,
}

impl Subject {
    /// Finds the program and asks what it is.
    ///
    /// # Errors
    /// It is not there, or says that it is something else.
    pub fn find(given: Option<&Path>) -> Result<Self, Error> {
        let program = match given {
            Some(path) => resolve(path),
            None => included_member(),
        };
        let program = program.map_err(|error| {
            Error::failed(
                error.to_string(),
                "build or install it, or name another with --binary",
            )
        })?;
        let text = version_text(&program)
            .map_err(|error| Error::because("the server under test does not run", error))?;
        let version = text.lines().next().unwrap_or_default().to_owned();
        let server = Server::from_version(&text).ok_or_else(|| {
            Error::failed(
                format!(
                    "{} is neither etcd nor member: its --version says {version:?}",
                    program.display()
                ),
                "name a server with --binary",
            )
        })?;
        Ok(Self {
            program,
            server,
            version,
            given: given.map(Path::to_owned),
        })
    }

    pub(super) fn is_member(&self) -> bool {
        self.server == Server::Member
    }

    /// Text that differs between the servers.
    pub(super) fn says<'t>(&self, words: Words<'t>) -> &'t str {
        match self.server {
            Server::Member => words.member,
            Server::Etcd { minor } if minor < (3, 5) => words.etcd_3_4,
            Server::Etcd { .. } => words.etcd,
        }
    }
}

/// How each server says the same: etcd 3.4 logs sentences, later ones log fields, and the member follows the later ones.
#[derive(Clone, Copy, Debug)]
pub(super) struct Words<'t> {
    pub(super) member: &'t str,
    pub(super) etcd: &'t str,
    pub(super) etcd_3_4: &'t str,
}

impl<'t> Words<'t> {
    /// All say the same.
    pub(super) fn same(text: &'t str) -> Self {
        Self {
            member: text,
            etcd: text,
            etcd_3_4: text,
        }
    }

    /// etcd 3.4 says it differently.
    pub(super) fn but_3_4(text: &'t str, etcd_3_4: &'t str) -> Self {
        Self {
            etcd_3_4,
            ..Self::same(text)
        }
    }
}
