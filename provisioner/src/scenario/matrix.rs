//! The matrix of bootstrap paths: its cells, the topology of each, and a subset that covers every pair of values.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use super::definition::{Body, Need, Scenario, Suite};
use crate::render::Server;

/// How members find each other, and how they are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    StaticFlags,
    StaticEnv,
    StaticFile,
    /// A v2 keys URL.
    DiscoveryPrivate,
    /// A token of a service like the public one.
    DiscoveryPublic,
    DiscoveryV3,
    DnsSrv,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Http,
    Mutual,
    /// Members make their own certificates.
    Auto,
    /// Mutual, with a CA that the user brings.
    OwnCa,
}

/// What members advertise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Address {
    Ip,
    Name,
}

/// One way to bring a cluster up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) method: Method,
    pub(super) transport: Transport,
    pub(super) size: usize,
    pub(super) address: Address,
}

const METHODS: [Method; 7] = [
    Method::StaticFlags,
    Method::StaticEnv,
    Method::StaticFile,
    Method::DiscoveryPrivate,
    Method::DiscoveryPublic,
    Method::DiscoveryV3,
    Method::DnsSrv,
];
const TRANSPORTS: [Transport; 4] = [
    Transport::Http,
    Transport::Mutual,
    Transport::Auto,
    Transport::OwnCa,
];
const SIZES: [usize; 3] = [1, 3, 5];
const ADDRESSES: [Address; 2] = [Address::Ip, Address::Name];

/// The `initial-cluster-token` of the guide.
pub(super) const TOKEN: &str = "etcd-cluster-1";
const DOMAIN: &str = "example.com";
// Five members of etcd with TLS come up twice in it on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// The product of the axes.
fn cells() -> Vec<Cell> {
    let mut cells = Vec::new();
    for method in METHODS {
        for transport in TRANSPORTS {
            for size in SIZES {
                for address in ADDRESSES {
                    cells.push(Cell {
                        method,
                        transport,
                        size,
                        address,
                    });
                }
            }
        }
    }
    cells
}

/// A small part of the cells in which every two values of different axes meet.
///
/// Greedy: the cell with most pairs that are still missing, and of equal ones the one with fewest members.
fn covering(cells: &[Cell]) -> Vec<Cell> {
    let mut missing: BTreeSet<Pair> = cells.iter().flat_map(Cell::pairs).collect();
    let mut chosen = Vec::new();
    while !missing.is_empty() {
        let gain = |cell: &Cell| {
            let pairs = cell.pairs();
            pairs.iter().filter(|pair| missing.contains(*pair)).count()
        };
        let best = cells
            .iter()
            .max_by_key(|cell| (gain(cell), std::cmp::Reverse(cell.size)));
        let Some(best) = best else { break };
        for pair in best.pairs() {
            missing.remove(&pair);
        }
        chosen.push(*best);
    }
    chosen
}

/// Two values of different axes, as axis and place on it.
type Pair = [(usize, usize); 2];

pub(super) fn scenarios() -> Vec<Scenario> {
    let cells = cells();
    let covering = covering(&cells);
    cells
        .into_iter()
        .map(|cell| Scenario {
            id: cell.to_string(),
            suite: Suite::Bootstrap,
            source: cell.method.source(),
            checks: cell.checks(),
            limit: LIMIT,
            covering: covering.contains(&cell),
            needs: cell.needs(),
            body: Body::Cell(cell),
        })
        .collect()
}

