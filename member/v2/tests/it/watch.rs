//! What watches find, now and in the past; what reads refuse.

use member_v2::{
    Code, EXPIRED_AT_ONCE, Event, Found, HISTORY, Method, Refusal, Request, Watch, find,
};

use crate::table::Table;

fn watch(path: &str, form: &str) -> Watch {
    let form = format!("wait=true&{form}");
    match Request::parse(Method::Get, path, &form, None, 0) {
        Ok(Request::Watch(watch)) => watch,
        other => panic!("a watch: {other:?}"),
    }
}

/// What a watch that begins now finds.
fn at_once(table: &Table, watch: &Watch) -> Result<Found, Refusal> {
    find(table, watch, watch.since, u64::MAX).expect("whole")
}

/// What a watch that began at index 3 finds.
fn waited(table: &Table, watch: &Watch) -> Option<Event> {
    let found = find(table, watch, 4, 3).expect("whole");
    found.expect("kept").event
}

fn put(table: &mut Table, path: &str) {
    table
        .write(Method::Put, path, "value=x", 0)
        .expect("written");
}

#[test]
fn a_watch_waits_for_its_path_and_a_recursive_one_for_what_is_below() {
    let mut table = Table::default();
    put(&mut table, "/a/b");
    let index = |found: Option<Event>| found.map(|event| event.index);
    assert_eq!(index(waited(&table, &watch("/a/b", ""))), Some(4));
    assert_eq!(index(waited(&table, &watch("/a", ""))), None);
    assert_eq!(
        index(waited(&table, &watch("/a", "recursive=true"))),
        Some(4)
    );
    assert_eq!(
        index(waited(&table, &watch("/", "recursive=true"))),
        Some(4)
    );
    assert_eq!(
        index(waited(&table, &watch("/a/b/c", "recursive=true"))),
        None
    );
}

#[test]
fn what_is_hidden_is_seen_from_where_it_is_and_in_the_past() {
    let mut table = Table::default();
    put(&mut table, "/a/_b/c");
    let index = |found: Option<Event>| found.map(|event| event.index);
    for (path, seen) in [("/", None), ("/a", None), ("/a/_b", Some(4))] {
        let watch = watch(path, "recursive=true");
        assert_eq!(index(waited(&table, &watch)), seen, "{path}");
        let past = Watch { since: 4, ..watch };
        assert_eq!(index(at_once(&table, &past).expect("kept").event), Some(4));
    }
}

#[test]
fn the_end_of_a_directory_is_told_to_those_who_wait_below() {
    let mut table = Table::default();
    put(&mut table, "/a/b/c");
    let gone = table.write(Method::Delete, "/a", "recursive=true", 0);
    let gone = gone.expect("deleted");
    let below = find(&table, &watch("/a/b/c", ""), 5, 4).expect("whole");
    assert_eq!(below.expect("kept").event, Some(gone));
    let beside = find(&table, &watch("/ab", ""), 5, 4).expect("whole");
    assert_eq!(beside.expect("kept").event, None);
}

#[test]
fn a_refresh_wakes_nobody() {
    let mut table = Table::default();
    put(&mut table, "/a");
    let form = "ttl=5&refresh=true&prevExist=true";
    table.write(Method::Put, "/a", form, 0).expect("refreshed");
    let found = find(&table, &watch("/a", ""), 5, 4).expect("whole");
    assert_eq!(
        found.expect("kept"),
        Found {
            event: None,
            index: 5
        }
    );
}

#[test]
fn the_last_thousand_changes_are_kept() {
    let mut table = Table::default();
    for _ in 0..1130 {
        put(&mut table, "/a");
    }
    let refusal = at_once(&table, &watch("/a", "waitIndex=5")).expect_err("gone");
    assert_eq!(refusal.code, Code::EventIndexCleared);
    assert_eq!(refusal.status(), 400);
    assert_eq!(
        refusal.json(),
        "{\"errorCode\":401,\"message\":\"The event in requested index is outdated and cleared\",\"cause\":\"the requested history has been cleared [134/5]\",\"index\":1133}\n"
    );
    let oldest = at_once(&table, &watch("/a", "waitIndex=134")).expect("kept");
    assert_eq!(oldest.event.map(|event| event.index), Some(134));
    let events = table.0.keys().filter(|key| key[0] == b'e').count();
    assert_eq!(events as u64, HISTORY);
    let future = at_once(&table, &watch("/a", "waitIndex=9999")).expect("to come");
    assert_eq!(
        future,
        Found {
            event: None,
            index: 1133
        }
    );
}

#[test]
fn a_command_ends_a_bounded_number_of_keys() {
    let mut table = Table::default();
    for key in 0..=EXPIRED_AT_ONCE {
        let path = format!("/{key}");
        table
            .write(Method::Put, &path, "ttl=1", 0)
            .expect("written");
    }
    let now = 1_000_000_000;
    table.expire(now - 1);
    assert_eq!(nodes(&table), EXPIRED_AT_ONCE + 1, "none is due");
    table.expire(now);
    assert_eq!(nodes(&table), 1);
    table.expire(now);
    assert_eq!(nodes(&table), 0);
    assert_eq!(member_v2::next_expiry(&table).expect("whole"), None);
}

fn nodes(table: &Table) -> usize {
    table.0.keys().filter(|key| key[0] == b'n').count()
}

#[test]
fn a_path_of_any_depth_is_refused_before_anything_walks_it() {
    let deep = "/a".repeat(300);
    let refusal = Request::parse(Method::Put, &deep, "value=x", None, 0).expect_err("too deep");
    assert_eq!(refusal.cause, "the key has more than 256 parts");
}

#[test]
fn a_tree_as_deep_as_allowed_is_listed_and_removed() {
    let mut table = Table::default();
    put(&mut table, &"/a".repeat(255));
    let mut node = table.read("/", "recursive=true", 0).expect("read").node;
    let mut depth = 0;
    while let Some(child) = node.nodes.pop() {
        node = child;
        depth += 1;
    }
    assert_eq!(depth, 255);
    let deleted = table.write(Method::Delete, "/a", "recursive=true", 0);
    assert!(deleted.is_ok());
    assert_eq!(nodes(&table), 0);
}
