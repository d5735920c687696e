//! Why an operation on users or a call by one is refused, in etcd's words.

/// Why an operation on users is refused, or a call by one. `Display` is etcd's message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// Authentication is to be enabled without a user `root`.
    #[error("etcdserver: root user does not exist")]
    RootUserNotExist,
    /// Authentication is to be enabled while `root` lacks its role.
    #[error("etcdserver: root user does not have root role")]
    RootRoleNotExist,
    /// A user of that name exists.
    #[error("etcdserver: user name already exists")]
    UserAlreadyExists,
    /// The name is empty, or a call comes without a user while authentication is enabled.
    #[error("etcdserver: user name is empty")]
    UserEmpty,
    /// No user of that name.
    #[error("etcdserver: user name not found")]
    UserNotFound,
    /// A role of that name exists.
    #[error("etcdserver: role name already exists")]
    RoleAlreadyExists,
    /// No role of that name.
    #[error("etcdserver: role name not found")]
    RoleNotFound,
    /// The role's name is empty.
    #[error("etcdserver: role name is empty")]
    RoleEmpty,
    /// A grant without a permission.
    #[error("etcdserver: permission not given")]
    PermissionNotGiven,
    /// No such user, or another password.
    #[error("etcdserver: authentication failed, invalid user ID or password")]
    AuthFailed,
    /// A password for a user that has none; etcd gives it no code of its own.
    #[error("auth: authentication failed, password was given for no password user")]
    NoPasswordUser,
    /// The user may not do this.
    #[error("etcdserver: permission denied")]
    PermissionDenied,
    /// The user does not have the role.
    #[error("etcdserver: role is not granted to the user")]
    RoleNotGranted,
    /// The role does not have the permission.
    #[error("etcdserver: permission is not granted to the role")]
    PermissionNotGranted,
    /// A token is asked for while authentication is disabled.
    #[error("etcdserver: authentication is not enabled")]
    NotEnabled,
    /// Users or roles changed since the call was authenticated.
    #[error("etcdserver: revision of auth store is old")]
    OldRevision,
    /// The operation would lock everybody out, or the range is none.
    #[error("etcdserver: invalid auth management")]
    InvalidManagement,
}
