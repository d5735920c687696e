//! Host names as the bootstrap rules compare them.

use std::net::{SocketAddr, ToSocketAddrs};

/// The address that a host name stands for, IPv4 first; the error is the resolver's text. Blocks: called once, at a
/// first start, before anything is served.
pub fn address(host: &str, port: u16) -> Result<String, String> {
    let mut found: Vec<SocketAddr> = (host, port)
        .to_socket_addrs()
        .map_err(|e| format!("lookup {host}: {e}"))?
        .collect();
    found.sort_by_key(SocketAddr::is_ipv6);
    found
        .first()
        .map(ToString::to_string)
        .ok_or_else(|| format!("lookup {host}: no such host"))
}
