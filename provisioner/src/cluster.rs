//! One cluster as a verb works on it: its topology, its state directory, and what the two say it should be.
//!
//! Owns the way from a verb's `FILE|NAME` to the planner's input. It looks and prepares; it changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use time::OffsetDateTime;

use crate::context::Context;
use crate::deployment::{self, Content, Deployment};
use crate::error::Error;
use crate::host::local::{
    BinaryError, NetworkError, Process, checksum, checksum_of, enter, included_member, resolve,
    version_text,
};
use crate::host::remote::Hosts;
use crate::instance::{CaStage, Instance, Origin};
use crate::observe::{Access, MemberFacts, Observed, Sight, look, look_at_host};
use crate::output::Output;
use crate::pki::{self, CertAction};
use crate::plan::{self, CertChange, Plan, Wanted, WantedFiles};
use crate::render::{self, Given, Server};
use crate::services::{self, Service};
use crate::state::{self, ClusterDir, Phase, Proposal, Unit};
use crate::topology::{
    self, Binary, ClientTls, Edit, EditError, Loaded, Member, Network, PeerTls, Role, Tls, Topology,
};

/// A cluster that a verb was pointed at.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// As the file says, or as it was applied last when a name was given.
    pub topology: Topology,
    /// Its place in the state.
    pub dir: ClusterDir,
    /// The machines of members that have one.
    pub hosts: Hosts,
    state_root: PathBuf,
    /// The file that `topology` was read from, and its text, where a verb changed that.
    edited: Option<(PathBuf, String)>,
}

/// A cluster that exists: it has an instance.
#[derive(Clone, Debug)]
pub struct Known {
    /// As it was applied last, with those who still have to leave.
    pub topology: Topology,
    /// Its place in the state.
    pub dir: ClusterDir,
    /// What is remembered.
    pub instance: Instance,
    /// The machines of members that have one.
    pub hosts: Hosts,
    /// Members that the topology of the operator has no more.
    pub leaving: Vec<String>,
}

/// The programs that the members run, and what runs beside them.
#[derive(Clone, Debug)]
pub struct Programs {
    members: BTreeMap<String, MemberProgram>,
    services: services::Programs,
}

/// What a member runs.
#[derive(Clone, Debug)]
struct MemberProgram {
    path: PathBuf,
    server: Server,
    version: String,
    /// Of a program that goes to another machine.
    checksum: Option<String>,
}

impl MemberProgram {
    fn where_it_runs(&self, member: &Member) -> PathBuf {
        match (&member.host, &self.checksum) {
            (Some(host), Some(checksum)) => deployment::program_path(host, &self.path, checksum),
            _ => self.path.clone(),
        }
    }
}

/// What a verb wants beside what the topology says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Asked {
    /// Nothing.
    #[default]
    Nothing,
    /// These members restarted; none named: all.
    Restart(Vec<String>),
    /// This member made anew.
    Replace(String),
    /// This member, or any other than now, to lead.
    Lead(Option<String>),
    /// This member alone to go on, and all others to come anew.
    Recover(String),
    /// Another program for members, which this is the way back from.
    Upgrade,
    /// The program from before an upgrade.
    Rollback,
    /// Every certificate issued again.
    Certificates,
    /// The CA's replacement brought to this stage.
    Ca(CaStage),
    /// The topology is a stage on the way from plain text to TLS.
    Tls,
}

/// Everything that the planner and `apply` need to know about what is wanted.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// What the verb wants.
    pub asked: Asked,
    /// The programs.
    pub programs: Programs,
    /// What is remembered.
    pub remembered: Option<Instance>,
    /// The topology that was applied last.
    pub applied: Option<Topology>,
    /// What the members should run with.
    pub proposal: Proposal,
    /// Each member's argument vector, program first.
    pub argv: BTreeMap<String, Vec<String>>,
    /// The file that a member reads its settings from, where it reads one.
    pub files: BTreeMap<String, (PathBuf, String)>,
    /// What runs beside the members.
    pub services: Vec<Service>,
    /// Certificates to write.
    pub certificates: Vec<CertAction>,
    /// What members need on their hosts, where they have one.
    pub deployments: BTreeMap<String, Deployment>,
    /// The version of each member's program.
    pub versions: BTreeMap<String, String>,
    changes: Vec<CertChange>,
    host_files: BTreeMap<String, WantedFiles>,
}

