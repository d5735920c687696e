//! Writing a database in one go: the rows are walked twice, first to know the size, then to write.
//!
//! Pages come in the order in which they are complete: leaves as they fill, a branch after its last child, the
//! root of a bucket last. So a page knows its children's numbers when it is written, and the two meta pages at the
//! beginning need only what the first walk found.

use std::io::{self, Write};

use crate::error::WriteError;
use crate::format::{
    BRANCH, BUCKET, BUCKET_HEADER, ELEMENT, FREELIST, HEADER, LEAF, MAX_KEY, MAX_VALUE, META, Meta,
    PAGE, PageHeader,
};

/// Takes one row; an error ends the walk.
pub type Row<'a> = dyn FnMut(&[u8], &[u8]) -> Result<(), WriteError> + 'a;

/// What a database is written from. Walked twice, and must yield the same rows both times.
pub trait Source {
    /// The buckets, in ascending order.
    fn buckets(&self) -> Vec<&str>;

    /// Calls `row` with every key and value of a bucket, in ascending order of keys.
    ///
    /// # Errors
    /// What `row` returned, or [`WriteError::Source`].
    fn walk(&self, bucket: &str, row: &mut Row<'_>) -> Result<(), WriteError>;
}

/// The first two pages are the meta pages, the third the free list.
const FREELIST_PAGE: u64 = 2;
const FIRST_PAGE: u64 = 3;

/// What the first walk found: all that the beginning of the file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    root: u64,
    high_water: u64,
}

impl Plan {
    /// Walks the rows to know the size of the file.
    ///
    /// # Errors
    /// When the rows cannot be had or do not fit the format.
    pub fn new(source: &impl Source) -> Result<Self, WriteError> {
        lay_out(source, &mut io::sink())
    }

    /// The size of the file, in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.high_water * PAGE as u64
    }

    /// Walks the rows again and writes the file.
    ///
    /// # Errors
    /// When the rows cannot be had or are not those of the first walk, or `out` does not take the file.
    pub fn write(&self, source: &impl Source, out: &mut impl Write) -> Result<(), WriteError> {
        for id in [0, 1] {
            let meta = Meta {
                page_size: u32::try_from(PAGE).unwrap_or(u32::MAX),
                root: self.root,
                freelist: FREELIST_PAGE,
                high_water: self.high_water,
                txid: id,
            };
            page(out, id, META, 0, &meta.bytes())?;
        }
        page(out, FREELIST_PAGE, FREELIST, 0, &[])?;
        if lay_out(source, out)? == *self {
            Ok(())
        } else {
            Err(WriteError::Changed)
        }
    }
}

/// Writes a page with its overflow, padded to whole pages; how many they are.
fn page(
    out: &mut dyn Write,
    id: u64,
    flags: u16,
    count: u16,
    body: &[u8],
) -> Result<u64, WriteError> {
    let pages = (HEADER + body.len()).div_ceil(PAGE).max(1);
    let overflow = u32::try_from(pages - 1).map_err(|_| too_long())?;
    let header = PageHeader {
        id,
        flags,
        count,
        overflow,
    };
    out.write_all(&header.bytes()).map_err(WriteError::Output)?;
    out.write_all(body).map_err(WriteError::Output)?;
    let padding = pages * PAGE - HEADER - body.len();
    out.write_all(&[0; PAGE][..padding])
        .map_err(WriteError::Output)?;
    Ok(pages as u64)
}

fn too_long() -> WriteError {
    WriteError::Length {
        bucket: String::new(),
    }
}

/// Writes every page after the free list.
fn lay_out(source: &impl Source, out: &mut dyn Write) -> Result<Plan, WriteError> {
    let mut next = FIRST_PAGE;
    let mut root = Tree::default();
    let mut names = Order::default();
    for name in source.buckets() {
        let in_bucket = |error| named(error, name);
        if !names.advance(name.as_bytes()) {
            return Err(in_bucket(out_of_order()));
        }
        let mut tree = Tree::default();
        let mut order = Order::default();
        source
            .walk(name, &mut |key, value| {
                if key.is_empty() || key.len() > MAX_KEY || value.len() > MAX_VALUE {
                    return Err(too_long());
                }
                if !order.advance(key) {
                    return Err(out_of_order());
                }
                tree.add(key, value, 0, &mut next, out)
            })
            .map_err(in_bucket)?;
        let tree = tree.finish(&mut next, out).map_err(in_bucket)?;
        let mut value = [0; BUCKET_HEADER];
        value[..8].copy_from_slice(&tree.to_le_bytes());
        root.add(name.as_bytes(), &value, BUCKET, &mut next, out)
            .map_err(in_bucket)?;
    }
    let root = root.finish(&mut next, out)?;
    Ok(Plan {
        root,
        high_water: next,
    })
}

fn out_of_order() -> WriteError {
    WriteError::Order {
        bucket: String::new(),
    }
}

/// Says in which bucket it happened.
fn named(error: WriteError, bucket: &str) -> WriteError {
    match error {
        WriteError::Order { .. } => WriteError::Order {
            bucket: bucket.to_owned(),
        },
        WriteError::Length { .. } => WriteError::Length {
            bucket: bucket.to_owned(),
        },
        other => other,
    }
}

#[derive(Default)]
struct Order {
    last: Option<Vec<u8>>,
}

impl Order {
    /// Whether the key comes after all before it.
    fn advance(&mut self, key: &[u8]) -> bool {
        let last = self.last.get_or_insert_default();
        let ascending = last.is_empty() || key > &last[..];
        last.clear();
        last.extend_from_slice(key);
        ascending
    }
}

