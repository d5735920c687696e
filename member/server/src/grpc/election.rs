//! The Election service: an election is a queue, its leader the first place, what the leader says the place's value.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use member_proto::v3electionpb as pb;
use member_proto::v3electionpb::election_server::Election;
use member_state::{Event, EventKind, KeyValue, Put, TxnRequest};
use tonic::codegen::BoxStream;
use tonic::{Code, Request, Response, Status};

use super::caller::{Caller, not_watched};
use super::queue::{self, Place, Queue, Session};
use super::{convert, mismatch};
use crate::engine::Engine;
use crate::node::Node;
use crate::watch::{Span, Subscription, WaitError};

/// The Election service.
pub(crate) struct ElectionService<E: Engine>(pub(crate) Arc<Node<E>>);

/// What the service refuses; texts are etcd's.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("election: no leader")]
    NoLeader,
    #[error("election: not leader")]
    NotLeader,
    #[error("\"leader\" field must be provided")]
    NoLeaderKey,
    #[error("election: observe closed early")]
    ClosedEarly,
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        Status::unknown(refusal.to_string())
    }
}

#[tonic::async_trait]
impl<E: Engine> Election for ElectionService<E> {
    async fn campaign(
        &self,
        request: Request<pb::CampaignRequest>,
    ) -> Result<Response<pb::CampaignResponse>, Status> {
        let (caller, request) = Caller::of(&self.0, request);
        let pb::CampaignRequest { name, lease, value } = request;
        let (mut place, found) = Place::take(&caller, &name, lease, value.clone()).await?;
        if found.is_some_and(|found| found.value != value) {
            let (key, created) = (place.key(), place.created());
            proclaim(&caller, key, created, place.lease(), value).await?;
        }
        // etcd does not look again, and calls a leader whose lease has ended meanwhile, so that two may lead at once.
        place.come_first(|| Refusal::NotLeader.into()).await?;
        let header = caller.header(place.revision());
        let kept = place.keep();
        Ok(Response::new(pb::CampaignResponse {
            header,
            leader: Some(pb::LeaderKey {
                name,
                key: kept.key,
                rev: kept.created,
                lease: kept.lease,
            }),
        }))
    }

    async fn proclaim(
        &self,
        request: Request<pb::ProclaimRequest>,
    ) -> Result<Response<pb::ProclaimResponse>, Status> {
        let (caller, pb::ProclaimRequest { leader, value }) = Caller::of(&self.0, request);
        let leader = leader.ok_or(Refusal::NoLeaderKey)?;
        let mut session = Session::open(&caller, leader.lease).await?;
        let lease = session.lease();
        let revision = proclaim(&caller, &leader.key, leader.rev, lease, value).await?;
        session.keep();
        Ok(Response::new(pb::ProclaimResponse {
            header: caller.header(revision),
        }))
    }

    async fn leader(
        &self,
        request: Request<pb::LeaderRequest>,
    ) -> Result<Response<pb::LeaderResponse>, Status> {
        let (caller, pb::LeaderRequest { name }) = Caller::of(&self.0, request);
        let found = caller.range(Queue::named(&name).first()).await?;
        let leader = found.kvs.into_iter().next().ok_or(Refusal::NoLeader)?;
        Ok(Response::new(shown(&caller, found.revision, leader)))
    }

    async fn observe(
        &self,
        request: Request<pb::LeaderRequest>,
    ) -> Result<Response<BoxStream<pb::LeaderResponse>>, Status> {
        let (caller, pb::LeaderRequest { name }) = Caller::of(&self.0, request);
        let observer = Observer {
            caller,
            queue: Queue::named(&name),
            leader: None,
            events: VecDeque::new(),
        };
        let leaders = stream::unfold(Some(observer), |observer| async {
            let mut observer = observer?;
            match observer.next().await {
                Ok(leader) => Some((Ok(leader), Some(observer))),
                Err(status) => Some((Err(status), None)),
            }
        });
        Ok(Response::new(Box::pin(leaders)))
    }

