//! One member of a cluster: starts in a fixed order, owns every task, stops in the reverse order.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use member_discovery::{DiscoveryError, Registration};
use member_flags::{Bootstrap, ClusterState, FlagError, Flags, Source, Url};
use member_log::{Identity, Log, LogError, LogOptions};
use member_proto::peerpb::control_request::Call;
use member_proto::peerpb::control_response::Answer;
use member_proto::peerpb::peer_server::PeerServer;
use member_proto::peerpb::{MemberKnownRequest, MemberKnownResponse};
use member_state::{Op, Publish};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::Access;
use crate::auth::{Callers, CallersError, SimpleTokens};
use crate::auto_compaction;
use crate::barrier::Barrier;
use crate::connected::Connected;
use crate::consensus::{self, Consensus, Settings, Stopped};
use crate::corruption::{self, InitialCheck};
use crate::discover::{check_bootstrap, check_writable, discover, peer_name};
use crate::engine::Engine;
use crate::join::join;
use crate::leases::Leases;
use crate::listen::{self, Http2, ListenError};
use crate::metrics::Metrics;
use crate::node::{CompactionPace, Node};
use crate::peer::link::{Introduction, MAX_MESSAGE_BYTES};
use crate::peer::links::Links;
use crate::peer::service::PeerService;
use crate::proposals::Proposals;
use crate::quota::Quota;
use crate::removal::{REMOVED, Removals};
use crate::replica::Replica;
use crate::router::{ClientPort, PeerPort};
use crate::tls::{Acceptor, PeerConnector, TlsError, TlsFiles};
use crate::v2::{self, V2};
use crate::watch::WatchHub;
use crate::write::Writer;

/// etcd lets a request take this long beside two election timeouts.
const REQUEST_PATIENCE: Duration = Duration::from_secs(5);

/// How long another member may take to say whether it knows this one.
const KNOWN_PATIENCE: Duration = Duration::from_secs(1);

/// How long a data directory that another process uses is waited for.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);

/// How long clients' requests in flight may take once the member stops.
pub(crate) const DRAIN_PATIENCE: Duration = Duration::from_secs(3);

/// How long the next leader may take to show that it is there. Members that are stopped together are not.
const ALIVE_PATIENCE: Duration = Duration::from_millis(200);

/// How long connections of peers may take to close.
const PEER_DRAIN_PATIENCE: Duration = Duration::from_millis(200);

/// gRPC's own bytes around a request of `--max-request-bytes`; etcd's figure.
pub(crate) const GRPC_OVERHEAD_BYTES: usize = 512 * 1024;

