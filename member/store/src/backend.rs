//! The database as the state's [`Backend`].

use std::fmt;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use member_state::{Backend, BackendError, Batch, Cursor, Entry, Snapshot, Table};
use rocksdb::checkpoint::Checkpoint;
use rocksdb::{
    BottommostLevelCompaction, Cache, ColumnFamily, CompactOptions, DB, DBRawIterator,
    FlushOptions, ReadOptions, WriteBatch, WriteOptions,
};

use crate::options::{database, families};
use crate::{StoreError, StoreOptions};

/// An open database. Clones share it; it closes when the last one is dropped, after a flush.
#[derive(Clone)]
pub struct RocksBackend {
    shared: Arc<Shared>,
}

struct Shared {
    db: DB,
    cache: Cache,
    write: WriteOptions,
    read: ReadOptions,
    dir: PathBuf,
}

/// Memory that RocksDB accounts for, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryStats {
    /// Unflushed writes.
    pub write_buffers: u64,
    /// Cached blocks, indexes and filters.
    pub block_cache: u64,
    /// Open tables, as far as they are not in the cache.
    pub table_readers: u64,
}

impl RocksBackend {
    /// Opens the database in `dir`, creating the directory (0700) and the tables as needed.
    ///
    /// # Errors
    ///
    /// Whether someone else has it open, its files are damaged, or the system refuses, see [`StoreError`].
    pub fn open(dir: &Path, options: StoreOptions) -> Result<Self, StoreError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|source| StoreError::Directory {
                dir: dir.to_owned(),
                source,
            })?;
        let cache = Cache::new_lru_cache(options.block_cache_bytes);
        let families = families(&options, &cache);
        let db = DB::open_cf_descriptors(&database(&options), dir, families)
            .map_err(StoreError::from_rocks("open", dir))?;
        let mut write = WriteOptions::default();
        write.disable_wal(true);
        let read = ReadOptions::default();
        Ok(Self {
            shared: Arc::new(Shared {
                db,
                cache,
                write,
                read,
                dir: dir.to_owned(),
            }),
        })
    }

    /// Makes everything that was written before this call durable.
    ///
    /// The caller who wants to know how far that is reads the applied position first: the raft log may then be purged
    /// up to it. Blocks for the write of one file per table that changed.
    ///
    /// # Errors
    ///
    /// [`StoreError::Refused`] when the disk is full or fails; later writes fail then, too.
    pub fn flush(&self) -> Result<(), StoreError> {
        let mut options = FlushOptions::default();
        options.set_wait(true);
        self.shared
            .db
            .flush_cfs_opt(&Table::ALL.map(|table| self.family(table)), &options)
            .map_err(StoreError::from_rocks("flush", &self.shared.dir))
    }

    /// Copies the database as it is now into `dir`, which must not exist: by hard links on the same file system.
    ///
    /// The copy is a database of its own that [`RocksBackend::open`] opens.
    ///
    /// # Errors
    ///
    /// [`StoreError::Foreign`] when `dir` exists, [`StoreError::Refused`] when the disk is full or fails.
    pub fn checkpoint(&self, dir: &Path) -> Result<(), StoreError> {
        self.flush()?;
        let failed = || StoreError::from_rocks("copy", dir);
        Checkpoint::new(&self.shared.db)
            .map_err(failed())?
            .create_checkpoint(dir)
            .map_err(failed())
    }

    /// Rewrites every table without what was overwritten or deleted, and gives the space back. Blocks for as long as it
    /// takes to read and write everything; reads and writes go on beside it.
    ///
    /// # Errors
    ///
    /// [`StoreError::Refused`] when the disk is full or fails; nothing is lost then.
    pub fn compact(&self) -> Result<(), StoreError> {
        self.flush()?;
        let mut options = CompactOptions::default();
        options.set_exclusive_manual_compaction(false);
        options.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
        for table in Table::ALL {
            let everything: (Option<&[u8]>, Option<&[u8]>) = (None, None);
            self.shared.db.compact_range_cf_opt(
                self.family(table),
                everything.0,
                everything.1,
                &options,
            );
        }
        // The call above reports nothing; a failed one leaves the database refusing writes and flushes.
        self.flush()
    }

    /// The memory that RocksDB accounts for.
    pub fn memory(&self) -> MemoryStats {
        MemoryStats {
            write_buffers: self.sum(c"rocksdb.cur-size-all-mem-tables"),
            block_cache: self.shared.cache.get_usage() as u64,
            table_readers: self.sum(c"rocksdb.estimate-table-readers-mem"),
        }
    }

    /// Sum of a property over the tables; a property that RocksDB does not know counts as nothing.
    fn sum(&self, property: &std::ffi::CStr) -> u64 {
        Table::ALL
            .into_iter()
            .filter_map(|table| {
                self.shared
                    .db
                    .property_int_value_cf(self.family(table), property)
                    .ok()
                    .flatten()
            })
            .sum()
    }

    fn family(&self, table: Table) -> &ColumnFamily {
        self.shared
            .db
            .cf_handle(table.name())
            .expect("open made every table")
    }
}

