//! HTTP answers of the gateway: statuses, error bodies.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use tonic::body::Body;
use tonic::{Code, Status};

use member_v2::write_string;

/// The HTTP status of a refusal, as grpc-gateway of etcd 3.4 maps it.
fn http_status(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::Cancelled => StatusCode::REQUEST_TIMEOUT,
        Code::InvalidArgument | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::FailedPrecondition => StatusCode::PRECONDITION_FAILED,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn quoted(text: &str) -> String {
    let mut out = String::new();
    write_string(&mut out, text);
    out
}

pub(super) fn json(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}

pub(super) fn whole(body: impl Into<Bytes>) -> Body {
    Body::new(Full::new(body.into()))
}

/// The answer to a call that was answered: etcd passes on the type of the answer inside.
pub(super) fn answered(body: Body) -> Response<Body> {
    let mut response = json(StatusCode::OK, body);
    response.headers_mut().insert(
        "grpc-metadata-content-type",
        HeaderValue::from_static("application/grpc"),
    );
    response
}

/// The answer to a call that was refused.
pub(super) fn refused(status: &Status) -> Response<Body> {
    let text = quoted(status.message());
    let code = i32::from(status.code());
    let body = format!("{{\"error\":{text},\"message\":{text},\"code\":{code}}}");
    json(http_status(status.code()), whole(body))
}

/// The line of a stream that ends with a refusal.
pub(super) fn refused_line(status: &Status) -> (StatusCode, String) {
    let http = http_status(status.code());
    let line = format!(
        "{{\"error\":{{\"grpc_code\":{},\"http_code\":{},\"message\":{},\"http_status\":{}}}}}\n",
        i32::from(status.code()),
        http.as_u16(),
        quoted(status.message()),
        quoted(http.canonical_reason().unwrap_or_default()),
    );
    (http, line)
}

/// What is not a call.
pub(super) fn plain(status: StatusCode) -> Response<Body> {
    crate::http::refuse(status, status.canonical_reason().unwrap_or_default())
}
