//! The types with which openraft is instantiated.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use openraft::errors::ClientWriteError;
use openraft::impls::leader_id_std::LeaderId;
use openraft::raft::ClientWriteResult;
use openraft::raft::responder::Responder;
use openraft::type_config::alias::{CommittedLeaderIdOf, EntryOf, LogIdOf, VoteOf};
use openraft::{EntryPayload, OptionalSend, RaftTypeConfig, TokioRuntime, impls};
use serde::{Deserialize, Serialize};

/// openraft's type parameters: etcd member ids, opaque commands, one leader per term.
///
/// `R` is empty because the answer of a command is made by the member that received it, when that member applies the
/// entry; nothing of weight travels back through consensus.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TypeConfig;

// By hand, because openraft's macro takes no generic responder.
impl RaftTypeConfig for TypeConfig {
    type D = Payload;
    type R = ();
    type NodeId = NodeId;
    type Node = Peer;
    type Term = u64;
    type LeaderId = LeaderId<u64, u64>;
    type Vote = impls::Vote<Self::LeaderId>;
    type Payload = EntryPayload<Self::D, Self::NodeId, Self::Node>;
    type Entry = impls::Entry<CommittedLeaderIdOf<Self>, Self::Payload>;
    type Responder<T>
        = Ticket
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = impls::InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type AsyncRuntime = TokioRuntime;
    type ErrorSource = impls::BoxedErrorSource;
}

/// Goes with a proposal and tells its owner when the proposal was refused before it was appended: then, and only
/// then, proposing it again cannot apply it twice. Applied proposals are answered by the state machine.
pub struct Ticket {
    id: u64,
    refused: Arc<dyn Fn(u64) + Send + Sync>,
}

impl Ticket {
    /// A ticket that calls `refused` with `id`.
    pub fn new(id: u64, refused: Arc<dyn Fn(u64) + Send + Sync>) -> Self {
        Self { id, refused }
    }
}

impl<T: OptionalSend + 'static> Responder<TypeConfig, T> for Ticket {
    fn on_complete(self, result: T) {
        // The trait is generic over its result; openraft completes writes with this one only.
        let result = (&result as &dyn Any).downcast_ref::<ClientWriteResult<TypeConfig>>();
        if let Some(Err(ClientWriteError::ForwardToLeader(_))) = result {
            (self.refused)(self.id);
        }
    }
}

/// An etcd member id.
pub type NodeId = u64;

/// A log entry: [`LogId`] and blank, normal or membership payload.
pub type Entry = EntryOf<TypeConfig>;

/// Term and index of an entry.
pub type LogId = LogIdOf<TypeConfig>;

/// Term, candidate, and whether a quorum granted it.
pub type Vote = VoteOf<TypeConfig>;

/// An encoded command; cloning shares the buffer.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Payload(pub Bytes);

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.0.len())
    }
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

/// What the membership records about a node: where its peers reach it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Advertised peer URLs, in etcd's order (sorted).
    pub peer_urls: Vec<String>,
}
