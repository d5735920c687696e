//! What happened to the keys, revision by revision: what a watcher is told.
//!
//! Two sources agree with one another: an applier collects the events of its batch while it writes them, and
//! [`Store::events`] reads them back from the table of revisions, as far as no compaction took them.

use bytes::Bytes;

use crate::backend::{Backend, Cursor, Table};
use crate::command::KeyValue;
use crate::error::{Corruption, Error};
use crate::layout::{
    self, Arena, Header, Kind, RECORD_HEADER, Revision, read_revision_key, revision_key,
};
use crate::read::version_at;
use crate::store::Store;
use crate::view::View;

/// What an event did to its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// The key was written.
    Put,
    /// The key was deleted.
    Delete,
}

/// One write of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What was done.
    pub kind: EventKind,
    /// The version that was written; of a delete only the key and the revision.
    pub kv: KeyValue,
    /// The version before the event's revision. An applier fills it in; [`Store::events`] leaves it to
    /// [`Store::previous`].
    pub prev: Option<KeyValue>,
}

impl Event {
    /// The revision of the event.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.kv.mod_revision
    }

    /// Whether the key was not there before.
    #[must_use]
    pub fn is_create(&self) -> bool {
        self.kind == EventKind::Put && self.kv.create_revision == self.kv.mod_revision
    }

    /// Bytes of key and values.
    #[must_use]
    pub fn size(&self) -> usize {
        let of = |kv: &KeyValue| kv.key.len() + kv.value.len();
        of(&self.kv) + self.prev.as_ref().map_or(0, of)
    }

    pub(crate) fn put(kv: KeyValue, prev: Option<KeyValue>) -> Event {
        Event {
            kind: EventKind::Put,
            // A version of the same revision is not what was there before it.
            prev: prev.filter(|prev| prev.mod_revision < kv.mod_revision),
            kv,
        }
    }

    pub(crate) fn delete(key: Bytes, revision: i64, prev: Option<KeyValue>) -> Event {
        Event {
            kind: EventKind::Delete,
            kv: KeyValue {
                key,
                mod_revision: revision,
                ..KeyValue::default()
            },
            prev: prev.filter(|prev| prev.mod_revision < revision),
        }
    }
}

/// How far one read of history goes. It ends after the first whole revision that reaches one of the limits.
#[derive(Debug, Clone, Copy)]
pub struct HistoryLimit {
    /// Events looked at, wanted or not.
    pub visited: usize,
    /// Revisions with a wanted event.
    pub revisions: usize,
    /// Bytes of wanted events.
    pub bytes: usize,
}

/// A part of history.
#[derive(Debug, Clone)]
pub struct History {
    /// The wanted events, in their order. No revision is there in part.
    pub events: Vec<Event>,
    /// The first revision that was not looked at.
    pub next: i64,
    /// The current revision when it was read.
    pub revision: i64,
}

impl<B: Backend> Store<B> {
    /// Reads the events from revision `from` on whose key is `wanted`. May run beside commands and compactions.
    ///
    /// # Errors
    /// [`Error::Compacted`] when `from` is before the compacted revision (which itself can still be read), or when the
    /// backend fails.
    pub fn events(
        &self,
        from: i64,
        limit: &HistoryLimit,
        wanted: impl Fn(&[u8]) -> bool,
    ) -> Result<History, Error> {
        let state = self.published();
        if from < state.compacted {
            return Err(Error::Compacted);
        }
        let revision = state.revision;
        let bound = |main| revision_key(Revision { main, sub: 0 });
        let mut entries = self.backend.cursor(
            Table::Revisions,
            &bound(from.max(0)),
            Some(&bound(revision + 1)),
        )?;
        drop(state);
        let mut history = History {
            events: Vec::new(),
            next: from.max(revision + 1),
            revision,
        };
        let mut arena = Arena::default();
        let (mut visited, mut revisions, mut bytes) = (0, 0, 0);
        let mut last = None;
        while let Some((key, value)) = entries.next()? {
            let at = read_revision_key(key)?;
            let full =
                visited >= limit.visited || revisions >= limit.revisions || bytes >= limit.bytes;
            if full && last.is_some_and(|last| last != at.main) {
                history.next = at.main;
                break;
            }
            last = Some(at.main);
            visited += 1;
            let entry = layout::Event::read(value)?;
            if !wanted(entry.key) {
                continue;
            }
            let event = match entry.kind {
                Kind::Delete => Event::delete(arena.copy(entry.key), at.main, None),
                Kind::Put => match self.version(entry.key, at, &mut arena)? {
                    Some(record) => {
                        Event::put(layout::key_value(arena.copy(entry.key), &record)?, None)
                    }
                    None => {
                        // Only a compaction that came after the check above takes versions away.
                        let compacted = self.compact_revision();
                        if from < compacted {
                            return Err(Error::Compacted);
                        }
                        if at.main == compacted {
                            continue;
                        }
                        return Err(Error::from(Corruption {
                            table: "old",
                            what: "a version that history names",
                        }));
                    }
                },
            };
            bytes += event.size();
            let counted = history.events.last().map(Event::revision);
            revisions += usize::from(counted != Some(at.main));
            history.events.push(event);
        }
        Ok(history)
    }

    /// The record that a write left. A record moves from `Current` to `Old` in one step, so looking in this order finds
    /// it wherever it is.
    fn version(&self, key: &[u8], at: Revision, arena: &mut Arena) -> Result<Option<Bytes>, Error> {
        if let Some(record) = self.backend.get(Table::Current, key)?
            && Header::read(&record)?.modified == at
        {
            return Ok(Some(record));
        }
        Ok(self.backend.get(Table::Old, &arena.old_key(key, at))?)
    }

    /// The version of a key before `revision`; none when there was none, or when it is compacted.
    ///
    /// # Errors
    /// When the backend fails or holds a damaged entry.
    pub fn previous(&self, key: &Bytes, revision: i64) -> Result<Option<KeyValue>, Error> {
        let state = self.published();
        let at = revision - 1;
        if at < state.compacted {
            return Ok(None);
        }
        let record = version_at(View::committed(&self.backend), key, at)?;
        drop(state);
        let found = record.map(|record| layout::key_value(key.clone(), &record));
        Ok(found.transpose()?)
    }
}

/// What a superseded record was, for the event that supersedes it.
pub(crate) fn superseded(key: &Bytes, header: &Header, record: &Bytes) -> KeyValue {
    layout::join(key.clone(), header, record.slice(RECORD_HEADER..))
}
