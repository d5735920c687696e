//! etcd's buckets and the bytes of their rows. Sources: etcd 3.6, `server/storage/schema` and `mvcc`.

use bytes::Bytes;
use prost::Message;
use serde::Serialize;

use crate::error::ReadError;

/// Revision to what was written.
pub const KEY: &str = "key";
/// Positions in the raft log, compaction, storage version.
pub const META: &str = "meta";
/// Lease id to lease.
pub const LEASE: &str = "lease";
/// Raised alarms.
pub const ALARM: &str = "alarm";
/// Whether access control is on, and its revision.
pub const AUTH: &str = "auth";
/// Roles by name.
pub const AUTH_ROLES: &str = "authRoles";
/// Users by name.
pub const AUTH_USERS: &str = "authUsers";
/// The cluster's version.
pub const CLUSTER: &str = "cluster";
/// Members by id.
pub const MEMBERS: &str = "members";
/// Ids of removed members.
pub const MEMBERS_REMOVED: &str = "members_removed";

/// Every bucket of etcd, in the order of a file.
pub const BUCKETS: [&str; 10] = [
    ALARM,
    AUTH,
    AUTH_ROLES,
    AUTH_USERS,
    CLUSTER,
    KEY,
    LEASE,
    MEMBERS,
    MEMBERS_REMOVED,
    META,
];

/// Key of [`META`]: index of the last applied entry, 8 bytes big endian.
pub const CONSISTENT_INDEX: &str = "consistent_index";
/// Key of [`META`]: its term, 8 bytes big endian.
pub const TERM: &str = "term";
/// Key of [`META`]: the voters and learners, JSON.
pub const CONF_STATE: &str = "confState";
/// Key of [`META`]: the release that the layout belongs to.
pub const STORAGE_VERSION: &str = "storageVersion";
/// Key of [`META`]: the revision up to which compaction was asked for.
pub const SCHEDULED_COMPACT: &str = "scheduledCompactRev";
/// Key of [`META`]: the revision up to which it is done.
pub const FINISHED_COMPACT: &str = "finishedCompactRev";
/// Key of [`AUTH`]: whether access control is on, one byte.
pub const AUTH_ENABLED: &str = "authEnabled";
/// Key of [`AUTH`]: counts the changes of users and roles, 8 bytes big endian.
pub const AUTH_REVISION: &str = "authRevision";
/// What stands in [`MEMBERS_REMOVED`] for each id.
pub const REMOVED: &str = "removed";
/// Key of [`CLUSTER`].
pub const CLUSTER_VERSION: &str = "clusterVersion";
/// Key of [`CLUSTER`]: whether the cluster goes back to an older release, JSON.
pub const DOWNGRADE: &str = "downgrade";

/// A version of a key: `mvccpb.KeyValue`, byte for byte.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct KeyValue {
    /// The user's key.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// Revision of its creation.
    #[prost(int64, tag = "2")]
    pub create_revision: i64,
    /// Revision of this version.
    #[prost(int64, tag = "3")]
    pub mod_revision: i64,
    /// Number of writes since its creation.
    #[prost(int64, tag = "4")]
    pub version: i64,
    /// The value.
    #[prost(bytes = "bytes", tag = "5")]
    pub value: Bytes,
    /// The lease that it is attached to, or 0.
    #[prost(int64, tag = "6")]
    pub lease: i64,
}

/// A lease in [`LEASE`], by its id in 8 bytes big endian: `leasepb.Lease`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Lease {
    /// Its id.
    #[prost(int64, tag = "1")]
    pub id: i64,
    /// Seconds that it lives without a renewal.
    #[prost(int64, tag = "2")]
    pub ttl: i64,
    /// Seconds that are left of them, when they were recorded.
    #[prost(int64, tag = "3")]
    pub remaining_ttl: i64,
}

/// An alarm: the key of a row of [`ALARM`], whose value is empty. `etcdserverpb.AlarmMember`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Alarm {
    /// The member that it is about.
    #[prost(uint64, tag = "1")]
    pub member_id: u64,
    /// Its kind.
    #[prost(int32, tag = "2")]
    pub kind: i32,
}

