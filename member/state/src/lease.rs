//! Leases: which exist, for how long, and which keys are attached to each.
//!
//! Nothing here knows a time. The leader counts the seconds and proposes the revocation; the state only
//! does what the log says, so that every member deletes the same keys at the same revision.
//!
//! Invariant: a key's newest version names a lease exactly when the key is attached to that lease,
//! and a lease that has keys exists. So a put without a lease, over one without, touches nothing here.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::backend::{Backend, Cursor, Table};
use crate::command::{Lease, LeaseCheckpoint, LeaseGrant, LeaseRevoke, Response};
use crate::error::{Corruption, Error};
use crate::execute::Execution;
use crate::validate::validate_lease_grant;
use crate::view::View;

/// The longest that a lease may live without a renewal, in seconds. etcd's bound, so that expiries can be computed.
pub const MAX_LEASE_TTL: i64 = 9_000_000_000;

const ID: usize = size_of::<i64>();

pub(crate) fn record(lease: &Lease) -> Bytes {
    let mut out = BytesMut::with_capacity(2 * ID);
    out.put_i64(lease.ttl);
    out.put_i64(lease.remaining);
    out.freeze()
}

pub(crate) fn read(id: i64, mut record: &[u8]) -> Result<Lease, Corruption> {
    let mut number = || {
        record.try_get_i64().map_err(|_| Corruption {
            table: "leases",
            what: "a lease",
        })
    };
    Ok(Lease {
        id,
        ttl: number()?,
        remaining: number()?,
    })
}

/// Refuses a lease that does not exist; 0 is none and always right.
pub(crate) fn check<B: Backend>(view: View<'_, B>, id: i64) -> Result<(), Error> {
    if id != 0 && view.get(Table::Leases, &id.to_be_bytes())?.is_none() {
        return Err(Error::LeaseNotFound);
    }
    Ok(())
}

pub(crate) fn find<B: Backend>(view: View<'_, B>, id: i64) -> Result<Option<Lease>, Error> {
    let record = view.get(Table::Leases, &id.to_be_bytes())?;
    Ok(record.map(|record| read(id, &record)).transpose()?)
}

pub(crate) fn keys<B: Backend>(view: View<'_, B>, id: i64) -> Result<Vec<Bytes>, Error> {
    // The lease's own record is the id alone; a key has a byte at least.
    let mut from = id.to_be_bytes().to_vec();
    from.push(0);
    let next = id.cast_unsigned().checked_add(1).map(u64::to_be_bytes);
    let mut attached = view.cursor(Table::Leases, &from, next.as_ref().map(|next| &next[..]))?;
    let mut keys = Vec::new();
    while let Some((entry, _)) = attached.next()? {
        keys.push(Bytes::copy_from_slice(&entry[ID..]));
    }
    Ok(keys)
}

pub(crate) fn all<B: Backend>(view: View<'_, B>) -> Result<Vec<Lease>, Error> {
    let mut entries = view.cursor(Table::Leases, &[], None)?;
    let mut leases = Vec::new();
    while let Some((entry, record)) = entries.next()? {
        if let Ok(id) = entry.try_into() {
            leases.push(read(i64::from_be_bytes(id), record)?);
        }
    }
    Ok(leases)
}

impl<B: Backend> Execution<'_, B> {
    fn leases(&self) -> View<'_, B> {
        View::within(self.backend, self.batch)
    }

    fn set(&mut self, lease: &Lease) {
        let key = self.arena.copy(&lease.id.to_be_bytes());
        self.batch.put(Table::Leases, key, record(lease));
    }

    /// Creates a lease. etcd 3.6: the errors' order is id, TTL, existence.
    pub(crate) fn grant(&mut self, grant: &LeaseGrant) -> Result<Response, Error> {
        if grant.id == 0 {
            return Err(Error::LeaseNotFound);
        }
        validate_lease_grant(grant)?;
        if find(self.leases(), grant.id)?.is_some() {
            return Err(Error::LeaseExist);
        }
        self.set(&Lease {
            id: grant.id,
            ttl: grant.ttl,
            remaining: 0,
        });
        Ok(Response::LeaseGrant {
            revision: self.revision(),
        })
    }

    /// Ends a lease: its keys are deleted in their order, at one revision.
    pub(crate) fn revoke(&mut self, revoke: &LeaseRevoke) -> Result<Response, Error> {
        if revoke.id == 0 {
            return Err(Error::LeaseNotFound);
        }
        check(self.leases(), revoke.id)?;
        for key in keys(self.leases(), revoke.id)? {
            let Some(record) = self.leases().get(Table::Current, &key)? else {
                return Err(Error::from(Corruption {
                    table: "leases",
                    what: "an attached key that does not exist",
                }));
            };
            self.bury(key, record)?;
        }
        let key = self.arena.copy(&revoke.id.to_be_bytes());
        self.batch.delete(Table::Leases, key);
        Ok(Response::LeaseRevoke {
            revision: self.revision(),
        })
    }

    /// Records what is left of leases.
    pub(crate) fn checkpoint(&mut self, checkpoint: &LeaseCheckpoint) -> Result<Response, Error> {
        for part in &checkpoint.leases {
            if let Some(lease) = find(self.leases(), part.id)? {
                self.set(&Lease {
                    remaining: part.remaining,
                    ..lease
                });
            }
        }
        Ok(Response::Empty)
    }

    pub(crate) fn attach(&mut self, lease: i64, key: &[u8]) {
        if lease != 0 {
            let entry = self.arena.attachment(lease, key);
            self.batch.put(Table::Leases, entry, Bytes::new());
        }
    }

    pub(crate) fn detach(&mut self, lease: i64, key: &[u8]) {
        if lease != 0 {
            let entry = self.arena.attachment(lease, key);
            self.batch.delete(Table::Leases, entry);
        }
    }
}
