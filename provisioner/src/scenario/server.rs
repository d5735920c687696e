//! A server that a scenario starts by itself, where no topology can say what it wants.

use std::path::PathBuf;

use rustix::process::Signal;

use super::failure::Failure;
use super::stage::{Stage, unescaped};
use super::subject::Words;
use crate::host::local::{Attend, Attended, Exit};

/// One member, with a directory and ports of its own.
pub(super) struct Server<'s> {
    pub(super) client_port: u16,
    pub(super) peer_port: u16,
    pub(super) args: Vec<String>,
    pub(super) env: Vec<(String, String)>,
    /// In place of the server under test: a wrapper whose last argument is the server's path.
    pub(super) wrapper: Vec<String>,
    stage: &'s Stage,
    program: PathBuf,
    dir: PathBuf,
    running: Option<Attended>,
}

impl<'s> Server<'s> {
    /// A member that is told of nobody.
    pub(super) fn stranger(stage: &'s Stage, name: &str) -> Result<Self, Failure> {
        let (client_port, peer_port) = (stage.port()?, stage.port()?);
        let dir = stage.path(name);
        std::fs::create_dir_all(&dir).map_err(|error| {
            let error = crate::error::Error::io("create", &dir)(error);
            Failure::setup("a directory for a member", &error)
        })?;
        let client = format!("http://127.0.0.1:{client_port}");
        let peer = format!("http://127.0.0.1:{peer_port}");
        Ok(Self {
            client_port,
            peer_port,
            args: vec![
                format!("--name={name}"),
                format!("--data-dir={}", dir.join("data").display()),
                format!("--listen-client-urls={client}"),
                format!("--advertise-client-urls={client}"),
                format!("--listen-peer-urls={peer}"),
                format!("--initial-advertise-peer-urls={peer}"),
            ],
            env: Vec::new(),
            wrapper: Vec::new(),
            program: stage.subject.program.clone(),
            stage,
            dir,
            running: None,
        })
    }

    /// A cluster of one.
    pub(super) fn alone(stage: &'s Stage, name: &str) -> Result<Self, Failure> {
        let server = Self::stranger(stage, name)?;
        let initial = format!("--initial-cluster={name}={}", server.peer_url());
        Ok(server.with([initial]))
    }

    /// Strangers that are then told of one another.
    pub(super) fn cluster(stage: &'s Stage, size: usize) -> Result<Vec<Self>, Failure> {
        let servers: Result<Vec<Self>, Failure> = (0..size)
            .map(|index| Self::stranger(stage, &format!("infra{index}")))
            .collect();
        let mut servers = servers?;
        let initial: Vec<String> = servers
            .iter()
            .enumerate()
            .map(|(index, server)| format!("infra{index}={}", server.peer_url()))
            .collect();
        for server in &mut servers {
            server
                .args
                .push(format!("--initial-cluster={}", initial.join(",")));
        }
        Ok(servers)
    }

    /// Later flags take the place of earlier ones.
    pub(super) fn with(mut self, args: impl IntoIterator<Item = String>) -> Self {
        self.args.extend(args);
        self
    }

