//! `restore`

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::backup::default_dir;
use super::confirm::confirm;
use super::up::{self, OBSERVE_LIMIT, Options, carry_out};
use crate::apply::{Interrupt, Lifetime, Second, Target, Until, stop_all};
use crate::backup::{self, Manifest, WorkDir, show_bytes};
use crate::cli::RestoreArgs;
use crate::cluster::{Asked, Cluster, Known, Programs};
use crate::context::Context;
use crate::deployment;
use crate::error::{Error, ExitCode};
use crate::host::local::{Disable, restorer};
use crate::instance::{Instance, Origin};
use crate::mirror;
use crate::observe::{Observed, expected_cluster_id};
use crate::output::{Document, Format, Table};
use crate::render::{Server, listed_peer_url};
use crate::restore::{Member, Restore, bump};
use crate::runtime::runtime;
use crate::services;
use crate::state::{self, Outcome, Pending, Phase};
use crate::topology::{self, Keeper, Role, to_toml};

const STEPS: [&str; 4] = [
    "stop all members",
    "set their data aside",
    "restore the snapshot on each member",
    "start all members and wait until they are ready",
];

/// What a restore gives and takes.
#[derive(Clone, Debug, Serialize)]
struct Impact {
    cluster: String,
    snapshot: PathBuf,
    taken_at: Option<String>,
    taken_from: Option<String>,
    size: u64,
    revision: i64,
    keys: u64,
    restored_revision: i64,
    present: Option<Present>,
    steps: [&'static str; 4],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    set_aside: Vec<PathBuf>,
}

/// What the cluster holds right now, as far as it answers.
#[derive(Clone, Copy, Debug, Serialize)]
struct Present {
    revision: i64,
    keys: Option<i64>,
    /// Whether it serves clients.
    answers: bool,
    /// Revisions that the snapshot does not have.
    lost_revisions: i64,
}

impl Impact {
    fn text(&self) -> String {
        let taken = match &self.taken_at {
            Some(time) => format!(", taken at {time}"),
            None => String::new(),
        };
        let mut text = format!(
            "snapshot  revision {}, {} keys, {}{taken}\ncluster   ",
            self.revision,
            self.keys,
            show_bytes(self.size)
        );
        text.push_str(&match self.present {
            None => "does not answer: how much of it the snapshot lacks is not known".to_owned(),
            Some(present) => {
                let keys = present.keys.map(|keys| format!(", {keys} keys"));
                format!(
                    "revision {}{}: {} revisions are lost",
                    present.revision,
                    keys.unwrap_or_default(),
                    present.lost_revisions
                )
            }
        });
        text.push_str(&format!("\nrestored  revision {}", self.restored_revision));
        text
    }
}

impl Document for Impact {
    fn table(&self) -> Table {
        let steps = self.steps.iter().enumerate();
        let steps: Vec<String> = steps
            .map(|(index, step)| format!("  {}. {step}", index + 1))
            .collect();
        Table::text(format!("{}\n{}", self.text(), steps.join("\n")))
    }
}

/// Runs `restore`.
///
/// # Errors
/// The snapshot is of no use, the cluster answers, nobody confirmed, or a member cannot be restored or does not start.
pub fn run(args: &RestoreArgs, context: &Context) -> Result<ExitCode, Error> {
    runtime()?.block_on(async {
        let interrupt = Interrupt::listen(Second::Exits)?;
        let cluster = Cluster::open(&args.target, context)?;
        let work = WorkDir::new(&default_dir(context, &cluster.topology.name))?;
        let run = Run::prepare(args, &cluster, &work, context).await?;
        if args.dry_run {
            context.output.data(&run.impact)?;
            return Ok(ExitCode::Ok);
        }
        run.check()?;
        let lock = cluster.dir.lock("restore", args.force_unlock)?;
        let restored = async {
            let Cluster {
                topology, hosts, ..
            } = &cluster;
            let remembered = cluster.dir.load()?;
            let force = args.force_unlock;
            mirror::lock(hosts, topology, remembered.as_ref(), "restore", force).await?;
            run.restore(&work, &interrupt).await
        }
        .await;
        if restored.is_err() {
            cluster.dir.discard_if_unused()?;
        }
        drop(lock);
        let impact = restored?;
        // From here on it is what `up` does, and what `up` finishes.
        let options = Options {
            timeout: args.timeout,
            accept_downtime: true,
            force_unlock: args.force_unlock,
            lifetime: Lifetime::Own,
            budget: None,
        };
        let asked = Asked::Nothing;
        let (plan, applied) =
            carry_out("restore", &cluster, asked, options, context, &interrupt).await?;
        context.output.note(format!(
            "cluster {} is restored from revision {}, at revision {}",
            impact.cluster, impact.revision, impact.restored_revision
        ));
        if context.output.format() == Format::Table {
            up::report(&cluster, plan, applied, context)
        } else {
            context.output.data(&impact)?;
            Ok(ExitCode::Ok)
        }
    })
}

struct Run<'a> {
    args: &'a RestoreArgs,
    cluster: &'a Cluster,
    context: &'a Context,
    known: Option<(Known, Observed)>,
    pending: Pending,
    members: Vec<Member>,
    instance: Instance,
    snapshot: PathBuf,
    impact: Impact,
}

