//! Applying commands in the order of the log.
//!
//! An applier gathers the effects of any number of commands in one batch. Its own commands see them at once;
//! readers see them all after [`Applier::commit`], or never.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use prost::Message;

use crate::alarm::{self, Alarmed};
use crate::auth::{Auth, AuthError, AuthOp, AuthRequest};
use crate::backend::{Backend, BackendError, Batch, Table};
use crate::command::{Command, Compact, MemberAttributes, Op, Publish, Response};
use crate::error::Error;
use crate::execute::Execution;
use crate::history::Event;
use crate::layout::{Arena, meta};
use crate::lease;
use crate::store::{LogPosition, State, Store};
use crate::v2::Within;
use crate::view::View;

/// A batch of commands under way. Dropped without a commit, nothing of it happened.
#[derive(Debug)]
pub struct Applier<'a, B: Backend> {
    store: &'a Store<B>,
    batch: Batch,
    arena: Arena,
    state: State,
    /// Users and roles after the commands so far.
    auth: Arc<Auth>,
    /// Whether `auth` is no longer the published one.
    auth_changed: bool,
    /// The first failure of the backend; the batch may miss writes and must not be committed.
    failed: Option<Error>,
    dirty: bool,
    /// What the commands did to keys, where somebody wants to know.
    events: Option<Vec<Event>>,
}

impl<'a, B: Backend> Applier<'a, B> {
    pub(crate) fn new(store: &'a Store<B>, state: State, auth: Arc<Auth>) -> Self {
        Applier {
            store,
            batch: Batch::new(),
            arena: Arena::default(),
            state,
            auth,
            auth_changed: false,
            failed: None,
            dirty: false,
            events: None,
        }
    }

