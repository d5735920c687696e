//! The hash by which members compare their keys, equal to etcd's for equal data.
//!
//! It is the CRC-32C of what etcd's database would hold: the name of its bucket, then each version up to the revision
//! in the order of history. Of what is not newer than the compaction only the versions that are live at
//! the hashed revision count, and no tombstone: so members agree however far their sweeps are.

use crate::backend::{Backend, Cursor, Table};
use crate::error::Error;
use crate::layout::Revision;
use crate::read::{Keys, Scan};
use crate::store::Store;
use crate::view::View;
use crate::walk::{self, HistoryBounds, HistoryRecord, Keep, Step};

/// A hash and what it is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyValueHash {
    /// The hash.
    pub hash: u32,
    /// The compacted revision at which it was taken.
    pub compact_revision: i64,
    /// The revision up to which it goes.
    pub revision: i64,
    /// The newest revision when it was asked for.
    pub current: i64,
}

/// The bucket of etcd's database.
const BUCKET: &[u8] = b"key";

/// Entries visited between two looks at the compaction; a cursor keeps old files alive for as long.
const STEP: usize = 1000;

/// How often a walk starts again because a compaction overtook it.
const ATTEMPTS: usize = 16;

impl<B: Backend> Store<B> {
    /// The hash of all keys and their history up to `revision`, 0 for the newest. May take its time.
    ///
    /// # Errors
    /// When the revision is compacted or in the future, or the backend fails.
    pub fn hash_kv(&self, revision: i64) -> Result<KeyValueHash, Error> {
        for _ in 0..ATTEMPTS {
            if let Some(hash) = self.try_hash_kv(revision)? {
                return Ok(hash);
            }
        }
        Err(Error::Compacted)
    }

    /// `None` when a compaction came in between.
    fn try_hash_kv(&self, revision: i64) -> Result<Option<KeyValueHash>, Error> {
        let state = self.published();
        let current = state.revision;
        let compacted = state.compacted;
        if revision > 0 && revision < compacted {
            return Err(Error::Compacted);
        }
        // etcd: nothing was written up to there.
        if revision < 0 {
            return Ok(Some(KeyValueHash {
                hash: crc32c::crc32c(BUCKET),
                compact_revision: compacted,
                revision,
                current,
            }));
        }
        if revision > current {
            return Err(Error::FutureRevision);
        }
        let target = if revision == 0 { current } else { revision };
        let at = (target != current).then_some(target);
        let view = View::committed(&self.backend);
        let mut live = Scan::open(view, &Keys::Span(&[], None), at)?;
        drop(state);
        // etcd 3.6: when no key is live at the revision, what the compaction kept is not sifted again.
        let keep = Keep {
            at: if live.walk()?.is_some() {
                target
            } else {
                compacted
            },
            tombstones: false,
        };
        drop(live);
        let bounds = HistoryBounds {
            compacted,
            revision: target,
        };
        let mut hash = crc32c::crc32c(BUCKET);
        let (mut key, mut value) = (Vec::new(), Vec::new());
        let mut from = Revision::ZERO;
        loop {
            let mut visit = |record: HistoryRecord| {
                record.stored_key(&mut key);
                record.stored_value(&mut value);
                hash = crc32c::crc32c_append(crc32c::crc32c_append(hash, &key), &value);
            };
            let step = walk::step(&self.backend, bounds, keep, from, STEP, &mut visit)?;
            if self.compact_revision() != compacted {
                return Ok(None);
            }
            match step {
                Step::More(next) => from = next,
                Step::Missing => return Err(walk::missing()),
                Step::Done => break,
            }
        }
        Ok(Some(KeyValueHash {
            hash,
            compact_revision: compacted,
            revision: target,
            current,
        }))
    }

    /// What history there is now.
    pub fn history_bounds(&self) -> HistoryBounds {
        let state = self.published();
        HistoryBounds {
            compacted: state.compacted,
            revision: state.revision,
        }
    }

    /// Visits at most `max` entries of history from `from` on, [`Revision`] `0.0` for its beginning, and says where
    /// to go on, `None` at its end.
    ///
    /// It yields exactly what etcd keeps: everything newer than the compaction, the tombstones at it, and of each key
    /// that was live then its version.
    ///
    /// # Errors
    /// [`Error::Compacted`] when a compaction after `bounds` was taken came in between: what was visited is then not
    /// all there was. When the backend fails or holds a damaged entry.
    pub fn history_records(
        &self,
        bounds: HistoryBounds,
        from: Revision,
        max: usize,
        mut visit: impl FnMut(HistoryRecord),
    ) -> Result<Option<Revision>, Error> {
        let keep = Keep {
            at: bounds.compacted,
            tombstones: true,
        };
        let step = walk::step(&self.backend, bounds, keep, from, max, &mut visit)?;
        if self.compact_revision() != bounds.compacted {
            return Err(Error::Compacted);
        }
        match step {
            Step::More(next) => Ok(Some(next)),
            Step::Done => Ok(None),
            Step::Missing => Err(walk::missing()),
        }
    }

    /// A checksum of all tables as they are, the member's own bookkeeping included: it tells whether this member's
    /// storage reads the same twice. Unlike [`Store::hash_kv`] it differs between members, as etcd's does
    /// between versions.
    ///
    /// # Errors
    /// When the backend cannot be read.
    pub fn hash_backend(&self) -> Result<u32, Error> {
        let mut hash = 0;
        for table in Table::ALL {
            hash = crc32c::crc32c_append(hash, table.name().as_bytes());
            let mut entries = self.backend.cursor(table, &[], None)?;
            while let Some((key, value)) = entries.next()? {
                hash = crc32c::crc32c_append(crc32c::crc32c_append(hash, key), value);
            }
        }
        Ok(hash)
    }
}
