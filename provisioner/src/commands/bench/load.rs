//! One round: a fresh cluster is filled, written to and read from, and looked at before and after.

use std::time::Duration;

use testbed::traffic::load::{Load, Report, default_connections};
use testbed::traffic::operation::{Keys, Operation, Order};
use testbed::traffic::streams::{Streaming, Streams, take_snapshot};
use testbed::traffic::usage::Usage;
use tokio::time::sleep;

use super::contender::{Contender, Live};
use super::figures::{Figure, Kind, Metric};
use super::{Bench, Samples, millis};
use crate::apply::Interrupt;
use crate::cli::BenchArgs;
use crate::error::Error;
use crate::output::Line;

/// Size of every value: what Kubernetes' objects and etcd's own published runs are closest to.
pub(super) const VALUE_BYTES: usize = 256;
/// The memory targets speak of this many puts.
const PUTS_OF_MEMORY_TARGET: u64 = 100_000;
/// Puts that fill the key space first; they are not measured and warm the servers up.
const FILL_CLIENTS: usize = 100;
/// Keys of a page, as Kubernetes asks for them.
const PAGE_KEYS: u64 = 500;
/// Keys of a range without a limit.
const RANGE_KEYS: u64 = 1000;
/// Clients of loads whose answers are large: more would measure the memory for answers that nobody reads yet.
const LARGE_ANSWER_CLIENTS: usize = 100;
/// Watchers of one key, and puts of it.
const WATCHERS_OF_ONE: usize = 1000;
const PUTS_TO_WATCHED: u64 = 200;
/// Watchers of a key each.
const WATCHERS_OF_DISTINCT: usize = 10_000;
/// Leases that are kept alive.
const LEASES: usize = 100;
/// No load runs longer, so that a slow server makes a round long but not endless.
const PUT_LIMIT: Duration = Duration::from_secs(60);
const GET_LIMIT: Duration = Duration::from_secs(5);
const MANY_KEYS_LIMIT: Duration = Duration::from_secs(600);
/// A single client is slow; a few seconds give it thousands of requests.
const SINGLE_LIMIT: Duration = Duration::from_secs(3);

/// How much is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sizes {
    pub(super) clients: Vec<usize>,
    /// Of each round, all loads together.
    pub(super) puts: u64,
    /// Of each load.
    gets: u64,
    /// Keys of the cluster that holds many; 0 for none.
    pub(super) many_keys: u64,
    pub(super) rounds: usize,
    /// Besides the start of each round.
    pub(super) cold_starts: usize,
    repeats: usize,
    /// Between the start and the look at idle memory.
    settle: Duration,
}

impl Sizes {
    pub(super) fn new(args: &BenchArgs) -> Result<Self, Error> {
        let positive = |what: &str, ok: bool| {
            if ok {
                Ok(())
            } else {
                Err(Error::usage(
                    format!("{what} must be at least 1"),
                    "see `provision bench --help`",
                ))
            }
        };
        positive(
            "--clients",
            !args.clients.is_empty() && args.clients.iter().all(|clients| *clients > 0),
        )?;
        positive("--puts", args.puts > 0)?;
        positive("--rounds", args.rounds > 0)?;
        let mut clients = args.clients.clone();
        clients.sort_unstable();
        clients.dedup();
        if args.quick {
            let puts = args.puts.min(4000);
            let settle = Duration::from_millis(200);
            return Ok(Self {
                clients,
                puts,
                gets: 500,
                many_keys: args.keys.min(20_000),
                rounds: 1,
                cold_starts: 0,
                repeats: 1,
                settle,
            });
        }
        let settle = Duration::from_secs(2);
        let gets = (args.puts / 4).max(1);
        Ok(Self {
            clients,
            puts: args.puts,
            gets,
            many_keys: args.keys,
            rounds: args.rounds,
            cold_starts: 4,
            repeats: 5,
            settle,
        })
    }

    /// Whether enough is written for the target of loaded memory.
    pub(super) fn judges_memory(&self) -> bool {
        self.puts >= PUTS_OF_MEMORY_TARGET
    }

