//! The records of a DNS server, read from a zone file, and how a question is answered from them.
//!
//! One zone holds every name that exists, below whatever domains: the server is the authority for all of DNS, so that a
//! name that is not listed does not exist, finally and at once. Records are taken as they are, because faults are made of them: SRV
//! records with port 0 or the empty target, aliases that go in circles, services of which a part is missing.

use std::collections::BTreeMap;

use hickory_server::proto::op::ResponseCode;
use hickory_server::proto::rr::{LowerName, Name, RData, Record, RecordType};
use hickory_server::proto::serialize::txt::{ParseError, Parser};

// More than any real chain; an alias that goes in circles is answered with so many rounds of it.
const LONGEST_CHAIN: usize = 8;

/// All records, by name.
#[derive(Clone, Debug, Default)]
pub struct Zone {
    names: BTreeMap<LowerName, Vec<Record>>,
}

/// A zone file that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ZoneError {
    /// The text is no zone file.
    #[error("the zone file is not valid")]
    Syntax(#[source] ParseError),
    /// It names another file.
    #[error(
        "line {line} of the zone file has $INCLUDE, which is not supported: write the records into one file"
    )]
    Include {
        /// Counted from 1.
        line: usize,
    },
}

/// The answer to one question.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) code: ResponseCode,
    pub(super) records: Vec<Record>,
    /// The start of authority of the closest domain that has one, for answers without records.
    pub(super) authority: Vec<Record>,
}

impl Zone {
    /// Reads a zone file (RFC 1035, section 5). Relative names are below the root or the `$ORIGIN` line.
    ///
    /// # Errors
    /// The first thing that is no record.
    pub fn parse(text: &str) -> Result<Self, ZoneError> {
        for (index, line) in text.lines().enumerate() {
            if line
                .trim_start()
                .to_ascii_uppercase()
                .starts_with("$INCLUDE")
            {
                return Err(ZoneError::Include { line: index + 1 });
            }
        }
        let (_, sets) = Parser::new(text, None, Some(Name::root()))
            .parse()
            .map_err(ZoneError::Syntax)?;
        let mut names: BTreeMap<LowerName, Vec<Record>> = BTreeMap::new();
        for (key, set) in sets {
            names
                .entry(key.name)
                .or_default()
                .extend(set.records_without_rrsigs().cloned());
        }
        Ok(Self { names })
    }

    pub(super) fn answer(&self, name: &LowerName, wanted: RecordType) -> Answer {
        let mut records = Vec::new();
        let mut name = name.clone();
        let mut code = ResponseCode::NoError;
        for _ in 0..LONGEST_CHAIN {
            let Some(here) = self.names.get(&name) else {
                if !self.names.keys().any(|known| name.zone_of(known)) {
                    code = ResponseCode::NXDomain;
                }
                break;
            };
            let before = records.len();
            let fits =
                |record: &&Record| wanted == RecordType::ANY || record.record_type() == wanted;
            records.extend(here.iter().filter(fits).cloned());
            if records.len() > before {
                break;
            }
            let alias = here.iter().find_map(|record| match &record.data {
                RData::CNAME(target) => Some((record, LowerName::new(&target.0))),
                _ => None,
            });
            let Some((record, target)) = alias else { break };
            records.push(record.clone());
            name = target;
        }
        let authority = if records.is_empty() {
            self.authority(&name)
        } else {
            Vec::new()
        };
        Answer {
            code,
            records,
            authority,
        }
    }

    fn authority(&self, name: &LowerName) -> Vec<Record> {
        let domains = std::iter::successors(Some(name.clone()), |name| {
            (!name.is_root()).then(|| name.base_name())
        });
        domains
            .filter_map(|domain| self.names.get(&domain))
            .flatten()
            .find(|record| record.record_type() == RecordType::SOA)
            .cloned()
            .into_iter()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ZONE: &str = "\
$TTL 60
example.com. SOA ns.example.com. root.example.com. 1 60 60 60 60
infra0.example.com. A 10.0.1.10
etcd.example.com. CNAME infra0.example.com.
gone.example.com. CNAME nowhere.example.com.
a.example.com. CNAME b.example.com.
b.example.com. CNAME a.example.com.
_etcd-server._tcp.example.com. SRV 0 0 2380 infra0.example.com.
_etcd-server._tcp.example.com. SRV 0 0 0 .
10.1.0.10.in-addr.arpa. PTR infra0.example.com.
";

    fn ask(name: &str, wanted: RecordType) -> (ResponseCode, Vec<String>) {
        let zone = Zone::parse(ZONE).unwrap();
        let answer = zone.answer(&name.parse().unwrap(), wanted);
        let texts = answer.records.iter().map(|record| record.data.to_string());
        (answer.code, texts.collect())
    }

    #[test]
    fn names_are_found_without_regard_to_case() {
        let (code, records) = ask("INFRA0.Example.com.", RecordType::A);
        assert_eq!(
            (code, records),
            (ResponseCode::NoError, vec!["10.0.1.10".to_owned()])
        );
    }

    #[test]
    fn a_service_has_all_its_targets_as_written() {
        let (_, mut records) = ask("_etcd-server._tcp.example.com.", RecordType::SRV);
        records.sort();
        assert_eq!(records, ["0 0 0 .", "0 0 2380 infra0.example.com."]);
    }

    #[test]
    fn a_name_without_the_type_exists_and_an_unlisted_name_does_not() {
        assert_eq!(
            ask("infra0.example.com.", RecordType::AAAA),
            (ResponseCode::NoError, vec![])
        );
        assert_eq!(
            ask("_tcp.example.com.", RecordType::A),
            (ResponseCode::NoError, vec![])
        );
        assert_eq!(
            ask("infra9.example.com.", RecordType::A).0,
            ResponseCode::NXDomain
        );
        assert_eq!(
            ask("elsewhere.org.", RecordType::A).0,
            ResponseCode::NXDomain
        );
    }

    #[test]
    fn an_alias_is_followed_and_one_in_circles_ends() {
        let (_, records) = ask("etcd.example.com.", RecordType::A);
        assert_eq!(records, ["infra0.example.com.", "10.0.1.10"]);
        assert_eq!(
            ask("gone.example.com.", RecordType::A).0,
            ResponseCode::NXDomain
        );
        let (code, records) = ask("a.example.com.", RecordType::A);
        assert_eq!(
            (code, records.len()),
            (ResponseCode::NoError, LONGEST_CHAIN)
        );
    }

    #[test]
    fn an_answer_without_records_names_its_authority() {
        let zone = Zone::parse(ZONE).unwrap();
        let authority = |name: &str| zone.answer(&name.parse().unwrap(), RecordType::A).authority;
        assert_eq!(authority("x.y.example.com.").len(), 1);
        assert_eq!(authority("elsewhere.org.").len(), 0);
    }

    #[test]
    fn what_is_no_zone_file_is_refused() {
        for text in [
            "infra0 A 10.0.1",
            "infra0 A",
            "x SRV 0 0 70000 y.",
            "a b c d",
        ] {
            assert!(
                matches!(Zone::parse(text), Err(ZoneError::Syntax(_))),
                "{text}"
            );
        }
        let included = Zone::parse("a. A 10.0.0.1\n $include /etc/passwd\n");
        assert!(matches!(included, Err(ZoneError::Include { line: 2 })));
    }
}
