//! Filling an empty backend with the history of another store.
//!
//! The opposite of an export: versions come oldest first and land where the commands would have put them. What
//! comes out has applied the entry that its finisher names, so that a new log can begin over it. Not atomic: whoever
//! imports works on a backend that nobody uses until it is complete.

use std::collections::HashSet;

use bytes::Bytes;

use crate::alarm::Alarmed;
use crate::backend::{Backend, Batch, Cursor, Table};
use crate::command::Lease;
use crate::error::{Corruption, Error};
use crate::export::Version;
use crate::layout::{self, Arena, Event, Header, Kind, Revision, meta};
use crate::lease::{self, MAX_LEASE_TTL};
use crate::records::Record;
use crate::store::{LogPosition, State};

/// Writes in one batch: bounds memory.
const BATCH: usize = 4096;
const BATCH_BYTES: usize = 4 << 20;

/// The last revision that is taken: half of what there are stay free to be written.
const MAX_REVISION: i64 = i64::MAX / 2;

/// Why history is refused.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The backend is in use.
    #[error("the state to import into is not empty")]
    NotEmpty,
    /// A version does not come after the one before it.
    #[error("revision {main}.{sub} does not come after the one before it")]
    Order {
        /// Its revision.
        main: i64,
        /// Its number in it.
        sub: u32,
    },
    /// A version that no command writes.
    #[error("revision {main} holds a version that no command writes")]
    Version {
        /// Its revision.
        main: i64,
    },
    /// Revisions are used up.
    #[error("revision {revision} leaves no revisions to write")]
    Exhausted {
        /// The last revision.
        revision: i64,
    },
    /// A lease that cannot be granted.
    #[error("lease {id:016x} has a time to live that no lease can have")]
    Lease {
        /// The lease.
        id: i64,
    },
    /// More is compacted than was written.
    #[error("revision {compacted} is compacted, but the last is {revision}")]
    Compacted {
        /// The compacted revision.
        compacted: i64,
        /// The last revision.
        revision: i64,
    },
    /// The backend failed.
    #[error(transparent)]
    State(#[from] Error),
}

/// An import under way.
#[derive(Debug)]
pub struct Importer<'a, B> {
    backend: &'a B,
    batch: Batch,
    bytes: usize,
    /// As [`layout::version_bytes`] counts them.
    version_bytes: u64,
    arena: Arena,
    last: Revision,
    leases: HashSet<i64>,
}

impl<'a, B: Backend> Importer<'a, B> {
    /// Begins to fill a backend.
    ///
    /// # Errors
    /// When it is not empty, or fails.
    pub fn new(backend: &'a B) -> Result<Self, ImportError> {
        for table in Table::ALL {
            let mut entries = backend.cursor(table, &[], None).map_err(Error::from)?;
            if entries.next().map_err(Error::from)?.is_some() {
                return Err(ImportError::NotEmpty);
            }
        }
        Ok(Self {
            backend,
            batch: Batch::new(),
            bytes: 0,
            version_bytes: 0,
            arena: Arena::default(),
            last: Revision::ZERO,
            leases: HashSet::new(),
        })
    }

    /// Takes a lease. All must come before the first version: what is written under a lease that did not come is
    /// attached to none, as in etcd.
    ///
    /// # Errors
    /// When its time to live is none, or the backend fails.
    pub fn lease(&mut self, lease: &Lease) -> Result<(), ImportError> {
        let sound = |ttl| (0..=MAX_LEASE_TTL).contains(&ttl);
        if lease.id == 0 || !sound(lease.ttl) || !sound(lease.remaining) {
            return Err(ImportError::Lease { id: lease.id });
        }
        self.leases.insert(lease.id);
        let id = Bytes::copy_from_slice(&lease.id.to_be_bytes());
        self.put(Table::Leases, id, lease::record(lease));
        if self.batch.len() >= BATCH {
            self.write()?;
        }
        Ok(())
    }

    /// Takes what is neither history nor a lease.
    pub fn record(&mut self, record: &Record) {
        let (key, value) = record.entry();
        self.put(Table::Meta, key, value);
    }

    /// Takes a value that the server stores beside the keys.
    pub fn put_meta(&mut self, key: &str, value: Bytes) {
        self.put(Table::Meta, meta::server(key), value);
    }

