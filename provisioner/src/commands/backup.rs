//! `backup`

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;

use super::up::OBSERVE_LIMIT;
use crate::apply::{Interrupt, Second};
use crate::backup::{
    self, Backup, Destination, Manager, Recipients, Retention, Take, Timer, Units, show_bytes,
};
use crate::cli::BackupArgs;
use crate::cluster::{Cluster, Known};
use crate::context::Context;
use crate::error::{Error, ExitCode};
use crate::host::local::{Systemd, next_event};
use crate::output::{Document, Table};
use crate::runtime::runtime;
use crate::topology::{self, Network};

#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    backup: Backup,
    deleted: Vec<PathBuf>,
}

impl Document for Report {
    fn table(&self) -> Table {
        Table::text(self.backup.path.display().to_string())
    }
}

#[derive(Debug, Serialize)]
struct List {
    dir: PathBuf,
    backups: Vec<Backup>,
}

impl Document for List {
    fn table(&self) -> Table {
        if self.backups.is_empty() {
            return Table::text(format!("no backups in {}", self.dir.display()));
        }
        let heading = [
            "taken at",
            "revision",
            "keys",
            "size",
            "encrypted",
            "verified",
            "file",
        ];
        let mut table = Table::new(heading);
        let dash = || "-".to_owned();
        for Backup { path, manifest } in &self.backups {
            table.row([
                manifest.time(),
                manifest.revision.to_string(),
                manifest.keys.map_or_else(dash, |keys| keys.to_string()),
                show_bytes(manifest.snapshot_size),
                match manifest.encrypted_to.len() {
                    0 => "no".to_owned(),
                    1 => "to 1 key".to_owned(),
                    keys => format!("to {keys} keys"),
                },
                match &manifest.verified {
                    Some(verified) => format!("by {}", verified.by),
                    None => "no".to_owned(),
                },
                path.display().to_string(),
            ]);
        }
        table
    }

    fn lines(&self) -> Vec<Value> {
        let backups = self.backups.iter();
        backups
            .filter_map(|backup| serde_json::to_value(backup).ok())
            .collect()
    }
}

/// Runs `backup`.
///
/// # Errors
/// The cluster is unknown, no member gives a snapshot, it cannot be written, or it is not what the cluster holds.
pub fn run(args: &BackupArgs, context: &Context) -> Result<ExitCode, Error> {
    runtime()?.block_on(async {
        let interrupt = Interrupt::listen(Second::Exits)?;
        let cluster = Cluster::open(&args.target, context)?;
        let done = async {
            if args.list {
                list(args, &cluster, context)
            } else if args.install_timer {
                install_timer(&cluster, context).await
            } else if args.remove_timer {
                remove_timer(&cluster, context).await
            } else {
                context.output.data(&take(args, &cluster, context).await?)
            }
        };
        tokio::select! {
            done = done => done?,
            () = interrupt.token().cancelled() => return Err(interrupt.error()),
        }
        Ok(ExitCode::Ok)
    })
}

/// Where a cluster's backups go unless somebody says otherwise. Not in its own directory: they outlive `down --purge`.
pub(super) fn default_dir(context: &Context, cluster: &str) -> PathBuf {
    context.state_root.join("backups").join(cluster)
}

fn settings(cluster: &Cluster) -> topology::Backup {
    cluster.topology.backup.clone().unwrap_or_default()
}

fn dir(cluster: &Cluster, context: &Context) -> PathBuf {
    let dir = settings(cluster).dir;
    dir.unwrap_or_else(|| default_dir(context, &cluster.topology.name))
}

fn known(cluster: &Cluster) -> Result<Known, Error> {
    Known::load(cluster.dir.clone())?.ok_or_else(|| {
        Error::usage(
            format!("cluster {} has not been brought up", cluster.topology.name),
            "bring it up with `provision up FILE`",
        )
    })
}

