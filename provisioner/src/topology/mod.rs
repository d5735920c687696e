//! From a topology file to checked values.
//!
//! The way: text, `env` (`${VAR}`), `check` (keys and types against the JSON Schema, with positions), `schema` (serde), `ranges`
//! (`infra{0..2}`), `validate` (meaning), `lint` (taste). All problems of a file are reported at once, each with line, column and
//! what to do. Invariant: a [`Topology`] holds valid values only.

mod address;
mod backup;
mod bootstrap;
mod check;
mod checks;
mod edit;
mod env;
mod flags;
mod hosts;
mod invalid;
mod lint;
mod load;
mod model;
mod ranges;
mod schema;
mod spans;
mod suggest;
mod validate;
mod write;

pub use checks::Check;
pub use edit::{Edit, EditError, edit};
pub use invalid::{Invalid, Problem, Severity};
pub use lint::{LINTS, LintDef};
pub use load::{Loaded, load, load_as, parse};
pub use model::{
    Backup, Binary, Bootstrap, CaFiles, ClientTls, Discovery, Gateway, Keeper, Member, Network,
    PeerTls, Protocol, Role, Settings, SshHost, Tls, Topology,
};
pub use schema::json_schema;
pub use write::to_toml;
