//! The Watch service.

use std::sync::Arc;

use member_proto::etcdserverpb::watch_server::Watch;

use crate::engine::Engine;
use crate::node::Node;

/// The Watch service.
#[expect(dead_code, reason = "not served yet")]
pub(crate) struct WatchService<E: Engine>(pub(crate) Arc<Node<E>>);

#[tonic::async_trait]
impl<E: Engine> Watch for WatchService<E> {}
