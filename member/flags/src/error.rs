//! Every way in which settings can be wrong, with etcd's text where etcd has one, and its exit code.
//!
//! The text alone is here. etcd 3.4 wraps many of them in `error verifying flags, .... See 'etcd --help'.` and later
//! versions put them in a log field: that is for the program that prints them.

use std::path::PathBuf;

use thiserror::Error;

use crate::{
    Minor, Url, UrlError, flags,
    go::{quote, quote_list},
    suggest,
};

/// Why settings are not accepted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FlagError {
    /// A flag that no version of etcd has.
    #[error("flag provided but not defined: -{name}")]
    Undefined {
        /// The name as given.
        name: String,
    },
    /// Dashes or an equals sign out of place.
    #[error("bad flag syntax: {arg}")]
    BadSyntax {
        /// The argument.
        arg: String,
    },
    /// What nobody records cannot be kept.
    #[error(
        "setting experimental-enable-lease-checkpoint-persist requires experimental-enable-lease-checkpoint"
    )]
    LeaseCheckpointMissing,
    /// The last flag lacks its value.
    #[error("flag needs an argument: -{name}")]
    NeedsArgument {
        /// The flag.
        name: String,
    },
    /// A malformed value on the command line.
    #[error("invalid value {} for flag -{name}: {reason}", quote(value))]
    InvalidValue {
        /// The flag.
        name: String,
        /// The value.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A malformed boolean on the command line.
    #[error("invalid boolean value {} for -{name}: {reason}", quote(value))]
    InvalidBool {
        /// The flag.
        name: String,
        /// The value.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An argument that is not a flag.
    #[error("'{arg}' is not a valid flag")]
    NotAFlag {
        /// The argument.
        arg: String,
    },
    /// A sub-command of etcd.
    #[error("the sub-command {name} is not supported by this release of member")]
    SubCommand {
        /// `grpc-proxy`.
        name: String,
    },
    /// An argument or a variable that is not UTF-8.
    #[error("{what} is not valid UTF-8")]
    NotUtf8 {
        /// What it is, readable.
        what: String,
    },
    /// A variable and its flag are both set, be it to the same value.
    #[error(
        "conflicting environment variable {} is shadowed by corresponding command-line flag (either unset environment variable or disable flag)",
        quote(variable)
    )]
    EnvConflict {
        /// The variable.
        variable: String,
    },
    /// A malformed value in the environment.
    #[error("invalid value {} for {variable}: {reason}", quote(value))]
    EnvValue {
        /// The variable.
        variable: String,
        /// The value.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The configuration file cannot be read.
    #[error("open {}: {reason}", path.display())]
    ConfigRead {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        reason: String,
    },
    /// The configuration file is not YAML.
    #[error("error converting YAML to JSON: yaml: {reason}")]
    ConfigSyntax {
        /// The reason, with the line where it is known.
        reason: String,
    },
    /// A value in the configuration file has another type.
    #[error(
        "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal {found} into Go {target}"
    )]
    ConfigType {
        /// What stands there.
        found: String,
        /// The field and the type that is wanted.
        target: String,
    },
    /// A malformed URL in the configuration file.
    #[error("unexpected error setting up {key}: {source}")]
    ConfigUrl {
        /// The key.
        key: String,
        /// What is wrong with it.
        source: UrlError,
    },
    /// A malformed value in the configuration file, where etcd has no text of its own.
    #[error(
        "invalid value {} for {key} in the configuration file: {reason}",
        quote(value)
    )]
    ConfigValue {
        /// The key.
        key: String,
        /// The value.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The members of the cluster to join cannot be learned.
    #[error("cannot fetch cluster info from peer urls: {reason}")]
    ClusterInfo {
        /// etcd's sentence.
        reason: String,
    },
    /// The cluster to join has other members than those listed.
    #[error("error validating peerURLs {cluster}: {reason}")]
    ExistingCluster {
        /// The cluster, as Go prints it.
        cluster: String,
        /// What differs.
        reason: String,
    },
    /// A flag of etcd that this release cannot honour, at a value that is not its default.
    #[error("--{name} is not supported by this release of member: {why}")]
    Refused {
        /// The flag.
        name: String,
        /// Why it cannot be honoured.
        why: String,
    },
    /// More than one way to find the members.
    #[error(
        "multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \"discovery\"{} or \"discovery-srv\"",
        if *v3 { ", \"discovery-endpoints\"" } else { "" }
    )]
    ManyBootstraps {
        /// Whether a v3 service is among them, which only etcd 3.6 and later name.
        v3: bool,
    },
    /// Settings of both kinds of discovery service.
    #[error(
        "both v2 discovery settings (discovery, discovery-proxy) and v3 discovery settings (discovery-token, discovery-endpoints, discovery-cert, discovery-key, discovery-cacert, discovery-user, discovery-password) are set"
    )]
    BothDiscoveries,
    /// A v3 discovery service without its token, or the reverse.
    #[error("both --discovery-token and --discovery-endpoints must be set")]
    HalfDiscovery,
    /// A flag that means nothing without another.
    #[error("--{flag} is set, but not --{needs}, without which it means nothing")]
    Companion {
        /// The flag given.
        flag: &'static str,
        /// The flag that is missing.
        needs: &'static str,
    },
    /// A proxy that would ask the members without a pause.
    #[error("--proxy-refresh-interval must be more than 0")]
    ProxyRefreshZero,
    /// A discovery service is named by a member that joins a running cluster.
    #[error("discovery URL should not be set when joining existing initial cluster")]
    DiscoveryWhenJoining,
    /// A flag that says what to do, used as a setting.
    #[error("--{name} is an action of the command line and not a setting")]
    NotASetting {
        /// The flag.
        name: String,
    },
    /// A cluster state other than new and existing, in the configuration file.
    #[error("unexpected clusterState {}", quote(value))]
    ClusterState {
        /// The value.
        value: String,
    },
    /// A logger that does not exist.
    #[error("unknown logger option {}", quote(value))]
    Logger {
        /// The value.
        value: String,
    },
    /// A log format that does not exist.
    #[error("unknown log format: {value}, supported values json, console")]
    LogFormat {
        /// The value.
        value: String,
    },
    /// The default output beside others.
    #[error("multi logoutput for \"default\" is not supported yet")]
    DefaultOutputNotAlone,
    /// A listener without a host.
    #[error("expected IP in URL for binding ({url})")]
    BindHost {
        /// The listener.
        url: Url,
    },
    /// A Unix socket.
    #[error("unix sockets are not supported by this release of member: {url} in --{flag}")]
    UnixSocket {
        /// The flag.
        flag: &'static str,
        /// The URL.
        url: Url,
    },
    /// An advertised URL without a host.
    #[error(
        "--{flag} {} must be \"host:port\" (unexpected empty host ({url}))",
        quote(urls)
    )]
    AdvertisedHost {
        /// The flag.
        flag: &'static str,
        /// The flag's value.
        urls: String,
        /// The URL at fault.
        url: Url,
    },
    /// A mode of scheduled compaction that does not exist.
    #[error("unknown auto-compaction-mode {mode:?}")]
    CompactionMode {
        /// The mode.
        mode: String,
    },
    /// A retention of scheduled compaction without its mode.
    #[error("--auto-compaction-mode is undefined")]
    CompactionModeUndefined,
    /// A retention that is neither a number nor a time.
    #[error("error parsing CompactionRetention: {reason}")]
    CompactionRetention {
        /// Go's reason.
        reason: String,
    },
    /// No heartbeat.
    #[error("--heartbeat-interval must be >0 (set to 0ms)")]
    HeartbeatZero,
    /// No election timeout.
    #[error("--election-timeout must be >0 (set to 0ms)")]
    ElectionZero,
    /// Too few heartbeats in an election timeout.
    #[error(
        "--election-timeout[{election_ms}ms] should be at least as 5 times as --heartbeat-interval[{heartbeat_ms}ms]"
    )]
    ElectionTooShort {
        /// The election timeout.
        election_ms: u64,
        /// The heartbeat interval.
        heartbeat_ms: u64,
    },
    /// An election timeout beyond etcd's bound.
    #[error(
        "--election-timeout[{election_ms}ms] is too long, and should be set less than {}ms",
        flags::MAX_ELECTION_MS
    )]
    ElectionTooLong {
        /// The election timeout.
        election_ms: u64,
    },
    /// Listening on given addresses without saying where clients find them.
    #[error("--advertise-client-urls is required when --listen-client-urls is set explicitly")]
    AdvertiseClientMissing,
    /// A port that no socket has.
    #[error("listen tcp: address {port}: invalid port")]
    ListenPort {
        /// The port as written.
        port: String,
    },
    /// A TLS listener without certificate files.
    #[error("cannot listen on TLS for {address}: KeyFile and CertFile are not presented")]
    TlsFilesMissing {
        /// The listener's address.
        address: String,
    },
    /// Certificates that are never valid.
    #[error("selfSignedCertValidity is invalid,it should be greater than 0")]
    SelfSignedValidity,
    /// Two rules where one is meant.
    #[error(
        "AllowedCN and AllowedHostname are mutually exclusive (cn={cn:?}, hostname={hostname:?})"
    )]
    AllowedTwice {
        /// The common names.
        cn: String,
        /// The host names.
        hostname: String,
    },
    /// No version is left.
    #[error("min version (TLS1.3) is greater than max version (TLS1.2)")]
    TlsVersions,
    /// The suites of TLS 1.3 cannot be chosen.
    #[error("cipher suites cannot be configured when only TLS1.3 is enabled")]
    CipherSuitesOf13,
    /// A TLS listener for clients without certificate files.
    #[error(
        "TLS key/cert (--cert-file, --key-file) must be provided for client url {url} with HTTPS scheme"
    )]
    ClientTlsFilesMissing {
        /// The listener.
        url: Url,
    },
    /// One of key and certificate without the other.
    #[error("KeyFile and CertFile must both be present[key: {key}, cert: {cert}]")]
    TlsPair {
        /// The key file, or nothing.
        key: String,
        /// The certificate file, or nothing.
        cert: String,
    },
    /// Certificates are asked for, and no authority is given to check them by.
    #[error(
        "--{auth} needs --{ca}: this release of member does not trust the system's certificate authorities"
    )]
    CaMissing {
        /// The flag that asks for certificates.
        auth: &'static str,
        /// The flag that is missing.
        ca: &'static str,
    },
    /// `--initial-cluster` is malformed.
    #[error("error setting up initial cluster: {source}")]
    InitialCluster {
        /// The URL at fault.
        source: UrlError,
    },
    /// The member is not in its own list. The guide's sentence, then etcd's.
    #[error(
        "{name} not listed in the initial cluster config: couldn't find local name {} in the initial cluster configuration",
        quote(name)
    )]
    NotListed {
        /// The member's name.
        name: String,
    },
    /// The member's line in the list is not what it advertises. The guide's sentence, then etcd's.
    #[error(
        "error setting up initial cluster: {name} has different advertised URLs in the cluster and advertised peer URLs list: {detail}"
    )]
    AdvertiseMismatch {
        /// The member's name.
        name: String,
        /// etcd's sentence.
        detail: String,
    },
    /// Two members, or one twice, with the same URL.
    #[error("initial cluster {cluster} has duplicate url")]
    DuplicateUrl {
        /// The list, sorted.
        cluster: String,
    },
    /// `--auth-token` is malformed. etcd's sentence, then what is wrong.
    #[error("auth: invalid auth options: {reason}")]
    AuthToken {
        /// What is wrong with it.
        reason: String,
    },
    /// JSON web tokens without any key.
    #[error("auth: missing key data")]
    AuthTokenKeys,
    /// A value that an upstream etcd of that version cannot be given.
    #[error("--{flag}={value} has no equivalent in etcd {}.{}: {why}", minor.0, minor.1)]
    NoEquivalent {
        /// The flag.
        flag: &'static str,
        /// Its value.
        value: String,
        /// The version.
        minor: Minor,
        /// What stands against it.
        why: &'static str,
    },
}

