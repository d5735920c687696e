//! Where one scenario plays: a directory, ports, what was started, and what is being done right now.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use super::answers::Services;
use super::failure::Failure;
use super::subject::{Subject, Words};
use crate::error::Error;
use crate::host::local::{Attend, Attended, Claim, Exit, Process};
use crate::state;

// Two for each of five members, and some for services and gateways.
const PORTS: u16 = 20;
// Short beside what servers and etcdctl take.
const LOOK_EVERY: Duration = Duration::from_millis(20);
// `provision up` ends its step when it is asked to stop.
const COMMAND_GRACE: Duration = Duration::from_secs(10);
const KILL_LIMIT: Duration = Duration::from_secs(10);
// `down` kills a member that does not stop within its own limit.
const DOWN_LIMIT: Duration = Duration::from_secs(60);
const LOG_LINES: usize = 8;

/// What a scenario was given.
pub(super) struct Stage {
    pub(super) subject: Rc<Subject>,
    /// Shared by all scenarios of a run.
    pub(super) services: Rc<Services>,
    dir: PathBuf,
    /// Deletes the directory; `None` where it is kept.
    temporary: Option<TempDir>,
    claim: Claim,
    next_port: Cell<usize>,
    step: RefCell<String>,
    /// Everything that was started and may still run.
    started: RefCell<Vec<Process>>,
}

/// What a command left.
#[derive(Debug)]
pub(super) struct Done {
    command: String,
    pub(super) exit: Exit,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

impl Stage {
    /// Its files go below `keep` and stay there, or go away with it.
    pub(super) fn new(
        id: &str,
        subject: Rc<Subject>,
        services: Rc<Services>,
        keep: Option<&Path>,
    ) -> Result<Self, Failure> {
        let setup = |error: Error| Failure::setup("a directory for the scenario", &error);
        let (dir, temporary) = match keep {
            Some(keep) => {
                let dir = keep.join(id);
                let made = std::fs::create_dir_all(&dir);
                made.map_err(|error| setup(Error::io("create", &dir)(error)))?;
                (dir, None)
            }
            None => {
                let made = tempfile::Builder::new().prefix("provision-test-").tempdir();
                let made = made.map_err(|error| {
                    setup(Error::io("create a directory in", &std::env::temp_dir())(
                        error,
                    ))
                })?;
                (made.path().to_owned(), Some(made))
            }
        };
        let seed = u64::from(std::process::id());
        let claim = Claim::new(PORTS, seed)
            .map_err(|error| Failure::setup("ports for the scenario", &error))?;
        Ok(Self {
            subject,
            services,
            dir,
            temporary,
            claim,
            next_port: Cell::new(0),
            step: RefCell::new("begin".to_owned()),
            started: RefCell::default(),
        })
    }

    /// Says what is being done, for the report of a failure.
    pub(super) fn step(&self, step: impl Into<String>) {
        *self.step.borrow_mut() = step.into();
    }

    pub(super) fn current_step(&self) -> String {
        self.step.borrow().clone()
    }

