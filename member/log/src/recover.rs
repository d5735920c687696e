//! Reads the segments back at start and decides what the log is.

use std::collections::VecDeque;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::flusher::seal;
use crate::index::Index;
use crate::lock::LOCK_FILE;
use crate::record::Fact;
use crate::segment::{End, Head, Segment, Tail, offset32, parse_name, sync_dir};
use crate::{LogError, LogOptions};

/// The log as the segments hold it, ready to be appended to.
pub(crate) struct Recovered {
    pub(crate) head: Head,
    pub(crate) index: Index,
    pub(crate) segments: VecDeque<Arc<Segment>>,
    pub(crate) active: Arc<Segment>,
    /// First free byte of the active segment.
    pub(crate) position: u64,
    /// The active segment holds its head only.
    pub(crate) fresh: bool,
}

/// Creates the directory (0700) if it is absent, durably.
pub(crate) fn create_dir(dir: &Path) -> Result<(), LogError> {
    if dir.is_dir() {
        return Ok(());
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(LogError::io("create directory", dir))?;
    match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_dir(parent),
        _ => Ok(()),
    }
}

/// Replays all segments of a locked directory.
pub(crate) fn recover(options: &LogOptions) -> Result<Recovered, LogError> {
    let dir = &options.dir;
    let bytes = u64::from(options.segment_bytes);
    let mut files = list(dir)?;
    let stale = drop_before_gap(&mut files);

    if files.is_empty() {
        let head = Head::default();
        let (active, position) = Segment::create(dir, 1, &head, bytes)?;
        let segments = VecDeque::from([active.clone()]);
        return Ok(Recovered {
            head,
            index: Index::default(),
            segments,
            active,
            position,
            fresh: true,
        });
    }

    let segments: VecDeque<Arc<Segment>> = files
        .iter()
        .map(|(sequence, path)| Segment::open(path.clone(), *sequence))
        .collect::<Result<_, _>>()?;
    let mut replay = Replay::default();
    let mut ends = Vec::with_capacity(segments.len());
    for segment in &segments {
        let end = replay.segment(segment)?;
        ends.push((end, replay.records));
    }

    let missing = |sequence| LogError::MissingSegment {
        dir: dir.clone(),
        sequence,
    };
    let newest = segments.len() - 1;
    let active = segments[newest].clone();
    for (number, (segment, (end, _))) in segments.iter().zip(&ends).enumerate() {
        match end {
            End::Sealed if number == newest => return Err(missing(segment.sequence + 1)),
            End::Open { offset, reason } if number < newest => {
                // A crash between the creation of a successor and the seal leaves a successor without records.
                if number + 1 < newest || ends[newest].1 > 0 {
                    return Err(segment.corrupt(
                        *offset,
                        format!("{reason}, in a segment that has a successor"),
                    ));
                }
                settle_tail(segment, *offset, reason, bytes)?;
                seal(segment, *offset)?;
            }
            _ => {}
        }
    }
    let End::Open {
        offset: position,
        reason,
    } = ends[newest].0
    else {
        return Err(missing(active.sequence + 1));
    };

    let Replay { head, index, .. } = replay;
    let first = head.purged.map_or(0, |purged| purged.index + 1);
    let wanted = head
        .last
        .filter(|last| head.purged.is_none_or(|purged| purged.index < last.index));
    if let Some(last) = wanted {
        let covered = index.next() == last.index + 1 && !index.is_empty() && index.start() <= first;
        // A log that was never purged may begin at any index, but only in the very first segment.
        let whole = head.purged.is_none() && segments[0].sequence == 1;
        if !covered && !whole {
            return Err(missing(segments[0].sequence.saturating_sub(1)));
        }
    }

    settle_tail(&active, position, reason, bytes)?;
    // What a killed process wrote may still be in the page cache only; from here on it counts as durable.
    active
        .file
        .sync_data()
        .map_err(LogError::io("sync log segment", &active.path))?;
    for path in stale {
        tracing::warn!(path = %path.display(), "removing a log segment that is older than a purged one");
        std::fs::remove_file(&path).map_err(LogError::io("remove log segment", &path))?;
    }
    sync_dir(dir)?;
    Ok(Recovered {
        head,
        index,
        segments,
        active,
        position,
        fresh: ends[newest].1 == 0,
    })
}

