//! What calls of the gRPC services come to: counted as go-grpc-prometheus does, and logged when they are slow.
//!
//! Bodies are counted as they pass, message by message, without being taken apart or put in another box.

use std::fmt::Write as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body::{Frame, SizeHint};
use tonic::Code;
use tonic::body::Body;

use crate::metrics::ClientVersions;

/// The header in which etcd's clients say which version of the API they were made for.
const CLIENT_API_VERSION: &str = "client-api-version";

/// Every method of the client port, in the order of its path.
const METHODS: &[(&str, Kind)] = &[
    ("/etcdserverpb.Auth/AuthDisable", Kind::Unary),
    ("/etcdserverpb.Auth/AuthEnable", Kind::Unary),
    ("/etcdserverpb.Auth/AuthStatus", Kind::Unary),
    ("/etcdserverpb.Auth/Authenticate", Kind::Unary),
    ("/etcdserverpb.Auth/RoleAdd", Kind::Unary),
    ("/etcdserverpb.Auth/RoleDelete", Kind::Unary),
    ("/etcdserverpb.Auth/RoleGet", Kind::Unary),
    ("/etcdserverpb.Auth/RoleGrantPermission", Kind::Unary),
    ("/etcdserverpb.Auth/RoleList", Kind::Unary),
    ("/etcdserverpb.Auth/RoleRevokePermission", Kind::Unary),
    ("/etcdserverpb.Auth/UserAdd", Kind::Unary),
    ("/etcdserverpb.Auth/UserChangePassword", Kind::Unary),
    ("/etcdserverpb.Auth/UserDelete", Kind::Unary),
    ("/etcdserverpb.Auth/UserGet", Kind::Unary),
    ("/etcdserverpb.Auth/UserGrantRole", Kind::Unary),
    ("/etcdserverpb.Auth/UserList", Kind::Unary),
    ("/etcdserverpb.Auth/UserRevokeRole", Kind::Unary),
    ("/etcdserverpb.Cluster/MemberAdd", Kind::Unary),
    ("/etcdserverpb.Cluster/MemberList", Kind::Unary),
    ("/etcdserverpb.Cluster/MemberPromote", Kind::Unary),
    ("/etcdserverpb.Cluster/MemberRemove", Kind::Unary),
    ("/etcdserverpb.Cluster/MemberUpdate", Kind::Unary),
    ("/etcdserverpb.KV/Compact", Kind::Unary),
    ("/etcdserverpb.KV/DeleteRange", Kind::Unary),
    ("/etcdserverpb.KV/Put", Kind::Unary),
    ("/etcdserverpb.KV/Range", Kind::Unary),
    ("/etcdserverpb.KV/Txn", Kind::Unary),
    ("/etcdserverpb.Lease/LeaseGrant", Kind::Unary),
    ("/etcdserverpb.Lease/LeaseKeepAlive", Kind::Bidi),
    ("/etcdserverpb.Lease/LeaseLeases", Kind::Unary),
    ("/etcdserverpb.Lease/LeaseRevoke", Kind::Unary),
    ("/etcdserverpb.Lease/LeaseTimeToLive", Kind::Unary),
    ("/etcdserverpb.Maintenance/Alarm", Kind::Unary),
    ("/etcdserverpb.Maintenance/Defragment", Kind::Unary),
    ("/etcdserverpb.Maintenance/Downgrade", Kind::Unary),
    ("/etcdserverpb.Maintenance/Hash", Kind::Unary),
    ("/etcdserverpb.Maintenance/HashKV", Kind::Unary),
    ("/etcdserverpb.Maintenance/MoveLeader", Kind::Unary),
    ("/etcdserverpb.Maintenance/Snapshot", Kind::Server),
    ("/etcdserverpb.Maintenance/Status", Kind::Unary),
    ("/etcdserverpb.Watch/Watch", Kind::Bidi),
    ("/grpc.health.v1.Health/Check", Kind::Unary),
    ("/grpc.health.v1.Health/Watch", Kind::Server),
    ("/v3electionpb.Election/Campaign", Kind::Unary),
    ("/v3electionpb.Election/Leader", Kind::Unary),
    ("/v3electionpb.Election/Observe", Kind::Server),
    ("/v3electionpb.Election/Proclaim", Kind::Unary),
    ("/v3electionpb.Election/Resign", Kind::Unary),
    ("/v3lockpb.Lock/Lock", Kind::Unary),
    ("/v3lockpb.Lock/Unlock", Kind::Unary),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Unary,
    Server,
    Bidi,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Unary => "unary",
            Kind::Server => "server_stream",
            Kind::Bidi => "bidi_stream",
        }
    }
}

/// Go's names of the codes, in the order of their numbers.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

#[derive(Debug, Default)]
struct Counts {
    started: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
    handled: [AtomicU64; CODES.len()],
}

/// The counters of all methods.
#[derive(Debug, Default)]
pub(crate) struct Calls(Arc<Counters>);

