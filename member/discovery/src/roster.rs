//! Who has registered at a discovery service, and what follows from it: the rules that both kinds of service share.

use std::time::Duration;

use member_flags::InitialCluster;

use crate::patience::Patience;
use crate::{Me, Refusal, Registration};

/// Between two looks at a service that announces registrations and then shows none.
const BREATH: Duration = Duration::from_secs(1);

/// A discovery service, as far as the rules need it.
pub(crate) trait Registry {
    /// Who has registered until now.
    async fn roster(&mut self) -> Result<Roster, Refusal>;
    /// Registers a member.
    async fn register(&mut self, id: &str, line: &str) -> Result<(), Refusal>;
    /// Waits until something happens from an index on, but not for ever.
    async fn wait(&mut self, index: u64) -> Result<(), Refusal>;
    /// What it is granted in case of failures.
    fn patience(&mut self) -> &mut Patience;
}

/// Takes a place among the members, unless it is for a proxy, and waits until all places are taken.
pub(crate) async fn find(
    registry: &mut impl Registry,
    me: &Me,
    token: &str,
    registration: Registration,
) -> Result<InitialCluster, Refusal> {
    let id = me.id(token);
    let mut roster = registry.roster().await?;
    if registration != Registration::None {
        // A full cluster is left alone.
        roster.admit(&id)?;
        if registration == Registration::New {
            registry.register(&id, &me.line()).await?;
            tracing::info!("register member itself successfully");
        }
        registry.patience().registered();
        roster = registry.roster().await?;
        roster.admit(&id)?;
    }
    roster.log(&id);
    while !roster.is_complete() {
        registry.wait(roster.index + 1).await?;
        let next = registry.roster().await?;
        if next.len() == roster.len() {
            tokio::time::sleep(BREATH).await;
        } else {
            next.log(&id);
        }
        roster = next;
    }
    roster.cluster()
}

/// One registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Registered {
    /// The member's ID in hexadecimal digits.
    pub(crate) id: String,
    /// `NAME=URL`, one or more.
    pub(crate) line: String,
    /// Its place in the order of registration.
    pub(crate) created: u64,
}

/// The registrations at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Roster {
    pub(crate) size: usize,
    /// The key space's index or revision at that moment.
    pub(crate) index: u64,
    members: Vec<Registered>,
}

/// Reads the size of a cluster. A size of zero makes etcd panic.
pub(crate) fn parse_size(value: &str) -> Result<usize, Refusal> {
    let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    value
        .parse()
        .ok()
        .filter(|size| digits && *size > 0)
        .ok_or_else(|| Refusal::BadSize {
            value: value.to_owned(),
        })
}

impl Roster {
    pub(crate) fn new(size: usize, index: u64, mut members: Vec<Registered>) -> Self {
        members.sort_by_key(|member| member.created);
        Self {
            size,
            index,
            members,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    pub(crate) fn has(&self, id: &str) -> bool {
        self.first().iter().any(|member| member.id == id)
    }

    /// Refuses a member that came after the last place was taken.
    pub(crate) fn admit(&self, id: &str) -> Result<(), Refusal> {
        if self.has(id) || self.members.len() < self.size {
            Ok(())
        } else {
            Err(Refusal::Full)
        }
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.members.len() >= self.size
    }

    /// Those who have a place, in the order of registration.
    fn first(&self) -> &[Registered] {
        &self.members[..self.members.len().min(self.size)]
    }

    pub(crate) fn log(&self, id: &str) {
        for member in self.first() {
            if member.id == id {
                tracing::info!(self = id, "found self from discovery server");
            } else {
                tracing::info!(peer = member.id, "found peer from discovery server");
            }
        }
        let (found, size) = (self.first().len(), self.size);
        if found < size {
            tracing::info!(
                needed = size - found,
                "found peers from discovery server; waiting for more"
            );
        } else {
            tracing::info!(
                "found-peers" = found,
                "found all needed peers from discovery server"
            );
        }
    }

    /// The list of the members. A name that came twice has merged two of them into one.
    pub(crate) fn cluster(&self) -> Result<InitialCluster, Refusal> {
        let lines: Vec<&str> = self
            .first()
            .iter()
            .map(|member| member.line.as_str())
            .collect();
        let line = lines.join(",");
        let cluster = InitialCluster::new(&line);
        // Another tool may have registered what is no URL to etcd.
        let members = cluster
            .members()
            .map_err(|_| Refusal::InvalidUrl { line })?;
        if members.len() != self.size {
            return Err(Refusal::DuplicateName);
        }
        Ok(cluster)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roster(size: usize, members: &[(&str, &str)]) -> Roster {
        let mut members: Vec<Registered> = (1..)
            .zip(members)
            .map(|(created, (id, line))| Registered {
                id: (*id).to_owned(),
                line: (*line).to_owned(),
                created,
            })
            .collect();
        // Answers come in the order of keys, not of creation.
        members.reverse();
        Roster::new(size, 9, members)
    }

    #[test]
    fn the_first_to_register_have_the_places() {
        let full = roster(
            2,
            &[
                ("c", "x=http://h:1"),
                ("a", "y=http://h:2"),
                ("b", "z=http://h:3"),
            ],
        );
        assert_eq!(full.admit("c"), Ok(()));
        assert_eq!(full.admit("b"), Err(Refusal::Full), "came third");
        assert_eq!(full.admit("d"), Err(Refusal::Full));
        assert_eq!(
            full.cluster().unwrap().as_str(),
            "x=http://h:1,y=http://h:2"
        );
        let waiting = roster(3, &[("c", "x=http://h:1")]);
        assert_eq!(waiting.admit("d"), Ok(()));
        assert!(!waiting.is_complete());
    }

    #[test]
    fn a_name_that_comes_twice_and_a_line_that_is_none_are_refused() {
        let twice = roster(2, &[("a", "x=http://h:1"), ("b", "x=http://h:2")]);
        assert_eq!(twice.cluster(), Err(Refusal::DuplicateName));
        let bad = roster(1, &[("a", "x=ftp://h:1")]);
        assert!(matches!(bad.cluster(), Err(Refusal::InvalidUrl { .. })));
        let two_urls = roster(1, &[("a", "x=http://h:1,x=http://h:2")]);
        assert!(two_urls.cluster().is_ok());
    }

    #[test]
    fn a_size_is_a_number_above_zero() {
        assert_eq!(parse_size("3"), Ok(3));
        for bad in [
            "",
            "0",
            "-1",
            "+1",
            "1.5",
            "abc",
            " 3",
            "99999999999999999999999",
        ] {
            assert!(
                matches!(parse_size(bad), Err(Refusal::BadSize { .. })),
                "{bad:?}"
            );
        }
    }
}
