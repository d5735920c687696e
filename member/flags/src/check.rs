//! Whether settings agree with one another: etcd's checks, in etcd's order, with etcd's texts.
//!
//! Split in two, because between them comes the bootstrap check on a first start: [`Flags::check_settings`] is what
//! etcd verifies before it looks at the data directory, [`Flags::check_transport`] what it finds while it binds the
//! listeners. No file is read and no socket opened: whether a certificate file exists shows when it is loaded.

use std::path::PathBuf;

use crate::{
    AuthToken, Bootstrap, FlagError, Flags, LogOutput, Resolve, Url, Urls, flags::MAX_ELECTION_MS,
};

impl Flags {
    /// Checks everything that a restart over existing data needs.
    ///
    /// # Errors
    ///
    /// The first rule that is broken, in etcd's order.
    pub fn validate(&self) -> Result<(), FlagError> {
        self.check_settings()?;
        self.check_transport()
    }

    /// Checks everything that a first start over an empty data directory needs.
    ///
    /// # Errors
    ///
    /// The first rule that is broken. The bootstrap rules come before those of the listeners' certificates.
    pub fn check_first_start(&self, resolve: &Resolve<'_>) -> Result<Bootstrap, FlagError> {
        self.check_settings()?;
        let bootstrap = self.check_bootstrap(resolve)?;
        self.check_transport()?;
        Ok(bootstrap)
    }

    /// Checks the values against one another.
    ///
    /// Host names in listen URLs are accepted, unlike in etcd: the clustering guide's own commands use them.
    ///
    /// # Errors
    ///
    /// The first rule that is broken, in etcd's order.
    pub fn check_settings(&self) -> Result<(), FlagError> {
        if self.log_outputs.len() > 1 && self.log_outputs.contains(&LogOutput::Default) {
            return Err(FlagError::DefaultOutputNotAlone);
        }
        let bound = [
            ("listen-peer-urls", &self.listen_peer_urls),
            ("listen-client-urls", &self.listen_client_urls),
            ("listen-metrics-urls", &self.listen_metrics_urls),
        ];
        for (flag, urls) in bound {
            for url in urls {
                no_socket(flag, url)?;
                if url.host().is_empty() {
                    return Err(FlagError::BindHost { url: url.clone() });
                }
            }
        }
        check_advertised(
            "initial-advertise-peer-urls",
            &self.initial_advertise_peer_urls,
        )?;
        check_advertised("advertise-client-urls", &self.advertise_client_urls)?;
        self.check_discovery()?;
        self.check_proxy()?;
        self.check_timing()?;
        if !self.listen_client_urls.is_empty() && self.advertise_client_urls.is_empty() {
            return Err(FlagError::AdvertiseClientMissing);
        }
        self.auto_compaction()?;
        if self.tls_min_version == "TLS1.3" {
            if self.tls_max_version == "TLS1.2" {
                return Err(FlagError::TlsVersions);
            }
            if !self.cipher_suites.is_empty() {
                return Err(FlagError::CipherSuitesOf13);
            }
        }
        let persist =
            self.lease_checkpoint_persist || self.feature_gates.lease_checkpoint_persist();
        if persist && !self.checkpoints_leases() {
            return Err(FlagError::LeaseCheckpointMissing);
        }
        AuthToken::parse(&self.auth_token)?;
        Ok(())
    }

    fn check_timing(&self) -> Result<(), FlagError> {
        let (heartbeat_ms, election_ms) = (self.heartbeat_interval_ms, self.election_timeout_ms);
        if heartbeat_ms == 0 {
            return Err(FlagError::HeartbeatZero);
        }
        if election_ms == 0 {
            return Err(FlagError::ElectionZero);
        }
        if heartbeat_ms.saturating_mul(5) > election_ms {
            return Err(FlagError::ElectionTooShort {
                election_ms,
                heartbeat_ms,
            });
        }
        if election_ms > MAX_ELECTION_MS {
            return Err(FlagError::ElectionTooLong { election_ms });
        }
        Ok(())
    }

