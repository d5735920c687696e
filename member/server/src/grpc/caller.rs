//! What the lock and election services do in their callers' names: the one place that knows who called.
//!
//! Those services are clients of the store that live inside the member. As in etcd, whatever the store refuses reaches
//! their callers as its words under the code Unknown; only the end of the member keeps its own code, so that callers
//! turn to another one.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use member_proto::etcdserverpb as pb;
use member_state::{
    DeleteRange, LeaseGrant, LeaseRevoke, Op, Range, RangeResponse, Response as Applied, Txn,
    TxnResponse, validate_delete_range, validate_lease_grant, validate_range, validate_txn,
};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tonic::{Code, Request, Status};

use super::kv::read_range;
use super::{mismatch, not_written, refused};
use crate::auth::Credentials;
use crate::engine::Engine;
use crate::node::Node;
use crate::watch::{Ended, Span, Subscription, WaitError};
use crate::write::WriteError;

/// The pause after a write that a caller has left behind failed.
const LATER: Duration = Duration::from_secs(1);

/// Who called, and the member.
pub(super) struct Caller<E: Engine> {
    node: Arc<Node<E>>,
    credentials: Option<Credentials>,
    /// What a caller leaves behind is dropped wherever its connection ends.
    runtime: Handle,
}

impl<E: Engine> Clone for Caller<E> {
    fn clone(&self) -> Self {
        Self {
            node: Arc::clone(&self.node),
            credentials: self.credentials.clone(),
            runtime: self.runtime.clone(),
        }
    }
}

fn unknown(status: Status) -> Status {
    match status.code() {
        Code::Unknown => status,
        _ => Status::unknown(status.message()),
    }
}

fn failed(error: &WriteError) -> Status {
    match error {
        WriteError::Stopped => not_written(error),
        _ => unknown(not_written(error)),
    }
}

impl<E: Engine> Caller<E> {
    /// The caller of a request, and what it asks for.
    pub(super) fn of<T>(node: &Arc<Node<E>>, request: Request<T>) -> (Self, T) {
        let caller = Self {
            node: Arc::clone(node),
            credentials: node.credentials(&request),
            runtime: Handle::current(),
        };
        (caller, request.into_inner())
    }

    pub(super) fn header(&self, revision: i64) -> Option<pb::ResponseHeader> {
        Some(self.node.header(revision))
    }

    async fn write(&self, op: Op) -> Result<Applied, Status> {
        let caller = self.node.caller(self.credentials.as_ref());
        let caller = caller.await.map_err(unknown)?;
        let applied = self.node.write_by(op, caller).await;
        applied.map_err(|e| failed(&e))
    }

    pub(super) async fn txn(&self, txn: Txn) -> Result<TxnResponse, Status> {
        validate_txn(&txn, self.node.max_txn_ops()).map_err(|e| unknown(refused(&e)))?;
        match self.write(Op::Txn(txn)).await? {
            Applied::Txn(response) => Ok(response),
            _ => Err(mismatch()),
        }
    }

    /// Deletes a key; the revision after that.
    pub(super) async fn delete(&self, key: Bytes) -> Result<i64, Status> {
        let delete = DeleteRange {
            key,
            ..DeleteRange::default()
        };
        validate_delete_range(&delete).map_err(|e| unknown(refused(&e)))?;
        match self.write(Op::DeleteRange(delete)).await? {
            Applied::DeleteRange { revision, .. } => Ok(revision),
            _ => Err(mismatch()),
        }
    }

    /// Reads what was written before the call, by whomever.
    pub(super) async fn range(&self, range: Range) -> Result<RangeResponse, Status> {
        self.node.linearize().await.map_err(unknown)?;
        self.range_here(range).await
    }

    /// Reads what this member has applied.
    pub(super) async fn range_here(&self, range: Range) -> Result<RangeResponse, Status> {
        validate_range(&range).map_err(|e| unknown(refused(&e)))?;
        let response = read_range(&self.node, range, self.credentials.clone());
        response.await.map_err(unknown)
    }

    /// The events of a span from a revision on.
    pub(super) fn watch(&self, span: Span, from: i64) -> Subscription<E> {
        self.node.watches.subscribe(span, from)
    }

    /// Waits until a key is deleted at `from` or later, or until that revision is compacted: look again in any case.
    pub(super) async fn deleted(&self, key: Bytes, from: i64) -> Result<(), Status> {
        match self.node.watches.wait_deleted(key, from).await {
            Ok(_) | Err(WaitError::Compacted) => Ok(()),
            Err(WaitError::Ended(ended)) => Err(not_watched(&ended)),
        }
    }

    /// Grants a lease of `ttl` seconds.
    pub(super) async fn grant(&self, ttl: i64) -> Result<i64, Status> {
        let grant = LeaseGrant {
            ttl: self.node.leases.at_least(ttl),
            id: self.node.new_lease_id(),
        };
        validate_lease_grant(&grant).map_err(|e| unknown(refused(&e)))?;
        self.write(Op::LeaseGrant(grant)).await?;
        Ok(grant.id)
    }

    /// Renews a lease; whether it lives.
    pub(super) async fn renew(&self, lease: i64) -> Result<bool, Status> {
        let renewed = self.node.leases.renew(lease).await;
        let ttl = renewed.map_err(|error| Status::unknown(error.to_string()))?;
        Ok(ttl > 0)
    }

    /// Runs to its end what must not stay half done when the caller goes away. Its outcome is dropped then.
    pub(super) fn carry_out<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.node.errands.spawn_on(work, &self.runtime)
    }

    /// Ends a lease that nobody needs any more.
    pub(super) fn revoke_later(&self, lease: i64) {
        self.write_later(Op::LeaseRevoke(LeaseRevoke { id: lease }));
    }

    /// Writes what nobody waits for, in the member's name, again and again while the cluster has no quorum.
    pub(super) fn write_later(&self, op: Op) {
        let caller = self.clone();
        self.carry_out(async move {
            loop {
                let own = member_state::Caller::member();
                match caller.node.write_by(op.clone(), own).await {
                    Ok(_) | Err(WriteError::State(_) | WriteError::TooLarge) => return,
                    Err(WriteError::Stopped) => return,
                    Err(
                        WriteError::TimedOut | WriteError::LeaderLost | WriteError::TooManyRequests,
                    ) => {}
                }
                tokio::select! {
                    () = caller.node.leases.stopping().cancelled_owned() => return,
                    () = tokio::time::sleep(LATER) => {}
                }
            }
        });
    }
}

/// What a caller hears when its watch inside the member has ended.
pub(super) fn not_watched(ended: &Ended) -> Status {
    match ended {
        Ended::Stopped => Status::unavailable(ended.to_string()),
        Ended::Failed(error) => unknown(refused(error)),
    }
}
