//! Looking at one member on the machine that it lives on.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::data::{DataOwner, inspect, wal_end};
use super::facts::{DataDir, Knows, PortTaken, Running};
use crate::error::Error;
use crate::host::local::{
    Process, checksum_of, find_by_argument, listeners, main_process, owner_of,
};
use crate::host::remote::Ask;
use crate::render::ENV;
use crate::state::Record;

/// The file in a member's directory that says which version its data are of: `3.4.23/etcd3`, as Kubernetes's images of etcd write it.
pub const VERSION_FILE: &str = "version.txt";

/// What is known of a member before its machine is looked at.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MemberSight {
    /// Whose data directory it should be.
    pub owner: DataOwner,
    /// What its peer URLs and token amount to.
    pub cluster_id: u64,
    /// Where its data are.
    pub data_dir: PathBuf,
    /// Its directory: its process is found by files in it.
    pub dir: PathBuf,
    /// What was written down when it was started.
    pub record: Option<Record>,
    /// The systemd unit that keeps it.
    pub unit: Option<String>,
    /// The ports that it needs.
    pub ports: Vec<NeededPort>,
    /// Its ports unless its arguments say otherwise.
    pub held: [u16; 2],
    /// Files to take checksums of.
    pub files: Vec<PathBuf>,
    /// Whether to read its log.
    pub log: bool,
}

/// A port that a member listens on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NeededPort {
    /// client or peer.
    pub role: String,
    /// Where.
    pub address: SocketAddr,
}

/// What was seen.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MemberSeen {
    /// Its process, if it runs.
    pub process: Option<Running>,
    /// What its data directory holds.
    pub data: DataDir,
    /// What its version file says.
    pub version: Option<String>,
    /// What its log says.
    pub log: Option<Knows>,
    /// Its ports that somebody else holds.
    pub ports_taken: Vec<PortTaken>,
    /// Checksums of the files that exist.
    pub checksums: BTreeMap<PathBuf, String>,
}

impl Ask for MemberSight {
    const NAME: &'static str = "look";
    type Answer = MemberSeen;

    async fn answer(self) -> Result<MemberSeen, Error> {
        let process = match &self.unit {
            Some(unit) => main_process(unit).await?.map(with_environment),
            None => self.process()?,
        };
        self.see(process)
    }
}

impl MemberSight {
    /// Looks at a member that nothing keeps.
    pub(super) fn look(&self) -> Result<MemberSeen, Error> {
        self.see(self.process()?)
    }

    fn see(&self, process: Option<Running>) -> Result<MemberSeen, Error> {
        let data =
            inspect(&self.data_dir, &self.owner, self.cluster_id).map_err(|error| Error::Io {
                action: error.action,
                path: error.path,
                source: error.source,
            })?;
        let mut checksums = BTreeMap::new();
        for path in &self.files {
            if let Some(checksum) = checksum_of(path)? {
                checksums.insert(path.clone(), checksum);
            }
        }
        let version = std::fs::read_to_string(self.dir.join(VERSION_FILE)).ok();
        let version = version.and_then(|text| Some(text.split('/').next()?.trim().to_owned()));
        let log = if self.log && process.is_none() && data == DataDir::Ours {
            wal_end(&self.data_dir).map_err(Error::io("read", &self.data_dir))?
        } else {
            None
        };
        Ok(MemberSeen {
            version,
            log,
            ports_taken: self.ports_taken(process.as_ref())?,
            process,
            data,
            checksums,
        })
    }

    fn process(&self) -> Result<Option<Running>, Error> {
        let data_dir = format!("--data-dir={}", self.data_dir.display());
        let config = format!("--config-file={}/", self.dir.display());
        running(self.record.clone(), &|arg| {
            arg == data_dir || arg.starts_with(&config)
        })
    }

    fn ports_taken(&self, process: Option<&Running>) -> Result<Vec<PortTaken>, Error> {
        let [client, peer] = self.held;
        // What a member holds itself is no conflict.
        let held = process.map(|running| [running.client_port().unwrap_or(client), peer]);
        let is_needed =
            |port: &&NeededPort| held.is_none_or(|held| !held.contains(&port.address.port()));
        let needed: Vec<&NeededPort> = self.ports.iter().filter(is_needed).collect();
        if needed.is_empty() {
            return Ok(Vec::new());
        }
        let listening = listeners()
            .map_err(|source| Error::because("cannot read which ports are in use", source))?;
        let mut taken = Vec::new();
        for NeededPort { role, address } in needed {
            let Some(listener) = listening.iter().find(|listener| listener.blocks(*address)) else {
                continue;
            };
            let owner = owner_of(listener)
                .map_err(|source| Error::because("cannot look up who holds a port", source))?;
            taken.push(PortTaken {
                role: role.clone(),
                port: address.port(),
                owner: owner.to_string(),
            });
        }
        Ok(taken)
    }
}

/// The process that a record names, or else the one with an argument of its own.
pub(super) fn running(
    record: Option<Record>,
    its_own: &dyn Fn(&str) -> bool,
) -> Result<Option<Running>, Error> {
    let recorded = record.filter(|record| record.process.is_running());
    if let Some(Record { process, argv, .. }) = recorded {
        let now = process.argv().unwrap_or_default();
        // An interpreter or a wrapper script puts itself in front of what was asked for; the flags tell. What sets variables
        // leaves what comes after them.
        let same = argv.get(1..).is_some_and(|flags| now.ends_with(flags))
            || (!now.is_empty() && argv.ends_with(&now));
        return Ok(Some(Running {
            process,
            argv: if same { argv } else { now },
        }));
    }
    // The record is written after the start, so a run that was killed in between leaves a process without one.
    let look = |source| Error::because("cannot list processes", source);
    let found = find_by_argument(its_own).map_err(look)?;
    Ok(found.into_iter().next().map(|process| {
        let argv = process.argv().unwrap_or_default();
        Running { process, argv }
    }))
}

// A unit sets variables by itself; they are settings as the arguments are, and written as env(1) would be given them.
fn with_environment(process: Process) -> Running {
    let argv = process.argv().unwrap_or_default();
    let mut variables = process.settings().unwrap_or_default();
    if variables.is_empty() {
        return Running { process, argv };
    }
    variables.sort();
    let mut all = vec![ENV.to_owned()];
    all.extend(variables);
    all.extend(argv);
    Running { process, argv: all }
}
