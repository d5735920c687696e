//! What can be wrong with a request or with the stored state.
//!
//! The texts of [`Error`] are etcd's, letter by letter: clients and operators match on them.

use crate::auth::AuthError;
use crate::backend::BackendError;

/// Why a request is refused. `Display` is etcd's message.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// A key is empty.
    #[error("etcdserver: key is not provided")]
    EmptyKey,
    /// `ignore_value` or `ignore_lease` on a key that does not exist, or an empty operation in a transaction.
    #[error("etcdserver: key not found")]
    KeyNotFound,
    /// `ignore_value` together with a value.
    #[error("etcdserver: value is provided")]
    ValueProvided,
    /// `ignore_lease` together with a lease.
    #[error("etcdserver: lease is provided")]
    LeaseProvided,
    /// A transaction with more operations than allowed, or nested too deeply.
    #[error("etcdserver: too many operations in txn request")]
    TooManyOps,
    /// A transaction writes a key twice.
    #[error("etcdserver: duplicate key given in txn request")]
    DuplicateKey,
    /// An unknown sort order or sort target.
    #[error("etcdserver: invalid sort option")]
    InvalidSortOption,
    /// The requested revision is gone.
    #[error("etcdserver: mvcc: required revision has been compacted")]
    Compacted,
    /// The requested revision is yet to come.
    #[error("etcdserver: mvcc: required revision is a future revision")]
    FutureRevision,
    /// The lease does not exist.
    #[error("etcdserver: requested lease not found")]
    LeaseNotFound,
    /// A lease of this id exists.
    #[error("etcdserver: lease already exists")]
    LeaseExist,
    /// A lease is to live longer than is allowed.
    #[error("etcdserver: too large lease TTL")]
    LeaseTtlTooLarge,
    /// A member's state has outgrown its quota.
    #[error("etcdserver: mvcc: database space exceeded")]
    NoSpace,
    /// The alarm is on that says that members differ.
    #[error("etcdserver: corrupt cluster")]
    CorruptAlarm,
    /// The user may not do this, or users cannot be changed so.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The stored state contradicts itself.
    #[error("etcdserver: corrupt cluster")]
    Corrupt(#[source] Corruption),
    /// The storage failed. The state must be reopened before it is used again.
    #[error("etcdserver: state storage failed")]
    Backend(#[from] BackendError),
}

impl Error {
    /// The message that a client gets.
    #[must_use]
    pub fn text(&self) -> String {
        self.to_string()
    }

    /// Whether the member itself is broken, as against the request.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        matches!(self, Error::Corrupt(_) | Error::Backend(_))
    }
}

/// A stored record that cannot be what the state wrote.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} in table {table} is damaged")]
pub struct Corruption {
    /// The table that holds the record.
    pub table: &'static str,
    /// What was being read.
    pub what: &'static str,
}

impl From<Corruption> for Error {
    fn from(corruption: Corruption) -> Self {
        Error::Corrupt(corruption)
    }
}

impl From<member_v2::Damaged> for Error {
    fn from(member_v2::Damaged(what): member_v2::Damaged) -> Self {
        Corruption {
            table: "meta",
            what,
        }
        .into()
    }
}

/// Why stored state cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The storage failed.
    #[error("cannot read the stored state")]
    Backend(#[from] BackendError),
    /// The state was written by another format of this program.
    #[error(
        "the stored state has format {found}, this version reads format {expected}; open it with the version that wrote it"
    )]
    Format {
        /// The format found.
        found: u32,
        /// The only format that this version knows.
        expected: u32,
    },
    /// The stored state contradicts itself.
    #[error(
        "the stored state is damaged; remove the member's data and let it catch up from the other members"
    )]
    Corrupt(#[from] Corruption),
}
