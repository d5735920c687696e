//! The machines of a cluster.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OnceCell;

use super::agent::Agent;
use super::error::SshError;
use crate::topology::SshHost;

/// Connections to machines, each made when it is first needed and kept for the run.
#[derive(Clone, Debug, Default)]
pub struct Hosts(Arc<Mutex<BTreeMap<SshHost, Arc<OnceCell<Agent>>>>>);

impl Hosts {
    /// The agent on `host`. Whoever asks at the same time waits for the same connection.
    pub async fn agent(&self, host: &SshHost) -> Result<Agent, SshError> {
        let cell = {
            let mut hosts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let cell = hosts.entry(host.clone()).or_default();
            if cell.get().is_some_and(Agent::is_closed) {
                *cell = Arc::default();
            }
            cell.clone()
        };
        cell.get_or_try_init(|| Agent::connect(host)).await.cloned()
    }
}
