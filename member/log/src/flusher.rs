//! The one thread that writes: takes everything queued, writes it, makes it durable once, then answers.
//!
//! It owns the tail of the log. A failed write or fdatasync is permanent: after it, nobody can say what the kernel kept,
//! so the log refuses all further requests instead of trying again.

use std::collections::VecDeque;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use openraft::EntryPayload;

use crate::LogError;
use crate::config::{Entry, LogId};
use crate::record::{self, Kind};
use crate::recover::Recovered;
use crate::segment::{Head, Segment, offset32, sync_dir};
use crate::state::{Failure, Flusher as Activity, Op, Shared};

/// How long the thread stays half awake after a batch. The committed position of that batch usually arrives
/// meanwhile and is written without a wake-up of its own.
const LINGER: Duration = Duration::from_millis(50);

/// A longer batch is written in pieces, which bounds the buffer.
const WRITE_BYTES: usize = 1 << 20;

/// Queue capacity that is kept between batches.
const KEPT_OPS: usize = 8192;

/// A change of the written view, to be published after the write.
enum Effect {
    Segment(Arc<Segment>),
    Entry { index: u64, offset: u32, end: u32 },
    Truncate(u64),
    Purge(u64),
}

pub(crate) struct Flusher {
    shared: Arc<Shared>,
    /// All segments, oldest first; the last one is active.
    segments: VecDeque<Arc<Segment>>,
    active: Arc<Segment>,
    /// State as of the last encoded record.
    head: Head,
    /// Offset of the first byte that is not in the file yet.
    written: u64,
    /// Offset up to which the active segment is durable.
    synced: u64,
    /// Whether the active segment holds anything after its head.
    fresh: bool,
    /// Records to be written at `written`.
    buf: Vec<u8>,
    effects: Vec<Effect>,
    purged: bool,
}

impl Flusher {
    pub(crate) fn new(shared: Arc<Shared>, recovered: Recovered) -> Self {
        let Recovered {
            head,
            segments,
            active,
            position,
            fresh,
            ..
        } = recovered;
        shared
            .counters
            .segments
            .store(segments.len() as u64, Ordering::Relaxed);
        Self {
            effects: vec![Effect::Segment(active.clone())],
            shared,
            segments,
            active,
            head,
            written: position,
            synced: position,
            fresh,
            buf: Vec::new(),
            purged: true,
        }
    }

    /// Runs until the log is closed or fails.
    pub(crate) fn run(mut self) {
        let _stop = StopOnExit(self.shared.clone());
        let mut ops = Vec::new();
        let mut evicted = Vec::new();
        loop {
            let (committed, closing) = self.take(&mut ops);
            if let Err(error) = self.flush(&ops, committed, closing) {
                self.fail(&error, &mut ops);
                return;
            }
            self.publish(&ops, &mut evicted);
            for op in ops.drain(..) {
                match op {
                    Op::Flushed(callback) => callback.io_completed(Ok(())),
                    // The asker may have given up waiting.
                    Op::Vote(_, done) => drop(done.send(Ok(()))),
                    Op::Identity(_, done) => drop(done.send(Ok(()))),
                    Op::Entry(_) | Op::Truncate(_) | Op::Purge(_) => {}
                }
            }
            evicted.clear();
            ops.shrink_to(KEPT_OPS);
            evicted.shrink_to(KEPT_OPS);
            self.effects.shrink_to(KEPT_OPS);
            self.buf.shrink_to(WRITE_BYTES);
            self.unlink_purged();
            if closing {
                return;
            }
        }
    }

    /// Waits for work and takes all of it.
    fn take(&self, ops: &mut Vec<Op>) -> (Option<LogId>, bool) {
        let mut state = self.shared.lock();
        let mut lingered = false;
        while state.queue.is_empty() && !state.closing {
            if lingered && state.unsaved_committed.is_some() {
                break;
            }
            if lingered {
                state.flusher = Activity::Parked;
                state = self.shared.wait(state);
                // A committed position that arrives alone waits for one more linger.
                lingered = false;
            } else {
                state.flusher = Activity::Lingering;
                (state, lingered) = self.shared.wait_at_most(state, LINGER);
            }
        }
        state.flusher = Activity::Busy;
        std::mem::swap(&mut state.queue, ops);
        (state.unsaved_committed.take(), state.closing)
    }

