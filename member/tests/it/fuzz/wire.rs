//! Valid requests to begin from, and the frames of gRPC and HTTP/2 by hand.

use member_proto::authpb;
use member_proto::etcdserverpb as pb;
use member_proto::{v3electionpb, v3lockpb};
use pb::request_op::Request as Op;
use prost::Message;

/// Path and message of a request of every method, but those that enable authentication or change the members: they
/// would end the member's service by what they ask for.
pub(super) fn requests() -> Vec<(&'static str, Vec<u8>)> {
    let put = pb::PutRequest {
        key: "key".into(),
        value: "value".into(),
        lease: 0,
        prev_kv: true,
        ..Default::default()
    };
    let range = pb::RangeRequest {
        key: "a".into(),
        range_end: "z".into(),
        limit: 10,
        revision: 1,
        sort_order: 2,
        sort_target: 3,
        ..Default::default()
    };
    let delete = pb::DeleteRangeRequest {
        key: "k".into(),
        range_end: "kz".into(),
        prev_kv: true,
    };
    let op = |request| pb::RequestOp {
        request: Some(request),
    };
    let inner = pb::TxnRequest {
        success: vec![op(Op::RequestPut(put.clone()))],
        ..Default::default()
    };
    let compare = pb::Compare {
        result: 0,
        target: 3,
        key: "key".into(),
        range_end: "l".into(),
        target_union: Some(pb::compare::TargetUnion::Value("value".into())),
    };
    let txn = pb::TxnRequest {
        compare: vec![compare],
        success: vec![
            op(Op::RequestRange(range.clone())),
            op(Op::RequestDeleteRange(delete.clone())),
            op(Op::RequestTxn(inner)),
        ],
        failure: vec![op(Op::RequestPut(put.clone()))],
    };
    let create = pb::WatchCreateRequest {
        key: "k".into(),
        range_end: "l".into(),
        start_revision: 1,
        progress_notify: true,
        filters: vec![0],
        prev_kv: true,
        watch_id: 5,
        fragment: true,
    };
    let watch = |request| {
        pb::WatchRequest {
            request_union: Some(request),
        }
        .encode_to_vec()
    };
    let permission = authpb::Permission {
        perm_type: 2,
        key: "a".into(),
        range_end: "b".into(),
    };
    let leader = v3electionpb::LeaderKey {
        name: "e".into(),
        key: "e/1".into(),
        rev: 3,
        lease: 1,
    };
    use pb::watch_request::RequestUnion::{CancelRequest, CreateRequest, ProgressRequest};
    vec![
        ("/etcdserverpb.KV/Put", put.encode_to_vec()),
        ("/etcdserverpb.KV/Range", range.encode_to_vec()),
        ("/etcdserverpb.KV/DeleteRange", delete.encode_to_vec()),
        ("/etcdserverpb.KV/Txn", txn.encode_to_vec()),
        (
            "/etcdserverpb.KV/Compact",
            pb::CompactionRequest {
                revision: 2,
                physical: true,
            }
            .encode_to_vec(),
        ),
        ("/etcdserverpb.Watch/Watch", watch(CreateRequest(create))),
        (
            "/etcdserverpb.Watch/Watch",
            watch(CancelRequest(pb::WatchCancelRequest { watch_id: 5 })),
        ),
        (
            "/etcdserverpb.Watch/Watch",
            watch(ProgressRequest(pb::WatchProgressRequest {})),
        ),
        (
            "/etcdserverpb.Lease/LeaseGrant",
            pb::LeaseGrantRequest { ttl: 60, id: 7 }.encode_to_vec(),
        ),
        (
            "/etcdserverpb.Lease/LeaseRevoke",
            pb::LeaseRevokeRequest { id: 7 }.encode_to_vec(),
        ),
        (
            "/etcdserverpb.Lease/LeaseKeepAlive",
            pb::LeaseKeepAliveRequest { id: 7 }.encode_to_vec(),
        ),
        (
            "/etcdserverpb.Lease/LeaseTimeToLive",
            pb::LeaseTimeToLiveRequest { id: 7, keys: true }.encode_to_vec(),
        ),
        ("/etcdserverpb.Lease/LeaseLeases", Vec::new()),
        ("/etcdserverpb.Cluster/MemberList", vec![0x08, 0x01]),
        (
            "/etcdserverpb.Maintenance/Alarm",
            pb::AlarmRequest {
                action: 2,
                member_id: 0,
                alarm: 1,
            }
            .encode_to_vec(),
        ),
        ("/etcdserverpb.Maintenance/Status", Vec::new()),
        ("/etcdserverpb.Maintenance/Hash", Vec::new()),
        ("/etcdserverpb.Maintenance/HashKV", vec![0x08, 0x02]),
        ("/etcdserverpb.Maintenance/Snapshot", Vec::new()),
        ("/etcdserverpb.Maintenance/MoveLeader", vec![0x08, 0x07]),
        (
            "/etcdserverpb.Maintenance/Downgrade",
            pb::DowngradeRequest {
                action: 0,
                version: "3.5.0".to_owned(),
            }
            .encode_to_vec(),
        ),
        (
            "/etcdserverpb.Auth/Authenticate",
            pb::AuthenticateRequest {
                name: "alice".to_owned(),
                password: "pw".to_owned(),
            }
            .encode_to_vec(),
        ),
        (
            "/etcdserverpb.Auth/UserGrantRole",
            pb::AuthUserGrantRoleRequest {
                user: "alice".to_owned(),
                role: "r".to_owned(),
            }
            .encode_to_vec(),
        ),
        (
            "/etcdserverpb.Auth/RoleAdd",
            pb::AuthRoleAddRequest {
                name: "r".to_owned(),
            }
            .encode_to_vec(),
        ),
        (
            "/etcdserverpb.Auth/RoleGrantPermission",
            pb::AuthRoleGrantPermissionRequest {
                name: "r".to_owned(),
                perm: Some(permission),
            }
            .encode_to_vec(),
        ),
        (
            "/v3lockpb.Lock/Lock",
            v3lockpb::LockRequest {
                name: "l".into(),
                lease: 0,
            }
            .encode_to_vec(),
        ),
        (
            "/v3electionpb.Election/Campaign",
            v3electionpb::CampaignRequest {
                name: "e".into(),
                lease: 7,
                value: "v".into(),
            }
            .encode_to_vec(),
        ),
        (
            "/v3electionpb.Election/Proclaim",
            v3electionpb::ProclaimRequest {
                leader: Some(leader),
                value: "v".into(),
            }
            .encode_to_vec(),
        ),
        (
            "/v3electionpb.Election/Observe",
            v3electionpb::LeaderRequest { name: "e".into() }.encode_to_vec(),
        ),
        ("/grpc.health.v1.Health/Check", Vec::new()),
        ("/etcdserverpb.KV/None", Vec::new()),
    ]
}

