//! `member snapshot restore`: a new cluster's data directory from a snapshot.
//!
//! State and log are built beside their places and renamed, the state first. So a failure leaves nothing; and a
//! crash between the two leaves state without its log, which a member refuses to start from, never a log without
//! its state, which it could not tell from an empty store.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf, absolute};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use member_bolt::{HashCheck, SnapshotError, SnapshotFile};
use member_flags::{Bootstrap, FlagError, Flags, InitialCluster, UrlError, Urls};
use member_log::{Identity, Log, LogError, LogOptions, Peer};
use member_server::{Engine, Founding, Layout};
use rustix::fs::Mode;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::Failure;
use super::import::{Bump, Import, ImportError};
use super::options::Options;
use crate::engine::RocksEngine;
use crate::logging;

/// Why nothing was restored.
#[derive(Debug, thiserror::Error)]
enum RestoreError {
    #[error(transparent)]
    Flags(#[from] FlagError),
    #[error(transparent)]
    Url(#[from] UrlError),
    #[error("a restored member founds a cluster, it does not join one")]
    NotFounding,
    #[error("data-dir {dir:?} exists")]
    DataDirExists { dir: PathBuf },
    #[error("wal-dir {dir:?} exists")]
    WalDirExists { dir: PathBuf },
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error(transparent)]
    Import(#[from] ImportError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("cannot {action} {}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

fn failed<'a>(
    action: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> RestoreError + use<'a> {
    move |source| RestoreError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

pub(super) fn run(options: &Options) -> Result<(), Failure> {
    let file = options.file()?;
    let bump = bump(options)?;
    let check = if options.is_on("skip-hash-check") {
        HashCheck::Skipped
    } else {
        HashCheck::Required
    };
    let flags = flags(options).map_err(|error| Failure::new(&error))?;
    // Without a log the command goes on, as etcdctl does.
    let _ = logging::init(&flags);
    restore(&file, check, bump, &flags).map_err(|error| Failure::new(&error))
}

fn bump(options: &Options) -> Result<Bump, Failure> {
    let by = match options.get("bump-revision") {
        None => 0,
        Some(text) => text
            .parse::<i64>()
            .ok()
            .filter(|by| *by >= 0)
            .ok_or_else(|| {
                Failure::bad_arguments(format!(
                    "invalid argument \"{text}\" for \"--bump-revision\" flag: a number is needed"
                ))
            })?,
    };
    match (by, options.is_on("mark-compacted")) {
        (0, false) => Ok(Bump::None),
        (0, true) => Err(Failure::bad_arguments(
            "--mark-compacted disallowed if --bump-revision is 0",
        )),
        (_, false) => Err(Failure::bad_arguments(
            "--mark-compacted required if --bump-revision > 0",
        )),
        (by, true) => Ok(Bump::By(by)),
    }
}

/// The flags with which the new member would be founded.
fn flags(options: &Options) -> Result<Flags, RestoreError> {
    let mut flags = Flags::default();
    if let Some(name) = options.get("name") {
        name.clone_into(&mut flags.name);
    }
    if let Some(urls) = options.get("initial-advertise-peer-urls") {
        flags.initial_advertise_peer_urls = Urls::parse(urls)?;
    }
    if let Some(cluster) = options.get("initial-cluster") {
        flags.initial_cluster = InitialCluster::new(cluster);
    }
    if let Some(token) = options.get("initial-cluster-token") {
        token.clone_into(&mut flags.initial_cluster_token);
    }
    let path = |name| {
        options
            .get(name)
            .filter(|dir| !dir.is_empty())
            .map(PathBuf::from)
    };
    if let Some(dir) = path("data-dir") {
        flags.data_dir = Some(dir);
    }
    flags.wal_dir = path("wal-dir");
    Ok(flags)
}

fn restore(file: &Path, check: HashCheck, bump: Bump, flags: &Flags) -> Result<(), RestoreError> {
    let (identity, members) = founding(flags)?;
    let data_dir = flags.effective_data_dir();
    let layout = Layout::of(flags);
    if data_dir.exists() {
        return Err(RestoreError::DataDirExists { dir: data_dir });
    }
    if let Some(dir) = &flags.wal_dir
        && dir.exists()
    {
        return Err(RestoreError::WalDirExists { dir: dir.clone() });
    }
    let database = SnapshotFile::open(file, check)?;
    tracing::info!(
        path = %file.display(),
        "wal-dir" = %layout.log.display(),
        "data-dir" = %data_dir.display(),
        "restoring snapshot"
    );
    // The data is for this user alone, as etcd's.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    // Whoever interrupts gets what was built removed.
    let stopping = Arc::new(AtomicBool::new(false));
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stopping))
            .map_err(failed("listen for signals for", &data_dir))?;
    }
    let data = Beside::new(&data_dir)?;
    let member = data.path.join("member");
    let state = member.join("state");
    let (log_dir, log) = match within(&layout.log, &data_dir) {
        Some(below) => (data.path.join(below), None),
        None => {
            let log = Beside::new(&layout.log)?;
            (log.path.clone(), Some(log))
        }
    };
    let founding = found(&log_dir, identity, members)?;
    let import = Import {
        database: &database,
        founding,
        bump,
        stopping: &stopping,
    };
    fill(&import, &state)?;
    sync(&member)?;
    sync(parent(&log_dir))?;
    data.place()?;
    if let Some(log) = log
        && let Err(error) = log.place()
    {
        let _ = fs::remove_dir_all(&data_dir);
        return Err(error);
    }
    tracing::info!(
        path = %file.display(),
        "wal-dir" = %layout.log.display(),
        "data-dir" = %data_dir.display(),
        "restored snapshot"
    );
    Ok(())
}