/// Why a member did not start or could not go on.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// The flags contradict each other.
    #[error(transparent)]
    Settings(FlagError),
    /// The flags contradict the cluster, or cannot be listened with.
    #[error(transparent)]
    Flags(#[from] FlagError),
    /// The other members are not found.
    #[error(transparent)]
    Discovery(#[from] DiscoveryError),
    /// The data directory is a member's and a proxy's at once.
    #[error(
        "invalid datadir; both member and proxy directories exist: remove the one of the two in {} that is not wanted",
        dir.display()
    )]
    BothRoles {
        /// The directory.
        dir: PathBuf,
    },
    /// A proxy is asked for where there is a member's data.
    #[error(
        "--proxy is set, but data directory {} is a member's: leave the flag out to run the member, or give the proxy a directory of its own",
        dir.display()
    )]
    NotAProxy {
        /// The directory.
        dir: PathBuf,
    },
    /// A member is asked for where there is a proxy's data.
    #[error(
        "data directory {0} is a proxy's: set --proxy to run the proxy, or remove {0}/proxy to make a member of it",
        dir.display()
    )]
    NotAMember {
        /// The directory.
        dir: PathBuf,
    },
    /// A proxy is not told of any member.
    #[error(
        "the proxy knows no member to ask: set --initial-cluster, --discovery or --discovery-srv"
    )]
    NoPeers,
    /// The members that the proxy has noted cannot be read.
    #[error(
        "cannot use {}: {reason}; remove it, and the proxy takes the members from its flags",
        path.display()
    )]
    ClusterFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Nothing can be written where the data is to be.
    #[error("cannot write to data directory {}", dir.display())]
    DataDir {
        /// The directory.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A URL cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Tokens cannot be made or checked.
    #[error(transparent)]
    Callers(#[from] CallersError),
    /// The log cannot be used.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The state cannot be used.
    #[error("cannot open the state in {}", dir.display())]
    State {
        /// Its directory.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The state belongs to a log that is not there.
    #[error(
        "{} holds state, but {} holds no log: the log was removed or --wal-dir has changed; restore it, or remove the whole data directory and replace the member",
        state.display(), log.display()
    )]
    StateWithoutLog {
        /// The state's directory.
        state: PathBuf,
        /// The log's directory.
        log: PathBuf,
    },
    /// The cluster knows a member of this id as started, but its data is not here.
    #[error(
        "member {id:x} has already been bootstrapped: its data directory was lost or is another one; restore it, or replace the member (a member without its data could undo what the cluster acknowledged)"
    )]
    AlreadyBootstrapped {
        /// The member.
        id: u64,
    },
    /// The member's keys are not those of the others.
    #[error(
        "{id:x} found data inconsistency with peers: its data or theirs is damaged; compare `etcdctl endpoint hashkv --cluster` on the others, and replace the member that differs"
    )]
    Inconsistent {
        /// The member.
        id: u64,
    },
    /// The member was removed from its cluster, for good.
    #[error("{REMOVED}")]
    Removed,
    /// Consensus has ended.
    #[error("the member cannot go on: {reason}")]
    Consensus {
        /// openraft's reason.
        reason: String,
    },
}

impl From<Stopped> for MemberError {
    fn from(stopped: Stopped) -> Self {
        Self::Consensus {
            reason: stopped.to_string(),
        }
    }
}

impl MemberError {
    /// etcd's exit code.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Settings(error) | Self::Flags(error) => error.exit_code(),
            // As etcd: what was asked for has happened.
            Self::Removed => 0,
            _ => 1,
        }
    }

    /// etcd's log line for it, and the lines of advice that follow.
    #[must_use]
    pub fn log_lines(&self) -> (&'static str, &'static [&'static str]) {
        match self {
            Self::Settings(FlagError::AdvertiseClientMissing) => (
                "failed to verify flags",
                &["advertise client URLs are not set"],
            ),
            Self::Settings(_) => ("failed to verify flags", &[]),
            Self::Discovery(error) => error.log_lines(),
            Self::BothRoles { .. } => (
                "invalid datadir; both member and proxy directories exist",
                &[],
            ),
            _ => ("discovery failed", &[]),
        }
    }
}

/// A running member.
pub struct Member<E: Engine> {
    node: Arc<Node<E>>,
    log: Log,
    links: Arc<Links>,
    clients: Part,
    peers: Part,
    core: Part,
    failed: watch::Receiver<Option<String>>,
}

/// Tasks that stop together.
#[derive(Clone, Default)]
pub(crate) struct Part {
    pub(crate) tasks: TaskTracker,
    pub(crate) stopping: CancellationToken,
}

impl Part {
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stopping = self.stopping.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = stopping.cancelled() => {}
                () = task => {}
            }
        });
    }

    /// Cancels the tasks and waits for them; false when some did not end in time.
    pub(crate) async fn stop(&self, patience: Duration) -> bool {
        self.stopping.cancel();
        self.tasks.close();
        tokio::time::timeout(patience, self.tasks.wait())
            .await
            .is_ok()
    }
}

/// Listening sockets, bound before anything else is touched, so that a taken port changes nothing.
struct Ports {
    peer: Vec<(TcpListener, Acceptor)>,
    client: Vec<(TcpListener, Acceptor)>,
    metrics: Vec<(TcpListener, Acceptor)>,
}

