//! Members that come and go.
//!
//! Every call is made against the list of the member that is asked, read after a linearizable read of the same member, and is judged
//! by the list alone: one that timed out may have succeeded, one that succeeded may have been made by an earlier run.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tonic::Code;

use super::run::{Apply, GATE_EVERY, GATE_LIMIT, Run, STOP_LIMIT};
use super::stop::stop_all;
use super::target::Until;
use crate::deployment;
use crate::error::Error;
use crate::host::local::{Disable, Kept, SetAside};
use crate::host::remote::SshError;
use crate::instance::{Origin, Reach};
use crate::observe::{CallError, Client, ListedMember};
use crate::plan::{Ledger, Refusal, whose};
use crate::render::peer_url;
use crate::state::Unit;
use crate::topology::{Member, Role, to_toml};

// etcd gives a change of its members 5 s by itself.
const CALL_LIMIT: Duration = Duration::from_secs(8);
const ASK_LIMIT: Duration = Duration::from_secs(2);
const ASK_EVERY: Duration = Duration::from_millis(50);
// A learner is in sync when it catches up with what the leader had within less than an election takes: Ongaro's thesis, 4.2.1.
const ROUND: Duration = Duration::from_secs(1);
const ROUND_EVERY: Duration = Duration::from_millis(10);

/// What came of one attempt.
enum Attempt<T> {
    /// All is as it should be.
    Done(T),
    /// A call was made; the list tells what it did.
    Called,
}

