//! The Watch service: one session of watchers for each call.
//!
//! A session is the answer's stream itself: it advances when the transport has room, so a client that does not read
//! costs what its outbox holds, and no task. Semantics follow etcd 3.6, `api/v3rpc/watch.go`.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use member_proto::etcdserverpb as pb;
use member_proto::etcdserverpb::watch_create_request::FilterType;
use member_proto::etcdserverpb::watch_request::RequestUnion;
use member_proto::etcdserverpb::watch_server::Watch;
use prost::Message;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status, Streaming};

use super::{convert, refused};
use crate::auth::Credentials;
use crate::engine::Engine;
use crate::node::Node;
use crate::watch::{Delivery, Ended, Interest, Span, Style, WatchStream};

/// etcd's id for no watcher in particular.
const NO_ID: i64 = -1;

/// Election timeouts without a leader after which a stream that asked for one ends; etcd's `maxNoLeaderCnt`.
const MOST_LEADERLESS: u32 = 3;

/// The Watch service.
pub(crate) struct WatchService<E: Engine>(pub(crate) Arc<Node<E>>);

#[tonic::async_trait]
impl<E: Engine> Watch for WatchService<E> {
    async fn watch(
        &self,
        request: Request<Streaming<pb::WatchRequest>>,
    ) -> Result<Response<BoxStream<pb::WatchResponse>>, Status> {
        let needs_leader = request
            .metadata()
            .get("hasleader")
            .is_some_and(|value| value.as_bytes() == b"true");
        if needs_leader && self.0.seen_leadership().leader.is_none() {
            return Err(no_leader());
        }
        // Kept whether anybody asks now or not: authentication may be enabled while the stream lives.
        let credentials = Credentials::of(&request);
        let node = Arc::clone(&self.0);
        let session = Session::new(node, request.into_inner(), credentials, needs_leader);
        let answers = futures_util::stream::unfold(Some(session), |session| async {
            let mut session = session?;
            match session.next().await {
                Ok(response) => Some((Ok(response), Some(session))),
                Err(End::With(status)) => Some((Err(status), None)),
                Err(End::Gone) => None,
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }
}

fn no_leader() -> Status {
    Status::unavailable("etcdserver: no leader")
}

/// How a session ends.
enum End {
    With(Status),
    /// The client has gone.
    Gone,
}

struct Session<E: Engine> {
    node: Arc<Node<E>>,
    credentials: Credentials,
    /// `None` once the client has said that it asks for nothing more; its watchers go on.
    requests: Option<Streaming<pb::WatchRequest>>,
    stream: WatchStream<E>,
    /// Whether a watcher with progress notices was told nothing since the last tick.
    quiet: HashMap<i64, bool>,
    /// Fragments of one response.
    rest: VecDeque<pb::WatchResponse>,
    notices: Option<Interval>,
    leader: Option<Interval>,
    leaderless: u32,
}

impl<E: Engine> Session<E> {
    fn new(
        node: Arc<Node<E>>,
        requests: Streaming<pb::WatchRequest>,
        credentials: Credentials,
        needs_leader: bool,
    ) -> Self {
        let stream = node.watches.stream();
        let leader = needs_leader.then(|| ticks(node.election_timeout));
        Self {
            node,
            credentials,
            requests: Some(requests),
            stream,
            quiet: HashMap::new(),
            rest: VecDeque::new(),
            notices: None,
            leader,
            leaderless: 0,
        }
    }

    async fn next(&mut self) -> Result<pb::WatchResponse, End> {
        loop {
            if let Some(response) = self.rest.pop_front() {
                return Ok(response);
            }
            tokio::select! {
                request = received(&mut self.requests) => match request {
                    Ok(Some(request)) => self.handle(request).await,
                    Ok(None) => self.requests = None,
                    // What the client is told does not matter: its stream is broken.
                    Err(_) => return Err(End::Gone),
                },
                delivery = self.stream.next() => match delivery {
                    Ok(delivery) => self.emit(delivery),
                    Err(Ended::Stopped) => {
                        return Err(End::With(Status::unavailable("etcdserver: server stopped")));
                    }
                    Err(Ended::Failed(error)) => return Err(End::With(refused(&error))),
                },
                () = tick(&mut self.notices) => self.notice(),
                () = tick(&mut self.leader) => {
                    if self.node.seen_leadership().leader.is_some() {
                        self.leaderless = 0;
                    } else {
                        self.leaderless += 1;
                    }
                    if self.leaderless >= MOST_LEADERLESS {
                        return Err(End::With(no_leader()));
                    }
                }
            }
        }
    }

    async fn handle(&mut self, request: pb::WatchRequest) {
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => {
                if let Err(reason) = self.create(create).await {
                    self.stream.refuse(reason);
                }
            }
            Some(RequestUnion::CancelRequest(cancel)) => {
                self.quiet.remove(&cancel.watch_id);
                self.stream.cancel(cancel.watch_id);
            }
            Some(RequestUnion::ProgressRequest(_)) => self.stream.progress(),
            None => {}
        }
    }

    /// Whether the caller may watch the keys; in etcd's words why not, which are those of its client's errors.
    async fn permit(&self, create: &pb::WatchCreateRequest) -> Result<(), String> {
        if !self.node.auth_enabled() {
            return Ok(());
        }
        let check = async {
            let caller = self.node.caller(Some(&self.credentials)).await?;
            // An empty key stands for the first one.
            let key = if create.key.is_empty() {
                &[0][..]
            } else {
                &create.key
            };
            let auth = self.node.store().auth();
            auth.may_read(&caller, key, &create.range_end)
                .map_err(|error| refused(&error.into()))
        };
        check.await.map_err(|status| {
            let code = status.code();
            format!("rpc error: code = {code:?} desc = {}", status.message())
        })
    }

    /// Creates a watcher, or says why not.
    async fn create(&mut self, create: pb::WatchCreateRequest) -> Result<(), String> {
        self.permit(&create).await?;
        if create.start_revision < 0 {
            return Err(member_state::Error::Compacted.text());
        }
        let filters = |filter: FilterType| create.filters.contains(&i32::from(filter));
        let (puts, deletes) = (!filters(FilterType::Noput), !filters(FilterType::Nodelete));
        let Some(span) = Span::new(create.key, create.range_end) else {
            return Err("mvcc: watcher range is empty".to_owned());
        };
        let interest = Interest {
            span,
            start_revision: create.start_revision,
            puts,
            deletes,
            style: Style {
                prev_kv: create.prev_kv,
                fragment: create.fragment,
            },
        };
        let watch_id = self
            .stream
            .create(create.watch_id, interest)
            .map_err(|error| error.to_string())?;
        if create.progress_notify {
            self.quiet.insert(watch_id, true);
            let interval = self.node.progress_notify_interval;
            self.notices
                .get_or_insert_with(|| ticks(jittered(interval)));
        }
        Ok(())
    }

    /// Tells watchers that nothing was told to how far they are.
    fn notice(&mut self) {
        for (watch_id, quiet) in &mut self.quiet {
            if std::mem::replace(quiet, true) {
                self.stream.progress_of(*watch_id);
            }
        }
    }

    fn emit(&mut self, delivery: Delivery) {
        let response = pb::WatchResponse::default();
        let header = |revision| Some(self.node.header(revision));
        let response = match delivery {
            Delivery::Created { watch_id, revision } => pb::WatchResponse {
                header: header(revision),
                watch_id,
                created: true,
                ..response
            },
            Delivery::Refused { revision, reason } => pb::WatchResponse {
                header: header(revision),
                watch_id: NO_ID,
                created: true,
                canceled: true,
                cancel_reason: reason,
                ..response
            },
            Delivery::Events {
                watch_id,
                revision,
                events,
                style,
            } => {
                if let Some(quiet) = self.quiet.get_mut(&watch_id) {
                    *quiet = false;
                }
                let events = events
                    .iter()
                    .map(|event| convert::event(event, style.prev_kv));
                let response = pb::WatchResponse {
                    header: header(revision),
                    watch_id,
                    events: events.collect(),
                    ..response
                };
                if style.fragment {
                    self.rest = fragments(response, self.node.fragment_bytes);
                    return;
                }
                response
            }
            Delivery::Canceled { watch_id, revision } => pb::WatchResponse {
                header: header(revision),
                watch_id,
                canceled: true,
                ..response
            },
            Delivery::Compacted {
                watch_id,
                compact_revision,
            } => {
                self.quiet.remove(&watch_id);
                pb::WatchResponse {
                    // etcd gives this answer no revision.
                    header: header(0),
                    watch_id,
                    canceled: true,
                    compact_revision,
                    ..response
                }
            }
            Delivery::Progress { watch_id, revision } => pb::WatchResponse {
                header: header(revision),
                watch_id: watch_id.unwrap_or(NO_ID),
                ..response
            },
        };
        self.rest.push_back(response);
    }
}

/// The next request; never, once there are none.
async fn received(
    requests: &mut Option<Streaming<pb::WatchRequest>>,
) -> Result<Option<pb::WatchRequest>, Status> {
    match requests {
        Some(requests) => requests.message().await,
        None => std::future::pending().await,
    }
}

async fn tick(ticks: &mut Option<Interval>) {
    match ticks {
        Some(ticks) => {
            ticks.tick().await;
        }
        None => std::future::pending().await,
    }
}

fn ticks(period: Duration) -> Interval {
    let mut ticks = interval_at(Instant::now() + period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// etcd adds up to a tenth, so that streams that were opened at once are not told at once.
fn jittered(period: Duration) -> Duration {
    let share = RandomState::new().build_hasher().finish() % 1000;
    period + period / 10 * u32::try_from(share).unwrap_or(0) / 1000
}

/// Splits a response into ones below `limit`, or of one event: all but the last are marked.
fn fragments(response: pb::WatchResponse, limit: usize) -> VecDeque<pb::WatchResponse> {
    if response.events.len() < 2 || response.encoded_len() < limit {
        return VecDeque::from([response]);
    }
    let pb::WatchResponse { events, .. } = response;
    let empty = pb::WatchResponse {
        events: Vec::new(),
        fragment: true,
        ..response
    };
    let mut parts = VecDeque::new();
    let mut part = empty.clone();
    let mut bytes = part.encoded_len();
    for event in events {
        let len = event.encoded_len();
        // The field's tag, and the length as a varint.
        let len = 1 + prost::length_delimiter_len(len) + len;
        if !part.events.is_empty() && bytes + len >= limit {
            parts.push_back(std::mem::replace(&mut part, empty.clone()));
            bytes = part.encoded_len();
        }
        bytes += len;
        part.events.push(event);
    }
    part.fragment = false;
    parts.push_back(part);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fragments_stay_below_the_limit_and_lose_nothing() {
        let event = |i: usize| member_proto::mvccpb::Event {
            kv: Some(member_proto::mvccpb::KeyValue {
                key: vec![b'k'; i % 7 + 1].into(),
                value: vec![b'v'; i * 13 % 300].into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let whole = pb::WatchResponse {
            watch_id: 3,
            events: (0..100).map(event).collect(),
            ..Default::default()
        };
        let parts = fragments(whole.clone(), 1000);
        assert!(parts.len() > 10);
        let last = parts.len() - 1;
        for (i, part) in parts.iter().enumerate() {
            assert_eq!(part.fragment, i < last);
            assert!(part.encoded_len() < 1000);
        }
        let events: Vec<_> = parts.into_iter().flat_map(|part| part.events).collect();
        assert_eq!(events, whole.events);
        assert_eq!(
            fragments(whole.clone(), 1 << 20),
            std::slice::from_ref(&whole)
        );
        let ones = fragments(whole, 1);
        assert_eq!(ones.len(), 100, "an event is not split");
    }
}
