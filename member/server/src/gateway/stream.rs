//! Calls that stream: one JSON value a message, one line an answer, sent as they come.

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use futures_util::stream;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use prost_reflect::{DynamicMessage, MessageDescriptor, MethodDescriptor};
use tonic::body::Body;
use tonic::{Code, Status};

use super::call::{Call, frame, to_json_aside, too_large, unframe};
use super::json::{self, Json, Outline, Unread};
use super::{answer, message};

/// A call whose requests are the JSON values of the body.
pub(super) async fn both_ways<C: Call>(
    port: C,
    head: Request<()>,
    body: Incoming,
    method: &MethodDescriptor,
    limit: usize,
) -> Response<Body> {
    let mut requests = Requests {
        body,
        text: BytesMut::new(),
        outline: Outline::default(),
        read_at: 0,
        limit,
        description: method.input(),
        ended: false,
    };
    // etcd reads the first message before it answers, and gives its own words to what it cannot read.
    let first = match requests.next().await {
        Some(Ok(first)) => Some(frame(&first)),
        Some(Err(status)) => return answer::refused(&status),
        None => None,
    };
    let body = match first {
        Some(first) => {
            let rest = requests.frames();
            let first = stream::iter([Ok::<_, Status>(Frame::data(first))]);
            Body::new(StreamBody::new(futures_util::StreamExt::chain(first, rest)))
        }
        None => Body::new(Full::new(Bytes::new())),
    };
    let response = port.call(head.map(|()| body)).await;
    one_way(response, &method.output()).await
}

/// The lines of a streamed answer. The status is known with the first message, so that is waited for.
pub(super) async fn one_way(
    response: Response<Body>,
    description: &MessageDescriptor,
) -> Response<Body> {
    let refused = |status: &Status| {
        let (http, line) = answer::refused_line(status);
        answer::json(http, answer::whole(line))
    };
    if let Some(status) = Status::from_header_map(response.headers())
        && status.code() != Code::Ok
    {
        return refused(&status);
    }
    let mut answers = Answers {
        body: response.into_body(),
        bytes: BytesMut::new(),
        description: description.clone(),
        ended: false,
    };
    match answers.next().await {
        None => answer::json(StatusCode::OK, answer::whole("")),
        Some(Err(status)) => refused(&status),
        Some(Ok(first)) => {
            let first = stream::iter([Ok::<_, Status>(Frame::data(Bytes::from(first)))]);
            let lines = futures_util::StreamExt::chain(first, answers.lines());
            answer::answered(Body::new(StreamBody::new(lines)))
        }
    }
}

/// The messages of a request's body.
struct Requests {
    body: Incoming,
    text: BytesMut,
    outline: Outline,
    /// The length at which the text is read though its value seems to go on: what is malformed shows.
    read_at: usize,
    limit: usize,
    description: MessageDescriptor,
    ended: bool,
}

impl Requests {
    /// The next message; `None` at the end.
    ///
    /// A text that comes in small pieces is not read from its beginning with each of them, or a client could keep the
    /// member busy for hours with one request.
    async fn next(&mut self) -> Option<Result<DynamicMessage, Status>> {
        loop {
            if self.outline.closes(&self.text) || self.ended || self.text.len() >= self.read_at {
                match json::first(&self.text) {
                    // At the end of what has come it may go on.
                    Ok((Json::Number(_), end)) if end == self.text.len() && !self.ended => {}
                    Ok((json, end)) => {
                        let _ = self.text.split_to(end);
                        self.outline = Outline::default();
                        self.read_at = 0;
                        let read = message::read(&json, &self.description);
                        return Some(read.map_err(Status::unknown));
                    }
                    Err(Unread::Malformed(words)) => return Some(Err(Status::unknown(words))),
                    Err(Unread::Blank) if self.ended => return None,
                    Err(Unread::Cut) if self.ended => {
                        return Some(Err(Status::unknown("unexpected EOF")));
                    }
                    Err(Unread::Blank | Unread::Cut) => {}
                }
                self.read_at = 2 * self.text.len();
            }
            if self.text.len() > self.limit {
                return Some(Err(too_large(self.limit)));
            }
            match self.body.frame().await {
                Some(Ok(more)) => {
                    if let Ok(data) = more.into_data() {
                        self.text.extend_from_slice(&data);
                    }
                }
                // A client that went away sends no more; the answer's stream ends with its connection.
                Some(Err(_)) | None => self.ended = true,
            }
        }
    }

    /// The messages as gRPC frames; what cannot be read ends them, as in etcd.
    fn frames(self) -> impl Stream<Item = Result<Frame<Bytes>, Status>> {
        stream::unfold(self, |mut requests| async move {
            match requests.next().await {
                Some(Ok(message)) => Some((Ok(Frame::data(frame(&message))), requests)),
                Some(Err(_)) | None => None,
            }
        })
    }
}

/// The lines of a response's body.
struct Answers {
    body: Body,
    bytes: BytesMut,
    description: MessageDescriptor,
    ended: bool,
}

impl Answers {
    /// The next line; `None` at the end.
    async fn next(&mut self) -> Option<Result<String, Status>> {
        loop {
            if self.ended {
                return None;
            }
            if let Some(message) = unframe(&mut self.bytes) {
                let line = to_json_aside(message, self.description.clone()).await;
                self.ended = line.is_err();
                return Some(line.map(|json| format!("{{\"result\":{json}}}\n")));
            }
            let frame = match self.body.frame().await {
                Some(Ok(frame)) => frame,
                Some(Err(status)) => {
                    self.ended = true;
                    return Some(Err(status));
                }
                None => return None,
            };
            match frame.into_data() {
                Ok(data) => self.bytes.extend_from_slice(&data),
                Err(frame) => {
                    let status = frame.trailers_ref().and_then(Status::from_header_map);
                    self.ended = true;
                    return status.filter(|status| status.code() != Code::Ok).map(Err);
                }
            }
        }
    }

    fn lines(self) -> impl Stream<Item = Result<Frame<Bytes>, Status>> {
        stream::unfold(self, |mut answers| async move {
            let line = match answers.next().await? {
                Ok(line) => line,
                Err(status) => answer::refused_line(&status).1,
            };
            Some((Ok(Frame::data(Bytes::from(line))), answers))
        })
    }
}
