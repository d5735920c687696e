//! Checks of requests that need no state, done before a command is proposed.
//!
//! etcd 3.6: the order of the checks decides which of several errors a client sees.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::command::{
    DeleteRange, LeaseGrant, Put, Range, SortOrder, SortTarget, Txn, TxnOp, TxnRequest,
};
use crate::error::Error;
use crate::keyset::KeySet;
use crate::lease::MAX_LEASE_TTL;

/// How deep transactions may nest, the outermost counted.
///
/// Protobuf decoders stop at 100 nested messages, of which each transaction takes two, and the log wraps the request
/// in one more. What the log holds must be decodable, so the limit lies well below.
pub const MAX_TXN_DEPTH: usize = 40;

/// Checks a range.
///
/// # Errors
/// An empty key, or a sort option that does not exist.
pub fn validate_range(range: &Range) -> Result<(), Error> {
    check_key(&range.key)?;
    if SortOrder::try_from(range.sort_order).is_err()
        || SortTarget::try_from(range.sort_target).is_err()
    {
        return Err(Error::InvalidSortOption);
    }
    Ok(())
}

/// Checks a put.
///
/// # Errors
/// An empty key, or a value or lease beside the wish to keep the present one.
pub fn validate_put(put: &Put) -> Result<(), Error> {
    check_key(&put.key)?;
    if put.ignore_value && !put.value.is_empty() {
        return Err(Error::ValueProvided);
    }
    if put.ignore_lease && put.lease != 0 {
        return Err(Error::LeaseProvided);
    }
    Ok(())
}

/// Checks a delete.
///
/// # Errors
/// An empty key.
pub fn validate_delete_range(delete: &DeleteRange) -> Result<(), Error> {
    check_key(&delete.key)
}

/// Checks a grant of a lease.
///
/// # Errors
/// A TTL above the largest.
pub fn validate_lease_grant(grant: &LeaseGrant) -> Result<(), Error> {
    if grant.ttl > MAX_LEASE_TTL {
        Err(Error::LeaseTtlTooLarge)
    } else {
        Ok(())
    }
}

/// Checks a transaction: its size, every operation, and that no key is written twice.
///
/// `max_ops` bounds the longest list at every level; a nested transaction gets what its parents leave.
///
/// # Errors
/// What is wrong with the first bad part.
pub fn validate_txn(txn: &Txn, max_ops: usize) -> Result<(), Error> {
    check_txn(txn, max_ops, 1)?;
    Writes::of(&txn.success)?;
    Writes::of(&txn.failure)?;
    Ok(())
}

fn check_key(key: &Bytes) -> Result<(), Error> {
    if key.is_empty() {
        Err(Error::EmptyKey)
    } else {
        Ok(())
    }
}

fn check_txn(txn: &Txn, max_ops: usize, depth: usize) -> Result<(), Error> {
    let longest = txn
        .compare
        .len()
        .max(txn.success.len())
        .max(txn.failure.len());
    if longest > max_ops || depth > MAX_TXN_DEPTH {
        return Err(Error::TooManyOps);
    }
    for compare in &txn.compare {
        check_key(&compare.key)?;
    }
    for op in txn.success.iter().chain(&txn.failure) {
        match &op.request {
            Some(TxnRequest::Range(range)) => validate_range(range)?,
            Some(TxnRequest::Put(put)) => validate_put(put)?,
            Some(TxnRequest::DeleteRange(delete)) => validate_delete_range(delete)?,
            Some(TxnRequest::Txn(nested)) => check_txn(nested, max_ops - longest, depth + 1)?,
            None => return Err(Error::KeyNotFound),
        }
    }
    Ok(())
}

/// What a list of operations may write.
///
/// etcd 3.6, quirks kept since clients rely on what is accepted: a delete up to the end of all keys
/// (`range_end` `"\0"`) overlaps nothing, and a put in one nested transaction may meet a delete in a
/// later one at the same level.
#[derive(Default)]
struct Writes<'a> {
    puts: BTreeSet<&'a [u8]>,
    deleted: KeySet<'a>,
}

