//! Directories, files and the user of members on the machine that an agent works for.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde::{Deserialize, Serialize};
use tokio::process::Command;

use crate::error::Error;
use crate::host::remote::Ask;

/// Carries a [`Put`] beside the bytes of the file.
pub const PUT_HEADER: &str = "provision-file";

/// Numbers of a user and its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserId {
    /// User.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

/// A file to write. Its bytes travel beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Put {
    /// Absolute.
    pub path: PathBuf,
    /// Permissions.
    pub mode: u32,
    /// Whose it is; `None`: whoever writes it.
    pub owner: Option<UserId>,
    /// Whether a file that is there stays.
    pub keep: bool,
}

/// Directories to make, parents first. Those that exist are left as they are but for owner and permissions.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MakeDirs(pub Vec<Dir>);

/// A directory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Dir {
    /// Absolute.
    pub path: PathBuf,
    /// Permissions.
    pub mode: u32,
    /// Whose it is; `None`: whoever makes it.
    pub owner: Option<UserId>,
}

/// Looks up a system user, and makes it where it does not exist.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EnsureUser {
    /// Its name.
    pub name: String,
}

/// Deletes files and directories with all that is in them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Remove {
    /// What is deleted.
    pub all: Vec<PathBuf>,
    /// Directories that go if nothing is left in them, in this order.
    pub empty: Vec<PathBuf>,
}

/// Moves a directory away, under a name with the first free number.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SetAside {
    /// What.
    pub from: PathBuf,
    /// Into which directory.
    pub to: PathBuf,
    /// What the name begins with.
    pub name: String,
}

impl Put {
    /// Writes it: beside its place, flushed, and renamed, so that there is the old file or the whole new one.
    pub fn write(&self, bytes: &[u8]) -> Result<(), Error> {
        if self.keep && self.path.exists() {
            return Ok(());
        }
        let mut beside = self.path.clone().into_os_string();
        beside.push(".new");
        let beside = PathBuf::from(beside);
        let write = || -> io::Result<()> {
            // What a killed run left has an owner and permissions of its own.
            match fs::remove_file(&beside) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file = OpenOptions::new()
                .create_new(true)
                .write(true)
                .mode(0o600)
                .open(&beside)?;
            file.write_all(bytes)?;
            if let Some(UserId { uid, gid }) = self.owner {
                std::os::unix::fs::fchown(&file, Some(uid), Some(gid))?;
            }
            file.set_permissions(fs::Permissions::from_mode(self.mode))?;
            file.sync_all()?;
            fs::rename(&beside, &self.path)?;
            self.path
                .parent()
                .map_or(Ok(()), |dir| File::open(dir)?.sync_all())
        };
        write().map_err(|source| {
            let _best_effort = fs::remove_file(&beside);
            Error::io("write", &self.path)(source)
        })
    }
}

impl Ask for MakeDirs {
    const NAME: &'static str = "make-dirs";
    type Answer = ();

    async fn answer(self) -> Result<(), Error> {
        for Dir { path, mode, owner } in &self.0 {
            let make = || -> io::Result<()> {
                fs::DirBuilder::new()
                    .recursive(true)
                    .mode(0o755)
                    .create(path)?;
                let now = fs::metadata(path)?;
                if let Some(UserId { uid, gid }) = owner
                    && (now.uid(), now.gid()) != (*uid, *gid)
                {
                    chown(path, Some(*uid), Some(*gid))?;
                }
                if now.permissions().mode() & 0o7777 != *mode {
                    fs::set_permissions(path, fs::Permissions::from_mode(*mode))?;
                }
                Ok(())
            };
            make().map_err(Error::io("make the directory", path))?;
        }
        Ok(())
    }
}

impl Ask for Remove {
    const NAME: &'static str = "remove";
    type Answer = ();

