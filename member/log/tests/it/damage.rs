//! Damaged, missing, foreign and locked files.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

use member_log::{Identity, Log, LogError, Vote};
use openraft::storage::RaftLogStorage;
use tempfile::TempDir;

use crate::support::{append, block_on, copy_log, entry, read_all, scratch, segments, small};

const PAYLOAD: usize = 40;
/// Header, log id and payload, a multiple of eight already.
const RECORD: usize = 16 + 16 + PAYLOAD;

/// One segment with `count` entries, each made durable on its own, and the offset after the last one.
fn one_segment(count: u64) -> (TempDir, usize) {
    let dir = scratch();
    let log = Log::open(small(dir.path())).unwrap();
    for index in 0..count {
        append(&log, vec![entry(1, index, PAYLOAD)]).unwrap();
    }
    log.close();
    let bytes = fs::read(&segments(dir.path())[0]).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    (dir, end)
}

fn last_index(log: &Log) -> Option<u64> {
    log.stats().last_index
}

/// A copy of the log whose newest segment went through `change`.
fn changed(dir: &TempDir, change: impl FnOnce(&Path, Vec<u8>)) -> TempDir {
    let copy = scratch();
    copy_log(dir.path(), copy.path());
    let path = segments(copy.path()).pop().unwrap();
    let bytes = fs::read(&path).unwrap();
    change(&path, bytes);
    copy
}

#[test]
fn a_tail_cut_at_any_byte_loses_only_the_records_that_it_cuts() {
    let (dir, end) = one_segment(8);
    for cut in end - 4 * RECORD..=end {
        let whole = 7 - u64::try_from((end - cut).div_ceil(RECORD)).unwrap();
        let shorter = changed(&dir, |path, bytes| fs::write(path, &bytes[..cut]).unwrap());
        let zeroed = changed(&dir, |path, mut bytes| {
            bytes[cut..].fill(0);
            fs::write(path, bytes).unwrap();
        });
        for copy in [shorter, zeroed] {
            let log = Log::open(small(copy.path())).unwrap();
            assert_eq!(last_index(&log), Some(whole), "cut at {cut}");
            // The log goes on from there, and a second start finds nothing to repair.
            append(&log, vec![entry(2, whole + 1, PAYLOAD)]).unwrap();
            drop(log);
            let log = Log::open(small(copy.path())).unwrap();
            assert_eq!(read_all(&log).last(), Some(&entry(2, whole + 1, PAYLOAD)));
        }
    }
}

#[test]
fn remains_of_a_torn_batch_never_come_back() {
    let dir = scratch();
    let log = Log::open(small(dir.path())).unwrap();
    append(&log, vec![entry(1, 0, PAYLOAD)]).unwrap();
    append(&log, (1..6).map(|index| entry(1, index, PAYLOAD)).collect()).unwrap();
    log.close();
    let path = &segments(dir.path())[0];
    let end = fs::read(path)
        .unwrap()
        .iter()
        .rposition(|byte| *byte != 0)
        .unwrap()
        + 1;
    // The first record of the batch did not reach the disk, later ones of the same batch did.
    OpenOptions::new()
        .write(true)
        .open(path)
        .unwrap()
        .write_all_at(&[0; RECORD], (end - 5 * RECORD) as u64)
        .unwrap();

    let log = Log::open(small(dir.path())).unwrap();
    assert_eq!(last_index(&log), Some(0));
    append(&log, vec![entry(2, 1, PAYLOAD)]).unwrap();
    drop(log);
    let log = Log::open(small(dir.path())).unwrap();
    assert_eq!(read_all(&log), [entry(1, 0, PAYLOAD), entry(2, 1, PAYLOAD)]);
}