fn settle_tail(segment: &Segment, offset: u64, reason: &str, bytes: u64) -> Result<(), LogError> {
    match segment.judge_tail(offset, reason)? {
        Tail::Clean => Ok(()),
        Tail::Torn { bytes: torn } => {
            tracing::warn!(
                path = %segment.path.display(),
                offset,
                bytes = torn,
                reason,
                "cutting off an unfinished write at the end of the log"
            );
            segment.cut(offset, bytes)
        }
    }
}

/// All segments by ascending sequence. Drafts of a crashed creation are removed.
fn list(dir: &Path) -> Result<Vec<(u64, PathBuf)>, LogError> {
    let mut files = Vec::new();
    for item in std::fs::read_dir(dir).map_err(LogError::io("list directory", dir))? {
        let path = item.map_err(LogError::io("list directory", dir))?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if name == LOCK_FILE {
            continue;
        }
        if let Some((sequence, _)) = parse_name(name) {
            files.push((sequence, path));
        } else if name
            .strip_suffix(".tmp")
            .is_some_and(|stem| parse_name(&format!("{stem}.wal")).is_some())
        {
            std::fs::remove_file(&path)
                .map_err(LogError::io("remove unfinished log segment", &path))?;
        } else {
            return Err(LogError::ForeignFile { path });
        }
    }
    files.sort();
    Ok(files)
}

/// Keeps the newest segments without a gap and returns the older ones. Whether the gap matters shows when the kept ones
/// are replayed: a power failure in the middle of a purge may leave one, and then nothing before it is needed.
fn drop_before_gap(files: &mut Vec<(u64, PathBuf)>) -> Vec<PathBuf> {
    let gap = files
        .windows(2)
        .rposition(|pair| pair[0].0 + 1 != pair[1].0);
    let stale = gap.map_or(0, |gap| gap + 1);
    files.drain(..stale).map(|(_, path)| path).collect()
}

#[derive(Default)]
struct Replay {
    head: Head,
    index: Index,
    started: bool,
    /// Records after the head of the current segment.
    records: usize,
}

impl Replay {
    fn segment(&mut self, segment: &Arc<Segment>) -> Result<End, LogError> {
        self.records = 0;
        segment.scan(|offset, frame, fact| {
            if !matches!(fact, Fact::Head(_)) {
                self.records += 1;
            }
            self.apply(segment, offset, offset + frame.bytes(), fact)
                .map_err(|reason| segment.corrupt(offset, reason))
        })
    }

    fn apply(
        &mut self,
        segment: &Arc<Segment>,
        offset: u64,
        end: u64,
        fact: Fact,
    ) -> Result<(), String> {
        match fact {
            Fact::Head(head) => {
                if !std::mem::replace(&mut self.started, true) {
                    self.head = *head;
                } else if self.head != *head {
                    return Err("the segment does not continue the one before it".to_owned());
                }
            }
            Fact::Entry(id) => {
                if let Some(last) = self.head.last
                    && (id.index != last.index + 1 || id.leader_id < last.leader_id)
                {
                    return Err(format!("entry {id} does not follow entry {last}"));
                }
                self.head.last = Some(id);
                self.index
                    .push(id.index, segment, offset32(offset), offset32(end));
            }
            Fact::Vote(vote) => self.head.vote = Some(vote),
            Fact::Committed(id) => self.head.committed = Some(id),
            Fact::Identity(identity) => self.head.identity = Some(identity),
            Fact::Truncate(last) => {
                self.head.last = last.max(self.head.purged);
                self.index.truncate(last.map_or(0, |last| last.index + 1));
            }
            Fact::Purge(upto) => {
                self.head.purged = Some(upto);
                self.head.last = self
                    .head
                    .last
                    .filter(|last| last.index > upto.index)
                    .or(Some(upto));
                self.index.purge(upto.index);
            }
            Fact::Seal => {}
        }
        Ok(())
    }
}
