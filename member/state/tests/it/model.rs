//! A naive model: every version ever written in one list, every read a walk over all of it.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use bytes::Bytes;
use member_state::{
    Compare, CompareResult, CompareTarget, CompareValue, DeleteRange, Event, EventKind, KeyValue,
    Lease, Op, Put, Range, RangeResponse, Response, SortOrder, SortTarget, Txn, TxnOp, TxnRequest,
    TxnResponse,
};

pub(crate) type Keys = BTreeMap<Bytes, KeyValue>;
type Answer<T> = Result<T, &'static str>;

pub(crate) const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";
pub(crate) const FUTURE: &str = "etcdserver: mvcc: required revision is a future revision";
pub(crate) const KEY_NOT_FOUND: &str = "etcdserver: key not found";
pub(crate) const LEASE_NOT_FOUND: &str = "etcdserver: requested lease not found";
pub(crate) const LEASE_EXIST: &str = "etcdserver: lease already exists";
pub(crate) const TTL_TOO_LARGE: &str = "etcdserver: too large lease TTL";

#[derive(Debug, Clone)]
struct Write {
    main: i64,
    key: Bytes,
    /// `None` is a tombstone.
    kv: Option<KeyValue>,
}

#[derive(Debug, Clone)]
pub(crate) struct Model {
    writes: Vec<Write>,
    pub(crate) revision: i64,
    pub(crate) compacted: i64,
    pub(crate) leases: BTreeMap<i64, Lease>,
}

fn contains(key: &Bytes, range_end: &Bytes, other: &Bytes) -> bool {
    match &range_end[..] {
        b"" => other == key,
        b"\0" => other >= key,
        _ => key <= other && other < range_end,
    }
}

impl Model {
    pub(crate) fn new() -> Self {
        Model {
            writes: Vec::new(),
            revision: 1,
            compacted: -1,
            leases: BTreeMap::new(),
        }
    }

    /// All live keys at a revision.
    pub(crate) fn at(&self, revision: i64) -> Keys {
        let mut keys = Keys::new();
        for write in self.writes.iter().filter(|write| write.main <= revision) {
            match &write.kv {
                Some(kv) => keys.insert(write.key.clone(), kv.clone()),
                None => keys.remove(&write.key),
            };
        }
        keys
    }

    /// What happened from a revision on, each with what was there before, as far as it can be read.
    pub(crate) fn events(&self, from: i64) -> Vec<Event> {
        let writes = self.writes.iter().filter(|write| write.main >= from);
        writes
            .map(|write| {
                let deleted = KeyValue {
                    key: write.key.clone(),
                    mod_revision: write.main,
                    ..KeyValue::default()
                };
                Event {
                    kind: match write.kv {
                        Some(_) => EventKind::Put,
                        None => EventKind::Delete,
                    },
                    kv: write.kv.clone().unwrap_or(deleted),
                    prev: self.before(&write.key, write.main),
                }
            })
            .collect()
    }

    /// A key as it was before a revision, unless that is compacted.
    pub(crate) fn before(&self, key: &Bytes, revision: i64) -> Option<KeyValue> {
        let readable = revision > self.compacted;
        self.at(revision - 1).remove(key).filter(|_| readable)
    }

    /// How many live keys, and how many superseded versions and tombstones, a full compaction leaves.
    pub(crate) fn survivors(&self) -> (usize, usize) {
        let old = self.writes.iter().enumerate().filter(|(at, write)| {
            let next = self.writes[at + 1..]
                .iter()
                .find(|next| next.key == write.key);
            match (&write.kv, next) {
                (None, _) => write.main >= self.compacted,
                (Some(_), Some(next)) => next.main > self.compacted,
                (Some(_), None) => false,
            }
        });
        (self.at(i64::MAX).len(), old.count())
    }

