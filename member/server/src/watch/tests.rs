//! The hub over a store in memory: what a stream is told, and when.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use member_state::{
    Command, Compact, DeleteRange, Event, LogPosition, MemoryBackend, Op, Put, Txn, TxnOp,
    TxnRequest,
};

use super::{Delivery, Interest, Span, WatchHub, WatchStream};
use crate::auth::SimpleTokens;
use crate::engine::Engine;
use crate::metrics::Metrics;
use crate::quota::Quota;
use crate::replica::Replica;

pub(super) struct InMemory(MemoryBackend);

impl Engine for InMemory {
    type Backend = MemoryBackend;

    fn open(&self) -> io::Result<MemoryBackend> {
        Ok(self.0.clone())
    }

    fn flush(&self, _: &MemoryBackend) -> io::Result<()> {
        Ok(())
    }

    fn checkpoint(&self, _: &MemoryBackend, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn defragment(&self, _: &MemoryBackend) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn scratch(&self) -> PathBuf {
        PathBuf::new()
    }

    fn replace(&self, _: &Path) -> io::Result<MemoryBackend> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

pub(super) struct Bench {
    pub(super) replica: Arc<Replica<InMemory>>,
    pub(super) hub: Arc<WatchHub<InMemory>>,
}

impl Bench {
    pub(super) fn new() -> Self {
        let replica = Replica::open(
            InMemory(MemoryBackend::new()),
            Quota::new(None),
            SimpleTokens::new(Duration::from_secs(300)),
            Arc::new(Metrics::new(Duration::from_secs(1))),
            false,
        );
        let replica = Arc::new(replica.unwrap());
        let hub = WatchHub::new(Arc::clone(&replica));
        Self { replica, hub }
    }

    /// Applies commands as one batch, as the state machine does.
    pub(super) fn apply(&self, ops: impl IntoIterator<Item = Op>) {
        let store = self.replica.store();
        let mut index = store.applied().map_or(0, |position| position.index);
        let mut applier = store.begin();
        let before = applier.revision();
        if self.replica.feed.wanted() {
            applier.collect_events();
        }
        for op in ops {
            index += 1;
            let position = LogPosition {
                term: 1,
                node: 0,
                index,
            };
            applier
                .apply(position, Some(&Command::new(index, op)), false)
                .unwrap();
        }
        let (after, events) = (applier.revision(), applier.take_events());
        applier.commit().unwrap();
        self.replica.feed.publish(before, after, events);
    }

    fn put(&self, key: &str, value: &str) {
        self.apply([put(key, value)]);
    }

    fn watch(&self, span: Span, start: i64) -> WatchStream<InMemory> {
        let mut stream = self.hub.stream();
        stream.create(0, Interest::all(span, start)).unwrap();
        stream
    }

    /// Deals out everything that was applied.
    pub(super) fn deal(&self) {
        let stream = self.hub.stream();
        self.hub
            .progress(&Default::default(), None, std::iter::empty());
        drop(stream);
    }
}

fn put(key: &str, value: &str) -> Op {
    Op::Put(Put {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::copy_from_slice(value.as_bytes()),
        ..Put::default()
    })
}

fn delete(key: &str) -> Op {
    Op::DeleteRange(DeleteRange {
        key: Bytes::copy_from_slice(key.as_bytes()),
        ..DeleteRange::default()
    })
}

fn all() -> Span {
    Span::Range(Bytes::from_static(b"\0"), None)
}

fn one(key: &'static str) -> Span {
    Span::Key(Bytes::from_static(key.as_bytes()))
}

pub(super) async fn next(stream: &mut WatchStream<InMemory>) -> Delivery {
    tokio::time::timeout(Duration::from_secs(30), stream.next())
        .await
        .expect("a delivery")
        .expect("a live stream")
}

/// Takes events until one of `revision` or later came.
async fn events_to(stream: &mut WatchStream<InMemory>, revision: i64) -> Vec<Arc<Event>> {
    let mut found: Vec<Arc<Event>> = Vec::new();
    while found.last().is_none_or(|last| last.revision() < revision) {
        if let Delivery::Events { events, .. } = next(stream).await {
            found.extend(events);
        }
    }
    found
}

/// The next delivery, if it is there.
pub(super) fn at_once(stream: &mut WatchStream<InMemory>) -> Option<Delivery> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let next = std::pin::pin!(stream.next());
    match next.poll(&mut context) {
        std::task::Poll::Ready(delivery) => Some(delivery.expect("a live stream")),
        std::task::Poll::Pending => None,
    }
}

fn is_quiet(stream: &mut WatchStream<InMemory>) -> bool {
    at_once(stream).is_none()
}

#[tokio::test]
async fn one_that_is_gone_takes_nobodys_turn() {
    let bench = Bench::new();
    (0..8).for_each(|_| bench.put("a", "1"));
    let mut stream = bench.watch(all(), 8);
    stream.create(0, Interest::all(all(), 2)).unwrap();
    stream.cancel(0);
    let found = events_to(&mut stream, 9).await;
    assert_eq!(found.len(), 8);
}

#[tokio::test]
async fn created_comes_first_and_events_follow_by_revision() {
    let bench = Bench::new();
    bench.put("a", "1");
    let mut stream = bench.watch(all(), 0);
    bench.apply([put("a", "2"), put("b", "3"), delete("a")]);
    bench.deal();
    assert!(matches!(
        next(&mut stream).await,
        Delivery::Created {
            watch_id: 0,
            revision: 2
        }
    ));
    for expected in 3..=5 {
        let Delivery::Events {
            revision, events, ..
        } = next(&mut stream).await
        else {
            panic!("events");
        };
        assert_eq!((revision, events.len()), (expected, 1));
        assert_eq!(events[0].revision(), expected);
    }
    assert!(is_quiet(&mut stream));
}

#[tokio::test]
async fn a_revision_comes_whole() {
    let bench = Bench::new();
    let txn = || {
        let ops = (0..50).map(|i| match put(&format!("k{i}"), "v") {
            Op::Put(put) => TxnOp::from(TxnRequest::Put(put)),
            _ => unreachable!("a put"),
        });
        Op::Txn(Txn {
            success: ops.collect(),
            ..Txn::default()
        })
    };
    bench.apply((0..30).map(|_| txn()));
    let mut stream = bench.watch(all(), 2);
    bench.apply((0..30).map(|_| txn()));
    let mut seen: BTreeMap<i64, usize> = BTreeMap::new();
    while seen.len() < 60 {
        if let Delivery::Events { events, .. } = next(&mut stream).await {
            let mut here: BTreeMap<i64, usize> = BTreeMap::new();
            for event in &events {
                *here.entry(event.revision()).or_default() += 1;
            }
            for (revision, count) in here {
                assert_eq!((count, seen.insert(revision, count)), (50, None));
            }
        }
    }
}

#[tokio::test]
async fn history_and_what_follows_join_without_loss_or_repeat() {
    let bench = Arc::new(Bench::new());
    for i in 0..2500 {
        bench.put(&format!("k{}", i % 7), &i.to_string());
    }
    let writer = {
        let bench = Arc::clone(&bench);
        tokio::task::spawn_blocking(move || {
            for i in 0..5000 {
                bench.put(&format!("k{}", i % 7), &i.to_string());
            }
        })
    };
    let dealer = {
        let hub = Arc::clone(&bench.hub);
        tokio::spawn(async move { hub.run().await })
    };
    let mut streams = Vec::new();
    for start in [2, 900, 2400, 2501, 2600] {
        streams.push((start, bench.watch(all(), start)));
    }
    for (start, mut stream) in streams {
        let revisions: Vec<i64> = events_to(&mut stream, 7501)
            .await
            .iter()
            .map(|event| event.revision())
            .collect();
        assert_eq!(revisions, (start..=7501).collect::<Vec<_>>());
    }
    writer.await.unwrap();
    dealer.abort();
}

#[tokio::test]
async fn a_stream_that_is_not_read_holds_up_nobody_and_misses_nothing() {
    let bench = Bench::new();
    let mut stalled = bench.watch(all(), 0);
    let mut live = bench.watch(all(), 0);
    for i in 0..5000 {
        bench.put("k", &i.to_string());
        bench.deal();
        let events = events_to(&mut live, i + 2).await;
        assert_eq!(events.len(), 1);
    }
    assert_eq!(bench.hub.counts.lagging.load(Ordering::Relaxed), 1);
    assert!(
        bench.hub.counts.pending.load(Ordering::Relaxed) <= 1024,
        "what waits for a stream is bounded"
    );
    let found = events_to(&mut stalled, 5001).await;
    let revisions: Vec<i64> = found.iter().map(|event| event.revision()).collect();
    assert_eq!(revisions, (2..=5001).collect::<Vec<_>>());
    bench.put("k", "last");
    bench.deal();
    assert_eq!(events_to(&mut stalled, 5002).await.len(), 1);
    assert_eq!(events_to(&mut live, 5002).await.len(), 1);
    assert_eq!(bench.hub.counts.lagging.load(Ordering::Relaxed), 0);
    assert_eq!(bench.hub.counts.pending.load(Ordering::Relaxed), 0);
    drop(live);
    drop(stalled);
    assert!(!bench.replica.feed.wanted());
}

#[tokio::test]
async fn progress_follows_every_event_and_waits_for_lagging_watchers() {
    let bench = Bench::new();
    for i in 0..3000 {
        bench.put("k", &i.to_string());
    }
    let mut stream = bench.watch(all(), 0);
    bench.put("k", "new");
    stream.progress();
    assert!(matches!(next(&mut stream).await, Delivery::Created { .. }));
    assert!(matches!(
        next(&mut stream).await,
        Delivery::Events { revision: 3002, .. }
    ));
    assert!(matches!(
        next(&mut stream).await,
        Delivery::Progress {
            watch_id: None,
            revision: 3002
        }
    ));
    stream.create(0, Interest::all(one("k"), 2)).unwrap();
    stream.progress();
    assert!(matches!(next(&mut stream).await, Delivery::Created { .. }));
    let mut told = 0;
    while told < 3001 {
        match next(&mut stream).await {
            Delivery::Events { events, .. } => told += events.len(),
            other => panic!("no progress before the events: {other:?}"),
        }
    }
    assert!(is_quiet(&mut stream));
    stream.progress();
    assert!(matches!(
        next(&mut stream).await,
        Delivery::Progress { revision: 3002, .. }
    ));
    // One that starts in the future has not come to any revision yet.
    stream.create(0, Interest::all(one("k"), 4000)).unwrap();
    stream.progress();
    assert!(matches!(next(&mut stream).await, Delivery::Created { .. }));
    assert!(is_quiet(&mut stream));
}

#[tokio::test]
async fn a_future_start_is_waited_for() {
    let bench = Bench::new();
    let mut stream = bench.watch(one("k"), 5);
    for i in 0..6 {
        bench.put("k", &i.to_string());
    }
    bench.deal();
    let found = events_to(&mut stream, 7).await;
    let revisions: Vec<i64> = found.iter().map(|event| event.revision()).collect();
    assert_eq!(revisions, [5, 6, 7]);
}

#[tokio::test]
async fn a_compacted_start_ends_the_watcher_and_the_compacted_revision_itself_does_not() {
    let bench = Bench::new();
    for i in 0..10 {
        bench.put("k", &i.to_string());
    }
    bench.apply([Op::Compact(Compact {
        revision: 6,
        physical: true,
    })]);
    bench.replica.store().compact_step(usize::MAX).unwrap();
    let mut stream = bench.watch(all(), 5);
    stream.create(0, Interest::all(all(), 6)).unwrap();
    let mut told = Vec::new();
    let mut compacted = false;
    while told.len() < 6 || !compacted {
        match next(&mut stream).await {
            Delivery::Compacted {
                watch_id,
                compact_revision,
            } => {
                assert_eq!((watch_id, compact_revision), (0, 6));
                compacted = true;
            }
            Delivery::Events {
                watch_id, events, ..
            } => {
                assert_eq!(watch_id, 1);
                told.extend(events.iter().map(|event| event.revision()));
            }
            _ => {}
        }
    }
    assert_eq!(told, [6, 7, 8, 9, 10, 11]);
}

#[tokio::test]
async fn watchers_go_on_over_a_gap_and_over_another_store() {
    let bench = Bench::new();
    let mut stream = bench.watch(all(), 0);
    bench.put("a", "1");
    bench.deal();
    assert_eq!(events_to(&mut stream, 2).await.len(), 1);
    // What another member applied comes with its store.
    let other = Bench::new();
    for i in 1..20 {
        other.put("a", &i.to_string());
    }
    let backend = other.replica.store().backend().clone();
    bench.replica.replace(backend).unwrap();
    bench.deal();
    let revisions: Vec<i64> = events_to(&mut stream, 20)
        .await
        .iter()
        .map(|event| event.revision())
        .collect();
    assert_eq!(revisions, (3..=20).collect::<Vec<_>>());
    bench.put("a", "after");
    bench.deal();
    assert_eq!(events_to(&mut stream, 21).await.len(), 1);
}

#[tokio::test]
async fn ids_are_given_in_order_and_a_taken_one_is_refused() {
    let bench = Bench::new();
    let mut stream = bench.hub.stream();
    let mut create = |id| stream.create(id, Interest::all(all(), 0));
    assert_eq!(create(0).unwrap(), 0);
    assert_eq!(create(1).unwrap(), 1);
    assert_eq!(create(0).unwrap(), 2);
    assert_eq!(create(7).unwrap(), 7);
    assert_eq!(
        create(7).unwrap_err().to_string(),
        "mvcc: duplicate watch ID provided on the WatchStream"
    );
    stream.cancel(1);
    stream.cancel(99);
    assert_eq!(stream.create(0, Interest::all(all(), 0)).unwrap(), 3);
    let mut canceled = Vec::new();
    for _ in 0..6 {
        bench.put("k", "v");
    }
    bench.deal();
    while canceled.len() < 24 {
        if let Delivery::Events { watch_id, .. } = next(&mut stream).await {
            canceled.push(watch_id);
        }
    }
    assert!(!canceled.contains(&1), "{canceled:?}");
}

#[tokio::test]
async fn a_deleted_key_is_waited_for() {
    let bench = Arc::new(Bench::new());
    bench.put("lock", "held");
    let dealer = {
        let hub = Arc::clone(&bench.hub);
        tokio::spawn(async move { hub.run().await })
    };
    let waiting = {
        let hub = Arc::clone(&bench.hub);
        tokio::spawn(async move { hub.wait_deleted(Bytes::from_static(b"lock"), 3).await })
    };
    bench.put("lock", "still");
    bench.apply([delete("lock")]);
    assert_eq!(waiting.await.unwrap().unwrap(), 4);
    // And from history.
    let past = bench.hub.wait_deleted(Bytes::from_static(b"lock"), 2);
    assert_eq!(past.await.unwrap(), 4);
    bench.hub.close();
    let ended = bench.hub.wait_deleted(Bytes::from_static(b"lock"), 5).await;
    assert_eq!(ended.unwrap_err().to_string(), "etcdserver: server stopped");
    dealer.abort();
}
