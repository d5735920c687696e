//! The one place where requests leave the wire's types and answers enter them.

use bytes::Bytes;
use member_proto::authpb;
use member_proto::etcdserverpb as pb;
use member_proto::mvccpb;
use member_state::{
    Compact, Compare, CompareValue, DeleteRange, Event, EventKind, KeyValue, Permission,
    PermissionType, Put, Range, RangeResponse, Response, Role, RoleGrantPermission,
    RoleRevokePermission, Txn, TxnOp, TxnRequest, TxnResponse,
};

pub(super) fn grant_permission(request: pb::AuthRoleGrantPermissionRequest) -> RoleGrantPermission {
    let pb::AuthRoleGrantPermissionRequest { name, perm } = request;
    RoleGrantPermission {
        role: name,
        permission: perm.map(|perm| Permission {
            kind: perm.perm_type,
            key: perm.key,
            range_end: perm.range_end,
        }),
    }
}

pub(super) fn revoke_permission(
    request: pb::AuthRoleRevokePermissionRequest,
) -> RoleRevokePermission {
    let pb::AuthRoleRevokePermissionRequest {
        role,
        key,
        range_end,
    } = request;
    RoleRevokePermission {
        role,
        key,
        range_end,
    }
}

/// What a role allows; `root` allows everything, whatever was granted to it.
pub(super) fn permissions(name: &str, role: &Role) -> Vec<authpb::Permission> {
    if name == "root" {
        return vec![authpb::Permission {
            perm_type: PermissionType::ReadWrite.into(),
            key: Bytes::new(),
            range_end: Bytes::from_static(&[0]),
        }];
    }
    role.permissions
        .iter()
        .map(|permission| authpb::Permission {
            perm_type: permission.kind,
            key: permission.key.clone(),
            range_end: permission.range_end.clone(),
        })
        .collect()
}

pub(super) fn range(request: pb::RangeRequest) -> Range {
    let pb::RangeRequest {
        key,
        range_end,
        limit,
        revision,
        sort_order,
        sort_target,
        serializable,
        keys_only,
        count_only,
        min_mod_revision,
        max_mod_revision,
        min_create_revision,
        max_create_revision,
    } = request;
    Range {
        key,
        range_end,
        limit,
        revision,
        sort_order,
        sort_target,
        serializable,
        keys_only,
        count_only,
        min_mod_revision,
        max_mod_revision,
        min_create_revision,
        max_create_revision,
    }
}

pub(super) fn put(request: pb::PutRequest) -> Put {
    let pb::PutRequest {
        key,
        value,
        lease,
        prev_kv,
        ignore_value,
        ignore_lease,
    } = request;
    Put {
        key,
        value,
        lease,
        prev_kv,
        ignore_value,
        ignore_lease,
    }
}

pub(super) fn delete_range(request: pb::DeleteRangeRequest) -> DeleteRange {
    let pb::DeleteRangeRequest {
        key,
        range_end,
        prev_kv,
    } = request;
    DeleteRange {
        key,
        range_end,
        prev_kv,
    }
}

pub(super) fn compact(request: pb::CompactionRequest) -> Compact {
    let pb::CompactionRequest { revision, physical } = request;
    Compact { revision, physical }
}

pub(super) fn txn(request: pb::TxnRequest) -> Txn {
    let pb::TxnRequest {
        compare,
        success,
        failure,
    } = request;
    Txn {
        compare: compare.into_iter().map(self::compare).collect(),
        success: success.into_iter().map(txn_op).collect(),
        failure: failure.into_iter().map(txn_op).collect(),
    }
}

