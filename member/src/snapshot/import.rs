//! A snapshot's content as a state: history, leases, users and roles, alarms.
//!
//! Members, their names and the cluster's version are not taken over: a restored cluster is a new one.

use std::sync::atomic::{AtomicBool, Ordering};

use member_bolt::schema::{self, Change};
use member_bolt::{Database, ReadError};
use member_server::Founding;
use member_state::{
    AccessControl, Backend, ImportError as StateError, Importer, KeyValue, Lease, Permission,
    Record, Revision, Role, User, Version,
};

/// Why a snapshot's content is not taken over.
#[derive(Debug, thiserror::Error)]
pub(super) enum ImportError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("the snapshot has no bucket \"key\": it is no etcd's")]
    NoKeys,
    #[error("the history in the snapshot cannot be taken over")]
    State(#[from] StateError),
    #[error("the revision cannot grow by {by}: it is {revision}")]
    Bump { revision: i64, by: i64 },
    #[error("interrupted")]
    Interrupted,
}

/// How the restored revision differs from the snapshot's.
#[derive(Debug, Clone, Copy)]
pub(super) enum Bump {
    /// Not at all.
    None,
    /// By this much, with everything before it compacted: clients that watched or cached notice.
    By(i64),
}

/// An import that is about to begin.
pub(super) struct Import<'a> {
    pub(super) database: &'a Database,
    pub(super) founding: Founding,
    pub(super) bump: Bump,
    /// Set by a signal.
    pub(super) stopping: &'a AtomicBool,
}

impl Import<'_> {
    /// Fills an empty backend.
    pub(super) fn run(&self, backend: &impl Backend) -> Result<(), ImportError> {
        let database = self.database;
        let mut importer = Importer::new(backend)?;
        for record in records(database)? {
            importer.record(&record);
        }
        leases(database, &mut importer)?;
        let mut revision = self.history(&mut importer)?;
        let mut compacted = compaction(database)?;
        revision = revision.max(compacted.unwrap_or(0)).max(1);
        if let Bump::By(by) = self.bump {
            revision = revision
                .checked_add(by)
                .ok_or(ImportError::Bump { revision, by })?;
            compacted = Some(revision);
        }
        importer.put_meta(self.founding.key, self.founding.members.clone());
        importer.finish(revision, compacted, self.founding.applied)?;
        Ok(())
    }

    /// Imports every version; the last revision.
    fn history<B: Backend>(&self, importer: &mut Importer<'_, B>) -> Result<i64, ImportError> {
        let database = self.database;
        let keys = database.bucket(schema::KEY)?.ok_or(ImportError::NoKeys)?;
        let mut last = 0;
        let mut rows = database.walk(&keys);
        while let Some(item) = rows.next_row()? {
            if self.stopping.load(Ordering::Relaxed) {
                return Err(ImportError::Interrupted);
            }
            let row = schema::read_row(item.key, item.value)?;
            last = row.main;
            let (kv, deleted) = match row.change {
                Change::Put(kv) => (kv, false),
                Change::Delete { key } => {
                    let kv = schema::KeyValue {
                        key,
                        ..schema::KeyValue::default()
                    };
                    (kv, true)
                }
                Change::Bump => continue,
            };
            let sub = u32::try_from(row.sub).map_err(|_| StateError::Version { main: row.main })?;
            importer.version(&Version {
                revision: Revision {
                    main: row.main,
                    sub,
                },
                kv: KeyValue {
                    key: kv.key,
                    create_revision: kv.create_revision,
                    mod_revision: kv.mod_revision,
                    version: kv.version,
                    value: kv.value,
                    lease: kv.lease,
                },
                deleted,
            })?;
        }
        Ok(last)
    }
}

fn leases<B: Backend>(
    database: &Database,
    importer: &mut Importer<'_, B>,
) -> Result<(), ImportError> {
    let Some(leases) = database.bucket(schema::LEASE)? else {
        return Ok(());
    };
    let mut rows = database.walk(&leases);
    while let Some(item) = rows.next_row()? {
        let lease = schema::read_lease(item.key, item.value)?;
        importer.lease(&Lease {
            id: lease.id,
            ttl: lease.ttl,
            remaining: lease.remaining_ttl,
        })?;
    }
    Ok(())
}

/// The compacted revision: asked for or done, whichever is later.
fn compaction(database: &Database) -> Result<Option<i64>, ImportError> {
    let mut compacted = None;
    let Some(meta) = database.bucket(schema::META)? else {
        return Ok(None);
    };
    let mut rows = database.walk(&meta);
    while let Some(item) = rows.next_row()? {
        if [schema::SCHEDULED_COMPACT, schema::FINISHED_COMPACT]
            .iter()
            .any(|key| key.as_bytes() == item.key)
        {
            let (main, _) = schema::read_revision(item.value).ok_or(ReadError::Row {
                bucket: schema::META,
                what: "a compaction at no revision",
            })?;
            compacted = compacted.max(Some(main).filter(|main| *main > 0));
        }
    }
    Ok(compacted)
}

/// Users, roles and alarms.
fn records(database: &Database) -> Result<Vec<Record>, ImportError> {
    let mut records = Vec::new();
    let mut of_bucket = |name, read: &mut ReadRecord<'_>| -> Result<(), ImportError> {
        if let Some(bucket) = database.bucket(name)? {
            let mut rows = database.walk(&bucket);
            while let Some(item) = rows.next_row()? {
                records.extend(read(item.key, item.value)?);
            }
        }
        Ok(())
    };
    let mut access = AccessControl::default();
    of_bucket(schema::AUTH, &mut |key, value| {
        if key == schema::AUTH_ENABLED.as_bytes() {
            access.enabled = value == [1];
        } else if key == schema::AUTH_REVISION.as_bytes() {
            access.revision = schema::read_auth_revision(value)?;
        }
        Ok(None)
    })?;
    of_bucket(schema::AUTH_USERS, &mut |key, value| {
        let user = schema::read_user(key, value)?;
        let record = User {
            password: user.password,
            roles: user.roles,
            no_password: user.options.is_some_and(|options| options.no_password),
        };
        Ok(Some(Record::User(user.name, record)))
    })?;
    of_bucket(schema::AUTH_ROLES, &mut |key, value| {
        let role = schema::read_role(key, value)?;
        let permissions = role.permissions.into_iter().map(|of| Permission {
            kind: of.kind,
            key: of.key,
            range_end: of.range_end,
        });
        let record = Role {
            permissions: permissions.collect(),
        };
        Ok(Some(Record::Role(role.name, record)))
    })?;
    of_bucket(schema::ALARM, &mut |key, _| {
        let alarm = schema::read_alarm(key)?;
        Ok(Some(Record::Alarm {
            kind: alarm.kind,
            member_id: alarm.member_id,
        }))
    })?;
    if access.revision > 0 {
        records.push(Record::AccessControl(access));
    }
    Ok(records)
}

type ReadRecord<'a> = dyn FnMut(&[u8], &[u8]) -> Result<Option<Record>, ReadError> + 'a;
