//! The record: the unit that the log writes and verifies.
//!
//! ```text
//! offset  0        4        8        12     13      16
//!         crc32c   length   batch    kind   zeros   body (length bytes), zeros up to a multiple of 8
//! ```
//!
//! Integers are little-endian. The checksum covers everything after itself and is seeded with the segment's random
//! salt and the record's offset, so that bytes which merely look like a record (a client's value may hold a copy of a
//! log) never verify. `batch` is the offset up to which the segment was durable when the record was written: a valid
//! record with a `batch` beyond some damage proves that the damaged bytes had been durable, so that they are corruption
//! and not a torn write. A header of zeros is the end of what was written.

use bytes::{Buf, Bytes};
use openraft::EntryPayload;
use openraft::vote::RaftLeaderId;

use crate::config::{Entry, LogId, Payload, Vote};
use crate::segment::Head;
use crate::{Identity, NodeId};

/// Bytes before the body.
pub(crate) const HEADER_BYTES: usize = 16;

/// Records start at multiples of this, so that a search for survivors after damage needs no byte-wise scan.
pub(crate) const ALIGNMENT: usize = 8;

/// Largest body that is written: far above any request limit, far below what offsets can address.
pub(crate) const MAX_BODY_BYTES: usize = 1 << 30;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Blank = 1,
    Normal = 2,
    Membership = 3,
    Vote = 4,
    Committed = 5,
    Truncate = 6,
    Purge = 7,
    Identity = 8,
    Head = 9,
    Seal = 10,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        const KINDS: [Kind; 10] = [
            Kind::Blank,
            Kind::Normal,
            Kind::Membership,
            Kind::Vote,
            Kind::Committed,
            Kind::Truncate,
            Kind::Purge,
            Kind::Identity,
            Kind::Head,
            Kind::Seal,
        ];
        usize::from(byte)
            .checked_sub(1)
            .and_then(|i| KINDS.get(i))
            .copied()
    }
}

/// Where a record stands: what its checksum and its `batch` depend on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) salt: u64,
    pub(crate) offset: u32,
}

impl Place {
    fn seed(self) -> u32 {
        let [a, b, c, d, e, f, g, h] = self.salt.to_le_bytes();
        u32::from_le_bytes([a, b, c, d])
            ^ u32::from_le_bytes([e, f, g, h])
            ^ self.offset.wrapping_mul(0x9E37_79B1)
    }

    fn checksum(self, covered: &[u8]) -> u32 {
        crc32c::crc32c_append(self.seed(), covered)
    }
}

/// Size of a record with a body of `body` bytes.
pub(crate) fn record_bytes(body: usize) -> u64 {
    (HEADER_BYTES + body).next_multiple_of(ALIGNMENT) as u64
}

/// Appends one record, whose body is `front` followed by `rest`, to `buf`.
pub(crate) fn encode(
    buf: &mut Vec<u8>,
    place: Place,
    batch: u32,
    kind: Kind,
    front: &[u8],
    rest: &[u8],
) {
    let body = front.len() + rest.len();
    assert!(
        body <= MAX_BODY_BYTES,
        "bodies are bounded before they are queued"
    );
    let start = buf.len();
    let length = u32::try_from(body).unwrap_or(u32::MAX);
    buf.extend_from_slice(&[0; 4]);
    buf.extend_from_slice(&length.to_le_bytes());
    buf.extend_from_slice(&batch.to_le_bytes());
    buf.extend_from_slice(&[kind as u8, 0, 0, 0]);
    buf.extend_from_slice(front);
    buf.extend_from_slice(rest);
    let checksum = place.checksum(&buf[start + 4..]);
    buf[start..start + 4].copy_from_slice(&checksum.to_le_bytes());
    buf.resize(buf.len().next_multiple_of(ALIGNMENT), 0);
}

/// A verified header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame {
    pub(crate) kind: Kind,
    pub(crate) batch: u32,
    pub(crate) body: usize,
}

impl Frame {
    pub(crate) fn bytes(self) -> u64 {
        record_bytes(self.body)
    }
}

/// Why no record starts at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoRecord {
    /// The header is zeros: nothing was written here.
    Blank,
    /// More bytes are needed to decide; the number counts from the record's start.
    Short(usize),
    /// The bytes are no record.
    Invalid(&'static str),
}

impl NoRecord {
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Blank => "no record",
            Self::Short(_) => "the record is cut off",
            Self::Invalid(reason) => reason,
        }
    }
}

/// Verifies the record at the start of `bytes`. The body follows the header directly.
pub(crate) fn decode(bytes: &[u8], place: Place) -> Result<Frame, NoRecord> {
    let Some((mut header, _)) = bytes.split_at_checked(HEADER_BYTES) else {
        return Err(NoRecord::Short(HEADER_BYTES));
    };
    if header.iter().all(|byte| *byte == 0) {
        return Err(NoRecord::Blank);
    }
    let checksum = header.get_u32_le();
    let body = header.get_u32_le() as usize;
    let batch = header.get_u32_le();
    let kind = Kind::from_byte(header[0]).ok_or(NoRecord::Invalid("unknown record kind"))?;
    if header[1..] != [0; 3] || body > MAX_BODY_BYTES || batch > place.offset {
        return Err(NoRecord::Invalid("impossible record header"));
    }
    let end = HEADER_BYTES + body;
    let Some(covered) = bytes.get(4..end) else {
        return Err(NoRecord::Short(end));
    };
    if place.checksum(covered) != checksum {
        return Err(NoRecord::Invalid("checksum mismatch"));
    }
    Ok(Frame { kind, batch, body })
}

/// Fixed part of an entry's body; the payload follows.
pub(crate) fn entry_front(id: LogId) -> [u8; 16] {
    log_id_body(id)
}

