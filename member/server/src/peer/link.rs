//! The way to one other member.
//!
//! Two connections: bulk traffic (appends, forwarded writes, snapshots) never delays the small calls (heartbeats,
//! votes, read indexes), which share one long-lived stream and are matched by id.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use member_proto::peerpb::control_request::Call;
use member_proto::peerpb::control_response::Answer;
use member_proto::peerpb::peer_client::PeerClient;
use member_proto::peerpb::{self, ControlRequest, ControlResponse, ForwardRequest, Forwarded};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::TaskTracker;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

use super::line::Line;
use crate::metrics::Peer;
use crate::proposals::Proposals;
use crate::removal::Removals;

/// Metadata key of the sender's cluster.
pub(crate) const CLUSTER_ID: &str = "cluster-id";
/// What a member of another cluster is told.
pub(crate) const CLUSTER_ID_MISMATCH: &str = "cluster ID mismatch";
/// Metadata key of the sender.
pub(crate) const MEMBER_ID: &str = "member-id";

/// Larger than any append request: one entry may be as large as a client's request, and a batch stops at 1 MiB.
pub(crate) const MAX_MESSAGE_BYTES: usize = 512 << 20;

/// Small calls that wait for a stream; more means that the peer hangs, and callers wait.
const CONTROL_QUEUE: usize = 1024;
/// Writes on their way to the leader; more than clients can have in flight makes them wait here.
const FORWARD_QUEUE: usize = 16 * 1024;
/// Writes in one message: bounds its size beside the 1.5 MiB of each.
const FORWARD_BATCH: usize = 256;

/// Why a peer gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error("peer cannot be reached")]
    Unreachable(#[source] Box<Status>),
    #[error("the stream to the peer ended before the answer")]
    Interrupted,
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    #[error("peer could not answer: {0}")]
    Refused(String),
    #[error("this member was removed from the cluster")]
    Removed,
    #[error("peer gave an answer of another kind")]
    Mismatch,
}

struct ControlCall {
    call: Call,
    answer: oneshot::Sender<Result<Answer, LinkError>>,
}

/// Who we say we are on each call.
#[derive(Clone)]
pub(crate) struct Introduction {
    cluster: MetadataValue<Ascii>,
    member: MetadataValue<Ascii>,
}

impl Introduction {
    pub(crate) fn new(cluster_id: u64, member_id: u64) -> Self {
        let hex = |id: u64| {
            MetadataValue::try_from(format!("{id:x}")).expect("hex digits are valid metadata")
        };
        Self {
            cluster: hex(cluster_id),
            member: hex(member_id),
        }
    }

    /// The message with our name on it.
    pub(crate) fn sign<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request
            .metadata_mut()
            .insert(CLUSTER_ID, self.cluster.clone());
        request
            .metadata_mut()
            .insert(MEMBER_ID, self.member.clone());
        request
    }
}

/// The way to one other member; cheap to clone.
#[derive(Clone)]
pub(crate) struct Link {
    bulk: PeerClient<Line>,
    peer: Arc<Peer>,
    introduction: Introduction,
    control: mpsc::Sender<ControlCall>,
    forward: mpsc::Sender<(u64, Forwarded)>,
    removals: Arc<Removals>,
}

impl Link {
    /// Makes the link over two lazy channels; its two tasks end when the last clone is dropped.
    pub(crate) fn new(
        bulk: Channel,
        control: Channel,
        peer: Arc<Peer>,
        introduction: Introduction,
        proposals: Arc<Proposals>,
        removals: Arc<Removals>,
        tasks: &TaskTracker,
    ) -> Self {
        let client = |channel| {
            PeerClient::new(Line::new(channel, Arc::clone(&peer)))
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES)
        };
        let (control_calls, calls) = mpsc::channel(CONTROL_QUEUE);
        tasks.spawn(run_control(
            client(control),
            introduction.clone(),
            calls,
            Arc::clone(&removals),
        ));
        let (forward, forwarded) = mpsc::channel(FORWARD_QUEUE);
        let bulk = client(bulk);
        tasks.spawn(run_forward(
            bulk.clone(),
            introduction.clone(),
            forwarded,
            proposals,
            Arc::clone(&removals),
        ));
        Self {
            bulk,
            peer,
            introduction,
            control: control_calls,
            forward,
            removals,
        }
    }

    /// Makes one small call.
    pub(crate) async fn call(&self, call: Call, patience: Duration) -> Result<Answer, LinkError> {
        let (answer, answered) = oneshot::channel();
        let exchange = async {
            self.control
                .send(ControlCall { call, answer })
                .await
                .map_err(|_| LinkError::Interrupted)?;
            answered.await.map_err(|_| LinkError::Interrupted)?
        };
        let answer = tokio::time::timeout(patience, exchange)
            .await
            .unwrap_or(Err(LinkError::TimedOut(patience)));
        if let Err(LinkError::Unreachable(_) | LinkError::Interrupted | LinkError::TimedOut(_)) =
            answer
        {
            self.peer.send_failed();
        }
        answer
    }

    /// Passes a write on, to be proposed by the peer in `term` or not at all.
    pub(crate) async fn forward(&self, id: u64, term: u64, command: Bytes) {
        // The receiver lives as long as self.
        let _ = self.forward.send((term, Forwarded { id, command })).await;
    }

    /// Opens a replication session.
    pub(crate) async fn append<S>(
        &self,
        requests: S,
    ) -> Result<Streaming<peerpb::AppendResponse>, Status>
    where
        S: futures_util::Stream<Item = peerpb::AppendRequest> + Send + 'static,
    {
        let responses = self
            .bulk
            .clone()
            .append(self.introduction.sign(requests))
            .await
            .inspect_err(|status| {
                self.peer.send_failed();
                self.removals.tell_by(status);
            })?;
        Ok(responses.into_inner())
    }

    /// Sends a checkpoint.
    pub(crate) async fn snapshot<S>(&self, chunks: S) -> Result<peerpb::SnapshotResponse, Status>
    where
        S: futures_util::Stream<Item = peerpb::SnapshotChunk> + Send + 'static,
    {
        Ok(self
            .bulk
            .clone()
            .snapshot(self.introduction.sign(chunks))
            .await
            .inspect_err(|_| self.peer.send_failed())?
            .into_inner())
    }
}

