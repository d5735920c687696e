//! What survives a restart beside keys, and what is refused at one.

use bytes::Bytes;
use member_state::{
    Backend, Batch, ClusterVersion, Command, DecodeError, LogPosition, MemberAttributes,
    MemoryBackend, Op, OpenError, Publish, Put, Store, Table,
};

fn position(index: u64) -> LogPosition {
    LogPosition {
        term: 3,
        node: 0xfeed,
        index,
    }
}

fn publish(member_id: u64, name: &str) -> Op {
    Op::Publish(Publish {
        member_id,
        name: name.to_owned(),
        client_urls: vec![format!("http://{name}:2379")],
    })
}

fn put(key: &'static str) -> Command {
    let key = Bytes::from_static(key.as_bytes());
    Command::new(
        0,
        Op::Put(Put {
            key,
            ..Put::default()
        }),
    )
}

#[test]
fn attributes_version_and_server_values_survive() {
    let backend = MemoryBackend::new();
    let store = Store::open(backend.clone()).unwrap();
    let mut applier = store.begin();
    for (index, op) in [
        publish(9, "old"),
        publish(9, "a"),
        publish(u64::MAX, "b"),
        Op::ClusterVersion(ClusterVersion {
            version: "3.6.0".to_owned(),
        }),
    ]
    .into_iter()
    .enumerate()
    {
        let command = Command::new(0, op);
        applier
            .apply(position(index as u64 + 1), Some(&command), true)
            .unwrap();
    }
    applier.put_meta("membership", Bytes::from_static(b"blob"));
    assert_eq!(store.get_meta("membership").unwrap(), None);
    applier.commit().unwrap();

    let store = Store::open(backend).unwrap();
    assert_eq!(store.applied(), Some(position(4)));
    assert_eq!(store.revision(), 1);
    assert_eq!(store.cluster_version().unwrap().unwrap(), "3.6.0");
    assert_eq!(store.get_meta("membership").unwrap().unwrap(), "blob");
    let attributes = |name: &str| MemberAttributes {
        name: name.to_owned(),
        client_urls: vec![format!("http://{name}:2379")],
    };
    let expected = [(9, attributes("a")), (u64::MAX, attributes("b"))];
    assert_eq!(store.attributes().unwrap(), expected.clone().into());
    let mut applier = store.begin();
    applier.forget_member(9);
    applier.commit().unwrap();
    assert_eq!(
        store.attributes().unwrap(),
        expected[1..].iter().cloned().collect()
    );
}

fn overwrite(backend: &MemoryBackend, table: Table, key: &'static [u8], value: &'static [u8]) {
    let mut batch = Batch::new();
    batch.put(table, Bytes::from_static(key), Bytes::from_static(value));
    backend.write(&batch).unwrap();
}

#[test]
fn other_formats_and_damage_are_refused() {
    let backend = MemoryBackend::new();
    overwrite(&backend, Table::Meta, b"state", &[0, 0, 0, 2, 0xFF]);
    let error = Store::open(backend.clone()).unwrap_err();
    assert!(matches!(
        error,
        OpenError::Format {
            found: 2,
            expected: 1
        }
    ));
    overwrite(&backend, Table::Meta, b"state", &[0, 0, 0, 1, 0xFF]);
    let error = Store::open(backend).unwrap_err();
    assert!(matches!(error, OpenError::Corrupt(_)));
}

#[test]
fn history_ahead_of_the_state_is_refused() {
    let backend = MemoryBackend::new();
    overwrite(
        &backend,
        Table::Revisions,
        &[0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0],
        b"",
    );
    let error = Store::open(backend).unwrap_err();
    assert!(matches!(error, OpenError::Corrupt(_)));
}

#[test]
fn command_of_a_newer_version_is_refused() {
    let unknown = Command {
        id: 5,
        ..Command::default()
    };
    let error = Command::decode(unknown.encode()).unwrap_err();
    assert!(matches!(error, DecodeError::UnknownOperation));
    let error = Command::decode(Bytes::from_static(b"\xFF\xFF")).unwrap_err();
    assert!(matches!(error, DecodeError::Malformed(_)));
}

#[test]
fn decoded_values_share_the_logs_buffer() {
    let encoded = put("a-rather-long-key").encode();
    let inside = encoded.as_ptr_range();
    let Some(Op::Put(put)) = Command::decode(encoded.clone()).unwrap().op else {
        panic!("not a put");
    };
    assert!(inside.contains(&put.key.as_ptr()));
}

#[test]
#[should_panic(expected = "two appliers at once")]
fn second_applier_is_refused() {
    let store = Store::open(MemoryBackend::new()).unwrap();
    let _first = store.begin();
    let _second = store.begin();
}

#[test]
#[should_panic(expected = "entry 1 was applied before")]
fn entry_is_applied_once() {
    let store = Store::open(MemoryBackend::new()).unwrap();
    let mut applier = store.begin();
    applier.apply(position(1), Some(&put("a")), true).unwrap();
    let _ = applier.apply(position(1), Some(&put("a")), true);
}
