//! Why requests are refused, in etcd's codes and words.

use std::fmt::Write as _;

use crate::json::write_string;

/// etcd's number of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the texts below say it")]
pub enum Code {
    KeyNotFound = 100,
    TestFailed = 101,
    NotFile = 102,
    NotDir = 104,
    NodeExist = 105,
    RootReadOnly = 107,
    DirNotEmpty = 108,
    PrevValueRequired = 201,
    TtlNotNumber = 202,
    IndexNotNumber = 203,
    InvalidField = 209,
    InvalidForm = 210,
    RefreshValue = 211,
    RefreshTtlRequired = 212,
    RaftInternal = 300,
    EventIndexCleared = 401,
}

impl Code {
    fn message(self) -> &'static str {
        match self {
            Code::KeyNotFound => "Key not found",
            Code::TestFailed => "Compare failed",
            Code::NotFile => "Not a file",
            Code::NotDir => "Not a directory",
            Code::NodeExist => "Key already exists",
            Code::RootReadOnly => "Root is read only",
            Code::DirNotEmpty => "Directory not empty",
            Code::PrevValueRequired => "PrevValue is Required in POST form",
            Code::TtlNotNumber => "The given TTL in POST form is not a number",
            Code::IndexNotNumber => "The given index in POST form is not a number",
            Code::InvalidField => "Invalid field",
            Code::InvalidForm => "Invalid POST form",
            Code::RefreshValue => "Value provided on refresh",
            Code::RefreshTtlRequired => "A TTL must be provided on refresh",
            Code::RaftInternal => "Raft Internal Error",
            Code::EventIndexCleared => "The event in requested index is outdated and cleared",
        }
    }
}

/// A request that is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What is wrong.
    pub code: Code,
    /// With what: a path, a field, a comparison.
    pub cause: String,
    /// The index of the moment; 0 for what was refused before any look at the tree.
    pub index: u64,
}

impl Refusal {
    /// A request that is refused before any look at the tree.
    pub fn early(code: Code, cause: impl Into<String>) -> Self {
        Refusal {
            code,
            cause: cause.into(),
            index: 0,
        }
    }

    /// The status of the answer.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self.code {
            Code::KeyNotFound => 404,
            Code::NotFile | Code::DirNotEmpty => 403,
            Code::TestFailed | Code::NodeExist => 412,
            Code::RaftInternal => 500,
            _ => 400,
        }
    }

    /// The body of the answer.
    #[must_use]
    pub fn json(&self) -> String {
        let mut out = format!("{{\"errorCode\":{},\"message\":", self.code as u16);
        write_string(&mut out, self.code.message());
        if !self.cause.is_empty() {
            out.push_str(",\"cause\":");
            write_string(&mut out, &self.cause);
        }
        let _ = writeln!(out, ",\"index\":{}}}", self.index);
        out
    }
}

/// A row that cannot be what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} of the v2 keys is damaged")]
pub struct Damaged(pub &'static str);
