//! What is counted of each other member: what goes there and comes from there, and how long it takes.
//!
//! Bytes are those of the members' own messages. What HTTP/2 and TLS put around them is not counted, as in etcd.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;

use super::histogram::Histogram;

/// The counts of one other member.
#[derive(Debug)]
pub(crate) struct Peer {
    sent: AtomicU64,
    received: AtomicU64,
    send_failures: AtomicU64,
    receive_failures: AtomicU64,
    round_trip: Histogram,
    /// Whether it answers; nobody says so before it did for the first time.
    active: AtomicBool,
    disconnected: AtomicU64,
    pub(crate) snapshots_out: Transfers,
    pub(crate) snapshots_in: Transfers,
}

/// Snapshots in one direction.
#[derive(Debug)]
pub(crate) struct Transfers {
    under_way: AtomicU64,
    done: AtomicU64,
    failed: AtomicU64,
    took: Histogram,
}

impl Default for Transfers {
    fn default() -> Self {
        Self {
            under_way: AtomicU64::default(),
            done: AtomicU64::default(),
            failed: AtomicU64::default(),
            // etcd: from 0.1 s to 51 s.
            took: Histogram::new(Duration::from_millis(100), 10),
        }
    }
}

/// A snapshot under way; one that is dropped has failed.
pub(crate) struct Transfer<'a> {
    transfers: &'a Transfers,
    began: std::time::Instant,
    done: bool,
}

impl Transfers {
    pub(crate) fn begin(&self) -> Transfer<'_> {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        Transfer {
            transfers: self,
            began: std::time::Instant::now(),
            done: false,
        }
    }
}

impl Transfer<'_> {
    pub(crate) fn done(mut self) {
        self.done = true;
    }
}

