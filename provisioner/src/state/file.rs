//! Files that are replaced as a whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::StateError;

/// Creates a directory and its missing parents, all 0700.
pub(super) fn create_private_dir(path: &Path) -> Result<(), StateError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(StateError::io("create", path))
}

/// Whether a file must survive the loss of power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Durability {
    /// Flushed to disk before the replacement returns.
    Durable,
    /// Left to the system to write: what it says is void after a reboot anyway, or can be found again.
    Volatile,
}

/// Replaces a file: written beside, renamed over. A full disk leaves the old file.
pub(super) fn replace(path: &Path, bytes: &[u8], durability: Durability) -> Result<(), StateError> {
    let beside = path.with_extension("new");
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside)?;
        file.write_all(bytes)?;
        if durability == Durability::Volatile {
            return fs::rename(&beside, path);
        }
        file.sync_data()?;
        fs::rename(&beside, path)?;
        // The rename is durable only once the directory is.
        path.parent()
            .map_or(Ok(()), |dir| File::open(dir)?.sync_all())
    };
    write().map_err(|source| {
        let _best_effort = fs::remove_file(&beside);
        StateError::io("write", path)(source)
    })
}

/// Replaces a text that is somebody else's: with the permissions that it has.
pub fn replace_text(path: &Path, text: &str) -> Result<(), StateError> {
    // The file itself, not a link to it.
    let path = fs::canonicalize(path).map_err(StateError::io("find", path))?;
    let metadata = fs::metadata(&path).map_err(StateError::io("read", &path))?;
    replace(&path, text.as_bytes(), Durability::Durable)?;
    fs::set_permissions(&path, metadata.permissions()).map_err(StateError::io("protect", &path))
}

pub(super) fn replace_json<T: Serialize>(
    path: &Path,
    value: &T,
    durability: Durability,
) -> Result<(), StateError> {
    let mut bytes = serde_json::to_vec_pretty(value).map_err(|source| StateError::Damaged {
        path: path.to_owned(),
        source,
    })?;
    bytes.push(b'\n');
    replace(path, &bytes, durability)
}

pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StateError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StateError::io("read", path)(error)),
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|source| StateError::Damaged {
            path: path.to_owned(),
            source,
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn replaced_files_are_private_and_leave_nothing_beside() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("a/b");
        create_private_dir(&home).unwrap();
        let path = home.join("x.json");
        replace_json(&path, &1, Durability::Durable).unwrap();
        replace_json(&path, &2, Durability::Volatile).unwrap();
        assert_eq!(read_json::<u32>(&path).unwrap(), Some(2));
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(
            fs::metadata(&home).unwrap().permissions().mode() & 0o777,
            0o700
        );
        assert_eq!(fs::read_dir(&home).unwrap().count(), 1);
    }

    #[test]
    fn damage_is_told_from_absence() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read_json::<u32>(&dir.path().join("absent")).unwrap(), None);
        let path = dir.path().join("x");
        fs::write(&path, "{").unwrap();
        assert!(matches!(
            read_json::<u32>(&path),
            Err(StateError::Damaged { .. })
        ));
    }
}
