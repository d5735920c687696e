//! The Maintenance service, as far as it is served.

use std::sync::Arc;
use std::time::Instant;

use member_proto::etcdserverpb as pb;
use member_proto::etcdserverpb::maintenance_server::Maintenance;
use member_state::{AlarmAction, AlarmMember, AlarmType};
use pb::alarm_request::AlarmAction as Asked;
use pb::downgrade_request::DowngradeAction;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

use super::{not_written, refused};
use crate::downgrade::{self, DowngradeError};
use crate::engine::Engine;
use crate::export::{self, Cluster};
use crate::node::{
    CLUSTER_VERSION, MoveLeaderError, Node, SERVER_VERSION, STORAGE_VERSION, alarm_name,
};

/// The Maintenance service.
pub(crate) struct MaintenanceService<E: Engine>(pub(crate) Arc<Node<E>>);

impl<E: Engine> MaintenanceService<E> {
    fn header(&self) -> pb::ResponseHeader {
        self.0.header(self.0.store().revision())
    }
}

/// An alarm type off the wire. One that this version does not know is none, which nothing matches.
fn alarm_in(alarm: i32) -> AlarmType {
    AlarmType::try_from(alarm).unwrap_or(AlarmType::None)
}

fn alarm_out(alarm: AlarmMember) -> pb::AlarmMember {
    pb::AlarmMember {
        member_id: alarm.member_id,
        alarm: alarm.alarm as i32,
    }
}

fn not_downgraded(error: &DowngradeError) -> Status {
    match error {
        DowngradeError::Format | DowngradeError::Target => {
            Status::invalid_argument(error.to_string())
        }
        DowngradeError::InProgress | DowngradeError::NoneInProgress => {
            Status::failed_precondition(error.to_string())
        }
        DowngradeError::Write(error) => not_written(error),
        DowngradeError::State(error) => refused(error),
    }
}

fn gone(error: tokio::task::JoinError) -> Status {
    Status::internal(format!("etcdserver: the work was given up: {error}"))
}

#[tonic::async_trait]
impl<E: Engine> Maintenance for MaintenanceService<E> {
    async fn alarm(
        &self,
        request: Request<pb::AlarmRequest>,
    ) -> Result<Response<pb::AlarmResponse>, Status> {
        let credentials = self.0.credentials(&request);
        let request = request.into_inner();
        let node = &self.0;
        match Asked::try_from(request.action) {
            Ok(Asked::Get) => node.authorize_user(credentials).await?,
            _ => node.authorize_admin(credentials).await?,
        }
        let kind = alarm_in(request.alarm);
        let change = |action| node.change_alarm(action, request.member_id, kind);
        let alarms = match Asked::try_from(request.action) {
            Ok(Asked::Get) => {
                node.linearize().await?;
                let mut alarms = node.store().alarms().map_err(|e| refused(&e))?;
                alarms.retain(|alarm| kind == AlarmType::None || alarm.alarm == kind);
                alarms
            }
            Ok(Asked::Activate) => change(AlarmAction::Activate)
                .await
                .map_err(|e| not_written(&e))?,
            Ok(Asked::Deactivate) => change(AlarmAction::Deactivate)
                .await
                .map_err(|e| not_written(&e))?,
            Err(_) => Vec::new(),
        };
        Ok(Response::new(pb::AlarmResponse {
            header: Some(self.header()),
            alarms: alarms.into_iter().map(alarm_out).collect(),
        }))
    }

    async fn status(
        &self,
        _: Request<pb::StatusRequest>,
    ) -> Result<Response<pb::StatusResponse>, Status> {
        let node = &self.0;
        let leadership = node.seen_leadership();
        let progress = node.progress();
        let store = node.store();
        let size = store.size();
        let in_use = store.size_in_use().min(size);
        let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let mut errors = Vec::new();
        if leadership.leader.is_none() {
            errors.push("etcdserver: no leader".to_owned());
        }
        for alarm in store.alarms().map_err(|e| refused(&e))? {
            // The text form of Go's protobuf, its trailing space included; zero fields are left out there.
            errors.push(match alarm.member_id {
                0 => format!("alarm:{} ", alarm_name(alarm.alarm)),
                id => format!("memberID:{id} alarm:{} ", alarm_name(alarm.alarm)),
            });
        }
        let target = store.downgrade_target().map_err(|e| refused(&e))?;
        Ok(Response::new(pb::StatusResponse {
            header: Some(node.header(store.revision())),
            version: SERVER_VERSION.to_owned(),
            db_size: bytes(size),
            leader: leadership.leader.unwrap_or(0),
            raft_index: progress.committed,
            raft_term: leadership.term,
            raft_applied_index: node.applied_index(),
            errors,
            db_size_in_use: bytes(in_use),
            is_learner: node.is_learner(),
            storage_version: STORAGE_VERSION.to_owned(),
            // etcd shows the flag, whose negative values turn the quota off.
            db_size_quota: node.replica.quota.limit().map_or(-1, bytes),
            downgrade_info: Some(pb::DowngradeInfo {
                enabled: target.is_some(),
                target_version: target.unwrap_or_default(),
            }),
        }))
    }

