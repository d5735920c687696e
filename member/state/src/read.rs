//! Ranges: which keys, at which revision, in what order, and how many of them.
//!
//! A read has two halves. Opening it (gets and cursors) must happen while nothing is committed;
//! collecting its result works on what was opened and may take its time.

use std::cmp::Ordering;

use bytes::Bytes;

use crate::backend::{Backend, Cursor, Entry, Table};
use crate::command::{
    Compare, CompareResult, CompareTarget, CompareValue, KeyValue, Range, RangeResponse, SortOrder,
    SortTarget,
};
use crate::error::Error;
use crate::layout::{
    self, Arena, Header, RECORD_HEADER, old_bound, old_versions, split_old_key, unescape,
};
use crate::view::{View, ViewCursor};

/// The keys that a request names.
pub(crate) enum Keys<'a> {
    One(&'a Bytes),
    Span(&'a [u8], Option<&'a [u8]>),
    Nothing,
}

impl<'a> Keys<'a> {
    pub(crate) fn new(key: &'a Bytes, range_end: &'a Bytes) -> Self {
        match &range_end[..] {
            [] => Keys::One(key),
            [0] => Keys::Span(key, None),
            end if end <= &key[..] => Keys::Nothing,
            end => Keys::Span(key, Some(end)),
        }
    }
}

/// Turns the revision of a request into the one to read: `None` is the newest.
///
/// etcd 3.6: a revision of 0 or less is the newest, the compacted revision itself is still readable.
pub(crate) fn resolve(revision: i64, current: i64, compacted: i64) -> Result<Option<i64>, Error> {
    if revision > current {
        Err(Error::FutureRevision)
    } else if revision <= 0 || revision == current {
        Ok(None)
    } else if revision < compacted {
        Err(Error::Compacted)
    } else {
        Ok(Some(revision))
    }
}

/// An opened read: yields the live keys in ascending order with their records.
pub(crate) enum Scan<'a, B: Backend + 'a> {
    Point(Option<Bytes>),
    Current(ViewCursor<'a, B>),
    Past(Box<Past<'a, B>>),
}

impl<'a, B: Backend> Scan<'a, B> {
    /// Opens the read of `keys` at a revision, `None` for the newest.
    pub(crate) fn open(view: View<'a, B>, keys: &Keys<'_>, at: Option<i64>) -> Result<Self, Error> {
        match (keys, at) {
            (Keys::Nothing, _) => Ok(Scan::Point(None)),
            (Keys::One(key), None) => Ok(Scan::Point(view.get(Table::Current, key)?)),
            (Keys::One(key), Some(at)) => Ok(Scan::Point(version_at(view, key, at)?)),
            (Keys::Span(from, to), None) => {
                Ok(Scan::Current(view.cursor(Table::Current, from, *to)?))
            }
            (Keys::Span(from, to), Some(at)) => {
                let bound = to.map(old_bound);
                Ok(Scan::Past(Box::new(Past {
                    at,
                    current: view.cursor(Table::Current, from, *to)?,
                    current_head: Head::default(),
                    old: view.cursor(Table::Old, &old_bound(from), bound.as_deref())?,
                    old_head: Head::default(),
                    decided: Vec::new(),
                })))
            }
        }
    }

    fn walk(&mut self) -> Result<Option<Entry<'_>>, Error> {
        match self {
            Scan::Point(_) => Ok(None),
            Scan::Current(cursor) => Ok(cursor.next()?),
            Scan::Past(past) => past.next(),
        }
    }
}

/// The version of one key that was the newest at a revision.
pub(crate) fn version_at<B: Backend>(
    view: View<'_, B>,
    key: &[u8],
    at: i64,
) -> Result<Option<Bytes>, Error> {
    if let Some(record) = view.get(Table::Current, key)?
        && Header::read(&record)?.modified.main <= at
    {
        return Ok(Some(record));
    }
    let (from, to) = old_versions(key, at);
    let mut versions = view.cursor(Table::Old, &from, Some(&to))?;
    let Some((_, record)) = versions.next()? else {
        return Ok(None);
    };
    let live = !Header::read(record)?.is_tombstone();
    Ok(live.then(|| Bytes::copy_from_slice(record)))
}

/// The keys as they were at a revision: `Current` where it is old enough, else the newest of `Old` that is.
pub(crate) struct Past<'a, B: Backend + 'a> {
    at: i64,
    current: ViewCursor<'a, B>,
    current_head: Head,
    old: ViewCursor<'a, B>,
    old_head: Head,
    /// The escaped key whose version at the revision was found; its older versions are skipped.
    decided: Vec<u8>,
}

#[derive(Default)]
struct Head {
    fill: Fill,
    key: Vec<u8>,
    record: Vec<u8>,
}

#[derive(Default, PartialEq)]
enum Fill {
    #[default]
    Empty,
    Full,
    Done,
}

impl Head {
    fn record(&mut self, record: &[u8]) {
        self.record.clear();
        self.record.extend_from_slice(record);
        self.fill = Fill::Full;
    }
}

impl<B: Backend> Past<'_, B> {
    fn fill_current(&mut self) -> Result<(), Error> {
        while self.current_head.fill == Fill::Empty {
            let Some((key, record)) = self.current.next()? else {
                self.current_head.fill = Fill::Done;
                break;
            };
            if Header::read(record)?.modified.main <= self.at {
                self.current_head.key.clear();
                self.current_head.key.extend_from_slice(key);
                self.current_head.record(record);
            }
        }
        Ok(())
    }

