//! Requests, answers, and the encoding of requests in the log.
//!
//! The prost structs are both the domain types and the log format, so a command is encoded once and
//! decoded without copying keys and values. Field tags of requests equal etcd's. A tag is never reused.

use bytes::Bytes;
use prost::Message;

use crate::auth::{AuthOp, Caller};

/// One replicated operation.
#[derive(Clone, PartialEq, Message)]
pub struct Command {
    /// Request id: routes the answer to the waiter on the member that took the request in.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// What to do. Never empty in a command that was decoded.
    #[prost(oneof = "Op", tags = "2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 16")]
    pub op: Option<Op>,
    /// The user who asks; empty while authentication is off, and for what members do on their own.
    #[prost(string, tag = "14")]
    pub user: String,
    /// The auth revision at which the user was known.
    #[prost(uint64, tag = "15")]
    pub auth_revision: u64,
}

/// What a command does.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Op {
    /// Writes a key.
    #[prost(message, tag = "2")]
    Put(Put),
    /// Deletes keys.
    #[prost(message, tag = "3")]
    DeleteRange(DeleteRange),
    /// Compares, then one of two lists of operations.
    #[prost(message, tag = "4")]
    Txn(Txn),
    /// Gives up the history before a revision.
    #[prost(message, tag = "5")]
    Compact(Compact),
    /// Records a member's name and client URLs.
    #[prost(message, tag = "6")]
    Publish(Publish),
    /// Sets the version that every member can serve.
    #[prost(message, tag = "7")]
    ClusterVersion(ClusterVersion),
    /// Creates a lease.
    #[prost(message, tag = "8")]
    LeaseGrant(LeaseGrant),
    /// Ends a lease and deletes its keys.
    #[prost(message, tag = "9")]
    LeaseRevoke(LeaseRevoke),
    /// Records what is left of leases, for the next leader.
    #[prost(message, tag = "10")]
    LeaseCheckpoint(LeaseCheckpoint),
    /// Raises or clears alarms.
    #[prost(message, tag = "11")]
    Alarm(Alarm),
    /// Announces a downgrade, or calls it off.
    #[prost(message, tag = "13")]
    Downgrade(Downgrade),
    /// Changes users and roles, or makes a token known.
    #[prost(message, tag = "12")]
    Auth(AuthOp),
    /// Changes the v2 keys.
    #[prost(message, boxed, tag = "16")]
    V2(Box<member_v2::Command>),
}

impl Op {
    /// Whether it may look at any number of keys, so that applying it may take seconds.
    #[must_use]
    pub fn may_be_long(&self) -> bool {
        match self {
            Op::DeleteRange(delete) => !delete.range_end.is_empty(),
            Op::Txn(txn) => txn.may_be_long(),
            Op::LeaseRevoke(_) => true,
            Op::V2(command) => command.may_be_long(),
            _ => false,
        }
    }
}

/// Why bytes of the log are not a command.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DecodeError {
    /// The bytes are not of the log's format.
    #[error("the command is damaged")]
    Malformed(#[from] prost::DecodeError),
    /// A newer version of the program wrote an operation that this one does not know. Skipping it would
    /// make this member differ from the others.
    #[error(
        "the command's operation is unknown to this version; run the version that the other members run"
    )]
    UnknownOperation,
}

impl Command {
    /// A command to be answered to the waiter `id`.
    #[must_use]
    pub fn new(id: u64, op: Op) -> Self {
        Command {
            id,
            op: Some(op),
            ..Command::default()
        }
    }

    /// The command in a caller's name.
    #[must_use]
    pub fn by(self, caller: Caller) -> Self {
        Command {
            user: caller.user,
            auth_revision: caller.revision,
            ..self
        }
    }

    /// The command as it goes to the log.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        Bytes::from(self.encode_to_vec())
    }

    /// Reads a command back; keys and values share the buffer.
    ///
    /// # Errors
    /// When the bytes are no command, or hold an operation of a newer version.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let command: Command = Message::decode(bytes)?;
        match &command.op {
            None | Some(Op::Auth(AuthOp { request: None })) => Err(DecodeError::UnknownOperation),
            Some(Op::V2(command)) if !command.is_known() => Err(DecodeError::UnknownOperation),
            Some(_) => Ok(command),
        }
    }
}

/// How a range is ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum SortOrder {
    /// By key; ascending when the target is not the key.
    None = 0,
    /// Smallest first.
    Ascend = 1,
    /// Largest first.
    Descend = 2,
}

