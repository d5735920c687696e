//! The requests of a load: which RPC, on which keys, and their bytes on the wire.
//!
//! Encodes the messages by hand into a reused buffer; a test holds them against `member-proto`.

/// One kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Put a value of fresh random bytes.
    Put {
        /// Size of each value.
        value_bytes: usize,
        /// The keys written.
        keys: Keys,
    },
    /// Get one key, linearizable.
    RangeLinearizable {
        /// The keys read.
        keys: Keys,
    },
    /// Get one key from whatever the asked member has.
    RangeSerializable {
        /// The keys read.
        keys: Keys,
    },
    /// Get so many keys from one on, linearizable, out of a range that ends there.
    RangeSome {
        /// The keys among which the range lies.
        keys: Keys,
        /// Keys in the range.
        width: u64,
    },
    /// Get so many keys from one on, linearizable, out of a range that ends with the last key: as Kubernetes lists, page by page.
    RangePage {
        /// The keys among which the page begins.
        keys: Keys,
        /// Keys in the page.
        limit: u64,
    },
    /// Put a value of fresh random bytes if the key exists.
    TxnPut {
        /// Size of each value.
        value_bytes: usize,
        /// The keys written.
        keys: Keys,
    },
}

/// The keys that a load touches: `bench/00000000`, `bench/00000001` and so on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keys {
    /// How many there are, at least one.
    pub count: u64,
    /// How they are chosen.
    pub order: Order,
}

/// How the next key is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Each key in turn, shared by all clients: `count` requests touch every key once.
    Sequential,
    /// Uniformly at random.
    Random,
}

impl Operation {
    /// The RPC's path.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Put { .. } => "/etcdserverpb.KV/Put",
            Self::RangeLinearizable { .. }
            | Self::RangeSerializable { .. }
            | Self::RangeSome { .. }
            | Self::RangePage { .. } => "/etcdserverpb.KV/Range",
            Self::TxnPut { .. } => "/etcdserverpb.KV/Txn",
        }
    }

    /// An answer shorter than this cannot hold what was asked for.
    pub(crate) fn smallest_answer(self) -> usize {
        match self {
            Self::Put { .. } => 0,
            Self::RangeLinearizable { .. } | Self::RangeSerializable { .. } => LARGEST_HEADER + 1,
            Self::RangeSome { keys, width } | Self::RangePage { keys, limit: width } => {
                usize::from(KEY_BYTES) * usize::try_from(width.min(keys.count)).unwrap_or(0)
            }
            // The header, `succeeded`, and the answer of the put.
            Self::TxnPut { .. } => 4,
        }
    }

    /// Appends the next request's message.
    pub(crate) fn encode(self, sequence: &mut u64, random: &mut Random, out: &mut Vec<u8>) {
        let (Self::Put { keys, .. }
        | Self::RangeLinearizable { keys }
        | Self::RangeSerializable { keys }
        | Self::RangeSome { keys, .. }
        | Self::RangePage { keys, .. }
        | Self::TxnPut { keys, .. }) = self;
        let starts = match self {
            // Every answer is full.
            Self::RangeSome { width, .. } | Self::RangePage { limit: width, .. } => {
                keys.count.saturating_sub(width)
            }
            _ => keys.count,
        };
        let index = match keys.order {
            Order::Sequential => {
                *sequence += 1;
                *sequence - 1
            }
            Order::Random => random.next(),
        } % starts.max(1);
        if let Self::TxnPut { value_bytes, .. } = self {
            put_txn(index, value_bytes, random, out);
            return;
        }
        out.extend_from_slice(&[FIELD_1_BYTES, KEY_BYTES]);
        put_key(index, out);
        match self {
            Self::Put { value_bytes, .. } => {
                out.push(FIELD_2_BYTES);
                put_varint(value_bytes as u64, out);
                random.fill(value_bytes, out);
            }
            Self::RangeLinearizable { .. } | Self::TxnPut { .. } => {}
            Self::RangeSome { width, .. } => {
                out.extend_from_slice(&[FIELD_2_BYTES, KEY_BYTES]);
                put_key(index + width, out);
            }
            Self::RangePage { limit, .. } => {
                out.push(FIELD_2_BYTES);
                put_varint(PREFIX_END.len() as u64, out);
                out.extend_from_slice(PREFIX_END);
                out.push(FIELD_3_VARINT);
                put_varint(limit, out);
            }
            Self::RangeSerializable { .. } => out.extend_from_slice(&[FIELD_7_VARINT, 1]),
        }
    }
}