    /// Keys, each written once by the fill.
    fn keys(&self, order: Order) -> Keys {
        Keys {
            count: (self.puts / 4).max(1),
            order,
        }
    }

    /// How many clients do this in turn.
    fn clients_of(&self, kind: Kind) -> Vec<usize> {
        let mut clients = self.clients.clone();
        if matches!(kind, Kind::Some | Kind::Page | Kind::PageOfMany) {
            for clients in &mut clients {
                *clients = LARGE_ANSWER_CLIENTS.min(*clients);
            }
            clients.dedup();
        }
        clients
    }

    /// The clients of a load over streams, what they do, and how often.
    fn streaming(&self, kind: Kind) -> (usize, Streaming, u64) {
        // The quick run has a hundredth of the puts, and as many clients.
        let few = |clients: usize| {
            if self.repeats == 1 {
                clients / 100
            } else {
                clients
            }
        };
        let value_bytes = VALUE_BYTES;
        match kind {
            Kind::WatchOne => {
                let watchers = few(WATCHERS_OF_ONE);
                let streaming = Streaming::WatchOneKey {
                    watchers,
                    value_bytes,
                };
                (watchers, streaming, PUTS_TO_WATCHED.min(self.gets))
            }
            Kind::WatchDistinct => {
                let watchers = few(WATCHERS_OF_DISTINCT);
                let streaming = Streaming::WatchDistinctKeys {
                    watchers,
                    value_bytes,
                };
                (watchers, streaming, self.gets)
            }
            _ => {
                let leases = few(LEASES).max(1);
                (leases, Streaming::KeepAlive { leases }, self.gets)
            }
        }
    }

    /// Requests of a load whose answers are large.
    fn large_gets(&self) -> u64 {
        (self.gets / 10).max(1)
    }

    /// Puts of the load with so many clients: what the fill left over, in equal parts. A single client makes a small one.
    fn puts_of(&self, clients: usize) -> u64 {
        let single = (self.puts / 50).max(1);
        let crowds = self.clients.iter().filter(|clients| **clients > 1).count() as u64;
        let singles = single * self.clients.iter().filter(|clients| **clients == 1).count() as u64;
        if clients == 1 || crowds == 0 {
            return single;
        }
        (self
            .puts
            .saturating_sub(self.keys(Order::Sequential).count + singles)
            / crowds)
            .max(1)
    }
}

