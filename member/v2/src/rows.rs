//! The rows that the tree lives in, and how they are named.
//!
//! | row | holds |
//! |---|---|
//! | `e` index | the event of that index |
//! | `h` | the current index and the tally of writes |
//! | `n` path | a node; the root has none |
//! | `x` nanoseconds path | nothing: that node expires then |

use bytes::Bytes;

use crate::error::Damaged;

/// What a visitor wants to see next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The row that follows.
    Next,
    /// The first row at or after this one, which lies ahead.
    Seek(Vec<u8>),
    /// Nothing more.
    Stop,
}

/// Ordered rows of one moment.
pub trait Rows {
    /// Why rows cannot be read.
    type Error: From<Damaged>;

    /// Reads one row.
    ///
    /// # Errors
    /// When the rows cannot be read.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Self::Error>;

    /// Visits the rows of `[from, to)` in their order, key and value.
    ///
    /// # Errors
    /// When the rows cannot be read.
    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> Step,
    ) -> Result<(), Self::Error>;
}

/// Rows that can be changed; a change is seen by the reads that follow.
pub trait RowsMut: Rows {
    /// Sets a row.
    fn put(&mut self, key: Vec<u8>, value: Bytes);

    /// Removes a row, present or not.
    fn delete(&mut self, key: Vec<u8>);
}

pub(crate) const HEADER: &[u8] = b"h";

pub(crate) fn event(index: u64) -> Vec<u8> {
    [b"e", &index.to_be_bytes()[..]].concat()
}

pub(crate) fn node(path: &str) -> Vec<u8> {
    [b"n", path.as_bytes()].concat()
}

/// Where the rows of everything below a directory begin and end.
pub(crate) fn below(dir: &str) -> (Vec<u8>, Vec<u8>) {
    let dir = if dir == "/" { "" } else { dir };
    // The character after the slash.
    let bound = |end: u8| [b"n", dir.as_bytes(), &[end]].concat();
    (bound(b'/'), bound(b'/' + 1))
}

/// Where the row of what expires lies; only moments after 1970 are.
pub(crate) fn expiry(nanos: i64, path: &str) -> Vec<u8> {
    [b"x", &nanos.to_be_bytes()[..], path.as_bytes()].concat()
}

/// Where the rows of what expires end.
pub(crate) const EXPIRIES_END: &[u8] = b"y";

/// The moment and the path of such a row.
pub(crate) fn read_expiry(key: &[u8]) -> Result<(i64, String), Damaged> {
    let damaged = Damaged("an expiry");
    let (nanos, path) = key
        .get(1..)
        .and_then(<[u8]>::split_first_chunk)
        .ok_or(damaged)?;
    let path = String::from_utf8(path.to_vec()).map_err(|_| damaged)?;
    Ok((i64::from_be_bytes(*nanos), path))
}
