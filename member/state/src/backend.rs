//! The storage that the state needs: ordered tables, atomic writes, point-in-time cursors.
//!
//! Owns the trait and the write set. What is durable and when is the implementation's policy; the
//! state only demands that a crash leaves the result of a prefix of the writes, never a part of one.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

/// An ordered table of the store, a column family in RocksDB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Table {
    /// User key to its newest version.
    Current,
    /// User key and descending revision to a superseded version or a tombstone.
    Old,
    /// Revision to the key that it wrote.
    Revisions,
    /// The state's own few keys.
    Meta,
    /// Leases, and under each the keys that are attached to it.
    Leases,
}

impl Table {
    /// Every table, in the order of [`Table::index`].
    pub const ALL: [Table; 5] = [
        Table::Current,
        Table::Old,
        Table::Revisions,
        Table::Meta,
        Table::Leases,
    ];

    /// The stable name of the table on disk.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Table::Current => "current",
            Table::Old => "old",
            Table::Revisions => "revisions",
            Table::Meta => "meta",
            Table::Leases => "leases",
        }
    }

    /// The position of the table in [`Table::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Table::Current => 0,
            Table::Old => 1,
            Table::Revisions => 2,
            Table::Meta => 3,
            Table::Leases => 4,
        }
    }
}

/// Ordered, atomic storage of the five tables.
pub trait Backend: Send + Sync + 'static {
    /// A walk over one table as it was when the cursor was made.
    type Cursor<'a>: Cursor
    where
        Self: 'a;

    /// All tables as they were when the snapshot was made.
    type Snapshot<'a>: Snapshot
    where
        Self: 'a;

    /// Holds this moment: no write after this call is seen through the snapshot. It keeps what it shows from being
    /// reclaimed for as long as it lives.
    ///
    /// # Errors
    /// When the storage cannot be read.
    fn snapshot(&self) -> Result<Self::Snapshot<'_>, BackendError>;

    /// Reads one value.
    ///
    /// # Errors
    /// When the storage cannot be read.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, BackendError>;

    /// Opens a walk over `[from, to)`, to the end of the table when `to` is `None`. Writes after this
    /// call are not seen by the cursor. A range that is empty or inverted yields nothing.
    ///
    /// # Errors
    /// When the storage cannot be read.
    fn cursor<'a>(
        &'a self,
        table: Table,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> Result<Self::Cursor<'a>, BackendError>;

    /// Applies the whole batch, or nothing of it.
    ///
    /// # Errors
    /// When the storage refuses the write; the state is then in doubt and must be reopened.
    fn write(&self, batch: &Batch) -> Result<(), BackendError>;

    /// Bytes held on disk and in memory.
    fn size(&self) -> u64;
}

/// A moment of all tables.
pub trait Snapshot {
    /// A walk over one table of the moment.
    type Cursor<'a>: Cursor
    where
        Self: 'a;

    /// Reads one value.
    ///
    /// # Errors
    /// When the storage cannot be read.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, BackendError>;

    /// Opens a walk over `[from, to)`, as [`Backend::cursor`] does.
    ///
    /// # Errors
    /// When the storage cannot be read.
    fn cursor<'a>(
        &'a self,
        table: Table,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> Result<Self::Cursor<'a>, BackendError>;
}

/// A key and its value, lent by a cursor.
pub type Entry<'a> = (&'a [u8], &'a [u8]);

/// An ascending walk over a table. What it yields lives until the next step.
pub trait Cursor {
    /// The next key and value, or `None` at the end, and from then on.
    ///
    /// # Errors
    /// When the storage cannot be read.
    fn next(&mut self) -> Result<Option<Entry<'_>>, BackendError>;

    /// Goes forward, so that the next key is the first one at or after `key`. That must lie behind the last key that
    /// was yielded; the end of the range stays.
    ///
    /// # Errors
    /// When the storage cannot be read.
    fn seek(&mut self, key: &[u8]) -> Result<(), BackendError>;
}

/// A failure of the storage below the state.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot access the state's storage")]
pub struct BackendError {
    #[source]
    source: Arc<dyn StdError + Send + Sync>,
}

impl BackendError {
    /// Wraps what the storage reported.
    pub fn new(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        BackendError {
            source: Arc::from(source.into()),
        }
    }
}

type Writes = BTreeMap<Bytes, Option<Bytes>>;

/// Writes to all tables that take effect together, each key at most once: the last write wins.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    tables: [Writes; 5],
}

impl Batch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Batch::default()
    }

    /// Sets a key.
    pub fn put(&mut self, table: Table, key: Bytes, value: Bytes) {
        self.tables[table.index()].insert(key, Some(value));
    }

    /// Removes a key, present or not.
    pub fn delete(&mut self, table: Table, key: Bytes) {
        self.tables[table.index()].insert(key, None);
    }

    /// What the batch does to a key: `None` when nothing, `Some(None)` when it deletes it.
    #[must_use]
    pub fn get(&self, table: Table, key: &[u8]) -> Option<Option<&Bytes>> {
        self.tables[table.index()].get(key).map(Option::as_ref)
    }

    /// The writes to one table in key order; `None` is a delete.
    pub fn iter(&self, table: Table) -> impl Iterator<Item = (&Bytes, Option<&Bytes>)> {
        self.tables[table.index()]
            .iter()
            .map(|(key, value)| (key, value.as_ref()))
    }

    /// The writes to the keys in `[from, to)` of one table.
    pub(crate) fn range(
        &self,
        table: Table,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> std::collections::btree_map::Range<'_, Bytes, Option<Bytes>> {
        // An inverted range is a panic in BTreeMap and an empty walk here.
        let to = to.map(|to| to.max(from));
        self.tables[table.index()].range::<[u8], _>((
            Bound::Included(from),
            to.map_or(Bound::Unbounded, Bound::Excluded),
        ))
    }

    /// The number of writes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tables.iter().map(BTreeMap::len).sum()
    }

    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tables.iter().all(BTreeMap::is_empty)
    }
}
