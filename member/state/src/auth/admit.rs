//! Whether a command may be applied, or a read answered, for the user who asks.
//!
//! A caller is checked where the command takes effect, against the users of that moment: what was granted when the
//! request came in may be revoked since. Sources: etcd 3.6, `apply/auth.go`, `auth/store.go`; what a nested
//! transaction and the previous value of a put in a transaction need is checked as it is outside of one.

use bytes::Bytes;

use super::command::AuthRequest;
use super::error::AuthError;
use super::store::{Auth, ROOT};
use crate::command::{Command, Op, Put, Txn, TxnOp, TxnRequest};
use crate::error::Error;

/// Who asks: a user, and the auth revision at which the user was known. The default is nobody.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Caller {
    /// The user's name; empty for nobody.
    pub user: String,
    /// The auth revision; 0 for nobody.
    pub revision: u64,
}

impl Caller {
    /// The member itself, which may do everything at any time.
    #[must_use]
    pub fn member() -> Self {
        Caller {
            user: ROOT.to_owned(),
            revision: u64::MAX,
        }
    }
}

/// What a permission is asked for.
#[derive(Clone, Copy)]
enum Access {
    Read,
    Write,
}

/// The keys attached to a lease.
type LeaseKeys<'a> = &'a dyn Fn(i64) -> Result<Vec<Bytes>, Error>;

impl Auth {
    fn check(
        &self,
        user: &str,
        revision: u64,
        key: &[u8],
        range_end: &[u8],
        access: Access,
    ) -> Result<(), AuthError> {
        if !self.enabled() {
            return Ok(());
        }
        if revision == 0 {
            return Err(AuthError::UserEmpty);
        }
        if revision < self.revision() {
            return Err(AuthError::OldRevision);
        }
        if self.is_root(user) {
            return Ok(());
        }
        let allowed = self.allowed(user).is_some_and(|allowed| match access {
            Access::Read => allowed.read.contain(key, range_end),
            Access::Write => allowed.write.contain(key, range_end),
        });
        if allowed {
            Ok(())
        } else {
            Err(AuthError::PermissionDenied)
        }
    }

    /// Whether the caller may read the keys.
    ///
    /// # Errors
    /// Why not.
    pub fn may_read(&self, caller: &Caller, key: &[u8], range_end: &[u8]) -> Result<(), AuthError> {
        self.check(&caller.user, caller.revision, key, range_end, Access::Read)
    }

    /// Whether the caller may write the keys.
    ///
    /// # Errors
    /// Why not.
    pub fn may_write(
        &self,
        caller: &Caller,
        key: &[u8],
        range_end: &[u8],
    ) -> Result<(), AuthError> {
        self.check(&caller.user, caller.revision, key, range_end, Access::Write)
    }

    /// Whether the caller may manage the cluster and its users.
    ///
    /// # Errors
    /// Why not.
    pub fn may_manage(&self, caller: &Caller) -> Result<(), AuthError> {
        self.may_manage_as(&caller.user)
    }

    fn may_manage_as(&self, user: &str) -> Result<(), AuthError> {
        if !self.enabled() || self.is_root(user) {
            Ok(())
        } else if user.is_empty() {
            Err(AuthError::UserEmpty)
        } else if self.user(user).is_none() {
            Err(AuthError::UserNotFound)
        } else {
            Err(AuthError::PermissionDenied)
        }
    }

    /// Whether the caller may run a [read-only](Txn::is_read_only) transaction, both branches included.
    ///
    /// # Errors
    /// Why not.
    pub fn may_read_txn(&self, caller: &Caller, txn: &Txn) -> Result<(), Error> {
        let asked = Asked {
            auth: self,
            user: &caller.user,
            revision: caller.revision,
            lease_keys: &|_| Ok(Vec::new()),
        };
        asked.txn(txn)
    }

    /// Whether a command may be applied. `lease_keys` names the keys attached to a lease.
    pub(crate) fn admit(&self, command: &Command, lease_keys: LeaseKeys<'_>) -> Result<(), Error> {
        let asked = Asked {
            auth: self,
            user: &command.user,
            revision: command.auth_revision,
            lease_keys,
        };
        match &command.op {
            Some(Op::Put(put)) => asked.put(put),
            Some(Op::DeleteRange(delete)) => {
                asked.delete(&delete.key, &delete.range_end, delete.prev_kv)
            }
            Some(Op::Txn(txn)) => asked.txn(txn),
            Some(Op::Auth(op)) => match op.request {
                Some(AuthRequest::Authenticate(_)) => Ok(()),
                _ => Ok(self.may_manage_as(&command.user)?),
            },
            Some(Op::LeaseRevoke(revoke)) => asked.lease(revoke.id),
            // Management calls are checked where they come in, as in etcd; members send them on their own too.
            Some(
                Op::Compact(_)
                | Op::Publish(_)
                | Op::ClusterVersion(_)
                | Op::Alarm(_)
                | Op::Downgrade(_)
                | Op::LeaseGrant(_)
                | Op::LeaseCheckpoint(_),
            )
            // Users and roles are of the v3 keys alone, as in etcd.
            | Some(Op::V2(_))
            | None => Ok(()),
        }
    }
}

/// One command's questions.
struct Asked<'a> {
    auth: &'a Auth,
    user: &'a str,
    revision: u64,
    lease_keys: LeaseKeys<'a>,
}

impl Asked<'_> {
    fn may(&self, key: &[u8], range_end: &[u8], access: Access) -> Result<(), Error> {
        Ok(self
            .auth
            .check(self.user, self.revision, key, range_end, access)?)
    }

    fn put(&self, put: &Put) -> Result<(), Error> {
        self.may(&put.key, &[], Access::Write)?;
        if put.lease != 0 {
            self.lease(put.lease)?;
        }
        if put.prev_kv {
            self.may(&put.key, &[], Access::Read)?;
        }
        Ok(())
    }

    /// Whoever attaches a key to a lease, or revokes the lease, must be able to write every key attached to it: its
    /// end deletes them.
    fn lease(&self, lease: i64) -> Result<(), Error> {
        if self.auth.is_root(self.user) {
            return Ok(());
        }
        for key in (self.lease_keys)(lease)? {
            self.may(&key, &[], Access::Write)?;
        }
        Ok(())
    }

    fn delete(&self, key: &[u8], range_end: &[u8], prev_kv: bool) -> Result<(), Error> {
        self.may(key, range_end, Access::Write)?;
        if prev_kv {
            self.may(key, range_end, Access::Read)?;
        }
        Ok(())
    }

    fn txn(&self, txn: &Txn) -> Result<(), Error> {
        for compare in &txn.compare {
            self.may(&compare.key, &compare.range_end, Access::Read)?;
        }
        txn.success
            .iter()
            .chain(&txn.failure)
            .try_for_each(|op| self.txn_op(op))
    }

    fn txn_op(&self, op: &TxnOp) -> Result<(), Error> {
        match &op.request {
            Some(TxnRequest::Range(range)) => self.may(&range.key, &range.range_end, Access::Read),
            Some(TxnRequest::Put(put)) => self.put(put),
            Some(TxnRequest::DeleteRange(delete)) => {
                self.delete(&delete.key, &delete.range_end, delete.prev_kv)
            }
            Some(TxnRequest::Txn(txn)) => self.txn(txn),
            None => Ok(()),
        }
    }
}
