//! What is refused: etcd's texts, and nothing left behind.

use std::process::Command;

use tempfile::TempDir;

use super::{member, restore, saved};
use crate::process::MEMBER;

#[test]
fn refusals_are_etcds_and_leave_nothing_behind() {
    let dir = TempDir::new().expect("a directory");
    let file = saved(&dir);
    let bytes = std::fs::read(&file).expect("readable");
    let target = dir.path().join("target");
    let copy = dir.path().join("copy.db");
    let refused = |content: &[u8], more: &[&str], text: &str| {
        std::fs::write(&copy, content).expect("written");
        let (ok, err) = restore(&mut Command::new(MEMBER), &copy, &target, 1, more);
        assert!(!ok && err.contains(text), "{text}: {err}");
        let left: Vec<_> = std::fs::read_dir(dir.path())
            .expect("readable")
            .flatten()
            .map(|entry| entry.file_name())
            .filter(|name| name != "copy.db" && name != "snapshot.db")
            .collect();
        assert!(left.is_empty(), "{left:?}");
    };
    refused(
        &bytes[..bytes.len() - 32],
        &[],
        "snapshot missing hash but --skip-hash-check=false",
    );
    let mut flipped = bytes.clone();
    flipped[5000] ^= 1;
    refused(&flipped, &[], "expected sha256 [");
    let mut trailer = bytes.clone();
    trailer[bytes.len() - 1] ^= 1;
    refused(&trailer, &[], "expected sha256 [");
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    png.resize(9000, 0x5A);
    let mut gzip = b"\x1f\x8b\x08\0".to_vec();
    gzip.resize(9000, 0xA5);
    for foreign in [&[0; 8192][..], &png, &gzip] {
        refused(foreign, &[], "snapshot missing hash");
        refused(foreign, &["--skip-hash-check"], "invalid database");
    }
    refused(b"", &[], "snapshot missing hash");
    for short in [&b""[..], b"short"] {
        refused(short, &["--skip-hash-check"], "file size too small");
    }
    // Cut off, without a hash that would tell.
    let content = bytes.len() - 32;
    for len in (0..content).step_by(content / 23) {
        refused(&bytes[..len], &["--skip-hash-check"], "Error: ");
    }
    // The root leads back to itself.
    let root = content - 4096;
    let mut circle = bytes.clone();
    let number = u64::try_from(root / 4096).expect("a page");
    for at in root..content - 8 {
        if bytes[at..at + 8] == (number - 1).to_le_bytes() {
            circle[at..at + 8].copy_from_slice(&number.to_le_bytes());
        }
    }
    refused(&circle, &["--skip-hash-check"], "is damaged");
    refused(
        &bytes,
        &["--name=zz"],
        "couldn't find local name \"zz\" in the initial cluster configuration",
    );
    refused(
        &bytes,
        &["--initial-cluster=infra0=http://x"],
        "initial cluster: URL address does not have the form \"host:port\": http://x\n",
    );
    refused(&bytes, &["--mark-compacted"], "--mark-compacted disallowed");
    std::fs::create_dir(&target).expect("made");
    let (ok, err) = restore(&mut Command::new(MEMBER), &file, &target, 1, &[]);
    assert!(
        !ok && err.contains(&format!("data-dir {target:?} exists")),
        "{err}"
    );
    let (code, _, err) = member(&["snapshot", "restore"]);
    assert_eq!(
        (code, &err[..]),
        (
            Some(128),
            "Error: snapshot restore requires exactly one argument\n"
        )
    );
    let (code, _, err) = member(&["snapshot", "status", "/nonexistent.db"]);
    assert_eq!(
        (code, &err[..]),
        (
            Some(1),
            "Error: open /nonexistent.db: no such file or directory\n"
        )
    );
}
