//! The v2 API of etcd 3.4, behind `--enable-v2`: keys, members, machines, statistics.
//!
//! What requests mean and answers look like is [`member_v2`]'s; here is how they come in and get to the log. The keys
//! themselves are part of the replicated state of every member, also of one that does not serve them, and the leader
//! ends what has expired whether it serves them or not.

mod expire;
mod keys;
mod members;
mod stats;
mod wait;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;

use crate::engine::Engine;
use crate::http::{self as plain, refuse};
use crate::node::Node;
pub(crate) use expire::expire;
use stats::Stats;

/// What serves the v2 API of a member.
pub(crate) struct V2<E: Engine> {
    node: Arc<Node<E>>,
    /// Bounds the bytes of a request's body.
    receive: usize,
    stats: Stats,
    /// Ends the watches.
    stopping: CancellationToken,
}

impl<E: Engine> V2<E> {
    pub(crate) fn new(node: &Arc<Node<E>>, receive: usize, stopping: CancellationToken) -> Self {
        Self {
            node: Arc::clone(node),
            receive,
            stats: Stats::new(),
            stopping,
        }
    }

    /// Notes who leads since when, for as long as the member runs.
    pub(crate) async fn follow(&self) {
        self.stats.follow(self.node.consensus.leadership()).await;
    }

    /// Answers a request below `/v2`; `path` is the request's, without escapes.
    pub(crate) async fn respond(
        self: Arc<Self>,
        path: &str,
        request: Request<Incoming>,
    ) -> Response<Body> {
        if let Some(clean) = cleaned(path) {
            return redirect(&request, &escaped(&clean));
        }
        if let Some(key) = below(path, "/v2/keys") {
            return self.keys(key.to_owned(), request).await;
        }
        if let Some(rest) = below(path, "/v2/members") {
            return self.members(rest.trim_start_matches('/'), request).await;
        }
        match path {
            "/v2/machines" => self.machines(&request),
            "/v2/stats/self" => self.statistics(&request, Self::own_stats),
            "/v2/stats/leader" => self.statistics(&request, Self::leader_stats),
            "/v2/stats/store" => self.statistics(&request, Self::store_stats),
            _ => refuse(StatusCode::NOT_FOUND, "404 page not found"),
        }
    }

    /// The header that tells clusters apart.
    fn name_cluster(&self, headers: &mut HeaderMap) {
        set(
            headers,
            "x-etcd-cluster-id",
            format!("{:x}", self.node.cluster_id),
        );
    }
}

/// Now, in nanoseconds since 1970.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
    })
}

/// What of a path comes after a prefix that ends with it or at a slash.
fn below<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    path.strip_prefix(prefix)
        .filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The path to which Go's router sends those who ask for one with empty parts or dots in it.
fn cleaned(path: &str) -> Option<String> {
    let mut clean = member_v2::clean(path);
    if path.ends_with('/') && clean != "/" {
        clean.push('/');
    }
    (clean != path).then_some(clean)
}

/// Go's `URL.EscapedPath`.
fn escaped(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => out.push(char::from(byte)),
            b'-' | b'_' | b'.' | b'~' | b'$' | b'&' | b'+' | b',' | b'/' | b':' | b';' | b'='
            | b'@' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn redirect(request: &Request<Incoming>, path: &str) -> Response<Body> {
    let query = request.uri().query();
    let location = path.to_owned() + &query.map(|query| format!("?{query}")).unwrap_or_default();
    let mut response = if matches!(*request.method(), Method::GET | Method::HEAD) {
        let shown = location.replace('&', "&amp;").replace('\'', "&#39;");
        let mut response = plain::text(
            StatusCode::MOVED_PERMANENTLY,
            format!("<a href=\"{shown}\">Moved Permanently</a>.\n\n"),
        );
        let html = "text/html; charset=utf-8";
        set(response.headers_mut(), "content-type", html.to_owned());
        response
    } else {
        empty(StatusCode::MOVED_PERMANENTLY)
    };
    set(response.headers_mut(), "location", location);
    response
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// A method that a path does not have.
fn refuse_method(allowed: &str) -> Response<Body> {
    let mut response = refuse(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    set(response.headers_mut(), "allow", allowed.to_owned());
    response
}

fn json(status: StatusCode, body: impl Into<bytes::Bytes>) -> Response<Body> {
    let mut response = plain::text(status, body);
    let headers = response.headers_mut();
    set(headers, "content-type", "application/json".to_owned());
    response
}

/// Sets a header to what is known to be text for one.
fn set(headers: &mut HeaderMap, name: &'static str, value: String) {
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(name, value);
    }
}
