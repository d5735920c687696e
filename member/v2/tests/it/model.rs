//! Random commands on the rows and on a tree of maps, whose answers must be equal.

use std::collections::BTreeMap;

use member_v2::{Action, Event, Method, Node, Request, apply, find, get, index, next_expiry};
use proptest::prelude::*;

use crate::table::Table;

const SECOND: i64 = 1_000_000_000;

#[derive(Debug, Clone)]
struct Entry {
    /// `None` is a directory.
    value: Option<String>,
    children: BTreeMap<String, Entry>,
    expires: i64,
    modified: u64,
    created: u64,
}

impl Entry {
    fn new(value: Option<String>, expires: i64, index: u64) -> Self {
        Entry {
            value,
            children: BTreeMap::new(),
            expires,
            modified: index,
            created: index,
        }
    }

    fn shown(&self, path: &str) -> Node {
        Node {
            path: path.to_owned(),
            value: self.value.clone(),
            dir: self.value.is_none(),
            expires: self.expires,
            modified: self.modified,
            created: self.created,
            nodes: Vec::new(),
        }
    }

    fn listed(&self, path: &str, depth: usize) -> Node {
        let base = if path == "/" { "" } else { path };
        let children = self.children.iter();
        let nodes = children
            .filter(|(name, _)| depth > 0 && !name.starts_with('_'))
            .map(|(name, child)| child.listed(&format!("{base}/{name}"), depth - 1))
            .collect();
        Node {
            nodes,
            ..self.shown(path)
        }
    }

    fn expiries(&self, path: &str, out: &mut Vec<(i64, String)>) {
        if self.expires != 0 {
            out.push((self.expires, path.to_owned()));
        }
        for (name, child) in &self.children {
            child.expiries(&format!("{path}/{name}"), out);
        }
    }
}

/// Code, cause; the index is the current one.
type Refused = (u16, String);

#[derive(Debug)]
struct Model {
    root: Entry,
    index: u64,
}

#[derive(Debug, Clone)]
enum Step {
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
enum Expect {
    Nothing,
    Right,
    Wrong,
}

impl Model {
    fn new() -> Self {
        Model {
            root: Entry::new(None, 0, 0),
            index: 3,
        }
    }

    fn find(&self, path: &str) -> Result<&Entry, Refused> {
        let mut at = &self.root;
        let mut walked = String::new();
        for name in path.split('/').filter(|name| !name.is_empty()) {
            if at.value.is_some() {
                return Err((104, walked));
            }
            walked = format!("{walked}/{name}");
            at = at.children.get(name).ok_or((100, walked.clone()))?;
        }
        Ok(at)
    }

    /// The directory of a path, made if need be, and the last part.
    fn parent(&mut self, path: &str) -> Result<(&mut Entry, String), Refused> {
        let next = self.index + 1;
        let (dirs, name) = path.rsplit_once('/').expect("absolute");
        let mut at = &mut self.root;
        let mut walked = String::new();
        for dir in dirs.split('/').filter(|name| !name.is_empty()) {
            walked = format!("{walked}/{dir}");
            at = at
                .children
                .entry(dir.to_owned())
                .or_insert_with(|| Entry::new(None, 0, next));
            if at.value.is_some() {
                return Err((104, walked));
            }
        }
        Ok((at, name.to_owned()))
    }

    fn put(&mut self, action: Action, path: &str, entry: Entry) -> Result<Event, Refused> {
        let next = self.index + 1;
        let (parent, name) = self.parent(path)?;
        let prev = parent.children.get(&name).map(|prev| prev.shown(path));
        if let Some(prev) = &prev {
            if action == Action::Create {
                return Err((105, path.to_owned()));
            }
            if prev.dir {
                return Err((102, path.to_owned()));
            }
        }
        let node = entry.shown(path);
        parent.children.insert(name, entry);
        self.index = next;
        Ok(self.event(action, node, prev, false))
    }

    fn event(&self, action: Action, node: Node, prev: Option<Node>, refresh: bool) -> Event {
        Event {
            action: action.into(),
            node,
            prev,
            index: self.index,
            time: 0,
            refresh,
        }
    }

    fn change(
        &mut self,
        action: Action,
        path: &str,
        value: Option<String>,
        expires: i64,
        refresh: bool,
    ) -> Event {
        let prev = self.find(path).expect("found before").shown(path);
        self.index += 1;
        let index = self.index;
        let (parent, name) = self.parent(path).expect("found before");
        let entry = parent.children.get_mut(&name).expect("found before");
        let was = entry.modified;
        if entry.value.is_some() {
            entry.value = value.or(entry.value.take());
        }
        entry.expires = expires;
        entry.modified = index;
        let node = entry.shown(path);
        if entry.value.is_none() {
            entry.modified = was;
        }
        self.event(action, node, Some(prev), refresh)
    }

