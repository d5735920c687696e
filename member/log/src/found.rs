//! Founding a cluster over a state that is not empty.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use openraft::{Membership, StoredMembership};

use crate::config::{LogId, NodeId, Peer, TypeConfig};
use crate::{Identity, Log, LogError};

/// The members of a founded cluster, as the state that goes with the log records them.
pub type FoundedMembership =
    StoredMembership<openraft::type_config::alias::CommittedLeaderIdOf<TypeConfig>, NodeId, Peer>;

impl Log {
    /// Makes the log one whose first entry, the members, is in the state already and gone from the log: a member
    /// without this state gets the state, it cannot get there by the log. Durable on return. A member that starts over
    /// it stands for election as after a restart.
    ///
    /// The position and the members that the state must hold are the answer.
    ///
    /// # Errors
    ///
    /// [`LogError::Stopped`] when the log has entries already or cannot be written.
    pub fn found(
        &self,
        identity: Identity,
        members: BTreeMap<NodeId, Peer>,
    ) -> Result<FoundedMembership, LogError> {
        let refused = |source| LogError::Stopped { source };
        if self.has_history() {
            return Err(refused(io::Error::other("the log has entries already")));
        }
        let voters: BTreeSet<NodeId> = members.keys().copied().collect();
        let membership = Membership::new(vec![voters], members)
            .map_err(|error| refused(io::Error::other(error)))?;
        // Where openraft's founding puts it: no term has begun.
        let first = LogId::new_term_index(0, 0);
        self.begin_after(first).map_err(refused)?;
        // Queued behind the purge for the same thread, so that its fsync covers both.
        self.set_identity(identity)?;
        Ok(StoredMembership::new(Some(first), membership))
    }
}
