//! The rows of each bucket.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use member_bolt::schema::{self, ConfState, KeyValue, Lease, Permission, UserOptions};
use member_bolt::{Row, Source, WriteError};
use member_proto::etcdserverpb as pb;
use member_state::{Backend, Export, Record};
use prost::Message;

use super::chunks::{Chunks, gone};
use super::{Cluster, STORAGE_VERSION, unreadable};

/// Rows after which the first walk looks whether the client is still there.
const ROWS_A_LOOK: u64 = 1024;

/// Key, among the values that the server stores beside the keys, of the ids of removed members, a JSON list.
const REMOVED: &str = "removed";

/// The buckets of one moment. All but the history are small.
pub(super) struct Rows<'a, B: Backend> {
    small: Buckets,
    state: Export<'a, B>,
    chunks: &'a Chunks,
}

type Bucket = BTreeMap<Vec<u8>, Vec<u8>>;
type Buckets = BTreeMap<&'static str, Bucket>;

impl<'a, B: Backend> Rows<'a, B> {
    /// The rows of `state`, walked as long as somebody takes the chunks.
    pub(super) fn new(
        state: Export<'a, B>,
        cluster: &Cluster,
        chunks: &'a Chunks,
    ) -> Result<Self, WriteError> {
        Ok(Self {
            small: small_buckets(&state, cluster)?,
            state,
            chunks,
        })
    }
}

impl<B: Backend> Source for Rows<'_, B> {
    fn buckets(&self) -> Vec<&str> {
        schema::BUCKETS.to_vec()
    }

    fn walk(&self, bucket: &str, row: &mut Row<'_>) -> Result<(), WriteError> {
        match bucket {
            schema::KEY => return self.history(row),
            schema::LEASE => return self.leases(row),
            _ => {}
        }
        self.small
            .get(bucket)
            .into_iter()
            .flatten()
            .try_for_each(|(key, value)| row(key, value))
    }
}

/// A failure inside a walk, so that the state's and the file's travel together.
struct Stop(WriteError);

impl From<member_state::Error> for Stop {
    fn from(error: member_state::Error) -> Self {
        Self(unreadable(error))
    }
}

impl<B: Backend> Rows<'_, B> {
    fn leases(&self, row: &mut Row<'_>) -> Result<(), WriteError> {
        let walked = self.state.leases::<Stop>(|lease| {
            let value = Lease {
                id: lease.id,
                ttl: lease.ttl,
                remaining_ttl: lease.remaining,
            };
            row(&lease.id.to_be_bytes(), &value.encode_to_vec()).map_err(Stop)
        });
        walked.map_err(|Stop(error)| error)
    }

    fn history(&self, row: &mut Row<'_>) -> Result<(), WriteError> {
        let mut value = Vec::new();
        let mut seen = 0u64;
        let walked = self.state.versions::<Stop>(|version| {
            seen += 1;
            if seen.is_multiple_of(ROWS_A_LOOK) && self.chunks.is_closed() {
                return Err(Stop(WriteError::Output(gone())));
            }
            let (main, sub) = (version.revision.main, i64::from(version.revision.sub));
            let kv = KeyValue {
                key: version.kv.key,
                create_revision: version.kv.create_revision,
                mod_revision: version.kv.mod_revision,
                version: version.kv.version,
                value: version.kv.value,
                lease: version.kv.lease,
            };
            value.clear();
            kv.encode(&mut value)
                .map_err(|error| Stop(WriteError::Source(io::Error::other(error))))?;
            if version.deleted {
                row(&schema::tombstone(main, sub), &value).map_err(Stop)
            } else {
                row(&schema::revision(main, sub), &value).map_err(Stop)
            }
        });
        walked.map_err(|Stop(error)| error)
    }
}

fn small_buckets<B: Backend>(
    state: &Export<'_, B>,
    cluster: &Cluster,
) -> Result<Buckets, WriteError> {
    let mut buckets = BTreeMap::from([
        (schema::META, meta(state, cluster)),
        (schema::MEMBERS, members(cluster)),
        (schema::MEMBERS_REMOVED, removed(state)?),
        (schema::CLUSTER, version(cluster)),
    ]);
    for record in state.records().map_err(unreadable)? {
        add_record(&mut buckets, record);
    }
    Ok(buckets)
}