/// A tree under construction: the leaf that fills, and one open branch for each level above.
#[derive(Default)]
struct Tree {
    leaf: Leaf,
    branches: Vec<Branch>,
}

impl Tree {
    fn add(
        &mut self,
        key: &[u8],
        value: &[u8],
        flags: u32,
        next: &mut u64,
        out: &mut dyn Write,
    ) -> Result<(), WriteError> {
        if !self.leaf.is_empty() && !self.leaf.has_room(key, value) {
            let (first, id) = self.leaf.write(next, out)?;
            self.add_child(0, first, id, next, out)?;
        }
        self.leaf.push(key, value, flags);
        Ok(())
    }

    fn add_child(
        &mut self,
        level: usize,
        first: Vec<u8>,
        id: u64,
        next: &mut u64,
        out: &mut dyn Write,
    ) -> Result<(), WriteError> {
        if level == self.branches.len() {
            self.branches.push(Branch::default());
        }
        let branch = &mut self.branches[level];
        let full = branch.is_full(&first);
        let written = if full {
            Some(branch.write_all_but_last(next, out)?)
        } else {
            None
        };
        self.branches[level].push(first, id);
        match written {
            Some((first, id)) => self.add_child(level + 1, first, id, next, out),
            None => Ok(()),
        }
    }

    /// Writes what is open; the root's number.
    fn finish(mut self, next: &mut u64, out: &mut dyn Write) -> Result<u64, WriteError> {
        let (first, mut id) = self.leaf.write(next, out)?;
        if self.branches.is_empty() {
            return Ok(id);
        }
        self.add_child(0, first, id, next, out)?;
        let mut level = 0;
        while level < self.branches.len() {
            let first;
            (first, id) = self.branches[level].write(next, out)?;
            level += 1;
            if level < self.branches.len() {
                self.add_child(level, first, id, next, out)?;
            }
        }
        Ok(id)
    }
}

/// The leaf that fills.
#[derive(Default)]
struct Leaf {
    /// Flags and lengths of key and value of each element.
    elements: Vec<(u32, usize, usize)>,
    data: Vec<u8>,
    page: Vec<u8>,
}

impl Leaf {
    fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }

    fn has_room(&self, key: &[u8], value: &[u8]) -> bool {
        let elements = (self.elements.len() + 1) * ELEMENT;
        HEADER + elements + self.data.len() + key.len() + value.len() <= PAGE
    }

    fn push(&mut self, key: &[u8], value: &[u8], flags: u32) {
        self.elements.push((flags, key.len(), value.len()));
        self.data.extend_from_slice(key);
        self.data.extend_from_slice(value);
    }

    /// Writes the page and begins the next; its first key and its number.
    fn write(&mut self, next: &mut u64, out: &mut dyn Write) -> Result<(Vec<u8>, u64), WriteError> {
        let id = *next;
        self.page.clear();
        let mut at = self.elements.len() * ELEMENT;
        for (i, (flags, key, value)) in self.elements.iter().enumerate() {
            let fields = [
                *flags,
                length(at - i * ELEMENT)?,
                length(*key)?,
                length(*value)?,
            ];
            for field in fields {
                self.page.extend_from_slice(&field.to_le_bytes());
            }
            at += key + value;
        }
        self.page.extend_from_slice(&self.data);
        *next += page(out, id, LEAF, count(self.elements.len())?, &self.page)?;
        let first = self.elements.first().map_or(0, |(_, key, _)| *key);
        let first = self.data[..first].to_vec();
        self.elements.clear();
        self.data.clear();
        // One large value must not hold its memory for the rest of the file.
        self.data.shrink_to(PAGE);
        self.page.shrink_to(PAGE);
        Ok((first, id))
    }
}

/// An open branch.
#[derive(Default)]
struct Branch {
    children: Vec<(Vec<u8>, u64)>,
    size: usize,
}

impl Branch {
    /// Whether a child must go to a page of its own with the last one before it: no branch has a single child.
    fn is_full(&self, first: &[u8]) -> bool {
        self.children.len() >= 3 && HEADER + self.size + ELEMENT + first.len() > PAGE
    }

    fn push(&mut self, first: Vec<u8>, id: u64) {
        self.size += ELEMENT + first.len();
        self.children.push((first, id));
    }

    fn write_all_but_last(
        &mut self,
        next: &mut u64,
        out: &mut dyn Write,
    ) -> Result<(Vec<u8>, u64), WriteError> {
        let last = self.children.pop();
        let written = self.write(next, out)?;
        if let Some((first, id)) = last {
            self.push(first, id);
        }
        Ok(written)
    }

    fn write(&mut self, next: &mut u64, out: &mut dyn Write) -> Result<(Vec<u8>, u64), WriteError> {
        let id = *next;
        let mut body = Vec::with_capacity(self.size);
        let mut at = self.children.len() * ELEMENT;
        for (i, (key, child)) in self.children.iter().enumerate() {
            body.extend_from_slice(&length(at - i * ELEMENT)?.to_le_bytes());
            body.extend_from_slice(&length(key.len())?.to_le_bytes());
            body.extend_from_slice(&child.to_le_bytes());
            at += key.len();
        }
        for (key, _) in &self.children {
            body.extend_from_slice(key);
        }
        *next += page(out, id, BRANCH, count(self.children.len())?, &body)?;
        let first = std::mem::take(&mut self.children).into_iter().next();
        self.size = 0;
        Ok((first.map_or_else(Vec::new, |(key, _)| key), id))
    }
}

fn length(len: usize) -> Result<u32, WriteError> {
    u32::try_from(len).map_err(|_| too_long())
}

fn count(len: usize) -> Result<u16, WriteError> {
    u16::try_from(len).map_err(|_| too_long())
}
