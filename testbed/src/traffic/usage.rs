//! What a process has used so far: CPU time and resident memory, read from `/proc`.

use std::fs;
use std::time::Duration;

use anyhow::Context as _;

/// CPU time and memory of one process at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// User and system time of all its threads since its start; the kernel counts in ticks of 10 ms.
    pub cpu: Duration,
    /// Resident memory in bytes.
    pub rss_bytes: u64,
    /// The highest resident memory so far, in bytes.
    pub peak_rss_bytes: u64,
}

impl Usage {
    /// Reads the figures of process `pid`; fails when it is gone.
    pub fn of(pid: u32) -> anyhow::Result<Self> {
        let read = |file: &str| {
            let path = format!("/proc/{pid}/{file}");
            fs::read_to_string(&path)
                .with_context(|| format!("read {path}; is process {pid} still running"))
        };
        let cpu = cpu_ticks(&read("stat")?).with_context(|| format!("parse /proc/{pid}/stat"))?;
        let status = read("status")?;
        let memory = |field| {
            kib(&status, field).with_context(|| format!("find {field} in /proc/{pid}/status"))
        };
        Ok(Self {
            cpu: Duration::from_secs(cpu)
                / u32::try_from(rustix::param::clock_ticks_per_second()).unwrap_or(100),
            rss_bytes: memory("VmRSS:")? * 1024,
            peak_rss_bytes: memory("VmHWM:")? * 1024,
        })
    }

    /// Reads the figures of several processes, in their order.
    pub fn of_all(pids: &[u32]) -> anyhow::Result<Vec<Self>> {
        pids.iter().map(|pid| Self::of(*pid)).collect()
    }
}

/// Sum of utime and stime, fields 14 and 15; the command before them may hold blanks and parentheses.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, after_command) = stat.rsplit_once(')')?;
    let mut fields = after_command.split_ascii_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

fn kib(status: &str, field: &str) -> Option<u64> {
    let line = status.lines().find(|line| line.starts_with(field))?;
    line.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_a_command_with_parentheses() {
        let stat = "42 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 700 30 0 0 20 0 1 0 99";
        assert_eq!(cpu_ticks(stat), Some(730));
        assert_eq!(cpu_ticks("42 (a) S 1"), None);
    }

    #[test]
    fn own_process_has_memory_and_a_peak_not_below_it() {
        let usage = Usage::of(std::process::id()).unwrap();
        assert!(usage.rss_bytes > 100 * 1024);
        assert!(usage.peak_rss_bytes >= usage.rss_bytes);
    }

    #[test]
    fn gone_process_is_an_error_that_names_it() {
        let error = format!("{:#}", Usage::of(u32::MAX).unwrap_err());
        assert!(error.contains("4294967295"), "{error}");
    }
}
