//! A snapshot with a later revision.
//!
//! Clients that saw more of the cluster than the snapshot holds must notice: nothing new may be found under a revision that they
//! know already. As etcdutl's `--bump-revision --mark-compacted` does it, which etcd's older tools lack: an empty row at the
//! new revision, and everything before it scheduled for compaction.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use member_bolt::schema::{KEY, META, SCHEDULED_COMPACT, revision};
use member_bolt::{Database, HashCheck, Plan, ReadError, Row, SnapshotFile, Source, WriteError};
use sha2::{Digest, Sha256};

use crate::error::{Cause, Error};

/// Writes the snapshot `from` to `to` as it would be at the revision `at`, with everything before it compacted.
///
/// # Errors
/// The snapshot is damaged, or the other cannot be written.
pub fn bump(from: &Path, to: &Path, at: i64) -> Result<(), Error> {
    let failed = |error: Cause| Error::because("cannot raise the revision of the snapshot", error);
    let database =
        SnapshotFile::open(from, HashCheck::Required).map_err(|error| failed(error.into()))?;
    let bumped = Bumped::new(&database, at).map_err(|error| failed(error.into()))?;
    let file = File::create(to).map_err(Error::io("create", to))?;
    let mut out = Hashed {
        file: BufWriter::with_capacity(1 << 18, file),
        hash: Sha256::new(),
    };
    let plan = Plan::new(&bumped).map_err(|error| failed(error.into()))?;
    match plan.write(&bumped, &mut out) {
        Err(WriteError::Output(error)) => return Err(Error::io("write", to)(error)),
        result => result.map_err(|error| failed(error.into()))?,
    }
    let Hashed { mut file, hash } = out;
    let finish = || {
        file.write_all(&hash.finalize())?;
        let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()
    };
    finish().map_err(Error::io("write", to))
}

struct Bumped<'a> {
    database: &'a Database,
    buckets: Vec<String>,
    revision: [u8; 17],
}

impl<'a> Bumped<'a> {
    fn new(database: &'a Database, at: i64) -> Result<Self, ReadError> {
        let mut buckets = vec![KEY.to_owned(), META.to_owned()];
        let mut found = database.buckets();
        while let Some((name, _)) = found.next_bucket()? {
            buckets.push(String::from_utf8(name).map_err(|_| ReadError::Row {
                bucket: "root",
                what: "a name that is no text",
            })?);
        }
        buckets.sort();
        buckets.dedup();
        Ok(Self {
            database,
            buckets,
            revision: revision(at, 0),
        })
    }
}

impl Source for Bumped<'_> {
    fn buckets(&self) -> Vec<&str> {
        self.buckets.iter().map(String::as_str).collect()
    }

    fn walk(&self, bucket: &str, row: &mut Row<'_>) -> Result<(), WriteError> {
        let failed = |error: ReadError| WriteError::Source(io::Error::other(error));
        // One row more, in its place by its key.
        let mut added: Option<(&[u8], &[u8])> = match bucket {
            KEY => Some((&self.revision, &[])),
            META => Some((SCHEDULED_COMPACT.as_bytes(), &self.revision)),
            _ => None,
        };
        if let Some(found) = self.database.bucket(bucket).map_err(failed)? {
            let mut rows = self.database.walk(&found);
            while let Some(item) = rows.next_row().map_err(failed)? {
                if let Some((key, value)) = added.take_if(|(key, _)| *key <= item.key) {
                    row(key, value)?;
                    if key == item.key {
                        continue;
                    }
                }
                row(item.key, item.value)?;
            }
        }
        match added {
            Some((key, value)) => row(key, value),
            None => Ok(()),
        }
    }
}

struct Hashed {
    file: BufWriter<File>,
    hash: Sha256,
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hash.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    struct Rows(BTreeMap<&'static str, BTreeMap<Vec<u8>, Vec<u8>>>);

    impl Source for Rows {
        fn buckets(&self) -> Vec<&str> {
            self.0.keys().copied().collect()
        }

        fn walk(&self, bucket: &str, row: &mut Row<'_>) -> Result<(), WriteError> {
            self.0[bucket]
                .iter()
                .try_for_each(|(key, value)| row(key, value))
        }
    }

    fn snapshot(rows: Rows, path: &Path) {
        let mut bytes = Vec::new();
        Plan::new(&rows).unwrap().write(&rows, &mut bytes).unwrap();
        let hash = Sha256::digest(&bytes);
        bytes.extend_from_slice(&hash);
        std::fs::write(path, bytes).unwrap();
    }

    fn rows(path: &Path, bucket: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
        let database = SnapshotFile::open(path, HashCheck::Required).unwrap();
        let bucket = database.bucket(bucket).unwrap().unwrap();
        let mut walk = database.walk(&bucket);
        let mut rows = Vec::new();
        while let Some(item) = walk.next_row().unwrap() {
            rows.push((item.key.to_vec(), item.value.to_vec()));
        }
        rows
    }

    #[test]
    fn two_rows_change_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        let at = |main| revision(main, 0).to_vec();
        let old = |with_meta: bool| {
            let mut meta = BTreeMap::from([
                (b"a".to_vec(), b"1".to_vec()),
                (b"z".to_vec(), b"2".to_vec()),
            ]);
            meta.insert(SCHEDULED_COMPACT.into(), at(3));
            let keys = BTreeMap::from([(at(4), b"x".to_vec()), (at(5), b"y".to_vec())]);
            let mut buckets = BTreeMap::from([("alarm", BTreeMap::new()), (KEY, keys)]);
            if with_meta {
                buckets.insert(META, meta);
            }
            Rows(buckets)
        };
        snapshot(old(true), &from);
        bump(&from, &to, 1005).unwrap();
        assert_eq!(
            rows(&to, KEY),
            [
                (at(4), b"x".to_vec()),
                (at(5), b"y".to_vec()),
                (at(1005), Vec::new())
            ]
        );
        assert_eq!(
            rows(&to, META),
            [
                (b"a".to_vec(), b"1".to_vec()),
                (SCHEDULED_COMPACT.into(), at(1005)),
                (b"z".to_vec(), b"2".to_vec())
            ]
        );
        assert_eq!(rows(&to, "alarm"), []);
        snapshot(old(false), &from);
        bump(&from, &to, 1005).unwrap();
        assert_eq!(rows(&to, META), [(SCHEDULED_COMPACT.into(), at(1005))]);
    }
}
