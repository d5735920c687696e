//! One segment file: its name, header, creation, and the scan that verifies it.
//!
//! A segment opens with a fixed header and a [`Head`] record that repeats all state outside the entries, so that older
//! segments can be unlinked freely. The file is preallocated and reads as zeros after the last record. When the next
//! segment exists, a seal closes this one; a sealed segment without a successor means that a file was lost.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FallocateFlags, fallocate};
use serde::{Deserialize, Serialize};

use crate::config::{LogId, Vote};
use crate::record::{self, ALIGNMENT, Fact, Frame, Kind, NoRecord, Place};
use crate::{Identity, LogError};

const MAGIC: [u8; 8] = *b"MBRWAL\r\n";
const VERSION: u32 = 1;

/// magic 8, version 4, crc32c of the rest 4, sequence 8, salt 8.
const FILE_HEADER_BYTES: usize = 32;

/// The head is the first record.
const HEAD_OFFSET: u64 = FILE_HEADER_BYTES as u64;

/// Read granularity of scans.
const WINDOW_BYTES: usize = 1 << 20;

/// All state that is not an entry, in the order of the records that changed it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Head {
    pub(crate) identity: Option<Identity>,
    pub(crate) vote: Option<Vote>,
    pub(crate) committed: Option<LogId>,
    pub(crate) purged: Option<LogId>,
    pub(crate) last: Option<LogId>,
}

/// An open segment. Readers share it; only the flusher writes.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) path: PathBuf,
    pub(crate) file: File,
    pub(crate) sequence: u64,
    pub(crate) salt: u64,
}

/// Sequence and first index of a segment's name, `None` for any other name.
pub(crate) fn parse_name(name: &str) -> Option<(u64, u64)> {
    let (sequence, first) = name.strip_suffix(".wal")?.split_once('-')?;
    let hex = |text: &str| {
        (text.len() == 16)
            .then(|| u64::from_str_radix(text, 16).ok())
            .flatten()
    };
    Some((hex(sequence)?, hex(first)?))
}

fn name(sequence: u64, first: u64) -> String {
    format!("{sequence:016x}-{first:016x}.wal")
}

impl Segment {
    /// Creates the segment durably, under its final name, and returns it with the offset of the first free byte.
    pub(crate) fn create(
        dir: &Path,
        sequence: u64,
        head: &Head,
        bytes: u64,
    ) -> Result<(Arc<Self>, u64), LogError> {
        let first = head.last.map_or(0, |last| last.index + 1);
        let path = dir.join(name(sequence, first));
        let draft = path.with_extension("tmp");
        let salt = random();

        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&draft)
            .map_err(LogError::io("create log segment", &draft))?;
        preallocate(&file, bytes).map_err(LogError::io("preallocate log segment", &draft))?;

        let mut buf = file_header(sequence, salt);
        let json = serde_json::to_vec(head)
            .map_err(|error| LogError::io("encode head of", &draft)(error.into()))?;
        let place = Place {
            salt,
            offset: offset32(HEAD_OFFSET),
        };
        record::encode(&mut buf, place, 0, Kind::Head, &json, &[]);
        file.write_all_at(&buf, 0)
            .map_err(LogError::io("write log segment", &draft))?;
        file.sync_all()
            .map_err(LogError::io("sync log segment", &draft))?;
        std::fs::rename(&draft, &path).map_err(LogError::io("name log segment", &path))?;
        sync_dir(dir)?;

