//! What a flag is: its name, kind, defaults by etcd version, and how far this release honours it.
//!
//! A definition is data only; [`crate::DEFS`] holds one for each flag that any etcd from 3.4 to 3.7 registers. The
//! definition decides whether a value is well formed ([`FlagDef::check`]) and whether a refused flag may have it
//! ([`FlagDef::accepts`]); what an honoured value means is decided in [`crate::Flags`].

use crate::{
    Url, Urls,
    go::{parse_bool, parse_duration, parse_i64, parse_u32, parse_u64},
    table::DEFS,
};

/// An etcd release line, as (major, minor).
pub type Minor = (u32, u32);

/// The heading under which a flag stands in the help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// `--help`, `--version`, `--config-file`: they say what to do, and are no settings.
    Action,
    /// The member itself.
    Member,
    /// Bootstrap and membership.
    Clustering,
    /// TLS and origins.
    Security,
    /// Users and tokens.
    Auth,
    /// Metrics and profiles.
    Monitoring,
    /// Logs.
    Logging,
    /// Traces.
    Tracing,
    /// The v2 proxy of etcd 3.4 and 3.5.
    Proxy,
    /// Corruption checks, compaction pace, gates and the like.
    Features,
    /// Flags that give up guarantees.
    Unsafe,
    /// What etcd itself has renamed or given up.
    Legacy,
}

impl Group {
    /// The heading.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Action => "Action",
            Self::Member => "Member",
            Self::Clustering => "Clustering",
            Self::Security => "Security",
            Self::Auth => "Auth",
            Self::Monitoring => "Profiling and Monitoring",
            Self::Logging => "Logging",
            Self::Tracing => "Distributed tracing",
            Self::Proxy => "v2 Proxy",
            Self::Features => "Features",
            Self::Unsafe => "Unsafe feature",
            Self::Legacy => "Legacy",
        }
    }
}

/// The type of a flag's value, as etcd registers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// A boolean; on the command line its value is optional and needs `=`.
    Bool,
    /// A Go `uint`.
    Uint,
    /// A Go `uint32`.
    Uint32,
    /// A Go `uint64`.
    Uint64,
    /// A Go `int`.
    Int,
    /// A Go `int64`.
    Int64,
    /// A Go duration, such as `1m30s`.
    Duration,
    /// Comma-separated URLs; the empty text leaves the value as it is.
    Urls,
    /// Comma-separated texts.
    List,
    /// One of a few words.
    OneOf(&'static [&'static str]),
}

impl Kind {
    /// The Go type, as it stands in the errors of a YAML file.
    pub(crate) fn go_type(self) -> &'static str {
        match self {
            Self::Text | Self::Urls | Self::OneOf(_) => "string",
            Self::Bool => "bool",
            Self::Uint => "uint",
            Self::Uint32 => "uint32",
            Self::Uint64 => "uint64",
            Self::Int => "int",
            Self::Int64 => "int64",
            Self::Duration => "time.Duration",
            Self::List => "[]string",
        }
    }
}

/// How far this release honours a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    /// Its value takes effect.
    Honoured,
    /// Accepted with a warning; the value goes to another flag.
    Deprecated {
        /// The flag that took its place.
        instead: &'static str,
    },
    /// Accepted only at a default value.
    Refused {
        /// Why it cannot be honoured.
        why: &'static str,
    },
}

/// The definition of one flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlagDef {
    /// The name, without dashes.
    pub name: &'static str,
    /// Its heading in the help.
    pub group: Group,
    /// The type of its value.
    pub kind: Kind,
    /// The default of etcd 3.6, or of the last version that had the flag.
    pub default: &'static str,
    /// Other defaults: each holds up to and including that version.
    pub older: &'static [(Minor, &'static str)],
    /// What it sets, in one line.
    pub help: &'static str,
    /// The first version that has it; 3.4 stands for 3.4 or earlier.
    pub since: Minor,
    /// The first version that no longer has it.
    pub until: Option<Minor>,
    /// How far this release honours it.
    pub support: Support,
    /// Values that a refused flag may have beside its defaults, because they ask for what is the case anyway.
    pub also_accepted: &'static [&'static str],
}

