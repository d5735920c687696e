//! Receiving a snapshot: its content, and the SHA-256 of it that every etcd sends behind it.

use std::io::{self, Read, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::seal::damaged;
use crate::error::Error;

const HASH: usize = 32;
// A database is whole pages, so that this remainder tells that a hash follows.
const SECTOR: u64 = 512;
const BUFFER: usize = 1 << 18;

/// Hashes a snapshot as it goes by.
#[derive(Debug, Default)]
pub(super) struct Checker {
    hash: Sha256,
    /// What may be the hash at the end.
    tail: Vec<u8>,
    size: u64,
}

/// A snapshot that is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// Bytes, with the hash at its end.
    pub size: u64,
    /// The hash, in hexadecimal.
    pub sha256: String,
}

/// Why a snapshot is not whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotWhole {
    /// It ends without a hash.
    #[error("it was cut off, or is no snapshot: it does not end in its checksum")]
    Cut,
    /// Its hash is of something else.
    #[error("its content is not what its checksum says")]
    Hash,
}

impl Checker {
    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.size += bytes.len() as u64;
        self.tail.extend_from_slice(bytes);
        let certain = self.tail.len().saturating_sub(HASH);
        self.hash.update(&self.tail[..certain]);
        self.tail.drain(..certain);
    }

    pub(super) fn finish(self) -> Result<Content, NotWhole> {
        let content = self.size.checked_sub(HASH as u64);
        if content.is_none_or(|content| content == 0 || !content.is_multiple_of(SECTOR)) {
            return Err(NotWhole::Cut);
        }
        let found = self.hash.finalize();
        if found[..] != self.tail[..] {
            return Err(NotWhole::Hash);
        }
        Ok(Content {
            size: self.size,
            sha256: found.iter().map(|byte| format!("{byte:02x}")).collect(),
        })
    }
}

/// Copies a snapshot out of a backup that was opened, and checks that it is whole. `path` is the backup's.
///
/// # Errors
/// It is damaged, or `to` cannot be written.
pub fn copy(path: &Path, mut from: impl Read, to: &Path) -> Result<Content, Error> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(to)
        .map_err(Error::io("create", to))?;
    let mut checker = Checker::default();
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(damaged(path, error)),
        };
        checker.add(&buffer[..count]);
        file.write_all(&buffer[..count])
            .map_err(Error::io("write", to))?;
    }
    file.sync_all().map_err(Error::io("write", to))?;
    checker.finish().map_err(|why| damaged(path, why))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(pages: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..=250).cycle().take(pages * 4096).collect();
        let hash = Sha256::digest(&bytes);
        bytes.extend_from_slice(&hash);
        bytes
    }

    fn check(bytes: &[u8], chunk: usize) -> Result<Content, NotWhole> {
        let mut checker = Checker::default();
        for part in bytes.chunks(chunk) {
            checker.add(part);
        }
        checker.finish()
    }

    #[test]
    fn a_whole_snapshot_passes_in_parts_of_any_size() {
        let bytes = snapshot(3);
        for chunk in [1, 7, 31, 32, 33, 4096, 1 << 20] {
            let content = check(&bytes, chunk).unwrap();
            assert_eq!(content.size, bytes.len() as u64);
            assert!(content.sha256.len() == 64);
        }
    }

    #[test]
    fn damage_and_missing_ends_are_told_apart() {
        let mut bytes = snapshot(2);
        for length in [0, 31, 32, 4096, 4128 + 4000, bytes.len() - 1] {
            assert_eq!(
                check(&bytes[..length], 1000),
                Err(NotWhole::Cut),
                "{length}"
            );
        }
        // What is left after a cut may have the right length by chance.
        assert_eq!(check(&bytes[..4096 + 32], 1000), Err(NotWhole::Hash));
        bytes[5000] ^= 1;
        assert_eq!(check(&bytes, 1000), Err(NotWhole::Hash));
    }
}
