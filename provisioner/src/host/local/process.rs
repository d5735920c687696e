//! Process identity: a pid alone is not one, because pids are reused.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use crate::error::Error;

// One system call each: short enough that nobody waits for a process that is gone.
const GONE_EVERY: Duration = Duration::from_millis(2);
// Much longer than a kernel takes to free a few hundred megabytes and close some thousand files.
const DYING_LIMIT: Duration = Duration::from_secs(2);

// The kernel takes a killed process away at once unless it hangs in a system call.
pub(crate) const AFTER_KILL: Duration = Duration::from_secs(5);
const RENEWED: Duration = Duration::from_secs(3600);

/// One process for as long as it lives: pid, its start time and the boot that the start time counts from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// The pid, unique only while the process lives.
    pub pid: u32,
    /// Clock ticks between boot and start (field 22 of /proc/PID/stat).
    pub start_ticks: u64,
    /// The kernel's boot id.
    pub boot_id: String,
}

struct Stat {
    state: char,
    threads: u64,
    start_ticks: u64,
}

impl Process {
    /// Identifies the process that has this pid now.
    pub fn of(pid: u32) -> io::Result<Self> {
        let stat = stat(pid)?;
        Ok(Self {
            pid,
            start_ticks: stat.start_ticks,
            boot_id: boot_id()?,
        })
    }

    /// Whether it still runs; a zombie does not.
    ///
    /// A killed process with many threads lets go of its ports and files one thread at a time. That takes milliseconds, and
    /// until it is over the process is neither running nor out of the way, so this waits for it.
    #[must_use]
    pub fn is_running(&self) -> bool {
        let deadline = Instant::now() + DYING_LIMIT;
        if boot_id().is_ok_and(|id| id != self.boot_id) {
            return false;
        }
        loop {
            match stat(self.pid) {
                Ok(stat) if stat.start_ticks != self.start_ticks => return false,
                Ok(stat) if !matches!(stat.state, 'Z' | 'X') => return true,
                Ok(stat) if stat.threads > 1 && Instant::now() < deadline => {
                    std::thread::sleep(GONE_EVERY)
                }
                Ok(_) | Err(_) => return false,
            }
        }
    }

    /// Its argument vector, program first, as the kernel remembers it.
    pub fn argv(&self) -> io::Result<Vec<String>> {
        argv(self.pid)
    }

    /// The settings of etcd among its variables, as `NAME=VALUE`.
    pub fn settings(&self) -> io::Result<Vec<String>> {
        let raw = fs::read(format!("/proc/{}/environ", self.pid))?;
        let variables = raw.split(|byte| *byte == 0).filter(|variable| {
            variable.starts_with(b"ETCD_") && !variable.starts_with(b"ETCD_UNSUPPORTED_ARCH=")
        });
        Ok(variables
            .map(|variable| String::from_utf8_lossy(variable).into_owned())
            .collect())
    }

    /// Sends a signal. `Ok(false)`: the process was gone already.
    pub fn signal(&self, signal: Signal) -> io::Result<bool> {
        let Some(fd) = self.open()? else {
            return Ok(false);
        };
        match pidfd_send_signal(&fd, signal) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::SRCH) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until it is gone, however long that takes.
    pub async fn gone(&self) {
        loop {
            match self.wait_gone(RENEWED).await {
                Ok(true) => return,
                Ok(false) => {}
                // It cannot be watched, which says nothing about it.
                Err(_) if self.is_running() => sleep(GONE_EVERY).await,
                Err(_) => return,
            }
        }
    }

    /// Asks it to end, and kills it after `limit`. Answers whether it had to be killed.
    pub async fn stop(&self, limit: Duration) -> Result<bool, Error> {
        self.signal_or_say(Signal::TERM)?;
        self.end(limit).await
    }

    /// Waits for the end of one that was asked to end, and kills it after `limit`. Answers whether it had to be killed.
    pub async fn end(&self, limit: Duration) -> Result<bool, Error> {
        let wait = async |limit| {
            self.wait_gone(limit).await.map_err(|source| {
                Error::because(format!("cannot wait for pid {}", self.pid), source)
            })
        };
        if wait(limit).await? {
            return Ok(false);
        }
        self.signal_or_say(Signal::KILL)?;
        if wait(AFTER_KILL).await? {
            return Ok(true);
        }
        let fix = format!(
            "see `ps -o stat,wchan {}`: a process in state D hangs in the kernel, often on a disk",
            self.pid
        );
        Err(Error::timed_out(
            format!("the end of pid {}", self.pid),
            limit + AFTER_KILL,
            fix,
        ))
    }

    fn signal_or_say(&self, signal: Signal) -> Result<bool, Error> {
        self.signal(signal)
            .map_err(|source| Error::because(format!("cannot signal pid {}", self.pid), source))
    }

