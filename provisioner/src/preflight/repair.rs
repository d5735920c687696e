//! What `--fix` does: directories that `up` would make, and permissions of data directories. Nothing that runs is touched.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::facts::Machine;
use super::gather::Station;
use crate::cluster::Cluster;
use crate::error::Error;
use crate::host::local::{Dir, Directory, MakeDirs};
use crate::topology::SshHost;

/// A directory to make, or to close to others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Repair {
    /// The machine.
    pub machine: String,
    /// The directory.
    pub path: PathBuf,
    /// Its permissions from now on.
    pub mode: u32,
    /// Whether it is made.
    pub made: bool,
    #[serde(skip)]
    host: Option<SshHost>,
}

/// What can be put right without a risk.
#[must_use]
pub fn repairs(machines: &[Machine]) -> Vec<Repair> {
    let mut all = Vec::new();
    for machine in machines {
        let Ok(seen) = &machine.seen else { continue };
        let mut add = |path: PathBuf, mode, made| {
            all.push(Repair {
                machine: machine.name.clone(),
                path,
                mode,
                made,
                host: machine.host.clone(),
            });
        };
        let open = |dir: &&Directory| dir.mode.is_some_and(|mode| mode & 0o077 != 0);
        for dir in seen.surveyed.data.iter().filter(open) {
            add(dir.path.clone(), 0o700, false);
        }
        // What is below an existing directory alone is known to be missing.
        let known = seen.surveyed.data.iter().chain(&seen.surveyed.programs);
        let is_missing = |path: &PathBuf| {
            let mut known = known.clone();
            known.any(|dir| dir.path.starts_with(path) && !dir.nearest.starts_with(path))
        };
        for path in machine.host.iter().flat_map(dirs).filter(is_missing) {
            add(path, 0o755, true);
        }
    }
    all
}

/// Does it.
pub async fn repair(cluster: &Cluster, repairs: &[Repair], limit: Duration) -> Result<(), Error> {
    for repair in repairs {
        let station = Station::of(repair.host.as_ref(), &cluster.hosts).await?;
        let dir = Dir {
            path: repair.path.clone(),
            mode: repair.mode,
            owner: None,
        };
        station.ask(MakeDirs(vec![dir]), limit).await?;
    }
    Ok(())
}

fn dirs(host: &SshHost) -> [PathBuf; 2] {
    [host.install_dir.join("bin"), host.data_dir.clone()]
}
