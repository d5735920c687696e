//! What is known of the whole tree, and what is at a path.

use bytes::Bytes;
use prost::Message;

use crate::error::{Code, Damaged, Refusal};
use crate::event::Node;
use crate::path::above;
use crate::rows::{self, HEADER, Rows, Step};
use crate::tally::Tally;

/// The index of a tree that nobody has written to: as in etcd, whose own notes of a first member take the first ones.
const FIRST_INDEX: u64 = 3;

/// What is known of the whole tree.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct Header {
    #[prost(uint64, tag = "1")]
    pub(crate) index: u64,
    #[prost(message, required, tag = "2")]
    pub(crate) tally: Tally,
    /// Nothing expires before this. A walk that began further back would visit what a backend has not yet forgotten.
    #[prost(int64, tag = "3")]
    pub(crate) first_expiry: i64,
}

impl Header {
    pub(crate) fn read(row: Option<Bytes>) -> Result<Self, Damaged> {
        match row {
            Some(row) => Header::decode(row).map_err(|_| Damaged("the header")),
            None => Ok(Header {
                index: FIRST_INDEX,
                ..Header::default()
            }),
        }
    }
}

/// The index of the last change.
///
/// # Errors
/// When the rows cannot be read.
pub fn index<R: Rows>(rows: &R) -> Result<u64, R::Error> {
    Ok(Header::read(rows.get(HEADER)?)?.index)
}

/// When the first node expires, in nanoseconds since 1970.
///
/// # Errors
/// When the rows cannot be read.
pub fn next_expiry<R: Rows>(rows: &R) -> Result<Option<i64>, R::Error> {
    let from = Header::read(rows.get(HEADER)?)?.first_expiry;
    Ok(first_to_expire(rows, from)?.map(|(time, _)| time))
}

/// The moment and path of what expires first, nothing of which does before `from`.
pub(crate) fn first_to_expire<R: Rows>(
    rows: &R,
    from: i64,
) -> Result<Option<(i64, String)>, R::Error> {
    let mut first = Ok(None);
    rows.scan(
        &rows::expiry(from, ""),
        rows::EXPIRIES_END,
        &mut |key, _| {
            first = rows::read_expiry(key).map(Some);
            Step::Stop
        },
    )?;
    Ok(first?)
}

/// The node at a path. The root always is there.
pub(crate) fn node<R: Rows>(rows: &R, path: &str) -> Result<Option<Node>, R::Error> {
    if path == "/" {
        return Ok(Some(Node {
            path: path.to_owned(),
            dir: true,
            ..Node::default()
        }));
    }
    let row = rows.get(&rows::node(path))?;
    Ok(row.map(|row| Node::read(&row)).transpose()?)
}

/// The node at a path, or what is wrong with the way to it.
pub(crate) fn find<R: Rows>(
    rows: &R,
    path: &str,
    index: u64,
) -> Result<Result<Node, Refusal>, R::Error> {
    if let Some(node) = node(rows, path)? {
        return Ok(Ok(node));
    }
    let refusal = |code, cause: &str| Refusal {
        code,
        cause: cause.to_owned(),
        index,
    };
    for dir in above(path) {
        match node(rows, dir)? {
            Some(found) if found.dir => {}
            Some(_) => return Ok(Err(refusal(Code::NotDir, dir))),
            None => return Ok(Err(refusal(Code::KeyNotFound, dir))),
        }
    }
    Ok(Err(refusal(Code::KeyNotFound, path)))
}
