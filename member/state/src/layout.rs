//! How keys and records are laid out in the tables. Changing anything here changes the format on disk.
//!
//! ```text
//! Current    user key                                              -> record
//! Old        escape(user key) 00 01 !main(8) !sub(4)               -> record, as it was in Current;
//!                                                                     a tombstone is a record of version 0
//! Revisions  main(8) sub(4)                                        -> kind(1) previous main(8) sub(4) user key
//! Leases     id(8)                                                 -> ttl(8) remaining(8), in seconds
//!            id(8) user key                                        -> nothing: the key is attached to the lease
//! record     mod main(8) mod sub(4) create(8) version(8) lease(8)  then the value
//! ```
//!
//! Numbers are big endian, `!` is the complement: the versions of a key lie together, newest first.
//! `escape` writes 00 as 00 FF, which keeps the byte order of keys, prefixes included. A superseded
//! record moves to `Old` as it is, without being copied.

use bytes::{BufMut, Bytes, BytesMut};

use crate::command::KeyValue;
use crate::error::Corruption;

/// The place of a write in history: the revision of its command, and its number among the command's writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision {
    /// The store's revision.
    pub main: i64,
    /// The number of the write inside the command, from 0.
    pub sub: u32,
}

impl Revision {
    /// Before every write.
    pub(crate) const ZERO: Revision = Revision { main: 0, sub: 0 };

    fn read(bytes: &[u8]) -> Option<(Revision, &[u8])> {
        let (main, rest) = take_i64(bytes)?;
        let (sub, rest) = rest.split_first_chunk()?;
        let sub = u32::from_be_bytes(*sub);
        Some((Revision { main, sub }, rest))
    }
}

/// Length of what precedes the value in a record.
pub(crate) const RECORD_HEADER: usize = 36;

/// The bytes that one version of a key takes in the tables together: its record, and its entry among the revisions.
pub(crate) fn version_bytes(key: usize, value: usize) -> u64 {
    (RECORD_HEADER + value + 2 * key + 12 + 13) as u64
}

/// What a record says beside the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) modified: Revision,
    pub(crate) create: i64,
    pub(crate) version: i64,
    pub(crate) lease: i64,
}

impl Header {
    /// The mark of a delete.
    pub(crate) fn tombstone(modified: Revision) -> Header {
        Header {
            modified,
            create: 0,
            version: 0,
            lease: 0,
        }
    }

    pub(crate) fn is_tombstone(&self) -> bool {
        self.version == 0
    }

    pub(crate) fn read(record: &[u8]) -> Result<Header, Corruption> {
        let parse = || {
            let (modified, rest) = Revision::read(record)?;
            let (create, rest) = take_i64(rest)?;
            let (version, rest) = take_i64(rest)?;
            let (lease, _) = take_i64(rest)?;
            Some(Header {
                modified,
                create,
                version,
                lease,
            })
        };
        parse().ok_or(Corruption {
            table: "current or old",
            what: "a record",
        })
    }
}

fn take_i64(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let (head, rest) = bytes.split_first_chunk()?;
    Some((i64::from_be_bytes(*head), rest))
}

/// Joins a key and its record to what a client sees. The value shares the record's buffer.
pub(crate) fn key_value(key: Bytes, record: &Bytes) -> Result<KeyValue, Corruption> {
    let header = Header::read(record)?;
    Ok(join(key, &header, record.slice(RECORD_HEADER..)))
}

pub(crate) fn join(key: Bytes, header: &Header, value: Bytes) -> KeyValue {
    KeyValue {
        key,
        create_revision: header.create,
        mod_revision: header.modified.main,
        version: header.version,
        value,
        lease: header.lease,
    }
}

/// What a command did to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Put,
    Delete,
}

/// An entry of the table of revisions.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Event<'a> {
    pub(crate) kind: Kind,
    /// The version of the key that this write superseded.
    pub(crate) previous: Option<Revision>,
    pub(crate) key: &'a [u8],
}

