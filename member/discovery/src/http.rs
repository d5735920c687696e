//! One HTTP/1.1 request per connection, to the host of a URL or through a proxy, each with a time limit, and on to where
//! the answer sends it.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use member_flags::{Url, UrlError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use crate::Refusal;
use crate::tls::{self, Line, Trust};

/// More than any list of members is long.
const MAX_BODY_BYTES: usize = 4 << 20;

/// More than any answer of a proxy is long.
const MAX_HEAD_BYTES: usize = 8 << 10;

/// etcd's limit for connecting.
const DIAL: Duration = Duration::from_secs(30);

/// etcd's bound.
const MAX_REDIRECTS: usize = 10;

/// What stands against a request, told apart by whether to try again.
pub(crate) enum Fault {
    Passing(String),
    Final(Refusal),
}

/// An answer, its body read.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    location: Option<String>,
    /// `X-Etcd-Index`
    pub(crate) index: Option<u64>,
    pub(crate) body: Bytes,
}

/// The host of a service and the way to it.
pub(crate) struct Host {
    url: Url,
    proxy: Option<Url>,
    tls: Option<TlsConnector>,
}

/// Splits a URL with a path; a port that is left out is that of the scheme.
pub(crate) fn split(raw: &str) -> Result<(Url, String), Refusal> {
    let (url, path) = parts(raw)?;
    if path.contains(['?', '#']) {
        let raw = raw.trim().to_owned();
        return Err(Refusal::Url(UrlError::Extra { raw }));
    }
    Ok((url, path.trim_end_matches('/').to_owned()))
}

/// Splits a URL from what comes after the host.
fn parts(raw: &str) -> Result<(Url, String), Refusal> {
    let raw = raw.trim();
    let start = raw.find("://").map_or(0, |at| at + 3);
    let (base, path) = raw.split_at(raw[start..].find('/').map_or(raw.len(), |at| start + at));
    let whole = |error| {
        Refusal::Url(match error {
            UrlError::Parse { reason, .. } => UrlError::Parse {
                raw: raw.to_owned(),
                reason,
            },
            other => other,
        })
    };
    let url = match Url::parse(base) {
        Err(UrlError::HostPort { .. }) if base.len() > start => {
            let port = if base.starts_with("https") { 443 } else { 80 };
            Url::parse(&format!("{base}:{port}")).map_err(whole)?
        }
        other => other.map_err(whole)?,
    };
    if url.scheme().is_unix() {
        let raw = raw.to_owned();
        return Err(Refusal::Url(UrlError::Scheme { raw }));
    }
    check_address(&url, raw)?;
    Ok((url, path.to_owned()))
}

/// Checks what is a URL and yet no address to connect to, with Go's texts.
pub(crate) fn check_address(url: &Url, raw: &str) -> Result<(), Refusal> {
    let reason = match url.port() {
        _ if url.host().is_empty() => "no Host in request URL",
        None | Some(0) => "invalid port",
        Some(_) => return Ok(()),
    };
    Err(Refusal::Url(UrlError::Parse {
        raw: raw.to_owned(),
        reason: reason.to_owned(),
    }))
}

/// Where an answer of `from` sends the request.
fn elsewhere(from: &Url, location: &str) -> Result<(Url, String), Refusal> {
    let bad = |what: &str| Refusal::BadEndpoint {
        answer: format!("{what} {location:?}"),
    };
    let target = location.split('#').next().unwrap_or_default();
    let (url, mut path) = if target.starts_with('/') && !target.starts_with("//") {
        (from.clone(), target.to_owned())
    } else {
        parts(target).map_err(|_| bad("it redirects to what is no URL,"))?
    };
    if from.scheme().is_tls() && !url.scheme().is_tls() {
        return Err(bad("it redirects from https to http,"));
    }
    if path.is_empty() {
        path.push('/');
    }
    Ok((url, path))
}

impl Host {
    pub(crate) fn new(url: Url, proxy: Option<Url>) -> Result<Self, String> {
        let tls = url.scheme().is_tls();
        let tls = tls
            .then(|| Trust::SYSTEM.connector(b"http/1.1"))
            .transpose()?;
        Ok(Self { url, proxy, tls })
    }

