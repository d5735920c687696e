//! What commands do to the tree.

use bytes::Bytes;
use prost::Message;

use crate::command::{Command, CompareAndSwap, Create, Delete, Op, Set, Update, Write, WriteOp};
use crate::error::{Code, Damaged, Refusal};
use crate::event::{Action, Event, Node};
use crate::history::HISTORY;
use crate::lookup::{Header, find, first_to_expire, node};
use crate::path::above;
use crate::rows::{self, HEADER, RowsMut, Step};

/// What one [`Command::expire`] removes at most, so that no entry of the log takes long; directories count as one.
pub const EXPIRED_AT_ONCE: usize = 1000;

/// Why a write goes no further.
enum Halt<E> {
    Refused(Refusal),
    Failed(E),
}

impl<E: From<Damaged>> From<Damaged> for Halt<E> {
    fn from(damaged: Damaged) -> Self {
        Halt::Failed(damaged.into())
    }
}

/// Applies a command. `None` for the answer of what no client asked for.
///
/// # Errors
/// When the rows cannot be read; they may then hold a part of what the command does.
pub fn apply<R: RowsMut>(
    rows: &mut R,
    command: &Command,
) -> Result<Option<Result<Event, Refusal>>, R::Error> {
    let header = Header::read(rows.get(HEADER)?)?;
    let mut tree = Tree { rows, header };
    let answer = match &command.op {
        Some(Op::Write(write)) => Some(tree.write(write)?),
        Some(Op::Expire(expire)) => {
            tree.expire(expire.time)?;
            None
        }
        None => None,
    };
    let header = tree.header.encode_to_vec();
    rows.put(HEADER.to_vec(), header.into());
    Ok(answer)
}

/// The tree while a command is applied.
struct Tree<'a, R: RowsMut> {
    rows: &'a mut R,
    header: Header,
}

