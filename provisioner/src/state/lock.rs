//! One changing run per cluster at a time.
//!
//! The kernel's lock on the file decides between runs of one host, and goes away with its holder however that ends.
//! The owner written into the file serves people, and the heartbeat in it serves hosts that share a directory over a
//! network file system that does not carry the kernel's lock.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

use super::dir::now_text;
use super::error::StateError;
use crate::host::local::host_name;

const BEAT: Duration = Duration::from_secs(5);
// Six missed beats: a busy machine misses one or two, a dead one all.
const STALE_AFTER: Duration = Duration::from_secs(30);

/// Who holds a lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The verb that runs.
    pub verb: String,
    /// Its pid.
    pub pid: u32,
    /// The host it runs on.
    pub host: String,
    /// The user who started it.
    pub user: String,
    /// When it took the lock, as RFC 3339.
    pub since: String,
    /// Seconds since the epoch at its last sign of life.
    pub heartbeat: u64,
}

/// The held lock; released on drop.
#[derive(Debug)]
pub struct Lock {
    file: Arc<File>,
    beat: Option<JoinHandle<()>>,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`provision {}`, pid {} of user {} on host {}, since {}",
            self.verb, self.pid, self.user, self.host, self.since
        )
    }
}

impl Owner {
    /// This process.
    #[must_use]
    pub fn me(verb: &str) -> Self {
        let user = std::env::var("USER").ok().filter(|user| !user.is_empty());
        Self {
            verb: verb.to_owned(),
            pid: std::process::id(),
            host: host_name(),
            user: user.unwrap_or_else(|| rustix::process::getuid().as_raw().to_string()),
            since: now_text(),
            heartbeat: epoch_seconds(),
        }
    }

    fn unknown() -> Self {
        Self {
            verb: "?".to_owned(),
            pid: 0,
            host: "unknown".to_owned(),
            user: "unknown".to_owned(),
            since: "unknown".to_owned(),
            heartbeat: 0,
        }
    }

    fn is_fresh(&self) -> bool {
        epoch_seconds().saturating_sub(self.heartbeat) < STALE_AFTER.as_secs()
    }
}

impl Lock {
    /// Takes the lock at `path`, of `what`, for `verb` or says who holds it.
    ///
    /// `force` takes it over from a holder that cannot be shown to live; never from a living process of this host.
    pub fn acquire(path: &Path, what: &str, verb: &str, force: bool) -> Result<Self, StateError> {
        loop {
            let mut file = open(path)?;
            let locked = |owner: Owner, alive| StateError::Locked {
                what: what.to_owned(),
                owner: Box::new(owner),
                alive,
            };
            let held = match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => false,
                Err(rustix::io::Errno::WOULDBLOCK) => true,
                Err(error) => return Err(StateError::io("lock", path)(error.into())),
            };
            let owner = read_owner(&mut file);
            if held {
                let owner = owner.unwrap_or_else(Owner::unknown);
                let here = owner.host == host_name() || owner.pid == 0;
                if here || !force {
                    return Err(locked(owner, here));
                }
                // The old holder keeps the lock of a file that no longer has a name.
                std::fs::remove_file(path).map_err(StateError::io("remove", path))?;
                continue;
            }
            // `down --purge` may have removed the file between opening and locking it.
            if !is_at(&file, path) {
                continue;
            }
            if let Some(owner) =
                owner.filter(|owner| owner.host != host_name() && owner.is_fresh() && !force)
            {
                return Err(locked(owner, false));
            }
            let file = Arc::new(file);
            write_owner(&file, &Owner::me(verb)).map_err(StateError::io("write", path))?;
            return Ok(Self {
                beat: spawn_beat(&file, verb, path),
                file,
            });
        }
    }

    /// Who holds the lock at `path` now, if anybody does.
    pub fn holder(path: &Path) -> Option<Owner> {
        let mut file = OpenOptions::new().read(true).write(true).open(path).ok()?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => {
                Some(read_owner(&mut file).unwrap_or_else(Owner::unknown))
            }
            _ => None,
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if let Some(beat) = self.beat.take() {
            beat.abort();
        }
        // The file stays: removing it would let two runs lock two files of one name.
        let _empty_file_means_free = self.file.set_len(0);
        // The aborted task keeps its handle of the file until the runtime drops it, and the kernel's lock lasts as long.
        let _closing_unlocks_too = flock(&self.file, FlockOperation::Unlock);
    }
}