impl Method {
    fn source(self) -> &'static str {
        match self {
            Self::StaticFlags => "clustering guide: Static",
            Self::StaticEnv => "clustering guide: Static (environment variables)",
            Self::StaticFile => "configuration guide: Configuration file",
            Self::DiscoveryPrivate => "clustering guide: Custom etcd discovery service",
            Self::DiscoveryPublic => "clustering guide: Public etcd discovery service",
            Self::DiscoveryV3 => "discovery protocol, version 3 (etcd 3.6)",
            Self::DnsSrv => "clustering guide: Bootstrap the etcd cluster using DNS",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::StaticFlags => "static-flags",
            Self::StaticEnv => "static-env",
            Self::StaticFile => "static-file",
            Self::DiscoveryPrivate => "discovery-private",
            Self::DiscoveryPublic => "discovery-public",
            Self::DiscoveryV3 => "discovery-v3",
            Self::DnsSrv => "dns-srv",
        }
    }

    fn settings(self) -> &'static str {
        match self {
            Self::StaticEnv => "env",
            Self::StaticFile => "file",
            _ => "flags",
        }
    }

    fn bootstrap(self) -> String {
        match self {
            Self::StaticFlags | Self::StaticEnv | Self::StaticFile => {
                format!("method = \"static\"\ntoken = \"{TOKEN}\"\n")
            }
            Self::DiscoveryPrivate => discovery("private"),
            Self::DiscoveryPublic => discovery("public"),
            Self::DiscoveryV3 => discovery("v3"),
            Self::DnsSrv => format!(
                "method = \"dns-srv\"\ntoken = \"{TOKEN}\"\ndomain = \"{DOMAIN}\"\nserver = \"builtin\"\n"
            ),
        }
    }
}

fn discovery(protocol: &str) -> String {
    format!("method = \"discovery\"\nservice = \"builtin\"\nprotocol = \"{protocol}\"\n")
}

impl Transport {
    fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Mutual => "mutual",
            Self::Auto => "auto",
            Self::OwnCa => "own-ca",
        }
    }

    fn tls(self, server: Server) -> &'static str {
        match (self, server) {
            (Self::Http, _) => "",
            (Self::Mutual, _) => "[tls]\npeer = \"mutual\"\nclient = \"mutual\"\n",
            (Self::Auto, Server::Member) => "[tls]\npeer = \"auto\"\nclient = \"auto\"\n",
            // `provision` cannot connect to the certificates that etcd makes for clients: their keys are of the curve P-521.
            (Self::Auto, Server::Etcd { .. }) => "[tls]\npeer = \"auto\"\nclient = \"server\"\n",
            (Self::OwnCa, _) => {
                "[tls]\npeer = \"mutual\"\nclient = \"mutual\"\nca = { cert = \"ca.crt\", key = \"ca.key\" }\n"
            }
        }
    }
}

impl Address {
    fn name(self) -> &'static str {
        match self {
            Self::Ip => "ip",
            Self::Name => "name",
        }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (method, transport) = (self.method.name(), self.transport.name());
        write!(
            f,
            "{method}/{transport}/{}/{}",
            self.size,
            self.address.name()
        )
    }
}

impl Cell {
    fn place(&self) -> [usize; 4] {
        let at = |found: Option<usize>| found.unwrap_or(usize::MAX);
        [
            at(METHODS.iter().position(|method| *method == self.method)),
            at(TRANSPORTS.iter().position(|of| *of == self.transport)),
            at(SIZES.iter().position(|size| *size == self.size)),
            at(ADDRESSES.iter().position(|of| *of == self.address)),
        ]
    }

    fn pairs(&self) -> Vec<Pair> {
        let place = self.place();
        let mut pairs = Vec::new();
        for one in 0..place.len() {
            for other in one + 1..place.len() {
                pairs.push([(one, place[one]), (other, place[other])]);
            }
        }
        pairs
    }

    fn checks(&self) -> String {
        let members = if self.size == 1 { "member" } else { "members" };
        format!(
            "{} {members} by {}, {}, advertising {}: up, IDs and URLs, writes and reads through each, no drift, a restart keeps the data",
            self.size,
            self.method.name(),
            self.transport.name(),
            match self.address {
                Address::Ip => "addresses",
                Address::Name => "names",
            }
        )
    }

    fn needs(&self) -> Vec<Need> {
        let mut needs = vec![Need::Programs(&["etcdctl"])];
        if self.is_private() {
            needs.push(Need::PrivateNetwork);
        }
        if self.method == Method::DiscoveryV3 {
            needs.push(Need::Etcd {
                minor: (3, 6),
                why: "etcd has v3 discovery since 3.6",
            });
        }
        if self.method == Method::DnsSrv && self.transport == Transport::Http {
            needs.push(Need::Etcd {
                minor: (3, 5),
                why: "etcd 3.4 ends when there are no _etcd-server-ssl records",
            });
        }
        needs
    }

