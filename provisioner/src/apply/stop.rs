//! Stopping processes: asked first, killed after a deadline.

use std::time::Duration;

use futures_util::future::join_all;
use rustix::process::Signal;

use crate::error::Error;
use crate::host::local::Process;

// The kernel takes a killed process away at once unless it hangs in a system call.
const AFTER_KILL: Duration = Duration::from_secs(5);

/// How a process was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// It ended by itself after SIGTERM.
    Gracefully,
    /// It had to be killed.
    Killed,
}

/// Stops all at once. Each gets SIGTERM, and SIGKILL when it is still there after `limit`.
pub async fn stop_all(
    processes: &[(String, Process)],
    limit: Duration,
) -> Result<Vec<(String, Stopped)>, Error> {
    let stops = processes.iter().map(|(name, process)| async move {
        stop(process, limit)
            .await
            .map(|how| (name.clone(), how))
            .map_err(|error| error.at(name, "stop"))
    });
    join_all(stops).await.into_iter().collect()
}

async fn stop(process: &Process, limit: Duration) -> Result<Stopped, Error> {
    let signal = |signal| {
        process
            .signal(signal)
            .map_err(|source| Error::because(format!("cannot signal pid {}", process.pid), source))
    };
    let wait = async |limit| {
        process.wait_gone(limit).await.map_err(|source| {
            Error::because(format!("cannot wait for pid {}", process.pid), source)
        })
    };
    if !signal(Signal::TERM)? || wait(limit).await? {
        return Ok(Stopped::Gracefully);
    }
    signal(Signal::KILL)?;
    if wait(AFTER_KILL).await? {
        return Ok(Stopped::Killed);
    }
    let fix = format!(
        "see `ps -o stat,wchan {}`: a process in state D hangs in the kernel, often on a disk",
        process.pid
    );
    Err(Error::timed_out(
        format!("the end of pid {}", process.pid),
        limit + AFTER_KILL,
        fix,
    ))
}