impl FlagDef {
    pub(crate) const fn new(
        group: Group,
        name: &'static str,
        kind: Kind,
        default: &'static str,
        help: &'static str,
    ) -> Self {
        Self {
            name,
            group,
            kind,
            default,
            older: &[],
            help,
            since: (3, 4),
            until: None,
            support: Support::Honoured,
            also_accepted: &[],
        }
    }

    pub(crate) const fn since(mut self, minor: u32) -> Self {
        self.since = (3, minor);
        self
    }

    pub(crate) const fn until(mut self, minor: u32) -> Self {
        self.until = Some((3, minor));
        self
    }

    pub(crate) const fn older(mut self, older: &'static [(Minor, &'static str)]) -> Self {
        self.older = older;
        self
    }

    pub(crate) const fn refused(mut self, why: &'static str) -> Self {
        self.support = Support::Refused { why };
        self
    }

    pub(crate) const fn deprecated(mut self, instead: &'static str) -> Self {
        self.support = Support::Deprecated { instead };
        self
    }

    pub(crate) const fn also(mut self, values: &'static [&'static str]) -> Self {
        self.also_accepted = values;
        self
    }

    /// The name of its environment variable: `ETCD_DATA_DIR`.
    #[must_use]
    pub fn env_name(&self) -> String {
        format!("ETCD_{}", self.name.to_ascii_uppercase().replace('-', "_"))
    }

    /// Whether an etcd of that version has it.
    #[must_use]
    pub fn exists_in(&self, minor: Minor) -> bool {
        self.since <= minor && self.until.is_none_or(|until| minor < until)
    }

    /// Its default in an etcd of that version.
    #[must_use]
    pub fn default_in(&self, minor: Minor) -> &'static str {
        self.older
            .iter()
            .find(|(last, _)| minor <= *last)
            .map_or(self.default, |(_, default)| default)
    }

    /// Whether it takes no separate value on the command line.
    #[must_use]
    pub fn is_bool(&self) -> bool {
        self.kind == Kind::Bool
    }

    /// Checks the form of a value, with etcd's reason when it is not well formed.
    pub(crate) fn check(&self, value: &str) -> Result<(), String> {
        match self.kind {
            Kind::Text | Kind::List => Ok(()),
            Kind::Bool => parse_bool(value).map(drop),
            Kind::Uint | Kind::Uint64 => parse_u64(value).map(drop),
            Kind::Uint32 => parse_u32(value).map(drop),
            Kind::Int | Kind::Int64 => parse_i64(value).map(drop),
            Kind::Duration => parse_duration(value.strip_prefix('-').unwrap_or(value)).map(drop),
            Kind::Urls if value.is_empty() => Ok(()),
            Kind::Urls => value
                .split(',')
                .try_for_each(|url| Url::parse(url).map(drop))
                .map_err(|e| e.to_string()),
            Kind::OneOf(words) if words.contains(&value) => Ok(()),
            Kind::OneOf(_) => Err("invalid value".to_owned()),
        }
    }

    /// Whether a well-formed value is the default of some version, or asks for what is the case anyway.
    #[must_use]
    pub fn accepts(&self, value: &str) -> bool {
        let older = self.older.iter().map(|(_, default)| default);
        [&self.default]
            .into_iter()
            .chain(older)
            .chain(self.also_accepted)
            .any(|known| self.same(known, value))
            || (self.kind == Kind::Urls && value.is_empty())
    }

    /// Whether two texts are the same value of this kind.
    #[must_use]
    pub fn same(&self, a: &str, b: &str) -> bool {
        fn equal<T: PartialEq, E>(a: Result<T, E>, b: Result<T, E>) -> bool {
            matches!((a, b), (Ok(a), Ok(b)) if a == b)
        }
        a == b
            || match self.kind {
                Kind::Text | Kind::OneOf(_) => false,
                Kind::Bool => equal(parse_bool(a), parse_bool(b)),
                Kind::Uint | Kind::Uint32 | Kind::Uint64 => equal(parse_u64(a), parse_u64(b)),
                Kind::Int | Kind::Int64 => equal(parse_i64(a), parse_i64(b)),
                Kind::Duration => equal(parse_duration(a), parse_duration(b)),
                Kind::Urls => equal(Urls::parse(a), Urls::parse(b)),
                Kind::List => {
                    let sorted = |text: &str| {
                        let mut items: Vec<String> = text.split(',').map(str::to_owned).collect();
                        items.sort_unstable();
                        items
                    };
                    sorted(a) == sorted(b)
                }
            }
    }
}

