//! Which service answers which request of a port. Paths are matched by hand: a router's tree walk and boxed layers
//! would cost more than the services' own dispatch.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, header};
use hyper::body::Incoming;
use member_proto::etcdserverpb::auth_server::AuthServer;
use member_proto::etcdserverpb::cluster_server::ClusterServer;
use member_proto::etcdserverpb::kv_server::KvServer;
use member_proto::etcdserverpb::lease_server::LeaseServer;
use member_proto::etcdserverpb::maintenance_server::MaintenanceServer;
use member_proto::etcdserverpb::watch_server::WatchServer;
use member_proto::healthpb::health_server::HealthServer;
use member_proto::peerpb::peer_server::PeerServer;
use member_proto::v3electionpb::election_server::ElectionServer;
use member_proto::v3lockpb::lock_server::LockServer;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::{Code, Status};

use crate::access::Access;
use crate::engine::Engine;
use crate::gateway;
use crate::grpc::{
    AuthService, ClusterService, ElectionService, HealthService, KvService, LeaseService,
    LockService, MaintenanceService, WatchService, not_for_learners,
};
use crate::http as plain;
use crate::metrics::{Counted, Peer, Way};
use crate::node::Node;
use crate::peer::link::MEMBER_ID;
use crate::peer::service::PeerService;
use crate::rpc::Sent;
use crate::v2::V2;

/// What a learner answers; the range only when it is serializable, which the service checks.
const LEARNER_CALLS: [&str; 3] = [
    "/etcdserverpb.KV/Range",
    "/etcdserverpb.Maintenance/Status",
    "/etcdserverpb.Maintenance/Snapshot",
];

/// The client port: etcd's API, version, health, metrics.
pub(crate) struct ClientPort<E: Engine> {
    node: Arc<Node<E>>,
    kv: KvServer<KvService<E>>,
    watch: WatchServer<WatchService<E>>,
    lease: LeaseServer<LeaseService<E>>,
    cluster: ClusterServer<ClusterService<E>>,
    maintenance: MaintenanceServer<MaintenanceService<E>>,
    auth: AuthServer<AuthService<E>>,
    lock: LockServer<LockService<E>>,
    election: ElectionServer<ElectionService<E>>,
    health: HealthServer<HealthService>,
    /// The bytes of a request that comes as JSON; `None`: no such request is served.
    gateway: Option<usize>,
    /// `None`: the v2 API is not served.
    v2: Option<Arc<V2<E>>>,
}

impl<E: Engine> Clone for ClientPort<E> {
    fn clone(&self) -> Self {
        Self {
            node: Arc::clone(&self.node),
            kv: self.kv.clone(),
            watch: self.watch.clone(),
            lease: self.lease.clone(),
            cluster: self.cluster.clone(),
            maintenance: self.maintenance.clone(),
            auth: self.auth.clone(),
            lock: self.lock.clone(),
            election: self.election.clone(),
            health: self.health.clone(),
            gateway: self.gateway,
            v2: self.v2.clone(),
        }
    }
}

