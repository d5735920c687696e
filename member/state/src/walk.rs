//! History in the order of revisions, as etcd's own database holds it.
//!
//! The table of revisions gives the order, the other two the versions. The walk yields what is logically
//! there: what a compaction gave up is left out whether a sweep removed it already or not.

use bytes::Bytes;
use prost::Message;

use crate::backend::{Backend, Cursor, Table};
use crate::command::KeyValue;
use crate::error::{Corruption, Error};
use crate::layout::{
    self, Event, Header, Kind, Revision, old_version, old_versions, read_revision_key, revision_key,
};

/// One write of history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryRecord {
    /// Where in history it stands.
    pub revision: Revision,
    /// Whether it deleted the key; `key_value` then has only the key.
    pub tombstone: bool,
    /// What was written.
    pub key_value: KeyValue,
}

/// A version as etcd writes it to its database: zero fields are left out.
#[derive(Clone, PartialEq, Message)]
struct Stored {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(int64, tag = "2")]
    create_revision: i64,
    #[prost(int64, tag = "3")]
    mod_revision: i64,
    #[prost(int64, tag = "4")]
    version: i64,
    #[prost(bytes = "bytes", tag = "5")]
    value: Bytes,
    #[prost(int64, tag = "6")]
    lease: i64,
}

impl HistoryRecord {
    /// Replaces `out` by the record's key in etcd's database: `main(8) _ sub(8)`, and `t` for a tombstone.
    pub fn stored_key(&self, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(&self.revision.main.to_be_bytes());
        out.push(b'_');
        out.extend_from_slice(&u64::from(self.revision.sub).to_be_bytes());
        if self.tombstone {
            out.push(b't');
        }
    }

    /// Replaces `out` by the record's value in etcd's database, a protobuf message.
    pub fn stored_value(&self, out: &mut Vec<u8>) {
        out.clear();
        let stored = Stored {
            key: self.key_value.key.clone(),
            create_revision: self.key_value.create_revision,
            mod_revision: self.key_value.mod_revision,
            version: self.key_value.version,
            value: self.key_value.value.clone(),
            lease: self.key_value.lease,
        };
        // A vector grows as needed, so this cannot fail.
        let _ = stored.encode(out);
    }
}

/// The part of history that a walk is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryBounds {
    /// The compacted revision; -1 before the first compaction.
    pub compacted: i64,
    /// The last revision to visit.
    pub revision: i64,
}

/// What a walk yields of what is not newer than the compacted revision.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keep {
    /// Versions that were the newest of their keys at this revision.
    pub(crate) at: i64,
    /// Tombstones at the compacted revision itself.
    pub(crate) tombstones: bool,
}

/// Where a step of a walk ended.
pub(crate) enum Step {
    /// Everything was visited.
    Done,
    /// To be continued here.
    More(Revision),
    /// A version that should be there is not: a later compaction removed it, or the tables are damaged.
    Missing,
}

/// Visits at most `max` entries from `from` on.
pub(crate) fn step<B: Backend>(
    backend: &B,
    bounds: HistoryBounds,
    keep: Keep,
    from: Revision,
    max: usize,
    visit: &mut impl FnMut(HistoryRecord),
) -> Result<Step, Error> {
    let end = revision_key(Revision {
        main: bounds.revision.saturating_add(1),
        sub: 0,
    });
    let mut entries = backend.cursor(Table::Revisions, &revision_key(from), Some(&end))?;
    for _ in 0..max.max(1) {
        let Some((key, value)) = entries.next()? else {
            return Ok(Step::Done);
        };
        let revision = read_revision_key(key)?;
        let event = Event::read(value)?;
        let compacted = revision.main <= bounds.compacted;
        if event.kind == Kind::Delete {
            if !compacted || (keep.tombstones && revision.main == bounds.compacted) {
                visit(HistoryRecord {
                    revision,
                    tombstone: true,
                    key_value: KeyValue {
                        key: Bytes::copy_from_slice(event.key),
                        ..KeyValue::default()
                    },
                });
            }
            continue;
        }
        match version(backend, event.key, revision)? {
            Some(found) => {
                if !compacted || found.current || newest(backend, event.key, keep.at)? == revision {
                    let key = Bytes::copy_from_slice(event.key);
                    visit(HistoryRecord {
                        revision,
                        tombstone: false,
                        key_value: layout::key_value(key, &found.record)?,
                    });
                }
            }
            // A sweep came by.
            None if compacted => {}
            None => return Ok(Step::Missing),
        }
    }
    // The next step begins behind the last entry: its key is not at hand any more, the following one is.
    match entries.next()? {
        Some((key, _)) => Ok(Step::More(read_revision_key(key)?)),
        None => Ok(Step::Done),
    }
}

struct Version {
    record: Bytes,
    current: bool,
}

/// One version of a key. `Current` is looked at first: a version moves from there to `Old`, never back.
fn version<B: Backend>(
    backend: &B,
    key: &[u8],
    revision: Revision,
) -> Result<Option<Version>, Error> {
    if let Some(record) = backend.get(Table::Current, key)?
        && Header::read(&record)?.modified == revision
    {
        return Ok(Some(Version {
            record,
            current: true,
        }));
    }
    let old = backend.get(Table::Old, &old_version(key, revision))?;
    Ok(old.map(|record| Version {
        record,
        current: false,
    }))
}

/// The newest version or tombstone of a key at `main`, of which it is known that one was superseded.
fn newest<B: Backend>(backend: &B, key: &[u8], main: i64) -> Result<Revision, Error> {
    if let Some(record) = backend.get(Table::Current, key)? {
        let modified = Header::read(&record)?.modified;
        if modified.main <= main {
            return Ok(modified);
        }
    }
    let (from, to) = old_versions(key, main);
    let mut versions = backend.cursor(Table::Old, &from, Some(&to))?;
    match versions.next()? {
        Some((_, record)) => Ok(Header::read(record)?.modified),
        None => Ok(Revision::ZERO),
    }
}

/// The tables contradict each other.
pub(crate) fn missing() -> Error {
    Error::from(Corruption {
        table: "revisions",
        what: "the version that an entry names",
    })
}