    fn fill_old(&mut self) -> Result<(), Error> {
        while self.old_head.fill == Fill::Empty {
            let Some((key, record)) = self.old.next()? else {
                self.old_head.fill = Fill::Done;
                break;
            };
            let (escaped, revision) = split_old_key(key)?;
            if revision.main > self.at || escaped == self.decided {
                continue;
            }
            self.decided.clear();
            self.decided.extend_from_slice(escaped);
            if !Header::read(record)?.is_tombstone() {
                unescape(escaped, &mut self.old_head.key);
                self.old_head.record(record);
            }
        }
        Ok(())
    }

    fn next(&mut self) -> Result<Option<Entry<'_>>, Error> {
        self.fill_current()?;
        self.fill_old()?;
        let order = match (&self.current_head.fill, &self.old_head.fill) {
            (Fill::Full, Fill::Full) => self.current_head.key.cmp(&self.old_head.key),
            (Fill::Full, _) => Ordering::Less,
            (_, Fill::Full) => Ordering::Greater,
            _ => return Ok(None),
        };
        if order.is_ge() {
            self.old_head.fill = Fill::Empty;
        }
        if order.is_le() {
            self.current_head.fill = Fill::Empty;
        }
        // On a tie the record of `Current` is the newer of the two.
        let head = if order.is_le() {
            &self.current_head
        } else {
            &self.old_head
        };
        Ok(Some((&head.key, &head.record)))
    }
}

/// Counts what is left of a read. The one place that walks keys only to know their number.
fn count_rest<B: Backend>(scan: &mut Scan<'_, B>) -> Result<i64, Error> {
    let mut count = 0;
    while scan.walk()?.is_some() {
        count += 1;
    }
    Ok(count)
}

/// Runs an opened read to the answer of a range. `current` goes to the header.
pub(crate) fn collect<B: Backend>(
    mut scan: Scan<'_, B>,
    range: &Range,
    current: i64,
) -> Result<RangeResponse, Error> {
    let mut kvs = Vec::new();
    let mut count = 0;
    if let Scan::Point(record) = &scan {
        if let Some(record) = record {
            count = 1;
            if !range.count_only {
                let kv = layout::key_value(range.key.clone(), record)?;
                if passes(range, kv.mod_revision, kv.create_revision) {
                    kvs.push(kv);
                }
            }
        }
    } else if range.count_only {
        count = count_rest(&mut scan)?;
    } else {
        count = collect_span(&mut scan, range, &mut kvs)?;
    }
    sort(range, &mut kvs);
    let limit = limit(range).filter(|limit| kvs.len() > *limit);
    if let Some(limit) = limit {
        kvs.truncate(limit);
    }
    if range.keys_only {
        for kv in &mut kvs {
            kv.value = Bytes::new();
        }
    }
    Ok(RangeResponse {
        revision: current,
        kvs,
        more: limit.is_some(),
        count,
    })
}

fn collect_span<B: Backend>(
    scan: &mut Scan<'_, B>,
    range: &Range,
    kvs: &mut Vec<KeyValue>,
) -> Result<i64, Error> {
    let enough = enough(range);
    let with_value = !range.keys_only || range.sort_target() == SortTarget::Value;
    let mut arena = Arena::default();
    let mut count = 0;
    while kvs.len() < enough {
        let Some((key, record)) = scan.walk()? else {
            return Ok(count);
        };
        count += 1;
        let header = Header::read(record)?;
        if passes(range, header.modified.main, header.create) {
            let value = if with_value {
                arena.copy(&record[RECORD_HEADER..])
            } else {
                Bytes::new()
            };
            kvs.push(layout::join(arena.copy(key), &header, value));
        }
    }
    Ok(count + count_rest(scan)?)
}

fn limit(range: &Range) -> Option<usize> {
    (range.limit > 0).then(|| usize::try_from(range.limit).unwrap_or(usize::MAX))
}

/// How many keys to collect in key order before sorting and cutting: one more than the limit when no
/// key further on can come first.
///
/// etcd 3.6: a sort target other than the key without an order sorts only those; it fetches
/// everything if an order or a filter is given.
fn enough(range: &Range) -> usize {
    let by_key = range.sort_target() == SortTarget::Key && range.sort_order() != SortOrder::Descend;
    let unfiltered = [
        range.min_mod_revision,
        range.max_mod_revision,
        range.min_create_revision,
        range.max_create_revision,
    ] == [0; 4];
    let cut = by_key || (range.sort_order() == SortOrder::None && unfiltered);
    match limit(range) {
        Some(limit) if cut => limit.saturating_add(1),
        _ => usize::MAX,
    }
}