pub(crate) async fn bind(
    urls: &[Url],
    tls: &Acceptor,
) -> Result<Vec<(TcpListener, Acceptor)>, MemberError> {
    let mut bound = Vec::new();
    for url in urls {
        let tls = if url.scheme().is_tls() {
            tls.clone()
        } else {
            Acceptor::plain()
        };
        // The flags' own check has refused an https URL without files; plain text must never take its place.
        assert!(
            tls.is_secure() == url.scheme().is_tls(),
            "{url} would not be served as it says"
        );
        bound.push((listen::bind(url.as_str()).await?, tls));
    }
    Ok(bound)
}

/// Binds client URLs. As with etcd, an address that is there with both schemes takes callers with and without TLS.
async fn bind_clients(
    urls: &[Url],
    tls: &Acceptor,
) -> Result<Vec<(TcpListener, Acceptor)>, MemberError> {
    let twin = |url: &&Url| {
        let same = |other: &&Url| other.address() == url.address();
        let other = |other: &&Url| other.scheme() != url.scheme();
        urls.iter().filter(same).any(|url| other(&url))
    };
    let (shared, own): (Vec<&Url>, Vec<&Url>) = urls.iter().partition(twin);
    let own: Vec<Url> = own.into_iter().cloned().collect();
    let mut bound = bind(&own, tls).await?;
    for url in shared.into_iter().filter(|url| url.scheme().is_tls()) {
        let acceptor = tls.clone().and_plain();
        bound.push((listen::bind(url.as_str()).await?, acceptor));
    }
    Ok(bound)
}

/// Where a member keeps what.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The raft log.
    pub log: PathBuf,
    /// The replicated state.
    pub state: PathBuf,
}

impl Layout {
    /// The directories that the flags name, laid out as etcd's.
    #[must_use]
    pub fn of(flags: &Flags) -> Self {
        let member = flags.effective_data_dir().join("member");
        Self {
            log: flags.wal_dir.clone().unwrap_or_else(|| member.join("wal")),
            state: member.join("state"),
        }
    }
}

