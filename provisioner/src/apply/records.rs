//! Whether the DNS says what the topology says, before members believe it.

use std::collections::BTreeSet;

use member_discovery::{Dns, DnsError};

use crate::error::Error;
use crate::render::SrvRecord;

const FIX: &str = "correct the zone and run the same command again; `provision render --format dns-zone` prints what it must hold";

/// Compares the records that members will find with those that they need.
///
/// Members take every record for one of theirs, so that one too many keeps them waiting as much as one too few.
pub async fn check(wanted: &[SrvRecord]) -> Result<(), Error> {
    let silent = |error: DnsError| Error::Failed {
        what: "the DNS cannot be asked for the cluster's records".to_owned(),
        fix: Some("check /etc/resolv.conf and the server that it names".to_owned()),
        source: Some(error.into()),
    };
    let dns = Dns::from_system().map_err(silent)?;
    let mut found = BTreeSet::new();
    let services: BTreeSet<(&str, &str)> = wanted
        .iter()
        .map(|record| (record.service.as_str(), record.domain.as_str()))
        .collect();
    for (service, domain) in services {
        let records = match dns.srv(service, domain).await {
            Ok(records) => records,
            Err(DnsError::NoSuchHost { .. }) => Vec::new(),
            Err(error) => return Err(silent(error)),
        };
        found.extend(records.into_iter().map(|record| SrvRecord {
            service: service.to_owned(),
            domain: domain.to_owned(),
            port: record.port,
            target: record.target,
        }));
    }
    let faults = differences(wanted, &found);
    if !faults.is_empty() {
        return Err(Error::failed(faults.join("; "), FIX));
    }
    let targets: BTreeSet<&str> = wanted.iter().map(|record| record.target.as_str()).collect();
    for target in targets {
        match dns.addresses(target).await {
            Ok(_) => {}
            Err(DnsError::NoSuchHost { .. }) => {
                return Err(Error::failed(
                    format!("{target}, which SRV records name, has no address"),
                    FIX,
                ));
            }
            Err(error) => return Err(silent(error)),
        }
    }
    Ok(())
}

fn differences(wanted: &[SrvRecord], found: &BTreeSet<SrvRecord>) -> Vec<String> {
    let missing = wanted.iter().filter(|record| !found.contains(record));
    let extra = found.iter().filter(|record| !wanted.contains(record));
    missing
        .map(|record| format!("the DNS lacks `{record}`"))
        .chain(extra.map(|record| format!("the DNS has `{record}`, which is no member's")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_record_that_is_missing_or_too_many_is_named() {
        let record = |target: &str| SrvRecord {
            service: "etcd-server".to_owned(),
            domain: "example.com".to_owned(),
            port: 2380,
            target: target.to_owned(),
        };
        let wanted = [record("infra0.example.com"), record("infra1.example.com")];
        let found = BTreeSet::from([record("infra0.example.com"), record("old.example.com")]);
        assert_eq!(
            differences(&wanted, &found),
            [
                "the DNS lacks `_etcd-server._tcp.example.com. SRV 0 0 2380 infra1.example.com.`",
                "the DNS has `_etcd-server._tcp.example.com. SRV 0 0 2380 old.example.com.`, which is no member's"
            ]
        );
        assert!(differences(&wanted, &BTreeSet::from(wanted.clone())).is_empty());
    }
}
