//! Watches: every event from a revision on, in order, once.
//!
//! ```text
//! apply ──► Feed ──► WatchHub ──► Outbox of a stream ──► WatchStream ──► gRPC, locks, elections
//!                                      store ── history ──► ┘
//! ```
//!
//! The apply hands a batch's events to the [`Feed`] and goes on. The [`WatchHub`] deals them out to the watchers that
//! are synced, that is, that need nothing but what comes next. A watcher that starts in the past, or whose stream does
//! not keep up, lags: its stream reads history from the store in bounded parts, at the pace of whoever takes them, and
//! hands the watcher back once nothing is missing. Whatever the feed lost (nobody watched, too much at once, a snapshot
//! was installed) turns watchers into lagging ones, never into ones that miss something.
//!
//! Invariant: a watcher is told every event of its keys from its start revision on exactly once, in the order of
//! revisions, and no revision in parts; or that the part it needs is compacted.

mod feed;
mod hub;
mod index;
mod outbox;
#[cfg(test)]
mod property;
mod stream;
#[cfg(test)]
mod tests;
mod wait;

pub(crate) use feed::Feed;
pub(crate) use hub::WatchHub;
pub(crate) use index::Span;
pub(crate) use outbox::{Delivery, Style};
pub(crate) use stream::{Ended, Interest, WatchStream};
pub(crate) use wait::{Subscription, WaitError};
