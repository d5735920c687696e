//! Taking one backup.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use member_bolt::{HashCheck, SnapshotFile, Status};
use time::OffsetDateTime;

use super::manifest::{Backup, Manifest, Verified};
use super::seal::Recipients;
use super::stream::{Checker, Content};
use super::verify::{Trial, try_out};
use super::work::WorkDir;
use crate::error::Error;
use crate::observe::{CallError, Client, KeysHash, Observed, Vitals};
use crate::output::{Line, Output};
use crate::render::Server;
use crate::topology::{Role, Topology};

const ASK_LIMIT: Duration = Duration::from_secs(10);

/// What is wanted of a backup.
#[derive(Debug)]
pub struct Take<'a> {
    /// The cluster.
    pub cluster: &'a str,
    /// The member that it comes from.
    pub member: &'a str,
    /// A connection to it.
    pub client: &'a Client,
    /// What the member runs, when the backup is to be tried out.
    pub verify: Option<(&'a Path, Server)>,
    /// Who can read it.
    pub recipients: &'a Recipients,
    /// Where it goes.
    pub to: Destination<'a>,
    /// A directory of this machine that may hold the keys in plain.
    pub private: &'a Path,
    /// How long the member may be silent, and the trial may take.
    pub timeout: Duration,
    /// Where progress goes.
    pub output: &'a Output,
}

/// Where a backup goes.
#[derive(Clone, Copy, Debug)]
pub enum Destination<'a> {
    /// Into this directory, under a name of its own.
    Dir(&'a Path),
    /// To this file, which does not exist.
    File(&'a Path),
}

/// Whom to take a backup from: a follower that is in sync, so that the leader is left to its work. The leader serves where nobody
/// else is well, and who has lost the others where nobody leads: a degraded cluster needs its backups most.
#[must_use]
pub fn choose<'o>(topology: &Topology, observed: &'o Observed) -> Option<(&'o str, &'o Vitals)> {
    // A learner does not serve snapshots.
    let votes = |name: &str| {
        let mut members = topology.members.iter();
        members.any(|member| member.name == name && member.role == Role::Voter)
    };
    let leader = observed.leader();
    let members = observed.members.iter().filter_map(|(name, facts)| {
        let vitals = facts.vitals().filter(|_| votes(name))?;
        let follows = Some(vitals.id) != leader;
        Some((
            (facts.is_ready(), follows, vitals.applied_index),
            name,
            vitals,
        ))
    });
    let best = members.max_by(|(a, ..), (b, ..)| a.cmp(b));
    best.map(|(_, name, vitals)| (name.as_str(), vitals))
}

