//! What the cluster holds after a run: read through every endpoint, and at every acknowledged revision.
//!
//! Retries until its deadline, because the cluster may still be choosing a leader; decides nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use member_proto::etcdserverpb::RangeRequest;
use member_proto::etcdserverpb::kv_client::KvClient;
use member_proto::mvccpb::KeyValue;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};
use tonic::transport::Channel;

use super::History;
use super::history::KeyState;
use crate::traffic::Target;

/// The cluster's own word on a run's keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadBack {
    /// One linearizable read of all keys per endpoint.
    pub latest: Vec<Latest>,
    /// For each acknowledged revision, its key as it was then.
    pub at_revision: BTreeMap<i64, Option<KeyState>>,
}

/// The latest state of all keys, read through one endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latest {
    /// Who was asked.
    pub endpoint: String,
    /// The store's revision.
    pub header_revision: i64,
    /// Every key under the run's prefix.
    pub keys: BTreeMap<String, KeyState>,
}

/// Reads at old revisions in flight at once.
const READERS: usize = 16;

/// Reads back the keys under `prefix` and every acknowledged write of `history`; every endpoint must answer within `limit`.
pub async fn read_back(
    target: &Target,
    prefix: &str,
    history: &History,
    limit: Duration,
) -> anyhow::Result<ReadBack> {
    let deadline = Instant::now() + limit;
    let channels = target.channels(limit)?;
    let mut latest = Vec::new();
    for (endpoint, channel) in target.endpoints.iter().zip(&channels) {
        let (header_revision, kvs) = until(deadline, || range(channel.clone(), under(prefix)))
            .await
            .with_context(|| format!("read keys {prefix}* back through {endpoint}"))?;
        let keys = kvs
            .into_iter()
            .map(|kv| (text(&kv.key), state(&kv)))
            .collect();
        latest.push(Latest {
            endpoint: endpoint.clone(),
            header_revision,
            keys,
        });
    }

    let writes: Arc<Vec<(i64, String)>> = Arc::new(
        history
            .acknowledged()
            .map(|write| (write.revision, write.key.to_owned()))
            .collect(),
    );
    let mut readers = JoinSet::new();
    for reader in 0..READERS {
        let (writes, channel) = (
            Arc::clone(&writes),
            channels[reader % channels.len()].clone(),
        );
        readers.spawn(async move {
            let mut seen = Vec::new();
            for (revision, key) in writes.iter().skip(reader).step_by(READERS) {
                let request = RangeRequest {
                    key: key.clone().into(),
                    revision: *revision,
                    ..Default::default()
                };
                let (_, kvs) = until(deadline, || range(channel.clone(), request.clone()))
                    .await
                    .with_context(|| format!("read {key} back at revision {revision}"))?;
                seen.push((*revision, kvs.first().map(state)));
            }
            anyhow::Ok(seen)
        });
    }
    let mut at_revision = BTreeMap::new();
    while let Some(seen) = readers.join_next().await {
        at_revision.extend(seen.context("read back")??);
    }
    Ok(ReadBack {
        latest,
        at_revision,
    })
}

/// Repeats a read until it is answered; after the deadline the last failure is the error.
async fn until<T, F>(deadline: Instant, mut read: impl FnMut() -> F) -> anyhow::Result<T>
where
    F: Future<Output = Result<T, tonic::Status>>,
{
    loop {
        let error = match timeout_at(deadline, read()).await {
            Ok(Ok(answer)) => return Ok(answer),
            // Not a fault that passes: the cluster does not have what it said it had.
            Ok(Err(status)) if status.code() == tonic::Code::OutOfRange => {
                return Err(anyhow::Error::from(status).context("an acknowledged revision is gone"));
            }
            Ok(Err(status)) => anyhow::Error::from(status),
            Err(elapsed) => anyhow::Error::from(elapsed),
        };
        if Instant::now() >= deadline {
            return Err(error);
        }
        sleep(Duration::from_millis(20)).await;
    }
}

async fn range(
    channel: Channel,
    request: RangeRequest,
) -> Result<(i64, Vec<KeyValue>), tonic::Status> {
    // A run's keys may exceed the 4 MiB that tonic accepts by default.
    let mut client = KvClient::new(channel).max_decoding_message_size(usize::MAX);
    let answer = client.range(request).await?.into_inner();
    Ok((answer.header.unwrap_or_default().revision, answer.kvs))
}

/// All keys that begin with `prefix`, whose last byte is not 0xff because it is text.
fn under(prefix: &str) -> RangeRequest {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    RangeRequest {
        key: prefix.to_owned().into(),
        range_end: end.into(),
        ..Default::default()
    }
}

/// A key as the checks see it.
pub(crate) fn state(kv: &KeyValue) -> KeyState {
    KeyState {
        value: text(&kv.value),
        mod_revision: kv.mod_revision,
        version: kv.version,
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