#[derive(Debug)]
struct Counters {
    methods: Box<[Counts]>,
    versions: ClientVersions,
    /// Bytes of messages, without the five in front of each.
    received: AtomicU64,
    sent: AtomicU64,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            methods: METHODS.iter().map(|_| Counts::default()).collect(),
            versions: ClientVersions::default(),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
        }
    }
}

/// One call under way. Dropped before its end, it counts as canceled.
pub(crate) struct Call {
    counters: Arc<Counters>,
    /// `None` for a path that names no method.
    method: Option<usize>,
    began: Instant,
}

impl Calls {
    /// A call of the method at `path` comes in.
    pub(crate) fn start(&self, path: &str, headers: &HeaderMap) -> Call {
        let method = METHODS.binary_search_by(|(known, _)| (*known).cmp(path));
        let call = Call {
            counters: Arc::clone(&self.0),
            method: method.ok(),
            began: Instant::now(),
        };
        if let Some(counts) = call.counts() {
            counts.started.fetch_add(1, Ordering::Relaxed);
            let version = headers.get(CLIENT_API_VERSION);
            let unary = call.kind() == Some(Kind::Unary);
            self.0
                .versions
                .count(version.map(|version| version.as_bytes()), unary);
        }
        call
    }

    /// The counters in Prometheus's text format.
    pub(crate) fn render(&self, out: &mut String) {
        let mut family = |name: &str, help: &str, of: &dyn Fn(&Counts) -> &AtomicU64| {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} counter");
            for ((path, kind), counts) in METHODS.iter().zip(&self.0.methods) {
                let labels = labels(path, *kind);
                let value = of(counts).load(Ordering::Relaxed);
                let _ = writeln!(out, "{name}{{{labels}}} {value}");
            }
        };
        family(
            "grpc_server_msg_received_total",
            "Total number of RPC stream messages received on the server.",
            &|counts| &counts.received,
        );
        family(
            "grpc_server_msg_sent_total",
            "Total number of gRPC stream messages sent by the server.",
            &|counts| &counts.sent,
        );
        family(
            "grpc_server_started_total",
            "Total number of RPCs started on the server.",
            &|counts| &counts.started,
        );
        let name = "grpc_server_handled_total";
        let _ = writeln!(
            out,
            "# HELP {name} Total number of RPCs completed on the server, regardless of success or failure.\n# TYPE {name} counter"
        );
        for ((path, kind), counts) in METHODS.iter().zip(&self.0.methods) {
            let labels = labels(path, *kind);
            for (code, handled) in CODES.iter().zip(&counts.handled) {
                let value = handled.load(Ordering::Relaxed);
                let _ = writeln!(out, "{name}{{grpc_code=\"{code}\",{labels}}} {value}");
            }
        }
        self.0.versions.render(out);
        for (name, what, counter) in [
            (
                "etcd_network_client_grpc_received_bytes_total",
                "received from",
                &self.0.received,
            ),
            (
                "etcd_network_client_grpc_sent_bytes_total",
                "sent to",
                &self.0.sent,
            ),
        ] {
            let value = counter.load(Ordering::Relaxed);
            let _ = writeln!(
                out,
                "# HELP {name} The total number of bytes {what} grpc clients.\n# TYPE {name} counter\n{name} {value}"
            );
        }
    }
}

fn labels(path: &str, kind: Kind) -> String {
    let (service, method) = path
        .trim_start_matches('/')
        .split_once('/')
        .unwrap_or_default();
    format!(
        "grpc_method=\"{method}\",grpc_service=\"{service}\",grpc_type=\"{}\"",
        kind.name()
    )
}

impl Call {
    fn counts(&self) -> Option<&Counts> {
        self.counters.methods.get(self.method?)
    }

    fn kind(&self) -> Option<Kind> {
        self.method.map(|method| METHODS[method].1)
    }

    /// Counts the messages of the request.
    pub(crate) fn receive<B>(&self, body: B) -> Received<B> {
        Received {
            body,
            counters: Arc::clone(&self.counters),
            method: self.method,
            messages: Messages::default(),
        }
    }

    /// The call is answered; a stream is only once its body has ended. A unary call above `slow` is logged.
    pub(crate) fn finish(mut self, response: Response<Body>, slow: Duration) -> Response<Sent> {
        // A refusal has its status in the headers.
        let status = response.headers().get("grpc-status");
        let code = status.map(|status| Code::from_bytes(status.as_bytes()));
        match (self.kind(), code) {
            (None, _) | (Some(Kind::Server | Kind::Bidi), None) => {}
            (Some(kind), code) => {
                let code = code.unwrap_or(Code::Ok);
                if code == Code::Ok
                    && let Some(counts) = self.counts()
                {
                    counts.sent.fetch_add(1, Ordering::Relaxed);
                }
                self.warn_if_slow(kind, code, slow);
                self.handled(code);
            }
        }
        response.map(|body| Sent {
            body,
            call: Some(self),
            messages: Messages::default(),
        })
    }

