//! Trying a backup out: a member of its own is restored from it and asked what it holds.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use super::work::WorkDir;
use crate::error::Error;
use crate::host::local::{Claim, Launch, Launched, RestoreSnapshot, included_member, restorer};
use crate::host::remote::Ask;
use crate::observe::{CallError, Client, KeysHash};
use crate::render::Server;

const ASK_LIMIT: Duration = Duration::from_secs(5);
const ASK_EVERY: Duration = Duration::from_millis(10);
const LAST_LINES: usize = 5;
const NAME: &str = "trial";

/// A backup to try out.
pub(super) struct Trial<'a> {
    /// What the cluster runs.
    pub(super) program: &'a Path,
    pub(super) server: Server,
    /// In plain.
    pub(super) snapshot: &'a Path,
    /// Where the member may live.
    pub(super) dir: &'a WorkDir,
    /// What it should hold.
    pub(super) revision: i64,
    pub(super) keys: u64,
    pub(super) limit: Duration,
}

/// Restores the backup, serves it on loopback and returns what did so, and the hash of its keys.
pub(super) async fn try_out(trial: &Trial<'_>) -> Result<(String, KeysHash), Error> {
    let included = || {
        included_member().map_err(|error| {
            Error::failed(
                format!("nothing here restores the snapshot: {error}"),
                "install etcdutl or etcdctl beside the etcd of the topology, or `member` beside `provision`",
            )
        })
    };
    let (restores, serves, by) = match trial.server {
        Server::Member => (
            trial.program.to_owned(),
            trial.program.to_owned(),
            trial.server,
        ),
        Server::Etcd { .. } => match restorer(trial.program) {
            Ok(tool) => (tool, trial.program.to_owned(), trial.server),
            // Its files are etcd's, and it hashes keys as etcd does.
            Err(_) => (included()?, included()?, Server::Member),
        },
    };
    let claim = Claim::new(2, trial.dir.path().as_os_str().len() as u64)
        .map_err(|error| Error::because("no free ports for a trial", error))?;
    let port = |index| claim.port(index).unwrap_or_default();
    let client = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port(0));
    let peer = format!("http://127.0.0.1:{}", port(1));
    let data_dir = trial.dir.join("data");
    let cluster = format!("{NAME}={peer}");
    let restore = RestoreSnapshot {
        program: restores,
        parts: vec![trial.snapshot.to_owned()],
        name: NAME.to_owned(),
        initial_cluster: cluster.clone(),
        token: NAME.to_owned(),
        peer_url: peer.clone(),
        data_dir: data_dir.clone(),
        mark: None,
        owner: None,
    };
    restore.answer().await?;
    let args = [
        format!("--name={NAME}"),
        format!("--data-dir={}", data_dir.display()),
        format!("--listen-client-urls=http://{client}"),
        format!("--advertise-client-urls=http://{client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster={cluster}"),
        format!("--initial-cluster-token={NAME}"),
    ];
    let log = trial.dir.join("log");
    let launch = Launch {
        program: &serves,
        args: &args,
        log: &log,
        dir: trial.dir.path(),
        dies_with_parent: true,
        run_as: None,
    };
    let launched = launch
        .start()
        .map_err(|error| Error::because("the trial's member does not start", error))?;
    let mut scratch = Scratch(launched);
    let hash = ask(&mut scratch, client, trial).await;
    scratch.0.process.stop(Duration::ZERO).await?;
    Ok((by.to_string(), hash?))
}

/// Killed when the trial ends early.
struct Scratch(Launched);

impl Drop for Scratch {
    fn drop(&mut self) {
        // Gone already, most of the time.
        let _killed = self.0.process.signal(Signal::KILL);
        let _reaped = self.0.exit();
    }
}

async fn ask(
    scratch: &mut Scratch,
    address: SocketAddr,
    trial: &Trial<'_>,
) -> Result<KeysHash, Error> {
    let deadline = Instant::now() + trial.limit;
    let client = loop {
        match connect(address).await {
            Ok(client) => break client,
            Err(_) if scratch.0.process.is_running() && Instant::now() < deadline => {
                sleep(ASK_EVERY).await;
            }
            Err(why) => {
                let lines = scratch.0.log.last_lines(LAST_LINES).join("\n");
                return Err(Error::Failed {
                    what: format!("the member that was restored does not come up: {why}"),
                    fix: Some("the backup is not kept; see what its log says".to_owned()),
                    source: Some(lines.into()),
                });
            }
        }
    };
    let failed = |error: CallError| Error::because("the restored member does not answer", error);
    let hash = client
        .hash_kv(trial.revision, trial.limit)
        .await
        .map_err(failed)?;
    match client.count(trial.revision, trial.limit).await {
        Ok(keys) if keys.try_into() == Ok(trial.keys) => Ok(hash),
        Ok(keys) => Err(Error::because(
            format!(
                "the restored member holds {keys} keys instead of {}",
                trial.keys
            ),
            "the snapshot counts differently",
        )),
        // With users and roles it serves nobody without a password; the hash covers all keys.
        Err(CallError::Refused(status)) if status.message().contains("user name is empty") => {
            Ok(hash)
        }
        Err(error) => Err(failed(error)),
    }
}

async fn connect(address: SocketAddr) -> Result<Client, String> {
    let client = Client::plain(address, ASK_LIMIT)
        .await
        .map_err(|error| error.to_string())?;
    match client.status(ASK_LIMIT).await {
        Ok(vitals) if vitals.leader != 0 => Ok(client),
        Ok(_) => Err("it has no leader".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
