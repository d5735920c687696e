//! Ctrl-C and its kind: the first asks, the second ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, ExitCode};

/// What a second signal does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Second {
    /// Ends the process at once: the kernel releases the lock, and the next run plans from facts.
    Exits,
    /// Is told to whoever looks after things that must not outlive the process.
    Urges,
}

/// Listens for SIGINT, SIGTERM and SIGHUP as long as it lives.
#[derive(Debug)]
pub struct Interrupt {
    token: CancellationToken,
    urgent: CancellationToken,
    by_terminal: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Interrupt {
    /// Starts to listen. Needs a runtime.
    pub fn listen(second: Second) -> Result<Self, Error> {
        let open = |kind| {
            signal(kind).map_err(|source| Error::because("cannot listen for signals", source))
        };
        let signals = [
            open(SignalKind::interrupt())?,
            open(SignalKind::terminate())?,
            open(SignalKind::hangup())?,
        ];
        let token = CancellationToken::new();
        let by_terminal = Arc::new(AtomicBool::new(false));
        let urgent = CancellationToken::new();
        let tokens = [token.clone(), urgent.clone()];
        let task = tokio::spawn(wait(signals, tokens, Arc::clone(&by_terminal), second));
        Ok(Self {
            token,
            urgent,
            by_terminal,
            task,
        })
    }

    /// Cancelled by the first signal.
    #[must_use]
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// Cancelled by the second signal, where that [`Second::Urges`].
    #[must_use]
    pub fn urgent(&self) -> &CancellationToken {
        &self.urgent
    }

    /// The error of the verb that was interrupted, if it was.
    pub fn check(&self) -> Result<(), Error> {
        if self.token.is_cancelled() {
            Err(self.error())
        } else {
            Ok(())
        }
    }

    /// Whether it was Ctrl-C rather than a request to terminate.
    #[must_use]
    pub fn is_ctrl_c(&self) -> bool {
        self.by_terminal.load(Ordering::Relaxed)
    }

    /// The error of an interrupted verb.
    #[must_use]
    pub fn error(&self) -> Error {
        if self.is_ctrl_c() {
            Error::Interrupted
        } else {
            Error::Terminated
        }
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn wait(
    signals: [Signal; 3],
    [token, urgent]: [CancellationToken; 2],
    by_terminal: Arc<AtomicBool>,
    second: Second,
) {
    let [mut interrupt, mut terminate, mut hangup] = signals;
    loop {
        let ctrl_c = tokio::select! {
            _ = interrupt.recv() => true,
            _ = terminate.recv() => false,
            _ = hangup.recv() => false,
        };
        if token.is_cancelled() {
            if second == Second::Exits {
                let code = if ctrl_c {
                    ExitCode::Interrupted
                } else {
                    ExitCode::Terminated
                };
                std::process::exit(code.code().into());
            }
            urgent.cancel();
            continue;
        }
        by_terminal.store(ctrl_c, Ordering::Relaxed);
        token.cancel();
    }
}
