//! Steps of a script, and a client that runs them by reflection.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, MethodDescriptor, Value};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue};
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

/// How long an answer of a stream may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Fields that tell the servers apart, whatever they serve.
const MASKED: [&str; 16] = [
    "etcdserverpb.ResponseHeader.cluster_id",
    "etcdserverpb.ResponseHeader.member_id",
    "etcdserverpb.ResponseHeader.raft_term",
    "etcdserverpb.StatusResponse.version",
    "etcdserverpb.StatusResponse.dbSize",
    "etcdserverpb.StatusResponse.dbSizeInUse",
    "etcdserverpb.StatusResponse.dbSizeQuota",
    "etcdserverpb.StatusResponse.storageVersion",
    "etcdserverpb.StatusResponse.raftIndex",
    "etcdserverpb.StatusResponse.raftAppliedIndex",
    "etcdserverpb.StatusResponse.raftTerm",
    "etcdserverpb.StatusResponse.leader",
    "etcdserverpb.StatusResponse.downgradeInfo",
    "etcdserverpb.AuthenticateResponse.token",
    "etcdserverpb.AlarmMember.memberID",
    "etcdserverpb.HashKVResponse.hash_revision",
];

/// One line of a script.
#[derive(Debug)]
pub(super) struct Step {
    text: String,
    action: Action,
}

#[derive(Debug)]
enum Action {
    Call {
        metadata: Vec<(String, String)>,
        method: String,
        request: String,
        keep: Option<(String, String)>,
    },
    Open {
        stream: String,
        method: String,
    },
    Send {
        stream: String,
        request: String,
    },
    Receive {
        stream: String,
        answers: usize,
    },
}

