//! The certificate files of a port, and what TLS makes of them. They are read again when they change.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use member_discovery::AnyServer;
use member_flags::Flags;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    ClientConfig, ProtocolVersion, RootCertStore, ServerConfig, SupportedProtocolVersion,
};

use super::self_signed::{self, SelfSignedError};
use super::vet::{Called, Callers, Rules};

/// The certificate files of one port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TlsFiles {
    /// Certificate chain.
    pub(crate) cert: PathBuf,
    /// Its private key.
    pub(crate) key: PathBuf,
    /// The CA whose certificates are trusted from the other side; its presence demands one from clients, as in etcd.
    pub(crate) trusted_ca: Option<PathBuf>,
    /// What is shown to those who are called.
    pub(crate) outgoing: Shown,
    /// Nobody signed the certificate, nor those of the other members: any of theirs is taken.
    pub(crate) self_signed: bool,
    /// What certificates of the other side must be.
    pub(crate) rules: Rules,
    /// The suites of TLS 1.2 by name; empty for all.
    pub(crate) cipher_suites: Vec<String>,
    /// Versions that are not spoken.
    pub(crate) without: Option<Version>,
}

/// What is shown to those who are called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Shown {
    /// The certificate of the port.
    #[default]
    Own,
    /// Another certificate, and its key.
    Other(PathBuf, PathBuf),
    /// None.
    Nothing,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    Tls12,
    Tls13,
}

/// Certificate files that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("open {}: {}", path.display(), go_io_text(source))]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No PEM block of the wanted kind.
    #[error("tls: failed to find any PEM data in {what} input ({})", path.display())]
    NoPem {
        /// `certificate` or `key`.
        what: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// Certificate and key do not belong together, or are of a kind that rustls refuses.
    #[error("tls: cannot use {} with {}", cert.display(), key.display())]
    Pair {
        /// Certificate file.
        cert: PathBuf,
        /// Key file.
        key: PathBuf,
        /// rustls's reason.
        source: rustls::Error,
    },
    /// The member's own certificate cannot be made.
    #[error("cannot generate cert")]
    SelfSigned(#[from] SelfSignedError),
    /// The CA file holds nothing that can verify a certificate.
    #[error("trusted CA file {} has no usable CA certificate", path.display())]
    BadCa {
        /// The file.
        path: PathBuf,
    },
}

pub(super) fn go_io_text(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Open {
        path: path.to_owned(),
        source,
    })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read(path)?;
    let no_pem = || TlsError::NoPem {
        what: "certificate",
        path: path.to_owned(),
    };
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    found
        .ok()
        .filter(|found| !found.is_empty())
        .ok_or_else(no_pem)
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let pem = read(path)?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|_| TlsError::NoPem {
        what: "key",
        path: path.to_owned(),
    })
}

fn roots(path: &Path) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates(path)?);
    if roots.is_empty() {
        return Err(TlsError::BadCa {
            path: path.to_owned(),
        });
    }
    Ok(Arc::new(roots))
}

impl TlsFiles {
    /// Those of the client port, made if the flags say so; `dir`: where those are kept.
    ///
    /// # Errors
    /// When they cannot be made.
    pub(crate) fn of_clients(flags: &Flags, dir: &Path) -> Result<Option<Self>, TlsError> {
        let shown = if flags.makes_client_cert() {
            let urls = flags
                .listen_client_urls
                .iter()
                .chain(&flags.advertise_client_urls);
            let years = flags.self_signed_cert_validity_years;
            Some(self_signed::ensure(&dir.join("client"), urls, years)?)
        } else {
            flags.cert_file.clone().zip(flags.key_file.clone())
        };
        Ok(shown.map(|(cert, key)| Self {
            cert,
            key,
            trusted_ca: flags.trusted_ca_file.clone(),
            rules: Rules {
                crl: flags.client_crl_file.clone(),
                common_names: Vec::new(),
                hosts: flags.client_cert_allowed_hostname.clone(),
            },
            ..Self::speaking(flags)
        }))
    }

    /// Those of the peer port.
    ///
    /// # Errors
    /// When they cannot be made.
    pub(crate) fn of_peers(flags: &Flags, dir: &Path) -> Result<Option<Self>, TlsError> {
        let shown = if flags.makes_peer_cert() {
            let urls = flags
                .listen_peer_urls
                .iter()
                .chain(&flags.initial_advertise_peer_urls);
            let years = flags.self_signed_cert_validity_years;
            Some(self_signed::ensure(&dir.join("peer"), urls, years)?)
        } else {
            flags
                .peer_cert_file
                .clone()
                .zip(flags.peer_key_file.clone())
        };
        Ok(shown.map(|(cert, key)| Self {
            cert,
            key,
            trusted_ca: flags.peer_trusted_ca_file.clone(),
            outgoing: flags
                .peer_client_cert_file
                .clone()
                .zip(flags.peer_client_key_file.clone())
                .map_or(Shown::Own, |(cert, key)| Shown::Other(cert, key)),
            self_signed: flags.makes_peer_cert(),
            rules: Rules {
                crl: flags.peer_crl_file.clone(),
                common_names: flags.peer_cert_allowed_cn.clone(),
                hosts: flags.peer_cert_allowed_hostname.clone(),
            },
            ..Self::speaking(flags)
        }))
    }