impl<'a> Event<'a> {
    pub(crate) fn read(value: &'a [u8]) -> Result<Event<'a>, Corruption> {
        let parse = || {
            let (kind, rest) = value.split_first()?;
            let kind = match kind {
                0 => Kind::Put,
                1 => Kind::Delete,
                _ => return None,
            };
            let (previous, key) = Revision::read(rest)?;
            Some(Event {
                kind,
                previous: (previous != Revision::ZERO).then_some(previous),
                key,
            })
        };
        parse().ok_or(Corruption {
            table: "revisions",
            what: "an entry",
        })
    }
}

/// Reads a key of the table of revisions.
pub(crate) fn read_revision_key(key: &[u8]) -> Result<Revision, Corruption> {
    match Revision::read(key) {
        Some((revision, [])) => Ok(revision),
        _ => Err(Corruption {
            table: "revisions",
            what: "a key",
        }),
    }
}

/// The key of the table of revisions, for a bound.
pub(crate) fn revision_key(revision: Revision) -> [u8; 12] {
    let mut key = [0; 12];
    key[..8].copy_from_slice(&revision.main.to_be_bytes());
    key[8..].copy_from_slice(&revision.sub.to_be_bytes());
    key
}

const TERMINATOR: [u8; 2] = [0x00, 0x01];
/// Length of what follows the escaped key in a key of `Old`.
const OLD_SUFFIX: usize = 14;

fn put_escaped(out: &mut impl BufMut, key: &[u8]) {
    let mut rest = key;
    while let Some(zero) = rest.iter().position(|byte| *byte == 0) {
        out.put_slice(&rest[..=zero]);
        out.put_u8(0xFF);
        rest = &rest[zero + 1..];
    }
    out.put_slice(rest);
    out.put_slice(&TERMINATOR);
}

/// The lower bound of a user key in `Old`: before all its versions, after all smaller keys.
pub(crate) fn old_bound(key: &[u8]) -> Vec<u8> {
    let mut bound = Vec::with_capacity(key.len() + OLD_SUFFIX);
    put_escaped(&mut bound, key);
    bound
}

/// The range of `Old` that holds the versions of one key at or before `main`, newest first.
pub(crate) fn old_versions(key: &[u8], main: i64) -> (Vec<u8>, Vec<u8>) {
    let mut from = old_bound(key);
    let mut to = from.clone();
    from.extend_from_slice(&(!main).to_be_bytes());
    // Terminators differ from all that follows in their last byte only.
    if let Some(last) = to.last_mut() {
        *last += 1;
    }
    (from, to)
}

/// Where to go on in `Old` from a version of an escaped key: to its version at or before a revision, or behind them all.
pub(crate) fn skip_old_versions(escaped: &[u8], at: Option<i64>) -> Vec<u8> {
    let mut target = escaped.to_vec();
    match at {
        Some(main) => target.extend_from_slice(&(!main).to_be_bytes()),
        None => {
            if let Some(last) = target.last_mut() {
                *last += 1;
            }
        }
    }
    target
}

/// The key in `Old` of one version.
pub(crate) fn old_version(key: &[u8], revision: Revision) -> Vec<u8> {
    let mut exact = old_bound(key);
    exact.extend_from_slice(&(!revision.main).to_be_bytes());
    exact.extend_from_slice(&(!revision.sub).to_be_bytes());
    exact
}

/// Splits a key of `Old` into the escaped user key with its terminator, and the revision.
pub(crate) fn split_old_key(key: &[u8]) -> Result<(&[u8], Revision), Corruption> {
    let damaged = Corruption {
        table: "old",
        what: "a key",
    };
    let split = key.len().checked_sub(12).ok_or(damaged.clone())?;
    let (escaped, revision) = key.split_at(split);
    let (revision, _) = Revision::read(revision).ok_or(damaged.clone())?;
    if !escaped.ends_with(&TERMINATOR) {
        return Err(damaged);
    }
    Ok((
        escaped,
        Revision {
            main: !revision.main,
            sub: !revision.sub,
        },
    ))
}

/// Writes the user key of an escaped key with its terminator into `out`.
pub(crate) fn unescape(escaped: &[u8], out: &mut Vec<u8>) {
    out.clear();
    let mut rest = &escaped[..escaped.len() - TERMINATOR.len()];
    while let Some(zero) = rest.iter().position(|byte| *byte == 0) {
        out.extend_from_slice(&rest[..=zero]);
        rest = &rest[(zero + 2).min(rest.len())..];
    }
    out.extend_from_slice(rest);
}

/// Builds the many small keys and records of a batch, and the results of a range, in a few large buffers.
#[derive(Debug, Default)]
pub(crate) struct Arena {
    buffer: BytesMut,
    chunk: usize,
}

/// The first buffer is small, since most results are one short value; each later one doubles up to the
/// largest, so that what a survivor keeps alive stays bounded.
const SMALLEST_CHUNK: usize = 1 << 10;
const LARGEST_CHUNK: usize = 1 << 16;

impl Arena {
    fn reserve(&mut self, len: usize) {
        if self.buffer.capacity() - self.buffer.len() < len {
            self.chunk = (self.chunk * 2).clamp(SMALLEST_CHUNK, LARGEST_CHUNK);
            self.buffer = BytesMut::with_capacity(self.chunk.max(len));
        }
    }