    fn flush(
        &mut self,
        ops: &[Op],
        committed: Option<LogId>,
        closing: bool,
    ) -> Result<(), LogError> {
        let mut durable = closing;
        for op in ops {
            match op {
                Op::Entry(entry) => self.put_entry(entry)?,
                Op::Flushed(_) => durable = true,
                Op::Vote(vote, _) => {
                    self.put(Kind::Vote, &record::vote_body(vote), &[])?;
                    self.head.vote = Some(*vote);
                    durable = true;
                }
                Op::Identity(identity, _) => {
                    self.put(Kind::Identity, &record::identity_body(*identity), &[])?;
                    self.head.identity = Some(*identity);
                    durable = true;
                }
                Op::Truncate(last) => {
                    match last {
                        Some(last) => self.put(Kind::Truncate, &record::log_id_body(*last), &[])?,
                        None => self.put(Kind::Truncate, &[], &[])?,
                    };
                    self.head.last = (*last).max(self.head.purged);
                    self.effects
                        .push(Effect::Truncate(last.map_or(0, |last| last.index + 1)));
                }
                Op::Purge(upto) => {
                    self.put(Kind::Purge, &record::log_id_body(*upto), &[])?;
                    self.head.purged = Some(*upto);
                    self.head.last = self
                        .head
                        .last
                        .filter(|last| last.index > upto.index)
                        .or(Some(*upto));
                    self.effects.push(Effect::Purge(upto.index));
                    self.purged = true;
                    durable = true;
                }
            }
        }
        if let Some(committed) = committed {
            self.put(Kind::Committed, &record::log_id_body(committed), &[])?;
            self.head.committed = Some(committed);
        }
        self.write()?;
        if durable {
            self.sync()?;
        }
        Ok(())
    }

    fn put_entry(&mut self, entry: &Entry) -> Result<(), LogError> {
        let front = record::entry_front(entry.log_id);
        let (offset, end) = match &entry.payload {
            EntryPayload::Blank => self.put(Kind::Blank, &front, &[])?,
            EntryPayload::Normal(payload) => self.put(Kind::Normal, &front, &payload.0)?,
            EntryPayload::Membership(membership) => {
                let json = serde_json::to_vec(&membership).map_err(|error| {
                    LogError::io("encode membership for", &self.active.path)(error.into())
                })?;
                self.put(Kind::Membership, &front, &json)?
            }
        };
        self.head.last = Some(entry.log_id);
        self.effects.push(Effect::Entry {
            index: entry.log_id.index,
            offset,
            end,
        });
        Ok(())
    }

    /// Encodes one record and returns where it starts and ends.
    fn put(&mut self, kind: Kind, front: &[u8], rest: &[u8]) -> Result<(u32, u32), LogError> {
        let size = record::record_bytes(front.len() + rest.len());
        let room =
            u64::from(self.shared.options.segment_bytes).saturating_sub(record::record_bytes(0));
        // A record that no segment has room for gets a segment of its own, which grows.
        if self.position() + size > room && !self.fresh {
            self.roll()?;
        }
        if self.buf.len() >= WRITE_BYTES {
            self.write()?;
        }
        let offset = self.position();
        record::encode(
            &mut self.buf,
            self.active.place(offset),
            offset32(self.synced),
            kind,
            front,
            rest,
        );
        self.fresh = false;
        Ok((offset32(offset), offset32(self.position())))
    }

    fn position(&self) -> u64 {
        self.written + self.buf.len() as u64
    }

    fn write(&mut self) -> Result<(), LogError> {
        if self.buf.is_empty() {
            return Ok(());
        }
        let begin = self
            .shared
            .options
            .on_write
            .as_ref()
            .map(|_| Instant::now());
        self.active
            .file
            .write_all_at(&self.buf, self.written)
            .map_err(LogError::io("write log segment", &self.active.path))?;
        if let (Some(begin), Some(hook)) = (begin, &self.shared.options.on_write) {
            hook(begin.elapsed());
        }
        self.written += self.buf.len() as u64;
        self.shared
            .counters
            .written_bytes
            .fetch_add(self.buf.len() as u64, Ordering::Relaxed);
        self.buf.clear();
        Ok(())
    }

    fn sync(&mut self) -> Result<(), LogError> {
        let begin = Instant::now();
        self.active
            .file
            .sync_data()
            .map_err(LogError::io("sync log segment", &self.active.path))?;
        self.shared.count_fsync(begin.elapsed());
        self.synced = self.written;
        Ok(())
    }

    /// Starts the next segment, then seals this one: a seal promises that the successor exists.
    fn roll(&mut self) -> Result<(), LogError> {
        self.write()?;
        self.sync()?;
        let options = &self.shared.options;
        let (next, position) = Segment::create(
            &options.dir,
            self.active.sequence + 1,
            &self.head,
            u64::from(options.segment_bytes),
        )?;
        seal(&self.active, self.written)?;
        self.segments.push_back(next.clone());
        self.effects.push(Effect::Segment(next.clone()));
        self.shared
            .counters
            .segments
            .store(self.segments.len() as u64, Ordering::Relaxed);
        self.active = next;
        self.written = position;
        self.synced = position;
        self.fresh = true;
        Ok(())
    }

