//! What `snapshot status` says about a database.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use crate::error::ReadError;
use crate::read::Database;
use crate::schema::{self, Change};

/// The facts of a database, as etcd 3.6 counts them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// CRC-32C of every bucket's name, keys and values in order.
    pub hash: u32,
    /// The last revision.
    pub revision: i64,
    /// User keys that are not deleted.
    pub total_key: u64,
    /// Bytes of the database.
    pub total_size: u64,
    /// The storage version, in databases of etcd 3.6 and later.
    pub version: String,
}

impl Status {
    /// Walks the whole database. Needs some 16 bytes of memory for each live user key.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn of(database: &Database) -> Result<Self, ReadError> {
        let mut status = Self {
            hash: 0,
            revision: 0,
            total_key: 0,
            total_size: database.size(),
            version: String::new(),
        };
        // Two keys with equal 64-bit hashes would be counted as one; the seed is new in each run.
        let seed = RandomState::new();
        let mut live = HashSet::new();
        let mut buckets = database.buckets();
        while let Some((name, bucket)) = buckets.next_bucket()? {
            status.hash = crc32c::crc32c_append(status.hash, &name);
            let mut walk = database.walk(&bucket);
            while let Some(item) = walk.next_row()? {
                status.hash = crc32c::crc32c_append(status.hash, item.key);
                status.hash = crc32c::crc32c_append(status.hash, item.value);
                if name == schema::KEY.as_bytes() {
                    let row = schema::read_row(item.key, item.value)?;
                    status.revision = row.main;
                    match row.change {
                        Change::Put(kv) => live.insert(seed.hash_one(&kv.key)),
                        Change::Delete { key } => live.remove(&seed.hash_one(&key)),
                        Change::Bump => false,
                    };
                } else if name == schema::META.as_bytes()
                    && item.key == schema::STORAGE_VERSION.as_bytes()
                {
                    status.version = String::from_utf8_lossy(item.value).into_owned();
                }
            }
        }
        status.total_key = live.len() as u64;
        Ok(status)
    }
}
