//! Writes as they are replicated. Tags are those of a log on disk: none is ever reused.

use prost::{Message, Oneof};

/// A change of the tree.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Command {
    /// What to do. Empty only in a command of a later version.
    #[prost(oneof = "Op", tags = "1, 2")]
    pub op: Option<Op>,
}

/// What a command does.
#[derive(Clone, PartialEq, Eq, Oneof)]
pub enum Op {
    /// What a client asked for.
    #[prost(message, tag = "1")]
    Write(Write),
    /// What time has brought.
    #[prost(message, tag = "2")]
    Expire(Expire),
}

/// A client's write of one path.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Write {
    /// The path, clean.
    #[prost(string, tag = "1")]
    pub path: String,
    /// When it was asked for, in nanoseconds since 1970: what is left of TTLs is told as of then.
    #[prost(int64, tag = "2")]
    pub time: i64,
    /// What to do.
    #[prost(oneof = "WriteOp", tags = "3, 4, 5, 6, 7, 8")]
    pub op: Option<WriteOp>,
}

/// How a write changes its path.
#[derive(Clone, PartialEq, Eq, Oneof)]
pub enum WriteOp {
    /// Puts a file or an empty directory there, in place of a file.
    #[prost(message, tag = "3")]
    Set(Set),
    /// Puts one where nothing is.
    #[prost(message, tag = "4")]
    Create(Create),
    /// Changes a file's value, or when something expires.
    #[prost(message, tag = "5")]
    Update(Update),
    /// Changes a file that is as expected.
    #[prost(message, tag = "6")]
    CompareAndSwap(CompareAndSwap),
    /// Removes it.
    #[prost(message, tag = "7")]
    Delete(Delete),
    /// Removes a file that is as expected.
    #[prost(message, tag = "8")]
    CompareAndDelete(CompareAndDelete),
}

/// A file or directory to put.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Set {
    /// Whether it is a directory.
    #[prost(bool, tag = "1")]
    pub dir: bool,
    /// The value of a file.
    #[prost(string, tag = "2")]
    pub value: String,
    /// When it expires, in nanoseconds since 1970; 0 is never.
    #[prost(int64, tag = "3")]
    pub expires: i64,
    /// Keep the value of what must be there, and wake no watch.
    #[prost(bool, tag = "4")]
    pub refresh: bool,
}

/// A file or directory to create.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Create {
    /// Whether it is a directory.
    #[prost(bool, tag = "1")]
    pub dir: bool,
    /// The value of a file.
    #[prost(string, tag = "2")]
    pub value: String,
    /// When it expires; 0 is never.
    #[prost(int64, tag = "3")]
    pub expires: i64,
    /// Below the path, under the index of the write.
    #[prost(bool, tag = "4")]
    pub in_order: bool,
}

/// What to make of something that must be there.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Update {
    /// The value; none for a directory.
    #[prost(string, tag = "1")]
    pub value: String,
    /// When it expires; 0 is never.
    #[prost(int64, tag = "2")]
    pub expires: i64,
    /// Keep the value, and wake no watch.
    #[prost(bool, tag = "3")]
    pub refresh: bool,
}

/// What to make of a file, and what it must be.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct CompareAndSwap {
    /// Its value before; empty is any.
    #[prost(string, tag = "1")]
    pub prev_value: String,
    /// The index of its last change before; 0 is any.
    #[prost(uint64, tag = "2")]
    pub prev_index: u64,
    /// Its new value.
    #[prost(string, tag = "3")]
    pub value: String,
    /// When it expires; 0 is never.
    #[prost(int64, tag = "4")]
    pub expires: i64,
    /// Keep the value, and wake no watch.
    #[prost(bool, tag = "5")]
    pub refresh: bool,
}

/// What may be removed.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Delete {
    /// An empty directory too.
    #[prost(bool, tag = "1")]
    pub dir: bool,
    /// A directory with all that is below it.
    #[prost(bool, tag = "2")]
    pub recursive: bool,
}

/// What a file must be to be removed.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct CompareAndDelete {
    /// Its value; empty is any.
    #[prost(string, tag = "1")]
    pub prev_value: String,
    /// The index of its last change; 0 is any.
    #[prost(uint64, tag = "2")]
    pub prev_index: u64,
}

/// Removes what has expired.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Expire {
    /// The time of the one that proposes it, in nanoseconds since 1970.
    #[prost(int64, tag = "1")]
    pub time: i64,
}

impl Command {
    /// A client's write.
    #[must_use]
    pub fn write(write: Write) -> Self {
        Command {
            op: Some(Op::Write(write)),
        }
    }

    /// The end of what has expired at `time`.
    #[must_use]
    pub fn expire(time: i64) -> Self {
        Command {
            op: Some(Op::Expire(Expire { time })),
        }
    }

    /// Whether this version knows what to do. Skipping it would make this member differ from the others.
    #[must_use]
    pub fn is_known(&self) -> bool {
        match &self.op {
            Some(Op::Write(write)) => write.op.is_some(),
            Some(Op::Expire(_)) => true,
            None => false,
        }
    }

    /// Whether it may remove any number of nodes, so that applying it may take seconds.
    #[must_use]
    pub fn may_be_long(&self) -> bool {
        match &self.op {
            Some(Op::Write(write)) => {
                matches!(&write.op, Some(WriteOp::Delete(delete)) if delete.recursive)
            }
            Some(Op::Expire(_)) => true,
            None => false,
        }
    }

    /// The bytes of the path and value that it may add; 0 for what adds none.
    #[must_use]
    pub fn added_bytes(&self) -> u64 {
        let Some(Op::Write(Write {
            path, op: Some(op), ..
        })) = &self.op
        else {
            return 0;
        };
        let value = match op {
            WriteOp::Set(set) => &set.value,
            WriteOp::Create(create) => &create.value,
            WriteOp::Update(update) => &update.value,
            WriteOp::CompareAndSwap(swap) => &swap.value,
            WriteOp::Delete(_) | WriteOp::CompareAndDelete(_) => return 0,
        };
        (path.len() + value.len()) as u64
    }
}