/// Measures one cluster.
pub(super) async fn round(
    bench: &Bench<'_>,
    live: &Live,
    line: &Line,
    contender: &Contender,
    samples: &mut Samples,
) -> Result<(), Error> {
    let sizes = bench.sizes;
    line.set(format!("{}: idle", contender.label));
    for _ in 0..sizes.repeats {
        samples.push(Metric::Unchanged, millis(live.up_again(bench).await?));
    }
    tokio::select! {
        () = sleep(sizes.settle) => {}
        () = bench.interrupt.token().cancelled() => return Err(bench.interrupt.error()),
    }
    let servers = live.pids(bench.timeout).await?;
    samples.push(Metric::IdleMemory, largest_mib(&servers)?);

    let target = live.target(bench).await?;
    let load = |clients, operation, requests, time| Load {
        target: target.clone(),
        clients,
        connections: default_connections(clients),
        operation,
        requests: Some(requests),
        time,
        servers: servers.clone(),
        seed: 1,
    };
    let put = |order| Operation::Put {
        value_bytes: VALUE_BYTES,
        keys: sizes.keys(order),
    };
    let random = sizes.keys(Order::Random);

    line.set(format!("{}: filling", contender.label));
    let fill = load(
        FILL_CLIENTS,
        put(Order::Sequential),
        sizes.keys(Order::Sequential).count,
        PUT_LIMIT,
    );
    let mut written = run(fill, bench.interrupt).await?.succeeded;

    for kind in [
        Kind::Put,
        Kind::Txn,
        Kind::Linearizable,
        Kind::Serializable,
        Kind::Some,
        Kind::Page,
    ] {
        for clients in sizes.clients_of(kind) {
            line.set(format!("{}: {kind}, {clients} clients", contender.label));
            let (operation, requests, limit) = match kind {
                Kind::Put => (put(Order::Random), sizes.puts_of(clients), PUT_LIMIT),
                Kind::Linearizable => (
                    Operation::RangeLinearizable { keys: random },
                    sizes.gets,
                    GET_LIMIT,
                ),
                Kind::Serializable => (
                    Operation::RangeSerializable { keys: random },
                    sizes.gets,
                    GET_LIMIT,
                ),
                Kind::Txn => (
                    Operation::TxnPut {
                        value_bytes: VALUE_BYTES,
                        keys: random,
                    },
                    sizes.puts_of(clients).min(sizes.gets),
                    PUT_LIMIT,
                ),
                Kind::Some => (
                    Operation::RangeSome {
                        keys: random,
                        width: RANGE_KEYS,
                    },
                    sizes.large_gets(),
                    GET_LIMIT,
                ),
                _ => (page(random), sizes.large_gets(), GET_LIMIT),
            };
            let limit = if clients == 1 {
                limit.min(SINGLE_LIMIT)
            } else {
                limit
            };
            let report = run(load(clients, operation, requests, limit), bench.interrupt).await?;
            if kind == Kind::Put {
                written += report.succeeded;
            }
            record(kind, clients, &report, samples);
        }
        if kind == Kind::Put {
            // What single clients and the time limits left undone.
            let missing = sizes.puts.saturating_sub(written);
            if missing > 0 {
                run(
                    load(FILL_CLIENTS, put(Order::Random), missing, PUT_LIMIT),
                    bench.interrupt,
                )
                .await?;
            }
            samples.push(Metric::LoadedMemory, largest_mib(&servers)?);
        }
    }
    for kind in [Kind::WatchOne, Kind::WatchDistinct, Kind::KeepAlive] {
        line.set(format!("{}: {kind}", contender.label));
        let (clients, streaming, requests) = sizes.streaming(kind);
        let streams = Streams {
            target: target.clone(),
            streaming,
            requests,
            time: GET_LIMIT,
            servers: servers.clone(),
        };
        let stop = bench.interrupt.token().clone();
        let report = aside(bench.interrupt, move || streams.run_until(&stop)).await?;
        record(kind, clients, &report, samples);
    }
    Ok(())
}

fn page(keys: Keys) -> Operation {
    Operation::RangePage {
        keys,
        limit: PAGE_KEYS,
    }
}

/// Measures a cluster that holds many keys.
pub(super) async fn many_keys(
    bench: &Bench<'_>,
    live: &Live,
    line: &Line,
    contender: &Contender,
    samples: &mut Samples,
) -> Result<(), Error> {
    let sizes = bench.sizes;
    let keys = |order| Keys {
        count: sizes.many_keys,
        order,
    };
    line.set(format!(
        "{}: loading {} keys",
        contender.label, sizes.many_keys
    ));
    let mut load = Load {
        target: live.target(bench).await?,
        clients: FILL_CLIENTS,
        connections: default_connections(FILL_CLIENTS),
        operation: Operation::Put {
            value_bytes: VALUE_BYTES,
            keys: keys(Order::Sequential),
        },
        requests: Some(sizes.many_keys),
        time: MANY_KEYS_LIMIT,
        servers: live.pids(bench.timeout).await?,
        seed: 1,
    };
    let report = run(load.clone(), bench.interrupt).await?;
    if report.succeeded < sizes.many_keys {
        return Err(Error::failed(
            format!(
                "{} took {} of {} keys",
                contender.label, report.succeeded, sizes.many_keys
            ),
            "load fewer with --keys",
        ));
    }
    samples.push(Metric::ManyKeysLoad, millis(report.elapsed));
    samples.push(Metric::ManyKeysMemory, largest_mib(&load.servers)?);
    line.set(format!("{}: restarting", contender.label));
    samples.push(Metric::ManyKeysRestart, millis(live.restart(bench).await?));
    load.servers = live.pids(bench.timeout).await?;
    load.target = live.target(bench).await?;
    load.operation = page(keys(Order::Random));
    load.requests = Some(sizes.large_gets());
    load.time = GET_LIMIT;
    for clients in sizes.clients_of(Kind::PageOfMany) {
        line.set(format!("{}: pages, {clients} clients", contender.label));
        (load.clients, load.connections) = (clients, default_connections(clients));
        let report = run(load.clone(), bench.interrupt).await?;
        record(Kind::PageOfMany, clients, &report, samples);
    }
    samples.push(Metric::ManyKeysMemoryRestarted, largest_mib(&load.servers)?);
    line.set(format!("{}: snapshot", contender.label));
    let (target, stop) = (load.target.clone(), bench.interrupt.token().clone());
    let (_, elapsed) = aside(bench.interrupt, move || take_snapshot(&target, &stop)).await?;
    samples.push(Metric::ManyKeysSnapshot, millis(elapsed));
    Ok(())
}

