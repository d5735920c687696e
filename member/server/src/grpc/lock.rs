//! The Lock service: a lock is a queue, its holder the first place.

use std::sync::Arc;

use bytes::Bytes;
use member_proto::v3lockpb as pb;
use member_proto::v3lockpb::lock_server::Lock;
use tonic::{Request, Response, Status};

use super::caller::Caller;
use super::queue::Place;
use crate::engine::Engine;
use crate::node::Node;

/// The Lock service.
pub(crate) struct LockService<E: Engine>(pub(crate) Arc<Node<E>>);

/// etcd 3.5: what a waiting caller hears whose lease has ended.
fn expired() -> Status {
    Status::unknown("mutex: session is expired")
}

#[tonic::async_trait]
impl<E: Engine> Lock for LockService<E> {
    async fn lock(
        &self,
        request: Request<pb::LockRequest>,
    ) -> Result<Response<pb::LockResponse>, Status> {
        let (caller, pb::LockRequest { name, lease }) = Caller::of(&self.0, request);
        let (mut place, _) = Place::take(&caller, &name, lease, Bytes::new()).await?;
        let waited = place.come_first(expired).await?;
        let revision = waited.unwrap_or(place.revision());
        Ok(Response::new(pb::LockResponse {
            header: caller.header(revision),
            key: place.keep().key,
        }))
    }

    async fn unlock(
        &self,
        request: Request<pb::UnlockRequest>,
    ) -> Result<Response<pb::UnlockResponse>, Status> {
        let (caller, pb::UnlockRequest { key }) = Caller::of(&self.0, request);
        let revision = caller.delete(key).await?;
        Ok(Response::new(pb::UnlockResponse {
            header: caller.header(revision),
        }))
    }
}
