//! Changing the members, as this member serves it: the checks that need its own view, then the leader's decision.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use member_flags::{Url, ids};

use crate::consensus::{Change, Node as Configured, Refusal};
use crate::engine::Engine;
use crate::node::Node;

/// The pause before a change that was refused for the moment is asked for again.
const PAUSE: Duration = Duration::from_millis(50);

/// Peer URLs as a member keeps them: checked, and in etcd's order.
fn checked(urls: &[String]) -> Result<Vec<String>, Refusal> {
    let mut urls = urls
        .iter()
        .map(|url| Url::parse(url).map(|url| url.to_string()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| Refusal::BadUrls)?;
    urls.sort();
    if urls.is_empty() {
        return Err(Refusal::BadUrls);
    }
    Ok(urls)
}

impl<E: Engine> Node<E> {
    /// Adds a member; its id.
    pub(crate) async fn add_member(&self, urls: &[String], learner: bool) -> Result<u64, Refusal> {
        let peer_urls = checked(urls)?;
        if self.strict_reconfig {
            self.check_add(learner)?;
        }
        let second = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let id = ids::member_id(&peer_urls, "", Some(second));
        self.change_members(Change::Add(Configured {
            id,
            peer_urls,
            learner,
        }))
        .await?;
        Ok(id)
    }

    /// Removes a member for good.
    pub(crate) async fn remove_member(&self, id: u64) -> Result<(), Refusal> {
        if self.strict_reconfig {
            self.check_remove(id)?;
        }
        self.change_members(Change::Remove(id)).await
    }

    /// Gives a member other peer URLs.
    pub(crate) async fn update_member(&self, id: u64, urls: &[String]) -> Result<(), Refusal> {
        // etcd does not look at the URLs of a member that is not there.
        if !self.consensus.nodes().iter().any(|node| node.id == id) {
            return Err(Refusal::MemberNotFound);
        }
        let peer_urls = checked(urls)?;
        self.change_members(Change::Update { id, peer_urls }).await
    }

    /// Makes a learner a voter.
    pub(crate) async fn promote_member(&self, id: u64) -> Result<(), Refusal> {
        self.change_members(Change::Promote(id)).await
    }

    /// The voters, and whether each has started.
    fn voters(&self) -> Result<Vec<(u64, bool)>, Refusal> {
        let attributes = self.store().attributes().map_err(|_| Refusal::Stopped)?;
        let started = |id: &u64| attributes.get(id).is_some_and(|a| !a.name.is_empty());
        Ok(self
            .consensus
            .nodes()
            .into_iter()
            .filter(|node| !node.learner)
            .map(|node| (node.id, started(&node.id)))
            .collect())
    }

    fn check_add(&self, learner: bool) -> Result<(), Refusal> {
        let voters = self.voters()?;
        if !learner {
            let started = voters.iter().filter(|(_, started)| *started).count();
            let members = voters.len() + 1;
            // A lone member may always get a second one: that is how a cluster grows again after a disaster.
            let second = started == 1 && members == 2;
            if !second && started < members / 2 + 1 {
                tracing::warn!("rejecting member add request; not enough healthy members");
                return Err(Refusal::NotEnoughStarted);
            }
        }
        let steady = |id: u64| id == self.id || self.connected.is_steady(id);
        if voters.iter().all(|(id, _)| steady(*id)) {
            return Ok(());
        }
        tracing::warn!(
            "rejecting member add request; local member has not been connected to all peers, reconfigure breaks active quorum"
        );
        Err(Refusal::Unhealthy)
    }

    fn check_remove(&self, id: u64) -> Result<(), Refusal> {
        let voters = self.voters()?;
        if self
            .consensus
            .nodes()
            .iter()
            .any(|node| node.id == id && node.learner)
        {
            return Ok(());
        }
        let rest = voters.iter().filter(|(voter, _)| *voter != id);
        let (members, started) = rest.fold((0, 0), |(members, all), (_, started)| {
            (members + 1, all + usize::from(*started))
        });
        if started < members / 2 + 1 {
            tracing::warn!("rejecting member remove request; not enough healthy members");
            return Err(Refusal::NotEnoughStarted);
        }
        // A member that is down is no part of the quorum that works.
        if id != self.id && !self.connected.is_active(id) {
            return Ok(());
        }
        let steady = |id: u64| id == self.id || self.connected.is_steady(id);
        let active = voters.iter().filter(|(voter, _)| steady(*voter)).count();
        if active.saturating_sub(1) < 1 + voters.len().saturating_sub(1) / 2 {
            tracing::warn!(
                "rejecting member remove request; local member has not been connected to all peers, reconfigure breaks active quorum"
            );
            return Err(Refusal::Unhealthy);
        }
        Ok(())
    }

    async fn change_members(&self, change: Change) -> Result<(), Refusal> {
        tokio::time::timeout(self.patience, self.until_changed(&change))
            .await
            .unwrap_or(Err(Refusal::TimedOut))
    }

    async fn until_changed(&self, change: &Change) -> Result<(), Refusal> {
        let mut leadership = self.consensus.leadership();
        let mut again = false;
        loop {
            let leader = leadership
                .wait_for(|now| now.leader.is_some())
                .await
                .map_err(|_| Refusal::Stopped)?
                .leader;
            let made = match leader {
                Some(leader) if leader != self.id => {
                    self.consensus.ask_change(leader, change, again).await
                }
                _ => self.consensus.change_members(change, again).await,
            };
            match made {
                Ok(None) => return Ok(()),
                Ok(Some(index)) => {
                    // A member that removed itself may never get the entry that says so.
                    tokio::select! {
                        () = self.replica.wait_applied(index) => {}
                        () = self.removals.own() => {}
                    }
                    return Ok(());
                }
                Err(Refusal::NotLeader | Refusal::Busy) => {}
                Err(Refusal::Unknown) => again = true,
                Err(refusal) => return Err(refusal),
            }
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = self.removals.own() => return Ok(()),
            }
        }
    }
}
