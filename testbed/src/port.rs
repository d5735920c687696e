//! Ports for servers that a test starts.

use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::sync::Mutex;

// Below the ports that Linux gives to outgoing connections, above those of well-known services.
const RANGE: Range<u16> = 10_000..32_768;

// A listener on this address is no obstacle to a server on 127.0.0.1; `provision`'s own search for free ports sees it too.
const CLAIMS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

static HELD: Mutex<Vec<TcpListener>> = Mutex::new(Vec::new());

/// Ports of 127.0.0.1 that are free and that nobody else who asks here, in whatever process, is given while this process lives.
///
/// # Panics
///
/// When every port is taken.
#[must_use]
pub fn claim<const N: usize>() -> [u16; N] {
    let mut held = HELD.lock().expect("no holder panics");
    let len = RANGE.end - RANGE.start;
    // Processes that start one after the other search from different places.
    let start = u16::try_from(std::process::id().wrapping_mul(61) % u32::from(len)).unwrap_or(0);
    let mut candidates = (0..len).map(|step| RANGE.start + (start + step) % len);
    std::array::from_fn(|_| {
        let free = candidates.find_map(|port| {
            let claimed = TcpListener::bind((CLAIMS, port)).ok()?;
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()?;
            Some((port, claimed))
        });
        let (port, claimed) = free.expect("a free port");
        held.push(claimed);
        port
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_given_once_and_can_be_listened_on() {
        let mut ports = claim::<4>().to_vec();
        ports.extend(claim::<4>());
        for port in &ports {
            TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).unwrap();
        }
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 8);
    }
}
