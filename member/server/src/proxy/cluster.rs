//! The cluster behind a proxy: its members' peer URLs, kept in a file, and where their clients connect.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use member_discovery::Registration;
use member_flags::{FlagError, Flags, Url};
use serde::{Deserialize, Serialize};

use super::director::Endpoint;
use crate::join::{Running, ask_first};
use crate::member::MemberError;
use crate::tls::PeerConnector;

/// Longer than a member has to answer at all; stands for no limit.
const NO_DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// `DATA_DIR/proxy/cluster`, as etcd writes it.
#[derive(Serialize, Deserialize)]
struct Noted {
    #[serde(rename = "PeerURLs")]
    peer_urls: Vec<String>,
}

/// The members, as far as they are known.
pub(super) struct Cluster {
    file: PathBuf,
    /// Sorted.
    peers: Vec<Url>,
    noted: bool,
    connector: PeerConnector,
    dial: Duration,
}

impl Cluster {
    /// Takes the members from the file of an earlier run, or else from the flags. Creates the file's directory.
    ///
    /// # Errors
    /// The file cannot be used, the flags name no member, or a discovery service refuses.
    pub(super) async fn open(flags: &Flags, connector: PeerConnector) -> Result<Self, MemberError> {
        let dir = super::dir(flags);
        let file = dir.join("cluster");
        let noted = read(&file)?;
        let known = noted.is_some();
        let peers = match noted {
            Some(peers) => {
                warn_of_ignored(flags, &file);
                tracing::info!("peer-urls" = ?texts(&peers), "cluster-file" = %file.display(), "proxy using peer URLS from cluster file");
                peers
            }
            None => {
                let peers = found(flags).await?;
                tracing::info!("peer-urls" = ?texts(&peers), "proxy using peer URLS");
                peers
            }
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .map_err(|source| MemberError::DataDir { dir, source })?;
        Ok(Self {
            file,
            peers,
            noted: known,
            connector,
            dial: flags.proxy.dial_timeout().unwrap_or(NO_DIAL_TIMEOUT),
        })
    }

    /// Asks the members who they are now. The endpoints are none when none of them answers.
    pub(super) async fn look(&mut self) -> Vec<Endpoint> {
        let peers: Vec<&Url> = self.peers.iter().collect();
        let running = match ask_first(&self.connector, &peers, self.dial).await {
            Ok(running) => running,
            Err(error) => {
                tracing::warn!("peer-urls" = ?texts(&self.peers), %error, "failed to get cluster from remote peers");
                return Vec::new();
            }
        };
        self.note(&running).await;
        let urls = running
            .members
            .iter()
            .flat_map(|member| &member.client_urls);
        let endpoints = urls.filter_map(|url| {
            let endpoint = Endpoint::parse(url);
            if endpoint.is_none() {
                tracing::warn!(url, "upstream URL invalid");
            }
            endpoint
        });
        endpoints.collect()
    }

    /// Remembers the members' peer URLs, on the disk too when they have changed.
    async fn note(&mut self, running: &Running) {
        let urls = running.members.iter().flat_map(|member| &member.peer_urls);
        let mut peers: Vec<Url> = urls.filter_map(|url| Url::parse(url).ok()).collect();
        peers.sort();
        if peers.is_empty() || (self.noted && peers == self.peers) {
            return;
        }
        if peers != self.peers {
            tracing::info!(from = ?texts(&self.peers), to = ?texts(&peers), "proxy updated peer URLs");
        }
        let noted = Noted {
            peer_urls: texts(&peers),
        };
        self.peers = peers;
        let file = self.file.clone();
        let written = tokio::task::spawn_blocking(move || write(&file, &noted)).await;
        match written.map_err(io::Error::other).flatten() {
            Ok(()) => self.noted = true,
            // It is tried again at the next look.
            Err(error) => {
                self.noted = false;
                tracing::warn!(path = %self.file.display(), %error, "proxy failed to write cluster file");
            }
        }
    }
}

fn texts(urls: &[Url]) -> Vec<String> {
    urls.iter().map(Url::to_string).collect()
}

/// The members that the flags list or a service names.
async fn found(flags: &Flags) -> Result<Vec<Url>, MemberError> {
    let cluster = match member_discovery::find(flags, Registration::None).await? {
        Some(found) => found.cluster,
        None => flags.effective_initial_cluster(),
    };
    let members = cluster
        .members()
        .map_err(|source| FlagError::InitialCluster { source })?;
    let mut urls: Vec<Url> = members.into_values().flatten().collect();
    if urls.is_empty() {
        return Err(MemberError::NoPeers);
    }
    urls.sort();
    Ok(urls)
}

fn warn_of_ignored(flags: &Flags, file: &Path) {
    if !flags.discovery.url.is_empty() || !flags.discovery.endpoints.is_empty() {
        tracing::warn!(
            "cluster-file" = %file.display(),
            "discovery token ignored since the proxy has already been initialized; valid cluster file found"
        );
    }
    if !flags.discovery.srv.is_empty() {
        tracing::warn!(
            "cluster-file" = %file.display(),
            "DNS SRV discovery ignored since the proxy has already been initialized; valid cluster file found"
        );
    }
}

/// What an earlier run has noted; `None` when there was none.
fn read(file: &Path) -> Result<Option<Vec<Url>>, MemberError> {
    let unusable = |reason: String| MemberError::ClusterFile {
        path: file.to_owned(),
        reason,
    };
    let text = match fs::read(file) {
        Ok(text) => text,
        // What is no directory shows when one is to be made.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(unusable(error.to_string())),
    };
    let noted: Noted =
        serde_json::from_slice(&text).map_err(|error| unusable(error.to_string()))?;
    let peers: Result<Vec<Url>, _> = noted.peer_urls.iter().map(|url| Url::parse(url)).collect();
    let mut peers = peers.map_err(|error| unusable(error.to_string()))?;
    if peers.is_empty() {
        return Err(unusable("it names no member".to_owned()));
    }
    peers.sort();
    Ok(Some(peers))
}

fn write(file: &Path, noted: &Noted) -> io::Result<()> {
    let next = file.with_extension("bak");
    let mut out = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&next)?;
    out.write_all(&serde_json::to_vec(noted)?)?;
    out.sync_all()?;
    fs::rename(&next, file)?;
    match file.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_what_is_damaged_is_refused() {
        let dir = tempfile::TempDir::new().unwrap();
        let file = dir.path().join("cluster");
        assert!(read(&file).unwrap().is_none());
        let urls = ["http://127.0.0.1:1", "https://h:2"].map(str::to_owned);
        let noted = Noted {
            peer_urls: urls.to_vec(),
        };
        write(&file, &noted).unwrap();
        assert_eq!(
            fs::read_to_string(&file).unwrap(),
            r#"{"PeerURLs":["http://127.0.0.1:1","https://h:2"]}"#
        );
        assert_eq!(texts(&read(&file).unwrap().unwrap()), urls);
        for bad in [
            "",
            "{\"Peer",
            "{}",
            r#"{"PeerURLs":null}"#,
            r#"{"PeerURLs":[]}"#,
            r#"{"PeerURLs":["ftp://h:1"]}"#,
        ] {
            fs::write(&file, bad).unwrap();
            let error = read(&file).unwrap_err().to_string();
            assert!(error.contains("remove it"), "{bad}: {error}");
        }
    }
}