fn compare(compare: pb::Compare) -> Compare {
    use pb::compare::TargetUnion;
    let pb::Compare {
        result,
        target,
        key,
        target_union,
        range_end,
    } = compare;
    let value = target_union.map(|target| match target {
        TargetUnion::Version(version) => CompareValue::Version(version),
        TargetUnion::CreateRevision(revision) => CompareValue::CreateRevision(revision),
        TargetUnion::ModRevision(revision) => CompareValue::ModRevision(revision),
        TargetUnion::Value(value) => CompareValue::Value(value),
        TargetUnion::Lease(lease) => CompareValue::Lease(lease),
    });
    Compare {
        result,
        target,
        key,
        value,
        range_end,
    }
}

fn txn_op(op: pb::RequestOp) -> TxnOp {
    use pb::request_op::Request;
    let request = op.request.map(|request| match request {
        Request::RequestRange(request) => TxnRequest::Range(range(request)),
        Request::RequestPut(request) => TxnRequest::Put(put(request)),
        Request::RequestDeleteRange(request) => TxnRequest::DeleteRange(delete_range(request)),
        Request::RequestTxn(request) => TxnRequest::Txn(txn(request)),
    });
    TxnOp { request }
}

pub(super) fn key_value(kv: KeyValue) -> mvccpb::KeyValue {
    let KeyValue {
        key,
        create_revision,
        mod_revision,
        version,
        value,
        lease,
    } = kv;
    mvccpb::KeyValue {
        key,
        create_revision,
        mod_revision,
        version,
        value,
        lease,
    }
}

pub(super) fn event(event: &Event, prev_kv: bool) -> mvccpb::Event {
    let kind = match event.kind {
        EventKind::Put => mvccpb::event::EventType::Put,
        EventKind::Delete => mvccpb::event::EventType::Delete,
    };
    let prev = event
        .prev
        .as_ref()
        .filter(|_| prev_kv && !event.is_create());
    mvccpb::Event {
        r#type: kind.into(),
        kv: Some(key_value(event.kv.clone())),
        prev_kv: prev.cloned().map(key_value),
    }
}

fn key_values(kvs: Vec<KeyValue>) -> Vec<mvccpb::KeyValue> {
    kvs.into_iter().map(key_value).collect()
}

pub(super) fn range_response(
    header: pb::ResponseHeader,
    response: RangeResponse,
) -> pb::RangeResponse {
    let RangeResponse {
        revision,
        kvs,
        more,
        count,
    } = response;
    pb::RangeResponse {
        header: Some(pb::ResponseHeader { revision, ..header }),
        kvs: key_values(kvs),
        more,
        count,
    }
}

pub(super) fn txn_response(header: pb::ResponseHeader, response: TxnResponse) -> pb::TxnResponse {
    let TxnResponse {
        revision,
        succeeded,
        responses,
    } = response;
    pb::TxnResponse {
        header: Some(pb::ResponseHeader { revision, ..header }),
        succeeded,
        responses: responses.into_iter().map(response_op).collect(),
    }
}

/// Inside a transaction etcd's headers carry the revision alone.
fn response_op(response: Response) -> pb::ResponseOp {
    use pb::response_op::Response as Wire;
    let header = pb::ResponseHeader::default();
    let at = |revision| Some(pb::ResponseHeader { revision, ..header });
    let response = match response {
        Response::Empty
        | Response::Compact { .. }
        | Response::Alarm(_)
        | Response::Auth { .. }
        | Response::LeaseGrant { .. }
        | Response::LeaseRevoke { .. }
        | Response::V2(_) => None,
        Response::Range(response) => Some(Wire::ResponseRange(range_response(header, response))),
        Response::Put { revision, prev } => Some(Wire::ResponsePut(pb::PutResponse {
            header: at(revision),
            prev_kv: prev.map(key_value),
        })),
        Response::DeleteRange {
            revision,
            deleted,
            prevs,
        } => Some(Wire::ResponseDeleteRange(pb::DeleteRangeResponse {
            header: at(revision),
            deleted,
            prev_kvs: key_values(prevs),
        })),
        Response::Txn(response) => Some(Wire::ResponseTxn(txn_response(header, response))),
    };
    pb::ResponseOp { response }
}