impl Programs {
    /// What a member runs: the program on this machine, and what it is.
    #[must_use]
    pub fn of(&self, member: &str) -> Option<(&Path, Server)> {
        let program = self.members.get(member)?;
        Some((&program.path, program.server))
    }
}

impl Prepared {
    /// The certificates to write, with the reasons.
    #[must_use]
    pub fn certificate_changes(&self) -> &[CertChange] {
        &self.changes
    }
}

impl Cluster {
    /// A topology under a state root.
    #[must_use]
    pub fn new(topology: Topology, state_root: &Path) -> Self {
        let dir = ClusterDir::new(state_root, &topology.name);
        Self {
            topology,
            dir,
            hosts: Hosts::default(),
            state_root: state_root.to_owned(),
            edited: None,
        }
    }

    /// Reads the topology that `target` names: a file, `-`, or a cluster that is remembered.
    pub fn open(target: &str, context: &Context) -> Result<Self, Error> {
        Self::open_with(target, &[], context)
    }

    /// The same with changes of the file, which [`Self::save_edit`] writes.
    pub fn open_with(target: &str, edits: &[Edit<'_>], context: &Context) -> Result<Self, Error> {
        let located = locate(target, context)?;
        let path = match &located {
            Located::File(path) => path.clone(),
            Located::Name(dir) => dir.topology_file(),
        };
        let mut loaded = topology::load(&path)?;
        let mut edited = None;
        if !edits.is_empty() {
            if loaded.from_stdin {
                return Err(Error::usage(
                    "what is read from standard input cannot be changed there",
                    "name a file, or the cluster",
                ));
            }
            let mut text = loaded.text.to_string();
            for edit in edits {
                text = topology::edit(&text, *edit)
                    .map_err(|error| not_edited(error, &loaded.file))?;
            }
            loaded = topology::load_as(&path, &text)?;
            // What is remembered of a cluster is saved with everything else of the run.
            edited = matches!(located, Located::File(_)).then_some((path, text));
        }
        let dir = ClusterDir::new(&context.state_root, &loaded.topology.name);
        enter_network(&loaded, alive(&dir)?.as_ref())?;
        if let Located::File(_) = located {
            loaded.warn(&context.output);
        }
        Ok(Self {
            edited,
            ..Self::new(loaded.topology, &context.state_root)
        })
    }

    /// Writes the topology file as it was changed, if it was.
    pub fn save_edit(&self, output: &Output) -> Result<(), Error> {
        let Some((path, text)) = &self.edited else {
            return Ok(());
        };
        state::replace_text(path, text)?;
        output.note(format!("{} is changed", path.display()));
        Ok(())
    }

    /// Finds each member's program and asks what it is.
    pub fn programs(&self) -> Result<Programs, Error> {
        let mut known: BTreeMap<PathBuf, (Server, String)> = BTreeMap::new();
        let mut checksums: BTreeMap<PathBuf, String> = BTreeMap::new();
        let mut programs = BTreeMap::new();
        for member in &self.topology.members {
            let mut find = || -> Result<(PathBuf, (Server, String)), Error> {
                let path = match &member.binary {
                    Binary::Included => included_member(),
                    Binary::Path(program) => resolve(program),
                };
                let path = path.map_err(|error| missing(error, &member.binary))?;
                let server = match known.get(&path) {
                    Some(server) => server.clone(),
                    None => known
                        .entry(path.clone())
                        .or_insert(server_of(&path)?)
                        .clone(),
                };
                Ok((path, server))
            };
            let at = |error: Error| error.at(&member.name, "find the binary");
            let (path, (server, version)) = find().map_err(at)?;
            let checksum = match (&member.host, checksums.get(&path)) {
                (None, _) => None,
                (Some(_), Some(known)) => Some(known.clone()),
                (Some(_), None) => {
                    let checksum = checksum_of(&path).map_err(at)?.unwrap_or_default();
                    checksums.insert(path.clone(), checksum.clone());
                    Some(checksum)
                }
            };
            let program = MemberProgram {
                path,
                server,
                version,
                checksum,
            };
            programs.insert(member.name.clone(), program);
        }
        Ok(Programs {
            members: programs,
            services: self.service_programs()?,
        })
    }

    fn service_programs(&self) -> Result<services::Programs, Error> {
        let find = |binary: &Binary| match binary {
            Binary::Included => included_member(),
            Binary::Path(program) => resolve(program),
        };
        let gateways =
            self.topology.gateways.iter().map(|gateway| {
                find(&gateway.binary).map_err(|error| missing(error, &gateway.binary))
            });
        let discovery = services::built_in(&self.topology).map(|_| Binary::Included);
        Ok(services::Programs {
            own: std::env::current_exe()
                .map_err(|source| Error::because("cannot find this program's own file", source))?,
            discovery: discovery
                .map(|binary| find(&binary).map_err(|error| missing(error, &binary)))
                .transpose()?,
            gateways: gateways.collect::<Result<_, _>>()?,
        })
    }

    /// Puts together what is wanted. Under a lock when the caller means to apply it.
    pub fn prepare(&self, programs: Programs, asked: Asked) -> Result<Prepared, Error> {
        let remembered = self.dir.load()?;
        if let Some(pending) = self.dir.pending_restore()?
            && pending.phase == Phase::Restoring
        {
            let name = &self.topology.name;
            return Err(Error::refused(
                format!("a restore of cluster {name} was cut off: not all members have their data"),
                format!("run the same `provision restore {name} SNAPSHOT` again"),
            ));
        }
        let applied = match remembered {
            None => None,
            Some(_) => applied(&self.dir)?,
        };
        let before = applied.as_ref();
        let anew = match &asked {
            Asked::Replace(name) => vec![name.as_str()],
            Asked::Recover(survivor) => {
                let members = self.topology.members.iter();
                let names = members.map(|member| member.name.as_str());
                names.filter(|name| name != survivor).collect()
            }
            _ => Vec::new(),
        };
        let (dir, root) = (&self.dir, &self.state_root);
        let mut proposal = state::propose(
            &self.topology,
            before,
            &anew,
            remembered.as_ref(),
            dir,
            root,
        )?;
        match asked {
            Asked::Ca(stage) => proposal.instance.rotation = Some(stage),
            Asked::Upgrade => {
                let programs = self.programs_left(before);
                proposal.instance.before_upgrade.extend(programs);
            }
            Asked::Rollback => proposal.instance.before_upgrade.clear(),
            _ => {}
        }
        if asked != Asked::Nothing {
            self.check_asked(&asked, remembered.is_some())?;
        }
        let (mut argv, mut files) = (BTreeMap::new(), BTreeMap::new());
        let mut deployments = BTreeMap::new();
        for member in &self.topology.members {
            let given = self.given(&programs, member, &proposal.instance)?;
            argv.insert(member.name.clone(), given.argv.clone());
            match self.deployment(&programs, member, &proposal.instance, given) {
                Ok(deployment) => drop(deployments.insert(member.name.clone(), deployment)),
                Err(given) => files.extend(given.file.map(|file| (member.name.clone(), file))),
            }
        }
        let services = services::services(
            &self.topology,
            &proposal.instance,
            &programs.services,
            self.dir.path(),
        );
        let now = OffsetDateTime::now_utc();
        let certificates = match asked {
            Asked::Certificates => pki::plan_all(&self.topology, &proposal.instance, now)?,
            _ => pki::plan(&self.topology, &proposal.instance, now)?,
        };
        let change = |action: &CertAction| CertChange {
            certificate: action.kind.to_string(),
            reason: action.reason.to_string(),
        };
        let changes = certificates.iter().map(change).collect();
        let host_files = deployments
            .iter()
            .map(|(name, deployment)| Ok((name.clone(), wanted_files(deployment, &certificates)?)))
            .collect::<Result<_, Error>>()?;
        let versions = programs.members.iter();
        let versions = versions.map(|(name, program)| (name.clone(), program.version.clone()));
        Ok(Prepared {
            versions: versions.collect(),
            asked,
            programs,
            remembered,
            applied,
            proposal,
            argv,
            files,
            services,
            certificates,
            deployments,
            changes,
            host_files,
        })
    }

    // What members ran that are to run another program from now on.
    fn programs_left(&self, before: Option<&Topology>) -> Vec<(String, PathBuf)> {
        let before = before.into_iter().flat_map(|topology| &topology.members);
        let left = before.filter_map(|old| {
            let mut members = self.topology.members.iter();
            let new = members.find(|member| member.name == old.name)?;
            match (&old.binary, &new.binary) {
                (Binary::Path(left), Binary::Path(taken)) if left != taken => {
                    Some((old.name.clone(), left.clone()))
                }
                _ => None,
            }
        });
        left.collect()
    }

    /// What the process of a member is started with.
    pub fn given(
        &self,
        programs: &Programs,
        member: &Member,
        instance: &Instance,
    ) -> Result<Given, Error> {
        let program = programs
            .members
            .get(&member.name)
            .ok_or_else(|| Error::because("no program was found", member.name.clone()))?;
        let unit_dir = self.dir.unit_dir(&Unit::Member(&member.name));
        let place = instance.members.get(&member.name);
        let home = place.and_then(|place| place.host_dir.as_ref());
        Ok(render::given(
            &self.topology,
            member,
            instance,
            program.server,
            &program.where_it_runs(member),
            home.unwrap_or(&unit_dir),
        )?)
    }

    /// What a member needs on its host; what it is given back, where it has none.
    pub fn deployment(
        &self,
        programs: &Programs,
        member: &Member,
        instance: &Instance,
        given: Given,
    ) -> Result<Deployment, Given> {
        let program = programs.members.get(&member.name);
        let place = instance.members.get(&member.name);
        let (Some(host), Some(place), Some(program)) = (&member.host, place, program) else {
            return Err(given);
        };
        let there = program.where_it_runs(member);
        let program = deployment::Program {
            here: &program.path,
            there: &there,
            checksum: program.checksum.as_deref().unwrap_or_default(),
        };
        Ok(Deployment::new(
            &self.topology,
            host,
            &member.name,
            place,
            program,
            given,
        ))
    }

    /// The stages in which a running cluster comes to the TLS that its topology asks for, as clusters that ask for no more: one that
    /// was begun, which must be over before another because that leaves behind who has not come so far, and those after it.
    pub fn tls_stages(&self) -> Result<(Option<Self>, Vec<Self>), Error> {
        let Some(applied) = applied(&self.dir)? else {
            self.check_asked(&Asked::Tls, false)?;
            return Ok((None, Vec::new()));
        };
        let stages = plan::tls_stages(&self.topology.name, &applied.tls, &self.topology.tls)?;
        let at = |tls| {
            let mut cluster = self.clone();
            cluster.topology.tls = tls;
            cluster
        };
        let stages = stages.into_iter().map(at).collect();
        let Tls { peer, client, .. } = applied.tls;
        let begun = peer == PeerTls::Prepared || client == ClientTls::Both;
        Ok((begun.then(|| at(applied.tls)), stages))
    }

    /// Brings the CA's own files to a stage of its replacement. Under a lock.
    pub fn take_ca_stage(&self, stage: CaStage) -> Result<(), Error> {
        let Some(instance) = self.dir.load()? else {
            return self.check_asked(&Asked::Ca(stage), false);
        };
        let now = OffsetDateTime::now_utc();
        Ok(pki::take_stage(&self.topology, &instance, stage, now)?)
    }

    /// Remembers that a stage of the CA's replacement is over. Under a lock.
    pub fn end_ca_stage(&self, stage: CaStage) -> Result<(), Error> {
        if let Some(mut instance) = self.dir.load()? {
            instance.rotation = stage.next();
            self.dir.save(&instance)?;
        }
        Ok(())
    }

    fn check_asked(&self, asked: &Asked, exists: bool) -> Result<(), Error> {
        let name = &self.topology.name;
        if !exists {
            return Err(Error::usage(
                format!("cluster {name} has not been brought up"),
                "bring it up with `provision up FILE`",
            ));
        }
        let named = match asked {
            Asked::Restart(members) => members,
            Asked::Replace(member) => std::slice::from_ref(member),
            Asked::Lead(member) => member.as_slice(),
            _ => &[][..],
        };
        let members = || self.topology.members.iter().map(|member| &*member.name);
        match named.iter().find(|name| !members().any(|it| it == **name)) {
            None => Ok(()),
            Some(unknown) => Err(Error::usage(
                format!("{name} has no member {unknown}"),
                format!(
                    "its members are {}",
                    members().collect::<Vec<_>>().join(", ")
                ),
            )),
        }
    }

    /// Looks at what is.
    pub async fn observe(&self, prepared: &Prepared, limit: Duration) -> Result<Observed, Error> {
        let proposed = &prepared.proposal.instance;
        // What runs was started from the topology that was applied last. Who is new has a place that may be taken.
        let mut topology = prepared.applied.as_ref().unwrap_or(&self.topology).clone();
        let mut instance = prepared.remembered.as_ref().unwrap_or(proposed).clone();
        let known = |topology: &Topology, name: &str| {
            let mut members = topology.members.iter();
            members.any(|member| member.name == name)
        };
        for member in &self.topology.members {
            if !known(&topology, &member.name) {
                topology.members.push(member.clone());
            }
            if let Some(place) = proposed.members.get(&member.name)
                && !instance.leaving.contains_key(&member.name)
            {
                let members = &mut instance.members;
                members
                    .entry(member.name.clone())
                    .or_insert_with(|| place.clone());
            }
        }
        // Whoever formed the cluster is settled once members come and go.
        if instance.founders.is_empty() {
            instance.founders.clone_from(&proposed.founders);
        }
        // Those that move to another machine are where they were, until they are gone from there.
        let places = proposed
            .former
            .iter()
            .map(|(name, former)| (name, &former.placement));
        for (name, place) in places {
            instance.members.insert(name.clone(), place.clone());
            let members = topology.members.iter_mut();
            for member in members.filter(|member| member.name == *name) {
                if let Some(former) = proposed.former_member(name) {
                    *member = former;
                }
            }
        }
        let (topology, instance) = with_leaving(topology, instance);
        let files = prepared.host_paths();
        let sight = Sight {
            topology: &topology,
            instance: &instance,
            wanted: proposed,
            dir: &self.dir,
            hosts: &self.hosts,
            files: &files,
            logs: matches!(prepared.asked, Asked::Recover(_)),
        };
        let (observed, destinations) = tokio::join!(
            look(sight, limit),
            self.look_at_destinations(proposed, &files, limit)
        );
        let (mut observed, destinations) = (observed?, destinations?);
        for (name, facts) in &mut observed.members {
            let leaves = proposed.leaving.contains_key(name);
            if (leaves || proposed.former.contains_key(name))
                && let Some(unreachable) = facts.unreachable.take()
            {
                observed.out_of_reach.insert(name.clone(), unreachable);
            }
        }
        for (name, there) in destinations {
            if let Some(facts) = observed.members.get_mut(&name) {
                *facts = MemberFacts {
                    process: facts.process.take(),
                    health: facts.health.clone(),
                    had_data: facts.had_data,
                    ..there
                };
            }
        }
        Ok(observed)
    }

    // Where members that move to another machine are to live.
    async fn look_at_destinations(
        &self,
        proposed: &Instance,
        files: &BTreeMap<String, Vec<PathBuf>>,
        limit: Duration,
    ) -> Result<BTreeMap<String, MemberFacts>, Error> {
        let mut topology = self.topology.clone();
        let mut instance = proposed.clone();
        let moves = |name: &String| proposed.former.contains_key(name);
        topology.members.retain(|member| moves(&member.name));
        instance.members.retain(|name, _| moves(name));
        let sight = Sight {
            topology: &topology,
            instance: &instance,
            wanted: &instance,
            dir: &self.dir,
            hosts: &self.hosts,
            files,
            logs: false,
        };
        Ok(look_at_host(sight, limit).await?.members)
    }

    /// Finds the member that a cluster without a majority goes on with.
    pub fn survivor(
        &self,
        prepared: &Prepared,
        observed: &Observed,
        from: Option<&str>,
    ) -> Result<String, Error> {
        let restart = BTreeSet::new();
        Ok(plan::survivor(
            &self.wanted(prepared, &restart),
            observed,
            from,
        )?)
    }

    fn wanted<'w>(&'w self, prepared: &'w Prepared, restart: &'w BTreeSet<String>) -> Wanted<'w> {
        Wanted {
            topology: &self.topology,
            applied: prepared.applied.as_ref(),
            remembered: prepared.remembered.as_ref(),
            instance: &prepared.proposal.instance,
            argv: &prepared.argv,
            versions: &prepared.versions,
            services: &prepared.services,
            certificates: &prepared.changes,
            files: &prepared.host_files,
            restart,
            tls_stage: prepared.asked == Asked::Tls,
        }
    }

    /// Plans the way from what is to what is wanted.
    pub fn plan(&self, prepared: &Prepared, observed: &Observed) -> Result<Plan, Error> {
        let restart = self.to_restart(&prepared.asked);
        let wanted = self.wanted(prepared, &restart);
        Ok(match &prepared.asked {
            Asked::Lead(to) => plan::move_leader(&wanted, observed, to.as_deref())?,
            Asked::Recover(survivor) => plan::recover(&wanted, observed, survivor)?,
            _ => plan::up(&wanted, observed)?,
        })
    }

    fn to_restart(&self, asked: &Asked) -> BTreeSet<String> {
        match asked {
            Asked::Restart(members) if !members.is_empty() => members.iter().cloned().collect(),
            // Whom a member trusts it learns at its start; what it shows it reads again by itself.
            Asked::Restart(_) | Asked::Ca(CaStage::Trust | CaStage::Drop) => {
                let members = self.topology.members.iter();
                members.map(|member| member.name.clone()).collect()
            }
            _ => BTreeSet::new(),
        }
    }
}

