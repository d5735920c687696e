//! Brings up secure etcd-compatible clusters from a TOML topology: the library behind the `provision` program.
//!
//! Every verb is "observe, plan, apply" over a different wanted state. `topology` turns a file into checked values, `render` and
//! `pki` say what a member is given, `plan` decides purely, `apply` is the one door through which the world changes.
//!
//! Does not link the member's storage or consensus: a member is a process that is given flags and certificates.

pub mod apply;
pub mod backup;
pub mod cli;
pub mod cluster;
pub mod commands;
pub mod context;
pub mod deployment;
pub mod diagnose;
pub mod duration;
pub mod error;
pub mod fnv;
pub mod host;
pub mod instance;
pub mod mirror;
pub mod observe;
pub mod output;
pub mod pki;
pub mod plan;
pub mod preflight;
pub mod render;
pub mod restore;
pub mod runtime;
pub mod scenario;
pub mod services;
pub mod state;
pub mod topology;
