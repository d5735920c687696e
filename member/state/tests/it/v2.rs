//! The v2 keys in the store: one command at a time or many in a batch, they come to the same, and stay.

use member_state::{
    Backend, Command, LogPosition, MemoryBackend, Op, Record, Response, Store, Table,
};
use member_v2::{Get, Method, Request, find, get, next_expiry, tally};
use proptest::prelude::*;

fn command(method: Method, path: &str, form: &str) -> Command {
    let asked = Request::parse(method, path, form, None, 5_000_000_000).unwrap();
    let Request::Write { command, .. } = asked else {
        panic!("{method:?} writes");
    };
    Command::new(0, Op::V2(Box::new(command)))
}

fn any_command() -> impl Strategy<Value = Command> {
    let name = prop::sample::select(vec!["a", "a-", "b", "_h"]);
    let path = prop::collection::vec(name, 1..4).prop_map(|names| format!("/{}", names.join("/")));
    let write = prop::sample::select(vec![
        (Method::Put, "value=x"),
        (Method::Put, "value=y&ttl=1"),
        (Method::Put, "dir=true"),
        (Method::Put, "prevExist=true&value=z&ttl=2"),
        (Method::Put, "prevValue=x&value=y"),
        (Method::Post, "value=q"),
        (Method::Delete, ""),
        (Method::Delete, "recursive=true"),
    ]);
    prop_oneof![
        12 => (write, path).prop_map(|((method, form), path)| command(method, &path, form)),
        1 => (5i64..9).prop_map(|second| {
            Command::new(0, Op::V2(Box::new(member_v2::Command::expire(second * 1_000_000_000))))
        }),
    ]
}

/// Applies commands in batches of these sizes; the answers.
fn run(store: &Store<MemoryBackend>, commands: &[Command], sizes: &[usize]) -> Vec<Response> {
    let mut answers = Vec::new();
    let mut sizes = sizes.iter().cycle();
    let mut rest = commands;
    while !rest.is_empty() {
        let (batch, more) = rest.split_at(rest.len().min(*sizes.next().unwrap()));
        let mut applier = store.begin();
        for command in batch {
            let position = LogPosition {
                term: 1,
                node: 0,
                index: answers.len() as u64 + 1,
            };
            answers.push(applier.apply(position, Some(command), true).unwrap());
        }
        applier.commit().unwrap();
        rest = more;
    }
    answers
}

fn everything(backend: &MemoryBackend) -> Vec<(Vec<u8>, Vec<u8>)> {
    use member_state::Cursor;
    let mut cursor = backend.cursor(Table::Meta, b"v2/", Some(b"v20")).unwrap();
    let mut rows = Vec::new();
    while let Some((key, value)) = cursor.next().unwrap() {
        rows.push((key.to_vec(), value.to_vec()));
    }
    rows
}

proptest! {
    #[test]
    fn batches_do_what_single_commands_do(
        commands in prop::collection::vec(any_command(), 1..60),
        sizes in prop::collection::vec(1usize..20, 1..5),
    ) {
        let backends = [MemoryBackend::new(), MemoryBackend::new()];
        let [single, batched] = backends.each_ref().map(|backend| Store::open(backend.clone()).unwrap());
        prop_assert_eq!(run(&single, &commands, &[1]), run(&batched, &commands, &sizes));
        prop_assert_eq!(everything(&backends[0]), everything(&backends[1]));
        prop_assert_eq!(batched.revision(), 1, "v3 knows nothing of it");
        let root = Get { path: "/".to_owned(), recursive: true, quorum: false };
        let [one, other] = [&single, &batched].map(|store| get(&store.v2().unwrap(), &root, 0).unwrap());
        prop_assert_eq!(one, other);
    }
}

#[test]
fn the_keys_outlive_a_restart_and_are_no_part_of_an_export() {
    let backend = MemoryBackend::new();
    let store = Store::open(backend.clone()).unwrap();
    let commands = [
        command(Method::Put, "/a", "value=x&ttl=7"),
        command(Method::Delete, "/nosuch", ""),
        Command::new(
            0,
            Op::Downgrade(member_state::Downgrade {
                target: "3.5.0".to_owned(),
            }),
        ),
    ];
    run(&store, &commands, &[2]);
    let store = Store::open(backend).unwrap();
    let rows = store.v2().unwrap();
    let counted = tally(&rows).unwrap();
    assert_eq!((counted.sets, counted.deletes_refused), (1, 1));
    assert_eq!(next_expiry(&rows).unwrap(), Some(12_000_000_000));
    let Ok(Request::Watch(watch)) = Request::parse(Method::Get, "/a", "wait=true", None, 0) else {
        panic!("a watch");
    };
    let found = find(&rows, &watch, 4, 4).unwrap().unwrap();
    assert_eq!(
        found.event.map(|event| event.node.path).as_deref(),
        Some("/a")
    );
    let export = store.export().unwrap();
    let records = export.records().unwrap();
    assert_eq!(records, [Record::Downgrade("3.5.0".to_owned())]);
}