    fn take(&mut self) -> Bytes {
        self.buffer.split().freeze()
    }

    pub(crate) fn copy(&mut self, bytes: &[u8]) -> Bytes {
        if bytes.is_empty() {
            return Bytes::new();
        }
        self.reserve(bytes.len());
        self.buffer.put_slice(bytes);
        self.take()
    }

    pub(crate) fn record(&mut self, header: &Header, value: &[u8]) -> Bytes {
        self.reserve(RECORD_HEADER + value.len());
        self.buffer.put_i64(header.modified.main);
        self.buffer.put_u32(header.modified.sub);
        self.buffer.put_i64(header.create);
        self.buffer.put_i64(header.version);
        self.buffer.put_i64(header.lease);
        self.buffer.put_slice(value);
        self.take()
    }

    pub(crate) fn old_key(&mut self, key: &[u8], revision: Revision) -> Bytes {
        let zeros = key.iter().filter(|byte| **byte == 0).count();
        self.reserve(key.len() + zeros + OLD_SUFFIX);
        put_escaped(&mut self.buffer, key);
        self.buffer.put_i64(!revision.main);
        self.buffer.put_u32(!revision.sub);
        self.take()
    }

    /// The entry of a key that is attached to a lease.
    pub(crate) fn attachment(&mut self, lease: i64, key: &[u8]) -> Bytes {
        self.reserve(8 + key.len());
        self.buffer.put_i64(lease);
        self.buffer.put_slice(key);
        self.take()
    }

    pub(crate) fn revision_key(&mut self, revision: Revision) -> Bytes {
        self.copy(&revision_key(revision))
    }

    pub(crate) fn event(&mut self, event: &Event<'_>) -> Bytes {
        self.reserve(13 + event.key.len());
        self.buffer.put_u8(match event.kind {
            Kind::Put => 0,
            Kind::Delete => 1,
        });
        let previous = event.previous.unwrap_or(Revision::ZERO);
        self.buffer.put_i64(previous.main);
        self.buffer.put_u32(previous.sub);
        self.buffer.put_slice(event.key);
        self.take()
    }
}

/// Keys of the table `Meta`.
pub(crate) mod meta {
    use bytes::Bytes;

    pub(crate) const STATE: &[u8] = b"state";
    pub(crate) const COMPACTION: &[u8] = b"compaction";
    pub(crate) const CLUSTER_VERSION: &[u8] = b"cluster_version";
    pub(crate) const MEMBERS: &[u8] = b"member/";
    /// Whether authentication is on, and its revision.
    pub(crate) const AUTH: &[u8] = b"auth";
    pub(crate) const AUTH_ROLES: &[u8] = b"auth/role/";
    /// One past the last key that begins with [`AUTH_ROLES`].
    pub(crate) const AUTH_ROLES_END: &[u8] = b"auth/role0";
    pub(crate) const AUTH_USERS: &[u8] = b"auth/user/";
    /// One past the last key that begins with [`AUTH_USERS`].
    pub(crate) const AUTH_USERS_END: &[u8] = b"auth/user0";
    /// One past the last key that begins with [`MEMBERS`].
    pub(crate) const MEMBERS_END: &[u8] = b"member0";

