//! The health service of gRPC.

use std::sync::Arc;

use member_proto::healthpb::health_server::Health;

use crate::engine::Engine;
use crate::node::Node;

/// The health service of gRPC.
#[expect(dead_code, reason = "not served yet")]
pub(crate) struct HealthService<E: Engine>(pub(crate) Arc<Node<E>>);

#[tonic::async_trait]
impl<E: Engine> Health for HealthService<E> {}
