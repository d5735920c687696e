//! The file format against itself, against damage, and against etcd's own tool.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod damage;
mod etcd;
mod round_trip;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;

use member_bolt::{Database, Plan, ReadError, Row, Source, WriteError};

pub(crate) type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// Buckets in memory.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Memory(pub(crate) BTreeMap<String, Rows>);

impl Source for Memory {
    fn buckets(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }

    fn walk(&self, bucket: &str, row: &mut Row<'_>) -> Result<(), WriteError> {
        self.0[bucket]
            .iter()
            .try_for_each(|(key, value)| row(key, value))
    }
}

pub(crate) fn write(source: &Memory) -> Vec<u8> {
    let plan = Plan::new(source).unwrap();
    let mut out = Vec::new();
    plan.write(source, &mut out).unwrap();
    assert_eq!(out.len() as u64, plan.size());
    out
}

pub(crate) fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

pub(crate) fn read(bytes: &[u8]) -> Result<Memory, ReadError> {
    let database = Database::new(file(bytes), bytes.len() as u64)?;
    let mut memory = Memory::default();
    let mut buckets = database.buckets();
    while let Some((name, bucket)) = buckets.next_bucket()? {
        let mut rows = Rows::new();
        let mut walk = database.walk(&bucket);
        while let Some(item) = walk.next_row()? {
            rows.insert(item.key.to_vec(), item.value.to_vec());
        }
        memory
            .0
            .insert(String::from_utf8_lossy(&name).into_owned(), rows);
    }
    Ok(memory)
}

/// Three levels, a value over several pages, an empty bucket.
pub(crate) fn large() -> Memory {
    let mut rows = Rows::new();
    for i in 0..20_000u64 {
        rows.insert(i.to_be_bytes().repeat(2), vec![7; (i % 90) as usize]);
    }
    rows.insert(vec![0xFF; 20], vec![9; 100_000]);
    let one = Rows::from([(b"k".to_vec(), b"v".to_vec())]);
    Memory(
        [("empty", Rows::new()), ("large", rows), ("one", one)]
            .map(|(name, rows)| (name.to_owned(), rows))
            .into(),
    )
}
