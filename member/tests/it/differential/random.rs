//! Random histories of the key-value service, from a seed.

use bytes::Bytes;
use member_proto::etcdserverpb as pb;
use member_proto::etcdserverpb::kv_client::KvClient;
use pb::compare::{CompareResult, CompareTarget, TargetUnion};
use tonic::transport::Channel;

use crate::process::{ETCD, MEMBER, Server};

/// One request of the list.
#[derive(Clone, Debug)]
enum Request {
    Range(pb::RangeRequest),
    Put(pb::PutRequest),
    Delete(pb::DeleteRangeRequest),
    Txn(pb::TxnRequest),
    Compact(pb::CompactionRequest),
}

/// An answer without what may differ.
type Answer = Result<String, (tonic::Code, String)>;

async fn ask(client: &mut KvClient<Channel>, request: Request) -> Answer {
    let plain = |header: &mut Option<pb::ResponseHeader>| {
        if let Some(header) = header {
            *header = pb::ResponseHeader {
                revision: header.revision,
                ..Default::default()
            };
        }
    };
    let answer = match request {
        Request::Range(request) => client.range(request).await.map(|answer| {
            let mut answer = answer.into_inner();
            plain(&mut answer.header);
            format!("{answer:?}")
        }),
        Request::Put(request) => client.put(request).await.map(|answer| {
            let mut answer = answer.into_inner();
            plain(&mut answer.header);
            format!("{answer:?}")
        }),
        Request::Delete(request) => client.delete_range(request).await.map(|answer| {
            let mut answer = answer.into_inner();
            plain(&mut answer.header);
            format!("{answer:?}")
        }),
        Request::Txn(request) => client.txn(request).await.map(|answer| {
            let mut answer = answer.into_inner();
            plain(&mut answer.header);
            format!("{answer:?}")
        }),
        Request::Compact(request) => client.compact(request).await.map(|answer| {
            let mut answer = answer.into_inner();
            plain(&mut answer.header);
            format!("{answer:?}")
        }),
    };
    answer.map_err(|status| (status.code(), status.message().to_owned()))
}

fn put(key: &str, value: &str) -> pb::PutRequest {
    pb::PutRequest {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        ..Default::default()
    }
}

fn range(key: &str, end: &'static [u8]) -> pb::RangeRequest {
    pb::RangeRequest {
        key: key.to_owned().into(),
        range_end: Bytes::from_static(end),
        ..Default::default()
    }
}

fn delete(key: &str, end: &'static [u8]) -> pb::DeleteRangeRequest {
    pb::DeleteRangeRequest {
        key: key.to_owned().into(),
        range_end: Bytes::from_static(end),
        prev_kv: true,
    }
}

fn op(request: pb::request_op::Request) -> pb::RequestOp {
    pb::RequestOp {
        request: Some(request),
    }
}

fn op_delete(key: &str, end: &'static [u8]) -> pb::RequestOp {
    op(pb::request_op::Request::RequestDeleteRange(delete(
        key, end,
    )))
}

fn op_txn(txn: pb::TxnRequest) -> pb::RequestOp {
    op(pb::request_op::Request::RequestTxn(txn))
}

fn compare(
    target: CompareTarget,
    result: CompareResult,
    key: &str,
    value: TargetUnion,
) -> pb::Compare {
    pb::Compare {
        target: target.into(),
        result: result.into(),
        key: key.to_owned().into(),
        target_union: Some(value),
        ..Default::default()
    }
}

fn txn(
    compare: Vec<pb::Compare>,
    success: Vec<pb::RequestOp>,
    failure: Vec<pb::RequestOp>,
) -> pb::TxnRequest {
    pb::TxnRequest {
        compare,
        success,
        failure,
    }
}

