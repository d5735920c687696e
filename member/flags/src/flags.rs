//! The settings of a member: one typed field for each flag that this release honours.
//!
//! [`Flags::set`] and [`Flags::get`] move values in and out by flag name; [`Flags::values`] takes the struct apart
//! without a rest pattern, so that a new field does not compile until it is rendered. Values that the struct can hold
//! need not agree with one another: [`Flags::validate`] says whether they do. Paths are UTF-8, as they come from
//! arguments, environment and YAML.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    Allowed, ClusterState, DiscoveryFlags, FeatureGates, FlagDef, FlagError, Group, InitialCluster,
    LogFormat, LogLevel, LogOutput, ProxyFlags, Support, Urls, cipher, gates,
    go::{format_duration, parse_bool, parse_duration, parse_i64, parse_u32, parse_u64},
    lookup,
};

pub(crate) const DEFAULT_NAME: &str = "default";

/// etcd's bound for the election timeout.
pub(crate) const MAX_ELECTION_MS: u64 = 50_000;

/// The costs that bcrypt knows.
pub(crate) const BCRYPT_COSTS: std::ops::RangeInclusive<u32> = 4..=31;
pub(crate) const DEFAULT_BCRYPT_COST: u32 = 10;

const DEFAULT_TOKEN_TTL_S: u64 = 300;