impl Take<'_> {
    /// Takes it. Dropped before its end, it leaves nothing behind.
    pub async fn run(&self) -> Result<Backup, Error> {
        let now = OffsetDateTime::now_utc();
        let now = now.replace_millisecond(now.millisecond()).unwrap_or(now);
        let mut manifest = Manifest::new(self.cluster, now);
        let dir = match self.to {
            Destination::Dir(dir) => dir,
            Destination::File(file) => match file.parent() {
                Some(dir) if !dir.as_os_str().is_empty() => dir,
                _ => Path::new("."),
            },
        };
        let work = WorkDir::new(dir)?;
        let unfinished = work.join("snapshot");
        let private = match &self.verify {
            Some(_) => Some(WorkDir::new(self.private)?),
            None => None,
        };
        let encrypted = !self.recipients.is_empty();
        let plain = match &private {
            Some(private) if encrypted => Some(private.join("snapshot")),
            _ if encrypted => None,
            _ => Some(unfinished.clone()),
        };

        let line = self.output.line(self.member);
        let received = self
            .receive(
                &unfinished,
                plain.as_deref().filter(|_| encrypted),
                &line,
                &mut manifest,
            )
            .await;
        let content = match received {
            Ok(content) => content,
            Err(error) => {
                line.fail("no snapshot");
                return Err(error.at(self.member, "take a snapshot"));
            }
        };
        manifest.snapshot_size = content.size;
        manifest.snapshot_sha256 = content.sha256;
        if let Some(plain) = &plain {
            let status = status(plain.clone()).await?;
            manifest.revision = status.revision;
            manifest.keys = Some(status.total_key);
        }
        line.done(format!(
            "{} at revision {}",
            show_bytes(content.size),
            manifest.revision
        ));
        if let (Some((program, server)), Some(private), Some(plain)) =
            (self.verify, &private, &plain)
        {
            manifest.verified = Some(
                self.verify(&manifest, program, server, plain, private)
                    .await?,
            );
        }
        let size = std::fs::metadata(&unfinished).map_err(Error::io("read", &unfinished))?;
        manifest.file_size = size.len();
        manifest.encrypted_to = self.recipients.texts().to_vec();
        let path = match self.to {
            Destination::Dir(dir) => dir.join(manifest.file_name()),
            Destination::File(file) => file.to_owned(),
        };
        finish(&unfinished, &path, &manifest)?;
        Ok(Backup { path, manifest })
    }

    async fn receive(
        &self,
        to: &Path,
        copy: Option<&Path>,
        line: &Line,
        manifest: &mut Manifest,
    ) -> Result<Content, Error> {
        line.set("asking for a snapshot");
        let vitals = self.client.status(ASK_LIMIT).await.map_err(refused)?;
        manifest.cluster_id = format!("{:x}", vitals.cluster_id);
        manifest.member = self.member.to_owned();
        manifest.server_version = vitals.version;
        manifest.revision = vitals.revision;
        let write = |error| Error::io("write", to)(error);
        let mut sealed = self.recipients.seal(create(to)?).map_err(write)?;
        let mut copy = match copy {
            Some(path) => Some((path, create(path)?)),
            None => None,
        };
        let mut checker = Checker::default();
        let mut stream = self.client.snapshot(self.timeout).await.map_err(refused)?;
        let mut size = 0;
        while let Some((part, remaining)) = stream.next(self.timeout).await.map_err(refused)? {
            checker.add(&part);
            sealed.write_all(&part).map_err(write)?;
            if let Some((path, file)) = &mut copy {
                file.write_all(&part).map_err(Error::io("write", path))?;
            }
            size += part.len() as u64;
            line.set(format!(
                "{} of {}",
                show_bytes(size),
                show_bytes(size + remaining)
            ));
        }
        sealed.finish().map_err(write)?;
        checker.finish().map_err(|why| Error::Failed {
            what: "the snapshot that it sent is not whole".to_owned(),
            fix: Some("run the same command again; if it fails again, look at its log".to_owned()),
            source: Some(why.into()),
        })
    }

    async fn verify(
        &self,
        manifest: &Manifest,
        program: &Path,
        server: Server,
        snapshot: &Path,
        private: &WorkDir,
    ) -> Result<Verified, Error> {
        let line = self.output.line("verify");
        line.set("restoring it");
        let revision = manifest.revision;
        // Before the trial: the cluster may compact its history at any time, and hashes what is left.
        let live = self.client.hash_kv(revision, self.timeout).await;
        let trial = Trial {
            program,
            server,
            snapshot,
            dir: private,
            revision,
            keys: manifest.keys.unwrap_or_default(),
            limit: self.timeout,
        };
        let tried = async {
            let live = live.map_err(refused)?;
            let (by, restored) = try_out(&trial).await?;
            compare(live, restored, revision)?;
            Ok::<_, Error>(Verified {
                by,
                hash_kv: restored.hash,
                compact_revision: restored.compact_revision,
            })
        };
        match tried.await {
            Ok(verified) => {
                line.done(format!(
                    "restored by {}, {} keys as in the cluster",
                    verified.by, trial.keys
                ));
                Ok(verified)
            }
            Err(error) => {
                line.fail("not verified, and not kept");
                Err(error)
            }
        }
    }
}

fn compare(live: KeysHash, restored: KeysHash, revision: i64) -> Result<(), Error> {
    // etcd says -1 and the included member 0 where nothing was compacted.
    if live.compact_revision.max(0) != restored.compact_revision.max(0) {
        return Err(Error::failed(
            format!(
                "the cluster compacted its history to revision {} while the snapshot was taken, so that the two cannot be compared",
                live.compact_revision
            ),
            "run the same command again",
        ));
    }
    if live.hash == restored.hash {
        return Ok(());
    }
    Err(Error::failed(
        format!(
            "what was restored is not what the cluster holds at revision {revision}: hash {} instead of {}",
            restored.hash, live.hash
        ),
        "compare the members with `etcdctl endpoint hashkv --cluster`: one of them may be corrupt",
    ))
}

