//! Loads over streams: watchers that hear of puts, leases that are kept alive, a snapshot that is taken.
//!
//! Closed loops, as in [`super::load`]: the next put is made when everybody has heard of the one before, the next
//! renewal when the last one was answered. Latencies are those of the events and the renewals.

use std::cell::Cell;
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use futures_util::stream::{self, StreamExt as _};
use member_proto::etcdserverpb as pb;
use member_proto::etcdserverpb::kv_client::KvClient;
use member_proto::etcdserverpb::lease_client::LeaseClient;
use member_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use member_proto::etcdserverpb::watch_client::WatchClient;
use member_proto::etcdserverpb::watch_request::RequestUnion;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::{timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use super::load::{GRACE, Report, Run, Tally, on_own_thread};
use super::target::Target;

/// Watchers that share a stream, as the clients of one process do.
const WATCHERS_OF_STREAM: usize = 100;
/// Streams that share a connection.
const STREAMS_OF_CONNECTION: usize = 10;
/// Writers to distinct keys, each of whom waits for its own event.
const WRITERS: usize = 100;
/// Bytes of a value that say when it was sent, and by whom.
const STAMP: usize = 16;

/// What to run.
#[derive(Clone, Debug)]
pub struct Streams {
    /// The cluster; connections are spread over its endpoints in turn.
    pub target: Target,
    /// What is measured.
    pub streaming: Streaming,
    /// Ends the run after so many puts or renewals.
    pub requests: u64,
    /// Ends the run after so long.
    pub time: Duration,
    /// The servers' process ids, measured from the first request to the last answer.
    pub servers: Vec<u32>,
}

/// One kind of streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Streaming {
    /// So many watchers of one key, which is put again and again.
    WatchOneKey {
        /// The watchers.
        watchers: usize,
        /// Size of each value, at least 16.
        value_bytes: usize,
    },
    /// So many watchers of a key each.
    WatchDistinctKeys {
        /// The watchers.
        watchers: usize,
        /// Size of each value, at least 16.
        value_bytes: usize,
    },
    /// Leases that are renewed, each by a stream of its own.
    KeepAlive {
        /// The leases.
        leases: usize,
    },
}

impl Streams {
    /// Runs the load and blocks until it has ended, or fails as soon as `stop` is cancelled.
    pub fn run_until(&self, stop: &CancellationToken) -> anyhow::Result<Report> {
        on_own_thread(stop, || self.run_here())
    }

    async fn run_here(&self) -> anyhow::Result<Report> {
        match self.streaming {
            Streaming::WatchOneKey {
                watchers,
                value_bytes,
            } => self.watch(watchers, 1, value_bytes).await,
            Streaming::WatchDistinctKeys {
                watchers,
                value_bytes,
            } => self.watch(watchers, watchers, value_bytes).await,
            Streaming::KeepAlive { leases } => self.keep_alive(leases).await,
        }
    }

    /// Channels for so many streams.
    fn connections(&self, streams: usize) -> anyhow::Result<Vec<Channel>> {
        let wanted = streams.div_ceil(STREAMS_OF_CONNECTION);
        let mut channels = Vec::with_capacity(wanted);
        while channels.len() < wanted {
            channels.extend(self.target.channels(GRACE)?);
        }
        channels.truncate(wanted);
        Ok(channels)
    }

