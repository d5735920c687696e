//! The users and roles of a moment, the operations that change them, and their records in the table `Meta`.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use prost::Message;

use super::command::{
    AuthRequest, Authenticate, ChangePassword, Permission, PermissionType, RoleGrantPermission,
    RoleRevokePermission, UserAdd, UserRole,
};
use super::error::AuthError;
use super::range::{self, Ranges};
use crate::backend::{Backend, Batch, Cursor, Table};
use crate::error::{Corruption, OpenError};
use crate::layout::meta;

/// The user, and the role, that may do everything.
pub(super) const ROOT: &str = "root";

/// A user.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct User {
    /// The password's bcrypt hash; empty for a user without one.
    #[prost(bytes = "bytes", tag = "1")]
    pub password: Bytes,
    /// The user's roles, in order.
    #[prost(string, repeated, tag = "2")]
    pub roles: Vec<String>,
    /// Whether the user is known by certificates only.
    #[prost(bool, tag = "3")]
    pub no_password: bool,
}

/// A role.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Role {
    /// What the role allows, ordered by first key.
    #[prost(message, repeated, tag = "1")]
    pub permissions: Vec<Permission>,
}

/// What is neither a user nor a role.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
struct Header {
    #[prost(bool, tag = "1")]
    enabled: bool,
    #[prost(uint64, tag = "2")]
    revision: u64,
}

/// What a user may read and write by all its roles.
#[derive(Debug, Clone, Default)]
pub(super) struct Allowed {
    pub(super) read: Ranges,
    pub(super) write: Ranges,
}

#[derive(Debug, Clone)]
struct Known {
    user: Arc<User>,
    /// Merged at the user's first call after a change.
    allowed: OnceLock<Arc<Allowed>>,
}

impl Known {
    fn new(user: User) -> Self {
        Known {
            user: Arc::new(user),
            allowed: OnceLock::new(),
        }
    }
}

/// The users and roles of a moment.
#[derive(Debug, Clone)]
pub struct Auth {
    enabled: bool,
    revision: u64,
    users: BTreeMap<String, Known>,
    roles: BTreeMap<String, Arc<Role>>,
}

impl Default for Auth {
    /// Disabled, without users; etcd counts its changes from 1.
    fn default() -> Self {
        Auth {
            enabled: false,
            revision: 1,
            users: BTreeMap::new(),
            roles: BTreeMap::new(),
        }
    }
}

impl Auth {
    /// Whether calls are checked.
    #[must_use]
    pub fn enabled(&self) -> bool {
        self.enabled
    }

    /// Counts the changes of users and roles.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// A user.
    #[must_use]
    pub fn user(&self, name: &str) -> Option<&User> {
        self.users.get(name).map(|known| &*known.user)
    }

    /// All users, in order.
    pub fn users(&self) -> impl Iterator<Item = (&str, &User)> {
        self.users
            .iter()
            .map(|(name, known)| (&name[..], &*known.user))
    }

    /// A role.
    #[must_use]
    pub fn role(&self, name: &str) -> Option<&Role> {
        self.roles.get(name).map(|role| &**role)
    }

    /// All roles, in order.
    pub fn roles(&self) -> impl Iterator<Item = (&str, &Role)> {
        self.roles.iter().map(|(name, role)| (&name[..], &**role))
    }

    /// Whether the user has a role.
    #[must_use]
    pub fn has_role(&self, user: &str, role: &str) -> bool {
        self.user(user)
            .is_some_and(|user| user.roles.iter().any(|own| own == role))
    }

    /// Whether the user may do everything.
    pub(super) fn is_root(&self, user: &str) -> bool {
        self.has_role(user, ROOT)
    }

    pub(super) fn allowed(&self, user: &str) -> Option<Arc<Allowed>> {
        let known = self.users.get(user)?;
        Some(Arc::clone(
            known
                .allowed
                .get_or_init(|| Arc::new(self.merge(&known.user))),
        ))
    }

    fn merge(&self, user: &User) -> Allowed {
        let permissions: Vec<&Permission> = user
            .roles
            .iter()
            .filter_map(|role| self.role(role))
            .flat_map(|role| &role.permissions)
            .collect();
        let of = |kind: PermissionType| {
            Ranges::union(
                permissions
                    .iter()
                    .filter(|permission| {
                        [kind as i32, PermissionType::ReadWrite as i32].contains(&permission.kind)
                    })
                    .map(|permission| (&permission.key, &permission.range_end)),
            )
        };
        Allowed {
            read: of(PermissionType::Read),
            write: of(PermissionType::Write),
        }
    }

    fn known(&self, name: &str) -> Result<&User, AuthError> {
        self.user(name).ok_or(AuthError::UserNotFound)
    }

