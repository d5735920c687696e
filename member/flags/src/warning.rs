//! What is accepted but worth a line in the log.
//!
//! [`crate::parse`] finds what concerns the way of giving a setting, [`Flags::warnings`] what concerns its value. The
//! texts are etcd's where etcd has one. Nothing here stops a start.

use std::path::PathBuf;

use thiserror::Error;

use crate::{Flags, Url, flags::DEFAULT_NAME};

/// A warning, logged once at the start.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Warning {
    /// An `ETCD_*` variable that is no flag; etcd says the same and goes on.
    #[error("unrecognized environment variable {name}={value}")]
    UnrecognizedEnv {
        /// The variable.
        name: String,
        /// Its value.
        value: String,
    },
    /// `ETCD_VERSION`, which must not trigger `--version`.
    #[error("cannot set special environment variable {name}")]
    SpecialEnv {
        /// The variable.
        name: String,
    },
    /// A flag that has another name now.
    #[error("--{flag} is deprecated; use --{instead}")]
    Deprecated {
        /// The flag as given.
        flag: &'static str,
        /// The flag that took its place, with a value where one is meant.
        instead: &'static str,
    },
    /// A configuration file was given: etcd takes nothing else into account.
    #[error(
        "loaded server configuration, other configuration command line flags and environment variables will be ignored if provided"
    )]
    ConfigFileLoaded {
        /// The file.
        path: PathBuf,
    },
    /// Settings that the configuration file put out of force.
    #[error("ignored, because a configuration file is given: {}", names.join(", "))]
    IgnoredByConfigFile {
        /// Flags with dashes and variables, in order of appearance.
        names: Vec<String>,
    },
    /// A key of the configuration file that is no flag; etcd passes over it in silence.
    #[error("unknown key {key} in the configuration file{}", hint(*suggestion))]
    UnknownKey {
        /// The key, with its section.
        key: String,
        /// The key that is likely meant.
        suggestion: Option<&'static str>,
    },
    /// A key that etcd takes only inside a section; this release honours it in both places.
    #[error(
        "key {key} at the top level of the configuration file: etcd takes it only inside {section}"
    )]
    KeyOutsideSection {
        /// The key.
        key: &'static str,
        /// The section where etcd expects it.
        section: &'static str,
    },
    /// The name was left at its default.
    #[error(
        "it isn't recommended to use default name, please set a value for --name. Note that etcd might run into issue when multiple members have the same default name"
    )]
    DefaultName,
    /// A cost that bcrypt does not know.
    #[error(
        "use default bcrypt cost instead of the invalid given cost (given {given}, from 4 to 31, default 10)"
    )]
    BcryptCost {
        /// The cost given.
        given: u64,
    },
    /// A plain listener beside certificate files.
    #[error(
        "scheme is HTTP while key and cert files are present; ignoring key and cert files ({url})"
    )]
    PlainDespiteFiles {
        /// The listener.
        url: Url,
    },
    /// A generated certificate is not wanted.
    #[error("ignoring {of} auto TLS since certs given")]
    AutoTlsBesideFiles {
        /// `client` or `peer`.
        of: &'static str,
    },
    /// A plain listener beside client certificate authentication.
    #[error(
        "scheme is HTTP while --{flag} is enabled; ignoring client cert auth for this URL ({url})"
    )]
    PlainDespiteAuth {
        /// `client-cert-auth` or `peer-client-cert-auth`.
        flag: &'static str,
        /// The listener.
        url: Url,
    },
}

fn hint(suggestion: Option<&'static str>) -> String {
    suggestion
        .map(|name| format!("; did you mean {name}?"))
        .unwrap_or_default()
}

impl Flags {
    /// Lists what is accepted but likely not meant.
    #[must_use]
    pub fn warnings(&self) -> Vec<Warning> {
        let mut warnings = Vec::new();
        if self.name == DEFAULT_NAME {
            warnings.push(Warning::DefaultName);
        }
        if u64::from(self.effective_bcrypt_cost()) != self.bcrypt_cost {
            warnings.push(Warning::BcryptCost {
                given: self.bcrypt_cost,
            });
        }
        let autos = [
            ("peer", self.peer_auto_tls && !self.makes_peer_cert()),
            ("client", self.auto_tls && !self.makes_client_cert()),
        ];
        for (of, _) in autos.into_iter().filter(|(_, ignored)| *ignored) {
            warnings.push(Warning::AutoTlsBesideFiles { of });
        }
        let listeners = [
            (
                &self.listen_peer_urls,
                self.peer_cert_file.is_some(),
                self.peer_client_cert_auth,
                "peer-client-cert-auth",
            ),
            (
                &self.listen_client_urls,
                self.cert_file.is_some(),
                self.client_cert_auth,
                "client-cert-auth",
            ),
        ];
        for (urls, files, auth, flag) in listeners {
            for url in urls.iter().filter(|url| !url.scheme().is_tls()) {
                if files {
                    warnings.push(Warning::PlainDespiteFiles { url: url.clone() });
                }
                if auth {
                    warnings.push(Warning::PlainDespiteAuth {
                        flag,
                        url: url.clone(),
                    });
                }
            }
        }
        warnings
    }
}
