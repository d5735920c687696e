//! Starting programs: members that outlive this process, and the user's own commands.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use process_wrap::std::{ChildWrapper, CommandWrap, ProcessSession};

use super::binary::resolve;
use super::process::Process;
use super::put::UserId;

/// A member process to start.
#[derive(Clone, Debug)]
pub struct Launch<'a> {
    /// Absolute path of the program.
    pub program: &'a Path,
    /// Its arguments, without the program.
    pub args: &'a [String],
    /// Receives both output streams, appended.
    pub log: &'a Path,
    /// Working directory.
    pub dir: &'a Path,
    /// Whether the kernel kills it when this process ends, even by SIGKILL.
    pub dies_with_parent: bool,
    /// Whom it runs as, if not as this process.
    pub run_as: Option<UserId>,
}

/// A member process that this process started and can therefore reap.
#[derive(Debug)]
pub struct Launched {
    /// Its identity, to be remembered.
    pub process: Process,
    /// Where its log begins.
    pub log: LogTail,
    child: Box<dyn ChildWrapper>,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It returned this code.
    Code(i32),
    /// A signal killed it.
    Signal(i32),
}

/// A log file from the place where one run of the process began to write.
#[derive(Clone, Debug)]
pub struct LogTail {
    path: PathBuf,
    offset: u64,
}

/// Why a program did not start.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The log file cannot be opened.
    #[error("cannot open the log {}", .path.display())]
    Log {
        /// The log.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The system would not run it.
    #[error("cannot run {}", .program.display())]
    Run {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Launch<'_> {
    /// Starts the program in a session of its own, so that it survives this process and its terminal.
    pub fn start(&self) -> Result<Launched, SpawnError> {
        let open = || -> io::Result<(File, File, u64)> {
            rotate(self.log)?;
            let out = OpenOptions::new()
                .create(true)
                .append(true)
                .mode(0o600)
                .open(self.log)?;
            let offset = out.metadata()?.len();
            Ok((out.try_clone()?, out, offset))
        };
        let (out, err, offset) = open().map_err(|source| SpawnError::Log {
            path: self.log.to_owned(),
            source,
        })?;
        let run = |source| SpawnError::Run {
            program: self.program.to_owned(),
            source,
        };
        // setpriv(1) sets the wish and becomes the program; asking the kernel directly needs code between fork and exec.
        let setpriv = if self.dies_with_parent {
            resolve(Path::new("setpriv")).ok()
        } else {
            None
        };
        let first = setpriv.as_deref().unwrap_or(self.program);
        let mut command = CommandWrap::with_new(first, |command| {
            if setpriv.is_some() {
                command
                    .args(["--pdeathsig", "KILL", "--"])
                    .arg(self.program);
            }
            command
                .args(self.args)
                .current_dir(self.dir)
                .stdin(Stdio::null())
                .stdout(out)
                .stderr(err);
            let me = rustix::process::geteuid().as_raw();
            if let Some(UserId { uid, gid }) = self.run_as.filter(|user| user.uid != me) {
                command.uid(uid).gid(gid);
            }
            for name in member_settings_of(env::vars_os().map(|(name, _)| name)) {
                command.env_remove(name);
            }
        });
        let child = command.wrap(ProcessSession).spawn().map_err(run)?;
        let process = Process::of(child.id()).map_err(run)?;
        Ok(Launched {
            process,
            log: LogTail {
                path: self.log.to_owned(),
                offset,
            },
            child,
        })
    }
}

impl Launched {
    /// How it ended, if it did.
    pub fn exit(&mut self) -> Option<Exit> {
        self.child.try_wait().ok().flatten().map(Exit::from)
    }
}

impl From<ExitStatus> for Exit {
    fn from(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Code(code),
            (None, signal) => Self::Signal(signal.unwrap_or_default()),
        }
    }
}

impl Exit {
    /// What a shell would call this exit: the code, or 128 and the signal.
    #[must_use]
    pub fn shell_code(self) -> u8 {
        let code = match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        };
        u8::try_from(code).unwrap_or(u8::MAX)
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "killed by signal {signal}"),
        }
    }
}

impl LogTail {
    /// The last `count` lines that this run wrote.
    #[must_use]
    pub fn last_lines(&self, count: usize) -> Vec<String> {
        last_lines(&self.path, self.offset, count)
    }