/// Puts a record where etcd has it.
fn add_record(buckets: &mut Buckets, record: Record) {
    let mut put = |bucket, key: Vec<u8>, value| {
        buckets.entry(bucket).or_default().insert(key, value);
    };
    match record {
        Record::AccessControl(auth) => {
            let revision = auth.revision.to_be_bytes().to_vec();
            put(
                schema::AUTH,
                schema::AUTH_ENABLED.into(),
                vec![u8::from(auth.enabled)],
            );
            put(schema::AUTH, schema::AUTH_REVISION.into(), revision);
        }
        Record::User(name, user) => {
            let row = schema::User {
                name: name.clone(),
                password: user.password,
                roles: user.roles,
                options: Some(UserOptions {
                    no_password: user.no_password,
                }),
            };
            put(schema::AUTH_USERS, name.into_bytes(), row.encode_to_vec());
        }
        Record::Role(name, role) => {
            let permissions = role.permissions.into_iter().map(|of| Permission {
                kind: of.kind,
                key: of.key,
                range_end: of.range_end,
            });
            let row = schema::Role {
                name: name.clone(),
                permissions: permissions.collect(),
            };
            put(schema::AUTH_ROLES, name.into_bytes(), row.encode_to_vec());
        }
        Record::Alarm { kind, member_id } => {
            let alarm = schema::Alarm { member_id, kind };
            put(schema::ALARM, alarm.encode_to_vec(), Vec::new());
        }
        Record::Downgrade(target) => {
            let downgrade = schema::Downgrade {
                target,
                enabled: true,
            };
            put(schema::CLUSTER, schema::DOWNGRADE.into(), downgrade.value());
        }
    }
}

/// The members that were removed, as the state lists them.
fn removed<B: Backend>(state: &Export<'_, B>) -> Result<Bucket, WriteError> {
    let listed = state.get_meta(REMOVED).map_err(|e| unreadable(e.into()))?;
    let ids: BTreeSet<u64> = match listed {
        Some(json) => {
            serde_json::from_slice(&json).map_err(|e| WriteError::Source(io::Error::from(e)))?
        }
        None => BTreeSet::new(),
    };
    let row = |id: u64| (format!("{id:x}").into_bytes(), schema::REMOVED.into());
    Ok(ids.into_iter().map(row).collect())
}

fn meta<B: Backend>(state: &Export<'_, B>, cluster: &Cluster) -> Bucket {
    let applied = state.applied();
    let ids = |learner| {
        let those = cluster
            .members
            .iter()
            .filter(|member| member.is_learner == learner);
        those.map(|member| member.id).collect()
    };
    let conf = ConfState {
        voters: ids(false),
        learners: ids(true),
        auto_leave: false,
    };
    let number = |number: u64| number.to_be_bytes().to_vec();
    let mut rows = vec![
        (
            schema::CONSISTENT_INDEX,
            number(applied.map_or(0, |applied| applied.index)),
        ),
        (
            schema::TERM,
            number(applied.map_or(0, |applied| applied.term)),
        ),
        (schema::CONF_STATE, conf.value()),
        (schema::STORAGE_VERSION, STORAGE_VERSION.into()),
    ];
    if let Some(compacted) = state.compacted() {
        let revision = schema::revision(compacted, 0).to_vec();
        // Whoever reads that it is not finished removes the rest himself.
        if state.is_swept() {
            rows.push((schema::FINISHED_COMPACT, revision.clone()));
        }
        rows.push((schema::SCHEDULED_COMPACT, revision));
    }
    rows.into_iter()
        .map(|(key, value)| (key.into(), value))
        .collect()
}

fn members(cluster: &Cluster) -> Bucket {
    let row = |member: &pb::Member| {
        schema::Member {
            id: member.id,
            peer_urls: member.peer_ur_ls.clone(),
            is_learner: member.is_learner,
            name: member.name.clone(),
            client_urls: member.client_ur_ls.clone(),
        }
        .row()
    };
    cluster.members.iter().map(row).collect()
}

fn version(cluster: &Cluster) -> Bucket {
    let none = schema::Downgrade {
        target: String::new(),
        enabled: false,
    };
    Bucket::from([
        (
            schema::CLUSTER_VERSION.into(),
            cluster.version.clone().into(),
        ),
        (schema::DOWNGRADE.into(), none.value()),
    ])
}
