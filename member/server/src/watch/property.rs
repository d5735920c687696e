//! Random histories against a naive model: a watcher is told exactly what the log says of its keys from its start on,
//! whole revision by whole revision, or that what it needs is compacted.

use std::collections::BTreeMap;

use bytes::Bytes;
use member_state::{Compact, DeleteRange, EventKind, Op, Put, Txn, TxnOp, TxnRequest};
use proptest::prelude::*;

use super::tests::{Bench, InMemory, at_once, next};
use super::{Delivery, Interest, Span, WatchStream};

const STREAMS: usize = 3;

#[derive(Clone, Debug)]
enum Write {
    Put(u8),
    Delete(u8),
}

#[derive(Clone, Debug)]
enum Step {
    /// One revision, if it changes anything; a key more than once counts once.
    Write(Vec<Write>),
    /// Of the revisions that are there, in percent.
    Compact(u8),
    Watch {
        stream: usize,
        /// First key and number of keys.
        keys: (u8, u8),
        /// From the next revision on, or this far from it.
        start: Option<i64>,
        puts: bool,
        deletes: bool,
    },
    Cancel(usize),
    /// The client of a watcher loses its connection and asks again from where it was.
    Resume(usize),
    Read(usize),
    Deal,
}

fn step() -> impl Strategy<Value = Step> {
    let write =
        prop_oneof![3 => (0..6u8).prop_map(Write::Put), 1 => (0..6u8).prop_map(Write::Delete)];
    let start = prop_oneof![Just(None), (-40..12i64).prop_map(Some)];
    prop_oneof![
        12 => prop::collection::vec(write, 1..4).prop_map(Step::Write),
        1 => (0..=100u8).prop_map(Step::Compact),
        4 => (0..STREAMS, (0..6u8, 1..7u8), start, prop::bool::weighted(0.8), prop::bool::weighted(0.8))
            .prop_map(|(stream, keys, start, puts, deletes)| Step::Watch { stream, keys, start, puts, deletes }),
        1 => any::<usize>().prop_map(Step::Cancel),
        1 => any::<usize>().prop_map(Step::Resume),
        4 => (0..STREAMS).prop_map(Step::Read),
        4 => Just(Step::Deal),
    ]
}

/// What the model knows of an event, and what a watcher is told: revision, kind, key, value.
type Told = (i64, EventKind, u8, Bytes);

struct Watcher {
    stream: usize,
    id: i64,
    keys: (u8, u8),
    puts: bool,
    deletes: bool,
    /// The first revision.
    from: i64,
    told: Vec<Told>,
    ended: Option<Ending>,
}

#[derive(Debug, PartialEq)]
enum Ending {
    Canceled,
    Compacted,
}

struct Model {
    log: Vec<Told>,
    present: BTreeMap<u8, i64>,
    revision: i64,
    compacted: i64,
}

struct World {
    bench: Bench,
    streams: Vec<WatchStream<InMemory>>,
    watchers: Vec<Watcher>,
    model: Model,
}

fn key(number: u8) -> Bytes {
    Bytes::from(vec![b'a' + number])
}

impl Model {
    fn expected(&self, watcher: &Watcher) -> Vec<Told> {
        let (first, many) = watcher.keys;
        let log = self.log.iter();
        log.filter(|(revision, kind, key, _)| {
            *revision >= watcher.from
                && (first..first + many).contains(key)
                && match kind {
                    EventKind::Put => watcher.puts,
                    EventKind::Delete => watcher.deletes,
                }
        })
        .cloned()
        .collect()
    }
}

impl World {
    fn new() -> Self {
        let bench = Bench::new();
        let streams = (0..STREAMS).map(|_| bench.hub.stream()).collect();
        Self {
            bench,
            streams,
            watchers: Vec::new(),
            model: Model {
                log: Vec::new(),
                present: BTreeMap::new(),
                revision: 1,
                compacted: 0,
            },
        }
    }

    fn write(&mut self, writes: &[Write]) {
        let mut last: BTreeMap<u8, &Write> = BTreeMap::new();
        for write in writes {
            let (Write::Put(key) | Write::Delete(key)) = write;
            last.insert(*key, write);
        }
        let model = &mut self.model;
        let revision = model.revision + 1;
        let value = Bytes::from(revision.to_string());
        let (mut ops, mut changed) = (Vec::new(), false);
        for (number, write) in last {
            match write {
                Write::Put(_) => {
                    ops.push(TxnRequest::Put(Put {
                        key: key(number),
                        value: value.clone(),
                        ..Put::default()
                    }));
                    model.present.insert(number, revision);
                    model
                        .log
                        .push((revision, EventKind::Put, number, value.clone()));
                    changed = true;
                }
                Write::Delete(_) => {
                    ops.push(TxnRequest::DeleteRange(DeleteRange {
                        key: key(number),
                        ..DeleteRange::default()
                    }));
                    if model.present.remove(&number).is_some() {
                        model
                            .log
                            .push((revision, EventKind::Delete, number, Bytes::new()));
                        changed = true;
                    }
                }
            }
        }
        if changed {
            model.revision = revision;
        }
        self.bench.apply([Op::Txn(Txn {
            success: ops.into_iter().map(TxnOp::from).collect(),
            ..Txn::default()
        })]);
    }

    fn compact(&mut self, percent: u8) {
        let model = &mut self.model;
        let revision = model.revision * i64::from(percent) / 100;
        if revision <= model.compacted {
            return;
        }
        model.compacted = revision;
        self.bench.apply([Op::Compact(Compact {
            revision,
            physical: false,
        })]);
        self.bench.replica.store().compact_step(usize::MAX).unwrap();
    }

