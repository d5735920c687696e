//! Members whose client port takes callers with and without TLS.
//!
//! etcd serves plain gRPC on such a port only if one goroutine gets its server before another overwrites the variable that holds it
//! (embed/serve.go up to 3.5.1 at least). It is started again until it does.

use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::ready::ready;
use super::run::{Apply, Run};
use crate::error::Error;
use crate::observe::Access;
use crate::render::Server;
use crate::topology::ClientTls;

// Two of three starts fail on a machine that is busy with other things.
const MOST_STARTS: usize = 40;
// It answers over TLS already.
const PLAIN_LIMIT: Duration = Duration::from_secs(1);

impl Apply<'_> {
    /// Whether what a member serves on its port is a matter of luck.
    pub(super) fn shares_its_port(&self, name: &str) -> bool {
        let server = self.prepared.programs.of(name);
        self.cluster.topology.tls.client == ClientTls::Both
            && server.is_some_and(|(_, server)| matches!(server, Server::Etcd { .. }))
    }

    /// Waits until a member is ready for callers with and without TLS, and starts it again where it is not.
    pub(super) async fn until_both_are_served(
        &self,
        name: &str,
        plain: &Access,
        run: &mut Run,
    ) -> Result<(), Error> {
        let unstoppable = CancellationToken::new();
        let signed = Access::signed(&self.prepared.proposal.instance, &self.cluster.hosts)?;
        let line = self.output.line(name);
        for _ in 0..MOST_STARTS {
            self.wait_ready(name, run.started.get_mut(name), &signed, &unstoppable)
                .await?;
            let (member, port) = self.place_now(name, run)?;
            let mut trouble = String::new();
            let answered = timeout(PLAIN_LIMIT, ready(plain, &member, port, &mut trouble)).await;
            if answered.is_ok() {
                return Ok(());
            }
            line.set("does not take plain text beside TLS: is started again");
            self.start_again(name, run).await?;
        }
        line.fail("does not take plain text beside TLS");
        let error = Error::failed(
            format!("etcd served no plain text beside TLS in {MOST_STARTS} starts"),
            "run the same command again, or give the members client = \"mutual\" at once with the cluster stopped",
        );
        Err(error.at(name, "serve clients with and without TLS"))
    }
}
