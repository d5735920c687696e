//! Directories for what is not finished: gone with the run that made them, or with the next one if it was killed.

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::error::Error;

const PREFIX: &str = ".provision-unfinished-";
const LOCK: &str = "lock";

/// A directory that only this run uses.
#[derive(Debug)]
pub struct WorkDir {
    dir: TempDir,
    _lock: File,
}

impl WorkDir {
    /// Makes one in `parent`, which is made where it does not exist, and removes those of runs that were killed.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new(parent: &Path) -> Result<Self, Error> {
        private_dir(parent)?;
        remove_abandoned(parent);
        loop {
            let dir = tempfile::Builder::new()
                .prefix(PREFIX)
                .tempdir_in(parent)
                .map_err(Error::io("create a directory in", parent))?;
            let path = dir.path().join(LOCK);
            let lock = File::create(&path).map_err(Error::io("create", &path))?;
            match lock.try_lock() {
                Ok(()) => return Ok(Self { dir, _lock: lock }),
                // Another run has just taken it for abandoned.
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(Error::io("lock", &path)(error)),
            }
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The path of a file in it.
    #[must_use]
    pub fn join(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// Makes a directory and those above it, for this user alone.
pub(super) fn private_dir(path: &Path) -> Result<(), Error> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(Error::io("create", path))
}

fn remove_abandoned(parent: &Path) {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    for entry in entries {
        let ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
        let path = entry.path();
        // One without a lock is just being made.
        if ours
            && let Ok(lock) = File::open(path.join(LOCK))
            && lock.try_lock().is_ok()
        {
            let _left_for_the_next_run = fs::remove_dir_all(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_run_left_goes_and_what_another_uses_stays() {
        let root = tempfile::tempdir().unwrap();
        let parent = root.path().join("backups");
        let living = WorkDir::new(&parent).unwrap();
        let dead = parent.join(format!("{PREFIX}x"));
        fs::create_dir(&dead).unwrap();
        fs::write(dead.join(LOCK), "").unwrap();
        fs::write(dead.join("snapshot"), "half").unwrap();
        let next = WorkDir::new(&parent).unwrap();
        assert!(!dead.exists() && living.path().exists());
        drop((living, next));
        assert_eq!(fs::read_dir(&parent).unwrap().count(), 0);
    }
}
