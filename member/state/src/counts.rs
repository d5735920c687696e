//! The counts of the store's keys, in step with its commits.
//!
//! A store opens with its counts if it has few keys. Those of a larger one are made by [`Counts::build`] beside readers and
//! writers: it walks the keys as they were when it began, commits meanwhile note what they create and delete, and the
//! notes are added at the end. Until then, and after a failure, a count walks its range.
//!
//! Locking: only [`Counts::commit`], and the first and the last step of building, change the counts. Commits call under the exclusive
//! lock on the state, the others under the shared one; so counts, revision and tables that are taken under
//! the store's lock belong together.

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;

use crate::backend::{Backend, BackendError, Batch, Cursor, Table};
use crate::blocks::{Blocks, Sizes, Whole};
use crate::error::Error;
use crate::layout::{Event, Kind};

/// Keys that are counted at the opening: a few milliseconds.
pub(crate) const COUNTED_AT_OPEN: usize = 10_000;

/// The counts of a store's keys.
#[derive(Debug)]
pub(crate) struct Counts {
    sizes: Sizes,
    phase: RwLock<Phase>,
}

#[derive(Debug)]
enum Phase {
    Unknown,
    /// With the keys created and deleted since the walk began.
    Building(Vec<(Bytes, Kind)>),
    Known(Blocks),
}