/// The settings of a member. The default is that of etcd 3.6 without any flag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flags {
    /// `--name`
    pub name: String,
    /// `--data-dir`; None stands for `NAME.etcd`, see [`Flags::effective_data_dir`].
    pub data_dir: Option<PathBuf>,
    /// `--wal-dir`; None stands for a place inside the data directory.
    pub wal_dir: Option<PathBuf>,
    /// `--snapshot-count`: entries between two snapshots; 0 stands for the default.
    pub snapshot_count: u64,
    /// `--snapshot-catchup-entries`: log entries kept behind a snapshot for slow followers.
    pub snapshot_catchup_entries: u64,
    /// `--heartbeat-interval`
    pub heartbeat_interval_ms: u64,
    /// `--election-timeout`
    pub election_timeout_ms: u64,
    /// `--pre-vote`
    pub pre_vote: bool,
    /// `--listen-peer-urls`
    pub listen_peer_urls: Urls,
    /// `--listen-client-urls`
    pub listen_client_urls: Urls,
    /// `--listen-metrics-urls`; may be empty.
    pub listen_metrics_urls: Urls,
    /// `--initial-advertise-peer-urls`
    pub initial_advertise_peer_urls: Urls,
    /// `--advertise-client-urls`; empty after `--listen-client-urls` was given without it, which [`Flags::validate`] refuses.
    pub advertise_client_urls: Urls,
    /// `--initial-cluster`, see [`Flags::effective_initial_cluster`].
    pub initial_cluster: InitialCluster,
    /// `--initial-cluster-state`
    pub initial_cluster_state: ClusterState,
    /// `--initial-cluster-token`
    pub initial_cluster_token: String,
    /// How the members are found when `--initial-cluster` does not list them.
    pub discovery: DiscoveryFlags,
    /// Whether and how to run as a proxy of the v2 API.
    pub proxy: ProxyFlags,
    /// `--strict-reconfig-check`
    pub strict_reconfig_check: bool,
    /// `--max-learners`; a negative number allows none.
    pub max_learners: i64,
    /// `--force-new-cluster`
    pub force_new_cluster: bool,
    /// `--quota-backend-bytes`, see [`Flags::quota_bytes`].
    pub quota_backend_bytes: i64,
    /// `--auto-compaction-mode`, see [`Flags::auto_compaction`].
    pub auto_compaction_mode: String,
    /// `--enable-v2`
    pub enable_v2: bool,
    /// `--auto-compaction-retention`, see [`Flags::auto_compaction`].
    pub auto_compaction_retention: String,
    /// `--compaction-batch-limit`: revisions visited in one step; 0 stands for the default.
    pub compaction_batch_limit: i64,
    /// `--compaction-sleep-interval`: the time between two steps; zero stands for the default.
    pub compaction_sleep_interval: Duration,
    /// `--corrupt-check-time`; zero turns the check off.
    pub corrupt_check_time: Duration,
    /// `--compact-hash-check-time`; zero turns the check off, and so does the flag that follows.
    pub compact_hash_check_time: Duration,
    /// `--experimental-compact-hash-check-enabled`, see [`Flags::checks_compactions`].
    pub compact_hash_check: bool,
    /// `--experimental-initial-corrupt-check`, see [`Flags::checks_at_start`].
    pub initial_corrupt_check: bool,
    /// `--experimental-enable-lease-checkpoint`, see [`Flags::checkpoints_leases`].
    pub lease_checkpoint: bool,
    /// `--experimental-enable-lease-checkpoint-persist`: always done, as since etcd 3.6.
    pub lease_checkpoint_persist: bool,
    /// `--feature-gates`
    pub feature_gates: FeatureGates,
    /// `--warning-apply-duration`
    pub warning_apply_duration: Duration,
    /// `--warning-unary-request-duration`
    pub warning_unary_request_duration: Duration,
    /// `--max-txn-ops`
    pub max_txn_ops: u64,
    /// `--max-request-bytes`
    pub max_request_bytes: u64,
    /// `--max-concurrent-streams`
    pub max_concurrent_streams: u32,
    /// `--enable-grpc-gateway`
    pub enable_grpc_gateway: bool,
    /// `--cors`: origins, such as `http://example.com:80`, whose scripts may read answers.
    pub cors: Allowed,
    /// `--host-whitelist`: what the Host of an HTTP request without TLS may be.
    pub host_whitelist: Allowed,
    /// `--grpc-keepalive-interval`; zero disables.
    pub grpc_keepalive_interval: Duration,
    /// `--grpc-keepalive-timeout`; zero disables.
    pub grpc_keepalive_timeout: Duration,
    /// `--watch-progress-notify-interval`, see [`Flags::effective_watch_progress_notify_interval`].
    pub watch_progress_notify_interval: Duration,
    /// `--cert-file`
    pub cert_file: Option<PathBuf>,
    /// `--key-file`
    pub key_file: Option<PathBuf>,
    /// `--client-cert-auth`, see [`Flags::client_certs_required`].
    pub client_cert_auth: bool,
    /// `--trusted-ca-file`
    pub trusted_ca_file: Option<PathBuf>,
    /// `--peer-cert-file`
    pub peer_cert_file: Option<PathBuf>,
    /// `--peer-key-file`
    pub peer_key_file: Option<PathBuf>,
    /// `--peer-client-cert-auth`, see [`Flags::peer_certs_required`].
    pub peer_client_cert_auth: bool,
    /// `--peer-trusted-ca-file`
    pub peer_trusted_ca_file: Option<PathBuf>,
    /// `--client-crl-file`
    pub client_crl_file: Option<PathBuf>,
    /// `--client-cert-allowed-hostname`: any of these.
    pub client_cert_allowed_hostname: Vec<String>,
    /// `--auto-tls`
    pub auto_tls: bool,
    /// `--peer-client-cert-file`
    pub peer_client_cert_file: Option<PathBuf>,
    /// `--peer-client-key-file`
    pub peer_client_key_file: Option<PathBuf>,
    /// `--peer-crl-file`
    pub peer_crl_file: Option<PathBuf>,
    /// `--peer-cert-allowed-cn`: any of these.
    pub peer_cert_allowed_cn: Vec<String>,
    /// `--peer-cert-allowed-hostname`: any of these.
    pub peer_cert_allowed_hostname: Vec<String>,
    /// `--peer-skip-client-san-verification`
    pub peer_skip_client_san_verification: bool,
    /// `--peer-auto-tls`
    pub peer_auto_tls: bool,
    /// `--self-signed-cert-validity`, in years of 365 days.
    pub self_signed_cert_validity_years: u64,
    /// `--cipher-suites`: those of TLS 1.2, by the names of the standard; empty for all.
    pub cipher_suites: Vec<String>,
    /// `--tls-min-version`: `TLS1.2` or `TLS1.3`.
    pub tls_min_version: String,
    /// `--tls-max-version`: one of these, or empty.
    pub tls_max_version: String,
    /// `--auth-token`, see [`crate::AuthToken::parse`].
    pub auth_token: String,
    /// `--bcrypt-cost`, see [`Flags::effective_bcrypt_cost`].
    pub bcrypt_cost: u64,
    /// `--auth-token-ttl`, see [`Flags::effective_auth_token_ttl`].
    pub auth_token_ttl_s: u64,
    /// `--log-level`
    pub log_level: LogLevel,
    /// `--log-format`
    pub log_format: LogFormat,
    /// `--log-outputs`; never empty.
    pub log_outputs: BTreeSet<LogOutput>,
}