    /// Whether it has a network of its own, in which names resolve and every address can be had.
    pub(super) fn is_private(&self) -> bool {
        self.address == Address::Name || self.method == Method::DnsSrv
    }

    /// Host, client port and peer port of a member; `ports` are those that a cluster on loopback was given.
    pub(super) fn place_of(&self, index: usize, ports: &[(u16, u16)]) -> (String, u16, u16) {
        if !self.is_private() {
            let (client, peer) = ports.get(index).copied().unwrap_or_default();
            return ("127.0.0.1".to_owned(), client, peer);
        }
        let host = match self.address {
            Address::Ip => ip(index),
            Address::Name => name(index),
        };
        (host, 2379, 2380)
    }

    pub(super) fn scheme(&self) -> &'static str {
        match self.transport {
            Transport::Http => "http",
            _ => "https",
        }
    }

    /// The topology of a cluster of that name; `binary` is the server if it is not the included member.
    pub(super) fn topology(
        &self,
        name: &str,
        server: Server,
        binary: Option<&str>,
        ports: &[(u16, u16)],
    ) -> String {
        let mut text = format!("name = \"{name}\"\n");
        // Keys that say what is the default anyway are left out, so that the plain cells are plain topologies.
        if self.is_private() {
            text.push_str("network = \"private\"\n");
        }
        if self.method.settings() != "flags" {
            text.push_str(&format!("settings = \"{}\"\n", self.method.settings()));
        }
        text.push_str(self.transport.tls(server));
        text.push_str(&format!("[bootstrap]\n{}", self.method.bootstrap()));
        for index in 0..self.size {
            let (host, client, peer) = self.place_of(index, ports);
            text.push_str(&format!(
                "[[member]]\nname = \"infra{index}\"\nclient-port = {client}\npeer-port = {peer}\n"
            ));
            if self.is_private() {
                text.push_str(&format!(
                    "address = \"{host}\"\nlisten = \"{}\"\n",
                    ip(index)
                ));
            }
            if let Some(binary) = binary {
                text.push_str(&format!("binary = {binary:?}\n"));
            }
        }
        text
    }
}

/// The guide's names.
pub(super) fn name(index: usize) -> String {
    format!("infra{index}.{DOMAIN}")
}

/// The guide's addresses.
fn ip(index: usize) -> String {
    format!("10.0.1.{}", 10 + index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_product_has_every_cell_once() {
        let cells = cells();
        assert_eq!(cells.len(), 7 * 4 * 3 * 2);
        let ids: BTreeSet<String> = cells.iter().map(Cell::to_string).collect();
        assert_eq!(ids.len(), cells.len());
        assert!(ids.contains("dns-srv/mutual/3/name"));
    }

    #[test]
    fn every_two_values_meet_in_the_covering_subset() {
        let cells = cells();
        let covering = covering(&cells);
        let covered: BTreeSet<Pair> = covering.iter().flat_map(Cell::pairs).collect();
        let all: BTreeSet<Pair> = cells.iter().flat_map(Cell::pairs).collect();
        assert_eq!(all.len(), 7 * 4 + 7 * 3 + 7 * 2 + 4 * 3 + 4 * 2 + 3 * 2);
        assert_eq!(covered, all);
        // Methods and transports alone make 28 pairs, one for each cell.
        assert!(covering.len() <= 32, "{}", covering.len());
        for cell in &covering {
            assert!(cells.contains(cell), "{cell}");
        }
    }

    #[test]
    fn a_plain_cell_is_a_plain_topology() {
        let cell = Cell {
            method: Method::StaticFlags,
            transport: Transport::Http,
            size: 1,
            address: Address::Ip,
        };
        assert_eq!(
            cell.topology("cell", Server::Member, None, &[(1000, 1001)]),
            "name = \"cell\"\n[bootstrap]\nmethod = \"static\"\ntoken = \"etcd-cluster-1\"\n[[member]]\nname = \"infra0\"\nclient-port = 1000\npeer-port = 1001\n"
        );
    }
}