    /// Shows readers what was written and takes surplus entries out of the cache.
    fn publish(&mut self, ops: &[Op], evicted: &mut Vec<Entry>) {
        let mut state = self.shared.lock();
        let mut segment = None;
        // The last segment named is the one in which the next batch starts.
        let mut current = None;
        for effect in self.effects.drain(..) {
            match effect {
                Effect::Segment(next) => {
                    segment = Some(next.clone());
                    current = Some(next);
                }
                Effect::Entry { index, offset, end } => {
                    if let Some(segment) = &segment {
                        state.index.push(index, segment, offset, end);
                    }
                }
                Effect::Truncate(next) => {
                    state.index.truncate(next);
                    state.pending_truncates -= 1;
                }
                Effect::Purge(upto) => state.index.purge(upto),
            }
        }
        for op in ops {
            match op {
                Op::Vote(vote, _) => state.vote = Some(*vote),
                Op::Identity(identity, _) => state.identity = Some(*identity),
                _ => {}
            }
        }
        state.evict(self.shared.options.cache_bytes, evicted);
        drop(state);
        self.effects
            .extend(current.or(segment).map(Effect::Segment));
    }

    /// Removes segments whose entries are all purged. Their other state is in the head of a later one.
    fn unlink_purged(&mut self) {
        if !std::mem::take(&mut self.purged) {
            return;
        }
        let needed = self
            .shared
            .lock()
            .index
            .oldest_sequence()
            .unwrap_or(self.active.sequence);
        let mut removed = false;
        while let Some(oldest) = self
            .segments
            .front()
            .filter(|segment| segment.sequence < needed)
        {
            if let Err(error) = std::fs::remove_file(&oldest.path) {
                tracing::warn!(path = %oldest.path.display(), %error, "cannot remove a purged log segment");
                break;
            }
            self.segments.pop_front();
            removed = true;
        }
        self.shared
            .counters
            .segments
            .store(self.segments.len() as u64, Ordering::Relaxed);
        if removed && let Err(error) = sync_dir(&self.shared.options.dir) {
            tracing::warn!(%error, "cannot sync the log directory after removing segments");
        }
    }

    fn fail(&self, error: &LogError, ops: &mut Vec<Op>) {
        let failure = failure(error);
        tracing::error!(error = %failure, "the log failed and accepts nothing any more");
        let queued = {
            let mut state = self.shared.lock();
            state.failure = Some(failure.clone());
            std::mem::take(&mut state.queue)
        };
        ops.extend(queued);
        refuse(ops, &failure);
    }
}

/// Writes the seal that closes a segment; the caller knows that the next one exists.
pub(crate) fn seal(segment: &Segment, position: u64) -> Result<(), LogError> {
    let mut buf = Vec::new();
    record::encode(
        &mut buf,
        segment.place(position),
        offset32(position),
        Kind::Seal,
        &[],
        &[],
    );
    segment
        .file
        .write_all_at(&buf, position)
        .map_err(LogError::io("write log segment", &segment.path))?;
    segment
        .file
        .sync_data()
        .map_err(LogError::io("sync log segment", &segment.path))
}

fn failure(error: &LogError) -> Failure {
    match error {
        LogError::Io { source, .. } => Failure {
            kind: source.kind(),
            text: format!("{error}: {source}"),
        },
        other => Failure {
            kind: std::io::ErrorKind::Other,
            text: other.to_string(),
        },
    }
}

fn refuse(ops: &mut Vec<Op>, failure: &Failure) {
    for op in ops.drain(..) {
        match op {
            Op::Flushed(callback) => callback.io_completed(Err(failure.error())),
            Op::Vote(_, done) => drop(done.send(Err(failure.error()))),
            Op::Identity(_, done) => drop(done.send(Err(failure.error()))),
            Op::Entry(_) | Op::Truncate(_) | Op::Purge(_) => {}
        }
    }
}

/// Whatever ends the thread, nobody waits for it in vain.
struct StopOnExit(Arc<Shared>);

impl Drop for StopOnExit {
    fn drop(&mut self) {
        let mut queued;
        let failure;
        {
            let mut state = self.0.lock();
            let closing = state.closing;
            failure = state
                .failure
                .get_or_insert_with(|| Failure {
                    kind: std::io::ErrorKind::Other,
                    text: if closing {
                        "the log is closed"
                    } else {
                        "the log's thread panicked"
                    }
                    .to_owned(),
                })
                .clone();
            queued = std::mem::take(&mut state.queue);
        }
        refuse(&mut queued, &failure);
    }
}
