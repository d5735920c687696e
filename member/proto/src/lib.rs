//! The wire: messages and services of etcd's v3 API and of the members' own peer protocol.
//!
//! Generated from `proto/*.proto`. Bytes fields are [`bytes::Bytes`], so a decoded request shares the
//! buffer it arrived in. Features `client` and `server` add the tonic stubs.

/// `mvccpb`: a key with its revisions, and what happened to it.
pub mod mvccpb {
    tonic::include_proto!("mvccpb");
}

/// `etcdserverpb`: the services that clients call.
pub mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
}

/// `peerpb`: what members say to each other.
pub mod peerpb {
    tonic::include_proto!("peerpb");
}