        Ok((
            Arc::new(Self {
                path,
                file,
                sequence,
                salt,
            }),
            buf.len() as u64,
        ))
    }

    /// Opens an existing segment and checks its header.
    pub(crate) fn open(path: PathBuf, sequence: u64) -> Result<Arc<Self>, LogError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(LogError::io("open log segment", &path))?;
        let mut header = [0; FILE_HEADER_BYTES];
        match file.read_exact_at(&mut header, 0) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(corrupt(&path, 0, "the file is shorter than its header"));
            }
            Err(error) => return Err(LogError::io("read log segment", path)(error)),
        }
        let (magic, rest) = header.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(LogError::ForeignFile { path });
        }
        let word =
            |at: usize| u32::from_le_bytes([rest[at], rest[at + 1], rest[at + 2], rest[at + 3]]);
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        if word(0) != VERSION {
            return Err(LogError::Version {
                path,
                found: word(0),
                expected: VERSION,
            });
        }
        if word(4) != crc32c::crc32c(&rest[8..]) {
            return Err(corrupt(&path, 0, "checksum mismatch in the file header"));
        }
        if long(8) != sequence {
            return Err(corrupt(
                &path,
                0,
                "the header holds another sequence number than the name",
            ));
        }
        Ok(Arc::new(Self {
            path,
            file,
            sequence,
            salt: long(16),
        }))
    }

    pub(crate) fn place(&self, offset: u64) -> Place {
        Place {
            salt: self.salt,
            offset: offset32(offset),
        }
    }

    pub(crate) fn corrupt(&self, offset: u64, reason: impl Into<String>) -> LogError {
        corrupt(&self.path, offset, reason)
    }

    /// Visits every record in order, the [`Head`] first, and says how the written part ends.
    pub(crate) fn scan(
        &self,
        mut visit: impl FnMut(u64, Frame, Fact) -> Result<(), LogError>,
    ) -> Result<End, LogError> {
        let mut window = Window::default();
        let mut offset = HEAD_OFFSET;
        loop {
            let (frame, body) = match window.record(self, offset)? {
                Ok(found) => found,
                Err(reason) if offset == HEAD_OFFSET => {
                    return Err(
                        self.corrupt(offset, format!("the head record is unreadable: {reason}"))
                    );
                }
                Err(reason) => return Ok(End::Open { offset, reason }),
            };
            let fact =
                record::fact(frame.kind, body).map_err(|reason| self.corrupt(offset, reason))?;
            if matches!(fact, Fact::Head(_)) != (offset == HEAD_OFFSET) {
                return Err(self.corrupt(
                    offset,
                    "a head record belongs at the start and nowhere else",
                ));
            }
            if matches!(fact, Fact::Seal) {
                return Ok(End::Sealed);
            }
            visit(offset, frame, fact)?;
            offset += frame.bytes();
        }
    }

    /// Decides what follows the last valid record: nothing, a torn write, or the remains of what was durable once.
    pub(crate) fn judge_tail(&self, offset: u64, reason: &str) -> Result<Tail, LogError> {
        let length = self
            .file
            .metadata()
            .map_err(LogError::io("read size of", &self.path))?
            .len();
        let mut junk: Option<u64> = None;
        let mut at = offset;
        let mut chunk = vec![0; WINDOW_BYTES];
        while let Some(data) = self.next_data(at, length) {
            let wanted = usize::try_from(length - data)
                .unwrap_or(usize::MAX)
                .min(chunk.len());
            let got = read_up_to(&self.file, &mut chunk[..wanted], data)
                .map_err(LogError::io("read log segment", &self.path))?;
            if got == 0 {
                break;
            }
            if let Some(last) = chunk[..got].iter().rposition(|byte| *byte != 0) {
                junk = Some(data + last as u64 + 1);
            }
            at = data + got as u64;
        }
        drop(chunk);
        let Some(end) = junk else {
            return Ok(Tail::Clean);
        };

        let mut window = Window::default();
        let mut at = (offset + 1).next_multiple_of(ALIGNMENT as u64);
        while at < end {
            if let Ok((frame, _)) = window.record(self, at)?
                && u64::from(frame.batch) > offset
            {
                return Err(self.corrupt(
                    offset,
                    format!("{reason}, and the record at offset {at} is intact"),
                ));
            }
            at += ALIGNMENT as u64;
        }
        Ok(Tail::Torn {
            bytes: end - offset,
        })
    }

    /// Removes everything from `offset` on and preallocates again, so that no remains can be taken for new records.
    pub(crate) fn cut(&self, offset: u64, bytes: u64) -> Result<(), LogError> {
        self.file
            .set_len(offset)
            .map_err(LogError::io("cut log segment", &self.path))?;
        preallocate(&self.file, bytes)
            .map_err(LogError::io("preallocate log segment", &self.path))?;
        self.file
            .sync_all()
            .map_err(LogError::io("sync log segment", &self.path))
    }

    /// Start of the next stretch of allocated data; preallocated space that was never written need not be read.
    fn next_data(&self, at: u64, length: u64) -> Option<u64> {
        if at >= length {
            return None;
        }
        match rustix::fs::seek(&self.file, rustix::fs::SeekFrom::Data(at)) {
            Ok(data) => (data < length).then_some(data.max(at)),
            Err(rustix::io::Errno::NXIO) => None,
            Err(_) => Some(at),
        }
    }
}

