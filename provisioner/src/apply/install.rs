//! Bringing files to the machines of members, and starting members there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::try_join_all;

use super::run::{Apply, Run};
use super::target::Target;
use crate::deployment::{Content, Deployment, FileOwner, HostFile};
use crate::error::Error;
use crate::host::local::{Dir, EnsureUser, MakeDirs, Put, StartMember, UserId};
use crate::host::remote::Agent;
use crate::observe::{DataOwner, owner_file};
use crate::plan::Installation;

// A member's program over a slow line.
const PUT_LIMIT: Duration = Duration::from_secs(300);
const ASK_LIMIT: Duration = Duration::from_secs(60);

impl Apply<'_> {
    /// Brings to each machine what differs there, all machines at once.
    pub(super) async fn install(&self, members: &[Installation]) -> Result<(), Error> {
        let contents = Contents::default();
        let installs = members.iter().map(|Installation { member, files }| {
            let contents = &contents;
            async move {
                let line = self.output.line(member);
                line.set("installing");
                let installed = self.install_for(member, files, contents).await;
                if let Err(error) = installed {
                    line.fail("not installed");
                    return Err(error.at(member, "install"));
                }
                line.done(format!("{} files installed", files.len()));
                Ok(())
            }
        });
        try_join_all(installs).await.map(drop)
    }

    async fn install_for(
        &self,
        member: &str,
        files: &[PathBuf],
        contents: &Contents,
    ) -> Result<(), Error> {
        let Some(deployment) = self.prepared.deployments.get(member) else {
            return Ok(());
        };
        let agent = self.cluster.hosts.agent(&deployment.host).await?;
        let user = make_home(&agent, deployment).await?;
        for file in &deployment.installed {
            if files.contains(&file.path) {
                put(&agent, file, user, contents).await?;
            }
        }
        Ok(())
    }

    /// Starts a member on its machine.
    pub(super) async fn start_there(
        &self,
        name: &str,
        deployment: &Deployment,
    ) -> Result<Target, Error> {
        let agent = self.cluster.hosts.agent(&deployment.host).await?;
        let user = make_home(&agent, deployment).await?;
        for file in &deployment.given {
            put(&agent, file, user, &Contents::default()).await?;
        }
        let owner = DataOwner::of(&self.prepared.proposal.instance, name);
        let (path, bytes) =
            owner_file(&deployment.data_dir, &owner).map_err(|error| Error::Io {
                action: error.action,
                path: error.path,
                source: error.source,
            })?;
        let claim = Put {
            path,
            mode: 0o600,
            owner: Some(user),
            keep: true,
        };
        agent.put(&claim, bytes.into(), PUT_LIMIT).await?;
        let start = StartMember {
            kept: deployment.kept.clone(),
            argv: deployment.argv.clone(),
            dir: deployment.home.clone(),
            user,
        };
        let process = agent.ask(&start, ASK_LIMIT).await?;
        Ok(Target::There(agent, deployment.kept.clone(), process))
    }

    /// Starts members on their machines, all at once.
    pub(super) async fn start_all_there(
        &self,
        names: &[String],
        run: &mut Run,
    ) -> Result<(), Error> {
        let starts = names.iter().filter_map(|name| {
            let deployment = self.prepared.deployments.get(name)?;
            Some(async move {
                let target = self.start_there(name, deployment).await;
                let target = target.map_err(|error| error.at(name, "start"))?;
                Ok::<_, Error>((name, target, &deployment.argv))
            })
        });
        for (name, target, argv) in try_join_all(starts).await? {
            self.remember_start(name, target.process(), argv)?;
            run.started.insert(name.clone(), target.into());
        }
        Ok(())
    }
}

/// Files that several machines get, read once.
#[derive(Default)]
struct Contents(std::cell::RefCell<BTreeMap<PathBuf, Bytes>>);

impl Contents {
    fn of(&self, path: &Path) -> Result<Bytes, Error> {
        if let Some(bytes) = self.0.borrow().get(path) {
            return Ok(bytes.clone());
        }
        let bytes = Bytes::from(std::fs::read(path).map_err(Error::io("read", path))?);
        self.0.borrow_mut().insert(path.to_owned(), bytes.clone());
        Ok(bytes)
    }
}

async fn make_home(agent: &Agent, deployment: &Deployment) -> Result<UserId, Error> {
    let ensure = EnsureUser {
        name: deployment.host.run_as.clone(),
    };
    let user = agent.ask(&ensure, ASK_LIMIT).await?;
    let dir = |path: PathBuf, mode, owner| Dir { path, mode, owner };
    let home = &deployment.home;
    let dirs = vec![
        dir(deployment.host.install_dir.join("bin"), 0o755, None),
        dir(home.clone(), 0o750, Some(user)),
        dir(home.join("certs"), 0o750, Some(user)),
        dir(deployment.data_dir.clone(), 0o700, Some(user)),
    ];
    agent.ask(&MakeDirs(dirs), ASK_LIMIT).await?;
    Ok(user)
}

async fn put(
    agent: &Agent,
    file: &HostFile,
    user: UserId,
    contents: &Contents,
) -> Result<(), Error> {
    let bytes = match &file.content {
        Content::Text(text) => Bytes::from(text.clone()),
        Content::CopyOf(path) | Content::Program(path, _) => contents.of(path)?,
    };
    let put = Put {
        path: file.path.clone(),
        mode: file.mode,
        owner: match file.owner {
            FileOwner::Installer => None,
            FileOwner::Member => Some(user),
        },
        keep: false,
    };
    agent.put(&put, bytes, PUT_LIMIT).await
}
