//! A closed loop of clients, each with one request in flight, and what it measured.
//!
//! The load runs on one thread of its own: the servers have the other cores, and the generator's CPU time is known
//! exactly. It measures only; bringing clusters up, warming them and comparing runs is the caller's affair.
//! Invariant: a run ends within its time plus [`GRACE`], whatever the servers do.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::operation::{Operation, Random};
use super::target::{Endpoint, Target};
use super::usage::Usage;
use super::wire::connection::Connection;

/// How long a run waits for its last answers, and at its start for its connections.
pub const GRACE: Duration = Duration::from_secs(10);

/// What to run.
#[derive(Clone, Debug)]
pub struct Load {
    /// The cluster; connections are spread over its endpoints in turn.
    pub target: Target,
    /// Requests in flight.
    pub clients: usize,
    /// Connections that the clients share; see [`default_connections`].
    pub connections: usize,
    /// What each client does.
    pub operation: Operation,
    /// Ends the run after so many requests.
    pub requests: Option<u64>,
    /// Ends the run after so long.
    pub time: Duration,
    /// The servers' process ids, measured from the first request to the last answer.
    pub servers: Vec<u32>,
    /// Decides on keys and values.
    pub seed: u64,
}

/// Connections for so many clients: ten clients share one, as in the runs that etcd publishes.
pub fn default_connections(clients: usize) -> usize {
    clients.div_ceil(10)
}

/// What a run measured.
#[derive(Clone, Debug)]
pub struct Report {
    /// Requests answered with success.
    pub succeeded: u64,
    /// Requests that failed or never got an answer, by the text of the failure.
    pub errors: BTreeMap<String, u64>,
    /// From the first request to the last answer.
    pub elapsed: Duration,
    /// Latencies of the successful requests in microseconds.
    pub latency: Histogram<u64>,
    /// CPU time of the load generator's thread.
    pub generator_cpu: Duration,
    /// CPU time that each server used during the run, in the order of [`Load::servers`].
    pub server_cpu: Vec<Duration>,
    /// Each server at the end of the run.
    pub servers: Vec<Usage>,
}

impl Load {
    /// Runs the load and blocks until it has ended. Fails when it could not begin; later failures are counted.
    pub fn run(&self) -> anyhow::Result<Report> {
        self.run_until(&CancellationToken::new())
    }

    /// Like [`Load::run`], but fails as soon as `stop` is cancelled.
    pub fn run_until(&self, stop: &CancellationToken) -> anyhow::Result<Report> {
        on_own_thread(stop, || self.run_here())
    }

    async fn run_here(&self) -> anyhow::Result<Report> {
        ensure!(self.clients > 0, "a load needs at least one client");
        ensure!(self.connections > 0, "a load needs at least one connection");
        let endpoints = self.target.parse()?;
        let tls = self.target.rustls()?;
        let connections = self.connections.min(self.clients);

        let mut opening = JoinSet::new();
        for index in 0..connections {
            let peer = Peer {
                endpoint: endpoints[index % endpoints.len()].clone(),
                tls: tls.clone(),
            };
            let path = self.operation.path();
            opening.spawn_local(async move {
                peer.open(path)
                    .await
                    .map(|connection| (index, peer, connection))
            });
        }
        let mut opened = Vec::with_capacity(connections);
        while let Some(result) = opening.join_next().await {
            opened.push(result.context("open a connection")??);
        }
        opened.sort_by_key(|(index, ..)| *index);

        let tally = Rc::new(Tally::new(self.requests)?);
        let run = Run::begin(&self.servers)?;
        let mut running = JoinSet::new();
        for (index, peer, connection) in opened {
            // The first connections take one client more when they do not divide evenly.
            let clients =
                self.clients / connections + usize::from(index < self.clients % connections);
            let driver = Driver {
                peer,
                operation: self.operation,
                clients,
                random: Random(
                    self.seed
                        .wrapping_mul(0x1_0000_0001)
                        .wrapping_add(index as u64),
                ),
                tally: Rc::clone(&tally),
            };
            running.spawn_local(driver.run(connection));
        }
        let drained = async { while running.join_next().await.is_some() {} };
        tokio::pin!(drained);
        let deadline = run.start + self.time;
        if timeout_at(deadline.into(), &mut drained).await.is_err() {
            tally.stop();
            // Answers that do not come in the grace either are counted below.
            let _ = timeout(GRACE, &mut drained).await;
        }
        run.end(&tally, &self.servers)
    }
}

