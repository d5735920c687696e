//! Ranges: which keys, at which revision, in what order, and how many of them.
//!
//! A read has two halves. Opening it (gets and cursors) must happen while nothing is committed;
//! collecting its result works on what was opened and may take its time.

use std::cmp::Ordering;

use bytes::Bytes;

use crate::backend::{Backend, Cursor, Entry, Table};
use crate::blocks::Whole;
use crate::command::{
    Compare, CompareResult, CompareTarget, CompareValue, KeyValue, Range, RangeResponse, SortOrder,
    SortTarget,
};
use crate::counts::Counts;
use crate::error::Error;
use crate::layout::{
    self, Arena, Event, Header, Kind, RECORD_HEADER, Revision, old_bound, old_versions,
    revision_key, skip_old_versions, split_old_key, unescape,
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

    pub(crate) fn walk(&mut self) -> Result<Option<Entry<'_>>, Error> {
        match self {
            Scan::Point(_) => Ok(None),
            Scan::Current(cursor) => Ok(cursor.next()?),
            Scan::Past(past) => past.next(),
        }
    }

    /// Goes forward to the first key at or after `key`.
    fn seek(&mut self, key: &[u8]) -> Result<(), Error> {
        match self {
            Scan::Point(_) => Ok(()),
            Scan::Current(cursor) => Ok(cursor.seek(key)?),
            Scan::Past(past) => past.seek(key),
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

/// Unwanted versions of one key that are stepped over before a seek is tried, which costs as much as some tens of steps.
const STEPS_BEFORE_SEEK: usize = 32;

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
        let mut skipped = 0;
        while self.old_head.fill == Fill::Empty {
            let Some((key, record)) = self.old.next()? else {
                self.old_head.fill = Fill::Done;
                break;
            };
            let (escaped, revision) = split_old_key(key)?;
            let newer = revision.main > self.at;
            if newer || escaped == self.decided {
                skipped += 1;
                if skipped == STEPS_BEFORE_SEEK {
                    skipped = 0;
                    let target = skip_old_versions(escaped, newer.then_some(self.at));
                    self.old.seek(&target)?;
                }
                continue;
            }
            skipped = 0;
            self.decided.clear();
            self.decided.extend_from_slice(escaped);
            if !Header::read(record)?.is_tombstone() {
                unescape(escaped, &mut self.old_head.key);
                self.old_head.record(record);
            }
        }
        Ok(())
    }

    fn seek(&mut self, key: &[u8]) -> Result<(), Error> {
        for head in [&mut self.current_head, &mut self.old_head] {
            if head.fill == Fill::Full && head.key[..] < *key {
                head.fill = Fill::Empty;
            }
        }
        if self.current_head.fill == Fill::Empty {
            self.current.seek(key)?;
        }
        if self.old_head.fill == Fill::Empty {
            self.old.seek(&old_bound(key))?;
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

/// The part of a range whose keys are counted already, so that a count steps over it.
pub(crate) struct Shortcut<'a, B: Backend + 'a> {
    whole: Whole,
    /// What was written after the revision of the read.
    since: Option<ViewCursor<'a, B>>,
}

impl<'a, B: Backend> Shortcut<'a, B> {
    /// Looks for one, where the answer does not need all keys anyway.
    pub(crate) fn open(
        backend: &'a B,
        counts: &Counts,
        range: &Range,
        keys: &Keys<'_>,
        at: Option<i64>,
        current: i64,
    ) -> Result<Option<Self>, Error> {
        let Keys::Span(from, to) = keys else {
            return Ok(None);
        };
        if !range.count_only && enough(range) == usize::MAX {
            return Ok(None);
        }
        let Some(whole) = counts.whole(from, *to) else {
            return Ok(None);
        };
        let since = match at {
            None => None,
            // To take back what was written since is then more work than to walk the keys.
            Some(at) if usize::try_from(current - at).is_ok_and(|since| since > whole.count) => {
                return Ok(None);
            }
            Some(at) => {
                let after = revision_key(Revision {
                    main: at + 1,
                    sub: 0,
                });
                Some(View::committed(backend).cursor(Table::Revisions, &after, None)?)
            }
        };
        Ok(Some(Shortcut { whole, since }))
    }

    fn is_before(&self, key: &[u8]) -> bool {
        *key < self.whole.from[..]
    }

    fn contains(&self, key: &[u8]) -> bool {
        !self.is_before(key) && self.whole.to.as_ref().is_none_or(|to| *key < to[..])
    }

    /// The keys in it at the revision of the read: without those created since, and with those deleted since.
    fn count(&mut self) -> Result<i64, Error> {
        let mut count = i64::try_from(self.whole.count).unwrap_or(i64::MAX);
        let Some(mut since) = self.since.take() else {
            return Ok(count);
        };
        while let Some((_, event)) = since.next()? {
            let event = Event::read(event)?;
            if self.contains(event.key) {
                match event.kind {
                    Kind::Put if event.previous.is_none() => count -= 1,
                    Kind::Put => {}
                    Kind::Delete => count += 1,
                }
            }
        }
        Ok(count)
    }
}

/// A walk that counts what it yields.
struct Counting<'a, B: Backend + 'a> {
    scan: Scan<'a, B>,
    shortcut: Option<Shortcut<'a, B>>,
    count: i64,
    /// Of `count`, the keys before the shortcut.
    before: i64,
    /// Whether the last key lies in the shortcut.
    inside: bool,
}

impl<B: Backend> Counting<'_, B> {
    fn walk(&mut self) -> Result<Option<Entry<'_>>, Error> {
        let entry = self.scan.walk()?;
        if let Some((key, _)) = entry {
            self.count += 1;
            if let Some(shortcut) = &self.shortcut {
                if shortcut.is_before(key) {
                    self.before = self.count;
                } else {
                    self.inside = shortcut.contains(key);
                }
            }
        }
        Ok(entry)
    }

    /// The number of all keys, those not walked included. The one place that walks keys only to know their number.
    fn finish(mut self) -> Result<i64, Error> {
        loop {
            if self.inside
                && let Some(mut shortcut) = self.shortcut.take()
            {
                self.inside = false;
                self.count = self.before + shortcut.count()?;
                match &shortcut.whole.to {
                    Some(to) => self.scan.seek(to)?,
                    None => return Ok(self.count),
                }
            }
            if self.walk()?.is_none() {
                return Ok(self.count);
            }
        }
    }
}

/// Runs an opened read to the answer of a range. `current` goes to the header.
pub(crate) fn collect<'a, B: Backend>(
    scan: Scan<'a, B>,
    shortcut: Option<Shortcut<'a, B>>,
    range: &Range,
    current: i64,
) -> Result<RangeResponse, Error> {
    let counting = |scan| Counting {
        scan,
        shortcut,
        count: 0,
        before: 0,
        inside: false,
    };
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
        count = counting(scan).finish()?;
    } else {
        count = collect_span(counting(scan), range, &mut kvs)?;
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
    mut walk: Counting<'_, B>,
    range: &Range,
    kvs: &mut Vec<KeyValue>,
) -> Result<i64, Error> {
    let enough = enough(range);
    let with_value = !range.keys_only || range.sort_target() == SortTarget::Value;
    let mut arena = Arena::default();
    while kvs.len() < enough {
        let Some((key, record)) = walk.walk()? else {
            return Ok(walk.count);
        };
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
    walk.finish()
}

fn limit(range: &Range) -> Option<usize> {
    (range.limit > 0).then(|| usize::try_from(range.limit).unwrap_or(usize::MAX))
}

/// How many keys to collect in key order before sorting and cutting: one more than the limit when no
/// key further on can come first.
///
/// etcd 3.6: a sort target other than the key without an order sorts only those; it fetches
/// everything if an order or a filter is given.
pub(crate) fn enough(range: &Range) -> usize {
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
    holds_in(open_compare(view, compare)?, compare)
}

/// Opens what a compare looks at.
pub(crate) fn open_compare<'a, B: Backend>(
    view: View<'a, B>,
    compare: &Compare,
) -> Result<Scan<'a, B>, Error> {
    let keys = Keys::new(&compare.key, &compare.range_end);
    Scan::open(view, &keys, None)
}

