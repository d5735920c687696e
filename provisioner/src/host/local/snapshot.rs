//! Making a data directory of a snapshot, with the program that the member's server has for that.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde::{Deserialize, Serialize};
use tokio::process::Command;

use super::binary::resolve;
use super::put::UserId;
use crate::error::Error;
use crate::host::remote::Ask;

const UNFINISHED: &str = ".restoring-";

/// Fills a data directory that must hold nothing yet. It is there as a whole or not at all.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RestoreSnapshot {
    /// `member`, `etcdutl` or `etcdctl`.
    pub program: PathBuf,
    /// The snapshot, in as many parts as it was brought in.
    pub parts: Vec<PathBuf>,
    /// The member's name.
    pub name: String,
    /// All founders, as `initial-cluster` has them.
    pub initial_cluster: String,
    /// `initial-cluster-token`
    pub token: String,
    /// Where the others reach it.
    pub peer_url: String,
    /// What is made.
    pub data_dir: PathBuf,
    /// A file to put into it: name and content.
    pub mark: Option<(String, String)>,
    /// Whose it is; `None`: whoever makes it.
    pub owner: Option<UserId>,
}

impl Ask for RestoreSnapshot {
    const NAME: &'static str = "restore-snapshot";
    type Answer = ();

    async fn answer(self) -> Result<(), Error> {
        let data_dir = &self.data_dir;
        let parent = data_dir.parent().unwrap_or(Path::new("/"));
        remove_abandoned(parent)?;
        let beside = parent.join(format!("{UNFINISHED}{}", std::process::id()));
        self.fill(&beside).await?;
        let finish = || -> io::Result<()> {
            if let Some((name, content)) = &self.mark {
                let mut options = OpenOptions::new();
                let options = options.create_new(true).write(true).mode(0o600);
                options
                    .open(beside.join(name))?
                    .write_all(content.as_bytes())?;
            }
            settle(&beside, self.owner)?;
            // An empty directory is no data.
            match fs::remove_dir(data_dir) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            fs::rename(&beside, data_dir)?;
            File::open(parent)?.sync_all()
        };
        finish().map_err(Error::io("put the restored data into", data_dir))
    }
}

impl RestoreSnapshot {
    async fn fill(&self, into: &Path) -> Result<(), Error> {
        let joined;
        let snapshot = match &self.parts[..] {
            [one] => one,
            parts => {
                joined = into.with_extension("snapshot");
                join(parts, &joined).map_err(Error::io("write", &joined))?;
                &joined
            }
        };
        // It ends with this process, however that ends: nobody else writes here then.
        let mut command = match resolve(Path::new("setpriv")) {
            Ok(setpriv) => {
                let mut command = Command::new(setpriv);
                command
                    .args(["--pdeathsig", "KILL", "--"])
                    .arg(&self.program);
                command
            }
            Err(_) => Command::new(&self.program),
        };
        command
            .args(["snapshot", "restore"])
            .arg(snapshot)
            .arg("--data-dir")
            .arg(into)
            .args(["--name", &self.name])
            .args(["--initial-cluster", &self.initial_cluster])
            .args(["--initial-cluster-token", &self.token])
            .args(["--initial-advertise-peer-urls", &self.peer_url])
            .stdin(Stdio::null())
            .kill_on_drop(true);
        for (name, _) in std::env::vars_os() {
            // What stands in the user's shell is for another purpose.
            if name.to_string_lossy().starts_with("ETCD") {
                command.env_remove(name);
            }
        }
        command.env("ETCDCTL_API", "3");
        let ran = command.output().await;
        if self.parts.len() != 1 {
            remove(snapshot)?;
        }
        let program = self.program.display();
        let output =
            ran.map_err(|source| Error::because(format!("cannot run {program}"), source))?;
        if output.status.success() {
            return Ok(());
        }
        remove(into)?;
        let said = String::from_utf8_lossy(&output.stderr);
        let full = said.contains("no space left on device");
        let fix = if full || said.contains("No space left on device") {
            "free some space on that file system and run the same command again"
        } else {
            "correct what it says and run the same command again"
        };
        Err(Error::Failed {
            what: format!("{program} cannot restore the snapshot"),
            fix: Some(fix.to_owned()),
            source: Some(said.trim().to_owned().into()),
        })
    }
}

fn join(parts: &[PathBuf], whole: &Path) -> io::Result<()> {
    let mut file = File::create(whole)?;
    for part in parts {
        io::copy(&mut File::open(part)?, &mut file)?;
    }
    file.sync_all()
}

/// Gives a tree to its owner and flushes its directories; the program has flushed the files.
fn settle(path: &Path, owner: Option<UserId>) -> io::Result<()> {
    if let Some(UserId { uid, gid }) = owner {
        chown(path, Some(uid), Some(gid))?;
    }
    if fs::symlink_metadata(path)?.is_dir() {
        for entry in fs::read_dir(path)? {
            settle(&entry?.path(), owner)?;
        }
    }
    File::open(path)?.sync_all()
}

// The included member builds beside what it builds, under a dot more.
fn remove_abandoned(parent: &Path) -> Result<(), Error> {
    for entry in fs::read_dir(parent)
        .map_err(Error::io("read", parent))?
        .flatten()
    {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(UNFINISHED) || name.starts_with(&format!(".{UNFINISHED}")) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

fn remove(path: &Path) -> Result<(), Error> {
    let removed = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io("delete", path)(error))
        }
        _ => Ok(()),
    }
}
