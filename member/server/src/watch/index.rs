//! Which watchers a key concerns.
//!
//! Watchers of one key stand in a map by key. Ranges stand in a list sorted by start, over which lies an implicit
//! balanced tree that knows the greatest end below each node: a key finds its k ranges in O(log n + k). The list is
//! sorted anew when a part of it has changed, so a change costs O(log n) over time.

use std::collections::HashMap;

use bytes::Bytes;

/// Changes that are looked through one by one before the list is sorted anew, and the part of the list they may reach.
const FRESH: usize = 32;
const FRESH_PART: usize = 8;

/// A key or a range of keys.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Span {
    /// One key.
    Key(Bytes),
    /// From the first, to before the second or without end.
    Range(Bytes, Option<Bytes>),
}

impl Span {
    /// Reads etcd's key and end; `None` for a range that can hold no key. etcd: an empty key is the first one.
    pub(crate) fn new(key: Bytes, range_end: Bytes) -> Option<Span> {
        let key = if key.is_empty() {
            Bytes::from_static(b"\0")
        } else {
            key
        };
        match &range_end[..] {
            [] => Some(Span::Key(key)),
            [0] => Some(Span::Range(key, None)),
            end if end <= &key[..] => None,
            _ => Some(Span::Range(key, Some(range_end))),
        }
    }
}

#[derive(Debug)]
struct Group {
    start: Bytes,
    end: Option<Bytes>,
    /// The greatest end in the subtree whose root this is.
    furthest: Option<Bytes>,
    ids: Vec<u64>,
}

impl Group {
    fn is(&self, start: &Bytes, end: &Option<Bytes>) -> bool {
        self.start == start && self.end == *end
    }

    fn contains(&self, key: &[u8]) -> bool {
        self.start <= key && before(key, &self.end)
    }
}

/// Whether a key lies before an end.
fn before(key: &[u8], end: &Option<Bytes>) -> bool {
    end.as_ref().is_none_or(|end| key < &end[..])
}

fn greater(a: Option<Bytes>, b: &Option<Bytes>) -> Option<Bytes> {
    Some(a?.max(b.clone()?))
}

/// Watchers by what they watch.
#[derive(Debug, Default)]
pub(super) struct Index {
    keys: HashMap<Bytes, Vec<u64>>,
    /// In order of start and end, with the tree laid over it; some may be empty.
    sorted: Vec<Group>,
    /// Groups that came after the last sorting.
    fresh: Vec<Group>,
    /// Groups of `sorted` that are empty.
    empty: usize,
}

impl Index {
    pub(super) fn insert(&mut self, span: &Span, id: u64) {
        let (start, end) = match span {
            Span::Key(key) => {
                match self.keys.get_mut(key) {
                    Some(ids) => ids.push(id),
                    None => {
                        // A copy of its own: the request's buffer may be much larger.
                        self.keys.insert(Bytes::copy_from_slice(key), vec![id]);
                    }
                }
                return;
            }
            Span::Range(start, end) => (start, end),
        };
        if let Some(at) = self.position(start, end) {
            let group = &mut self.sorted[at];
            self.empty -= usize::from(group.ids.is_empty());
            group.ids.push(id);
            return;
        }
        if let Some(group) = self.fresh.iter_mut().find(|group| group.is(start, end)) {
            group.ids.push(id);
            return;
        }
        self.fresh.push(Group {
            start: Bytes::copy_from_slice(start),
            end: end.as_ref().map(|end| Bytes::copy_from_slice(end)),
            furthest: None,
            ids: vec![id],
        });
        self.settle();
    }

    pub(super) fn remove(&mut self, span: &Span, id: u64) {
        let drop_from = |ids: &mut Vec<u64>| {
            if let Some(at) = ids.iter().position(|other| *other == id) {
                ids.swap_remove(at);
            }
        };
        match span {
            Span::Key(key) => {
                if let Some(ids) = self.keys.get_mut(key) {
                    drop_from(ids);
                    if ids.is_empty() {
                        self.keys.remove(key);
                    }
                }
            }
            Span::Range(start, end) => {
                if let Some(at) = self.position(start, end) {
                    let ids = &mut self.sorted[at].ids;
                    let before = ids.len();
                    drop_from(ids);
                    self.empty += usize::from(before > 0 && ids.is_empty());
                    self.settle();
                } else if let Some(at) = self.fresh.iter().position(|group| group.is(start, end)) {
                    drop_from(&mut self.fresh[at].ids);
                    if self.fresh[at].ids.is_empty() {
                        self.fresh.swap_remove(at);
                    }
                }
            }
        }
    }

    fn position(&self, start: &Bytes, end: &Option<Bytes>) -> Option<usize> {
        // An open end sorts last.
        let order = |end: &Option<Bytes>| (end.is_none(), end.clone());
        let found = self.sorted.binary_search_by(|group| {
            group
                .start
                .cmp(start)
                .then_with(|| order(&group.end).cmp(&order(end)))
        });
        found.ok()
    }

