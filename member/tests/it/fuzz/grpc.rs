//! The client port.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http_body_util::{BodyExt as _, Full};
use tonic::body::Body;
use tonic::codegen::Service as _;
use tonic::transport::Channel;

use super::wire::{framed, http2_call, requests};
use super::{Random, assert_well, each_seed, started};

/// A call that waits for others, as that of a lock, is given up.
const WAIT: Duration = Duration::from_millis(300);

/// A body with one or more messages, or what looks like it.
fn body(random: &mut Random, message: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    for _ in 0..=random.below(3) {
        let mut message = message.to_vec();
        if !random.one_in(4) {
            random.mutate(&mut message);
        }
        let mut frame = framed(&message);
        match random.below(12) {
            // More than there is, and more than may be.
            0 => frame[1..5].fill(0xff),
            1 => frame[1..5].copy_from_slice(&0x0fff_ffff_u32.to_be_bytes()),
            2 => frame[4] = random.byte(),
            // A compression that was not agreed on.
            3 => frame[0] = random.byte(),
            4 => frame = random.bytes(100),
            _ => {}
        }
        body.extend(frame);
    }
    body
}

async fn call(mut channel: Channel, path: &'static str, body: Vec<u8>) {
    let request = http::Request::post(format!("http://localhost{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::new(Full::new(Bytes::from(body))))
        .expect("a request");
    let answer = async {
        std::future::poll_fn(|context| channel.poll_ready(context))
            .await
            .ok()?;
        let mut body = channel.call(request).await.ok()?.into_body();
        while let Some(Ok(_)) = body.frame().await {}
        Some(())
    };
    let _ = tokio::time::timeout(WAIT, answer).await;
}

#[test]
fn a_member_outlives_any_message_of_a_client() {
    let server = started();
    let requests = requests();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    each_seed(|random| {
        let calls: Vec<_> = (0..64)
            .map(|_| {
                let (path, message) = random.pick(&requests);
                let other = random.pick(&requests).1.clone();
                let message = if random.one_in(8) { &other } else { message };
                (*path, body(random, message))
            })
            .collect();
        runtime.block_on(async {
            let channel = Channel::from_shared(server.endpoint())
                .expect("a URL")
                .connect()
                .await
                .expect("connects");
            join_all(
                calls
                    .into_iter()
                    .map(|(path, body)| call(channel.clone(), path, body)),
            )
            .await;
        });
        assert_well(&server);
    });
}

/// Sends bytes, and reads until the other side closes or is silent.
pub(super) fn talk(port: u16, bytes: &[u8]) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connects");
    stream.set_read_timeout(Some(WAIT / 10)).expect("a timeout");
    // The other side may have closed already.
    let _ = stream.write_all(bytes);
    let mut buffer = [0; 4096];
    for _ in 0..64 {
        if !matches!(stream.read(&mut buffer), Ok(1..)) {
            break;
        }
    }
}

#[test]
fn a_member_outlives_any_bytes_on_its_client_port() {
    let server = started();
    let requests = requests();
    each_seed(|random| {
        for _ in 0..16 {
            let (path, message) = random.pick(&requests);
            let mut bytes = match random.below(4) {
                0 => random.bytes(300),
                1 => format!("POST {path} HTTP/1.1\r\nContent-Length: 5\r\nHost: x\r\n\r\nhello")
                    .into_bytes(),
                _ => http2_call(path, &[], &framed(message)),
            };
            random.mutate(&mut bytes);
            talk(server.client_port, &bytes);
        }
        assert_well(&server);
    });
}
