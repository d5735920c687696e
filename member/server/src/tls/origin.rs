//! Whether a peer calls from an address that its certificate is good for.
//!
//! Source: etcd 3.5, `client/pkg/transport/listener_tls.go`: a certificate that names no address and no host passes.

use std::net::IpAddr;

use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The addresses and host names in a certificate.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Names {
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) hosts: Vec<String>,
}

impl Names {
    /// Those of a certificate; none of one that cannot be read.
    pub(crate) fn of(leaf: &CertificateDer<'_>) -> Self {
        let mut names = Self::default();
        let Ok((_, leaf)) = X509Certificate::from_der(leaf) else {
            return names;
        };
        let Ok(Some(listed)) = leaf.subject_alternative_name() else {
            return names;
        };
        for name in &listed.value.general_names {
            match name {
                GeneralName::DNSName(host) => names.hosts.push((*host).to_owned()),
                GeneralName::IPAddress(bytes) => names.addresses.extend(address(bytes)),
                _ => {}
            }
        }
        names
    }

    /// Checks that a connection from there may show this certificate.
    ///
    /// # Errors
    /// etcd's words for why not.
    pub(crate) async fn check(&self, from: IpAddr) -> Result<(), String> {
        let from = from.to_canonical();
        if self.addresses.is_empty() && self.hosts.is_empty() || self.addresses.contains(&from) {
            return Ok(());
        }
        if self.hosts.is_empty() {
            let listed: Vec<String> = self.addresses.iter().map(IpAddr::to_string).collect();
            return Err(format!(
                "x509: certificate is valid for {}, not {from}",
                listed.join(", ")
            ));
        }
        let mut trouble = String::new();
        let wildcards = self.hosts.iter().filter_map(|host| host.strip_prefix('*'));
        let domains: Vec<&str> = wildcards.filter(|rest| rest.starts_with('.')).collect();
        if !domains.is_empty() {
            let asked = tokio::task::spawn_blocking(move || dns_lookup::lookup_addr(&from)).await;
            match asked {
                Ok(Ok(name)) => {
                    let name = name.trim_end_matches('.');
                    if domains.iter().any(|domain| name.ends_with(domain)) {
                        return Ok(());
                    }
                }
                Ok(Err(error)) => trouble = format!(" ({error})"),
                Err(_) => {}
            }
        }
        for host in self.hosts.iter().filter(|host| !host.starts_with("*.")) {
            match tokio::net::lookup_host((host.as_str(), 0)).await {
                Ok(found) => {
                    if found
                        .into_iter()
                        .any(|found| found.ip().to_canonical() == from)
                    {
                        return Ok(());
                    }
                }
                Err(error) => trouble = format!(" (lookup {host}: {error})"),
            }
        }
        Err(format!(
            "tls: \"{from}\" does not match any of DNSNames {:?}{trouble}",
            self.hosts
        ))
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::from(v4));
    }
    <[u8; 16]>::try_from(bytes)
        .ok()
        .map(|v6| IpAddr::from(v6).to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(addresses: &[&str], hosts: &[&str]) -> Names {
        Names {
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
            hosts: hosts.iter().map(|&host| host.to_owned()).collect(),
        }
    }

    #[tokio::test]
    async fn a_peer_calls_from_an_address_that_its_certificate_names() {
        let local: IpAddr = "127.0.0.1".parse().unwrap();
        for (addresses, hosts) in [
            (&[][..], &[][..]),
            (&["10.0.0.1", "127.0.0.1"], &[]),
            (&["10.0.0.1"], &["localhost"]),
            (&[], &["nosuch.invalid", "localhost"]),
        ] {
            assert_eq!(names(addresses, hosts).check(local).await, Ok(()));
        }
        assert_eq!(
            names(&["10.0.0.1", "10.0.0.2"], &[]).check(local).await,
            Err("x509: certificate is valid for 10.0.0.1, 10.0.0.2, not 127.0.0.1".to_owned())
        );
        let other: IpAddr = "127.0.0.9".parse().unwrap();
        let refused = names(&["10.0.0.1"], &["localhost"]).check(other).await;
        assert_eq!(
            refused,
            Err("tls: \"127.0.0.9\" does not match any of DNSNames [\"localhost\"]".to_owned())
        );
    }
}
