//! One command against the batch: puts, deletes, and transactions with their compares.
//!
//! As in etcd, a transaction decides everything before it writes anything: all compares, those of nested
//! transactions included, and all checks look at the state before the transaction; only its
//! reads see its own writes. So a refused command leaves no trace.

use bytes::Bytes;

use crate::backend::{Backend, Batch, Table};
use crate::command::{
    DeleteRange, KeyValue, Put, Range, RangeResponse, Response, Txn, TxnOp, TxnRequest, TxnResponse,
};
use crate::error::Error;
use crate::history::{self, Event as Happened};
use crate::keyset::KeySet;
use crate::layout::{self, Arena, Event, Header, Kind, RECORD_HEADER, Revision};
use crate::lease;
use crate::read::{self, Keys, Scan};
use crate::view::View;

/// A command under execution. All its writes carry the revision after `begin`.
pub(crate) struct Execution<'w, B> {
    pub(crate) backend: &'w B,
    pub(crate) batch: &'w mut Batch,
    pub(crate) arena: &'w mut Arena,
    /// The revision before the command.
    pub(crate) begin: i64,
    pub(crate) compacted: i64,
    /// The number of writes so far.
    pub(crate) writes: u32,
    /// The bytes of the versions written so far, as [`layout::version_bytes`] counts them.
    pub(crate) written_bytes: u64,
    /// Whether somebody waits for the answer; reads are for him only.
    pub(crate) want_response: bool,
    /// Where the events go, if somebody wants them.
    pub(crate) events: Option<&'w mut Vec<Happened>>,
}

