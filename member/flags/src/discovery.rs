//! How the initial members are found when `--initial-cluster` does not list them.
//!
//! Owns the flags of the discovery services (v2 and v3) and of DNS SRV, and the rule that one method is chosen. Asks
//! nobody: that is for the crate `member-discovery`.

use std::{path::PathBuf, time::Duration};

use crate::{
    FlagError, Flags, InitialCluster,
    flags::{Fault, path, path_text},
    go::{format_duration, parse_bool, parse_duration},
};

/// `--discovery-fallback`: what a member does that finds a discovery cluster full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallback {
    /// It ends with an error.
    Exit,
    /// It becomes a proxy of the v2 API.
    Proxy,
}

/// The flags that say how the initial members are found. The default is: not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscoveryFlags {
    /// `--discovery`: the URL of a token at a v2 service; empty for none.
    pub url: String,
    /// `--discovery-proxy`; empty for none.
    pub proxy: String,
    /// `--discovery-fallback`
    pub fallback: Fallback,
    /// `--discovery-srv`: a domain; empty for none.
    pub srv: String,
    /// `--discovery-srv-name`
    pub srv_name: String,
    /// `--discovery-endpoints` of a v3 service.
    pub endpoints: Vec<String>,
    /// `--discovery-token` at the v3 service; empty for none.
    pub token: String,
    /// `--discovery-dial-timeout`
    pub dial_timeout: Duration,
    /// `--discovery-request-timeout`
    pub request_timeout: Duration,
    /// `--discovery-keepalive-time`; zero disables.
    pub keepalive_time: Duration,
    /// `--discovery-keepalive-timeout`
    pub keepalive_timeout: Duration,
    /// `--discovery-insecure-transport`
    pub insecure_transport: bool,
    /// `--discovery-insecure-skip-tls-verify`
    pub insecure_skip_tls_verify: bool,
    /// `--discovery-cert`
    pub cert: Option<PathBuf>,
    /// `--discovery-key`
    pub key: Option<PathBuf>,
    /// `--discovery-cacert`
    pub cacert: Option<PathBuf>,
    /// `--discovery-user`
    pub user: String,
    /// `--discovery-password`
    pub password: String,
}

impl Default for DiscoveryFlags {
    fn default() -> Self {
        Self {
            url: String::new(),
            proxy: String::new(),
            fallback: Fallback::Exit,
            srv: String::new(),
            srv_name: String::new(),
            endpoints: Vec::new(),
            token: String::new(),
            dial_timeout: Duration::from_secs(2),
            request_timeout: Duration::from_secs(5),
            keepalive_time: Duration::from_secs(2),
            keepalive_timeout: Duration::from_secs(6),
            insecure_transport: true,
            insecure_skip_tls_verify: false,
            cert: None,
            key: None,
            cacert: None,
            user: String::new(),
            password: String::new(),
        }
    }
}

/// Where the list of the initial members comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// `--initial-cluster`, or the member's own name and URLs.
    Static,
    /// The v2 service at `--discovery`.
    V2,
    /// The v3 service at `--discovery-endpoints`.
    V3,
    /// The SRV records of `--discovery-srv`.
    Srv,
}

