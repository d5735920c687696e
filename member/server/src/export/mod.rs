//! The state as an etcd database: which rows each bucket gets, and the stream in which a client receives the file.
//!
//! The rows come from one moment of the state. The members are those of the request: a restore replaces them.

mod chunks;
mod rows;

use std::io;
use std::sync::Arc;
use std::time::Instant;

use member_bolt::{Plan, WriteError};
use member_proto::etcdserverpb as pb;
use member_state::{Backend, Store};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::metrics::Metrics;
use chunks::{Chunks, Sender};
use rows::Rows;

/// Chunks ahead of the network: the file is made no faster than the client takes it.
const CHUNKS_AHEAD: usize = 4;

/// Snapshots that are sent at a time; the others wait. Each holds a thread of the pool as long as its client likes, and
/// the pool's 512 threads also make the state durable.
static SENDING: Semaphore = Semaphore::const_new(64);

/// The layout that the file follows, as etcd 3.6 names it.
const STORAGE_VERSION: &str = "3.6.0";

/// What the file says of the cluster.
pub(crate) struct Cluster {
    pub(crate) members: Vec<pb::Member>,
    pub(crate) version: String,
}

/// Sends the state of this moment, as fast as the receiver takes it; ends when the receiver is gone.
pub(crate) fn stream<B: Backend + 'static>(
    store: Arc<Store<B>>,
    cluster: Cluster,
    metrics: Arc<Metrics>,
) -> ReceiverStream<Result<pb::SnapshotResponse, Status>> {
    let (chunks, receiver) = mpsc::channel(CHUNKS_AHEAD);
    tokio::spawn(async move {
        // Never closed, so it is always granted.
        let turn = tokio::select! {
            turn = SENDING.acquire() => turn,
            () = chunks.closed() => return,
        };
        // The client may go away; it is the walk that notices.
        let _ =
            tokio::task::spawn_blocking(move || send(&store, &cluster, &chunks, &metrics)).await;
        drop(turn);
    });
    ReceiverStream::new(receiver)
}

/// Blocks as long as the client takes.
fn send<B: Backend>(store: &Store<B>, cluster: &Cluster, chunks: &Chunks, metrics: &Metrics) {
    let began = Instant::now();
    match file(store, cluster, chunks) {
        Ok(()) => metrics.snapshot.observe(began.elapsed()),
        Err(WriteError::Output(_)) if chunks.is_closed() => {
            tracing::info!("a client went away before it had the whole snapshot");
        }
        Err(error) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "snapshot not sent"
            );
            let _ = chunks.blocking_send(Err(Status::internal(error.to_string())));
        }
    }
}

fn file<B: Backend>(
    store: &Store<B>,
    cluster: &Cluster,
    chunks: &Chunks,
) -> Result<(), WriteError> {
    let state = store.export().map_err(unreadable)?;
    let rows = Rows::new(state, cluster, chunks)?;
    let plan = Plan::new(&rows)?;
    tracing::info!(
        "total-bytes" = plan.size(),
        "sending database snapshot to client"
    );
    let mut out = Sender::new(chunks, plan.size());
    plan.write(&rows, &mut out)?;
    out.finish().map_err(WriteError::Output)?;
    tracing::info!("sent database snapshot to client");
    Ok(())
}

fn unreadable(error: member_state::Error) -> WriteError {
    WriteError::Source(io::Error::other(error))
}
