//! Snapshots on their way: bounded memory, writes beside them, clients that go away.

use std::time::Duration;

use member_proto::etcdserverpb as pb;
use member_proto::etcdserverpb::kv_client::KvClient;
use member_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use sha2::{Digest, Sha256};
use tonic::Streaming;
use tonic::transport::Channel;

use crate::process::{MEMBER, Server, wait_until};

const PATIENCE: Duration = Duration::from_secs(60);
const VALUE: usize = 1 << 20;
const VALUES: usize = 96;
/// What a snapshot may cost, be the database as large as it likes.
const ALLOWANCE_KIB: u64 = 40 << 10;

/// A field of the process's status, in KiB.
fn status(server: &Server, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("runs");
    let line = status.lines().find(|line| line.starts_with(field));
    line.and_then(|line| line.split_whitespace().nth(1))
        .and_then(|number| number.parse().ok())
        .expect("a number")
}

async fn put(kv: &mut KvClient<Channel>, key: String, value: Vec<u8>) {
    let request = pb::PutRequest {
        key: key.into(),
        value: value.into(),
        ..pb::PutRequest::default()
    };
    kv.put(request).await.expect("put");
}

/// Values that do not compress.
fn value(seed: usize) -> Vec<u8> {
    let mut value = Vec::with_capacity(VALUE);
    let mut block = Sha256::digest(seed.to_le_bytes());
    while value.len() < VALUE {
        value.extend_from_slice(&block);
        block = Sha256::digest(block);
    }
    value
}

async fn open(server: &Server) -> Streaming<pb::SnapshotResponse> {
    let mut client = MaintenanceClient::connect(server.endpoint())
        .await
        .expect("connects");
    let answer = client.snapshot(pb::SnapshotRequest {}).await;
    answer.expect("a stream").into_inner()
}

async fn next(stream: &mut Streaming<pb::SnapshotResponse>) -> Option<pb::SnapshotResponse> {
    tokio::time::timeout(PATIENCE, stream.message())
        .await
        .expect("a chunk in time")
        .expect("no error")
}

/// Files that the server has beside its database and log.
fn stray_files(server: &Server) -> Vec<std::path::PathBuf> {
    let mut stray = Vec::new();
    let mut open = vec![server.data_dir()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).expect("readable").flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with("db-") || name == "wal" {
                continue;
            }
            match entry.file_type().expect("a type").is_dir() {
                true => open.push(entry.path()),
                false if name != "CURRENT" => stray.push(entry.path()),
                false => {}
            }
        }
    }
    stray
}

#[tokio::test]
async fn memory_does_not_grow_with_the_database_and_writes_go_on() {
    let mut server = Server::single(MEMBER, &["--snapshot-count=20"]);
    server.start();
    server.wait_ready();
    let mut kv = KvClient::connect(server.endpoint())
        .await
        .expect("connects");
    for i in 0..VALUES {
        put(&mut kv, format!("k{i}"), value(i)).await;
    }
    let before = status(&server, "VmRSS");
    // From here on the peak counts anew.
    std::fs::write(format!("/proc/{}/clear_refs", server.pid()), "5").expect("writable");
    let mut stream = open(&server).await;
    let first = next(&mut stream).await.expect("a chunk");
    let size = first.remaining_bytes + first.blob.len() as u64;
    assert!(size > (VALUE * VALUES) as u64, "{size}");
    // The client holds its breath; writes do not wait for it.
    for i in 0..50 {
        put(&mut kv, format!("beside{i}"), vec![0; 100]).await;
    }
    let mut hash = Sha256::new();
    hash.update(&first.blob);
    let mut received = first.blob.len() as u64;
    let mut last = first;
    while let Some(chunk) = next(&mut stream).await {
        if received < size {
            received += chunk.blob.len() as u64;
            assert_eq!(chunk.remaining_bytes, size - received);
            hash.update(&chunk.blob);
        }
        last = chunk;
    }
    assert_eq!(received, size);
    assert_eq!(&last.blob[..], &hash.finalize()[..]);
    let peak = status(&server, "VmHWM");
    assert!(
        peak < before + ALLOWANCE_KIB,
        "{before} KiB before, {peak} KiB at most, for {size} bytes"
    );
}

// The client's connection goes on while the test waits for the server.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_client_that_goes_away_leaves_nothing_behind() {
    let mut server = Server::single(MEMBER, &[]);
    server.start();
    server.wait_ready();
    let mut kv = KvClient::connect(server.endpoint())
        .await
        .expect("connects");
    for i in 0..8 {
        put(&mut kv, format!("k{i}"), value(i)).await;
    }
    let mut stream = open(&server).await;
    next(&mut stream).await.expect("a chunk");
    drop(stream);
    wait_until("the server notices", || {
        server
            .log()
            .contains("a client went away before it had the whole snapshot")
    });
    assert_eq!(stray_files(&server), Vec::<std::path::PathBuf>::new());
    put(&mut kv, "after".to_owned(), Vec::new()).await;
    // A stream that stands still does not hold up the stop.
    let mut stream = open(&server).await;
    next(&mut stream).await.expect("a chunk");
    server.signal("TERM");
}