    /// Those with which a proxy calls the peer ports of a cluster. Without a certificate it shows none.
    ///
    /// # Errors
    /// When they cannot be made.
    pub(crate) fn towards_peers(flags: &Flags, dir: &Path) -> Result<Self, TlsError> {
        let files = Self::of_peers(flags, dir)?;
        Ok(files.unwrap_or_else(|| Self {
            trusted_ca: flags.peer_trusted_ca_file.clone(),
            outgoing: Shown::Nothing,
            ..Self::speaking(flags)
        }))
    }

    /// Those with which a proxy calls the client ports of a cluster. As in etcd: those of its own client port, or, when
    /// it has none, those of the peers.
    ///
    /// # Errors
    /// When they cannot be made.
    pub(crate) fn towards_clients(flags: &Flags, dir: &Path) -> Result<Self, TlsError> {
        let files = match flags.cert_file.clone().zip(flags.key_file.clone()) {
            Some((cert, key)) => Self {
                cert,
                key,
                trusted_ca: flags.trusted_ca_file.clone(),
                ..Self::speaking(flags)
            },
            None => Self::towards_peers(flags, dir)?,
        };
        Ok(Self {
            self_signed: flags.auto_tls,
            rules: Rules::default(),
            ..files
        })
    }

    /// What both ports have in common: suites and versions.
    fn speaking(flags: &Flags) -> Self {
        let without = if flags.tls_min_version == "TLS1.3" {
            Some(Version::Tls12)
        } else if flags.tls_max_version == "TLS1.2" {
            Some(Version::Tls13)
        } else {
            None
        };
        Self {
            cipher_suites: flags.cipher_suites.clone(),
            without,
            ..Self::default()
        }
    }

    fn provider(&self) -> Arc<CryptoProvider> {
        let mut provider = rustls::crypto::ring::default_provider();
        if !self.cipher_suites.is_empty() {
            provider.cipher_suites.retain(|suite| {
                let name = format!("{:?}", suite.suite());
                suite.tls13().is_some() || self.cipher_suites.contains(&name)
            });
        }
        Arc::new(provider)
    }

    fn versions(&self) -> Vec<&'static SupportedProtocolVersion> {
        let without = match self.without {
            None => return rustls::ALL_VERSIONS.to_vec(),
            Some(Version::Tls12) => ProtocolVersion::TLSv1_2,
            Some(Version::Tls13) => ProtocolVersion::TLSv1_3,
        };
        let versions = rustls::ALL_VERSIONS.iter().copied();
        versions
            .filter(|version| version.version != without)
            .collect()
    }

    /// What a listening port offers and demands.
    ///
    /// # Errors
    /// When a file is missing, is not PEM, or does not fit the others.
    pub(crate) fn server_config(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let provider = self.provider();
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&self.versions())
            .map_err(|source| self.pair(source))?;
        let builder = match &self.trusted_ca {
            None => builder.with_no_client_auth(),
            Some(ca) => {
                let genuine = WebPkiClientVerifier::builder_with_provider(roots(ca)?, provider)
                    .build()
                    .map_err(|_| TlsError::BadCa { path: ca.clone() })?;
                builder.with_client_cert_verifier(Arc::new(Callers {
                    genuine,
                    rules: self.rules.clone(),
                }))
            }
        };
        let mut config = builder
            .with_single_cert(certificates(&self.cert)?, key(&self.key)?)
            .map_err(|source| self.pair(source))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// What a member shows and demands when it calls another.
    pub(super) fn client_config(&self) -> Result<Arc<ClientConfig>, TlsError> {
        self.calling(b"h2")
    }

    /// The same for HTTP/1.
    pub(super) fn http1_config(&self) -> Result<Arc<ClientConfig>, TlsError> {
        self.calling(b"http/1.1")
    }

    fn calling(&self, protocol: &[u8]) -> Result<Arc<ClientConfig>, TlsError> {
        let provider = self.provider();
        let genuine: Option<Arc<dyn ServerCertVerifier>> = match &self.trusted_ca {
            _ if self.self_signed => Some(Arc::new(AnyServer(Arc::clone(&provider)))),
            None => None,
            Some(ca) => {
                let verifier =
                    WebPkiServerVerifier::builder_with_provider(roots(ca)?, Arc::clone(&provider));
                let verifier = verifier.build();
                Some(verifier.map_err(|_| TlsError::BadCa { path: ca.clone() })?)
            }
        };
        let shown = match &self.outgoing {
            Shown::Own => Some((&self.cert, &self.key)),
            Shown::Other(cert, key) => Some((cert, key)),
            Shown::Nothing => None,
        };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&self.versions())
            .map_err(|source| self.pair(source))?;
        let builder = match genuine {
            Some(genuine) => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Called {
                    genuine,
                    rules: self.rules.clone(),
                })),
            // As etcd: without an authority of the cluster's own, those of this machine.
            None => builder.with_root_certificates(member_discovery::system_roots()),
        };
        let mut config = match shown {
            None => builder.with_no_client_auth(),
            Some((cert, private)) => builder
                .with_client_auth_cert(certificates(cert)?, key(private)?)
                .map_err(|source| self.pair(source))?,
        };
        config.alpn_protocols = vec![protocol.to_vec()];
        Ok(Arc::new(config))
    }

    fn stamp(&self) -> Stamp {
        let outgoing = match &self.outgoing {
            Shown::Other(cert, key) => vec![cert, key],
            Shown::Own | Shown::Nothing => Vec::new(),
        };
        let paths = [&self.cert, &self.key].into_iter().chain(&self.trusted_ca);
        let stamp = |path: &PathBuf| {
            let metadata = std::fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.ino(), metadata.len()))
        };
        paths.chain(outgoing).map(stamp).collect()
    }

    fn pair(&self, source: rustls::Error) -> TlsError {
        TlsError::Pair {
            cert: self.cert.clone(),
            key: self.key.clone(),
            source,
        }
    }
}