/// A user in [`AUTH_USERS`], by name: `authpb.User`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct User {
    /// The user's name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The password's bcrypt hash.
    #[prost(bytes = "bytes", tag = "2")]
    pub password: Bytes,
    /// Names of roles, in order.
    #[prost(string, repeated, tag = "3")]
    pub roles: Vec<String>,
    /// What else was asked for.
    #[prost(message, optional, tag = "4")]
    pub options: Option<UserOptions>,
}

/// How a user was added.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct UserOptions {
    /// Known by certificates only.
    #[prost(bool, tag = "1")]
    pub no_password: bool,
}

/// A role in [`AUTH_ROLES`], by name: `authpb.Role`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Role {
    /// The role's name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// What it allows, ordered by first key.
    #[prost(message, repeated, tag = "2")]
    pub permissions: Vec<Permission>,
}

/// A permission of a role.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Permission {
    /// What is allowed.
    #[prost(int32, tag = "1")]
    pub kind: i32,
    /// First key.
    #[prost(bytes = "bytes", tag = "2")]
    pub key: Bytes,
    /// End of the range.
    #[prost(bytes = "bytes", tag = "3")]
    pub range_end: Bytes,
}

/// The value of [`DOWNGRADE`].
#[derive(Debug, Clone, Serialize)]
pub struct Downgrade {
    /// The version to go back to; empty for none.
    #[serde(rename = "target-version")]
    pub target: String,
    /// Whether the cluster goes back.
    pub enabled: bool,
}

impl Downgrade {
    /// Its value.
    #[must_use]
    pub fn value(&self) -> Vec<u8> {
        json(self)
    }
}

/// What a row of [`KEY`] says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A version of a key.
    Put(KeyValue),
    /// The deletion of a key.
    Delete {
        /// The key.
        key: Bytes,
    },
    /// Nothing: `--bump-revision` of a restore writes an empty row to move the revision.
    Bump,
}

/// A row of [`KEY`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryRow {
    /// The revision.
    pub main: i64,
    /// The number of the write in its transaction.
    pub sub: i64,
    /// What it did.
    pub change: Change,
}

const SEPARATOR: u8 = b'_';
const TOMBSTONE: u8 = b't';

fn damaged(bucket: &'static str, what: &'static str) -> ReadError {
    ReadError::Row { bucket, what }
}

/// Reads a row of [`KEY`].
///
/// # Errors
/// When it is not one that etcd writes.
pub fn read_row(key: &[u8], value: &[u8]) -> Result<HistoryRow, ReadError> {
    let (revision, tombstone) = match key {
        [revision @ .., TOMBSTONE] if key.len() == 18 => (revision, true),
        revision => (revision, false),
    };
    let (main, sub) = read_revision(revision)
        .filter(|(main, sub)| *main > 0 && *sub >= 0)
        .ok_or_else(|| damaged(KEY, "a key that is no revision"))?;
    let kv =
        KeyValue::decode(value).map_err(|_| damaged(KEY, "a value that is no key-value pair"))?;
    let change = match (tombstone, kv.key.is_empty()) {
        (true, false) => Change::Delete { key: kv.key },
        (false, false) if kv.mod_revision == main && kv.version > 0 && kv.create_revision > 0 => {
            Change::Put(kv)
        }
        (false, true) if value.is_empty() => Change::Bump,
        _ => return Err(damaged(KEY, "a pair that contradicts its revision")),
    };
    Ok(HistoryRow { main, sub, change })
}

/// Reads a row of [`LEASE`].
///
/// # Errors
/// When it is not one that etcd writes.
pub fn read_lease(key: &[u8], value: &[u8]) -> Result<Lease, ReadError> {
    let lease = Lease::decode(value).map_err(|_| damaged(LEASE, "a value that is no lease"))?;
    if lease.id == 0 || lease.ttl < 0 || key != lease.id.to_be_bytes() {
        return Err(damaged(LEASE, "a lease that contradicts its key"));
    }
    Ok(lease)
}