impl Prepared {
    fn host_paths(&self) -> BTreeMap<String, Vec<PathBuf>> {
        let paths =
            |deployment: &Deployment| deployment.files().map(|file| file.path.clone()).collect();
        let deployments = self.deployments.iter();
        deployments
            .map(|(name, deployment)| (name.clone(), paths(deployment)))
            .collect()
    }
}

impl Known {
    /// Finds the cluster that `target` names and that has been up at least once.
    pub fn open(target: &str, context: &Context) -> Result<Self, Error> {
        let dir = match locate(target, context)? {
            Located::File(path) => {
                ClusterDir::new(&context.state_root, &topology::load(&path)?.topology.name)
            }
            Located::Name(dir) => dir,
        };
        let known = Self::load(dir)?.ok_or_else(|| {
            Error::usage(
                format!("there is no cluster for {target}"),
                format!("bring it up with `provision up {target}`"),
            )
        })?;
        if known.topology.network == Network::Private
            && let Some(process) = alive(&known.dir)?
        {
            enter(Some(&process), &[], None).map_err(no_network)?;
        }
        Ok(known)
    }

    /// Loads the cluster of a state directory, if it has been up.
    pub fn load(dir: ClusterDir) -> Result<Option<Self>, Error> {
        let Some(instance) = dir.load()? else {
            return Ok(None);
        };
        let Some(topology) = applied(&dir)? else {
            return Ok(None);
        };
        let leaving = instance.leaving.keys().cloned().collect();
        let (topology, instance) = with_leaving(topology, instance);
        Ok(Some(Self {
            topology,
            dir,
            instance,
            hosts: Hosts::default(),
            leaving,
        }))
    }

