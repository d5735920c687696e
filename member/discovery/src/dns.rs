//! Queries to the name servers of `/etc/resolv.conf`, bounded, with Go's texts for failures.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::Resolver;
use hickory_resolver::config::LookupIpStrategy;
use hickory_resolver::net::{DnsError as Answer, NetError};
use hickory_resolver::proto::rr::{Name, RData};

use crate::connected::Connecting;

/// Longer than two tries of 5 s, which is what the resolver makes unless `/etc/resolv.conf` says otherwise.
const PATIENCE: Duration = Duration::from_secs(12);

/// A lookup without a usable answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DnsError {
    /// The resolver cannot be set up.
    #[error("cannot use the name servers of /etc/resolv.conf: {reason}")]
    Setup {
        /// Why.
        reason: String,
    },
    /// There is no such name, or it has no such records.
    #[error("lookup {name} on {server}: no such host")]
    NoSuchHost {
        /// The name.
        name: String,
        /// The name server.
        server: String,
    },
    /// No server has answered.
    #[error("lookup {name} on {server}: {reason}")]
    Failed {
        /// The name.
        name: String,
        /// The name server.
        server: String,
        /// Why.
        reason: String,
    },
}

/// A name server's word on where a service is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The host, without the dot at its end.
    pub target: String,
    /// The port.
    pub port: u16,
    /// Lower comes first.
    pub priority: u16,
    /// The share among those of one priority.
    pub weight: u16,
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.target, self.port)
    }
}

/// The name servers of this machine.
pub struct Dns {
    resolver: Resolver<Connecting>,
    sockets: Connecting,
    server: String,
}

impl Dns {
    /// Reads `/etc/resolv.conf` and `/etc/hosts`.
    ///
    /// # Errors
    /// The file cannot be read or names no server. There is no server of last resort.
    pub fn from_system() -> Result<Self, DnsError> {
        let setup = |error: NetError| DnsError::Setup {
            reason: error.to_string(),
        };
        let (config, mut options) =
            hickory_resolver::system_conf::read_system_conf().map_err(setup)?;
        let server = config
            .name_servers()
            .first()
            .map(|server| SocketAddr::new(server.ip, 53).to_string())
            .unwrap_or_default();
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        let sockets = Connecting::default();
        let mut builder = Resolver::builder_with_config(config, sockets.clone());
        *builder.options_mut() = options;
        Ok(Self {
            resolver: builder.build().map_err(setup)?,
            sockets,
            server,
        })
    }

    /// The records of `_SERVICE._tcp.DOMAIN` that can be used; the others are warned about.
    ///
    /// # Errors
    /// There are none, or no server answers.
    pub async fn srv(&self, service: &str, domain: &str) -> Result<Vec<Record>, DnsError> {
        let name = format!("_{service}._tcp.{domain}");
        let answer = self
            .bounded(&name, self.resolver.srv_lookup(absolute(&name)))
            .await?;
        let mut records: Vec<Record> = Vec::new();
        for record in answer.answers() {
            let RData::SRV(srv) = &record.data else {
                continue;
            };
            let target = text(&srv.target);
            // RFC 2782: a lone dot says that there is no such service; no connection goes to port 0.
            if target.is_empty() || srv.port == 0 {
                tracing::warn!(
                    "service" = name,
                    record = %format_args!("{} {} {} {}", srv.priority, srv.weight, srv.port, srv.target),
                    "SRV record ignored: it names no host and port"
                );
                continue;
            }
            records.push(Record {
                target,
                port: srv.port,
                priority: srv.priority,
                weight: srv.weight,
            });
        }
        if records.is_empty() {
            return Err(self.no_such_host(&name));
        }
        records.sort_by_key(|record| (record.priority, u16::MAX - record.weight));
        Ok(records)
    }

    /// The addresses of a host, IPv4 first.
    ///
    /// # Errors
    /// There are none, or no server answers.
    pub async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, DnsError> {
        if let Ok(ip) = host.parse() {
            return Ok(vec![ip]);
        }
        let answer = self
            .bounded(host, self.resolver.lookup_ip(absolute(host)))
            .await?;
        let mut addresses: Vec<IpAddr> = answer.iter().collect();
        addresses.sort_by_key(IpAddr::is_ipv6);
        if addresses.is_empty() {
            return Err(self.no_such_host(host));
        }
        Ok(addresses)
    }

    async fn bounded<T>(
        &self,
        name: &str,
        lookup: impl Future<Output = Result<T, NetError>>,
    ) -> Result<T, DnsError> {
        let failed = |reason: String| DnsError::Failed {
            name: name.to_owned(),
            server: self.server.clone(),
            reason,
        };
        match tokio::time::timeout(PATIENCE, lookup).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(NetError::Dns(Answer::NoRecordsFound(_)))) => Err(self.no_such_host(name)),
            Ok(Err(NetError::Timeout)) | Err(_) => Err(failed("i/o timeout".to_owned())),
            Ok(Err(NetError::Dns(Answer::ResponseCode(code)))) => {
                Err(failed(format!("server misbehaving ({code})")))
            }
            Ok(Err(NetError::NoConnections)) if self.sockets.take_refused() => {
                Err(failed("connection refused".to_owned()))
            }
            Ok(Err(NetError::Io(error))) => Err(failed(error.to_string())),
            Ok(Err(error)) => Err(failed(error.to_string())),
        }
    }

    fn no_such_host(&self, name: &str) -> DnsError {
        DnsError::NoSuchHost {
            name: name.to_owned(),
            server: self.server.clone(),
        }
    }
}

/// With a dot at its end a name is looked up as it is, and not in the domains of the search list.
fn absolute(name: &str) -> String {
    format!("{}.", name.trim_end_matches('.'))
}

fn text(name: &Name) -> String {
    name.to_utf8().trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::Instant;

    use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};

    use super::*;

    #[test]
    fn a_server_that_is_not_there_is_told_without_waiting_for_an_answer() {
        let port = {
            let held = UdpSocket::bind("127.0.0.1:0").unwrap();
            held.local_addr().unwrap().port()
        };
        let mut udp = ConnectionConfig::udp();
        udp.port = port;
        let ip = IpAddr::from([127, 0, 0, 1]);
        let server = NameServerConfig::new(ip, true, vec![udp]);
        let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
        let sockets = Connecting::default();
        let resolver = Resolver::builder_with_config(config, sockets.clone());
        let dns = Dns {
            resolver: resolver.build().unwrap(),
            sockets,
            server: format!("127.0.0.1:{port}"),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let began = Instant::now();
        let error = runtime.block_on(dns.srv("etcd-server", "example.com"));
        assert_eq!(
            error.unwrap_err().to_string(),
            format!("lookup _etcd-server._tcp.example.com on 127.0.0.1:{port}: connection refused")
        );
        // Each of its tries would take five seconds.
        assert!(began.elapsed() < Duration::from_secs(5));
    }
}
