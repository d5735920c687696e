//! Starting and stopping members on the machine that an agent works for, by systemd or without.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use super::process::Process;
use super::put::{UserId, output};
use super::spawn::{Launch, last_lines};
use crate::error::Error;
use crate::host::remote::Ask;

// systemd forks within milliseconds of being asked.
const FORK_LIMIT: Duration = Duration::from_secs(20);
const FORK_EVERY: Duration = Duration::from_millis(10);

/// What keeps a member running.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kept {
    /// This unit, whose file is in place.
    BySystemd(String),
    /// Nothing; its log.
    Alone(PathBuf),
}

/// Starts a member. Under systemd it is also started at boot from now on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StartMember {
    /// What keeps it.
    pub kept: Kept,
    /// Its argument vector, program first. The unit has its own.
    pub argv: Vec<String>,
    /// Its directory.
    pub dir: PathBuf,
    /// Whom it runs as. The unit says it itself.
    pub user: UserId,
}

/// Stops a member.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StopMember {
    /// What keeps it.
    pub kept: Kept,
    /// Its process.
    pub process: Process,
    /// Whether it stays stopped at the next boot.
    pub for_good: bool,
    /// How long it may take before it is killed.
    pub limit: Duration,
}

/// Keeps a unit from starting, now, again and at boot, whether it runs or fails over and over. One that does not exist does neither.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Disable {
    /// Its name.
    pub unit: String,
}

/// Waits until a process is gone, and says how it ended as far as that is known.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AwaitEnd {
    /// What kept it.
    pub kept: Kept,
    /// The process.
    pub process: Process,
}

/// The last lines of a member's log.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Tail {
    /// What keeps it.
    pub kept: Kept,
    /// How many at most.
    pub lines: usize,
    /// Only what came after this place, which an earlier answer named.
    pub after: Option<String>,
}

/// Lines of a log.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Lines {
    /// In their order.
    pub lines: Vec<String>,
    /// The place behind the last of them.
    pub place: Option<String>,
}

impl Ask for StartMember {
    const NAME: &'static str = "start";
    type Answer = Process;

    async fn answer(self) -> Result<Process, Error> {
        match &self.kept {
            Kept::BySystemd(unit) => {
                systemctl(&["daemon-reload"]).await?;
                // One that failed too often is not started again without this; it fails where there is nothing to reset.
                let _nothing_to_reset = systemctl(&["reset-failed", unit]).await;
                systemctl(&["enable", "--now", "--no-block", unit]).await?;
                let deadline = Instant::now() + FORK_LIMIT;
                loop {
                    if let Some(process) = main_process(unit).await? {
                        return Ok(process);
                    }
                    if Instant::now() >= deadline {
                        return Err(Error::timed_out(
                            format!("the start of {unit}"),
                            FORK_LIMIT,
                            format!("see `systemctl status {unit}` there"),
                        ));
                    }
                    sleep(FORK_EVERY).await;
                }
            }
            Kept::Alone(log) => {
                let (program, args) = self
                    .argv
                    .split_first()
                    .ok_or_else(|| Error::because("nothing to run", "no arguments were given"))?;
                let launch = Launch {
                    program: program.as_ref(),
                    args,
                    log,
                    dir: &self.dir,
                    dies_with_parent: false,
                    run_as: Some(self.user),
                };
                let launched = launch.start();
                Ok(launched
                    .map_err(|error| Error::because("the process does not start", error))?
                    .process)
            }
        }
    }
}

impl Ask for StopMember {
    const NAME: &'static str = "stop";
    /// Whether it had to be killed.
    type Answer = bool;

    async fn answer(self) -> Result<bool, Error> {
        match &self.kept {
            Kept::Alone(_) => self.process.stop(self.limit).await,
            Kept::BySystemd(unit) => {
                let verb: &[&str] = if self.for_good {
                    &["disable", "--now", "--no-block", unit]
                } else {
                    &["stop", "--no-block", unit]
                };
                systemctl(verb).await?;
                // systemd asks it, and a second request would cut its leave short.
                self.process.end(self.limit).await
            }
        }
    }
}

