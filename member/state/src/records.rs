//! What an export carries beside history and leases: users and roles, alarms, a downgrade under way.
//!
//! Here is the one list of these entries of the table `Meta`, from which they are exported and to which they are
//! imported. It knows their bytes and nothing of their meaning.

use bytes::Bytes;
use prost::Message;

use crate::backend::{Cursor, Snapshot, Table};
use crate::error::{Corruption, Error};

/// Keys of the table `Meta`.
const AUTH: &[u8] = b"auth";
const AUTH_USERS: &[u8] = b"auth/user/";
const AUTH_ROLES: &[u8] = b"auth/role/";
const ALARMS: &[u8] = b"alarm/";
const DOWNGRADE: &[u8] = b"downgrade";

/// One of these entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// Whether access control is on.
    AccessControl(AccessControl),
    /// A user, by name.
    User(String, UserRecord),
    /// A role, by name.
    Role(String, RoleRecord),
    /// A raised alarm.
    Alarm {
        /// etcd's number of its kind.
        kind: i32,
        /// The member that it is about.
        member_id: u64,
    },
    /// The version that the cluster goes back to.
    Downgrade(String),
}

/// Access control as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct AccessControl {
    /// Whether it is on.
    #[prost(bool, tag = "1")]
    pub enabled: bool,
    /// Counts the changes of users and roles.
    #[prost(uint64, tag = "2")]
    pub revision: u64,
}

/// A user.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct UserRecord {
    /// The password's bcrypt hash; empty without one.
    #[prost(bytes = "bytes", tag = "1")]
    pub password: Bytes,
    /// Names of roles, in order.
    #[prost(string, repeated, tag = "2")]
    pub roles: Vec<String>,
    /// Whether the user is known by certificates only.
    #[prost(bool, tag = "3")]
    pub no_password: bool,
}

/// A role.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RoleRecord {
    /// What it allows, ordered by first key.
    #[prost(message, repeated, tag = "1")]
    pub permissions: Vec<PermissionRecord>,
}

/// A permission on keys.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct PermissionRecord {
    /// etcd's number of what is allowed.
    #[prost(int32, tag = "1")]
    pub kind: i32,
    /// First key.
    #[prost(bytes = "bytes", tag = "2")]
    pub key: Bytes,
    /// End of the range, as in a request.
    #[prost(bytes = "bytes", tag = "3")]
    pub range_end: Bytes,
}

impl Record {
    /// Its entry in the table `Meta`.
    pub(crate) fn entry(&self) -> (Bytes, Bytes) {
        let key = |prefix: &[u8], name: &[u8]| [prefix, name].concat().into();
        match self {
            Self::AccessControl(record) => {
                (Bytes::from_static(AUTH), record.encode_to_vec().into())
            }
            Self::User(name, record) => (
                key(AUTH_USERS, name.as_bytes()),
                record.encode_to_vec().into(),
            ),
            Self::Role(name, record) => (
                key(AUTH_ROLES, name.as_bytes()),
                record.encode_to_vec().into(),
            ),
            Self::Alarm { kind, member_id } => {
                let name = [&kind.to_be_bytes()[..], &member_id.to_be_bytes()].concat();
                (key(ALARMS, &name), Bytes::new())
            }
            Self::Downgrade(target) => (Bytes::from_static(DOWNGRADE), target.clone().into()),
        }
    }

    /// The entry, if it is one of these.
    fn read(key: &[u8], value: &[u8]) -> Option<Result<Self, Corruption>> {
        let record = if key == AUTH {
            AccessControl::decode(value).ok().map(Self::AccessControl)
        } else if key == DOWNGRADE {
            text(value).map(Self::Downgrade)
        } else if let Some(name) = key.strip_prefix(AUTH_USERS) {
            let record = UserRecord::decode(value).ok();
            text(name).zip(record).map(|(n, r)| Self::User(n, r))
        } else if let Some(name) = key.strip_prefix(AUTH_ROLES) {
            let record = RoleRecord::decode(value).ok();
            text(name).zip(record).map(|(n, r)| Self::Role(n, r))
        } else if let Some(name) = key.strip_prefix(ALARMS) {
            alarm(name)
        } else {
            return None;
        };
        Some(record.ok_or(Corruption {
            table: "meta",
            what: "a record of users, roles, alarms or a downgrade",
        }))
    }
}

fn text(bytes: &[u8]) -> Option<String> {
    String::from_utf8(bytes.to_vec()).ok()
}

fn alarm(name: &[u8]) -> Option<Record> {
    let (kind, member) = name.split_first_chunk()?;
    Some(Record::Alarm {
        kind: i32::from_be_bytes(*kind),
        member_id: u64::from_be_bytes(member.try_into().ok()?),
    })
}

/// Every such entry of a snapshot.
pub(crate) fn all(snapshot: &impl Snapshot) -> Result<Vec<Record>, Error> {
    let mut records = Vec::new();
    let mut entries = snapshot.cursor(Table::Meta, &[], None)?;
    while let Some((key, value)) = entries.next()? {
        if let Some(record) = Record::read(key, value) {
            records.push(record?);
        }
    }
    Ok(records)
}