impl DiscoveryFlags {
    /// Sets a flag of this group; false when the name is another's.
    pub(crate) fn assign(&mut self, name: &str, value: &str) -> Result<bool, Fault> {
        match name {
            "discovery" => self.url = value.to_owned(),
            "discovery-proxy" => self.proxy = value.to_owned(),
            "discovery-fallback" => {
                // The definition has checked that it is one of the two words.
                self.fallback = match value {
                    "proxy" => Fallback::Proxy,
                    _ => Fallback::Exit,
                }
            }
            "discovery-srv" => self.srv = value.to_owned(),
            "discovery-srv-name" => self.srv_name = value.to_owned(),
            "discovery-endpoints" => {
                // As etcd: an empty text is no endpoint.
                let items = value.split(',').filter(|_| !value.is_empty());
                self.endpoints = items.map(str::to_owned).collect();
            }
            "discovery-token" => self.token = value.to_owned(),
            "discovery-dial-timeout" => self.dial_timeout = parse_duration(value)?,
            "discovery-request-timeout" => self.request_timeout = parse_duration(value)?,
            "discovery-keepalive-time" => self.keepalive_time = parse_duration(value)?,
            "discovery-keepalive-timeout" => self.keepalive_timeout = parse_duration(value)?,
            "discovery-insecure-transport" => self.insecure_transport = parse_bool(value)?,
            "discovery-insecure-skip-tls-verify" => {
                self.insecure_skip_tls_verify = parse_bool(value)?;
            }
            "discovery-cert" => self.cert = path(value),
            "discovery-key" => self.key = path(value),
            "discovery-cacert" => self.cacert = path(value),
            "discovery-user" => self.user = value.to_owned(),
            "discovery-password" => self.password = value.to_owned(),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Every flag of this group with the text of its value.
    pub(crate) fn values(&self) -> Vec<(&'static str, String)> {
        let Self {
            url,
            proxy,
            fallback,
            srv,
            srv_name,
            endpoints,
            token,
            dial_timeout,
            request_timeout,
            keepalive_time,
            keepalive_timeout,
            insecure_transport,
            insecure_skip_tls_verify,
            cert,
            key,
            cacert,
            user,
            password,
        } = self;
        let path = |path: &Option<PathBuf>| path.as_deref().map(path_text).unwrap_or_default();
        vec![
            ("discovery", url.clone()),
            ("discovery-proxy", proxy.clone()),
            (
                "discovery-fallback",
                match fallback {
                    Fallback::Exit => "exit".to_owned(),
                    Fallback::Proxy => "proxy".to_owned(),
                },
            ),
            ("discovery-srv", srv.clone()),
            ("discovery-srv-name", srv_name.clone()),
            ("discovery-endpoints", endpoints.join(",")),
            ("discovery-token", token.clone()),
            ("discovery-dial-timeout", format_duration(*dial_timeout)),
            (
                "discovery-request-timeout",
                format_duration(*request_timeout),
            ),
            ("discovery-keepalive-time", format_duration(*keepalive_time)),
            (
                "discovery-keepalive-timeout",
                format_duration(*keepalive_timeout),
            ),
            (
                "discovery-insecure-transport",
                insecure_transport.to_string(),
            ),
            (
                "discovery-insecure-skip-tls-verify",
                insecure_skip_tls_verify.to_string(),
            ),
            ("discovery-cert", path(cert)),
            ("discovery-key", path(key)),
            ("discovery-cacert", path(cacert)),
            ("discovery-user", user.clone()),
            ("discovery-password", password.clone()),
        ]
    }

    /// Whether anything but the endpoints is set of what belongs to a v3 service alone.
    fn has_v3_settings(&self) -> bool {
        let texts = [&self.token, &self.user, &self.password];
        let files = [&self.cert, &self.key, &self.cacert];
        texts.iter().any(|text| !text.is_empty()) || files.iter().any(|file| file.is_some())
    }
}

impl Flags {
    /// Where the list of the initial members comes from.
    #[must_use]
    pub fn source(&self) -> Source {
        let discovery = &self.discovery;
        if !discovery.url.is_empty() {
            Source::V2
        } else if !discovery.endpoints.is_empty() {
            Source::V3
        } else if !discovery.srv.is_empty() {
            Source::Srv
        } else {
            Source::Static
        }
    }

    /// These flags with the list of the members that were found, and the token that their IDs are made with.
    #[must_use]
    pub fn with_found(&self, cluster: InitialCluster, token: &str) -> Self {
        Self {
            initial_cluster: cluster,
            initial_cluster_token: token.to_owned(),
            discovery: DiscoveryFlags::default(),
            ..self.clone()
        }
    }

    /// Checks that one method is chosen, and completely.
    pub(crate) fn check_discovery(&self) -> Result<(), FlagError> {
        let discovery = &self.discovery;
        let v2 = !discovery.url.is_empty() || !discovery.proxy.is_empty();
        let v3 = !discovery.endpoints.is_empty() || discovery.has_v3_settings();
        if v2 && v3 {
            return Err(FlagError::BothDiscoveries);
        }
        let listed =
            !self.initial_cluster.is_default() && !self.initial_cluster.as_str().is_empty();
        let chosen = [
            listed,
            !discovery.url.is_empty(),
            !discovery.endpoints.is_empty(),
            !discovery.srv.is_empty(),
        ];
        if chosen.into_iter().filter(|chosen| *chosen).count() > 1 {
            return Err(FlagError::ManyBootstraps {
                v3: !discovery.endpoints.is_empty(),
            });
        }
        if discovery.token.is_empty() == discovery.endpoints.is_empty() {
            self.check_companions()
        } else {
            Err(FlagError::HalfDiscovery)
        }
    }

    /// A setting that goes with a method which is not chosen would be ignored; etcd does that.
    fn check_companions(&self) -> Result<(), FlagError> {
        let discovery = &self.discovery;
        let without = |flag, needs| Err(FlagError::Companion { flag, needs });
        if !discovery.proxy.is_empty() && discovery.url.is_empty() {
            return without("discovery-proxy", "discovery");
        }
        if !discovery.srv_name.is_empty() && discovery.srv.is_empty() {
            return without("discovery-srv-name", "discovery-srv");
        }
        if discovery.fallback == Fallback::Proxy && !discovery.endpoints.is_empty() {
            return without("discovery-fallback=proxy", "discovery");
        }
        if discovery.endpoints.is_empty() && discovery.has_v3_settings() {
            return Err(FlagError::HalfDiscovery);
        }
        if discovery.cert.is_some() != discovery.key.is_some() {
            return match discovery.cert {
                Some(_) => without("discovery-cert", "discovery-key"),
                None => without("discovery-key", "discovery-cert"),
            };
        }
        if !discovery.password.is_empty() && discovery.user.is_empty() {
            return without("discovery-password", "discovery-user");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(pairs: &[(&str, &str)]) -> Result<Source, String> {
        let mut flags = Flags::default();
        for (name, value) in pairs {
            flags.set(name, value).unwrap();
        }
        flags
            .check_discovery()
            .map(|()| flags.source())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn one_method_is_chosen() {
        assert_eq!(checked(&[]), Ok(Source::Static));
        assert_eq!(checked(&[("discovery", "http://h:1/t")]), Ok(Source::V2));
        assert_eq!(
            checked(&[("discovery-srv", "example.com")]),
            Ok(Source::Srv)
        );
        let v3 = [("discovery-endpoints", "a:1,b:1"), ("discovery-token", "t")];
        assert_eq!(checked(&v3), Ok(Source::V3));
        let many = checked(&[("discovery", "http://h:1/t"), ("discovery-srv", "d")]);
        assert!(many.is_err_and(|text| text.starts_with("multiple discovery or bootstrap flags")));
    }

    #[test]
    fn half_of_a_method_is_refused() {
        for pairs in [
            [("discovery-endpoints", "a:1")].as_slice(),
            &[("discovery-token", "t")],
            &[("discovery-user", "u")],
        ] {
            assert_eq!(
                checked(pairs),
                Err("both --discovery-token and --discovery-endpoints must be set".to_owned())
            );
        }
        assert!(checked(&[("discovery-srv-name", "x")]).is_err());
        assert!(checked(&[("discovery-proxy", "h:1")]).is_err());
    }
}
