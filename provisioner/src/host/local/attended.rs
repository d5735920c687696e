//! Programs under somebody's eyes: servers under test, and commands whose output is judged.

use std::env;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::{Child, Command};

use super::process::Process;
use super::spawn::{Exit, SpawnError, member_settings_of};

/// A program to start, and to wait for.
#[derive(Clone, Copy, Debug)]
pub struct Attend<'a> {
    /// Absolute path, or a name in PATH.
    pub program: &'a Path,
    /// Its arguments, without the program.
    pub args: &'a [String],
    /// Variables over those of this process; of etcd's and etcdctl's variables it gets these alone.
    pub env: &'a [(String, String)],
    /// Working directory.
    pub dir: &'a Path,
    /// Receives both output streams, appended; without it they are kept for [`Attended::output`].
    pub log: Option<&'a Path>,
}

/// A program that was started. Dropping this leaves it running: whoever started it ends it by [`Attended::process`].
#[derive(Debug)]
pub struct Attended {
    /// Its identity.
    pub process: Process,
    child: Child,
}

impl Attend<'_> {
    /// Starts it in a process group of its own: Ctrl-C is for the one who waits, who then decides what becomes of it.
    pub fn start(&self) -> Result<Attended, SpawnError> {
        let mut command = Command::new(self.program);
        let names = || env::vars_os().map(|(name, _)| name);
        let etcdctls = names().filter(|name| name.to_string_lossy().starts_with("ETCDCTL_"));
        for name in member_settings_of(names()).into_iter().chain(etcdctls) {
            command.env_remove(name);
        }
        command
            .args(self.args)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .current_dir(self.dir)
            .process_group(0)
            .stdin(Stdio::null());
        match self.log {
            Some(path) => {
                let log = |source| SpawnError::Log {
                    path: path.to_owned(),
                    source,
                };
                let file = OpenOptions::new()
                    .create(true)
                    .append(true)
                    .mode(0o600)
                    .open(path)
                    .map_err(log)?;
                command.stdout(file.try_clone().map_err(log)?).stderr(file);
            }
            None => {
                command.stdout(Stdio::piped()).stderr(Stdio::piped());
            }
        }
        let run = |source| SpawnError::Run {
            program: PathBuf::from(self.program),
            source,
        };
        let child = command.spawn().map_err(run)?;
        let pid = child
            .id()
            .ok_or_else(|| run(io::ErrorKind::NotFound.into()))?;
        let process = Process::of(pid).map_err(run)?;
        Ok(Attended { process, child })
    }
}

impl Attended {
    /// How it ended, if it did.
    pub fn exit(&mut self) -> Option<Exit> {
        self.child.try_wait().ok().flatten().map(Exit::from)
    }

    /// Waits for its end.
    pub async fn wait(&mut self) -> io::Result<Exit> {
        self.child.wait().await.map(Exit::from)
    }

    /// Waits for its end: how it ended, standard output and standard error.
    pub async fn output(self) -> io::Result<(Exit, String, String)> {
        let output = self.child.wait_with_output().await?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok((
            output.status.into(),
            text(&output.stdout),
            text(&output.stderr),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::runtime;

    #[test]
    fn both_streams_and_the_code_come_back() {
        let args = ["-c".to_owned(), "echo $A; echo err >&2; exit 3".to_owned()];
        let env = [("A".to_owned(), "out".to_owned())];
        runtime().unwrap().block_on(async {
            let started = Attend {
                program: Path::new("sh"),
                args: &args,
                env: &env,
                dir: Path::new("/"),
                log: None,
            }
            .start()
            .unwrap();
            let (exit, out, err) = started.output().await.unwrap();
            assert_eq!(
                (exit, out.as_str(), err.as_str()),
                (Exit::Code(3), "out\n", "err\n")
            );
        });
    }
}
