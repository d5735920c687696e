//! Random commands on the rows and on the model, whose answers must be equal.

use member_v2::{Event, Method, Request, apply, find, get, index, next_expiry};
use proptest::prelude::*;

use crate::model::{Model, SECOND};
use crate::table::Table;

#[derive(Debug, Clone)]
pub(crate) enum Step {
    Set {
        dir: bool,
        ttl: Option<u8>,
        refresh: bool,
    },
    Create {
        dir: bool,
        ttl: Option<u8>,
    },
    InOrder,
    Update {
        empty: bool,
        ttl: Option<u8>,
        refresh: bool,
    },
    /// `value` of the file as it was, another one or none; the same for the index.
    Swap {
        value: Expect,
        index: Expect,
    },
    Delete {
        dir: bool,
        recursive: bool,
    },
    CompareAndDelete {
        value: Expect,
        index: Expect,
    },
    Expire,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Expect {
    Nothing,
    Right,
    Wrong,
}

/// What a comparison expects, as it is sent.
#[derive(Debug, Default)]
pub(crate) struct Form {
    pub(crate) value: String,
    pub(crate) index: u64,
}

impl Form {
    fn of(model: &Model, step: &Step, path: &str) -> Self {
        let (Step::Swap { value, index } | Step::CompareAndDelete { value, index }) = step else {
            return Form::default();
        };
        let found = model.find(path).ok();
        let held = found.and_then(|found| found.value.clone());
        Form {
            value: match value {
                Expect::Nothing => String::new(),
                Expect::Right => held.unwrap_or_default(),
                Expect::Wrong => "wrong".to_owned(),
            },
            index: match index {
                Expect::Nothing => 0,
                Expect::Right => found.map_or(0, |found| found.modified),
                Expect::Wrong => 9999,
            },
        }
    }

