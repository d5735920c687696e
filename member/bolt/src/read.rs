//! Reading a database that may be cut off, damaged, forged or something else.
//!
//! A walk holds one page of each level. It ends because no path is deeper than [`MAX_DEPTH`] and every leaf must
//! bring keys above all before it: a page that is met twice has none. It yields no more bytes than the file has, because
//! the keys and values of a page must follow one another. The free list is not read, since tools leave it out.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::error::ReadError;
use crate::format::{
    BRANCH, BUCKET, BUCKET_HEADER, ELEMENT, HEADER, LARGEST_PAGE, LEAF, META, META_LEN, Meta,
    MetaFault, PageHeader, SMALLEST_PAGE, u32_at, u64_at,
};

/// Levels of a tree. A branch has two children or more, so a real one of this depth would not fit on a disk.
const MAX_DEPTH: usize = 40;
/// Bytes of one page with its overflow. A leaf holds the largest value, which `--max-request-bytes` bounds (1.5 MiB
/// by default); a branch holds keys only.
const MAX_LEAF: u64 = 1 << 29;
const MAX_BRANCH: u64 = 1 << 24;

/// An open database file.
#[derive(Debug)]
pub struct Database {
    file: File,
    len: u64,
    meta: Meta,
}

/// A bucket of the root.
#[derive(Debug, Clone)]
pub struct Bucket {
    place: Place,
}

#[derive(Debug, Clone)]
enum Place {
    Page(u64),
    /// A small bucket is a page inside the root's.
    Inline {
        page: u64,
        content: Vec<u8>,
    },
}

impl Database {
    /// Opens the first `len` bytes of a file as a database.
    ///
    /// # Errors
    /// When they are none.
    pub fn new(file: File, len: u64) -> Result<Self, ReadError> {
        let meta = newest_meta(&file, len)?;
        Ok(Self { file, len, meta })
    }

    /// The size of the database as its own record says, in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.meta
            .high_water
            .saturating_mul(u64::from(self.meta.page_size))
    }

    /// The buckets, in ascending order of names.
    pub fn buckets(&self) -> Buckets<'_> {
        Buckets {
            walk: Walk::new(self, &Place::Page(self.meta.root)),
        }
    }

    /// A bucket by name.
    ///
    /// # Errors
    /// When the file is damaged.
    pub fn bucket(&self, name: &str) -> Result<Option<Bucket>, ReadError> {
        let mut buckets = self.buckets();
        while let Some((found, bucket)) = buckets.next_bucket()? {
            if found == name.as_bytes() {
                return Ok(Some(bucket));
            }
        }
        Ok(None)
    }

    /// Walks the rows of a bucket in ascending order of keys.
    pub fn walk(&self, bucket: &Bucket) -> Walk<'_> {
        Walk::new(self, &bucket.place)
    }

    /// Reads a page with its overflow into `page`.
    fn load(&self, id: u64, page: &mut Vec<u8>) -> Result<PageHeader, ReadError> {
        let damaged = |what| ReadError::Damaged { page: id, what };
        if id < 2 || id >= self.meta.high_water {
            return Err(damaged("its number is not one of the database's pages"));
        }
        let size = u64::from(self.meta.page_size);
        let at = id
            .checked_mul(size)
            .filter(|at| at.checked_add(size).is_some_and(|end| end <= self.len))
            .ok_or(ReadError::Truncated { page: id })?;
        let mut first = [0; HEADER];
        self.file.read_exact_at(&mut first, at)?;
        let header = PageHeader::read(&first).ok_or_else(|| damaged("it has no header"))?;
        if header.id != id {
            return Err(damaged("it has another page's number"));
        }
        let most = match header.flags {
            BRANCH => MAX_BRANCH,
            LEAF => MAX_LEAF,
            _ => return Err(damaged("it is neither branch nor leaf")),
        };
        let bytes = (u64::from(header.overflow) + 1) * size;
        if at.checked_add(bytes).is_none_or(|end| end > self.len) {
            return Err(ReadError::Truncated { page: id });
        }
        if bytes > most.max(size) {
            return Err(ReadError::TooLarge { page: id, bytes });
        }
        let bytes = usize::try_from(bytes).map_err(|_| ReadError::TooLarge { page: id, bytes })?;
        page.clear();
        page.resize(bytes, 0);
        self.file.read_exact_at(page, at)?;
        Ok(header)
    }
}

