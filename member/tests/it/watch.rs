//! Watches through the wire: response by response against etcd, and over the loss of members.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryFutureExt as _};
use member_proto::etcdserverpb as pb;
use member_proto::etcdserverpb::kv_client::KvClient;
use member_proto::etcdserverpb::watch_client::WatchClient;
use pb::watch_request::RequestUnion;
use tokio::sync::mpsc;
use tonic::codegen::BoxStream;

use crate::process::{ETCD, MEMBER, Server, etcdctl, wait_until};
use crate::server::{endpoints, start_all, three};

const PATIENCE: Duration = Duration::from_secs(30);

struct Watching {
    requests: mpsc::UnboundedSender<pb::WatchRequest>,
    /// etcd sends a stream's headers with its first response, so nobody waits for them alone.
    responses: BoxStream<pb::WatchResponse>,
}

impl Watching {
    async fn open(server: &Server) -> Self {
        let mut client = WatchClient::connect(server.endpoint())
            .await
            .expect("connects")
            .max_decoding_message_size(usize::MAX);
        let (requests, mut queue) = mpsc::unbounded_channel();
        let stream = futures_util::stream::poll_fn(move |context| queue.poll_recv(context));
        let mut request = tonic::Request::new(stream);
        request
            .metadata_mut()
            .insert("hasleader", "true".parse().expect("text"));
        let call = tokio::spawn(async move { client.watch(request).await });
        let responses = async move {
            call.await
                .expect("no panic")
                .map(tonic::Response::into_inner)
        };
        Self {
            requests,
            responses: Box::pin(responses.try_flatten_stream()),
        }
    }

    fn ask(&self, request: RequestUnion) {
        let request = pb::WatchRequest {
            request_union: Some(request),
        };
        self.requests.send(request).expect("an open stream");
    }

    /// The next response, without what may differ between servers.
    async fn next(&mut self) -> pb::WatchResponse {
        let next = tokio::time::timeout(PATIENCE, self.responses.next());
        let mut response = next
            .await
            .expect("in time")
            .expect("not the end")
            .expect("no error");
        if let Some(header) = &mut response.header {
            *header = pb::ResponseHeader {
                revision: header.revision,
                ..Default::default()
            };
        }
        response
    }

    /// Events of the responses until one of revision `to`.
    async fn events_to(&mut self, to: i64) -> Vec<member_proto::mvccpb::Event> {
        let mut found = Vec::new();
        let last = |found: &[member_proto::mvccpb::Event]| {
            let kv = found.last().and_then(|event| event.kv.as_ref());
            kv.map_or(0, |kv| kv.mod_revision)
        };
        while last(&found) < to {
            found.extend(self.next().await.events);
        }
        found
    }
}

fn create(key: &str, end: &'static [u8], start_revision: i64) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest {
        key: key.to_owned().into(),
        range_end: Bytes::from_static(end),
        start_revision,
        ..Default::default()
    }
}

enum Step {
    Create(pb::WatchCreateRequest),
    Cancel(i64),
    Put(&'static str, &'static str),
    Delete(&'static str, &'static [u8]),
    Both(&'static str, &'static str),
    Compact(i64),
    /// Takes this many responses.
    Take(usize),
}

/// Every option of a watch, and what refuses one.
fn script() -> Vec<Step> {
    use Step::{Both, Cancel, Compact, Create, Delete, Put, Take};
    vec![
        Put("a", "1"),
        Put("b", "2"),
        Put("a", "3"),
        Create(create("a", b"", 0)),
        Take(1),
        Put("a", "4"),
        Take(1),
        Both("a", "b"),
        Take(1),
        Delete("a", b""),
        Take(1),
        Create(pb::WatchCreateRequest {
            prev_kv: true,
            watch_id: 17,
            ..create("", b"\0", 2)
        }),
        Take(2),
        Cancel(0),
        Take(1),
        Cancel(4711),
        Create(pb::WatchCreateRequest {
            watch_id: 17,
            ..create("a", b"", 0)
        }),
        Take(1),
        Create(create("b", b"a", 0)),
        Take(1),
        Put("a", "5"),
        Take(1),
        Put("a", "6"),
        Take(1),
        Delete("a", b"c"),
        Take(1),
        Cancel(17),
        Take(1),
        Create(pb::WatchCreateRequest {
            filters: vec![0],
            ..create("a", b"c", 0)
        }),
        Take(1),
        Put("a", "7"),
        Delete("a", b""),
        Take(1),
        Create(pb::WatchCreateRequest {
            filters: vec![1],
            prev_kv: true,
            ..create("x", b"z", 3)
        }),
        Take(1),
        Delete("x", b""),
        Put("x", "8"),
        Take(1),
        Put("x", "9"),
        Take(1),
        Delete("x", b""),
        Put("y", "10"),
        Take(1),
        Cancel(1),
        Take(1),
        Cancel(2),
        Take(1),
        Compact(8),
        Create(create("a", b"", 3)),
        Take(2),
        Create(create("a", b"", 8)),
        Take(2),
        Create(create("far", b"", 20)),
        Take(1),
        Put("far", "1"),
        Put("far", "2"),
        Put("far", "3"),
        Put("far", "4"),
        Take(1),
    ]
}