/// How a segment's records end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// A seal says that the next segment exists.
    Sealed,
    /// No record starts at `offset`.
    Open { offset: u64, reason: &'static str },
}

/// What is behind the last record of an open segment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Tail {
    Clean,
    Torn { bytes: u64 },
}

/// A sliding view of a segment for scans.
#[derive(Default)]
struct Window {
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    fn record(
        &mut self,
        segment: &Segment,
        offset: u64,
    ) -> Result<Result<(Frame, &[u8]), &'static str>, LogError> {
        let mut wanted = record::HEADER_BYTES;
        loop {
            let complete = self.fill(segment, offset, wanted)?;
            let skip = usize::try_from(offset - self.start).unwrap_or(usize::MAX);
            match record::decode(&self.bytes[skip..], segment.place(offset)) {
                Ok(frame) => {
                    let body = skip + record::HEADER_BYTES;
                    return Ok(Ok((frame, &self.bytes[body..body + frame.body])));
                }
                Err(NoRecord::Short(needed)) if complete => wanted = needed,
                Err(damage) => return Ok(Err(damage.reason())),
            }
        }
    }

    /// Makes `wanted` bytes at `offset` available; `false` when the file ends before.
    fn fill(&mut self, segment: &Segment, offset: u64, wanted: usize) -> Result<bool, LogError> {
        let have = |window: &Self| {
            (window.start + window.bytes.len() as u64)
                .checked_sub(offset)
                .filter(|_| offset >= window.start)
        };
        if have(self).is_some_and(|have| have >= wanted as u64) {
            return Ok(true);
        }
        self.start = offset;
        self.bytes.resize(wanted.max(WINDOW_BYTES), 0);
        let got = read_up_to(&segment.file, &mut self.bytes, offset)
            .map_err(LogError::io("read log segment", &segment.path))?;
        self.bytes.truncate(got);
        Ok(got >= wanted)
    }
}

/// Offsets are stored in 32 bits: segments are bounded by that, and a body by [`record::MAX_BODY_BYTES`].
pub(crate) fn offset32(offset: u64) -> u32 {
    u32::try_from(offset).expect("a segment is smaller than 4 GiB")
}

pub(crate) fn sync_dir(dir: &Path) -> Result<(), LogError> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(LogError::io("sync directory", dir))
}

fn corrupt(path: &Path, offset: u64, reason: impl Into<String>) -> LogError {
    LogError::Corrupt {
        path: path.to_owned(),
        offset,
        reason: reason.into(),
    }
}

fn file_header(sequence: u64, salt: u64) -> Vec<u8> {
    let mut buf = Vec::with_capacity(512);
    buf.extend_from_slice(&MAGIC);
    buf.extend_from_slice(&VERSION.to_le_bytes());
    buf.extend_from_slice(&[0; 4]);
    buf.extend_from_slice(&sequence.to_le_bytes());
    buf.extend_from_slice(&salt.to_le_bytes());
    let checksum = crc32c::crc32c(&buf[16..]);
    buf[12..16].copy_from_slice(&checksum.to_le_bytes());
    buf
}

fn preallocate(file: &File, bytes: u64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), 0, bytes) {
        Ok(()) => Ok(()),
        // Some file systems cannot; a sparse file works as well, it only finds a full disk later.
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
            if file.metadata()?.len() < bytes {
                file.set_len(bytes)?;
            }
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

fn read_up_to(file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut got = 0;
    while got < buf.len() {
        match file.read_at(&mut buf[got..], offset + got as u64) {
            Ok(0) => break,
            Ok(more) => got += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}

/// A salt needs to differ between segments, not to be secret: the standard library's hasher keys suffice.
fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish()
}
