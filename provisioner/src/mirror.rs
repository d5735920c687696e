//! What a cluster's machines hold for its operator: its lock while a verb changes it, and a copy of its state directory.
//!
//! The lock keeps operators of different machines apart. The copy, readable by root alone as the members' own keys are, makes a state
//! directory that can be lost: `adopt` restores it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::join_all;

use crate::error::Error;
use crate::host::local::{KeepCopy, ReadCopy, TakeLock};
use crate::host::remote::Hosts;
use crate::instance::{Instance, KeyPaths};
use crate::pki::{NewFile, write_files};
use crate::state::{ClusterDir, Owner};
use crate::topology::{SshHost, Topology};

const INSTANCE: &str = "instance.json";
const TOPOLOGY: &str = "topology.toml";
const LIMIT: Duration = Duration::from_secs(30);

/// A cluster's directory on a machine.
#[must_use]
pub fn cluster_dir(host: &SshHost, cluster: &str) -> PathBuf {
    host.data_dir.join("clusters").join(cluster)
}

/// What of [`cluster_dir`] is the operator's, and goes when the cluster is purged.
#[must_use]
pub fn traces(host: &SshHost, cluster: &str) -> [PathBuf; 2] {
    let dir = cluster_dir(host, cluster);
    [dir.join("lock"), dir.join("state")]
}

/// The machines of a cluster's members, of those that leave too, each with one of its members.
fn machines<'a>(
    topology: &'a Topology,
    instance: Option<&'a Instance>,
) -> BTreeMap<&'a SshHost, &'a str> {
    let members = topology.members.iter();
    let members = members.map(|member| (member.name.as_str(), member.host.as_ref()));
    let gone = instance
        .into_iter()
        .flat_map(|instance| instance.leaving.iter().chain(&instance.former));
    let gone = gone.map(|(name, gone)| (name.as_str(), gone.host.as_ref()));
    // The first to name a machine is the last to be put in.
    let mut all: Vec<_> = members.chain(gone).collect();
    all.reverse();
    let all = all.into_iter();
    all.filter_map(|(name, host)| Some((host?, name))).collect()
}

/// Takes the lock on every machine that is in reach, until the connections end.
///
/// # Errors
/// Somebody else holds one.
pub async fn lock(
    hosts: &Hosts,
    topology: &Topology,
    instance: Option<&Instance>,
    verb: &str,
    force: bool,
) -> Result<(), Error> {
    let who = &Owner::me(verb).to_string();
    let locks = machines(topology, instance)
        .into_iter()
        .map(|(host, member)| async move {
            let take = TakeLock {
                path: traces(host, &topology.name)[0].clone(),
                who: who.clone(),
                force,
            };
            // Whoever looks at the machine next says why it is out of reach.
            let Ok(agent) = hosts.agent(host).await else {
                return Ok(());
            };
            let taken = agent.ask(&take, LIMIT).await;
            match taken.map_err(|error| error.at(member, "take the cluster's lock"))? {
                None => Ok(()),
                Some(holder) => Err(Error::refused(
                    format!(
                        "cluster {} is being changed by {holder}, says {}",
                        topology.name,
                        host.url()
                    ),
                    "wait until that is done. The lock ends with the connection of its holder, within a minute of its loss; --force-unlock breaks it",
                )),
            }
        });
    join_all(locks)
        .await
        .into_iter()
        .collect::<Result<(), Error>>()?;
    hosts.hold();
    Ok(())
}

