//! How long commands take to apply, by their kind.
//!
//! Looking at the clock for each put would cost a share of what it takes to apply it. So commands of one kind that
//! follow each other in a batch are timed as a run, and share its time evenly.

use std::time::{Duration, Instant};

use member_state::{AuthRequest, Op};

use super::histogram::Histogram;

/// etcd's names of the commands.
const KINDS: [&str; 28] = [
    "Put",
    "DeleteRange",
    "Txn",
    "Compaction",
    "ClusterMemberAttrSet",
    "ClusterVersionSet",
    "LeaseGrant",
    "LeaseRevoke",
    "LeaseCheckpoint",
    "Alarm",
    "DowngradeInfoSet",
    "Authenticate",
    "AuthEnable",
    "AuthDisable",
    "AuthUserAdd",
    "AuthUserDelete",
    "AuthUserChangePassword",
    "AuthUserGrantRole",
    "AuthUserRevokeRole",
    "AuthRoleAdd",
    "AuthRoleDelete",
    "AuthRoleGrantPermission",
    "AuthRoleRevokePermission",
    "PUT",
    "POST",
    "DELETE",
    "SYNC",
    "unknown",
];

/// Which of them are of the v2 keys.
const V2: std::ops::RangeInclusive<usize> = 23..=26;

fn kind_of(op: Option<&Op>) -> usize {
    let Some(op) = op else {
        return KINDS.len() - 1;
    };
    match op {
        Op::Put(_) => 0,
        Op::DeleteRange(_) => 1,
        Op::Txn(_) => 2,
        Op::Compact(_) => 3,
        Op::Publish(_) => 4,
        Op::ClusterVersion(_) => 5,
        Op::LeaseGrant(_) => 6,
        Op::LeaseRevoke(_) => 7,
        Op::LeaseCheckpoint(_) => 8,
        Op::Alarm(_) => 9,
        Op::Downgrade(_) => 10,
        Op::Auth(auth) => kind_of_auth(auth.request.as_ref()),
        Op::V2(command) => kind_of_v2(command),
    }
}

fn kind_of_v2(command: &member_v2::Command) -> usize {
    use member_v2::{Op, WriteOp};
    let Some(Op::Write(write)) = &command.op else {
        return 26;
    };
    match &write.op {
        Some(WriteOp::Create(create)) if create.in_order => 24,
        Some(WriteOp::Delete(_) | WriteOp::CompareAndDelete(_)) => 25,
        _ => 23,
    }
}

fn kind_of_auth(request: Option<&AuthRequest>) -> usize {
    let Some(request) = request else {
        return KINDS.len() - 1;
    };
    match request {
        AuthRequest::Authenticate(_) => 11,
        AuthRequest::Enable(_) => 12,
        AuthRequest::Disable(_) => 13,
        AuthRequest::UserAdd(_) => 14,
        AuthRequest::UserDelete(_) => 15,
        AuthRequest::UserChangePassword(_) => 16,
        AuthRequest::UserGrantRole(_) => 17,
        AuthRequest::UserRevokeRole(_) => 18,
        AuthRequest::RoleAdd(_) => 19,
        AuthRequest::RoleDelete(_) => 20,
        AuthRequest::RoleGrantPermission(_) => 21,
        AuthRequest::RoleRevokePermission(_) => 22,
    }
}

/// The times of all kinds, those that succeeded and those that were refused.
#[derive(Debug)]
pub(crate) struct Applies([[Histogram; 2]; KINDS.len()]);

impl Default for Applies {
    fn default() -> Self {
        // etcd: from 0.1 ms to 52 s.
        let histogram = || Histogram::new(Duration::from_micros(100), 20);
        Self(std::array::from_fn(|_| [histogram(), histogram()]))
    }
}

impl Applies {
    pub(super) fn any(&self) -> bool {
        self.0.iter().flatten().any(|times| !times.is_empty())
    }

    pub(super) fn render(&self, out: &mut String, name: &str) {
        for (number, (kind, [refused, done])) in KINDS.iter().zip(&self.0).enumerate() {
            let version = if V2.contains(&number) { "v2" } else { "v3" };
            for (histogram, success) in [(refused, false), (done, true)] {
                if !histogram.is_empty() {
                    let labels =
                        format!("op=\"{kind}\",success=\"{success}\",version=\"{version}\",");
                    histogram.render(out, name, &labels);
                }
            }
        }
    }
}

/// Commands of one kind that follow each other.
pub(crate) struct ApplyTimer<'a> {
    applies: &'a Applies,
    began: Instant,
    kind: usize,
    /// Refused, done.
    counts: [u64; 2],
}

impl<'a> ApplyTimer<'a> {
    /// A batch begins.
    pub(crate) fn new(applies: &'a Applies, began: Instant) -> Self {
        Self {
            applies,
            began,
            kind: KINDS.len() - 1,
            counts: [0; 2],
        }
    }

    /// A command is about to be applied.
    pub(crate) fn next(&mut self, op: Option<&Op>) {
        let kind = kind_of(op);
        if kind != self.kind {
            if self.counts != [0; 2] {
                let now = Instant::now();
                self.end(now);
                self.began = now;
            }
            self.kind = kind;
        }
    }

    /// It was applied, or refused.
    pub(crate) fn applied(&mut self, done: bool) {
        self.counts[usize::from(done)] += 1;
    }

    /// The last command was applied.
    pub(crate) fn end(&mut self, now: Instant) {
        let counts = std::mem::take(&mut self.counts);
        let all = u32::try_from(counts.iter().sum::<u64>()).unwrap_or(u32::MAX);
        if all == 0 {
            return;
        }
        let each = now.saturating_duration_since(self.began) / all;
        for (histogram, count) in self.applies.0[self.kind].iter().zip(counts) {
            if count > 0 {
                histogram.observe_each(each, count);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use member_state::{Compact, Put};

    use super::*;

    #[test]
    fn runs_of_one_kind_share_their_time() {
        let applies = Applies::default();
        let start = Instant::now();
        let mut run = ApplyTimer::new(&applies, start);
        let put = Op::Put(Put::default());
        for done in [true, true, false, true] {
            run.next(Some(&put));
            run.applied(done);
        }
        run.end(start + Duration::from_millis(4));
        let compact = Op::Compact(Compact::default());
        run.next(Some(&compact));
        run.applied(true);
        run.end(start + Duration::from_millis(5));
        let mut out = String::new();
        applies.render(&mut out, "x");
        for line in [
            "x_sum{op=\"Put\",success=\"true\",version=\"v3\"} 0.003\n",
            "x_count{op=\"Put\",success=\"true\",version=\"v3\"} 3\n",
            "x_count{op=\"Put\",success=\"false\",version=\"v3\"} 1\n",
            "x_count{op=\"Compaction\",success=\"true\",version=\"v3\"} 1\n",
        ] {
            assert!(out.contains(line), "{line}{out}");
        }
        assert!(!out.contains("Txn"), "{out}");
    }
}
