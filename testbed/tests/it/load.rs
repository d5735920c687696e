use std::time::{Duration, Instant};

use testbed::traffic::load::{Load, Report, default_connections};
use testbed::traffic::operation::{Keys, Operation, Order};

use crate::etcd::{Cluster, MEMBERS};

fn load(cluster: &Cluster, clients: usize, operation: Operation, requests: u64) -> Load {
    Load {
        target: cluster.target(),
        clients,
        connections: default_connections(clients),
        operation,
        requests: Some(requests),
        time: Duration::from_secs(60),
        servers: cluster.pids(),
        seed: 7,
    }
}

fn keys(order: Order) -> Keys {
    Keys { count: 2000, order }
}

fn put(order: Order) -> Operation {
    Operation::Put {
        value_bytes: 256,
        keys: keys(order),
    }
}

fn print(name: &str, report: &Report) {
    println!(
        "{name}: {:.0}/s p50 {:.2} ms p99 {:.2} ms max {:.1} ms, servers {:.0} us/request, generator {:.1} us/request, \
         RSS MiB {:?}, errors {:?}",
        report.throughput(),
        report.quantile_ms(0.5),
        report.quantile_ms(0.99),
        report.max_ms(),
        report.server_cpu_us(),
        report.generator_cpu_us(),
        report
            .servers
            .iter()
            .map(|usage| usage.rss_bytes >> 20)
            .collect::<Vec<_>>(),
        report.errors,
    );
}

fn every_operation_succeeds(tls: bool) {
    let cluster = Cluster::start(tls);
    let loads = [
        ("put 1", 1, put(Order::Sequential), 200),
        ("put 100", 100, put(Order::Sequential), 4000),
        ("put 1000", 1000, put(Order::Random), 4000),
        (
            "get linearizable 100",
            100,
            Operation::RangeLinearizable {
                keys: keys(Order::Random),
            },
            4000,
        ),
        (
            "get serializable 100",
            100,
            Operation::RangeSerializable {
                keys: keys(Order::Random),
            },
            4000,
        ),
    ];
    for (name, clients, operation, requests) in loads {
        let report = load(&cluster, clients, operation, requests).run().unwrap();
        print(name, &report);
        assert_eq!(
            (report.succeeded, report.failed()),
            (requests, 0),
            "{name}: {:?}",
            report.errors
        );
        assert!(
            report.quantile_ms(0.5) <= report.quantile_ms(0.99)
                && report.quantile_ms(0.99) <= report.max_ms()
        );
        assert_eq!(report.servers.len(), MEMBERS);
        assert!(report.server_cpu_us() > 0.0 && report.generator_cpu_us() > 0.0);
    }
}

#[test]
fn every_operation_succeeds_over_plaintext() {
    every_operation_succeeds(false);
}

#[test]
fn every_operation_succeeds_over_mutual_tls() {
    every_operation_succeeds(true);
}

#[test]
fn values_larger_than_a_frame_and_a_window_arrive_whole() {
    let cluster = Cluster::start(false);
    let keys = Keys {
        count: 4,
        order: Order::Sequential,
    };
    let large = Operation::Put {
        value_bytes: 400_000,
        keys,
    };
    let report = load(&cluster, 8, large, 40).run().unwrap();
    assert_eq!(
        (report.succeeded, report.failed()),
        (40, 0),
        "{:?}",
        report.errors
    );
    let report = load(&cluster, 8, Operation::RangeLinearizable { keys }, 40)
        .run()
        .unwrap();
    assert_eq!(
        (report.succeeded, report.failed()),
        (40, 0),
        "{:?}",
        report.errors
    );
}

#[test]
fn get_of_a_key_that_is_not_there_is_no_success() {
    let cluster = Cluster::start(false);
    let keys = Keys {
        count: 1_000_000,
        order: Order::Random,
    };
    let report = load(&cluster, 10, Operation::RangeSerializable { keys }, 100)
        .run()
        .unwrap();
    assert_eq!(
        (report.succeeded, report.failed()),
        (0, 100),
        "{:?}",
        report.errors
    );
}

#[test]
fn load_ends_in_time_when_a_majority_is_gone_and_names_the_failures() {
    let mut cluster = Cluster::start(false);
    let mut run = load(&cluster, 10, put(Order::Random), u64::MAX);
    run.servers.clear();
    run.time = Duration::from_secs(2);
    run.target.endpoints.truncate(1);
    cluster.kill(1);
    cluster.kill(2);
    let report = run.run().unwrap();
    assert_eq!(report.succeeded, 0);
    assert!(report.failed() >= 10, "{:?}", report.errors);
}

#[test]
fn connections_are_made_again_when_a_member_comes_back() {
    let mut cluster = Cluster::start(false);
    let mut run = load(&cluster, 9, put(Order::Random), u64::MAX);
    run.servers.clear();
    run.connections = MEMBERS;
    run.time = Duration::from_secs(6);
    let report = std::thread::scope(|scope| {
        let running = scope.spawn(|| run.run().unwrap());
        // The load is at work once keys that it writes can be read; the first of them is there since the members are ready.
        let read = Operation::RangeLinearizable {
            keys: keys(Order::Random),
        };
        let deadline = Instant::now() + Duration::from_secs(5);
        while load(&cluster, 1, read, 100).run().unwrap().succeeded < 10 {
            assert!(Instant::now() < deadline);
        }
        cluster.kill(1);
        cluster.spawn(1);
        cluster.wait_ready(1);
        running.join().unwrap()
    });
    println!("{} succeeded, errors {:?}", report.succeeded, report.errors);
    assert!(report.succeeded > 0);
    let lost = |text: &str| report.errors.iter().any(|(error, _)| error.contains(text));
    assert!(
        lost("closed the connection") || lost("read"),
        "{:?}",
        report.errors
    );
}
