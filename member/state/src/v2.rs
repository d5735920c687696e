//! The v2 keys' rows among the state's own keys: they are written, copied and replaced with everything else.

use bytes::Bytes;
use member_v2::{Rows, RowsMut, Step};

use crate::backend::{Backend, BackendError, Batch, Cursor, Snapshot, Table};
use crate::error::Error;
use crate::layout::meta;
use crate::store::Store;
use crate::view::View;

fn own(key: &[u8]) -> Bytes {
    [meta::V2, key].concat().into()
}

fn walk(
    mut cursor: impl Cursor,
    visit: &mut dyn FnMut(&[u8], &[u8]) -> Step,
) -> Result<(), BackendError> {
    while let Some((key, value)) = cursor.next()? {
        match visit(&key[meta::V2.len()..], value) {
            Step::Next => {}
            Step::Seek(key) => cursor.seek(&own(&key))?,
            Step::Stop => break,
        }
    }
    Ok(())
}

/// The rows with the writes of the current batch.
pub(crate) struct Within<'a, B> {
    pub(crate) backend: &'a B,
    pub(crate) batch: &'a mut Batch,
}

impl<B: Backend> Rows for Within<'_, B> {
    type Error = Error;

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Error> {
        Ok(View::within(self.backend, self.batch).get(Table::Meta, &own(key))?)
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> Step,
    ) -> Result<(), Error> {
        let view = View::within(self.backend, self.batch);
        let cursor = view.cursor(Table::Meta, &own(from), Some(&own(to)))?;
        Ok(walk(cursor, visit)?)
    }
}

impl<B: Backend> RowsMut for Within<'_, B> {
    fn put(&mut self, key: Vec<u8>, value: Bytes) {
        self.batch.put(Table::Meta, own(&key), value);
    }

    fn delete(&mut self, key: Vec<u8>) {
        self.batch.delete(Table::Meta, own(&key));
    }
}

/// The rows of one moment.
pub struct V2Rows<S>(S);

impl<S: Snapshot> Rows for V2Rows<S> {
    type Error = Error;

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Error> {
        Ok(self.0.get(Table::Meta, &own(key))?)
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> Step,
    ) -> Result<(), Error> {
        let cursor = self.0.cursor(Table::Meta, &own(from), Some(&own(to)))?;
        Ok(walk(cursor, visit)?)
    }
}

impl<B: Backend> Store<B> {
    /// The v2 keys of this moment.
    ///
    /// # Errors
    /// When the backend fails.
    pub fn v2(&self) -> Result<V2Rows<B::Snapshot<'_>>, Error> {
        Ok(V2Rows(self.backend.snapshot()?))
    }
}
