//! Sets of key ranges: whether what a user may touch contains what a call touches.

use bytes::Bytes;

/// The end of a range that has none.
const OPEN: &[u8] = &[0];

/// Keys from `from` up to `to`, which is not part of it; `None` is beyond every key.
type Interval = (Bytes, Option<Bytes>);

/// Whether a permission on this range makes sense: it has a first key, and ends after it. Source: etcd 3.6,
/// `range_perm_cache.go`.
pub(crate) fn is_valid(key: &[u8], range_end: &[u8]) -> bool {
    !key.is_empty() && (range_end.is_empty() || range_end == OPEN || key < range_end)
}

fn end_of(key: &[u8], range_end: &[u8]) -> Option<Bytes> {
    match range_end {
        // The smallest key after `key`: the range holds `key` alone.
        [] => Some([key, &[0]].concat().into()),
        OPEN => None,
        end => Some(Bytes::copy_from_slice(end)),
    }
}

/// Disjoint ranges in order, none touching the next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ranges(Vec<Interval>);

impl Ranges {
    /// The union of ranges as permissions give them.
    pub(crate) fn union<'a>(ranges: impl Iterator<Item = (&'a Bytes, &'a Bytes)>) -> Ranges {
        let mut all: Vec<Interval> = ranges
            .filter(|(key, range_end)| is_valid(key, range_end))
            .map(|(key, range_end)| (key.clone(), end_of(key, range_end)))
            .collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        let mut merged: Vec<Interval> = Vec::with_capacity(all.len());
        for (from, to) in all {
            match merged.last_mut() {
                Some((_, None)) => break,
                Some((_, Some(end))) if from <= *end => match to {
                    None => {
                        if let Some(last) = merged.last_mut() {
                            last.1 = None;
                        }
                    }
                    Some(to) => *end = to.max(end.clone()),
                },
                _ => merged.push((from, to)),
            }
        }
        Ranges(merged)
    }

    /// Whether every key of the range is in the set. An empty range counts as its first key.
    pub(crate) fn contain(&self, key: &[u8], range_end: &[u8]) -> bool {
        let after = self.0.partition_point(|(from, _)| &from[..] <= key);
        let Some((_, to)) = after.checked_sub(1).and_then(|at| self.0.get(at)) else {
            return false;
        };
        let Some(to) = to else { return true };
        match range_end {
            OPEN => false,
            [] => key < &to[..],
            end => key < &to[..] && end <= &to[..],
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ranges(list: &[(&'static str, &'static str)]) -> Ranges {
        let list: Vec<(Bytes, Bytes)> = list
            .iter()
            .map(|(key, end)| (Bytes::from(*key), Bytes::from(*end)))
            .collect();
        Ranges::union(list.iter().map(|(key, end)| (key, end)))
    }

    #[test]
    fn ranges_that_touch_are_one() {
        let set = ranges(&[("a", "c"), ("c", "e"), ("x", "")]);
        for (key, end, inside) in [
            ("a", "e", true),
            ("b", "d", true),
            ("a", "f", false),
            ("e", "", false),
            ("x", "", true),
            ("x", "x\0", true),
            ("x", "y", false),
            ("a", "\0", false),
            ("d", "\0", false),
            ("a", "x", false),
        ] {
            assert_eq!(
                set.contain(key.as_bytes(), end.as_bytes()),
                inside,
                "{key:?} {end:?}"
            );
        }
    }

    #[test]
    fn an_open_end_reaches_every_key() {
        let set = ranges(&[("m", "\0"), ("p", "q")]);
        assert!(set.contain(b"m", b"\0"));
        assert!(set.contain(b"zz", b"zzz"));
        assert!(!set.contain(b"l", b"n"));
        let all = ranges(&[("\0", "\0")]);
        assert!(all.contain(b"\0", b"\0"));
    }

    #[test]
    fn a_range_without_a_key_or_before_it_is_none() {
        assert!(!is_valid(b"", b"a"));
        assert!(!is_valid(b"b", b"a"));
        assert!(!is_valid(b"a", b"a"));
        assert!(is_valid(b"a", b""));
        assert!(is_valid(b"b", b"\0"));
    }

    fn key() -> impl Strategy<Value = Bytes> {
        prop::collection::vec(prop_oneof![Just(0u8), Just(b'a'), Just(b'b')], 1..3)
            .prop_map(Bytes::from)
    }

    fn end() -> impl Strategy<Value = Bytes> {
        prop_oneof![Just(Bytes::new()), Just(Bytes::from_static(OPEN)), key()]
    }

    /// Every key up to four bytes over the alphabet of the ranges: between any two ends lies one of them.
    fn keys() -> Vec<Vec<u8>> {
        let mut all = vec![Vec::new()];
        let mut longest = all.clone();
        for _ in 0..4 {
            longest = longest
                .iter()
                .flat_map(|key| [0u8, b'a', b'b', b'c'].map(|byte| [&key[..], &[byte]].concat()))
                .collect();
            all.extend(longest.clone());
        }
        all.remove(0);
        all
    }

    fn holds(range: &(Bytes, Bytes), key: &[u8]) -> bool {
        let (from, end) = (&range.0[..], &range.1[..]);
        match end {
            [] => key == from,
            OPEN => key >= from,
            end => key >= from && key < end,
        }
    }

    proptest! {
        #[test]
        fn containment_is_that_of_every_key(
            permissions in prop::collection::vec((key(), end()), 0..5),
            asked in (key(), end()),
        ) {
            let valid: Vec<_> = permissions.into_iter().filter(|(key, end)| is_valid(key, end)).collect();
            let set = Ranges::union(valid.iter().map(|(key, end)| (key, end)));
            prop_assume!(is_valid(&asked.0, &asked.1));
            let naive = keys()
                .iter()
                .filter(|key| holds(&asked, key))
                .all(|key| valid.iter().any(|range| holds(range, key)));
            prop_assert_eq!(set.contain(&asked.0, &asked.1), naive, "{:?} in {:?}", asked, valid);
        }
    }
}
