//! The schedule of compaction: etcd's reading of `--auto-compaction-mode` and `--auto-compaction-retention`.

use std::time::Duration;

use crate::go::{parse_duration, quote};
use crate::{FlagError, Flags};

/// What scheduled compaction keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AutoCompaction {
    /// The history of this time.
    Periodic(Duration),
    /// This many revisions.
    Revision(i64),
}

impl Flags {
    /// The schedule, `None` when compaction is left to clients.
    ///
    /// A bare number is hours or revisions; anything else is a Go duration, which the mode `revision`
    /// takes as a number of nanoseconds, as etcd does.
    ///
    /// # Errors
    ///
    /// The mode is unknown, or the retention is neither a number nor a duration.
    pub fn auto_compaction(&self) -> Result<Option<AutoCompaction>, FlagError> {
        let mode = self.auto_compaction_mode.as_str();
        let retention = self.auto_compaction_retention.as_str();
        if !matches!(mode, "" | "periodic" | "revision") {
            return Err(FlagError::CompactionMode {
                mode: mode.to_owned(),
            });
        }
        if retention.is_empty() {
            return Ok(None);
        }
        let digits = retention.strip_prefix('+').unwrap_or(retention);
        let bare = digits.bytes().all(|byte| byte.is_ascii_digit());
        let number = digits.parse::<u32>().ok().filter(|_| bare);
        let malformed = || FlagError::CompactionRetention {
            reason: format!("time: invalid duration {}", quote(retention)),
        };
        let schedule = match (number, mode) {
            (Some(_), "") => return Err(FlagError::CompactionModeUndefined),
            (Some(number), "revision") => AutoCompaction::Revision(i64::from(number)),
            (Some(hours), _) => {
                AutoCompaction::Periodic(Duration::from_secs(u64::from(hours) * 3600))
            }
            (None, mode) => {
                let time = parse_duration(retention).map_err(|_| malformed())?;
                if mode == "revision" {
                    AutoCompaction::Revision(i64::try_from(time.as_nanos()).unwrap_or(i64::MAX))
                } else {
                    AutoCompaction::Periodic(time)
                }
            }
        };
        Ok(match schedule {
            AutoCompaction::Periodic(Duration::ZERO) | AutoCompaction::Revision(0) => None,
            schedule => Some(schedule),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(mode: &str, retention: &str) -> Result<Option<AutoCompaction>, String> {
        let flags = Flags {
            auto_compaction_mode: mode.to_owned(),
            auto_compaction_retention: retention.to_owned(),
            ..Flags::default()
        };
        flags.auto_compaction().map_err(|error| error.to_string())
    }

    #[test]
    fn retention_is_read_as_etcd_reads_it() {
        let hours = |hours: u64| {
            Ok(Some(AutoCompaction::Periodic(Duration::from_secs(
                hours * 3600,
            ))))
        };
        assert_eq!(schedule("periodic", "0"), Ok(None));
        assert_eq!(schedule("periodic", ""), Ok(None));
        assert_eq!(schedule("periodic", "0s"), Ok(None));
        assert_eq!(schedule("periodic", "8"), hours(8));
        assert_eq!(schedule("periodic", "08"), hours(8));
        assert_eq!(schedule("periodic", "72h"), hours(72));
        assert_eq!(
            schedule("periodic", "5m"),
            Ok(Some(AutoCompaction::Periodic(Duration::from_secs(300))))
        );
        assert_eq!(
            schedule("revision", "1000"),
            Ok(Some(AutoCompaction::Revision(1000)))
        );
        assert_eq!(schedule("revision", "0"), Ok(None));
        assert_eq!(
            schedule("revision", "1us"),
            Ok(Some(AutoCompaction::Revision(1000)))
        );
        assert_eq!(
            schedule("periodic", "abc"),
            Err("error parsing CompactionRetention: time: invalid duration \"abc\"".to_owned())
        );
        assert_eq!(
            schedule("hourly", "1"),
            Err("unknown auto-compaction-mode \"hourly\"".to_owned())
        );
        assert_eq!(
            schedule("", "1"),
            Err("--auto-compaction-mode is undefined".to_owned())
        );
    }
}