fn newest_meta(file: &File, len: u64) -> Result<Meta, ReadError> {
    if len < 2 * u64::from(SMALLEST_PAGE) {
        return Err(ReadError::TooSmall);
    }
    let mut best = meta_at(file, len, 0)?;
    // The second is found by the first one's page size or, when that is lost, by trying.
    let (mut size, largest) = match &best {
        Ok(meta) => (meta.page_size, meta.page_size),
        Err(_) => (SMALLEST_PAGE, LARGEST_PAGE),
    };
    while size <= largest {
        let newest = best.as_ref().map_or(0, |meta| meta.txid);
        if let Ok(second) = meta_at(file, len, size)?
            && second.page_size == size
            && (best.is_err() || second.txid > newest)
        {
            best = Ok(second);
        }
        size *= 2;
    }
    match best {
        Ok(meta) if len < 2 * u64::from(meta.page_size) => Err(ReadError::TooSmall),
        Ok(meta) => Ok(meta),
        Err(MetaFault::NotOne) => Err(ReadError::Invalid),
        Err(MetaFault::Version(found)) => Err(ReadError::Version { found }),
        Err(MetaFault::Checksum) => Err(ReadError::Checksum),
    }
}

/// Reads the meta record of the page that begins at `at`.
fn meta_at(file: &File, len: u64, at: u32) -> Result<Result<Meta, MetaFault>, ReadError> {
    let mut bytes = [0; HEADER + META_LEN];
    if u64::from(at) + (bytes.len() as u64) > len {
        return Ok(Err(MetaFault::NotOne));
    }
    match file.read_exact_at(&mut bytes, u64::from(at)) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            return Err(ReadError::TooSmall);
        }
        Err(error) => return Err(error.into()),
    }
    let is_meta = PageHeader::read(&bytes).is_some_and(|header| header.flags == META);
    let meta = Meta::read(&bytes[HEADER..]).and_then(|meta| {
        let size = meta.page_size;
        let legal = size.is_power_of_two() && (SMALLEST_PAGE..=LARGEST_PAGE).contains(&size);
        if is_meta && legal {
            Ok(meta)
        } else {
            Err(MetaFault::NotOne)
        }
    });
    Ok(meta)
}

/// The walk over the names of buckets.
#[derive(Debug)]
pub struct Buckets<'a> {
    walk: Walk<'a>,
}

impl Buckets<'_> {
    /// The next bucket's name, and the bucket.
    ///
    /// # Errors
    /// When the file is damaged, or no etcd's: a row beside the buckets.
    pub fn next_bucket(&mut self) -> Result<Option<(Vec<u8>, Bucket)>, ReadError> {
        let Some(item) = self.walk.next_element()? else {
            return Ok(None);
        };
        let page = item.page;
        let damaged = |what| ReadError::Damaged { page, what };
        if !item.is_bucket {
            return Err(damaged("a row stands where only buckets may"));
        }
        let root = u64_at(item.value, 0)
            .filter(|_| item.value.len() >= BUCKET_HEADER)
            .ok_or_else(|| damaged("a bucket has no header"))?;
        let place = match root {
            0 => Place::Inline {
                page,
                content: item.value[BUCKET_HEADER..].to_vec(),
            },
            root => Place::Page(root),
        };
        Ok(Some((item.key.to_vec(), Bucket { place })))
    }
}

/// A row, lent by a walk until its next step.
#[derive(Debug, Clone, Copy)]
pub struct Item<'a> {
    /// Its key.
    pub key: &'a [u8],
    /// Its value.
    pub value: &'a [u8],
    is_bucket: bool,
    page: u64,
}

/// The way down to the next row.
#[derive(Debug)]
pub struct Walk<'a> {
    database: &'a Database,
    path: Vec<Frame>,
    /// Pages that are not in use, for the next frame.
    spare: Vec<Vec<u8>>,
    /// The page to go down to.
    down: Option<u64>,
    last: Option<Vec<u8>>,
}

#[derive(Debug)]
struct Frame {
    id: u64,
    page: Vec<u8>,
    branch: bool,
    count: usize,
    next: usize,
    /// Where the last element's value ended.
    end: usize,
}

