//! Ports that are kept for somebody who starts to listen later.

use std::net::{Ipv4Addr, TcpListener};

use super::port::{PortError, free_block};

// Members listen on 127.0.0.1. A listener on this address is no obstacle to them, and every search for free ports sees it.
const CLAIMS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// A block of ports of 127.0.0.1 that no search of this program, in whatever process, gives away while this lives.
#[derive(Debug)]
pub struct Claim {
    base: u16,
    held: Vec<TcpListener>,
}

impl Claim {
    /// Claims `len` neighbouring free ports; the search begins at a place that `seed` picks.
    pub fn new(len: u16, seed: u64) -> Result<Self, PortError> {
        let mut lost = Vec::new();
        loop {
            let base = free_block(len, seed, &lost)?;
            let held: Result<Vec<_>, _> = (base..base + len)
                .map(|port| TcpListener::bind((CLAIMS, port)))
                .collect();
            match held {
                Ok(held) => return Ok(Self { base, held }),
                // Somebody else's claim came between the look and this.
                Err(_) => lost.push(base..base + len),
            }
        }
    }

    /// The port of that place in the block; `None` beyond its end.
    #[must_use]
    pub fn port(&self, index: usize) -> Option<u16> {
        let held = index < self.held.len();
        held.then(|| u16::try_from(index).ok()?.checked_add(self.base))?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_claimed_is_given_to_nobody_else_and_can_be_listened_on() {
        let first = Claim::new(4, 7).unwrap();
        let second = Claim::new(4, 7).unwrap();
        let ports = |claim: &Claim| (0..4).map(|i| claim.port(i).unwrap()).collect::<Vec<_>>();
        assert!(
            ports(&first)
                .iter()
                .all(|port| !ports(&second).contains(port))
        );
        assert_eq!(first.port(4), None);
        for port in ports(&first) {
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        }
        let other = free_block(4, 7, &[]).unwrap();
        assert!(!ports(&first).contains(&other) && !ports(&second).contains(&other));
    }
}