#[test]
fn a_flipped_bit_before_the_last_batch_is_corruption_with_its_offset() {
    let (dir, end) = one_segment(6);
    let first = end - 6 * RECORD;
    for at in first..end - RECORD {
        let copy = changed(&dir, |path, mut bytes| {
            bytes[at] ^= 1 << (at % 8);
            fs::write(path, bytes).unwrap();
        });
        let record = first + (at - first) / RECORD * RECORD;
        match Log::open(small(copy.path())) {
            Err(LogError::Corrupt { path, offset, .. }) => {
                assert_eq!(path, segments(copy.path())[0]);
                assert_eq!(offset, record as u64, "flip at {at}");
            }
            other => panic!("flip at {at}: {other:?}"),
        }
    }
}

#[test]
fn a_flipped_bit_in_header_or_head_is_an_error() {
    let (dir, end) = one_segment(1);
    for at in 0..end - RECORD {
        let copy = changed(&dir, |path, mut bytes| {
            bytes[at] ^= 1;
            fs::write(path, bytes).unwrap();
        });
        let head_end = end - RECORD;
        let result = Log::open(small(copy.path()));
        match at {
            0..8 => assert!(
                matches!(result, Err(LogError::ForeignFile { .. })),
                "{result:?}"
            ),
            8..12 => assert!(
                matches!(result, Err(LogError::Version { expected: 1, .. })),
                "{result:?}"
            ),
            12..32 => assert!(
                matches!(result, Err(LogError::Corrupt { offset: 0, .. })),
                "{result:?}"
            ),
            // The padding of the head is not covered, and means nothing.
            at if at + 8 > head_end && result.is_ok() => {}
            _ => assert!(
                matches!(result, Err(LogError::Corrupt { offset: 32, .. })),
                "{at}: {result:?}"
            ),
        }
    }
}

fn many_segments() -> TempDir {
    let dir = scratch();
    let log = Log::open(small(dir.path())).unwrap();
    for index in 0..200 {
        append(&log, vec![entry(1, index, 100)]).unwrap();
    }
    assert!(log.stats().segments > 4);
    dir
}

#[test]
fn a_flipped_bit_in_a_sealed_segment_is_an_error() {
    let dir = many_segments();
    for number in 0..segments(dir.path()).len() - 1 {
        let copy = scratch();
        copy_log(dir.path(), copy.path());
        let path = &segments(copy.path())[number];
        let mut bytes = fs::read(path).unwrap();
        let last = bytes.iter().rposition(|byte| *byte != 0).unwrap();
        // The seal is the last record; its kind is the last byte that is not zero.
        bytes[last] ^= 4;
        fs::write(path, bytes).unwrap();
        assert!(matches!(
            Log::open(small(copy.path())),
            Err(LogError::Corrupt { .. })
        ));
    }
}

#[test]
fn a_missing_segment_is_an_error_whichever_it_is() {
    let dir = many_segments();
    let count = segments(dir.path()).len();
    for number in 0..count {
        let copy = scratch();
        copy_log(dir.path(), copy.path());
        fs::remove_file(&segments(copy.path())[number]).unwrap();
        match Log::open(small(copy.path())) {
            Err(LogError::MissingSegment { sequence, .. }) => {
                assert_eq!(sequence, number as u64 + 1)
            }
            other => panic!("segment {number}: {other:?}"),
        }
    }
}

#[test]
fn a_crash_between_a_new_segment_and_the_seal_is_repaired() {
    let dir = scratch();
    let log = Log::open(small(dir.path())).unwrap();
    let mut index = 0;
    while log.stats().segments == 1 {
        // The copy after the last round is the state just before the roll.
        append(&log, vec![entry(1, index, 100)]).unwrap();
        index += 1;
    }
    log.close();
    let files = segments(dir.path());
    let mut bytes = fs::read(&files[0]).unwrap();
    let seal = bytes.iter().rposition(|byte| *byte != 0).unwrap() / 8 * 8 - 8;
    bytes[seal..].fill(0);
    fs::write(&files[0], &bytes).unwrap();
    // The new segment holds its head only: its one entry is taken away again.
    let mut bytes = fs::read(&files[1]).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let entry_start = (end - 132).next_multiple_of(8);
    bytes[entry_start..].fill(0);
    fs::write(&files[1], &bytes).unwrap();

    for _ in 0..2 {
        let log = Log::open(small(dir.path())).unwrap();
        assert_eq!(last_index(&log), Some(index - 2));
    }
}

