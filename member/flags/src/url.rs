//! URLs as etcd's flags take them: a scheme and `host:port`, nothing else.
//!
//! Accepts what etcd's `types.NewURLs` accepts, over what Go's `net/url` accepts, and reports with their texts; a URL
//! prints as Go prints it, because IDs are hashes of printed URLs. A user, a query or a fragment is refused: Go keeps
//! them, but no etcd flag gives them a meaning. Names are never resolved here.

use std::{collections::BTreeSet, fmt, net::IpAddr, ops::Deref, str::FromStr};

use thiserror::Error;

use crate::go::quote;

/// Why a text is not a URL that an etcd flag takes.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum UrlError {
    /// Not a URL at all, with Go's reason.
    #[error("parse {}: {reason}", quote(raw))]
    Parse {
        /// The text, trimmed.
        raw: String,
        /// Why, in Go's words.
        reason: String,
    },
    /// Another scheme, or none.
    #[error("URL scheme must be http, https, unix, or unixs: {raw}")]
    Scheme {
        /// The text, trimmed.
        raw: String,
    },
    /// No port, or an IPv6 address without brackets.
    #[error("URL address does not have the form \"host:port\": {raw}")]
    HostPort {
        /// The text, trimmed.
        raw: String,
    },
    /// A path, be it only `/`.
    #[error("URL must not contain a path: {raw}")]
    Path {
        /// The text, trimmed.
        raw: String,
    },
    /// A user, a query or a fragment.
    #[error("URL must not contain a user, a query or a fragment: {raw}")]
    Extra {
        /// The text, trimmed.
        raw: String,
    },
}

/// The scheme of a [`Url`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// Plain TCP.
    Http,
    /// TLS over TCP.
    Https,
    /// A Unix socket.
    Unix,
    /// TLS over a Unix socket.
    Unixs,
}

impl Scheme {
    /// Whether traffic is encrypted.
    #[must_use]
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Https | Self::Unixs)
    }

    /// Whether it names a Unix socket.
    #[must_use]
    pub fn is_unix(self) -> bool {
        matches!(self, Self::Unix | Self::Unixs)
    }

    /// The scheme's name, lower case.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Unix => "unix",
            Self::Unixs => "unixs",
        }
    }
}

/// A checked URL. Orders and compares by its printed form.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Url {
    text: String,
    scheme: Scheme,
    host: String,
    port: Option<u16>,
}

impl Url {
    /// Checks a text; blanks around it are dropped.
    ///
    /// # Errors
    ///
    /// [`UrlError`], with etcd's text.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let raw = text.trim();
        let fail = |reason: String| UrlError::Parse {
            raw: raw.to_owned(),
            reason,
        };
        if raw.chars().any(|c| c.is_ascii_control()) {
            return Err(fail("net/url: invalid control character in URL".to_owned()));
        }
        let (scheme_text, rest) = split_scheme(raw).map_err(fail)?;
        if scheme_text.is_none() && !rest.starts_with('/') {
            let segment = rest.split(['/', '?', '#']).next().unwrap_or_default();
            if segment.contains(':') {
                return Err(fail(
                    "first path segment in URL cannot contain colon".to_owned(),
                ));
            }
        }
        let scheme = match scheme_text.as_deref() {
            Some("http") => Scheme::Http,
            Some("https") => Scheme::Https,
            Some("unix") => Scheme::Unix,
            Some("unixs") => Scheme::Unixs,
            _ => {
                return Err(UrlError::Scheme {
                    raw: raw.to_owned(),
                });
            }
        };
        let (before_fragment, fragment) = cut(rest, '#');
        let (before_query, query) = cut(before_fragment, '?');
        let Some(after) = before_query.strip_prefix("//") else {
            // An opaque URL or a bare path: for a socket that is its path, for TCP there is no address.
            return if scheme.is_unix() {
                Ok(Self {
                    text: format!("{}:{rest}", scheme.as_str()),
                    scheme,
                    host: String::new(),
                    port: None,
                })
            } else {
                Err(UrlError::HostPort {
                    raw: raw.to_owned(),
                })
            };
        };
        let (authority, path) = after.split_at(after.find('/').unwrap_or(after.len()));
        if scheme.is_unix() {
            return Ok(Self {
                text: format!("{}:{rest}", scheme.as_str()),
                scheme,
                host: authority.to_owned(),
                port: None,
            });
        }
        let (user, address) = match authority.rfind('@') {
            Some(at) => (true, &authority[at + 1..]),
            None => (false, authority),
        };
        check_host(address).map_err(fail)?;
        let (host, port) = split_host_port(address).ok_or_else(|| UrlError::HostPort {
            raw: raw.to_owned(),
        })?;
        if !path.is_empty() {
            return Err(UrlError::Path {
                raw: raw.to_owned(),
            });
        }
        if user || query || fragment {
            return Err(UrlError::Extra {
                raw: raw.to_owned(),
            });
        }
        let port = if port.is_empty() {
            Some(0)
        } else {
            port.parse().ok()
        };
        Ok(Self {
            text: format!("{}://{address}", scheme.as_str()),
            scheme,
            host: host.to_owned(),
            port,
        })
    }

    /// `http://localhost:PORT`, which is etcd's default on each of its ports.
    pub(crate) fn localhost(port: u16) -> Self {
        Self {
            text: format!("http://localhost:{port}"),
            scheme: Scheme::Http,
            host: "localhost".to_owned(),
            port: Some(port),
        }
    }

    /// The scheme.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The host without brackets: an address or a name. Empty for a Unix socket and for `http://:2379`.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, 0 when it is left out after the colon. None when the digits exceed 65535: etcd takes such a URL and
    /// fails when it binds.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The host as an IP address, when it is one.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.split('%').next().unwrap_or_default().parse().ok()
    }

    /// `host:port` as written, with brackets where there were; the path for a Unix socket.
    #[must_use]
    pub fn address(&self) -> &str {
        let after = &self.text[self.scheme.as_str().len() + 1..];
        after.strip_prefix("//").unwrap_or(after)
    }

    /// The printed form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Url {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