    async fn defragment(
        &self,
        request: Request<pb::DefragmentRequest>,
    ) -> Result<Response<pb::DefragmentResponse>, Status> {
        let credentials = self.0.credentials(&request);
        self.0.authorize_admin(credentials).await?;
        self.0.defragment().await.map_err(Status::unknown)?;
        // etcd's has no header.
        Ok(Response::new(pb::DefragmentResponse::default()))
    }

    async fn hash(
        &self,
        request: Request<pb::HashRequest>,
    ) -> Result<Response<pb::HashResponse>, Status> {
        let credentials = self.0.credentials(&request);
        self.0.authorize_admin(credentials).await?;
        let store = self.0.store();
        let began = Instant::now();
        let hash = tokio::task::spawn_blocking(move || store.hash_backend())
            .await
            .map_err(gone)?
            .map_err(|e| refused(&e))?;
        self.0.metrics.hash.observe(began.elapsed());
        Ok(Response::new(pb::HashResponse {
            header: Some(self.header()),
            hash,
        }))
    }

    async fn hash_kv(
        &self,
        request: Request<pb::HashKvRequest>,
    ) -> Result<Response<pb::HashKvResponse>, Status> {
        let credentials = self.0.credentials(&request);
        self.0.authorize_admin(credentials).await?;
        let revision = request.into_inner().revision;
        let store = self.0.store();
        let began = Instant::now();
        let found = tokio::task::spawn_blocking(move || store.hash_kv(revision))
            .await
            .map_err(gone)?
            .map_err(|e| refused(&e))?;
        self.0.metrics.hash_rev.observe(began.elapsed());
        Ok(Response::new(pb::HashKvResponse {
            header: Some(self.0.header(found.current)),
            hash: found.hash,
            compact_revision: found.compact_revision,
            hash_revision: found.revision,
        }))
    }

    async fn snapshot(
        &self,
        request: Request<pb::SnapshotRequest>,
    ) -> Result<Response<BoxStream<pb::SnapshotResponse>>, Status> {
        let credentials = self.0.credentials(&request);
        self.0.authorize_admin(credentials).await?;
        let store = self.0.store();
        let cluster = Cluster {
            members: self.0.members().map_err(|error| refused(&error))?,
            version: CLUSTER_VERSION.to_owned(),
        };
        Ok(Response::new(Box::pin(export::stream(
            store,
            cluster,
            Arc::clone(&self.0.metrics),
        ))))
    }

    async fn move_leader(
        &self,
        request: Request<pb::MoveLeaderRequest>,
    ) -> Result<Response<pb::MoveLeaderResponse>, Status> {
        let credentials = self.0.credentials(&request);
        self.0.authorize_admin(credentials).await?;
        match self.0.move_leader(request.into_inner().target_id).await {
            Ok(()) => Ok(Response::new(pb::MoveLeaderResponse {
                header: Some(self.header()),
            })),
            Err(error @ (MoveLeaderError::NotLeader | MoveLeaderError::BadTarget)) => {
                Err(Status::failed_precondition(error.to_string()))
            }
            Err(error @ (MoveLeaderError::TimedOut | MoveLeaderError::Stopped)) => {
                Err(Status::unavailable(error.to_string()))
            }
        }
    }

    async fn downgrade(
        &self,
        request: Request<pb::DowngradeRequest>,
    ) -> Result<Response<pb::DowngradeResponse>, Status> {
        let credentials = self.0.credentials(&request);
        self.0.authorize_admin(credentials).await?;
        let request = request.into_inner();
        let node = &self.0;
        node.linearize().await?;
        let done = match DowngradeAction::try_from(request.action) {
            Ok(DowngradeAction::Validate) => downgrade::validate(node, &request.version),
            Ok(DowngradeAction::Enable) => downgrade::enable(node, &request.version).await,
            Ok(DowngradeAction::Cancel) => downgrade::cancel(node).await,
            Err(_) => return Err(Status::unknown("etcdserver: unknown method")),
        };
        done.map_err(|error| not_downgraded(&error))?;
        Ok(Response::new(pb::DowngradeResponse {
            header: Some(self.header()),
            version: downgrade::cluster_version(),
        }))
    }
}