    pub(crate) const ALARMS: &[u8] = b"alarm/";
    /// One past the last key that begins with [`ALARMS`].
    pub(crate) const ALARMS_END: &[u8] = b"alarm0";
    pub(crate) const DOWNGRADE: &[u8] = b"downgrade";

    /// The rows of the v2 keys.
    pub(crate) const V2: &[u8] = b"v2/";
    /// One past the last key that begins with [`V2`].
    pub(crate) const V2_END: &[u8] = b"v20";

    /// Alarms lie together by type.
    pub(crate) fn alarm(kind: i32, member_id: u64) -> Bytes {
        [ALARMS, &kind.to_be_bytes(), &member_id.to_be_bytes()]
            .concat()
            .into()
    }

    pub(crate) fn member(id: u64) -> Bytes {
        [MEMBERS, &id.to_be_bytes()].concat().into()
    }

    pub(crate) fn auth_user(name: &str) -> Bytes {
        [AUTH_USERS, name.as_bytes()].concat().into()
    }

    pub(crate) fn auth_role(name: &str) -> Bytes {
        [AUTH_ROLES, name.as_bytes()].concat().into()
    }

    /// Keys of the server live under a prefix of their own.
    pub(crate) fn server(key: &str) -> Bytes {
        [b"server/", key.as_bytes()].concat().into()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(prop_oneof![Just(0), Just(1), Just(0xFF), any::<u8>()], 0..6)
    }

    fn revision() -> impl Strategy<Value = Revision> {
        (0i64..4, 0u32..4).prop_map(|(main, sub)| Revision { main, sub })
    }

    proptest! {
        #[test]
        fn old_keys_sort_by_key_then_newest_first(a in key(), ra in revision(), b in key(), rb in revision()) {
            let mut arena = Arena::default();
            let expected = a.cmp(&b).then(rb.cmp(&ra));
            prop_assert_eq!(arena.old_key(&a, ra).cmp(&arena.old_key(&b, rb)), expected);
        }

        #[test]
        fn old_key_reads_back(key in key(), revision in revision()) {
            let old = Arena::default().old_key(&key, revision);
            let (escaped, read) = split_old_key(&old).unwrap();
            prop_assert_eq!(read, revision);
            prop_assert_eq!(escaped, &old_bound(&key)[..]);
            let mut unescaped = b"left over".to_vec();
            unescape(escaped, &mut unescaped);
            prop_assert_eq!(unescaped, key);
        }

        #[test]
        fn versions_of_one_key_are_exactly_its_own(a in key(), main in 0i64..4, b in key(), rb in revision()) {
            let (from, to) = old_versions(&a, main);
            let other = Arena::default().old_key(&b, rb);
            let inside = from[..] <= other[..] && other[..] < to[..];
            prop_assert_eq!(inside, a == b && rb.main <= main);
        }

        #[test]
        fn records_and_events_read_back(key in key(), value in key(), modified in revision(), create: i64, version: i64, lease: i64) {
            let mut arena = Arena::default();
            let header = Header { modified, create, version, lease };
            let record = arena.record(&header, &value);
            prop_assert_eq!(Header::read(&record).unwrap(), header);
            prop_assert_eq!(&record[RECORD_HEADER..], &value[..]);
            for kind in [Kind::Put, Kind::Delete] {
                let event = Event { kind, previous: (modified != Revision::ZERO).then_some(modified), key: &key };
                let bytes = arena.event(&event);
                prop_assert_eq!(Event::read(&bytes).unwrap(), event);
            }
            prop_assert_eq!(read_revision_key(&arena.revision_key(modified)).unwrap(), modified);
        }
    }

    #[test]
    fn damaged_records_are_told() {
        assert!(Header::read(&[0; RECORD_HEADER - 1]).is_err());
        assert!(Event::read(&[2; 20]).is_err());
        assert!(Event::read(&[]).is_err());
        assert!(read_revision_key(&[0; 13]).is_err());
        assert!(split_old_key(&[0; 11]).is_err());
        assert!(split_old_key(&[7; 20]).is_err());
    }
}
