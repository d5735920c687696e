//! The data directories: old ones aside, new ones from the snapshot. On each member's own machine, all at once.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::try_join_all;

use crate::deployment;
use crate::error::Error;
use crate::host::local::{
    Dir, EnsureUser, MakeDirs, Put, Remove, RestoreSnapshot, SetAside, UserId,
};
use crate::host::remote::{Agent, Ask, Hosts};
use crate::instance::Instance;
use crate::observe::{DataDir, DataOwner, MemberSight, owner_file};
use crate::output::Output;
use crate::state::{ClusterDir, Unit};
use crate::topology::SshHost;

const ASK_LIMIT: Duration = Duration::from_secs(60);
// Bounds what both ends hold in memory.
const PART: u64 = 16 * 1024 * 1024;

/// A member that is restored, or one of the old cluster that is in the new one no more.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// The machine that it lives on; `None`: this one.
    pub host: Option<SshHost>,
    /// Its directory there.
    pub home: PathBuf,
    /// Its data.
    pub data_dir: PathBuf,
    /// What makes its data directory, here; `None`: it gets none.
    pub tool: Option<PathBuf>,
    /// Where the others reach it.
    pub peer_url: String,
}

/// Everything that the steps need.
#[derive(Clone, Copy, Debug)]
pub struct Restore<'a> {
    /// Where the cluster is remembered.
    pub dir: &'a ClusterDir,
    /// The machines of members that have one.
    pub hosts: &'a Hosts,
    /// The snapshot, in plain, at the revision that it shall have.
    pub snapshot: &'a Path,
    /// The cluster as it will be.
    pub instance: &'a Instance,
    /// What the new token and the members amount to.
    pub cluster_id: u64,
    /// All founders, as `initial-cluster` has them.
    pub initial_cluster: &'a str,
    /// `initial-cluster-token`
    pub token: &'a str,
    /// How long one step may take.
    pub timeout: Duration,
    /// Where progress goes.
    pub output: &'a Output,
}

