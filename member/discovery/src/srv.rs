//! What DNS SRV records say about a cluster: its members, and where its clients connect.
//!
//! etcd asks for the records of both schemes and uses both. Names of other members are not in the DNS: they get numbers
//! until they publish their own.

use std::net::SocketAddr;

use member_flags::{Flags, InitialCluster, Scheme, Url};

use crate::{DiscoveryError, Dns, DnsError, Record, Registration};

/// A member, as a record names it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    scheme: Scheme,
    record: Record,
    addresses: Vec<SocketAddr>,
}

/// One of the member's own advertised URLs.
struct Own {
    url: Url,
    addresses: Vec<SocketAddr>,
}

/// The name of a service: `etcd-server-ssl-NAME`.
fn service(kind: &str, scheme: Scheme, name: &str) -> String {
    let ssl = if scheme.is_tls() { "-ssl" } else { "" };
    let suffix = if name.is_empty() {
        String::new()
    } else {
        format!("-{name}")
    };
    format!("{kind}{ssl}{suffix}")
}

/// The endpoints of clients, each with its scheme: the ones with TLS first.
///
/// # Errors
/// There are no records, or the DNS does not answer.
pub async fn clients(dns: &Dns, domain: &str, name: &str) -> Result<Vec<(Scheme, Record)>, String> {
    let mut found = Vec::new();
    let mut errors = Vec::new();
    for scheme in [Scheme::Https, Scheme::Http] {
        match dns.srv(&service("etcd-client", scheme, name), domain).await {
            Ok(records) => found.extend(records.into_iter().map(|record| (scheme, record))),
            Err(error) => errors.push(error),
        }
    }
    // Half an answer is no answer: the half that is missing may be the one with TLS.
    let failed = errors
        .iter()
        .any(|error| !matches!(error, DnsError::NoSuchHost { .. }));
    if failed || found.is_empty() {
        let texts: Vec<String> = errors.iter().map(DnsError::to_string).collect();
        return Err(format!("dns lookup errors: {}", texts.join(" and ")));
    }
    Ok(found)
}

/// The members that the records of `--discovery-srv` name, this one by its name. A proxy need not be among them.
pub(crate) async fn members(
    flags: &Flags,
    registration: Registration,
) -> Result<InitialCluster, DiscoveryError> {
    let (domain, name) = (&flags.discovery.srv, &flags.discovery.srv_name);
    let dns = Dns::from_system().map_err(DiscoveryError::Dns)?;
    let mut own = Vec::new();
    let member = registration != Registration::None;
    for url in flags.initial_advertise_peer_urls.iter().filter(|_| member) {
        let addresses = addresses(&dns, url.host(), url.port().unwrap_or_default());
        own.push(Own {
            url: url.clone(),
            addresses: addresses.await.map_err(DiscoveryError::Dns)?,
        });
    }
    let mut targets = Vec::new();
    let mut errors = Vec::new();
    for scheme in [Scheme::Https, Scheme::Http] {
        let service = service("etcd-server", scheme, name);
        let found = lookup(&dns, &service, scheme, domain).await;
        tracing::info!(
            "service-scheme" = scheme.as_str(),
            "service-name" = service,
            "server-name" = flags.name,
            "discovery-srv" = domain,
            "found-cluster" = found.as_ref().map_or(0, Vec::len),
            "get cluster for SRV"
        );
        match found {
            Ok(found) => targets.extend(found),
            Err(error) => errors.push((service, error)),
        }
    }
    let failed = errors
        .iter()
        .any(|(_, error)| !matches!(error, DnsError::NoSuchHost { .. }));
    if failed || targets.is_empty() {
        let texts: Vec<String> = errors
            .iter()
            .map(|(service, error)| {
                format!("error querying DNS SRV records for _{service} {error}")
            })
            .collect();
        return Err(DiscoveryError::Srv {
            reason: texts.join("; "),
        });
    }
    let items = if member {
        name_members(&flags.name, &own, targets).map_err(|reason| DiscoveryError::Srv { reason })?
    } else {
        number_members(&targets)
    };
    let texts: Vec<String> = items
        .iter()
        .map(|(name, url)| format!("{name}={url}"))
        .collect();
    Ok(InitialCluster::new(texts.join(",")))
}

