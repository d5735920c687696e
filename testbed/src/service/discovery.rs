//! The discovery service that etcd's guides use (`/new?size=N`, tokens), equal to the public one but for its `/metrics`.
//!
//! It keeps nothing: a token is a directory of an etcd, or of a member that has the v2 API, and requests below a
//! token are passed on to it. Like the public service it takes any number as the size, 0 and -1 too: etcd says what is wrong with them.

mod form;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use self::form::{Body, body, end_to_end, error, form_value, go_atoi, home, text};

const REGISTRY: &str = "/v2/keys/_etcd/registry";
const TOKEN_DIGITS: usize = 32;
// The backend answers within milliseconds; this is for one that hangs. Only the wait of a member for its peers may be longer.
const BACKEND_LIMIT: Duration = Duration::from_secs(5);
// Files become free when connections end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
// A member registers a name and some URLs.
const LARGEST_BODY: usize = 64 * 1024;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A running service; it ends when this is dropped.
#[derive(Debug)]
pub struct DiscoveryServer {
    address: SocketAddr,
    task: JoinHandle<()>,
}

/// Why the service does not run.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// The address is taken or not of this host.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A backend's URL is not of the form `http://HOST:PORT`.
    #[error("{url:?} is no URL of a backend: write http://HOST:PORT")]
    Backend {
        /// What was given.
        url: String,
    },
}

struct Service {
    /// `HOST:PORT` of each member of the backend.
    backends: Vec<String>,
    /// What tokens are appended to.
    prefix: String,
}

