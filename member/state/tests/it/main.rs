//! The state as its callers see it: histories against a naive model, crashes, failures, readers beside a writer.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod auth;
mod concurrency;
mod export;
mod failure;
mod golden;
mod hash;
mod history;
mod lease;
mod model;
mod reopen;
mod v2;