/// A response header: tag and length, then four numbers of a tag and at most ten bytes. A range that found nothing answers
/// with no more than this.
const LARGEST_HEADER: usize = 2 + 4 * 11;
const PREFIX: &[u8] = b"bench/";
/// One past the last key that begins with [`PREFIX`].
const PREFIX_END: &[u8] = b"bench0";
const DIGITS: usize = 8;
/// Length of a key: the prefix and the digits.
const KEY_BYTES: u8 = 14;
// Tags of the protobuf fields: number * 8 + wire type.
const FIELD_1_BYTES: u8 = 0x0a;
const FIELD_2_BYTES: u8 = 0x12;
const FIELD_3_BYTES: u8 = 0x1a;
const FIELD_3_VARINT: u8 = 0x18;
const FIELD_7_VARINT: u8 = 0x38;

/// If the key has a version other than 0, which is the version of a missing key, puts it.
fn put_txn(index: u64, value_bytes: usize, random: &mut Random, out: &mut Vec<u8>) {
    const NOT_EQUAL: u8 = 3;
    const FIELD_1_VARINT: u8 = 0x08;
    const FIELD_4_VARINT: u8 = 0x20;
    // Compare: result, then the key; the target is by default the version, which stands in its own field.
    let compare = 2 + 2 + KEY_BYTES + 2;
    out.extend_from_slice(&[FIELD_1_BYTES, compare, FIELD_1_VARINT, NOT_EQUAL]);
    out.extend_from_slice(&[FIELD_3_BYTES, KEY_BYTES]);
    put_key(index, out);
    out.extend_from_slice(&[FIELD_4_VARINT, 0]);
    let value = 1 + varint_bytes(value_bytes) + value_bytes;
    let put = 2 + usize::from(KEY_BYTES) + value;
    let op = 1 + varint_bytes(put) + put;
    out.push(FIELD_2_BYTES);
    put_varint(op as u64, out);
    out.push(FIELD_2_BYTES);
    put_varint(put as u64, out);
    out.extend_from_slice(&[FIELD_1_BYTES, KEY_BYTES]);
    put_key(index, out);
    out.push(FIELD_2_BYTES);
    put_varint(value_bytes as u64, out);
    random.fill(value_bytes, out);
}

fn varint_bytes(value: usize) -> usize {
    let bits = (usize::BITS - value.leading_zeros()).max(1);
    bits.div_ceil(7) as usize
}

fn put_key(index: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(PREFIX);
    let start = out.len();
    out.resize(start + DIGITS, b'0');
    let mut rest = index;
    for digit in out[start..].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
}

fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push((value & 0x7f) as u8);
}

/// SplitMix64: good enough to spread keys and to make values that no store can compress.
#[derive(Clone, Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn fill(&mut self, bytes: usize, out: &mut Vec<u8>) {
        let mut left = bytes;
        while left > 0 {
            let word = self.next().to_le_bytes();
            let take = left.min(word.len());
            out.extend_from_slice(&word[..take]);
            left -= take;
        }
    }
}

#[cfg(test)]
mod tests {
    use member_proto::etcdserverpb::compare::TargetUnion;
    use member_proto::etcdserverpb::request_op::Request;
    use member_proto::etcdserverpb::{Compare, PutRequest, RangeRequest, TxnRequest};
    use prost::Message as _;

