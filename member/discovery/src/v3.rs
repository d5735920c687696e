//! The v3 discovery service: an etcd cluster in which registrations are keys below `/_etcd/registry/TOKEN/`.
//!
//! The rules are those of the v2 service, but that registering again is allowed.

use std::io;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use member_flags::{DiscoveryFlags, Scheme, Url};
use member_proto::etcdserverpb as pb;
use pb::auth_client::AuthClient;
use pb::kv_client::KvClient;
use pb::watch_client::WatchClient;
use pb::watch_request::RequestUnion;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Status};

use crate::Refusal;
use crate::patience::{Patience, WATCH};
use crate::roster::{Registered, Registry, Roster, parse_size};
use crate::tls::{self, Line, Trust};

/// One endpoint of the service.
struct Place {
    url: Url,
    channel: Channel,
}

pub(crate) struct Service {
    places: Vec<Place>,
    /// The one that is asked; another one's turn comes when it fails.
    current: usize,
    prefix: String,
    user: String,
    password: String,
    request_timeout: Duration,
    patience: Patience,
}

impl Service {
    pub(crate) fn new(flags: &DiscoveryFlags) -> Result<Self, Refusal> {
        let places = flags
            .endpoints
            .iter()
            .map(|endpoint| place(endpoint, flags))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            places,
            current: 0,
            prefix: format!("/_etcd/registry/{}/", flags.token),
            user: flags.user.clone(),
            password: flags.password.clone(),
            request_timeout: flags.request_timeout,
            patience: Patience::new(flags.endpoints.join(",")),
        })
    }

    async fn txn(&mut self, request: pb::TxnRequest) -> Result<pb::TxnResponse, Status> {
        let request = self.sign(request).await?;
        let mut client = KvClient::new(self.channel());
        Ok(client.txn(request).await?.into_inner())
    }

    async fn put(&mut self, put: pb::PutRequest) -> Result<(), Status> {
        let put = self.sign(put).await?;
        KvClient::new(self.channel()).put(put).await.map(drop)
    }

    async fn watch(&mut self, revision: u64) -> Result<(), Status> {
        let members = format!("{}members/", self.prefix);
        let create = pb::WatchRequest {
            request_union: Some(RequestUnion::CreateRequest(pb::WatchCreateRequest {
                range_end: prefix_end(&members).into(),
                key: members.into(),
                start_revision: i64::try_from(revision).unwrap_or(i64::MAX),
                ..Default::default()
            })),
        };
        // The stream of requests stays open while the answers are read, or the service would end the watch.
        let (requests, open) = tokio::sync::mpsc::channel(1);
        let sent = requests.send(create).await;
        sent.map_err(|_| Status::internal("the stream of requests has ended"))?;
        let request = self
            .sign(tokio_stream::wrappers::ReceiverStream::new(open))
            .await?;
        let mut client = WatchClient::new(self.channel());
        let mut answers = client.watch(request).await?.into_inner();
        while let Some(answer) = answers.message().await? {
            if !answer.events.is_empty() || answer.canceled {
                return Ok(());
            }
        }
        Err(Status::unavailable("the watch has ended"))
    }

    fn channel(&self) -> Channel {
        self.places[self.current].channel.clone()
    }

    /// Gives a request the token of the user, if there is one.
    async fn sign<T>(&self, message: T) -> Result<Request<T>, Status> {
        let mut request = Request::new(message);
        if self.user.is_empty() {
            return Ok(request);
        }
        let login = pb::AuthenticateRequest {
            name: self.user.clone(),
            password: self.password.clone(),
        };
        let mut login = Request::new(login);
        login.set_timeout(self.request_timeout);
        let answer = AuthClient::new(self.channel()).authenticate(login).await?;
        let token: MetadataValue<Ascii> = answer
            .into_inner()
            .token
            .parse()
            .map_err(|_| Status::internal("the service gives a token that is no text"))?;
        request.metadata_mut().insert("token", token);
        Ok(request)
    }

    /// Decides whether to go on after a failure, and if so, with the next endpoint.
    async fn failed(&mut self, step: &'static str, status: &Status) -> Result<(), Refusal> {
        let passing = [
            Code::Unavailable,
            Code::DeadlineExceeded,
            Code::Cancelled,
            Code::Unknown,
            Code::Internal,
            Code::ResourceExhausted,
        ];
        let text = describe(status);
        if !passing.contains(&status.code()) {
            return Err(Refusal::Setup {
                reason: format!("the discovery service refuses: {text}"),
            });
        }
        let place = self.places[self.current].url.to_string();
        self.current = (self.current + 1) % self.places.len();
        if self.current == 0 {
            self.patience.pause(step, format!("{place}: {text}")).await
        } else {
            tracing::warn!(
                endpoint = place,
                error = text,
                "discovery service does not answer; trying the next endpoint"
            );
            Ok(())
        }
    }
}