impl<'a> Walk<'a> {
    fn new(database: &'a Database, place: &Place) -> Self {
        let mut walk = Self {
            database,
            path: Vec::new(),
            spare: Vec::new(),
            down: None,
            last: None,
        };
        match place {
            Place::Page(id) => walk.down = Some(*id),
            Place::Inline { page, content } => {
                let header = PageHeader::read(content);
                walk.path.push(Frame {
                    id: *page,
                    page: content.clone(),
                    // An inline bucket is one leaf; anything else is found damaged at the first step.
                    branch: header.is_none_or(|header| header.flags != LEAF),
                    count: header.map_or(1, |header| usize::from(header.count)),
                    next: 0,
                    end: 0,
                });
            }
        }
        walk
    }

    /// The next row, or `None` at the end.
    ///
    /// # Errors
    /// When the file is damaged, or no etcd's: a bucket inside a bucket. The walk must not go on then.
    pub fn next_row(&mut self) -> Result<Option<Item<'_>>, ReadError> {
        match self.next_element()? {
            Some(item) if item.is_bucket => Err(ReadError::Damaged {
                page: item.page,
                what: "it holds a bucket inside a bucket",
            }),
            item => Ok(item),
        }
    }

    fn next_element(&mut self) -> Result<Option<Item<'_>>, ReadError> {
        loop {
            if let Some(id) = self.down.take() {
                self.enter(id)?;
            }
            let Some(frame) = self.path.last_mut() else {
                return Ok(None);
            };
            if frame.next == frame.count {
                if let Some(frame) = self.path.pop() {
                    self.spare.push(frame.page);
                }
                continue;
            }
            let at = HEADER + frame.next * ELEMENT;
            frame.next += 1;
            if !frame.branch {
                let index = self.path.len() - 1;
                return self.element(index, at).map(Some);
            }
            let child = u64_at(&frame.page, at + 8).ok_or(ReadError::Damaged {
                page: frame.id,
                what: "its elements do not fit it",
            })?;
            self.down = Some(child);
        }
    }

    fn enter(&mut self, id: u64) -> Result<(), ReadError> {
        let damaged = |what| ReadError::Damaged { page: id, what };
        if self.path.len() >= MAX_DEPTH {
            return Err(damaged("the tree is too deep, so it leads in a circle"));
        }
        let mut page = self.spare.pop().unwrap_or_default();
        let header = self.database.load(id, &mut page)?;
        let count = usize::from(header.count);
        // Only the root of an empty bucket has nothing.
        if count == 0 && (header.flags == BRANCH || !self.path.is_empty()) {
            return Err(damaged("it is empty"));
        }
        self.path.push(Frame {
            id,
            page,
            branch: header.flags == BRANCH,
            count,
            next: 0,
            end: 0,
        });
        Ok(())
    }

    /// Lends the leaf element at `at`.
    fn element(&mut self, frame: usize, at: usize) -> Result<Item<'_>, ReadError> {
        let Frame { id, page, end, .. } = &mut self.path[frame];
        let (id, page) = (*id, &*page);
        let damaged = |what| ReadError::Damaged { page: id, what };
        let outside = || damaged("an element does not fit it");
        let field = |offset| u32_at(page, at + offset).ok_or_else(outside);
        let length = |offset| {
            field(offset).and_then(|length| usize::try_from(length).map_err(|_| outside()))
        };
        let flags = field(0)?;
        let (offset, key_len, value_len) = (length(4)?, length(8)?, length(12)?);
        let slice = |from: usize, len: usize| {
            let end = from.checked_add(len).ok_or_else(outside)?;
            page.get(from..end).ok_or_else(outside)
        };
        let from = at.checked_add(offset).ok_or_else(outside)?;
        if from < *end {
            return Err(damaged("its elements lie over one another"));
        }
        let key = slice(from, key_len)?;
        let value = slice(from + key_len, value_len)?;
        *end = from + key_len + value_len;
        if self.last.as_ref().is_some_and(|last| key <= &last[..]) {
            return Err(damaged("its keys are out of order"));
        }
        let last = self.last.get_or_insert_default();
        last.clear();
        last.extend_from_slice(key);
        Ok(Item {
            key,
            value,
            is_bucket: flags & BUCKET != 0,
            page: id,
        })
    }
}