    pub(super) fn client_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.client_port)
    }

    pub(super) fn peer_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.peer_port)
    }

    pub(super) fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// All that it said, without the escapes that JSON puts before quotes.
    pub(super) fn log(&self) -> String {
        let bytes = std::fs::read(self.dir.join("log")).unwrap_or_default();
        unescaped(&String::from_utf8_lossy(&bytes))
    }

    pub(super) fn start(&mut self) -> Result<(), Failure> {
        let program = self.program.display().to_string();
        let mut command: Vec<String> = self.wrapper.clone();
        command.push(program);
        command.extend(self.args.iter().cloned());
        self.running = Some(self.stage.start(Attend {
            program: std::path::Path::new(&command[0]),
            args: &command[1..],
            env: &self.env,
            dir: &self.dir,
            log: Some(&self.dir.join("log")),
        })?);
        Ok(())
    }

    pub(super) async fn started(mut self) -> Result<Self, Failure> {
        self.start()?;
        self.ready().await?;
        Ok(self)
    }

    /// Waits until it answers a linearizable read.
    pub(super) async fn ready(&mut self) -> Result<(), Failure> {
        self.answers(&self.client_url(), &[]).await
    }

    /// The same, with etcdctl's flags for TLS.
    pub(super) async fn answers(&self, url: &str, flags: &[String]) -> Result<(), Failure> {
        self.stage
            .wait("it answers a read", || self.read(url, flags))
            .await
    }

    async fn read(&self, url: &str, flags: &[String]) -> Result<Option<()>, Failure> {
        let read = ["get", "x", "--dial-timeout=2s", "--command-timeout=2s"].map(str::to_owned);
        let done = self
            .stage
            .etcdctl(url, &[&read[..], flags].concat())
            .await?;
        Ok(done.ok().then_some(()))
    }

    /// Whether it answers a linearizable read within two seconds.
    pub(super) async fn serves(&self, url: &str, flags: &[String]) -> Result<bool, Failure> {
        Ok(self.read(url, flags).await?.is_some())
    }

    /// Waits until its log has a text. One that ends without it will never say it.
    pub(super) async fn says(&mut self, words: Words<'_>) -> Result<(), Failure> {
        let stage = self.stage;
        let text = stage.says(words);
        stage
            .wait(&format!("it says {text:?}"), || {
                let exit = self.running.as_mut().and_then(Attended::exit);
                let said = self.log().contains(text);
                async move {
                    match exit {
                        _ if said => Ok(Some(())),
                        Some(exit) => Err(Failure::check(text, exit.to_string())),
                        None => Ok(None),
                    }
                }
            })
            .await
    }

    /// It must not end by itself.
    pub(super) fn runs(&mut self) -> Result<(), Failure> {
        match self.running.as_mut().and_then(Attended::exit) {
            None => Ok(()),
            Some(exit) => Err(Failure::check("it keeps running", exit.to_string())),
        }
    }

    /// Waits until it ends by itself, with that code and all these texts in its log.
    pub(super) async fn ends(&mut self, code: i32, texts: &[&str]) -> Result<(), Failure> {
        let step = self.stage.current_step();
        self.stage.step(format!("{step}: wait until it ends"));
        let exit = self.exit().await?;
        self.stage.step(step);
        let log = self.log();
        if exit != Exit::Code(code) {
            return Err(Failure::check(
                format!("exit code {code}"),
                exit.to_string(),
            ));
        }
        match texts.iter().find(|text| !log.contains(**text)) {
            None => Ok(()),
            Some(text) => Err(Failure::check(*text, last_line(&log))),
        }
    }

    /// Asks it to stop, and waits until it has.
    pub(super) async fn stop(&mut self) -> Result<(), Failure> {
        self.signal(Signal::TERM).await
    }

    pub(super) async fn kill(&mut self) -> Result<(), Failure> {
        self.signal(Signal::KILL).await
    }

    async fn signal(&mut self, signal: Signal) -> Result<(), Failure> {
        if let Some(running) = &self.running {
            running
                .process
                .signal(signal)
                .map_err(|error| Failure::setup("a signal to a server", &error))?;
            self.exit().await?;
        }
        Ok(())
    }

    async fn exit(&mut self) -> Result<Exit, Failure> {
        let Some(mut running) = self.running.take() else {
            return Err(Failure::check("a server that was started", "it was not"));
        };
        running
            .wait()
            .await
            .map_err(|error| Failure::setup("the end of a server", &error))
    }
}

// What ended it is said last, but for what etcd adds after a failed discovery; the logs of the report have more.
fn last_line(log: &str) -> String {
    log.lines().next_back().unwrap_or("nothing").to_owned()
}
