//! What an export carries beside history and leases: users and roles, alarms, a downgrade under way.
//!
//! Here is the one list of these entries of the table `Meta`, from which they are exported and to which they are
//! imported. It knows their bytes and nothing of their meaning.

use bytes::Bytes;
use prost::Message;

use crate::auth::{Role, User};
use crate::backend::{Cursor, Snapshot, Table};
use crate::error::{Corruption, Error};
use crate::layout::meta;

/// One of these entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// Whether access control is on.
    AccessControl(AccessControl),
    /// A user, by name.
    User(String, User),
    /// A role, by name.
    Role(String, Role),
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

impl Record {
    /// Its entry in the table `Meta`.
    pub(crate) fn entry(&self) -> (Bytes, Bytes) {
        match self {
            Self::AccessControl(record) => (
                Bytes::from_static(meta::AUTH),
                record.encode_to_vec().into(),
            ),
            Self::User(name, user) => (meta::auth_user(name), user.encode_to_vec().into()),
            Self::Role(name, role) => (meta::auth_role(name), role.encode_to_vec().into()),
            Self::Alarm { kind, member_id } => (meta::alarm(*kind, *member_id), Bytes::new()),
            Self::Downgrade(target) => (Bytes::from_static(meta::DOWNGRADE), target.clone().into()),
        }
    }

    /// The entry, if it is one of these.
    fn read(key: &[u8], value: &[u8]) -> Option<Result<Self, Corruption>> {
        let record = if key == meta::AUTH {
            AccessControl::decode(value).ok().map(Self::AccessControl)
        } else if key == meta::DOWNGRADE {
            text(value).map(Self::Downgrade)
        } else if let Some(name) = key.strip_prefix(meta::AUTH_USERS) {
            let record = User::decode(value).ok();
            text(name).zip(record).map(|(n, r)| Self::User(n, r))
        } else if let Some(name) = key.strip_prefix(meta::AUTH_ROLES) {
            let record = Role::decode(value).ok();
            text(name).zip(record).map(|(n, r)| Self::Role(n, r))
        } else if let Some(name) = key.strip_prefix(meta::ALARMS) {
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
        if key.starts_with(meta::V2) {
            // As in etcd, whose file does not hold them; they may be many.
            entries.seek(meta::V2_END)?;
        } else if let Some(record) = Record::read(key, value) {
            records.push(record?);
        }
    }
    Ok(records)
}
