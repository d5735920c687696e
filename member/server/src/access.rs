//! What a client port asks of an HTTP request before it is answered: its Host, the Origin of the script that sends
//! it, the certificate at the JSON gateway. gRPC is not asked. Source: etcd 3.4, `embed/serve.go`.

use std::ops::ControlFlow;

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use member_flags::{Allowed, Flags};
use tonic::body::Body;

use crate::auth::ClientName;
use crate::http::refuse;
use crate::tls::InPlainText;

/// The rules of a client port.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    origins: Allowed,
    hosts: Allowed,
    secure: bool,
}

/// Whose scripts may read the answer.
#[derive(Debug)]
pub(crate) struct Readers(Option<HeaderValue>);

impl Access {
    /// The rules of the flags for a port that is `secure`, which is one with TLS; what comes without it is marked.
    pub(crate) fn new(flags: &Flags, secure: bool) -> Self {
        Self {
            origins: flags.cors.clone(),
            hosts: flags.host_whitelist.clone(),
            secure,
        }
    }

    /// Lets a request in, or answers it: refused, or a browser's question whether it may call. `auth`: whether users
    /// have to log in.
    pub(crate) fn admit<B>(
        &self,
        request: &Request<B>,
        auth: bool,
    ) -> ControlFlow<Response<Body>, Readers> {
        if !self.secure || request.extensions().get::<InPlainText>().is_some() {
            let host = host(request);
            if !self.hosts.allows(host) {
                return ControlFlow::Break(refuse(
                    StatusCode::MISDIRECTED_REQUEST,
                    &unrecognized(host),
                ));
            }
        } else if auth
            && request.uri().path().starts_with("/v3/")
            && request.extensions().get::<ClientName>().is_some()
        {
            return ControlFlow::Break(refuse(
                StatusCode::BAD_REQUEST,
                "CommonName of client sending a request against gateway will be ignored and not used as expected",
            ));
        }
        let readers = Readers(self.allowed_origin(request));
        if request.method() == Method::OPTIONS {
            let mut response = Response::new(Body::new(Full::default()));
            readers.tell(response.headers_mut());
            return ControlFlow::Break(response);
        }
        ControlFlow::Continue(readers)
    }

    fn allowed_origin<B>(&self, request: &Request<B>) -> Option<HeaderValue> {
        if self.origins.any() {
            return Some(HeaderValue::from_static("*"));
        }
        let origin = request.headers().get(header::ORIGIN)?;
        self.origins
            .allows(origin.to_str().ok()?)
            .then(|| origin.clone())
    }
}

impl Readers {
    /// Writes the headers that a browser looks for.
    pub(crate) fn tell(self, headers: &mut HeaderMap) {
        let Some(origin) = self.0 else { return };
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static("POST, GET, OPTIONS, PUT, DELETE"),
        );
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            HeaderValue::from_static("accept, content-type, authorization"),
        );
    }
}

/// The host that a request is for, without its port.
fn host<B>(request: &Request<B>) -> &str {
    let named = match request.uri().authority() {
        Some(authority) => authority.as_str(),
        None => {
            let host = request.headers().get(header::HOST);
            host.and_then(|host| host.to_str().ok()).unwrap_or("")
        }
    };
    match named.rsplit_once(':') {
        Some((host, _)) if !host.contains(':') => host,
        Some((host, _)) if host.starts_with('[') && host.ends_with(']') => &host[1..host.len() - 1],
        _ => named,
    }
}

fn unrecognized(host: &str) -> String {
    format!(
        "
etcd received your request, but the Host header was unrecognized.

To fix this, choose one of the following options:
- Enable TLS, then any HTTPS request will be allowed.
- Add the hostname you want to use to the whitelist in settings.
  - e.g. etcd --host-whitelist {host:?}

This requirement has been added to help prevent \"DNS Rebinding\" attacks (CVE-2018-5702).
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_read_without_its_port() {
        for (sent, expected) in [
            ("a.example", "a.example"),
            ("a.example:99", "a.example"),
            ("127.0.0.1:2379", "127.0.0.1"),
            ("[::1]:2379", "::1"),
            ("[::1]", "[::1]"),
            ("::1", "::1"),
            ("", ""),
        ] {
            let request = Request::builder().header("host", sent).body(()).unwrap();
            assert_eq!(host(&request), expected, "{sent}");
        }
        let request = Request::get("http://b.example:1/x").body(()).unwrap();
        assert_eq!(host(&request), "b.example");
    }
}
