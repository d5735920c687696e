//! The Lease service.

use std::sync::Arc;

use futures_util::{StreamExt, stream};
use member_proto::etcdserverpb as pb;
use member_proto::etcdserverpb::lease_server::Lease;
use member_state::{LeaseGrant, LeaseRevoke, Op, Response as Applied, validate_lease_grant};
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status, Streaming};

use super::{mismatch, refused};
use crate::engine::Engine;
use crate::leases::Unanswered;
use crate::node::Node;

/// The Lease service.
pub(crate) struct LeaseService<E: Engine>(pub(crate) Arc<Node<E>>);

fn unanswered(error: &Unanswered) -> Status {
    match error {
        Unanswered::State(error) => refused(error),
        Unanswered::NoLeader | Unanswered::TimedOut | Unanswered::Stopped => {
            Status::unavailable(error.to_string())
        }
    }
}

/// What an answer's header shows now.
fn header<E: Engine>(node: &Node<E>) -> Option<pb::ResponseHeader> {
    Some(node.header(node.store().revision()))
}

/// Answers one renewal.
async fn keep_alive<E: Engine>(
    node: &Node<E>,
    id: i64,
) -> Result<pb::LeaseKeepAliveResponse, Status> {
    // Taken before the renewal: the lease lived at this revision, whatever ends it afterwards.
    let header = header(node);
    let ttl = node.leases.renew(id).await.map_err(|e| unanswered(&e))?;
    Ok(pb::LeaseKeepAliveResponse { header, id, ttl })
}

#[tonic::async_trait]
impl<E: Engine> Lease for LeaseService<E> {
    async fn lease_grant(
        &self,
        request: Request<pb::LeaseGrantRequest>,
    ) -> Result<Response<pb::LeaseGrantResponse>, Status> {
        let credentials = self.0.credentials(&request);
        let pb::LeaseGrantRequest { ttl, id } = request.into_inner();
        let grant = LeaseGrant {
            ttl: self.0.leases.at_least(ttl),
            id: if id == 0 { self.0.new_lease_id() } else { id },
        };
        validate_lease_grant(&grant).map_err(|e| refused(&e))?;
        match self.0.write_as(Op::LeaseGrant(grant), credentials).await? {
            Applied::LeaseGrant { revision } => Ok(Response::new(pb::LeaseGrantResponse {
                header: Some(self.0.header(revision)),
                id: grant.id,
                ttl: grant.ttl,
                error: String::new(),
            })),
            _ => Err(mismatch()),
        }
    }

    async fn lease_revoke(
        &self,
        request: Request<pb::LeaseRevokeRequest>,
    ) -> Result<Response<pb::LeaseRevokeResponse>, Status> {
        let credentials = self.0.credentials(&request);
        let pb::LeaseRevokeRequest { id } = request.into_inner();
        let revoke = Op::LeaseRevoke(LeaseRevoke { id });
        match self.0.write_as(revoke, credentials).await? {
            Applied::LeaseRevoke { revision } => Ok(Response::new(pb::LeaseRevokeResponse {
                header: Some(self.0.header(revision)),
            })),
            _ => Err(mismatch()),
        }
    }

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<pb::LeaseKeepAliveRequest>>,
    ) -> Result<Response<BoxStream<pb::LeaseKeepAliveResponse>>, Status> {
        let node = Arc::clone(&self.0);
        let stopping = node.leases.stopping().cancelled_owned();
        // One renewal after another, as in etcd; an error is the stream's last word.
        let answers = stream::unfold(
            (node, Some(request.into_inner())),
            |(node, requests)| async move {
                let mut requests = requests?;
                let answer = match requests.message().await {
                    Ok(Some(request)) => keep_alive(&node, request.id).await,
                    Ok(None) => return None,
                    Err(status) => Err(status),
                };
                let requests = answer.is_ok().then_some(requests);
                Some((answer, (node, requests)))
            },
        );
        Ok(Response::new(Box::pin(answers.take_until(stopping))))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<pb::LeaseTimeToLiveRequest>,
    ) -> Result<Response<pb::LeaseTimeToLiveResponse>, Status> {
        let credentials = self.0.credentials(&request);
        let pb::LeaseTimeToLiveRequest { id, keys } = request.into_inner();
        self.0.linearize().await?;
        let header = header(&self.0);
        let found = self.0.leases.look(id).await.map_err(|e| unanswered(&e))?;
        let Some((ttl, granted_ttl)) = found else {
            return Ok(Response::new(pb::LeaseTimeToLiveResponse {
                header,
                id,
                ttl: -1,
                ..Default::default()
            }));
        };
        let keys = if keys {
            let store = self.0.store();
            let keys = tokio::task::spawn_blocking(move || store.lease_keys(id))
                .await
                .map_err(|_| mismatch())?
                .map_err(|e| refused(&e))?;
            // Names of keys are told to those who may read every one of them.
            let reading = self
                .0
                .begin_read(credentials, |auth, caller| {
                    let mut keys = keys.iter();
                    Ok(keys.try_for_each(|key| auth.may_read(caller, key, &[]))?)
                })
                .await?;
            self.0.end_read(&reading)?;
            keys
        } else {
            Vec::new()
        };
        Ok(Response::new(pb::LeaseTimeToLiveResponse {
            header,
            id,
            ttl,
            granted_ttl,
            keys,
        }))
    }

    async fn lease_leases(
        &self,
        _: Request<pb::LeaseLeasesRequest>,
    ) -> Result<Response<pb::LeaseLeasesResponse>, Status> {
        let header = header(&self.0);
        let replica = Arc::clone(&self.0.replica);
        let leases = tokio::task::spawn_blocking(move || {
            let mut leases = replica.store().leases()?;
            replica.leases.sort(&mut leases);
            Ok(leases)
        });
        let leases = leases
            .await
            .map_err(|_| mismatch())?
            .map_err(|e| refused(&e))?;
        Ok(Response::new(pb::LeaseLeasesResponse {
            header,
            leases: leases
                .into_iter()
                .map(|lease| pb::LeaseStatus { id: lease.id })
                .collect(),
        }))
    }
}
