//! How often writes were done and refused since the cluster began.

use prost::Message;

use crate::command::WriteOp;
use crate::lookup::Header;
use crate::rows::{HEADER, Rows};

/// Writes by their kind. Those that were done lead each pair.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
#[expect(missing_docs, reason = "etcd's names of them")]
pub struct Tally {
    #[prost(uint64, tag = "1")]
    pub sets: u64,
    #[prost(uint64, tag = "2")]
    pub sets_refused: u64,
    #[prost(uint64, tag = "3")]
    pub deletes: u64,
    #[prost(uint64, tag = "4")]
    pub deletes_refused: u64,
    #[prost(uint64, tag = "5")]
    pub updates: u64,
    #[prost(uint64, tag = "6")]
    pub updates_refused: u64,
    #[prost(uint64, tag = "7")]
    pub creates: u64,
    #[prost(uint64, tag = "8")]
    pub creates_refused: u64,
    #[prost(uint64, tag = "9")]
    pub swaps: u64,
    #[prost(uint64, tag = "10")]
    pub swaps_refused: u64,
    #[prost(uint64, tag = "11")]
    pub compared_deletes: u64,
    #[prost(uint64, tag = "12")]
    pub compared_deletes_refused: u64,
    #[prost(uint64, tag = "13")]
    pub expired: u64,
}

impl Tally {
    pub(crate) fn count(&mut self, op: &WriteOp, done: bool) {
        let (of_done, of_refused) = match op {
            WriteOp::Set(_) => (&mut self.sets, &mut self.sets_refused),
            WriteOp::Create(_) => (&mut self.creates, &mut self.creates_refused),
            WriteOp::Update(_) => (&mut self.updates, &mut self.updates_refused),
            WriteOp::CompareAndSwap(_) => (&mut self.swaps, &mut self.swaps_refused),
            WriteOp::Delete(_) => (&mut self.deletes, &mut self.deletes_refused),
            WriteOp::CompareAndDelete(_) => (
                &mut self.compared_deletes,
                &mut self.compared_deletes_refused,
            ),
        };
        *if done { of_done } else { of_refused } += 1;
    }
}

/// The writes so far.
///
/// # Errors
/// When the rows cannot be read.
pub fn tally<R: Rows>(rows: &R) -> Result<Tally, R::Error> {
    Ok(Header::read(rows.get(HEADER)?)?.tally)
}