/// Copies the state directory's essence to every machine that is in reach.
///
/// # Errors
/// The state cannot be read, or a machine cannot write or was lost since it was worked on.
pub async fn keep(hosts: &Hosts, topology: &Topology, dir: &ClusterDir) -> Result<(), Error> {
    let Some(instance) = dir.load()? else {
        return Ok(());
    };
    let mut files = BTreeMap::new();
    for (name, path) in state_files(topology, &instance, dir) {
        match fs::read_to_string(&path) {
            Ok(text) => drop(files.insert(name, text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io("read", &path)(error)),
        }
    }
    let copies = machines(topology, None).into_iter();
    let copies = copies.map(|(host, member)| {
        let copy = KeepCopy {
            dir: traces(host, &topology.name)[1].clone(),
            files: files.clone(),
        };
        async move {
            let Ok(agent) = hosts.agent(host).await else {
                return Ok(());
            };
            let kept = agent.ask(&copy, LIMIT).await;
            kept.map_err(|error| error.at(member, "keep a copy of the state on its machine"))
        }
    });
    join_all(copies).await.into_iter().collect()
}

// By their names in the copy. What members have themselves is not among them.
fn state_files(
    topology: &Topology,
    instance: &Instance,
    dir: &ClusterDir,
) -> BTreeMap<String, PathBuf> {
    let mut files = BTreeMap::from([
        (INSTANCE.to_owned(), dir.path().join(INSTANCE)),
        (TOPOLOGY.to_owned(), dir.topology_file()),
        ("old-ca.crt".to_owned(), instance.old_ca()),
    ]);
    let mut pair = |name: &str, KeyPaths { cert, key }: KeyPaths| {
        files.insert(format!("{name}.crt"), cert);
        files.insert(format!("{name}.key"), key);
    };
    pair("ca", instance.ca());
    pair("next-ca", instance.next_ca());
    pair("operator", instance.operator());
    for client in &topology.tls.clients {
        pair(&format!("client-{client}"), instance.client(client));
    }
    files
}

/// A state directory as a machine remembers it.
#[derive(Debug)]
pub struct Copy {
    /// Where it was found.
    pub host: String,
    /// The topology that was applied last, as TOML.
    pub topology: String,
    /// What is remembered, with paths of another state directory.
    pub instance: Instance,
    files: BTreeMap<String, String>,
}

/// Reads the copy on a machine, if there is one.
///
/// # Errors
/// The machine is out of reach, or the copy is not one of this release.
pub async fn find(hosts: &Hosts, host: &SshHost, cluster: &str) -> Result<Option<Copy>, Error> {
    let read = ReadCopy {
        dir: traces(host, cluster)[1].clone(),
    };
    let files = hosts.agent(host).await?.ask(&read, LIMIT).await?;
    let (Some(instance), Some(topology)) = (files.get(INSTANCE), files.get(TOPOLOGY)) else {
        return Ok(None);
    };
    let instance: Instance = serde_json::from_str(instance).map_err(|error| {
        Error::because(
            format!("the copy of the state on {} cannot be read", host.url()),
            error,
        )
    })?;
    Ok(Some(Copy {
        host: host.url(),
        topology: topology.clone(),
        instance,
        files,
    }))
}

impl Copy {
    /// Writes a state directory from it. The caller holds its lock.
    ///
    /// # Errors
    /// A file cannot be written, or a machine cannot be read from.
    pub async fn restore(
        self,
        hosts: &Hosts,
        topology: &Topology,
        dir: &ClusterDir,
    ) -> Result<(), Error> {
        let mut instance = self.instance;
        instance.pki_dir = dir.path().join("pki");
        let leaving = instance.leaving.iter_mut();
        let former = instance.former.iter_mut();
        let gone = leaving.chain(former);
        let gone = gone.map(|(name, gone)| (name, &mut gone.placement));
        for (name, place) in instance.members.iter_mut().chain(gone) {
            place.cert_dir = dir.path().join("members").join(name).join("certs");
        }
        let mut by_dir: BTreeMap<PathBuf, Vec<NewFile>> = BTreeMap::new();
        for (name, path) in state_files(topology, &instance, dir) {
            let own = [INSTANCE, TOPOLOGY].contains(&name.as_str());
            if let Some(text) = self.files.get(&name).filter(|_| !own) {
                add(&mut by_dir, path, text.clone());
            }
        }
        for member in &topology.members {
            let (Some(host), Some(place)) = (&member.host, instance.members.get(&member.name))
            else {
                continue;
            };
            let Some(home) = &place.host_dir else {
                continue;
            };
            // A machine that is out of reach keeps what it has; `up` issues that anew.
            let Ok(agent) = hosts.agent(host).await else {
                continue;
            };
            let read = ReadCopy {
                dir: home.join("certs"),
            };
            for (name, text) in agent.ask(&read, LIMIT).await? {
                add(&mut by_dir, place.cert_dir.join(name), text);
            }
        }
        for (dir, files) in &by_dir {
            write_files(dir, files)?;
        }
        dir.save_topology(&crate::topology::to_toml(topology))?;
        // Last: from now on there is a cluster.
        Ok(dir.save(&instance)?)
    }
}

fn add(by_dir: &mut BTreeMap<PathBuf, Vec<NewFile>>, path: PathBuf, text: String) {
    let dir = path.parent().unwrap_or(Path::new("/")).to_owned();
    let mode = if path.extension().is_some_and(|it| it == "key") {
        0o600
    } else {
        0o644
    };
    by_dir.entry(dir).or_default().push(NewFile {
        path,
        bytes: text.into_bytes(),
        mode,
    });
}