/// Reads a snapshot from its beginning to its end.
pub(crate) async fn status(snapshot: PathBuf) -> Result<Status, Error> {
    let read = move || {
        let database = SnapshotFile::open(&snapshot, HashCheck::Skipped)
            .map_err(|error| Error::because("the snapshot cannot be read", error))?;
        Status::of(&database).map_err(|error| Error::because("the snapshot is damaged", error))
    };
    let read = tokio::task::spawn_blocking(read).await;
    read.map_err(|error| Error::because("the snapshot was not read to its end", error))?
}

/// Gives a finished file its name, its manifest first: what has the name is complete.
fn finish(unfinished: &Path, path: &Path, manifest: &Manifest) -> Result<(), Error> {
    if path.exists() {
        return Err(Error::refused(
            format!("{} exists", path.display()),
            "name another file; backups are never overwritten",
        ));
    }
    manifest.write(path)?;
    let name = || {
        std::fs::rename(unfinished, path)?;
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        File::open(dir.unwrap_or(Path::new(".")))?.sync_all()
    };
    name().map_err(|error| {
        Manifest::remove(path);
        Error::io("write", path)(error)
    })
}

fn create(path: &Path) -> Result<File, Error> {
    let mut options = std::fs::OpenOptions::new();
    let options = options.create_new(true).write(true).mode(0o600);
    options.open(path).map_err(Error::io("create", path))
}

fn refused(error: CallError) -> Error {
    let fix = match &error {
        CallError::Late(_) => "see `provision status`; a busy member needs a longer --timeout",
        _ => "see `provision status` and the member's log",
    };
    Error::Failed {
        what: "it does not answer as a member does".to_owned(),
        fix: Some(fix.to_owned()),
        source: Some(error.into()),
    }
}

/// Bytes for people, as etcdctl shows them.
pub(crate) fn show_bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    let (mut value, mut unit) = (bytes as f64, "B");
    for next in UNITS {
        if value < 1000.0 {
            break;
        }
        (value, unit) = (value / 1000.0, next);
    }
    if unit == "B" || value >= 10.0 {
        format!("{value:.0} {unit}")
    } else {
        format!("{value:.1} {unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::Health;
    use crate::plan::testing::World;

    #[test]
    fn the_leader_serves_only_where_no_follower_can() {
        let mut world = World::running(3, 1);
        let chosen = |world: &World| {
            let chosen = choose(&world.topology, &world.observed);
            chosen.map(|(name, _)| name.to_owned())
        };
        let first = chosen(&world).unwrap();
        assert_ne!(first, world.topology.members[1].name);
        let Health::Up(vitals) = &mut world.facts(0).health else {
            panic!("it is up")
        };
        vitals.not_ready = Some("it lags".to_owned());
        assert_eq!(chosen(&world).unwrap(), world.topology.members[2].name);
        world.kill(2);
        assert_eq!(chosen(&world).unwrap(), world.topology.members[1].name);
        world.kill(1);
        assert_eq!(chosen(&world).unwrap(), world.topology.members[0].name);
        world.kill(0);
        assert_eq!(chosen(&world), None);
    }

    #[test]
    fn hashes_are_compared_for_equal_histories_only() {
        let hash = |hash, compact_revision| KeysHash {
            hash,
            compact_revision,
        };
        assert!(compare(hash(1, -1), hash(1, 0), 5).is_ok());
        let error = compare(hash(1, 4), hash(1, 0), 5).unwrap_err().to_string();
        assert!(error.contains("compacted"), "{error}");
        let error = compare(hash(1, 4), hash(2, 4), 5).unwrap_err().to_string();
        assert!(error.contains("hash 2 instead of 1"), "{error}");
    }

    #[test]
    fn sizes_are_shown_as_etcdctl_does() {
        let sizes = [
            (999, "999 B"),
            (57_344, "57 kB"),
            (1_536, "1.5 kB"),
            (25_600_000, "26 MB"),
        ];
        for (bytes, text) in sizes {
            assert_eq!(show_bytes(bytes), text);
        }
    }
}
