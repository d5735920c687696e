//! The store: the published state, and the door for readers.
//!
//! Readers hold the lock on [`State`] shared while they open a read, and a commit holds it exclusively while it
//! writes; so the revision that a reader took and the tables that it opened belong together. Nobody
//! holds it while collecting a result.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, TryLockError};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;

use crate::alarm::{self, Alarmed};
use crate::applier::Applier;
use crate::auth::Auth;
use crate::backend::{Backend, BackendError, Batch, Cursor, Table};
use crate::blocks::Sizes;
use crate::command::{
    AlarmMember, Compare, Lease, MemberAttributes, Range, RangeResponse, Response, Txn, TxnOp,
    TxnRequest, TxnResponse,
};
use crate::compaction::{self, CompactProgress, Sweep};
use crate::counts::{COUNTED_AT_OPEN, Counts};
use crate::error::{Corruption, Error, OpenError};
use crate::execute::{Path, check_range};
use crate::layout::{Revision, meta, revision_key};
use crate::lease;
use crate::read::{self, Keys, Scan, Shortcut};
use crate::view::View;

/// The format of the tables. Another number means that this version must not touch them.
const FORMAT: u32 = 1;

/// Where in the log a command stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogPosition {
    /// The term of the entry.
    pub term: u64,
    /// The leader that proposed it.
    pub node: u64,
    /// Its index.
    pub index: u64,
}

/// What a commit publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) revision: i64,
    pub(crate) compacted: i64,
    pub(crate) applied: Option<LogPosition>,
    /// The bytes of all versions ever written; less what sweeps removed, it is what is in use.
    pub(crate) written_bytes: u64,
    /// Not in the record: read from the alarms.
    pub(crate) alarmed: Alarmed,
}

impl State {
    /// etcd 3.6: the first revision is 1, and -1 is compacted, so that a compaction at 0 is accepted once.
    pub(crate) const EMPTY: State = State {
        revision: 1,
        compacted: -1,
        applied: None,
        written_bytes: 0,
        alarmed: Alarmed {
            nospace: false,
            corrupt: false,
        },
    };

    pub(crate) fn write(&self, batch: &mut Batch) {
        let mut out = BytesMut::with_capacity(53);
        out.put_u32(FORMAT);
        out.put_i64(self.revision);
        out.put_i64(self.compacted);
        if let Some(LogPosition { term, node, index }) = self.applied {
            out.put_u8(1);
            out.put_u64(term);
            out.put_u64(node);
            out.put_u64(index);
        } else {
            out.put_u8(0);
        }
        out.put_u64(self.written_bytes);
        batch.put(Table::Meta, Bytes::from_static(meta::STATE), out.freeze());
    }

    pub(crate) fn read(mut bytes: &[u8]) -> Result<State, OpenError> {
        let damaged = |_| Corruption {
            table: "meta",
            what: "the state's record",
        };
        let found = bytes.try_get_u32().map_err(damaged)?;
        if found != FORMAT {
            return Err(OpenError::Format {
                found,
                expected: FORMAT,
            });
        }
        let mut parse = || {
            let revision = bytes.try_get_i64()?;
            let compacted = bytes.try_get_i64()?;
            let applied = match bytes.try_get_u8()? {
                0 => None,
                _ => Some(LogPosition {
                    term: bytes.try_get_u64()?,
                    node: bytes.try_get_u64()?,
                    index: bytes.try_get_u64()?,
                }),
            };
            Ok(State {
                revision,
                compacted,
                applied,
                // A record of an earlier release ends here.
                written_bytes: bytes.try_get_u64().unwrap_or(0),
                alarmed: Alarmed::default(),
            })
        };
        let state = parse().map_err(damaged)?;
        if state.revision < 1 || state.compacted > state.revision {
            return Err(Corruption {
                table: "meta",
                what: "the order of revision and compacted revision",
            }
            .into());
        }
        Ok(state)
    }
}

