//! The flag vocabulary of the etcd server: one definition that the member parses and the provisioner renders.
//!
//! Owns: names, kinds, defaults by etcd version ([`DEFS`]); the typed settings ([`Flags`]); the three ways of
//! giving them (command line, `ETCD_*` environment, YAML file: [`parse`]); etcd's checks with etcd's texts and exit
//! codes ([`FlagError`]); the static bootstrap rules and the member and cluster IDs ([`ids`]); the three ways of
//! writing them back ([`Flags::to_args`], [`Flags::to_env`], [`Flags::to_yaml`]).
//!
//! Does not: open sockets, resolve names, read certificates or touch a data directory. Whatever needs the outside is
//! passed in as a closure.
//!
//! Invariants: a flag is honoured, refused by name with the reason, or warned about, and never silently ignored; what
//! is rendered parses back into the same [`Flags`]. Text that operators search for is etcd's own, letter by letter.
//!
//! A member starts in this order, which is etcd's with one exception: the bootstrap rules come before the TLS files
//! of the listeners, so that the sentences of the clustering guide are what the guide's own commands print.
//!
//! ```text
//! parse ─► Command::Run ─► check_settings ─► data directory empty? ─yes─► check_bootstrap ─► check_transport ─► listen
//!                                                                └─no──────────────────────────┘
//! ```

mod access;
mod auth;
mod bootstrap;
mod check;
mod cipher;
mod compaction;
mod def;
mod discovery;
mod error;
mod flags;
mod gates;
mod go;
mod help;
pub mod ids;
mod log;
mod parse;
mod proxy;
mod render;
mod table;
mod url;
mod warning;
mod yaml;

pub use access::Allowed;
pub use auth::{AuthToken, JwtOptions};
pub use bootstrap::{Bootstrap, ClusterState, InitialCluster, InitialMember, Resolve};
pub use compaction::AutoCompaction;
pub use def::{FlagDef, Group, Kind, Minor, Support, lookup, suggest};
pub use discovery::{DiscoveryFlags, Fallback, Source};
pub use error::FlagError;
pub use flags::Flags;
pub use gates::FeatureGates;
pub use go::{format_duration, parse_duration};
pub use help::{help, usage};
pub use log::{LogFormat, LogLevel, LogOutput};
pub use parse::{Command, Origin, ReadFile, Run, parse};
pub use proxy::{ProxyFlags, ProxyMode};
pub use table::DEFS;
pub use url::{Scheme, Url, UrlError, Urls};
pub use warning::Warning;