/// A small generator, so that a failure names its seed and nothing else is needed to see it again.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    fn key(&mut self) -> String {
        format!("r{}", self.below(12))
    }

    fn end(&mut self) -> &'static [u8] {
        [&b""[..], b"", b"", b"r4", b"r9", b"s", b"\0"]
            [usize::try_from(self.below(7)).expect("small")]
    }

    fn range(&mut self, revision: i64) -> pb::RangeRequest {
        let key = self.key();
        let end = self.end();
        let back = i64::try_from(self.below(30)).expect("small");
        let small = |random: &mut Self| i64::try_from(random.below(4)).expect("small");
        pb::RangeRequest {
            revision: if self.below(3) == 0 {
                (revision - back).max(0)
            } else {
                0
            },
            limit: small(self),
            sort_order: i32::try_from(self.below(3)).expect("small"),
            sort_target: i32::try_from(self.below(5)).expect("small"),
            keys_only: self.below(5) == 0,
            count_only: self.below(8) == 0,
            serializable: self.below(2) == 0,
            ..range(&key, end)
        }
    }

    fn ops(&mut self, depth: u64, revision: i64) -> Vec<pb::RequestOp> {
        (0..self.below(4))
            .map(|_| match self.below(if depth > 0 { 7 } else { 6 }) {
                0..=2 => {
                    let (key, value) = (self.key(), self.below(100).to_string());
                    op(pb::request_op::Request::RequestPut(pb::PutRequest {
                        prev_kv: true,
                        ..put(&key, &value)
                    }))
                }
                3 | 4 => op(pb::request_op::Request::RequestRange(pb::RangeRequest {
                    revision: 0,
                    ..self.range(revision)
                })),
                5 => {
                    let key = self.key();
                    op_delete(&key, self.end())
                }
                _ => op_txn(self.txn(depth - 1, revision)),
            })
            .collect()
    }

    fn txn(&mut self, depth: u64, revision: i64) -> pb::TxnRequest {
        let compares = (0..self.below(3))
            .map(|_| {
                let key = self.key();
                let result = CompareResult::try_from(i32::try_from(self.below(4)).expect("small"))
                    .expect("known");
                let number = i64::try_from(self.below(40)).expect("small");
                match self.below(4) {
                    0 => compare(
                        CompareTarget::Version,
                        result,
                        &key,
                        TargetUnion::Version(number / 8),
                    ),
                    1 => compare(
                        CompareTarget::Create,
                        result,
                        &key,
                        TargetUnion::CreateRevision(number),
                    ),
                    2 => compare(
                        CompareTarget::Mod,
                        result,
                        &key,
                        TargetUnion::ModRevision(revision - number / 4),
                    ),
                    _ => compare(
                        CompareTarget::Value,
                        result,
                        &key,
                        TargetUnion::Value(number.to_string().into()),
                    ),
                }
            })
            .collect();
        txn(
            compares,
            self.ops(depth, revision),
            self.ops(depth, revision),
        )
    }

    fn request(&mut self, revision: i64) -> Request {
        match self.below(20) {
            0..=6 => {
                let (key, value) = (self.key(), self.below(100).to_string());
                Request::Put(pb::PutRequest {
                    prev_kv: self.below(2) == 0,
                    ..put(&key, &value)
                })
            }
            7..=12 => Request::Range(self.range(revision)),
            13..=14 => {
                let key = self.key();
                Request::Delete(delete(&key, self.end()))
            }
            15..=18 => Request::Txn(self.txn(2, revision)),
            _ => {
                let back = i64::try_from(self.below(60)).expect("small");
                Request::Compact(pb::CompactionRequest {
                    revision: revision - back,
                    physical: self.below(2) == 0,
                })
            }
        }
    }
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

async fn connect(server: &Server) -> KvClient<Channel> {
    KvClient::connect(server.endpoint())
        .await
        .expect("connects")
        .max_encoding_message_size(usize::MAX)
}

#[test]
fn random_histories_are_answered_as_by_etcd() {
    let (mut member, mut etcd) = (Server::single(MEMBER, &[]), Server::single(ETCD, &[]));
    for server in [&mut member, &mut etcd] {
        server.start();
        server.wait_ready();
    }
    runtime().block_on(async {
        let (mut ours, mut theirs) = (connect(&member).await, connect(&etcd).await);
        let seed = std::env::var("SEED")
            .ok()
            .and_then(|seed| seed.parse().ok())
            .unwrap_or(0x5eed);
        let mut random = Random(seed);
        for step in 0..1500 {
            let revision = theirs
                .range(pb::RangeRequest {
                    key: "x".into(),
                    serializable: true,
                    ..Default::default()
                })
                .await
                .expect("answers")
                .into_inner()
                .header
                .expect("a header")
                .revision;
            let request = random.request(revision);
            let expected = ask(&mut theirs, request.clone()).await;
            let found = ask(&mut ours, request.clone()).await;
            assert_eq!(found, expected, "SEED={seed}, step {step}: {request:?}");
        }
    });
}