impl<B: Backend> Execution<'_, B> {
    /// The revision that the command's next read sees, and at its end the store's.
    pub(crate) fn revision(&self) -> i64 {
        self.begin + i64::from(self.writes > 0)
    }

    fn view(&self) -> View<'_, B> {
        View::within(self.backend, self.batch)
    }

    /// Puts a key outside of a transaction.
    pub(crate) fn put(&mut self, put: &Put) -> Result<Response, Error> {
        lease::check(self.view(), put.lease)?;
        self.write(put)
    }

    fn write(&mut self, put: &Put) -> Result<Response, Error> {
        let record = self.view().get(Table::Current, &put.key)?;
        let previous = match &record {
            Some(record) => Some(Header::read(record)?),
            None => None,
        };
        if previous.is_none() && (put.ignore_value || put.ignore_lease) {
            return Err(Error::KeyNotFound);
        }
        let kept = record.as_ref().filter(|_| put.ignore_value);
        let value = kept.map_or(&put.value[..], |record| &record[RECORD_HEADER..]);
        let kept = previous.filter(|_| put.ignore_lease);
        let modified = self.next_write();
        let header = Header {
            modified,
            create: previous.map_or(modified.main, |previous| previous.create),
            version: previous.map_or(0, |previous| previous.version) + 1,
            lease: kept.map_or(put.lease, |previous| previous.lease),
        };
        let new = self.arena.record(&header, value);
        self.written_bytes += layout::version_bytes(put.key.len(), value.len());
        self.log(
            modified,
            &Event {
                kind: Kind::Put,
                previous: previous.map(|previous| previous.modified),
                key: &put.key,
            },
        );
        if let Some(events) = &mut self.events {
            let prev = record.as_ref().zip(previous.as_ref());
            events.push(Happened::put(
                layout::join(put.key.clone(), &header, new.slice(RECORD_HEADER..)),
                prev.map(|(record, header)| history::superseded(&put.key, header, record)),
            ));
        }
        self.batch.put(Table::Current, put.key.clone(), new);
        let lease = previous.map_or(0, |previous| previous.lease);
        if header.lease != lease {
            self.detach(lease, &put.key);
            self.attach(header.lease, &put.key);
        }
        let mut prev = None;
        if let (Some(record), Some(header)) = (record, previous) {
            if put.prev_kv && self.want_response {
                prev = Some(layout::join(
                    put.key.clone(),
                    &header,
                    record.slice(RECORD_HEADER..),
                ));
            }
            let old = self.arena.old_key(&put.key, header.modified);
            self.batch.put(Table::Old, old, record);
        }
        Ok(Response::Put {
            revision: modified.main,
            prev,
        })
    }

    pub(crate) fn delete_range(&mut self, delete: &DeleteRange) -> Result<Response, Error> {
        let keys = Keys::new(&delete.key, &delete.range_end);
        let view = View::within(self.backend, self.batch);
        let found = read::records(view, &keys, self.arena)?;
        let deleted = i64::try_from(found.len()).unwrap_or(i64::MAX);
        let mut prevs = Vec::new();
        if delete.prev_kv && self.want_response {
            prevs = found
                .iter()
                .map(|(key, record)| layout::key_value(key.clone(), record))
                .collect::<Result<Vec<KeyValue>, _>>()?;
        }
        for (key, record) in found {
            self.bury(key, record)?;
        }
        Ok(Response::DeleteRange {
            revision: self.revision(),
            deleted,
            prevs,
        })
    }

    /// Moves a key's record to the old versions and sets a tombstone over it.
    pub(crate) fn bury(&mut self, key: Bytes, record: Bytes) -> Result<(), Error> {
        let header = Header::read(&record)?;
        let last = header.modified;
        self.detach(header.lease, &key);
        let modified = self.next_write();
        if let Some(events) = &mut self.events {
            let prev = history::superseded(&key, &header, &record);
            events.push(Happened::delete(key.clone(), modified.main, Some(prev)));
        }
        self.written_bytes += layout::version_bytes(key.len(), 0);
        let old = self.arena.old_key(&key, last);
        self.batch.put(Table::Old, old, record);
        let old = self.arena.old_key(&key, modified);
        let tombstone = self.arena.record(&Header::tombstone(modified), &[]);
        self.batch.put(Table::Old, old, tombstone);
        self.log(
            modified,
            &Event {
                kind: Kind::Delete,
                previous: Some(last),
                key: &key,
            },
        );
        self.batch.delete(Table::Current, key);
        Ok(())
    }

    fn next_write(&mut self) -> Revision {
        let revision = Revision {
            main: self.begin + 1,
            sub: self.writes,
        };
        self.writes += 1;
        revision
    }

    fn log(&mut self, revision: Revision, event: &Event<'_>) {
        let key = self.arena.revision_key(revision);
        let value = self.arena.event(event);
        self.batch.put(Table::Revisions, key, value);
    }

    pub(crate) fn txn(&mut self, txn: &Txn) -> Result<Response, Error> {
        let path = Path::choose(self.view(), txn, self.begin, self.compacted)?;
        let mut response = self.run(txn, &mut path.walk())?;
        response.revision = self.revision();
        Ok(Response::Txn(response))
    }

    fn run(&mut self, txn: &Txn, path: &mut Branches<'_>) -> Result<TxnResponse, Error> {
        let (succeeded, ops) = path.enter(txn);
        let mut responses = Vec::with_capacity(if self.want_response { ops.len() } else { 0 });
        for op in ops {
            let response = match &op.request {
                Some(TxnRequest::Range(range)) if self.want_response => {
                    Response::Range(self.range(range)?)
                }
                Some(TxnRequest::Put(put)) => self.write(put)?,
                Some(TxnRequest::DeleteRange(delete)) => self.delete_range(delete)?,
                Some(TxnRequest::Txn(txn)) => Response::Txn(self.run(txn, path)?),
                Some(TxnRequest::Range(_)) | None => Response::Empty,
            };
            if self.want_response {
                responses.push(response);
            }
        }
        Ok(TxnResponse {
            revision: 0,
            succeeded,
            responses,
        })
    }

    fn range(&self, range: &Range) -> Result<RangeResponse, Error> {
        let current = self.revision();
        let at = read::resolve(range.revision, current, self.compacted)?;
        let keys = Keys::new(&range.key, &range.range_end);
        // A walk, because the counts know nothing of this batch.
        read::collect(Scan::open(self.view(), &keys, at)?, None, range, current)
    }
}

/// Which branch a transaction and each nested one takes, in the order in which they are met.
#[derive(Debug)]
pub(crate) struct Path(Vec<bool>);

