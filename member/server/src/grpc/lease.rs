//! The Lease service.

use std::sync::Arc;

use member_proto::etcdserverpb::lease_server::Lease;

use crate::engine::Engine;
use crate::node::Node;

/// The Lease service.
#[expect(dead_code, reason = "not served yet")]
pub(crate) struct LeaseService<E: Engine>(pub(crate) Arc<Node<E>>);

#[tonic::async_trait]
impl<E: Engine> Lease for LeaseService<E> {}
