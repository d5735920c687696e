//! What a state must hold so that a log can begin over it.

use std::io;

use bytes::Bytes;
use member_log::FoundedMembership;
use member_state::LogPosition;

use super::state_machine::{MEMBERSHIP, position};

/// The part of a restored state that belongs to its new log.
#[derive(Debug)]
pub struct Founding {
    /// The entry after which the log goes on.
    pub applied: Option<LogPosition>,
    /// Where the members stand among the values that the server stores beside the keys.
    pub key: &'static str,
    /// The members.
    pub members: Bytes,
}

impl Founding {
    /// What goes with a log that was founded.
    ///
    /// # Errors
    /// When the members have no JSON form.
    pub fn new(membership: &FoundedMembership) -> io::Result<Self> {
        Ok(Self {
            applied: membership.log_id().as_ref().map(position),
            key: MEMBERSHIP,
            members: serde_json::to_vec(membership)?.into(),
        })
    }
}
