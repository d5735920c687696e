//! What can be wrong with a file. Where bbolt or etcd has a text that operators search for, it comes first.

use std::fmt;
use std::io;

/// Why a file cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The rows cannot be had.
    #[error("cannot read what is to be written")]
    Source(#[source] io::Error),
    /// The receiver does not take it.
    #[error("cannot write")]
    Output(#[source] io::Error),
    /// Rows or buckets are not in ascending order, or come twice.
    #[error("bucket {bucket}: a key does not come after the one before it")]
    Order {
        /// The bucket.
        bucket: String,
    },
    /// A key is empty or longer than 32768 bytes, or a value is longer than 2 GiB.
    #[error("bucket {bucket}: a key or value is too long for the format, or a key is empty")]
    Length {
        /// The bucket.
        bucket: String,
    },
    /// The rows of the second walk are not those of the first.
    #[error("the rows changed between the two walks over them")]
    Changed,
}

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The system refuses.
    #[error("cannot read the database file")]
    Io(#[from] io::Error),
    /// Shorter than the two meta pages that every database begins with.
    #[error(
        "file size too small: the file ends before the database does; fetch the snapshot again"
    )]
    TooSmall,
    /// No meta page is one.
    #[error(
        "invalid database: the file is not an etcd snapshot or database, or its beginning is damaged"
    )]
    Invalid,
    /// A database of another format.
    #[error("version mismatch: the database has format {found}, format 2 is read")]
    Version {
        /// Its format.
        found: u32,
    },
    /// Both meta pages are damaged.
    #[error(
        "checksum error: both meta pages of the database are damaged; fetch the snapshot again"
    )]
    Checksum,
    /// The tree leads beyond the end of the file.
    #[error(
        "page {page} lies beyond the end of the file: it was cut off; fetch the snapshot again"
    )]
    Truncated {
        /// The page.
        page: u64,
    },
    /// A page contradicts itself or the tree.
    #[error("page {page} is damaged ({what}); fetch the snapshot again")]
    Damaged {
        /// The page.
        page: u64,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A page run too large to be one that etcd wrote.
    #[error("page {page} claims {bytes} bytes, which no etcd writes")]
    TooLarge {
        /// The page.
        page: u64,
        /// Its size.
        bytes: u64,
    },
    /// A row that is not etcd's.
    #[error(
        "bucket {bucket} holds {what}, which no etcd writes: the file is another program's database, or damaged"
    )]
    Row {
        /// The bucket.
        bucket: &'static str,
        /// What was found.
        what: &'static str,
    },
}

/// Why a snapshot is refused. The texts about the hash are etcd's.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The file cannot be opened.
    #[error("open {path}: {}", os_text(reason))]
    Open {
        /// The file.
        path: String,
        /// Why; part of the text, as in etcd.
        reason: io::Error,
    },
    /// It cannot be read.
    #[error("cannot read the snapshot")]
    Io(#[from] io::Error),
    /// A copied database rather than a snapshot.
    #[error("snapshot missing hash but --skip-hash-check=false")]
    MissingHash,
    /// The content is not what was hashed.
    #[error("expected sha256 {}, got {}", Decimal(expected), Decimal(found))]
    Hash {
        /// What the file says.
        expected: [u8; 32],
        /// What it is.
        found: [u8; 32],
    },
    /// It is no database.
    #[error(transparent)]
    Database(#[from] ReadError),
}

/// The system's text without Rust's number behind it.
fn os_text(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    text.to_lowercase()
}

/// Bytes as Go prints them.
struct Decimal<'a>(&'a [u8; 32]);

impl fmt::Display for Decimal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            write!(f, "{}{byte}", if i == 0 { "[" } else { " " })?;
        }
        f.write_str("]")
    }
}
