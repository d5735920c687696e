//! Which endpoints a workload talks to, and how: plaintext, server TLS or mutual TLS.
//!
//! Does not retry and does not choose among endpoints; that is the workload's affair.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};

/// The endpoints of one cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Client URLs, one per member: `http://127.0.0.1:2379` or `https://...`; the scheme decides on TLS.
    pub endpoints: Vec<String>,
    /// The files that `https` endpoints need.
    pub tls: Option<Tls>,
}

/// PEM files of a TLS client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The CA that the members' certificates are checked against.
    pub ca: PathBuf,
    /// The client's own certificate and key, for mutual TLS.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// One endpoint, taken apart for a raw connection.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    /// `host:port`, for the socket and for `:authority`.
    pub(crate) authority: String,
    /// Present when the scheme is `https`.
    pub(crate) server_name: Option<ServerName<'static>>,
}

impl Target {
    /// Takes the endpoints apart.
    pub(crate) fn parse(&self) -> anyhow::Result<Vec<Endpoint>> {
        ensure!(
            !self.endpoints.is_empty(),
            "no endpoint given; name at least one client URL"
        );
        self.endpoints
            .iter()
            .map(|url| Endpoint::parse(url))
            .collect()
    }

    /// The TLS settings of raw HTTP/2 connections.
    pub(crate) fn rustls(&self) -> anyhow::Result<Option<Arc<rustls::ClientConfig>>> {
        let Some(tls) = &self.tls else {
            return Ok(None);
        };
        let mut roots = rustls::RootCertStore::empty();
        for cert in certificates(&tls.ca)? {
            roots
                .add(cert)
                .with_context(|| format!("take {} as a CA", tls.ca.display()))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .context("choose TLS versions")?
            .with_root_certificates(roots);
        let mut config = match &tls.identity {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => builder
                .with_client_auth_cert(
                    certificates(cert)?,
                    PrivateKeyDer::from_pem_file(key)
                        .with_context(|| format!("read private key {}", key.display()))?,
                )
                .with_context(|| format!("use client certificate {}", cert.display()))?,
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Some(Arc::new(config)))
    }

    /// One lazily connecting channel per endpoint; each reconnects by itself.
    pub(crate) fn channels(&self, connect_timeout: Duration) -> anyhow::Result<Vec<Channel>> {
        let tls = self.tls.as_ref().map(Tls::tonic).transpose()?;
        self.endpoints
            .iter()
            .map(|url| {
                let mut endpoint = Channel::from_shared(url.clone())
                    .with_context(|| format!("parse endpoint {url}"))?
                    .connect_timeout(connect_timeout)
                    .tcp_nodelay(true);
                if let Some(tls) = tls.as_ref().filter(|_| url.starts_with("https:")) {
                    endpoint = endpoint
                        .tls_config(tls.clone())
                        .with_context(|| format!("set up TLS to {url}"))?;
                }
                Ok(endpoint.connect_lazy())
            })
            .collect()
    }
}

impl Tls {
    fn tonic(&self) -> anyhow::Result<ClientTlsConfig> {
        let read = |path: &PathBuf| {
            std::fs::read(path).with_context(|| format!("read {}", path.display()))
        };
        let mut config =
            ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(&self.ca)?));
        if let Some((cert, key)) = &self.identity {
            config = config.identity(Identity::from_pem(read(cert)?, read(key)?));
        }
        Ok(config)
    }
}

impl Endpoint {
    fn parse(url: &str) -> anyhow::Result<Self> {
        let uri: http::Uri = url
            .parse()
            .with_context(|| format!("parse endpoint {url}"))?;
        let authority = uri
            .authority()
            .with_context(|| format!("endpoint {url} has no host"))?;
        ensure!(authority.port().is_some(), "endpoint {url} has no port");
        let server_name = match uri.scheme_str() {
            Some("http") => None,
            Some("https") => {
                let host = authority
                    .host()
                    .trim_start_matches('[')
                    .trim_end_matches(']');
                Some(
                    ServerName::try_from(host.to_owned())
                        .with_context(|| format!("endpoint {url} has a bad host"))?,
                )
            }
            _ => anyhow::bail!("endpoint {url} must begin with http:// or https://"),
        };
        Ok(Self {
            authority: authority.to_string(),
            server_name,
        })
    }
}

fn certificates(path: &PathBuf) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let read = || -> Result<Vec<_>, _> { CertificateDer::pem_file_iter(path)?.collect() };
    let certs: Vec<_> =
        read().with_context(|| format!("read certificates from {}", path.display()))?;
    ensure!(!certs.is_empty(), "{} holds no certificate", path.display());
    Ok(certs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoint_keeps_host_and_port() {
        let plain = Endpoint::parse("http://127.0.0.1:2379").unwrap();
        assert_eq!(plain.authority, "127.0.0.1:2379");
        assert!(plain.server_name.is_none());
        let tls = Endpoint::parse("https://[::1]:2379").unwrap();
        assert_eq!(tls.authority, "[::1]:2379");
        assert!(matches!(tls.server_name, Some(ServerName::IpAddress(_))));
    }

    #[test]
    fn endpoint_without_port_or_scheme_is_refused() {
        for bad in ["127.0.0.1:2379", "http://host", "ftp://host:1", ""] {
            assert!(Endpoint::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn missing_ca_file_is_named() {
        let tls = Tls {
            ca: "/nonexistent/ca.crt".into(),
            identity: None,
        };
        let target = Target {
            endpoints: vec!["https://127.0.0.1:1".into()],
            tls: Some(tls),
        };
        assert!(format!("{:#}", target.rustls().unwrap_err()).contains("/nonexistent/ca.crt"));
    }
}
