//! Writes files that are whole or absent: temporary file, fsync, rename, and one fsync of the directory at the end.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::error::PkiError;

/// One file to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewFile {
    /// Where.
    pub path: PathBuf,
    /// What.
    pub bytes: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
}

/// Writes the files, all in `dir`, which is created with mode 0700 (and the directories above it). All are written before
/// the first takes its place, so that a full disk changes nothing.
///
/// # Errors
/// A file cannot be written; no temporary file is left.
pub fn write_files(dir: &Path, files: &[NewFile]) -> Result<(), PkiError> {
    create_dir(dir)?;
    let mut pending = Vec::with_capacity(files.len());
    for file in files {
        pending.push(Pending::write(file)?);
    }
    for pending in pending {
        pending.place()?;
    }
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(PkiError::io("write", dir))
}

fn create_dir(dir: &Path) -> Result<(), PkiError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(PkiError::io("create", dir))?;
    let mode = std::fs::metadata(dir)
        .map_err(PkiError::io("read", dir))?
        .permissions()
        .mode();
    if mode & 0o077 != 0 {
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700))
            .map_err(PkiError::io("protect", dir))?;
    }
    Ok(())
}

/// A written file that has not taken its place; dropped, it is removed.
struct Pending<'f> {
    target: &'f Path,
    temporary: PathBuf,
    placed: bool,
}

impl<'f> Pending<'f> {
    fn write(file: &'f NewFile) -> Result<Self, PkiError> {
        let name = file.path.file_name().unwrap_or_default().to_string_lossy();
        let temporary = file.path.with_file_name(format!(".{name}.new"));
        let fault = |action| PkiError::io(action, &file.path);
        // A run that was killed may have left one; the name is fixed so that they do not pile up.
        match std::fs::remove_file(&temporary) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(fault("write")(error)),
            _ => {}
        }
        let mut open = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(file.mode)
            .open(&temporary)
            .map_err(fault("write"))?;
        let pending = Self {
            target: &file.path,
            temporary,
            placed: false,
        };
        open.write_all(&file.bytes)
            .and_then(|()| open.sync_all())
            .map_err(fault("write"))?;
        Ok(pending)
    }

    fn place(mut self) -> Result<(), PkiError> {
        std::fs::rename(&self.temporary, self.target)
            .map_err(PkiError::io("write", self.target))?;
        self.placed = true;
        Ok(())
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if !self.placed {
            // The write has failed already and says why.
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: PathBuf, text: &str, mode: u32) -> NewFile {
        NewFile {
            path,
            bytes: text.as_bytes().to_vec(),
            mode,
        }
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn files_and_directories_are_private_and_replaced() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("a/b");
        write_files(
            &dir,
            &[
                file(dir.join("k"), "one", 0o600),
                file(dir.join("c"), "two", 0o644),
            ],
        )
        .unwrap();
        write_files(&dir, &[file(dir.join("k"), "three", 0o600)]).unwrap();
        assert_eq!(std::fs::read_to_string(dir.join("k")).unwrap(), "three");
        assert_eq!(names(&dir), ["c", "k"]);
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&dir), mode(&dir.join("k"))), (0o700, 0o600));
    }

    #[test]
    fn a_failure_leaves_the_old_files_and_nothing_else() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("d");
        write_files(&dir, &[file(dir.join("k"), "old", 0o600)]).unwrap();
        // The second file's directory does not exist, so its write fails after the first was written.
        let error = write_files(
            &dir,
            &[
                file(dir.join("k"), "new", 0o600),
                file(dir.join("none/c"), "new", 0o644),
            ],
        )
        .unwrap_err();
        assert!(error.to_string().starts_with("cannot write "), "{error}");
        assert_eq!(std::fs::read_to_string(dir.join("k")).unwrap(), "old");
        assert_eq!(names(&dir), ["k"]);
    }

    #[test]
    fn what_a_killed_run_left_is_no_obstacle() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("d");
        write_files(&dir, &[]).unwrap();
        std::fs::write(dir.join(".k.new"), "half").unwrap();
        write_files(&dir, &[file(dir.join("k"), "whole", 0o600)]).unwrap();
        assert_eq!(names(&dir), ["k"]);
    }
}
