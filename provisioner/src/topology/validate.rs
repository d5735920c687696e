//! From the file's structs to a [`Topology`]: names, addresses, ports, flags, and what this release cannot do yet.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path as FsPath, PathBuf};

use super::invalid::Problem;
use super::model::{
    Binary, CaFiles, ClientTls, Gateway, Member, PeerTls, Role, Settings, Tls, Topology,
};
use super::ranges::{self, Fault};
use super::schema::{self, File};
use super::spans::{Path, Spans};
use super::{address, backup, bootstrap, checks, flags, hosts};
use crate::pki;

// etcd's own, registered with IANA.
const CLIENT_PORT: u16 = 2379;
const PEER_PORT: u16 = 2380;
/// Default validity of leaf certificates.
const VALIDITY_DAYS: u32 = 365;
/// etcd's own limit is 825 days in spirit (browsers' old limit); ten years is what a CA of ours lives.
const MOST_VALIDITY_DAYS: u32 = 3650;

const NAME_FIX: &str =
    "use 1 to 63 letters, digits, `-`, `_` and `.`, starting with a letter or digit";

/// Builds the checked topology, or lists everything that is wrong.
pub(super) fn validate(
    raw: &File,
    spans: &Spans<'_>,
    base: &FsPath,
    home: Option<&FsPath>,
) -> Result<Topology, Vec<Problem>> {
    let mut check = Check {
        spans,
        base,
        home,
        problems: Vec::new(),
    };
    let root = Path::root();
    check.cluster_name(&raw.name, &root.key("name"));
    let network = bootstrap::network(raw, &mut check);
    let bootstrap = bootstrap::bootstrap(&raw.bootstrap, &mut check);
    let tls = check.tls(&raw.tls, &root.key("tls"));
    let (members, places): (Vec<Member>, Vec<Path>) = check.members(raw).into_iter().unzip();
    let gateways = check.gateways(raw, &members);
    let backup = backup::backup(raw.backup.as_ref(), &mut check);
    let waived_checks = checks::waived(&raw.checks, &mut check);
    let topology = Topology {
        name: raw.name.clone(),
        network,
        settings: match raw.settings {
            // A unit shows what it runs, and its settings stand where operators of etcd look for them.
            None if members.iter().any(|member| member.host.is_some()) => Settings::Env,
            None | Some(schema::Settings::Flags) => Settings::Flags,
            Some(schema::Settings::Env) => Settings::Env,
            Some(schema::Settings::File) => Settings::File,
        },
        bootstrap,
        tls,
        members,
        gateways,
        backup,
        waived_checks,
    };
    check.made_certificates(&topology);
    if check.problems.is_empty() {
        flags::check_together(&topology, &places, spans, &mut check.problems);
    }
    if check.problems.is_empty() {
        Ok(topology)
    } else {
        Err(check.problems)
    }
}

/// The file, and what was found wrong with it so far.
pub(super) struct Check<'c> {
    spans: &'c Spans<'c>,
    base: &'c FsPath,
    home: Option<&'c FsPath>,
    problems: Vec<Problem>,
}

