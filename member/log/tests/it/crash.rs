//! Processes that are killed, and processes whose disk fails.
//!
//! The child is this test binary again, told by an environment variable which part to play.

use std::io::{BufRead, BufReader, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use member_log::{Log, LogOptions, Vote};
use openraft::storage::RaftLogStorage;

use crate::support::{append, block_on, entry, id, read_all, scratch, small};

const DIR: &str = "MEMBER_LOG_TEST_DIR";
const APPENDER: &str = "crash::child_appends_until_it_is_killed";
const WRITER: &str = "crash::child_writes_beyond_its_file_size_limit";

fn child_dir() -> Option<PathBuf> {
    std::env::var_os(DIR).map(PathBuf::from)
}

fn options(dir: &Path) -> LogOptions {
    LogOptions {
        segment_bytes: 16 << 10,
        ..small(dir)
    }
}

fn size(index: u64) -> usize {
    usize::try_from(index * 37 % 700).unwrap()
}

fn spawn_appender(dir: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", APPENDER, "--nocapture", "--test-threads=1"])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Not a test by itself: without the variable it has nothing to do.
#[test]
fn child_appends_until_it_is_killed() {
    let Some(dir) = child_dir() else { return };
    let mut log = Log::open(options(&dir)).unwrap();
    let mut next = log.stats().last_index.map_or(0, |last| last + 1);
    loop {
        let count = next % 5 + 1;
        append(
            &log,
            (next..next + count)
                .map(|index| entry(1, index, size(index)))
                .collect(),
        )
        .unwrap();
        next += count;
        println!("\nacknowledged {}", next - 1);
        block_on(log.save_committed(Some(id(1, next - 1)))).unwrap();
        if next > 100 && next % 200 < 5 {
            block_on(log.purge(id(1, next - 50))).unwrap();
        }
    }
}

#[test]
fn no_acknowledged_entry_is_lost_by_kill_9() {
    // On a real file system: what the kernel was not told is lost here, too.
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    for round in 0..8 {
        let mut child = spawn_appender(dir.path());
        let mut lines = BufReader::new(child.stdout.take().unwrap())
            .lines()
            .map_while(Result::ok);
        let mut number = || {
            lines.by_ref().find_map(|line| {
                line.strip_prefix("acknowledged ")
                    .and_then(|rest| rest.parse::<u64>().ok())
            })
        };
        for _ in 0..40 + round * 13 {
            acknowledged = number().expect("the child acknowledges until it is killed");
        }
        child.kill().unwrap();
        while let Some(last) = number() {
            acknowledged = last;
        }
        child.wait().unwrap();

        let log = Log::open(options(dir.path())).unwrap();
        let entries = read_all(&log);
        let last = log.stats().last_index.unwrap();
        assert!(
            last >= acknowledged,
            "{acknowledged} was acknowledged, {last} is the last"
        );
        let first = log.stats().purged_index.map_or(0, |purged| purged + 1);
        let wanted: Vec<_> = (first..=last)
            .map(|index| entry(1, index, size(index)))
            .collect();
        assert_eq!(entries, wanted);
    }
}

/// Not a test by itself: without the variable it has nothing to do.
#[test]
fn child_writes_beyond_its_file_size_limit() {
    let Some(dir) = child_dir() else { return };
    let mut log = Log::open(small(&dir)).unwrap();
    append(&log, vec![entry(1, 0, 100)]).unwrap();
    // Larger than a segment, so that the file has to grow beyond the limit.
    let error = append(&log, vec![entry(1, 1, 1 << 20)]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FileTooLarge);
    assert!(
        error.to_string().contains("cannot write log segment"),
        "{error}"
    );
    assert!(error.to_string().contains(".wal"), "{error}");
    // From now on nothing is accepted, even what would fit.
    assert_eq!(
        append(&log, vec![entry(1, 2, 1)]).unwrap_err().kind(),
        ErrorKind::FileTooLarge
    );
    block_on(log.save_vote(&Vote::new(2, 1))).unwrap_err();
    block_on(log.save_committed(Some(id(1, 0)))).unwrap_err();
    block_on(log.purge(id(1, 0))).unwrap_err();
    log.close();
    println!("\nrefused");
}

#[test]
fn a_failed_write_is_permanent_and_the_log_opens_again() {
    let dir = scratch();
    let output = Command::new("sh")
        // Ignored signals survive exec: the write then fails with EFBIG instead of killing the process.
        .args(["-c", "trap '' XFSZ; ulimit -f 64; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", WRITER, "--nocapture"])
        .env(DIR, dir.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("refused"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );

    let log = Log::open(small(dir.path())).unwrap();
    assert_eq!(read_all(&log), [entry(1, 0, 100)]);
}