impl Default for Flags {
    fn default() -> Self {
        let localhost = |port: u16| Urls::from(crate::Url::localhost(port));
        Self {
            name: DEFAULT_NAME.to_owned(),
            data_dir: None,
            wal_dir: None,
            snapshot_count: 10_000,
            snapshot_catchup_entries: 5_000,
            heartbeat_interval_ms: 100,
            election_timeout_ms: 1_000,
            pre_vote: true,
            listen_peer_urls: localhost(2380),
            listen_client_urls: localhost(2379),
            listen_metrics_urls: Urls::default(),
            initial_advertise_peer_urls: localhost(2380),
            advertise_client_urls: localhost(2379),
            initial_cluster: InitialCluster::default(),
            initial_cluster_state: ClusterState::New,
            initial_cluster_token: "etcd-cluster".to_owned(),
            discovery: DiscoveryFlags::default(),
            proxy: ProxyFlags::default(),
            strict_reconfig_check: true,
            max_learners: 1,
            force_new_cluster: false,
            quota_backend_bytes: 0,
            auto_compaction_mode: "periodic".to_owned(),
            enable_v2: false,
            auto_compaction_retention: "0".to_owned(),
            compaction_batch_limit: 1_000,
            compaction_sleep_interval: Duration::from_millis(10),
            corrupt_check_time: Duration::ZERO,
            compact_hash_check_time: Duration::from_secs(60),
            compact_hash_check: false,
            initial_corrupt_check: false,
            lease_checkpoint: false,
            lease_checkpoint_persist: false,
            feature_gates: FeatureGates::default(),
            warning_apply_duration: Duration::from_millis(100),
            warning_unary_request_duration: Duration::from_millis(300),
            max_txn_ops: 128,
            // 1.5 MiB, of which etcd says that it keeps the mean time to recovery short.
            max_request_bytes: 1_572_864,
            max_concurrent_streams: u32::MAX,
            enable_grpc_gateway: true,
            cors: Allowed::default(),
            host_whitelist: Allowed::default(),
            grpc_keepalive_interval: Duration::from_secs(2 * 60 * 60),
            grpc_keepalive_timeout: Duration::from_secs(20),
            watch_progress_notify_interval: Duration::from_secs(10 * 60),
            cert_file: None,
            key_file: None,
            client_cert_auth: false,
            trusted_ca_file: None,
            peer_cert_file: None,
            peer_key_file: None,
            peer_client_cert_auth: false,
            peer_trusted_ca_file: None,
            client_crl_file: None,
            client_cert_allowed_hostname: Vec::new(),
            auto_tls: false,
            peer_client_cert_file: None,
            peer_client_key_file: None,
            peer_crl_file: None,
            peer_cert_allowed_cn: Vec::new(),
            peer_cert_allowed_hostname: Vec::new(),
            peer_skip_client_san_verification: false,
            peer_auto_tls: false,
            self_signed_cert_validity_years: 1,
            cipher_suites: Vec::new(),
            tls_min_version: "TLS1.2".to_owned(),
            tls_max_version: String::new(),
            auth_token: "simple".to_owned(),
            bcrypt_cost: DEFAULT_BCRYPT_COST.into(),
            auth_token_ttl_s: DEFAULT_TOKEN_TTL_S,
            log_level: LogLevel::Info,
            log_format: LogFormat::Json,
            log_outputs: BTreeSet::from([LogOutput::Default]),
        }
    }
}

/// Why a value was not taken, before it is known where it came from.
pub(crate) enum Fault {
    /// Malformed; the reason stands after the last colon of the message.
    Malformed(String),
    /// Well formed and refused, whatever it came from.
    Error(FlagError),
}

impl From<String> for Fault {
    fn from(reason: String) -> Self {
        Self::Malformed(reason)
    }
}

