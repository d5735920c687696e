//! Passes bytes between clients and endpoints. A connection stays with its endpoint; the next one goes where it can.

use std::sync::Arc;
use std::time::Duration;

use member_discovery::Record;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::pool::Pool;

/// A host that does not answer must not hold a client for long: the next endpoint may.
const DIAL: Duration = Duration::from_secs(5);

/// How long connections may go on once the gateway stops.
const DRAIN: Duration = Duration::from_secs(3);

/// Proxies until `stop`; what that says.
pub(super) async fn run(
    listener: TcpListener,
    pool: Pool,
    retry_delay: Duration,
    stop: impl Future<Output = i32>,
) -> i32 {
    let pool = Arc::new(pool);
    let mut connections = JoinSet::new();
    let mut retry =
        tokio::time::interval_at(tokio::time::Instant::now() + retry_delay, retry_delay);
    let mut stop = std::pin::pin!(stop);
    let signal = loop {
        tokio::select! {
            signal = &mut stop => break signal,
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => {
                    connections.spawn(serve(client, Arc::clone(&pool), retry_delay));
                }
                Err(error) => {
                    // Out of file descriptors, mostly: accepting again at once would only spin.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            _ = retry.tick() => {
                for record in pool.dead() {
                    connections.spawn(retry_one(record, Arc::clone(&pool), retry_delay));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    };
    drop(listener);
    tracing::info!(
        signal,
        connections = connections.len(),
        "received signal; shutting down"
    );
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN, drained).await.is_err() {
        tracing::warn!("connections were cut off");
    }
    signal
}

async fn serve(mut client: TcpStream, pool: Arc<Pool>, retry_delay: Duration) {
    while let Some(record) = pool.next() {
        match dial(&record).await {
            Ok(mut endpoint) => {
                // Either side may break off at any time.
                let _ = client.set_nodelay(true);
                let _ = endpoint.set_nodelay(true);
                let _ = copy_bidirectional(&mut client, &mut endpoint).await;
                return;
            }
            Err(error) => {
                if pool.mark(&record, false) {
                    tracing::warn!(address = %record, interval = ?retry_delay, error, "deactivated endpoint");
                }
            }
        }
    }
}

async fn retry_one(record: Record, pool: Arc<Pool>, retry_delay: Duration) {
    match dial(&record).await {
        Ok(_) => {
            if pool.mark(&record, true) {
                tracing::info!(address = %record, "activated");
            }
        }
        Err(error) => {
            tracing::warn!(address = %record, interval = ?retry_delay, error, "failed to activate endpoint (stay inactive for another interval)");
        }
    }
}

async fn dial(record: &Record) -> Result<TcpStream, String> {
    let connecting = TcpStream::connect((record.target.as_str(), record.port));
    match tokio::time::timeout(DIAL, connecting).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("i/o timeout".to_owned()),
    }
}