    use super::*;

    fn encoded(operation: Operation, sequence: &mut u64) -> Vec<u8> {
        let mut out = Vec::new();
        operation.encode(sequence, &mut Random(7), &mut out);
        out
    }

    #[test]
    fn put_decodes_as_etcds_message() {
        for value_bytes in [0, 1, 7, 127, 128, 256, 100_000] {
            let keys = Keys {
                count: 100,
                order: Order::Sequential,
            };
            let bytes = encoded(Operation::Put { value_bytes, keys }, &mut 42);
            let put = PutRequest::decode(&bytes[..]).unwrap();
            assert_eq!(put.key, "bench/00000042");
            assert_eq!(put.value.len(), value_bytes);
            assert_eq!(
                put,
                PutRequest {
                    key: put.key.clone(),
                    value: put.value.clone(),
                    ..Default::default()
                }
            );
        }
    }

    #[test]
    fn range_decodes_as_etcds_message() {
        let keys = Keys {
            count: 3,
            order: Order::Sequential,
        };
        let linearizable =
            RangeRequest::decode(&encoded(Operation::RangeLinearizable { keys }, &mut 4)[..])
                .unwrap();
        assert_eq!(
            linearizable,
            RangeRequest {
                key: "bench/00000001".into(),
                ..Default::default()
            }
        );
        let serializable =
            RangeRequest::decode(&encoded(Operation::RangeSerializable { keys }, &mut 4)[..])
                .unwrap();
        assert_eq!(
            serializable,
            RangeRequest {
                serializable: true,
                ..linearizable
            }
        );
    }

    #[test]
    fn ranges_of_many_keys_decode_as_etcds_message() {
        let keys = Keys {
            count: 10,
            order: Order::Sequential,
        };
        let some = Operation::RangeSome { keys, width: 4 };
        let page = Operation::RangePage { keys, limit: 300 };
        assert_eq!(
            RangeRequest::decode(&encoded(some, &mut 5)[..]).unwrap(),
            RangeRequest {
                key: "bench/00000005".into(),
                range_end: "bench/00000009".into(),
                ..Default::default()
            }
        );
        assert_eq!(
            RangeRequest::decode(&encoded(page, &mut 5)[..]).unwrap(),
            RangeRequest {
                key: "bench/00000000".into(),
                range_end: "bench0".into(),
                limit: 300,
                ..Default::default()
            }
        );
    }

    #[test]
    fn transaction_decodes_as_etcds_message() {
        let keys = Keys {
            count: 10,
            order: Order::Sequential,
        };
        for value_bytes in [0, 100, 127, 256, 20_000] {
            let bytes = encoded(Operation::TxnPut { value_bytes, keys }, &mut 5);
            let mut txn = TxnRequest::decode(&bytes[..]).unwrap();
            assert_eq!(
                txn.compare,
                [Compare {
                    result: 3,
                    target: 0,
                    key: "bench/00000005".into(),
                    target_union: Some(TargetUnion::Version(0)),
                    ..Default::default()
                }]
            );
            assert!(txn.failure.is_empty());
            let Some(Request::RequestPut(put)) = txn.success.remove(0).request else {
                panic!("not a put: {txn:?}");
            };
            assert_eq!(
                (&put.key[..], put.value.len()),
                (&b"bench/00000005"[..], value_bytes)
            );
            assert!(txn.success.is_empty());
        }
    }

    #[test]
    fn sequential_order_touches_each_key_once() {
        let keys = Keys {
            count: 10,
            order: Order::Sequential,
        };
        let mut sequence = 0;
        let seen: std::collections::BTreeSet<_> = (0..10)
            .map(|_| encoded(Operation::RangeLinearizable { keys }, &mut sequence))
            .collect();
        assert_eq!(seen.len(), 10);
    }
}