impl Apply<'_> {
    /// Adds a member as a learner, unless it is one.
    pub(super) async fn add_learner(&self, name: &str, run: &mut Run) -> Result<(), Error> {
        // Whatever fails from here on, there is a cluster.
        run.first_boot = false;
        let member = self.member(name)?;
        let place = self.placement(name, run)?;
        let url = peer_url(&self.cluster.topology, &member, &place);
        let anew = place.origin == Origin::Joining;
        let line = self.output.line(name);
        line.set("being added as a learner");
        let listed = self.listed(name, run).await?;
        if anew && listed.is_some_and(|entry| !entry.name.is_empty()) {
            // Nobody could be asked when the plan was made: the member that this one replaces is still there.
            self.remove(name, run).await?;
        }
        let added = self
            .agree(name, "addition", run, async |client, list| {
                if let Some(entry) = self.entry(name, &list) {
                    return Ok(Attempt::Done(entry.id));
                }
                client.add_learner(&url, CALL_LIMIT).await?;
                Ok(Attempt::Called)
            })
            .await;
        match added {
            Ok(id) => line.done(format!("added as a learner, ID {id:x}")),
            Err(error) => {
                line.fail("was not added");
                return Err(error.at(name, "add it to the cluster"));
            }
        }
        Ok(())
    }

    /// Starts an added member, unless it runs, and waits until it has what the others have.
    pub(super) async fn join(&self, name: &str, run: &mut Run) -> Result<(), Error> {
        let place = self.placement(name, run)?;
        let runs = self.runs(name) && place.origin != Origin::Joining;
        if !runs && !run.started.contains_key(name) {
            if !run.retired.contains(name) {
                self.retire_process(name).await?;
            }
            if place.origin == Origin::Joining {
                let aside = |error: Error| error.at(name, "set former data aside");
                self.set_aside(name, run).await.map_err(aside)?;
            }
            let list = self
                .agree(
                    name,
                    "its place in the list of members",
                    run,
                    async |_, list| Ok(Attempt::Done(list)),
                )
                .await?;
            let entries = list.iter().flat_map(|entry| {
                let own = whose(entry, &self.cluster.topology, &run.instance);
                let name = own.unwrap_or_else(|| entry.name.clone());
                entry
                    .peer_urls
                    .iter()
                    .map(move |url| format!("{name}={url}"))
            });
            let present: Vec<String> = entries.collect();
            if let Some(place) = run.instance.members.get_mut(name) {
                place.origin = Origin::Joined(present.join(","));
            }
            self.cluster.dir.save(&run.instance)?;
            self.start_joined(name, run)
                .await
                .map_err(|error| error.at(name, "start"))?;
        }
        let access = self.access(run)?;
        let cancel = self.interrupt.token();
        let started = run.started.get_mut(name);
        self.wait_ready(name, started, &access, cancel).await?;
        self.in_sync(name, run).await?;
        // Until then it counts as one that was never started, for the next plan and for the cluster's own checks.
        self.agree(
            name,
            "its name in the list of members",
            run,
            async |_, list| match self.entry(name, &list) {
                Some(entry) if !entry.name.is_empty() => Ok(Attempt::Done(())),
                _ => Err(not_yet("it has not published its name")),
            },
        )
        .await
    }

    /// Has the others reach a member over TLS, unless they do. From then on nobody reaches it, until it is restarted.
    pub(super) async fn announce(&self, name: &str, run: &mut Run) -> Result<(), Error> {
        let voters = self.cluster.topology.members.iter();
        let mut voters = voters.filter(|member| member.role == Role::Voter);
        if let Some(other) = voters.find(|member| member.name != name) {
            // The plan may not have known who leads.
            let moved = self.try_move_leader(name, &other.name, run).await;
            if let Ok(true) = moved {
                let line = self.output.line(name);
                line.done(format!("handed leadership to {}", other.name));
            }
        }
        self.set_reach(name, Reach::Unknown, run)?;
        let line = self.output.line(name);
        line.set("its peer URL is being changed to https");
        let announced = self
            .agree(name, "change of its peer URL", run, async |client, list| {
                let Some(entry) = self.entry(name, &list) else {
                    return Err(not_yet("the cluster does not list it"));
                };
                let secure: Vec<String> = entry
                    .peer_urls
                    .iter()
                    .map(|url| url.replacen("http://", "https://", 1))
                    .collect();
                if secure != entry.peer_urls {
                    client.update(entry.id, secure.clone(), CALL_LIMIT).await?;
                }
                // No look at what came of it: where it takes the quorum along, only its restart brings that back.
                Ok(Attempt::Done(secure))
            })
            .await;
        match announced {
            Ok(urls) => line.done(format!("is reached at {} from now on", urls.join(","))),
            Err(error) => {
                line.fail("its peer URL was not changed");
                return Err(error.at(name, "change its peer URL"));
            }
        }
        self.set_reach(name, Reach::AsWanted, run)
    }

    fn set_reach(&self, name: &str, how: Reach, run: &mut Run) -> Result<(), Error> {
        if let Some(place) = run.instance.members.get_mut(name) {
            place.reach = how;
        }
        Ok(self.cluster.dir.save(&run.instance)?)
    }

    /// Makes a learner a voter, unless it is one, and waits until it answers a linearizable read.
    pub(super) async fn promote(&self, name: &str, run: &mut Run) -> Result<(), Error> {
        // A cluster named without its file must not fall back.
        let topology = to_toml(&self.cluster.topology);
        self.cluster.dir.save_topology(&topology)?;
        // One that this run started was waited for right now.
        if !run.started.contains_key(name) {
            self.in_sync(name, run).await?;
        }
        let line = self.output.line(name);
        line.set("being promoted to a voter");
        let promoted = self
            .agree(name, "promotion", run, async |client, list| {
                match self.entry(name, &list) {
                    None => Err(not_yet("the cluster does not list it")),
                    Some(entry) if !entry.is_learner => Ok(Attempt::Done(entry.id)),
                    Some(entry) => {
                        client.promote(entry.id, CALL_LIMIT).await?;
                        Ok(Attempt::Called)
                    }
                }
            })
            .await;
        let votes = async {
            let access = self.access(run)?;
            let (member, port) = self.place_now(name, run)?;
            self.until(name, "an answer to a linearizable read", async || {
                self.in_reach(&member)?;
                let client = access.connect(&member, port, ASK_LIMIT).await?;
                client.linearizable_read(ASK_LIMIT).await?;
                Ok(Some(()))
            })
            .await
        };
        let promoted = match promoted {
            Ok(id) => votes.await.map(|()| id),
            Err(error) => Err(error),
        };
        match promoted {
            Ok(id) => {
                line.done(format!("votes, ID {id:x}"));
                Ok(())
            }
            Err(error) => {
                line.fail("was not promoted");
                Err(error.at(name, "promote it to a voter"))
            }
        }
    }

    /// Takes a member out of the cluster, unless it is out.
    pub(super) async fn remove(&self, name: &str, run: &mut Run) -> Result<(), Error> {
        self.gate_removal(name, run).await?;
        let line = self.output.line(name);
        line.set("being removed from the cluster");
        let mut removed = None;
        let done = self
            .agree(name, "removal", run, async |client, list| {
                let Some(entry) = self.entry(name, &list) else {
                    return Ok(Attempt::Done(()));
                };
                removed = Some(entry.id);
                client.remove(entry.id, CALL_LIMIT).await?;
                Ok(Attempt::Called)
            })
            .await;
        match (done, removed) {
            (Ok(()), Some(id)) => line.done(format!("removed from the cluster, ID {id:x}")),
            (Ok(()), None) => line.done("is in the cluster no more"),
            (Err(error), _) => {
                line.fail("was not removed");
                return Err(error.at(name, "remove it from the cluster"));
            }
        }
        Ok(())
    }

    /// Stops what is left of a member that was removed, puts its data aside and forgets it.
    pub(super) async fn retire(
        &self,
        name: &str,
        out_of_reach: Option<&str>,
        run: &mut Run,
    ) -> Result<(), Error> {
        let aside = |error: Error| error.at(name, "set its data aside");
        // The plan may rest on the list of a member that had not heard the news.
        if let Some(entry) = self.listed(name, run).await? {
            let error = Error::failed(
                format!("the cluster has it as a member, ID {:x}", entry.id),
                "run the same command again: the plan was made from an older list",
            );
            return Err(aside(error));
        }
        if let Some(why) = out_of_reach {
            self.output.warn(format!(
                "what member {name} has on its machine is left there: {why}. The cluster takes it back no more"
            ));
            self.cluster.dir.forget_record(&Unit::Member(name))?;
        } else {
            self.retire_process(name).await?;
            self.set_aside(name, run).await.map_err(aside)?;
        }
        run.retired.insert(name.to_owned());
        run.instance.leaving.remove(name);
        run.instance.former.remove(name);
        if let Some(place) = run.instance.members.get_mut(name) {
            place.origin = Origin::Joining;
        }
        self.cluster.dir.save(&run.instance)?;
        Ok(())
    }

    // Whether it ran when the plan was made.
    fn runs(&self, name: &str) -> bool {
        let facts = self.observed.members.get(name);
        facts.is_some_and(|facts| facts.process.is_some())
    }

    async fn retire_process(&self, name: &str) -> Result<(), Error> {
        let target = self.target(name).await?;
        let targets: Vec<_> = target
            .map(|target| (name.to_owned(), target))
            .into_iter()
            .collect();
        stop_all(&targets, Until::Started, STOP_LIMIT.min(self.timeout))
            .await
            .map(drop)
    }

    async fn set_aside(&self, name: &str, run: &Run) -> Result<(), Error> {
        let gone = run.instance.leaving.get(name);
        let gone = run.instance.former.get(name).or(gone);
        let (host, place) = match (gone, run.instance.members.get(name)) {
            (Some(gone), _) => (gone.host.clone(), &gone.placement),
            (None, Some(place)) => (self.member(name)?.host, place),
            (None, None) => return Ok(()),
        };
        let kept = match (&host, &place.host_dir) {
            (Some(host), Some(home)) => {
                let agent = self.cluster.hosts.agent(host).await?;
                // A namesake may run there, or fail over and over, since before this machine was left.
                if let Kept::BySystemd(unit) =
                    deployment::kept(host, &run.instance.cluster, name, place)
                {
                    agent.ask(&Disable { unit }, self.timeout).await?;
                }
                let aside = SetAside {
                    from: place.data_dir.clone(),
                    to: deployment::removed_dir(home),
                    name: name.to_owned(),
                };
                let kept = agent.ask(&aside, self.timeout).await?;
                if gone.is_some() {
                    let rest = deployment::traces(host, &run.instance.cluster, name, place);
                    agent.ask(&rest, self.timeout).await?;
                }
                self.cluster.dir.forget_record(&Unit::Member(name))?;
                kept
            }
            _ => self.cluster.dir.set_aside(name, &place.data_dir)?,
        };
        if let Some(path) = kept {
            let line = self.output.line(name);
            line.done(format!("its data is kept in {}", path.display()));
        }
        Ok(())
    }

    /// Makes a cluster of one member, which keeps its data and the cluster's ID: etcd's `--force-new-cluster`.
    pub(super) async fn stand_alone(&self, name: &str, run: &mut Run) -> Result<(), Error> {
        let mut alone = self.member(name)?;
        alone
            .flags
            .insert("force-new-cluster".to_owned(), "true".to_owned());
        let at = |error: Error| error.at(name, "make a cluster of it alone");
        self.start_as(&alone, run).await.map_err(at)?;
        // Half of it leaves a member that forgets the others at each start.
        let unstoppable = CancellationToken::new();
        let access = self.access(run)?;
        let started = run.started.get_mut(name);
        self.wait_ready(name, started, &access, &unstoppable)
            .await?;
        if let Some(started) = run.started.get(name) {
            let target = (name.to_owned(), started.target.clone());
            stop_all(&[target], Until::Restart, STOP_LIMIT).await?;
        }
        self.start_as(&self.member(name)?, run).await.map_err(at)?;
        let started = run.started.get_mut(name);
        self.wait_ready(name, started, &access, &unstoppable)
            .await
            .map(drop)
    }

    async fn start_joined(&self, name: &str, run: &mut Run) -> Result<(), Error> {
        self.start_as(&self.member(name)?, run).await
    }

    pub(super) async fn start_as(&self, member: &Member, run: &mut Run) -> Result<(), Error> {
        let programs = &self.prepared.programs;
        let name = &member.name;
        let given = self.cluster.given(programs, member, &run.instance)?;
        let deployed = self
            .cluster
            .deployment(programs, member, &run.instance, given);
        let started = match deployed {
            Ok(deployment) => {
                let target = self.start_there(name, &deployment).await?;
                self.remember_start(name, target.process(), &deployment.argv)?;
                target.into()
            }
            Err(given) => self
                .start_here(name, &run.instance, given.file.as_ref(), &given.argv)?
                .into(),
        };
        run.started.insert(name.to_owned(), started);
        Ok(())
    }

    /// Waits until a member catches up with what the cluster has in less than a round.
    async fn in_sync(&self, name: &str, run: &mut Run) -> Result<(), Error> {
        let access = self.access(run)?;
        let (member, port) = self.place_now(name, run)?;
        let line = self.output.line(name);
        line.set("catching up");
        loop {
            let goal = self
                .agree(name, "the leader's index", run, async |client, _| {
                    let vitals = client.status(ASK_LIMIT).await?;
                    Ok(Attempt::Done(vitals.applied_index))
                })
                .await?;
            let begun = Instant::now();
            let at = self
                .until(name, "a member that is in sync", async || {
                    self.in_reach(&member)?;
                    let client = access.connect(&member, port, ASK_LIMIT).await?;
                    loop {
                        let at = client.status(ASK_LIMIT).await?.applied_index;
                        if at >= goal {
                            return Ok(Some(at));
                        }
                        line.set(format!("catching up, {} entries behind", goal - at));
                        sleep(ROUND_EVERY).await;
                    }
                })
                .await?;
            if begun.elapsed() < ROUND {
                line.done(format!("in sync at index {at}"));
                return Ok(());
            }
        }
    }

    /// Looks again right before a voter is removed: the others must hold the quorum of those that remain.
    async fn gate_removal(&self, name: &str, run: &mut Run) -> Result<(), Error> {
        if self.accept_downtime {
            return Ok(());
        }
        let access = self.access(run)?;
        let deadline = Instant::now() + GATE_LIMIT.min(self.timeout);
        loop {
            let list = self
                .agree(name, "the list of members", run, async |_, list| {
                    Ok(Attempt::Done(list))
                })
                .await?;
            let entry = self.entry(name, &list);
            if entry.is_none_or(|entry| entry.is_learner) {
                return Ok(());
            }
            let (mut voters, mut ready) = (0, 0);
            for entry in list.iter().filter(|entry| !entry.is_learner) {
                match whose(entry, &self.cluster.topology, &run.instance) {
                    Some(other) if other == name => {}
                    Some(other) => {
                        voters += 1;
                        ready += usize::from(self.is_ready(&access, &other, run).await?);
                    }
                    None => voters += 1,
                }
            }
            let ledger = Ledger::new(voters, ready);
            if ledger.margin >= 0 {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(Refusal::Margin {
                    step: format!("remove {name} from the cluster"),
                    ledger: ledger.to_string(),
                }
                .into());
            }
            sleep(GATE_EVERY).await;
        }
    }

    async fn listed(&self, name: &str, run: &mut Run) -> Result<Option<ListedMember>, Error> {
        self.agree(name, "the list of members", run, async |_, list| {
            Ok(Attempt::Done(self.entry(name, &list).cloned()))
        })
        .await
    }

    fn entry<'l>(&self, name: &str, list: &'l [ListedMember]) -> Option<&'l ListedMember> {
        let instance = &self.prepared.proposal.instance;
        list.iter().find(|entry| {
            whose(entry, &self.cluster.topology, instance).is_some_and(|whose| whose == name)
        })
    }

    /// Asks the members other than `name`, one after another and again, until an attempt finds everything done.
    async fn agree<T>(
        &self,
        name: &str,
        what: &str,
        run: &mut Run,
        mut attempt: impl AsyncFnMut(Client, Vec<ListedMember>) -> Result<Attempt<T>, CallError>,
    ) -> Result<T, Error> {
        let access = self.access(run)?;
        let instance = &self.prepared.proposal.instance;
        let others = instance.members.keys().chain(instance.leaving.keys());
        let others = others.filter(|other| *other != name);
        let runs = |other: &&str| self.runs(other) || run.started.contains_key(*other);
        let others: Vec<&str> = others.map(String::as_str).filter(runs).collect();
        // One that is alone is asked itself.
        let asked = if others.is_empty() {
            std::iter::once(name).filter(runs).collect()
        } else {
            others
        };
        let places: Vec<(Member, u16)> = asked
            .into_iter()
            .map(|other| self.place_now(other, run))
            .collect::<Result<_, _>>()?;
        let mut turn = 0;
        self.until(name, what, async || {
            let (member, port) = places
                .get(turn % places.len().max(1))
                .ok_or_else(|| not_yet("no other member runs"))?;
            let result = async {
                let client = access.connect(member, *port, ASK_LIMIT).await?;
                client.linearizable_read(ASK_LIMIT).await?;
                let list = client.members(ASK_LIMIT).await?;
                attempt(client, list).await
            };
            match result.await {
                Ok(Attempt::Done(value)) => Ok(Some(value)),
                Ok(Attempt::Called) => Ok(None),
                Err(error) => {
                    turn += 1;
                    Err(error)
                }
            }
        })
        .await
    }

    /// Repeats what may fail until it succeeds, is refused for good, the deadline passes or somebody interrupts. `None` repeats at once.
    async fn until<T>(
        &self,
        name: &str,
        what: &str,
        mut attempt: impl AsyncFnMut() -> Result<Option<T>, CallError>,
    ) -> Result<T, Error> {
        let mut trouble = "nobody has been asked yet".to_owned();
        let repeated = async {
            loop {
                match attempt().await {
                    Ok(Some(value)) => return Ok(value),
                    Ok(None) => {}
                    Err(CallError::Host(lost @ SshError::Lost { .. })) => {
                        return Err(Error::from(lost).at(name, format!("wait for {what}")));
                    }
                    Err(error) if is_final(&error) => {
                        return Err(Error::because(format!("{what} was refused"), error));
                    }
                    Err(error) => {
                        trouble = error.to_string();
                        sleep(ASK_EVERY).await;
                    }
                }
            }
        };
        tokio::select! {
            result = repeated => result,
            () = sleep(self.timeout) => Err(Error::timed_out(
                format!("{what} of member {name}: {trouble}"),
                self.timeout,
                format!("see `provision status {}`; the same command goes on where this one stopped", self.cluster.dir.name()),
            )),
            () = self.interrupt.token().cancelled() => Err(self.interrupt.error()),
        }
    }

    // What is asked of a member whose machine was lost is asked in vain.
    fn in_reach(&self, member: &Member) -> Result<(), CallError> {
        let host = member.host.as_ref();
        match host.and_then(|host| self.cluster.hosts.lost(host)) {
            Some(lost) => Err(lost.into()),
            None => Ok(()),
        }
    }

    pub(super) fn member(&self, name: &str) -> Result<Member, Error> {
        self.place(name, true).map(|(member, _)| member)
    }

    fn placement(&self, name: &str, run: &Run) -> Result<crate::instance::Placement, Error> {
        run.instance.place(name).cloned().ok_or_else(|| {
            Error::because(
                format!("member {name} has no place"),
                "the plan and the instance disagree",
            )
        })
    }
}

// Everything else passes: an election, a member that has just come, a connection that etcd wants to have lasted for 5 s.
fn is_final(error: &CallError) -> bool {
    let CallError::Refused(status) = error else {
        return false;
    };
    matches!(
        status.code(),
        Code::InvalidArgument
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::Unimplemented
    ) || status.message().contains("too many learner")
}

fn not_yet(why: &str) -> CallError {
    CallError::Refused(Box::new(tonic::Status::unavailable(why)))
}