impl Restore<'_> {
    /// Moves away what is not of the new cluster, and says where it is.
    pub async fn set_aside(&self, members: &[Member]) -> Result<Vec<PathBuf>, Error> {
        let moves = members.iter().map(|member| async move {
            let moved = self.set_aside_of(member).await;
            moved.map_err(|error| error.at(&member.name, "set its data aside"))
        });
        Ok(try_join_all(moves).await?.into_iter().flatten().collect())
    }

    async fn set_aside_of(&self, member: &Member) -> Result<Option<PathBuf>, Error> {
        let agent = self.agent(member).await?;
        if self.is_restored(member, agent.as_ref()).await? {
            return Ok(None);
        }
        let Some(agent) = agent else {
            return Ok(self.dir.set_aside(&member.name, &member.data_dir)?);
        };
        let aside = SetAside {
            from: member.data_dir.clone(),
            to: deployment::removed_dir(&member.home),
            name: member.name.clone(),
        };
        let moved = agent.ask(&aside, self.timeout).await?;
        self.dir.forget_record(&Unit::Member(&member.name))?;
        Ok(moved)
    }

    /// Fills the data directories that are not filled yet.
    pub async fn fill(&self, members: &[Member]) -> Result<(), Error> {
        let fills = members.iter().map(|member| async move {
            let Some(tool) = &member.tool else {
                return Ok(());
            };
            let line = self.output.line(&member.name);
            line.set("restoring");
            match self.fill_of(member, tool).await {
                Ok(()) => line.done("restored"),
                Err(error) => {
                    line.fail("not restored");
                    return Err(error.at(&member.name, "restore"));
                }
            }
            Ok(())
        });
        try_join_all(fills).await.map(drop)
    }

    async fn fill_of(&self, member: &Member, tool: &Path) -> Result<(), Error> {
        let agent = self.agent(member).await?;
        if self.is_restored(member, agent.as_ref()).await? {
            return Ok(());
        }
        let (mark, content) =
            owner_file(Path::new(""), &DataOwner::of(self.instance, &member.name))
                .map_err(|error| Error::because("cannot write whose the data are", error))?;
        let mark = mark.to_string_lossy().into_owned();
        let content = String::from_utf8_lossy(&content).into_owned();
        let mut restore = RestoreSnapshot {
            program: tool.to_owned(),
            parts: vec![self.snapshot.to_owned()],
            name: member.name.clone(),
            initial_cluster: self.initial_cluster.to_owned(),
            token: self.token.to_owned(),
            peer_url: member.peer_url.clone(),
            data_dir: member.data_dir.clone(),
            mark: Some((mark, content)),
            owner: None,
        };
        match (agent, &member.host) {
            (Some(agent), Some(host)) => {
                let user = EnsureUser {
                    name: host.run_as.clone(),
                };
                let user = agent.ask(&user, ASK_LIMIT).await?;
                let work = member.home.join("restore");
                restore.owner = Some(user);
                (restore.program, restore.parts) =
                    self.bring(&agent, member, user, tool, &work).await?;
                agent.ask(&restore, self.timeout).await?;
                agent.ask(&remove(work), ASK_LIMIT).await
            }
            _ => {
                self.dir.create_unit_dir(&Unit::Member(&member.name))?;
                restore.answer().await
            }
        }
    }

    /// Brings the snapshot and what restores it to a machine: where they are there.
    async fn bring(
        &self,
        agent: &Agent,
        member: &Member,
        user: UserId,
        tool: &Path,
        work: &Path,
    ) -> Result<(PathBuf, Vec<PathBuf>), Error> {
        agent.ask(&remove(work.to_owned()), ASK_LIMIT).await?;
        let dir = |path: &Path, mode, owner| Dir {
            path: path.to_owned(),
            mode,
            owner,
        };
        let dirs = vec![dir(&member.home, 0o750, Some(user)), dir(work, 0o700, None)];
        agent.ask(&MakeDirs(dirs), ASK_LIMIT).await?;
        let put = |path: &Path, mode| Put {
            path: path.to_owned(),
            mode,
            owner: None,
            keep: false,
        };
        let program = work.join(tool.file_name().unwrap_or_default());
        let bytes = std::fs::read(tool).map_err(Error::io("read", tool))?;
        agent
            .put(&put(&program, 0o700), bytes.into(), self.timeout)
            .await?;
        let read = |error| Error::io("read", self.snapshot)(error);
        let mut file = File::open(self.snapshot).map_err(read)?;
        let mut parts = Vec::new();
        loop {
            let mut bytes = Vec::new();
            let mut part = file.by_ref().take(PART);
            if part.read_to_end(&mut bytes).map_err(read)? == 0 {
                return Ok((program, parts));
            }
            let path = work.join(format!("snapshot.{}", parts.len()));
            agent
                .put(&put(&path, 0o600), Bytes::from(bytes), self.timeout)
                .await?;
            parts.push(path);
        }
    }

    async fn agent(&self, member: &Member) -> Result<Option<Agent>, Error> {
        Ok(match &member.host {
            Some(host) => Some(self.hosts.agent(host).await?),
            None => None,
        })
    }

    /// Whether it has the new cluster's data already.
    async fn is_restored(&self, member: &Member, agent: Option<&Agent>) -> Result<bool, Error> {
        let look = MemberSight {
            owner: DataOwner::of(self.instance, &member.name),
            cluster_id: self.cluster_id,
            data_dir: member.data_dir.clone(),
            dir: member.home.clone(),
            record: None,
            unit: None,
            ports: Vec::new(),
            held: [0, 0],
            files: Vec::new(),
            log: false,
        };
        let seen = match agent {
            Some(agent) => agent.ask(&look, ASK_LIMIT).await?,
            None => look.answer().await?,
        };
        Ok(seen.data == DataDir::Ours)
    }
}

fn remove(path: PathBuf) -> Remove {
    Remove {
        all: vec![path],
        empty: Vec::new(),
    }
}
