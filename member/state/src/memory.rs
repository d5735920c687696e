//! A backend in memory, for tests.
//!
//! A handle is cheap to clone and all clones are one storage, so that a test can drop a store ("crash") and open it again.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;

use crate::backend::{Backend, BackendError, Batch, Cursor, Entry, Snapshot, Table};

type Tables = [BTreeMap<Bytes, Bytes>; 5];

/// Five maps behind a lock.
#[derive(Debug, Clone, Default)]
pub struct MemoryBackend {
    tables: Arc<RwLock<Tables>>,
}

impl MemoryBackend {
    /// An empty storage.
    #[must_use]
    pub fn new() -> Self {
        MemoryBackend::default()
    }

    /// The number of entries of a table.
    #[must_use]
    pub fn len(&self, table: Table) -> usize {
        self.read()[table.index()].len()
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Tables> {
        // Maps stay whole when a writer panics: every write below is infallible.
        self.tables.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backend for MemoryBackend {
    type Cursor<'a> = MemoryCursor;
    type Snapshot<'a> = MemoryBackend;

    fn snapshot(&self) -> Result<MemoryBackend, BackendError> {
        Ok(MemoryBackend {
            tables: Arc::new(RwLock::new(self.read().clone())),
        })
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, BackendError> {
        Ok(self.read()[table.index()].get(key).cloned())
    }

    fn cursor(
        &self,
        table: Table,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> Result<MemoryCursor, BackendError> {
        let tables = self.read();
        let entries: Vec<_> = tables[table.index()]
            .range::<[u8], _>((Bound::Included(from), Bound::Unbounded))
            .take_while(|(key, _)| to.is_none_or(|to| &key[..] < to))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        Ok(MemoryCursor { entries, next: 0 })
    }

    fn write(&self, batch: &Batch) -> Result<(), BackendError> {
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        for table in Table::ALL {
            let map = &mut tables[table.index()];
            for (key, value) in batch.iter(table) {
                match value {
                    // Copied: a write may be a slice of a much larger buffer, which it would keep alive.
                    Some(value) => {
                        map.insert(Bytes::copy_from_slice(key), Bytes::copy_from_slice(value))
                    }
                    None => map.remove(key),
                };
            }
        }
        Ok(())
    }

    fn size(&self) -> u64 {
        let bytes: usize = self
            .read()
            .iter()
            .flatten()
            .map(|(key, value)| key.len() + value.len())
            .sum();
        bytes as u64
    }
}

// The copy that `snapshot` makes is written to by nobody.
impl Snapshot for MemoryBackend {
    type Cursor<'a> = MemoryCursor;

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, BackendError> {
        Backend::get(self, table, key)
    }

    fn cursor(
        &self,
        table: Table,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> Result<MemoryCursor, BackendError> {
        Backend::cursor(self, table, from, to)
    }
}

/// A copy of the range as it was.
#[derive(Debug)]
pub struct MemoryCursor {
    entries: Vec<(Bytes, Bytes)>,
    next: usize,
}

impl Cursor for MemoryCursor {
    fn next(&mut self) -> Result<Option<Entry<'_>>, BackendError> {
        let entry = self.entries.get(self.next);
        self.next += 1;
        Ok(entry.map(|(key, value)| (&key[..], &value[..])))
    }

    fn seek(&mut self, key: &[u8]) -> Result<(), BackendError> {
        let first = self.entries.partition_point(|(entry, _)| &entry[..] < key);
        self.next = self.next.max(first);
        Ok(())
    }
}