/// Runs a load beside the verb's own tasks.
pub(super) async fn run(load: Load, interrupt: &Interrupt) -> Result<Report, Error> {
    let stop = interrupt.token().clone();
    aside(interrupt, move || load.run_until(&stop)).await
}

/// Runs a load to its end on a thread that may wait.
async fn aside<T, E>(
    interrupt: &Interrupt,
    load: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, Error>
where
    T: Send + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
{
    let done = tokio::task::spawn_blocking(load)
        .await
        .map_err(|source| Error::because("the load generator failed", source))?;
    interrupt.check()?;
    done.map_err(|source| Error::because("the cluster cannot be put under load", source))
}

fn record(kind: Kind, clients: usize, report: &Report, samples: &mut Samples) {
    let mut push = |figure, value| {
        samples.push(
            Metric::Load {
                kind,
                clients,
                figure,
            },
            value,
        )
    };
    push(Figure::Throughput, report.throughput());
    push(Figure::P50, report.quantile_ms(0.5));
    push(Figure::P99, report.quantile_ms(0.99));
    push(Figure::ServerCpu, report.server_cpu_us());
    push(Figure::GeneratorCpu, report.generator_cpu_us());
    for (error, count) in &report.errors {
        *samples.errors.entry(error.clone()).or_default() += count;
    }
}

/// The memory of the member that uses most.
fn largest_mib(servers: &[u32]) -> Result<f64, Error> {
    let usages = Usage::of_all(servers)
        .map_err(|source| Error::because("a member ended during the run", source))?;
    Ok(usages
        .iter()
        .map(|usage| usage.rss_bytes as f64 / f64::from(1 << 20))
        .fold(0.0, f64::max))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(clients: &[usize], puts: u64) -> BenchArgs {
        BenchArgs {
            file: "x.toml".into(),
            against: None,
            clients: clients.to_vec(),
            puts,
            rounds: 3,
            keys: 0,
            quick: false,
            timeout: Duration::from_secs(1),
        }
    }

    #[test]
    fn the_loads_of_a_round_share_the_puts() {
        let sizes = Sizes::new(&args(&[1000, 1, 100, 100], 100_000)).unwrap();
        assert_eq!(sizes.clients, [1, 100, 1000]);
        let loads: u64 = sizes
            .clients
            .iter()
            .map(|clients| sizes.puts_of(*clients))
            .sum();
        assert_eq!(sizes.keys(Order::Random).count + loads, 100_000);
        assert!(sizes.judges_memory());
    }

    #[test]
    fn small_numbers_still_make_one_request_each() {
        let sizes = Sizes::new(&args(&[1, 5], 1)).unwrap();
        assert_eq!((sizes.puts_of(1), sizes.puts_of(5), sizes.gets), (1, 1, 1));
        assert!(!sizes.judges_memory());
    }

    #[test]
    fn nothing_to_do_is_refused() {
        for bad in [
            args(&[], 1),
            args(&[0], 1),
            args(&[1], 0),
            BenchArgs {
                rounds: 0,
                ..args(&[1], 1)
            },
        ] {
            assert!(
                matches!(Sizes::new(&bad), Err(Error::Usage { .. })),
                "{bad:?}"
            );
        }
    }
}