    /// Looks at what is.
    pub async fn observe(&self, limit: Duration) -> Result<Observed, Error> {
        look(self.sight(&BTreeMap::new()), limit).await
    }

    /// Looks at processes, directories and ports only.
    pub async fn look_at_host(&self, limit: Duration) -> Result<Observed, Error> {
        look_at_host(self.sight(&BTreeMap::new()), limit).await
    }

    fn sight<'s>(&'s self, files: &'s BTreeMap<String, Vec<PathBuf>>) -> Sight<'s> {
        Sight {
            topology: &self.topology,
            instance: &self.instance,
            wanted: &self.instance,
            dir: &self.dir,
            hosts: &self.hosts,
            files,
            logs: false,
        }
    }

    /// [`Self::variables`] for one command: without those that its own flags give, because etcdctl refuses to be told twice.
    #[must_use]
    pub fn variables_for(&self, command: &[OsString]) -> Vec<(&'static str, String)> {
        let given = |variable: &str| {
            let flag = variable.trim_start_matches("ETCDCTL_").to_lowercase();
            command.iter().filter_map(|arg| arg.to_str()).any(|arg| {
                let flag_of = |arg: &str| arg.split('=').next().is_some_and(|name| name == flag);
                arg.strip_prefix("--").is_some_and(flag_of)
            })
        };
        let mut variables = self.variables();
        variables.retain(|(variable, _)| !given(variable));
        variables
    }

