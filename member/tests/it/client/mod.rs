//! A cluster of three as programs use it: through the third-party crate `etcd-client`, which balances its requests over
//! the members.
//!
//! What answers look like byte by byte is compared with etcd elsewhere; here it is what a program can build on.

use std::time::{Duration, Instant};

use etcd_client::{Client, ConnectOptions, Error};
use tonic::Code;

use crate::process::Server;
use crate::server::{start_all, three};

mod auth;
mod cluster;
mod kv;
mod lease;
mod lock;
mod loss;
mod watch;

const PATIENCE: Duration = Duration::from_secs(30);

/// Three members, and a client of all of them.
struct Cluster {
    servers: [Server; 3],
    client: Client,
}

impl Cluster {
    async fn start() -> Self {
        let mut servers = three();
        start_all(&mut servers);
        let client = connect(&servers, ConnectOptions::new()).await;
        Self { servers, client }
    }
}

async fn connect(servers: &[Server], options: ConnectOptions) -> Client {
    let endpoints: Vec<String> = servers.iter().map(Server::endpoint).collect();
    let options = options.with_require_leader(true);
    Client::connect(endpoints, Some(options))
        .await
        .expect("connects")
}

/// Waits until `attempt` answers what was hoped for.
async fn eventually<T>(what: &str, mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = attempt().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn in_time<T>(what: &str, answer: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, answer)
        .await
        .unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}

/// Expects a refusal of this code in these words.
fn assert_refused<T: std::fmt::Debug>(answer: Result<T, Error>, code: Code, words: &str) {
    match answer {
        Err(Error::GRpcStatus(status)) => {
            assert_eq!(status.code(), code, "{status}");
            assert!(status.message().contains(words), "{status}");
        }
        other => panic!("expected {words:?}: {other:?}"),
    }
}
