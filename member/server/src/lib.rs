//! The server of a member: consensus, peers, etcd's services, both ports.
//!
//! It composes what other crates own: the log ([`member_log`]), the replicated semantics ([`member_state`]) and a
//! storage engine that it knows only as [`Engine`]. openraft is named in one module here (`consensus`); the wire's
//! types stop in one file per direction (`grpc/convert.rs`, `consensus/wire.rs`).
//!
//! A write's way: `grpc` checks and converts it, `write` proposes it (here or through a link to the leader),
//! consensus commits it, `state_machine` applies it and answers through `proposals`. A linearizable read passes
//! `barrier` and then reads the local store; neither touches the log or the disk.

mod access;
mod auth;
mod authority;
mod auto_compaction;
mod barrier;
mod connected;
mod consensus;
mod corruption;
mod discover;
mod downgrade;
mod engine;
mod export;
mod gateway;
mod grpc;
mod http;
mod join;
mod leases;
mod lessor;
mod listen;
mod member;
mod membership;
mod metrics;
mod node;
mod peer;
mod proposals;
mod proxy;
mod quota;
mod removal;
mod replica;
mod resolve;
mod role;
mod router;
mod rpc;
mod tls;
mod v2;
mod watch;
mod write;

pub use auth::{CallersError, TokenKeyError};
pub use consensus::Founding;
pub use engine::Engine;
pub use listen::{ListenError, bind_host};
pub use member::{Layout, MemberError};
pub use node::SERVER_VERSION;
pub use resolve::address;
pub use role::Server;
pub use tls::TlsError;
