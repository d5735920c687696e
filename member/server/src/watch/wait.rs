//! Watching from inside the member: one key or range, no wire.

use std::sync::Arc;

use bytes::Bytes;
use member_state::{Event, EventKind};

use super::hub::WatchHub;
use super::index::Span;
use super::outbox::Delivery;
use super::stream::{Ended, Interest, WatchStream};
use crate::engine::Engine;

/// Why there is nothing more to wait for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WaitError {
    #[error("etcdserver: mvcc: required revision has been compacted")]
    Compacted,
    #[error(transparent)]
    Ended(#[from] Ended),
}

/// The events of a span from a revision on.
pub(crate) struct Subscription<E: Engine>(WatchStream<E>);

impl<E: Engine> Subscription<E> {
    /// The next events, in order; never empty. Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Result<Vec<Arc<Event>>, WaitError> {
        loop {
            match self.0.next().await? {
                Delivery::Events { events, .. } => return Ok(events),
                Delivery::Compacted { .. } => return Err(WaitError::Compacted),
                _ => {}
            }
        }
    }
}

impl<E: Engine> WatchHub<E> {
    /// Watches `span` from a revision on; 0 is the next one. Events since the call are not missed.
    pub(crate) fn subscribe(self: &Arc<Self>, span: Span, start_revision: i64) -> Subscription<E> {
        let mut stream = self.stream();
        // A new stream has no watcher whose id could be taken.
        let created = stream.create(0, Interest::all(span, start_revision));
        debug_assert!(created.is_ok(), "{created:?}");
        Subscription(stream)
    }

    /// Waits until a key is deleted at `start_revision` or later; the revision of the delete. Read the key first, and
    /// wait from the revision after the one that the read has shown.
    pub(crate) async fn wait_deleted(
        self: &Arc<Self>,
        key: Bytes,
        start_revision: i64,
    ) -> Result<i64, WaitError> {
        let mut events = self.subscribe(Span::Key(key), start_revision);
        loop {
            let events = events.next().await?;
            if let Some(delete) = events.iter().find(|event| event.kind == EventKind::Delete) {
                return Ok(delete.revision());
            }
        }
    }
}