async fn run(server: &Server) -> Vec<String> {
    let mut kv = KvClient::connect(server.endpoint())
        .await
        .expect("connects");
    let mut watching = Watching::open(server).await;
    let put = |key: &str, value: &str| pb::PutRequest {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        ..Default::default()
    };
    let mut told = Vec::new();
    for (at, step) in script().into_iter().enumerate() {
        match step {
            Step::Create(create) => watching.ask(RequestUnion::CreateRequest(create)),
            Step::Cancel(watch_id) => {
                watching.ask(RequestUnion::CancelRequest(pb::WatchCancelRequest {
                    watch_id,
                }));
            }
            Step::Put(key, value) => {
                kv.put(put(key, value)).await.expect("written");
            }
            Step::Both(one, other) => {
                let op = |key| pb::RequestOp {
                    request: Some(pb::request_op::Request::RequestPut(put(key, "both"))),
                };
                let txn = pb::TxnRequest {
                    success: vec![op(one), op(other)],
                    ..Default::default()
                };
                kv.txn(txn).await.expect("written");
            }
            Step::Delete(key, end) => {
                let delete = pb::DeleteRangeRequest {
                    key: key.to_owned().into(),
                    range_end: Bytes::from_static(end),
                    ..Default::default()
                };
                kv.delete_range(delete).await.expect("deleted");
            }
            Step::Compact(revision) => {
                let compact = pb::CompactionRequest {
                    revision,
                    physical: true,
                };
                kv.compact(compact).await.expect("compacted");
            }
            Step::Take(count) => {
                for _ in 0..count {
                    told.push(format!("step {at}: {:?}", watching.next().await));
                }
            }
        }
    }
    told
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
}

#[test]
fn responses_equal_etcds() {
    let member = Server::started(MEMBER, &[]);
    let etcd = Server::started(ETCD, &[]);
    runtime().block_on(async {
        let (found, expected) = (run(&member).await, run(&etcd).await);
        for (found, expected) in found.iter().zip(&expected) {
            assert_eq!(found, expected);
        }
        assert_eq!(found.len(), expected.len());
    });
}

#[test]
fn a_watch_goes_on_at_another_member_and_sees_each_event_once() {
    let mut servers = three();
    start_all(&mut servers);
    wait_until("a leader", || servers.iter().any(Server::leads));
    let leader = servers.iter().position(Server::leads).expect("a leader");
    let other = (leader + 1) % 3;
    runtime().block_on(async {
        let all = || pb::WatchCreateRequest {
            start_revision: 2,
            ..create("", b"\0", 0)
        };
        let mut watching = Watching::open(&servers[leader]).await;
        watching.ask(RequestUnion::CreateRequest(all()));
        let everywhere = endpoints(&servers);
        let writers = (0..4).map(|writer| {
            let everywhere = everywhere.clone();
            tokio::task::spawn_blocking(move || {
                for i in 0..25 {
                    let key = format!("w{writer}/{i}");
                    let put = || etcdctl(&everywhere, &["--command-timeout=20s", "put", &key, "v"]);
                    // One that is under way at the member that dies fails, written or not, and no other does.
                    let (ok, _, first) = put();
                    if !ok {
                        let (ok, _, again) = put();
                        assert!(ok, "{first}{again}");
                    }
                }
            })
        });
        let writers: Vec<_> = writers.collect();
        let mut seen = watching.events_to(30).await;
        servers[leader].kill();
        drop(watching);
        let last = seen.last().and_then(|event| event.kv.as_ref());
        let next = last.map_or(0, |kv| kv.mod_revision) + 1;
        let mut watching = Watching::open(&servers[other]).await;
        watching.ask(RequestUnion::CreateRequest(pb::WatchCreateRequest {
            start_revision: next,
            ..all()
        }));
        for writer in writers {
            writer.await.expect("written");
        }
        let mut kv = KvClient::connect(servers[other].endpoint())
            .await
            .expect("connects");
        let range = pb::RangeRequest {
            key: Bytes::from_static(b"\0"),
            range_end: Bytes::from_static(b"\0"),
            ..Default::default()
        };
        let now = kv.range(range).await.expect("answers").into_inner();
        let revision = now.header.expect("a header").revision;
        seen.extend(watching.events_to(revision).await);
        let revisions: Vec<i64> = seen
            .iter()
            .map(|event| event.kv.as_ref().expect("a key").mod_revision)
            .collect();
        assert_eq!(revisions, (2..=revision).collect::<Vec<_>>());
        let mut last: Vec<_> = seen.into_iter().filter_map(|event| event.kv).collect();
        last.sort_by(|a, b| (&a.key, a.mod_revision).cmp(&(&b.key, b.mod_revision)));
        last.reverse();
        last.dedup_by(|a, b| a.key == b.key);
        last.reverse();
        assert_eq!(last, now.kvs, "the events add up to the state");
    });
}