/// Serves the small calls: opens the stream when there is a call and none is open.
async fn run_control(
    client: PeerClient<Line>,
    introduction: Introduction,
    mut calls: mpsc::Receiver<ControlCall>,
    removals: Arc<Removals>,
) {
    while let Some(first) = calls.recv().await {
        let (requests, outgoing) = mpsc::channel(CONTROL_QUEUE);
        let opened = client
            .clone()
            .control(introduction.sign(ReceiverStream::new(outgoing)))
            .await;
        match opened {
            Ok(responses) => {
                control_session(
                    first,
                    requests,
                    responses.into_inner(),
                    &mut calls,
                    &removals,
                )
                .await
            }
            Err(status) => {
                removals.tell_by(&status);
                if status.message() == CLUSTER_ID_MISMATCH {
                    tracing::warn!(
                        "request sent was ignored by remote peer due to cluster ID mismatch"
                    );
                }
                let _ = first
                    .answer
                    .send(Err(LinkError::Unreachable(Box::new(status))));
            }
        }
    }
}

async fn control_session(
    first: ControlCall,
    requests: mpsc::Sender<ControlRequest>,
    mut responses: Streaming<ControlResponse>,
    calls: &mut mpsc::Receiver<ControlCall>,
    removals: &Removals,
) {
    let mut pending = HashMap::new();
    let mut last_id = 0_u64;
    let mut next = Some(first);
    loop {
        if let Some(ControlCall { call, answer }) = next.take() {
            last_id += 1;
            pending.insert(last_id, answer);
            if requests
                .send(ControlRequest {
                    id: last_id,
                    call: Some(call),
                })
                .await
                .is_err()
            {
                return;
            }
            // Callers that gave up leave their slot behind; keep the map as small as the calls in flight.
            if pending.len() > CONTROL_QUEUE {
                pending.retain(|_, answer| !answer.is_closed());
            }
        }
        tokio::select! {
            call = calls.recv() => match call {
                Some(call) => next = Some(call),
                None => return,
            },
            response = responses.message() => {
                let Ok(Some(ControlResponse { id, answer })) = response else { return };
                if matches!(answer, Some(Answer::Removed(_))) {
                    removals.tell();
                }
                if let Some(waiter) = pending.remove(&id) {
                    let _ = waiter.send(match answer {
                        Some(Answer::Error(reason)) => Err(LinkError::Refused(reason)),
                        Some(Answer::Removed(_)) => Err(LinkError::Removed),
                        Some(answer) => Ok(answer),
                        None => Err(LinkError::Mismatch),
                    });
                }
            }
        }
    }
}

/// Passes writes on in batches of what waits, in order.
async fn run_forward(
    client: PeerClient<Line>,
    introduction: Introduction,
    mut queue: mpsc::Receiver<(u64, Forwarded)>,
    proposals: Arc<Proposals>,
    removals: Arc<Removals>,
) {
    let mut batch = Vec::with_capacity(FORWARD_BATCH);
    'session: while queue.recv_many(&mut batch, FORWARD_BATCH).await > 0 {
        let (requests, outgoing) = mpsc::channel(16);
        let opened = client
            .clone()
            .forward(introduction.sign(ReceiverStream::new(outgoing)))
            .await;
        let mut responses = match opened {
            Ok(responses) => responses.into_inner(),
            Err(status) => {
                removals.tell_by(&status);
                tracing::debug!(%status, "cannot forward writes");
                // Nothing was sent: the writers may try again.
                proposals.refused(batch.drain(..).map(|(_, write)| write.id));
                continue;
            }
        };
        loop {
            let mut messages = in_terms(&mut batch).into_iter();
            while let Some(message) = messages.next() {
                if let Err(unsent) = requests.send(message).await {
                    let rest = std::iter::once(unsent.0).chain(messages);
                    proposals.refused(
                        rest.flat_map(|message| message.writes)
                            .map(|write| write.id),
                    );
                    continue 'session;
                }
            }
            tokio::select! {
                received = queue.recv_many(&mut batch, FORWARD_BATCH) => if received == 0 { return },
                response = responses.message() => match response {
                    Ok(Some(response)) => proposals.refused(response.refused),
                    Ok(None) | Err(_) => continue 'session,
                },
            }
        }
    }
}

/// Bytes after which a message with forwarded writes ends.
const FORWARD_BYTES: usize = 4 << 20;

/// Groups a batch into messages of one term each.
fn in_terms(batch: &mut Vec<(u64, Forwarded)>) -> Vec<ForwardRequest> {
    let mut requests: Vec<ForwardRequest> = Vec::with_capacity(1);
    let mut bytes = 0;
    for (term, write) in batch.drain(..) {
        bytes += write.command.len();
        match requests.last_mut() {
            Some(last) if last.term == term && bytes <= FORWARD_BYTES => last.writes.push(write),
            _ => {
                bytes = write.command.len();
                requests.push(ForwardRequest {
                    term,
                    writes: vec![write],
                });
            }
        }
    }
    requests
}