impl<E: Engine> Member<E> {
    /// Starts a member: binds, opens what it left at its last stop, and joins its cluster. Returns when both ports
    /// are served; [`Member::ready`] waits for the cluster.
    ///
    /// # Errors
    /// When the flags, the certificates, the ports, a discovery service or the stored data do not allow it. Stored data is
    /// as it was then; certificates that were made stay, and so does a registration.
    pub async fn start(
        flags: &Flags,
        open_engine: impl FnOnce() -> io::Result<E>,
    ) -> Result<Self, MemberError> {
        flags.check_settings().map_err(MemberError::Settings)?;
        let layout = Layout::of(flags);
        let first_start = !layout.log.exists();
        if first_start && layout.state.exists() {
            return Err(MemberError::StateWithoutLog {
                state: layout.state,
                log: layout.log,
            });
        }
        let listed = if first_start && flags.source() == Source::Static {
            Some(check_bootstrap(flags.clone()).await?)
        } else {
            None
        };
        flags.check_transport()?;
        let callers = Callers::new(flags)?;
        let fixtures = flags.effective_data_dir().join("fixtures");
        let peer_files = TlsFiles::of_peers(flags, &fixtures)?;
        let client_tls = Acceptor::new(TlsFiles::of_clients(flags, &fixtures)?)?;
        let mut peer_tls = Acceptor::new(peer_files.clone())?;
        if !flags.peer_skip_client_san_verification {
            peer_tls = peer_tls.checking_origin();
        }
        let connector = PeerConnector::new(peer_files)?.named(peer_name(flags));
        let client = bind_clients(&flags.listen_client_urls, &client_tls).await?;
        let metrics_ports = bind(&flags.listen_metrics_urls, &client_tls).await?;
        let birth = if first_start {
            let bootstrap = match listed {
                Some(bootstrap) => bootstrap,
                None => {
                    // A registration is not taken back: what can fail without it is tried before.
                    drop(bind(&flags.listen_peer_urls, &peer_tls).await?);
                    check_writable(flags)?;
                    discover(flags, Registration::New).await?
                }
            };
            let birth = Birth::of(bootstrap, flags, &connector).await?;
            // Before the peer port is bound: members that start together must not wait for one another's answers.
            birth
                .refuse_second(&connector, flags.election_timeout_ms)
                .await?;
            Some(birth)
        } else {
            None
        };
        let peer = bind(&flags.listen_peer_urls, &peer_tls).await?;
        let ports = Ports {
            peer,
            client,
            metrics: metrics_ports,
        };
        let metrics = Arc::new(Metrics::new(flags.warning_apply_duration));
        let mut log = open_log(&layout, &metrics).await?;
        let (identity, founders) = identify(flags, birth, &connector, &log).await?;
        let state_error = |source| MemberError::State {
            dir: layout.state.clone(),
            source,
        };
        let quota = Quota::new(flags.quota_bytes());
        let tokens = SimpleTokens::new(flags.effective_auth_token_ttl());
        let replica = open_engine()
            .and_then(|engine| {
                let metrics = Arc::clone(&metrics);
                Replica::open(engine, quota, tokens, metrics, flags.checkpoints_leases())
            })
            .map_err(state_error)?;
        let replica = Arc::new(replica);

        let id = identity.member_id;
        let removals = Arc::new(Removals::new(id));
        removals.set(Removals::stored(&replica.store()).map_err(state_error)?);
        if removals.is_own() {
            return Err(MemberError::Removed);
        }
        if flags.force_new_cluster && log.has_history() {
            let urls = consensus::membership_urls(&replica.store(), id).map_err(state_error)?;
            let urls = urls.unwrap_or_else(|| flags.initial_advertise_peer_urls.to_strings());
            tracing::warn!(
                "cluster-id" = %format_args!("{:x}", identity.cluster_id),
                "local-member-id" = %format_args!("{id:x}"),
                "forcing restart member as a standalone node"
            );
            consensus::force_new_cluster(&mut log, id, urls)
                .await
                .map_err(state_error)?;
        }
        let election_timeout = Duration::from_millis(flags.election_timeout_ms);
        let core = Part::default();
        let proposals = Arc::new(Proposals::new(id));
        let introduction = Introduction::new(identity.cluster_id, id);
        let links = Arc::new(Links::new(
            introduction,
            connector,
            election_timeout,
            Arc::clone(&proposals),
            Arc::clone(&removals),
            Arc::clone(&metrics.peers),
            core.tasks.clone(),
        ));
        let patience = REQUEST_PATIENCE + 2 * election_timeout;
        if flags.checks_at_start() && log.has_history() {
            let check = InitialCheck {
                id,
                links: &links,
                alive: KNOWN_PATIENCE,
                patience,
            };
            let passed = check.run(&replica.store()).await;
            if !passed.map_err(state_error)? {
                links.close();
                return Err(MemberError::Inconsistent { id });
            }
        }
        let settings = Settings {
            heartbeat: Duration::from_millis(flags.heartbeat_interval_ms),
            election_timeout,
            pre_vote: flags.pre_vote,
            snapshot_count: flags.effective_snapshot_count(),
            catch_up_entries: flags.snapshot_catchup_entries,
            strict_reconfig: flags.strict_reconfig_check,
            max_learners: u64::try_from(flags.max_learners).unwrap_or(0),
        };
        let consensus = Arc::new(
            Consensus::start(
                id,
                &settings,
                log.clone(),
                Arc::clone(&replica),
                Arc::clone(&proposals),
                Arc::clone(&links),
                Arc::clone(&removals),
            )
            .await?,
        );
        let (barrier, barrier_work) = Barrier::new(
            Arc::clone(&consensus),
            Arc::clone(&replica),
            election_timeout,
        );
        let clients = Part::default();
        let (leases, lease_work) = Leases::new(
            Arc::clone(&consensus),
            Arc::clone(&replica),
            barrier.clone(),
            election_timeout,
            patience,
            clients.stopping.clone(),
        );
        let max_request_bytes = usize::try_from(flags.max_request_bytes).unwrap_or(usize::MAX);
        let node = Arc::new(Node {
            id,
            cluster_id: identity.cluster_id,
            writer: Writer::new(
                Arc::clone(&consensus),
                Arc::clone(&proposals),
                max_request_bytes,
                patience,
            ),
            consensus,
            log: log.clone(),
            watches: WatchHub::new(Arc::clone(&replica)),
            progress_notify_interval: flags.effective_watch_progress_notify_interval(),
            fragment_bytes: max_request_bytes.saturating_add(GRPC_OVERHEAD_BYTES),
            replica,
            proposals,
            barrier,
            leases: Arc::new(leases),
            callers,
            metrics,
            max_txn_ops: usize::try_from(flags.max_txn_ops).unwrap_or(usize::MAX),
            patience,
            election_timeout,
            connected: Connected::default(),
            removals,
            strict_reconfig: flags.strict_reconfig_check,
            errands: clients.tasks.clone(),
            compacted: watch::Sender::new(-1),
            compaction_pace: compaction_pace(flags),
            slow_request: flags.warning_unary_request_duration,
        });

        let (failed_sender, failed) = watch::channel(None);
        core.spawn(barrier_work);
        core.spawn(lease_work);
        let lessor = Arc::clone(&node);
        core.spawn(async move { lessor.leases.run(&lessor.writer).await });
        let running = Arc::clone(&node);
        core.spawn(async move {
            let stopped = running.consensus.run().await;
            failed_sender.send_replace(Some(stopped.to_string()));
        });
        let watches = Arc::clone(&node.watches);
        core.spawn(async move { watches.run().await });
        let asking = Arc::clone(&node);
        core.spawn(async move {
            asking
                .connected
                .watch(
                    &asking.consensus,
                    &asking.metrics.peers,
                    asking.election_timeout,
                )
                .await;
        });
        let compacting = Arc::clone(&node);
        core.spawn(async move { compacting.compact().await });
        let counting = Arc::clone(&node);
        core.spawn(async move { counting.count_keys().await });
        let guarding = Arc::clone(&node);
        core.spawn(async move { guarding.guard_quota().await });
        let expiring = Arc::clone(&node);
        core.spawn(async move { v2::expire(&expiring).await });
        if !flags.corrupt_check_time.is_zero() {
            let (checking, pause) = (Arc::clone(&node), flags.corrupt_check_time);
            core.spawn(async move { corruption::check_periodically(&checking, pause).await });
        }
        if let Some(pause) = flags.checks_compactions() {
            let checking = Arc::clone(&node);
            core.spawn(async move { corruption::check_compactions(&checking, pause).await });
        }
        if let Some(schedule) = flags.auto_compaction()? {
            let compacting = Arc::clone(&node);
            core.spawn(async move { auto_compaction::run(&compacting, schedule).await });
        }

        let peers = Part::default();
        serve_ports(&node, flags, ports, &peers, &clients);
        if let Some(founders) = founders {
            let founding = Arc::clone(&node);
            let links = Arc::clone(&links);
            core.spawn(async move { found(&founding, &links, founders).await });
        }
        tracing::info!(
            "local-member-id" = %format_args!("{id:x}"),
            "cluster-id" = %format_args!("{:x}", identity.cluster_id),
            "starting local etcd server"
        );
        let publishing = Arc::clone(&node);
        let own = Publish {
            member_id: id,
            name: flags.name.clone(),
            client_urls: flags.advertise_client_urls.to_strings(),
        };
        let urls = flags.listen_client_urls.clone();
        core.spawn(async move {
            publish(&publishing, own).await;
            tracing::info!("ready to serve client requests");
            // Says so to systemd, where that has started it and waits to hear.
            if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
                tracing::warn!(%error, "cannot tell systemd that this member is ready");
            }
            for url in urls.iter() {
                if url.scheme().is_tls() {
                    tracing::info!(address = url.address(), "serving client traffic securely");
                } else {
                    tracing::info!(
                        address = url.address(),
                        "serving client traffic insecurely; this is strongly discouraged!"
                    );
                }
            }
        });
        Ok(Self {
            node,
            log,
            links,
            clients,
            peers,
            core,
            failed,
        })
    }

    /// Waits until the member cannot go on; why.
    pub async fn failed(&self) -> MemberError {
        let mut failed = self.failed.clone();
        let failed = tokio::select! {
            failed = failed.wait_for(Option::is_some) => failed,
            () = self.node.removals.own() => return MemberError::Removed,
        };
        let reason = match failed {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => "its tasks have ended".to_owned(),
        };
        MemberError::Consensus { reason }
    }

    /// Stops: hands the leadership over, lets requests in flight finish, makes the state durable.
    pub async fn stop(self) {
        if self.node.leadership().leader == Some(self.node.id)
            && let Some(successor) = self.node.consensus.successor()
            && self
                .node
                .consensus
                .is_alive(successor, ALIVE_PATIENCE)
                .await
        {
            tracing::info!(to = %format_args!("{successor:x}"), "leadership transfer starting");
            if self.node.move_leader(successor).await.is_err() {
                tracing::warn!("leadership transfer failed; the others will elect a leader");
            }
        }
        // Their clients go on at another member.
        self.node.watches.close();
        if !self.clients.stop(DRAIN_PATIENCE).await {
            tracing::warn!("client requests were cut off");
        }
        if let Err(error) = self.node.consensus.shutdown().await {
            tracing::warn!(%error, "consensus did not stop cleanly");
        }
        self.links.close();
        // Consensus has ended: what peers still send has no one to answer it.
        self.peers.stop(PEER_DRAIN_PATIENCE).await;
        if !self.core.stop(DRAIN_PATIENCE).await {
            tracing::warn!("internal tasks were cut off");
        }
        let node = self.node;
        let flushed = tokio::task::spawn_blocking(move || {
            let store = node.store();
            node.replica.engine().flush(store.backend())
        });
        match flushed.await {
            Ok(Ok(())) => {}
            // The log has it all: the next start applies it again.
            Ok(Err(error)) => tracing::warn!(%error, "state not flushed"),
            Err(error) => tracing::warn!(%error, "state not flushed"),
        }
        self.log.close();
        tracing::info!("stopped");
    }
}