    /// The log file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The last `count` lines of a log from `offset` on; none where it cannot be read.
pub(super) fn last_lines(path: &Path, offset: u64, count: usize) -> Vec<String> {
    // A member that dies says why within its last screenful; this bounds what is read of a long log.
    const MOST: u64 = 64 * 1024;
    let read = || -> io::Result<String> {
        let mut file = File::open(path)?;
        let start = offset.max(file.metadata()?.len().saturating_sub(MOST));
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.take(MOST).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..]
        .iter()
        .map(|line| (*line).to_owned())
        .collect()
}

/// Replaces this process by `command`. Returns only when that fails.
pub fn replace_with<K: AsRef<OsStr>, V: AsRef<OsStr>>(
    command: &[OsString],
    set: impl IntoIterator<Item = (K, V)>,
    unset: &[&str],
) -> SpawnError {
    let (program, args) = split(command);
    let source = prepared(program, args, set, unset).exec();
    SpawnError::Run {
        program: PathBuf::from(program),
        source,
    }
}

/// Starts `command` with this process's own streams; the caller waits for it.
pub fn run_foreground<K: AsRef<OsStr>, V: AsRef<OsStr>>(
    command: &[OsString],
    set: impl IntoIterator<Item = (K, V)>,
    unset: &[&str],
) -> Result<tokio::process::Child, SpawnError> {
    let (program, args) = split(command);
    tokio::process::Command::from(prepared(program, args, set, unset))
        .spawn()
        .map_err(|source| SpawnError::Run {
            program: PathBuf::from(program),
            source,
        })
}

/// Whether the terminal delivers Ctrl-C to this process group, so to a foreground child as well.
#[must_use]
pub fn foreground_owns_terminal() -> bool {
    let stdin = io::stdin();
    stdin.is_terminal()
        && rustix::termios::tcgetpgrp(&stdin).is_ok_and(|group| group == rustix::process::getpgrp())
}

/// What `PROGRAM --version` prints.
pub fn version_text(program: &Path) -> Result<String, SpawnError> {
    let output = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .map_err(|source| SpawnError::Run {
            program: program.to_owned(),
            source,
        })?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn split(command: &[OsString]) -> (&OsStr, &[OsString]) {
    match command.split_first() {
        Some((program, args)) => (program, args),
        // The command line requires a command; an empty program fails to run with the system's own error.
        None => (OsStr::new(""), &[]),
    }
}

fn prepared<K: AsRef<OsStr>, V: AsRef<OsStr>>(
    program: &OsStr,
    args: &[OsString],
    set: impl IntoIterator<Item = (K, V)>,
    unset: &[&str],
) -> Command {
    let mut command = Command::new(program);
    command.args(args);
    for name in unset {
        command.env_remove(name);
    }
    command.envs(set);
    command
}

// A member takes its settings from the topology alone: an ETCD_* variable of the user's shell would silently change it, or
// collide with a flag. The one exception lets upstream etcd run on processors that it does not support officially.
pub(super) fn member_settings_of(names: impl Iterator<Item = OsString>) -> Vec<OsString> {
    names
        .filter(|name| {
            name.to_str()
                .is_some_and(|name| name.starts_with("ETCD_") && name != "ETCD_UNSUPPORTED_ARCH")
        })
        .collect()
}

// One old file is kept: enough to look back, bounded on disk.
fn rotate(log: &Path) -> io::Result<()> {
    const LIMIT: u64 = 32 * 1024 * 1024;
    match fs::metadata(log) {
        Ok(meta) if meta.len() > LIMIT => fs::rename(log, log.with_extension("log.1")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    fn launch(dir: &Path, script: &str) -> Launched {
        let args = ["-c".to_owned(), script.to_owned()];
        Launch {
            program: Path::new("/bin/sh"),
            args: &args,
            log: &dir.join("log"),
            dir,
            dies_with_parent: false,
            run_as: None,
        }
        .start()
        .unwrap()
    }

    fn wait_exit(launched: &mut Launched) -> Exit {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(exit) = launched.exit() {
                return exit;
            }
            assert!(Instant::now() < deadline, "the process does not end");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_started_process_leads_its_own_session_and_logs() {
        let dir = tempfile::tempdir().unwrap();
        let mut launched = launch(dir.path(), "ps -o sid= -p $$ >&2; exit 3");
        let pid = launched.process.pid;
        assert_eq!(wait_exit(&mut launched), Exit::Code(3));
        assert_eq!(launched.log.last_lines(1)[0].trim(), pid.to_string());
    }

    #[test]
    fn the_tail_shows_this_run_only() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("log"), "an older run\n").unwrap();
        let mut launched = launch(dir.path(), "echo one; echo two; echo three; kill -9 $$");
        assert_eq!(wait_exit(&mut launched), Exit::Signal(9));
        assert_eq!(launched.log.last_lines(2), ["two", "three"]);
        assert_eq!(launched.log.last_lines(9), ["one", "two", "three"]);
    }

    #[test]
    fn settings_of_the_users_shell_do_not_reach_members() {
        let names =
            ["ETCD_NAME", "ETCDCTL_CERT", "PATH", "ETCD_UNSUPPORTED_ARCH"].map(OsString::from);
        assert_eq!(
            member_settings_of(names.into_iter()),
            [OsString::from("ETCD_NAME")]
        );
    }

    #[test]
    fn a_program_says_its_version() {
        assert!(
            version_text(Path::new("/bin/ps"))
                .unwrap()
                .starts_with("ps from")
        );
        assert!(version_text(Path::new("/no/such/program")).is_err());
    }

    #[test]
    fn shells_and_this_program_agree_on_codes() {
        assert_eq!(Exit::Code(42).shell_code(), 42);
        assert_eq!(Exit::Signal(15).shell_code(), 143);
    }
}
