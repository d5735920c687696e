//! The runtime of a verb: one thread, because a verb waits far more than it computes.

use tokio::runtime::{Builder, Runtime};

use crate::error::Error;

/// Makes the runtime.
pub fn runtime() -> Result<Runtime, Error> {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::because("cannot start the runtime", source))
}
