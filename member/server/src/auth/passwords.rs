//! Passwords: bcrypt, off the reactor and no more at once than there are cores.

use bytes::Bytes;
use tokio::sync::Semaphore;

/// The most that bcrypt looks at.
const LONGEST: usize = 72;

/// Why a password cannot be hashed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PasswordError {
    /// Go's words.
    #[error("bcrypt: password length exceeds 72 bytes")]
    TooLong,
    /// The system has no randomness, or the member is stopping.
    #[error("etcdserver: the password cannot be hashed")]
    Failed,
}

/// Hashes and checks passwords.
pub(crate) struct Passwords {
    cost: u32,
    /// Each hash takes a core for tens of milliseconds: a flood of logins must not take them all for longer.
    running: Semaphore,
}

impl Passwords {
    pub(crate) fn new(cost: u32) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            cost,
            running: Semaphore::new(cores),
        }
    }

    pub(crate) async fn hash(&self, password: String) -> Result<Bytes, PasswordError> {
        if password.len() > LONGEST {
            return Err(PasswordError::TooLong);
        }
        let cost = self.cost;
        match self.run(move || bcrypt::hash(password, cost)).await {
            Some(Ok(hash)) => Ok(hash.into()),
            _ => Err(PasswordError::Failed),
        }
    }

    /// Whether the password is that of the hash.
    pub(crate) async fn check(&self, password: String, hash: &Bytes) -> bool {
        let Ok(hash) = String::from_utf8(hash.to_vec()) else {
            return false;
        };
        let checked = self.run(move || bcrypt::verify(password, &hash)).await;
        matches!(checked, Some(Ok(true)))
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let _turn = self.running.acquire().await.ok()?;
        tokio::task::spawn_blocking(work).await.ok()
    }
}
