//! The Cluster service.

use std::sync::Arc;

use member_proto::etcdserverpb as pb;
use member_proto::etcdserverpb::cluster_server::Cluster;
use tonic::{Request, Response, Status};

use super::refused;
use crate::engine::Engine;
use crate::node::Node;

/// The Cluster service.
pub(crate) struct ClusterService<E: Engine>(pub(crate) Arc<Node<E>>);

#[tonic::async_trait]
impl<E: Engine> Cluster for ClusterService<E> {
    async fn member_list(
        &self,
        request: Request<pb::MemberListRequest>,
    ) -> Result<Response<pb::MemberListResponse>, Status> {
        let credentials = self.0.credentials(&request);
        if request.into_inner().linearizable {
            self.0.linearize().await?;
        }
        self.0.authorize_user(credentials).await?;
        let members = self.0.members().map_err(|e| refused(&e))?;
        // etcd's member lists carry no revision.
        Ok(Response::new(pb::MemberListResponse {
            header: Some(self.0.header(0)),
            members,
        }))
    }
}