fn passes(range: &Range, modified: i64, created: i64) -> bool {
    let within =
        |revision: i64, min: i64, max: i64| revision >= min && (max == 0 || revision <= max);
    within(modified, range.min_mod_revision, range.max_mod_revision)
        && within(
            created,
            range.min_create_revision,
            range.max_create_revision,
        )
}

/// Sorts what came in key order. The sort is stable, so ties stay in key order.
fn sort(range: &Range, kvs: &mut [KeyValue]) {
    let by = |a: &KeyValue, b: &KeyValue| match range.sort_target() {
        SortTarget::Key => a.key.cmp(&b.key),
        SortTarget::Version => a.version.cmp(&b.version),
        SortTarget::Create => a.create_revision.cmp(&b.create_revision),
        SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
        SortTarget::Value => a.value.cmp(&b.value),
    };
    match (range.sort_target(), range.sort_order()) {
        (SortTarget::Key, SortOrder::Descend) => kvs.reverse(),
        (SortTarget::Key, _) => {}
        (_, SortOrder::Descend) => kvs.sort_by(|a, b| by(b, a)),
        (_, _) => kvs.sort_by(by),
    }
}

/// Whether a condition holds for every key it names, and, if there is none, for a key of all zeros.
pub(crate) fn holds<B: Backend>(view: View<'_, B>, compare: &Compare) -> Result<bool, Error> {
    let keys = Keys::new(&compare.key, &compare.range_end);
    let mut scan = Scan::open(view, &keys, None)?;
    if let Scan::Point(Some(record)) = &scan {
        return holds_for(compare, record);
    }
    let mut any = false;
    while let Some((_, record)) = scan.walk()? {
        any = true;
        if !holds_for(compare, record)? {
            return Ok(false);
        }
    }
    // etcd 3.6: no value can be equal to, less or greater than one that does not exist.
    let missing_value = CompareTarget::try_from(compare.target) == Ok(CompareTarget::Value);
    Ok(any || (!missing_value && relates(compare, compare_number(compare, &ABSENT))))
}

const ABSENT: Header = Header {
    modified: layout::Revision::ZERO,
    create: 0,
    version: 0,
    lease: 0,
};

fn holds_for(compare: &Compare, record: &[u8]) -> Result<bool, Error> {
    let header = Header::read(record)?;
    let order = match CompareTarget::try_from(compare.target) {
        Ok(CompareTarget::Value) => {
            let given = match &compare.value {
                Some(CompareValue::Value(value)) => &value[..],
                _ => &[],
            };
            record[RECORD_HEADER..].cmp(given)
        }
        _ => compare_number(compare, &header),
    };
    Ok(relates(compare, order))
}

fn compare_number(compare: &Compare, header: &Header) -> Ordering {
    let (stored, given) = match (CompareTarget::try_from(compare.target), &compare.value) {
        (Ok(CompareTarget::Version), Some(CompareValue::Version(given))) => {
            (header.version, *given)
        }
        (Ok(CompareTarget::Version), _) => (header.version, 0),
        (Ok(CompareTarget::Create), Some(CompareValue::CreateRevision(given))) => {
            (header.create, *given)
        }
        (Ok(CompareTarget::Create), _) => (header.create, 0),
        (Ok(CompareTarget::Mod), Some(CompareValue::ModRevision(given))) => {
            (header.modified.main, *given)
        }
        (Ok(CompareTarget::Mod), _) => (header.modified.main, 0),
        (Ok(CompareTarget::Lease), Some(CompareValue::Lease(given))) => (header.lease, *given),
        (Ok(CompareTarget::Lease), _) => (header.lease, 0),
        (Ok(CompareTarget::Value) | Err(_), _) => (0, 0),
    };
    stored.cmp(&given)
}

fn relates(compare: &Compare, order: Ordering) -> bool {
    match CompareResult::try_from(compare.result) {
        Ok(CompareResult::Equal) => order.is_eq(),
        Ok(CompareResult::NotEqual) => order.is_ne(),
        Ok(CompareResult::Greater) => order.is_gt(),
        Ok(CompareResult::Less) => order.is_lt(),
        Err(_) => true,
    }
}

/// Reads the keys of a delete with their records, in key order.
pub(crate) fn records<B: Backend>(
    view: View<'_, B>,
    keys: &Keys<'_>,
    arena: &mut Arena,
) -> Result<Vec<(Bytes, Bytes)>, Error> {
    let mut found = Vec::new();
    match keys {
        Keys::Nothing => {}
        Keys::One(key) => {
            if let Some(record) = view.get(Table::Current, key)? {
                found.push(((*key).clone(), record));
            }
        }
        Keys::Span(from, to) => {
            let mut cursor = view.cursor(Table::Current, from, *to)?;
            while let Some((key, record)) = cursor.next()? {
                found.push((arena.copy(key), arena.copy(record)));
            }
        }
    }
    Ok(found)
}
