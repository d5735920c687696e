//! RocksDB as the server's storage engine: which directory is the current one, and how another takes its place.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use member_server::Engine;
use member_store::{RocksBackend, StoreOptions};

/// Names the current database directory; replaced atomically.
const CURRENT: &str = "CURRENT";
/// Checkpoints on their way in and out.
const SCRATCH: &str = "scratch";

/// RocksDB under one directory:
///
/// ```text
/// state/CURRENT        "db-2"
/// state/db-2/          the database
/// state/scratch/       checkpoints on their way
/// ```
pub(crate) struct RocksEngine {
    dir: PathBuf,
    current: Mutex<u64>,
}

impl RocksEngine {
    /// Takes possession of `dir`; what an interrupted replacement left is removed.
    pub(crate) fn open(dir: PathBuf) -> io::Result<Self> {
        create_dir(&dir)?;
        let current = match fs::read_to_string(dir.join(CURRENT)) {
            Ok(name) => number(name.trim()).ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("{} names no database", dir.join(CURRENT).display()),
                )
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => 1,
            Err(error) => return Err(error),
        };
        let engine = Self {
            dir,
            current: Mutex::new(current),
        };
        engine.point_to(current)?;
        engine.remove_others(current)?;
        let scratch = engine.dir.join(SCRATCH);
        match fs::remove_dir_all(&scratch) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => create_dir(&scratch)?,
        }
        Ok(engine)
    }

    fn database(&self, number: u64) -> PathBuf {
        self.dir.join(format!("db-{number}"))
    }

    /// Makes `number` the current database, durably.
    fn point_to(&self, number: u64) -> io::Result<()> {
        let next = self.dir.join("CURRENT.next");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&next)?;
        writeln!(file, "db-{number}")?;
        file.sync_all()?;
        fs::rename(&next, self.dir.join(CURRENT))?;
        File::open(&self.dir)?.sync_all()
    }

    fn remove_others(&self, current: u64) -> io::Result<()> {
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let name = entry.file_name();
            if name
                .to_str()
                .and_then(number)
                .is_some_and(|number| number != current)
            {
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    }

    fn backend(&self, number: u64) -> io::Result<RocksBackend> {
        RocksBackend::open(&self.database(number), StoreOptions::default())
            .map_err(io::Error::other)
    }
}

fn number(name: &str) -> Option<u64> {
    name.strip_prefix("db-")?.parse().ok()
}

fn create_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

impl Engine for RocksEngine {
    type Backend = RocksBackend;

    fn open(&self) -> io::Result<RocksBackend> {
        let current = *self
            .current
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        self.backend(current)
    }

    fn flush(&self, backend: &RocksBackend) -> io::Result<()> {
        backend.flush().map(drop).map_err(io::Error::other)
    }

    fn checkpoint(&self, backend: &RocksBackend, dir: &Path) -> io::Result<()> {
        backend.checkpoint(dir).map(drop).map_err(io::Error::other)
    }

    fn defragment(&self, backend: &RocksBackend) -> io::Result<()> {
        backend.compact().map_err(io::Error::other)
    }

    fn scratch(&self) -> PathBuf {
        self.dir.join(SCRATCH)
    }

    fn replace(&self, dir: &Path) -> io::Result<RocksBackend> {
        let mut current = self
            .current
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let next = *current + 1;
        // Readers may still use the current database; the one before it has none left.
        self.remove_others(*current)?;
        fs::rename(dir, self.database(next))?;
        self.point_to(next)?;
        *current = next;
        self.backend(next)
    }
}
