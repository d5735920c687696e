//! Scratch directories, entries, and blocking wrappers around the storage trait.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use member_log::{Entry, Log, LogId, LogOptions, Payload, TypeConfig};
use openraft::EntryPayload;
use openraft::storage::{IOFlushed, RaftLogReader, RaftLogStorage};
use openraft::type_config::TypeConfigExt;
use tempfile::TempDir;

/// A directory in memory where there is one: these tests open the log thousands of times.
pub(crate) fn scratch() -> TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap()
}

/// Small segments and a cache of a few entries, so that short tests cross every boundary.
pub(crate) fn small(dir: &Path) -> LogOptions {
    LogOptions {
        segment_bytes: 4096,
        cache_bytes: 1024,
        read_bytes: 1024,
        ..LogOptions::new(dir.join("log"))
    }
}

pub(crate) fn id(term: u64, index: u64) -> LogId {
    LogId::new_term_index(term, index)
}

/// An entry whose payload of `size` bytes follows from its id and holds no zeros.
pub(crate) fn entry(term: u64, index: u64, size: usize) -> Entry {
    let byte = u8::try_from((term * 31 + index) % 255 + 1).unwrap();
    Entry {
        log_id: id(term, index),
        payload: EntryPayload::Normal(Payload(Bytes::from(vec![byte; size]))),
    }
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}

/// Appends and waits until the entries are durable.
pub(crate) fn append(log: &Log, entries: Vec<Entry>) -> io::Result<()> {
    let mut log = log.clone();
    block_on(async {
        let (done, flushed) = TypeConfig::oneshot();
        log.append(entries, IOFlushed::<TypeConfig>::signal(done))
            .await?;
        flushed.await.expect("the log answers every append")
    })
}

/// Appends without waiting.
pub(crate) fn append_unacknowledged(log: &Log, entries: Vec<Entry>) {
    let mut log = log.clone();
    block_on(log.append(entries, IOFlushed::noop())).unwrap();
}

pub(crate) fn read_all(log: &Log) -> Vec<Entry> {
    block_on(log.reader().try_get_log_entries(..)).unwrap()
}

pub(crate) fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir.join("log"))
        .unwrap()
        .map(|item| item.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "wal"))
        .collect();
    files.sort();
    files
}

/// Copies the segments, oldest first. One that a purge removes meanwhile is left out, as a power failure may do.
pub(crate) fn copy_log(from: &Path, to: &Path) {
    std::fs::create_dir_all(to.join("log")).unwrap();
    for path in segments(from) {
        match std::fs::copy(&path, to.join("log").join(path.file_name().unwrap())) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            copied => assert!(copied.unwrap() > 0),
        }
    }
}