/// Names the targets by numbers; of a place under both schemes the one with TLS.
fn number_members(targets: &[Target]) -> Vec<(String, String)> {
    let secured = |target: &Target| {
        let mut others = targets.iter();
        !target.scheme.is_tls()
            && others.any(|other| other.scheme.is_tls() && other.record == target.record)
    };
    let urls = targets
        .iter()
        .filter(|target| !secured(target))
        .map(|target| format!("{}://{}", target.scheme.as_str(), target.record));
    urls.enumerate()
        .map(|(number, url)| (number.to_string(), url))
        .collect()
}

async fn addresses(dns: &Dns, host: &str, port: u16) -> Result<Vec<SocketAddr>, DnsError> {
    let found = dns.addresses(host).await?;
    Ok(found
        .into_iter()
        .map(|ip| SocketAddr::new(ip, port))
        .collect())
}

/// The records of one service with their addresses. A record whose host has no address is passed over, as in etcd.
async fn lookup(
    dns: &Dns,
    service: &str,
    scheme: Scheme,
    domain: &str,
) -> Result<Vec<Target>, DnsError> {
    let mut targets = Vec::new();
    let mut last = None;
    for record in dns.srv(service, domain).await? {
        match addresses(dns, &record.target, record.port).await {
            Ok(addresses) => targets.push(Target {
                scheme,
                record,
                addresses,
            }),
            Err(error @ DnsError::NoSuchHost { .. }) => {
                tracing::warn!(service, %record, %error, "SRV record ignored: its host has no address");
                last = Some(error);
            }
            Err(error) => return Err(error),
        }
    }
    match last {
        Some(error) if targets.is_empty() => Err(error),
        _ => Ok(targets),
    }
}

