//! Which path is which call. etcd declares the paths in its services' HTTP annotations.

use std::collections::HashMap;
use std::sync::LazyLock;

use prost_reflect::{DescriptorPool, MethodDescriptor};

/// Path below `/v3/`, service, method.
const PATHS: &[(&str, &str, &str)] = &[
    ("kv/range", "etcdserverpb.KV", "Range"),
    ("kv/put", "etcdserverpb.KV", "Put"),
    ("kv/deleterange", "etcdserverpb.KV", "DeleteRange"),
    ("kv/txn", "etcdserverpb.KV", "Txn"),
    ("kv/compaction", "etcdserverpb.KV", "Compact"),
    ("watch", "etcdserverpb.Watch", "Watch"),
    ("lease/grant", "etcdserverpb.Lease", "LeaseGrant"),
    ("lease/revoke", "etcdserverpb.Lease", "LeaseRevoke"),
    ("kv/lease/revoke", "etcdserverpb.Lease", "LeaseRevoke"),
    ("lease/keepalive", "etcdserverpb.Lease", "LeaseKeepAlive"),
    ("lease/timetolive", "etcdserverpb.Lease", "LeaseTimeToLive"),
    (
        "kv/lease/timetolive",
        "etcdserverpb.Lease",
        "LeaseTimeToLive",
    ),
    ("lease/leases", "etcdserverpb.Lease", "LeaseLeases"),
    ("kv/lease/leases", "etcdserverpb.Lease", "LeaseLeases"),
    ("cluster/member/add", "etcdserverpb.Cluster", "MemberAdd"),
    (
        "cluster/member/remove",
        "etcdserverpb.Cluster",
        "MemberRemove",
    ),
    (
        "cluster/member/update",
        "etcdserverpb.Cluster",
        "MemberUpdate",
    ),
    ("cluster/member/list", "etcdserverpb.Cluster", "MemberList"),
    (
        "cluster/member/promote",
        "etcdserverpb.Cluster",
        "MemberPromote",
    ),
    ("maintenance/alarm", "etcdserverpb.Maintenance", "Alarm"),
    ("maintenance/status", "etcdserverpb.Maintenance", "Status"),
    (
        "maintenance/defragment",
        "etcdserverpb.Maintenance",
        "Defragment",
    ),
    ("maintenance/hash", "etcdserverpb.Maintenance", "Hash"),
    ("maintenance/hashkv", "etcdserverpb.Maintenance", "HashKV"),
    (
        "maintenance/snapshot",
        "etcdserverpb.Maintenance",
        "Snapshot",
    ),
    (
        "maintenance/transfer-leadership",
        "etcdserverpb.Maintenance",
        "MoveLeader",
    ),
    (
        "maintenance/downgrade",
        "etcdserverpb.Maintenance",
        "Downgrade",
    ),
    ("auth/enable", "etcdserverpb.Auth", "AuthEnable"),
    ("auth/disable", "etcdserverpb.Auth", "AuthDisable"),
    ("auth/status", "etcdserverpb.Auth", "AuthStatus"),
    ("auth/authenticate", "etcdserverpb.Auth", "Authenticate"),
    ("auth/user/add", "etcdserverpb.Auth", "UserAdd"),
    ("auth/user/get", "etcdserverpb.Auth", "UserGet"),
    ("auth/user/list", "etcdserverpb.Auth", "UserList"),
    ("auth/user/delete", "etcdserverpb.Auth", "UserDelete"),
    (
        "auth/user/changepw",
        "etcdserverpb.Auth",
        "UserChangePassword",
    ),
    ("auth/user/grant", "etcdserverpb.Auth", "UserGrantRole"),
    ("auth/user/revoke", "etcdserverpb.Auth", "UserRevokeRole"),
    ("auth/role/add", "etcdserverpb.Auth", "RoleAdd"),
    ("auth/role/get", "etcdserverpb.Auth", "RoleGet"),
    ("auth/role/list", "etcdserverpb.Auth", "RoleList"),
    ("auth/role/delete", "etcdserverpb.Auth", "RoleDelete"),
    (
        "auth/role/grant",
        "etcdserverpb.Auth",
        "RoleGrantPermission",
    ),
    (
        "auth/role/revoke",
        "etcdserverpb.Auth",
        "RoleRevokePermission",
    ),
    ("lock/lock", "v3lockpb.Lock", "Lock"),
    ("lock/unlock", "v3lockpb.Lock", "Unlock"),
    ("election/campaign", "v3electionpb.Election", "Campaign"),
    ("election/proclaim", "v3electionpb.Election", "Proclaim"),
    ("election/leader", "v3electionpb.Election", "Leader"),
    ("election/observe", "v3electionpb.Election", "Observe"),
    ("election/resign", "v3electionpb.Election", "Resign"),
];

// Built at the first request: a member whose clients speak gRPC does not pay for the descriptions.
static ROUTES: LazyLock<HashMap<&'static str, MethodDescriptor>> = LazyLock::new(|| {
    let pool = DescriptorPool::decode(member_proto::DESCRIPTORS)
        .expect("the build wrote the descriptions from what it compiled");
    PATHS
        .iter()
        .filter_map(|(path, service, method)| {
            let service = pool.get_service_by_name(service)?;
            let found = service.methods().find(|m| m.name() == *method)?;
            Some((*path, found))
        })
        .collect()
});

/// The call of a path.
pub(super) fn find(path: &str) -> Option<MethodDescriptor> {
    // /v3beta was the prefix of etcd 3.3; 3.4 and 3.5 answer it still.
    let path = path
        .strip_prefix("/v3/")
        .or_else(|| path.strip_prefix("/v3beta/"))?;
    ROUTES.get(path).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_names_a_call_and_every_call_has_a_path() {
        for (path, _, method) in PATHS {
            let found = find(&format!("/v3/{path}")).expect("a call");
            assert_eq!(found.name(), *method);
        }
        let pool = DescriptorPool::decode(member_proto::DESCRIPTORS).expect("descriptions");
        for service in pool.services() {
            if matches!(service.name(), "Health" | "Peer") {
                continue;
            }
            for method in service.methods() {
                assert!(
                    ROUTES
                        .values()
                        .any(|known| *known == method || known.full_name() == method.full_name()),
                    "{} has no path",
                    method.full_name()
                );
            }
        }
    }

    #[test]
    fn other_prefixes_have_no_calls() {
        assert!(find("/v3beta/kv/range").is_some());
        assert!(find("/v3alpha/kv/range").is_none());
        assert!(find("/v3/kv/range/").is_none());
    }
}
