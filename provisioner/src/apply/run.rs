//! The steps, one after another.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::try_join_all;
use time::OffsetDateTime;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::interrupt::Interrupt;
use super::probe::{Probe, Receipt};
use super::ready::ready;
use super::records;
use super::register::prepare;
use super::stop::stop_all;
use super::target::{Started, Target, Until};
use crate::cluster::{Cluster, Prepared};
use crate::diagnose::{Diagnosis, diagnose};
use crate::duration;
use crate::error::Error;
use crate::host::local::{Launch, Launched, Owner, Process, Put, listeners, owner_of};
use crate::instance::Instance;
use crate::observe::{Access, CallError, Health, Observed, VERSION_FILE, Vitals, claim, look_at};
use crate::output::Output;
use crate::pki;
use crate::plan::{Ledger, Plan, Planned, Refusal, Step};
use crate::render::srv_records;
use crate::services::{Service, registration};
use crate::state::{Journal, Outcome, Unit};
use crate::topology::{ClientTls, Member, Role, to_toml};

use Unready::{Ended, Waited};

// A member hands its leadership over and closes its files within a second; etcd waits 5 s for its own clients.
pub(super) const STOP_LIMIT: Duration = Duration::from_secs(10);
// Longer than an election with default timeouts.
const MOVE_LIMIT: Duration = Duration::from_secs(5);
pub(super) const GATE_LIMIT: Duration = Duration::from_secs(5);
pub(super) const GATE_EVERY: Duration = Duration::from_millis(10);
const SERVICE_EVERY: Duration = Duration::from_millis(5);
const LAST_LINES: usize = 12;
const DIAGNOSED_LINES: usize = 200;

/// Everything that the steps need.
#[derive(Clone, Copy, Debug)]
pub struct Apply<'a> {
    /// The cluster.
    pub cluster: &'a Cluster,
    /// What is wanted.
    pub prepared: &'a Prepared,
    /// What was true when the plan was made.
    pub observed: &'a Observed,
    /// Where progress goes.
    pub output: &'a Output,
    /// How long one step may take.
    pub timeout: Duration,
    /// Whether steps may leave the cluster without quorum.
    pub accept_downtime: bool,
    /// How long members live.
    pub lifetime: Lifetime,
    /// How long writes may be without an answer before no further member is touched.
    pub budget: Option<Duration>,
    /// Asks to stop.
    pub interrupt: &'a Interrupt,
}

/// How long members live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// Until they are stopped, whatever becomes of this process.
    Own,
    /// Not longer than this process.
    Ours,
}

/// What came of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// What a client saw, when the cluster was up before.
    pub receipt: Option<Receipt>,
}

/// Processes and clients of one run.
pub(super) struct Run {
    pub(super) started: BTreeMap<String, Started>,
    /// Those whose processes were stopped for good.
    pub(super) retired: BTreeSet<String>,
    services: Vec<(String, Target)>,
    pub(super) first_boot: bool,
    access: Option<Access>,
    /// As it is remembered by now.
    pub(super) instance: Instance,
}

