//! The health service of gRPC: as in etcd, the server as a whole (service "") serves, and no other name is known.

use futures_util::{StreamExt, stream};
use member_proto::healthpb::health_check_response::ServingStatus;
use member_proto::healthpb::health_server::Health;
use member_proto::healthpb::{HealthCheckRequest, HealthCheckResponse};
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

/// The health service of gRPC.
pub(crate) struct HealthService;

fn status_of(service: &str) -> Option<ServingStatus> {
    service.is_empty().then_some(ServingStatus::Serving)
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse {
        status: status.into(),
    }
}

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        match status_of(&request.get_ref().service) {
            Some(status) => Ok(Response::new(answer(status))),
            None => Err(Status::not_found("unknown service")),
        }
    }

    /// Says the status now and when it changes, which it never does while the member answers.
    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<BoxStream<HealthCheckResponse>>, Status> {
        let status = status_of(&request.get_ref().service).unwrap_or(ServingStatus::ServiceUnknown);
        let changes = stream::iter([Ok(answer(status))]).chain(stream::pending());
        Ok(Response::new(Box::pin(changes)))
    }
}