    async fn answer(self) -> Result<(), Error> {
        for path in &self.all {
            let removed = match fs::symlink_metadata(path) {
                Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
                Ok(_) => fs::remove_file(path),
                Err(error) => Err(error),
            };
            match removed {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::io("delete", path)(error));
                }
                _ => {}
            }
        }
        for path in &self.empty {
            match fs::remove_dir(path) {
                Err(error)
                    if !matches!(
                        error.kind(),
                        io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty
                    ) =>
                {
                    return Err(Error::io("delete", path)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl Ask for SetAside {
    const NAME: &'static str = "set-aside";
    /// Where it is now; `None`: there was nothing.
    type Answer = Option<PathBuf>;

    async fn answer(self) -> Result<Option<PathBuf>, Error> {
        let entries = fs::read_dir(&self.from).map(|mut entries| entries.next().is_some());
        match entries {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("read", &self.from)(error)),
        }
        let dir = || {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&self.to)
        };
        dir().map_err(Error::io("make the directory", &self.to))?;
        let mut number = 1;
        let mut free = self.to.join(format!("{}.{number}", self.name));
        while free.exists() {
            number += 1;
            free = self.to.join(format!("{}.{number}", self.name));
        }
        fs::rename(&self.from, &free).map_err(Error::io("move away", &self.from))?;
        Ok(Some(free))
    }
}

impl Ask for EnsureUser {
    const NAME: &'static str = "ensure-user";
    type Answer = UserId;

    async fn answer(self) -> Result<UserId, Error> {
        if let Some(found) = self.look_up().await? {
            return Ok(found);
        }
        let by_hand = format!(
            "make it by hand, or name another with `run-as` in [host-defaults]: useradd --system {}",
            self.name
        );
        let made = output(
            "useradd",
            &[
                "--system",
                "--user-group",
                "--no-create-home",
                "--shell",
                "/usr/sbin/nologin",
                &self.name,
            ],
        )
        .await;
        // Another member's rollout to this machine may have made it meanwhile.
        if let Some(found) = self.look_up().await? {
            return Ok(found);
        }
        Err(Error::Failed {
            what: format!("there is no user {}, and it cannot be made", self.name),
            fix: Some(by_hand),
            source: match made {
                Ok((_, said)) => Some(said.into()),
                Err(error) => Some(error.into()),
            },
        })
    }
}

impl EnsureUser {
    async fn look_up(&self) -> Result<Option<UserId>, Error> {
        let number = async |flag: &str| {
            let (ok, said) = output("id", &[flag, "--", &self.name])
                .await
                .map_err(|source| Error::because("cannot run id", source))?;
            Ok::<_, Error>(said.trim().parse::<u32>().ok().filter(|_| ok))
        };
        Ok(match (number("-u").await?, number("-g").await?) {
            (Some(uid), Some(gid)) => Some(UserId { uid, gid }),
            _ => None,
        })
    }
}

/// Runs a command to its end: whether it succeeded, and what it printed.
pub(super) async fn output(program: &str, args: &[&str]) -> io::Result<(bool, String)> {
    let output = Command::new(program)
        .args(args)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .await?;
    let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
    said.push_str(&String::from_utf8_lossy(&output.stderr));
    Ok((output.status.success(), said))
}

/// The checksum of a file, `None` where there is none.
pub fn checksum_of(path: &Path) -> Result<Option<String>, Error> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(checksum(&bytes))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("read", path)(error)),
    }
}

/// SHA-256, in hexadecimal.
#[must_use]
pub fn checksum(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_whole_and_has_its_permissions() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let put = |keep| Put {
            path: path.clone(),
            mode: 0o640,
            owner: None,
            keep,
        };
        fs::write(dir.path().join("key.new"), "left by a killed run").unwrap();
        put(false).write(b"one").unwrap();
        put(true).write(b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one");
        put(false).write(b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn checksums_are_those_of_sha256sum() {
        assert!(checksum(b"abc").starts_with("ba7816bf8f01cfea"));
        assert_eq!(checksum_of(Path::new("/no/such/file")).unwrap(), None);
    }
}
