//! One request of the gateway: from HTTP to a call of a service and back.

use std::future::Future;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use prost::Message as _;
use prost_reflect::{DynamicMessage, MessageDescriptor, MethodDescriptor};
use tokio::sync::Semaphore;
use tonic::body::Body;
use tonic::{Code, Status};

use super::json::{self, Unread};
use super::{answer, message, routes, stream};

/// Bytes of an answer that are turned into JSON on the reactor, where heartbeats wait for it: a fraction of a
/// millisecond, which hundreds of streams may take one after the other.
const SHORT: usize = 16 << 10;

/// Turns for longer answers: one core stays free of them.
static TURNS: LazyLock<Semaphore> = LazyLock::new(|| {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Semaphore::new(cores.saturating_sub(1).max(1))
});

/// What the gateway needs of the port that it is part of.
pub(crate) trait Call: Clone + Send + 'static {
    /// Answers a gRPC request.
    fn call(self, request: Request<Body>) -> impl Future<Output = Response<Body>> + Send;
}

/// Bytes of JSON that a request may have for one byte of its message: base64 takes 4 for 3, escapes more.
const JSON_OVERHEAD: usize = 2;

/// How many times as much as is allowed is read of a request that is refused for its size. A connection that is closed
/// while its client still sends is reset, and the answer lost with it.
const READ_IN_VAIN: usize = 4;

/// Answers what came to a path below `/v3`; `receive` bounds the bytes of a message.
pub(crate) async fn respond<C: Call>(
    port: C,
    request: Request<Incoming>,
    receive: usize,
) -> Response<Body> {
    if request.uri().path() == "/v3" {
        let mut response = Response::new(answer::whole(""));
        *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
        let headers = response.headers_mut();
        headers.insert(header::LOCATION, HeaderValue::from_static("/v3/"));
        return response;
    }
    let Some(method) = routes::find(request.uri().path()) else {
        return answer::plain(StatusCode::NOT_FOUND);
    };
    if request.method() != Method::POST {
        return answer::plain(StatusCode::METHOD_NOT_ALLOWED);
    }
    let patience = match timeout(request.headers()) {
        Ok(patience) => patience,
        Err(status) => return answer::refused(&status),
    };
    let limit = receive.saturating_mul(JSON_OVERHEAD);
    let (parts, body) = request.into_parts();
    let head = head(&method, &parts.headers);
    let answered = async move {
        if method.is_client_streaming() {
            stream::both_ways(port, head, body, &method, limit).await
        } else if method.is_server_streaming() {
            match whole_request(body, &method.input(), limit).await {
                Ok(message) => {
                    let body = Body::new(Full::new(frame(&message)));
                    stream::one_way(port.call(head.map(|()| body)).await, &method.output()).await
                }
                Err(status) => answer::refused(&status),
            }
        } else {
            match unary(port, head, body, &method, limit).await {
                Ok(json) => answer::answered(answer::whole(json)),
                Err(status) => answer::refused(&status),
            }
        }
    };
    match patience {
        None => answered.await,
        Some(patience) => {
            let asked = Instant::now();
            match tokio::time::timeout(patience, answered).await {
                // The timer is coarser than the times that clients may give.
                Ok(response) if asked.elapsed() < patience => response,
                _ => answer::refused(&Status::deadline_exceeded("context deadline exceeded")),
            }
        }
    }
}

async fn unary<C: Call>(
    port: C,
    head: Request<()>,
    body: Incoming,
    method: &MethodDescriptor,
    limit: usize,
) -> Result<String, Status> {
    let message = whole_request(body, &method.input(), limit).await?;
    let body = Body::new(Full::new(frame(&message)));
    let response = port.call(head.map(|()| body)).await;
    if let Some(status) = Status::from_header_map(response.headers())
        && status.code() != Code::Ok
    {
        return Err(status);
    }
    let collected = response.into_body().collect().await?;
    if let Some(status) = collected.trailers().and_then(Status::from_header_map)
        && status.code() != Code::Ok
    {
        return Err(status);
    }
    let mut bytes = BytesMut::from(collected.to_bytes());
    let message =
        unframe(&mut bytes).ok_or_else(|| Status::internal("an answer without a message"))?;
    let description = method.output();
    to_json_aside(message, description).await
}

/// Writes a message as JSON without holding up what else the member does.
pub(super) async fn to_json_aside(
    message: Bytes,
    description: MessageDescriptor,
) -> Result<String, Status> {
    if message.len() <= SHORT {
        return to_json(message, description);
    }
    let failed = |error: &dyn std::error::Error| Status::internal(error.to_string());
    let _turn = TURNS.acquire().await.map_err(|error| failed(&error))?;
    tokio::task::spawn_blocking(move || to_json(message, description))
        .await
        .map_err(|error| failed(&error))?
}

