//! Reads entries: from memory when they are recent, else from the segments.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, Stream, TryStreamExt};
use openraft::RaftLogReader;

use crate::config::{Entry, TypeConfig, Vote};
use crate::index::Run;
use crate::record::{self, HEADER_BYTES};
use crate::state::{Plan, Shared};

/// A handle for reading; clones are cheap and independent of each other.
///
/// Reads of old entries use the calling thread: they hit the page cache unless a follower is far behind.
#[derive(Clone, Debug)]
pub struct LogReader {
    shared: Arc<Shared>,
}

impl LogReader {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Entries of `from..to` that the log holds, of about `bytes` bytes together and at least one.
    fn read(&self, from: u64, to: u64, bytes: usize) -> io::Result<Vec<Entry>> {
        let Plan { runs, cached } = self.shared.lock().plan(from, to, bytes);
        if runs.is_empty() {
            return Ok(cached);
        }
        let located = runs.iter().map(|run| run.offsets.len()).sum::<usize>();
        let mut entries = Vec::with_capacity(located + cached.len());
        for run in &runs {
            read_run(run, &mut entries)?;
        }
        entries.extend(cached);
        Ok(entries)
    }
}

fn read_run(run: &Run, entries: &mut Vec<Entry>) -> io::Result<()> {
    let segment = &run.segment;
    let Some(start) = run.offsets.first().copied() else {
        return Ok(());
    };
    let bad = |offset: u32, reason: &str| {
        let error = segment.corrupt(u64::from(offset), reason);
        io::Error::new(io::ErrorKind::InvalidData, error)
    };
    let mut buf = vec![0; (run.end - start) as usize];
    segment
        .file
        .read_exact_at(&mut buf, u64::from(start))
        .map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("cannot read {}: {error}", segment.path.display()),
            )
        })?;
    let buf = Bytes::from(buf);
    for offset in &run.offsets {
        let at = (offset - start) as usize;
        let frame = record::decode(&buf[at..], segment.place(u64::from(*offset)))
            .map_err(|damage| bad(*offset, damage.reason()))?;
        let body = at + HEADER_BYTES;
        let entry = record::entry(frame.kind, buf.slice(body..body + frame.body))
            .map_err(|reason: String| bad(*offset, &reason))?;
        entries.push(entry);
    }
    Ok(())
}

fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let from = match range.start_bound() {
        Bound::Included(from) => *from,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let to = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(to) => *to,
        Bound::Unbounded => u64::MAX,
    };
    (from, to)
}

impl RaftLogReader<TypeConfig> for LogReader {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> Result<Vec<Entry>, io::Error>
    where
        RB: RangeBounds<u64> + Clone + Debug + Send,
    {
        let (from, to) = bounds(&range);
        self.read(from, to, usize::MAX)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.shared.lock().vote)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, io::Error> {
        self.read(start, end, self.shared.options.read_bytes)
    }

    /// Reads in bounded pieces: a restart may have a hundred thousand entries to apply again.
    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = Result<Entry, io::Error>> + Send
    where
        RB: RangeBounds<u64> + Clone + Debug + Send,
    {
        let (from, to) = bounds(&range);
        let reader = self.clone();
        let pieces = stream::try_unfold(from, move |from| {
            let piece = reader.read(from, to, reader.shared.options.read_bytes);
            std::future::ready(piece.map(|entries| {
                let next = entries.last().map(|last| last.log_id.index + 1)?;
                Some((stream::iter(entries.into_iter().map(Ok)), next))
            }))
        });
        Box::pin(pieces.try_flatten())
    }
}
