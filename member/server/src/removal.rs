//! Members that were removed: who they are, and whether this one is among them.
//!
//! The ids are part of the replicated state and are never used again. A member learns of its own removal when it applies
//! it, when another member tells it, or when one refuses to talk to it; it then has to stop for good.

use std::collections::BTreeSet;
use std::io;
use std::sync::{PoisonError, RwLock};

use member_state::{Backend, Store};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

/// etcd's sentence, for which operators and tools search logs.
pub(crate) const REMOVED: &str = "the member has been permanently removed from the cluster";

/// Key of the ids in the store's own table.
pub(crate) const KEY: &str = "removed";

/// The removed members, shared by those who refuse them.
#[derive(Debug)]
pub(crate) struct Removals {
    own: u64,
    ids: RwLock<BTreeSet<u64>>,
    told: CancellationToken,
}

impl Removals {
    pub(crate) fn new(own: u64) -> Self {
        Self {
            own,
            ids: RwLock::default(),
            told: CancellationToken::new(),
        }
    }

    /// The ids that the state holds.
    pub(crate) fn stored<B: Backend>(store: &Store<B>) -> io::Result<BTreeSet<u64>> {
        match store.get_meta(KEY).map_err(io::Error::other)? {
            Some(json) => Ok(serde_json::from_slice(&json)?),
            None => Ok(BTreeSet::new()),
        }
    }

    /// Takes over the ids of the state.
    pub(crate) fn set(&self, ids: BTreeSet<u64>) {
        if ids.contains(&self.own) {
            self.told.cancel();
        }
        *self.ids.write().unwrap_or_else(PoisonError::into_inner) = ids;
    }

    pub(crate) fn contains(&self, id: u64) -> bool {
        self.ids
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(&id)
    }

    pub(crate) fn ids(&self) -> BTreeSet<u64> {
        self.ids
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Another member says that this one was removed.
    pub(crate) fn tell(&self) {
        self.told.cancel();
    }

    /// As [`Removals::tell`], when the refusal says so.
    pub(crate) fn tell_by(&self, status: &Status) {
        if status.code() == Code::PermissionDenied && status.message() == REMOVED {
            self.tell();
        }
    }

    /// Whether this member is known to be removed.
    pub(crate) fn is_own(&self) -> bool {
        self.told.is_cancelled()
    }

    /// Returns when this member is known to be removed.
    pub(crate) async fn own(&self) {
        self.told.cancelled().await;
    }
}

/// The refusal of a removed member.
pub(crate) fn refusal() -> Status {
    Status::permission_denied(REMOVED)
}