/// Appends a field of bytes. Tags above 15 take two bytes and are not needed.
pub(super) fn string_field(out: &mut Vec<u8>, tag: u8, value: &[u8]) {
    out.push(tag << 3 | 2);
    prost::encoding::encode_varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

/// A message as it stands in the body of a call.
pub(super) fn framed(message: &[u8]) -> Vec<u8> {
    let mut out = vec![0];
    out.extend(u32::try_from(message.len()).expect("small").to_be_bytes());
    out.extend_from_slice(message);
    out
}

/// A call as a client's first bytes on a connection: preface, settings, one request.
pub(super) fn http2_call(path: &str, metadata: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut headers = Vec::new();
    let fixed = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    for (name, value) in fixed.iter().chain(metadata) {
        // Literal, not indexed, with a new name.
        headers.push(0);
        for text in [name, value] {
            headers.push(u8::try_from(text.len()).expect("short"));
            headers.extend_from_slice(text.as_bytes());
        }
    }
    let mut out = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let mut frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
        out.extend_from_slice(&u32::try_from(payload.len()).expect("small").to_be_bytes()[1..]);
        out.extend([kind, flags]);
        out.extend(stream.to_be_bytes());
        out.extend_from_slice(payload);
    };
    frame(4, 0, 0, &[]);
    frame(1, 0x4, 1, &headers);
    frame(0, 0x1, 1, body);
    out
}
