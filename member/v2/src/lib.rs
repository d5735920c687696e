//! etcd's v2 keys: a tree of directories and files with an index of its own, and the last thousand changes.
//!
//! Owns what a write does ([`apply`]), what a read shows ([`get`]), which change a watch waits for ([`find`]), how
//! requests are read ([`Request::parse`]) and how answers are written ([`Event::json`], [`Refusal::json`]). All of it
//! lives in ordered [`Rows`] that the caller keeps, so that whoever replicates and copies the rows has replicated
//! and copied the tree.
//!
//! No clock, no files, no tasks: the time is part of a command. Texts, codes and quirks are those of etcd 3.4.
//!
//! Invariant: the rows after a command are a function of the rows before it and the command.

mod command;
mod error;
mod event;
mod form;
mod history;
mod json;
mod list;
mod lookup;
mod path;
mod request;
mod rows;
mod store;
mod tally;

pub use command::{
    Command, CompareAndDelete, CompareAndSwap, Create, Delete, Expire, Op, Set, Update, Write,
    WriteOp,
};
pub use error::{Code, Damaged, Refusal};
pub use event::{Action, Event, Node};
pub use form::percent_decode;
pub use history::{Found, HISTORY, find};
pub use json::{timestamp, write_string};
pub use list::get;
pub use lookup::{index, next_expiry};
pub use path::clean;
pub use request::{Get, Method, Request, Watch};
pub use rows::{Rows, RowsMut, Step};
pub use store::{EXPIRED_AT_ONCE, apply};
pub use tally::{Tally, tally};
