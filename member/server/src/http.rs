//! Plain HTTP on the client and metrics ports: version, health, metrics.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use tonic::body::Body;

use crate::engine::Engine;
use crate::metrics;
use crate::node::{CLUSTER_VERSION, Node, SERVER_VERSION, alarm_name};

/// Answers what is not gRPC.
pub(crate) async fn respond<E: Engine, B>(node: &Node<E>, request: &Request<B>) -> Response<Body> {
    let query = Query::of(request.uri().query());
    let path = request.uri().path();
    let known = matches!(
        path,
        "/version" | "/health" | "/livez" | "/readyz" | "/metrics" | "/debug/vars"
    );
    if !known {
        return refuse(StatusCode::NOT_FOUND, "404 page not found");
    }
    // etcd answers HEAD on these with 405 too.
    if request.method() != Method::GET && !matches!(path, "/metrics" | "/debug/vars") {
        return only_get();
    }
    match path {
        "/version" => json(version(node)),
        "/health" => health(node, &query).await,
        "/debug/vars" => {
            let mut response = json(metrics::variables(node));
            response.headers_mut().insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/json; charset=utf-8"),
            );
            response
        }
        "/livez" => checks(node, &query, "livez", &["serializable_read"]).await,
        "/readyz" => {
            checks(
                node,
                &query,
                "readyz",
                &[
                    "data_corruption",
                    "serializable_read",
                    "linearizable_read",
                    "non_learner",
                ],
            )
            .await
        }
        _ => {
            let mut response = text(StatusCode::OK, metrics::render(node));
            response.headers_mut().insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
            );
            response
        }
    }
}

/// Answers what is not the members' own protocol on the peer port.
pub(crate) fn respond_peer<E: Engine, B>(node: &Node<E>, request: &Request<B>) -> Response<Body> {
    match request.uri().path() {
        "/version" | "/members" if request.method() != Method::GET => only_get(),
        "/version" => json(version(node)),
        "/members" => match node.members() {
            Ok(members) => {
                let members: Vec<PeerMember> = members.into_iter().map(PeerMember::from).collect();
                let mut response = json(serde_json::to_string(&members).unwrap_or_default() + "\n");
                if let Ok(id) = HeaderValue::from_str(&format!("{:x}", node.cluster_id)) {
                    response.headers_mut().insert("x-etcd-cluster-id", id);
                }
                response
            }
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.text() + "\n"),
        },
        _ => refuse(StatusCode::NOT_FOUND, "404 page not found"),
    }
}

/// A member as etcd's peer port lists it: ids in decimal, nothing but URLs before it has started.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct PeerMember {
    pub(crate) id: u64,
    #[serde(rename = "peerURLs")]
    pub(crate) peer_urls: Vec<String>,
    #[serde(
        default,
        skip_serializing_if = "std::ops::Not::not",
        rename = "isLearner"
    )]
    pub(crate) is_learner: bool,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) name: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty", rename = "clientURLs")]
    pub(crate) client_urls: Vec<String>,
}

impl From<member_proto::etcdserverpb::Member> for PeerMember {
    fn from(member: member_proto::etcdserverpb::Member) -> Self {
        Self {
            id: member.id,
            peer_urls: member.peer_ur_ls,
            is_learner: member.is_learner,
            name: member.name,
            client_urls: member.client_ur_ls,
        }
    }
}

fn version<E: Engine>(node: &Node<E>) -> String {
    let cluster = if node.leadership().leader.is_some() {
        CLUSTER_VERSION
    } else {
        "not_decided"
    };
    format!("{{\"etcdserver\":\"{SERVER_VERSION}\",\"etcdcluster\":\"{cluster}\"}}")
}

/// A health probe must answer before the prober gives up.
const PROBE_PATIENCE: Duration = Duration::from_secs(5);

async fn linearizable<E: Engine>(node: &Node<E>) -> bool {
    matches!(
        tokio::time::timeout(PROBE_PATIENCE, node.linearize()).await,
        Ok(Ok(()))
    )
}