#[test]
fn a_foreign_file_is_named() {
    let dir = scratch();
    drop(Log::open(small(dir.path())).unwrap());
    let foreign = dir.path().join("log/0000000000000000.snap");
    fs::write(&foreign, b"x").unwrap();
    let error = Log::open(small(dir.path())).unwrap_err();
    assert!(
        matches!(&error, LogError::ForeignFile { path } if *path == foreign),
        "{error}"
    );
}

#[test]
fn a_draft_of_a_segment_is_removed() {
    let dir = scratch();
    drop(Log::open(small(dir.path())).unwrap());
    let draft = dir.path().join("log/0000000000000002-0000000000000000.tmp");
    fs::write(&draft, b"half a segment").unwrap();
    drop(Log::open(small(dir.path())).unwrap());
    assert!(!draft.exists());
}

#[test]
fn a_second_opener_learns_who_holds_the_log() {
    let dir = scratch();
    let log = Log::open(small(dir.path())).unwrap();
    let error = Log::open(small(dir.path())).unwrap_err();
    let LogError::InUse { holder, .. } = &error else {
        panic!("{error:?}")
    };
    assert_eq!(*holder, Some(std::process::id()));
    assert!(
        error
            .to_string()
            .contains(&format!("(pid {})", std::process::id()))
    );
    drop(log);
    Log::open(small(dir.path())).unwrap();
}

#[test]
fn a_path_that_cannot_hold_a_log_is_named() {
    let error = Log::open(small(Path::new("/dev/null"))).unwrap_err();
    assert!(matches!(error, LogError::Io { .. }), "{error:?}");
    assert!(error.to_string().contains("/dev/null/log"), "{error}");
}

#[test]
fn files_are_private() {
    let dir = scratch();
    let _log = Log::open(small(dir.path())).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir.path().join("log")), 0o700);
    assert_eq!(mode(&dir.path().join("log/lock")), 0o600);
    assert_eq!(mode(&segments(dir.path())[0]), 0o600);
}

#[test]
fn identity_is_written_once_and_survives_purged_segments() {
    let dir = scratch();
    let identity = Identity {
        cluster_id: 0xcdf8_1818_1a5a_5a5a,
        member_id: 0x8e9e_05c5_2164_694d,
    };
    let mut log = Log::open(small(dir.path())).unwrap();
    assert!(!log.has_history());
    assert_eq!(log.identity(), None);
    log.set_identity(identity).unwrap();
    log.set_identity(identity).unwrap();
    let other = Identity {
        member_id: 1,
        ..identity
    };
    assert!(
        matches!(log.set_identity(other), Err(LogError::Identity { found, .. }) if found == identity)
    );
    assert!(!log.has_history(), "an identity alone is no history");

    let vote = Vote::new(4, identity.member_id);
    block_on(log.save_vote(&vote)).unwrap();
    for index in 0..100 {
        append(&log, vec![entry(4, index, 100)]).unwrap();
    }
    block_on(log.purge(entry(4, 90, 0).log_id)).unwrap();
    log.close();
    assert!(segments(dir.path()).len() < 3);
    assert!(log.set_identity(identity).is_ok());
    assert!(append(&log, vec![entry(4, 100, 1)]).is_err());

    let log = Log::open(small(dir.path())).unwrap();
    assert_eq!(log.identity(), Some(identity));
    assert_eq!(read_all(&log).len(), 9);
    assert_eq!(log.stats().purged_index, Some(90));
}

#[test]
fn a_hole_is_refused() {
    let dir = scratch();
    let log = Log::open(small(dir.path())).unwrap();
    append(&log, vec![entry(1, 0, 1)]).unwrap();
    assert_eq!(
        append(&log, vec![entry(1, 2, 1)]).unwrap_err().kind(),
        std::io::ErrorKind::InvalidInput
    );
}
