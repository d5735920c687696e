//! The wire: messages and services of etcd's v3 API and of the members' own peer protocol.
//!
//! Generated from `proto/*.proto`. Bytes fields are [`bytes::Bytes`], so a decoded request shares the
//! buffer it arrived in. Features `client` and `server` add the tonic stubs.

/// The encoded file descriptor set of all services, for those who work by reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// `mvccpb`: a key with its revisions, and what happened to it.
pub mod mvccpb {
    tonic::include_proto!("mvccpb");
}

/// `authpb`: users, roles and permissions.
pub mod authpb {
    tonic::include_proto!("authpb");
}

/// `etcdserverpb`: the services that clients call.
pub mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
}

/// `v3lockpb`: the lock service.
pub mod v3lockpb {
    tonic::include_proto!("v3lockpb");
}

/// `v3electionpb`: the election service.
pub mod v3electionpb {
    tonic::include_proto!("v3electionpb");
}

/// `grpc.health.v1`: gRPC's health service.
pub mod healthpb {
    tonic::include_proto!("grpc.health.v1");
}

/// `peerpb`: what members say to each other.
pub mod peerpb {
    tonic::include_proto!("peerpb");
}