impl Step {
    /// A line; `None` for an empty one and a comment.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let text = line.trim();
        if text.is_empty() || text.starts_with('#') {
            return None;
        }
        let (first, rest) = text.split_once(' ').unwrap_or((text, ""));
        let rest = rest.trim();
        let action = if let Some(method) = rest.strip_prefix("= ") {
            Action::Open {
                stream: first.to_owned(),
                method: method.to_owned(),
            }
        } else if let Some(request) = rest.strip_prefix("< ") {
            Action::Send {
                stream: first.to_owned(),
                request: request.to_owned(),
            }
        } else if let Some(answers) = rest.strip_prefix("> ") {
            Action::Receive {
                stream: first.to_owned(),
                answers: answers.parse().expect("a number of answers"),
            }
        } else {
            Self::call(text)
        };
        Some(Self {
            text: text.to_owned(),
            action,
        })
    }

    fn call(mut text: &str) -> Action {
        let mut metadata = Vec::new();
        while let Some(marked) = text.strip_prefix('@') {
            let (pair, rest) = marked.split_once(' ').expect("a method after metadata");
            let (key, value) = pair.split_once('=').expect("@key=value");
            metadata.push((key.to_owned(), value.to_owned()));
            text = rest.trim_start();
        }
        let (text, keep) = match text.rsplit_once(" => ") {
            Some((text, keep)) => {
                let (field, name) = keep.split_once(" $").expect("=> field $name");
                (text, Some((field.to_owned(), name.to_owned())))
            }
            None => (text, None),
        };
        let (method, request) = text.split_once(' ').unwrap_or((text, ""));
        Action::Call {
            metadata,
            method: method.to_owned(),
            request: request.to_owned(),
            keep,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

struct Stream {
    requests: mpsc::UnboundedSender<Bytes>,
    input: MessageDescriptor,
    output: MessageDescriptor,
    /// etcd sends its headers with the first answer, so opening waits for it.
    opening: Option<JoinHandle<Result<Response<Streaming<Bytes>>, Status>>>,
    answers: Option<Streaming<Bytes>>,
}

impl Stream {
    async fn receive(&mut self) -> Result<Option<Bytes>, Status> {
        if let Some(opening) = self.opening.take() {
            self.answers = Some(opening.await.expect("a task of ours")?.into_inner());
        }
        match &mut self.answers {
            Some(answers) => answers.message().await,
            None => Ok(None),
        }
    }
}

/// A client of one server.
pub(super) struct Session {
    pool: DescriptorPool,
    client: tonic::client::Grpc<Channel>,
    kept: BTreeMap<String, String>,
    streams: BTreeMap<String, Stream>,
}

impl Session {
    pub(super) async fn connect(endpoint: &str) -> Self {
        let channel = Channel::from_shared(endpoint.to_owned())
            .expect("a URL")
            .connect()
            .await
            .expect("connects");
        Self {
            pool: DescriptorPool::decode(member_proto::DESCRIPTORS).expect("our own descriptors"),
            client: tonic::client::Grpc::new(channel).max_encoding_message_size(usize::MAX),
            kept: BTreeMap::new(),
            streams: BTreeMap::new(),
        }
    }

    /// The answer of a step, as text.
    pub(super) async fn run(&mut self, step: &Step) -> String {
        match &step.action {
            Action::Call {
                metadata,
                method,
                request,
                keep,
            } => match self.call(metadata, method, request).await {
                Ok(answer) => {
                    if let Some((field, name)) = keep {
                        let value = answer.get_field_by_name(field).expect("a field");
                        self.kept.insert(name.clone(), plain(&value));
                    }
                    shown(answer)
                }
                Err(status) => refused(&status),
            },
            Action::Open { stream, method } => {
                let method = self.method(method);
                let (requests, mut queue) = mpsc::unbounded_channel();
                let outgoing = futures_util::stream::poll_fn(move |cx| queue.poll_recv(cx));
                let mut client = self.client.clone();
                let (input, output) = (method.input(), method.output());
                let opening = tokio::spawn(async move {
                    client.ready().await.expect("ready");
                    client
                        .streaming(Request::new(outgoing), path(&method), Raw)
                        .await
                });
                let opened = Stream {
                    requests,
                    input,
                    output,
                    opening: Some(opening),
                    answers: None,
                };
                self.streams.insert(stream.clone(), opened);
                "open".to_owned()
            }
            Action::Send { stream, request } => {
                let request = self.expand(request);
                let stream = self.streams.get(stream).expect("an open stream");
                let message = DynamicMessage::parse_text_format(stream.input.clone(), &request)
                    .expect("a request");
                match stream.requests.send(message.encode_to_vec().into()) {
                    Ok(()) => "sent".to_owned(),
                    Err(_) => "closed".to_owned(),
                }
            }
            Action::Receive { stream, answers } => {
                let stream = self.streams.get_mut(stream).expect("an open stream");
                let mut text = Vec::new();
                for _ in 0..*answers {
                    let answer = tokio::time::timeout(PATIENCE, stream.receive()).await;
                    text.push(match answer {
                        Err(_) => "nothing".to_owned(),
                        Ok(Ok(None)) => "end".to_owned(),
                        Ok(Err(status)) => refused(&status),
                        Ok(Ok(Some(bytes))) => shown(
                            DynamicMessage::decode(stream.output.clone(), bytes)
                                .expect("an answer"),
                        ),
                    });
                }
                text.join("\n")
            }
        }
    }

    fn method(&self, name: &str) -> MethodDescriptor {
        let (service, method) = name.split_once('.').expect("Service.Method");
        self.pool
            .services()
            .find(|found| found.name() == service)
            .and_then(|service| service.methods().find(|found| found.name() == method))
            .unwrap_or_else(|| panic!("no method {name}"))
    }

    async fn call(
        &mut self,
        metadata: &[(String, String)],
        method: &str,
        request: &str,
    ) -> Result<DynamicMessage, Status> {
        let method = self.method(method);
        let text = self.expand(request);
        let message =
            DynamicMessage::parse_text_format(method.input(), &text).unwrap_or_else(|error| {
                panic!("{request}: {error:?}");
            });
        let mut request = Request::new(Bytes::from(message.encode_to_vec()));
        for (key, value) in metadata {
            request.metadata_mut().insert(
                AsciiMetadataKey::from_str(key).expect("a key"),
                AsciiMetadataValue::try_from(self.expand(value)).expect("a value"),
            );
        }
        self.client.ready().await.expect("ready");
        let answering = self.client.unary(request, path(&method), Raw);
        let answer = tokio::time::timeout(PATIENCE, answering)
            .await
            .unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer")))?;
        Ok(DynamicMessage::decode(method.output(), answer.into_inner()).expect("an answer"))
    }

    /// Puts in what was kept and what is to be repeated.
    fn expand(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (name, value) in &self.kept {
            text = text.replace(&format!("${name}"), value);
        }
        while let Some((before, rest)) = text.split_once("{repeat ") {
            let (repeat, after) = rest.split_once('}').expect("a closing brace");
            let (count, unit) = repeat.split_once(' ').expect("{repeat N x}");
            let repeated = unit.repeat(count.parse().expect("a count"));
            text = format!("{before}{repeated}{after}");
        }
        text
    }
}

fn path(method: &MethodDescriptor) -> http::uri::PathAndQuery {
    let service = method.parent_service().full_name();
    http::uri::PathAndQuery::try_from(format!("/{service}/{}", method.name())).expect("a path")
}

fn refused(status: &Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::I64(number) => number.to_string(),
        Value::U64(number) => number.to_string(),
        other => panic!("not to be kept: {other:?}"),
    }
}

fn shown(mut answer: DynamicMessage) -> String {
    mask(&mut answer);
    let text = answer.to_text_format();
    if text.is_empty() {
        "empty".to_owned()
    } else {
        text
    }
}

fn mask(message: &mut DynamicMessage) {
    let fields: Vec<_> = message.fields().map(|(field, _)| field).collect();
    for field in fields {
        if MASKED.contains(&field.full_name()) {
            message.clear_field(&field);
            continue;
        }
        match message.get_field_mut(&field) {
            Value::Message(inner) => mask(inner),
            Value::List(items) => {
                for item in items {
                    if let Value::Message(inner) = item {
                        mask(inner);
                    }
                }
            }
            _ => {}
        }
    }
}

/// Messages as they are on the wire.
#[derive(Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