/// A read of a transaction, opened if it may be.
type Opened<'s, 't, B> = (
    &'t Range,
    Result<(Scan<'s, B>, Option<Shortcut<'s, B>>), Error>,
);

/// What the opened reads of the branch that counts say.
fn answer_branch<B: Backend>(
    opened: Vec<Opened<'_, '_, B>>,
    succeeded: bool,
    current: i64,
) -> Result<TxnResponse, Error> {
    let opened: Vec<_> = opened
        .into_iter()
        .map(|(range, opened)| opened.map(|opened| (range, opened)))
        .collect::<Result<_, Error>>()?;
    let responses = opened
        .into_iter()
        .map(|(range, (scan, shortcut))| {
            read::collect(scan, shortcut, range, current).map(Response::Range)
        })
        .collect::<Result<_, _>>()?;
    Ok(TxnResponse {
        revision: current,
        succeeded,
        responses,
    })
}

/// The key-value state of a member. Shared by reference: reads from many threads, one applier.
#[derive(Debug)]
pub struct Store<B> {
    pub(crate) backend: B,
    pub(crate) state: RwLock<State>,
    /// The same for those who look at no table: never held for longer than an assignment takes.
    glance: RwLock<State>,
    pub(crate) applying: AtomicBool,
    pub(crate) sweep: Mutex<Sweep>,
    pub(crate) counts: Counts,
    /// Replaced by a commit that changes it, while that commit holds `state`.
    auth: RwLock<Arc<Auth>>,
    /// Whether `auth` is enabled, for those who need to know nothing else.
    auth_enabled: AtomicBool,
}

impl<B: Backend> Store<B> {
    /// Opens what the backend holds; an empty backend is an empty store.
    ///
    /// # Errors
    /// When the backend cannot be read, or holds something that this version did not write.
    pub fn open(backend: B) -> Result<Self, OpenError> {
        Store::open_counting(backend, Sizes::DEFAULT, COUNTED_AT_OPEN)
    }

    pub(crate) fn open_counting(
        backend: B,
        sizes: Sizes,
        counted_at_open: usize,
    ) -> Result<Self, OpenError> {
        let mut state = match backend.get(Table::Meta, meta::STATE)? {
            Some(record) => State::read(&record)?,
            None => State::EMPTY,
        };
        let alarms = alarm::list(View::committed(&backend)).map_err(|error| match error {
            Error::Backend(error) => OpenError::Backend(error),
            error => OpenError::Backend(BackendError::new(error)),
        })?;
        state.alarmed = Alarmed::of(&alarms);
        // The batch that wrote a revision also wrote the state, so no entry can be ahead of it.
        let ahead = revision_key(Revision {
            main: state.revision + 1,
            sub: 0,
        });
        if backend
            .cursor(Table::Revisions, &ahead, None)?
            .next()?
            .is_some()
        {
            return Err(Corruption {
                table: "revisions",
                what: "the end of history",
            }
            .into());
        }
        let sweep = match backend.get(Table::Meta, meta::COMPACTION)? {
            Some(record) => Sweep::read(&record)?,
            None => Sweep::START,
        };
        let counts = Counts::open(&backend, sizes, counted_at_open)?;
        let auth = Auth::open(&backend)?;
        Ok(Store {
            backend,
            counts,
            state: RwLock::new(state),
            glance: RwLock::new(state),
            applying: AtomicBool::new(false),
            sweep: Mutex::new(sweep),
            auth_enabled: AtomicBool::new(auth.enabled()),
            auth: RwLock::new(Arc::new(auth)),
        })
    }

    /// The backend itself, for its own maintenance (flush, checkpoint).
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// The current revision; 1 when nothing was ever written.
    pub fn revision(&self) -> i64 {
        self.glance().revision
    }

    /// The oldest readable revision; -1 before the first compaction.
    pub fn compact_revision(&self) -> i64 {
        self.glance().compacted
    }

