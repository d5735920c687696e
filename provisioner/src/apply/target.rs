//! A running process, here or on a host.

use std::time::Duration;

use crate::deployment;
use crate::error::Error;
use crate::host::local::{AFTER_KILL, AwaitEnd, Kept, Launched, Process, StopMember, Tail};
use crate::host::remote::{Agent, Hosts};
use crate::instance::Instance;
use crate::observe::Observed;
use crate::topology::Topology;

// An agent that hangs is asked again; one that is gone says so at once.
const RENEWED: Duration = Duration::from_secs(3600);
const TAIL_LIMIT: Duration = Duration::from_secs(10);

/// Something that runs and can be waited for and stopped.
#[derive(Clone, Debug)]
pub enum Target {
    /// A process of this machine.
    Here(Process),
    /// One of another machine.
    There(Agent, Kept, Process),
}

/// Whether a stopped member may come back by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// It is about to be started again.
    Restart,
    /// Not even at boot.
    Started,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// It was asked and did.
    Gracefully,
    /// It was killed after the deadline.
    Killed,
}

impl Target {
    /// A member's process, if one was observed.
    pub async fn of(
        name: &str,
        topology: &Topology,
        instance: &Instance,
        observed: &Observed,
        hosts: &Hosts,
    ) -> Result<Option<Self>, Error> {
        let running = observed
            .members
            .get(name)
            .and_then(|facts| facts.process.as_ref());
        let Some(process) = running.map(|running| running.process.clone()) else {
            return Ok(None);
        };
        let former = instance.former.get(name).or(instance.leaving.get(name));
        let mut members = topology.members.iter();
        let (host, place) = match former {
            Some(former) => (former.host.as_ref(), Some(&former.placement)),
            None => {
                let member = members.find(|member| member.name == name);
                let host = member.and_then(|member| member.host.as_ref());
                (host, instance.members.get(name))
            }
        };
        let (Some(host), Some(place)) = (host, place) else {
            return Ok(Some(Self::Here(process)));
        };
        let kept = deployment::kept(host, &instance.cluster, name, place);
        Ok(Some(Self::There(hosts.agent(host).await?, kept, process)))
    }

    /// Its identity.
    #[must_use]
    pub fn process(&self) -> &Process {
        match self {
            Self::Here(process) | Self::There(_, _, process) => process,
        }
    }

    /// Waits until it is gone, and says how it ended where that is known.
    ///
    /// # Errors
    /// The connection to its machine is lost, and with it whatever may yet come of it.
    pub(super) async fn gone(&self) -> Result<Option<String>, Error> {
        match self {
            Self::Here(process) => {
                process.gone().await;
                Ok(None)
            }
            Self::There(agent, kept, process) => {
                let ask = AwaitEnd {
                    kept: kept.clone(),
                    process: process.clone(),
                };
                loop {
                    match agent.ask(&ask, RENEWED).await {
                        Ok(how) => return Ok(Some(how)),
                        Err(Error::TimedOut { .. }) => {}
                        Err(error @ Error::Ssh(_)) => return Err(error),
                        // Whether it runs is unknown then, and whoever waits for it has a deadline.
                        Err(_) => std::future::pending().await,
                    }
                }
            }
        }
    }

    /// Asks it to end, and kills it after the limit.
    pub(super) async fn stop(&self, until: Until, limit: Duration) -> Result<Stopped, Error> {
        let killed = match self {
            Self::Here(process) => process.stop(limit).await?,
            Self::There(agent, kept, process) => {
                let stop = StopMember {
                    kept: kept.clone(),
                    process: process.clone(),
                    for_good: until == Until::Started,
                    limit,
                };
                agent.ask(&stop, limit + AFTER_KILL * 2).await?
            }
        };
        Ok(if killed {
            Stopped::Killed
        } else {
            Stopped::Gracefully
        })
    }
}

/// A process that this run started.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) target: Target,
    launched: Option<Launched>,
}

impl From<Launched> for Started {
    fn from(launched: Launched) -> Self {
        Self {
            target: Target::Here(launched.process.clone()),
            launched: Some(launched),
        }
    }
}

impl From<Target> for Started {
    fn from(target: Target) -> Self {
        Self {
            target,
            launched: None,
        }
    }
}

impl Started {
    /// How it ended, where that is known.
    pub(super) fn exit(&mut self) -> Option<String> {
        self.launched.as_mut()?.exit().map(|exit| exit.to_string())
    }

    /// The last lines that it wrote; none where they cannot be read.
    pub(super) async fn last_lines(&self, count: usize) -> Vec<String> {
        match (&self.launched, &self.target) {
            (Some(launched), _) => launched.log.last_lines(count),
            (None, Target::There(agent, kept, _)) => {
                let tail = Tail {
                    kept: kept.clone(),
                    lines: count,
                    after: None,
                };
                let answer = agent.ask(&tail, TAIL_LIMIT).await;
                answer.map(|lines| lines.lines).unwrap_or_default()
            }
            (None, Target::Here(_)) => Vec::new(),
        }
    }
}