impl<'a> Run<'a> {
    /// Reads the snapshot and looks at the cluster; changes nothing.
    async fn prepare(
        args: &'a RestoreArgs,
        cluster: &'a Cluster,
        work: &WorkDir,
        context: &'a Context,
    ) -> Result<Run<'a>, Error> {
        let topology = &cluster.topology;
        refuse_what_cannot_be(topology)?;
        let programs = cluster.programs()?;
        let tools = tools(topology, &programs)?;

        let line = context.output.line("snapshot");
        line.set("reading");
        let snapshot = work.join("snapshot.db");
        let opened = backup::open(&args.snapshot, args.identity.as_deref())?;
        let content = backup::copy(&args.snapshot, opened, &snapshot)?;
        let status = backup::status(snapshot.clone()).await?;
        line.done(format!("whole, at revision {}", status.revision));
        let manifest = Manifest::read(&args.snapshot)?;
        let restored_revision =
            status
                .revision
                .checked_add(args.bump_revision)
                .ok_or_else(|| {
                    Error::usage(
                        format!("revision {} cannot be raised that far", status.revision),
                        "pass a smaller --bump-revision",
                    )
                })?;

        let mut present = None;
        let known = match Known::load(cluster.dir.clone())? {
            None => None,
            Some(known) => {
                let observed = known.observe(OBSERVE_LIMIT.min(args.timeout)).await?;
                check_reachable(topology, &observed)?;
                present = self::present(&known, &observed, status.revision).await?;
                Some((known, observed))
            }
        };
        let pending = match cluster.dir.pending_restore()? {
            Some(pending)
                if pending.sha256 == content.sha256 && pending.bump == args.bump_revision =>
            {
                context.output.note("resuming: an earlier run was cut off");
                pending
            }
            _ => Pending::new(topology, content.sha256, args.bump_revision),
        };
        let instance = instance(cluster, context, &pending.token)?;
        let members = members(
            cluster,
            known.as_ref().map(|(known, _)| known),
            &instance,
            tools,
        );
        if let Some(manifest) = &manifest
            && manifest.cluster != topology.name
        {
            context.output.warn(format!(
                "the snapshot is of cluster {}, ID {}, and not of {}",
                manifest.cluster, manifest.cluster_id, topology.name
            ));
        }
        let impact = Impact {
            cluster: topology.name.clone(),
            snapshot: args.snapshot.clone(),
            taken_at: manifest.as_ref().map(Manifest::time),
            taken_from: manifest.map(|manifest| manifest.cluster_id),
            size: content.size,
            revision: status.revision,
            keys: status.total_key,
            restored_revision,
            present,
            steps: STEPS,
            set_aside: Vec::new(),
        };
        Ok(Self {
            args,
            cluster,
            context,
            known,
            pending,
            members,
            instance,
            snapshot,
            impact,
        })
    }

    fn resumes(&self) -> Result<bool, Error> {
        Ok(self.cluster.dir.pending_restore()?.as_ref() == Some(&self.pending))
    }

    /// Asks for whatever consent is still missing.
    fn check(&self) -> Result<(), Error> {
        let name = &self.impact.cluster;
        // It was given when the run that was cut off began.
        if self.resumes()? {
            return Ok(());
        }
        let answers = self.impact.present.filter(|present| present.answers);
        if let Some(present) = answers.filter(|_| !self.args.accept_data_loss) {
            return Err(Error::refused(
                format!(
                    "cluster {name} answers: {} revisions would be lost, from {} to {}",
                    present.lost_revisions, self.impact.revision, present.revision
                ),
                format!(
                    "pass --accept-data-loss if that is meant; take a backup before with `provision backup {name}`"
                ),
            ));
        }
        if self.args.yes || self.known.is_none() {
            return Ok(());
        }
        self.context.output.note(self.impact.text());
        let effect = format!(
            "stops all members of cluster {name} and restores them from {}",
            self.args.snapshot.display()
        );
        confirm(name, "restoring", "restored", &effect)
    }

    /// Stops the members and gives them their new data. The caller holds the lock.
    async fn restore(&self, work: &WorkDir, interrupt: &Interrupt) -> Result<Impact, Error> {
        let dir = &self.cluster.dir;
        let mut impact = self.impact.clone();
        if self.pending.phase == Phase::Starting {
            return Ok(impact);
        }
        let mut journal = dir.journal("restore", STEPS.len())?;
        let restored = async {
            let snapshot = if self.args.bump_revision == 0 {
                self.snapshot.clone()
            } else {
                let bumped = work.join("bumped.db");
                bump(&self.snapshot, &bumped, impact.restored_revision)?;
                bumped
            };
            let token = services::cluster_token(&self.cluster.topology, &self.instance);
            let founders: Vec<String> = self
                .members
                .iter()
                .filter(|member| member.tool.is_some())
                .map(|member| format!("{}={}", member.name, member.peer_url))
                .collect();
            let restore = Restore {
                dir,
                hosts: &self.cluster.hosts,
                snapshot: &snapshot,
                instance: &self.instance,
                cluster_id: expected_cluster_id(&self.cluster.topology, &self.instance),
                initial_cluster: &founders.join(","),
                token: &token,
                timeout: self.args.timeout,
                output: &self.context.output,
            };
            interrupt.check()?;
            // From here on nothing but this starts a member.
            dir.save_restore(&self.pending)?;
            journal.step(STEPS[0])?;
            self.stop().await?;
            interrupt.check()?;
            journal.step(STEPS[1])?;
            impact.set_aside = restore.set_aside(&self.members).await?;
            for path in &impact.set_aside {
                let text = format!("old data are kept in {}", path.display());
                journal.note(&text)?;
                self.context.output.note(text);
            }
            dir.save_topology(&to_toml(&self.cluster.topology))?;
            dir.save(&self.instance)?;
            interrupt.check()?;
            journal.step(STEPS[2])?;
            restore.fill(&self.members).await?;
            dir.save_restore(&Pending {
                phase: Phase::Starting,
                ..self.pending.clone()
            })?;
            Ok(())
        }
        .await;
        journal.end(match &restored {
            Ok(()) => Outcome::Done,
            Err(Error::Interrupted | Error::Terminated) => Outcome::Interrupted,
            Err(_) => Outcome::Failed,
        })?;
        restored.map(|()| impact)
    }

    async fn stop(&self) -> Result<(), Error> {
        let Some((known, observed)) = &self.known else {
            return Ok(());
        };
        let Known {
            topology,
            instance,
            hosts,
            ..
        } = known;
        let mut targets = Vec::new();
        for member in &topology.members {
            let name = &member.name;
            let unreachable = observed
                .members
                .get(name)
                .is_some_and(|it| it.unreachable.is_some());
            if unreachable {
                continue;
            }
            match Target::of(name, topology, instance, observed, hosts).await? {
                Some(target) => targets.push((name.clone(), target)),
                // One that fails over and over runs only now and then.
                None => {
                    let host = member.host.as_ref();
                    if let Some(host) = host.filter(|host| host.keeper == Keeper::Systemd) {
                        let unit = deployment::unit_name(&topology.name, name);
                        let agent = hosts.agent(host).await?;
                        agent.ask(&Disable { unit }, self.args.timeout).await?;
                    }
                }
            }
        }
        stop_all(&targets, Until::Started, self.args.timeout)
            .await
            .map(drop)
    }
}

