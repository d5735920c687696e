//! Opening, and what can be wrong with a directory.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use bytes::Bytes;
use member_state::{Backend, Batch, Cursor, Table};
use member_store::{RocksBackend, StoreError, StoreOptions};

fn open(dir: &Path) -> Result<RocksBackend, StoreError> {
    RocksBackend::open(dir, StoreOptions::default())
}

fn fill(backend: &RocksBackend, keys: u32) {
    let mut batch = Batch::new();
    for key in 0..keys {
        batch.put(
            Table::Current,
            Bytes::from(format!("key-{key:08}")),
            Bytes::from(vec![b'v'; 256]),
        );
    }
    backend.write(&batch).unwrap();
}

fn table_files(dir: &Path) -> Vec<std::path::PathBuf> {
    fs::read_dir(dir)
        .unwrap()
        .map(|item| item.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "sst"))
        .collect()
}

#[test]
fn a_second_opener_is_told_that_the_database_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path()).unwrap();
    let error = open(dir.path()).unwrap_err();
    assert!(matches!(error, StoreError::InUse { .. }), "{error:?}");
    drop(first);
    open(dir.path()).unwrap();
}

#[test]
fn the_directory_is_private() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state/db-1");
    let _backend = open(&path).unwrap();
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o700
    );
}

#[test]
fn a_path_that_cannot_hold_a_database_is_named() {
    let error = open(Path::new("/dev/null/db")).unwrap_err();
    assert!(matches!(error, StoreError::Directory { .. }), "{error:?}");
    assert!(error.to_string().contains("/dev/null/db"), "{error}");
}

#[test]
fn a_damaged_manifest_is_corruption() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()).unwrap());
    fs::write(dir.path().join("CURRENT"), b"nonsense").unwrap();
    let error = open(dir.path()).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
}

#[test]
fn a_missing_table_file_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let backend = open(dir.path()).unwrap();
    fill(&backend, 1000);
    drop(backend);
    for file in table_files(dir.path()) {
        fs::remove_file(file).unwrap();
    }
    let error = open(dir.path()).unwrap_err();
    assert!(
        matches!(
            error,
            StoreError::Corrupt { .. } | StoreError::Refused { .. }
        ),
        "{error:?}"
    );
}

#[test]
fn a_flipped_byte_in_a_table_file_is_noticed_when_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let backend = open(dir.path()).unwrap();
    fill(&backend, 1000);
    drop(backend);
    let file = table_files(dir.path())
        .into_iter()
        .max_by_key(|path| fs::metadata(path).unwrap().len())
        .unwrap();
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 3;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).unwrap();

    let backend = open(dir.path()).unwrap();
    let mut cursor = backend.cursor(Table::Current, b"", None).unwrap();
    let outcome = loop {
        match cursor.next() {
            Ok(Some(_)) => {}
            other => break other.map(|end| end.is_some()),
        }
    };
    outcome.unwrap_err();
}

#[test]
fn size_grows_with_the_data_and_memory_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let backend = open(dir.path()).unwrap();
    for _ in 0..10 {
        fill(&backend, 10_000);
    }
    assert!(backend.size() > 10_000 * 256, "{}", backend.size());
    backend.flush().unwrap();
    let memory = backend.memory();
    assert!(memory.write_buffers < 1 << 20, "{memory:?}");
    assert!(memory.block_cache <= 17 << 20, "{memory:?}");
}

#[test]
fn a_checkpoint_does_not_follow_later_writes() {
    let dir = tempfile::tempdir().unwrap();
    let backend = open(&dir.path().join("db")).unwrap();
    fill(&backend, 10);
    let copy = dir.path().join("copy");
    backend.checkpoint(&copy).unwrap();
    assert!(matches!(
        backend.checkpoint(&copy),
        Err(StoreError::Foreign { .. })
    ));
    fill(&backend, 20);
    backend.flush().unwrap();
    let copy = open(&copy).unwrap();
    assert!(copy.get(Table::Current, b"key-00000009").unwrap().is_some());
    assert!(copy.get(Table::Current, b"key-00000010").unwrap().is_none());
}

#[test]
fn a_database_that_lacks_a_table_gets_it() {
    let dir = tempfile::tempdir().unwrap();
    let before = Table::ALL.iter().filter(|table| **table != Table::Leases);
    let mut options = rocksdb::Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    let older =
        rocksdb::DB::open_cf(&options, dir.path(), before.map(|table| table.name())).unwrap();
    let current = older.cf_handle(Table::Current.name()).unwrap();
    older.put_cf(current, b"k", b"v").unwrap();
    drop(older);
    let backend = open(dir.path()).unwrap();
    let kept = backend.get(Table::Current, b"k").unwrap();
    assert_eq!(kept.as_deref(), Some(&b"v"[..]));
    let mut batch = Batch::new();
    batch.put(Table::Leases, Bytes::from_static(b"l"), Bytes::new());
    backend.write(&batch).unwrap();
    assert!(backend.get(Table::Leases, b"l").unwrap().is_some());
}