    /// Another host, reached in the same way.
    fn beside(&self, url: Url) -> Result<Self, String> {
        match (&self.tls, url.scheme().is_tls()) {
            (Some(tls), true) => Ok(Self {
                url,
                proxy: self.proxy.clone(),
                tls: Some(tls.clone()),
            }),
            _ => Self::new(url, self.proxy.clone()),
        }
    }

    /// `scheme://host:port`
    pub(crate) fn name(&self) -> &str {
        self.url.as_str()
    }

    /// Asks for a path; `form` makes it a PUT.
    pub(crate) async fn ask(
        &self,
        path: &str,
        form: Option<String>,
        patience: Duration,
    ) -> Result<Answer, Fault> {
        let asked = tokio::time::timeout(patience, self.follow(path, form));
        asked.await.unwrap_or_else(|_| {
            let seconds = patience.as_secs();
            Err(Fault::Passing(format!("no answer within {seconds}s")))
        })
    }

    /// As etcd: whatever redirects, method and body stay.
    async fn follow(&self, path: &str, form: Option<String>) -> Result<Answer, Fault> {
        let mut next: Option<(Self, String)> = None;
        for _ in 0..=MAX_REDIRECTS {
            let (host, path) = match &next {
                None => (self, path),
                Some((host, path)) => (host, path.as_str()),
            };
            let answer = host.exchange(path, form.clone()).await;
            let answer = answer.map_err(Fault::Passing)?;
            let location = answer.location.as_ref();
            let Some(location) = location.filter(|_| answer.status.is_redirection()) else {
                return Ok(answer);
            };
            let (url, path) = elsewhere(&host.url, location).map_err(Fault::Final)?;
            let host = host
                .beside(url)
                .map_err(|reason| Fault::Final(Refusal::Setup { reason }))?;
            next = Some((host, path));
        }
        Err(Fault::Final(Refusal::BadEndpoint {
            answer: format!("it redirects more than {MAX_REDIRECTS} times"),
        }))
    }

    async fn exchange(&self, path: &str, form: Option<String>) -> Result<Answer, String> {
        let plain_proxy = self.proxy.is_some() && self.tls.is_none();
        // A proxy of plain HTTP is given the whole URL.
        let target = if plain_proxy {
            format!("{}{path}", self.url)
        } else {
            path.to_owned()
        };
        let mut request = Request::get(target).header(header::HOST, self.url.address());
        if form.is_some() {
            request = request
                .method("PUT")
                .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        }
        let body = Full::new(Bytes::from(form.unwrap_or_default()));
        let request = request.body(body).map_err(|error| error.to_string())?;
        let (response, _connection) = send(self.connect().await?, request).await?;
        let status = response.status();
        let index = response
            .headers()
            .get("x-etcd-index")
            .and_then(|index| index.to_str().ok()?.parse().ok());
        let location = response.headers().get(header::LOCATION);
        let location = location.map(|to| String::from_utf8_lossy(to.as_bytes()).into_owned());
        let body = Limited::new(response.into_body(), MAX_BODY_BYTES)
            .collect()
            .await
            .map_err(|error| error.to_string())?
            .to_bytes();
        Ok(Answer {
            status,
            location,
            index,
            body,
        })
    }

    async fn connect(&self) -> Result<Line, String> {
        let way = self.proxy.as_ref().unwrap_or(&self.url);
        let stream = dial(way).await?;
        let stream = if self.proxy.is_some() && self.tls.is_some() {
            tunnel(stream, self.url.address()).await?
        } else {
            stream
        };
        tls::open(self.tls.as_ref(), self.url.host(), stream)
            .await
            .map_err(|error| error.to_string())
    }
}

async fn dial(url: &Url) -> Result<TcpStream, String> {
    let address = (url.host(), url.port().unwrap_or_default());
    let failed = |reason: &dyn std::fmt::Display| format!("dial tcp {}: {reason}", url.address());
    match tokio::time::timeout(DIAL, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(failed(&error)),
        Err(_) => Err(failed(&"i/o timeout")),
    }
}