/// What certificate files say, read again when they change: a renewed certificate is served from the next connection
/// on. Files that cannot be used leave the former ones in force, with a warning, so that a half-finished renewal cuts
/// nobody off.
pub(crate) struct Reloaded<T> {
    files: TlsFiles,
    build: fn(&TlsFiles) -> Result<Arc<T>, TlsError>,
    current: Mutex<(Stamp, Arc<T>)>,
}

/// Tells one state of the files from another; inode and length catch a change within the clock's grain.
type Stamp = Vec<Option<(SystemTime, u64, u64)>>;

impl<T> Reloaded<T> {
    pub(crate) fn new(
        files: TlsFiles,
        build: fn(&TlsFiles) -> Result<Arc<T>, TlsError>,
    ) -> Result<Self, TlsError> {
        let stamp = files.stamp();
        let current = Mutex::new((stamp, build(&files)?));
        Ok(Self {
            files,
            build,
            current,
        })
    }

    pub(crate) fn current(&self) -> Arc<T> {
        let stamp = self.files.stamp();
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.0 != stamp {
            match (self.build)(&self.files) {
                Ok(built) => {
                    tracing::info!(cert = %self.files.cert.display(), "certificate files were read again");
                    current.1 = built;
                }
                Err(error) => {
                    tracing::warn!(%error, "changed certificate files cannot be used; keeping the former ones");
                }
            }
            current.0 = stamp;
        }
        Arc::clone(&current.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_files_are_read_again_and_bad_ones_leave_the_former_in_force() {
        let dir = tempfile::TempDir::new().unwrap();
        let cert = dir.path().join("cert");
        let files = TlsFiles {
            cert: cert.clone(),
            key: dir.path().join("key"),
            ..TlsFiles::default()
        };
        let build = |files: &TlsFiles| match read(&files.cert)? {
            text if text.starts_with(b"bad") => Err(TlsError::NoPem {
                what: "certificate",
                path: files.cert.clone(),
            }),
            text => Ok(Arc::new(text)),
        };
        assert!(matches!(
            Reloaded::new(files.clone(), build),
            Err(TlsError::Open { .. })
        ));
        let write = |text: &str| {
            let next = dir.path().join("next");
            std::fs::write(&next, text).unwrap();
            std::fs::rename(&next, &cert).unwrap();
        };
        write("one");
        let reloaded = Reloaded::new(files, build).unwrap();
        assert_eq!(*reloaded.current(), b"one");
        write("two");
        assert_eq!(*reloaded.current(), b"two");
        write("bad");
        assert_eq!(*reloaded.current(), b"two");
        std::fs::remove_file(&cert).unwrap();
        assert_eq!(*reloaded.current(), b"two");
        write("three");
        assert_eq!(*reloaded.current(), b"three");
    }
}