    fn text(&self, step: &Step) -> (Method, String) {
        let ttl = |ttl: &Option<u8>| ttl.map(|ttl| format!("&ttl={ttl}")).unwrap_or_default();
        let value = |refresh: bool, ttl: &Option<u8>, text: &str| {
            if refresh && ttl.is_some() {
                "&refresh=true".to_owned()
            } else {
                format!("&value={text}")
            }
        };
        let mut compared = String::new();
        if !self.value.is_empty() {
            compared += &format!("&prevValue={}", self.value);
        }
        if self.index != 0 {
            compared += &format!("&prevIndex={}", self.index);
        }
        match step {
            Step::Set {
                dir,
                ttl: t,
                refresh,
            } => (
                Method::Put,
                format!("dir={dir}{}{}", ttl(t), value(*refresh, t, "new")),
            ),
            Step::Create { dir, ttl: t } => (
                Method::Put,
                format!("prevExist=false&value=new&dir={dir}{}", ttl(t)),
            ),
            Step::InOrder => (Method::Post, "value=new".to_owned()),
            Step::Update {
                empty,
                ttl: t,
                refresh,
            } => (
                Method::Put,
                format!(
                    "prevExist=true{}{}",
                    ttl(t),
                    value(*refresh, t, if *empty { "" } else { "new" })
                ),
            ),
            Step::Swap { .. } => (Method::Put, format!("value=new{compared}")),
            Step::Delete { dir, recursive } => {
                (Method::Delete, format!("dir={dir}&recursive={recursive}"))
            }
            Step::CompareAndDelete { .. } => (Method::Delete, compared),
            Step::Expire => unreachable!("no client asks for it"),
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    let ttl = || prop::option::weighted(0.3, 0u8..4);
    let expect = || {
        prop_oneof![
            Just(Expect::Nothing),
            Just(Expect::Right),
            Just(Expect::Wrong)
        ]
    };
    prop_oneof![
        4 => (any::<bool>(), ttl(), any::<bool>()).prop_map(|(dir, ttl, refresh)| Step::Set { dir, ttl, refresh }),
        2 => (any::<bool>(), ttl()).prop_map(|(dir, ttl)| Step::Create { dir, ttl }),
        1 => Just(Step::InOrder),
        2 => (any::<bool>(), ttl(), any::<bool>()).prop_map(|(empty, ttl, refresh)| Step::Update { empty, ttl, refresh }),
        2 => (expect(), expect()).prop_map(|(value, index)| Step::Swap { value, index }),
        2 => (any::<bool>(), any::<bool>()).prop_map(|(dir, recursive)| Step::Delete { dir, recursive }),
        1 => (expect(), expect()).prop_map(|(value, index)| Step::CompareAndDelete { value, index }),
        2 => Just(Step::Expire),
    ]
}

/// Few names, some of which sort before a slash or are hidden, so that steps meet.
fn path() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec!["a", "a-", "a.b", "b", "_h", "a0"]);
    prop::collection::vec(name, 0..4).prop_map(|names| format!("/{}", names.join("/")))
}

proptest! {
    #[test]
    fn answers_and_trees_are_those_of_the_model(steps in prop::collection::vec((step(), path(), 0i64..3), 1..80)) {
        let mut table = Table::default();
        let mut model = Model::new();
        let mut now = 1000 * SECOND;
        for (step, path, passed) in &steps {
            now += passed * SECOND;
            if matches!(step, Step::Expire) {
                table.expire(now);
                model.expire(now);
            } else {
                let form = Form::of(&model, step, path);
                let (method, text) = form.text(step);
                let found = table.write(method, path, &text, now);
                let before = model.index;
                let expected = model.apply(step, path, &form, now);
                match (found, expected) {
                    (Ok(found), Ok(expected)) => prop_assert_eq!(found, Event { time: now, ..expected }),
                    (Err(found), Err((code, cause))) => {
                        prop_assert_eq!((found.code as u16, found.cause, found.index), (code, cause, before));
                    }
                    (found, expected) => prop_assert!(false, "{step:?} {path}: {found:?}, expected {expected:?}"),
                }
            }
            prop_assert_eq!(index(&table).expect("whole"), model.index);
            let mut expiries = Vec::new();
            model.root.expiries("", &mut expiries);
            prop_assert_eq!(next_expiry(&table).expect("whole"), expiries.iter().map(|(time, _)| *time).min());
            for (path, depth, form) in [("/", 99, "recursive=true"), (path, 1, ""), (path, 99, "recursive=true&sorted=true")] {
                let found = table.read(path, form, now);
                match (found, model.find(path)) {
                    (Ok(found), Ok(expected)) => prop_assert_eq!(found.node, expected.listed(path, depth)),
                    (Err(found), Err((code, cause))) => prop_assert_eq!((found.code as u16, found.cause), (code, cause)),
                    (found, expected) => prop_assert!(false, "{path}: {found:?}, expected {expected:?}"),
                }
            }
        }
        // No row is left over: as many nodes and expiries as the model has.
        let mut count = vec![&model.root];
        let mut nodes = 0;
        while let Some(entry) = count.pop() {
            nodes += entry.children.len();
            count.extend(entry.children.values());
        }
        prop_assert_eq!(table.0.keys().filter(|key| key[0] == b'n').count(), nodes);
        let mut expiries = Vec::new();
        model.root.expiries("", &mut expiries);
        prop_assert_eq!(table.0.keys().filter(|key| key[0] == b'x').count(), expiries.len());
    }
}

proptest! {
    #[test]
    fn any_request_is_read_or_refused_and_what_is_read_is_applied(
        path in "(/[ab_.%]{0,3}){0,4}",
        query in "((value|ttl|dir|wait|refresh|prevExist|prevIndex|recursive|[a-z]{0,2})=?[0-9a-z%;+]{0,4}&){0,4}",
        body in prop::option::of(prop::collection::vec(any::<u8>(), 0..20)),
        method in prop::sample::select(vec![Method::Get, Method::Head, Method::Put, Method::Post, Method::Delete]),
        now: i64,
    ) {
        let mut table = Table::default();
        for _ in 0..2 {
            let read = match Request::parse(method, &path, &query, body.as_deref(), now) {
                Ok(Request::Write { command, .. }) => apply(&mut table, &command).expect("whole").expect("an answer"),
                Ok(Request::Get(read)) => get(&table, &read, now).expect("whole"),
                Ok(Request::Watch(watch)) => {
                    let found = find(&table, &watch, watch.since, u64::MAX).expect("whole");
                    prop_assert!(found.is_ok(), "nothing is forgotten yet");
                    continue;
                }
                Err(refusal) => Err(refusal),
            };
            let text = read.map_or_else(|refusal| refusal.json(), |event| event.json(true));
            prop_assert_eq!(text.lines().count(), 1);
        }
        table.expire(now);
        table.expire(i64::MAX);
        prop_assert_eq!(next_expiry(&table).expect("whole"), None);
    }
}
