//! The near end: asking the agent on a machine.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper::upgrade::Upgraded;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::process::Child;
use tokio::time::timeout;

use super::ask::{Ask, Trouble};
use super::error::{Said, SshError};
use super::serve::{FRAME, WINDOW};
use super::ssh::{StderrText, start};
use crate::error::Error;
use crate::host::local::{PUT_HEADER, Put};
use crate::topology::SshHost;

/// A connection to a port of the machine.
pub type Tunnel = Upgraded;

/// The agent on one machine. Clones share the connection, which ends with the last of them.
#[derive(Clone, Debug)]
pub struct Agent {
    host: Arc<str>,
    sender: SendRequest<Full<Bytes>>,
    said: StderrText,
    _ssh: Arc<Child>,
}

impl Agent {
    /// Connects to a machine and starts the agent there.
    pub(super) async fn connect(host: &SshHost) -> Result<Self, SshError> {
        let connected = start(host).await?;
        let streams = tokio::io::join(connected.reads, connected.writes);
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_frame_size(FRAME)
            .handshake(TokioIo::new(streams))
            .await
            .map_err(|error| SshError::Lost {
                host: host.url(),
                said: Said(error.to_string()),
            })?;
        // Ends when the last sender is dropped, or the stream breaks: whoever waits for an answer is told.
        tokio::spawn(async move { drop(connection.await) });
        Ok(Self {
            host: host.url().into(),
            sender,
            said: connected.said,
            _ssh: Arc::new(connected.child),
        })
    }

    /// Why the connection ended, if it did.
    pub(super) fn lost(&self) -> Option<SshError> {
        self.sender
            .is_closed()
            .then(|| self.lost_because("it was closed"))
    }

    /// Asks, and waits at most for `limit`.
    pub async fn ask<A: Ask>(&self, ask: &A, limit: Duration) -> Result<A::Answer, Error> {
        let body = serde_json::to_vec(ask).map_err(|error| self.garbled(error))?;
        let request = Request::post(format!("http://agent/{}", A::NAME)).body(Full::from(body));
        let answer = self.send(request, limit, A::NAME).await?;
        serde_json::from_slice(&answer).map_err(|error| self.garbled(error))
    }

    /// Writes a file there.
    pub async fn put(&self, put: &Put, bytes: Bytes, limit: Duration) -> Result<(), Error> {
        let header = serde_json::to_string(put).map_err(|error| self.garbled(error))?;
        let request = Request::put("http://agent/")
            .header(PUT_HEADER, header)
            .body(Full::new(bytes));
        let what = format!("writing {}", put.path.display());
        self.send(request, limit, &what).await.map(drop)
    }

    /// Connects to a port there.
    pub async fn tunnel(&self, to: SocketAddr) -> std::io::Result<Tunnel> {
        let lost = |error: hyper::Error| std::io::Error::other(error);
        let request = Request::builder()
            .method(Method::CONNECT)
            .uri(to.to_string())
            .body(Full::default())
            .map_err(std::io::Error::other)?;
        let answer = self
            .sender
            .clone()
            .send_request(request)
            .await
            .map_err(lost)?;
        if answer.status() != StatusCode::OK {
            let body = answer.into_body().collect().await.map_err(lost)?.to_bytes();
            return Err(std::io::Error::other(
                String::from_utf8_lossy(&body).into_owned(),
            ));
        }
        hyper::upgrade::on(answer).await.map_err(lost)
    }

    async fn send(
        &self,
        request: Result<Request<Full<Bytes>>, hyper::http::Error>,
        limit: Duration,
        what: &str,
    ) -> Result<Bytes, Error> {
        let request = request.map_err(|error| self.garbled(error))?;
        let sent = async {
            let answer = self.sender.clone().send_request(request).await?;
            let ok = answer.status() == StatusCode::OK;
            Ok::<_, hyper::Error>((ok, answer.into_body().collect().await?.to_bytes()))
        };
        match timeout(limit, sent).await {
            Ok(Ok((true, body))) => Ok(body),
            Ok(Ok((false, body))) => match serde_json::from_slice::<Trouble>(&body) {
                Ok(trouble) => Err(trouble.of(&self.host)),
                Err(error) => Err(self.garbled(error)),
            },
            Ok(Err(error)) => Err(self.lost_because(&error.to_string()).into()),
            Err(_) => Err(Error::timed_out(
                format!("{what} on {}", self.host),
                limit,
                "see whether the machine is overloaded or its disk hangs, and repeat the command",
            )),
        }
    }

    // What ssh says is nearer to the cause than what became of a request.
    fn lost_because(&self, otherwise: &str) -> SshError {
        let said = self.said.text();
        SshError::Lost {
            host: self.host.to_string(),
            said: Said(said.lines().last().unwrap_or(otherwise).to_owned()),
        }
    }

    fn garbled(&self, error: impl std::error::Error + Send + Sync + 'static) -> Error {
        Error::because(
            format!("the agent on {} does not understand", self.host),
            error,
        )
    }
}