// A new token is how members of the old cluster are told from those of the new one.
fn refuse_what_cannot_be(topology: &topology::Topology) -> Result<(), Error> {
    if topology.bootstrap.token().is_some() {
        return Err(Error::usage(
            "the topology gives a token, and a restored cluster must have one of its own",
            "remove `token` from the file, or write method = \"static\", and restore with the file",
        ));
    }
    let dir = topology
        .members
        .iter()
        .find(|member| member.flags.contains_key("wal-dir"));
    match dir {
        None => Ok(()),
        Some(member) => Err(Error::usage(
            format!(
                "member {} keeps its log in a `wal-dir`, which is not restored",
                member.name
            ),
            "remove the flag from the file, and restore with the file",
        )),
    }
}

/// What makes each voter's data directory.
fn tools(
    topology: &topology::Topology,
    programs: &Programs,
) -> Result<Vec<(String, PathBuf)>, Error> {
    let voters = topology
        .members
        .iter()
        .filter(|member| member.role == Role::Voter);
    let tool = |program: &Path, server| {
        match server {
        Server::Member => Ok(program.to_owned()),
        Server::Etcd { .. } => restorer(program).map_err(|error| {
            Error::failed(
                format!("nothing makes data directories for {}: {error}", program.display()),
                "put etcdutl or etcdctl of the same release beside it; the included member's directories are no etcd's",
            )
        }),
    }
    };
    voters
        .filter_map(|member| {
            let (program, server) = programs.of(&member.name)?;
            let tool = tool(program, server).map_err(|error| error.at(&member.name, "restore"));
            Some(tool.map(|tool| (member.name.clone(), tool)))
        })
        .collect()
}