/// Whether a compare holds for what was opened for it.
pub(crate) fn holds_in<B: Backend>(
    mut scan: Scan<'_, B>,
    compare: &Compare,
) -> Result<bool, Error> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Command, DeleteRange, Op, Put};
    use crate::memory::MemoryBackend;
    use crate::store::{LogPosition, Store};

    /// More versions of each key than are stepped over, so that the walk seeks both to a revision and to the next key.
    #[test]
    fn keys_with_many_versions_are_read_at_every_revision() {
        const KEYS: [&str; 4] = ["a", "a\0", "b", "c"];
        let store = Store::open(MemoryBackend::new()).unwrap();
        let mut model = [None; KEYS.len()];
        let mut history = vec![model];
        let rounds = 5 * STEPS_BEFORE_SEEK;
        for number in 0..rounds * KEYS.len() {
            let which = number * 7 % KEYS.len();
            let key = Bytes::from_static(KEYS[which].as_bytes());
            let revision = i64::try_from(number).unwrap() + 2;
            let op = if number % 11 == 5 && model[which].is_some() {
                model[which] = None;
                Op::DeleteRange(DeleteRange {
                    key,
                    ..DeleteRange::default()
                })
            } else {
                model[which] = Some(revision);
                Op::Put(Put {
                    key,
                    ..Put::default()
                })
            };
            history.push(model);
            let position = LogPosition {
                term: 1,
                node: 1,
                index: number as u64 + 1,
            };
            let mut applier = store.begin();
            applier
                .apply(position, Some(&Command::new(0, op)), false)
                .unwrap();
            applier.commit().unwrap();
        }
        for (before, model) in history.iter().enumerate() {
            let range = Range {
                key: "a".into(),
                range_end: "d".into(),
                revision: i64::try_from(before).unwrap() + 1,
                ..Range::default()
            };
            let got = store.range(&range).unwrap();
            let got = got.kvs.iter().map(|kv| (&kv.key[..], kv.mod_revision));
            let expected = KEYS.iter().zip(model);
            let expected =
                expected.filter_map(|(key, modified)| Some((key.as_bytes(), (*modified)?)));
            assert!(got.eq(expected), "at {}", range.revision);
        }
    }
}
