//! What can be wrong with a run, in words for its report.

/// A property that did not hold, with the evidence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// An acknowledged write is gone from the latest state.
    #[error(
        "acknowledged write of {value} to {key} at revision {revision} is missing on {endpoint}: it has {found}",
        found = found.map_or("no such key".to_owned(), |revision| format!("the key at revision {revision}"))
    )]
    Lost {
        /// Who was asked.
        endpoint: String,
        /// The key.
        key: String,
        /// The acknowledged value.
        value: String,
        /// The acknowledged revision.
        revision: i64,
        /// The mod revision that the key has, if it is there.
        found: Option<i64>,
    },
    /// The latest value is one that nobody may have written there.
    #[error("{endpoint} has {key} = {found} at revision {revision}, which no write explains")]
    Unexplained {
        /// Who was asked.
        endpoint: String,
        /// The key.
        key: String,
        /// Its value.
        found: String,
        /// Its mod revision.
        revision: i64,
    },
    /// A key has had fewer or more writes than its writer can account for.
    #[error("{endpoint} counts {version} writes to {key}; {least} to {most} were made")]
    Miscounted {
        /// Who was asked.
        endpoint: String,
        /// The key.
        key: String,
        /// The key's version.
        version: i64,
        /// Acknowledged writes.
        least: i64,
        /// Acknowledged writes and those of unknown outcome.
        most: i64,
    },
    /// Reading at an acknowledged revision gives something else.
    #[error("{key} at revision {revision} reads {found:?}; {value} was acknowledged there")]
    Rewritten {
        /// The key.
        key: String,
        /// The acknowledged value.
        value: String,
        /// The acknowledged revision.
        revision: i64,
        /// What is there.
        found: Option<String>,
    },
    /// Two writes were acknowledged with one revision.
    #[error("revision {revision} was acknowledged for {first} and for {second}")]
    Reused {
        /// The revision.
        revision: i64,
        /// One value.
        first: String,
        /// The other.
        second: String,
    },
    /// A revision is lower than what an earlier, finished operation had seen.
    #[error(
        "writer {writer} got revision {revision} although revision {seen} had been answered before it asked"
    )]
    WentBack {
        /// Who got the low revision.
        writer: usize,
        /// The low revision.
        revision: i64,
        /// The higher one, answered before.
        seen: i64,
    },
    /// The store's revision after the run is lower than one that was answered during it.
    #[error("{endpoint} is at revision {revision} although revision {seen} had been answered")]
    Behind {
        /// Who was asked.
        endpoint: String,
        /// Its revision.
        revision: i64,
        /// The highest that was answered.
        seen: i64,
    },
    /// A linearizable read missed a write that was acknowledged before the read began.
    #[error(
        "writer {writer} read {key} at revision {found:?} although its write {revision} had been acknowledged"
    )]
    Stale {
        /// Who read.
        writer: usize,
        /// The key.
        key: String,
        /// The acknowledged revision.
        revision: i64,
        /// The mod revision that was seen, if the key was there.
        found: Option<i64>,
    },
    /// A read saw a value that was not written at that revision.
    #[error("writer {writer} read {key} = {found} at revision {revision}, which no write explains")]
    Phantom {
        /// Who read.
        writer: usize,
        /// The key.
        key: String,
        /// The value seen.
        found: String,
        /// Its mod revision.
        revision: i64,
    },
}
