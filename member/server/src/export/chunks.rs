//! The stream in which a client receives the file: chunks, and at the end the hash of it all.

use std::io;

use bytes::{Bytes, BytesMut};
use member_proto::etcdserverpb as pb;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tonic::Status;

use super::STORAGE_VERSION;

/// etcd's size of a chunk.
const CHUNK: usize = 32 << 10;

pub(super) type Chunks = mpsc::Sender<Result<pb::SnapshotResponse, Status>>;

/// Cuts the file into chunks.
pub(super) struct Sender<'a> {
    chunks: &'a Chunks,
    blob: BytesMut,
    remaining: u64,
    hash: Sha256,
}

impl<'a> Sender<'a> {
    /// Sends a file of `size` bytes.
    pub(super) fn new(chunks: &'a Chunks, size: u64) -> Self {
        Self {
            chunks,
            blob: BytesMut::with_capacity(CHUNK),
            remaining: size,
            hash: Sha256::new(),
        }
    }

    fn send(&mut self, blob: Bytes) -> io::Result<()> {
        let chunk = pb::SnapshotResponse {
            header: None,
            remaining_bytes: self.remaining,
            blob,
            version: STORAGE_VERSION.to_owned(),
        };
        self.chunks.blocking_send(Ok(chunk)).map_err(|_| gone())
    }

    fn send_blob(&mut self) -> io::Result<()> {
        let blob = std::mem::replace(&mut self.blob, BytesMut::with_capacity(CHUNK)).freeze();
        self.hash.update(&blob);
        self.remaining = self.remaining.saturating_sub(blob.len() as u64);
        self.send(blob)
    }

    /// The rest, and the hash of it all.
    pub(super) fn finish(mut self) -> io::Result<()> {
        if !self.blob.is_empty() {
            self.send_blob()?;
        }
        let hash = self.hash.finalize_reset();
        self.send(Bytes::copy_from_slice(&hash))
    }
}

impl io::Write for Sender<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(CHUNK - self.blob.len());
        self.blob.extend_from_slice(&bytes[..taken]);
        if self.blob.len() == CHUNK {
            self.send_blob()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(super) fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the client is gone")
}