impl Check<'_> {
    pub(super) fn fault(
        &mut self,
        path: &Path,
        message: impl Into<String>,
        label: &str,
        help: impl Into<String>,
    ) {
        self.problems
            .push(Problem::error(self.spans.value(path), message, label).help(help));
    }

    fn made_certificates(&mut self, topology: &Topology) {
        let etcd = topology
            .members
            .iter()
            .any(|member| member.binary != Binary::Included);
        if etcd && topology.tls.client == ClientTls::Auto {
            self.fault(
                &Path::root().key("tls").key("client"),
                "provision cannot connect to certificates that etcd makes: their keys are of a curve, P-521, that it has not",
                "not with `binary`",
                "use client = \"server\" or \"mutual\", or the included member; peer = \"auto\" works with etcd too",
            );
        }
    }

    fn cluster_name(&mut self, name: &str, path: &Path) {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
        let starts_well = name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
        if !starts_well || !name.chars().all(allowed) || name.len() > 63 {
            self.fault(
                path,
                format!("{name:?} cannot be the name of a cluster"),
                "names a directory too",
                "use 1 to 63 lowercase letters, digits, `-`, `_` and `.`, starting with a letter or digit",
            );
        }
    }

    fn tls(&mut self, raw: &schema::Tls, path: &Path) -> Tls {
        let peer = match raw.peer {
            schema::PeerTls::Off => PeerTls::Off,
            schema::PeerTls::Mutual => PeerTls::Mutual,
            schema::PeerTls::Auto => PeerTls::Auto,
            schema::PeerTls::Prepared => PeerTls::Prepared,
        };
        let client = match raw.client {
            schema::ClientTls::Off => ClientTls::Off,
            schema::ClientTls::Server => ClientTls::Server,
            schema::ClientTls::Mutual => ClientTls::Mutual,
            schema::ClientTls::Auto => ClientTls::Auto,
            schema::ClientTls::Both => ClientTls::Both,
        };
        let validity = path.key("validity-days");
        let validity_days = raw.validity_days.unwrap_or(VALIDITY_DAYS);
        if validity_days == 0 || validity_days > MOST_VALIDITY_DAYS {
            self.fault(
                &validity,
                format!("`validity-days` cannot be {validity_days}"),
                "out of range",
                format!("write a number from 1 to {MOST_VALIDITY_DAYS}"),
            );
        }
        let sans = path.key("extra-sans");
        let mut extra_sans = Vec::new();
        for (index, san) in raw.extra_sans.iter().enumerate() {
            let wildcard = san.strip_prefix("*.").is_some_and(address::dns_name);
            match address::host(san) {
                Ok(host) => extra_sans.push(host),
                Err(_) if wildcard => extra_sans.push(san.clone()),
                Err((what, fix)) => self.fault(
                    &sans.index(index),
                    what,
                    "not a name for a certificate",
                    fix,
                ),
            }
        }
        let ca = raw.ca.as_ref().map(|ca| CaFiles {
            cert: self.file(&ca.cert, &path.key("ca").key("cert")),
            key: self.file(&ca.key, &path.key("ca").key("key")),
        });
        Tls {
            peer,
            client,
            ca,
            validity_days,
            extra_sans,
            clients: self.clients(&raw.clients, client, path),
        }
    }

    fn clients(&mut self, names: &[String], tls: ClientTls, path: &Path) -> Vec<String> {
        let path = path.key("clients");
        if !names.is_empty() && !tls.has_clients_certificates() {
            self.fault(
                &path,
                "certificates of clients are checked with client = \"mutual\" only",
                "have no meaning here",
                "write client = \"mutual\", or remove the key",
            );
        }
        for (index, name) in names.iter().enumerate() {
            if name == pki::OPERATOR || names[..index].contains(name) {
                self.fault(
                    &path.index(index),
                    format!("there is a client certificate of {name} already"),
                    "this name is taken",
                    "give each client its own name; root is the operator's",
                );
            } else if !is_name(name) {
                self.fault(
                    &path.index(index),
                    format!("{name:?} cannot be the name of a client"),
                    "names a file",
                    NAME_FIX,
                );
            }
        }
        names.to_vec()
    }

    pub(super) fn file(&mut self, text: &str, path: &Path) -> PathBuf {
        if text.is_empty() {
            self.fault(
                path,
                "the path is empty",
                "no file",
                "write the path of a PEM file",
            );
        }
        resolve(text, self.base, self.home)
    }

    /// The members, each with the entry of the file that it comes from.
    fn members(&mut self, raw: &File) -> Vec<(Member, Path)> {
        let root = Path::root();
        if raw.member.is_empty() {
            self.problems.push(
                Problem::error(
                    self.spans.value(&root.key("name")),
                    "the cluster has no members",
                    "this cluster",
                )
                .help("add a [[member]] table with a name"),
            );
            return Vec::new();
        }
        flags::check_defaults(raw, self.spans, &mut self.problems);
        let defaults = hosts::defaults(raw.host_defaults.as_ref(), self);
        let mut members: Vec<(Member, Path)> = Vec::new();
        for (index, entry) in raw.member.iter().enumerate() {
            let path = root.key("member").index(index);
            let strings = strings(entry);
            match ranges::expand(&strings) {
                Ok(expanded) => {
                    for strings in expanded {
                        let member = self.member(entry, &strings, raw, &defaults, &path);
                        members.push((member, path.clone()));
                    }
                }
                Err((key, fault)) => {
                    let help = match &fault {
                        Fault::Backwards(_) => "write the smaller number or letter first",
                        Fault::TooMany(_) => "a cluster has 3, 5 or 7 members",
                        Fault::Uneven { .. } => {
                            "give every range of one [[member]] the same length"
                        }
                    };
                    self.fault(&below(&path, &key), fault.to_string(), "this range", help);
                }
            }
        }
        self.uniqueness(&members);
        self.hosts(raw, &members);
        let learns = |(member, _): &(Member, Path)| member.role == Role::Learner;
        if !members.is_empty() && members.iter().all(learns) {
            self.fault(
                &root.key("member").index(0).key("role"),
                "the cluster has no voter",
                "nobody to learn from",
                "remove the key: members are voters unless told otherwise",
            );
        }
        members
    }

    /// What does not go together with members on hosts.
    fn hosts(&mut self, raw: &File, members: &[(Member, Path)]) {
        let root = Path::root();
        let remote = members.iter().find(|(member, _)| member.host.is_some());
        let Some((_, path)) = remote else {
            if raw.host_defaults.is_some() && !members.is_empty() {
                self.fault(
                    &root.key("host-defaults"),
                    "[host-defaults] has no meaning: no member has a host",
                    "for whom",
                    "give the members a host, such as host = \"ssh://10.0.1.10\", or remove the table",
                );
            }
            return;
        };
        let place = path.key("host");
        if let Some((local, _)) = members.iter().find(|(member, _)| member.host.is_none()) {
            let message = format!("{} has no host, and other members have one", local.name);
            self.fault(
                &place,
                message,
                "a member on another machine",
                "give all members a host or none: processes of this machine and hosts do not mix",
            );
        }
        let here = "needs all members on this machine";
        if raw.network == Some(schema::Network::Private) {
            let fix = "remove `network`: hosts have a network of their own";
            self.fault(
                &place,
                format!("network = \"private\" {here}"),
                "on another machine",
                fix,
            );
        }
        if raw.bootstrap.service.is_some() {
            let fix = "give `url` or `endpoints` of a service that the hosts reach";
            self.fault(
                &place,
                format!("service = \"builtin\" {here}"),
                "on another machine",
                fix,
            );
        }
        if raw.tls.client == schema::ClientTls::Auto {
            let fix = "use client = \"server\" or \"mutual\"";
            let why = "client = \"auto\": certificates that members make are known on their own machine only";
            self.fault(&place, why, "on another machine", fix);
        }
    }

    fn member(
        &mut self,
        entry: &schema::Member,
        strings: &BTreeMap<String, String>,
        raw: &File,
        defaults: &hosts::Defaults,
        path: &Path,
    ) -> Member {
        let name = strings.get("name").cloned().unwrap_or_default();
        if !is_name(&name) {
            self.fault(
                &path.key("name"),
                format!("{name:?} cannot be the name of a member"),
                "names a directory and stands in `initial-cluster`",
                NAME_FIX,
            );
        }
        let host = strings
            .get("host")
            .and_then(|text| defaults.host(text, &path.key("host"), self));
        let address = match strings.get("address").map(|text| address::host(text)) {
            None => match &host {
                Some(host) => host.destination.clone(),
                None => "127.0.0.1".to_owned(),
            },
            Some(Ok(host)) => host,
            Some(Err((what, fix))) => {
                self.fault(&path.key("address"), what, "not a host", fix);
                "127.0.0.1".to_owned()
            }
        };
        let listen = match strings.get("listen") {
            None if host.is_some() => address.parse().unwrap_or(Ipv4Addr::UNSPECIFIED.into()),
            None => address::default_listen(&address),
            Some(text) => match text.trim_matches(['[', ']']).parse::<IpAddr>() {
                Ok(ip) => ip,
                Err(_) => {
                    self.fault(&path.key("listen"), format!("{text:?} is not an IP address"), "cannot be bound", "write one of this machine's addresses, such as 127.0.0.1, or 0.0.0.0 for all");
                    address::default_listen(&address)
                }
            },
        };
        let zone = strings.get("zone").cloned();
        if zone.as_deref().is_some_and(|zone| zone.trim().is_empty()) {
            self.fault(
                &path.key("zone"),
                "the zone is empty",
                "no zone",
                "name the rack, room or region, or remove the key",
            );
        }
        let binary = self.binary(strings.get("binary"), &path.key("binary"));
        // Whose ports are free on another machine is for its operators to say, so the well-known ones are taken there.
        let usual = |port| host.as_ref().map(|_| port);
        let client_port = self
            .port(strings.get("client-port"), &path.key("client-port"))
            .or(usual(CLIENT_PORT));
        let peer_port = self
            .port(strings.get("peer-port"), &path.key("peer-port"))
            .or(usual(PEER_PORT));
        let own: BTreeMap<String, String> = strings
            .iter()
            .filter_map(|(key, value)| {
                Some((key.strip_prefix("flags.")?.to_owned(), value.clone()))
            })
            .collect();
        let flags = flags::merge(raw, &own, &binary, path, self.spans, &mut self.problems);
        Member {
            name,
            role: match entry.role {
                schema::Role::Voter => Role::Voter,
                schema::Role::Learner => Role::Learner,
            },
            binary,
            host,
            address,
            listen,
            zone,
            client_port,
            peer_port,
            flags,
        }
    }

    fn binary(&mut self, text: Option<&String>, path: &Path) -> Binary {
        let Some(text) = text else {
            return Binary::Included;
        };
        if text.is_empty() {
            self.fault(
                path,
                "the binary is empty",
                "no file",
                "write a path such as /usr/bin/etcd, or remove the key to run the included member",
            );
        }
        // As in a shell: a name without a slash is looked up in PATH.
        Binary::Path(if text.contains('/') {
            resolve(text, self.base, self.home)
        } else {
            PathBuf::from(text)
        })
    }

    fn gateways(&mut self, raw: &File, members: &[Member]) -> Vec<Gateway> {
        let mut gateways: Vec<Gateway> = Vec::new();
        for (index, entry) in raw.gateway.iter().enumerate() {
            let path = Path::root().key("gateway").index(index);
            let place = path.key("listen");
            let socket = entry.listen.parse::<SocketAddr>();
            let bare = entry.listen.trim_matches(['[', ']']).parse::<IpAddr>();
            let (listen, port) = match (socket, bare) {
                (Ok(socket), _) if socket.port() > 0 => (socket.ip(), Some(socket.port())),
                (_, Ok(ip)) => (ip, None),
                _ => {
                    self.fault(
                        &place,
                        format!("{:?} is not an address to listen on", entry.listen),
                        "cannot be bound",
                        "write an IP address and a port, such as 127.0.0.1:2379, or the address alone: a free port is allocated and remembered",
                    );
                    continue;
                }
            };
            let gateway = Gateway {
                listen,
                port,
                binary: self.binary(entry.binary.as_ref(), &path.key("binary")),
            };
            let members = members.iter().flat_map(|member| {
                [
                    (member.listen, member.client_port),
                    (member.listen, member.peer_port),
                ]
            });
            let others = gateways.iter().map(|other| (other.listen, other.port));
            let taken = members.chain(others).any(|(ip, port)| {
                port.is_some()
                    && port == gateway.port
                    && (ip == listen || ip.is_unspecified() || listen.is_unspecified())
            });
            if taken {
                self.fault(
                    &place,
                    format!(
                        "{} is the address of a member or of another gateway",
                        entry.listen
                    ),
                    "this address is taken",
                    "give the gateway another port, or none: a free one is allocated",
                );
            }
            gateways.push(gateway);
        }
        gateways
    }

    fn port(&mut self, text: Option<&String>, path: &Path) -> Option<u16> {
        let text = text?;
        match text.parse::<u16>() {
            Ok(0) => {
                self.fault(
                    path,
                    "port 0 cannot be advertised",
                    "not a port",
                    "remove the key: a free port is allocated and remembered",
                );
                None
            }
            Ok(port) => Some(port),
            Err(_) => {
                self.fault(
                    path,
                    format!("{text} is not a port"),
                    "not a port",
                    "write a number from 1 to 65535",
                );
                None
            }
        }
    }

    fn uniqueness(&mut self, members: &[(Member, Path)]) {
        let mut names: BTreeMap<&str, &Path> = BTreeMap::new();
        for (member, path) in members {
            if let Some(first) = names.insert(&member.name, path) {
                let help = if first == path {
                    "put a range into `name` too, such as infra{0..2}"
                } else {
                    "names are unique in a cluster: rename one of them"
                };
                self.fault(
                    &path.key("name"),
                    format!("two members are named {}", member.name),
                    "this name is taken",
                    help,
                );
            }
        }
        let mut taken: Vec<(Socket, &Path)> = Vec::new();
        for (member, path) in members {
            for (key, port) in [
                ("client-port", member.client_port),
                ("peer-port", member.peer_port),
            ] {
                let Some(port) = port else { continue };
                let socket = Socket { member, key, port };
                if let Some((other, _)) = taken.iter().find(|(other, _)| other.clashes(&socket)) {
                    let whose = if other.member.name == member.name {
                        "its own".to_owned()
                    } else {
                        format!("that of {}", other.member.name)
                    };
                    let message = format!(
                        "the {key} of {}, {}:{port}, is also {whose} {}",
                        member.name, member.address, other.key
                    );
                    let help = if std::ptr::eq(other.member, member) {
                        "give the two ports different numbers"
                    } else {
                        "give it another port or address, or remove the ports: free ones are allocated and remembered"
                    };
                    self.fault(&path.key(key), message, "this address is taken", help);
                }
                taken.push((socket, path));
            }
        }
    }
}

