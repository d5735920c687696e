//! Running the system's programs to their end.

use std::ffi::{OsStr, OsString};
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

use super::error::HostError;

/// For programs that talk to the kernel alone and end within milliseconds on a machine that is not busy.
pub(super) const LIMIT: Duration = Duration::from_secs(60);
// The last line or two of a program say why it failed; more is a log.
const SAID_LINES: usize = 4;

/// An argument vector, program first.
#[derive(Clone, Debug, Default)]
pub(super) struct Argv(Vec<OsString>);

/// What a program that ended left.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

impl Argv {
    pub(super) fn new<I>(args: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<OsString>,
    {
        Self(args.into_iter().map(Into::into).collect())
    }

    pub(super) fn and<I>(mut self, args: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<OsString>,
    {
        self.0.extend(args.into_iter().map(Into::into));
        self
    }

    pub(super) fn into_vec(self) -> Vec<OsString> {
        self.0
    }

    /// Runs it and expects it to succeed; answers what it printed.
    pub(super) async fn run(self) -> Result<String, HostError> {
        self.run_with("", LIMIT).await
    }

    /// As [`Argv::run`], with `input` on standard input.
    pub(super) async fn run_with(self, input: &str, limit: Duration) -> Result<String, HostError> {
        let what = self.to_string();
        let Ok(ended) = timeout(limit, self.end(input)).await else {
            return Err(HostError::TimedOut {
                what: format!("`{what}`"),
                waited: limit,
                last: String::new(),
            });
        };
        let ended = ended?;
        if ended.status.success() {
            return Ok(ended.stdout);
        }
        Err(HostError::Failed {
            what,
            status: ended.status,
            said: last_lines(if ended.stderr.trim().is_empty() {
                &ended.stdout
            } else {
                &ended.stderr
            }),
        })
    }

    /// Runs it, however it ends. Dropping the future kills it.
    pub(super) async fn end(self, input: &str) -> Result<Ended, HostError> {
        let program = self.program();
        let failed = |source| HostError::Run {
            program: program.clone(),
            source,
        };
        let mut child = self
            .command()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        if let Some(mut stdin) = child.stdin.take() {
            // A program that reads no input or ended early says so with its status.
            let _unread = stdin.write_all(input.as_bytes()).await;
        }
        let output = child.wait_with_output().await.map_err(failed)?;
        Ok(Ended {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Runs a program that leaves others behind: they keep writing to `log`, and this waits for the first one only.
    pub(super) async fn launch(self, log: &Path) -> Result<(), HostError> {
        let open = || {
            OpenOptions::new()
                .create(true)
                .append(true)
                .mode(0o600)
                .open(log)
        };
        let (program, what) = (self.program(), self.to_string());
        let status = self
            .command()
            .stdin(Stdio::null())
            .stdout(open().map_err(HostError::io("open", log))?)
            .stderr(open().map_err(HostError::io("open", log))?)
            .kill_on_drop(true)
            .status()
            .await
            .map_err(|source| HostError::Run { program, source })?;
        if status.success() {
            return Ok(());
        }
        Err(HostError::Failed {
            what,
            status,
            said: tail(log),
        })
    }

    fn program(&self) -> String {
        let program = self.0.first().map(OsString::as_os_str).unwrap_or_default();
        program.to_string_lossy().into_owned()
    }

    fn command(&self) -> Command {
        let program = self.0.first().map_or(OsStr::new(""), OsString::as_os_str);
        let mut command = Command::new(program);
        // Ctrl-C is for the one who waits, who then decides what becomes of the programs.
        command.args(self.0.iter().skip(1)).process_group(0);
        command
    }
}

impl std::fmt::Display for Argv {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, arg) in self.0.iter().enumerate() {
            let gap = if index == 0 { "" } else { " " };
            write!(f, "{gap}{}", arg.to_string_lossy())?;
        }
        Ok(())
    }
}

/// The end of a log, for an error.
pub(super) fn tail(log: &Path) -> String {
    last_lines(&String::from_utf8_lossy(
        &std::fs::read(log).unwrap_or_default(),
    ))
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    lines[lines.len().saturating_sub(SAID_LINES)..].join("; ")
}