/// What a range is ordered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum SortTarget {
    /// The key's bytes.
    Key = 0,
    /// The key's version.
    Version = 1,
    /// The revision that created the key.
    Create = 2,
    /// The revision that last wrote the key.
    Mod = 3,
    /// The value's bytes.
    Value = 4,
}

/// A read of one key or a range of keys.
///
/// `range_end` empty means the one key, `"\0"` all keys from `key` on, anything else `[key, range_end)`.
#[derive(Clone, PartialEq, Message)]
pub struct Range {
    /// First key.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// End of the range.
    #[prost(bytes = "bytes", tag = "2")]
    pub range_end: Bytes,
    /// Most keys to return; 0 is no limit.
    #[prost(int64, tag = "3")]
    pub limit: i64,
    /// Revision to read at; 0 or less is the newest.
    #[prost(int64, tag = "4")]
    pub revision: i64,
    /// Order of the result.
    #[prost(enumeration = "SortOrder", tag = "5")]
    pub sort_order: i32,
    /// What the order looks at.
    #[prost(enumeration = "SortTarget", tag = "6")]
    pub sort_target: i32,
    /// Whether the member may answer from its own state. Of no effect here.
    #[prost(bool, tag = "7")]
    pub serializable: bool,
    /// Leave the values out.
    #[prost(bool, tag = "8")]
    pub keys_only: bool,
    /// Only count.
    #[prost(bool, tag = "9")]
    pub count_only: bool,
    /// Drop keys last written before this revision; 0 is off.
    #[prost(int64, tag = "10")]
    pub min_mod_revision: i64,
    /// Drop keys last written after this revision; 0 is off.
    #[prost(int64, tag = "11")]
    pub max_mod_revision: i64,
    /// Drop keys created before this revision; 0 is off.
    #[prost(int64, tag = "12")]
    pub min_create_revision: i64,
    /// Drop keys created after this revision; 0 is off.
    #[prost(int64, tag = "13")]
    pub max_create_revision: i64,
}

/// A write of one key.
#[derive(Clone, PartialEq, Message)]
pub struct Put {
    /// The key.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// The value.
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
    /// The lease to attach; 0 is none.
    #[prost(int64, tag = "3")]
    pub lease: i64,
    /// Return what was there before.
    #[prost(bool, tag = "4")]
    pub prev_kv: bool,
    /// Keep the value, which must exist.
    #[prost(bool, tag = "5")]
    pub ignore_value: bool,
    /// Keep the lease of the key, which must exist.
    #[prost(bool, tag = "6")]
    pub ignore_lease: bool,
}

/// A delete of one key or a range of keys, as in [`Range`].
#[derive(Clone, PartialEq, Message)]
pub struct DeleteRange {
    /// First key.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// End of the range.
    #[prost(bytes = "bytes", tag = "2")]
    pub range_end: Bytes,
    /// Return what was deleted.
    #[prost(bool, tag = "3")]
    pub prev_kv: bool,
}

/// A transaction: all compares hold, then `success`, else `failure`.
#[derive(Clone, PartialEq, Message)]
pub struct Txn {
    /// Conditions, all of which must hold.
    #[prost(message, repeated, tag = "1")]
    pub compare: Vec<Compare>,
    /// What to do when they hold.
    #[prost(message, repeated, tag = "2")]
    pub success: Vec<TxnOp>,
    /// What to do otherwise.
    #[prost(message, repeated, tag = "3")]
    pub failure: Vec<TxnOp>,
}

impl Txn {
    /// Whether both branches only read, so that the transaction need not be replicated. A nested
    /// transaction counts as a write, as in etcd.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.success
            .iter()
            .chain(&self.failure)
            .all(|op| matches!(op.request, Some(TxnRequest::Range(_))))
    }

    fn may_be_long(&self) -> bool {
        self.compare
            .iter()
            .any(|compare| !compare.range_end.is_empty())
            || self
                .success
                .iter()
                .chain(&self.failure)
                .any(|op| match &op.request {
                    Some(TxnRequest::Range(range)) => !range.range_end.is_empty(),
                    Some(TxnRequest::DeleteRange(delete)) => !delete.range_end.is_empty(),
                    Some(TxnRequest::Txn(txn)) => txn.may_be_long(),
                    Some(TxnRequest::Put(_)) | None => false,
                })
    }

    /// Whether every read of a read-only transaction may be answered from the member's own state.
    #[must_use]
    pub fn is_serializable(&self) -> bool {
        self.success
            .iter()
            .chain(&self.failure)
            .all(|op| matches!(&op.request, Some(TxnRequest::Range(range)) if range.serializable))
    }
}