impl<R: RowsMut> Tree<'_, R> {
    fn write(&mut self, write: &Write) -> Result<Result<Event, Refusal>, R::Error> {
        let Write { path, time, op } = write;
        let Some(op) = op else {
            return Ok(Err(Refusal::early(Code::InvalidField, "")));
        };
        let before = self.header.index;
        let done = match op {
            // Of the root this one says that it is no file.
            WriteOp::CompareAndDelete(expected) => self
                .expected(path, &expected.prev_value, expected.prev_index)
                .map(|prev| self.removed(Action::CompareAndDelete, prev)),
            WriteOp::Create(create) if create.in_order => {
                let parent = if path == "/" { "" } else { path };
                let path = format!("{parent}/{:020}", before + 1);
                self.put(Action::Create, &path, &as_set(create))
            }
            _ if path == "/" => Err(self.refused(Code::RootReadOnly, "/")),
            WriteOp::Set(set) => self.put(Action::Set, path, set),
            WriteOp::Create(create) => self.put(Action::Create, path, &as_set(create)),
            WriteOp::Update(update) => self.update(path, update),
            WriteOp::CompareAndSwap(swap) => self.swap(path, swap),
            WriteOp::Delete(delete) => self.delete(path, *delete),
        };
        self.header.tally.count(op, done.is_ok());
        match done {
            Ok(event) => Ok(Ok(self.record(event, *time))),
            Err(Halt::Refused(refusal)) => Ok(Err(refusal)),
            Err(Halt::Failed(error)) => Err(error),
        }
    }

    fn refused(&self, code: Code, cause: impl Into<String>) -> Halt<R::Error> {
        Halt::Refused(Refusal {
            code,
            cause: cause.into(),
            index: self.header.index,
        })
    }

    fn read(&self, path: &str) -> Result<Option<Node>, R::Error> {
        node(self.rows, path)
    }

    /// The node at a path, or what is wrong with the way to it.
    fn find(&self, path: &str) -> Result<Node, Halt<R::Error>> {
        find(self.rows, path, self.header.index)
            .map_err(Halt::Failed)?
            .map_err(Halt::Refused)
    }

    /// The file at a path, if it is as expected; empty and 0 expect nothing.
    fn expected(
        &self,
        path: &str,
        prev_value: &str,
        prev_index: u64,
    ) -> Result<Node, Halt<R::Error>> {
        let found = self.find(path)?;
        if found.dir {
            // etcd knows the root by a name of its own, which it leaves out.
            let cause = if path == "/" { "" } else { path };
            return Err(self.refused(Code::NotFile, cause));
        }
        let value = found.value.as_deref().unwrap_or_default();
        let mut causes = Vec::new();
        if !prev_value.is_empty() && prev_value != value {
            causes.push(format!("[{prev_value} != {value}]"));
        }
        if prev_index != 0 && prev_index != found.modified {
            causes.push(format!("[{prev_index} != {}]", found.modified));
        }
        if !causes.is_empty() {
            return Err(self.refused(Code::TestFailed, causes.join(" ")));
        }
        Ok(found)
    }

    /// Makes the directories on the way to a path.
    fn make_way(&mut self, path: &str) -> Result<(), Halt<R::Error>> {
        let mut missing = Vec::new();
        for dir in above(path) {
            match self.read(dir).map_err(Halt::Failed)? {
                Some(node) if node.dir => {}
                Some(_) => return Err(self.refused(Code::NotDir, dir)),
                None => missing.push(dir.to_owned()),
            }
        }
        for path in missing {
            self.store(&Node {
                path,
                dir: true,
                modified: self.header.index + 1,
                created: self.header.index + 1,
                ..Node::default()
            });
        }
        Ok(())
    }

    fn put(&mut self, action: Action, path: &str, set: &Set) -> Result<Event, Halt<R::Error>> {
        let found = match self.read(path).map_err(Halt::Failed)? {
            Some(found) => Some(found),
            None => {
                if set.refresh {
                    // Says what is missing.
                    self.find(path)?;
                }
                self.make_way(path)?;
                None
            }
        };
        if let Some(found) = &found {
            if action == Action::Create {
                return Err(self.refused(Code::NodeExist, path));
            }
            if found.dir {
                return Err(self.refused(Code::NotFile, path));
            }
            self.forget(found);
        }
        let kept = found.as_ref().filter(|_| set.refresh);
        let value = kept.map_or_else(|| Some(set.value.clone()), |found| found.value.clone());
        let node = Node {
            path: path.to_owned(),
            value: value.filter(|_| !set.dir),
            dir: set.dir,
            expires: set.expires,
            modified: self.header.index + 1,
            created: self.header.index + 1,
            nodes: Vec::new(),
        };
        self.store(&node);
        Ok(event(action, node, found, set.refresh))
    }

    fn update(&mut self, path: &str, update: &Update) -> Result<Event, Halt<R::Error>> {
        let prev = self.find(path)?;
        if prev.dir && !update.value.is_empty() {
            return Err(self.refused(Code::NotFile, path));
        }
        let value = if update.refresh {
            prev.value.clone()
        } else {
            Some(update.value.clone()).filter(|_| !prev.dir)
        };
        Ok(self.change(Action::Update, prev, value, update.expires, update.refresh))
    }

    fn swap(&mut self, path: &str, swap: &CompareAndSwap) -> Result<Event, Halt<R::Error>> {
        let prev = self.expected(path, &swap.prev_value, swap.prev_index)?;
        let value = if swap.refresh {
            prev.value.clone()
        } else {
            Some(swap.value.clone())
        };
        Ok(self.change(
            Action::CompareAndSwap,
            prev,
            value,
            swap.expires,
            swap.refresh,
        ))
    }

    /// Gives a node another value and expiry.
    fn change(
        &mut self,
        action: Action,
        prev: Node,
        value: Option<String>,
        expires: i64,
        refresh: bool,
    ) -> Event {
        self.forget(&prev);
        let node = Node {
            value,
            expires,
            modified: self.header.index + 1,
            ..prev.clone()
        };
        // etcd tells of the change and does not note it of a directory.
        let modified = if prev.dir {
            prev.modified
        } else {
            node.modified
        };
        self.store(&Node {
            modified,
            ..node.clone()
        });
        event(action, node, Some(prev), refresh)
    }

    fn delete(&mut self, path: &str, delete: Delete) -> Result<Event, Halt<R::Error>> {
        let prev = self.find(path)?;
        if prev.dir {
            if !delete.dir && !delete.recursive {
                return Err(self.refused(Code::NotFile, path));
            }
            if !delete.recursive && !self.is_empty(path).map_err(Halt::Failed)? {
                return Err(self.refused(Code::DirNotEmpty, path));
            }
            let below = self.below(path).map_err(Halt::Failed)?;
            below.iter().for_each(|node| self.forget(node));
        }
        Ok(self.removed(Action::Delete, prev))
    }

    fn is_empty(&self, dir: &str) -> Result<bool, R::Error> {
        let (from, to) = rows::below(dir);
        let mut empty = true;
        self.rows.scan(&from, &to, &mut |_, _| {
            empty = false;
            Step::Stop
        })?;
        Ok(empty)
    }

    /// Everything below a directory, without values.
    fn below(&self, dir: &str) -> Result<Vec<Node>, R::Error> {
        let (from, to) = rows::below(dir);
        let mut found = Vec::new();
        self.rows.scan(&from, &to, &mut |_, row| {
            found.push(Node::read(row).map(|node| Node {
                value: None,
                ..node
            }));
            Step::Next
        })?;
        Ok(found.into_iter().collect::<Result<_, _>>()?)
    }

    /// Removes one node.
    fn removed(&mut self, action: Action, prev: Node) -> Event {
        self.forget(&prev);
        let node = Node {
            path: prev.path.clone(),
            dir: prev.dir,
            modified: self.header.index + 1,
            created: prev.created,
            ..Node::default()
        };
        event(action, node, Some(prev), false)
    }

    fn expire(&mut self, now: i64) -> Result<(), R::Error> {
        for _ in 0..EXPIRED_AT_ONCE {
            let first = first_to_expire(self.rows, self.header.first_expiry)?;
            let Some((time, path)) = first.filter(|(time, _)| *time <= now) else {
                return Ok(());
            };
            self.header.first_expiry = time;
            let prev = self.read(&path)?.ok_or(Damaged("an expiry"))?;
            if prev.dir {
                self.below(&path)?.iter().for_each(|node| self.forget(node));
            }
            let event = self.removed(Action::Expire, prev);
            self.record(event, now);
            self.header.tally.expired += 1;
        }
        Ok(())
    }

    fn store(&mut self, node: &Node) {
        self.rows
            .put(rows::node(&node.path), node.encode_to_vec().into());
        if node.expires != 0 {
            let expiry = rows::expiry(node.expires, &node.path);
            self.rows.put(expiry, Bytes::new());
            self.header.first_expiry = self.header.first_expiry.min(node.expires);
        }
    }

    fn forget(&mut self, node: &Node) {
        self.rows.delete(rows::node(&node.path));
        if node.expires != 0 {
            self.rows.delete(rows::expiry(node.expires, &node.path));
        }
    }

    /// Counts an event and keeps it in the history.
    fn record(&mut self, event: Event, time: i64) -> Event {
        self.header.index += 1;
        let index = self.header.index;
        let event = Event {
            index,
            time,
            ..event
        };
        self.rows
            .put(rows::event(index), event.encode_to_vec().into());
        if let Some(oldest) = index.checked_sub(HISTORY) {
            self.rows.delete(rows::event(oldest));
        }
        event
    }
}

fn as_set(create: &Create) -> Set {
    Set {
        dir: create.dir,
        value: create.value.clone(),
        expires: create.expires,
        refresh: false,
    }
}

fn event(action: Action, node: Node, prev: Option<Node>, refresh: bool) -> Event {
    Event {
        action: action.into(),
        node,
        prev,
        refresh,
        ..Event::default()
    }
}
