//! Plans as people read them.

use std::fmt;

use super::step::{Plan, Planned, Step};
use crate::output::{Document, Table};

// A five-member cluster with TLS has 17 certificates; why each is missing on first boot is not news.
const MOST_DETAILS: usize = 6;

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Remember {
                ports,
                new_token,
                members,
            } => {
                let token = if *new_token { " and a new token" } else { "" };
                write!(f, "remember ports {}{token}", ranges(ports))?;
                if !members.is_empty() {
                    write!(f, ", and what becomes of {}", members.join(", "))?;
                }
                Ok(())
            }
            Self::WriteCertificates { changes } => {
                write!(
                    f,
                    "write {} certificate{}",
                    changes.len(),
                    if changes.len() == 1 { "" } else { "s" }
                )
            }
            Self::Install { members } => {
                let names: Vec<&str> = members.iter().map(|to| to.member.as_str()).collect();
                write!(f, "install files for {}", names.join(", "))
            }
            Self::StartServices { services, .. } => write!(f, "start {}", services.join(", ")),
            Self::StopServices { services } => write!(f, "stop {}", services.join(", ")),
            Self::PrepareDiscovery { size, .. } => {
                write!(f, "tell the discovery service to wait for {size}")
            }
            Self::Start { members, .. } => write!(f, "start {}", members.join(", ")),
            Self::WaitReady { members } => write!(
                f,
                "wait until {} answer{} a linearizable read",
                members.join(", "),
                if members.len() == 1 { "s" } else { "" }
            ),
            Self::MoveLeader { from, to } => write!(f, "move leadership from {from} to {to}"),
            Self::Announce { member } => {
                write!(f, "have the others reach {member} over TLS")
            }
            Self::Restart { member, .. } => write!(f, "restart {member}"),
            Self::Stop { members } => write!(f, "stop {}", members.join(", ")),
            Self::Alone { member } => write!(f, "make a cluster of {member} alone, with its data"),
            Self::AddLearner { member } => write!(f, "add {member} as a learner"),
            Self::Join { member } => write!(f, "start {member} and wait until it is in sync"),
            Self::Promote { member } => write!(f, "promote {member} to a voter"),
            Self::Remove { member } => write!(f, "remove {member} from the cluster"),
            Self::Retire {
                member,
                out_of_reach: None,
            } => write!(f, "stop {member} and set its data aside"),
            Self::Retire { member, .. } => {
                write!(
                    f,
                    "leave {member} behind on its machine, which is out of reach"
                )
            }
        }
    }
}

impl Step {
    fn details(&self) -> Vec<String> {
        match self {
            Self::WriteCertificates { changes } => {
                let mut lines: Vec<String> = changes
                    .iter()
                    .take(MOST_DETAILS)
                    .map(|change| format!("{}: {}", change.certificate, change.reason))
                    .collect();
                if changes.len() > MOST_DETAILS {
                    lines.push(format!("and {} more", changes.len() - MOST_DETAILS));
                }
                lines
            }
            Self::Install { members } => {
                let mut lines: Vec<String> = members
                    .iter()
                    .flat_map(|to| to.files.iter().map(move |file| (to, file)))
                    .map(|(to, file)| format!("{}: {}", to.member, file.display()))
                    .collect();
                if let Some(more) = lines
                    .len()
                    .checked_sub(MOST_DETAILS)
                    .filter(|more| *more > 0)
                {
                    lines.truncate(MOST_DETAILS);
                    lines.push(format!("and {more} more"));
                }
                lines
            }
            Self::Retire { out_of_reach, .. } => out_of_reach.iter().cloned().collect(),
            Self::Restart { why, .. } | Self::StartServices { why, .. } => why.clone(),
            _ => Vec::new(),
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return writeln!(
                f,
                "no change: cluster {} is as its topology says",
                self.cluster
            );
        }
        let count = self.steps.len();
        writeln!(
            f,
            "cluster {}: {count} step{}",
            self.cluster,
            if count == 1 { "" } else { "s" }
        )?;
        let width = self
            .steps
            .iter()
            .map(|planned| planned.step.to_string().len())
            .max()
            .unwrap_or_default();
        for (
            index,
            Planned {
                step,
                ledger,
                loses_quorum,
            },
        ) in self.steps.iter().enumerate()
        {
            let number = index + 1;
            match ledger {
                Some(ledger) => {
                    let mark = if *loses_quorum { "  LOSES QUORUM" } else { "" };
                    writeln!(
                        f,
                        "{number:>3}. {:<width$}   {ledger}{mark}",
                        step.to_string()
                    )?;
                }
                None => writeln!(f, "{number:>3}. {step}")?,
            }
            for line in step.details() {
                writeln!(f, "       {line}")?;
            }
        }
        Ok(())
    }
}

impl Document for Plan {
    fn table(&self) -> Table {
        Table::text(self.to_string())
    }
}

// 23790-23795, 9999
fn ranges(ports: &[u16]) -> String {
    let mut parts: Vec<(u16, u16)> = Vec::new();
    for &port in ports {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == port => *last = port,
            _ => parts.push((port, port)),
        }
    }
    let text = |(first, last): &(u16, u16)| {
        if first == last {
            first.to_string()
        } else {
            format!("{first}-{last}")
        }
    };
    parts.iter().map(text).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_ports_are_one_range() {
        assert_eq!(ranges(&[1, 2, 3, 9, 11, 12]), "1-3, 9, 11-12");
    }
}
