//! The far end: an HTTP/2 server on standard input and output.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;

use super::ask::{Ask, Trouble};
use crate::error::Error;
use crate::host::local::{PUT_HEADER, Put};

/// What the agent prints before it speaks HTTP/2.
pub(super) const HELLO: &str = "provision-agent 1";
// A line with a delay of 50 ms carries 160 MB/s through this window.
pub(super) const WINDOW: u32 = 8 * 1024 * 1024;
pub(super) const FRAME: u32 = 256 * 1024;
const ALIVE_EVERY: Duration = Duration::from_secs(20);
const ALIVE_LIMIT: Duration = Duration::from_secs(30);

/// Answers until the other end is gone. `route` finds the answer to a question by its name.
pub async fn serve<F, R>(route: F) -> Result<(), Error>
where
    F: Fn(String, Bytes) -> R + Clone + Send + 'static,
    R: Future<Output = Result<Vec<u8>, Error>> + Send + 'static,
{
    let mut stdout = tokio::io::stdout();
    let hello = async {
        stdout.write_all(format!("{HELLO}\n").as_bytes()).await?;
        stdout.flush().await
    };
    hello
        .await
        .map_err(|source| Error::because("cannot write to standard output", source))?;
    let streams = tokio::io::join(tokio::io::stdin(), stdout);
    let service = service_fn(move |request| {
        let route = route.clone();
        async move { Ok::<_, Infallible>(respond(request, route).await) }
    });
    http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        // Locks of an operator whose machine or line is gone must not outlive it for long.
        .keep_alive_interval(Some(ALIVE_EVERY))
        .keep_alive_timeout(ALIVE_LIMIT)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_frame_size(FRAME)
        .serve_connection(TokioIo::new(streams), service)
        .await
        .map_err(|error| Error::because("the connection ended", error))
}

/// Answers one kind of question.
pub async fn answer<A: Ask>(body: &[u8]) -> Result<Vec<u8>, Error> {
    let garbled = |error| Error::because(format!("cannot read or write {:?}", A::NAME), error);
    let ask: A = serde_json::from_slice(body).map_err(garbled)?;
    serde_json::to_vec(&ask.answer().await?).map_err(garbled)
}

async fn respond<F, R>(request: Request<Incoming>, route: F) -> Response<Full<Bytes>>
where
    F: Fn(String, Bytes) -> R,
    R: Future<Output = Result<Vec<u8>, Error>>,
{
    let result = match *request.method() {
        Method::CONNECT => return connect(request).await,
        Method::PUT => put(request).await,
        _ => {
            let name = request.uri().path().trim_start_matches('/').to_owned();
            match request.into_body().collect().await {
                Ok(body) => route(name, body.to_bytes()).await,
                Err(error) => Err(Error::because("the question was cut off", error)),
            }
        }
    };
    match result {
        Ok(body) => Response::new(Full::from(body)),
        Err(error) => {
            let trouble = serde_json::to_vec(&Trouble::from(&error)).unwrap_or_default();
            failed(StatusCode::INTERNAL_SERVER_ERROR, trouble)
        }
    }
}

async fn put(request: Request<Incoming>) -> Result<Vec<u8>, Error> {
    let header = request.headers().get(PUT_HEADER);
    let put: Put = header
        .and_then(|header| serde_json::from_slice(header.as_bytes()).ok())
        .ok_or_else(|| Error::because("cannot read where a file belongs", "no such header"))?;
    let body = request.into_body().collect().await;
    let body = body.map_err(|error| Error::because("the file was cut off", error))?;
    put.write(&body.to_bytes())?;
    Ok(Vec::new())
}

async fn connect(request: Request<Incoming>) -> Response<Full<Bytes>> {
    let to = request.uri().to_string();
    let mut far = match TcpStream::connect(&to).await {
        Ok(far) => far,
        Err(error) => return failed(StatusCode::BAD_GATEWAY, error.to_string().into_bytes()),
    };
    let _without_it_small_frames_wait = far.set_nodelay(true);
    tokio::spawn(async move {
        if let Ok(near) = hyper::upgrade::on(request).await {
            // Either end may go away at any time; both are told by the end of the stream.
            drop(copy_bidirectional(&mut TokioIo::new(near), &mut far).await);
        }
    });
    Response::default()
}

fn failed(status: StatusCode, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response
}