    async fn resign(
        &self,
        request: Request<pb::ResignRequest>,
    ) -> Result<Response<pb::ResignResponse>, Status> {
        let (caller, pb::ResignRequest { leader }) = Caller::of(&self.0, request);
        let leader = leader.ok_or(Refusal::NoLeaderKey)?;
        let left = caller.txn(queue::leave(&leader.key, leader.rev)).await?;
        Ok(Response::new(pb::ResignResponse {
            header: caller.header(left.revision),
        }))
    }
}

/// Gives a place another value; the revision of that.
async fn proclaim<E: Engine>(
    caller: &Caller<E>,
    key: &Bytes,
    created: i64,
    lease: i64,
    value: Bytes,
) -> Result<i64, Status> {
    let put = Put {
        key: key.clone(),
        value,
        lease,
        ..Put::default()
    };
    let put = queue::if_created_at(key, created, TxnRequest::Put(put), None);
    let proclaimed = caller.txn(put).await?;
    if proclaimed.succeeded {
        Ok(proclaimed.revision)
    } else {
        Err(Refusal::NotLeader.into())
    }
}

fn shown<E: Engine>(caller: &Caller<E>, revision: i64, leader: KeyValue) -> pb::LeaderResponse {
    pb::LeaderResponse {
        header: caller.header(revision),
        kv: Some(convert::key_value(leader)),
    }
}

/// Tells the leader and what it says, each time that one of the two changes.
struct Observer<E: Engine> {
    caller: Caller<E>,
    queue: Queue,
    /// What happens to the leader's key; `None` while there is no leader, or it is not known.
    leader: Option<Subscription<E>>,
    /// What happened to it and was not told yet.
    events: VecDeque<Arc<Event>>,
}

impl<E: Engine> Observer<E> {
    async fn next(&mut self) -> Result<pb::LeaderResponse, Status> {
        loop {
            while let Some(event) = self.events.pop_front() {
                match event.kind {
                    EventKind::Put => {
                        return Ok(shown(&self.caller, event.revision(), event.kv.clone()));
                    }
                    EventKind::Delete => {
                        self.leader = None;
                        self.events.clear();
                    }
                }
            }
            let Some(leader) = &mut self.leader else {
                if let Some(leader) = self.find().await? {
                    return Ok(leader);
                }
                continue;
            };
            match leader.next().await {
                Ok(events) => self.events.extend(events),
                Err(error) => self.look_again(&error)?,
            }
        }
    }

    /// Finds the leader, or waits for the first one; `None`: look again.
    async fn find(&mut self) -> Result<Option<pb::LeaderResponse>, Status> {
        let found = self.caller.range(self.queue.first()).await;
        let found = found.map_err(closed_early)?;
        let (revision, leader) = match found.kvs.into_iter().next() {
            Some(leader) => (found.revision, leader),
            None => {
                let span = self.queue.span().ok_or_else(mismatch)?;
                let mut places = self.caller.watch(span, found.revision + 1);
                match places.next().await {
                    Err(error) => return self.look_again(&error).map(|()| None),
                    Ok(events) => {
                        let puts = |event: &&Arc<Event>| event.kind == EventKind::Put;
                        match events.iter().find(puts) {
                            Some(event) => (event.revision(), event.kv.clone()),
                            None => return Ok(None),
                        }
                    }
                }
            }
        };
        let key = Span::Key(leader.key.clone());
        self.leader = Some(self.caller.watch(key, revision + 1));
        Ok(Some(shown(&self.caller, revision, leader)))
    }

    /// What was compacted before it was told is skipped: the leader of now counts.
    fn look_again(&mut self, error: &WaitError) -> Result<(), Status> {
        match error {
            WaitError::Compacted => {
                self.leader = None;
                Ok(())
            }
            WaitError::Ended(ended) => Err(closed_early(not_watched(ended))),
        }
    }
}

/// etcd's words for the end of a stream, whatever has ended it; the end of the member keeps its own.
fn closed_early(status: Status) -> Status {
    match status.code() {
        Code::Unavailable => status,
        _ => Refusal::ClosedEarly.into(),
    }
}
