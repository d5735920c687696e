//! The file as serde reads it and as the JSON Schema describes it. The doc comments are the schema's descriptions.
//!
//! Says what a file may contain, not what makes sense: that is `validate`. Keys of later releases are known here so that they are
//! refused by name and never ignored.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

/// The JSON Schema of topology files.
pub fn json_schema() -> Value {
    let mut schema = schemars::schema_for!(File).to_value();
    if let Some(root) = schema.as_object_mut() {
        root.insert("title".into(), "provision topology".into());
    }
    schema
}

/// A cluster of etcd-compatible members. Strings may hold ${VAR} and ${VAR:-default}.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct File {
    /// The cluster's name: lowercase letters, digits, `-`, `_` and `.`; names its state directory too.
    pub(super) name: String,
    /// Whose addresses and names the members use.
    pub(super) network: Option<Network>,
    /// How members are given their settings; on the command line by default, members on hosts as an environment file.
    pub(super) settings: Option<Settings>,
    /// How the members find each other at their first start.
    #[serde(default)]
    pub(super) bootstrap: Bootstrap,
    /// Transport security; without this table both ports speak plain HTTP.
    #[serde(default)]
    pub(super) tls: Tls,
    /// Flags of every member, spelled as the flag without its dashes.
    #[serde(default)]
    pub(super) defaults: BTreeMap<String, FlagValue>,
    /// How members on other machines are reached and where they live there.
    pub(super) host_defaults: Option<HostDefaults>,
    /// The members; brace ranges such as infra{0..2} make several from one entry.
    #[serde(default)]
    pub(super) member: Vec<Member>,
    /// TCP load balancers in front of the client ports.
    #[serde(default)]
    pub(super) gateway: Vec<Gateway>,
    /// How `provision backup` takes backups.
    pub(super) backup: Option<Backup>,
    /// Which warnings are accepted.
    #[serde(default)]
    pub(super) lints: Lints,
    /// Which findings of `provision check` are accepted.
    #[serde(default)]
    pub(super) checks: Checks,
}

/// How `provision backup` takes backups.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Backup {
    /// Where they go, relative to the topology file; by default below the state directory.
    pub(super) dir: Option<String>,
    /// How many are kept; all, unless keep-for is given.
    pub(super) keep: Option<u32>,
    /// Age up to which they are kept, such as 30d; with `keep` too, what either keeps stays.
    pub(super) keep_for: Option<String>,
    /// Public keys of age (age1...) whose owners can read them; without any they are not encrypted.
    #[serde(default)]
    pub(super) encrypt_to: Vec<String>,
    /// Whether each is restored into a scratch member and compared with the cluster; false by default.
    #[serde(default)]
    pub(super) verify: bool,
    /// When they are taken, as systemd.time(7) says it: daily, or *-*-* 03:00:00. `backup --install-timer` makes it so.
    pub(super) schedule: Option<String>,
}

/// How the members find each other at their first start.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Bootstrap {
    /// The method.
    #[serde(default)]
    pub(super) method: Method,
    /// initial-cluster-token; by default unique per instance of the cluster, generated and remembered.
    pub(super) token: Option<String>,
    /// method = "discovery": "builtin", a discovery service that provision runs beside the cluster.
    pub(super) service: Option<Service>,
    /// How the built-in discovery service is spoken to; "private" by default.
    pub(super) protocol: Option<Protocol>,
    /// method = "discovery": URL of a v2 token, which must have its size already.
    pub(super) url: Option<String>,
    /// method = "discovery": endpoints of a v3 service, in which `token` must have its size already.
    pub(super) endpoints: Option<Vec<String>>,
    /// method = "discovery": HTTP proxy in front of a v2 service.
    pub(super) proxy: Option<String>,
    /// method = "dns-srv": domain of the SRV records.
    pub(super) domain: Option<String>,
    /// method = "dns-srv": what the service names of the records end in, after a dash.
    pub(super) srv_name: Option<String>,
    /// method = "dns-srv": who answers; "system" by default, "builtin" in a private network.
    pub(super) server: Option<DnsServer>,
}

/// How the members find each other at their first start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Method {
    /// Every member is told of all others.
    #[default]
    Static,
    /// A discovery service: one of `service`, `url` and `endpoints`.
    Discovery,
    /// DNS SRV records of `domain`.
    DnsSrv,
}

/// A discovery service that needs no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Service {
    /// A member of its own, with what `protocol` needs in front of it.
    Builtin,
}

/// How the built-in discovery service is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Protocol {
    /// As another etcd cluster, through its v2 keys.
    Private,
    /// As the public service discovery.etcd.io.
    Public,
    /// As another etcd cluster, through its v3 keys.
    V3,
}

/// Who answers the questions for SRV records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum DnsServer {
    /// A DNS server that provision runs; the cluster's network is private.
    Builtin,
    /// The resolvers of this machine.
    System,
}

/// Whose addresses and names the members use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Network {
    /// This machine's.
    Host,
    /// Those of a network namespace of the cluster's own, which needs no root: any address, any port, and a DNS server that knows
    /// the members' names. `provision exec` runs commands in it.
    Private,
}

/// How members are given their settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Settings {
    /// On the command line.
    Flags,
    /// As ETCD_* variables.
    Env,
    /// In a YAML file, for --config-file.
    File,
}

/// A TCP load balancer in front of the client ports of all members.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Gateway {
    /// IP address and port for clients, such as 127.0.0.1:2379; without a port one is allocated and remembered.
    pub(super) listen: String,
    /// What to run `gateway start` of: a path relative to the topology file or a name in PATH. The included member by default.
    pub(super) binary: Option<String>,
}

