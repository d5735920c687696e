//! What runs beside the members of a cluster: its DNS server, its discovery service, its gateways. Pure: from topology and
//! instance to argument vectors.
//!
//! ```text
//! dns              provision serve dns 127.0.0.1:53 ZONE        in a private network
//! discovery        member --enable-v2 ...                       service = "builtin"
//! discovery-front  provision serve discovery ADDRESS URL        protocol = "public", in front of it
//! gateway0         member gateway start ...                     [[gateway]]
//! ```

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use member_flags::ids;

use crate::fnv;
use crate::instance::Instance;
use crate::render;
use crate::topology::{Bootstrap, Discovery, Gateway, Member, Network, Protocol, Role, Topology};

/// Where the DNS server of a private network listens: what resolvers ask when nothing names a port.
const DNS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 53);
const DNS_NAME: &str = "dns";
const BACKEND: &str = "discovery";
const BACKEND_PEER: &str = "discovery-peer";
const FRONT: &str = "discovery-front";

/// One process beside the members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Unique in the cluster.
    pub name: String,
    /// When it is started.
    pub turn: Turn,
    /// Where it answers once it is up.
    pub address: SocketAddr,
    /// Its argument vector, program first.
    pub argv: Vec<String>,
    /// A file that must exist before it starts. Its name changes with its text, so that arguments tell whether all is as wanted.
    pub file: Option<(PathBuf, String)>,
}

/// When a service is started; services stop in the reverse order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Turn {
    /// The members need it.
    BeforeMembers,
    /// It needs the members.
    AfterMembers,
}

/// The programs that services run.
#[derive(Clone, Debug)]
pub struct Programs {
    /// This program.
    pub own: PathBuf,
    /// The included member, if there is a built-in discovery service.
    pub discovery: Option<PathBuf>,
    /// What each gateway runs, in the file's order.
    pub gateways: Vec<PathBuf>,
}

/// The ports that services need, by what they are for; those that the topology fixes are given.
#[must_use]
pub fn ports(topology: &Topology) -> BTreeMap<String, Option<u16>> {
    let mut ports = BTreeMap::new();
    if let Some(protocol) = built_in(topology) {
        ports.extend([BACKEND, BACKEND_PEER].map(|name| (name.to_owned(), None)));
        if protocol == Protocol::Public {
            ports.insert(FRONT.to_owned(), None);
        }
    }
    for (index, gateway) in topology.gateways.iter().enumerate() {
        ports.insert(gateway_name(index), gateway.port);
    }
    ports
}

/// Everything that should run beside the members. `dir` is the cluster's state directory.
#[must_use]
pub fn services(
    topology: &Topology,
    instance: &Instance,
    programs: &Programs,
    dir: &Path,
) -> Vec<Service> {
    let mut services = Vec::new();
    if topology.network == Network::Private {
        services.push(dns(topology, instance, programs, dir));
    }
    if let (Some(protocol), Some(member)) = (built_in(topology), &programs.discovery) {
        services.push(backend(instance, member, dir));
        if protocol == Protocol::Public {
            services.push(front(instance, programs, dir));
        }
    }
    let endpoints: Vec<String> = topology
        .members
        .iter()
        .filter(|member| member.role == Role::Voter)
        .filter_map(|member| {
            let port = instance.members.get(&member.name)?.client_port;
            Some(format!("{}:{port}", render::url_host(&member.address)))
        })
        .collect();
    for (index, (gateway, program)) in topology.gateways.iter().zip(&programs.gateways).enumerate()
    {
        let address = gateway_address(gateway, index, instance);
        services.push(Service {
            turn: Turn::AfterMembers,
            argv: vec![
                program.display().to_string(),
                "gateway".to_owned(),
                "start".to_owned(),
                format!("--listen-addr={address}"),
                format!("--endpoints={}", endpoints.join(",")),
            ],
            name: gateway_name(index),
            address,
            file: None,
        });
    }
    services
}

/// Where each of the services listens, and whether a cluster that runs needs it.
#[must_use]
pub fn places(topology: &Topology, instance: &Instance) -> BTreeMap<String, Place> {
    let mut places = BTreeMap::new();
    if topology.network == Network::Private {
        places.insert(DNS_NAME.to_owned(), Place::needed(DNS));
    }
    if let Some(protocol) = built_in(topology) {
        let front = (protocol == Protocol::Public).then_some(FRONT);
        for name in [BACKEND].into_iter().chain(front) {
            let address = loopback(instance, name);
            let place = Place {
                address,
                needed: false,
            };
            places.insert(name.to_owned(), place);
        }
    }
    for (index, gateway) in topology.gateways.iter().enumerate() {
        let address = gateway_address(gateway, index, instance);
        places.insert(gateway_name(index), Place::needed(address));
    }
    places
}

/// Where a service listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its address.
    pub address: SocketAddr,
    /// Whether members and clients use it all the time. Only members that have no data yet ask a discovery service.
    pub needed: bool,
}

impl Place {
    fn needed(address: SocketAddr) -> Self {
        Self {
            address,
            needed: true,
        }
    }
}

/// The URLs of the gateways for clients on this machine.
#[must_use]
pub fn gateway_urls(topology: &Topology, instance: &Instance) -> Vec<String> {
    let urls = topology
        .gateways
        .iter()
        .enumerate()
        .map(|(index, gateway)| {
            let mut address = gateway_address(gateway, index, instance);
            match address.ip() {
                IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
                IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
                _ => {}
            }
            format!("{}://{address}", render::client_scheme(topology))
        });
    urls.collect()
}