/// Cuts the scheme off, lower-cased, by Go's rules; None when the text has none.
fn split_scheme(raw: &str) -> Result<(Option<String>, &str), String> {
    for (at, character) in raw.char_indices() {
        match character {
            'a'..='z' | 'A'..='Z' => {}
            '0'..='9' | '+' | '-' | '.' if at > 0 => {}
            ':' if at == 0 => return Err("missing protocol scheme".to_owned()),
            ':' => return Ok((Some(raw[..at].to_ascii_lowercase()), &raw[at + 1..])),
            _ => break,
        }
    }
    Ok((None, raw))
}

/// Cuts at the first `separator` and tells whether there was one.
fn cut(text: &str, separator: char) -> (&str, bool) {
    match text.split_once(separator) {
        Some((before, _)) => (before, true),
        None => (text, false),
    }
}

/// Go's own checks of the host part.
fn check_host(address: &str) -> Result<(), String> {
    let colon_port = if address.starts_with('[') {
        let end = address.rfind(']').ok_or("missing ']' in host")?;
        &address[end + 1..]
    } else {
        address.rfind(':').map_or("", |colon| &address[colon..])
    };
    let valid = match colon_port.strip_prefix(':') {
        Some(digits) => digits.bytes().all(|b| b.is_ascii_digit()),
        None => colon_port.is_empty(),
    };
    if !valid {
        return Err(format!("invalid port {} after host", quote(colon_port)));
    }
    for (at, character) in address.char_indices() {
        match character {
            // Only the zone of an IPv6 address may hold an escape, and the escape is that of the percent sign.
            '%' if address.starts_with('[') && address[at..].starts_with("%25") => {}
            '%' => {
                let end = (at + 3).min(address.len());
                let escape = address.get(at..end).unwrap_or("%");
                return Err(format!("invalid URL escape {}", quote(escape)));
            }
            'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '_' | '.' | '~' => {}
            '!' | '$' | '&' | '\'' | '(' | ')' | '*' | '+' | ',' | ';' | '=' | ':' | '[' | ']'
            | '<' | '>' | '"' => {}
            other => {
                return Err(format!(
                    "invalid character {} in host name",
                    quote(&other.to_string())
                ));
            }
        }
    }
    Ok(())
}

/// Splits `host:port` or `[host]:port`; None when it has not that form.
fn split_host_port(address: &str) -> Option<(&str, &str)> {
    if let Some(rest) = address.strip_prefix('[') {
        let (host, after) = rest.split_once(']')?;
        return after.strip_prefix(':').map(|port| (host, port));
    }
    let (host, port) = address.rsplit_once(':')?;
    (!host.contains([':', '[', ']'])).then_some((host, port))
}

/// A list of URLs as one flag holds it: in byte order, each once, as etcd keeps it.
#[derive(Clone, PartialEq, Eq, Default, Hash)]
pub struct Urls(Vec<Url>);

impl Urls {
    /// Reads a comma-separated list.
    ///
    /// # Errors
    ///
    /// The first URL's [`UrlError`].
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        text.split(',').map(Url::parse).collect()
    }

    /// The printed URLs.
    #[must_use]
    pub fn to_strings(&self) -> Vec<String> {
        self.0.iter().map(Url::to_string).collect()
    }
}

impl FromIterator<Url> for Urls {
    fn from_iter<I: IntoIterator<Item = Url>>(urls: I) -> Self {
        Self(
            urls.into_iter()
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect(),
        )
    }
}

impl From<Url> for Urls {
    fn from(url: Url) -> Self {
        Self(vec![url])
    }
}

