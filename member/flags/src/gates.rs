//! `--feature-gates`: etcd 3.6's switches, as far as this release has what they switch.

use std::collections::BTreeMap;
use std::fmt;

use crate::go::parse_bool;

/// The gates that switch something here, with etcd's names.
const HONOURED: [&str; 4] = [
    "CompactHashCheck",
    "InitialCorruptCheck",
    "LeaseCheckpoint",
    "LeaseCheckpointPersist",
];

/// The other gates of etcd 3.6 to 3.7, and their defaults, which are the one value that is taken.
const FIXED: [(&str, bool); 7] = [
    ("AllAlpha", false),
    ("AllBeta", false),
    ("FastLeaseKeepAlive", false),
    ("PriorityRequest", false),
    ("SetMemberLocalAddr", false),
    ("StopGRPCServiceOnDefrag", false),
    ("TxnModeWriteWithSharedBuffer", true),
];

/// What `--feature-gates` says, in the order of the names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FeatureGates(BTreeMap<&'static str, bool>);

/// Why gates were not taken.
#[derive(Debug)]
pub(crate) enum Fault {
    /// etcd says the same.
    Malformed(String),
    /// A gate that has nothing to switch here.
    Refused(&'static str),
}

impl FeatureGates {
    /// Reads `NAME=BOOL,..`.
    pub(crate) fn parse(value: &str) -> Result<Self, Fault> {
        let mut gates = BTreeMap::new();
        for pair in value
            .split(',')
            .map(str::trim)
            .filter(|pair| !pair.is_empty())
        {
            let (name, on) = match pair.split_once('=') {
                Some((name, on)) => (name.trim(), Some(on.trim())),
                None => (pair, None),
            };
            let Some(on) = on else {
                return Err(Fault::Malformed(format!("missing bool value for {name}")));
            };
            let on = parse_bool(on).map_err(|error| {
                Fault::Malformed(format!("invalid value of {name}={on}, err: {error}"))
            })?;
            if let Some(known) = HONOURED.iter().find(|known| **known == name) {
                gates.insert(*known, on);
            } else if let Some((known, default)) = FIXED.iter().find(|(known, _)| *known == name) {
                if on != *default {
                    return Err(Fault::Refused(known));
                }
            } else {
                return Err(Fault::Malformed(format!(
                    "unrecognized feature gate: {name}"
                )));
            }
        }
        Ok(Self(gates))
    }

    fn is_on(&self, name: &str) -> bool {
        self.0.get(name).copied().unwrap_or(false)
    }

    pub(crate) fn initial_corrupt_check(&self) -> bool {
        self.is_on("InitialCorruptCheck")
    }

    pub(crate) fn lease_checkpoint(&self) -> bool {
        self.is_on("LeaseCheckpoint")
    }

    pub(crate) fn lease_checkpoint_persist(&self) -> bool {
        self.is_on("LeaseCheckpointPersist")
    }

    pub(crate) fn compact_hash_check(&self) -> bool {
        self.is_on("CompactHashCheck")
    }
}

impl fmt::Display for FeatureGates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (name, on)) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{name}={on}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gates_are_read_and_printed() {
        let text = "InitialCorruptCheck=true, CompactHashCheck=0,LeaseCheckpoint=false";
        let gates = FeatureGates::parse(text).unwrap();
        assert!(gates.initial_corrupt_check() && !gates.compact_hash_check());
        let printed = gates.to_string();
        assert_eq!(
            printed,
            "CompactHashCheck=false,InitialCorruptCheck=true,LeaseCheckpoint=false"
        );
        assert_eq!(FeatureGates::parse(&printed).unwrap(), gates);
        assert_eq!(FeatureGates::parse("").unwrap(), FeatureGates::default());
    }

    #[test]
    fn what_is_unknown_or_has_nothing_to_switch_is_named() {
        let fault = |text| match FeatureGates::parse(text).unwrap_err() {
            Fault::Malformed(reason) => reason,
            Fault::Refused(name) => name.to_owned(),
        };
        assert_eq!(fault("X=true"), "unrecognized feature gate: X");
        assert_eq!(
            fault("CompactHashCheck"),
            "missing bool value for CompactHashCheck"
        );
        assert_eq!(fault("AllAlpha=true"), "AllAlpha");
        assert!(
            fault("CompactHashCheck=x").starts_with("invalid value of CompactHashCheck=x, err: ")
        );
    }
}
