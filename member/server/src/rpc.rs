//! What calls of the gRPC services come to: counted as go-grpc-prometheus does, and logged when they are slow.
//!
//! Messages received on streams are not counted: they would have to be taken apart twice.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::Response;
use http_body_util::BodyExt;
use tonic::Code;
use tonic::body::Body;

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
#[derive(Debug)]
pub(crate) struct Calls(Arc<[Counts]>);

impl Default for Calls {
    fn default() -> Self {
        Self(METHODS.iter().map(|_| Counts::default()).collect())
    }
}

/// One call under way. Dropped before its end, it counts as canceled.
pub(crate) struct Call {
    counts: Arc<[Counts]>,
    /// `None` for a path that names no method.
    method: Option<usize>,
    began: Instant,
}

impl Calls {
    /// A call of the method at `path` comes in.
    pub(crate) fn start(&self, path: &str) -> Call {
        let method = METHODS.binary_search_by(|(known, _)| (*known).cmp(path));
        let call = Call {
            counts: Arc::clone(&self.0),
            method: method.ok(),
            began: Instant::now(),
        };
        if let Some(counts) = call.counts() {
            counts.started.fetch_add(1, Ordering::Relaxed);
            if call.kind() == Some(Kind::Unary) {
                counts.received.fetch_add(1, Ordering::Relaxed);
            }
        }
        call
    }

    /// The counters in Prometheus's text format.
    pub(crate) fn render(&self, out: &mut String) {
        let mut family = |name: &str, help: &str, of: &dyn Fn(&Counts) -> &AtomicU64| {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} counter");
            for ((path, kind), counts) in METHODS.iter().zip(self.0.iter()) {
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
        for ((path, kind), counts) in METHODS.iter().zip(self.0.iter()) {
            let labels = labels(path, *kind);
            for (code, handled) in CODES.iter().zip(&counts.handled) {
                let value = handled.load(Ordering::Relaxed);
                let _ = writeln!(out, "{name}{{grpc_code=\"{code}\",{labels}}} {value}");
            }
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
        self.counts.get(self.method?)
    }

    fn kind(&self) -> Option<Kind> {
        self.method.map(|method| METHODS[method].1)
    }

    /// The call is answered; a stream is only once its body has ended. A unary call above `slow` is logged.
    pub(crate) fn finish(mut self, response: Response<Body>, slow: Duration) -> Response<Body> {
        // A refusal has its status in the headers.
        let status = response.headers().get("grpc-status");
        let code = status.map(|status| Code::from_bytes(status.as_bytes()));
        match (self.kind(), code) {
            (Some(Kind::Server | Kind::Bidi), None) => stream(response, self),
            (None, _) => response,
            (Some(kind), code) => {
                let code = code.unwrap_or(Code::Ok);
                if code == Code::Ok
                    && let Some(counts) = self.counts()
                {
                    counts.sent.fetch_add(1, Ordering::Relaxed);
                }
                self.warn_if_slow(kind, code, slow);
                self.handled(code);
                response
            }
        }
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

/// Counts the messages of a stream as they go out, and its status in the trailers.
fn stream(response: Response<Body>, mut call: Call) -> Response<Body> {
    let mut messages = Messages::default();
    response.map(|body| {
        Body::new(body.map_frame(move |frame| {
            if let Some(data) = frame.data_ref() {
                let begun = messages.count(data);
                if let Some(counts) = call.counts() {
                    counts.sent.fetch_add(begun, Ordering::Relaxed);
                }
            } else if let Some(trailers) = frame.trailers_ref() {
                let status = trailers.get("grpc-status");
                call.handled(
                    status.map_or(Code::Unknown, |status| Code::from_bytes(status.as_bytes())),
                );
            }
            frame
        }))
    })
}

/// Finds the messages in the bytes of a stream: a flag, a length of four bytes, and as much content.
#[derive(Debug, Default)]
struct Messages {
    prefix: [u8; 5],
    filled: usize,
    rest: usize,
}

impl Messages {
    /// The messages that begin in the next bytes.
    fn count(&mut self, mut data: &[u8]) -> u64 {
        let mut begun = 0;
        while !data.is_empty() {
            let skipped = self.rest.min(data.len());
            self.rest -= skipped;
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
        begun
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
        calls.start(path).finish(Response::new(Body::empty()), slow);
        let refused = tonic::Status::resource_exhausted("full").into_http();
        calls.start(path).finish(refused, slow);
        drop(calls.start(path));
        drop(calls.start("/no.Such/Method"));
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
            let begun: u64 = bytes.chunks(cut).map(|part| messages.count(part)).sum();
            assert_eq!(begun, 3, "in parts of {cut}");
        }
    }
}
