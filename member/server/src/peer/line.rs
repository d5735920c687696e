//! A connection to another member on which the bytes are counted.

use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::{BoxFuture, FutureExt};
use http::{Request, Response};
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::transport::Channel;

use crate::metrics::{Counted, Peer, Way};

/// A channel whose bodies are counted. Calls are few and long: a box for each costs nothing.
#[derive(Clone)]
pub(super) struct Line {
    channel: Channel,
    peer: Arc<Peer>,
}

impl Line {
    pub(super) fn new(channel: Channel, peer: Arc<Peer>) -> Self {
        Self { channel, peer }
    }
}

impl Service<Request<Body>> for Line {
    type Response = Response<Body>;
    type Error = tonic::transport::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, tonic::transport::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.channel.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let peer = Arc::clone(&self.peer);
        let request = request.map(|body| Counted::body(body, &peer, Way::Out));
        let answered = self.channel.call(request);
        async move {
            Ok(answered
                .await?
                .map(|body| Counted::body(body, &peer, Way::In)))
        }
        .boxed()
    }
}