impl<E: Engine> ClientPort<E> {
    /// The services over a member; `receive` bounds the bytes of a request. `json`: also as JSON.
    pub(crate) fn new(
        node: &Arc<Node<E>>,
        receive: usize,
        json: bool,
        v2: Option<Arc<V2<E>>>,
    ) -> Self {
        Self {
            node: Arc::clone(node),
            kv: KvServer::new(KvService(Arc::clone(node)))
                .max_decoding_message_size(receive)
                .max_encoding_message_size(usize::MAX),
            watch: WatchServer::new(WatchService(Arc::clone(node)))
                .max_decoding_message_size(receive)
                .max_encoding_message_size(usize::MAX),
            lease: LeaseServer::new(LeaseService(Arc::clone(node)))
                .max_decoding_message_size(receive)
                .max_encoding_message_size(usize::MAX),
            cluster: ClusterServer::new(ClusterService(Arc::clone(node)))
                .max_decoding_message_size(receive)
                .max_encoding_message_size(usize::MAX),
            maintenance: MaintenanceServer::new(MaintenanceService(Arc::clone(node)))
                .max_decoding_message_size(receive)
                .max_encoding_message_size(usize::MAX),
            auth: AuthServer::new(AuthService(Arc::clone(node)))
                .max_decoding_message_size(receive)
                .max_encoding_message_size(usize::MAX),
            lock: LockServer::new(LockService(Arc::clone(node)))
                .max_decoding_message_size(receive)
                .max_encoding_message_size(usize::MAX),
            election: ElectionServer::new(ElectionService(Arc::clone(node)))
                .max_decoding_message_size(receive)
                .max_encoding_message_size(usize::MAX),
            health: HealthServer::new(HealthService)
                .max_decoding_message_size(receive)
                .max_encoding_message_size(usize::MAX),
            gateway: json.then_some(receive),
            v2,
        }
    }

    pub(crate) async fn answer(
        self,
        request: Request<Incoming>,
        access: &Access,
    ) -> Response<Sent> {
        let (mut port, request) = match self.serve(request).await {
            Ok(response) => return response,
            Err(unserved) => unserved,
        };
        let Ok(decoded) = member_v2::percent_decode(request.uri().path().as_bytes()) else {
            return plain::malformed().map(Sent::from);
        };
        let auth = port.gateway.is_some() && port.node.auth_enabled();
        let readers = match access.admit(&request, auth) {
            ControlFlow::Continue(readers) => readers,
            ControlFlow::Break(answer) => return answer.map(Sent::from),
        };
        let path = request.uri().path();
        let json = path.starts_with("/v3/") || path.starts_with("/v3beta/") || path == "/v3";
        let keys = port.v2.take();
        let keys = keys.filter(|_| path == "/v2" || path.starts_with("/v2/"));
        let mut response = match (keys, port.gateway) {
            (Some(keys), _) => keys.respond(&decoded, request).await,
            (None, Some(receive)) if json => gateway::respond(port, request, receive).await,
            _ => plain::respond(&port.node, &request).await,
        };
        readers.tell(response.headers_mut());
        response.map(Sent::from)
    }

    /// Answers a gRPC request; gives back what is none.
    async fn serve<B>(mut self, request: Request<B>) -> Result<Response<Sent>, (Self, Request<B>)>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<tonic::codegen::StdError> + Send + 'static,
    {
        let path = request.uri().path().to_owned();
        let service = path
            .strip_prefix('/')
            .and_then(|path| path.split_once('/'))
            .map(|(service, _)| service);
        if !is_grpc(&request) {
            return Err((self, request));
        }
        if self.node.is_learner() && !LEARNER_CALLS.contains(&path.as_str()) {
            return Ok(not_for_learners().into_http::<Body>().map(Sent::from));
        }
        if !is_service(service) {
            return Ok(unknown(&path, false).map(Sent::from));
        }
        let call = self.node.metrics.calls.start(&path, request.headers());
        let request = request.map(|body| call.receive(body));
        let answered = match service {
            Some("etcdserverpb.KV") => self.kv.call(request).await,
            Some("etcdserverpb.Watch") => self.watch.call(request).await,
            Some("etcdserverpb.Lease") => self.lease.call(request).await,
            Some("etcdserverpb.Cluster") => self.cluster.call(request).await,
            Some("etcdserverpb.Maintenance") => self.maintenance.call(request).await,
            Some("etcdserverpb.Auth") => self.auth.call(request).await,
            Some("v3lockpb.Lock") => self.lock.call(request).await,
            Some("v3electionpb.Election") => self.election.call(request).await,
            _ => self.health.call(request).await,
        };
        match answered {
            Ok(response) => Ok(call.finish(worded(response, &path), self.node.slow_request)),
            Err(never) => match never {},
        }
    }
}

