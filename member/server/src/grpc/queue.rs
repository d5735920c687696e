//! Queues: keys under a name, in the order in which they were created. The first one holds the lock, leads.
//!
//! A place in a queue is the key `NAME/LEASE`, so a lease has one place and loses it when it ends. Whoever is not first
//! waits for the place right before its own, so that a place that is given up wakes one other. Layout and order are
//! those of etcd's client library (3.4, `clientv3/concurrency`), whose users may stand in the same queue.
//!
//! Invariant: a call that does not succeed, and be it that its client has gone, leaves no place that it has taken or
//! waited at, and no lease of its own.

use bytes::Bytes;
use member_state::{
    Compare, CompareTarget, CompareValue, DeleteRange, KeyValue, Op, Put, Range, Response,
    SortOrder, SortTarget, Txn, TxnOp, TxnRequest,
};
use tonic::Status;

use super::caller::Caller;
use super::mismatch;
use crate::engine::Engine;
use crate::watch::Span;

/// The lease of a caller that has none, in seconds; etcd's.
const SESSION_TTL: i64 = 60;

/// How often such a lease is renewed while its place waits: it outlives two elections in a row.
const RENEWAL: std::time::Duration = std::time::Duration::from_secs(20);

/// The keys of one queue.
#[derive(Debug, Clone)]
pub(super) struct Queue {
    prefix: Bytes,
    end: Bytes,
}

impl Queue {
    pub(super) fn named(name: &[u8]) -> Self {
        // '0' follows '/'.
        let under = |end: &[u8]| Bytes::from([name, end].concat());
        Self {
            prefix: under(b"/"),
            end: under(b"0"),
        }
    }

    pub(super) fn span(&self) -> Option<Span> {
        Span::new(self.prefix.clone(), self.end.clone())
    }

    /// The read of its first place.
    pub(super) fn first(&self) -> Range {
        Range {
            sort_order: SortOrder::Ascend.into(),
            ..self.one_by_creation()
        }
    }

    /// The read of the last place before the one that was created at `revision`.
    fn last_before(&self, revision: i64) -> Range {
        Range {
            sort_order: SortOrder::Descend.into(),
            max_create_revision: revision - 1,
            keys_only: true,
            ..self.one_by_creation()
        }
    }

    fn one_by_creation(&self) -> Range {
        Range {
            key: self.prefix.clone(),
            range_end: self.end.clone(),
            limit: 1,
            sort_target: SortTarget::Create.into(),
            ..Range::default()
        }
    }

    /// Go prints a negative number as a minus and its magnitude.
    fn key(&self, lease: i64) -> Bytes {
        let sign = if lease < 0 { "-" } else { "" };
        let lease = format!("{sign}{:x}", lease.unsigned_abs());
        Bytes::from([&self.prefix[..], lease.as_bytes()].concat())
    }
}

/// A transaction that does `what` if the key was created at `revision`; 0: if there is none.
pub(super) fn if_created_at(
    key: &Bytes,
    revision: i64,
    what: TxnRequest,
    otherwise: Option<TxnRequest>,
) -> Txn {
    Txn {
        compare: vec![Compare {
            target: CompareTarget::Create.into(),
            key: key.clone(),
            value: Some(CompareValue::CreateRevision(revision)),
            ..Compare::default()
        }],
        success: vec![TxnOp::from(what)],
        failure: otherwise.map(TxnOp::from).into_iter().collect(),
    }
}

/// A transaction that gives up the place that was created at `revision`.
pub(super) fn leave(key: &Bytes, revision: i64) -> Txn {
    let delete = DeleteRange {
        key: key.clone(),
        ..DeleteRange::default()
    };
    if_created_at(key, revision, TxnRequest::DeleteRange(delete), None)
}

/// The lease that a place hangs on. One that was granted for the call ends with it, unless it is kept.
pub(super) struct Session<E: Engine> {
    caller: Caller<E>,
    lease: i64,
    granted: bool,
}

impl<E: Engine> Session<E> {
    /// The caller's own lease, or a new one if that is 0. Not checked: a write under it is.
    pub(super) async fn open(caller: &Caller<E>, lease: i64) -> Result<Self, Status> {
        let granted = lease == 0;
        Ok(Self {
            caller: caller.clone(),
            lease: match lease {
                0 => caller.grant(SESSION_TTL).await?,
                lease => lease,
            },
            granted,
        })
    }

    pub(super) fn lease(&self) -> i64 {
        self.lease
    }

    /// Leaves the lease to itself.
    pub(super) fn keep(&mut self) -> i64 {
        self.granted = false;
        self.lease
    }

    /// Returns when a lease that was granted for the call has ended. Who brought a lease renews it.
    async fn ended(&self) {
        if !self.granted {
            return std::future::pending().await;
        }
        loop {
            tokio::time::sleep(RENEWAL).await;
            // A renewal that is not answered says nothing; the next one may be.
            if let Ok(false) = self.caller.renew(self.lease).await {
                return;
            }
        }
    }
}

impl<E: Engine> Drop for Session<E> {
    fn drop(&mut self) {
        if self.granted {
            self.caller.revoke_later(self.lease);
        }
    }
}