    /// Sorts when too much has changed.
    fn settle(&mut self) {
        if self.fresh.len() + self.empty <= FRESH.max(self.sorted.len() / FRESH_PART) {
            return;
        }
        self.sorted.append(&mut self.fresh);
        self.sorted.retain(|group| !group.ids.is_empty());
        self.empty = 0;
        self.sorted.sort_by(|a, b| {
            let end = |group: &Group| (group.end.is_none(), group.end.clone());
            a.start.cmp(&b.start).then_with(|| end(a).cmp(&end(b)))
        });
        furthest(&mut self.sorted);
    }

    /// Calls `hit` with every watcher of the key.
    pub(super) fn matches(&self, key: &[u8], mut hit: impl FnMut(u64)) {
        if let Some(ids) = self.keys.get(key) {
            ids.iter().copied().for_each(&mut hit);
        }
        visit(&self.sorted, key, &mut hit);
        for group in self.fresh.iter().filter(|group| group.contains(key)) {
            group.ids.iter().copied().for_each(&mut hit);
        }
    }

    /// Whether anybody watches the key.
    pub(super) fn any(&self, key: &[u8]) -> bool {
        let mut any = false;
        self.matches(key, |_| any = true);
        any
    }
}

/// The root of the tree over a list is its middle.
fn furthest(groups: &mut [Group]) -> Option<Option<Bytes>> {
    if groups.is_empty() {
        return None;
    }
    let (left, rest) = groups.split_at_mut(groups.len() / 2);
    let (root, right) = rest.split_first_mut()?;
    let mut most = root.end.clone();
    for below in [furthest(left), furthest(right)].into_iter().flatten() {
        most = greater(most, &below);
    }
    root.furthest.clone_from(&most);
    Some(most)
}

fn visit(groups: &[Group], key: &[u8], hit: &mut impl FnMut(u64)) {
    let (left, rest) = groups.split_at(groups.len() / 2);
    let Some((root, right)) = rest.split_first() else {
        return;
    };
    if !before(key, &root.furthest) {
        return;
    }
    visit(left, key, hit);
    if root.start <= key {
        if before(key, &root.end) {
            root.ids.iter().copied().for_each(&mut *hit);
        }
        visit(right, key, hit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The next number of a fixed sequence; see Knuth's MMIX.
    fn next(state: &mut u64) -> u64 {
        *state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        *state >> 33
    }

    fn key(state: &mut u64) -> Bytes {
        let len = 1 + next(state) % 3;
        (0..len)
            .map(|_| b'a' + u8::try_from(next(state) % 4).unwrap())
            .collect()
    }

    #[test]
    fn a_key_finds_exactly_its_watchers_through_all_changes() {
        let mut state = 7;
        let mut index = Index::default();
        let mut model: Vec<(Span, u64)> = Vec::new();
        for id in 0..4000 {
            if next(&mut state).is_multiple_of(3) && !model.is_empty() {
                let at = usize::try_from(next(&mut state)).unwrap() % model.len();
                let (span, id) = model.swap_remove(at);
                index.remove(&span, id);
            } else {
                let end = match next(&mut state) % 4 {
                    0 => Bytes::new(),
                    1 => Bytes::from_static(b"\0"),
                    _ => key(&mut state),
                };
                let Some(span) = Span::new(key(&mut state), end) else {
                    continue;
                };
                index.insert(&span, id);
                model.push((span, id));
            }
            let key = key(&mut state);
            let mut found = Vec::new();
            index.matches(&key, |id| found.push(id));
            found.sort_unstable();
            let mut expected: Vec<u64> = model
                .iter()
                .filter(|(span, _)| match span {
                    Span::Key(own) => *own == key,
                    Span::Range(start, end) => {
                        *start <= key && end.as_ref().is_none_or(|end| key < *end)
                    }
                })
                .map(|(_, id)| *id)
                .collect();
            expected.sort_unstable();
            assert_eq!(found, expected, "{key:?}");
            assert_eq!(index.any(&key), !expected.is_empty());
        }
    }

    #[test]
    fn an_inverted_range_is_none_and_an_empty_key_is_the_first() {
        let of = |key: &'static [u8], end: &'static [u8]| {
            Span::new(Bytes::from_static(key), Bytes::from_static(end))
        };
        assert_eq!(of(b"b", b"a"), None);
        assert_eq!(of(b"b", b"b"), None);
        assert_eq!(of(b"", b""), Some(Span::Key(Bytes::from_static(b"\0"))));
        assert_eq!(
            of(b"", b"\0"),
            Some(Span::Range(Bytes::from_static(b"\0"), None))
        );
    }
}