impl fmt::Debug for RocksBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RocksBackend")
            .field("dir", &self.shared.dir)
            .finish_non_exhaustive()
    }
}

impl Backend for RocksBackend {
    type Cursor<'a> = RocksCursor<'a>;
    type Snapshot<'a> = RocksSnapshot<'a>;

    fn snapshot(&self) -> Result<RocksSnapshot<'_>, BackendError> {
        Ok(RocksSnapshot {
            backend: self,
            snapshot: self.shared.db.snapshot(),
        })
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, BackendError> {
        let Shared { db, read, .. } = &*self.shared;
        let value = db
            .get_pinned_cf_opt(self.family(table), key, read)
            .map_err(BackendError::new)?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn cursor<'a>(
        &'a self,
        table: Table,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> Result<RocksCursor<'a>, BackendError> {
        Ok(RocksCursor::open(from, to, |read| {
            self.shared.db.raw_iterator_cf_opt(self.family(table), read)
        }))
    }

    fn write(&self, batch: &Batch) -> Result<(), BackendError> {
        // Kind, table and two lengths per write come on top; a guess that is short costs one copy.
        const OVERHEAD: usize = 12;
        let bytes = Table::ALL
            .into_iter()
            .flat_map(|table| batch.iter(table))
            .map(|(key, value)| key.len() + value.map_or(0, Bytes::len) + OVERHEAD)
            .sum::<usize>();
        let mut writes = WriteBatch::with_capacity_bytes(bytes + OVERHEAD);
        for table in Table::ALL {
            let family = self.family(table);
            for (key, value) in batch.iter(table) {
                match value {
                    Some(value) => writes.put_cf(family, key, value),
                    None => writes.delete_cf(family, key),
                }
            }
        }
        self.shared
            .db
            .write_opt(writes, &self.shared.write)
            .map_err(BackendError::new)
    }

    /// Asks RocksDB for several figures under its mutex: not for every request.
    fn size(&self) -> u64 {
        self.sum(c"rocksdb.live-sst-files-size") + self.sum(c"rocksdb.cur-size-all-mem-tables")
    }
}

/// A walk over one table as it was when the cursor was made. While it lives, it keeps old files and buffers alive.
pub struct RocksCursor<'a> {
    /// `None` when there is nothing (more) to yield.
    iterator: Option<DBRawIterator<'a>>,
    started: bool,
}

impl<'a> RocksCursor<'a> {
    fn open(
        from: &[u8],
        to: Option<&[u8]>,
        iterate: impl FnOnce(ReadOptions) -> DBRawIterator<'a>,
    ) -> Self {
        if to.is_some_and(|to| to <= from) {
            return RocksCursor {
                iterator: None,
                started: true,
            };
        }
        let mut read = ReadOptions::default();
        read.set_background_purge_on_iterator_cleanup(true);
        if let Some(to) = to {
            read.set_iterate_upper_bound(to);
        }
        let mut iterator = iterate(read);
        iterator.seek(from);
        RocksCursor {
            iterator: Some(iterator),
            started: false,
        }
    }
}

/// The database at one moment. While it lives, no version that it shows is dropped.
pub struct RocksSnapshot<'a> {
    backend: &'a RocksBackend,
    snapshot: rocksdb::Snapshot<'a>,
}

impl fmt::Debug for RocksSnapshot<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RocksSnapshot").finish_non_exhaustive()
    }
}

impl Snapshot for RocksSnapshot<'_> {
    type Cursor<'a>
        = RocksCursor<'a>
    where
        Self: 'a;

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, BackendError> {
        let value = self
            .snapshot
            .get_pinned_cf(self.backend.family(table), key)
            .map_err(BackendError::new)?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn cursor<'a>(
        &'a self,
        table: Table,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> Result<RocksCursor<'a>, BackendError> {
        Ok(RocksCursor::open(from, to, |mut read| {
            // A walk over everything must not push out of the cache what clients read.
            read.fill_cache(false);
            self.snapshot
                .raw_iterator_cf_opt(self.backend.family(table), read)
        }))
    }
}

impl fmt::Debug for RocksCursor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RocksCursor").finish_non_exhaustive()
    }
}

impl Cursor for RocksCursor<'_> {
    fn next(&mut self) -> Result<Option<Entry<'_>>, BackendError> {
        if let Some(iterator) = &mut self.iterator {
            if std::mem::replace(&mut self.started, true) {
                iterator.next();
            }
            if !iterator.valid() {
                let status = iterator.status();
                self.iterator = None;
                status.map_err(BackendError::new)?;
            }
        }
        Ok(self.iterator.as_ref().and_then(DBRawIterator::item))
    }

    fn seek(&mut self, key: &[u8]) -> Result<(), BackendError> {
        // An iterator that failed or ended tells so at the next step.
        if let Some(iterator) = &mut self.iterator {
            iterator.seek(key);
            self.started = false;
        }
        Ok(())
    }
}