    /// The last entry of the log whose effect is in the state.
    pub fn applied(&self) -> Option<LogPosition> {
        self.glance().applied
    }

    /// Bytes that the backend holds.
    pub fn size(&self) -> u64 {
        self.backend.size()
    }

    /// Bytes of the versions that are not compacted away, before compression and without indexes.
    pub fn size_in_use(&self) -> u64 {
        let written = self.glance().written_bytes;
        let sweep = self.sweep.lock().unwrap_or_else(PoisonError::into_inner);
        written.saturating_sub(sweep.removed_bytes())
    }

    /// The alarms that are on, by type, then by member.
    ///
    /// # Errors
    /// When the backend fails or holds a damaged entry.
    pub fn alarms(&self) -> Result<Vec<AlarmMember>, Error> {
        alarm::list(View::committed(&self.backend))
    }

    /// Whether any member has run out of space.
    pub fn is_out_of_space(&self) -> bool {
        self.glance().alarmed.nospace
    }

    /// Whether any member is said to be corrupt.
    pub fn is_corrupt(&self) -> bool {
        self.glance().alarmed.corrupt
    }

    /// The version that the cluster is being downgraded to, if it is.
    ///
    /// # Errors
    /// When the backend fails or holds a damaged entry.
    pub fn downgrade_target(&self) -> Result<Option<String>, Error> {
        let Some(target) = self.backend.get(Table::Meta, meta::DOWNGRADE)? else {
            return Ok(None);
        };
        String::from_utf8(target.into()).map(Some).map_err(|_| {
            Error::from(Corruption {
                table: "meta",
                what: "the version of the downgrade",
            })
        })
    }

    /// Whether calls are checked; cheap enough for every call.
    pub fn auth_enabled(&self) -> bool {
        self.auth_enabled.load(Ordering::Acquire)
    }

