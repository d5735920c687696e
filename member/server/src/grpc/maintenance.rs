//! The Maintenance service, as far as it is served.

use std::sync::Arc;

use member_proto::etcdserverpb as pb;
use member_proto::etcdserverpb::maintenance_server::Maintenance;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

use super::refused;
use crate::engine::Engine;
use crate::export::{self, Cluster};
use crate::node::{CLUSTER_VERSION, MoveLeaderError, Node, SERVER_VERSION};

/// The Maintenance service.
pub(crate) struct MaintenanceService<E: Engine>(pub(crate) Arc<Node<E>>);

#[tonic::async_trait]
impl<E: Engine> Maintenance for MaintenanceService<E> {
    async fn status(
        &self,
        _: Request<pb::StatusRequest>,
    ) -> Result<Response<pb::StatusResponse>, Status> {
        let node = &self.0;
        let leadership = node.seen_leadership();
        let progress = node.progress();
        let store = node.store();
        let size = i64::try_from(store.size()).unwrap_or(i64::MAX);
        let errors = if leadership.leader.is_none() {
            vec!["etcdserver: no leader".to_owned()]
        } else {
            Vec::new()
        };
        Ok(Response::new(pb::StatusResponse {
            header: Some(node.header(store.revision())),
            version: SERVER_VERSION.to_owned(),
            db_size: size,
            leader: leadership.leader.unwrap_or(0),
            raft_index: progress.committed,
            raft_term: leadership.term,
            raft_applied_index: node.applied_index(),
            errors,
            db_size_in_use: size,
            is_learner: node.is_learner(),
            storage_version: String::new(),
            db_size_quota: 0,
            downgrade_info: None,
        }))
    }

    async fn snapshot(
        &self,
        _: Request<pb::SnapshotRequest>,
    ) -> Result<Response<BoxStream<pb::SnapshotResponse>>, Status> {
        let store = self.0.store();
        let cluster = Cluster {
            members: self.0.members().map_err(|error| refused(&error))?,
            version: CLUSTER_VERSION.to_owned(),
        };
        Ok(Response::new(Box::pin(export::stream(store, cluster))))
    }

    async fn move_leader(
        &self,
        request: Request<pb::MoveLeaderRequest>,
    ) -> Result<Response<pb::MoveLeaderResponse>, Status> {
        match self.0.move_leader(request.into_inner().target_id).await {
            Ok(()) => Ok(Response::new(pb::MoveLeaderResponse {
                header: Some(self.0.header(self.0.store().revision())),
            })),
            Err(error @ (MoveLeaderError::NotLeader | MoveLeaderError::BadTarget)) => {
                Err(Status::failed_precondition(error.to_string()))
            }
            Err(error @ (MoveLeaderError::TimedOut | MoveLeaderError::Stopped)) => {
                Err(Status::unavailable(error.to_string()))
            }
        }
    }
}