impl<E: Engine> gateway::Call for ClientPort<E> {
    async fn call(self, request: Request<Body>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        match self.serve(request).await {
            Ok(response) => response.map(Body::new),
            Err(_) => unknown(&path, false),
        }
    }
}

/// The peer port: the members' own protocol, version, members.
pub(crate) struct PeerPort<E: Engine> {
    pub(crate) node: Arc<Node<E>>,
    pub(crate) peer: PeerServer<PeerService<E>>,
}

impl<E: Engine> Clone for PeerPort<E> {
    fn clone(&self) -> Self {
        Self {
            node: Arc::clone(&self.node),
            peer: self.peer.clone(),
        }
    }
}

impl<E: Engine> PeerPort<E> {
    pub(crate) async fn answer(mut self, request: Request<Incoming>) -> Response<Body> {
        if is_grpc(&request) {
            let peer = self.caller(&request);
            let request = request.map(Body::new);
            let request = match &peer {
                Some(peer) => request.map(|body| Counted::body(body, peer, Way::In)),
                None => request,
            };
            let response = match self.peer.call(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            };
            return match &peer {
                Some(peer) => response.map(|body| Counted::body(body, peer, Way::Out)),
                None => response,
            };
        }
        plain::respond_peer(&self.node, &request)
    }
}

impl<E: Engine> PeerPort<E> {
    /// The counts of the member that calls, if it is one.
    fn caller(&self, request: &Request<Incoming>) -> Option<Arc<Peer>> {
        let id = request.headers().get(MEMBER_ID)?.to_str().ok()?;
        let id = u64::from_str_radix(id, 16).ok()?;
        let known = self.node.consensus.nodes().iter().any(|node| node.id == id);
        known.then(|| self.node.metrics.peers.of(id))
    }
}

/// Whether the client port has the service.
fn is_service(service: Option<&str>) -> bool {
    service.is_some_and(|service| {
        matches!(
            service,
            "etcdserverpb.KV"
                | "etcdserverpb.Watch"
                | "etcdserverpb.Lease"
                | "etcdserverpb.Cluster"
                | "etcdserverpb.Maintenance"
                | "etcdserverpb.Auth"
                | "v3lockpb.Lock"
                | "v3electionpb.Election"
                | "grpc.health.v1.Health"
        )
    })
}

pub(crate) fn is_grpc<B>(request: &Request<B>) -> bool {
    let content_type = request.headers().get(header::CONTENT_TYPE);
    content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// What Go's gRPC says of a call that there is not.
fn unknown(path: &str, service_is_known: bool) -> Response<Body> {
    let called = path
        .strip_prefix('/')
        .and_then(|path| path.rsplit_once('/'));
    Status::unimplemented(match called {
        Some((service, method)) if service_is_known => {
            format!("unknown method {method} for service {service}")
        }
        Some((service, _)) => format!("unknown service {service}"),
        None => format!("malformed method name: {path:?}"),
    })
    .into_http()
}

/// Puts words to the refusals that come from the gRPC library: a message over the receive limit gets the code and
/// words of Go's gRPC, which clients of etcd know, and so does a call that there is not.
fn worded(response: Response<Body>, path: &str) -> Response<Body> {
    // grpc-status stands in the headers only when there is no body: every refusal, no success.
    if !response.headers().contains_key("grpc-status") {
        return response;
    }
    let Some(status) = Status::from_header_map(response.headers()) else {
        return response;
    };
    match status.code() {
        Code::OutOfRange
            if status
                .message()
                .contains("decoded message length too large") =>
        {
            let mut numbers = status
                .message()
                .split(|c: char| !c.is_ascii_digit())
                .filter(|number| !number.is_empty());
            let (found, limit) = (numbers.next().unwrap_or("?"), numbers.next().unwrap_or("?"));
            Status::resource_exhausted(format!(
                "grpc: received message larger than max ({found} vs. {limit})"
            ))
            .into_http()
        }
        Code::Unimplemented if status.message().is_empty() => unknown(path, true),
        _ => response,
    }
}