/// Opens the log; waits a while for another process to let go of it.
async fn open_log(layout: &Layout, metrics: &Arc<Metrics>) -> Result<Log, MemberError> {
    let deadline = tokio::time::Instant::now() + LOCK_PATIENCE;
    let mut warned = false;
    loop {
        let mut options = LogOptions::new(&layout.log);
        let (syncs, writes) = (Arc::clone(metrics), Arc::clone(metrics));
        options.on_fsync = Some(Arc::new(move |duration| syncs.wal_fsync.observe(duration)));
        options.on_write = Some(Arc::new(move |duration| writes.wal_write.observe(duration)));
        let opened = tokio::task::spawn_blocking(move || Log::open(options)).await;
        match opened.map_err(|e| MemberError::Consensus {
            reason: e.to_string(),
        })? {
            Ok(log) => return Ok(log),
            Err(LogError::InUse { dir, holder }) if tokio::time::Instant::now() < deadline => {
                if !warned {
                    warned = true;
                    tracing::warn!(dir = %dir.display(), holder, "data directory is in use by another process; waiting for it to exit before starting");
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Members that found a cluster: id to peer URLs.
type Founders = BTreeMap<u64, Vec<String>>;

/// What a first start knows of the cluster that the member is to be part of.
struct Birth {
    identity: Identity,
    members: Founders,
    /// Whether the members found the cluster now.
    founds: bool,
}

impl Birth {
    async fn of(
        bootstrap: Bootstrap,
        flags: &Flags,
        connector: &PeerConnector,
    ) -> Result<Self, MemberError> {
        match bootstrap {
            Bootstrap::New {
                cluster_id,
                local_id,
                members,
            } => {
                let urls = |urls: &[Url]| urls.iter().map(Url::to_string).collect();
                Ok(Self {
                    identity: Identity {
                        cluster_id,
                        member_id: local_id,
                    },
                    members: members
                        .iter()
                        .map(|member| (member.id, urls(&member.peer_urls)))
                        .collect(),
                    founds: true,
                })
            }
            Bootstrap::Existing { members } => {
                let joining = join(flags, connector, &members).await?;
                if joining.started {
                    let id = joining.identity.member_id;
                    return Err(MemberError::AlreadyBootstrapped { id });
                }
                Ok(Self {
                    identity: joining.identity,
                    members: joining.members,
                    founds: false,
                })
            }
        }
    }

    /// Asks the other members that can be reached whether this one has started before. One that has, and comes back
    /// without its data, could vote for a leader that lacks what it had acknowledged.
    async fn refuse_second(
        &self,
        connector: &PeerConnector,
        election_ms: u64,
    ) -> Result<(), MemberError> {
        let Identity {
            cluster_id,
            member_id: id,
        } = self.identity;
        let tasks = TaskTracker::new();
        let links = Links::new(
            Introduction::new(cluster_id, id),
            connector.clone(),
            Duration::from_millis(election_ms),
            Arc::new(Proposals::new(id)),
            Arc::new(Removals::new(id)),
            Arc::default(),
            tasks.clone(),
        );
        let others = self.members.iter().filter(|(other, _)| **other != id);
        let answers = others.map(|(other, urls)| {
            let link = links.to(*other, urls);
            async move {
                link.call(Call::MemberKnown(MemberKnownRequest { id }), KNOWN_PATIENCE)
                    .await
            }
        });
        let answers = futures_util::future::join_all(answers).await;
        links.close();
        let known = |answer| {
            matches!(
                answer,
                Ok(Answer::MemberKnown(MemberKnownResponse { started: true }))
            )
        };
        if answers.into_iter().any(known) {
            Err(MemberError::AlreadyBootstrapped { id })
        } else {
            Ok(())
        }
    }
}

/// Who this member is: from its log, or, at its first start, from the flags and the cluster that they name. The
/// founders of a new cluster come with it until this member has heard from the cluster.
async fn identify(
    flags: &Flags,
    birth: Option<Birth>,
    connector: &PeerConnector,
    log: &Log,
) -> Result<(Identity, Option<Founders>), MemberError> {
    if let Some(identity) = log.identity()
        && (log.has_history() || flags.initial_cluster_state == ClusterState::Existing)
    {
        tracing::info!(
            "the server is already initialized as member before, starting as etcd member..."
        );
        if matches!(flags.source(), Source::V2 | Source::V3) {
            tracing::warn!(
                "wal-dir" = %Layout::of(flags).log.display(),
                "discovery token is ignored since cluster already initialized; valid logs are found"
            );
        }
        return Ok((identity, None));
    }
    // A log without history is that of a member that was stopped before the cluster was founded.
    let Birth {
        identity,
        members,
        founds,
    } = match birth {
        Some(birth) => birth,
        None => {
            let bootstrap = discover(flags, Registration::Done).await?;
            Birth::of(bootstrap, flags, connector).await?
        }
    };
    log.set_identity(identity)?;
    Ok((identity, founds.then_some(members)))
}

/// Founds the cluster. The founder with the smallest id goes first, as soon as a quorum can be reached, so that no
/// two stand for election at once; the others step in when they hear nothing for an election timeout.
async fn found<E: Engine>(node: &Node<E>, links: &Links, founders: Founders) {
    let first = founders.keys().next() == Some(&node.id);
    let deadline = tokio::time::Instant::now() + node.election_timeout;
    let quorum = founders.len() / 2 + 1;
    loop {
        match node.consensus.is_initialized().await {
            Ok(false) => {}
            Ok(true) | Err(_) => return,
        }
        let late = tokio::time::Instant::now() >= deadline;
        let reachable = if first || late {
            1 + links.reachable(&founders, node.id).await
        } else {
            0
        };
        if reachable >= quorum {
            if let Err(error) = node.consensus.found(founders).await {
                tracing::error!(%error, "cannot found the cluster");
            }
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Tells the cluster this member's name and client URLs, until it is heard.
async fn publish<E: Engine>(node: &Node<E>, own: Publish) {
    loop {
        match node.write(Op::Publish(own.clone())).await {
            Ok(_) => {
                tracing::info!(
                    "local-member-id" = %format_args!("{:x}", node.id),
                    name = own.name,
                    "published local member to cluster through raft"
                );
                return;
            }
            Err(error) => {
                tracing::warn!(%error, "failed to publish local member to cluster through raft")
            }
        }
    }
}

/// etcd: zero stands for the default in both, and so does what is negative here.
fn compaction_pace(flags: &Flags) -> CompactionPace {
    let default = Flags::default();
    let step = [flags.compaction_batch_limit, default.compaction_batch_limit]
        .into_iter()
        .find(|limit| *limit > 0)
        .and_then(|limit| usize::try_from(limit).ok());
    CompactionPace {
        step: step.unwrap_or(usize::MAX),
        pause: if flags.compaction_sleep_interval.is_zero() {
            default.compaction_sleep_interval
        } else {
            flags.compaction_sleep_interval
        },
    }
}

fn serve_ports<E: Engine>(
    node: &Arc<Node<E>>,
    flags: &Flags,
    ports: Ports,
    peers: &Part,
    clients: &Part,
) {
    let http2 = Http2::of_clients(flags);
    // Limits for clients are none for peers: a few long-lived streams carry all that members say to each other.
    let peer_http2 = Http2 {
        max_concurrent_streams: 1024,
        keepalive_interval: Some(node.election_timeout),
        keepalive_timeout: node.election_timeout,
    };
    let peer_port = PeerPort {
        node: Arc::clone(node),
        peer: PeerServer::new(PeerService {
            consensus: Arc::clone(&node.consensus),
            leases: Arc::clone(&node.leases),
            cluster_id: node.cluster_id,
            removals: Arc::clone(&node.removals),
            tasks: peers.tasks.clone(),
            stopping: peers.stopping.clone(),
        })
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES),
    };
    for (listener, tls) in ports.peer {
        let port = peer_port.clone();
        let service = move |_, request: Request<Incoming>| {
            let port = port.clone();
            async move { port.answer(request).await }
        };
        let (tasks, stopping) = (peers.tasks.clone(), peers.stopping.clone());
        peers.tasks.spawn(listen::serve(
            listener, tls, peer_http2, service, tasks, stopping,
        ));
    }
    let receive = usize::try_from(flags.max_request_bytes)
        .unwrap_or(usize::MAX)
        .saturating_add(GRPC_OVERHEAD_BYTES);
    let v2 = flags
        .enable_v2
        .then(|| Arc::new(V2::new(node, receive, clients.stopping.clone())));
    if let Some(v2) = v2.clone() {
        clients.spawn(async move { v2.follow().await });
    }
    let client_port = ClientPort::new(node, receive, flags.enable_grpc_gateway, v2);
    for (listener, tls) in ports.client {
        let port = client_port.clone();
        let access = Arc::new(Access::new(flags, tls.is_secure()));
        let service = move |_, request: Request<Incoming>| {
            let (port, access) = (port.clone(), Arc::clone(&access));
            async move { port.answer(request, &access).await }
        };
        let (tasks, stopping) = (clients.tasks.clone(), clients.stopping.clone());
        clients.tasks.spawn(listen::serve(
            listener, tls, http2, service, tasks, stopping,
        ));
    }
    for (listener, tls) in ports.metrics {
        let node = Arc::clone(node);
        let service = move |_, request: Request<Incoming>| {
            let node = Arc::clone(&node);
            async move { crate::http::respond(&node, &request).await }
        };
        let (tasks, stopping) = (clients.tasks.clone(), clients.stopping.clone());
        clients.tasks.spawn(listen::serve(
            listener, tls, http2, service, tasks, stopping,
        ));
    }
}