/// Where clients connect to a gateway, the one at this place in the topology.
#[must_use]
pub fn gateway_address(gateway: &Gateway, index: usize, instance: &Instance) -> SocketAddr {
    SocketAddr::new(gateway.listen, port(instance, &gateway_name(index)))
}

/// How the cluster's own discovery service is spoken to, if it has one.
#[must_use]
pub fn built_in(topology: &Topology) -> Option<Protocol> {
    match &topology.bootstrap {
        Bootstrap::Discovery {
            service: Discovery::BuiltIn(protocol),
            ..
        } => Some(*protocol),
        _ => None,
    }
}

/// What members hash into their IDs: the token, or the whole URL where that is what they are given.
#[must_use]
pub fn cluster_token(topology: &Topology, instance: &Instance) -> String {
    let token = &instance.token;
    let Bootstrap::Discovery { service, .. } = &topology.bootstrap else {
        return token.clone();
    };
    match service {
        Discovery::Url(url) => url.clone(),
        Discovery::BuiltIn(Protocol::Private) => {
            format!("{}/v2/keys/discovery/{token}", discovery_backend(instance))
        }
        Discovery::BuiltIn(Protocol::Public) => {
            format!("http://{}/{token}", loopback(instance, FRONT))
        }
        Discovery::BuiltIn(Protocol::V3) | Discovery::Endpoints { .. } => token.clone(),
    }
}

/// The client URL of the member behind the built-in discovery service.
#[must_use]
pub fn discovery_backend(instance: &Instance) -> String {
    format!("http://{}", loopback(instance, BACKEND))
}

/// Where the size of the cluster has to stand before members look for each other, if it is `provision` that puts it there.
#[must_use]
pub fn registration(topology: &Topology, instance: &Instance) -> Option<Registration> {
    let token = &instance.token;
    let v2 = |dir: &str| format!("/v2/keys/{dir}/{token}");
    let cluster = cluster_token(topology, instance);
    let id = |member: &Member| {
        let place = instance.members.get(&member.name)?;
        let url = render::listed_peer_url(topology, member, place);
        Some((member.name.clone(), ids::member_id(&[url], &cluster, None)))
    };
    Some(Registration {
        backend: discovery_backend(instance),
        token: match built_in(topology)? {
            Protocol::Private => TokenKeys::V2(v2("discovery")),
            Protocol::Public => TokenKeys::V2(v2("_etcd/registry")),
            Protocol::V3 => TokenKeys::V3(format!("/_etcd/registry/{token}")),
        },
        size: topology
            .members
            .iter()
            .filter(|member| member.role == Role::Voter)
            .count(),
        members: topology.members.iter().filter_map(id).collect(),
    })
}

/// The size of a discovery token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// Client URL of the member that keeps it.
    pub backend: String,
    /// What its keys begin with.
    pub token: TokenKeys,
    /// How many members find each other.
    pub size: usize,
    /// The ID by which each member registers.
    pub members: BTreeMap<String, u64>,
}

/// Where the keys of a token are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenKeys {
    /// Below this path of v2 requests.
    V2(String),
    /// Below this prefix of v3 keys.
    V3(String),
}

impl TokenKeys {
    /// The key of the size.
    #[must_use]
    pub fn size(&self) -> String {
        let (Self::V2(token) | Self::V3(token)) = self;
        format!("{token}/_config/size")
    }

    /// The key of a member's registration.
    #[must_use]
    pub fn member(&self, id: u64) -> String {
        match self {
            Self::V2(token) => format!("{token}/{id:x}"),
            Self::V3(token) => format!("{token}/members/{id:x}"),
        }
    }
}

fn dns(topology: &Topology, instance: &Instance, programs: &Programs, dir: &Path) -> Service {
    let zone = render::zone(topology, instance);
    let path = dir.join(format!(
        "services/dns/zone-{:016x}",
        fnv::hash(zone.as_bytes())
    ));
    Service {
        name: DNS_NAME.to_owned(),
        turn: Turn::BeforeMembers,
        address: DNS,
        argv: vec![
            programs.own.display().to_string(),
            "serve".to_owned(),
            "dns".to_owned(),
            DNS.to_string(),
            path.display().to_string(),
        ],
        file: Some((path, zone)),
    }
}

fn backend(instance: &Instance, member: &Path, dir: &Path) -> Service {
    let client = discovery_backend(instance);
    let peer = format!("http://{}", loopback(instance, BACKEND_PEER));
    let data = dir.join("services").join(BACKEND).join("data");
    let mut argv = vec![member.display().to_string()];
    argv.extend([
        format!("--name={BACKEND}"),
        format!("--data-dir={}", data.display()),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster={BACKEND}={peer}"),
        "--enable-v2".to_owned(),
    ]);
    Service {
        name: BACKEND.to_owned(),
        turn: Turn::BeforeMembers,
        address: loopback(instance, BACKEND),
        argv,
        file: None,
    }
}

fn front(instance: &Instance, programs: &Programs, dir: &Path) -> Service {
    let address = loopback(instance, FRONT);
    Service {
        name: FRONT.to_owned(),
        turn: Turn::BeforeMembers,
        address,
        argv: vec![
            programs.own.display().to_string(),
            "serve".to_owned(),
            "discovery".to_owned(),
            address.to_string(),
            discovery_backend(instance),
            format!("--of={}/", dir.join("services").join(FRONT).display()),
        ],
        file: None,
    }
}

fn gateway_name(index: usize) -> String {
    format!("gateway{index}")
}

fn loopback(instance: &Instance, name: &str) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port(instance, name))
}

// Every instance is completed with the ports that its topology needs before anything is asked of it.
fn port(instance: &Instance, name: &str) -> u16 {
    instance.services.get(name).copied().unwrap_or_default()
}