    /// Reads what the backend holds.
    pub(crate) fn open<B: Backend>(backend: &B) -> Result<Self, OpenError> {
        let damaged = || Corruption {
            table: "meta",
            what: "a record of users and roles",
        };
        let mut auth = Auth::default();
        if let Some(record) = backend.get(Table::Meta, meta::AUTH)? {
            let header = Header::decode(&record[..]).map_err(|_| damaged())?;
            auth.enabled = header.enabled;
            auth.revision = header.revision;
        }
        let mut users =
            backend.cursor(Table::Meta, meta::AUTH_USERS, Some(meta::AUTH_USERS_END))?;
        while let Some((key, value)) = users.next()? {
            let name = std::str::from_utf8(&key[meta::AUTH_USERS.len()..]);
            let user = User::decode(value).map_err(|_| damaged())?;
            auth.users
                .insert(name.map_err(|_| damaged())?.to_owned(), Known::new(user));
        }
        let mut roles =
            backend.cursor(Table::Meta, meta::AUTH_ROLES, Some(meta::AUTH_ROLES_END))?;
        while let Some((key, value)) = roles.next()? {
            let name = std::str::from_utf8(&key[meta::AUTH_ROLES.len()..]);
            let role = Role::decode(value).map_err(|_| damaged())?;
            auth.roles
                .insert(name.map_err(|_| damaged())?.to_owned(), Arc::new(role));
        }
        Ok(auth)
    }

    /// Runs an operation whose caller was admitted, and writes its records. Whether anything changed.
    pub(crate) fn apply(
        &mut self,
        request: &AuthRequest,
        batch: &mut Batch,
    ) -> Result<bool, AuthError> {
        let mut change = Change { auth: self, batch };
        match request {
            AuthRequest::Enable(_) => return change.enable(),
            AuthRequest::Disable(_) => {
                if !change.auth.enabled {
                    return Ok(false);
                }
                change.auth.enabled = false;
            }
            AuthRequest::Authenticate(who) => return change.auth.authenticate(who),
            AuthRequest::UserAdd(add) => change.user_add(add)?,
            AuthRequest::UserDelete(user) => change.user_delete(&user.name)?,
            AuthRequest::UserChangePassword(new) => change.user_change_password(new)?,
            AuthRequest::UserGrantRole(grant) => {
                if !change.user_grant_role(grant)? {
                    return Ok(false);
                }
            }
            AuthRequest::UserRevokeRole(revoke) => change.user_revoke_role(revoke)?,
            AuthRequest::RoleAdd(role) => change.role_add(&role.role)?,
            AuthRequest::RoleDelete(role) => change.role_delete(&role.role)?,
            AuthRequest::RoleGrantPermission(grant) => change.role_grant_permission(grant)?,
            AuthRequest::RoleRevokePermission(revoke) => change.role_revoke_permission(revoke)?,
        }
        change.auth.revision += 1;
        change.write_header();
        Ok(true)
    }

    /// The password was checked where the request came in; the user may be gone since.
    fn authenticate(&self, who: &Authenticate) -> Result<bool, AuthError> {
        if !self.enabled {
            return Err(AuthError::NotEnabled);
        }
        match self.user(&who.name) {
            Some(user) if !user.no_password => Ok(false),
            _ => Err(AuthError::AuthFailed),
        }
    }
}

/// A change under way: memory and records together.
struct Change<'a> {
    auth: &'a mut Auth,
    batch: &'a mut Batch,
}