/// Sends a request; the connection lives as long as its handle.
async fn send(
    stream: Line,
    request: Request<Full<Bytes>>,
) -> Result<(Response<Incoming>, AbortOnDropHandle<()>), String> {
    let text = |error: hyper::Error| error.to_string();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
    let connection = AbortOnDropHandle::new(tokio::spawn(async move {
        // A broken connection shows in the answer.
        let _ = connection.await;
    }));
    let response = sender.send_request(request).await.map_err(text)?;
    Ok((response, connection))
}

/// Has a proxy connect to the address, for TLS through it.
async fn tunnel(mut stream: TcpStream, address: &str) -> Result<TcpStream, String> {
    let text = |error: std::io::Error| error.to_string();
    let request = format!("CONNECT {address} HTTP/1.1\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(text)?;
    // Byte by byte, because what follows the answer belongs to TLS.
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() >= MAX_HEAD_BYTES {
            return Err("the proxy's answer is too long".to_owned());
        }
        answer.push(stream.read_u8().await.map_err(text)?);
    }
    let line = String::from_utf8_lossy(&answer);
    let line = line.lines().next().unwrap_or_default();
    if line
        .split(' ')
        .nth(1)
        .is_some_and(|status| status.starts_with('2'))
    {
        Ok(stream)
    } else {
        Err(format!("the proxy refuses to connect: {line}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_split_and_faults_are_named() {
        for (raw, base, path) in [
            ("http://h:4001/v2/keys/t", "http://h:4001", "/v2/keys/t"),
            (
                "https://discovery.etcd.io/t/",
                "https://discovery.etcd.io:443",
                "/t",
            ),
            ("http://h", "http://h:80", ""),
        ] {
            let (url, rest) = split(raw).unwrap();
            assert_eq!((url.as_str(), rest.as_str()), (base, path), "{raw}");
        }
        for (raw, text) in [
            (
                "http://%zz",
                "parse \"http://%zz\": invalid URL escape \"%zz\"",
            ),
            ("foo", "URL scheme must be http, https, unix, or unixs: foo"),
            (
                "unix://a/b",
                "URL scheme must be http, https, unix, or unixs: unix://a/b",
            ),
            (
                "http://h:1/t?x=1",
                "URL must not contain a user, a query or a fragment: http://h:1/t?x=1",
            ),
            (
                "http://h:99999/t",
                "parse \"http://h:99999/t\": invalid port",
            ),
            (
                "http://:80/t",
                "parse \"http://:80/t\": no Host in request URL",
            ),
            (
                "http://[::1/t",
                "parse \"http://[::1/t\": missing ']' in host",
            ),
        ] {
            assert_eq!(split(raw).unwrap_err().to_string(), text);
        }
    }

    #[test]
    fn a_redirect_leads_to_a_url_or_a_path_and_never_out_of_tls() {
        let from = |raw| split(raw).unwrap().0;
        let to = |raw, location| {
            elsewhere(&from(raw), location)
                .map(|(url, path)| format!("{url}{path}"))
                .map_err(|error| error.to_string())
        };
        for (location, expected) in [
            ("http://o:4001/t/?q=1#x", "http://o:4001/t/?q=1"),
            ("https://o", "https://o:443/"),
            ("/t?q=1", "http://h:1/t?q=1"),
        ] {
            assert_eq!(to("http://h:1", location).as_deref(), Ok(expected));
        }
        for (raw, location, text) in [
            (
                "https://h:1/t",
                "http://h:1/t",
                "discovery: bad discovery endpoint: it redirects from https to http, \"http://h:1/t\"",
            ),
            (
                "http://h:1/t",
                "//h:2",
                "discovery: bad discovery endpoint: it redirects to what is no URL, \"//h:2\"",
            ),
        ] {
            assert_eq!(to(raw, location), Err(text.to_owned()));
        }
    }
}