/// Everybody whose machine is touched: those of the file, and those that are in the cluster no more.
fn members(
    cluster: &Cluster,
    known: Option<&Known>,
    instance: &Instance,
    tools: Vec<(String, PathBuf)>,
) -> Vec<Member> {
    let wanted = &cluster.topology.members;
    let gone = known.map(|known| known.topology.members.iter());
    let gone = gone.into_iter().flatten();
    let gone = gone.filter(|old| wanted.iter().all(|member| member.name != old.name));
    let all = wanted.iter().chain(gone);
    let restored = all.filter_map(|member| {
        let place = instance.place(&member.name);
        let place = place.or_else(|| known?.instance.place(&member.name))?;
        let tool = tools.iter().find(|(name, _)| *name == member.name);
        let unit = state::Unit::Member(&member.name);
        let home = place.host_dir.clone();
        Some(Member {
            name: member.name.clone(),
            host: member.host.clone(),
            home: home.unwrap_or_else(|| cluster.dir.unit_dir(&unit)),
            data_dir: place.data_dir.clone(),
            tool: tool.map(|(_, tool)| tool.clone()),
            peer_url: listed_peer_url(&cluster.topology, member, place),
        })
    });
    restored.collect()
}

/// The instance as it will be: the voters found it, learners join them.
fn instance(cluster: &Cluster, context: &Context, token: &str) -> Result<Instance, Error> {
    let Cluster { topology, dir, .. } = cluster;
    let file = dir.topology_file();
    let applied = match file.exists() {
        true => Some(topology::load(&file)?.topology),
        false => None,
    };
    let remembered = dir.load()?;
    let root = &context.state_root;
    let proposal = state::propose(
        topology,
        applied.as_ref(),
        &[],
        remembered.as_ref(),
        dir,
        root,
    )?;
    let mut instance = proposal.instance;
    token.clone_into(&mut instance.token);
    instance.founders.clear();
    instance.leaving.clear();
    for member in &topology.members {
        if let Some(place) = instance.members.get_mut(&member.name) {
            place.origin = match member.role {
                Role::Voter => Origin::Founder,
                Role::Learner => Origin::Joining,
            };
        }
    }
    Ok(instance)
}

fn check_reachable(topology: &topology::Topology, observed: &Observed) -> Result<(), Error> {
    let lost = topology.members.iter().find_map(|member| {
        let facts = observed.members.get(&member.name)?;
        Some((&member.name, facts.unreachable.as_ref()?))
    });
    match lost {
        None => Ok(()),
        Some((name, unreachable)) => Err(Error::Unreachable {
            what: format!(
                "the machine of member {name} cannot be worked on: {}",
                unreachable.why
            ),
            fix: format!(
                "{}; or take {name} out of the file, and restore with the file",
                unreachable.fix
            ),
        }),
    }
}

async fn present(
    known: &Known,
    observed: &Observed,
    restored: i64,
) -> Result<Option<Present>, Error> {
    let up = observed.members.iter().filter_map(|(name, facts)| {
        let vitals = facts.vitals()?;
        Some((facts.is_ready(), vitals.revision, name, facts))
    });
    let Some((answers, revision, name, facts)) =
        up.max_by_key(|(ready, revision, ..)| (*ready, *revision))
    else {
        return Ok(None);
    };
    let member = known
        .topology
        .members
        .iter()
        .find(|member| member.name == *name);
    let port = facts
        .process
        .as_ref()
        .and_then(|running| running.client_port());
    let port = port.or_else(|| Some(known.instance.place(name)?.client_port));
    let mut keys = None;
    if let (Some(member), Some(port), true) = (member, port, answers) {
        let access = known.access()?;
        // What they are worth is for people; without an answer they are left out.
        if let Ok(client) = access.connect(member, port, OBSERVE_LIMIT).await {
            keys = client.count(0, OBSERVE_LIMIT).await.ok();
        }
    }
    Ok(Some(Present {
        revision,
        keys,
        answers,
        lost_revisions: (revision - restored).max(0),
    }))
}
