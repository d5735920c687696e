//! HTTP/2 frames (RFC 9113, section 6): heads, kinds and flags.

/// Length of every frame's head.
pub(super) const HEAD: usize = 9;
/// The largest payload that either side may send without asking; this client never asks for more.
pub(super) const MAX_PAYLOAD: usize = 16_384;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

/// On DATA and HEADERS: the sender is done with the stream.
pub(super) const END_STREAM: u8 = 0x1;
/// On SETTINGS and PING.
pub(super) const ACK: u8 = 0x1;
pub(super) const END_HEADERS: u8 = 0x4;
pub(super) const PADDED: u8 = 0x8;
pub(super) const PRIORITY: u8 = 0x20;

pub(super) const HEADER_TABLE_SIZE: u16 = 1;
pub(super) const ENABLE_PUSH: u16 = 2;
pub(super) const MAX_CONCURRENT_STREAMS: u16 = 3;
pub(super) const INITIAL_WINDOW_SIZE: u16 = 4;

/// A frame's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) len: usize,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

impl Head {
    /// Reads the head at the start of `input`; `None` while it is incomplete.
    pub(super) fn parse(input: &[u8]) -> Option<Self> {
        let head: &[u8; HEAD] = input.first_chunk()?;
        Some(Self {
            len: u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize,
            kind: head[3],
            flags: head[4],
            stream: u32_at(&head[5..]) & 0x7fff_ffff,
        })
    }

    /// Appends the head; `len` must not exceed [`MAX_PAYLOAD`].
    pub(super) fn put(self, out: &mut Vec<u8>) {
        debug_assert!(self.len <= MAX_PAYLOAD);
        let len = self.len.to_be_bytes();
        out.extend_from_slice(&len[len.len() - 3..]);
        out.extend_from_slice(&[self.kind, self.flags]);
        out.extend_from_slice(&self.stream.to_be_bytes());
    }
}

/// The first four bytes as a number; 0 when there are fewer.
pub(super) fn u32_at(bytes: &[u8]) -> u32 {
    bytes
        .first_chunk()
        .map_or(0, |four| u32::from_be_bytes(*four))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_reads_back_as_written() {
        let head = Head {
            len: 16_384,
            kind: DATA,
            flags: END_STREAM,
            stream: 0x7fff_ffff,
        };
        let mut out = Vec::new();
        head.put(&mut out);
        assert_eq!(Head::parse(&out), Some(head));
        assert_eq!(Head::parse(&out[..8]), None);
    }
}