    fn warn_if_slow(&self, kind: Kind, code: Code, slow: Duration) {
        let spent = self.began.elapsed();
        // etcd: zero turns the warning off.
        if kind == Kind::Unary && !slow.is_zero() && spent > slow {
            tracing::warn!(
                "time spent" = member_flags::format_duration(spent),
                "response type" = self.method.map_or("", |method| METHODS[method].0),
                code = CODES[code as usize],
                "request stats"
            );
        }
    }

    fn handled(&mut self, code: Code) {
        if let Some(counts) = self.counts() {
            counts.handled[code as usize].fetch_add(1, Ordering::Relaxed);
        }
        self.method = None;
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.handled(Code::Cancelled);
    }
}

/// The body of a request, counted as it is read.
pub(crate) struct Received<B> {
    body: B,
    counters: Arc<Counters>,
    method: Option<usize>,
    messages: Messages,
}

impl<B: http_body::Body<Data = Bytes> + Unpin> http_body::Body for Received<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            let (begun, bytes) = self.messages.count(data);
            self.counters.received.fetch_add(bytes, Ordering::Relaxed);
            if begun > 0
                && let Some(counts) = self.method.and_then(|at| self.counters.methods.get(at))
            {
                counts.received.fetch_add(begun, Ordering::Relaxed);
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of an answer, counted as it is sent; that of a stream holds its call, whose status is in the trailers.
pub(crate) struct Sent {
    body: Body,
    /// `None`: not an answer of a gRPC service.
    call: Option<Call>,
    messages: Messages,
}

impl From<Body> for Sent {
    fn from(body: Body) -> Self {
        Self {
            body,
            call: None,
            messages: Messages::default(),
        }
    }
}

impl http_body::Body for Sent {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        let this = &mut *self;
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        if let (Some(Ok(frame)), Some(call)) = (&frame, &mut this.call) {
            if let Some(data) = frame.data_ref() {
                let (begun, bytes) = this.messages.count(data);
                call.counters.sent.fetch_add(bytes, Ordering::Relaxed);
                if let Some(counts) = call.counts() {
                    counts.sent.fetch_add(begun, Ordering::Relaxed);
                }
            } else if let Some(trailers) = frame.trailers_ref() {
                let status = trailers.get("grpc-status");
                call.handled(
                    status.map_or(Code::Unknown, |status| Code::from_bytes(status.as_bytes())),
                );
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Finds the messages in the bytes of a stream: a flag, a length of four bytes, and as much content.
#[derive(Debug, Default)]
struct Messages {
    prefix: [u8; 5],
    filled: usize,
    rest: usize,
}

impl Messages {
    /// The messages that begin in the next bytes, and the bytes of messages among them.
    fn count(&mut self, mut data: &[u8]) -> (u64, u64) {
        let (mut begun, mut content) = (0, 0);
        while !data.is_empty() {
            let skipped = self.rest.min(data.len());
            self.rest -= skipped;
            content += skipped as u64;
            data = &data[skipped..];
            let taken = (self.prefix.len() - self.filled).min(data.len());
            self.prefix[self.filled..self.filled + taken].copy_from_slice(&data[..taken]);
            self.filled += taken;
            data = &data[taken..];
            if self.filled == self.prefix.len() {
                let [_, a, b, c, d] = self.prefix;
                self.rest = u32::from_be_bytes([a, b, c, d]) as usize;
                self.filled = 0;
                begun += 1;
            }
        }
        (begun, content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(calls: &Calls) -> String {
        let mut out = String::new();
        calls.render(&mut out);
        out
    }

    #[test]
    fn paths_are_sorted_so_that_each_is_found() {
        assert!(METHODS.is_sorted_by(|a, b| a.0 < b.0));
    }

    #[test]
    fn a_call_counts_under_its_code_and_one_given_up_as_canceled() {
        let calls = Calls::default();
        let path = "/etcdserverpb.KV/Put";
        let slow = Duration::from_secs(1);
        let none = HeaderMap::new();
        let start = |path| calls.start(path, &none);
        start(path).finish(Response::new(Body::empty()), slow);
        let refused = tonic::Status::resource_exhausted("full").into_http();
        start(path).finish(refused, slow);
        drop(start(path));
        drop(start("/no.Such/Method"));
        let text = render(&calls);
        let labels = "grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"";
        for code in ["OK", "ResourceExhausted", "Canceled"] {
            let line = format!("grpc_server_handled_total{{grpc_code=\"{code}\",{labels}}} 1\n");
            assert!(text.contains(&line), "{line}");
        }
        assert!(text.contains(&format!("grpc_server_started_total{{{labels}}} 3\n")));
        assert!(text.contains(&format!("grpc_server_msg_sent_total{{{labels}}} 1\n")));
    }

    #[test]
    fn messages_are_found_however_the_bytes_are_cut() {
        let bytes = [0, 0, 0, 0, 2, 7, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 7];
        for cut in 1..bytes.len() {
            let mut messages = Messages::default();
            let (mut begun, mut content) = (0, 0);
            for part in bytes.chunks(cut) {
                let (messages, bytes) = messages.count(part);
                begun += messages;
                content += bytes;
            }
            assert_eq!((begun, content), (3, 3), "in parts of {cut}");
        }
    }
}