impl DiscoveryServer {
    /// Listens on `address`; port 0 takes a free one. Tokens live in the etcd at `backends`, tried in this order, each a URL
    /// `http://HOST:PORT`. URLs of tokens begin with `prefix`, by default `http://` and the address. Needs a runtime.
    ///
    /// # Errors
    /// [`DiscoveryError`].
    pub async fn start(
        address: SocketAddr,
        backends: &[String],
        prefix: Option<String>,
    ) -> Result<Self, DiscoveryError> {
        let backends = backends.iter().map(|url| backend(url));
        let backends = backends.collect::<Result<Vec<_>, _>>()?;
        if backends.is_empty() {
            return Err(DiscoveryError::Backend { url: String::new() });
        }
        let listen = |source| DiscoveryError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let prefix = prefix.unwrap_or_else(|| format!("http://{address}"));
        let service = Arc::new(Service {
            backends,
            prefix: prefix.trim_end_matches('/').to_owned(),
        });
        Ok(Self {
            address,
            task: tokio::spawn(serve(listener, service)),
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Says how many members a token waits for, as the guide does with curl: `key` is the path of its `_config/size` in the etcd at
/// `url`. The answer is 201 for a new token and 200 for one that had a size.
///
/// # Errors
/// The etcd cannot be reached.
pub async fn set_size(
    url: &str,
    key: &str,
    size: &str,
) -> Result<StatusCode, Box<dyn std::error::Error + Send + Sync>> {
    let service = Service {
        backends: vec![backend(url)?],
        prefix: String::new(),
    };
    service.set_size(key, size).await
}

/// Takes away what a member has registered: `key` is the path of its registration in the etcd at `url`. There may be none.
///
/// # Errors
/// The etcd cannot be reached, or refuses.
pub async fn forget(url: &str, key: &str) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let service = Service {
        backends: vec![backend(url)?],
        prefix: String::new(),
    };
    let request = Request::delete(key).body(Bytes::new())?;
    match service.ask(request, Some(BACKEND_LIMIT)).await?.status() {
        status if status.is_success() || status == StatusCode::NOT_FOUND => Ok(()),
        status => Err(format!("the backend answered {status}").into()),
    }
}

impl Drop for DiscoveryServer {
    fn drop(&mut self) {
        // The connections belong to the task and end with it.
        self.task.abort();
    }
}

fn backend(url: &str) -> Result<String, DiscoveryError> {
    let bad = || DiscoveryError::Backend {
        url: url.to_owned(),
    };
    let uri: Uri = url.parse().map_err(|_| bad())?;
    let plain = uri.scheme_str() == Some("http") && uri.path() == "/" && uri.query().is_none();
    match (uri.authority(), uri.port()) {
        (Some(authority), Some(_)) if plain => Ok(authority.to_string()),
        _ => Err(bad()),
    }
}

async fn serve(listener: TcpListener, service: Arc<Service>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // Out of files, or a client that left at once: the next one may do better.
                let Ok((stream, _)) = accepted else {
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                };
                let service = Arc::clone(&service);
                connections.spawn(async move {
                    let answer = service_fn(move |request| {
                        let service = Arc::clone(&service);
                        async move { Ok::<_, std::convert::Infallible>(service.route(request).await) }
                    });
                    // As Go writes names.
                    let mut builder = auto::Builder::new(TokioExecutor::new());
                    builder.http1().title_case_headers(true);
                    // A client that breaks off is its own affair.
                    let _broken_off = builder
                        .serve_connection(TokioIo::new(stream), answer)
                        .await;
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

impl Service {
    async fn route(&self, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        match path.as_str() {
            "/" => home(),
            "/robots.txt" => text(StatusCode::OK, "User-agent: *\nDisallow: /"),
            "/health" => self.health().await,
            "/new" => self.new_token(request).await,
            _ => match Route::of(&path) {
                None => error(StatusCode::NOT_FOUND, "404 page not found"),
                Some(route) if !route.allows(request.method()) => {
                    let mut response = Response::new(body(""));
                    *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
                    response
                }
                Some(_) => self
                    .pass_on(request)
                    .await
                    .unwrap_or_else(|_| error(StatusCode::INTERNAL_SERVER_ERROR, "")),
            },
        }
    }

    async fn health(&self) -> Response<Body> {
        let Ok(token) = self.create("0").await else {
            return error(StatusCode::BAD_REQUEST, "health failed to setupToken");
        };
        match self.delete(&token).await {
            Ok(()) => text(StatusCode::OK, "OK"),
            Err(_) => error(StatusCode::BAD_REQUEST, "health failed to deleteToken"),
        }
    }

    async fn new_token(&self, request: Request<Incoming>) -> Response<Body> {
        let query = request.uri().query().unwrap_or_default().to_owned();
        let form = request.headers().get(CONTENT_TYPE).is_some_and(|kind| {
            kind.as_bytes()
                .starts_with(b"application/x-www-form-urlencoded")
        });
        let mut size = None;
        if form && matches!(*request.method(), Method::PUT | Method::POST) {
            let sent = Limited::new(request.into_body(), LARGEST_BODY).collect();
            let Ok(Ok(sent)) = timeout(BACKEND_LIMIT, sent).await else {
                return error(
                    StatusCode::BAD_REQUEST,
                    "the form is too long or was not sent",
                );
            };
            size = form_value(&String::from_utf8_lossy(&sent.to_bytes()), "size");
        }
        let size = size.or_else(|| form_value(&query, "size"));
        let size = match size.filter(|size| !size.is_empty()) {
            None => "3".to_owned(),
            Some(size) => match size.parse::<i64>() {
                Ok(size) => size.to_string(),
                Err(why) => return error(StatusCode::BAD_REQUEST, &go_atoi(&size, &why)),
            },
        };
        match self.create(&size).await {
            Ok(token) => text(StatusCode::OK, &format!("{}/{token}", self.prefix)),
            Err(_) => error(StatusCode::BAD_REQUEST, "Unable to generate token"),
        }
    }

    async fn create(&self, size: &str) -> Result<String, BoxError> {
        let token = new_token()?;
        let key = format!("{REGISTRY}/{token}/_config/size?prevExist=false");
        match self.set_size(&key, size).await? {
            StatusCode::CREATED => Ok(token),
            other => Err(format!("the backend answered {other}").into()),
        }
    }

    async fn set_size(&self, key: &str, size: &str) -> Result<StatusCode, BoxError> {
        let request = Request::put(key)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Bytes::from(format!("value={size}")))?;
        Ok(self.ask(request, Some(BACKEND_LIMIT)).await?.status())
    }

    async fn delete(&self, token: &str) -> Result<(), BoxError> {
        let request =
            Request::delete(format!("{REGISTRY}/{token}?recursive=true")).body(Bytes::new())?;
        let response = self.ask(request, Some(BACKEND_LIMIT)).await?;
        if response.status().is_success() {
            Ok(())
        } else {
            Err(format!("the backend answered {}", response.status()).into())
        }
    }

    async fn pass_on(&self, request: Request<Incoming>) -> Result<Response<Body>, BoxError> {
        let (parts, sent) = request.into_parts();
        let sent = timeout(BACKEND_LIMIT, Limited::new(sent, LARGEST_BODY).collect()).await??;
        let query = parts.uri.query();
        let mut target = format!("{REGISTRY}{}", parts.uri.path().trim_end_matches('/'));
        if let Some(query) = query {
            target.push('?');
            target.push_str(query);
        }
        let mut outgoing = Request::builder().method(parts.method).uri(target);
        if let Some(headers) = outgoing.headers_mut() {
            *headers = end_to_end(parts.headers);
        }
        // A member waits for its peers as long as it takes; it is the client that ends this.
        let waits = query.is_some_and(|query| form_value(query, "wait").is_some());
        let limit = (!waits).then_some(BACKEND_LIMIT);
        let response = self.ask(outgoing.body(sent.to_bytes())?, limit).await?;
        let (mut parts, received) = response.into_parts();
        parts.headers = end_to_end(parts.headers);
        parts.version = http::Version::HTTP_11;
        Ok(Response::from_parts(parts, received.boxed()))
    }

    /// Asks the first backend that can be reached.
    async fn ask(
        &self,
        mut request: Request<Bytes>,
        limit: Option<Duration>,
    ) -> Result<Response<Incoming>, BoxError> {
        let mut last: BoxError = "there is no backend".into();
        for backend in &self.backends {
            let stream = match timeout(BACKEND_LIMIT, TcpStream::connect(backend)).await {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => {
                    last = error.into();
                    continue;
                }
                Err(late) => {
                    last = late.into();
                    continue;
                }
            };
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
            // Ends when the answer was read, or when nobody is left to read it.
            tokio::spawn(connection);
            request
                .headers_mut()
                .insert(HOST, HeaderValue::from_str(backend)?);
            let answer = sender.send_request(request.map(Full::new));
            return Ok(match limit {
                Some(limit) => timeout(limit, answer).await??,
                None => answer.await?,
            });
        }
        Err(last)
    }
}

/// What may be asked below a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    Token,
    Member,
    Size,
}

impl Route {
    fn of(path: &str) -> Option<Self> {
        let (token, rest) = path[1..].split_once('/').unwrap_or((&path[1..], ""));
        let is_token = token.len() == TOKEN_DIGITS
            && token
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if !is_token {
            return None;
        }
        match rest {
            "" => Some(Self::Token),
            "_config/size" => Some(Self::Size),
            // A name that steps out of the token's directory, however it is written, is nobody's.
            member if member.contains(['/', '%']) || matches!(member, "." | "..") => None,
            _ => Some(Self::Member),
        }
    }

    fn allows(self, method: &Method) -> bool {
        match self {
            Self::Token => matches!(*method, Method::GET | Method::PUT),
            Self::Member => matches!(*method, Method::GET | Method::PUT | Method::DELETE),
            Self::Size => *method == Method::GET,
        }
    }
}

fn new_token() -> Result<String, BoxError> {
    let mut bytes = [0; TOKEN_DIGITS / 2];
    getrandom::fill(&mut bytes).map_err(|error| error.to_string())?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tokens_and_what_is_below_them_are_passed_on() {
        let token = "0123456789abcdef0123456789abcdef";
        let of = |rest: &str| Route::of(&format!("/{token}{rest}"));
        assert_eq!([of(""), of("/")], [Some(Route::Token); 2]);
        assert_eq!(of("/_config/size"), Some(Route::Size));
        assert_eq!(of("/8e9e05c52164694d"), Some(Route::Member));
        for outside in ["/..", "/.", "/a/b", "/%2e%2e", "/..%2f..", "/a%2fb"] {
            assert_eq!(of(outside), None, "{outside}");
        }
        for other in [
            "/",
            "/x",
            "/0123456789ABCDEF0123456789ABCDEF",
            &format!("/{token}0"),
        ] {
            assert_eq!(Route::of(other), None, "{other}");
        }
    }

    #[test]
    fn a_backend_is_a_plain_url() {
        assert_eq!(backend("http://127.0.0.1:2379").unwrap(), "127.0.0.1:2379");
        for bad in [
            "127.0.0.1:2379",
            "https://a:1",
            "http://a",
            "http://a:1/x",
            "",
        ] {
            assert!(backend(bad).is_err(), "{bad}");
        }
    }
}
