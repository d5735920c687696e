//! Watches: the headers go out at once, the body when something happens.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::StreamBody;
use member_state::{Backend, V2Rows};
use member_v2::{Event, Found, Refusal, Watch};
use tokio::sync::watch;
use tonic::Status;
use tonic::body::Body;

use super::stats::Watching;
use super::{V2, json};
use crate::engine::Engine;

/// The keys of one moment.
pub(super) type Rows<'a, E> = V2Rows<<<E as Engine>::Backend as Backend>::Snapshot<'a>>;

/// A watch whose headers are sent.
struct Waiting<E: Engine> {
    v2: Arc<V2<E>>,
    watch: Watch,
    /// Rung by every change that is applied.
    changed: watch::Receiver<()>,
    /// What is to be sent next, if it is known.
    found: Option<Event>,
    /// The first index that was not looked at.
    next: u64,
    /// The index when the watch began.
    begun: u64,
    _counted: Watching,
}

impl<E: Engine> V2<E> {
    pub(super) async fn watch(self: Arc<Self>, watch: Watch) -> Result<Response<Body>, Refusal> {
        // From before the first look, so that no change falls between the two.
        let changed = self.node.replica.v2_changed.subscribe();
        let asked = watch.clone();
        let Found { event, index } = self
            .read(move |rows| member_v2::find(rows, &asked, asked.since, u64::MAX))
            .await??;
        let next = watch.since.max(index + 1);
        let waiting = Waiting {
            _counted: self.stats.watching(),
            watch,
            changed,
            found: event,
            next,
            begun: index,
            v2: Arc::clone(&self),
        };
        let frames = stream::unfold(Some(waiting), |waiting| async move {
            let mut waiting = waiting?;
            let event = waiting.event().await?;
            let frame = Frame::data(Bytes::from(event.json(true)));
            let more = waiting.watch.stream.then_some(waiting);
            Some((Ok::<_, Status>(frame), more))
        });
        let mut response = json(StatusCode::OK, Bytes::new());
        *response.body_mut() = Body::new(StreamBody::new(Box::pin(frames)));
        self.place(&mut response, index);
        Ok(response)
    }
}

impl<E: Engine> Waiting<E> {
    /// The next change; `None` when the member stops, or the watch has fallen behind what is kept.
    async fn event(&mut self) -> Option<Event> {
        // A stream whose changes never pause must see it too.
        if self.v2.stopping.is_cancelled() {
            return None;
        }
        let event = match self.found.take() {
            Some(event) => event,
            None => loop {
                match self.look() {
                    Ok(Found {
                        event: Some(event), ..
                    }) => break event,
                    Ok(Found { event: None, index }) => self.next = self.next.max(index + 1),
                    Err(reason) => {
                        tracing::debug!(path = self.watch.path, reason, "a v2 watch ended");
                        return None;
                    }
                }
                tokio::select! {
                    () = self.v2.stopping.cancelled() => return None,
                    changed = self.changed.changed() => changed.ok()?,
                }
            },
        };
        self.next = event.index + 1;
        Some(event)
    }

    /// Looks at what is new. Few rows mostly: every change wakes it.
    fn look(&mut self) -> Result<Found, String> {
        self.changed.mark_unchanged();
        let store = self.v2.node.store();
        let rows = store.v2().map_err(|error| error.text())?;
        member_v2::find(&rows, &self.watch, self.next, self.begun)
            .map_err(|error| error.text())?
            .map_err(|refusal| refusal.cause)
    }
}