impl Path {
    /// Evaluates all compares on the state before the transaction, and checks every operation on the way.
    pub(crate) fn choose<B: Backend>(
        view: View<'_, B>,
        txn: &Txn,
        current: i64,
        compacted: i64,
    ) -> Result<Path, Error> {
        let mut path = Path(Vec::with_capacity(1));
        path.extend(view, txn)?;
        let mut checks = Checks {
            view,
            current,
            compacted,
            deleted: KeySet::default(),
            vanished: false,
        };
        checks.run(txn, &mut path.walk())?;
        if checks.vanished {
            return Err(Error::KeyNotFound);
        }
        Ok(path)
    }

    fn extend<B: Backend>(&mut self, view: View<'_, B>, txn: &Txn) -> Result<(), Error> {
        let mut succeeded = true;
        for compare in &txn.compare {
            if !read::holds(view, compare)? {
                succeeded = false;
                break;
            }
        }
        self.0.push(succeeded);
        for op in branch(txn, succeeded) {
            if let Some(TxnRequest::Txn(nested)) = &op.request {
                self.extend(view, nested)?;
            }
        }
        Ok(())
    }

    pub(crate) fn walk(&self) -> Branches<'_> {
        Branches(self.0.iter())
    }
}

fn branch(txn: &Txn, succeeded: bool) -> &[TxnOp] {
    if succeeded {
        &txn.success
    } else {
        &txn.failure
    }
}

/// A walk along a path.
pub(crate) struct Branches<'p>(std::slice::Iter<'p, bool>);

impl Branches<'_> {
    /// The branch of the next transaction on the path.
    pub(crate) fn enter<'t>(&mut self, txn: &'t Txn) -> (bool, &'t [TxnOp]) {
        let succeeded = self.0.next().copied().unwrap_or(false);
        (succeeded, branch(txn, succeeded))
    }
}

/// etcd 3.6: inside a transaction a negative revision is the newest only until the first compaction.
pub(crate) fn check_range(range: &Range, current: i64, compacted: i64) -> Result<(), Error> {
    match range.revision {
        0 => Ok(()),
        revision if revision > current => Err(Error::FutureRevision),
        revision if revision < compacted => Err(Error::Compacted),
        _ => Ok(()),
    }
}

/// The checks of a transaction's operations, in the order in which they will run.
struct Checks<'t, 'v, B> {
    view: View<'v, B>,
    current: i64,
    compacted: i64,
    /// What the operations so far delete.
    deleted: KeySet<'t>,
    /// Whether a put keeps what an operation before it deletes. Validation lets some of those through, and
    /// etcd 3.6 then panics; here it is the error with the lowest precedence.
    vanished: bool,
}

impl<'t, B: Backend> Checks<'t, '_, B> {
    fn run(&mut self, txn: &'t Txn, path: &mut Branches<'_>) -> Result<(), Error> {
        let (_, ops) = path.enter(txn);
        for op in ops {
            match &op.request {
                Some(TxnRequest::Range(range)) => {
                    check_range(range, self.current, self.compacted)?;
                }
                Some(TxnRequest::Put(put)) => self.put(put)?,
                Some(TxnRequest::DeleteRange(delete)) => {
                    match Keys::new(&delete.key, &delete.range_end) {
                        Keys::One(key) => self.deleted.insert(key),
                        Keys::Span(from, Some(to)) => self.deleted.insert_span(from, to),
                        Keys::Span(from, None) => self.deleted.insert_tail(from),
                        Keys::Nothing => {}
                    }
                }
                Some(TxnRequest::Txn(nested)) => self.run(nested, path)?,
                None => {}
            }
        }
        Ok(())
    }

    fn put(&mut self, put: &Put) -> Result<(), Error> {
        if put.ignore_value || put.ignore_lease {
            if self.view.get(Table::Current, &put.key)?.is_none() {
                return Err(Error::KeyNotFound);
            }
            self.vanished |= self.deleted.contains(&put.key);
        }
        lease::check(self.view, put.lease)
    }
}