/// The walk of a building, to be made while commits go on.
pub(crate) struct Walk<'a, B: Backend + 'a>(B::Cursor<'a>);

impl Counts {
    /// Counts the keys of `backend`, unless there are more than `at_most`.
    pub(crate) fn open<B: Backend>(
        backend: &B,
        sizes: Sizes,
        at_most: usize,
    ) -> Result<Self, BackendError> {
        let mut blocks = Blocks::new(sizes);
        let mut cursor = backend.cursor(Table::Current, &[], None)?;
        let mut phase = Phase::Unknown;
        for _ in 0..=at_most {
            let Some((key, _)) = cursor.next()? else {
                phase = Phase::Known(blocks);
                break;
            };
            blocks.push(key);
        }
        Ok(Counts {
            sizes,
            phase: RwLock::new(phase),
        })
    }

    pub(crate) fn known(&self) -> bool {
        matches!(*self.read(), Phase::Known(_))
    }

    /// The whole blocks of a range, once the counts are known.
    pub(crate) fn whole(&self, from: &[u8], to: Option<&[u8]>) -> Option<Whole> {
        match &*self.read() {
            Phase::Known(blocks) => blocks.whole(from, to),
            Phase::Unknown | Phase::Building(_) => None,
        }
    }

    /// Starts building, unless somebody does already or nothing is to be done. The caller holds off commits.
    pub(crate) fn start<'a, B: Backend>(
        &self,
        backend: &'a B,
    ) -> Result<Option<Walk<'a, B>>, BackendError> {
        let mut phase = self.write();
        if !matches!(*phase, Phase::Unknown) {
            return Ok(None);
        }
        let cursor = backend.cursor(Table::Current, &[], None)?;
        *phase = Phase::Building(Vec::new());
        Ok(Some(Walk(cursor)))
    }

    /// Walks the keys.
    pub(crate) fn build<B: Backend>(&self, walk: Walk<'_, B>) -> Result<Blocks, BackendError> {
        let Walk(mut cursor) = walk;
        let mut blocks = Blocks::new(self.sizes);
        loop {
            match cursor.next() {
                Ok(Some((key, _))) => blocks.push(key),
                Ok(None) => return Ok(blocks),
                Err(error) => {
                    *self.write() = Phase::Unknown;
                    return Err(error);
                }
            }
        }
    }

    /// Adds what was committed since the start. The caller holds off commits.
    pub(crate) fn finish<B: Backend>(
        &self,
        backend: &B,
        mut blocks: Blocks,
    ) -> Result<(), BackendError> {
        let mut phase = self.write();
        let Phase::Building(notes) = std::mem::replace(&mut *phase, Phase::Unknown) else {
            return Ok(());
        };
        let notes = notes.iter().map(|(key, kind)| (&key[..], *kind));
        note(&mut blocks, backend, notes)?;
        *phase = Phase::Known(blocks);
        Ok(())
    }

    /// Follows a batch that was just written to `backend`.
    pub(crate) fn commit<B: Backend>(&self, backend: &B, batch: &Batch) -> Result<(), Error> {
        let mut phase = self.write();
        if matches!(*phase, Phase::Unknown) {
            return Ok(());
        }
        let mut changes = Vec::new();
        for (_, event) in batch.iter(Table::Revisions) {
            let Some(event) = event else { continue };
            let event = Event::read(event)?;
            // A put over another version of its key changes no count.
            if event.kind == Kind::Delete || event.previous.is_none() {
                changes.push((event.key, event.kind));
            }
        }
        match &mut *phase {
            Phase::Unknown => {}
            Phase::Building(notes) => notes.extend(
                changes
                    .into_iter()
                    .map(|(key, kind)| (Bytes::copy_from_slice(key), kind)),
            ),
            Phase::Known(blocks) => note(blocks, backend, changes)?,
        }
        Ok(())
    }

    // The counts of a panicked writer may be torn, but so is its commit: the store takes no more after it.
    fn read(&self) -> RwLockReadGuard<'_, Phase> {
        self.phase.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Phase> {
        self.phase.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds changes in their order, then cuts the blocks that grew too large by the keys in `backend`.
fn note<'k, B: Backend>(
    blocks: &mut Blocks,
    backend: &B,
    changes: impl IntoIterator<Item = (&'k [u8], Kind)>,
) -> Result<(), BackendError> {
    let mut oversize = Vec::new();
    for (key, kind) in changes {
        match kind {
            Kind::Put => {
                if blocks.add(key) {
                    oversize.push(key);
                }
            }
            Kind::Delete => blocks.remove(key),
        }
    }
    for key in oversize {
        let Some((mut pieces, to)) = blocks.oversize(key) else {
            continue;
        };
        let mut cursor = backend.cursor(Table::Current, pieces.from(), to)?;
        while let Some((key, _)) = cursor.next()? {
            pieces.push(key);
        }
        drop(cursor);
        blocks.cut(pieces);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::atomic::{AtomicBool, Ordering};

    use proptest::prelude::*;

    use super::*;
    use crate::command::{Command, Compact, DeleteRange, Op, Put, Range, Txn, TxnOp, TxnRequest};
    use crate::memory::MemoryBackend;
    use crate::store::{LogPosition, Store};

    /// Blocks of a few keys, so that a few keys make many.
    const TINY: Sizes = Sizes {
        largest: 4,
        piece: 2,
        group: 4,
    };

    type Key = Vec<u8>;

    #[derive(Debug, Clone)]
    enum Step {
        Put(Key),
        Delete(Key, Option<Key>),
        Txn(Vec<(Key, bool)>),
        Commit,
        /// The batch is lost.
        Crash,
        Reopen,
        Build,
        /// Commits come between the two halves of building.
        BuildAcross(Vec<Key>),
        Compact,
    }

    fn key() -> impl Strategy<Value = Key> {
        prop::collection::vec(prop::sample::select(&b"\0abc\xff"[..]), 1..4)
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            12 => key().prop_map(Step::Put),
            2 => (key(), prop::option::of(key())).prop_map(|(from, to)| Step::Delete(from, to)),
            2 => prop::collection::btree_map(key(), any::<bool>(), 1..6)
                .prop_map(|ops| Step::Txn(ops.into_iter().collect())),
            5 => Just(Step::Commit),
            1 => Just(Step::Crash),
            1 => Just(Step::Reopen),
            1 => Just(Step::Build),
            1 => prop::collection::vec(key(), 0..6).prop_map(Step::BuildAcross),
            1 => Just(Step::Compact),
        ]
    }

    fn put(key: &Key) -> Put {
        Put {
            key: key.clone().into(),
            ..Put::default()
        }
    }

    fn delete(from: &Key, to: Option<&Key>) -> DeleteRange {
        DeleteRange {
            key: from.clone().into(),
            range_end: to.cloned().unwrap_or_default().into(),
            ..DeleteRange::default()
        }
    }

    /// The live keys at every revision, and the ops that are not committed.
    struct Model {
        at: Vec<BTreeSet<Key>>,
        pending: Vec<Op>,
        index: u64,
    }

    impl Model {
        fn apply(&mut self, store: &Store<MemoryBackend>) {
            let mut applier = store.begin();
            for op in self.pending.drain(..) {
                self.index += 1;
                let position = LogPosition {
                    term: 1,
                    node: 1,
                    index: self.index,
                };
                let mut keys = self.at.last().unwrap().clone();
                let one = |keys: &mut BTreeSet<Key>, op: &TxnRequest| match op {
                    TxnRequest::Put(put) => {
                        keys.insert(put.key.to_vec());
                        true
                    }
                    TxnRequest::DeleteRange(delete) => {
                        let before = keys.len();
                        let end = &delete.range_end[..];
                        keys.retain(|key| match end {
                            [] => key[..] != delete.key[..],
                            [0] => key[..] < delete.key[..],
                            end => key[..] < delete.key[..] || key[..] >= *end,
                        });
                        keys.len() < before
                    }
                    _ => false,
                };
                let wrote = match &op {
                    Op::Put(put) => one(&mut keys, &TxnRequest::Put(put.clone())),
                    Op::DeleteRange(delete) => {
                        one(&mut keys, &TxnRequest::DeleteRange(delete.clone()))
                    }
                    Op::Txn(txn) => {
                        let mut wrote = false;
                        for op in &txn.success {
                            wrote |= one(&mut keys, op.request.as_ref().unwrap());
                        }
                        wrote
                    }
                    _ => false,
                };
                applier
                    .apply(position, Some(&Command::new(0, op)), false)
                    .unwrap();
                if wrote {
                    self.at.push(keys);
                }
            }
            applier.commit().unwrap();
        }

        fn check(&self, store: &Store<MemoryBackend>, from: &Key, to: &Key, limit: i64) {
            let newest = i64::try_from(self.at.len()).unwrap();
            assert_eq!(store.revision(), newest);
            for revision in store.compact_revision().max(1)..=newest {
                let keys = &self.at[usize::try_from(revision - 1).unwrap()];
                for count_only in [false, true] {
                    let range = Range {
                        key: from.clone().into(),
                        range_end: to.clone().into(),
                        revision,
                        limit,
                        count_only,
                        ..Range::default()
                    };
                    let inside: Vec<_> = keys
                        .iter()
                        .filter(|key| *key >= from && (to[..] == *b"\0" || *key < to))
                        .collect();
                    let got = store.range(&range).unwrap();
                    assert_eq!(got.count, i64::try_from(inside.len()).unwrap(), "{range:?}");
                    if !count_only {
                        let page = inside.len().min(usize::try_from(limit).unwrap());
                        let keys: Vec<_> = got.kvs.iter().map(|kv| &kv.key[..]).collect();
                        assert_eq!(keys, inside[..page], "{range:?}");
                    }
                }
            }
        }
    }

    fn open(backend: MemoryBackend, counted_at_open: usize) -> Store<MemoryBackend> {
        Store::open_counting(backend, TINY, counted_at_open).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

        #[test]
        fn counts_follow_every_history(
            steps in prop::collection::vec(step(), 1..120),
            reads in prop::collection::vec((key(), prop_oneof![Just(b"\0".to_vec()), key()], 1i64..5), 1..4),
            counted_at_open in prop_oneof![Just(0usize), Just(1000)],
        ) {
            let mut store = open(MemoryBackend::new(), counted_at_open);
            let mut model = Model { at: vec![BTreeSet::new()], pending: Vec::new(), index: 0 };
            for step in steps {
                match step {
                    Step::Put(key) => model.pending.push(Op::Put(put(&key))),
                    Step::Delete(from, to) => {
                        model.pending.push(Op::DeleteRange(delete(&from, to.as_ref())));
                    }
                    Step::Txn(ops) => {
                        let ops = ops.iter().map(|(key, is_put)| TxnOp::from(if *is_put {
                            TxnRequest::Put(put(key))
                        } else {
                            TxnRequest::DeleteRange(delete(key, None))
                        }));
                        model.pending.push(Op::Txn(Txn { success: ops.collect(), ..Txn::default() }));
                    }
                    Step::Commit => model.apply(&store),
                    Step::Crash => model.pending.clear(),
                    Step::Reopen => store = open(store.backend().clone(), counted_at_open),
                    Step::Build => {
                        store.count_keys().unwrap();
                        prop_assert!(store.is_counted());
                    }
                    Step::BuildAcross(keys) => {
                        if let Some(walk) = store.counts.start(&store.backend).unwrap() {
                            store.count_keys().unwrap();
                            prop_assert!(!store.is_counted(), "two build at once");
                            model.pending.extend(keys.iter().map(|key| Op::Put(put(key))));
                            model.apply(&store);
                            let blocks = store.counts.build::<MemoryBackend>(walk).unwrap();
                            model.pending.extend(keys.iter().map(|key| Op::DeleteRange(delete(key, None))));
                            model.apply(&store);
                            store.counts.finish(&store.backend, blocks).unwrap();
                        }
                        prop_assert!(store.is_counted());
                    }
                    Step::Compact => {
                        let revision = store.revision() - 3;
                        if revision > store.compact_revision() {
                            model.pending.push(Op::Compact(Compact { revision, physical: false }));
                            model.apply(&store);
                            store.compact_step(usize::MAX).unwrap();
                        }
                    }
                }
            }
            for (from, to, limit) in reads {
                if to[..] == *b"\0" || from < to {
                    model.check(&store, &from, &to, limit);
                }
            }
            model.check(&store, &b"\0".to_vec(), &b"\0".to_vec(), 2);
        }
    }

    /// Counts and revision are of one moment: the n-th revision of this history has n - 1 keys.
    #[test]
    fn counts_beside_a_writer_belong_to_the_revision_of_the_answer() {
        let store = open(MemoryBackend::new(), 0);
        let writing = AtomicBool::new(true);
        let check = || {
            let mut range = Range {
                key: Bytes::from_static(b"\0"),
                range_end: Bytes::from_static(b"\0"),
                limit: 3,
                ..Range::default()
            };
            let now = store.range(&range).unwrap();
            assert_eq!(now.count, now.revision - 1);
            range.revision = (now.revision / 2).max(1);
            range.count_only = true;
            assert_eq!(store.range(&range).unwrap().count, range.revision - 1);
        };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while writing.load(Ordering::Relaxed) {
                    check();
                }
            });
            let mut model = Model {
                at: vec![BTreeSet::new()],
                pending: Vec::new(),
                index: 0,
            };
            for number in 0..600u32 {
                let key = number.wrapping_mul(0x9e37_79b9).to_be_bytes().to_vec();
                model.pending.push(Op::Put(put(&key)));
                model.apply(&store);
                if number == 300 {
                    store.count_keys().unwrap();
                }
            }
            writing.store(false, Ordering::Relaxed);
        });
        check();
    }
}