    /// Checks ports and TLS settings of the listeners.
    ///
    /// # Errors
    ///
    /// The first listener that could not serve, peers before clients.
    pub fn check_transport(&self) -> Result<(), FlagError> {
        if (self.makes_client_cert() || self.makes_peer_cert())
            && self.self_signed_cert_validity_years == 0
        {
            return Err(FlagError::SelfSignedValidity);
        }
        let no_peer_files =
            self.peer_cert_file.is_none() && self.peer_key_file.is_none() && !self.peer_auto_tls;
        for url in &self.listen_peer_urls {
            if url.scheme().is_tls() && no_peer_files {
                return Err(FlagError::TlsFilesMissing {
                    address: url.address().to_owned(),
                });
            }
            check_port(url)?;
        }
        // Peers are dialled with the same files, so half a pair is wrong even when no listener uses it.
        check_pair(self.peer_key_file.as_ref(), self.peer_cert_file.as_ref())?;
        check_pair(
            self.peer_client_key_file.as_ref(),
            self.peer_client_cert_file.as_ref(),
        )?;
        let (cn, hostname) = (&self.peer_cert_allowed_cn, &self.peer_cert_allowed_hostname);
        if !cn.is_empty() && !hostname.is_empty() {
            return Err(FlagError::AllowedTwice {
                cn: cn.join(","),
                hostname: hostname.join(","),
            });
        }
        if self.peer_client_cert_auth
            && self.peer_trusted_ca_file.is_none()
            && any_tls(&self.listen_peer_urls)
        {
            return Err(FlagError::CaMissing {
                auth: "peer-client-cert-auth",
                ca: "peer-trusted-ca-file",
            });
        }
        let no_files = self.cert_file.is_none() && self.key_file.is_none() && !self.auto_tls;
        for url in &self.listen_client_urls {
            if url.scheme().is_tls() && no_files {
                return Err(FlagError::ClientTlsFilesMissing { url: url.clone() });
            }
            check_port(url)?;
        }
        for url in &self.listen_metrics_urls {
            if url.scheme().is_tls() && no_files {
                return Err(FlagError::TlsFilesMissing {
                    address: url.address().to_owned(),
                });
            }
            check_port(url)?;
        }
        if any_tls(&self.listen_client_urls) || any_tls(&self.listen_metrics_urls) {
            check_pair(self.key_file.as_ref(), self.cert_file.as_ref())?;
            if self.client_cert_auth && self.trusted_ca_file.is_none() {
                return Err(FlagError::CaMissing {
                    auth: "client-cert-auth",
                    ca: "trusted-ca-file",
                });
            }
        }
        Ok(())
    }
}

fn any_tls(urls: &Urls) -> bool {
    urls.iter().any(|url| url.scheme().is_tls())
}

fn no_socket(flag: &'static str, url: &Url) -> Result<(), FlagError> {
    if url.scheme().is_unix() {
        Err(FlagError::UnixSocket {
            flag,
            url: url.clone(),
        })
    } else {
        Ok(())
    }
}

fn check_advertised(flag: &'static str, urls: &Urls) -> Result<(), FlagError> {
    for url in urls {
        no_socket(flag, url)?;
        if url.host().is_empty() {
            return Err(FlagError::AdvertisedHost {
                flag,
                urls: urls.to_string(),
                url: url.clone(),
            });
        }
    }
    Ok(())
}

fn check_port(url: &Url) -> Result<(), FlagError> {
    match url.port() {
        Some(_) => Ok(()),
        None => {
            let port = url
                .address()
                .rsplit(':')
                .next()
                .unwrap_or_default()
                .to_owned();
            Err(FlagError::ListenPort { port })
        }
    }
}

fn check_pair(key: Option<&PathBuf>, cert: Option<&PathBuf>) -> Result<(), FlagError> {
    let text = |path: Option<&PathBuf>| {
        path.map(|path| path.display().to_string())
            .unwrap_or_default()
    };
    if key.is_some() == cert.is_some() {
        Ok(())
    } else {
        Err(FlagError::TlsPair {
            key: text(key),
            cert: text(cert),
        })
    }
}