impl Flags {
    /// Sets a flag from its text, as the command line would.
    ///
    /// Only the flag named is changed. The command line has one rule more: listen URLs for clients that are given
    /// without advertised ones clear the default of the latter, but for a proxy.
    ///
    /// # Errors
    ///
    /// The name is unknown, the value malformed, or this release cannot honour it.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), FlagError> {
        let def = lookup(name).ok_or_else(|| FlagError::Undefined {
            name: name.to_owned(),
        })?;
        self.assign(def, value).map_err(|fault| match fault {
            Fault::Error(error) => error,
            Fault::Malformed(reason) => malformed(def, value, reason),
        })
    }

    /// The text of an honoured flag's value, or of the flag that took the place of a deprecated one. None for a
    /// refused or unknown flag.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<String> {
        let name = match lookup(name)?.support {
            // Its boolean has become one level among several.
            Support::Deprecated { .. } if name == "debug" => {
                return Some((self.log_level == LogLevel::Debug).to_string());
            }
            Support::Deprecated { instead } => instead,
            Support::Honoured | Support::Refused { .. } => name,
        };
        self.values()
            .into_iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value)
    }

    /// The data directory: the one given, or `NAME.etcd` in the working directory.
    #[must_use]
    pub fn effective_data_dir(&self) -> PathBuf {
        self.data_dir
            .clone()
            .unwrap_or_else(|| PathBuf::from(format!("{}.etcd", self.name)))
    }

    /// Entries between two snapshots, never 0.
    #[must_use]
    pub fn effective_snapshot_count(&self) -> u64 {
        match self.snapshot_count {
            0 => Self::default().snapshot_count,
            count => count,
        }
    }

    /// Time between two progress notices of a watch. etcd: 0 is the default, and less than 100 ms is 100 ms.
    #[must_use]
    pub fn effective_watch_progress_notify_interval(&self) -> Duration {
        match self.watch_progress_notify_interval {
            Duration::ZERO => Self::default().watch_progress_notify_interval,
            interval => interval.max(Duration::from_millis(100)),
        }
    }

    /// The size of the state above which writes are refused; `None` when the quota is off. etcd: 0 is 2 GiB, and
    /// what is negative turns it off.
    #[must_use]
    pub fn quota_bytes(&self) -> Option<u64> {
        match u64::try_from(self.quota_backend_bytes) {
            Ok(0) => Some(2 << 30),
            Ok(bytes) => Some(bytes),
            Err(_) => None,
        }
    }

    /// The cost of hashing a password: the default in place of one that bcrypt does not know.
    #[must_use]
    pub fn effective_bcrypt_cost(&self) -> u32 {
        match u32::try_from(self.bcrypt_cost) {
            Ok(cost) if BCRYPT_COSTS.contains(&cost) => cost,
            _ => DEFAULT_BCRYPT_COST,
        }
    }

    /// How long a simple token lives after its last use, never 0.
    #[must_use]
    pub fn effective_auth_token_ttl(&self) -> Duration {
        Duration::from_secs(match self.auth_token_ttl_s {
            0 => DEFAULT_TOKEN_TTL_S,
            seconds => seconds,
        })
    }

    /// Whether a client must show a certificate: a trusted authority alone asks for one already.
    #[must_use]
    pub fn client_certs_required(&self) -> bool {
        self.client_cert_auth || self.trusted_ca_file.is_some()
    }

    /// Whether a peer must show a certificate: a trusted authority alone asks for one already.
    #[must_use]
    pub fn peer_certs_required(&self) -> bool {
        self.peer_client_cert_auth || self.peer_trusted_ca_file.is_some()
    }

    /// Whether the member makes the certificate that it shows to clients.
    #[must_use]
    pub fn makes_client_cert(&self) -> bool {
        self.auto_tls && self.cert_file.is_none() && self.key_file.is_none()
    }

    /// Whether the member makes the certificate that it shows to peers.
    #[must_use]
    pub fn makes_peer_cert(&self) -> bool {
        self.peer_auto_tls && self.peer_cert_file.is_none() && self.peer_key_file.is_none()
    }

    /// Gives a flag its value. What is malformed is told apart from what is refused, because each source words the
    /// former in its own way.
    pub(crate) fn assign(&mut self, def: &'static FlagDef, value: &str) -> Result<(), Fault> {
        def.check(value)?;
        match def.support {
            Support::Honoured if def.group == Group::Action => {
                Err(Fault::Error(FlagError::NotASetting {
                    name: def.name.to_owned(),
                }))
            }
            Support::Honoured => self.assign_honoured(def, value),
            Support::Deprecated { .. } if def.name == "debug" => {
                if parse_bool(value)? {
                    self.log_level = LogLevel::Debug;
                }
                Ok(())
            }
            Support::Deprecated { instead } => match lookup(instead) {
                Some(instead) => self.assign_honoured(instead, value),
                None => Err(Fault::Error(FlagError::Undefined {
                    name: instead.to_owned(),
                })),
            },
            Support::Refused { .. } if def.accepts(value) => Ok(()),
            Support::Refused { why } => Err(refused(def.name, why)),
        }
    }

    fn assign_honoured(&mut self, def: &'static FlagDef, value: &str) -> Result<(), Fault> {
        match def.name {
            "name" => self.name = value.to_owned(),
            "data-dir" => self.data_dir = path(value),
            "wal-dir" => self.wal_dir = path(value),
            "snapshot-count" => self.snapshot_count = parse_u64(value)?,
            "snapshot-catchup-entries" => self.snapshot_catchup_entries = parse_u64(value)?,
            "heartbeat-interval" => self.heartbeat_interval_ms = parse_u64(value)?,
            "election-timeout" => self.election_timeout_ms = parse_u64(value)?,
            "pre-vote" => self.pre_vote = parse_bool(value)?,
            "listen-peer-urls" => set_urls(&mut self.listen_peer_urls, value)?,
            "listen-client-urls" => set_urls(&mut self.listen_client_urls, value)?,
            "listen-metrics-urls" => set_urls(&mut self.listen_metrics_urls, value)?,
            "initial-advertise-peer-urls" => {
                set_urls(&mut self.initial_advertise_peer_urls, value)?
            }
            "advertise-client-urls" => set_urls(&mut self.advertise_client_urls, value)?,
            "initial-cluster" => self.initial_cluster = InitialCluster::new(value),
            "initial-cluster-state" => {
                self.initial_cluster_state =
                    ClusterState::parse(value).ok_or_else(|| "invalid value".to_owned())?;
            }
            "initial-cluster-token" => self.initial_cluster_token = value.to_owned(),
            "strict-reconfig-check" => self.strict_reconfig_check = parse_bool(value)?,
            "max-learners" => self.max_learners = parse_i64(value)?,
            "force-new-cluster" => self.force_new_cluster = parse_bool(value)?,
            "quota-backend-bytes" => self.quota_backend_bytes = parse_i64(value)?,
            "auto-compaction-mode" => self.auto_compaction_mode = value.to_owned(),
            "enable-v2" => self.enable_v2 = parse_bool(value)?,
            "auto-compaction-retention" => self.auto_compaction_retention = value.to_owned(),
            "compaction-batch-limit" => self.compaction_batch_limit = parse_i64(value)?,
            "compaction-sleep-interval" => self.compaction_sleep_interval = parse_duration(value)?,
            "corrupt-check-time" => self.corrupt_check_time = parse_duration(value)?,
            "compact-hash-check-time" => self.compact_hash_check_time = parse_duration(value)?,
            "experimental-compact-hash-check-enabled" => {
                self.compact_hash_check = parse_bool(value)?;
            }
            "experimental-initial-corrupt-check" => {
                self.initial_corrupt_check = parse_bool(value)?;
            }
            "experimental-enable-lease-checkpoint" => self.lease_checkpoint = parse_bool(value)?,
            "experimental-enable-lease-checkpoint-persist" => {
                self.lease_checkpoint_persist = parse_bool(value)?;
            }
            "feature-gates" => {
                self.feature_gates = FeatureGates::parse(value).map_err(|fault| match fault {
                    gates::Fault::Malformed(reason) => Fault::Malformed(reason),
                    gates::Fault::Refused(gate) => {
                        refused("feature-gates", &format!("{gate} switches nothing in it"))
                    }
                })?;
            }
            "warning-apply-duration" => self.warning_apply_duration = parse_duration(value)?,
            "warning-unary-request-duration" => {
                self.warning_unary_request_duration = parse_duration(value)?
            }
            "max-txn-ops" => self.max_txn_ops = parse_u64(value)?,
            "max-request-bytes" => self.max_request_bytes = parse_u64(value)?,
            "max-concurrent-streams" => self.max_concurrent_streams = parse_u32(value)?,
            "enable-grpc-gateway" => self.enable_grpc_gateway = parse_bool(value)?,
            "cors" => self.cors = Allowed::origins(value)?,
            "host-whitelist" => self.host_whitelist = Allowed::hosts(value),
            "grpc-keepalive-interval" => self.grpc_keepalive_interval = parse_duration(value)?,
            "grpc-keepalive-timeout" => self.grpc_keepalive_timeout = parse_duration(value)?,
            "watch-progress-notify-interval" => {
                self.watch_progress_notify_interval = parse_duration(value)?;
            }
            "cert-file" => self.cert_file = path(value),
            "key-file" => self.key_file = path(value),
            "client-cert-auth" => self.client_cert_auth = parse_bool(value)?,
            "trusted-ca-file" => self.trusted_ca_file = path(value),
            "peer-cert-file" => self.peer_cert_file = path(value),
            "peer-key-file" => self.peer_key_file = path(value),
            "peer-client-cert-auth" => self.peer_client_cert_auth = parse_bool(value)?,
            "peer-trusted-ca-file" => self.peer_trusted_ca_file = path(value),
            "client-crl-file" => self.client_crl_file = path(value),
            "client-cert-allowed-hostname" => self.client_cert_allowed_hostname = names(value),
            "auto-tls" => self.auto_tls = parse_bool(value)?,
            "peer-client-cert-file" => self.peer_client_cert_file = path(value),
            "peer-client-key-file" => self.peer_client_key_file = path(value),
            "peer-crl-file" => self.peer_crl_file = path(value),
            "peer-cert-allowed-cn" => self.peer_cert_allowed_cn = names(value),
            "peer-cert-allowed-hostname" => self.peer_cert_allowed_hostname = names(value),
            "peer-skip-client-san-verification" => {
                self.peer_skip_client_san_verification = parse_bool(value)?;
            }
            "peer-auto-tls" => self.peer_auto_tls = parse_bool(value)?,
            "self-signed-cert-validity" => self.self_signed_cert_validity_years = parse_u64(value)?,
            "cipher-suites" => self.cipher_suites = cipher::parse(value)?,
            "tls-min-version" => self.tls_min_version = value.to_owned(),
            "tls-max-version" => self.tls_max_version = value.to_owned(),
            "auth-token" => self.auth_token = value.to_owned(),
            "bcrypt-cost" => self.bcrypt_cost = parse_u64(value)?,
            "auth-token-ttl" => self.auth_token_ttl_s = parse_u64(value)?,
            "log-level" => self.log_level = LogLevel::parse(value)?,
            "log-format" => {
                self.log_format = match value {
                    "json" => LogFormat::Json,
                    "console" => LogFormat::Console,
                    _ => {
                        return Err(Fault::Error(FlagError::LogFormat {
                            value: value.to_owned(),
                        }));
                    }
                }
            }
            "log-outputs" => self.log_outputs = LogOutput::parse_list(value)?,
            "logger" => match value {
                "zap" => {}
                "capnslog" => {
                    return Err(refused(
                        "logger",
                        "etcd itself gave up capnslog in 3.5; leave the flag out",
                    ));
                }
                _ => {
                    return Err(Fault::Error(FlagError::Logger {
                        value: value.to_owned(),
                    }));
                }
            },
            name => {
                if !self.discovery.assign(name, value)? && !self.proxy.assign(name, value)? {
                    // A test sets every honoured flag of the table, so that none ends here.
                    return Err(Fault::Error(FlagError::Undefined {
                        name: name.to_owned(),
                    }));
                }
            }
        }
        Ok(())
    }

    /// Whether the member compares its keys with the others' before it takes part.
    #[must_use]
    pub fn checks_at_start(&self) -> bool {
        self.initial_corrupt_check || self.feature_gates.initial_corrupt_check()
    }

    /// Whether the leader records what is left of long leases.
    #[must_use]
    pub fn checkpoints_leases(&self) -> bool {
        self.lease_checkpoint || self.feature_gates.lease_checkpoint()
    }

    /// Whether the leader compares the members' keys at compacted revisions, and how often.
    #[must_use]
    pub fn checks_compactions(&self) -> Option<Duration> {
        let on = self.compact_hash_check || self.feature_gates.compact_hash_check();
        Some(self.compact_hash_check_time).filter(|time| on && !time.is_zero())
    }

    /// Every honoured flag with the text of its value.
    pub(crate) fn values(&self) -> Vec<(&'static str, String)> {
        let Self {
            name,
            data_dir,
            wal_dir,
            snapshot_count,
            snapshot_catchup_entries,
            heartbeat_interval_ms,
            election_timeout_ms,
            pre_vote,
            listen_peer_urls,
            listen_client_urls,
            listen_metrics_urls,
            initial_advertise_peer_urls,
            advertise_client_urls,
            initial_cluster,
            initial_cluster_state,
            initial_cluster_token,
            discovery,
            proxy,
            strict_reconfig_check,
            max_learners,
            force_new_cluster,
            quota_backend_bytes,
            auto_compaction_mode,
            enable_v2,
            auto_compaction_retention,
            compaction_batch_limit,
            compaction_sleep_interval,
            corrupt_check_time,
            compact_hash_check_time,
            compact_hash_check,
            initial_corrupt_check,
            lease_checkpoint,
            lease_checkpoint_persist,
            feature_gates,
            warning_apply_duration,
            warning_unary_request_duration,
            max_txn_ops,
            max_request_bytes,
            max_concurrent_streams,
            enable_grpc_gateway,
            cors,
            host_whitelist,
            grpc_keepalive_interval,
            grpc_keepalive_timeout,
            watch_progress_notify_interval,
            cert_file,
            key_file,
            client_cert_auth,
            trusted_ca_file,
            peer_cert_file,
            peer_key_file,
            peer_client_cert_auth,
            peer_trusted_ca_file,
            client_crl_file,
            client_cert_allowed_hostname,
            auto_tls,
            peer_client_cert_file,
            peer_client_key_file,
            peer_crl_file,
            peer_cert_allowed_cn,
            peer_cert_allowed_hostname,
            peer_skip_client_san_verification,
            peer_auto_tls,
            self_signed_cert_validity_years,
            cipher_suites,
            tls_min_version,
            tls_max_version,
            auth_token,
            bcrypt_cost,
            auth_token_ttl_s,
            log_level,
            log_format,
            log_outputs,
        } = self;
        let path = |path: &Option<PathBuf>| path.as_deref().map(path_text).unwrap_or_default();
        let mut values = vec![
            ("name", name.clone()),
            ("data-dir", path(data_dir)),
            ("wal-dir", path(wal_dir)),
            ("snapshot-count", snapshot_count.to_string()),
            (
                "snapshot-catchup-entries",
                snapshot_catchup_entries.to_string(),
            ),
            ("heartbeat-interval", heartbeat_interval_ms.to_string()),
            ("election-timeout", election_timeout_ms.to_string()),
            ("pre-vote", pre_vote.to_string()),
            ("listen-peer-urls", listen_peer_urls.to_string()),
            ("listen-client-urls", listen_client_urls.to_string()),
            ("listen-metrics-urls", listen_metrics_urls.to_string()),
            (
                "initial-advertise-peer-urls",
                initial_advertise_peer_urls.to_string(),
            ),
            ("advertise-client-urls", advertise_client_urls.to_string()),
            ("initial-cluster", initial_cluster.as_str().to_owned()),
            (
                "initial-cluster-state",
                initial_cluster_state.as_str().to_owned(),
            ),
            ("initial-cluster-token", initial_cluster_token.clone()),
            ("strict-reconfig-check", strict_reconfig_check.to_string()),
            ("max-learners", max_learners.to_string()),
            ("force-new-cluster", force_new_cluster.to_string()),
            ("quota-backend-bytes", quota_backend_bytes.to_string()),
            ("auto-compaction-mode", auto_compaction_mode.clone()),
            ("enable-v2", enable_v2.to_string()),
            (
                "auto-compaction-retention",
                auto_compaction_retention.clone(),
            ),
            ("compaction-batch-limit", compaction_batch_limit.to_string()),
            (
                "compaction-sleep-interval",
                format_duration(*compaction_sleep_interval),
            ),
            ("corrupt-check-time", format_duration(*corrupt_check_time)),
            (
                "compact-hash-check-time",
                format_duration(*compact_hash_check_time),
            ),
            (
                "experimental-compact-hash-check-enabled",
                compact_hash_check.to_string(),
            ),
            (
                "experimental-initial-corrupt-check",
                initial_corrupt_check.to_string(),
            ),
            (
                "experimental-enable-lease-checkpoint",
                lease_checkpoint.to_string(),
            ),
            (
                "experimental-enable-lease-checkpoint-persist",
                lease_checkpoint_persist.to_string(),
            ),
            ("feature-gates", feature_gates.to_string()),
            (
                "warning-apply-duration",
                format_duration(*warning_apply_duration),
            ),
            (
                "warning-unary-request-duration",
                format_duration(*warning_unary_request_duration),
            ),
            ("max-txn-ops", max_txn_ops.to_string()),
            ("max-request-bytes", max_request_bytes.to_string()),
            ("max-concurrent-streams", max_concurrent_streams.to_string()),
            ("enable-grpc-gateway", enable_grpc_gateway.to_string()),
            ("cors", cors.to_string()),
            ("host-whitelist", host_whitelist.to_string()),
            (
                "grpc-keepalive-interval",
                format_duration(*grpc_keepalive_interval),
            ),
            (
                "grpc-keepalive-timeout",
                format_duration(*grpc_keepalive_timeout),
            ),
            (
                "watch-progress-notify-interval",
                format_duration(*watch_progress_notify_interval),
            ),
            ("cert-file", path(cert_file)),
            ("key-file", path(key_file)),
            ("client-cert-auth", client_cert_auth.to_string()),
            ("trusted-ca-file", path(trusted_ca_file)),
            ("peer-cert-file", path(peer_cert_file)),
            ("peer-key-file", path(peer_key_file)),
            ("peer-client-cert-auth", peer_client_cert_auth.to_string()),
            ("peer-trusted-ca-file", path(peer_trusted_ca_file)),
            ("client-crl-file", path(client_crl_file)),
            (
                "client-cert-allowed-hostname",
                client_cert_allowed_hostname.join(","),
            ),
            ("auto-tls", auto_tls.to_string()),
            ("peer-client-cert-file", path(peer_client_cert_file)),
            ("peer-client-key-file", path(peer_client_key_file)),
            ("peer-crl-file", path(peer_crl_file)),
            ("peer-cert-allowed-cn", peer_cert_allowed_cn.join(",")),
            (
                "peer-cert-allowed-hostname",
                peer_cert_allowed_hostname.join(","),
            ),
            (
                "peer-skip-client-san-verification",
                peer_skip_client_san_verification.to_string(),
            ),
            ("peer-auto-tls", peer_auto_tls.to_string()),
            (
                "self-signed-cert-validity",
                self_signed_cert_validity_years.to_string(),
            ),
            ("cipher-suites", cipher_suites.join(",")),
            ("tls-min-version", tls_min_version.clone()),
            ("tls-max-version", tls_max_version.clone()),
            ("auth-token", auth_token.clone()),
            ("bcrypt-cost", bcrypt_cost.to_string()),
            ("auth-token-ttl", auth_token_ttl_s.to_string()),
            ("logger", "zap".to_owned()),
            ("log-level", log_level.as_str().to_owned()),
            ("log-format", log_format.as_str().to_owned()),
            (
                "log-outputs",
                log_outputs
                    .iter()
                    .map(LogOutput::to_string)
                    .collect::<Vec<_>>()
                    .join(","),
            ),
        ];
        values.extend(discovery.values());
        values.extend(proxy.values());
        values
    }
}