    /// Applies one entry of the log: a command, or `None` for an entry without one (blank, membership).
    ///
    /// Without `want_response` reads are skipped and the answer is [`Response::Empty`]; the effect is the same.
    ///
    /// # Errors
    /// Why the command is refused. It then has no effect, but its position counts as applied, and the
    /// applier goes on; unless the error [is fatal](Error::is_fatal), after which nothing can be
    /// applied or committed.
    ///
    /// # Panics
    /// When the position is not after the last one.
    pub fn apply(
        &mut self,
        position: LogPosition,
        command: Option<&Command>,
        want_response: bool,
    ) -> Result<Response, Error> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        assert!(
            self.state
                .applied
                .is_none_or(|last| last.index < position.index),
            "entry {} was applied before",
            position.index
        );
        self.state.applied = Some(position);
        self.dirty = true;
        let Some((command, op)) = command.and_then(|command| Some((command, command.op.as_ref()?)))
        else {
            return Ok(Response::Empty);
        };
        let result = match self.admit(command) {
            Ok(()) => self.run(op, want_response),
            Err(error) => Err(error),
        };
        if let Err(error) = &result
            && error.is_fatal()
        {
            self.failed = Some(error.clone());
        }
        match result {
            Ok(_) if !want_response => Ok(Response::Empty),
            result => result,
        }
    }

    fn admit(&self, command: &Command) -> Result<(), Error> {
        if !self.auth.enabled() {
            return Ok(());
        }
        self.auth.admit(command, &|lease| {
            lease::keys(View::within(&self.store.backend, &self.batch), lease)
        })
    }

    fn run(&mut self, op: &Op, want_response: bool) -> Result<Response, Error> {
        self.state.alarmed.admit(op)?;
        match op {
            Op::Put(put) => self.execute(want_response, |execution| execution.put(put)),
            Op::DeleteRange(delete) => {
                self.execute(want_response, |execution| execution.delete_range(delete))
            }
            Op::Txn(txn) => self.execute(want_response, |execution| execution.txn(txn)),
            Op::Compact(compact) => self.compact(*compact),
            Op::Publish(publish) => Ok(self.publish(publish)),
            Op::ClusterVersion(set) => {
                let version = Bytes::copy_from_slice(set.version.as_bytes());
                let key = Bytes::from_static(meta::CLUSTER_VERSION);
                self.batch.put(Table::Meta, key, version);
                Ok(Response::Empty)
            }
            Op::LeaseGrant(grant) => {
                self.execute(want_response, |execution| execution.grant(grant))
            }
            Op::LeaseRevoke(revoke) => {
                self.execute(want_response, |execution| execution.revoke(revoke))
            }
            Op::LeaseCheckpoint(checkpoint) => {
                self.execute(want_response, |execution| execution.checkpoint(checkpoint))
            }
            Op::Alarm(request) => {
                let changed = alarm::change(&self.store.backend, &mut self.batch, *request)?;
                let view = View::within(&self.store.backend, &self.batch);
                self.state.alarmed = Alarmed::of(&alarm::list(view)?);
                Ok(Response::Alarm(changed))
            }
            Op::Downgrade(downgrade) => {
                let key = Bytes::from_static(meta::DOWNGRADE);
                if downgrade.target.is_empty() {
                    self.batch.delete(Table::Meta, key);
                } else {
                    let target = Bytes::copy_from_slice(downgrade.target.as_bytes());
                    self.batch.put(Table::Meta, key, target);
                }
                Ok(Response::Empty)
            }
            Op::Auth(op) => Ok(self.auth(op)?),
            Op::V2(command) => {
                let mut rows = Within {
                    backend: &self.store.backend,
                    batch: &mut self.batch,
                };
                let answer = member_v2::apply(&mut rows, command)?;
                Ok(answer.map_or(Response::Empty, |answer| Response::V2(Box::new(answer))))
            }
        }
    }

    fn auth(&mut self, op: &AuthOp) -> Result<Response, AuthError> {
        let mut token = String::new();
        if let Some(request) = &op.request {
            if let (AuthRequest::Authenticate(who), Some(position)) = (request, self.state.applied)
            {
                token = format!("{}.{}", who.token_prefix, position.index);
            }
            // Refused operations leave no trace: each checks everything before it writes.
            let auth = Arc::make_mut(&mut self.auth);
            self.auth_changed |= auth.apply(request, &mut self.batch)?;
        }
        Ok(Response::Auth {
            revision: self.state.revision,
            token,
        })
    }

    fn execute(
        &mut self,
        want_response: bool,
        command: impl FnOnce(&mut Execution<'_, B>) -> Result<Response, Error>,
    ) -> Result<Response, Error> {
        let mut execution = Execution {
            backend: &self.store.backend,
            batch: &mut self.batch,
            arena: &mut self.arena,
            begin: self.state.revision,
            compacted: self.state.compacted,
            writes: 0,
            written_bytes: 0,
            want_response,
            events: self.events.as_mut(),
        };
        let response = command(&mut execution)?;
        self.state.revision = execution.revision();
        self.state.written_bytes += execution.written_bytes;
        Ok(response)
    }

    fn compact(&mut self, compact: Compact) -> Result<Response, Error> {
        if compact.revision <= self.state.compacted {
            return Err(Error::Compacted);
        }
        if compact.revision > self.state.revision {
            return Err(Error::FutureRevision);
        }
        self.state.compacted = compact.revision;
        Ok(Response::Compact {
            revision: self.state.revision,
        })
    }

    fn publish(&mut self, publish: &Publish) -> Response {
        let attributes = MemberAttributes {
            name: publish.name.clone(),
            client_urls: publish.client_urls.clone(),
        };
        self.batch.put(
            Table::Meta,
            meta::member(publish.member_id),
            attributes.encode_to_vec().into(),
        );
        Response::Empty
    }

    /// The revision after the commands so far.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.state.revision
    }

    /// Collects the events of the commands to come. Costs a few counted references a write.
    pub fn collect_events(&mut self) {
        self.events.get_or_insert_default();
    }

    /// The events so far, in their order; `None` when they are not collected.
    pub fn take_events(&mut self) -> Option<Vec<Event>> {
        self.events.as_mut().map(std::mem::take)
    }

    /// The number of writes that a commit would do, for a caller that bounds its batches.
    #[must_use]
    pub fn writes(&self) -> usize {
        self.batch.len()
    }

    /// Stores a value for the server beside the keys.
    pub fn put_meta(&mut self, key: &str, value: Bytes) {
        self.dirty = true;
        self.batch.put(Table::Meta, meta::server(key), value);
    }

    /// Forgets what a removed member published.
    pub fn forget_member(&mut self, member_id: u64) {
        self.dirty = true;
        self.batch.delete(Table::Meta, meta::member(member_id));
    }

    /// Writes everything, the position of the last entry included, and shows it to readers.
    ///
    /// # Errors
    /// When the backend failed, now or in an earlier call. The store must then be opened anew.
    pub fn commit(mut self) -> Result<(), BackendError> {
        match self.failed.take() {
            Some(Error::Backend(error)) => return Err(error),
            Some(error) => return Err(BackendError::new(error)),
            None if !self.dirty => return Ok(()),
            None => {}
        }
        self.state.write(&mut self.batch);
        let published = self.store.state.write();
        let mut published = published.unwrap_or_else(PoisonError::into_inner);
        self.store.backend.write(&self.batch)?;
        self.store
            .counts
            .commit(&self.store.backend, &self.batch)
            .map_err(BackendError::new)?;
        *published = self.state;
        self.store.show(self.state);
        if self.auth_changed {
            self.store.publish_auth(Arc::clone(&self.auth));
        }
        Ok(())
    }
}

impl<B: Backend> Drop for Applier<'_, B> {
    fn drop(&mut self) {
        self.store.applying.store(false, Ordering::Release);
    }
}