impl Apply<'_> {
    /// Runs the plan. The caller holds the lock.
    pub async fn run(&self, plan: &Plan, journal: &mut Journal) -> Result<Applied, Error> {
        if let Some(step) = journal.interrupted_at() {
            self.output
                .note(format!("resuming: an earlier run was cut off in {step:?}"));
        }
        let probe = self.probe(plan)?;
        let starts_first = |planned: &Planned| {
            matches!(
                planned.step,
                Step::Start {
                    first_boot: true,
                    ..
                }
            )
        };
        let mut run = Run {
            started: BTreeMap::new(),
            retired: BTreeSet::new(),
            services: Vec::new(),
            first_boot: plan.steps.iter().any(starts_first),
            access: None,
            instance: self.prepared.proposal.instance.clone(),
        };
        let result = self.steps(plan, journal, &mut run, probe.as_ref()).await;
        let receipt = match probe {
            Some(probe) => probe.finish().await,
            None => None,
        };
        if let Some(receipt) = &receipt {
            journal.note(&receipt.to_string())?;
        }
        match result {
            Ok(()) => {
                // Not every plan starts a member, and whatever was changed is what the next run finds.
                let dir = &self.cluster.dir;
                dir.save_topology(&to_toml(&self.cluster.topology))?;
                journal.end(Outcome::Done)?;
                Ok(Applied { receipt })
            }
            Err(error) => {
                self.undo_first_boot(&run).await;
                let interrupted = self.interrupt.token().is_cancelled();
                journal.note(&format!("{error}: {}", error.causes().join(": ")))?;
                journal.end(if interrupted {
                    Outcome::Interrupted
                } else {
                    Outcome::Failed
                })?;
                Err(error)
            }
        }
    }

    async fn steps(
        &self,
        plan: &Plan,
        journal: &mut Journal,
        run: &mut Run,
        probe: Option<&Probe>,
    ) -> Result<(), Error> {
        for planned in &plan.steps {
            self.interrupt.check()?;
            self.check_budget(probe)?;
            let text = planned.step.to_string();
            journal.step(&text)?;
            self.output.detail(&text);
            self.step(&planned.step, run).await?;
            journal.step_done(&text)?;
        }
        Ok(())
    }

    fn check_budget(&self, probe: Option<&Probe>) -> Result<(), Error> {
        let (Some(budget), Some(probe)) = (self.budget, probe) else {
            return Ok(());
        };
        let seen = probe.so_far();
        if seen.longest_write_gap() <= budget {
            return Ok(());
        }
        Err(Error::refused(
            format!(
                "halted before the next member, because writes waited longer than {}: {seen}",
                duration::show(budget)
            ),
            format!(
                "see `provision status {}` and the members' logs; the same command goes on with a larger --budget, and `provision upgrade --rollback` goes back",
                self.cluster.dir.name()
            ),
        ))
    }

    async fn step(&self, step: &Step, run: &mut Run) -> Result<(), Error> {
        match step {
            Step::Remember { .. } => self.remember(),
            Step::WriteCertificates { .. } => self.write_certificates(),
            Step::Install { members } => self.install(members).await,
            Step::StartServices { services, .. } => self.start_services(services, run).await,
            Step::StopServices { services } => self.stop_services(services).await,
            Step::PrepareDiscovery { registering, .. } => self.prepare_discovery(registering).await,
            Step::Start {
                members,
                first_boot,
            } => {
                // The instance may have been remembered by a run that came no further.
                self.cluster
                    .dir
                    .save_topology(&to_toml(&self.cluster.topology))?;
                if *first_boot {
                    self.check_records().await?;
                }
                self.start_all(members, run).await
            }
            Step::WaitReady { members } => self.wait_all(members, run).await,
            Step::MoveLeader { from, to } => self.move_leader(from, to, run).await,
            Step::Announce { member } => self.announce(member, run).await,
            Step::Restart { member, .. } => self.restart(member, run).await,
            Step::Stop { members } => self.stop(members).await,
            Step::Alone { member } => self.stand_alone(member, run).await,
            Step::AddLearner { member } => self.add_learner(member, run).await,
            Step::Join { member } => self.join(member, run).await,
            Step::Promote { member } => self.promote(member, run).await,
            Step::Remove { member } => self.remove(member, run).await,
            Step::Retire {
                member,
                out_of_reach,
            } => self.retire(member, out_of_reach.as_deref(), run).await,
        }
    }

    fn remember(&self) -> Result<(), Error> {
        let dir = &self.cluster.dir;
        dir.save_topology(&to_toml(&self.cluster.topology))?;
        dir.save(&self.prepared.proposal.instance)?;
        Ok(())
    }

    fn write_certificates(&self) -> Result<(), Error> {
        let line = self.output.line("certificates");
        line.set("writing");
        let (instance, actions) = (
            &self.prepared.proposal.instance,
            &self.prepared.certificates,
        );
        pki::apply(
            &self.cluster.topology,
            instance,
            actions,
            OffsetDateTime::now_utc(),
        )?;
        line.done(format!("{} written", actions.len()));
        Ok(())
    }

    async fn start_all(&self, names: &[String], run: &mut Run) -> Result<(), Error> {
        for name in names {
            if !self.prepared.deployments.contains_key(name) {
                let Prepared {
                    proposal,
                    argv,
                    files,
                    ..
                } = self.prepared;
                let argv = argv.get(name).map(Vec::as_slice).unwrap_or_default();
                let launched = self
                    .start_here(name, &proposal.instance, files.get(name), argv)
                    .map_err(|error| error.at(name, "start"))?;
                run.started.insert(name.clone(), launched.into());
            }
        }
        self.start_all_there(names, run).await
    }

    /// Starts a process of this machine.
    pub(super) fn start_here(
        &self,
        name: &str,
        instance: &Instance,
        file: Option<&(PathBuf, String)>,
        argv: &[String],
    ) -> Result<Launched, Error> {
        let unit = Unit::Member(name);
        let dir = self.cluster.dir.create_unit_dir(&unit)?;
        if let Some((path, text)) = file {
            self.cluster.dir.save_given(path, text)?;
        }
        claim(instance, name).map_err(|error| Error::Io {
            action: error.action,
            path: error.path,
            source: error.source,
        })?;
        self.launch(&unit, &dir, argv)
    }

    pub(super) fn remember_start(
        &self,
        name: &str,
        process: &Process,
        argv: &[String],
    ) -> Result<(), Error> {
        let unit = Unit::Member(name);
        self.cluster.dir.create_unit_dir(&unit)?;
        self.cluster.dir.save_record(&unit, process, argv)?;
        Ok(())
    }

    pub(super) fn launch(
        &self,
        unit: &Unit<'_>,
        dir: &Path,
        argv: &[String],
    ) -> Result<Launched, Error> {
        let (program, args) = argv
            .split_first()
            .ok_or_else(|| Error::because("nothing to run", "no arguments were rendered"))?;
        let launch = Launch {
            program: Path::new(program),
            args,
            log: &self.cluster.dir.unit_log(unit),
            dir,
            dies_with_parent: self.lifetime == Lifetime::Ours,
            run_as: None,
        };
        let launched = launch
            .start()
            .map_err(|error| Error::because("the process does not start", error))?;
        self.cluster
            .dir
            .save_record(unit, &launched.process, argv)?;
        Ok(launched)
    }

    async fn start_services(&self, names: &[String], run: &mut Run) -> Result<(), Error> {
        self.stop_services(names).await?;
        for service in &self.prepared.services {
            if names.contains(&service.name) {
                self.start_service(service, run)
                    .await
                    .map_err(|error| error.at(&service.name, "start"))?;
            }
        }
        Ok(())
    }

    /// Starts one and waits until its port is open.
    async fn start_service(&self, service: &Service, run: &mut Run) -> Result<(), Error> {
        let unit = Unit::Service(&service.name);
        let line = self.output.line(&service.name);
        line.set("waiting for its port");
        let dir = self.cluster.dir.create_unit_dir(&unit)?;
        if let Some((path, text)) = &service.file {
            self.cluster.dir.save_given(path, text)?;
        }
        if let Some(owner) = held_by(service.address)? {
            line.fail("its port is taken");
            return Err(Error::failed(
                format!("{} is held by {owner}", service.address),
                "stop that, or give the service another port",
            ));
        }
        let mut started = Started::from(self.launch(&unit, &dir, &service.argv)?);
        run.services
            .push((service.name.clone(), started.target.clone()));
        let pid = started.target.process().pid;
        // Somebody else may have taken the port since; only its own answers count.
        let opened = async {
            while TcpStream::connect(service.address).await.is_err()
                || held_by(service.address)?.and_then(|owner| owner.pid()) != Some(pid)
            {
                sleep(SERVICE_EVERY).await;
            }
            Ok::<_, Error>(())
        };
        let target = started.target.clone();
        tokio::select! {
            biased;
            how = target.gone() => {
                line.fail("died");
                return Err(died(Some(&mut started), how?, &self.cluster.dir.unit_log(&unit).display().to_string()).await);
            }
            opened = opened => opened?,
            () = sleep(self.timeout) => return Err(Error::timed_out(
                format!("its port, {}", service.address),
                self.timeout,
                format!("see {}", self.cluster.dir.unit_log(&unit).display()),
            )),
            () = self.interrupt.token().cancelled() => return Err(self.interrupt.error()),
        }
        line.done(format!("answers, pid {pid}, {}", service.address));
        Ok(())
    }

    async fn stop_services(&self, names: &[String]) -> Result<(), Error> {
        let running = names.iter().filter_map(|name| {
            let running = self.observed.services.get(name)?.as_ref()?;
            Some((name.clone(), Target::Here(running.process.clone())))
        });
        let running: Vec<_> = running.collect();
        stop_all(&running, Until::Started, STOP_LIMIT.min(self.timeout))
            .await
            .map(drop)
    }

    async fn check_records(&self) -> Result<(), Error> {
        let wanted = srv_records(&self.cluster.topology, &self.prepared.proposal.instance);
        if wanted.is_empty() {
            return Ok(());
        }
        let line = self.output.line("dns");
        line.set("asking for the cluster's records");
        if let Err(error) = records::check(&wanted).await {
            line.fail("has other records than the members need");
            return Err(error.at("dns", "look at the SRV records"));
        }
        line.done(format!("has the {} SRV records", wanted.len()));
        Ok(())
    }

    async fn prepare_discovery(&self, registering: &[String]) -> Result<(), Error> {
        let topology = &self.cluster.topology;
        let Some(registration) = registration(topology, &self.prepared.proposal.instance) else {
            return Ok(());
        };
        let limit = self.timeout;
        tokio::select! {
            prepared = prepare(&registration, registering, limit) => prepared,
            () = self.interrupt.token().cancelled() => Err(self.interrupt.error()),
        }
    }

    async fn wait_all(&self, names: &[String], run: &mut Run) -> Result<(), Error> {
        let access = self.access(run)?;
        if names.iter().any(|name| self.shares_its_port(name)) {
            for name in names {
                self.until_both_are_served(name, &access, run).await?;
            }
            return Ok(());
        }
        let mut started: BTreeMap<&str, &mut Started> = run
            .started
            .iter_mut()
            .map(|(name, started)| (name.as_str(), started))
            .collect();
        let waits: Vec<_> = names
            .iter()
            .map(|name| {
                self.wait_ready(
                    name,
                    started.remove(name.as_str()),
                    &access,
                    self.interrupt.token(),
                )
            })
            .collect();
        match try_join_all(waits).await {
            Ok(_) => Ok(()),
            Err(error) => Err(explained(error, run.started.values()).await),
        }
    }

    /// Waits until one member is ready, it dies, the deadline passes or `cancel` fires.
    pub(super) async fn wait_ready(
        &self,
        name: &str,
        started: Option<&mut Started>,
        access: &Access,
        cancel: &CancellationToken,
    ) -> Result<Vitals, Error> {
        let (member, port) = self.place(name, started.is_some())?;
        let line = self.output.line(name);
        line.set("waiting for a linearizable read");
        let target = match &started {
            Some(started) => Some(started.target.clone()),
            None => self.target(name).await?,
        };
        let there = member.host.as_ref();
        let there = there
            .map(|host| format!(" on {}", host.url()))
            .unwrap_or_default();
        let mut trouble = "it has not been asked yet".to_owned();
        let result = tokio::select! {
            biased;
            vitals = ready(access, &member, port, &mut trouble) => Ok(vitals),
            how = gone(target.as_ref()) => match how {
                Ok(how) => Err(Ended(how)),
                Err(lost) => Err(Waited(lost)),
            },
            () = sleep(self.timeout) => Err(Waited(Error::timed_out(
                "readiness",
                self.timeout,
                format!("see `provision logs {} {name}`, or wait longer with --timeout", self.cluster.dir.name()),
            ))),
            () = cancel.cancelled() => Err(Waited(self.interrupt.error())),
        };
        match result {
            Ok(vitals) => {
                if self.cluster.topology.tls.client == ClientTls::Auto {
                    pki::collect(&self.prepared.proposal.instance)?;
                }
                let pid = target
                    .map(|target| format!("pid {}, ", target.process().pid))
                    .unwrap_or_default();
                if started.is_some() {
                    let saved = self.save_version(name, &vitals.version).await;
                    saved.map_err(|error| error.at(name, "write down its version"))?;
                }
                line.done(format!("ready, {pid}{}:{port}", member.address));
                Ok(vitals)
            }
            Err(Ended(how)) => {
                line.fail("died");
                let log = match &member.host {
                    Some(_) => format!("`provision logs {} {name}`", self.cluster.dir.name()),
                    None => self
                        .cluster
                        .dir
                        .unit_log(&Unit::Member(name))
                        .display()
                        .to_string(),
                };
                let step = if started.is_some() {
                    format!("start{there}")
                } else {
                    format!("wait until it is ready{there}")
                };
                Err(died(started, how, &log).await.at(name, step))
            }
            Err(Waited(error @ Error::TimedOut { .. })) => {
                line.fail(format!("not ready: {trouble}"));
                Err(error.at(
                    name,
                    format!("wait until it is ready{there}, last seen: {trouble}"),
                ))
            }
            Err(Waited(lost @ Error::Ssh(_))) => {
                line.fail("its machine is lost");
                Err(lost.at(name, "wait until it is ready"))
            }
            Err(Waited(error)) => Err(error),
        }
    }

    /// Writes beside a member's data which version has come to terms with them.
    async fn save_version(&self, name: &str, version: &str) -> Result<(), Error> {
        let facts = self.observed.members.get(name);
        if facts.is_some_and(|facts| facts.version.as_deref() == Some(version)) {
            return Ok(());
        }
        let text = format!("{version}/etcd3\n");
        let (member, _) = self.place(name, true)?;
        let place = self.prepared.proposal.instance.place(name);
        let home = place.and_then(|place| place.host_dir.as_ref());
        match (&member.host, home) {
            (Some(host), Some(home)) => {
                let put = Put {
                    path: home.join(VERSION_FILE),
                    mode: 0o644,
                    owner: None,
                    keep: false,
                };
                let agent = self.cluster.hosts.agent(host).await?;
                agent.put(&put, text.into(), self.timeout).await
            }
            _ => {
                let dir = self.cluster.dir.create_unit_dir(&Unit::Member(name))?;
                let path = dir.join(VERSION_FILE);
                Ok(self.cluster.dir.save_given(&path, &text)?)
            }
        }
    }

    async fn move_leader(&self, from: &str, to: &str, run: &mut Run) -> Result<(), Error> {
        let line = self.output.line(from);
        line.set(format!("handing leadership to {to}"));
        match self.try_move_leader(from, to, run).await {
            Ok(true) => line.done(format!("handed leadership to {to}")),
            Ok(false) => line.done("does not lead any more"),
            // Without the hand-over the restart costs an election, which is no reason to stop here.
            Err(error) if error.is_unimplemented() => {
                line.done("cannot hand leadership over; its restart will cost an election")
            }
            Err(error) => line.fail(format!("did not hand leadership over: {error}")),
        }
        Ok(())
    }

    pub(super) async fn try_move_leader(
        &self,
        from: &str,
        to: &str,
        run: &mut Run,
    ) -> Result<bool, CallError> {
        let Ok(access) = self.access(run) else {
            return Ok(false);
        };
        let (Ok((leader, leader_port)), Ok((target, target_port))) =
            (self.place_now(from, run), self.place_now(to, run))
        else {
            return Ok(false);
        };
        let client = access.connect(&leader, leader_port, MOVE_LIMIT).await?;
        let vitals = client.status(MOVE_LIMIT).await?;
        if vitals.leader != vitals.id {
            return Ok(false);
        }
        let target = access.connect(&target, target_port, MOVE_LIMIT).await?;
        let target_id = target.status(MOVE_LIMIT).await?.id;
        client.move_leader(target_id, MOVE_LIMIT).await?;
        let deadline = Instant::now() + MOVE_LIMIT;
        // The call returns when the transfer is done; the new leader may need a moment to say so.
        while target.status(MOVE_LIMIT).await?.leader != target_id && Instant::now() < deadline {
            sleep(Duration::from_millis(5)).await;
        }
        Ok(true)
    }

    /// Stops one member and starts it again. Once begun it is finished: half a restart leaves a member down.
    async fn restart(&self, name: &str, run: &mut Run) -> Result<(), Error> {
        self.gate(name, run).await?;
        let dir = &self.cluster.dir;
        dir.save_topology(&to_toml(&self.cluster.topology))?;
        self.start_again(name, run).await?;
        let access = self.access(run)?;
        if self.shares_its_port(name) {
            return self.until_both_are_served(name, &access, run).await;
        }
        let unstoppable = CancellationToken::new();
        self.wait_ready(name, run.started.get_mut(name), &access, &unstoppable)
            .await
            .map(drop)
    }

    /// Stops a member, if it runs, and starts it with what it has to be started with by now.
    pub(super) async fn start_again(&self, name: &str, run: &mut Run) -> Result<(), Error> {
        let limit = STOP_LIMIT.min(self.timeout);
        let running = match run.started.get(name) {
            Some(started) => Some(started.target.clone()),
            None => self.target(name).await?,
        };
        if let Some(target) = running {
            stop_all(&[(name.to_owned(), target)], Until::Restart, limit).await?;
        }
        let started = self.start_as(&self.member(name)?, run).await;
        started.map_err(|error| error.at(name, "start"))
    }

    /// Looks again right before a member is taken down: the world may have changed since the plan was made.
    async fn gate(&self, name: &str, run: &mut Run) -> Result<(), Error> {
        let access = self.access(run)?;
        let voters: Vec<&Member> = self
            .cluster
            .topology
            .members
            .iter()
            .filter(|member| member.role == Role::Voter)
            .collect();
        if self.accept_downtime || !voters.iter().any(|member| member.name == name) {
            return Ok(());
        }
        let deadline = Instant::now() + GATE_LIMIT.min(self.timeout);
        loop {
            let ready = try_join_all(voters.iter().map(|member| async {
                Ok::<_, Error>((
                    member.name.as_str(),
                    self.is_ready(&access, &member.name, run).await?,
                ))
            }))
            .await?;
            let others = ready
                .iter()
                .filter(|(other, is_ready)| *is_ready && *other != name)
                .count();
            let ledger = Ledger::new(voters.len(), others);
            // A member that is not ready itself takes nothing away.
            let takes = ready
                .iter()
                .any(|(other, is_ready)| *is_ready && *other == name);
            if ledger.margin >= 0 || !takes {
                return Ok(());
            }
            // Right after leadership moved, those who followed the old leader need a moment.
            if Instant::now() >= deadline {
                return Err(Refusal::Margin {
                    step: format!("restart {name}"),
                    ledger: ledger.to_string(),
                }
                .into());
            }
            sleep(GATE_EVERY).await;
        }
    }

    pub(super) async fn is_ready(
        &self,
        access: &Access,
        name: &str,
        run: &Run,
    ) -> Result<bool, Error> {
        let (member, port) = self.place_now(name, run)?;
        let health = look_at(access, &member, port, GATE_LIMIT.min(self.timeout)).await;
        Ok(matches!(health, Health::Up(vitals) if vitals.not_ready.is_none()))
    }

    async fn stop(&self, names: &[String]) -> Result<(), Error> {
        let mut targets = Vec::new();
        for name in names {
            targets.extend(
                self.target(name)
                    .await?
                    .map(|target| (name.clone(), target)),
            );
        }
        stop_all(&targets, Until::Started, self.timeout)
            .await
            .map(drop)
    }

    /// A cluster that never came up is left stopped; what runs of one that did is left running.
    async fn undo_first_boot(&self, run: &Run) {
        if !run.first_boot {
            return;
        }
        let targets: Vec<(String, Target)> = run
            .started
            .iter()
            .map(|(name, started)| (name.clone(), started.target.clone()))
            .chain(run.services.iter().cloned())
            .collect();
        if targets.is_empty() {
            return;
        }
        match stop_all(&targets, Until::Started, STOP_LIMIT).await {
            Ok(_) => self.output.note("what was started is stopped again"),
            Err(error) => self
                .output
                .warn(format!("{error}: {}", error.causes().join(": "))),
        }
    }

    fn probe(&self, plan: &Plan) -> Result<Option<Probe>, Error> {
        let disturbs = |step: &Step| {
            matches!(
                step,
                Step::Start { .. }
                    | Step::Restart { .. }
                    | Step::MoveLeader { .. }
                    | Step::AddLearner { .. }
                    | Step::Join { .. }
                    | Step::Promote { .. }
                    | Step::Remove { .. }
            )
        };
        let up: Vec<&String> = self
            .observed
            .members
            .iter()
            .filter(|(_, facts)| facts.is_ready())
            .map(|(name, _)| name)
            .collect();
        if up.is_empty() || !plan.steps.iter().any(|planned| disturbs(&planned.step)) {
            return Ok(None);
        }
        // Those that are up come first; the others serve once they are back.
        let mut members: Vec<&Member> = self.cluster.topology.members.iter().collect();
        members.sort_by_key(|member| !up.contains(&&member.name));
        let mut places = Vec::new();
        for member in members {
            // A port that moves is two places, each of which answers for a while.
            for place in [
                self.place(&member.name, false)?,
                self.place(&member.name, true)?,
            ] {
                if !places.contains(&place) {
                    places.push(place);
                }
            }
        }
        let access = Access::read(
            &self.cluster.topology,
            &self.prepared.proposal.instance,
            &self.cluster.hosts,
        )?;
        Ok(Some(Probe::start(access, places)))
    }

    // Certificates exist from the second step on; reading them once is enough.
    pub(super) fn access(&self, run: &mut Run) -> Result<Access, Error> {
        if let Some(access) = &run.access {
            return Ok(access.clone());
        }
        let access = Access::read(
            &self.cluster.topology,
            &self.prepared.proposal.instance,
            &self.cluster.hosts,
        )?;
        Ok(run.access.insert(access).clone())
    }

    /// A member and its client port: the wanted one once this run has started it, until then the one that it runs with.
    pub(super) fn place(&self, name: &str, started: bool) -> Result<(Member, u16), Error> {
        let instance = &self.prepared.proposal.instance;
        let members = self.cluster.topology.members.iter().cloned();
        // One that moves is where it was until it is started.
        let former = instance.former_member(name).filter(|_| !started);
        let member = former.into_iter();
        let member = member
            .chain(members)
            .chain(instance.leaving_members())
            .find(|member| member.name == name);
        let wanted = instance.place(name).map(|placement| placement.client_port);
        let running = self
            .observed
            .members
            .get(name)
            .and_then(|facts| facts.process.as_ref()?.client_port());
        let port = if started { wanted } else { running.or(wanted) };
        member.zip(port).ok_or_else(|| {
            Error::because(
                format!("member {name} has no place"),
                "the plan and the instance disagree",
            )
        })
    }

    pub(super) fn place_now(&self, name: &str, run: &Run) -> Result<(Member, u16), Error> {
        self.place(name, run.started.contains_key(name))
    }

    /// The process that ran when the plan was made.
    pub(super) async fn target(&self, name: &str) -> Result<Option<Target>, Error> {
        let Cluster {
            topology, hosts, ..
        } = self.cluster;
        let instance = &self.prepared.proposal.instance;
        Target::of(name, topology, instance, self.observed, hosts).await
    }
}