    /// Waits until it is gone, at most for `limit`. Answers whether it is.
    pub async fn wait_gone(&self, limit: Duration) -> io::Result<bool> {
        let Some(fd) = self.open()? else {
            return Ok(true);
        };
        let deadline = Instant::now() + limit;
        loop {
            // A pidfd becomes readable when its process ends. Asking without blocking needs no thread that outlives the wait.
            let mut ends = [PollFd::new(&fd, PollFlags::IN)];
            // A signal that arrives right now interrupts even a call that does not wait.
            if retry_on_intr(|| poll(&mut ends, Some(&Timespec::default())))? > 0 {
                return Ok(true);
            }
            if Instant::now() >= deadline {
                return Ok(false);
            }
            sleep(GONE_EVERY).await;
        }
    }

    // The descriptor pins the process; checking identity after opening rules out a reused pid.
    fn open(&self) -> io::Result<Option<OwnedFd>> {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else {
            return Ok(None);
        };
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(fd) if self.is_running() => Ok(Some(fd)),
            Ok(_) | Err(rustix::io::Errno::SRCH) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Finds processes with an argument that is theirs alone.
///
/// The way back to a process whose record was lost between its start and the write of the record.
pub fn find_by_argument(its_own: &dyn Fn(&str) -> bool) -> io::Result<Vec<Process>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Ok(entry) = entry else { continue };
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        // Processes come and go while the directory is read.
        let Ok(args) = argv(pid) else { continue };
        if args.iter().any(|arg| its_own(arg))
            && let Ok(process) = Process::of(pid)
            && process.is_running()
        {
            found.push(process);
        }
    }
    Ok(found)
}

/// The host's name, for locks and messages.
#[must_use]
pub fn host_name() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "unknown".to_owned(), |name| name.trim().to_owned())
}

pub(super) fn argv(pid: u32) -> io::Result<Vec<String>> {
    let raw = fs::read(format!("/proc/{pid}/cmdline"))?;
    let raw = raw.strip_suffix(&[0]).unwrap_or(&raw);
    if raw.is_empty() {
        return Ok(Vec::new());
    }
    Ok(raw
        .split(|byte| *byte == 0)
        .map(|arg| String::from_utf8_lossy(arg).into_owned())
        .collect())
}

fn boot_id() -> io::Result<String> {
    Ok(
        fs::read_to_string(Path::new("/proc/sys/kernel/random/boot_id"))?
            .trim()
            .to_owned(),
    )
}

fn stat(pid: u32) -> io::Result<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    parse_stat(&text).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("/proc/{pid}/stat is not as proc(5) says"),
        )
    })
}

fn parse_stat(text: &str) -> Option<Stat> {
    // The second field is the command in parentheses and may itself hold spaces and parentheses.
    let rest = &text[text.rfind(')')? + 1..];
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    // Fields 20 and 22 of the line; the state was field 3.
    let threads = fields.nth(16)?.parse().ok()?;
    let start_ticks = fields.nth(1)?.parse().ok()?;
    Some(Stat {
        state,
        threads,
        start_ticks,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_with_parentheses_does_not_shift_the_fields() {
        let line =
            "77 (a) b (c)) S 1 77 77 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 9 0 424242 1000 10 184467";
        let stat = parse_stat(line).unwrap();
        assert_eq!(
            (stat.state, stat.threads, stat.start_ticks),
            ('S', 9, 424_242)
        );
    }

    #[test]
    fn a_reused_pid_is_another_process() {
        let me = Process::of(std::process::id()).unwrap();
        assert!(me.is_running());
        let before_me = Process {
            start_ticks: me.start_ticks.wrapping_sub(1),
            ..me.clone()
        };
        assert!(!before_me.is_running());
        assert!(
            !before_me.signal(Signal::TERM).unwrap(),
            "the signal must not reach this test"
        );
        let other_boot = Process {
            boot_id: "another".to_owned(),
            ..me
        };
        assert!(!other_boot.is_running());
    }

    #[test]
    fn a_process_is_found_by_an_exact_argument() {
        let mark = format!("--mark-{}", std::process::id());
        let mut child = std::process::Command::new("sleep")
            .arg0_is_kept(&mark)
            .spawn()
            .unwrap();
        // The kernel shows the arguments a moment after the program was started.
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut found = find_by_argument(&|arg| arg == mark).unwrap();
        while found.is_empty() && Instant::now() < deadline {
            found = find_by_argument(&|arg| arg == mark).unwrap();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(
            found.iter().map(|process| process.pid).collect::<Vec<_>>(),
            [child.id()]
        );
        assert!(find_by_argument(&|arg| arg == mark).unwrap().is_empty());
    }

    trait Marked {
        fn arg0_is_kept(&mut self, mark: &str) -> &mut Self;
    }

    impl Marked for std::process::Command {
        fn arg0_is_kept(&mut self, mark: &str) -> &mut Self {
            use std::os::unix::process::CommandExt;
            self.arg0(mark).arg("60")
        }
    }
}
