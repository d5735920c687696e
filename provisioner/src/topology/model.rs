//! The checked topology: what every verb works on. Only valid values exist.
//!
//! Built by `validate` from the schema's raw structs; nothing else constructs one.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::checks::Check;

/// A cluster as its topology file describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// The cluster's name; names its state directory too.
    pub name: String,
    /// Whose addresses and names its members use.
    pub network: Network,
    /// How members are given their settings.
    pub settings: Settings,
    /// How the members find each other at their first start.
    pub bootstrap: Bootstrap,
    /// Transport security of both ports.
    pub tls: Tls,
    /// In the file's order, names unique, at least one voter.
    pub members: Vec<Member>,
    /// TCP load balancers in front of the client ports, in the file's order.
    pub gateways: Vec<Gateway>,
    /// How backups are taken.
    pub backup: Option<Backup>,
    /// Preflight checks whose findings are accepted, with the reasons.
    pub waived_checks: BTreeMap<Check, String>,
}

/// How backups are taken, where the command line does not say it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backup {
    /// Where they go; `None`: below the state directory.
    pub dir: Option<PathBuf>,
    /// How many are kept.
    pub keep: Option<u32>,
    /// How long they are kept.
    pub keep_for: Option<Duration>,
    /// The age recipients who can read them; nobody: they are not encrypted.
    pub encrypt_to: Vec<String>,
    /// Whether each is tried out.
    pub verify: bool,
    /// When they are taken, as systemd.time(7) says it.
    pub schedule: Option<String>,
}

/// Whose addresses and names the members use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// This machine's.
    Host,
    /// Those of a network namespace of the cluster's own, with a DNS server that knows the members.
    Private,
}

/// How members are given their settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settings {
    /// On the command line.
    Flags,
    /// As `ETCD_*` variables.
    Env,
    /// In a file for `--config-file`.
    File,
}

/// How the members find each other at their first start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bootstrap {
    /// Every member is told of all others.
    Static {
        /// Given token; `None`: unique per cluster instance, generated and remembered.
        token: Option<String>,
    },
    /// A service tells them of each other.
    Discovery {
        /// Which.
        service: Discovery,
        /// An HTTP proxy on the way to it.
        proxy: Option<String>,
    },
    /// SRV records of a domain name them all.
    DnsSrv {
        /// The domain.
        domain: String,
        /// What the records' service names end in, after a dash.
        srv_name: Option<String>,
        /// As for `Static`.
        token: Option<String>,
    },
}

/// A discovery service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Discovery {
    /// One that `provision` runs beside the cluster.
    BuiltIn(Protocol),
    /// The URL of a v2 token, as it is.
    Url(String),
    /// A v3 service.
    Endpoints {
        /// Its members.
        endpoints: Vec<String>,
        /// The token.
        token: String,
    },
}

/// How a built-in discovery service is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// v2 keys of another cluster, as in the guide's part on a custom service.
    Private,
    /// As discovery.etcd.io.
    Public,
    /// v3 keys of another cluster.
    V3,
}

/// A TCP load balancer in front of the client ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// Where clients connect.
    pub listen: IpAddr,
    /// Fixed port; `None`: allocated and remembered.
    pub port: Option<u16>,
    /// What runs.
    pub binary: Binary,
}

impl Bootstrap {
    /// The token that the file gives, if the members take one from it.
    #[must_use]
    pub fn token(&self) -> Option<&String> {
        match self {
            Self::Static { token } | Self::DnsSrv { token, .. } => token.as_ref(),
            Self::Discovery {
                service: Discovery::Endpoints { token, .. },
                ..
            } => Some(token),
            Self::Discovery { .. } => None,
        }
    }
}

/// Transport security of both ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Between members.
    pub peer: PeerTls,
    /// Between clients and members.
    pub client: ClientTls,
    /// The operator's own CA; `None`: `provision` makes one.
    pub ca: Option<CaFiles>,
    /// How long leaf certificates are valid.
    pub validity_days: u32,
    /// Names and addresses added to every member's certificates.
    pub extra_sans: Vec<String>,
    /// Clients beside the operator that get a certificate each, whose common name is theirs.
    pub clients: Vec<String>,
}

