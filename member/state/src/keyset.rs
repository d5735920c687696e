//! A set of keys given by single keys and ranges.
//!
//! Ranges are merged where they touch, so that a look-up takes a few steps in a tree however many there are:
//! a transaction may hold a hundred thousand operations.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

/// Keys that were named one by one or in ranges.
#[derive(Debug, Default)]
pub(crate) struct KeySet<'a> {
    keys: BTreeSet<&'a [u8]>,
    /// Start to end, neither overlapping nor touching.
    spans: BTreeMap<&'a [u8], &'a [u8]>,
    /// All keys from here on.
    tail: Option<&'a [u8]>,
}

impl<'a> KeySet<'a> {
    pub(crate) fn insert(&mut self, key: &'a [u8]) {
        self.keys.insert(key);
    }

    /// Adds `[from, to)`; an inverted range holds no key.
    pub(crate) fn insert_span(&mut self, mut from: &'a [u8], mut to: &'a [u8]) {
        if to <= from {
            return;
        }
        // Spans that begin at or before `to`, from the last one back to the first that ends before `from`.
        while let Some((&start, &end)) = self.spans.range(..=to).next_back() {
            if end < from {
                break;
            }
            from = from.min(start);
            to = to.max(end);
            self.spans.remove(start);
        }
        self.spans.insert(from, to);
    }

    /// Adds every key from `from` on.
    pub(crate) fn insert_tail(&mut self, from: &'a [u8]) {
        self.tail = Some(self.tail.map_or(from, |tail| tail.min(from)));
    }

    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        let mut before = self
            .spans
            .range::<[u8], _>((Bound::Unbounded, Bound::Included(key)));
        self.keys.contains(key)
            || self.tail.is_some_and(|tail| tail <= key)
            || before.next_back().is_some_and(|(_, end)| key < *end)
    }

    /// Adds all of another set.
    pub(crate) fn merge(&mut self, mut other: KeySet<'a>) {
        self.keys.append(&mut other.keys);
        for (from, to) in other.spans {
            self.insert_span(from, to);
        }
        if let Some(tail) = other.tail {
            self.insert_tail(tail);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn set_holds_what_was_inserted(
            spans in prop::collection::vec((any::<[u8; 1]>(), any::<[u8; 1]>()), 0..20),
            keys in prop::collection::vec(any::<[u8; 1]>(), 0..5),
            tail: Option<[u8; 1]>,
            split in 0usize..20,
            key: [u8; 1],
        ) {
            let (mut set, mut other) = (KeySet::default(), KeySet::default());
            for (at, (from, to)) in spans.iter().enumerate() {
                if at < split { &mut set } else { &mut other }.insert_span(from, to);
            }
            for key in &keys {
                other.insert(key);
            }
            if let Some(tail) = &tail {
                other.insert_tail(tail);
            }
            set.merge(other);
            let expected = spans.iter().any(|(from, to)| *from <= key && key < *to)
                || keys.contains(&key)
                || tail.is_some_and(|tail| tail <= key);
            prop_assert_eq!(set.contains(&key), expected);
            let ends: Vec<_> = set.spans.iter().flat_map(|(from, to)| [*from, *to]).collect();
            prop_assert!(ends.is_sorted_by(|a, b| a < b), "spans overlap or touch");
        }
    }
}