impl Deref for Urls {
    type Target = [Url];

    fn deref(&self) -> &[Url] {
        &self.0
    }
}

impl<'a> IntoIterator for &'a Urls {
    type Item = &'a Url;
    type IntoIter = std::slice::Iter<'a, Url>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl fmt::Display for Urls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_strings().join(","))
    }
}

impl fmt::Debug for Urls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.0).finish()
    }
}

impl FromStr for Urls {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_url_prints_as_go_prints_it() {
        for (text, printed, host, port) in [
            (
                "http://10.0.1.10:2380",
                "http://10.0.1.10:2380",
                "10.0.1.10",
                Some(2380),
            ),
            (
                " HTTPS://Infra0.Example.com:2380 ",
                "https://Infra0.Example.com:2380",
                "Infra0.Example.com",
                Some(2380),
            ),
            ("http://[::1]:2379", "http://[::1]:2379", "::1", Some(2379)),
            ("http://:2379", "http://:2379", "", Some(2379)),
            ("http://h:", "http://h:", "h", Some(0)),
            (
                "http://10.0.1.10:99999",
                "http://10.0.1.10:99999",
                "10.0.1.10",
                None,
            ),
        ] {
            let url = Url::parse(text).unwrap();
            assert_eq!(
                (url.to_string().as_str(), url.host(), url.port()),
                (printed, host, port),
                "{text}"
            );
            assert_eq!(Url::parse(printed).unwrap(), url);
        }
        assert_eq!(
            Url::parse("http://[::1]:2379").unwrap().address(),
            "[::1]:2379"
        );
        assert!(Url::parse("http://[::1]:2379").unwrap().ip().is_some());
        assert!(Url::parse("unix:///tmp/x:0").unwrap().scheme().is_unix());
    }

    #[test]
    fn a_bad_url_gets_the_text_of_etcd() {
        for (text, want) in [
            (
                "ftp://10.0.1.10:2380",
                "URL scheme must be http, https, unix, or unixs: ftp://10.0.1.10:2380",
            ),
            (
                "10.0.1.10:2380",
                "parse \"10.0.1.10:2380\": first path segment in URL cannot contain colon",
            ),
            (
                "localhost",
                "URL scheme must be http, https, unix, or unixs: localhost",
            ),
            (
                "localhost:2380",
                "URL scheme must be http, https, unix, or unixs: localhost:2380",
            ),
            ("", "URL scheme must be http, https, unix, or unixs: "),
            (":foo", "parse \":foo\": missing protocol scheme"),
            (
                "http://10.0.1.10:2379/foo",
                "URL must not contain a path: http://10.0.1.10:2379/foo",
            ),
            (
                "http://10.0.1.10:2379/",
                "URL must not contain a path: http://10.0.1.10:2379/",
            ),
            (
                "http://10.0.1.10:abc",
                "parse \"http://10.0.1.10:abc\": invalid port \":abc\" after host",
            ),
            (
                "http://[::1]x:1",
                "parse \"http://[::1]x:1\": invalid port \"x:1\" after host",
            ),
            (
                "http://[::1:12380",
                "parse \"http://[::1:12380\": missing ']' in host",
            ),
            (
                "http://a b:1",
                "parse \"http://a b:1\": invalid character \" \" in host name",
            ),
            (
                "http://a\tb:1",
                "parse \"http://a\\tb:1\": net/url: invalid control character in URL",
            ),
            (
                "http://%41:1",
                "parse \"http://%41:1\": invalid URL escape \"%41\"",
            ),
            (
                "http://127.0.0.1",
                "URL address does not have the form \"host:port\": http://127.0.0.1",
            ),
            (
                "http://::1:12380",
                "URL address does not have the form \"host:port\": http://::1:12380",
            ),
            (
                "http:foo",
                "URL address does not have the form \"host:port\": http:foo",
            ),
            (
                "http://u:p@h:1",
                "URL must not contain a user, a query or a fragment: http://u:p@h:1",
            ),
            (
                "http://h:1?x",
                "URL must not contain a user, a query or a fragment: http://h:1?x",
            ),
        ] {
            assert_eq!(Url::parse(text).unwrap_err().to_string(), want, "{text}");
        }
    }

    #[test]
    fn a_list_is_sorted_and_holds_a_url_once() {
        let urls = Urls::parse("http://b:2, http://a:1 ,http://b:2").unwrap();
        assert_eq!(urls.to_string(), "http://a:1,http://b:2");
        assert_eq!(urls.len(), 2);
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_is_stable(text in "(https?://|unixs?:)?\\PC{0,20}(:[0-9]{0,6})?[/?#%@\\[\\]]?\\PC{0,4}") {
            if let Ok(url) = Url::parse(&text) {
                prop_assert_eq!(Url::parse(url.as_str()).unwrap(), url);
            }
        }
    }
}
