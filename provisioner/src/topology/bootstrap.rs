//! The keys of `[bootstrap]`: which belong to which method, and what they must say.

use super::address;
use super::model::{Bootstrap, Discovery, Network, Protocol};
use super::schema::{self, DnsServer, File, Method};
use super::spans::Path;
use super::validate::Check;

/// Whose network the cluster is in: as the file says, or as its DNS server needs.
pub(super) fn network(raw: &File, check: &mut Check<'_>) -> Network {
    let builtin = raw.bootstrap.server == Some(DnsServer::Builtin);
    match raw.network {
        Some(schema::Network::Host) if builtin => check.fault(
            &Path::root().key("network"),
            "a DNS server of the cluster's own needs a network of its own",
            "not with server = \"builtin\"",
            "write network = \"private\", or remove the key",
        ),
        Some(schema::Network::Private) if raw.bootstrap.server == Some(DnsServer::System) => check
            .fault(
                &Path::root().key("bootstrap").key("server"),
                "the resolvers of this machine are out of reach of a private network",
                "cannot answer",
                "write server = \"builtin\", or remove network = \"private\"",
            ),
        Some(schema::Network::Private) => return Network::Private,
        Some(schema::Network::Host) | None => {}
    }
    if builtin {
        Network::Private
    } else {
        Network::Host
    }
}

/// How the members find each other.
pub(super) fn bootstrap(raw: &schema::Bootstrap, check: &mut Check<'_>) -> Bootstrap {
    let path = Path::root().key("bootstrap");
    foreign_keys(raw, &path, check);
    if let Some(token) = &raw.token
        && (token.is_empty() || token.chars().any(|c| c.is_control() || c.is_whitespace()))
    {
        check.fault(
            &path.key("token"),
            "the token is empty or has white space",
            "not a token",
            match raw.endpoints {
                Some(_) => "write the one under which the size of the cluster stands in the service",
                None => "write a word that no other cluster has, or remove the key: a unique one is generated and remembered",
            },
        );
    }
    match raw.method {
        Method::Static => Bootstrap::Static {
            token: raw.token.clone(),
        },
        Method::Discovery => Bootstrap::Discovery {
            service: service(raw, &path, check),
            proxy: raw.proxy.clone(),
        },
        Method::DnsSrv => srv(raw, &path, check),
    }
}

fn foreign_keys(raw: &schema::Bootstrap, path: &Path, check: &mut Check<'_>) {
    let discovery = Some(Method::Discovery);
    let srv = Some(Method::DnsSrv);
    let keys = [
        ("service", raw.service.is_some(), discovery),
        ("protocol", raw.protocol.is_some(), discovery),
        ("url", raw.url.is_some(), discovery),
        ("endpoints", raw.endpoints.is_some(), discovery),
        ("proxy", raw.proxy.is_some(), discovery),
        ("domain", raw.domain.is_some(), srv),
        ("srv-name", raw.srv_name.is_some(), srv),
        ("server", raw.server.is_some(), srv),
    ];
    let word = |method| match method {
        Method::Static => "static",
        Method::Discovery => "discovery",
        Method::DnsSrv => "dns-srv",
    };
    for (key, given, owner) in keys {
        if let Some(owner) = owner.filter(|owner| given && *owner != raw.method) {
            check.fault(
                &path.key(key),
                format!(
                    "`{key}` has no meaning with method = \"{}\"",
                    word(raw.method)
                ),
                "belongs to another method",
                format!("remove `{key}`, or write method = \"{}\"", word(owner)),
            );
        }
    }
}