    /// The variables that make etcdctl talk to this cluster, and the URLs of its gateways.
    #[must_use]
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        let path = |path: PathBuf| path.display().to_string();
        let mut set = vec![
            ("ETCDCTL_API", "3".to_owned()),
            (
                "ETCDCTL_ENDPOINTS",
                render::client_urls(&self.topology, &self.instance).join(","),
            ),
        ];
        let gateways = services::gateway_urls(&self.topology, &self.instance);
        if !gateways.is_empty() {
            set.push(("PROVISION_GATEWAYS", gateways.join(",")));
        }
        match self.topology.tls.client {
            ClientTls::Off => {}
            ClientTls::Auto => set.push(("ETCDCTL_CACERT", path(self.instance.made_certs()))),
            ClientTls::Both | ClientTls::Server | ClientTls::Mutual => {
                set.push(("ETCDCTL_CACERT", path(self.instance.ca().cert)));
            }
        }
        if self.topology.tls.client.has_clients_certificates() {
            set.push(("ETCDCTL_CERT", path(self.instance.operator().cert)));
            set.push(("ETCDCTL_KEY", path(self.instance.operator().key)));
        }
        set
    }

    /// How to reach its members.
    pub fn access(&self) -> Result<Access, Error> {
        Access::read(&self.topology, &self.instance, &self.hosts)
    }
}

