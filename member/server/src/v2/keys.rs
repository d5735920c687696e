//! `/v2/keys`: reads of this member's state, writes through the log.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use member_state::{Op, Response as Applied};
use member_v2::{Code, Event, Get, Method as Verb, Refusal, Request as Asked};
use tonic::body::Body;

use super::{V2, json, now, refuse_method, set};
use crate::engine::Engine;

impl<E: Engine> V2<E> {
    pub(super) async fn keys(
        self: Arc<Self>,
        key: String,
        request: Request<Incoming>,
    ) -> Response<Body> {
        let verb = match *request.method() {
            Method::GET => Verb::Get,
            Method::HEAD => Verb::Head,
            Method::PUT => Verb::Put,
            Method::POST => Verb::Post,
            Method::DELETE => Verb::Delete,
            _ => return refuse_method("HEAD,GET,PUT,POST,DELETE"),
        };
        let answer = match self.asked(verb, &key, request).await {
            Ok(Asked::Get(get)) => self.get(get).await,
            Ok(Asked::Watch(watch)) => Arc::clone(&self).watch(watch).await,
            Ok(Asked::Write { command, brief }) => {
                self.write(Op::V2(Box::new(command)), brief).await
            }
            Err(refusal) => Err(refusal),
        };
        let mut response = answer.unwrap_or_else(|refusal| {
            let status = StatusCode::from_u16(refusal.status());
            let status = status.unwrap_or(StatusCode::BAD_REQUEST);
            let mut response = json(status, refusal.json());
            set(
                response.headers_mut(),
                "x-etcd-index",
                refusal.index.to_string(),
            );
            response
        });
        self.name_cluster(response.headers_mut());
        response
    }

    async fn asked(
        &self,
        verb: Verb,
        key: &str,
        request: Request<Incoming>,
    ) -> Result<Asked, Refusal> {
        let query = request.uri().query().unwrap_or_default().to_owned();
        let form = match verb {
            Verb::Put | Verb::Post if is_form(&request) => Some(self.body(request).await?),
            _ => None,
        };
        Asked::parse(verb, key, &query, form.as_deref(), now())
    }

    /// The body of a request, if it is not too long and comes in time.
    pub(super) async fn body(&self, request: Request<Incoming>) -> Result<Bytes, Refusal> {
        let body = Limited::new(request.into_body(), self.receive).collect();
        match tokio::time::timeout(self.node.patience, body).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) => Err(Refusal::early(Code::InvalidForm, error.to_string())),
            Err(_) => Err(Refusal::early(
                Code::InvalidForm,
                "the body did not come in time",
            )),
        }
    }

    async fn get(&self, get: Get) -> Result<Response<Body>, Refusal> {
        if get.quorum {
            let passed = self.node.linearize().await;
            passed.map_err(|status| internal(status.message()))?;
        }
        let answer = self
            .read(move |rows| member_v2::get(rows, &get, now()))
            .await?;
        self.stats.read(answer.is_ok());
        Ok(self.answer(&answer?, true))
    }

    async fn write(&self, op: Op, brief: bool) -> Result<Response<Body>, Refusal> {
        match self.node.write(op).await {
            Ok(Applied::V2(answer)) => Ok(self.answer(&(*answer)?, !brief)),
            Ok(_) => Err(internal("received response with no Event/Watcher!")),
            Err(error) => Err(internal(error)),
        }
    }

    fn answer(&self, event: &Event, nodes: bool) -> Response<Body> {
        let status = if event.is_creation() {
            StatusCode::CREATED
        } else {
            StatusCode::OK
        };
        let mut response = json(status, event.json(nodes));
        self.place(&mut response, event.index);
        response
    }

    /// Where the keys and the log stand.
    pub(super) fn place(&self, response: &mut Response<Body>, index: u64) {
        let headers = response.headers_mut();
        set(headers, "x-etcd-index", index.to_string());
        let committed = self.node.progress().committed;
        set(headers, "x-raft-index", committed.to_string());
        let term = self.node.leadership().term;
        set(headers, "x-raft-term", term.to_string());
    }

    /// Reads the rows of one moment where nobody has to wait for it.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&super::wait::Rows<'_, E>) -> Result<T, member_state::Error> + Send + 'static,
    ) -> Result<T, Refusal> {
        let store = self.node.store();
        let work = tokio::task::spawn_blocking(move || read(&store.v2()?));
        work.await.map_err(internal)?.map_err(internal)
    }
}

/// As Go: only such a body has fields.
fn is_form(request: &Request<Incoming>) -> bool {
    let kind = request.headers().get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

/// A failure of the member, as against a refusal of the keys.
pub(super) fn internal(error: impl ToString) -> Refusal {
    Refusal::early(Code::RaftInternal, error.to_string())
}
