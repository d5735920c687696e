//! What an agent holds for the one who works on its machine: the cluster's lock there, and a copy of the cluster's state.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use super::put::Put;
use crate::error::Error;
use crate::host::remote::Ask;

// A killed agent lets go within moments.
const FREED_LIMIT: Duration = Duration::from_secs(5);
// So does that of a run that was killed itself, and whoever repeats its command at once is not to be refused by it.
const LEFT_LIMIT: Duration = Duration::from_secs(2);
const FREED_EVERY: Duration = Duration::from_millis(20);

/// Takes the lock of a cluster on a machine. It is held until the agent ends, which is when the connection does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TakeLock {
    /// The file.
    pub path: PathBuf,
    /// Who wants it, for people.
    pub who: String,
    /// Whether to end the agent of whoever holds it.
    pub force: bool,
}

/// What stands in a lock's file.
#[derive(Serialize, Deserialize)]
struct Holder {
    agent: u32,
    who: String,
}

/// Writes the files of a directory that differ, only for its owner.
#[derive(Clone, Serialize, Deserialize)]
pub struct KeepCopy {
    /// Where.
    pub dir: PathBuf,
    /// By their names.
    pub files: BTreeMap<String, String>,
}

/// Reads the files of a directory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReadCopy {
    /// Where.
    pub dir: PathBuf,
}

// They hold keys.
impl std::fmt::Debug for KeepCopy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "KeepCopy({}, {} files)",
            self.dir.display(),
            self.files.len()
        )
    }
}

impl Ask for TakeLock {
    const NAME: &'static str = "take-lock";
    /// Who holds it; `None`: it is taken.
    type Answer = Option<String>;

    async fn answer(self) -> Result<Option<String>, Error> {
        static HELD: Mutex<BTreeMap<PathBuf, File>> = Mutex::new(BTreeMap::new());
        // Several members of the cluster may live on this machine.
        if HELD
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains_key(&self.path)
        {
            return Ok(None);
        }
        let limit = if self.force { FREED_LIMIT } else { LEFT_LIMIT };
        let deadline = Instant::now() + limit;
        loop {
            let failed = |action| Error::io(action, &self.path);
            let mut file = open(&self.path).map_err(failed("open"))?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {
                    let holder = Holder {
                        agent: std::process::id(),
                        who: self.who.clone(),
                    };
                    let text = serde_json::to_vec(&holder)
                        .map_err(|error| Error::because("cannot write a lock", error))?;
                    let write = || {
                        file.set_len(0)?;
                        (&file).write_all(&text)
                    };
                    write().map_err(failed("write"))?;
                    let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
                    held.insert(self.path.clone(), file);
                    return Ok(None);
                }
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    let mut text = String::new();
                    file.read_to_string(&mut text).map_err(failed("read"))?;
                    let holder: Option<Holder> = serde_json::from_str(&text).ok();
                    if Instant::now() >= deadline {
                        let who = holder.map(|holder| holder.who);
                        return Ok(Some(who.unwrap_or_else(|| "somebody".to_owned())));
                    }
                    if self.force {
                        end(holder.as_ref());
                    }
                    sleep(FREED_EVERY).await;
                }
                Err(error) => return Err(failed("lock")(error.into())),
            }
        }
    }
}

// Whoever holds the lock wrote the file while it had it, so the pid is that of a living agent.
fn end(holder: Option<&Holder>) {
    let pid = holder.and_then(|holder| i32::try_from(holder.agent).ok());
    if let Some(pid) = pid.and_then(Pid::from_raw) {
        let _gone_meanwhile = kill_process(pid, Signal::KILL);
    }
}

fn open(path: &Path) -> io::Result<File> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o600)
        .open(path)
}

impl Ask for KeepCopy {
    const NAME: &'static str = "keep-copy";
    type Answer = ();

    async fn answer(self) -> Result<(), Error> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.dir)
            .map_err(Error::io("make the directory", &self.dir))?;
        let stale = read(&self.dir)?;
        for (name, text) in &self.files {
            if stale.get(name) != Some(text) {
                let put = Put {
                    path: self.dir.join(name),
                    mode: 0o600,
                    owner: None,
                    keep: false,
                };
                put.write(text.as_bytes())?;
            }
        }
        for name in stale.keys().filter(|name| !self.files.contains_key(*name)) {
            let path = self.dir.join(name);
            fs::remove_file(&path).map_err(Error::io("delete", &path))?;
        }
        Ok(())
    }
}

impl Ask for ReadCopy {
    const NAME: &'static str = "read-copy";
    type Answer = BTreeMap<String, String>;

    async fn answer(self) -> Result<BTreeMap<String, String>, Error> {
        read(&self.dir)
    }
}

fn read(dir: &Path) -> Result<BTreeMap<String, String>, Error> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(Error::io("read", dir)(error)),
    };
    let mut files = BTreeMap::new();
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_file() {
            let text = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
            files.insert(entry.file_name().to_string_lossy().into_owned(), text);
        }
    }
    Ok(files)
}