    fn remove(&mut self, action: Action, path: &str) -> Event {
        let prev = self.find(path).expect("found before").shown(path);
        self.index += 1;
        let index = self.index;
        let (parent, name) = self.parent(path).expect("found before");
        parent.children.remove(&name);
        let node = Node {
            value: None,
            expires: 0,
            modified: index,
            ..prev.clone()
        };
        self.event(action, node, Some(prev), false)
    }

    fn expected(&self, path: &str, value: &str, index: u64) -> Result<(), Refused> {
        let found = self.find(path)?;
        let Some(held) = &found.value else {
            let cause = if path == "/" { "" } else { path };
            return Err((102, cause.to_owned()));
        };
        let mut causes = Vec::new();
        if !value.is_empty() && value != held {
            causes.push(format!("[{value} != {held}]"));
        }
        if index != 0 && index != found.modified {
            causes.push(format!("[{index} != {}]", found.modified));
        }
        if causes.is_empty() {
            return Ok(());
        }
        Err((101, causes.join(" ")))
    }

    fn expire(&mut self, now: i64) {
        loop {
            let mut all = Vec::new();
            self.root.expiries("", &mut all);
            all.sort();
            let Some((_, path)) = all.first().filter(|(time, _)| *time <= now) else {
                return;
            };
            self.remove(Action::Expire, &path.clone());
        }
    }

    fn apply(&mut self, step: &Step, path: &str, form: &Form, now: i64) -> Result<Event, Refused> {
        let next = self.index + 1;
        let expires = |ttl: Option<u8>| ttl.map_or(0, |ttl| now + i64::from(ttl) * SECOND);
        let entry = |dir: bool, ttl, value: &str| {
            Entry::new((!dir).then(|| value.to_owned()), expires(ttl), next)
        };
        let root = path == "/" && !matches!(step, Step::InOrder | Step::CompareAndDelete { .. });
        // Without a comparison it is a plain delete.
        let plain = form.value.is_empty() && form.index == 0;
        if root || (path == "/" && plain && matches!(step, Step::CompareAndDelete { .. })) {
            return Err((107, "/".to_owned()));
        }
        match step {
            Step::Set { dir, ttl, refresh } => {
                let found = self.find(path).map(|found| found.value.clone());
                match found {
                    Err((code, cause)) if code != 100 || (*refresh && ttl.is_some()) => {
                        Err((code, cause))
                    }
                    Ok(held) if *refresh && ttl.is_some() => {
                        let held = held.unwrap_or_default();
                        let event = self.put(Action::Set, path, entry(*dir, *ttl, &held))?;
                        Ok(Event {
                            refresh: true,
                            ..event
                        })
                    }
                    _ => self.put(Action::Set, path, entry(*dir, *ttl, "new")),
                }
            }
            Step::Create { dir, ttl } => self.put(Action::Create, path, entry(*dir, *ttl, "new")),
            Step::InOrder => {
                let dir = if path == "/" { "" } else { path };
                self.put(
                    Action::Create,
                    &format!("{dir}/{next:020}"),
                    entry(false, None, "new"),
                )
            }
            Step::Update {
                empty,
                ttl,
                refresh,
            } => {
                let dir = self.find(path)?.value.is_none();
                let refresh = *refresh && ttl.is_some();
                if dir && !empty && !refresh {
                    return Err((102, path.to_owned()));
                }
                let value = if refresh {
                    None
                } else {
                    Some(if *empty { "" } else { "new" }.to_owned())
                };
                Ok(self.change(Action::Update, path, value, expires(*ttl), refresh))
            }
            Step::Swap { .. } => {
                if plain {
                    return self.apply(
                        &Step::Set {
                            dir: false,
                            ttl: None,
                            refresh: false,
                        },
                        path,
                        form,
                        now,
                    );
                }
                self.expected(path, &form.value, form.index)?;
                Ok(self.change(
                    Action::CompareAndSwap,
                    path,
                    Some("new".to_owned()),
                    0,
                    false,
                ))
            }
            Step::Delete { dir, recursive } => {
                let found = self.find(path)?;
                if found.value.is_none() {
                    if !dir && !recursive {
                        return Err((102, path.to_owned()));
                    }
                    if !found.children.is_empty() && !recursive {
                        return Err((108, path.to_owned()));
                    }
                }
                Ok(self.remove(Action::Delete, path))
            }
            Step::CompareAndDelete { .. } => {
                if plain {
                    return self.apply(
                        &Step::Delete {
                            dir: false,
                            recursive: false,
                        },
                        path,
                        form,
                        now,
                    );
                }
                self.expected(path, &form.value, form.index)?;
                Ok(self.remove(Action::CompareAndDelete, path))
            }
            Step::Expire => unreachable!("no client asks for it"),
        }
    }
}

/// What a comparison expects, as it is sent.
#[derive(Debug, Default)]
struct Form {
    value: String,
    index: u64,
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
