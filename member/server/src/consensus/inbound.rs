//! The peers' calls, coming in.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use member_proto::peerpb::control_request::Call;
use member_proto::peerpb::control_response::Answer;
use member_proto::peerpb::{
    self, AppendRequest, AppendResponse, ForwardRequest, SnapshotChunk, SnapshotResponse,
};
use openraft::raft::StreamAppendResult;
use tokio::sync::mpsc;

use super::snapshot::Receiving;
use super::{Consensus, Refused, wire};
use crate::corruption;
use crate::engine::Engine;

/// Notes that a leader was heard now.
fn note(heard: &AtomicU64, started: Instant) {
    heard.store(
        u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        Ordering::Relaxed,
    );
}

impl<E: Engine> Consensus<E> {
    /// Serves one replication session; ends at the first refusal, after which the leader opens another.
    pub(crate) fn append_session(
        &self,
        requests: impl Stream<Item = AppendRequest> + Send + 'static,
    ) -> impl Stream<Item = AppendResponse> + Send + 'static {
        let (heard, started) = (Arc::clone(&self.heard), self.started);
        // A request that does not decode ends the session, as a broken connection would.
        let requests = requests
            .inspect(move |_| note(&heard, started))
            .map(wire::append_in)
            .inspect(|request| {
                if let Err(error) = request {
                    tracing::warn!(%error, "bad append request from a peer");
                }
            })
            .take_while(|request| std::future::ready(request.is_ok()))
            .filter_map(|request| std::future::ready(request.ok()));
        self.raft
            .stream_append(requests)
            .take_while(|result| std::future::ready(result.is_ok()))
            .filter_map(|result| std::future::ready(result.ok().as_ref().map(wire::appended_out)))
    }

    /// Answers one small call of the member `from`.
    pub(crate) async fn answer(&self, from: u64, call: Call) -> Answer {
        if self.removals.contains(from) {
            return Answer::Removed(peerpb::RemovedAnswer {});
        }
        match self.try_answer(call).await {
            Ok(answer) => answer,
            Err(error) => Answer::Error(error.to_string()),
        }
    }

    async fn try_answer(&self, call: Call) -> io::Result<Answer> {
        Ok(match call {
            Call::Heartbeat(request) => {
                note(&self.heard, self.started);
                let request = wire::append_in(request).map_err(io::Error::other)?;
                let previous = request.prev_log_id;
                let last = request
                    .entries
                    .last()
                    .map(|entry| entry.log_id)
                    .or(previous);
                let response = self
                    .raft
                    .append_entries(request)
                    .await
                    .map_err(io::Error::other)?;
                let result: StreamAppendResult<_> = response.into_stream_result(previous, last);
                Answer::Heartbeat(wire::appended_out(&result))
            }
            Call::Vote(request) => {
                let request = wire::vote_request_in(request).map_err(io::Error::other)?;
                let response = self.raft.vote(request).await.map_err(io::Error::other)?;
                Answer::Vote(wire::vote_response_out(&response))
            }
            Call::PreVote(request) => {
                let request = wire::vote_request_in(request).map_err(io::Error::other)?;
                let response = self
                    .raft
                    .pre_vote(request)
                    .await
                    .map_err(io::Error::other)?;
                Answer::Vote(wire::vote_response_out(&response))
            }
            Call::Transfer(request) => {
                let request = wire::transfer_in(request).map_err(io::Error::other)?;
                let response = self
                    .raft
                    .handle_transfer_leader(request)
                    .await
                    .map_err(io::Error::other)?;
                Answer::Transfer(peerpb::TransferResponse {
                    accepted: response.is_ok(),
                    reason: response.err().map(|e| e.to_string()).unwrap_or_default(),
                })
            }
            Call::MemberKnown(request) => {
                let attributes = self
                    .replica
                    .store()
                    .attributes()
                    .map_err(io::Error::other)?;
                Answer::MemberKnown(peerpb::MemberKnownResponse {
                    // A member may have voted and stored entries before it could say its name.
                    started: attributes.contains_key(&request.id)
                        || self.has_replicated_to(request.id),
                })
            }
            Call::Hash(request) => {
                let store = self.replica.store();
                let hash = tokio::task::spawn_blocking(move || store.hash_kv(request.revision));
                Answer::Hash(corruption::answer(hash.await.map_err(io::Error::other)?)?)
            }
            Call::Lease(_) => return Err(io::Error::other("leases are none of consensus's")),
            Call::Membership(request) => Answer::Membership(self.change_for_peer(request).await),
            Call::Removed(notice) => {
                if notice.id == self.id {
                    self.removals.tell();
                }
                Answer::Heard(peerpb::RemovedHeard {})
            }
            Call::ReadIndex(_) => {
                let index = self.read_index().await.ok();
                Answer::ReadIndex(peerpb::ReadIndexResponse {
                    index: index.map(|index| peerpb::LogId { term: 0, index }),
                })
            }
        })
    }

    /// Proposes what a follower passes on; `refused` hears of what was not appended.
    pub(crate) async fn propose_forwarded(
        &self,
        request: ForwardRequest,
        refused: &mpsc::UnboundedSender<u64>,
    ) {
        let tell: Refused = {
            let refused = refused.clone();
            // A follower that has gone asks again itself.
            Arc::new(move |id| {
                let _ = refused.send(id);
            })
        };
        for write in request.writes {
            // A message's buffer holds many commands: a copy of its own lets the buffer go early.
            let command = Bytes::copy_from_slice(&write.command);
            if self
                .propose_for(request.term, write.id, command, Arc::clone(&tell))
                .await
                .is_err()
            {
                tell(write.id);
            }
        }
    }

    /// Receives and installs a checkpoint of the member `from`.
    pub(crate) async fn receive_snapshot(
        self: Arc<Self>,
        from: u64,
        mut chunks: impl Stream<Item = io::Result<SnapshotChunk>> + Send + Unpin,
    ) -> io::Result<SnapshotResponse> {
        let began = Instant::now();
        let metrics = Arc::clone(&self.replica.metrics);
        let peer = metrics.peers.of(from);
        let transfer = peer.snapshots_in.begin();
        let first = chunks.next().await.ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "snapshot stream is empty")
        })??;
        let number = self.incoming.fetch_add(1, Ordering::Relaxed);
        let dir = self.replica.engine().scratch().join(format!("in-{number}"));
        let mut receiving = Receiving::begin(first, dir)?;
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk?;
            receiving =
                tokio::task::spawn_blocking(move || receiving.chunk(&chunk).map(|()| receiving))
                    .await
                    .map_err(io::Error::other)??;
        }
        let (vote, snapshot) = tokio::task::spawn_blocking(move || receiving.finish())
            .await
            .map_err(io::Error::other)??;
        metrics.snapshot_saved.observe(began.elapsed());
        transfer.done();
        tracing::info!(meta = %snapshot.meta, "received a snapshot");
        let response = self
            .raft
            .install_full_snapshot(vote, snapshot)
            .await
            .map_err(io::Error::other)?;
        Ok(SnapshotResponse {
            vote: Some(wire::vote_out(&response.vote)),
        })
    }
}
