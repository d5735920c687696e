//! The links to all other members, made when first needed.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_util::task::TaskTracker;
use tonic::transport::{Channel, Endpoint, Uri};

use super::link::{Introduction, Link};
use crate::consensus::Node;
use crate::metrics::Peers;
use crate::proposals::Proposals;
use crate::removal::Removals;
use crate::tls::{PeerConnector, Transport};

/// The links to all other members.
pub(crate) struct Links {
    introduction: Introduction,
    connector: PeerConnector,
    election_timeout: Duration,
    proposals: Arc<Proposals>,
    removals: Arc<Removals>,
    peers: Arc<Peers>,
    tasks: TaskTracker,
    links: Mutex<HashMap<u64, (Vec<String>, Link)>>,
}

impl Links {
    pub(crate) fn new(
        introduction: Introduction,
        connector: PeerConnector,
        election_timeout: Duration,
        proposals: Arc<Proposals>,
        removals: Arc<Removals>,
        peers: Arc<Peers>,
        tasks: TaskTracker,
    ) -> Self {
        Self {
            introduction,
            connector,
            election_timeout,
            proposals,
            removals,
            peers,
            tasks,
            links: Mutex::default(),
        }
    }

    /// The link to `member`; a new one when its URLs changed.
    pub(crate) fn to(&self, member: u64, peer_urls: &[String]) -> Link {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((urls, link)) = links.get(&member)
            && urls == peer_urls
        {
            return link.clone();
        }
        let link = self.detached(member, peer_urls);
        links.insert(member, (peer_urls.to_vec(), link.clone()));
        link
    }

    /// The link to `member`, if there is one.
    pub(crate) fn known(&self, member: u64) -> Option<Link> {
        let links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.get(&member).map(|(_, link)| link.clone())
    }

    /// A link of its own, which nobody else uses.
    pub(crate) fn detached(&self, member: u64, peer_urls: &[String]) -> Link {
        Link::new(
            self.channel(peer_urls),
            self.channel(peer_urls),
            self.peers.of(member),
            self.introduction.clone(),
            Arc::clone(&self.proposals),
            Arc::clone(&self.removals),
            &self.tasks,
        )
    }

    /// Makes the links those of the members: new ones are dialled when first needed, changed URLs make a new link, and
    /// the links to former members end.
    pub(crate) fn follow(&self, members: &[Node], own: u64) {
        for member in members.iter().filter(|member| member.id != own) {
            self.to(member.id, &member.peer_urls);
        }
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.retain(|id, _| members.iter().any(|member| member.id == *id));
    }

    /// Runs a task that ends with the links' own.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// How many of the other members answer on their peer ports now.
    pub(crate) async fn reachable(&self, members: &BTreeMap<u64, Vec<String>>, own: u64) -> usize {
        let others = members.iter().filter(|(id, _)| **id != own);
        let tries =
            others.map(|(_, urls)| connect_first(&self.connector, urls, self.election_timeout));
        let answers = futures_util::future::join_all(tries).await;
        answers.iter().filter(|answer| answer.is_ok()).count()
    }

    /// Drops every link, which ends their tasks.
    pub(crate) fn close(&self) {
        self.links
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    /// A channel that connects to the first of the URLs that accepts, and again when it broke.
    fn channel(&self, peer_urls: &[String]) -> Channel {
        let connector = self.connector.clone();
        let urls = peer_urls.to_vec();
        let patience = self.election_timeout;
        let connect = tower::service_fn(move |_: Uri| {
            let connector = connector.clone();
            let urls = urls.clone();
            async move {
                connect_first(&connector, &urls, patience)
                    .await
                    .map(TokioIo::new)
            }
        });
        // The authority is only what HTTP/2 carries as :authority; the connector knows the addresses.
        Endpoint::from_static("http://peer")
            .connect_timeout(self.election_timeout)
            // A black-holed peer is noticed within two election timeouts even when nothing is sent.
            .http2_keep_alive_interval(self.election_timeout)
            .keep_alive_timeout(self.election_timeout)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(8 << 20)
            .connect_with_connector_lazy(connect)
    }
}

/// The first connection that one of the URLs gives; each gets its share of the time, so that a black-holed one does
/// not hide the next.
async fn connect_first(
    connector: &PeerConnector,
    urls: &[String],
    patience: Duration,
) -> std::io::Result<Transport<TcpStream>> {
    let each = patience / u32::try_from(urls.len().max(1)).unwrap_or(u32::MAX);
    let mut last = std::io::Error::new(
        std::io::ErrorKind::AddrNotAvailable,
        "the member has no peer URL",
    );
    for url in urls {
        match tokio::time::timeout(each, connector.connect(url)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(_) => last = std::io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}
