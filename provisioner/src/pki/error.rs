//! Why certificates cannot be made, read or written.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::error::io_fix;

/// Why certificates cannot be made, read or written.
#[derive(Debug, Error)]
pub enum PkiError {
    /// A file operation failed.
    #[error("cannot {action} {}", .path.display())]
    Io {
        /// A verb: read, write, create.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// A file is not a certificate.
    #[error("{} is not a PEM certificate: {reason}", .path.display())]
    NotACertificate {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A file is not a private key that can be used.
    #[error("{} is not a private key in PKCS #8 form", .path.display())]
    NotAKey {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: rcgen::Error,
    },
    /// A certificate is no CA's.
    #[error("{} is not the certificate of a CA: it may not sign others", .path.display())]
    NotACa {
        /// The certificate.
        path: PathBuf,
    },
    /// The key of a CA is another's.
    #[error("the key {} does not belong to the certificate {}", .key.display(), .cert.display())]
    KeyOfAnother {
        /// The certificate.
        cert: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// The CA is not valid now.
    #[error("the CA {} is valid from {from} to {to}, and now it is {now}", .cert.display())]
    CaNotValid {
        /// The certificate.
        cert: PathBuf,
        /// First moment.
        from: String,
        /// Last moment.
        to: String,
        /// The clock.
        now: String,
        /// Whether it is the operator's own.
        brought: bool,
    },
    /// The topology names another CA than the one the cluster was made with.
    #[error("{} is another CA than the one that the members of this cluster trust, {}", .given.display(), .current.display())]
    CaChanged {
        /// What the topology asks for.
        given: PathBuf,
        /// What the cluster has.
        current: PathBuf,
    },
    /// The CA's key is gone and something must be signed.
    #[error("the key {} of the cluster's CA is missing, and a certificate must be issued", .key.display())]
    CaKeyLost {
        /// Where it should be.
        key: PathBuf,
    },
    /// A member of the topology is not part of the instance.
    #[error("member {member} has no place in this instance of the cluster")]
    NotPlaced {
        /// The member's name.
        member: String,
    },
    /// The system has no randomness, or a name cannot stand in a certificate.
    #[error("cannot issue {what}")]
    Issue {
        /// Which certificate.
        what: String,
        /// Why.
        #[source]
        source: rcgen::Error,
    },
}

impl PkiError {
    /// For `map_err`.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }

    /// What to do.
    pub fn fix(&self) -> Option<String> {
        let purge = "or make the cluster anew: provision down --purge, then provision up";
        Some(match self {
            Self::Io { source, .. } => return io_fix(source).map(str::to_owned),
            Self::NotACertificate { .. } => "give the path of a PEM file that starts with -----BEGIN CERTIFICATE-----".into(),
            Self::NotAKey { path, .. } => {
                format!("convert it: openssl pkcs8 -topk8 -nocrypt -in {0} -out {0}.pkcs8, and name that file", path.display())
            }
            Self::NotACa { .. } => "give a certificate with basicConstraints CA:TRUE and keyUsage keyCertSign, or remove `ca`".into(),
            Self::KeyOfAnother { .. } => "give the key that the certificate was made with".into(),
            Self::CaNotValid { brought: true, .. } => "renew the CA, or set the clock".into(),
            Self::CaNotValid { brought: false, .. } => format!("set the clock if it is wrong, {purge}"),
            Self::CaChanged { .. } => format!("replace the cluster's CA by it with `provision rotate ca FILE`, or put the former `ca` back, {purge}"),
            Self::CaKeyLost { .. } => format!("restore the key from a backup, {purge}"),
            Self::NotPlaced { .. } => "run `provision up` with the topology that has this member".into(),
            Self::Issue { .. } => return None,
        })
    }
}