// The checksums that a member's files on its host should have.
fn wanted_files(
    deployment: &Deployment,
    certificates: &[CertAction],
) -> Result<WantedFiles, Error> {
    let mut wanted = WantedFiles::default();
    let about_to_be_written = |path: &PathBuf| {
        let paths = certificates.iter().map(|action| &action.paths);
        paths
            .into_iter()
            .any(|paths| paths.cert == *path || paths.key == *path)
    };
    for file in &deployment.installed {
        let checksum = match &file.content {
            Content::Text(text) => Some(checksum(text.as_bytes())),
            Content::CopyOf(path) if about_to_be_written(path) => None,
            Content::CopyOf(path) => checksum_of(path)?,
            Content::Program(_, checksum) => Some(checksum.clone()),
        };
        wanted.installed.insert(file.path.clone(), checksum);
    }
    for file in &deployment.given {
        if let Content::Text(text) = &file.content {
            wanted
                .given
                .insert(file.path.clone(), checksum(text.as_bytes()));
        }
    }
    Ok(wanted)
}

/// Makes sure that this process is in the network that the topology asks for: that of `alive`, or a new one. Does not return
/// where this program has to be started again inside.
pub fn enter_network(loaded: &Loaded, alive: Option<&Process>) -> Result<(), Error> {
    let topology = &loaded.topology;
    if topology.network == Network::Host {
        return Ok(());
    }
    let members = topology.members.iter().map(|member| member.listen);
    let advertised = topology
        .members
        .iter()
        .filter_map(|member| member.address.parse().ok());
    let gateways = topology.gateways.iter().map(|gateway| gateway.listen);
    let addresses: BTreeSet<IpAddr> = members.chain(advertised).chain(gateways).collect();
    let addresses: Vec<IpAddr> = addresses.into_iter().collect();
    let stdin = loaded.from_stdin.then_some(&*loaded.text);
    enter(alive, &addresses, stdin).map_err(no_network)
}

