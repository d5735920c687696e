//! What a read shows of the tree.

use crate::error::Refusal;
use crate::event::{Action, Event, Node};
use crate::lookup::{find, index};
use crate::path::{is_hidden, relative};
use crate::request::Get;
use crate::rows::{self, Rows, Step};

/// Reads a file, or a directory with what is in it, as of `time` in nanoseconds since 1970. Always sorted, whether
/// that was asked for or not.
///
/// # Errors
/// When the rows cannot be read.
pub fn get<R: Rows>(rows: &R, get: &Get, time: i64) -> Result<Result<Event, Refusal>, R::Error> {
    let index = index(rows)?;
    let mut node = match find(rows, &get.path, index)? {
        Ok(node) => node,
        Err(refusal) => return Ok(Err(refusal)),
    };
    if node.dir {
        node.nodes = nested(list(rows, &get.path, get.recursive)?);
    }
    Ok(Ok(Event {
        action: Action::Get.into(),
        node,
        prev: None,
        index,
        time,
        refresh: false,
    }))
}

/// What is in a directory, or below it, but for what is hidden.
fn list<R: Rows>(rows: &R, dir: &str, recursive: bool) -> Result<Vec<Node>, R::Error> {
    let (from, to) = rows::below(dir);
    let mut found = Vec::new();
    rows.scan(&from, &to, &mut |key, row| {
        let rest = &key[from.len()..];
        let node = Node::read(row);
        let hidden = node
            .as_ref()
            .is_ok_and(|node| relative(dir, &node.path).is_some_and(is_hidden));
        let slash = rest.iter().position(|byte| *byte == b'/');
        if let Some(slash) = slash.filter(|_| !recursive) {
            // Past all that is below this child.
            return Step::Seek([&from, &rest[..slash], b"0"].concat());
        }
        if !hidden {
            found.push(node);
        }
        Step::Next
    })?;
    let mut found: Vec<Node> = found.into_iter().collect::<Result<_, _>>()?;
    // The rows lie in the order of bytes, in which `a-b` comes before `a/b`.
    found.sort_by(|a, b| a.path.split('/').cmp(b.path.split('/')));
    Ok(found)
}

/// Puts nodes into their directories. A directory comes before what is in it.
fn nested(found: Vec<Node>) -> Vec<Node> {
    let mut roots = Vec::new();
    let mut open: Vec<Node> = Vec::new();
    let close = |open: &mut Vec<Node>, roots: &mut Vec<Node>| {
        if let Some(closed) = open.pop() {
            open.last_mut()
                .map_or(roots, |parent| &mut parent.nodes)
                .push(closed);
        }
    };
    for node in found {
        while open
            .last()
            .is_some_and(|dir| relative(&dir.path, &node.path).is_none())
        {
            close(&mut open, &mut roots);
        }
        open.push(node);
    }
    while !open.is_empty() {
        close(&mut open, &mut roots);
    }
    roots
}
