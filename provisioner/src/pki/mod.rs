//! The cluster's CA and every certificate below it.
//!
//! `plan` says what is missing or wrong and why, `apply` makes it, `ensure` does both. ECDSA P-256; a peer and a server certificate
//! per member, the operator's for `env` and `exec`, and those of the clients that the topology names. Keys are 0600 in directories that are 0700, and every file is whole or
//! absent. What is valid is kept: a second `ensure` does nothing.
//!
//! `rotate` replaces the CA, which every member trusts, in stages.

mod action;
mod authority;
mod collect;
mod error;
mod inspect;
mod issue;
mod plan;
mod rotate;
mod write;

pub use action::{CertAction, CertKind, Reason};
pub use collect::collect;
pub use error::PkiError;
pub use inspect::{CertInfo, inspect};
pub use issue::{apply, ensure};
pub use plan::{OPERATOR, needs_ca, plan, plan_all};
pub use rotate::take_stage;
pub use write::{NewFile, write_files};
