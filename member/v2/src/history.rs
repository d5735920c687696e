//! Which change a watch waits for.

use crate::error::{Code, Refusal};
use crate::event::{Action, Event};
use crate::lookup::index;
use crate::path::{is_hidden, relative};
use crate::request::Watch;
use crate::rows::{self, Rows, Step};

/// Changes that are kept for watches that ask for the past.
pub const HISTORY: u64 = 1000;

/// What a watch finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The first change that it is about.
    pub event: Option<Event>,
    /// The index of the moment: every change up to it was looked at, if there was none.
    pub index: u64,
}

/// Looks for the first change that a watch is about, from index `from` on; 0 is the next change. Those up to `begun`
/// happened before the watch began.
///
/// As in etcd, a watch that looks back sees what is hidden, one that waits does not.
///
/// # Errors
/// When the rows cannot be read.
pub fn find<R: Rows>(
    rows: &R,
    watch: &Watch,
    from: u64,
    begun: u64,
) -> Result<Result<Found, Refusal>, R::Error> {
    let index = index(rows)?;
    let oldest = (index + 1).saturating_sub(HISTORY).max(1);
    let from = if from == 0 { index + 1 } else { from };
    if from < oldest {
        return Ok(Err(Refusal {
            code: Code::EventIndexCleared,
            cause: format!("the requested history has been cleared [{oldest}/{from}]"),
            index,
        }));
    }
    let mut found = Ok(None);
    if from <= index {
        rows.scan(
            &rows::event(from),
            &rows::event(index + 1),
            &mut |_, row| match Event::read(row) {
                Ok(event) if !is_about(watch, &event, begun) => Step::Next,
                event => {
                    found = event.map(Some);
                    Step::Stop
                }
            },
        )?;
    }
    Ok(Ok(Found {
        event: found?,
        index,
    }))
}

fn is_about(watch: &Watch, event: &Event, begun: u64) -> bool {
    if event.refresh {
        return false;
    }
    let path = &event.node.path;
    if *path == watch.path {
        return true;
    }
    if let Some(rest) = relative(&watch.path, path) {
        return watch.recursive && (event.index <= begun || !is_hidden(rest));
    }
    // It went with a directory above it.
    matches!(event.action(), Action::Delete | Action::Expire)
        && event.prev.as_ref().is_some_and(|prev| prev.dir)
        && relative(path, &watch.path).is_some()
}