impl Registry for Service {
    async fn roster(&mut self) -> Result<Roster, Refusal> {
        let size_key = format!("{}_config/size", self.prefix);
        let members = format!("{}members/", self.prefix);
        let range = |key: &str, range_end: Vec<u8>| pb::RangeRequest {
            key: key.to_owned().into(),
            range_end: range_end.into(),
            ..Default::default()
        };
        let get = |request: pb::RangeRequest| pb::RequestOp {
            request: Some(pb::request_op::Request::RequestRange(request)),
        };
        let request = pb::TxnRequest {
            success: vec![
                get(range(&size_key, Vec::new())),
                get(range(&members, prefix_end(&members))),
            ],
            ..Default::default()
        };
        let answer = loop {
            match self.txn(request.clone()).await {
                Ok(answer) => break answer,
                Err(status) => self.failed("cluster status check", &status).await?,
            }
        };
        self.patience.answered();
        let index = answer.header.map_or(0, |header| header.revision);
        let mut ranges = answer
            .responses
            .into_iter()
            .filter_map(|op| match op.response {
                Some(pb::response_op::Response::ResponseRange(range)) => Some(range.kvs),
                _ => None,
            });
        let size = ranges.next().and_then(|kvs| kvs.into_iter().next());
        let size = size.ok_or(Refusal::NoSize)?;
        let size = parse_size(&String::from_utf8_lossy(&size.value))?;
        let members = ranges.next().unwrap_or_default().into_iter().map(|kv| {
            let key = String::from_utf8_lossy(&kv.key).into_owned();
            Registered {
                id: key.rsplit('/').next().unwrap_or_default().to_owned(),
                line: String::from_utf8_lossy(&kv.value).into_owned(),
                created: u64::try_from(kv.create_revision).unwrap_or_default(),
            }
        });
        let index = u64::try_from(index).unwrap_or_default();
        Ok(Roster::new(size, index, members.collect()))
    }

    async fn register(&mut self, id: &str, line: &str) -> Result<(), Refusal> {
        let put = pb::PutRequest {
            key: format!("{}members/{id}", self.prefix).into(),
            value: line.to_owned().into(),
            ..Default::default()
        };
        loop {
            match self.put(put.clone()).await {
                Ok(()) => return Ok(()),
                Err(status) => self.failed("register member", &status).await?,
            }
        }
    }

    async fn wait(&mut self, revision: u64) -> Result<(), Refusal> {
        match tokio::time::timeout(WATCH, self.watch(revision)).await {
            Ok(Ok(())) | Err(_) => Ok(()),
            Ok(Err(status)) => self.failed("waiting for other nodes", &status).await,
        }
    }

    fn patience(&mut self) -> &mut Patience {
        &mut self.patience
    }
}

fn describe(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// The URL of an endpoint that may lack its scheme.
pub(crate) fn endpoint_url(endpoint: &str, scheme: Scheme) -> Result<Url, Refusal> {
    let whole = if endpoint.contains("://") {
        endpoint.to_owned()
    } else {
        format!("{}://{endpoint}", scheme.as_str())
    };
    let url = Url::parse(&whole).map_err(Refusal::Url)?;
    crate::http::check_address(&url, &whole)?;
    Ok(url)
}

/// An endpoint may be `host:port`; then the flags say whether it speaks TLS. Else its scheme does.
fn place(endpoint: &str, flags: &DiscoveryFlags) -> Result<Place, Refusal> {
    let scheme = if flags.insecure_transport {
        Scheme::Http
    } else {
        Scheme::Https
    };
    let url = endpoint_url(endpoint, scheme)?;
    let setup = |reason| Refusal::Setup { reason };
    let connector = url
        .scheme()
        .is_tls()
        .then(|| Trust::of(flags).connector(b"h2"))
        .transpose()
        .map_err(setup)?;
    let target = url.clone();
    let connect = tower::service_fn(move |_: Uri| connect(target.clone(), connector.clone()));
    let mut line = Endpoint::try_from(format!("http://{}", url.address()))
        .map_err(|error| setup(error.to_string()))?
        .connect_timeout(flags.dial_timeout)
        .timeout(flags.request_timeout);
    if !flags.keepalive_time.is_zero() {
        line = line
            .http2_keep_alive_interval(flags.keepalive_time)
            .keep_alive_timeout(flags.keepalive_timeout)
            .keep_alive_while_idle(true);
    }
    Ok(Place {
        channel: line.connect_with_connector_lazy(connect),
        url,
    })
}

async fn connect(url: Url, connector: Option<TlsConnector>) -> io::Result<TokioIo<Line>> {
    let stream = TcpStream::connect((url.host(), url.port().unwrap_or_default())).await?;
    Ok(TokioIo::new(
        tls::open(connector.as_ref(), url.host(), stream).await?,
    ))
}

/// The end of the range of all keys with a prefix that does not end in 0xff.
fn prefix_end(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}
