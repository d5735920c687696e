//! Stopping processes: asked first, killed after a deadline.

use std::time::Duration;

use futures_util::future::join_all;

use super::target::{Stopped, Target, Until};
use crate::error::Error;

/// Stops all at the same time and says how each ended. All are stopped before the first error is returned.
///
/// # Errors
/// A process cannot be signalled, or does not go even when killed.
pub async fn stop_all(
    targets: &[(String, Target)],
    until: Until,
    limit: Duration,
) -> Result<Vec<(String, Stopped)>, Error> {
    let stops = targets.iter().map(|(name, target)| async move {
        target
            .stop(until, limit)
            .await
            .map(|how| (name.clone(), how))
            .map_err(|error| error.at(name, "stop"))
    });
    join_all(stops).await.into_iter().collect()
}