impl Drop for Transfer<'_> {
    fn drop(&mut self) {
        self.transfers.under_way.fetch_sub(1, Ordering::Relaxed);
        if self.done {
            self.transfers.done.fetch_add(1, Ordering::Relaxed);
            self.transfers.took.observe(self.began.elapsed());
        } else {
            self.transfers.failed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Default for Peer {
    fn default() -> Self {
        Self {
            sent: AtomicU64::default(),
            received: AtomicU64::default(),
            send_failures: AtomicU64::default(),
            receive_failures: AtomicU64::default(),
            // etcd: from 0.1 ms to 3 s.
            round_trip: Histogram::new(Duration::from_micros(100), 16),
            active: AtomicBool::default(),
            disconnected: AtomicU64::default(),
            snapshots_out: Transfers::default(),
            snapshots_in: Transfers::default(),
        }
    }
}

impl Peer {
    /// A message did not get there, or its answer did not come back.
    pub(crate) fn send_failed(&self) {
        self.send_failures.fetch_add(1, Ordering::Relaxed);
    }

    /// How often it answered when it was asked whether it is there, and how long that took in all.
    pub(crate) fn round_trips(&self) -> (u64, Duration) {
        (self.round_trip.count(), self.round_trip.total())
    }

    /// Messages that did not get there.
    pub(crate) fn failures(&self) -> u64 {
        self.send_failures.load(Ordering::Relaxed)
    }

    /// It was asked whether it is there; how long the answer took, if it came.
    pub(crate) fn probed(&self, answered: Option<Duration>) {
        let was = self.active.swap(answered.is_some(), Ordering::Relaxed);
        match answered {
            Some(took) => self.round_trip.observe(took),
            None if was => {
                self.disconnected.fetch_add(1, Ordering::Relaxed);
            }
            None => {}
        }
    }
}

/// The counts of all other members, kept for as long as the process runs.
#[derive(Debug, Default)]
pub(crate) struct Peers(Mutex<BTreeMap<u64, Arc<Peer>>>);

impl Peers {
    pub(crate) fn of(&self, id: u64) -> Arc<Peer> {
        let mut peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(peers.entry(id).or_default())
    }

    /// The families that have a member as their label; a member of which nothing was counted has no line.
    pub(super) fn render(&self, out: &mut String, own: u64) {
        let peers = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let mut numbers = |name: &str,
                           kind: &str,
                           help: &str,
                           label: &dyn Fn(u64) -> String,
                           of: &dyn Fn(&Peer) -> Option<u64>| {
            let mut lines = peers
                .iter()
                .filter_map(|(id, peer)| Some((label(*id), of(peer)?)))
                .peekable();
            if lines.peek().is_some() {
                let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
            }
            for (labels, value) in lines {
                let _ = writeln!(out, "{name}{{{labels}}} {value}");
            }
        };
        let to = |id: u64| format!("To=\"{id:x}\"");
        let from = |id: u64| format!("From=\"{id:x}\"");
        let between = |id: u64| format!("Local=\"{own:x}\",Remote=\"{id:x}\"");
        let some = |counter: &AtomicU64| Some(counter.load(Ordering::Relaxed)).filter(|n| *n > 0);
        numbers(
            "etcd_network_peer_sent_bytes_total",
            "counter",
            "The total number of bytes sent to peers.",
            &to,
            &|p| some(&p.sent),
        );
        numbers(
            "etcd_network_peer_received_bytes_total",
            "counter",
            "The total number of bytes received from peers.",
            &from,
            &|p| some(&p.received),
        );
        numbers(
            "etcd_network_peer_sent_failures_total",
            "counter",
            "The total number of send failures from peers.",
            &to,
            &|p| some(&p.send_failures),
        );
        numbers(
            "etcd_network_peer_received_failures_total",
            "counter",
            "The total number of receive failures from peers.",
            &from,
            &|p| some(&p.receive_failures),
        );
        numbers(
            "etcd_network_active_peers",
            "gauge",
            "The current number of active peer connections.",
            &between,
            &|p| {
                let active = p.active.load(Ordering::Relaxed);
                (active || !p.round_trip.is_empty()).then_some(u64::from(active))
            },
        );
        numbers(
            "etcd_network_disconnected_peers_total",
            "counter",
            "The total number of disconnected peers.",
            &between,
            &|p| some(&p.disconnected),
        );
        numbers(
            "etcd_network_snapshot_send_inflights_total",
            "gauge",
            "Total number of inflight snapshot sends",
            &to,
            &|p| p.snapshots_out.under_way(),
        );
        numbers(
            "etcd_network_snapshot_send_success",
            "counter",
            "Total number of successful snapshot sends",
            &to,
            &|p| some(&p.snapshots_out.done),
        );
        numbers(
            "etcd_network_snapshot_send_failures",
            "counter",
            "Total number of snapshot send failures",
            &to,
            &|p| some(&p.snapshots_out.failed),
        );
        numbers(
            "etcd_network_snapshot_receive_inflights_total",
            "gauge",
            "Total number of inflight snapshot receives",
            &from,
            &|p| p.snapshots_in.under_way(),
        );
        numbers(
            "etcd_network_snapshot_receive_success",
            "counter",
            "Total number of successful snapshot receives",
            &from,
            &|p| some(&p.snapshots_in.done),
        );
        numbers(
            "etcd_network_snapshot_receive_failures",
            "counter",
            "Total number of snapshot receive failures",
            &from,
            &|p| some(&p.snapshots_in.failed),
        );
        let mut times = |name: &str,
                         help: &str,
                         label: &dyn Fn(u64) -> String,
                         of: &dyn Fn(&Peer) -> &Histogram| {
            let mut known = peers
                .iter()
                .filter(|(_, peer)| !of(peer).is_empty())
                .peekable();
            if known.peek().is_some() {
                let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} histogram");
            }
            for (id, peer) in known {
                of(peer).render(out, name, &(label(*id) + ","));
            }
        };
        times(
            "etcd_network_peer_round_trip_time_seconds",
            "Round-Trip-Time histogram between peers",
            &to,
            &|p| &p.round_trip,
        );
        times(
            "etcd_network_snapshot_send_total_duration_seconds",
            "Total latency distributions of v3 snapshot sends",
            &to,
            &|p| &p.snapshots_out.took,
        );
        times(
            "etcd_network_snapshot_receive_total_duration_seconds",
            "Total latency distributions of v3 snapshot receives",
            &from,
            &|p| &p.snapshots_in.took,
        );
    }
}

impl Transfers {
    /// `None` before the first one.
    fn under_way(&self) -> Option<u64> {
        let [now, done, failed] =
            [&self.under_way, &self.done, &self.failed].map(|count| count.load(Ordering::Relaxed));
        (now + done + failed > 0).then_some(now)
    }
}

/// Which way the bytes of a body go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Out,
    In,
}

/// A body whose bytes are counted.
pub(crate) struct Counted {
    body: Body,
    peer: Arc<Peer>,
    way: Way,
}

impl Counted {
    /// The same body, counted.
    pub(crate) fn body(body: Body, peer: &Arc<Peer>, way: Way) -> Body {
        Body::new(Self {
            body,
            peer: Arc::clone(peer),
            way,
        })
    }
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match (&frame, self.way) {
            (Some(Ok(frame)), way) => {
                if let Some(data) = frame.data_ref() {
                    let counter = match way {
                        Way::Out => &self.peer.sent,
                        Way::In => &self.peer.received,
                    };
                    counter.fetch_add(data.len() as u64, Ordering::Relaxed);
                }
            }
            (Some(Err(_)), Way::In) => {
                self.peer.receive_failures.fetch_add(1, Ordering::Relaxed);
            }
            (Some(Err(_)), Way::Out) | (None, _) => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