/// One operation of a transaction.
#[derive(Clone, PartialEq, Message)]
pub struct TxnOp {
    /// The operation; validation refuses an empty one.
    #[prost(oneof = "TxnRequest", tags = "1, 2, 3, 4")]
    pub request: Option<TxnRequest>,
}

impl From<TxnRequest> for TxnOp {
    fn from(request: TxnRequest) -> Self {
        TxnOp {
            request: Some(request),
        }
    }
}

/// What an operation of a transaction does.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum TxnRequest {
    /// Reads.
    #[prost(message, tag = "1")]
    Range(Range),
    /// Writes a key.
    #[prost(message, tag = "2")]
    Put(Put),
    /// Deletes keys.
    #[prost(message, tag = "3")]
    DeleteRange(DeleteRange),
    /// Runs a nested transaction.
    #[prost(message, tag = "4")]
    Txn(Txn),
}

/// How a compare relates what is stored to what is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum CompareResult {
    /// Equal.
    Equal = 0,
    /// Stored is greater.
    Greater = 1,
    /// Stored is less.
    Less = 2,
    /// Not equal.
    NotEqual = 3,
}

/// What a compare looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum CompareTarget {
    /// The key's version.
    Version = 0,
    /// The revision that created the key.
    Create = 1,
    /// The revision that last wrote the key.
    Mod = 2,
    /// The value.
    Value = 3,
    /// The lease.
    Lease = 4,
}

/// A condition on one key, or on every key of a range.
#[derive(Clone, PartialEq, Message)]
pub struct Compare {
    /// The relation; an unknown one always holds, as in etcd.
    #[prost(enumeration = "CompareResult", tag = "1")]
    pub result: i32,
    /// What is compared; an unknown target compares as equal, as in etcd.
    #[prost(enumeration = "CompareTarget", tag = "2")]
    pub target: i32,
    /// First key.
    #[prost(bytes = "bytes", tag = "3")]
    pub key: Bytes,
    /// What to compare with; absent or of another target's kind, it is zero.
    #[prost(oneof = "CompareValue", tags = "4, 5, 6, 7, 8")]
    pub value: Option<CompareValue>,
    /// End of the range, as in [`Range`].
    #[prost(bytes = "bytes", tag = "64")]
    pub range_end: Bytes,
}

/// What a compare compares with.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum CompareValue {
    /// A version.
    #[prost(int64, tag = "4")]
    Version(i64),
    /// A creating revision.
    #[prost(int64, tag = "5")]
    CreateRevision(i64),
    /// A writing revision.
    #[prost(int64, tag = "6")]
    ModRevision(i64),
    /// A value.
    #[prost(bytes = "bytes", tag = "7")]
    Value(Bytes),
    /// A lease.
    #[prost(int64, tag = "8")]
    Lease(i64),
}

/// Gives up every version that is superseded at `revision`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Compact {
    /// The oldest revision that stays readable.
    #[prost(int64, tag = "1")]
    pub revision: i64,
    /// Whether the caller waits for the removal itself. Of no effect here.
    #[prost(bool, tag = "2")]
    pub physical: bool,
}

/// Records what a member says of itself once it serves.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Publish {
    /// The member.
    #[prost(uint64, tag = "1")]
    pub member_id: u64,
    /// Its name.
    #[prost(string, tag = "2")]
    pub name: String,
    /// The URLs that it advertises to clients.
    #[prost(string, repeated, tag = "3")]
    pub client_urls: Vec<String>,
}

/// Sets the cluster's version.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ClusterVersion {
    /// Such as `3.6.0`.
    #[prost(string, tag = "1")]
    pub version: String,
}

/// Creates a lease.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct LeaseGrant {
    /// Seconds that it lives without a renewal. The caller has raised it to its minimum.
    #[prost(int64, tag = "1")]
    pub ttl: i64,
    /// Its id; never 0, which means no lease.
    #[prost(int64, tag = "2")]
    pub id: i64,
}

/// Ends a lease and deletes its keys.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct LeaseRevoke {
    /// The lease.
    #[prost(int64, tag = "1")]
    pub id: i64,
}

/// Records what is left of leases. Those that do not exist are passed over.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct LeaseCheckpoint {
    /// What is left of each.
    #[prost(message, repeated, tag = "1")]
    pub leases: Vec<LeaseRemainder>,
}