    pub(super) fn says<'t>(&self, words: Words<'t>) -> &'t str {
        self.subject.says(words)
    }

    pub(super) fn port(&self) -> Result<u16, Failure> {
        let index = self.next_port.get();
        self.next_port.set(index + 1);
        self.claim
            .port(index)
            .ok_or_else(|| Failure::check("a scenario of few ports", format!("{} used", index + 1)))
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Writes a file; its path.
    pub(super) fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> Result<PathBuf, Failure> {
        let path = self.path(name);
        std::fs::write(&path, contents).map_err(|error| {
            let error = Error::io("write", &path)(error);
            Failure::setup("a file of the scenario", &error)
        })?;
        Ok(path)
    }

    /// Starts a program that ends with the stage.
    pub(super) fn start(&self, attend: Attend<'_>) -> Result<Attended, Failure> {
        let started = attend
            .start()
            .map_err(|error| Failure::setup("a program starts", &error))?;
        self.started.borrow_mut().push(started.process.clone());
        Ok(started)
    }

    /// Runs a program to its end.
    pub(super) async fn run<S: AsRef<str>>(
        &self,
        program: &Path,
        args: &[S],
        env: &[(String, String)],
    ) -> Result<Done, Failure> {
        let args: Vec<String> = args.iter().map(|arg| arg.as_ref().to_owned()).collect();
        let name = program.file_name().unwrap_or(program.as_os_str());
        let command = format!("{} {}", name.to_string_lossy(), args.join(" "));
        let started = self.start(Attend {
            program,
            args: &args,
            env,
            dir: &self.dir,
            log: None,
        })?;
        let (exit, stdout, stderr) = started
            .output()
            .await
            .map_err(|error| Failure::setup(format!("the output of `{command}`"), &error))?;
        Ok(Done {
            command,
            exit,
            stdout,
            stderr,
        })
    }

    /// Runs this program with the scenario's own state.
    pub(super) async fn provision<S: AsRef<str>>(&self, args: &[S]) -> Result<Done, Failure> {
        let program = std::env::current_exe()
            .map_err(|error| Failure::setup("the path of this program", &error))?;
        let state = self.state().display().to_string();
        // Only errors: what a failed verb did before is in its journal.
        let mut all = vec!["--quiet", "--state-dir", &state];
        all.extend(args.iter().map(AsRef::as_ref));
        let mut env = vec![("NO_COLOR".to_owned(), "1".to_owned())];
        if self.subject.is_member() {
            let member = self.subject.program.display().to_string();
            env.push(("PROVISION_MEMBER".to_owned(), member));
        }
        self.run(&program, &all, &env).await
    }

    /// Runs a command in the environment of a cluster.
    pub(super) async fn exec(&self, cluster: &str, command: &[&str]) -> Result<Done, Failure> {
        self.provision(&[&["exec", cluster, "--"], command].concat())
            .await
    }

    /// Runs etcdctl against endpoints.
    pub(super) async fn etcdctl<S: AsRef<str>>(
        &self,
        endpoints: &str,
        args: &[S],
    ) -> Result<Done, Failure> {
        let env = [
            ("ETCDCTL_API".to_owned(), "3".to_owned()),
            ("ETCDCTL_ENDPOINTS".to_owned(), endpoints.to_owned()),
        ];
        self.run(Path::new("etcdctl"), args, &env).await
    }

    /// Waits until there is something; the scenario's time bound ends this.
    pub(super) async fn wait<T, F>(
        &self,
        what: &str,
        mut look: impl FnMut() -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<Option<T>, Failure>>,
    {
        let before = self.current_step();
        self.step(format!("{before}: wait until {what}"));
        loop {
            if let Some(found) = look().await? {
                self.step(before);
                return Ok(found);
            }
            sleep(LOOK_EVERY).await;
        }
    }

    fn state(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// The ends of all logs, each line with the name of its member.
    pub(super) fn logs(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut open = vec![self.dir.clone()];
        while let Some(dir) = open.pop() {
            let entries = std::fs::read_dir(&dir).into_iter().flatten().flatten();
            let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
            paths.sort();
            for path in paths {
                if path.is_dir() && path.file_name().is_none_or(|name| name != "data") {
                    open.push(path);
                } else if path.file_name().is_some_and(|name| name == "log") {
                    let owner = dir.file_name().unwrap_or_default().to_string_lossy();
                    let text = std::fs::read(&path).unwrap_or_default();
                    let text = String::from_utf8_lossy(&text);
                    let all: Vec<&str> = text.lines().collect();
                    let tail = &all[all.len().saturating_sub(LOG_LINES)..];
                    lines.extend(tail.iter().map(|line| format!("{owner}: {line}")));
                }
            }
        }
        lines
    }

    /// Ends everything that was started. Nothing is left of it afterwards, or the error says what.
    pub(super) async fn finish(&self) -> Result<(), Failure> {
        let mut left = Vec::new();
        let started: Vec<Process> = self.started.borrow_mut().drain(..).collect();
        let me = std::env::current_exe().ok();
        for process in started.iter().filter(|process| process.is_running()) {
            // Verbs of this program finish or undo their step; everything else has nothing to lose.
            let verb = std::fs::read_link(format!("/proc/{}/exe", process.pid)).ok() == me;
            if verb {
                let _gone_already = process.signal(Signal::TERM);
                let _still_there = process.wait_gone(COMMAND_GRACE).await;
            }
            let _gone_already = process.signal(Signal::KILL);
            if !process.wait_gone(KILL_LIMIT).await.unwrap_or(false) {
                left.push(format!("process {}", process.pid));
            }
        }
        for cluster in state::list(&self.state()).unwrap_or_default() {
            let mut args = vec!["down", "--timeout", "1s", &cluster];
            if self.temporary.is_some() {
                args.extend(["--purge", "--yes"]);
            }
            match timeout(DOWN_LIMIT, self.provision(&args)).await {
                Ok(Ok(done)) if done.exit == Exit::Code(0) => {}
                Ok(Ok(done)) => left.push(format!("cluster {cluster}: {}", done.stderr.trim())),
                Ok(Err(failure)) => left.push(format!("cluster {cluster}: {}", failure.got)),
                Err(_) => left.push(format!("cluster {cluster}: down does not end")),
            }
        }
        if left.is_empty() {
            return Ok(());
        }
        Err(Failure::check("nothing is left running", left.join(", ")))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // Empty after `finish`; this is for a panic.
        for process in self.started.borrow().iter() {
            let _gone_already = process.signal(Signal::KILL);
        }
    }
}

impl Done {
    /// The exit code must be this.
    pub(super) fn expect(self, code: i32) -> Result<Self, Failure> {
        if self.exit == Exit::Code(code) {
            return Ok(self);
        }
        Err(Failure::check(
            format!("exit code {code} of `{}`", self.command),
            format!("{}: {}{}", self.exit, self.stdout, self.stderr),
        ))
    }

    /// The exit code and a part of what was said, without the escapes that JSON puts before quotes, must be these.
    pub(super) fn ends(self, code: i32, text: &str) -> Result<(), Failure> {
        let said = unescaped(&[self.stdout, self.stderr].concat());
        if self.exit == Exit::Code(code) && said.contains(text) {
            return Ok(());
        }
        Err(Failure::check(
            format!("exit code {code}, {text}"),
            format!("{}, {said}", self.exit),
        ))
    }

    pub(super) fn ok(&self) -> bool {
        self.exit == Exit::Code(0)
    }

    /// Standard output must be this.
    pub(super) fn prints(self, text: &str) -> Result<Self, Failure> {
        if self.stdout == text {
            return Ok(self);
        }
        Err(Failure::check(
            format!("`{}` prints {text:?}", self.command),
            format!("{:?}", self.stdout),
        ))
    }

    pub(super) fn json(&self) -> Result<Value, Failure> {
        serde_json::from_str(&self.stdout).map_err(|error| {
            Failure::check(
                format!("`{}` prints JSON", self.command),
                format!("{error}: {:?}", self.stdout),
            )
        })
    }
}

pub(super) fn unescaped(log: &str) -> String {
    log.replace("\\\"", "\"")
}