impl<'a> Writes<'a> {
    fn of(ops: &'a [TxnOp]) -> Result<Self, Error> {
        let mut writes = Writes::default();
        for op in ops {
            if let Some(TxnRequest::DeleteRange(delete)) = &op.request {
                if delete.range_end.is_empty() {
                    writes.deleted.insert(&delete.key);
                } else {
                    writes.deleted.insert_span(&delete.key, &delete.range_end);
                }
            }
        }
        for op in ops {
            if let Some(TxnRequest::Txn(nested)) = &op.request {
                let success = Writes::of(&nested.success)?;
                let failure = Writes::of(&nested.failure)?;
                writes.nest(success, failure)?;
            }
        }
        for op in ops {
            if let Some(TxnRequest::Put(put)) = &op.request {
                writes.put(&put.key)?;
            }
        }
        Ok(writes)
    }

    fn put(&mut self, key: &'a [u8]) -> Result<(), Error> {
        if self.deleted.contains(key) || !self.puts.insert(key) {
            return Err(Error::DuplicateKey);
        }
        Ok(())
    }

    /// Adds both branches of a nested transaction. Only one of them will run, so both may put a key.
    fn nest(&mut self, success: Writes<'a>, failure: Writes<'a>) -> Result<(), Error> {
        for key in &success.puts {
            self.put(key)?;
        }
        for key in failure.puts.difference(&success.puts) {
            self.put(key)?;
        }
        self.deleted.merge(success.deleted);
        self.deleted.merge(failure.deleted);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Command, Compare, Op};

