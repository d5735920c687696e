//! Operations on users and roles as they stand in the log. A tag is never reused.

use bytes::Bytes;
use prost::Message;

/// One operation on users and roles.
#[derive(Clone, PartialEq, Message)]
pub struct AuthOp {
    /// The operation. Never empty in a command that was decoded.
    #[prost(oneof = "AuthRequest", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12")]
    pub request: Option<AuthRequest>,
}

/// What an operation on users and roles does.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum AuthRequest {
    /// Turns authentication on.
    #[prost(message, tag = "1")]
    Enable(Nothing),
    /// Turns it off.
    #[prost(message, tag = "2")]
    Disable(Nothing),
    /// Makes a token known on all members.
    #[prost(message, tag = "3")]
    Authenticate(Authenticate),
    /// Adds a user.
    #[prost(message, tag = "4")]
    UserAdd(UserAdd),
    /// Deletes a user.
    #[prost(message, tag = "5")]
    UserDelete(UserName),
    /// Replaces a user's password.
    #[prost(message, tag = "6")]
    UserChangePassword(ChangePassword),
    /// Gives a user a role.
    #[prost(message, tag = "7")]
    UserGrantRole(UserRole),
    /// Takes a role from a user.
    #[prost(message, tag = "8")]
    UserRevokeRole(UserRole),
    /// Adds a role.
    #[prost(message, tag = "9")]
    RoleAdd(RoleName),
    /// Deletes a role.
    #[prost(message, tag = "10")]
    RoleDelete(RoleName),
    /// Gives a role a permission.
    #[prost(message, tag = "11")]
    RoleGrantPermission(RoleGrantPermission),
    /// Takes a permission from a role.
    #[prost(message, tag = "12")]
    RoleRevokePermission(RoleRevokePermission),
}

impl From<AuthRequest> for AuthOp {
    fn from(request: AuthRequest) -> Self {
        AuthOp {
            request: Some(request),
        }
    }
}

/// An operation without parameters.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Nothing {}

/// A user whose password was checked.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Authenticate {
    /// The user.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The random part of the token; the whole is `prefix.index`, with the index of the log entry.
    #[prost(string, tag = "2")]
    pub token_prefix: String,
}

/// A new user.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct UserAdd {
    /// The user.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The password's bcrypt hash; empty for a user without one.
    #[prost(bytes = "bytes", tag = "2")]
    pub password: Bytes,
    /// Whether the user is known by certificates only.
    #[prost(bool, tag = "3")]
    pub no_password: bool,
}

/// A user.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct UserName {
    /// The user.
    #[prost(string, tag = "1")]
    pub name: String,
}

/// A user's new password.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ChangePassword {
    /// The user.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The password's bcrypt hash.
    #[prost(bytes = "bytes", tag = "2")]
    pub password: Bytes,
}

/// A user and a role.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct UserRole {
    /// The user.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The role.
    #[prost(string, tag = "2")]
    pub role: String,
}

/// A role.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RoleName {
    /// The role.
    #[prost(string, tag = "1")]
    pub role: String,
}

/// What a permission allows. The numbers are etcd's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum PermissionType {
    /// To read.
    Read = 0,
    /// To write.
    Write = 1,
    /// Both.
    ReadWrite = 2,
}

/// A permission on a key or a range of keys.
///
/// `range_end` empty means the one key, `"\0"` all keys from `key` on, anything else `[key, range_end)`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Permission {
    /// What is allowed; an unknown kind allows nothing.
    #[prost(enumeration = "PermissionType", tag = "1")]
    pub kind: i32,
    /// First key.
    #[prost(bytes = "bytes", tag = "2")]
    pub key: Bytes,
    /// End of the range.
    #[prost(bytes = "bytes", tag = "3")]
    pub range_end: Bytes,
}

/// A permission for a role.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RoleGrantPermission {
    /// The role.
    #[prost(string, tag = "1")]
    pub role: String,
    /// The permission.
    #[prost(message, optional, tag = "2")]
    pub permission: Option<Permission>,
}

/// The permission that a role loses, by its range.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RoleRevokePermission {
    /// The role.
    #[prost(string, tag = "1")]
    pub role: String,
    /// First key.
    #[prost(bytes = "bytes", tag = "2")]
    pub key: Bytes,
    /// End of the range.
    #[prost(bytes = "bytes", tag = "3")]
    pub range_end: Bytes,
}
