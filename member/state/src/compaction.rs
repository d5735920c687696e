//! Physical removal of what a compaction made unreadable.
//!
//! The compaction itself is only a number in the state. A sweep then walks the table of revisions from the last
//! compacted revision to the new one. Every entry names the version that it superseded, which
//! nobody can read any more; a tombstone before the compacted revision goes too. A tombstone at the very revision
//! stays until the next sweep, for a watcher that starts there.
//!
//! Every step is one batch that removes and says how far it came, so a crash between steps loses nothing. Removing
//! twice does no harm. A sweep touches nothing that is readable at the compacted revision or after it.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::backend::{Backend, Batch, Cursor, Table};
use crate::error::{Corruption, Error};
use crate::layout::{
    Arena, Event, Kind, RECORD_HEADER, Revision, meta, read_revision_key, revision_key,
    version_bytes,
};

/// How far the physical removal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompactProgress {
    /// Nothing is left to remove.
    Done {
        /// The compacted revision.
        revision: i64,
        /// Versions removed by this step.
        removed: usize,
    },
    /// There is more: call again.
    More {
        /// Versions removed by this step.
        removed: usize,
    },
}

/// Where the sweep stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sweep {
    /// The compacted revision that it works towards, or reached.
    target: i64,
    /// The first entry not visited.
    next: Revision,
    done: bool,
    /// The bytes of the versions removed so far, by all sweeps.
    removed_bytes: u64,
}

impl Sweep {
    pub(crate) const START: Sweep = Sweep {
        target: -1,
        next: Revision::ZERO,
        done: true,
        removed_bytes: 0,
    };

    pub(crate) fn removed_bytes(&self) -> u64 {
        self.removed_bytes
    }

    fn write(&self, batch: &mut Batch) {
        let mut out = BytesMut::with_capacity(29);
        out.put_i64(self.target);
        out.put_i64(self.next.main);
        out.put_u32(self.next.sub);
        out.put_u8(u8::from(self.done));
        out.put_u64(self.removed_bytes);
        batch.put(
            Table::Meta,
            Bytes::from_static(meta::COMPACTION),
            out.freeze(),
        );
    }

    pub(crate) fn read(mut bytes: &[u8]) -> Result<Sweep, Corruption> {
        let mut parse = || {
            Ok(Sweep {
                target: bytes.try_get_i64()?,
                next: Revision {
                    main: bytes.try_get_i64()?,
                    sub: bytes.try_get_u32()?,
                },
                done: bytes.try_get_u8()? != 0,
                // A record of an earlier release ends here.
                removed_bytes: bytes.try_get_u64().unwrap_or(0),
            })
        };
        parse().map_err(|_: bytes::TryGetError| Corruption {
            table: "meta",
            what: "the compaction's progress",
        })
    }

    /// Whether everything below `target` is removed.
    pub(crate) fn has_reached(&self, target: i64) -> bool {
        self.target == target && self.done
    }

    fn aim(&mut self, target: i64) {
        if self.target != target {
            // The tombstones at the old target were spared: visit them again.
            let spared = Revision {
                main: self.target.max(0),
                sub: 0,
            };
            self.next = self.next.min(spared);
            self.target = target;
            self.done = false;
        }
    }
}

/// Visits at most `max_keys` entries.
pub(crate) fn step<B: Backend>(
    backend: &B,
    sweep: &mut Sweep,
    target: i64,
    max_keys: usize,
) -> Result<CompactProgress, Error> {
    let mut now = *sweep;
    now.aim(target);
    if now.done {
        return Ok(CompactProgress::Done {
            revision: target,
            removed: 0,
        });
    }
    let end = Revision {
        main: target + 1,
        sub: 0,
    };
    let mut batch = Batch::new();
    let mut arena = Arena::default();
    let mut removed = 0;
    let mut visited = 0;
    let mut entries = backend.cursor(
        Table::Revisions,
        &revision_key(now.next),
        Some(&revision_key(end)),
    )?;
    // A step that visits nothing would never come to an end.
    while visited < max_keys.max(1) {
        let Some((key, value)) = entries.next()? else {
            now.done = true;
            break;
        };
        visited += 1;
        let revision = read_revision_key(key)?;
        let event = Event::read(value)?;
        let tombstone = event.kind == Kind::Delete && revision.main < target;
        let gone = event
            .previous
            .into_iter()
            .chain(tombstone.then_some(revision));
        for version in gone {
            let old = arena.old_key(event.key, version);
            if let Some(record) = backend.get(Table::Old, &old)? {
                let value = record.len().saturating_sub(RECORD_HEADER);
                now.removed_bytes += version_bytes(event.key.len(), value);
            }
            batch.delete(Table::Old, old);
            batch.delete(Table::Revisions, arena.revision_key(version));
            removed += 1;
        }
        now.next = Revision {
            main: revision.main,
            sub: revision.sub + 1,
        };
    }
    now.write(&mut batch);
    backend.write(&batch)?;
    *sweep = now;
    Ok(if now.done {
        CompactProgress::Done {
            revision: target,
            removed,
        }
    } else {
        CompactProgress::More { removed }
    })
}
