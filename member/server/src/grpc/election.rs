//! The Election service.

use std::sync::Arc;

use member_proto::v3electionpb::election_server::Election;

use crate::engine::Engine;
use crate::node::Node;

/// The Election service.
#[expect(dead_code, reason = "not served yet")]
pub(crate) struct ElectionService<E: Engine>(pub(crate) Arc<Node<E>>);

#[tonic::async_trait]
impl<E: Engine> Election for ElectionService<E> {}