    pub(crate) fn apply(&mut self, op: &Op) -> Answer<Response> {
        let before = self.clone();
        let begin = self.revision;
        let response = match op {
            Op::Put(put) if self.lacks(put.lease) => Err(LEASE_NOT_FOUND),
            Op::Put(put) => self.put(begin, put),
            Op::DeleteRange(delete) => Ok(self.delete(begin, delete)),
            Op::Txn(txn) => self.txn(txn),
            Op::Compact(compact) => {
                if compact.revision <= self.compacted {
                    Err(COMPACTED)
                } else if compact.revision > self.revision {
                    Err(FUTURE)
                } else {
                    self.compacted = compact.revision;
                    Ok(Response::Compact { revision: begin })
                }
            }
            Op::Publish(_)
            | Op::ClusterVersion(_)
            | Op::Alarm(_)
            | Op::Downgrade(_)
            | Op::V2(_)
            | Op::Auth(_) => Ok(Response::Empty),
            Op::LeaseGrant(grant) if grant.id == 0 => Err(LEASE_NOT_FOUND),
            Op::LeaseGrant(grant) if grant.ttl > 9_000_000_000 => Err(TTL_TOO_LARGE),
            Op::LeaseGrant(grant) if !self.lacks(grant.id) => Err(LEASE_EXIST),
            Op::LeaseGrant(grant) => {
                let (id, ttl) = (grant.id, grant.ttl);
                self.leases.insert(
                    id,
                    Lease {
                        id,
                        ttl,
                        remaining: 0,
                    },
                );
                Ok(Response::LeaseGrant { revision: begin })
            }
            Op::LeaseRevoke(revoke) => match self.leases.remove(&revoke.id) {
                None => Err(LEASE_NOT_FOUND),
                Some(_) => {
                    for key in self.lease_keys(revoke.id) {
                        self.writes.push(Write {
                            main: begin + 1,
                            key,
                            kv: None,
                        });
                    }
                    Ok(Response::LeaseRevoke {
                        revision: self.seen(begin),
                    })
                }
            },
            Op::LeaseCheckpoint(checkpoint) => {
                for part in &checkpoint.leases {
                    if let Some(lease) = self.leases.get_mut(&part.id) {
                        lease.remaining = part.remaining;
                    }
                }
                Ok(Response::Empty)
            }
        };
        match response {
            Ok(_) => self.revision = self.seen(begin),
            Err(_) => *self = before,
        }
        response
    }

    /// Whether a put cannot name this lease.
    fn lacks(&self, lease: i64) -> bool {
        lease != 0 && !self.leases.contains_key(&lease)
    }

    /// The keys whose newest version names the lease.
    pub(crate) fn lease_keys(&self, lease: i64) -> Vec<Bytes> {
        let mut keys = self.at(i64::MAX);
        keys.retain(|_, kv| kv.lease == lease);
        keys.into_keys().collect()
    }

    /// The revision that is visible inside a command which began at `begin`.
    fn seen(&self, begin: i64) -> i64 {
        self.writes
            .last()
            .map_or(begin, |last| last.main.max(begin))
    }

    fn put(&mut self, begin: i64, put: &Put) -> Answer<Response> {
        let prev = self.at(i64::MAX).remove(&put.key);
        if prev.is_none() && (put.ignore_value || put.ignore_lease) {
            return Err(KEY_NOT_FOUND);
        }
        let revision = begin + 1;
        let mut kv = KeyValue {
            key: put.key.clone(),
            create_revision: revision,
            mod_revision: revision,
            version: 1,
            value: put.value.clone(),
            lease: put.lease,
        };
        if let Some(prev) = &prev {
            kv.create_revision = prev.create_revision;
            kv.version = prev.version + 1;
            if put.ignore_value {
                kv.value = prev.value.clone();
            }
            if put.ignore_lease {
                kv.lease = prev.lease;
            }
        }
        self.writes.push(Write {
            main: revision,
            key: put.key.clone(),
            kv: Some(kv),
        });
        Ok(Response::Put {
            revision,
            prev: prev.filter(|_| put.prev_kv),
        })
    }

    fn delete(&mut self, begin: i64, delete: &DeleteRange) -> Response {
        let mut prevs: Vec<_> = self.at(i64::MAX).into_values().collect();
        prevs.retain(|kv| contains(&delete.key, &delete.range_end, &kv.key));
        for kv in &prevs {
            self.writes.push(Write {
                main: begin + 1,
                key: kv.key.clone(),
                kv: None,
            });
        }
        Response::DeleteRange {
            revision: self.seen(begin),
            deleted: i64::try_from(prevs.len()).unwrap(),
            prevs: if delete.prev_kv { prevs } else { vec![] },
        }
    }

    pub(crate) fn range(&self, range: &Range) -> Answer<RangeResponse> {
        self.range_within(self.revision, range)
    }

    fn range_within(&self, begin: i64, range: &Range) -> Answer<RangeResponse> {
        let current = self.seen(begin);
        let at = match range.revision {
            revision if revision > current => return Err(FUTURE),
            revision if revision <= 0 => current,
            revision if revision < self.compacted => return Err(COMPACTED),
            revision => revision,
        };
        let mut kvs: Vec<_> = self.at(at).into_values().collect();
        kvs.retain(|kv| contains(&range.key, &range.range_end, &kv.key));
        let count = i64::try_from(kvs.len()).unwrap();
        if range.count_only {
            return Ok(RangeResponse {
                revision: current,
                kvs: vec![],
                more: false,
                count,
            });
        }
        let filters = [
            range.min_mod_revision,
            range.max_mod_revision,
            range.min_create_revision,
            range.max_create_revision,
        ];
        let limit = usize::try_from(range.limit).ok().filter(|limit| *limit > 0);
        if let Some(limit) = limit
            && range.sort_order() == SortOrder::None
            && filters == [0; 4]
        {
            kvs.truncate(limit + 1);
        }
        kvs.retain(|kv| {
            (range.max_mod_revision == 0 || kv.mod_revision <= range.max_mod_revision)
                && (range.min_mod_revision == 0 || kv.mod_revision >= range.min_mod_revision)
                && (range.max_create_revision == 0
                    || kv.create_revision <= range.max_create_revision)
                && (range.min_create_revision == 0
                    || kv.create_revision >= range.min_create_revision)
        });
        kvs.sort_by(|a, b| {
            let order = match range.sort_target() {
                SortTarget::Key => a.key.cmp(&b.key),
                SortTarget::Version => a.version.cmp(&b.version),
                SortTarget::Create => a.create_revision.cmp(&b.create_revision),
                SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
                SortTarget::Value => a.value.cmp(&b.value),
            };
            match range.sort_order() {
                SortOrder::Descend => order.reverse(),
                _ => order,
            }
        });
        let more = limit.is_some_and(|limit| kvs.len() > limit);
        kvs.truncate(limit.unwrap_or(usize::MAX));
        if range.keys_only {
            for kv in &mut kvs {
                kv.value = Bytes::new();
            }
        }
        Ok(RangeResponse {
            revision: current,
            kvs,
            more,
            count,
        })
    }

