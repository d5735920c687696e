//! TCP ports: who listens, which process holds one, where a free block is.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::ops::Range;

use super::process::argv;

/// A listening TCP socket of this network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Where it listens.
    pub address: SocketAddr,
    /// Names the socket in /proc/PID/fd.
    pub inode: u64,
}

/// The process that holds a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A process that this user may look at.
    Process {
        /// Its pid.
        pid: u32,
        /// Its command line.
        command: String,
    },
    /// Held, but this user may not see by whom.
    Hidden,
}

impl Owner {
    /// Its pid, where that can be seen.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        match self {
            Self::Process { pid, .. } => Some(*pid),
            Self::Hidden => None,
        }
    }
}

/// Why no block of ports was found.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// The kernel's tables could not be read.
    #[error("cannot read which ports are in use")]
    Read(#[source] io::Error),
    /// Every candidate was taken.
    #[error("no block of {len} free ports between {first} and {last}: stop a cluster, or set client-port and peer-port for each member", first = .range.start, last = .range.end)]
    Exhausted {
        /// Ports asked for.
        len: u16,
        /// Where they were looked for.
        range: Range<u16>,
    },
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { pid, command } => write!(f, "pid {pid} ({command})"),
            Self::Hidden => f.write_str("a process of another user"),
        }
    }
}

impl Listener {
    /// Whether a listener on `address` would collide with this one.
    #[must_use]
    pub fn blocks(&self, address: SocketAddr) -> bool {
        let (mine, other) = (
            self.address.ip().to_canonical(),
            address.ip().to_canonical(),
        );
        self.address.port() == address.port()
            && (mine == other || mine.is_unspecified() || other.is_unspecified())
    }
}

/// Every listening TCP socket.
pub fn listeners() -> io::Result<Vec<Listener>> {
    let mut all = parse_table(&fs::read_to_string("/proc/net/tcp")?);
    // Absent when the kernel runs without IPv6.
    if let Ok(text) = fs::read_to_string("/proc/net/tcp6") {
        all.extend(parse_table(&text));
    }
    Ok(all)
}

/// The process that holds a listening socket.
pub fn owner_of(listener: &Listener) -> io::Result<Owner> {
    let wanted = format!("socket:[{}]", listener.inode);
    for entry in fs::read_dir("/proc")? {
        let Ok(entry) = entry else { continue };
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        let Ok(descriptors) = fs::read_dir(entry.path().join("fd")) else {
            continue;
        };
        for descriptor in descriptors.flatten() {
            if fs::read_link(descriptor.path())
                .is_ok_and(|target| target.as_os_str() == wanted.as_str())
            {
                let command = argv(pid).unwrap_or_default().join(" ");
                return Ok(Owner::Process { pid, command });
            }
        }
    }
    Ok(Owner::Hidden)
}

/// Finds `len` neighbouring free ports outside `avoid`, starting the search at a place that `seed` picks.
///
/// Stays below the kernel's ephemeral range, so that no outgoing connection takes a remembered port.
pub fn free_block(len: u16, seed: u64, avoid: &[Range<u16>]) -> Result<u16, PortError> {
    let range = search_range();
    let taken: BTreeSet<u16> = listeners()
        .map_err(PortError::Read)?
        .iter()
        .map(|listener| listener.address.port())
        .collect();
    let is_free = |port: u16| {
        !taken.contains(&port)
            && !avoid.iter().any(|block| block.contains(&port))
            && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
    };
    let slots = (range.end - range.start) / len.max(1);
    let exhausted = || PortError::Exhausted {
        len,
        range: range.clone(),
    };
    if slots == 0 {
        return Err(exhausted());
    }
    let first = u16::try_from(seed % u64::from(slots)).unwrap_or_default();
    (0..slots)
        .map(|step| range.start + (first + step) % slots * len)
        .find(|base| (*base..*base + len).all(is_free))
        .ok_or_else(exhausted)
}

