//! One request's way through the proxy. Texts and status codes are etcd's: `proxy/httpproxy` of 3.4 and 3.5.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::Uri;
use hyper::body::Incoming;
use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use member_flags::Flags;
use tokio::net::TcpStream;
use tonic::Status;
use tonic::body::Body;
use tower::util::BoxCloneSyncService;

use super::director::Director;
use super::is_readonly;
use crate::access::Access;
use crate::http::{only_get, refuse, text};
use crate::member::GRPC_OVERHEAD_BYTES;
use crate::metrics::{Proxied, Unanswered};
use crate::router::is_grpc;
use crate::tls::{PeerConnector, Transport};

/// etcd keeps as many connections to each member.
const IDLE_CONNECTIONS: usize = 128;

/// Headers that concern one connection and not the request.
const SINGLE_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    HeaderName::from_static("trailers"),
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

type Dialer = BoxCloneSyncService<Uri, TokioIo<Transport<TcpStream>>, io::Error>;

/// Passes requests on.
pub(super) struct Forwarder {
    client: Client<TimeoutConnector<Dialer>, Full<Bytes>>,
    director: Arc<Director>,
    readonly: bool,
    /// Bounds the bytes of a request, which is kept until a member has answered.
    receive: usize,
    counts: Proxied,
}

impl Forwarder {
    pub(super) fn new(flags: &Flags, connector: PeerConnector, director: Arc<Director>) -> Self {
        let dial = tower::service_fn(move |uri: Uri| {
            let connector = connector.clone();
            async move { connector.connect(&uri.to_string()).await.map(TokioIo::new) }
        });
        let mut dialer = TimeoutConnector::new(BoxCloneSyncService::new(dial));
        dialer.set_connect_timeout(flags.proxy.dial_timeout());
        dialer.set_read_timeout(flags.proxy.read_timeout());
        dialer.set_write_timeout(flags.proxy.write_timeout());
        dialer.set_reset_reader_on_write(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .build(dialer);
        let receive = usize::try_from(flags.max_request_bytes).unwrap_or(usize::MAX);
        Self {
            client,
            director,
            readonly: is_readonly(flags),
            receive: receive.saturating_add(GRPC_OVERHEAD_BYTES),
            counts: Proxied::default(),
        }
    }

    /// Answers a request to a client port.
    pub(super) async fn answer(
        &self,
        access: &Access,
        remote: SocketAddr,
        request: Request<Incoming>,
    ) -> Response<Body> {
        let path = request.uri().path();
        if path == "/metrics" {
            return self.answer_metrics(&request);
        }
        if is_grpc(&request) {
            // etcd's proxy breaks the connection off, or passes on what a member makes of gRPC in HTTP/1.
            let status =
                Status::unimplemented("this is a proxy of the v2 API: connect to a member");
            return status.into_http();
        }
        if self.readonly && request.method() != Method::GET {
            return empty(StatusCode::NOT_IMPLEMENTED);
        }
        let readers = match access.admit(&request, false) {
            ControlFlow::Continue(readers) => readers,
            ControlFlow::Break(answer) => return answer,
        };
        let mut response = if path == "/v2/config/local/proxy" {
            self.endpoints(request.method())
        } else {
            self.forward(remote.ip(), request).await
        };
        readers.tell(response.headers_mut());
        response
    }

    /// Answers a request to a port for metrics.
    pub(super) fn answer_metrics<B>(&self, request: &Request<B>) -> Response<Body> {
        if request.uri().path() != "/metrics" {
            return refuse(StatusCode::NOT_FOUND, "404 page not found");
        }
        let mut response = text(StatusCode::OK, self.counts.render());
        response.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
        );
        response
    }

    fn endpoints(&self, method: &Method) -> Response<Body> {
        if method != Method::GET {
            return only_get();
        }
        let endpoints = self.director.available(Instant::now());
        let endpoints: Vec<String> = endpoints.iter().map(ToString::to_string).collect();
        let body = serde_json::json!({ "endpoints": endpoints });
        text(StatusCode::OK, format!("{body}\n"))
    }