/// Takes a backup as [backup] says, before something that cannot be undone.
pub(super) async fn take_before(
    cluster: &Cluster,
    timeout: Duration,
    context: &Context,
) -> Result<(), Error> {
    let args = BackupArgs {
        target: cluster.topology.name.clone(),
        to: None,
        verify: false,
        encrypt_to: Vec::new(),
        keep: None,
        keep_for: None,
        timeout,
        list: false,
        install_timer: false,
        remove_timer: false,
    };
    let Report { backup, .. } = take(&args, cluster, context).await?;
    context.output.note(format!(
        "the way back is {}: `provision restore {} FILE`, with the program of now in the topology",
        backup.path.display(),
        cluster.topology.name
    ));
    Ok(())
}

async fn take(args: &BackupArgs, cluster: &Cluster, context: &Context) -> Result<Report, Error> {
    let output = &context.output;
    let settings = settings(cluster);
    let name = &cluster.topology.name;
    let recipients = if args.encrypt_to.is_empty() {
        &settings.encrypt_to
    } else {
        &args.encrypt_to
    };
    let recipients = Recipients::parse(recipients).map_err(|error| {
        Error::usage(
            error.to_string(),
            "give the public key that `age-keygen` prints, age1...",
        )
    })?;
    let default = dir(cluster, context);
    let to = args.to.as_deref().unwrap_or(&default);
    let to = match &args.to {
        Some(path) if !is_dir(path) => Destination::File(path),
        _ => Destination::Dir(to),
    };
    let retention = retention(args, &settings, to)?;

    let known = known(cluster)?;
    let verify = args.verify || settings.verify;
    let programs = verify.then(|| cluster.programs()).transpose()?;
    let observed = known.observe(OBSERVE_LIMIT.min(args.timeout)).await?;
    let (from, vitals) = backup::choose(&known.topology, &observed).ok_or_else(|| {
        Error::failed(
            format!("no voting member of cluster {name} answers, so that none can give a snapshot"),
            format!("see `provision status {name}`, and bring it back with `provision up {name}`"),
        )
    })?;
    if let Some(why) = &vitals.not_ready {
        output.warn(format!(
            "{from} may have missed the last writes: {why}; no other member is better"
        ));
    }
    let no_place = || Error::because(format!("member {from} has no place"), "it is not known");
    let mut members = known.topology.members.iter();
    let member = members.find(|it| it.name == from).ok_or_else(no_place)?;
    let running = observed
        .members
        .get(from)
        .and_then(|facts| facts.process.as_ref());
    let placed = known.instance.place(from).map(|place| place.client_port);
    let port = running.and_then(|running| running.client_port()).or(placed);
    let client = known
        .access()?
        .connect(member, port.ok_or_else(no_place)?, args.timeout)
        .await
        .map_err(|error| Error::because(format!("cannot connect to {from}"), error))?;
    let private = default_dir(context, name);
    let taken = Take {
        cluster: name,
        member: from,
        client: &client,
        verify: programs.as_ref().and_then(|programs| programs.of(from)),
        recipients: &recipients,
        to,
        private: &private,
        timeout: args.timeout,
        output,
    };
    let backup = taken.run().await.map_err(|error| {
        let host = member.host.as_ref();
        match host.and_then(|host| known.hosts.lost(host)) {
            Some(lost) => Error::from(lost).at(from, "take a snapshot"),
            None => error,
        }
    })?;
    let deleted = match (to, retention) {
        (Destination::Dir(dir), Some(retention)) => {
            let backups = backup::list(dir, name)?;
            backup::prune(&backups, retention, OffsetDateTime::now_utc())?
        }
        _ => Vec::new(),
    };
    if !deleted.is_empty() {
        output.note(format!("deleted {} older backups", deleted.len()));
    }
    Ok(Report { backup, deleted })
}

fn is_dir(path: &Path) -> bool {
    path.is_dir() || path.as_os_str().as_encoded_bytes().ends_with(b"/")
}