fn founding(flags: &Flags) -> Result<(Identity, BTreeMap<u64, Peer>), RestoreError> {
    let Bootstrap::New {
        cluster_id,
        local_id,
        members,
    } = flags.check_bootstrap(&member_server::address)?
    else {
        return Err(RestoreError::NotFounding);
    };
    let identity = Identity {
        cluster_id,
        member_id: local_id,
    };
    let peer = |member: &member_flags::InitialMember| Peer {
        peer_urls: member.peer_urls.iter().map(ToString::to_string).collect(),
    };
    let members = members
        .iter()
        .map(|member| (member.id, peer(member)))
        .collect();
    Ok((identity, members))
}

/// A directory under construction beside its place; removed unless it takes it.
struct Beside {
    path: PathBuf,
    place: PathBuf,
}

impl Beside {
    fn new(place: &Path) -> Result<Self, RestoreError> {
        let parent = parent(place);
        fs::create_dir_all(parent).map_err(failed("create", parent))?;
        let name = place.file_name().unwrap_or_default().to_string_lossy();
        let path = parent.join(format!(".{name}.restore-{}", std::process::id()));
        fs::create_dir(&path).map_err(failed("create", &path))?;
        Ok(Self {
            path,
            place: place.to_owned(),
        })
    }

    /// Moves it to its place, durably.
    fn place(self) -> Result<(), RestoreError> {
        sync(&self.path)?;
        fs::rename(&self.path, &self.place).map_err(failed("create", &self.place))?;
        sync(parent(&self.place))
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        // Absent once it took its place.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// The rest of a path that leads into a directory.
fn within(path: &Path, dir: &Path) -> Option<PathBuf> {
    let (path, dir) = (absolute(path).ok()?, absolute(dir).ok()?);
    path.strip_prefix(dir).ok().map(Path::to_owned)
}

fn parent(path: &Path) -> &Path {
    path.parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

fn sync(dir: &Path) -> Result<(), RestoreError> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(failed("sync", dir))
}

/// Writes the log's beginning: whose it is, and that the members are in the state.
fn found(
    dir: &Path,
    identity: Identity,
    members: BTreeMap<u64, Peer>,
) -> Result<Founding, RestoreError> {
    let log = Log::open(LogOptions::new(dir))?;
    let membership = log.found(identity, members)?;
    log.close();
    Founding::new(&membership).map_err(failed("write", dir))
}

/// Writes the state.
fn fill(import: &Import<'_>, dir: &Path) -> Result<(), RestoreError> {
    let engine = RocksEngine::open(dir.to_owned()).map_err(failed("create", dir))?;
    let backend = engine.open().map_err(failed("create", dir))?;
    import.run(&backend)?;
    engine.flush(&backend).map_err(failed("write", dir))?;
    drop(backend);
    sync(dir)
}
