//! How many keys there are in a range, without visiting them: the ordered keys cut into blocks of a few hundred.
//!
//! A block knows its first key and its count, a group of blocks knows the sum of theirs; so a count adds up some
//! hundred numbers, whatever lies between. Owns no keys but the blocks' bounds, and knows nothing of storage: whoever
//! creates keys says so, and cuts a block that grew too large.
//!
//! Invariant: the blocks cover all keys without a gap, and their counts are those of the keys that were
//! added and not removed.

/// How many keys and blocks lie together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    /// A block with more keys is cut.
    pub(crate) largest: usize,
    /// Into pieces of about so many. Several to a block, so that a key is visited once or twice for being cut.
    pub(crate) piece: usize,
    /// A group with more blocks is halved.
    pub(crate) group: usize,
}

impl Sizes {
    /// At a million keys some 4,000 blocks, 300 KB; a count then walks a block at each end of its range.
    pub(crate) const DEFAULT: Sizes = Sizes {
        largest: 1024,
        piece: 256,
        group: 512,
    };
}

/// The blocks of all keys.
#[derive(Debug)]
pub(crate) struct Blocks {
    sizes: Sizes,
    /// Never empty, and neither is a group.
    groups: Vec<Group>,
}

#[derive(Debug)]
struct Group {
    count: usize,
    blocks: Vec<Block>,
}

#[derive(Debug)]
struct Block {
    /// The lowest key that belongs here; empty in the very first block.
    first: Box<[u8]>,
    count: usize,
}

/// The whole blocks inside a range.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Whole {
    /// Where they begin.
    pub(crate) from: Box<[u8]>,
    /// Where they end, `None` for the end of all keys.
    pub(crate) to: Option<Box<[u8]>>,
    /// The keys in them.
    pub(crate) count: usize,
}

type At = (usize, usize);

impl Blocks {
    pub(crate) fn new(sizes: Sizes) -> Self {
        let only = Block {
            first: Box::default(),
            count: 0,
        };
        let group = Group {
            count: 0,
            blocks: vec![only],
        };
        Blocks {
            sizes,
            groups: vec![group],
        }
    }

    /// Adds a key behind all others.
    pub(crate) fn push(&mut self, key: &[u8]) {
        let fresh = |first: Box<[u8]>| Block { first, count: 1 };
        match self.groups.last_mut() {
            Some(group) if group.blocks.len() < self.sizes.group => {
                group.count += 1;
                match group.blocks.last_mut() {
                    Some(last) if last.count < self.sizes.piece => last.count += 1,
                    _ => group.blocks.push(fresh(key.into())),
                }
            }
            _ => self.groups.push(Group {
                count: 1,
                blocks: vec![fresh(key.into())],
            }),
        }
    }

    /// Adds a key; says whether its block must be [cut](Blocks::cut).
    pub(crate) fn add(&mut self, key: &[u8]) -> bool {
        let at = self.find(key);
        let group = &mut self.groups[at.0];
        group.count += 1;
        group.blocks[at.1].count += 1;
        group.blocks[at.1].count > self.sizes.largest
    }

    /// Takes a key out.
    pub(crate) fn remove(&mut self, key: &[u8]) {
        let (g, b) = self.find(key);
        let group = &mut self.groups[g];
        debug_assert!(
            group.blocks[b].count > 0,
            "a key is removed that was never added"
        );
        group.blocks[b].count = group.blocks[b].count.saturating_sub(1);
        group.count = group.count.saturating_sub(1);
        let count = group.blocks[b].count;
        if count > self.sizes.piece / 4 {
            return;
        }
        // Half of what would be cut again, so that blocks do not go to and fro.
        let fits = |other: &Block| other.count + count <= self.sizes.largest / 2;
        if b > 0 && fits(&group.blocks[b - 1]) {
            group.blocks.remove(b);
            group.blocks[b - 1].count += count;
        } else if group.blocks.get(b + 1).is_some_and(fits) {
            group.blocks[b].count += group.blocks.remove(b + 1).count;
        } else if count == 0 && (group.blocks.len() > 1 || self.groups.len() > 1) {
            self.drop_empty((g, b));
            return;
        } else {
            return;
        }
        self.join_group(g);
    }