fn open(path: &Path) -> Result<File, StateError> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(StateError::io("open", path))
}

fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(held), Ok(named)) => held.ino() == named.ino() && held.dev() == named.dev(),
        _ => false,
    }
}

fn read_owner(file: &mut File) -> Option<Owner> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

fn write_owner(file: &File, owner: &Owner) -> io::Result<()> {
    let text = serde_json::to_string(owner)?;
    file.write_all_at(text.as_bytes(), 0)?;
    file.set_len(text.len() as u64)
}

// Outside a runtime (pure tests) the kernel's lock alone has to do.
fn spawn_beat(file: &Arc<File>, verb: &str, path: &Path) -> Option<JoinHandle<()>> {
    let runtime = tokio::runtime::Handle::try_current().ok()?;
    let (file, mut owner, path): (_, _, PathBuf) =
        (Arc::clone(file), Owner::me(verb), path.to_owned());
    Some(runtime.spawn(async move {
        let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + BEAT, BEAT);
        loop {
            ticks.tick().await;
            owner.heartbeat = epoch_seconds();
            if !is_at(&file, &path) || write_owner(&file, &owner).is_err() {
                return;
            }
        }
    }))
}

fn epoch_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(result: Result<Lock, StateError>) -> (Owner, bool) {
        match result {
            Err(StateError::Locked { owner, alive, .. }) => (*owner, alive),
            other => panic!("not refused: {other:?}"),
        }
    }

    #[test]
    fn a_second_run_is_told_who_holds_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let lock = Lock::acquire(&path, "cluster demo", "up", false).unwrap();
        for force in [false, true] {
            let (owner, alive) = refusal(Lock::acquire(&path, "cluster demo", "down", force));
            assert_eq!(
                (owner.pid, owner.verb.as_str(), alive),
                (std::process::id(), "up", true)
            );
            assert!(owner.since.contains('T') && !owner.host.is_empty());
        }
        assert!(Lock::holder(&path).is_some());
        drop(lock);
        assert!(Lock::holder(&path).is_none());
        Lock::acquire(&path, "cluster demo", "down", false).unwrap();
    }

    #[tokio::test]
    async fn a_released_lock_is_free_at_once_inside_a_runtime_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        // Without a yield in between, as two verbs in one process may take it.
        for _ in 0..3 {
            drop(Lock::acquire(&path, "cluster demo", "up", false).unwrap());
        }
    }

    #[test]
    fn what_a_dead_run_left_behind_does_not_lock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        std::fs::write(&path, serde_json::to_string(&Owner::me("up")).unwrap()).unwrap();
        Lock::acquire(&path, "cluster demo", "up", false).unwrap();
    }

    #[test]
    fn a_living_run_on_another_host_is_respected_until_forced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let elsewhere = Owner {
            host: "elsewhere".to_owned(),
            ..Owner::me("up")
        };
        std::fs::write(&path, serde_json::to_string(&elsewhere).unwrap()).unwrap();
        let (owner, alive) = refusal(Lock::acquire(&path, "cluster demo", "up", false));
        assert_eq!((owner.host.as_str(), alive), ("elsewhere", false));
        Lock::acquire(&path, "cluster demo", "up", true).unwrap();

        let silent = Owner {
            heartbeat: epoch_seconds() - 60,
            ..elsewhere
        };
        std::fs::write(&path, serde_json::to_string(&silent).unwrap()).unwrap();
        Lock::acquire(&path, "cluster demo", "up", false).unwrap();
    }
}
