//! Requests that arrive while the flusher is held in the middle of a batch.

use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};

use member_log::{Entry, Log, LogOptions, TypeConfig};
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::type_config::TypeConfigExt;

use crate::support::{block_on, entry, id, read_all, scratch, small};

/// Lets each fdatasync pass only when the test says so. A batch that is held is in the file and not published.
struct Gate {
    reached: mpsc::Receiver<()>,
    pass: mpsc::Sender<()>,
}

/// A log without a cache, behind a gate. A failing test drops the gate first, which sets the flusher free.
fn gated(dir: &Path) -> (Log, Gate) {
    let (tell, reached) = mpsc::channel();
    let (pass, may_pass) = mpsc::channel();
    let may_pass = Mutex::new(may_pass);
    let hook = move |_| {
        // Both fail when the gate is gone, and then nothing is held any more.
        let _ = tell.send(());
        let _ = may_pass.lock().unwrap().recv();
    };
    let options = LogOptions {
        cache_bytes: 0,
        on_fsync: Some(Arc::new(hook)),
        ..small(dir)
    };
    (Log::open(options).unwrap(), Gate { reached, pass })
}

#[test]
fn entries_behind_a_queued_truncation_are_not_read_from_their_old_place() {
    let dir = scratch();
    let (mut log, gate) = gated(dir.path());
    let append = {
        let log = log.clone();
        move |entries: Vec<Entry>| {
            let (done, flushed) = TypeConfig::oneshot();
            block_on(
                log.clone()
                    .append(entries, IOFlushed::<TypeConfig>::signal(done)),
            )
            .unwrap();
            flushed
        }
    };

    let old: Vec<Entry> = (0..10).map(|index| entry(1, index, 50)).collect();
    let first = append(old.clone());
    gate.reached.recv().unwrap();
    assert_eq!(read_all(&log), old);

    block_on(log.truncate_after(Some(id(1, 4)))).unwrap();
    let new: Vec<Entry> = (5..12).map(|index| entry(2, index, 50)).collect();
    let second = append(new.clone());
    let wanted: Vec<Entry> = old[..5].iter().chain(&new).cloned().collect();
    assert_eq!(read_all(&log), wanted);

    gate.pass.send(()).unwrap();
    block_on(first).unwrap().unwrap();
    gate.reached.recv().unwrap();
    assert_eq!(
        read_all(&log),
        wanted,
        "the old entries are published, the truncation is not"
    );

    gate.pass.send(()).unwrap();
    block_on(second).unwrap().unwrap();
    assert_eq!(read_all(&log), wanted);
    assert_eq!(log.stats().cache_bytes, 0);
    drop(gate);
}

#[test]
fn entries_are_kept_in_memory_until_they_are_written() {
    let dir = scratch();
    let (mut log, gate) = gated(dir.path());
    let entries: Vec<Entry> = (0..100).map(|index| entry(1, index, 200)).collect();
    for entry in &entries {
        block_on(log.append([entry.clone()], IOFlushed::noop())).unwrap();
    }
    assert!(log.stats().cache_bytes > 0);
    assert_eq!(read_all(&log), entries);
    block_on(log.purge(id(1, 50))).unwrap();
    assert_eq!(read_all(&log), entries[51..]);
    drop(gate);
    log.close();
    assert_eq!(log.stats().cache_bytes, 0);
    assert_eq!(read_all(&log), entries[51..]);
}