/// A place in a queue. Dropped, it is given up, unless it was there before and was not waited at.
pub(super) struct Place<E: Engine> {
    queue: Queue,
    session: Session<E>,
    key: Bytes,
    /// The revision that created it.
    created: i64,
    /// The revision at which it was taken or found.
    revision: i64,
    given_up_by_drop: bool,
}

/// What stays of a place that was kept.
pub(super) struct Kept {
    pub(super) key: Bytes,
    pub(super) created: i64,
    pub(super) lease: i64,
}

impl<E: Engine> Place<E> {
    /// Takes the lease's place with a value, or finds it taken already: by what, then.
    pub(super) async fn take(
        caller: &Caller<E>,
        name: &[u8],
        lease: i64,
        value: Bytes,
    ) -> Result<(Self, Option<KeyValue>), Status> {
        let queue = Queue::named(name);
        let own = caller.clone();
        let taking = async move {
            let session = Session::open(&own, lease).await?;
            Self::take_in(&own, queue, session, value).await
        };
        caller.carry_out(taking).await.map_err(|_| mismatch())?
    }

    async fn take_in(
        caller: &Caller<E>,
        queue: Queue,
        session: Session<E>,
        value: Bytes,
    ) -> Result<(Self, Option<KeyValue>), Status> {
        let key = queue.key(session.lease);
        let put = Put {
            key: key.clone(),
            value,
            lease: session.lease,
            ..Put::default()
        };
        let get = Range {
            key: key.clone(),
            ..Range::default()
        };
        let (put, get) = (TxnRequest::Put(put), TxnRequest::Range(get));
        let taken = caller.txn(if_created_at(&key, 0, put, Some(get))).await?;
        let found = match taken.responses.into_iter().next() {
            Some(Response::Range(found)) if !taken.succeeded => found.kvs.into_iter().next(),
            _ => None,
        };
        if found.is_none() && !taken.succeeded {
            return Err(mismatch());
        }
        let place = Self {
            queue,
            session,
            key,
            created: found
                .as_ref()
                .map_or(taken.revision, |kv| kv.create_revision),
            revision: taken.revision,
            given_up_by_drop: taken.succeeded,
        };
        Ok((place, found))
    }

    pub(super) fn key(&self) -> &Bytes {
        &self.key
    }

    pub(super) fn created(&self) -> i64 {
        self.created
    }

    pub(super) fn lease(&self) -> i64 {
        self.session.lease
    }

    /// The revision at which it was taken or found.
    pub(super) fn revision(&self) -> i64 {
        self.revision
    }

    /// Waits until it is the first one; `None` if it was at once, else the revision at which it was found to be so,
    /// and still there: a lease may end while its place waits.
    ///
    /// # Errors
    /// `lost` when the place is not there any more.
    pub(super) async fn come_first(&mut self, lost: fn() -> Status) -> Result<Option<i64>, Status> {
        let Some(before) = self.last_before().await? else {
            return Ok(None);
        };
        self.given_up_by_drop = true;
        tokio::select! {
            alone = self.until_alone(before) => alone?,
            () = self.session.ended() => return Err(lost()),
        }
        let own = Range {
            key: self.key.clone(),
            keys_only: true,
            ..Range::default()
        };
        let found = self.session.caller.range(own).await?;
        match found.kvs.first() {
            Some(kv) if kv.create_revision == self.created => Ok(Some(found.revision)),
            _ => Err(lost()),
        }
    }

    /// The last place before this one, and the revision after which it may go. What this member has applied is enough
    /// to know: it has applied the write of this place, and places before it can only go.
    async fn last_before(&self) -> Result<Option<(Bytes, i64)>, Status> {
        let before = self.queue.last_before(self.created);
        let found = self.session.caller.range_here(before).await?;
        let last = found.kvs.into_iter().next();
        Ok(last.map(|kv| (kv.key, found.revision)))
    }

    async fn until_alone(&self, first: (Bytes, i64)) -> Result<(), Status> {
        let mut before = Some(first);
        while let Some((key, revision)) = before {
            self.session.caller.deleted(key, revision + 1).await?;
            before = self.last_before().await?;
        }
        Ok(())
    }

    /// Leaves the place to its lease.
    pub(super) fn keep(mut self) -> Kept {
        self.given_up_by_drop = false;
        Kept {
            key: self.key.clone(),
            created: self.created,
            lease: self.session.keep(),
        }
    }
}

impl<E: Engine> Drop for Place<E> {
    fn drop(&mut self) {
        // With the lease goes the place.
        if self.given_up_by_drop && !self.session.granted {
            let leave = leave(&self.key, self.created);
            self.session.caller.write_later(Op::Txn(leave));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_named_as_go_prints_its_lease() {
        let queue = Queue::named(b"q");
        for (lease, key) in [
            (255, "q/ff"),
            (-5, "q/-5"),
            (i64::MAX, "q/7fffffffffffffff"),
            (i64::MIN, "q/-8000000000000000"),
        ] {
            assert_eq!(queue.key(lease), key);
        }
        assert_eq!(
            (&queue.prefix[..], &queue.end[..]),
            (&b"q/"[..], &b"q0"[..])
        );
    }
}
