//! Where each written entry is: four bytes per entry, plus one span per segment.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::segment::Segment;

/// Entries of consecutive indexes in one segment.
#[derive(Debug)]
struct Span {
    first: u64,
    segment: Arc<Segment>,
    /// Offset after the last entry.
    end: u32,
}

/// Maps entry index to segment and offset, in the order in which the flusher wrote.
///
/// Invariant: the offsets cover `start()..next()` without a hole, and the spans cover the same range in order.
#[derive(Debug, Default)]
pub(crate) struct Index {
    next: u64,
    offsets: VecDeque<u32>,
    spans: VecDeque<Span>,
}

/// Consecutive entries in one segment, to be read in one go.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) segment: Arc<Segment>,
    pub(crate) offsets: Vec<u32>,
    /// Offset after the last entry of the run.
    pub(crate) end: u32,
}

impl Index {
    /// Index of the oldest entry that is located; equals `next()` when there is none.
    pub(crate) fn start(&self) -> u64 {
        self.next - self.offsets.len() as u64
    }

    /// Index after the newest located entry.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// Sequence of the oldest segment that holds a located entry.
    pub(crate) fn oldest_sequence(&self) -> Option<u64> {
        self.spans.front().map(|span| span.segment.sequence)
    }

    /// Records that entry `index` occupies `offset..end` of `segment`.
    pub(crate) fn push(&mut self, index: u64, segment: &Arc<Segment>, offset: u32, end: u32) {
        if self.offsets.is_empty() {
            self.next = index;
        }
        assert_eq!(index, self.next, "entries are written in order");
        match self.spans.back_mut() {
            Some(span) if Arc::ptr_eq(&span.segment, segment) => span.end = end,
            _ => self.spans.push_back(Span {
                first: index,
                segment: segment.clone(),
                end,
            }),
        }
        self.offsets.push_back(offset);
        self.next += 1;
    }

    /// Forgets the entries from `next` on.
    pub(crate) fn truncate(&mut self, next: u64) {
        while self.next > next {
            let Some(offset) = self.offsets.pop_back() else {
                break;
            };
            self.next -= 1;
            match self.spans.back_mut() {
                Some(span) if span.first < self.next => span.end = offset,
                _ => drop(self.spans.pop_back()),
            }
        }
        if self.offsets.is_empty() {
            self.spans.clear();
        }
    }

    /// Forgets the entries up to `upto`, inclusive.
    pub(crate) fn purge(&mut self, upto: u64) {
        let gone = (upto + 1)
            .saturating_sub(self.start())
            .min(self.offsets.len() as u64);
        self.offsets
            .drain(..usize::try_from(gone).unwrap_or(usize::MAX));
        if self.offsets.is_empty() {
            self.spans.clear();
        }
        let start = self.start();
        while self.spans.get(1).is_some_and(|span| span.first <= start) {
            self.spans.pop_front();
        }
        if let Some(span) = self.spans.front_mut() {
            span.first = start;
        }
        // A purge frees most of the log at once; a quarter of slack keeps the next growth from copying at once.
        if self.offsets.capacity() > 4096 && self.offsets.len() < self.offsets.capacity() / 4 {
            self.offsets.shrink_to(self.offsets.len() * 2);
        }
    }

    /// Locates the entries `from..to` in runs of at most `run_bytes`, until `bytes` are covered; at least one entry.
    ///
    /// The range must be located completely.
    pub(crate) fn runs(&self, from: u64, to: u64, bytes: usize, run_bytes: usize) -> Vec<Run> {
        debug_assert!(
            self.start() <= from && to <= self.next,
            "{from}..{to} is located"
        );
        let mut runs: Vec<Run> = Vec::new();
        let mut total = 0;
        let mut span = self
            .spans
            .partition_point(|span| span.first <= from)
            .saturating_sub(1);
        let mut run_start = 0;
        for index in from..to {
            while self
                .spans
                .get(span + 1)
                .is_some_and(|next| next.first <= index)
            {
                span += 1;
            }
            let here = &self.spans[span];
            let offset = self.offset(index);
            let span_end = self
                .spans
                .get(span + 1)
                .map_or(self.next, |next| next.first);
            let end = if index + 1 < span_end {
                self.offset(index + 1)
            } else {
                here.end
            };
            let size = (end - offset) as usize;
            if total > 0 && total + size > bytes {
                break;
            }
            total += size;
            match runs.last_mut() {
                Some(run)
                    if Arc::ptr_eq(&run.segment, &here.segment)
                        && (end - run_start) as usize <= run_bytes =>
                {
                    run.offsets.push(offset);
                    run.end = end;
                }
                _ => {
                    run_start = offset;
                    runs.push(Run {
                        segment: here.segment.clone(),
                        offsets: vec![offset],
                        end,
                    });
                }
            }
        }
        runs
    }

    fn offset(&self, index: u64) -> u32 {
        self.offsets[usize::try_from(index - self.start()).unwrap_or(usize::MAX)]
    }
}