    pub(crate) fn txn(&mut self, txn: &Txn) -> Answer<Response> {
        let begin = self.revision;
        let before = self.clone();
        before.check(txn)?;
        let mut response = self.run(&before, begin, txn)?;
        response.revision = self.seen(begin);
        Ok(Response::Txn(response))
    }

    fn branch<'t>(&self, txn: &'t Txn) -> (bool, &'t [TxnOp]) {
        let keys = self.at(i64::MAX);
        let succeeded = txn.compare.iter().all(|compare| holds(&keys, compare));
        (
            succeeded,
            if succeeded {
                &txn.success
            } else {
                &txn.failure
            },
        )
    }

    fn check(&self, txn: &Txn) -> Answer<()> {
        for op in self.branch(txn).1 {
            match op.request.as_ref().unwrap() {
                TxnRequest::Range(range) if range.revision > self.revision => return Err(FUTURE),
                TxnRequest::Range(range)
                    if range.revision != 0 && range.revision < self.compacted =>
                {
                    return Err(COMPACTED);
                }
                TxnRequest::Put(put)
                    if (put.ignore_value || put.ignore_lease)
                        && !self.at(i64::MAX).contains_key(&put.key) =>
                {
                    return Err(KEY_NOT_FOUND);
                }
                TxnRequest::Put(put) if self.lacks(put.lease) => return Err(LEASE_NOT_FOUND),
                TxnRequest::Txn(nested) => self.check(nested)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn run(&mut self, before: &Model, begin: i64, txn: &Txn) -> Answer<TxnResponse> {
        let (succeeded, ops) = before.branch(txn);
        let mut responses = Vec::new();
        for op in ops {
            responses.push(match op.request.as_ref().unwrap() {
                TxnRequest::Range(range) => Response::Range(self.range_within(begin, range)?),
                TxnRequest::Put(put) => self.put(begin, put)?,
                TxnRequest::DeleteRange(delete) => self.delete(begin, delete),
                TxnRequest::Txn(nested) => Response::Txn(self.run(before, begin, nested)?),
            });
        }
        Ok(TxnResponse {
            revision: 0,
            succeeded,
            responses,
        })
    }
}

fn holds(keys: &Keys, compare: &Compare) -> bool {
    let mut found: Vec<_> = keys.values().collect();
    found.retain(|kv| contains(&compare.key, &compare.range_end, &kv.key));
    let missing = KeyValue::default();
    if found.is_empty() {
        if compare.target() == CompareTarget::Value {
            return false;
        }
        found.push(&missing);
    }
    found.into_iter().all(|kv| {
        let number = |stored: i64, given: Option<i64>| stored.cmp(&given.unwrap_or(0));
        let order = match (compare.target(), &compare.value) {
            (CompareTarget::Value, Some(CompareValue::Value(given))) => kv.value.cmp(given),
            (CompareTarget::Value, _) => kv.value.cmp(&Bytes::new()),
            (CompareTarget::Version, given) => number(
                kv.version,
                match given {
                    Some(CompareValue::Version(given)) => Some(*given),
                    _ => None,
                },
            ),
            (CompareTarget::Create, given) => number(
                kv.create_revision,
                match given {
                    Some(CompareValue::CreateRevision(given)) => Some(*given),
                    _ => None,
                },
            ),
            (CompareTarget::Mod, given) => number(
                kv.mod_revision,
                match given {
                    Some(CompareValue::ModRevision(given)) => Some(*given),
                    _ => None,
                },
            ),
            (CompareTarget::Lease, given) => number(
                kv.lease,
                match given {
                    Some(CompareValue::Lease(given)) => Some(*given),
                    _ => None,
                },
            ),
        };
        match compare.result() {
            CompareResult::Equal => order == Ordering::Equal,
            CompareResult::NotEqual => order != Ordering::Equal,
            CompareResult::Greater => order == Ordering::Greater,
            CompareResult::Less => order == Ordering::Less,
        }
    })
}
