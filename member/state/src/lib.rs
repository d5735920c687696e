//! The replicated semantics of the key-value store: what every member must compute alike.
//!
//! Commands come in by the order of the log ([`Applier::apply`]), reads come in from any thread
//! ([`Store::range`]), and both work on a [`Backend`]: five ordered tables that are written
//! atomically. Revisions, versions, transactions, compares and compaction follow etcd 3.6, its
//! quirks included.
//!
//! The crate is synchronous and pure: no clock, no randomness, no files, no tasks. Whatever
//! depends on those (leases' expiry, request ids, durability) is an argument or belongs to a caller.
//!
//! Invariant: the tables after a command are a function of the tables before it and the command, and
//! a reader sees the tables between two commits, never inside one.

mod alarm;
mod applier;
mod auth;
mod backend;
mod blocks;
mod command;
mod compaction;
mod counts;
mod error;
mod execute;
mod export;
mod hash;
mod history;
mod import;
mod keyset;
mod layout;
mod lease;
mod memory;
mod read;
mod records;
mod store;
mod v2;
mod validate;
mod view;
mod walk;

pub use applier::Applier;
pub use auth::{
    Auth, AuthError, AuthOp, AuthRequest, Authenticate, Caller, ChangePassword, Nothing,
    Permission, PermissionType, Role, RoleGrantPermission, RoleName, RoleRevokePermission, User,
    UserAdd, UserName, UserRole,
};
pub use backend::{Backend, BackendError, Batch, Cursor, Entry, Snapshot, Table};
pub use command::{
    Alarm, AlarmAction, AlarmMember, AlarmType, ClusterVersion, Command, Compact, Compare,
    CompareResult, CompareTarget, CompareValue, DecodeError, DeleteRange, Downgrade, KeyValue,
    Lease, LeaseCheckpoint, LeaseGrant, LeaseRemainder, LeaseRevoke, MemberAttributes, Op, Publish,
    Put, Range, RangeResponse, Response, SortOrder, SortTarget, Txn, TxnOp, TxnRequest,
    TxnResponse,
};
pub use compaction::CompactProgress;
pub use error::{Corruption, Error, OpenError};
pub use export::{Export, Version};
pub use hash::KeyValueHash;
pub use history::{Event, EventKind, History, HistoryLimit};
pub use import::{ImportError, Importer};
pub use layout::Revision;
pub use lease::MAX_LEASE_TTL;
pub use memory::MemoryBackend;
pub use records::{AccessControl, Record};
pub use store::{LogPosition, Store};
pub use v2::V2Rows;
pub use validate::{
    MAX_TXN_DEPTH, validate_delete_range, validate_lease_grant, validate_put, validate_range,
    validate_txn,
};
pub use walk::{HistoryBounds, HistoryRecord};
