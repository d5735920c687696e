//! The tree as maps of maps, the plainest way to say what commands do.

use std::collections::BTreeMap;

use member_v2::{Action, Event, Node};

use crate::random::{Form, Step};

pub(crate) const SECOND: i64 = 1_000_000_000;

#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// `None` is a directory.
    pub(crate) value: Option<String>,
    pub(crate) children: BTreeMap<String, Entry>,
    expires: i64,
    pub(crate) modified: u64,
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

    pub(crate) fn listed(&self, path: &str, depth: usize) -> Node {
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

    pub(crate) fn expiries(&self, path: &str, out: &mut Vec<(i64, String)>) {
        if self.expires != 0 {
            out.push((self.expires, path.to_owned()));
        }
        for (name, child) in &self.children {
            child.expiries(&format!("{path}/{name}"), out);
        }
    }
}

/// Code, cause; the index is the current one.
pub(crate) type Refused = (u16, String);

#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) root: Entry,
    pub(crate) index: u64,
}

impl Model {
    pub(crate) fn new() -> Self {
        Model {
            root: Entry::new(None, 0, 0),
            index: 3,
        }
    }

    pub(crate) fn find(&self, path: &str) -> Result<&Entry, Refused> {
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

    pub(crate) fn expire(&mut self, now: i64) {
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

    pub(crate) fn apply(
        &mut self,
        step: &Step,
        path: &str,
        form: &Form,
        now: i64,
    ) -> Result<Event, Refused> {
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