    /// Removes a block without keys; the one before it, or for want of one the one behind it, covers its range.
    fn drop_empty(&mut self, (g, b): At) {
        self.groups[g].blocks.remove(b);
        if self.groups[g].blocks.is_empty() {
            self.groups.remove(g);
        }
        if (g, b) == (0, 0) {
            self.groups[0].blocks[0].first = Box::default();
        }
    }

    /// Puts a group that became small together with a neighbour.
    fn join_group(&mut self, g: usize) {
        let small = self.sizes.group / 4;
        if self.groups[g].blocks.len() > small {
            return;
        }
        let fits =
            |other: Option<&Group>| other.is_some_and(|other| other.blocks.len() <= 2 * small);
        let into = if g > 0 && fits(self.groups.get(g - 1)) {
            g - 1
        } else if fits(self.groups.get(g + 1)) {
            g
        } else {
            return;
        };
        let from = self.groups.remove(into + 1);
        self.groups[into].count += from.count;
        self.groups[into].blocks.extend(from.blocks);
    }

    /// The block that holds `key`, if it must be cut: pieces to be filled with all its keys in order, and its end.
    pub(crate) fn oversize(&self, key: &[u8]) -> Option<(Pieces, Option<&[u8]>)> {
        let at = self.find(key);
        let block = self.block(at)?;
        if block.count <= self.sizes.largest {
            return None;
        }
        let pieces = Pieces {
            // Of equal size: a small last one would soon be joined again.
            size: block.count.div_ceil(block.count.div_ceil(self.sizes.piece)),
            blocks: vec![Block {
                first: block.first.clone(),
                count: 0,
            }],
        };
        Some((pieces, self.first(self.after(at))))
    }

    /// Puts the pieces in the place of their block.
    pub(crate) fn cut(&mut self, pieces: Pieces) {
        let (g, b) = self.find(pieces.from());
        let group = &mut self.groups[g];
        let counted: usize = pieces.blocks.iter().map(|piece| piece.count).sum();
        debug_assert_eq!(
            counted, group.blocks[b].count,
            "a block's count is not that of its keys"
        );
        group.count = group.count + counted - group.blocks[b].count;
        group.blocks.splice(b..=b, pieces.blocks);
        if group.blocks.len() > self.sizes.group {
            let mut blocks = std::mem::take(&mut group.blocks);
            let half = (self.sizes.group / 2).max(1);
            let mut groups = Vec::new();
            while !blocks.is_empty() {
                let rest = blocks.split_off(half.min(blocks.len()));
                groups.push(Group {
                    count: blocks.iter().map(|block| block.count).sum(),
                    blocks,
                });
                blocks = rest;
            }
            self.groups.splice(g..=g, groups);
        }
    }

    /// The whole blocks in `[from, to)`, to the end of all keys when `to` is `None`.
    pub(crate) fn whole(&self, from: &[u8], to: Option<&[u8]>) -> Option<Whole> {
        let mut start = self.find(from);
        if self.first(start).is_some_and(|first| first < from) {
            start = self.after(start);
        }
        let end = to.map_or((self.groups.len(), 0), |to| self.find(to));
        if start >= end {
            return None;
        }
        let part = |g: usize, from: usize, to: usize| {
            let blocks = self.groups.get(g).map_or(&[][..], |group| &group.blocks);
            let some = blocks.get(from..to.min(blocks.len())).unwrap_or(&[]);
            some.iter().map(|block| block.count).sum::<usize>()
        };
        let count = if start.0 == end.0 {
            part(start.0, start.1, end.1)
        } else {
            let between = &self.groups[start.0 + 1..end.0];
            part(start.0, start.1, usize::MAX)
                + between.iter().map(|group| group.count).sum::<usize>()
                + part(end.0, 0, end.1)
        };
        Some(Whole {
            from: self.first(start)?.into(),
            to: self.first(end).map(Box::from),
            count,
        })
    }

    /// The block to which `key` belongs.
    fn find(&self, key: &[u8]) -> At {
        let starts = |block: &Block| block.first[..] <= *key;
        let g = self
            .groups
            .partition_point(|group| group.blocks.first().is_none_or(starts));
        let g = g.saturating_sub(1);
        let b = self.groups[g].blocks.partition_point(starts);
        (g, b.saturating_sub(1))
    }

    fn block(&self, (g, b): At) -> Option<&Block> {
        self.groups.get(g)?.blocks.get(b)
    }

    fn first(&self, at: At) -> Option<&[u8]> {
        self.block(at).map(|block| &block.first[..])
    }