/// Transport security.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Tls {
    /// Between members.
    #[serde(default)]
    pub(super) peer: PeerTls,
    /// Between clients and members.
    #[serde(default)]
    pub(super) client: ClientTls,
    /// Your own CA; by default provision makes one per cluster.
    pub(super) ca: Option<Ca>,
    /// Validity of the members' certificates in days; 365 by default.
    pub(super) validity_days: Option<u32>,
    /// Names and addresses added to every member's certificates.
    #[serde(default)]
    pub(super) extra_sans: Vec<String>,
    /// Further clients, such as kube-apiserver: each gets a certificate, whose common name is theirs.
    #[serde(default)]
    pub(super) clients: Vec<String>,
}

/// Security between members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum PeerTls {
    /// Plain HTTP.
    #[default]
    Off,
    /// Each member makes its own certificate and takes any of the others': encrypted, not authenticated.
    Auto,
    /// Plain HTTP, by members that have certificates already: a stage of `rotate tls`.
    Prepared,
    /// Both sides show certificates.
    Mutual,
}

/// Security between clients and members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum ClientTls {
    /// Plain HTTP.
    #[default]
    Off,
    /// Each member makes the certificate that it shows.
    Auto,
    /// HTTP and HTTPS on one port, while clients move from one to the other: a stage of `rotate tls`.
    Both,
    /// Only the member shows a certificate.
    Server,
    /// Both sides show certificates.
    Mutual,
}

/// A CA that you bring: PEM files, relative to the topology file.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Ca {
    /// Certificate.
    pub(super) cert: String,
    /// Private key.
    pub(super) key: String,
}

/// One member, or several when its strings hold brace ranges.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Member {
    /// Unique name.
    pub(super) name: String,
    /// The machine that it lives on, ssh://[USER@]HOST[:PORT]; by default it is a process of this one.
    pub(super) host: Option<String>,
    /// Advertised host: an IP address or DNS name; by default 127.0.0.1, or the host that `host` names.
    pub(super) address: Option<String>,
    /// IP address that both ports bind: `address` if that is an IP address, else 127.0.0.1, or 0.0.0.0 on a `host`.
    pub(super) listen: Option<String>,
    /// Failure domain.
    pub(super) zone: Option<String>,
    /// What the member counts for.
    #[serde(default)]
    pub(super) role: Role,
    /// Server to run, such as /usr/bin/etcd: a path relative to the topology file or a name in PATH. The included member by default.
    pub(super) binary: Option<String>,
    /// Port for clients; by default one is allocated and remembered, on a `host` 2379.
    pub(super) client_port: Option<Port>,
    /// Port for the other members; by default one is allocated and remembered, on a `host` 2380.
    pub(super) peer_port: Option<Port>,
    /// Flags of this member, over those of [defaults].
    #[serde(default)]
    pub(super) flags: BTreeMap<String, FlagValue>,
}

/// What a member counts for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Role {
    /// Counts for the quorum.
    #[default]
    Voter,
    /// Follows without a vote.
    Learner,
}

/// A port: a number, or a string with a range or a variable.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Port {
    /// 2379
    Number(i64),
    /// "{2379..2381}" or "${PORT:-2379}"
    Text(String),
}

impl Port {
    pub(super) fn text(&self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text.clone(),
        }
    }
}

/// The value of a flag; a list is joined by commas.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum FlagValue {
    /// true or false
    Bool(bool),
    /// 100
    Integer(i64),
    /// 0.5
    Float(f64),
    /// "10s"
    Text(String),
    /// ["stderr", "/var/log/member.log"]
    List(Vec<String>),
}

impl FlagValue {
    pub(super) fn text(&self) -> String {
        match self {
            Self::Bool(value) => value.to_string(),
            Self::Integer(value) => value.to_string(),
            Self::Float(value) => value.to_string(),
            Self::Text(value) => value.clone(),
            Self::List(values) => values.join(","),
        }
    }
}

/// How members on other machines are reached and where they live there. ~/.ssh/config is honoured.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct HostDefaults {
    /// Whom to log in as.
    pub(super) user: Option<String>,
    /// Port of sshd.
    pub(super) port: Option<u16>,
    /// File of the private key to log in with.
    pub(super) identity: Option<String>,
    /// Hosts to jump over, in their order: [USER@]HOST[:PORT].
    #[serde(default)]
    pub(super) jump: Vec<String>,
    /// ssh's configuration, in place of ~/.ssh/config.
    pub(super) ssh_config: Option<String>,
    /// Whether to become root with sudo, which must not ask for a password; false by default.
    pub(super) sudo: Option<bool>,
    /// What keeps members running.
    #[serde(default)]
    pub(super) service: Keeper,
    /// Where programs go; /opt/provision by default.
    pub(super) install_dir: Option<String>,
    /// Where everything else goes; /var/lib/provision by default.
    pub(super) data_dir: Option<String>,
    /// The system user that members run as, made where it does not exist; etcd by default.
    pub(super) run_as: Option<String>,
}

/// What keeps members running on a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Keeper {
    /// A systemd unit for each: started at boot, started again when it ends.
    #[default]
    Systemd,
    /// Nothing: for hosts without systemd.
    Process,
}

/// Which warnings are accepted.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Lints {
    /// Code of a warning = why it is accepted here.
    #[serde(default)]
    pub(super) allow: BTreeMap<String, String>,
}

/// Which findings of `provision check` are accepted.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Checks {
    /// Name of a check = why what it finds is accepted here.
    #[serde(default)]
    pub(super) allow: BTreeMap<String, String>,
}
