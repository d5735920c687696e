//! The whole history at one moment, for a file that outlives the member.
//!
//! An export reads a snapshot of the backend, so that it may take as long as its receiver does and be walked more
//! than once: every walk yields the same rows. Commands and compactions go on beside it.

use bytes::Bytes;

use crate::backend::{Backend, BackendError, Cursor, Snapshot, Table};
use crate::command::{KeyValue, Lease};
use crate::compaction::Sweep;
use crate::error::{Corruption, Error};
use crate::layout::{
    Arena, Event, Header, Kind, RECORD_HEADER, Revision, join, meta, read_revision_key,
};
use crate::lease;
use crate::records::{self, Record};
use crate::store::{LogPosition, State, Store};

/// One write of history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// When it was written.
    pub revision: Revision,
    /// What was written: a version of a key, or its deletion, of which only the key counts.
    pub kv: KeyValue,
    /// Whether the key was deleted.
    pub deleted: bool,
}

/// A moment of a store.
pub struct Export<'a, B: Backend + 'a> {
    snapshot: B::Snapshot<'a>,
    state: State,
    swept: bool,
}

impl<B: Backend> Store<B> {
    /// Holds this moment.
    ///
    /// # Errors
    /// When the backend fails or holds a damaged entry.
    pub fn export(&self) -> Result<Export<'_, B>, Error> {
        let snapshot = self.backend.snapshot()?;
        // Read from the snapshot, so that it is the state of exactly these tables.
        let state = match snapshot.get(Table::Meta, meta::STATE)? {
            Some(record) => State::read(&record).map_err(|_| Corruption {
                table: "meta",
                what: "the state's record",
            })?,
            None => State::EMPTY,
        };
        let sweep = match snapshot.get(Table::Meta, meta::COMPACTION)? {
            Some(record) => Sweep::read(&record)?,
            None => Sweep::START,
        };
        Ok(Export {
            swept: sweep.has_reached(state.compacted),
            snapshot,
            state,
        })
    }
}

impl<B: Backend> Export<'_, B> {
    /// The revision of the moment.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.state.revision
    }

    /// The oldest readable revision; `None` before the first compaction.
    #[must_use]
    pub fn compacted(&self) -> Option<i64> {
        (self.state.compacted > 0).then_some(self.state.compacted)
    }

    /// Whether everything that the compaction made unreadable is gone.
    #[must_use]
    pub fn is_swept(&self) -> bool {
        self.swept
    }

    /// The last entry of the log whose effect is in it.
    #[must_use]
    pub fn applied(&self) -> Option<LogPosition> {
        self.state.applied
    }

    /// Calls `each` with every version that is kept, oldest first.
    ///
    /// # Errors
    /// What `each` returned, or a failure of the backend or a damaged entry.
    pub fn versions<E: From<Error>>(
        &self,
        mut each: impl FnMut(Version) -> Result<(), E>,
    ) -> Result<(), E> {
        let revisions = self.snapshot.cursor(Table::Revisions, &[], None);
        let mut revisions = revisions.map_err(Error::from)?;
        let mut arena = Arena::default();
        while let Some((key, value)) = revisions.next().map_err(Error::from)? {
            let revision = read_revision_key(key).map_err(Error::from)?;
            let event = Event::read(value).map_err(Error::from)?;
            each(self.version(revision, &event, &mut arena)?)?;
        }
        Ok(())
    }

    fn version(
        &self,
        revision: Revision,
        event: &Event<'_>,
        arena: &mut Arena,
    ) -> Result<Version, Error> {
        let key = Bytes::copy_from_slice(event.key);
        if event.kind == Kind::Delete {
            let kv = KeyValue {
                key,
                ..KeyValue::default()
            };
            return Ok(Version {
                revision,
                kv,
                deleted: true,
            });
        }
        let current = self.record(Table::Current, event.key, revision)?;
        let record = match current {
            Some(record) => Some(record),
            None => self.record(Table::Old, &arena.old_key(event.key, revision), revision)?,
        };
        let (header, record) = record.ok_or(Corruption {
            table: "revisions",
            what: "an entry without its version",
        })?;
        Ok(Version {
            revision,
            kv: join(key, &header, record.slice(RECORD_HEADER..)),
            deleted: false,
        })
    }

    fn record(
        &self,
        table: Table,
        key: &[u8],
        revision: Revision,
    ) -> Result<Option<(Header, Bytes)>, Error> {
        let Some(record) = self.snapshot.get(table, key)? else {
            return Ok(None);
        };
        let header = Header::read(&record)?;
        Ok((header.modified == revision).then_some((header, record)))
    }

    /// Calls `each` with every lease, in the order of their ids as unsigned numbers.
    ///
    /// # Errors
    /// What `each` returned, or a failure of the backend or a damaged entry.
    pub fn leases<E: From<Error>>(
        &self,
        mut each: impl FnMut(Lease) -> Result<(), E>,
    ) -> Result<(), E> {
        let entries = self.snapshot.cursor(Table::Leases, &[], None);
        let mut entries = entries.map_err(Error::from)?;
        while let Some((entry, record)) = entries.next().map_err(Error::from)? {
            // Longer entries are the keys that are attached to it.
            if let Ok(id) = entry.try_into() {
                each(lease::read(i64::from_be_bytes(id), record).map_err(Error::from)?)?;
            }
        }
        Ok(())
    }

    /// Users and roles, alarms and a downgrade.
    ///
    /// # Errors
    /// When the backend fails or holds a damaged entry.
    pub fn records(&self) -> Result<Vec<Record>, Error> {
        records::all(&self.snapshot)
    }

    /// A value that the server stored beside the keys.
    ///
    /// # Errors
    /// When the backend fails.
    pub fn get_meta(&self, key: &str) -> Result<Option<Bytes>, BackendError> {
        self.snapshot.get(Table::Meta, &meta::server(key))
    }
}

impl<B: Backend> std::fmt::Debug for Export<'_, B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Export")
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}