    async fn watch(
        &self,
        watchers: usize,
        keys: usize,
        value_bytes: usize,
    ) -> anyhow::Result<Report> {
        ensure!(watchers > 0, "a load needs at least one watcher");
        ensure!(value_bytes >= STAMP, "a value must hold {STAMP} bytes");
        let writers = WRITERS.min(keys);
        let crowd = Rc::new(Crowd {
            tally: Tally::new(Some(self.requests))?,
            began: Instant::now(),
            created: Cell::new(0),
            all_created: Notify::new(),
            writers: (0..writers).map(|_| Writer::default()).collect(),
        });
        let streams = watchers.div_ceil(WATCHERS_OF_STREAM);
        let channels = self.connections(streams)?;
        let mut watching = JoinSet::new();
        for index in 0..streams {
            let of_stream =
                index * WATCHERS_OF_STREAM..((index + 1) * WATCHERS_OF_STREAM).min(watchers);
            let creates: Vec<_> = of_stream
                .map(|watcher| create(&key(watcher % keys)))
                .collect();
            let client = WatchClient::new(channels[index % channels.len()].clone());
            watching.spawn_local(Rc::clone(&crowd).listen(client, creates));
        }
        timeout(GRACE * 6, async {
            while crowd.created.get() < watchers {
                crowd.all_created.notified().await;
            }
        })
        .await
        .context("the watchers were not all created in time")?;

        let channels = self.target.channels(GRACE)?;
        let run = Run::begin(&self.servers)?;
        let mut writing = JoinSet::new();
        for writer in 0..writers {
            let task = Writing {
                crowd: Rc::clone(&crowd),
                client: KvClient::new(channels[writer % channels.len()].clone()),
                writer,
                fan_out: watchers / keys,
                value_bytes,
            };
            // Each writer has keys of its own.
            let own: Vec<usize> = (writer..keys).step_by(writers).collect();
            writing.spawn_local(task.run(own));
        }
        let drained = pin!(async { while writing.join_next().await.is_some() {} });
        let deadline = Instant::now() + self.time;
        let mut drained = drained;
        if timeout_at(deadline.into(), &mut drained).await.is_err() {
            crowd.tally.stop();
            let _ = timeout(GRACE, &mut drained).await;
        }
        run.end(&crowd.tally, &self.servers)
    }

    async fn keep_alive(&self, leases: usize) -> anyhow::Result<Report> {
        ensure!(leases > 0, "a load needs at least one lease");
        let tally = Rc::new(Tally::new(Some(self.requests))?);
        let channels = self.connections(leases)?;
        let mut granted = Vec::with_capacity(leases);
        for index in 0..leases {
            let mut client = LeaseClient::new(channels[index % channels.len()].clone());
            let request = pb::LeaseGrantRequest { ttl: 3600, id: 0 };
            let lease = client.lease_grant(request).await.context("grant a lease")?;
            granted.push((client, lease.into_inner().id));
        }
        let run = Run::begin(&self.servers)?;
        let mut renewing = JoinSet::new();
        for (client, id) in granted {
            renewing.spawn_local(renew(client, id, Rc::clone(&tally)));
        }
        let mut drained = pin!(async { while renewing.join_next().await.is_some() {} });
        let deadline = Instant::now() + self.time;
        if timeout_at(deadline.into(), &mut drained).await.is_err() {
            tally.stop();
            let _ = timeout(GRACE, &mut drained).await;
        }
        run.end(&tally, &self.servers)
    }
}

fn key(index: usize) -> Vec<u8> {
    format!("watched/{index:08}").into_bytes()
}

fn create(key: &[u8]) -> pb::WatchRequest {
    let create = pb::WatchCreateRequest {
        key: key.to_vec().into(),
        ..pb::WatchCreateRequest::default()
    };
    pb::WatchRequest {
        request_union: Some(RequestUnion::CreateRequest(create)),
    }
}

/// What a writer waits for.
#[derive(Default)]
struct Writer {
    /// Watchers that have not heard of its last put.
    unheard: Cell<usize>,
    heard: Notify,
}

struct Crowd {
    tally: Tally,
    /// Values say how long after this they were sent.
    began: Instant,
    created: Cell<usize>,
    all_created: Notify,
    writers: Vec<Writer>,
}

impl Crowd {
    async fn listen(
        self: Rc<Self>,
        mut client: WatchClient<Channel>,
        creates: Vec<pb::WatchRequest>,
    ) {
        let requests = stream::iter(creates).chain(stream::pending());
        let mut responses = match client.watch(requests).await {
            Ok(responses) => responses.into_inner(),
            Err(status) => return self.tally.fail(&status.to_string(), 1, Instant::now()),
        };
        loop {
            match responses.message().await {
                Ok(Some(response)) if response.canceled => {
                    self.tally.fail(&response.cancel_reason, 1, Instant::now());
                }
                Ok(Some(response)) if response.created => {
                    self.created.set(self.created.get() + 1);
                    self.all_created.notify_one();
                }
                Ok(Some(response)) => {
                    let now = Instant::now();
                    for event in response.events {
                        self.hear(&event.kv.unwrap_or_default().value, now);
                    }
                }
                Ok(None) => return,
                Err(status) => return self.tally.fail(&status.to_string(), 1, Instant::now()),
            }
        }
    }