fn no_network(error: NetworkError) -> Error {
    let fix = Some(error.fix());
    Error::Failed {
        what: "the cluster has no network of its own".to_owned(),
        fix,
        source: Some(error.into()),
    }
}

// Any process of the cluster.
fn alive(dir: &ClusterDir) -> Result<Option<Process>, Error> {
    let Some(instance) = dir.load()? else {
        return Ok(None);
    };
    let services = dir.services()?;
    let members = instance.members.keys().chain(instance.leaving.keys());
    let members = members.map(|name| Unit::Member(name));
    let units = services
        .iter()
        .map(|name| Unit::Service(name))
        .chain(members);
    for unit in units {
        let record = dir.record(&unit)?;
        if let Some(record) = record.filter(|record| record.process.is_running()) {
            return Ok(Some(record.process));
        }
    }
    Ok(None)
}

/// The variables that would mislead etcdctl beside `set` if they were left over from another cluster.
#[must_use]
pub fn unset_beside(set: &[(&'static str, String)]) -> Vec<&'static str> {
    [
        "ETCDCTL_ENDPOINTS",
        "ETCDCTL_CACERT",
        "ETCDCTL_CERT",
        "ETCDCTL_KEY",
        "PROVISION_GATEWAYS",
    ]
    .into_iter()
    .filter(|name| set.iter().all(|(other, _)| other != name))
    .collect()
}

enum Located {
    File(PathBuf),
    Name(ClusterDir),
}

// Something that can only be a path is one. A bare word is a cluster first: `provision status demo` must not depend on what
// lies in the current directory.
fn locate(target: &str, context: &Context) -> Result<Located, Error> {
    let path = Path::new(target);
    let is_path = target == "-"
        || target.contains('/')
        || path
            .extension()
            .is_some_and(|extension| extension == "toml");
    if is_path {
        return Ok(Located::File(path.to_owned()));
    }
    let names = state::list(&context.state_root)?;
    let dir = ClusterDir::new(&context.state_root, target);
    if names.iter().any(|name| name == target) || dir.path().exists() {
        // Says what is wrong with a directory that is not a cluster's.
        if dir.load()?.is_some() {
            return Ok(Located::Name(dir));
        }
    }
    if path.is_file() {
        return Ok(Located::File(path.to_owned()));
    }
    let known = if names.is_empty() {
        format!("no cluster is known in {}", context.state_root.display())
    } else {
        format!("known clusters: {}", names.join(", "))
    };
    Err(Error::usage(
        format!("{target} is neither a topology file nor a known cluster"),
        format!("{known}; bring one up with `provision up FILE`"),
    ))
}

// As the cluster is seen, not as it should become: with those who still have to leave, and with those who have yet to join as
// what they do not count for.
fn with_leaving(mut topology: Topology, mut instance: Instance) -> (Topology, Instance) {
    let leaving: Vec<Member> = instance.leaving_members().collect();
    for (name, leaving) in std::mem::take(&mut instance.leaving) {
        instance.members.entry(name).or_insert(leaving.placement);
    }
    for member in leaving {
        if topology.members.iter().all(|it| it.name != member.name) {
            topology.members.push(member);
        }
    }
    for member in &mut topology.members {
        let place = instance.members.get(&member.name);
        if place.is_some_and(|place| place.origin == Origin::Joining) {
            member.role = Role::Learner;
        }
    }
    (topology, instance)
}

fn applied(dir: &ClusterDir) -> Result<Option<Topology>, Error> {
    let path = dir.topology_file();
    if !path.exists() {
        return Ok(None);
    }
    Ok(Some(topology::load(&path)?.topology))
}

fn not_edited(error: EditError, file: &str) -> Error {
    let fix = match &error {
        EditError::Address(_) => "give it with --address".to_owned(),
        EditError::Toml(_) | EditError::NotWritten(_) => {
            format!("change {file} by hand, and repeat the command without the option")
        }
    };
    Error::Failed {
        what: format!("{file} cannot be changed"),
        fix: Some(fix),
        source: Some(error.into()),
    }
}

fn missing(error: BinaryError, binary: &Binary) -> Error {
    let fix = match binary {
        Binary::Included => {
            "build or install `member` beside `provision`, or set PROVISION_MEMBER to its path"
        }
        Binary::Path(_) => "install it, or correct `binary` in the topology",
    };
    Error::failed(error.to_string(), fix)
}

fn server_of(program: &Path) -> Result<(Server, String), Error> {
    let text =
        version_text(program).map_err(|error| Error::because("the binary does not run", error))?;
    let said = text.lines().next().unwrap_or("nothing").to_owned();
    let version = said.rsplit(' ').next().unwrap_or_default().to_owned();
    let server = Server::from_version(&text).map(|server| (server, version));
    server.ok_or_else(|| {
        Error::failed(
            format!(
                "{} is neither etcd nor member: its --version says {said:?}",
                program.display()
            ),
            "correct `binary` in the topology",
        )
    })
}
