//! What a member that joins a running cluster asks the others before it starts, and a proxy again and again.
//!
//! It owns no data yet and changes nothing: it learns the cluster's id and its own, and whether the members that it was
//! told of are those that the cluster has.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use member_flags::{FlagError, Flags, Url};
use member_log::Identity;
use tokio_util::task::AbortOnDropHandle;

use crate::http::PeerMember;
use crate::tls::PeerConnector;

/// How long one URL may take to answer; etcd's figure.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);

/// More than any list of members is long.
const MAX_BODY_BYTES: usize = 4 << 20;

/// A running cluster, as one of its members describes it.
#[derive(Debug)]
pub(crate) struct Running {
    cluster_id: u64,
    pub(crate) members: Vec<PeerMember>,
}

/// What a member is to be in the cluster that it joins.
pub(crate) struct Joining {
    pub(crate) identity: Identity,
    /// The cluster's members, this one included.
    pub(crate) members: BTreeMap<u64, Vec<String>>,
    /// Whether the cluster has seen this member run.
    pub(crate) started: bool,
}

/// Asks the listed members, one after the other, and finds this one among the cluster's.
pub(crate) async fn join(
    flags: &Flags,
    connector: &PeerConnector,
    listed: &BTreeMap<String, Vec<Url>>,
) -> Result<Joining, FlagError> {
    let mut urls: Vec<&Url> = listed
        .iter()
        .filter(|(name, _)| **name != flags.name)
        .flat_map(|(_, urls)| urls)
        .collect();
    urls.sort();
    let dial = Duration::from_secs(1) + Duration::from_millis(flags.election_timeout_ms);
    let running = ask_first(connector, &urls, dial).await?;
    let existing: Vec<(u64, Vec<String>)> = running
        .members
        .iter()
        .map(|member| (member.id, member.peer_urls.clone()))
        .collect();
    let id = flags.match_existing(
        listed,
        &existing,
        &running.to_string(),
        &crate::resolve::address,
    )?;
    Ok(Joining {
        identity: Identity {
            cluster_id: running.cluster_id,
            member_id: id,
        },
        started: running
            .members
            .iter()
            .any(|member| member.id == id && !member.name.is_empty()),
        members: existing.into_iter().collect(),
    })
}

/// The cluster, as the first of its members that answers describes it.
pub(crate) async fn ask_first(
    connector: &PeerConnector,
    urls: &[&Url],
    dial: Duration,
) -> Result<Running, FlagError> {
    let no_info = |reason: &str| FlagError::ClusterInfo {
        reason: reason.to_owned(),
    };
    for url in urls {
        let asked = tokio::time::timeout(ANSWER_PATIENCE, ask(connector, url.as_str(), dial)).await;
        match asked.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(running) if running.members.is_empty() => {
                return Err(no_info(
                    "failed to get raft cluster member(s) from the given URLs",
                ));
            }
            Ok(running) => return Ok(running),
            Err(error) => {
                tracing::warn!(address = %format_args!("{url}/members"), %error, "failed to get cluster response");
            }
        }
    }
    Err(no_info(
        "could not retrieve cluster information from the given URLs",
    ))
}

async fn ask(connector: &PeerConnector, url: &str, dial: Duration) -> io::Result<Running> {
    let stream = tokio::time::timeout(dial, connector.connect(url))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    // The connection lives as long as the answer is read.
    let _connection = AbortOnDropHandle::new(tokio::spawn(async move {
        // A broken connection shows in the answer.
        let _ = connection.await;
    }));
    let uri: http::Uri = url.parse().map_err(io::Error::other)?;
    let host = uri.authority().map(ToString::to_string).unwrap_or_default();
    let request = http::Request::get("/members")
        .header(http::header::HOST, host)
        .body(Empty::<bytes::Bytes>::new())
        .map_err(io::Error::other)?;
    let response = sender
        .send_request(request)
        .await
        .map_err(io::Error::other)?;
    let cluster_id = response
        .headers()
        .get("x-etcd-cluster-id")
        .and_then(|id| id.to_str().ok())
        .and_then(|id| u64::from_str_radix(id, 16).ok())
        .ok_or_else(|| io::Error::other("the answer names no cluster"))?;
    let body = Limited::new(response.into_body(), MAX_BODY_BYTES)
        .collect()
        .await
        .map_err(io::Error::other)?;
    Ok(Running {
        cluster_id,
        members: serde_json::from_slice(&body.to_bytes())?,
    })
}

impl std::fmt::Display for Running {
    /// As Go prints etcd's cluster.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{{ClusterID:{:x} Members:[", self.cluster_id)?;
        for (i, member) in self.members.iter().enumerate() {
            let PeerMember {
                id,
                peer_urls,
                is_learner,
                name,
                client_urls,
            } = member;
            let space = if i > 0 { " " } else { "" };
            write!(
                f,
                "{space}&{{ID:{id:x} RaftAttributes:{{PeerURLs:[{}] IsLearner:{is_learner}}} Attributes:{{Name:{name} ClientURLs:[{}]}}}}",
                peer_urls.join(" "),
                client_urls.join(" ")
            )?;
        }
        f.write_str("] RemovedMemberIDs:[]}")
    }
}
