//! Hosts that members advertise: an IP address or a DNS name, nothing around it.

use std::net::{IpAddr, Ipv6Addr};

/// Checks a host. IPv6 addresses lose their brackets.
///
/// Errors are a sentence and what to do.
pub(super) fn host(text: &str) -> Result<String, (String, String)> {
    let fault = |what: String, fix: &str| Err((what, fix.to_owned()));
    if text.contains("://") {
        return fault(
            format!("{text:?} is a URL, and an address is a host only"),
            "leave out the scheme; ports go into `client-port` and `peer-port`",
        );
    }
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .unwrap_or(text);
    if let Ok(ip) = bare.parse::<IpAddr>() {
        if ip.is_unspecified() {
            return fault(
                format!("{text} cannot be advertised: it names no host"),
                "write the address that the other members reach; `listen` may be 0.0.0.0",
            );
        }
        if ip.is_multicast() {
            return fault(
                format!("{text} is a multicast address"),
                "write the address of one host",
            );
        }
        if bare != text && !matches!(ip, IpAddr::V6(_)) {
            return fault(
                format!("{text:?} is not an address"),
                "brackets are for IPv6 addresses only",
            );
        }
        return Ok(ip.to_string());
    }
    if let Some((host, port)) = text.rsplit_once(':')
        && port.parse::<u16>().is_ok()
        && (host.parse::<IpAddr>().is_ok() || dns_name(host) || host.starts_with('['))
        && host.parse::<Ipv6Addr>().is_err()
    {
        return fault(
            format!("{text:?} has a port, and an address is a host only"),
            "write the host only; ports go into `client-port` and `peer-port`",
        );
    }
    let last = text
        .trim_end_matches('.')
        .rsplit('.')
        .next()
        .unwrap_or(text);
    if text.contains('.') && !last.is_empty() && last.chars().all(|c| c.is_ascii_digit()) {
        return fault(
            format!("{text:?} is not an IP address"),
            "write four numbers from 0 to 255, such as 10.0.1.10, or a DNS name",
        );
    }
    if !dns_name(text) {
        return fault(
            format!("{text:?} is neither an IP address nor a DNS name"),
            "write one such as 10.0.1.10, ::1 or infra0.example.com: letters, digits, `-` and `.`",
        );
    }
    Ok(text.to_owned())
}

/// Whether the text can be a DNS name.
pub(super) fn dns_name(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    !text.is_empty()
        && text.len() <= 253
        && text.split('.').all(|label| {
            !label.is_empty()
                && label.len() <= 63
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
        })
}

/// The address that a member's ports bind when the file says nothing.
pub(super) fn default_listen(address: &str) -> IpAddr {
    // A DNS name says nothing about this machine's interfaces; the loopback one exposes nothing by accident.
    address
        .parse()
        .unwrap_or(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_addresses_or_names() {
        for (text, expected) in [
            ("10.0.1.10", "10.0.1.10"),
            ("::1", "::1"),
            ("[fd00::10]", "fd00::10"),
            ("infra0.example.com", "infra0.example.com"),
            ("localhost", "localhost"),
            ("host_a", "host_a"),
        ] {
            assert_eq!(host(text).unwrap(), expected);
        }
    }

    #[test]
    fn anything_around_a_host_is_named() {
        for (text, part) in [
            ("http://10.0.1.10:2380", "is a URL"),
            ("10.0.1.10:2380", "has a port"),
            ("infra0:2380", "has a port"),
            ("[::1]:2380", "has a port"),
            ("10.0.0.256", "is not an IP address"),
            ("10.0.1", "is not an IP address"),
            ("0.0.0.0", "cannot be advertised"),
            ("::", "cannot be advertised"),
            ("224.0.0.1", "multicast"),
            ("[10.0.0.1]", "is not an address"),
            ("", "is neither"),
            ("a b", "is neither"),
            ("-a", "is neither"),
            ("a..b", "is neither"),
        ] {
            let (what, _) = host(text).unwrap_err();
            assert!(what.contains(part), "{text}: {what}");
        }
    }

    #[test]
    fn names_bind_the_loopback_address() {
        assert_eq!(
            default_listen("infra0.example.com").to_string(),
            "127.0.0.1"
        );
        assert_eq!(default_listen("10.0.1.10").to_string(), "10.0.1.10");
    }
}
