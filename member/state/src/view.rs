//! What a command sees: the backend with the writes of the current batch laid over it.
//!
//! Readers outside a batch use the same view without an overlay, which costs them one branch.

use std::cmp::Ordering;
use std::collections::btree_map;

use bytes::Bytes;

use crate::backend::{Backend, BackendError, Batch, Cursor, Entry, Table};

pub(crate) struct View<'a, B> {
    backend: &'a B,
    overlay: Option<&'a Batch>,
}

impl<B> Clone for View<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B> Copy for View<'_, B> {}

impl<'a, B: Backend> View<'a, B> {
    pub(crate) fn committed(backend: &'a B) -> Self {
        View {
            backend,
            overlay: None,
        }
    }

    pub(crate) fn within(backend: &'a B, batch: &'a Batch) -> Self {
        View {
            backend,
            overlay: Some(batch),
        }
    }

    pub(crate) fn get(self, table: Table, key: &[u8]) -> Result<Option<Bytes>, BackendError> {
        match self.overlay.and_then(|batch| batch.get(table, key)) {
            Some(written) => Ok(written.cloned()),
            None => self.backend.get(table, key),
        }
    }

    pub(crate) fn cursor(
        self,
        table: Table,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> Result<ViewCursor<'a, B>, BackendError> {
        let overlay = self
            .overlay
            .map(|batch| Overlay::new(batch.range(table, from, to)))
            .filter(|overlay| overlay.head.is_some());
        Ok(ViewCursor {
            base: self.backend.cursor(table, from, to)?,
            overlay,
        })
    }
}

/// A walk over a view. Without an overlay it lends straight from the backend.
pub(crate) struct ViewCursor<'a, B: Backend + 'a> {
    base: B::Cursor<'a>,
    overlay: Option<Overlay<'a>>,
}

struct Overlay<'a> {
    writes: btree_map::Range<'a, Bytes, Option<Bytes>>,
    head: Option<(&'a Bytes, &'a Option<Bytes>)>,
    /// The backend's next entry, copied out because it is compared before it is lent.
    base: Base,
    key: Vec<u8>,
    value: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq)]
enum Base {
    Unread,
    Loaded,
    Done,
}

impl<'a> Overlay<'a> {
    fn new(mut writes: btree_map::Range<'a, Bytes, Option<Bytes>>) -> Self {
        let head = writes.next();
        Overlay {
            writes,
            head,
            base: Base::Unread,
            key: Vec::new(),
            value: Vec::new(),
        }
    }
}

impl<B: Backend> Cursor for ViewCursor<'_, B> {
    fn next(&mut self) -> Result<Option<Entry<'_>>, BackendError> {
        let Some(overlay) = &mut self.overlay else {
            return self.base.next();
        };
        loop {
            if overlay.base == Base::Unread {
                overlay.base = match self.base.next()? {
                    Some((key, value)) => {
                        overlay.key.clear();
                        overlay.key.extend_from_slice(key);
                        overlay.value.clear();
                        overlay.value.extend_from_slice(value);
                        Base::Loaded
                    }
                    None => Base::Done,
                };
            }
            let order = match (overlay.head, overlay.base) {
                (None, Base::Loaded) => Ordering::Greater,
                (None, _) => return Ok(None),
                (Some((key, _)), Base::Loaded) => key[..].cmp(&overlay.key),
                (Some(_), _) => Ordering::Less,
            };
            if order.is_ge() {
                overlay.base = Base::Unread;
            }
            if order.is_gt() {
                return Ok(Some((&overlay.key, &overlay.value)));
            }
            let written = overlay.head;
            overlay.head = overlay.writes.next();
            if let Some((key, Some(value))) = written {
                return Ok(Some((key, value)));
            }
        }
    }

    fn seek(&mut self, key: &[u8]) -> Result<(), BackendError> {
        let Some(overlay) = &mut self.overlay else {
            return self.base.seek(key);
        };
        // The writes of a batch are few, and a seek must not forget where they end.
        while overlay.head.is_some_and(|(head, _)| &head[..] < key) {
            overlay.head = overlay.writes.next();
        }
        if overlay.base == Base::Loaded && overlay.key[..] < *key {
            overlay.base = Base::Unread;
        }
        if overlay.base == Base::Unread {
            self.base.seek(key)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::memory::MemoryBackend;

    type Writes = Vec<(u8, Option<u8>)>;

    fn batch(writes: &Writes) -> Batch {
        let mut batch = Batch::new();
        for (key, value) in writes {
            let key = Bytes::copy_from_slice(&[*key]);
            match value {
                Some(value) => batch.put(Table::Old, key, Bytes::copy_from_slice(&[*value])),
                None => batch.delete(Table::Old, key),
            }
        }
        batch
    }

    fn writes() -> impl Strategy<Value = Writes> {
        prop::collection::vec((0u8..8, prop::option::of(any::<u8>())), 0..12)
    }

    proptest! {
        #[test]
        fn overlay_reads_as_if_it_were_written(
            below in writes(), above in writes(), from in 0u8..9, to in prop::option::of(0u8..9),
            steps in 0usize..4, target in 0u8..9,
        ) {
            let backend = MemoryBackend::new();
            backend.write(&batch(&below)).unwrap();
            let overlay = batch(&above);
            let mut expected = BTreeMap::new();
            for (key, value) in below.iter().chain(&above) {
                match value {
                    Some(value) => expected.insert(*key, *value),
                    None => expected.remove(key),
                };
            }
            let view = View::within(&backend, &overlay);
            for key in 0..9 {
                let got = view.get(Table::Old, &[key]).unwrap().map(|value| value[0]);
                prop_assert_eq!(got, expected.get(&key).copied());
            }
            expected.retain(|key, _| from <= *key && to.is_none_or(|to| *key < to));
            let to = to.map(|to| [to]);
            let mut cursor = view.cursor(Table::Old, &[from], to.as_ref().map(|to| &to[..])).unwrap();
            let mut seen = BTreeMap::new();
            while let Some((key, value)) = cursor.next().unwrap() {
                prop_assert_eq!(seen.insert(key[0], value[0]), None);
            }
            prop_assert!(cursor.next().unwrap().is_none());
            prop_assert_eq!(&seen, &expected);

            let mut cursor = view.cursor(Table::Old, &[from], to.as_ref().map(|to| &to[..])).unwrap();
            let mut last = None;
            for _ in 0..steps {
                last = cursor.next().unwrap().map(|(key, _)| key[0]).or(last);
            }
            let target = target.max(from).max(last.map_or(0, |last| last + 1));
            cursor.seek(&[target]).unwrap();
            expected.retain(|key, _| *key >= target);
            let mut seen = BTreeMap::new();
            while let Some((key, value)) = cursor.next().unwrap() {
                prop_assert_eq!(seen.insert(key[0], value[0]), None);
            }
            prop_assert_eq!(seen, expected);
        }
    }
}
