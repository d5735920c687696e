//! The service that other members call.

use std::sync::Arc;

use futures_util::stream::FuturesUnordered;
use futures_util::{Stream, StreamExt};
use member_proto::peerpb::control_request::Call;
use member_proto::peerpb::control_response::Answer;
use member_proto::peerpb::peer_server::Peer;
use member_proto::peerpb::{
    AppendRequest, AppendResponse, ControlRequest, ControlResponse, ForwardRequest,
    ForwardResponse, SnapshotChunk, SnapshotResponse,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, UnboundedReceiverStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status, Streaming};

use super::link::{CLUSTER_ID, CLUSTER_ID_MISMATCH, MEMBER_ID};
use crate::consensus::Consensus;
use crate::engine::Engine;
use crate::leases::Leases;
use crate::removal::{self, Removals};

/// Answers that wait for the connection; the peer has at most as many calls in flight.
const ANSWERS: usize = 1024;

/// The service that other members call.
pub(crate) struct PeerService<E: Engine> {
    pub(crate) consensus: Arc<Consensus<E>>,
    pub(crate) leases: Arc<Leases<E>>,
    pub(crate) cluster_id: u64,
    pub(crate) removals: Arc<Removals>,
    pub(crate) tasks: TaskTracker,
    pub(crate) stopping: CancellationToken,
}

impl<E: Engine> PeerService<E> {
    /// Refuses members of other clusters, and those that were removed from this one.
    fn admit<T>(&self, request: Request<T>) -> Result<T, Status> {
        let theirs = hex(&request, CLUSTER_ID);
        if theirs == Some(self.cluster_id) {
            if sender(&request).is_some_and(|id| self.removals.contains(id)) {
                return Err(removal::refusal());
            }
            return Ok(request.into_inner());
        }
        let remote = theirs.map_or_else(|| "unknown".to_owned(), |id| format!("{id:x}"));
        tracing::warn!(
            "local-member-cluster-id" = %format_args!("{:x}", self.cluster_id),
            "remote-peer-cluster-id" = remote,
            "request cluster ID mismatch"
        );
        Err(Status::failed_precondition(CLUSTER_ID_MISMATCH))
    }
}

fn hex<T>(request: &Request<T>, key: &str) -> Option<u64> {
    let id = request.metadata().get(key)?.to_str().ok()?;
    u64::from_str_radix(id, 16).ok()
}

/// Who calls.
fn sender<T>(request: &Request<T>) -> Option<u64> {
    hex(request, MEMBER_ID)
}

#[tonic::async_trait]
impl<E: Engine> Peer for PeerService<E> {
    async fn append(
        &self,
        request: Request<Streaming<AppendRequest>>,
    ) -> Result<Response<BoxStream<AppendResponse>>, Status> {
        // Both sides end: openraft holds on to the requests for as long as they may come.
        let requests = ended_by_error(self.admit(request)?)
            .take_until(self.stopping.clone().cancelled_owned());
        let stopped = self.stopping.clone().cancelled_owned();
        let responses = self
            .consensus
            .append_session(requests)
            .take_until(stopped)
            .map(Ok);
        Ok(Response::new(Box::pin(responses)))
    }

    async fn control(
        &self,
        request: Request<Streaming<ControlRequest>>,
    ) -> Result<Response<BoxStream<ControlResponse>>, Status> {
        let from = sender(&request).unwrap_or_default();
        let mut requests = self.admit(request)?;
        let consensus = Arc::clone(&self.consensus);
        let leases = Arc::clone(&self.leases);
        let removals = Arc::clone(&self.removals);
        let stopping = self.stopping.clone();
        let (answers, outgoing) = mpsc::channel(ANSWERS);
        self.tasks.spawn(async move {
            let mut working = FuturesUnordered::new();
            loop {
                tokio::select! {
                    () = stopping.cancelled() => return,
                    request = requests.message() => {
                        let Ok(Some(ControlRequest { id, call: Some(call) })) = request else { return };
                        let (consensus, leases, removals) = (&consensus, &leases, &removals);
                        working.push(async move {
                            let answer = match call {
                                Call::Lease(request) if !removals.contains(from) => Answer::Lease(leases.answer(request).await),
                                call => consensus.answer(from, call).await,
                            };
                            ControlResponse { id, answer: Some(answer) }
                        });
                    }
                    Some(response) = working.next() => {
                        if answers.send(Ok(response)).await.is_err() {
                            return;
                        }
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }

    async fn forward(
        &self,
        request: Request<Streaming<ForwardRequest>>,
    ) -> Result<Response<BoxStream<ForwardResponse>>, Status> {
        let mut requests = self.admit(request)?;
        let consensus = Arc::clone(&self.consensus);
        let stopping = self.stopping.clone();
        // Unbounded, but never longer than the follower's own bounded count of writes in flight.
        let (refused, refusals) = mpsc::unbounded_channel();
        self.tasks.spawn(async move {
            loop {
                tokio::select! {
                    () = stopping.cancelled() => return,
                    request = requests.message() => {
                        let Ok(Some(request)) = request else { return };
                        consensus.propose_forwarded(request, &refused).await;
                    }
                }
            }
        });
        let refusals = UnboundedReceiverStream::new(refusals)
            .ready_chunks(256)
            .map(|refused| Ok(ForwardResponse { refused }));
        Ok(Response::new(Box::pin(refusals)))
    }

    async fn snapshot(
        &self,
        request: Request<Streaming<SnapshotChunk>>,
    ) -> Result<Response<SnapshotResponse>, Status> {
        let from = sender(&request).unwrap_or_default();
        let chunks = self
            .admit(request)?
            .map(|chunk| chunk.map_err(std::io::Error::other));
        let response = Arc::clone(&self.consensus)
            .receive_snapshot(from, chunks)
            .await
            .map_err(|error| {
                tracing::warn!(%error, "cannot install a snapshot");
                Status::internal(error.to_string())
            })?;
        Ok(Response::new(response))
    }
}

/// A connection that breaks ends the stream; the sender sees it too.
fn ended_by_error<T: Send + 'static>(
    stream: Streaming<T>,
) -> impl Stream<Item = T> + Send + 'static {
    stream
        .take_while(|message| std::future::ready(message.is_ok()))
        .filter_map(|message| std::future::ready(message.ok()))
}