/// The request's message. An empty body is the message without fields; what follows the first value is ignored.
async fn whole_request(
    mut body: Incoming,
    description: &MessageDescriptor,
    limit: usize,
) -> Result<DynamicMessage, Status> {
    let text = match Limited::new(&mut body, limit).collect().await {
        Ok(text) => text,
        Err(error) if error.is::<LengthLimitError>() => {
            let mut rest = Limited::new(body, limit.saturating_mul(READ_IN_VAIN));
            while let Some(Ok(_)) = rest.frame().await {}
            return Err(too_large(limit));
        }
        Err(error) => return Err(Status::cancelled(error.to_string())),
    };
    match json::first(&text.to_bytes()) {
        Ok((json, _)) => message::read(&json, description).map_err(Status::invalid_argument),
        Err(Unread::Blank) => Ok(DynamicMessage::new(description.clone())),
        Err(Unread::Cut) => Err(Status::invalid_argument("unexpected EOF")),
        Err(Unread::Malformed(words)) => Err(Status::invalid_argument(words)),
    }
}

pub(super) fn too_large(limit: usize) -> Status {
    Status::resource_exhausted(format!(
        "etcdserver: request is too large: its JSON has more than {limit} bytes"
    ))
}

/// A gRPC frame: no compression, length, message.
pub(super) fn frame(message: &DynamicMessage) -> Bytes {
    let length = message.encoded_len();
    let mut out = BytesMut::with_capacity(5 + length);
    out.put_u8(0);
    // A body is bounded far below 4 GiB.
    out.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    // The buffer grows, so that encoding cannot run out of room.
    let _ = message.encode(&mut out);
    out.freeze()
}

/// Takes the first whole message out of gRPC frames.
pub(super) fn unframe(bytes: &mut BytesMut) -> Option<Bytes> {
    let head = bytes.get(1..5)?;
    let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
    let end = 5 + usize::try_from(length).ok()?;
    if bytes.len() < end {
        return None;
    }
    let mut taken = bytes.split_to(end);
    Some(taken.split_off(5).freeze())
}

fn to_json(message: Bytes, description: MessageDescriptor) -> Result<String, Status> {
    let message = DynamicMessage::decode(description, message)
        .map_err(|error| Status::internal(error.to_string()))?;
    let mut json = String::new();
    message::write(&mut json, &message);
    Ok(json)
}

/// Headers that grpc-gateway hands on under a prefix of its own.
const PASSED_ON: [HeaderName; 6] = [
    header::ACCEPT,
    header::AUTHORIZATION,
    header::CONTENT_TYPE,
    header::ORIGIN,
    header::REFERER,
    header::USER_AGENT,
];

/// The head of the gRPC request.
fn head(method: &MethodDescriptor, given: &HeaderMap) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    let service = method.parent_service().full_name().to_owned();
    if let Ok(uri) = format!("/{service}/{}", method.name()).parse() {
        *request.uri_mut() = uri;
    }
    let headers = request.headers_mut();
    for (name, value) in given {
        if let Some(own) = name.as_str().strip_prefix("grpc-metadata-")
            && let Ok(own) = HeaderName::from_bytes(own.as_bytes())
        {
            headers.append(own, value.clone());
        } else if PASSED_ON.contains(name)
            && let Ok(marked) = HeaderName::from_bytes(format!("grpcgateway-{name}").as_bytes())
        {
            headers.append(marked, value.clone());
        }
    }
    if let Some(token) = given.get(header::AUTHORIZATION) {
        headers.insert(header::AUTHORIZATION, token.clone());
    }
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    // The mark of the gateway, by which services tell its requests: there also when a client sent no such header.
    headers
        .entry(HeaderName::from_static("grpcgateway-accept"))
        .or_insert(HeaderValue::from_static("*/*"));
    // Last, because what a client sends must not change how its own message is read.
    headers.remove("grpc-encoding");
    headers.remove("grpc-accept-encoding");
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    request
}

/// How long the client waits, from `Grpc-Timeout`.
fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, Status> {
    let Some(value) = headers.get("grpc-timeout") else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default();
    let parsed = text.split_at_checked(text.len().saturating_sub(1));
    let duration = parsed.and_then(|(amount, unit)| {
        let amount: u64 = amount.parse().ok()?;
        Some(match unit {
            "H" => Duration::from_secs(amount.checked_mul(3600)?),
            "M" => Duration::from_secs(amount.checked_mul(60)?),
            "S" => Duration::from_secs(amount),
            "m" => Duration::from_millis(amount),
            "u" => Duration::from_micros(amount),
            "n" => Duration::from_nanos(amount),
            _ => return None,
        })
    });
    match duration {
        Some(duration) => Ok(Some(duration)),
        None => Err(Status::invalid_argument(format!(
            "invalid grpc-timeout: {text}"
        ))),
    }
}