    fn watch(&mut self, stream: usize, keys: (u8, u8), start: i64, puts: bool, deletes: bool) {
        let (first, many) = keys;
        let span = if many == 1 {
            Span::Key(key(first))
        } else {
            Span::Range(key(first), Some(key(first + many)))
        };
        let interest = Interest {
            puts,
            deletes,
            ..Interest::all(span, start)
        };
        let id = self.streams[stream].create(0, interest).unwrap();
        self.watchers.push(Watcher {
            stream,
            id,
            keys,
            puts,
            deletes,
            from: if start == 0 {
                self.model.revision + 1
            } else {
                start
            },
            told: Vec::new(),
            ended: None,
        });
    }

    fn heard(&mut self, stream: usize, delivery: Delivery) {
        let find = |id: i64, watchers: &mut Vec<Watcher>| {
            let found = watchers
                .iter()
                .position(|watcher| watcher.stream == stream && watcher.id == id);
            found.expect("a watcher of this stream")
        };
        match delivery {
            Delivery::Created { watch_id, .. } => {
                let watcher = find(watch_id, &mut self.watchers);
                assert!(self.watchers[watcher].told.is_empty());
            }
            Delivery::Events {
                watch_id, events, ..
            } => {
                let watcher = find(watch_id, &mut self.watchers);
                let watcher = &mut self.watchers[watcher];
                assert_eq!(watcher.ended, None);
                for event in events {
                    let number = event.kv.key[0] - b'a';
                    let told = (event.revision(), event.kind, number, event.kv.value.clone());
                    watcher.told.push(told);
                }
                let expected = self.model.expected(watcher);
                let told = watcher.told.len();
                assert_eq!(watcher.told, expected[..told.min(expected.len())]);
                let last = watcher.told[told - 1].0;
                let rest = expected.get(told);
                assert!(
                    rest.is_none_or(|rest| rest.0 > last),
                    "a revision comes whole"
                );
            }
            Delivery::Canceled { watch_id, .. } => {
                let watcher = find(watch_id, &mut self.watchers);
                self.watchers[watcher].ended = Some(Ending::Canceled);
            }
            Delivery::Compacted {
                watch_id,
                compact_revision,
            } => {
                let watcher = find(watch_id, &mut self.watchers);
                let watcher = &mut self.watchers[watcher];
                assert_eq!(watcher.ended, None);
                let seen = watcher.told.last().map_or(watcher.from, |last| last.0 + 1);
                assert!(seen < compact_revision && compact_revision <= self.model.compacted);
                watcher.ended = Some(Ending::Compacted);
            }
            Delivery::Refused { .. } | Delivery::Progress { .. } => panic!("nobody asked"),
        }
    }

    /// Whether the watcher has been told all that it must be.
    fn is_done(&self, watcher: &Watcher) -> bool {
        watcher.ended.is_some() || watcher.told == self.model.expected(watcher)
    }

    async fn read(&mut self, stream: usize) {
        let delivery = next(&mut self.streams[stream]).await;
        self.heard(stream, delivery);
    }

    /// Reads until all is told, and nothing more comes.
    async fn drain(&mut self, stream: usize) {
        loop {
            while let Some(delivery) = at_once(&mut self.streams[stream]) {
                self.heard(stream, delivery);
            }
            let mut own = self
                .watchers
                .iter()
                .filter(|watcher| watcher.stream == stream);
            if own.all(|watcher| self.is_done(watcher)) {
                return;
            }
            self.read(stream).await;
        }
    }

    async fn run(&mut self, steps: &[Step]) {
        for step in steps {
            match step {
                Step::Write(writes) => self.write(writes),
                Step::Compact(percent) => self.compact(*percent),
                Step::Watch {
                    stream,
                    keys,
                    start,
                    puts,
                    deletes,
                } => {
                    let start = start.map_or(0, |by| (self.model.revision + by).max(1));
                    self.watch(*stream, *keys, start, *puts, *deletes);
                }
                Step::Cancel(which) => {
                    if let Some(watcher) = self.live(*which) {
                        let (stream, id) =
                            (self.watchers[watcher].stream, self.watchers[watcher].id);
                        self.streams[stream].cancel(id);
                        while self.watchers[watcher].ended.is_none() {
                            self.read(stream).await;
                        }
                    }
                }
                Step::Resume(which) => {
                    if let Some(old) = self.live(*which) {
                        let stream = self.watchers[old].stream;
                        self.streams[stream] = self.bench.hub.stream();
                        // All that were on the connection go with it; the one asks again.
                        let old = self.watchers.swap_remove(old);
                        self.watchers.retain(|watcher| watcher.stream != stream);
                        let from = old.told.last().map_or(old.from, |last| last.0 + 1);
                        self.watch(stream, old.keys, from, old.puts, old.deletes);
                    }
                }
                Step::Read(stream) => {
                    if let Some(delivery) = at_once(&mut self.streams[*stream]) {
                        self.heard(*stream, delivery);
                    }
                }
                Step::Deal => self.bench.deal(),
            }
        }
        self.bench.deal();
        for stream in 0..STREAMS {
            self.drain(stream).await;
        }
    }

    /// One of the watchers that have not ended.
    fn live(&self, which: usize) -> Option<usize> {
        let live: Vec<usize> = (0..self.watchers.len())
            .filter(|watcher| self.watchers[*watcher].ended.is_none())
            .collect();
        live.get(which.checked_rem(live.len())?).copied()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn watchers_are_told_what_the_log_says(steps in prop::collection::vec(step(), 1..80)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(World::new().run(&steps));
    }
}