async fn health<E: Engine>(node: &Node<E>, query: &Query<'_>) -> Response<Body> {
    if let Some(alarm) = alarm(node, query) {
        tracing::warn!(alarm, "serving /health false due to an alarm");
        node.metrics.health(false);
        let mut response = json(format!("{{\"health\":\"false\",\"reason\":\"{alarm}\"}}"));
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        return response;
    }
    let reason = if node.seen_leadership().leader.is_none() {
        Some("RAFT NO LEADER")
    } else if !query.has("serializable", "true") && !linearizable(node).await {
        Some("RANGE ERROR:etcdserver: request timed out")
    } else {
        None
    };
    node.metrics.health(reason.is_none());
    let (status, body) = match reason {
        None => (
            StatusCode::OK,
            "{\"health\":\"true\",\"reason\":\"\"}".to_owned(),
        ),
        Some(reason) => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{{\"health\":\"false\",\"reason\":\"{reason}\"}}"),
        ),
    };
    let mut response = json(body);
    *response.status_mut() = status;
    response
}

/// The first alarm that is on and not excluded, in etcd's words. What cannot be read is no alarm: the read that
/// follows tells it.
fn alarm<E: Engine>(node: &Node<E>, query: &Query<'_>) -> Option<String> {
    let store = node.store();
    if !store.is_out_of_space() && !store.is_corrupt() {
        return None;
    }
    let alarms = store.alarms().unwrap_or_default();
    alarms
        .iter()
        .map(|alarm| alarm_name(alarm.alarm))
        .find(|name| !query.has("exclude", name))
        .map(|name| format!("ALARM {name}"))
}

async fn checks<E: Engine>(
    node: &Node<E>,
    query: &Query<'_>,
    path: &str,
    names: &[&str],
) -> Response<Body> {
    let mut lines = String::new();
    let mut healthy = true;
    for name in names.iter().filter(|name| !query.has("exclude", name)) {
        let passed = match *name {
            "linearizable_read" => linearizable(node).await,
            "non_learner" => !node.is_learner(),
            "data_corruption" => !node.store().is_corrupt(),
            // Reads that fail stop the member: what answers here can read.
            _ => true,
        };
        node.metrics.checks.ran(path, name, passed);
        healthy &= passed;
        lines += &if passed {
            format!("[+]{name} ok\n")
        } else {
            format!("[-]{name} failed\n")
        };
    }
    match (healthy, query.contains("verbose")) {
        (true, false) => text(StatusCode::OK, "ok\n"),
        (true, true) => text(StatusCode::OK, lines + "ok\n"),
        (false, _) => text(
            StatusCode::SERVICE_UNAVAILABLE,
            lines + "health check failed\n",
        ),
    }
}

fn json(body: String) -> Response<Body> {
    let mut response = text(StatusCode::OK, body);
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}

/// A refusal as Go's HTTP server words it.
pub(crate) fn refuse(status: StatusCode, words: &str) -> Response<Body> {
    let mut response = text(status, format!("{words}\n"));
    response.headers_mut().insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}

pub(crate) fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::new(body.into())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}

/// The answer to a path that is none, which Go gives before it asks anything else.
pub(crate) fn malformed() -> Response<Body> {
    let mut response = text(StatusCode::BAD_REQUEST, "400 Bad Request");
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// The answer to another method than GET.
pub(crate) fn only_get() -> Response<Body> {
    let mut response = refuse(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    let headers = response.headers_mut();
    headers.insert(header::ALLOW, HeaderValue::from_static("GET"));
    response
}

/// Query parameters without escapes, which none of these has.
struct Query<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Query<'a> {
    fn of(query: Option<&'a str>) -> Self {
        let pairs = query
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty());
        Self(
            pairs
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                .collect(),
        )
    }

    fn has(&self, key: &str, value: &str) -> bool {
        self.0.contains(&(key, value))
    }

    fn contains(&self, key: &str) -> bool {
        self.0.iter().any(|(k, _)| *k == key)
    }
}