/// Runs a load on a thread of its own, also when the caller is inside another runtime; fails as soon as `stop` is
/// cancelled.
pub(super) fn on_own_thread<T: Send, F: Future<Output = anyhow::Result<T>>>(
    stop: &CancellationToken,
    load: impl FnOnce() -> F + Send,
) -> anyhow::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("load".to_owned())
            .spawn_scoped(scope, || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .context("start the load's runtime")?;
                let here = async {
                    tokio::select! {
                        report = load() => report,
                        () = stop.cancelled() => bail!("the load was stopped before its end"),
                    }
                };
                tokio::task::LocalSet::new().block_on(&runtime, here)
            });
        let running = thread.context("start the load's thread")?;
        running.join().map_err(|_| {
            anyhow::anyhow!("the load's thread panicked; this is a bug in the generator")
        })?
    })
}

/// What is known when the first request is made.
pub(super) struct Run {
    start: Instant,
    cpu: Vec<Usage>,
    generator: Duration,
}

impl Run {
    pub(super) fn begin(servers: &[u32]) -> anyhow::Result<Self> {
        Ok(Self {
            cpu: Usage::of_all(servers)?,
            generator: thread_cpu(),
            start: Instant::now(),
        })
    }

    pub(super) fn end(&self, tally: &Tally, servers: &[u32]) -> anyhow::Result<Report> {
        let elapsed = tally
            .last_answer
            .get()
            .map_or(self.start.elapsed(), |last| last - self.start);
        let generator_cpu = thread_cpu().saturating_sub(self.generator);
        let servers = Usage::of_all(servers)?;
        let mut errors = tally.errors.take();
        if tally.in_flight.get() > 0 {
            *errors
                .entry(format!("no answer within {GRACE:?} after the end"))
                .or_default() += tally.in_flight.get();
        }
        let latency = tally.latency.borrow().clone();
        Ok(Report {
            succeeded: latency.len(),
            errors,
            elapsed,
            latency,
            generator_cpu,
            server_cpu: servers
                .iter()
                .zip(&self.cpu)
                .map(|(after, before)| after.cpu - before.cpu)
                .collect(),
            servers,
        })
    }
}

impl Report {
    /// Successful requests per second.
    pub fn throughput(&self) -> f64 {
        self.succeeded as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// Latency in milliseconds that a share of the requests (0.5, 0.99) stayed at or below.
    pub fn quantile_ms(&self, share: f64) -> f64 {
        self.latency.value_at_quantile(share) as f64 / 1e3
    }

    /// The longest latency in milliseconds.
    pub fn max_ms(&self) -> f64 {
        self.latency.max() as f64 / 1e3
    }

    /// CPU time per successful request in microseconds, summed over the servers.
    pub fn server_cpu_us(&self) -> f64 {
        self.per_request_us(self.server_cpu.iter().sum())
    }

    /// The generator's own CPU time per successful request in microseconds.
    pub fn generator_cpu_us(&self) -> f64 {
        self.per_request_us(self.generator_cpu)
    }

    /// Failed and unanswered requests.
    pub fn failed(&self) -> u64 {
        self.errors.values().sum()
    }

    fn per_request_us(&self, cpu: Duration) -> f64 {
        cpu.as_secs_f64() * 1e6 / (self.succeeded as f64).max(1.0)
    }
}

/// Counts of a run, shared by the connections' tasks on its one thread.
pub(super) struct Tally {
    /// Requests that may still be made.
    left: Cell<u64>,
    sequence: Cell<u64>,
    in_flight: Cell<u64>,
    last_answer: Cell<Option<Instant>>,
    latency: RefCell<Histogram<u64>>,
    errors: RefCell<BTreeMap<String, u64>>,
}

impl Tally {
    pub(super) fn new(requests: Option<u64>) -> anyhow::Result<Self> {
        // Three digits from a microsecond to a minute; above that it is saturated.
        let latency = Histogram::new_with_bounds(1, 60_000_000, 3).context("make the histogram")?;
        Ok(Self {
            left: Cell::new(requests.unwrap_or(u64::MAX)),
            sequence: Cell::new(0),
            in_flight: Cell::new(0),
            last_answer: Cell::new(None),
            latency: RefCell::new(latency),
            errors: RefCell::default(),
        })
    }

    /// Lets no more requests be made.
    pub(super) fn stop(&self) {
        self.left.set(0);
    }