/// Reads a row of [`ALARM`].
///
/// # Errors
/// When it is not one that etcd writes.
pub fn read_alarm(key: &[u8]) -> Result<Alarm, ReadError> {
    Alarm::decode(key).map_err(|_| damaged(ALARM, "a key that is no alarm"))
}

/// Reads a row of [`AUTH_USERS`].
///
/// # Errors
/// When it is not one that etcd writes.
pub fn read_user(key: &[u8], value: &[u8]) -> Result<User, ReadError> {
    User::decode(value)
        .ok()
        .filter(|user| user.name.as_bytes() == key)
        .ok_or_else(|| damaged(AUTH_USERS, "a user that contradicts its key"))
}

/// Reads a row of [`AUTH_ROLES`].
///
/// # Errors
/// When it is not one that etcd writes.
pub fn read_role(key: &[u8], value: &[u8]) -> Result<Role, ReadError> {
    Role::decode(value)
        .ok()
        .filter(|role| role.name.as_bytes() == key)
        .ok_or_else(|| damaged(AUTH_ROLES, "a role that contradicts its key"))
}

/// Reads the row [`AUTH_REVISION`].
///
/// # Errors
/// When it is not one that etcd writes.
pub fn read_auth_revision(value: &[u8]) -> Result<u64, ReadError> {
    let bytes = value
        .try_into()
        .map_err(|_| damaged(AUTH, "a revision that is no number"))?;
    Ok(u64::from_be_bytes(bytes))
}

/// Reads the 17 bytes of a revision.
#[must_use]
pub fn read_revision(bytes: &[u8]) -> Option<(i64, i64)> {
    let (main, rest) = bytes.split_first_chunk()?;
    let (separator, rest) = rest.split_first()?;
    let sub = rest.try_into().ok()?;
    (*separator == SEPARATOR).then_some((i64::from_be_bytes(*main), i64::from_be_bytes(sub)))
}

/// The 17 bytes of a revision.
#[must_use]
pub fn revision(main: i64, sub: i64) -> [u8; 17] {
    let mut out = [SEPARATOR; 17];
    out[..8].copy_from_slice(&main.to_be_bytes());
    out[9..].copy_from_slice(&sub.to_be_bytes());
    out
}

/// The key of a deletion in [`KEY`].
#[must_use]
pub fn tombstone(main: i64, sub: i64) -> [u8; 18] {
    let mut out = [TOMBSTONE; 18];
    out[..17].copy_from_slice(&revision(main, sub));
    out
}

/// A member in [`MEMBERS`], by its id in hex.
#[derive(Debug, Clone, Serialize)]
pub struct Member {
    /// Its id.
    pub id: u64,
    /// Where its peers reach it.
    #[serde(rename = "peerURLs")]
    pub peer_urls: Vec<String>,
    /// Whether it does not vote.
    #[serde(rename = "isLearner", skip_serializing_if = "std::ops::Not::not")]
    pub is_learner: bool,
    /// Its name, once it has started.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Where clients reach it, once it has started.
    #[serde(rename = "clientURLs", skip_serializing_if = "Vec::is_empty")]
    pub client_urls: Vec<String>,
}

impl Member {
    /// Its row in [`MEMBERS`].
    #[must_use]
    pub fn row(&self) -> (Vec<u8>, Vec<u8>) {
        (format!("{:x}", self.id).into_bytes(), json(self))
    }
}

/// The configuration in [`META`]: raft's own `ConfState`.
#[derive(Debug, Clone, Serialize)]
pub struct ConfState {
    /// Ids of the members that vote.
    pub voters: Vec<u64>,
    /// Ids of those that do not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub learners: Vec<u64>,
    /// A feature of raft that etcd does not use.
    pub auto_leave: bool,
}

impl ConfState {
    /// Its value.
    #[must_use]
    pub fn value(&self) -> Vec<u8> {
        json(self)
    }
}

fn json(value: &impl Serialize) -> Vec<u8> {
    // Strings, numbers and lists of them always have a JSON form.
    serde_json::to_vec(value).unwrap_or_default()
}
