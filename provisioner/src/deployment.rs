//! What a member needs on a machine that is not this one. Pure: from topology and instance to files.
//!
//! ```text
//! INSTALL/bin/member-CHECKSUM              the program, under a name of its own: what runs is never overwritten
//! DATA/clusters/NAME/members/MEMBER/       its home, of the layout of a state directory
//!   certs/  member.env  data/  log         log: without systemd
//! DATA/clusters/NAME/removed/              data of members that are gone
//! /etc/systemd/system/provision-NAME-MEMBER.service
//! ```

use std::fmt;
use std::path::{Path, PathBuf};

use crate::host::local::{Kept, Remove};
use crate::instance::{KeyPaths, Placement};
use crate::render::{self, SystemdUnit};
use crate::topology::{Keeper, SshHost, Topology};

const UNITS: &str = "/etc/systemd/system";

/// A member on its host.
#[derive(Clone, Debug)]
pub struct Deployment {
    /// The machine.
    pub host: SshHost,
    /// The member's directory.
    pub home: PathBuf,
    /// Its data.
    pub data_dir: PathBuf,
    /// What keeps it running.
    pub kept: Kept,
    /// What must be there before it starts, and may be replaced while it runs.
    pub installed: Vec<HostFile>,
    /// What it is started with: written right before.
    pub given: Vec<HostFile>,
    /// Its argument vector, program first.
    pub argv: Vec<String>,
}

/// A file on a host.
#[derive(Clone, Debug)]
pub struct HostFile {
    /// Where.
    pub path: PathBuf,
    /// Permissions.
    pub mode: u32,
    /// Whose.
    pub owner: FileOwner,
    /// What.
    pub content: Content,
}

/// Whose a file on a host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileOwner {
    /// Of who installs it.
    Installer,
    /// Of the user that the member runs as.
    Member,
}

/// What is in a file.
#[derive(Clone, PartialEq, Eq)]
pub enum Content {
    /// This.
    Text(String),
    /// What is in this file here.
    CopyOf(PathBuf),
    /// A program here, and its checksum.
    Program(PathBuf, String),
}

// Settings may hold secrets.
impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "Text({} bytes)", text.len()),
            Self::CopyOf(path) => write!(f, "CopyOf({})", path.display()),
            Self::Program(path, _) => write!(f, "Program({})", path.display()),
        }
    }
}

/// The name of a member's systemd unit.
#[must_use]
pub fn unit_name(cluster: &str, member: &str) -> String {
    format!("provision-{cluster}-{member}.service")
}

/// Where a program with this checksum goes.
#[must_use]
pub fn program_path(host: &SshHost, program: &Path, checksum: &str) -> PathBuf {
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let short = checksum.get(..16).unwrap_or(checksum);
    host.install_dir.join("bin").join(format!("{name}-{short}"))
}

/// A member's program: where it is here, and where it goes.
#[derive(Clone, Copy, Debug)]
pub struct Program<'a> {
    /// Here.
    pub here: &'a Path,
    /// There.
    pub there: &'a Path,
    /// Its checksum.
    pub checksum: &'a str,
}

impl Deployment {
    /// Puts together what a member needs.
    #[must_use]
    pub fn new(
        topology: &Topology,
        host: &SshHost,
        member: &str,
        place: &Placement,
        program: Program<'_>,
        given: render::Given,
    ) -> Self {
        let there = place.seen_there();
        let home = place.host_dir.clone().unwrap_or_default();
        let mut installed = vec![HostFile {
            path: program.there.to_owned(),
            mode: 0o755,
            owner: FileOwner::Installer,
            content: Content::Program(program.here.to_owned(), program.checksum.to_owned()),
        }];
        installed.extend(certificates(topology, place, &there));

        let kept = kept(host, &topology.name, member, place);
        let env_file = home.join("member.env");
        let mut files = Vec::new();
        if let Some((path, text)) = given.file {
            files.push(HostFile {
                path,
                mode: 0o600,
                owner: FileOwner::Member,
                content: Content::Text(text),
            });
        }
        if let Kept::BySystemd(unit) = &kept {
            if let Some(text) = render::env_lines(&given.argv) {
                files.push(HostFile {
                    path: env_file.clone(),
                    mode: 0o600,
                    owner: FileOwner::Installer,
                    content: Content::Text(text),
                });
            }
            let text = render::unit(&SystemdUnit {
                cluster: &topology.name,
                member,
                user: &host.run_as,
                home: &home,
                env_file: &env_file,
                argv: &given.argv,
            });
            files.push(HostFile {
                path: Path::new(UNITS).join(unit),
                mode: 0o644,
                owner: FileOwner::Installer,
                content: Content::Text(text),
            });
        }
        Self {
            host: host.clone(),
            data_dir: place.data_dir.clone(),
            home,
            kept,
            installed,
            given: files,
            argv: given.argv,
        }
    }

    /// Every file of it.
    pub fn files(&self) -> impl Iterator<Item = &HostFile> {
        self.installed.iter().chain(&self.given)
    }
}

/// What keeps a member running on its host.
#[must_use]
pub fn kept(host: &SshHost, cluster: &str, member: &str, place: &Placement) -> Kept {
    match host.keeper {
        Keeper::Systemd => Kept::BySystemd(unit_name(cluster, member)),
        Keeper::Process => Kept::Alone(place.host_dir.clone().unwrap_or_default().join("log")),
    }
}

/// Where the data of members that are gone is kept on their hosts.
#[must_use]
pub fn removed_dir(home: &Path) -> PathBuf {
    home.ancestors().nth(2).unwrap_or(home).join("removed")
}

/// Everything that is of this member alone on its host.
#[must_use]
pub fn traces(host: &SshHost, cluster: &str, member: &str, place: &Placement) -> Remove {
    let mut all: Vec<PathBuf> = place.host_dir.iter().cloned().collect();
    // The members' directory, and the cluster's.
    let above = place
        .host_dir
        .iter()
        .flat_map(|home| home.ancestors().skip(1).take(2));
    let empty = above.map(Path::to_owned).collect();
    if host.keeper == Keeper::Systemd {
        all.push(Path::new(UNITS).join(unit_name(cluster, member)));
    }
    Remove { all, empty }
}

fn certificates(topology: &Topology, here: &Placement, there: &Placement) -> Vec<HostFile> {
    let mut files = Vec::new();
    let mut file = |here: PathBuf, there: PathBuf, mode| {
        files.push(HostFile {
            path: there,
            mode,
            owner: FileOwner::Member,
            content: Content::CopyOf(here),
        });
    };
    let mut pair = |here: KeyPaths, there: KeyPaths| {
        file(here.key, there.key, 0o600);
        file(here.cert, there.cert, 0o644);
    };
    let (peer, client) = (
        topology.tls.peer.is_signed(),
        topology.tls.client.is_signed(),
    );
    if peer {
        pair(here.peer(), there.peer());
    }
    if client {
        pair(here.server(), there.server());
    }
    if client || peer {
        file(here.ca_cert(), there.ca_cert(), 0o644);
    }
    files
}