pub(crate) fn log_id_body(id: LogId) -> [u8; 16] {
    let mut body = [0; 16];
    body[..8].copy_from_slice(&id.leader_id.term.to_le_bytes());
    body[8..].copy_from_slice(&id.index.to_le_bytes());
    body
}

pub(crate) fn vote_body(vote: &Vote) -> [u8; 17] {
    let mut body = [0; 17];
    body[..8].copy_from_slice(&vote.leader_id.term.to_le_bytes());
    body[8..16].copy_from_slice(&vote.leader_id.voted_for.to_le_bytes());
    body[16] = u8::from(vote.committed);
    body
}

pub(crate) fn identity_body(identity: Identity) -> [u8; 16] {
    let mut body = [0; 16];
    body[..8].copy_from_slice(&identity.cluster_id.to_le_bytes());
    body[8..].copy_from_slice(&identity.member_id.to_le_bytes());
    body
}

/// What recovery learns from a record. Entries are located, not materialised.
#[derive(Debug)]
pub(crate) enum Fact {
    Entry(LogId),
    Vote(Vote),
    Committed(LogId),
    /// Entries after this one are gone; `None` empties the log.
    Truncate(Option<LogId>),
    Purge(LogId),
    Identity(Identity),
    Head(Box<Head>),
    Seal,
}

/// Reads the body of a verified record, or says why it makes no sense.
pub(crate) fn fact(kind: Kind, mut body: &[u8]) -> Result<Fact, String> {
    let fact = match kind {
        Kind::Blank | Kind::Normal | Kind::Membership => Fact::Entry(get_log_id(&mut body)?),
        Kind::Vote => {
            let term = get_u64(&mut body)?;
            let node: NodeId = get_u64(&mut body)?;
            let committed = body.first().is_some_and(|byte| *byte == 1);
            Fact::Vote(Vote {
                leader_id: RaftLeaderId::new(term, node),
                committed,
            })
        }
        Kind::Committed => Fact::Committed(get_log_id(&mut body)?),
        Kind::Truncate if body.is_empty() => Fact::Truncate(None),
        Kind::Truncate => Fact::Truncate(Some(get_log_id(&mut body)?)),
        Kind::Purge => Fact::Purge(get_log_id(&mut body)?),
        Kind::Identity => Fact::Identity(Identity {
            cluster_id: get_u64(&mut body)?,
            member_id: get_u64(&mut body)?,
        }),
        Kind::Head => Fact::Head(serde_json::from_slice(body).map_err(|error| error.to_string())?),
        Kind::Seal => Fact::Seal,
    };
    Ok(fact)
}

/// Builds the entry of a verified record; a normal payload shares `body`'s buffer.
pub(crate) fn entry(kind: Kind, mut body: Bytes) -> Result<Entry, String> {
    let mut front: &[u8] = &body;
    let log_id = get_log_id(&mut front)?;
    body.advance(16);
    let payload = match kind {
        Kind::Blank => EntryPayload::Blank,
        Kind::Normal => EntryPayload::Normal(Payload(body)),
        Kind::Membership => EntryPayload::Membership(
            serde_json::from_slice(&body).map_err(|error| error.to_string())?,
        ),
        _ => return Err(format!("an entry was expected, found {kind:?}")),
    };
    Ok(Entry { log_id, payload })
}

fn get_u64(body: &mut &[u8]) -> Result<u64, String> {
    body.try_get_u64_le()
        .map_err(|_| "record body is too short".to_owned())
}

fn get_log_id(body: &mut &[u8]) -> Result<LogId, String> {
    let term = get_u64(body)?;
    Ok(LogId::new_term_index(term, get_u64(body)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place {
        salt: 0x1234_5678_9abc_def0,
        offset: 64,
    };

    fn sample() -> Vec<u8> {
        let mut buf = Vec::new();
        encode(
            &mut buf,
            PLACE,
            64,
            Kind::Normal,
            &entry_front(LogId::new_term_index(3, 9)),
            b"payload",
        );
        buf
    }

    #[test]
    fn a_record_reads_back() {
        let buf = sample();
        assert_eq!(buf.len() % 8, 0);
        let frame = decode(&buf, PLACE).unwrap();
        assert_eq!(
            (frame.kind, frame.batch, frame.bytes()),
            (Kind::Normal, 64, buf.len() as u64)
        );
        let read = entry(frame.kind, Bytes::from(buf).slice(16..16 + frame.body)).unwrap();
        assert_eq!(read.log_id, LogId::new_term_index(3, 9));
        assert_eq!(
            read.payload,
            EntryPayload::Normal(Payload(Bytes::from_static(b"payload")))
        );
    }

    #[test]
    fn every_bit_flip_is_noticed() {
        let good = sample();
        let covered = 16 + decode(&good, PLACE).unwrap().body;
        for bit in 0..covered * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bad, PLACE).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_record_verifies_only_at_its_own_place() {
        let buf = sample();
        assert!(
            decode(
                &buf,
                Place {
                    offset: 72,
                    ..PLACE
                }
            )
            .is_err()
        );
        assert!(
            decode(
                &buf,
                Place {
                    salt: PLACE.salt ^ 1,
                    ..PLACE
                }
            )
            .is_err()
        );
    }

    #[test]
    fn a_cut_record_asks_for_more_bytes() {
        let buf = sample();
        assert_eq!(decode(&buf[..10], PLACE).unwrap_err(), NoRecord::Short(16));
        assert_eq!(decode(&buf[..20], PLACE).unwrap_err(), NoRecord::Short(39));
        assert_eq!(decode(&[0; 32], PLACE).unwrap_err(), NoRecord::Blank);
    }
}