fn retention(
    args: &BackupArgs,
    settings: &topology::Backup,
    to: Destination<'_>,
) -> Result<Option<Retention>, Error> {
    let given = Retention {
        count: args.keep.map(Into::into),
        age: args.keep_for,
    };
    if let (Destination::File(file), true) = (to, given != Retention::default()) {
        return Err(Error::usage(
            format!(
                "{} is a file, and backups are kept in directories",
                file.display()
            ),
            "name a directory with --to, or leave --keep and --keep-for out",
        ));
    }
    // Files somewhere else are somebody's own.
    if given == Retention::default() && args.to.is_none() {
        let count = settings.keep.and_then(|keep| keep.try_into().ok());
        return Ok(Some(Retention {
            count,
            age: settings.keep_for,
        }));
    }
    Ok(Some(given))
}

fn list(args: &BackupArgs, cluster: &Cluster, context: &Context) -> Result<(), Error> {
    let default = dir(cluster, context);
    let dir = args.to.clone().unwrap_or(default);
    let backups = backup::list(&dir, &cluster.topology.name)?;
    context.output.data(&List { dir, backups })
}

async fn install_timer(cluster: &Cluster, context: &Context) -> Result<(), Error> {
    let name = &cluster.topology.name;
    let known = known(cluster)?;
    // The timer knows the cluster by its name.
    if known.topology.backup != cluster.topology.backup {
        return Err(Error::usage(
            format!("[backup] of the file is not what cluster {name} was brought up with"),
            "run `provision up` with the file first",
        ));
    }
    if cluster.topology.network == Network::Private {
        return Err(Error::usage(
            format!("cluster {name} has a network of its own, which no service enters"),
            "back it up by hand, or give it this machine's network",
        ));
    }
    let settings = settings(cluster);
    let schedule = settings.schedule.as_deref().ok_or_else(|| {
        Error::usage(
            "the topology does not say when backups are taken",
            "write `schedule = \"daily\"` under [backup], and run `provision up` with the file",
        )
    })?;
    let next = next_event(schedule).await?;
    let systemd = Systemd::of_this_user()?;
    let program = std::env::current_exe()
        .map_err(|source| Error::because("cannot find this program's own file", source))?;
    let variables = ["HOME", "PATH", "PROVISION_MEMBER"];
    let variables: Vec<(String, String)> = variables
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)))
        .collect();
    let private = default_dir(context, name);
    let mut writes = vec![dir(cluster, context), private];
    writes.dedup();
    for dir in &writes {
        // A service cannot be let into a directory that does not exist.
        std::fs::create_dir_all(dir).map_err(Error::io("create", dir))?;
    }
    let timer = Timer {
        cluster: name,
        schedule,
        program: &program,
        state_root: &context.state_root,
        writes: &writes,
        variables: &variables,
        manager: if systemd.is_user() {
            Manager::User
        } else {
            Manager::System
        },
    };
    let units = timer.units();
    let files = [
        (&*units.service, &*units.service_text),
        (&*units.timer, &*units.timer_text),
    ];
    systemd.install(&files, &units.timer).await?;
    let next = next
        .map(|next| format!("; next at {next}"))
        .unwrap_or_default();
    context.output.note(format!(
        "cluster {name} is backed up by {}: {schedule}{next}",
        systemd.path(&units.timer).display()
    ));
    Ok(())
}

async fn remove_timer(cluster: &Cluster, context: &Context) -> Result<(), Error> {
    let name = &cluster.topology.name;
    let [service, timer] = Units::names(name);
    let systemd = Systemd::of_this_user()?;
    let removed = systemd.remove(&[&service, &timer], &timer).await?;
    context.output.note(if removed {
        format!("cluster {name} is not backed up by a timer any more; its backups stay")
    } else {
        format!("no timer backs cluster {name} up")
    });
    Ok(())
}