/// What is left of a lease.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct LeaseRemainder {
    /// The lease.
    #[prost(int64, tag = "1")]
    pub id: i64,
    /// Seconds; 0 is all of its TTL.
    #[prost(int64, tag = "2")]
    pub remaining: i64,
}

/// A lease, without its keys. When it ends is known to the leader alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Its id.
    pub id: i64,
    /// Seconds that it lives without a renewal.
    pub ttl: i64,
    /// Seconds that it lives under the next leader; 0 is all of its TTL.
    pub remaining: i64,
}

/// Raises an alarm of one member, or clears alarms.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Alarm {
    /// What to do.
    #[prost(enumeration = "AlarmAction", tag = "1")]
    pub action: i32,
    /// Whose alarm; 0 clears that of every member.
    #[prost(uint64, tag = "2")]
    pub member_id: u64,
    /// Which alarm.
    #[prost(enumeration = "AlarmType", tag = "3")]
    pub alarm: i32,
}

/// What is done to an alarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum AlarmAction {
    /// Nothing: alarms are read from the state, not through the log.
    Get = 0,
    /// Raises it.
    Activate = 1,
    /// Clears it.
    Deactivate = 2,
}

/// What is wrong with a member. The numbers and names are etcd's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum AlarmType {
    /// No alarm; as a filter, any.
    None = 0,
    /// Its state has outgrown its quota.
    Nospace = 1,
    /// Its state differs from that of the others.
    Corrupt = 2,
}

/// An alarm that is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AlarmMember {
    /// The member that it is about.
    pub member_id: u64,
    /// What is wrong.
    pub alarm: AlarmType,
}

/// Announces that the cluster goes back to an older version, or calls that off.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Downgrade {
    /// The version, such as `3.5.0`; empty calls it off.
    #[prost(string, tag = "1")]
    pub target: String,
}

/// What a member published of itself.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct MemberAttributes {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The URLs that it advertises to clients.
    #[prost(string, repeated, tag = "2")]
    pub client_urls: Vec<String>,
}

/// A version of a key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// The revision that created it, after its last delete if any.
    pub create_revision: i64,
    /// The revision that wrote this version.
    pub mod_revision: i64,
    /// How often it was written since its creation, from 1.
    pub version: i64,
    /// The value.
    pub value: Bytes,
    /// The lease attached, 0 for none.
    pub lease: i64,
}

/// The answer to a command. `revision` is what the header of the answer says.
#[derive(Debug, Clone, PartialEq)]
pub enum Response {
    /// Nothing to say, or nobody to say it to.
    Empty,
    /// A put was done.
    Put {
        /// The revision of the put.
        revision: i64,
        /// What was there before, when asked for.
        prev: Option<KeyValue>,
    },
    /// A delete was done.
    DeleteRange {
        /// The revision of the delete, or the current one if no key was there.
        revision: i64,
        /// How many keys were deleted.
        deleted: i64,
        /// The deleted keys, when asked for.
        prevs: Vec<KeyValue>,
    },
    /// A transaction ran.
    Txn(TxnResponse),
    /// The compaction is in force.
    Compact {
        /// The current revision.
        revision: i64,
    },
    /// A range inside a transaction.
    Range(RangeResponse),
    /// A lease was granted.
    LeaseGrant {
        /// The current revision.
        revision: i64,
    },
    /// A lease was revoked.
    LeaseRevoke {
        /// The revision that deleted its keys, or the current one if it had none.
        revision: i64,
    },
    /// The alarms that a command raised or cleared.
    Alarm(Vec<AlarmMember>),
    /// An operation on users and roles was done.
    Auth {
        /// The current revision.
        revision: i64,
        /// The token, after an authentication.
        token: String,
    },
    /// What became of a write of the v2 keys.
    V2(Box<Result<member_v2::Event, member_v2::Refusal>>),
}

/// The result of a transaction.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TxnResponse {
    /// The revision of the transaction's writes, or the current one if it wrote nothing. A nested
    /// transaction says 0, as in etcd.
    pub revision: i64,
    /// Whether the compares held.
    pub succeeded: bool,
    /// One answer for each operation of the branch that ran.
    pub responses: Vec<Response>,
}

/// The result of a range.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RangeResponse {
    /// The current revision when it was read, not the one asked for.
    pub revision: i64,
    /// The keys.
    pub kvs: Vec<KeyValue>,
    /// Whether the limit cut keys off.
    pub more: bool,
    /// The number of keys in the range, whatever the limit and the filters.
    pub count: i64,
}
