//! From a member of a topology to what its process is given. Pure: nothing is read or written.
//!
//! `flags` decides the settings, `server` which program they are for, `forms` writes them as a command line, an environment file
//! or a configuration file; `systemd`, `compose`, `pod` and `inventory` as what other tools run. Invariant: what is rendered for the included member parses back into the same flags.

mod apiserver;
mod compose;
mod container;
mod error;
mod flags;
mod forms;
mod inventory;
mod placeholder;
mod pod;
mod server;
mod systemd;
mod urls;
mod zone;

pub use apiserver::kube_apiserver;
pub use compose::compose;
pub use container::{Image, stands_alone};
pub use error::RenderError;
pub use flags::{flags, placed};
pub use forms::{ENV, Given, argv, env, env_file, given, quote, shell_line, yaml};
pub use inventory::inventory;
pub use placeholder::placeholder;
pub use pod::{MANIFEST, pods};
pub use server::Server;
pub(crate) use systemd::escape as systemd_word;
pub use systemd::{Unit as SystemdUnit, env_lines, unit};
pub use urls::{client_scheme, client_url, client_urls, listed_peer_url, peer_url, url_host};
pub use zone::{SrvRecord, has_records, record_name, srv_records, zone};
