//! Random histories against a vector, with restarts and crashes in between.

use futures_util::TryStreamExt;
use member_log::{Entry, Log, LogId, Vote};
use openraft::storage::{RaftLogReader, RaftLogStorage};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::support::{
    append, append_unacknowledged, block_on, copy_log, entry, id, read_all, scratch, small,
};

#[derive(Clone, Debug)]
enum Op {
    Append { sizes: Vec<usize>, wait: bool },
    Truncate(Index),
    Purge(Index),
    PurgeBeyond(u64),
    Vote,
    Committed(Index),
    Read { from: Index, to: Index },
    Reopen,
    Crash,
}

fn op() -> impl Strategy<Value = Op> {
    let size = prop_oneof![8 => 0..300_usize, 1 => 3000..6000_usize];
    prop_oneof![
        8 => (prop::collection::vec(size, 1..12), any::<bool>()).prop_map(|(sizes, wait)| Op::Append { sizes, wait }),
        2 => any::<Index>().prop_map(Op::Truncate),
        2 => any::<Index>().prop_map(Op::Purge),
        1 => (1..20_u64).prop_map(Op::PurgeBeyond),
        2 => Just(Op::Vote),
        2 => any::<Index>().prop_map(Op::Committed),
        4 => (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Op::Read { from, to }),
        2 => Just(Op::Reopen),
        1 => Just(Op::Crash),
    ]
}

#[derive(Default)]
struct Model {
    term: u64,
    purged: Option<LogId>,
    entries: Vec<Entry>,
    vote: Option<Vote>,
    committed: Option<LogId>,
}

impl Model {
    fn first(&self) -> u64 {
        self.purged.map_or(0, |purged| purged.index + 1)
    }

    fn last(&self) -> Option<LogId> {
        self.entries
            .last()
            .map(|entry| entry.log_id)
            .or(self.purged)
    }

    fn next(&self) -> u64 {
        self.first() + self.entries.len() as u64
    }

    fn slice(&self, from: u64, to: u64) -> &[Entry] {
        let at = |index: u64| {
            usize::try_from(index.clamp(self.first(), self.next()) - self.first()).unwrap()
        };
        &self.entries[at(from)..at(to).max(at(from))]
    }

    fn check(&self, log: &Log) {
        let mut log = log.clone();
        let state = block_on(log.get_log_state()).unwrap();
        assert_eq!(
            (state.last_purged_log_id, state.last_log_id),
            (self.purged, self.last())
        );
        assert_eq!(read_all(&log), self.entries);
        assert_eq!(block_on(log.reader().read_vote()).unwrap(), self.vote);
        assert_eq!(block_on(log.read_committed()).unwrap(), self.committed);
    }

    fn run(&mut self, ops: Vec<Op>) {
        let mut dir = scratch();
        let mut log = Log::open(small(dir.path())).unwrap();
        for op in ops {
            match op {
                Op::Append { sizes, wait } => {
                    self.term += u64::from(sizes.len() == 1);
                    let next = self.next();
                    let entries: Vec<Entry> = (next..)
                        .zip(sizes)
                        .map(|(index, size)| entry(self.term, index, size))
                        .collect();
                    self.entries.extend(entries.clone());
                    if wait {
                        append(&log, entries).unwrap();
                    } else {
                        append_unacknowledged(&log, entries);
                    }
                }
                Op::Truncate(at) => {
                    self.entries.truncate(at.index(self.entries.len() + 1));
                    self.term += 1;
                    block_on(log.truncate_after(self.last())).unwrap();
                }
                Op::Purge(at) if !self.entries.is_empty() => {
                    let gone = at.index(self.entries.len());
                    let upto = self.entries[gone].log_id;
                    self.entries.drain(..=gone);
                    self.purged = Some(upto);
                    block_on(log.purge(upto)).unwrap();
                }
                Op::Purge(_) => {}
                Op::PurgeBeyond(ahead) => {
                    self.term += 1;
                    let upto = id(self.term, self.next() + ahead);
                    self.entries.clear();
                    self.purged = Some(upto);
                    block_on(log.purge(upto)).unwrap();
                }
                Op::Vote => {
                    self.term += 1;
                    let vote = Vote::new(self.term, 7);
                    self.vote = Some(vote);
                    block_on(log.save_vote(&vote)).unwrap();
                }
                Op::Committed(at) => {
                    let Some(last) = self.last() else { continue };
                    let committed = id(
                        last.leader_id.term,
                        at.index(usize::try_from(last.index).unwrap() + 1) as u64,
                    );
                    self.committed = Some(committed);
                    block_on(log.save_committed(Some(committed))).unwrap();
                }
                Op::Read { from, to } => {
                    let span = usize::try_from(self.next()).unwrap() + 2;
                    let (from, to) = (from.index(span) as u64, to.index(span) as u64);
                    let wanted = self.slice(from, to);
                    let mut reader = log.reader();
                    let limited = block_on(reader.limited_get_log_entries(from, to)).unwrap();
                    assert_eq!(limited, wanted[..limited.len()]);
                    assert_eq!(limited.is_empty(), wanted.is_empty());
                    let streamed = block_on(async {
                        reader
                            .entries_stream(from..to)
                            .await
                            .try_collect::<Vec<_>>()
                            .await
                    });
                    assert_eq!(streamed.unwrap(), wanted);
                }
                Op::Reopen => {
                    log.close();
                    drop(log);
                    log = Log::open(small(dir.path())).unwrap();
                }
                Op::Crash => {
                    // A vote is durable when it returns, and so is everything queued before it.
                    self.term += 1;
                    self.vote = Some(Vote::new_committed(self.term, 3));
                    block_on(log.save_vote(&Vote::new_committed(self.term, 3))).unwrap();
                    let survivor = scratch();
                    copy_log(dir.path(), survivor.path());
                    drop(log);
                    dir = survivor;
                    log = Log::open(small(dir.path())).unwrap();
                }
            }
            self.check(&log);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_history_reads_back_as_from_a_vector(ops in prop::collection::vec(op(), 1..60)) {
        Model::default().run(ops);
    }
}