fn search_range() -> Range<u16> {
    // Below 10000 live well-known services; 32768 is where Linux starts ephemeral ports by default.
    const FIRST: u16 = 10_000;
    const DEFAULT_END: u16 = 32_768;
    let ephemeral = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|text| {
            text.split_ascii_whitespace()
                .next()
                .and_then(|low| low.parse::<u16>().ok())
        });
    // A host that gives nearly everything to outgoing connections leaves no better choice than the default range.
    let end = ephemeral
        .filter(|low| *low > FIRST + 1_000)
        .unwrap_or(DEFAULT_END);
    FIRST..end
}

fn parse_table(text: &str) -> Vec<Listener> {
    text.lines().skip(1).filter_map(parse_row).collect()
}

fn parse_row(row: &str) -> Option<Listener> {
    const LISTEN: &str = "0A";
    let fields: Vec<&str> = row.split_ascii_whitespace().collect();
    if *fields.get(3)? != LISTEN {
        return None;
    }
    let (ip, port) = fields.get(1)?.split_once(':')?;
    let address = SocketAddr::new(parse_ip(ip)?, u16::from_str_radix(port, 16).ok()?);
    Some(Listener {
        address,
        inode: fields.get(9)?.parse().ok()?,
    })
}

// The kernel prints each 32-bit word of an address in host order.
fn parse_ip(hex: &str) -> Option<IpAddr> {
    let word = |index: usize| {
        let digits = hex.get(index * 8..index * 8 + 8)?;
        u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes)
    };
    match hex.len() {
        8 => Some(IpAddr::V4(Ipv4Addr::from(word(0)?))),
        32 => {
            let mut bytes = [0; 16];
            for (index, chunk) in bytes.chunks_exact_mut(4).enumerate() {
                chunk.copy_from_slice(&word(index)?);
            }
            Some(IpAddr::V6(Ipv6Addr::from(bytes)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_port_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let found = listeners()
            .unwrap()
            .into_iter()
            .find(|listener| listener.blocks(address))
            .unwrap();
        match owner_of(&found).unwrap() {
            Owner::Process { pid, command } => {
                assert_eq!(pid, std::process::id());
                assert!(!command.is_empty());
            }
            Owner::Hidden => panic!("this process may look at itself"),
        }
    }

    #[test]
    fn a_wildcard_listener_blocks_every_address_of_its_port() {
        let wildcard = Listener {
            address: "[::]:2379".parse().unwrap(),
            inode: 1,
        };
        assert!(wildcard.blocks("127.0.0.1:2379".parse().unwrap()));
        assert!(!wildcard.blocks("127.0.0.1:2380".parse().unwrap()));
        let one = Listener {
            address: "127.0.0.2:2379".parse().unwrap(),
            inode: 1,
        };
        assert!(!one.blocks("127.0.0.1:2379".parse().unwrap()));
        assert!(one.blocks("0.0.0.0:2379".parse().unwrap()));
    }

    #[test]
    fn a_block_avoids_what_others_remember_and_what_listens() {
        let first = free_block(6, 7, &[]).unwrap();
        let held = TcpListener::bind(("127.0.0.1", first + 3)).unwrap();
        let second = free_block(6, 7, &[]).unwrap();
        assert!(second >= first + 6 || second + 6 <= first);
        let remembered = vec![second..second + 6; 1];
        let third = free_block(6, 7, &remembered).unwrap();
        assert!(third != first && third != second);
        drop(held);
    }

    #[test]
    fn rows_of_other_states_are_skipped() {
        let row = "   0: 0100007F:094B 00000000:0000 01 00000000:00000000 00:00000000 00000000     0        0 31 1 0 100 0 0 10 0";
        assert_eq!(parse_row(row), None);
        let row = row.replace(" 01 ", " 0A ");
        assert_eq!(
            parse_row(&row),
            Some(Listener {
                address: "127.0.0.1:2379".parse().unwrap(),
                inode: 31
            })
        );
    }
}