    /// The users and roles of this moment.
    pub fn auth(&self) -> Arc<Auth> {
        let auth = self.auth.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&auth)
    }

    pub(crate) fn publish_auth(&self, auth: Arc<Auth>) {
        let enabled = auth.enabled();
        *self.auth.write().unwrap_or_else(PoisonError::into_inner) = auth;
        self.auth_enabled.store(enabled, Ordering::Release);
    }

    pub(crate) fn published(&self) -> RwLockReadGuard<'_, State> {
        // A `State` is replaced in one assignment, so a panic elsewhere cannot have torn it.
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn glance(&self) -> State {
        *self.glance.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows a state that is committed.
    pub(crate) fn show(&self, state: State) {
        *self.glance.write().unwrap_or_else(PoisonError::into_inner) = state;
    }

    /// Whether a commit is under way, which reads of the tables wait for.
    fn is_committing(&self) -> bool {
        matches!(self.state.try_read(), Err(TryLockError::WouldBlock))
    }

    /// Answers a validated range from one revision.
    ///
    /// # Errors
    /// When the revision asked for is compacted or in the future, or the backend fails.
    pub fn range(&self, range: &Range) -> Result<RangeResponse, Error> {
        let keys = Keys::new(&range.key, &range.range_end);
        let state = self.published();
        let current = state.revision;
        let at = read::resolve(range.revision, current, state.compacted)?;
        let (scan, shortcut) = self.open_read(range, &keys, at, current)?;
        drop(state);
        read::collect(scan, shortcut, range, current)
    }

    /// Opens a read of the published state, which the caller holds.
    fn open_read(
        &self,
        range: &Range,
        keys: &Keys<'_>,
        at: Option<i64>,
        current: i64,
    ) -> Result<(Scan<'_, B>, Option<Shortcut<'_, B>>), Error> {
        let scan = Scan::open(View::committed(&self.backend), keys, at)?;
        let shortcut = Shortcut::open(&self.backend, &self.counts, range, keys, at, current)?;
        Ok((scan, shortcut))
    }

    /// Whether a range is answered by visiting not many more than `keys` keys, so that nobody has to wait for it.
    pub fn is_short(&self, range: &Range, keys: usize) -> bool {
        !self.is_committing() && self.visits_few(range, keys)
    }

    fn visits_few(&self, range: &Range, keys: usize) -> bool {
        let newest = range.revision <= 0;
        range.range_end.is_empty()
            || (newest && self.is_counted() && (range.count_only || read::enough(range) <= keys))
    }

    /// As [`Store::is_short`], of all that a [read-only](Txn::is_read_only) transaction may read and compare together.
    pub fn is_short_txn(&self, txn: &Txn, keys: usize) -> bool {
        if self.is_committing() {
            return false;
        }
        let mut visited = 0usize;
        for compare in &txn.compare {
            if !compare.range_end.is_empty() {
                return false;
            }
            visited += 1;
        }
        for op in txn.success.iter().chain(&txn.failure) {
            match &op.request {
                Some(TxnRequest::Range(range)) if self.visits_few(range, keys) => {
                    let one = range.range_end.is_empty() || range.count_only;
                    let visits = if one { 1 } else { read::enough(range) };
                    visited = visited.saturating_add(visits);
                }
                _ => return false,
            }
        }
        visited <= keys
    }

    /// Whether counts are at hand: until then the count of a range, with or without a limit, walks the range.
    pub fn is_counted(&self) -> bool {
        self.counts.known()
    }

    /// Counts the keys, unless that is done or being done. May run beside reads and an applier; visits every key,
    /// so a second for a million.
    ///
    /// # Errors
    /// When the backend fails. Counts then go on to walk.
    pub fn count_keys(&self) -> Result<(), BackendError> {
        let state = self.published();
        let walk = self.counts.start(&self.backend)?;
        drop(state);
        let Some(walk) = walk else {
            return Ok(());
        };
        let blocks = self.counts.build(walk)?;
        let state = self.published();
        let result = self.counts.finish(&self.backend, blocks);
        drop(state);
        result
    }

    /// Answers a validated transaction from one revision.
    ///
    /// # Errors
    /// When a revision asked for is compacted or in the future, or the backend fails.
    ///
    /// # Panics
    /// When the transaction is not [read-only](Txn::is_read_only): it must be replicated.
    pub fn read_txn(&self, txn: &Txn) -> Result<TxnResponse, Error> {
        assert!(
            txn.is_read_only(),
            "a transaction that writes was not replicated"
        );
        let ranged = |compare: &Compare| !compare.range_end.is_empty();
        if txn.compare.iter().any(ranged) {
            return self.read_txn_by_ranges(txn);
        }
        let view = View::committed(&self.backend);
        let state = self.published();
        let current = state.revision;
        let path = Path::choose(view, txn, current, state.compacted)?;
        let (succeeded, ops) = path.walk().enter(txn);
        let opened = self.open_branch(ops, &state);
        drop(state);
        answer_branch(opened, succeeded, current)
    }

    /// A transaction whose compares may walk over every key: nobody may have to wait for that, so what both branches
    /// read is opened before it is known which one counts.
    fn read_txn_by_ranges(&self, txn: &Txn) -> Result<TxnResponse, Error> {
        let view = View::committed(&self.backend);
        let state = self.published();
        let current = state.revision;
        let mut compares = Vec::with_capacity(txn.compare.len());
        for compare in &txn.compare {
            compares.push((read::open_compare(view, compare)?, compare));
        }
        let [success, failure] =
            [&txn.success, &txn.failure].map(|ops| self.open_branch(ops, &state));
        drop(state);
        let mut succeeded = true;
        for (scan, compare) in compares {
            succeeded = read::holds_in(scan, compare)?;
            if !succeeded {
                break;
            }
        }
        let chosen = if succeeded { success } else { failure };
        answer_branch(chosen, succeeded, current)
    }

    /// Opens the reads of one branch, those that must be refused too.
    fn open_branch<'s, 't>(&'s self, ops: &'t [TxnOp], state: &State) -> Vec<Opened<'s, 't, B>> {
        let open = |range: &Range| {
            check_range(range, state.revision, state.compacted)?;
            let at = read::resolve(range.revision, state.revision, state.compacted)?;
            let keys = Keys::new(&range.key, &range.range_end);
            self.open_read(range, &keys, at, state.revision)
        };
        let mut opened = Vec::with_capacity(ops.len());
        for op in ops {
            if let Some(TxnRequest::Range(range)) = &op.request {
                opened.push((range, open(range)));
            }
        }
        opened
    }

    /// Starts a batch of commands.
    ///
    /// # Panics
    /// When another applier lives: commands have one order.
    pub fn begin(&self) -> Applier<'_, B> {
        let busy = self.applying.swap(true, Ordering::Acquire);
        assert!(!busy, "two appliers at once");
        Applier::new(self, *self.published(), self.auth())
    }

    /// Removes some of what the compaction made unreadable, visiting at most `max_keys` revisions. May
    /// run beside reads and an applier; goes on where it stopped after a restart.
    ///
    /// # Errors
    /// When the backend fails or holds a damaged entry.
    pub fn compact_step(&self, max_keys: usize) -> Result<CompactProgress, Error> {
        let mut sweep = self.sweep.lock().unwrap_or_else(PoisonError::into_inner);
        let target = self.compact_revision();
        compaction::step(&self.backend, &mut sweep, target, max_keys)
    }

    /// What members published of themselves, by member id.
    ///
    /// # Errors
    /// When the backend fails or holds a damaged entry.
    pub fn attributes(&self) -> Result<BTreeMap<u64, MemberAttributes>, Error> {
        let mut members = BTreeMap::new();
        let mut cursor =
            self.backend
                .cursor(Table::Meta, meta::MEMBERS, Some(meta::MEMBERS_END))?;
        while let Some((key, value)) = cursor.next()? {
            let id = <[u8; 8]>::try_from(&key[meta::MEMBERS.len()..]).ok();
            let attributes = MemberAttributes::decode(value).ok();
            let (Some(id), Some(attributes)) = (id, attributes) else {
                return Err(Error::from(Corruption {
                    table: "meta",
                    what: "a member's attributes",
                }));
            };
            members.insert(u64::from_be_bytes(id), attributes);
        }
        Ok(members)
    }

    /// A lease, when it exists.
    ///
    /// # Errors
    /// When the backend fails or holds a damaged entry.
    pub fn lease(&self, id: i64) -> Result<Option<Lease>, Error> {
        lease::find(View::committed(&self.backend), id)
    }

    /// The keys that are attached to a lease, in ascending order; none for a lease that does not exist.
    ///
    /// # Errors
    /// When the backend fails.
    pub fn lease_keys(&self, id: i64) -> Result<Vec<Bytes>, Error> {
        lease::keys(View::committed(&self.backend), id)
    }

    /// All leases, in no order of meaning. Walks over the keys that are attached to them, too.
    ///
    /// # Errors
    /// When the backend fails or holds a damaged entry.
    pub fn leases(&self) -> Result<Vec<Lease>, Error> {
        lease::all(View::committed(&self.backend))
    }

    /// The cluster's version, once it was set.
    ///
    /// # Errors
    /// When the backend fails or holds a damaged entry.
    pub fn cluster_version(&self) -> Result<Option<String>, Error> {
        let Some(version) = self.backend.get(Table::Meta, meta::CLUSTER_VERSION)? else {
            return Ok(None);
        };
        String::from_utf8(version.into()).map(Some).map_err(|_| {
            Error::from(Corruption {
                table: "meta",
                what: "the cluster version",
            })
        })
    }

    /// A value that the server stored beside the keys, such as its membership.
    ///
    /// # Errors
    /// When the backend fails.
    pub fn get_meta(&self, key: &str) -> Result<Option<Bytes>, BackendError> {
        self.backend.get(Table::Meta, &meta::server(key))
    }
}