/// Why a wait for readiness ended without it.
enum Unready {
    /// The process is gone; how it ended, where that is known.
    Ended(Option<String>),
    /// A deadline passed or the run was interrupted.
    Waited(Error),
}

/// Who listens where something else would stand in the way.
fn held_by(address: SocketAddr) -> Result<Option<Owner>, Error> {
    let look = |source| Error::because("cannot look up who holds a port", source);
    let listeners = listeners().map_err(look)?;
    let listener = listeners.iter().find(|listener| listener.blocks(address));
    listener.map(owner_of).transpose().map_err(look)
}

/// Adds what the members' logs say to a wait that was in vain: the one that was waited for may not be the one that is wrong.
async fn explained(error: Error, started: impl Iterator<Item = &Started>) -> Error {
    let Error::At {
        member,
        step,
        source,
    } = error
    else {
        return error;
    };
    let source = match *source {
        Error::TimedOut { what, waited, fix } => {
            let mut diagnosis = None;
            for started in started {
                diagnosis = diagnose(&started.last_lines(DIAGNOSED_LINES).await);
                if diagnosis.is_some() {
                    break;
                }
            }
            match diagnosis {
                Some(diagnosis) => Error::TimedOut {
                    what: format!("{}: {what}", diagnosis.cause),
                    waited,
                    fix: format!("{}; {fix}", diagnosis.fix),
                },
                None => Error::TimedOut { what, waited, fix },
            }
        }
        other => other,
    };
    source.at(member, step)
}

async fn died(started: Option<&mut Started>, how: Option<String>, log: &str) -> Error {
    let all = format!("all of its log is in {log}");
    let Some(started) = started else {
        return Error::failed("the process ended while it was waited for", all);
    };
    let exit = how.or_else(|| started.exit());
    let exit = exit.unwrap_or_else(|| "ended".to_owned());
    let diagnosis = diagnose(&started.last_lines(DIAGNOSED_LINES).await);
    let (cause, fix) = match diagnosis {
        Some(Diagnosis { cause, fix }) => (format!("{cause} ({exit})"), format!("{fix}; {all}")),
        None => (exit, format!("correct what the log says; {all}")),
    };
    let lines = started.last_lines(LAST_LINES).await;
    let said = if lines.is_empty() {
        "it printed nothing".to_owned()
    } else {
        format!("its last lines were\n{}", lines.join("\n"))
    };
    Error::Failed {
        what: format!("the process died at its start: {cause}"),
        fix: Some(fix),
        source: Some(said.into()),
    }
}

// Pending forever when there is no process to watch.
async fn gone(target: Option<&Target>) -> Result<Option<String>, Error> {
    match target {
        Some(target) => target.gone().await,
        None => std::future::pending().await,
    }
}