    fn hear(&self, value: &[u8], now: Instant) {
        let number = |range| {
            value
                .get(range)
                .and_then(|bytes: &[u8]| bytes.try_into().ok())
        };
        let (Some(micros), Some(writer)) = (number(0..8), number(8..STAMP)) else {
            return;
        };
        let sent = self.began + Duration::from_micros(u64::from_be_bytes(micros));
        let writer = usize::try_from(u64::from_be_bytes(writer)).unwrap_or(usize::MAX);
        self.tally.succeed(sent, now);
        if let Some(writer) = self.writers.get(writer) {
            writer.unheard.set(writer.unheard.get().saturating_sub(1));
            if writer.unheard.get() == 0 {
                writer.heard.notify_one();
            }
        }
    }
}

struct Writing {
    crowd: Rc<Crowd>,
    client: KvClient<Channel>,
    writer: usize,
    fan_out: usize,
    value_bytes: usize,
}

impl Writing {
    async fn run(mut self, keys: Vec<usize>) {
        let crowd = Rc::clone(&self.crowd);
        let own = &crowd.writers[self.writer];
        for index in keys.iter().cycle() {
            if !crowd.tally.begin() {
                return;
            }
            own.unheard.set(self.fan_out);
            let mut value = vec![0; self.value_bytes];
            let micros = u64::try_from(crowd.began.elapsed().as_micros()).unwrap_or(u64::MAX);
            value[..8].copy_from_slice(&micros.to_be_bytes());
            value[8..STAMP].copy_from_slice(&(self.writer as u64).to_be_bytes());
            let put = pb::PutRequest {
                key: key(*index).into(),
                value: value.into(),
                ..pb::PutRequest::default()
            };
            if let Err(status) = self.client.put(put).await {
                crowd.tally.fail(&status.to_string(), 1, Instant::now());
                return;
            }
            let everybody = async {
                while own.unheard.get() > 0 {
                    own.heard.notified().await;
                }
            };
            if timeout(GRACE, everybody).await.is_err() {
                let missing = own.unheard.get();
                let text = format!("no event within {GRACE:?}");
                crowd.tally.fail(&text, missing, Instant::now());
                return;
            }
        }
    }
}

async fn renew(mut client: LeaseClient<Channel>, id: i64, tally: Rc<Tally>) {
    let (requests, mut queue) = mpsc::unbounded_channel();
    let queue = stream::poll_fn(move |context| queue.poll_recv(context));
    let request = pb::LeaseKeepAliveRequest { id };
    // Before the call: etcd answers the call with its first renewal.
    let mut since = Instant::now();
    if !tally.begin() || requests.send(request).is_err() {
        return;
    }
    let mut answers = match client.lease_keep_alive(queue).await {
        Ok(answers) => answers.into_inner(),
        Err(status) => return tally.fail(&status.to_string(), 1, Instant::now()),
    };
    loop {
        match answers.message().await {
            Ok(Some(answer)) if answer.ttl > 0 => tally.succeed(since, Instant::now()),
            Ok(Some(_)) => return tally.fail("the lease has ended", 1, Instant::now()),
            Ok(None) => return tally.fail("the stream has ended", 1, Instant::now()),
            Err(status) => return tally.fail(&status.to_string(), 1, Instant::now()),
        }
        since = Instant::now();
        if !tally.begin() || requests.send(request).is_err() {
            return;
        }
    }
}

/// Takes a snapshot from the first endpoint and throws it away: its bytes, and how long it took.
pub fn take_snapshot(target: &Target, stop: &CancellationToken) -> anyhow::Result<(u64, Duration)> {
    on_own_thread(stop, || async {
        let channel = target.channels(GRACE)?.into_iter().next();
        let mut client = MaintenanceClient::new(channel.context("no endpoint given")?)
            .max_decoding_message_size(usize::MAX);
        let began = Instant::now();
        let snapshot = client.snapshot(pb::SnapshotRequest {}).await;
        let mut parts = snapshot.context("ask for a snapshot")?.into_inner();
        let mut bytes = 0;
        while let Some(part) = parts.message().await.context("receive a snapshot")? {
            bytes += part.blob.len() as u64;
        }
        Ok((bytes, began.elapsed()))
    })
}
