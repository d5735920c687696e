//! openraft's outgoing calls over the links to the peers.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::Stream;
use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, StreamExt};
use member_log::{Peer, TypeConfig};
use member_proto::peerpb::control_request::Call;
use member_proto::peerpb::control_response::Answer;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{
    Backoff, NetBackoff, NetSnapshot, NetStreamAppend, NetTransferLeader, NetVote, RPCOption,
    RaftNetworkFactory,
};
use openraft::raft::{
    AppendEntriesRequest, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::type_config::alias::{SnapshotOf, VoteOf};

use super::Settings;
use super::snapshot::{self, Checkpoint};
use super::wire::{self, WireError};
use crate::metrics::Metrics;
use crate::peer::link::{Link, LinkError};
use crate::peer::links::Links;

type C = TypeConfig;

/// Makes the outgoing side of a member's links.
pub(super) struct Network {
    links: Arc<Links>,
    metrics: Arc<Metrics>,
    election_timeout: Duration,
    heartbeat: Duration,
}

impl Network {
    pub(super) fn new(links: Arc<Links>, metrics: Arc<Metrics>, settings: &Settings) -> Self {
        Self {
            links,
            metrics,
            election_timeout: settings.election_timeout,
            heartbeat: settings.heartbeat,
        }
    }

    fn client(&self, target: u64, node: &Peer, lane: Lane) -> PeerNetwork {
        PeerNetwork {
            links: Arc::clone(&self.links),
            target,
            peer_urls: node.peer_urls.clone(),
            lane,
            patience: self.election_timeout,
            metrics: Arc::clone(&self.metrics),
            heartbeat: self.heartbeat,
            last_heartbeat: None,
        }
    }
}

impl RaftNetworkFactory<C> for Network {
    type Network = PeerNetwork;

    async fn new_client(&mut self, target: u64, node: &Peer) -> PeerNetwork {
        self.client(target, node, Lane::Bulk)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &Peer) -> PeerNetwork {
        self.client(target, node, Lane::Control)
    }
}

/// Which of a link's connections append requests take.
#[derive(Clone, Copy)]
enum Lane {
    /// A pipelined stream: replication.
    Bulk,
    /// Single small calls: heartbeats and leadership checks.
    Control,
}

/// Calls one peer.
pub(super) struct PeerNetwork {
    links: Arc<Links>,
    target: u64,
    /// Those of the time when openraft asked for this; the links know the later ones.
    peer_urls: Vec<String>,
    lane: Lane,
    patience: Duration,
    metrics: Arc<Metrics>,
    heartbeat: Duration,
    /// When the last heartbeat began to be sent; openraft gives each up after one interval.
    last_heartbeat: Option<Instant>,
}

impl From<LinkError> for RPCError<C> {
    fn from(error: LinkError) -> Self {
        match error {
            LinkError::Unreachable(_) => RPCError::Unreachable(Unreachable::new(&error)),
            _ => RPCError::Network(NetworkError::new(&error)),
        }
    }
}

fn malformed(error: &WireError) -> RPCError<C> {
    RPCError::Network(NetworkError::new(error))
}

impl PeerNetwork {
    /// The link of now: it is another one after a change of the peer's URLs.
    fn link(&self) -> Link {
        self.links
            .known(self.target)
            .unwrap_or_else(|| self.links.to(self.target, &self.peer_urls))
    }

    /// A heartbeat begins; as etcd, it is late after two intervals.
    fn note_heartbeat(&mut self) {
        let now = Instant::now();
        let last = self.last_heartbeat.replace(now);
        if let Some(last) = last
            && now - last > 2 * self.heartbeat
        {
            self.metrics.late_heartbeats.one();
            tracing::warn!(
                to = %format_args!("{:x}", self.target),
                "heartbeat-interval" = ?self.heartbeat,
                "exceeded-duration" = ?(now - last - 2 * self.heartbeat),
                "leader failed to send out heartbeat on time; took too long, leader is overloaded likely from slow disk"
            );
        }
    }

    async fn heartbeat(
        link: &Link,
        request: AppendEntriesRequest<C>,
        patience: Duration,
    ) -> Result<StreamAppendResult<C>, RPCError<C>> {
        let call = Call::Heartbeat(
            wire::append_out(request).map_err(|e| RPCError::Network(NetworkError::new(&e)))?,
        );
        match link.call(call, patience).await? {
            Answer::Heartbeat(response) => wire::appended_in(response).map_err(|e| malformed(&e)),
            _ => Err(LinkError::Mismatch.into()),
        }
    }

    async fn ask_vote(&self, call: Call) -> Result<VoteResponse<C>, RPCError<C>> {
        match self.link().call(call, self.patience).await? {
            Answer::Vote(response) => wire::vote_response_in(response).map_err(|e| malformed(&e)),
            _ => Err(LinkError::Mismatch.into()),
        }
    }
}

type Appended<'s> = BoxStream<'s, Result<StreamAppendResult<C>, RPCError<C>>>;

impl NetStreamAppend<C> for PeerNetwork {
    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> BoxFuture<'s, Result<Appended<'s>, RPCError<C>>>
    where
        S: Stream<Item = AppendEntriesRequest<C>> + Send + Unpin + 'static,
    {
        match self.lane {
            Lane::Control => {
                self.note_heartbeat();
                let (link, patience) = (self.link(), self.patience);
                let responses = input.then(move |request| {
                    let link = link.clone();
                    async move { Self::heartbeat(&link, request, patience).await }
                });
                Box::pin(async move { Ok(responses.boxed()) })
            }
            Lane::Bulk => Box::pin(async move {
                // A membership that cannot be encoded is a bug of ours; the session ends and is logged by openraft.
                let requests = input
                    .map(wire::append_out)
                    .take_while(|r| std::future::ready(r.is_ok()))
                    .filter_map(|r| std::future::ready(r.ok()));
                let responses =
                    self.link().append(requests).await.map_err(|status| {
                        RPCError::from(LinkError::Unreachable(Box::new(status)))
                    })?;
                Ok(responses
                    .map(|response| match response {
                        Ok(response) => wire::appended_in(response).map_err(|e| malformed(&e)),
                        Err(status) => Err(LinkError::Unreachable(Box::new(status)).into()),
                    })
                    .boxed())
            }),
        }
    }
}

impl NetVote<C> for PeerNetwork {
    async fn vote(
        &mut self,
        rpc: VoteRequest<C>,
        _option: RPCOption,
    ) -> Result<VoteResponse<C>, RPCError<C>> {
        self.ask_vote(Call::Vote(wire::vote_request_out(&rpc)))
            .await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<C>,
        _option: RPCOption,
    ) -> Result<VoteResponse<C>, RPCError<C>> {
        self.ask_vote(Call::PreVote(wire::vote_request_out(&rpc)))
            .await
    }
}

impl NetTransferLeader<C> for PeerNetwork {
    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<C>,
        _option: RPCOption,
    ) -> Result<TransferLeaderResponse<C>, RPCError<C>> {
        match self
            .link()
            .call(Call::Transfer(wire::transfer_out(&req)), self.patience)
            .await?
        {
            Answer::Transfer(response) if response.accepted => Ok(Ok(())),
            Answer::Transfer(response) => Err(LinkError::Refused(response.reason).into()),
            _ => Err(LinkError::Mismatch.into()),
        }
    }
}

impl NetSnapshot<C> for PeerNetwork {
    type SnapshotData = Checkpoint;

    async fn full_snapshot(
        &mut self,
        vote: VoteOf<C>,
        snapshot: SnapshotOf<C, Checkpoint>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<C>, StreamingError<C>> {
        let io = |e: io::Error| StreamingError::Network(NetworkError::new(&e));
        let chunks = snapshot::chunks(&vote, snapshot).map_err(io)?;
        let link = self.link();
        let peer = self.metrics.peers.of(self.target);
        let transfer = peer.snapshots_out.begin();
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = link.snapshot(chunks) => {
                let response = sent.map_err(|status| StreamingError::Unreachable(Unreachable::new(&status)))?;
                let vote = wire::vote_in(response.vote).map_err(|e| StreamingError::Network(NetworkError::new(&e)))?;
                transfer.done();
                Ok(SnapshotResponse::new(vote))
            }
        }
    }
}

impl NetBackoff<C> for PeerNetwork {
    /// A peer that restarts is found again within a heartbeat or two.
    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(std::iter::repeat(Duration::from_millis(100))))
    }
}