impl FlagError {
    /// The process's exit code: 2 for what Go's flag package refuses, 1 for everything else.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Undefined { .. }
            | Self::BadSyntax { .. }
            | Self::NeedsArgument { .. }
            | Self::InvalidValue { .. }
            | Self::InvalidBool { .. }
            | Self::NotUtf8 { .. } => 2,
            _ => 1,
        }
    }

    /// What to try, where there is more to say than the error does.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Undefined { name } => suggest(name).map(|near| format!("did you mean --{near}?")),
            Self::NotAFlag { arg } => match arg.as_str() {
                "true" | "false" => Some("a boolean flag takes its value after an equals sign, as in --pre-vote=false".to_owned()),
                _ => None,
            },
            Self::AdvertiseClientMissing => Some(
                "When listening on specific address(es), this etcd process must advertise accessible url(s) to each connected client."
                    .to_owned(),
            ),
            _ => None,
        }
    }
}

/// etcd's sentence for lists of different length.
pub(crate) fn lengths_differ(a: &[String], b: &[String]) -> String {
    let list = |urls: &[String]| quote_list(urls.iter().map(String::as_str));
    format!("len({}) != len({})", list(a), list(b))
}

/// etcd's sentence for URLs that are not the same after resolution.
pub(crate) fn resolved_differ(a: &str, b: &str) -> String {
    format!("resolved urls: {} != {}", quote(a), quote(b))
}
