//! Why a database could not be opened, flushed or copied.

use std::io;
use std::path::{Path, PathBuf};

use rocksdb::ErrorKind;

/// Failure of an operation on the database as a whole.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process, or another handle of this one, has the database open.
    #[error("database {} is in use by another process; stop it, or use another data directory", .dir.display())]
    InUse {
        /// The database's directory.
        dir: PathBuf,
        /// What RocksDB reported.
        #[source]
        source: rocksdb::Error,
    },
    /// Files are damaged or missing.
    #[error("database {} is corrupt; restore it from a snapshot, or replace the member", .dir.display())]
    Corrupt {
        /// The database's directory.
        dir: PathBuf,
        /// What RocksDB reported; it names the file.
        #[source]
        source: rocksdb::Error,
    },
    /// The database has column families or options that this program does not know.
    #[error("database {} was written by another program or version; open it with the one that wrote it", .dir.display())]
    Foreign {
        /// The database's directory.
        dir: PathBuf,
        /// What RocksDB reported.
        #[source]
        source: rocksdb::Error,
    },
    /// RocksDB could not do it, mostly for lack of space or permission.
    #[error("cannot {action} database {}", .dir.display())]
    Refused {
        /// Verb of what was tried.
        action: &'static str,
        /// The database's directory.
        dir: PathBuf,
        /// What RocksDB reported; it names the file.
        #[source]
        source: rocksdb::Error,
    },
    /// The directory could not be made.
    #[error("cannot create directory {}", .dir.display())]
    Directory {
        /// The directory.
        dir: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl StoreError {
    /// Adapter for `map_err`: sorts what RocksDB reports by what the operator can do about it.
    pub(crate) fn from_rocks(
        action: &'static str,
        dir: &Path,
    ) -> impl FnOnce(rocksdb::Error) -> Self {
        let dir = dir.to_owned();
        move |source| match source.kind() {
            ErrorKind::Corruption => Self::Corrupt { dir, source },
            ErrorKind::InvalidArgument | ErrorKind::NotSupported => Self::Foreign { dir, source },
            // RocksDB has no kind for it; the text has been the same since LevelDB.
            ErrorKind::IOError if source.as_ref().contains("lock ") => Self::InUse { dir, source },
            _ => Self::Refused {
                action,
                dir,
                source,
            },
        }
    }
}
