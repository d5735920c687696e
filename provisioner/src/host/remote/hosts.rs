//! The machines of a cluster.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OnceCell;

use super::agent::Agent;
use super::error::SshError;
use crate::topology::SshHost;

/// Connections to machines, each made when it is first needed and kept for the run.
#[derive(Clone, Debug, Default)]
pub struct Hosts {
    agents: Arc<Mutex<BTreeMap<SshHost, Arc<OnceCell<Agent>>>>>,
    holds: Arc<AtomicBool>,
}

impl Hosts {
    /// The agent on `host`. Whoever asks at the same time waits for the same connection.
    pub async fn agent(&self, host: &SshHost) -> Result<Agent, SshError> {
        let cell = {
            let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
            let cell = agents.entry(host.clone()).or_default();
            let lost = cell.get().is_some_and(|agent| agent.lost().is_some());
            if lost && !self.holds.load(Ordering::Relaxed) {
                *cell = Arc::default();
            }
            cell.clone()
        };
        cell.get_or_try_init(|| Agent::connect(host)).await.cloned()
    }

    /// Why a machine that was connected is so no more, if that is so.
    #[must_use]
    pub fn lost(&self, host: &SshHost) -> Option<SshError> {
        let agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        agents.get(host)?.get()?.lost()
    }

    /// From now on a connection that is lost stays lost: its agent holds something that another one would not.
    pub fn hold(&self) {
        self.holds.store(true, Ordering::Relaxed);
    }
}