/// Finds a flag by its exact name, without dashes.
#[must_use]
pub fn lookup(name: &str) -> Option<&'static FlagDef> {
    DEFS.iter().find(|def| def.name == name)
}

/// Finds the known flag that an unknown name most likely means. Dashes in front, underscores for hyphens, capitals and
/// the prefix `ETCD_` are forgiven; a name that resembles none gives None.
#[must_use]
pub fn suggest(name: &str) -> Option<&'static str> {
    let folded = name
        .trim_start_matches('-')
        .to_ascii_lowercase()
        .replace('_', "-");
    let wanted = folded.strip_prefix("etcd-").unwrap_or(&folded);
    // A third of the letters wrong is as far as a slip of the finger goes.
    let tolerance = (wanted.len() / 3).clamp(1, 4);
    let distance = |def: &FlagDef| strsim::osa_distance(def.name, wanted);
    let honoured_first = |def: &FlagDef| !matches!(def.support, Support::Honoured);
    DEFS.iter()
        .filter(|def| def.name.len() > 2)
        .map(|def| (distance(def), honoured_first(def), def.name))
        .filter(|(distance, ..)| *distance <= tolerance)
        .min()
        .map(|(.., name)| name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_defaults_are_well_formed() {
        let mut names = BTreeSet::new();
        for def in DEFS {
            assert!(names.insert(def.name), "{} is defined twice", def.name);
            assert_eq!(def.name, def.name.trim_matches('-').to_ascii_lowercase());
            assert!(!def.help.is_empty(), "{} has no help", def.name);
            for value in def
                .older
                .iter()
                .map(|(_, default)| default)
                .chain([&def.default])
                .chain(def.also_accepted)
            {
                assert_eq!(def.check(value), Ok(()), "{} {value}", def.name);
                assert!(def.accepts(value), "{} {value}", def.name);
            }
            assert!(
                def.until.is_none_or(|until| def.since < until),
                "{} ends before it begins",
                def.name
            );
            if let Support::Deprecated { instead } = def.support {
                assert_eq!(
                    lookup(instead).map(|d| d.support),
                    Some(Support::Honoured),
                    "{}",
                    def.name
                );
            }
        }
    }

    #[test]
    fn defaults_depend_on_the_version() {
        let count = lookup("snapshot-count").unwrap();
        assert_eq!(
            [(3, 4), (3, 5), (3, 6), (3, 7)].map(|minor| count.default_in(minor)),
            ["100000", "100000", "10000", "10000"]
        );
        let vote = lookup("pre-vote").unwrap();
        assert_eq!(
            [(3, 4), (3, 5), (3, 6)].map(|minor| vote.default_in(minor)),
            ["false", "true", "true"]
        );
        let format = lookup("log-format").unwrap();
        assert_eq!(
            [(3, 4), (3, 5), (3, 6)].map(|minor| format.exists_in(minor)),
            [false, false, true]
        );
        let v2 = lookup("enable-v2").unwrap();
        assert_eq!(
            [(3, 5), (3, 6)].map(|minor| v2.exists_in(minor)),
            [true, false]
        );
    }

    #[test]
    fn a_default_is_recognised_however_it_is_written() {
        for (name, value) in [
            ("enable-pprof", "F"),
            ("max-wals", "0x5"),
            ("corrupt-check-time", "0h"),
            ("v2-deprecation", "not-yet"),
            ("listen-client-http-urls", ""),
        ] {
            assert!(lookup(name).unwrap().accepts(value), "{name} {value}");
        }
        assert!(!lookup("enable-pprof").unwrap().accepts("true"));
        assert!(!lookup("max-wals").unwrap().accepts("6"));
    }

    #[test]
    fn a_slip_of_the_finger_is_understood() {
        for (typed, meant) in [
            ("data_dir", Some("data-dir")),
            ("--listen-client-url", Some("listen-client-urls")),
            ("ETCD_LISTEN_PEER_URL", Some("listen-peer-urls")),
            ("heartbeat-intervall", Some("heartbeat-interval")),
            ("nmae", Some("name")),
            ("bogus-flag", None),
            ("", None),
        ] {
            assert_eq!(suggest(typed), meant, "{typed}");
        }
    }
}