/// The command line's wording of a malformed value.
pub(crate) fn malformed(def: &FlagDef, value: &str, reason: String) -> FlagError {
    let (name, value) = (def.name.to_owned(), value.to_owned());
    if def.is_bool() {
        FlagError::InvalidBool {
            name,
            value,
            reason,
        }
    } else {
        FlagError::InvalidValue {
            name,
            value,
            reason,
        }
    }
}

fn refused(name: &str, why: &str) -> Fault {
    Fault::Error(FlagError::Refused {
        name: name.to_owned(),
        why: why.to_owned(),
    })
}

pub(crate) fn path(value: &str) -> Option<PathBuf> {
    (!value.is_empty()).then(|| PathBuf::from(value))
}

/// A list in which the empty text names nothing.
fn names(value: &str) -> Vec<String> {
    let names = value.split(',').filter(|name| !name.is_empty());
    names.map(str::to_owned).collect()
}

pub(crate) fn path_text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// etcd: the empty text leaves the URLs as they are.
fn set_urls(urls: &mut Urls, value: &str) -> Result<(), Fault> {
    if !value.is_empty() {
        *urls = Urls::parse(value).map_err(|error| error.to_string())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DEFS;

    #[test]
    fn the_table_and_the_struct_name_the_same_flags_and_defaults() {
        let defaults = Flags::default().values();
        for def in DEFS
            .iter()
            .filter(|def| def.support == Support::Honoured && def.group != Group::Action)
        {
            let value = defaults
                .iter()
                .find(|(name, _)| *name == def.name)
                .map(|(_, value)| value);
            assert!(
                value.is_some_and(|value| def.same(value, def.default)),
                "{}: {value:?} is not {:?}",
                def.name,
                def.default
            );
            let mut flags = Flags::default();
            flags.set(def.name, def.default).unwrap();
            assert_eq!(flags, Flags::default(), "{}", def.name);
        }
        for (name, _) in defaults {
            assert_eq!(
                lookup(name).map(|def| def.support),
                Some(Support::Honoured),
                "{name}"
            );
        }
    }

    #[test]
    fn a_refused_flag_is_taken_at_its_default_and_named_otherwise() {
        let mut flags = Flags::default();
        flags.set("enable-pprof", "false").unwrap();
        let error = flags.set("enable-pprof", "true").unwrap_err();
        assert_eq!(error.exit_code(), 1);
        assert!(
            error
                .to_string()
                .starts_with("--enable-pprof is not supported by this release of member: "),
            "{error}"
        );
        assert_eq!(flags, Flags::default());
    }

    #[test]
    fn a_deprecated_flag_sets_the_flag_that_took_its_place() {
        let mut flags = Flags::default();
        flags
            .set("experimental-snapshot-catchup-entries", "7")
            .unwrap();
        flags.set("debug", "true").unwrap();
        assert_eq!(
            (flags.snapshot_catchup_entries, flags.log_level),
            (7, LogLevel::Debug)
        );
        assert_eq!(
            flags
                .get("experimental-snapshot-catchup-entries")
                .as_deref(),
            Some("7")
        );
        assert_eq!(flags.get("debug").as_deref(), Some("true"));
    }

    #[test]
    fn an_action_is_not_a_setting() {
        assert_eq!(
            Flags::default()
                .set("version", "true")
                .unwrap_err()
                .to_string(),
            "--version is an action of the command line and not a setting"
        );
        assert_eq!(
            Flags::default()
                .set("no-such-flag", "1")
                .unwrap_err()
                .to_string(),
            "flag provided but not defined: -no-such-flag"
        );
    }

    #[test]
    fn the_data_directory_follows_the_name() {
        let flags = Flags {
            name: "infra0".to_owned(),
            ..Flags::default()
        };
        assert_eq!(flags.effective_data_dir(), Path::new("infra0.etcd"));
    }
}