impl Change<'_> {
    /// Does not count as a change of users: revisions that callers hold stay good.
    fn enable(&mut self) -> Result<bool, AuthError> {
        if self.auth.enabled {
            return Ok(false);
        }
        if self.auth.user(ROOT).is_none() {
            return Err(AuthError::RootUserNotExist);
        }
        if !self.auth.is_root(ROOT) {
            return Err(AuthError::RootRoleNotExist);
        }
        self.auth.enabled = true;
        self.write_header();
        Ok(true)
    }

    fn user_add(&mut self, add: &UserAdd) -> Result<(), AuthError> {
        if add.name.is_empty() {
            return Err(AuthError::UserEmpty);
        }
        if self.auth.user(&add.name).is_some() {
            return Err(AuthError::UserAlreadyExists);
        }
        let user = User {
            password: add.password.clone(),
            roles: Vec::new(),
            no_password: add.no_password,
        };
        self.put_user(&add.name, user);
        Ok(())
    }

    fn user_delete(&mut self, name: &str) -> Result<(), AuthError> {
        if self.auth.enabled && name == ROOT {
            return Err(AuthError::InvalidManagement);
        }
        self.auth.known(name)?;
        self.auth.users.remove(name);
        self.batch.delete(Table::Meta, meta::auth_user(name));
        Ok(())
    }

    fn user_change_password(&mut self, new: &ChangePassword) -> Result<(), AuthError> {
        let mut user = self.auth.known(&new.name)?.clone();
        if user.no_password {
            user.password = Bytes::new();
        } else {
            user.password = new.password.clone();
        }
        self.put_user(&new.name, user);
        Ok(())
    }

    fn user_grant_role(&mut self, grant: &UserRole) -> Result<bool, AuthError> {
        let user = self.auth.known(&grant.name)?;
        if grant.role != ROOT && self.auth.role(&grant.role).is_none() {
            return Err(AuthError::RoleNotFound);
        }
        let Err(place) = user.roles.binary_search(&grant.role) else {
            return Ok(false);
        };
        let mut user = user.clone();
        user.roles.insert(place, grant.role.clone());
        self.put_user(&grant.name, user);
        Ok(true)
    }

    fn user_revoke_role(&mut self, revoke: &UserRole) -> Result<(), AuthError> {
        if self.auth.enabled && revoke.name == ROOT && revoke.role == ROOT {
            return Err(AuthError::InvalidManagement);
        }
        let mut user = self.auth.known(&revoke.name)?.clone();
        let before = user.roles.len();
        user.roles.retain(|role| *role != revoke.role);
        if user.roles.len() == before {
            return Err(AuthError::RoleNotGranted);
        }
        self.put_user(&revoke.name, user);
        Ok(())
    }

    fn role_add(&mut self, name: &str) -> Result<(), AuthError> {
        if name.is_empty() {
            return Err(AuthError::RoleEmpty);
        }
        if self.auth.role(name).is_some() {
            return Err(AuthError::RoleAlreadyExists);
        }
        self.put_role(name, Role::default());
        Ok(())
    }

    fn role_delete(&mut self, name: &str) -> Result<(), AuthError> {
        if self.auth.enabled && name == ROOT {
            return Err(AuthError::InvalidManagement);
        }
        if self.auth.roles.remove(name).is_none() {
            return Err(AuthError::RoleNotFound);
        }
        self.batch.delete(Table::Meta, meta::auth_role(name));
        let holders: Vec<(String, User)> = self
            .auth
            .users()
            .filter(|(_, user)| user.roles.iter().any(|role| role == name))
            .map(|(holder, user)| (holder.to_owned(), user.clone()))
            .collect();
        for (holder, mut user) in holders {
            user.roles.retain(|role| role != name);
            self.put_user(&holder, user);
        }
        self.forget_merged();
        Ok(())
    }

    fn role_grant_permission(&mut self, grant: &RoleGrantPermission) -> Result<(), AuthError> {
        let Some(given) = &grant.permission else {
            return Err(AuthError::PermissionNotGiven);
        };
        if !range::is_valid(&given.key, &given.range_end) {
            return Err(AuthError::InvalidManagement);
        }
        let role = self.auth.role(&grant.role);
        let mut role = role.ok_or(AuthError::RoleNotFound)?.clone();
        let same = |own: &&mut Permission| own.key == given.key && own.range_end == given.range_end;
        if let Some(own) = role.permissions.iter_mut().find(same) {
            own.kind = given.kind;
        } else {
            let place = role.permissions.partition_point(|own| own.key <= given.key);
            role.permissions.insert(place, given.clone());
        }
        self.put_role(&grant.role, role);
        Ok(())
    }

    fn role_revoke_permission(&mut self, revoke: &RoleRevokePermission) -> Result<(), AuthError> {
        let role = self.auth.role(&revoke.role);
        let mut role = role.ok_or(AuthError::RoleNotFound)?.clone();
        let before = role.permissions.len();
        role.permissions
            .retain(|own| own.key != revoke.key || own.range_end != revoke.range_end);
        if role.permissions.len() == before {
            return Err(AuthError::PermissionNotGranted);
        }
        self.put_role(&revoke.role, role);
        Ok(())
    }

    fn put_user(&mut self, name: &str, user: User) {
        let record = user.encode_to_vec().into();
        self.batch.put(Table::Meta, meta::auth_user(name), record);
        self.auth.users.insert(name.to_owned(), Known::new(user));
    }

    fn put_role(&mut self, name: &str, role: Role) {
        let record = role.encode_to_vec().into();
        self.batch.put(Table::Meta, meta::auth_role(name), record);
        self.auth.roles.insert(name.to_owned(), Arc::new(role));
        self.forget_merged();
    }

    fn forget_merged(&mut self) {
        for known in self.auth.users.values_mut() {
            known.allowed = OnceLock::new();
        }
    }

    fn write_header(&mut self) {
        let header = Header {
            enabled: self.auth.enabled,
            revision: self.auth.revision,
        };
        self.batch.put(
            Table::Meta,
            Bytes::from_static(meta::AUTH),
            header.encode_to_vec().into(),
        );
    }
}