    fn bytes(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    fn put(key: &'static str) -> TxnOp {
        let key = bytes(key);
        TxnRequest::Put(Put {
            key,
            ..Put::default()
        })
        .into()
    }

    fn delete(key: &'static str, range_end: &'static str) -> TxnOp {
        let (key, range_end) = (bytes(key), bytes(range_end));
        TxnRequest::DeleteRange(DeleteRange {
            key,
            range_end,
            prev_kv: false,
        })
        .into()
    }

    fn get(key: &'static str) -> TxnOp {
        let key = bytes(key);
        TxnRequest::Range(Range {
            key,
            ..Range::default()
        })
        .into()
    }

    fn txn(success: Vec<TxnOp>, failure: Vec<TxnOp>) -> Txn {
        Txn {
            compare: vec![],
            success,
            failure,
        }
    }

    fn nested(success: Vec<TxnOp>, failure: Vec<TxnOp>) -> TxnOp {
        TxnRequest::Txn(txn(success, failure)).into()
    }

    fn text(result: Result<(), Error>) -> String {
        result
            .err()
            .map_or_else(|| "ok".to_owned(), |error| error.text())
    }

    const EMPTY_KEY: &str = "etcdserver: key is not provided";
    const NOT_FOUND: &str = "etcdserver: key not found";
    const VALUE_PROVIDED: &str = "etcdserver: value is provided";
    const LEASE_PROVIDED: &str = "etcdserver: lease is provided";
    const SORT_OPTION: &str = "etcdserver: invalid sort option";
    const TOO_MANY: &str = "etcdserver: too many operations in txn request";
    const DUPLICATE: &str = "etcdserver: duplicate key given in txn request";

    #[test]
    fn ranges_are_checked_in_etcds_words() {
        let range = |key, sort_order, sort_target| Range {
            key: bytes(key),
            sort_order,
            sort_target,
            ..Range::default()
        };
        for (range, expected) in [
            (range("k", 0, 0), "ok"),
            (range("k", 2, 4), "ok"),
            (range("", 9, 9), EMPTY_KEY),
            (range("k", 3, 0), SORT_OPTION),
            (range("k", -1, 0), SORT_OPTION),
            (range("k", 0, 5), SORT_OPTION),
        ] {
            assert_eq!(text(validate_range(&range)), expected, "{range:?}");
        }
    }

    #[test]
    fn puts_are_checked_in_etcds_words() {
        let put = |key, value, lease, ignore_value, ignore_lease| Put {
            key: bytes(key),
            value: bytes(value),
            lease,
            prev_kv: false,
            ignore_value,
            ignore_lease,
        };
        for (put, expected) in [
            (put("k", "v", 7, false, false), "ok"),
            (put("k", "", 0, true, true), "ok"),
            (put("", "v", 0, true, true), EMPTY_KEY),
            (put("k", "v", 1, true, true), VALUE_PROVIDED),
            (put("k", "", 1, true, true), LEASE_PROVIDED),
        ] {
            assert_eq!(text(validate_put(&put)), expected, "{put:?}");
        }
        assert_eq!(
            text(validate_delete_range(&DeleteRange::default())),
            EMPTY_KEY
        );
    }

    #[test]
    fn transactions_are_checked_in_etcds_words() {
        let empty_compare = Txn {
            compare: vec![Compare::default()],
            success: vec![TxnOp::default()],
            failure: vec![],
        };
        let three_compares = Txn {
            compare: vec![Compare::default(); 3],
            ..Txn::default()
        };
        for (txn, expected) in [
            (txn(vec![get("a"), get("a")], vec![]), "ok"),
            (txn(vec![], vec![get(""), put("a")]), EMPTY_KEY),
            (txn(vec![put("")], vec![]), EMPTY_KEY),
            (txn(vec![delete("", "z")], vec![]), EMPTY_KEY),
            (txn(vec![TxnOp::default()], vec![]), NOT_FOUND),
            (empty_compare, EMPTY_KEY),
            (three_compares, TOO_MANY),
            (txn(vec![put("a"), put("b"), put("c")], vec![]), TOO_MANY),
            (txn(vec![], vec![put("a"), put("b"), put("")]), TOO_MANY),
            // The outer list of one leaves one to the inner.
            (txn(vec![nested(vec![put("a")], vec![])], vec![]), "ok"),
            (
                txn(vec![nested(vec![put("a"), put("b")], vec![])], vec![]),
                TOO_MANY,
            ),
            (
                txn(
                    vec![nested(vec![nested(vec![put("a")], vec![])], vec![])],
                    vec![],
                ),
                TOO_MANY,
            ),
            (txn(vec![put("a"), put("a")], vec![]), DUPLICATE),
            (
                txn(vec![put("a"), TxnOp::default()], vec![put("a"), put("a")]),
                NOT_FOUND,
            ),
        ] {
            assert_eq!(text(validate_txn(&txn, 2)), expected, "{txn:?}");
        }
    }

    #[test]
    fn a_key_is_written_once_as_far_as_etcd_sees_it() {
        let ok = [
            vec![put("a"), put("b")],
            vec![delete("a", ""), delete("a", "c"), delete("b", "d")],
            vec![delete("a", "c"), put("c")],
            vec![delete("b", ""), put("b\0")],
            vec![nested(vec![put("a")], vec![put("a")])],
            vec![nested(vec![put("a")], vec![delete("a", "")])],
            vec![nested(vec![delete("a", "")], vec![delete("a", "")])],
            // Accepted by etcd, as measured.
            vec![delete("a", "\0"), put("b")],
            vec![put("b"), delete("z", "a")],
            vec![
                nested(vec![put("b")], vec![]),
                nested(vec![delete("b", "")], vec![]),
            ],
        ];
        for ops in ok {
            let txn = txn(ops.clone(), ops);
            assert_eq!(text(validate_txn(&txn, 128)), "ok", "{txn:?}");
        }
        let duplicate = [
            vec![put("a"), put("b"), put("a")],
            vec![put("a"), delete("a", "")],
            vec![delete("a", "c"), put("b")],
            vec![put("b"), delete("a", "c")],
            vec![delete("a", "b"), delete("b", "d"), put("c")],
            vec![put("a"), nested(vec![put("a")], vec![])],
            vec![put("a"), nested(vec![], vec![put("a")])],
            vec![put("a"), nested(vec![delete("a", "b")], vec![])],
            vec![delete("a", ""), nested(vec![], vec![put("a")])],
            vec![
                nested(vec![put("a")], vec![]),
                nested(vec![], vec![put("a")]),
            ],
            vec![
                nested(vec![delete("b", "")], vec![]),
                nested(vec![put("b")], vec![]),
            ],
            vec![
                nested(vec![nested(vec![put("a")], vec![])], vec![put("a")]),
                put("a"),
            ],
        ];
        for ops in duplicate {
            for txn in [txn(ops.clone(), vec![]), txn(vec![], ops)] {
                assert_eq!(text(validate_txn(&txn, 128)), DUPLICATE, "{txn:?}");
            }
        }
    }

    #[test]
    fn deepest_transaction_survives_the_log() {
        let mut deep = txn(vec![put("a")], vec![get("a")]);
        for _ in 1..MAX_TXN_DEPTH {
            deep = txn(vec![TxnRequest::Txn(deep).into()], vec![]);
        }
        assert_eq!(text(validate_txn(&deep, 128)), "ok");
        let command = Command::new(1, Op::Txn(deep.clone()));
        assert_eq!(Command::decode(command.encode()).unwrap(), command);
        let deeper = txn(vec![TxnRequest::Txn(deep).into()], vec![]);
        assert_eq!(text(validate_txn(&deeper, 128)), TOO_MANY);
    }
}