/// Names the targets: this member by its name, the others by numbers. The error is etcd's sentence, then the facts.
fn name_members(
    name: &str,
    own: &[Own],
    targets: Vec<Target>,
) -> Result<Vec<(String, String)>, String> {
    let schemes: Vec<Scheme> = own.iter().map(|own| own.url.scheme()).collect();
    let advertised = |target: &Target| {
        own.iter().find(|own| {
            own.addresses
                .iter()
                .any(|own| target.addresses.contains(own))
        })
    };
    let twin = |target: &Target| {
        targets
            .iter()
            .any(|other| other.scheme != target.scheme && other.record == target.record)
    };
    let mut items = Vec::new();
    let mut number = 0;
    let mut mismatch = None;
    let mut listed = false;
    for target in &targets {
        let url = format!("{}://{}", target.scheme.as_str(), target.record);
        // The same places under both schemes are one cluster; it speaks what this member advertises. etcd would make
        // members of both and wait for a quorum that never comes.
        if twin(target) && !schemes.contains(&target.scheme) {
            continue;
        }
        match advertised(target) {
            Some(own) if own.url.scheme() == target.scheme => {
                listed = true;
                items.push((name.to_owned(), url));
            }
            Some(own) => {
                mismatch = Some(format!(
                    "bootstrap at {} from DNS for {} has scheme mismatch with expected peer {}",
                    target.record,
                    service("etcd-server", target.scheme, ""),
                    own.url
                ));
            }
            None => {
                items.push((number.to_string(), url));
                number += 1;
            }
        }
    }
    if listed {
        return Ok(items);
    }
    let places = |addresses: &[SocketAddr]| {
        let texts: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
        texts.join(" ")
    };
    let facts = mismatch.unwrap_or_else(|| {
        let own: Vec<String> = own
            .iter()
            .map(|own| format!("{} ({})", own.url, places(&own.addresses)))
            .collect();
        let records: Vec<String> = targets
            .iter()
            .map(|target| {
                let scheme = target.scheme.as_str();
                format!(
                    "{scheme}://{} ({})",
                    target.record,
                    places(&target.addresses)
                )
            })
            .collect();
        format!(
            "it advertises {}, the records name {}",
            own.join(", "),
            records.join(", ")
        )
    });
    Err(format!(
        "cannot find local etcd member {name:?} in SRV records: {facts}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(scheme: Scheme, host: &str, address: &str) -> Target {
        let address: SocketAddr = address.parse().unwrap();
        Target {
            scheme,
            record: Record {
                target: host.to_owned(),
                port: address.port(),
                priority: 0,
                weight: 0,
            },
            addresses: vec![address],
        }
    }

    fn own(url: &str, address: &str) -> Vec<Own> {
        vec![Own {
            url: Url::parse(url).unwrap(),
            addresses: vec![address.parse().unwrap()],
        }]
    }

    fn named(own: &[Own], targets: Vec<Target>) -> Result<String, String> {
        let items = name_members("infra0", own, targets)?;
        let texts: Vec<String> = items.iter().map(|(n, u)| format!("{n}={u}")).collect();
        Ok(texts.join(","))
    }

    #[test]
    fn this_member_is_found_by_its_address_and_keeps_the_url_of_the_record() {
        let targets = vec![
            target(Scheme::Http, "infra1.example.com", "10.0.1.11:2380"),
            target(Scheme::Http, "infra0.example.com", "10.0.1.10:2380"),
        ];
        let cluster = "0=http://infra1.example.com:2380,infra0=http://infra0.example.com:2380";
        for url in ["http://infra0.example.com:2380", "http://10.0.1.10:2380"] {
            let own = own(url, "10.0.1.10:2380");
            assert_eq!(named(&own, targets.clone()).unwrap(), cluster);
        }
        let error = named(&own("http://10.0.1.10:2390", "10.0.1.10:2390"), targets).unwrap_err();
        assert!(
            error.starts_with("cannot find local etcd member \"infra0\" in SRV records: "),
            "{error}"
        );
    }

    #[test]
    fn both_schemes_are_used_and_a_place_under_both_is_one_member() {
        let both = vec![
            target(Scheme::Https, "infra0.example.com", "10.0.1.10:2380"),
            target(Scheme::Https, "infra1.example.com", "10.0.1.11:2380"),
            target(Scheme::Http, "infra0.example.com", "10.0.1.10:2380"),
            target(Scheme::Http, "infra1.example.com", "10.0.1.11:2380"),
        ];
        assert_eq!(
            named(&own("http://10.0.1.10:2380", "10.0.1.10:2380"), both).unwrap(),
            "infra0=http://infra0.example.com:2380,0=http://infra1.example.com:2380"
        );
        let mixed = vec![
            target(Scheme::Https, "infra1.example.com", "10.0.1.11:2380"),
            target(Scheme::Http, "infra0.example.com", "10.0.1.10:2380"),
            target(Scheme::Http, "infra2.example.com", "10.0.1.12:2380"),
        ];
        assert_eq!(
            named(&own("http://10.0.1.10:2380", "10.0.1.10:2380"), mixed).unwrap(),
            "0=https://infra1.example.com:2380,infra0=http://infra0.example.com:2380,1=http://infra2.example.com:2380"
        );
    }

    #[test]
    fn a_proxy_takes_all_places_once() {
        let targets = [
            target(Scheme::Https, "infra0.example.com", "10.0.1.10:2380"),
            target(Scheme::Http, "infra0.example.com", "10.0.1.10:2380"),
            target(Scheme::Http, "infra1.example.com", "10.0.1.11:2380"),
        ];
        let urls: Vec<String> = number_members(&targets)
            .into_iter()
            .map(|(_, url)| url)
            .collect();
        assert_eq!(
            urls,
            [
                "https://infra0.example.com:2380",
                "http://infra1.example.com:2380"
            ]
        );
    }

    #[test]
    fn another_scheme_is_not_this_member() {
        let targets = vec![target(
            Scheme::Https,
            "infra0.example.com",
            "10.0.1.10:2380",
        )];
        let error = named(&own("http://10.0.1.10:2380", "10.0.1.10:2380"), targets).unwrap_err();
        assert!(error.contains("scheme mismatch"), "{error}");
    }

    #[test]
    fn a_service_is_named_as_etcd_names_it() {
        let names = [
            (Scheme::Https, ""),
            (Scheme::Http, ""),
            (Scheme::Https, "foo"),
        ]
        .map(|(scheme, name)| service("etcd-server", scheme, name));
        assert_eq!(
            names,
            ["etcd-server-ssl", "etcd-server", "etcd-server-ssl-foo"]
        );
    }
}