    fn after(&self, (g, b): At) -> At {
        if b + 1 < self.groups[g].blocks.len() {
            (g, b + 1)
        } else {
            (g + 1, 0)
        }
    }
}

/// The pieces of a block that is being cut.
#[derive(Debug)]
pub(crate) struct Pieces {
    size: usize,
    blocks: Vec<Block>,
}

impl Pieces {
    /// The lowest key that may belong to the block.
    pub(crate) fn from(&self) -> &[u8] {
        self.blocks.first().map_or(&[], |block| &block.first)
    }

    /// Takes the block's next key.
    pub(crate) fn push(&mut self, key: &[u8]) {
        match self.blocks.last_mut() {
            Some(last) if last.count < self.size => last.count += 1,
            _ => self.blocks.push(Block {
                first: key.into(),
                count: 1,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const TINY: Sizes = Sizes {
        largest: 4,
        piece: 2,
        group: 4,
    };

    type Key = Vec<u8>;

    fn key() -> impl Strategy<Value = Key> {
        prop::collection::vec(prop::sample::select(&b"\0ab\xff"[..]), 1..5)
    }

    /// Cuts every block that must be, as a store does after a commit.
    fn cut(blocks: &mut Blocks, keys: &BTreeSet<Key>, key: &[u8]) {
        if let Some((mut pieces, to)) = blocks.oversize(key) {
            let from = pieces.from().to_vec();
            let to = to.map(<[u8]>::to_vec);
            for key in keys.range(from..) {
                if to.as_ref().is_none_or(|to| key < to) {
                    pieces.push(key);
                }
            }
            blocks.cut(pieces);
        }
    }

    fn check(blocks: &Blocks, keys: &BTreeSet<Key>) -> Result<(), TestCaseError> {
        prop_assert!(blocks.groups.iter().all(|group| !group.blocks.is_empty()));
        let all = || blocks.groups.iter().flat_map(|group| &group.blocks);
        prop_assert_eq!(all().next().map(|block| block.first.len()), Some(0));
        let bounds: Vec<_> = all().map(|block| block.first.clone()).collect();
        prop_assert!(bounds.is_sorted_by(|a, b| a < b), "{bounds:?}");
        for group in &blocks.groups {
            let sum: usize = group.blocks.iter().map(|block| block.count).sum();
            prop_assert_eq!(group.count, sum);
            prop_assert!(group.blocks.len() <= TINY.group);
        }
        for (at, block) in all().enumerate() {
            let inside = |key: &&Key| {
                key[..] >= block.first[..]
                    && bounds.get(at + 1).is_none_or(|next| key[..] < next[..])
            };
            prop_assert_eq!(block.count, keys.iter().filter(inside).count());
            prop_assert!(block.count <= TINY.largest);
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn counts_are_those_of_the_keys(
            loaded in prop::collection::btree_set(key(), 0..60),
            steps in prop::collection::vec((key(), prop::bool::weighted(0.6)), 0..150),
            reads in prop::collection::vec((key(), prop::option::of(key())), 1..20),
        ) {
            let mut blocks = Blocks::new(TINY);
            let mut keys = BTreeSet::new();
            for key in loaded {
                blocks.push(&key);
                keys.insert(key);
            }
            check(&blocks, &keys)?;
            for (key, add) in steps {
                if add && keys.insert(key.clone()) {
                    if blocks.add(&key) {
                        cut(&mut blocks, &keys, &key);
                    }
                } else if !add && keys.remove(&key) {
                    blocks.remove(&key);
                }
                check(&blocks, &keys)?;
            }
            for (from, to) in reads {
                if let Some(whole) = blocks.whole(&from, to.as_deref()) {
                    prop_assert!(from[..] <= whole.from[..]);
                    if let Some(to) = &to {
                        prop_assert!(whole.to.as_ref().is_some_and(|end| end[..] <= to[..]));
                    }
                    let inside = |key: &&Key| {
                        whole.from[..] <= key[..] && whole.to.as_ref().is_none_or(|to| key[..] < to[..])
                    };
                    prop_assert_eq!(whole.count, keys.iter().filter(inside).count());
                }
            }
            for key in keys {
                blocks.remove(&key);
            }
            check(&blocks, &BTreeSet::new())?;
            prop_assert_eq!(blocks.groups.len(), 1);
        }
    }
}