impl Ask for Disable {
    const NAME: &'static str = "disable";
    type Answer = ();

    async fn answer(self) -> Result<(), Error> {
        match systemctl(&["disable", "--now", &self.unit]).await {
            Err(Error::Failed {
                source: Some(said), ..
            }) if said.to_string().contains("does not exist") => Ok(()),
            result => result.map(drop),
        }
    }
}

impl Ask for AwaitEnd {
    const NAME: &'static str = "await-end";
    type Answer = String;

    async fn answer(self) -> Result<String, Error> {
        self.process.gone().await;
        let Kept::BySystemd(unit) = &self.kept else {
            return Ok("ended".to_owned());
        };
        let show = ["show", "-p", "ExecMainCode,ExecMainStatus", unit];
        let said = systemctl(&show).await?;
        let status = value(&said, "ExecMainStatus").unwrap_or("?");
        // What siginfo calls CLD_EXITED.
        Ok(match value(&said, "ExecMainCode") {
            Some("1") => format!("exit code {status}"),
            _ => format!("killed by signal {status}"),
        })
    }
}

impl Ask for Tail {
    const NAME: &'static str = "tail";
    type Answer = Lines;

    async fn answer(self) -> Result<Lines, Error> {
        match &self.kept {
            Kept::Alone(log) => {
                let offset = self.after.and_then(|place| place.parse().ok()).unwrap_or(0);
                let end = std::fs::metadata(log).map_or(0, |meta| meta.len());
                // Shorter than before: a start rotated it.
                let offset = if end < offset { 0 } else { offset };
                Ok(Lines {
                    lines: last_lines(log, offset, self.lines),
                    place: Some(end.to_string()),
                })
            }
            Kept::BySystemd(unit) => {
                let count = self.lines.to_string();
                let mut args = vec![
                    "-u",
                    unit,
                    "-o",
                    "cat",
                    "--no-pager",
                    "--show-cursor",
                    "-n",
                    &count,
                ];
                let after = self.after.map(|place| format!("--after-cursor={place}"));
                args.extend(after.as_deref());
                let (ok, said) = output("journalctl", &args)
                    .await
                    .map_err(|source| Error::because("cannot run journalctl", source))?;
                if !ok {
                    return Err(Error::because(
                        "cannot read the journal",
                        said.trim().to_owned(),
                    ));
                }
                let (mut lines, mut place) = (Vec::new(), None);
                for line in said.lines() {
                    match line.strip_prefix("-- cursor: ") {
                        Some(cursor) => place = Some(cursor.to_owned()),
                        None if line == "-- No entries --" => {}
                        None => lines.push(line.to_owned()),
                    }
                }
                Ok(Lines { lines, place })
            }
        }
    }
}

/// The main process of a unit, if it runs.
pub async fn main_process(unit: &str) -> Result<Option<Process>, Error> {
    let said = systemctl(&["show", "-p", "MainPID,ActiveState,Result", unit]).await?;
    let pid = value(&said, "MainPID").and_then(|pid| pid.parse::<u32>().ok());
    Ok(pid
        .filter(|pid| *pid > 0)
        .and_then(|pid| Process::of(pid).ok())
        .filter(Process::is_running))
}

/// Runs systemctl, and says what it says when it fails.
async fn systemctl(args: &[&str]) -> Result<String, Error> {
    let what = || format!("systemctl {} failed", args.join(" "));
    match output("systemctl", args).await {
        Ok((true, said)) => Ok(said),
        Ok((false, said)) => Err(Error::Failed {
            what: what(),
            fix: None,
            source: Some(said.trim().to_owned().into()),
        }),
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => Err(Error::failed(
            "there is no systemd on the machine",
            "write service = \"process\" in [host-defaults]",
        )),
        Err(source) => Err(Error::because(what(), source)),
    }
}

fn value<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let mut lines = text.lines();
    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
}
