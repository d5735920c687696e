//! The Auth service.

use std::sync::Arc;

use member_proto::etcdserverpb::auth_server::Auth;

use crate::engine::Engine;
use crate::node::Node;

/// The Auth service.
#[expect(dead_code, reason = "not served yet")]
pub(crate) struct AuthService<E: Engine>(pub(crate) Arc<Node<E>>);

#[tonic::async_trait]
impl<E: Engine> Auth for AuthService<E> {}
