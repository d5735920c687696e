//! The Cluster service.

use std::sync::Arc;

use member_proto::etcdserverpb as pb;
use member_proto::etcdserverpb::cluster_server::Cluster;
use tonic::{Request, Response, Status};

use super::refused;
use crate::consensus::Refusal;
use crate::engine::Engine;
use crate::node::Node;

/// The Cluster service.
pub(crate) struct ClusterService<E: Engine>(pub(crate) Arc<Node<E>>);

/// etcd's code for a change of the members that was not made. Source: etcd 3.6, `rpctypes/error.go`.
fn unchanged(refusal: Refusal) -> Status {
    let text = refusal.to_string();
    match refusal {
        Refusal::MemberNotFound => Status::not_found(text),
        Refusal::BadUrls => Status::invalid_argument(text),
        Refusal::IdExists
        | Refusal::PeerUrlExists
        | Refusal::TooManyLearners
        | Refusal::NotLearner
        | Refusal::LearnerNotReady
        | Refusal::NotEnoughStarted => Status::failed_precondition(text),
        Refusal::NotLeader
        | Refusal::Busy
        | Refusal::Unknown
        | Refusal::Unhealthy
        | Refusal::TimedOut
        | Refusal::Stopped => Status::unavailable(text),
    }
}

impl<E: Engine> ClusterService<E> {
    fn members(&self) -> Result<(Option<pb::ResponseHeader>, Vec<pb::Member>), Status> {
        let members = self.0.members().map_err(|e| refused(&e))?;
        // etcd's member lists carry no revision.
        Ok((Some(self.0.header(0)), members))
    }
}

#[tonic::async_trait]
impl<E: Engine> Cluster for ClusterService<E> {
    async fn member_add(
        &self,
        request: Request<pb::MemberAddRequest>,
    ) -> Result<Response<pb::MemberAddResponse>, Status> {
        let credentials = self.0.credentials(&request);
        self.0.authorize_admin(credentials).await?;
        let request = request.into_inner();
        let id = self
            .0
            .add_member(&request.peer_ur_ls, request.is_learner)
            .await
            .map_err(unchanged)?;
        let (header, members) = self.members()?;
        Ok(Response::new(pb::MemberAddResponse {
            header,
            member: members.iter().find(|member| member.id == id).cloned(),
            members,
        }))
    }

    async fn member_remove(
        &self,
        request: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        let credentials = self.0.credentials(&request);
        self.0.authorize_admin(credentials).await?;
        let id = request.into_inner().id;
        self.0.remove_member(id).await.map_err(unchanged)?;
        let (header, mut members) = self.members()?;
        // A member that removed itself may not have applied it.
        members.retain(|member| member.id != id);
        Ok(Response::new(pb::MemberRemoveResponse { header, members }))
    }

    async fn member_update(
        &self,
        request: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        let credentials = self.0.credentials(&request);
        self.0.authorize_admin(credentials).await?;
        let request = request.into_inner();
        self.0
            .update_member(request.id, &request.peer_ur_ls)
            .await
            .map_err(unchanged)?;
        let (header, members) = self.members()?;
        Ok(Response::new(pb::MemberUpdateResponse { header, members }))
    }

    async fn member_list(
        &self,
        request: Request<pb::MemberListRequest>,
    ) -> Result<Response<pb::MemberListResponse>, Status> {
        let credentials = self.0.credentials(&request);
        if request.into_inner().linearizable {
            self.0.linearize().await?;
        }
        self.0.authorize_user(credentials).await?;
        let (header, members) = self.members()?;
        Ok(Response::new(pb::MemberListResponse { header, members }))
    }

    async fn member_promote(
        &self,
        request: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        let credentials = self.0.credentials(&request);
        self.0.authorize_admin(credentials).await?;
        let id = request.into_inner().id;
        self.0.promote_member(id).await.map_err(unchanged)?;
        let (header, members) = self.members()?;
        Ok(Response::new(pb::MemberPromoteResponse { header, members }))
    }
}
