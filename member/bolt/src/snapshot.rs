//! A snapshot on disk: the database, and after it the SHA-256 of it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::error::SnapshotError;
use crate::read::Database;

/// Length of the hash. A database is whole pages, so a rest of this length tells that there is one.
const HASH: u64 = 32;
const SECTOR: u64 = 512;

/// Whether a snapshot must carry a hash that is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashCheck {
    /// It must.
    Required,
    /// The file is taken as it is: a database that was copied from a data directory has no hash.
    Skipped,
}

/// Opens the files that `snapshot save` writes.
#[derive(Debug)]
pub struct SnapshotFile;

impl SnapshotFile {
    /// Opens a snapshot, or a database without a hash.
    ///
    /// # Errors
    /// When it cannot be opened, its hash is missing or wrong, or it is no database.
    pub fn open(path: &Path, check: HashCheck) -> Result<Database, SnapshotError> {
        let mut file = File::open(path).map_err(|reason| SnapshotError::Open {
            path: path.display().to_string(),
            reason,
        })?;
        let len = file.metadata()?.len();
        let hashed = len % SECTOR == HASH;
        let content = if hashed { len - HASH } else { len };
        if check == HashCheck::Required {
            if !hashed {
                return Err(SnapshotError::MissingHash);
            }
            verify(&mut file, content)?;
        }
        Ok(Database::new(file, content)?)
    }
}

fn verify(file: &mut File, content: u64) -> Result<(), SnapshotError> {
    let mut hash = Sha256::new();
    file.seek(SeekFrom::Start(0))?;
    let mut reader = io::BufReader::with_capacity(1 << 16, file.by_ref().take(content));
    io::copy(&mut reader, &mut HashWriter(&mut hash))?;
    let mut expected = [0; 32];
    file.seek(SeekFrom::Start(content))?;
    file.read_exact(&mut expected)?;
    let found: [u8; 32] = hash.finalize().into();
    if expected == found {
        Ok(())
    } else {
        Err(SnapshotError::Hash { expected, found })
    }
}

struct HashWriter<'a>(&'a mut Sha256);

impl io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