struct Socket<'m> {
    member: &'m Member,
    key: &'static str,
    port: u16,
}

impl Socket<'_> {
    fn clashes(&self, other: &Self) -> bool {
        let (a, b) = (self.member, other.member);
        let one_machine = match (&a.host, &b.host) {
            (Some(a), Some(b)) => a.destination == b.destination,
            _ => true,
        };
        let same_bind = one_machine
            && (a.listen == b.listen || a.listen.is_unspecified() || b.listen.is_unspecified());
        self.port == other.port && (same_bind || a.address == b.address)
    }
}

fn is_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(allowed)
        && name.len() <= 63
}

/// The strings of an entry that may hold ranges, by key; flags as `flags.NAME`.
fn strings(entry: &schema::Member) -> BTreeMap<String, String> {
    let mut strings = BTreeMap::from([("name".to_owned(), entry.name.clone())]);
    let optional = [
        ("host", entry.host.clone()),
        ("address", entry.address.clone()),
        ("listen", entry.listen.clone()),
        ("zone", entry.zone.clone()),
        ("binary", entry.binary.clone()),
        (
            "client-port",
            entry.client_port.as_ref().map(schema::Port::text),
        ),
        (
            "peer-port",
            entry.peer_port.as_ref().map(schema::Port::text),
        ),
    ];
    strings.extend(
        optional
            .into_iter()
            .filter_map(|(key, text)| Some((key.to_owned(), text?))),
    );
    strings.extend(
        entry
            .flags
            .iter()
            .map(|(name, value)| (format!("flags.{name}"), value.text())),
    );
    strings
}

fn below(path: &Path, key: &str) -> Path {
    match key.strip_prefix("flags.") {
        Some(name) => path.key("flags").key(name),
        None => path.key(key),
    }
}

fn resolve(text: &str, base: &FsPath, home: Option<&FsPath>) -> PathBuf {
    if let (Some(rest), Some(home)) = (text.strip_prefix("~/"), home) {
        return home.join(rest);
    }
    base.join(text)
}
