//! The Lock service.

use std::sync::Arc;

use member_proto::v3lockpb::lock_server::Lock;

use crate::engine::Engine;
use crate::node::Node;

/// The Lock service.
#[expect(dead_code, reason = "not served yet")]
pub(crate) struct LockService<E: Engine>(pub(crate) Arc<Node<E>>);

#[tonic::async_trait]
impl<E: Engine> Lock for LockService<E> {}
