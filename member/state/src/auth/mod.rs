//! Users, roles and permissions: who may do what, the same on every member.
//!
//! Owns the replicated part: the store ([`Auth`]), its operations ([`AuthOp`]) and the checks that run when a command
//! is applied. Passwords come in hashed and tokens are only named; hashing, clocks and lifetimes belong to the server.
//!
//! Invariant: an [`Auth`] never changes once it is shared. An applier works on a copy, which its commit publishes
//! together with the tables, so a reader sees users and keys of the same moment.

mod admit;
mod command;
mod error;
mod range;
mod store;

pub use admit::Caller;
pub use command::{
    AuthOp, AuthRequest, Authenticate, ChangePassword, Nothing, Permission, PermissionType,
    RoleGrantPermission, RoleName, RoleRevokePermission, UserAdd, UserName, UserRole,
};
pub use error::AuthError;
pub use store::{Auth, Role, User};