fn service(raw: &schema::Bootstrap, path: &Path, check: &mut Check<'_>) -> Discovery {
    let given = [
        raw.service.is_some(),
        raw.url.is_some(),
        raw.endpoints.is_some(),
    ];
    if given.iter().filter(|given| **given).count() != 1 {
        check.fault(
            &path.key("method"),
            "discovery needs one of `service`, `url` and `endpoints`",
            "which service?",
            "write service = \"builtin\", or the url of a v2 token, or the endpoints of a v3 service and its token",
        );
    }
    if raw.protocol.is_some() && raw.service.is_none() {
        check.fault(
            &path.key("protocol"),
            "`protocol` is that of the built-in service",
            "has no meaning here",
            "remove it, or write service = \"builtin\"",
        );
    }
    if raw.token.is_some() && raw.endpoints.is_none() {
        check.fault(
            &path.key("token"),
            "the token is a part of the discovery URL",
            "has no meaning here",
            "remove it: that of the built-in service is generated and remembered",
        );
    }
    let v3 = raw.endpoints.is_some() || raw.protocol == Some(schema::Protocol::V3);
    if raw.proxy.is_some() && v3 {
        check.fault(
            &path.key("proxy"),
            "v3 discovery knows no proxy",
            "has no meaning here",
            "remove it",
        );
    }
    if let Some(proxy) = &raw.proxy
        && let Err(refusal) = member_discovery::check_proxy(proxy)
    {
        check.fault(
            &path.key("proxy"),
            format!("{proxy:?} is not a proxy that can be used: {refusal}"),
            "not a proxy",
            "write the URL of an HTTP proxy: http://HOST:PORT",
        );
    }
    if let Some(url) = &raw.url {
        token_url(url, &path.key("url"), check);
        return Discovery::Url(url.clone());
    }
    if let Some(endpoints) = &raw.endpoints {
        if endpoints.is_empty() || endpoints.iter().any(|endpoint| endpoint.trim().is_empty()) {
            check.fault(
                &path.key("endpoints"),
                "the service has no endpoint, or an empty one",
                "nobody to ask",
                "write its client URLs: endpoints = [\"http://10.0.1.20:2379\"]",
            );
        }
        for endpoint in endpoints.iter().filter(|text| !text.trim().is_empty()) {
            if let Err(refusal) = member_discovery::check_endpoint(endpoint) {
                check.fault(
                    &path.key("endpoints"),
                    format!("{endpoint:?} is not a client URL: {refusal}"),
                    "nobody to ask",
                    "write it as http://HOST:PORT",
                );
            }
        }
        if raw.token.is_none() {
            check.fault(
                &path.key("endpoints"),
                "v3 discovery needs a `token`",
                "which cluster?",
                "write token = \"...\", and put its size into the service at /_etcd/registry/TOKEN/_config/size",
            );
        }
        return Discovery::Endpoints {
            endpoints: endpoints.clone(),
            token: raw.token.clone().unwrap_or_default(),
        };
    }
    Discovery::BuiltIn(match raw.protocol {
        None | Some(schema::Protocol::Private) => Protocol::Private,
        Some(schema::Protocol::Public) => Protocol::Public,
        Some(schema::Protocol::V3) => Protocol::V3,
    })
}

/// What a member would find out at its start.
fn token_url(url: &str, path: &Path, check: &mut Check<'_>) {
    let (place, query) = url.split_once('?').unwrap_or((url, ""));
    let token = place
        .split_once("://")
        .and_then(|(_, rest)| rest.split_once('/'))
        .map(|(_, token)| token.trim_end_matches('/'));
    // A service makes a new token for each who asks there. Below /v2/keys it is a key as any other.
    let maker = |token: &str| token.rsplit('/').next() == Some("new") && !token.starts_with("v2/");
    if token.is_some_and(maker) {
        let query = if query.is_empty() { "size=3" } else { query };
        let place = place.trim_end_matches('/');
        return check.fault(
            path,
            format!("{url:?} makes tokens and is none"),
            "a new token with every request",
            format!("fetch it once, and put the URL that it answers here: curl '{place}?{query}'"),
        );
    }
    let fault = match member_discovery::check_url(url) {
        Err(refusal) => format!("{url:?} is not the URL of a discovery token: {refusal}"),
        Ok(()) if token.is_none_or(str::is_empty) => {
            format!("{url:?} is not the URL of a discovery token")
        }
        Ok(()) => return,
    };
    check.fault(
        path,
        fault,
        "not a token",
        "write the whole URL, as `curl 'https://discovery.etcd.io/new?size=3'` answers it",
    );
}

fn srv(raw: &schema::Bootstrap, path: &Path, check: &mut Check<'_>) -> Bootstrap {
    match &raw.domain {
        None => check.fault(
            &path.key("method"),
            "SRV records need a `domain`",
            "whose records?",
            "write domain = \"example.com\"",
        ),
        Some(domain) if !address::dns_name(domain) => check.fault(
            &path.key("domain"),
            format!("{domain:?} is not a DNS name"),
            "not a domain",
            "write one such as example.com",
        ),
        Some(_) => {}
    }
    if let Some(name) = &raw.srv_name
        && (!address::dns_name(name) || name.contains('.'))
    {
        check.fault(
            &path.key("srv-name"),
            format!("{name:?} cannot end a service name"),
            "not a label",
            "use letters, digits and `-`: records are then of _etcd-server-NAME._tcp",
        );
    }
    Bootstrap::DnsSrv {
        domain: raw.domain.clone().unwrap_or_default(),
        srv_name: raw.srv_name.clone(),
        token: raw.token.clone(),
    }
}