/// Transport security between members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerTls {
    /// Plain HTTP.
    Off,
    /// Members make their own certificates and take any of the others'.
    Auto,
    /// Plain HTTP, by members that have the certificates for more: the way from `Off` to `Mutual`.
    Prepared,
    /// Both sides show certificates.
    Mutual,
}

impl PeerTls {
    /// Whether members have certificates for each other that a CA has signed.
    #[must_use]
    pub fn is_signed(self) -> bool {
        matches!(self, Self::Prepared | Self::Mutual)
    }
}

/// Transport security between clients and members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientTls {
    /// Plain HTTP.
    Off,
    /// Members make the certificates that they show.
    Auto,
    /// Plain HTTP and HTTPS on one port; the member shows a certificate, and clients have theirs for later: the way on from `Off`.
    Both,
    /// Only the member shows a certificate.
    Server,
    /// Both sides show certificates.
    Mutual,
}

impl ClientTls {
    /// Whether the member shows a certificate that a CA has signed.
    #[must_use]
    pub fn is_signed(self) -> bool {
        matches!(self, Self::Both | Self::Server | Self::Mutual)
    }

    /// Whether clients have certificates to show.
    #[must_use]
    pub fn has_clients_certificates(self) -> bool {
        matches!(self, Self::Both | Self::Mutual)
    }
}

/// A CA that the operator brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaFiles {
    /// PEM certificate.
    pub cert: PathBuf,
    /// PEM private key.
    pub key: PathBuf,
}

/// One member of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Unique in the cluster.
    pub name: String,
    /// Voter or learner.
    pub role: Role,
    /// What runs.
    pub binary: Binary,
    /// The machine that it lives on; `None`: this one. Either all members of a cluster have one or none has.
    pub host: Option<SshHost>,
    /// Advertised host: an IP address or a DNS name. Local members default to 127.0.0.1.
    pub address: String,
    /// Address that both ports bind: the advertised address if that is an IP address, else the loopback one unless the file
    /// says otherwise.
    pub listen: IpAddr,
    /// Failure domain.
    pub zone: Option<String>,
    /// Fixed client port; `None`: allocated in one block per cluster and remembered.
    pub client_port: Option<u16>,
    /// Fixed peer port; `None`: allocated in one block per cluster and remembered.
    pub peer_port: Option<u16>,
    /// Member flags of `[defaults]` with the member's own `flags` over them; names and values were checked by `member-flags`.
    pub flags: BTreeMap<String, String>,
}

/// A machine that is reached by SSH. State directories remember it of members that are leaving.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SshHost {
    /// What ssh is asked to connect to: a name, an address or an entry of its configuration.
    pub destination: String,
    /// Whom to log in as.
    pub user: Option<String>,
    /// Port of sshd.
    pub port: Option<u16>,
    /// Private key.
    pub identity: Option<PathBuf>,
    /// Hosts to jump over.
    pub jump: Vec<String>,
    /// In place of ~/.ssh/config.
    pub ssh_config: Option<PathBuf>,
    /// Whether to become root with sudo.
    pub sudo: bool,
    /// What keeps members running.
    pub keeper: Keeper,
    /// Where programs go.
    pub install_dir: PathBuf,
    /// Where certificates, settings and data go.
    pub data_dir: PathBuf,
    /// The user that members run as.
    pub run_as: String,
}

impl SshHost {
    /// `ssh://[USER@]HOST[:PORT]`, as a file names it.
    #[must_use]
    pub fn url(&self) -> String {
        let mut url = "ssh://".to_owned();
        if let Some(user) = &self.user {
            url.push_str(user);
            url.push('@');
        }
        match &self.destination {
            host if host.contains(':') => url.push_str(&format!("[{host}]")),
            host => url.push_str(host),
        }
        if let Some(port) = self.port {
            url.push_str(&format!(":{port}"));
        }
        url
    }
}

/// What keeps members running on a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Keeper {
    /// A systemd unit for each.
    Systemd,
    /// Nothing.
    Process,
}

/// Whether a member counts for quorum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Counts.
    Voter,
    /// Does not count; follows the log.
    Learner,
}

/// The server that a member runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Binary {
    /// `member`, installed beside `provision`.
    Included,
    /// A path or a name looked up in PATH; an upstream etcd for example.
    Path(PathBuf),
}
