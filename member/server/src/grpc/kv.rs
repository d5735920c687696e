//! The KV service.

use std::sync::Arc;
use std::time::Instant;

use member_proto::etcdserverpb as pb;
use member_proto::etcdserverpb::kv_server::Kv;
use member_state::{
    Op, Range, RangeResponse, Response as Applied, validate_delete_range, validate_put,
    validate_range, validate_txn,
};
use tonic::{Request, Response, Status};

use super::{convert, mismatch, not_for_learners, refused};
use crate::auth::Credentials;
use crate::engine::Engine;
use crate::node::Node;

/// Keys that a range may visit and still be read on the reactor, where heartbeats wait for it: about a millisecond.
const SHORT_RANGE: usize = 1001;

/// The KV service.
pub(crate) struct KvService<E: Engine>(pub(crate) Arc<Node<E>>);

/// Reads a validated range from what this member has applied, if the sender may see it.
pub(super) async fn read_range<E: Engine>(
    node: &Node<E>,
    range: Range,
    credentials: Option<Credentials>,
) -> Result<RangeResponse, Status> {
    let reading = node
        .begin_read(credentials, |auth, caller| {
            Ok(auth.may_read(caller, &range.key, &range.range_end)?)
        })
        .await?;
    let store = node.store();
    let began = Instant::now();
    let response = if store.is_short(&range, SHORT_RANGE) {
        store.range(&range)
    } else {
        tokio::task::spawn_blocking(move || store.range(&range))
            .await
            .map_err(|_| mismatch())?
    };
    node.metrics.ranged(began.elapsed(), response.is_ok());
    let response = response.map_err(|e| refused(&e))?;
    node.end_read(&reading)?;
    Ok(response)
}

#[tonic::async_trait]
impl<E: Engine> Kv for KvService<E> {
    async fn range(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<pb::RangeResponse>, Status> {
        let credentials = self.0.credentials(&request);
        let range = convert::range(request.into_inner());
        validate_range(&range).map_err(|e| refused(&e))?;
        if !range.serializable {
            if self.0.is_learner() {
                return Err(not_for_learners());
            }
            self.0.linearize().await?;
        }
        let response = read_range(&self.0, range, credentials).await?;
        Ok(Response::new(convert::range_response(
            self.0.header(0),
            response,
        )))
    }

    async fn put(
        &self,
        request: Request<pb::PutRequest>,
    ) -> Result<Response<pb::PutResponse>, Status> {
        let credentials = self.0.credentials(&request);
        let put = convert::put(request.into_inner());
        validate_put(&put).map_err(|e| refused(&e))?;
        match self.0.write_as(Op::Put(put), credentials).await? {
            Applied::Put { revision, prev } => Ok(Response::new(pb::PutResponse {
                header: Some(self.0.header(revision)),
                prev_kv: prev.map(convert::key_value),
            })),
            _ => Err(mismatch()),
        }
    }

    async fn delete_range(
        &self,
        request: Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        let credentials = self.0.credentials(&request);
        let delete = convert::delete_range(request.into_inner());
        validate_delete_range(&delete).map_err(|e| refused(&e))?;
        match self
            .0
            .write_as(Op::DeleteRange(delete), credentials)
            .await?
        {
            Applied::DeleteRange {
                revision,
                deleted,
                prevs,
            } => Ok(Response::new(pb::DeleteRangeResponse {
                header: Some(self.0.header(revision)),
                deleted,
                prev_kvs: prevs.into_iter().map(convert::key_value).collect(),
            })),
            _ => Err(mismatch()),
        }
    }

    async fn txn(
        &self,
        request: Request<pb::TxnRequest>,
    ) -> Result<Response<pb::TxnResponse>, Status> {
        let credentials = self.0.credentials(&request);
        let txn = convert::txn(request.into_inner());
        validate_txn(&txn, self.0.max_txn_ops()).map_err(|e| refused(&e))?;
        let response = if txn.is_read_only() {
            if !txn.is_serializable() {
                self.0.linearize().await?;
            }
            let reading = self
                .0
                .begin_read(credentials, |auth, caller| auth.may_read_txn(caller, &txn))
                .await?;
            let store = self.0.store();
            let response = if store.is_short_txn(&txn, SHORT_RANGE) {
                store.read_txn(&txn)
            } else {
                tokio::task::spawn_blocking(move || store.read_txn(&txn))
                    .await
                    .map_err(|_| mismatch())?
            };
            let response = response.map_err(|e| refused(&e))?;
            self.0.end_read(&reading)?;
            response
        } else {
            match self.0.write_as(Op::Txn(txn), credentials).await? {
                Applied::Txn(response) => response,
                _ => return Err(mismatch()),
            }
        };
        Ok(Response::new(convert::txn_response(
            self.0.header(0),
            response,
        )))
    }

    async fn compact(
        &self,
        request: Request<pb::CompactionRequest>,
    ) -> Result<Response<pb::CompactionResponse>, Status> {
        let credentials = self.0.credentials(&request);
        self.0.authorize_admin(credentials.clone()).await?;
        let compact = convert::compact(request.into_inner());
        match self.0.write_as(Op::Compact(compact), credentials).await? {
            Applied::Compact { revision } => {
                if compact.physical {
                    self.0.wait_compacted(compact.revision).await;
                }
                Ok(Response::new(pb::CompactionResponse {
                    header: Some(self.0.header(revision)),
                }))
            }
            _ => Err(mismatch()),
        }
    }
}