    /// Whether one more request may be made; counts it as in flight.
    pub(super) fn begin(&self) -> bool {
        let left = self.left.get();
        if left > 0 {
            self.left.set(left - 1);
            self.in_flight.set(self.in_flight.get() + 1);
        }
        left > 0
    }

    pub(super) fn succeed(&self, since: Instant, now: Instant) {
        let micros = u64::try_from((now - since).as_micros()).unwrap_or(u64::MAX);
        self.latency.borrow_mut().saturating_record(micros.max(1));
        self.end(1, now);
    }

    pub(super) fn fail(&self, error: &str, count: usize, now: Instant) {
        if count > 0 {
            *self
                .errors
                .borrow_mut()
                .entry(error.to_owned())
                .or_default() += count as u64;
            self.end(count as u64, now);
        }
    }

    fn end(&self, count: u64, now: Instant) {
        self.in_flight
            .set(self.in_flight.get().saturating_sub(count));
        self.last_answer.set(Some(now));
    }
}

/// Where a connection goes, also when it has to be made again.
#[derive(Clone)]
struct Peer {
    endpoint: Endpoint,
    tls: Option<Arc<rustls::ClientConfig>>,
}

impl Peer {
    async fn open(&self, path: &str) -> anyhow::Result<Connection> {
        let opening = Connection::open(&self.endpoint, self.tls.clone(), path);
        timeout(GRACE, opening).await.with_context(|| {
            format!(
                "{} did not answer within {GRACE:?}",
                self.endpoint.authority
            )
        })?
    }
}

/// The clients of one connection.
struct Driver {
    peer: Peer,
    operation: Operation,
    clients: usize,
    random: Random,
    tally: Rc<Tally>,
}

impl Driver {
    async fn run(mut self, first: Connection) {
        let mut connection = Some(first);
        loop {
            if let Some(open) = &mut connection {
                let Err(error) = self.drive(open).await else {
                    return;
                };
                self.tally.fail(
                    &format!("{error:#}"),
                    open.session().in_flight(),
                    Instant::now(),
                );
            }
            if self.tally.left.get() == 0 {
                return;
            }
            connection = match self.peer.open(self.operation.path()).await {
                Ok(connection) => Some(connection),
                Err(_) => {
                    // A server that is down refuses at once: do not spin on it.
                    sleep(Duration::from_millis(20)).await;
                    None
                }
            };
        }
    }

    /// Runs until there is nothing left to do, or the connection fails.
    async fn drive(&mut self, connection: &mut Connection) -> anyhow::Result<()> {
        let mut done = Vec::with_capacity(self.clients);
        for slot in 0..self.clients {
            self.begin(connection, slot);
        }
        while connection.session().in_flight() > 0 {
            let exchanged = connection.exchange(&mut done).await;
            let now = Instant::now();
            for call in done.drain(..) {
                match call.outcome {
                    Ok(bytes) if bytes >= self.operation.smallest_answer() => {
                        self.tally.succeed(call.since, now)
                    }
                    Ok(_) => self
                        .tally
                        .fail("answer without the key that was asked for", 1, now),
                    Err(error) => self.tally.fail(&error, 1, now),
                }
                if exchanged.is_ok() {
                    self.begin(connection, call.slot);
                }
            }
            exchanged?;
        }
        Ok(())
    }

    fn begin(&mut self, connection: &mut Connection, slot: usize) {
        if self.tally.begin() {
            let mut sequence = self.tally.sequence.get();
            connection.session().call(slot, |out| {
                self.operation.encode(&mut sequence, &mut self.random, out)
            });
            self.tally.sequence.set(sequence);
        }
    }
}

fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), nanos)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::operation::{Keys, Order};

    #[test]
    fn ten_clients_share_a_connection() {
        assert_eq!(
            [1, 10, 11, 100, 1000].map(default_connections),
            [1, 1, 2, 10, 100]
        );
    }

    #[test]
    fn refused_connection_is_named_and_ends_the_run() {
        let closed = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let load = Load {
            target: Target {
                endpoints: vec![format!("http://{closed}")],
                tls: None,
            },
            clients: 1,
            connections: 1,
            operation: Operation::RangeSerializable {
                keys: Keys {
                    count: 1,
                    order: Order::Random,
                },
            },
            requests: Some(1),
            time: Duration::from_secs(1),
            servers: Vec::new(),
            seed: 1,
        };
        let error = format!("{:#}", load.run().unwrap_err());
        assert!(error.contains(&closed.to_string()), "{error}");
    }
}
