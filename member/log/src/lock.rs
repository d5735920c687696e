//! The lock that keeps a second process out of the directory.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use crate::LogError;

/// Name of the lock file; it also holds the holder's process id for error messages.
pub(crate) const LOCK_FILE: &str = "lock";

/// Locks the directory for as long as the returned file stays open.
///
/// # Errors
///
/// [`LogError::InUse`] at once when another process has it; waiting is the caller's policy.
pub(crate) fn acquire(dir: &Path) -> Result<File, LogError> {
    let path = dir.join(LOCK_FILE);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(LogError::io("open lock file", &path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut text = String::new();
            let holder = file
                .read_to_string(&mut text)
                .ok()
                .and_then(|_| text.trim().parse().ok());
            return Err(LogError::InUse {
                dir: dir.to_owned(),
                holder,
            });
        }
        Err(error) => return Err(LogError::io("lock", &path)(error.into())),
    }
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(LogError::io("write lock file", &path))?;
    Ok(file)
}