    /// The revision of the last version.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.last.main
    }

    /// Takes the next version.
    ///
    /// # Errors
    /// When it cannot follow the one before, is not one that a command writes, or the backend fails.
    pub fn version(&mut self, version: &Version) -> Result<(), ImportError> {
        let Version {
            revision,
            kv,
            deleted,
        } = version;
        if *revision <= self.last {
            return Err(ImportError::Order {
                main: revision.main,
                sub: revision.sub,
            });
        }
        if revision.main > MAX_REVISION {
            return Err(ImportError::Exhausted {
                revision: revision.main,
            });
        }
        // A revision writes a key once, so a key has no more versions than there were revisions since its creation.
        let sound = kv.create_revision > 0
            && kv.create_revision <= revision.main
            && kv.mod_revision == revision.main
            && (1..=revision.main - kv.create_revision + 1).contains(&kv.version);
        // 1 is the revision of an empty store, so the first write has 2.
        if kv.key.is_empty() || revision.main < 2 || !(*deleted || sound) {
            return Err(ImportError::Version {
                main: revision.main,
            });
        }
        self.last = *revision;
        let value = if *deleted { 0 } else { kv.value.len() };
        self.version_bytes += layout::version_bytes(kv.key.len(), value);
        let previous = self.supersede(&kv.key)?;
        let header = if *deleted {
            Header::tombstone(*revision)
        } else {
            Header {
                modified: *revision,
                create: kv.create_revision,
                version: kv.version,
                lease: kv.lease,
            }
        };
        let kind = if *deleted { Kind::Delete } else { Kind::Put };
        let event = Event {
            kind,
            previous,
            key: &kv.key,
        };
        let at = self.arena.revision_key(*revision);
        let event = self.arena.event(&event);
        self.put(Table::Revisions, at, event);
        if *deleted {
            let old = self.arena.old_key(&kv.key, *revision);
            let tombstone = self.arena.record(&header, &[]);
            self.put(Table::Old, old, tombstone);
            self.batch.delete(Table::Current, kv.key.clone());
        } else {
            if self.leases.contains(&kv.lease) {
                let entry = self.arena.attachment(kv.lease, &kv.key);
                self.put(Table::Leases, entry, Bytes::new());
            }
            let record = self.arena.record(&header, &kv.value);
            self.put(Table::Current, kv.key.clone(), record);
        }
        if self.batch.len() >= BATCH || self.bytes >= BATCH_BYTES {
            self.write()?;
        }
        Ok(())
    }

    /// Moves the newest version of a key to the old ones; which it was.
    fn supersede(&mut self, key: &Bytes) -> Result<Option<Revision>, Error> {
        let record = match self.batch.get(Table::Current, key) {
            Some(written) => written.cloned(),
            None => self.backend.get(Table::Current, key)?,
        };
        let Some(record) = record else {
            return Ok(None);
        };
        let Header {
            modified, lease, ..
        } = Header::read(&record)?;
        if self.leases.contains(&lease) {
            let entry = self.arena.attachment(lease, key);
            self.batch.delete(Table::Leases, entry);
        }
        let old = self.arena.old_key(key, modified);
        self.put(Table::Old, old, record);
        Ok(Some(modified))
    }

    fn put(&mut self, table: Table, key: Bytes, value: Bytes) {
        self.bytes += key.len() + value.len();
        self.batch.put(table, key, value);
    }

    fn write(&mut self) -> Result<(), Error> {
        self.backend.write(&self.batch)?;
        self.batch = Batch::new();
        self.bytes = 0;
        Ok(())
    }

    /// Ends the import. The store's revision is `revision`, or the last version's if that is larger; what is older
    /// than `compacted` becomes unreadable, and is removed once the store is in use. `applied` is the entry after
    /// which the new log goes on.
    ///
    /// # Errors
    /// When more is compacted than there is, or the backend fails.
    pub fn finish(
        mut self,
        revision: i64,
        compacted: Option<i64>,
        applied: Option<LogPosition>,
    ) -> Result<(), ImportError> {
        let revision = revision.max(self.last.main).max(State::EMPTY.revision);
        if revision > MAX_REVISION {
            return Err(ImportError::Exhausted { revision });
        }
        let compacted = compacted.unwrap_or(State::EMPTY.compacted);
        if compacted > revision {
            return Err(ImportError::Compacted {
                compacted,
                revision,
            });
        }
        let state = State {
            revision,
            compacted,
            applied,
            written_bytes: self.version_bytes,
            // Not in the record.
            alarmed: Alarmed::default(),
        };
        state.write(&mut self.batch);
        Ok(self.write()?)
    }
}

impl From<Corruption> for ImportError {
    fn from(corruption: Corruption) -> Self {
        Self::State(corruption.into())
    }
}