#[test]
fn progress_and_fragments_and_a_graceful_stop() {
    let mut member = Server::started(MEMBER, &["--watch-progress-notify-interval=100ms"]);
    runtime().block_on(async {
        let mut watching = Watching::open(&member).await;
        watching.ask(RequestUnion::CreateRequest(pb::WatchCreateRequest {
            progress_notify: true,
            fragment: true,
            ..create("k", b"l", 0)
        }));
        assert!(watching.next().await.created);
        let notice = watching.next().await;
        assert!(notice.events.is_empty() && notice.watch_id == 0);
        assert_eq!(notice.header.expect("a header").revision, 1);
        let mut kv = KvClient::connect(member.endpoint())
            .await
            .expect("connects");
        // Stays below --max-request-bytes as it is written, and above the limit with what was there before.
        let large = |i: u8| pb::PutRequest {
            key: format!("k{i}").into(),
            value: vec![b'v'; 1 << 20].into(),
            ..Default::default()
        };
        for i in 0..3 {
            kv.put(large(i)).await.expect("written");
        }
        let mut history = Watching::open(&member).await;
        history.ask(RequestUnion::CreateRequest(pb::WatchCreateRequest {
            fragment: true,
            ..create("k", b"l", 2)
        }));
        assert!(history.next().await.created);
        let mut parts = vec![history.next().await];
        while parts.last().is_some_and(|part| part.fragment) {
            parts.push(history.next().await);
        }
        let marks: Vec<_> = parts
            .iter()
            .map(|part| (part.fragment, part.events.len()))
            .collect();
        assert_eq!(marks, [(true, 1), (true, 1), (false, 1)]);
        history.ask(RequestUnion::ProgressRequest(pb::WatchProgressRequest {}));
        let progress = history.next().await;
        assert_eq!(progress.watch_id, -1);
        assert_eq!(progress.header.expect("a header").revision, 4);
        let ended = tokio::task::spawn_blocking(move || member.signal("TERM"));
        let status = history
            .responses
            .next()
            .await
            .expect("the end")
            .expect_err("an error");
        assert_eq!(status.code(), tonic::Code::Unavailable, "{status}");
        ended.await.expect("stopped");
    });
}

#[test]
fn etcdctl_watches_history_prefixes_and_previous_values() {
    let member = Server::started(MEMBER, &[]);
    let etcd = Server::started(ETCD, &[]);
    let told = |server: &Server| {
        let endpoint = server.endpoint();
        for (key, value) in [("a/1", "x"), ("a/2", "y"), ("b", "z"), ("a/1", "w")] {
            assert!(etcdctl(&endpoint, &["put", key, value]).0);
        }
        assert!(etcdctl(&endpoint, &["del", "a/2"]).0);
        let log = server.data_dir().with_file_name("watch");
        let out = std::fs::File::create(&log).expect("a file");
        let mut child = std::process::Command::new("etcdctl")
            .env_clear()
            .env("ETCDCTL_API", "3")
            .arg(format!("--endpoints={endpoint}"))
            .args(["watch", "--prefix", "a/", "--rev=2", "--prev-kv"])
            .stdout(out)
            .spawn()
            .expect("etcdctl runs");
        let read = || std::fs::read_to_string(&log).unwrap_or_default();
        wait_until("history", || read().contains("DELETE"));
        assert!(etcdctl(&endpoint, &["put", "a/9", "last"]).0);
        wait_until("what follows", || read().ends_with("a/9\nlast\n"));
        child.kill().expect("a child of ours");
        child.wait().expect("a child of ours");
        read()
    };
    assert_eq!(told(&member), told(&etcd));
}
