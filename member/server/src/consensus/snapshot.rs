//! Checkpoints of the state: on their way to a follower that the log no longer reaches, and on their way in.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use member_log::TypeConfig;
use member_proto::peerpb::{SnapshotChunk, SnapshotMeta};
use openraft::type_config::alias::{SnapshotMetaOf, SnapshotOf, VoteOf};
use tokio_stream::wrappers::ReceiverStream;

use super::wire;

type C = TypeConfig;

const CHUNK_BYTES: usize = 1 << 20;
/// Chunks read ahead of the network: bounds memory to a few MiB for each follower.
const CHUNKS_AHEAD: usize = 2;

/// A complete checkpoint in a directory of its own, removed when dropped; or nothing, where only the durable point
/// counts.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    dir: Option<PathBuf>,
}

impl Checkpoint {
    /// Takes ownership of `dir`.
    pub(super) fn own(dir: PathBuf) -> Self {
        Self { dir: Some(dir) }
    }

    /// No copy.
    pub(super) fn none() -> Self {
        Self { dir: None }
    }

    pub(super) fn dir(&self) -> io::Result<&Path> {
        self.dir
            .as_deref()
            .ok_or_else(|| invalid("the snapshot has no copy of the state"))
    }

    /// Regular files, sorted by name; a checkpoint has no sub-directories.
    fn files(&self) -> io::Result<Vec<(String, PathBuf, u64)>> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(self.dir()?)? {
            let entry = entry?;
            let name = entry
                .file_name()
                .into_string()
                .map_err(|_| io::Error::other("checkpoint file name is not text"))?;
            files.push((name, entry.path(), entry.metadata()?.len()));
        }
        files.sort();
        Ok(files)
    }
}

impl Drop for Checkpoint {
    fn drop(&mut self) {
        if let Some(dir) = &self.dir
            && let Err(error) = std::fs::remove_dir_all(dir)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(dir = %dir.display(), %error, "cannot remove a used checkpoint");
        }
    }
}

/// The messages that carry a checkpoint.
pub(super) fn chunks(
    vote: &VoteOf<C>,
    snapshot: SnapshotOf<C, Checkpoint>,
) -> io::Result<impl Stream<Item = SnapshotChunk> + Send + 'static> {
    let files = snapshot.snapshot.files()?;
    let head = SnapshotChunk {
        meta: Some(SnapshotMeta {
            vote: Some(wire::vote_out(vote)),
            meta: Bytes::from(serde_json::to_vec(&snapshot.meta)?),
            total_bytes: files.iter().map(|(_, _, bytes)| bytes).sum(),
        }),
        ..Default::default()
    };
    let (sender, receiver) = tokio::sync::mpsc::channel(CHUNKS_AHEAD);
    tokio::task::spawn_blocking(move || {
        let checkpoint = snapshot.snapshot;
        let send = |chunk| {
            sender
                .blocking_send(chunk)
                .map_err(|_| io::Error::other("receiver is gone"))
        };
        let result = send(head).and_then(|()| {
            files
                .iter()
                .try_for_each(|(name, path, _)| send_file(name, path, send))
        });
        if let Err(error) = result {
            // The follower sees a stream that is too short and refuses it.
            tracing::warn!(?checkpoint, %error, "snapshot not sent in full");
        }
    });
    Ok(ReceiverStream::new(receiver))
}

fn send_file(
    name: &str,
    path: &Path,
    send: impl Fn(SnapshotChunk) -> io::Result<()>,
) -> io::Result<()> {
    let mut file = std::fs::File::open(path)?;
    let mut first = true;
    loop {
        let mut data = BytesMut::zeroed(CHUNK_BYTES);
        let filled = read_full(&mut file, &mut data)?;
        if filled == 0 && !first {
            return Ok(());
        }
        data.truncate(filled);
        let file_name = if first {
            name.to_owned()
        } else {
            String::new()
        };
        first = false;
        send(SnapshotChunk {
            meta: None,
            file: file_name,
            crc32c: crc32c::crc32c(&data),
            data: data.freeze(),
        })?;
    }
}

fn read_full(file: &mut std::fs::File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read(rest)? {
            0 => break,
            n => filled += n,
        }
    }
    Ok(filled)
}

/// A checkpoint on its way in; nothing of it counts before [`Receiving::finish`].
pub(super) struct Receiving {
    checkpoint: Checkpoint,
    vote: VoteOf<C>,
    meta: SnapshotMetaOf<C>,
    expected: u64,
    received: u64,
    file: Option<std::fs::File>,
}

impl Receiving {
    /// Begins with the first chunk; `dir` does not exist yet.
    pub(super) fn begin(first: SnapshotChunk, dir: PathBuf) -> io::Result<Self> {
        let meta = first
            .meta
            .ok_or_else(|| invalid("snapshot does not begin with its meta"))?;
        let vote = wire::vote_in(meta.vote).map_err(io::Error::other)?;
        std::fs::create_dir_all(&dir)?;
        Ok(Self {
            checkpoint: Checkpoint::own(dir),
            vote,
            meta: serde_json::from_slice(&meta.meta)?,
            expected: meta.total_bytes,
            received: 0,
            file: None,
        })
    }

    /// Writes one chunk.
    pub(super) fn chunk(&mut self, chunk: &SnapshotChunk) -> io::Result<()> {
        if crc32c::crc32c(&chunk.data) != chunk.crc32c {
            return Err(invalid("snapshot chunk has a wrong checksum"));
        }
        if !chunk.file.is_empty() {
            if Path::new(&chunk.file).file_name() != Some(chunk.file.as_ref()) {
                return Err(invalid("snapshot file name leaves its directory"));
            }
            self.sync()?;
            let path = self.checkpoint.dir()?.join(&chunk.file);
            self.file = Some(
                std::fs::OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .open(path)?,
            );
        }
        let file = self
            .file
            .as_mut()
            .ok_or_else(|| invalid("snapshot data comes before a file name"))?;
        file.write_all(&chunk.data)?;
        self.received += chunk.data.len() as u64;
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.take().map_or(Ok(()), |file| file.sync_all())
    }

    /// The complete checkpoint, on disk.
    pub(super) fn finish(mut self) -> io::Result<(VoteOf<C>, SnapshotOf<C, Checkpoint>)> {
        self.sync()?;
        if self.received != self.expected {
            return Err(invalid("snapshot ended early"));
        }
        std::fs::File::open(self.checkpoint.dir()?)?.sync_all()?;
        Ok((
            self.vote,
            SnapshotOf::<C, Checkpoint> {
                meta: self.meta,
                snapshot: self.checkpoint,
            },
        ))
    }
}

fn invalid(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}
