//! The API as JSON over HTTP: what grpc-gateway is to etcd.
//!
//! It knows paths, JSON and HTTP, and nothing of the services: a request is turned into the gRPC request that its
//! description (`member_proto::DESCRIPTORS`) asks for, answered by the same services in process, and turned back. So
//! refusals, checks and texts are those of gRPC. Answers, errors and their texts are those of etcd 3.4's gateway, down
//! to the words of Go's JSON reader.
//!
//! It deliberately does not speak WebSocket. What a request brought in its connection (a client certificate) is not
//! handed on: as in etcd, a user of the gateway is who his token says.

mod answer;
mod call;
pub(crate) mod json;
mod message;
mod routes;
mod stream;

pub(crate) use call::{Call, respond};
