//! What happened to a node, as it is kept and as it is answered.

use prost::Message;

use crate::error::Damaged;

/// What an event reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
#[expect(missing_docs, reason = "etcd's names of them")]
pub enum Action {
    Get = 0,
    Set = 1,
    Create = 2,
    Update = 3,
    CompareAndSwap = 4,
    Delete = 5,
    CompareAndDelete = 6,
    Expire = 7,
}

impl Action {
    /// etcd's name of it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Action::Get => "get",
            Action::Set => "set",
            Action::Create => "create",
            Action::Update => "update",
            Action::CompareAndSwap => "compareAndSwap",
            Action::Delete => "delete",
            Action::CompareAndDelete => "compareAndDelete",
            Action::Expire => "expire",
        }
    }
}

/// A file or directory as an answer shows it.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Node {
    /// Its path; the root is `/`.
    #[prost(string, tag = "1")]
    pub path: String,
    /// The value of a file, where it is shown.
    #[prost(string, optional, tag = "2")]
    pub value: Option<String>,
    /// Whether it is a directory.
    #[prost(bool, tag = "3")]
    pub dir: bool,
    /// When it expires, in nanoseconds since 1970; 0 is never.
    #[prost(int64, tag = "4")]
    pub expires: i64,
    /// The index of its last change.
    #[prost(uint64, tag = "5")]
    pub modified: u64,
    /// The index that created it.
    #[prost(uint64, tag = "6")]
    pub created: u64,
    /// What is below a directory, where it is shown; sorted.
    #[prost(message, repeated, tag = "7")]
    pub nodes: Vec<Node>,
}

impl Node {
    pub(crate) fn read(row: &[u8]) -> Result<Self, Damaged> {
        Node::decode(row).map_err(|_| Damaged("a node"))
    }
}

/// What happened, or what was read.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Event {
    /// What it reports.
    #[prost(enumeration = "Action", tag = "1")]
    pub action: i32,
    /// The node after it.
    #[prost(message, required, tag = "2")]
    pub node: Node,
    /// The node before it.
    #[prost(message, optional, tag = "3")]
    pub prev: Option<Node>,
    /// The current index right after it.
    #[prost(uint64, tag = "4")]
    pub index: u64,
    /// When it happened, in nanoseconds since 1970.
    #[prost(int64, tag = "5")]
    pub time: i64,
    /// Whether only the expiry changed, which wakes no watch.
    #[prost(bool, tag = "6")]
    pub refresh: bool,
}

impl Event {
    pub(crate) fn read(row: &[u8]) -> Result<Self, Damaged> {
        Event::decode(row).map_err(|_| Damaged("an event"))
    }

    /// Whether something is there now where nothing was.
    #[must_use]
    pub fn is_creation(&self) -> bool {
        match self.action() {
            Action::Create => true,
            Action::Set => self.prev.is_none(),
            _ => false,
        }
    }
}