    async fn forward(&self, from: IpAddr, request: Request<Incoming>) -> Response<Body> {
        let started = Instant::now();
        let (mut parts, body) = request.into_parts();
        let Some(path) = parts.uri.path_and_query().cloned() else {
            // CONNECT, which names no path and would make a tunnel of the connection.
            return empty(StatusCode::NOT_IMPLEMENTED);
        };
        self.counts.came(&parts.method);
        let body = match Limited::new(body, self.receive).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => {
                let status = if error.is::<LengthLimitError>() {
                    StatusCode::PAYLOAD_TOO_LARGE
                } else {
                    StatusCode::INTERNAL_SERVER_ERROR
                };
                return unanswered(status, &format!("failed to read request body: {error}"));
            }
        };
        let endpoints = self.director.available(started);
        if endpoints.is_empty() {
            self.counts.dropped(&parts.method, Unanswered::NoEndpoint);
            return unanswered(
                StatusCode::SERVICE_UNAVAILABLE,
                "zero endpoints currently available",
            );
        }
        redress(&mut parts, from);
        for endpoint in &endpoints {
            let sent = match endpoint.at(&path) {
                Ok(uri) => self.client.request(copy(&parts, uri, &body)).await,
                Err(error) => return unanswered(StatusCode::BAD_REQUEST, &error.to_string()),
            };
            match sent {
                Ok(response) => {
                    let status = response.status();
                    self.counts
                        .handled(&parts.method, status, started.elapsed());
                    return passed_back(response);
                }
                Err(error) => {
                    self.counts.dropped(&parts.method, Unanswered::NotSent);
                    let error = chain(&error);
                    tracing::info!(url = %endpoint, error, "failed to direct request");
                    self.director.failed(endpoint, Instant::now());
                }
            }
        }
        self.counts.dropped(&parts.method, Unanswered::NoResponse);
        let count = endpoints.len();
        unanswered(
            StatusCode::BAD_GATEWAY,
            &format!("unable to get response from {count} endpoint(s)"),
        )
    }
}

/// Makes the headers those of the request to a member: the Host stays the client's, as in etcd.
fn redress(parts: &mut Parts, from: IpAddr) {
    // HTTP/2 has it in the URI.
    if let Some(host) = parts.uri.authority().map(|host| host.as_str().to_owned())
        && let Ok(host) = HeaderValue::from_str(&host)
    {
        parts.headers.insert(header::HOST, host);
    }
    strip(&mut parts.headers);
    let prior = parts.headers.get_all(FORWARDED_FOR);
    let mut way: Vec<u8> = Vec::new();
    for prior in prior {
        way.extend_from_slice(prior.as_bytes());
        way.extend_from_slice(b", ");
    }
    way.extend_from_slice(from.to_canonical().to_string().as_bytes());
    if let Ok(way) = HeaderValue::from_bytes(&way) {
        parts.headers.insert(FORWARDED_FOR, way);
    }
}

fn copy(parts: &Parts, uri: Uri, body: &Bytes) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(body.clone()));
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = uri;
    *request.headers_mut() = parts.headers.clone();
    request
}

fn strip(headers: &mut HeaderMap) {
    for name in &SINGLE_HOP {
        headers.remove(name);
    }
}

fn passed_back(response: Response<Incoming>) -> Response<Body> {
    let mut response = response.map(Body::new);
    strip(response.headers_mut());
    response
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::default());
    *response.status_mut() = status;
    response
}

/// An answer of the proxy itself.
fn unanswered(status: StatusCode, reason: &str) -> Response<Body> {
    tracing::info!("{reason}");
    let body = serde_json::json!({ "message": format!("httpproxy: {reason}") });
    let mut response = text(status, body.to_string());
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}

/// An error with what lies behind it, which alone says what happened.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redressed(headers: &[(&'static str, &'static str)], uri: &str) -> HeaderMap {
        let mut request = Request::get(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        redress(&mut parts, IpAddr::from([10, 0, 0, 9]));
        parts.headers
    }

    #[test]
    fn headers_of_one_connection_stay_and_the_way_grows() {
        let headers = redressed(
            &[
                ("host", "a:1"),
                ("connection", "keep-alive"),
                ("te", "trailers"),
                ("upgrade", "h2c"),
                ("transfer-encoding", "chunked"),
                ("x-forwarded-for", "10.0.0.1"),
                ("x-forwarded-for", "10.0.0.2"),
                ("x-other", "kept"),
            ],
            "/v2/keys",
        );
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["host", "x-forwarded-for", "x-other"]);
        assert_eq!(headers["x-forwarded-for"], "10.0.0.1, 10.0.0.2, 10.0.0.9");
        assert_eq!(headers["host"], "a:1");
    }

    #[test]
    fn the_host_of_http2_becomes_a_header() {
        let headers = redressed(&[], "https://b.example:2/v2/keys");
        assert_eq!(headers["host"], "b.example:2");
        assert_eq!(headers["x-forwarded-for"], "10.0.0.9");
    }
}
