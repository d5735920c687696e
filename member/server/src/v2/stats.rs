//! `/v2/stats`: what this member did, who leads, how writes went.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use member_flags::format_duration;
use member_v2::{Tally, timestamp, write_string};
use tokio::sync::watch;
use tonic::body::Body;

use super::{V2, json, now, refuse_method};
use crate::consensus::Leadership;
use crate::engine::Engine;

/// What is counted here since the start; writes are counted by the log.
pub(super) struct Stats {
    started: i64,
    /// Who leads, and since when as seen from here.
    leader: Mutex<(Leadership, i64)>,
    gets: AtomicU64,
    gets_refused: AtomicU64,
    watchers: Arc<AtomicU64>,
}

/// A watch under way.
pub(super) struct Watching(Arc<AtomicU64>);

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Stats {
    pub(super) fn new() -> Self {
        let started = now();
        Self {
            started,
            leader: Mutex::new((Leadership::default(), started)),
            gets: AtomicU64::new(0),
            gets_refused: AtomicU64::new(0),
            watchers: Arc::default(),
        }
    }

    pub(super) async fn follow(&self, mut leadership: watch::Receiver<Leadership>) {
        loop {
            let seen = *leadership.borrow_and_update();
            {
                let mut leader = self.leader.lock().unwrap_or_else(PoisonError::into_inner);
                if leader.0.leader != seen.leader {
                    *leader = (seen, now());
                }
            }
            if leadership.changed().await.is_err() {
                return;
            }
        }
    }

    pub(super) fn read(&self, done: bool) {
        let counter = if done { &self.gets } else { &self.gets_refused };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn watching(&self) -> Watching {
        self.watchers.fetch_add(1, Ordering::Relaxed);
        Watching(Arc::clone(&self.watchers))
    }
}

impl<E: Engine> V2<E> {
    pub(super) fn statistics(
        &self,
        request: &Request<Incoming>,
        body: impl FnOnce(&Self) -> Result<String, (StatusCode, String)>,
    ) -> Response<Body> {
        if request.method() != Method::GET {
            return refuse_method("GET");
        }
        let (status, body) =
            body(self).map_or_else(|refusal| refusal, |body| (StatusCode::OK, body));
        json(status, body)
    }

    /// Appends are not counted: one message carries many, and heartbeats travel apart.
    pub(super) fn own_stats(&self) -> Result<String, (StatusCode, String)> {
        let (seen, since) = *self
            .stats
            .leader
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let leader = seen.leader.unwrap_or(0);
        let state = match seen.leader {
            Some(leader) if leader == self.node.id => "StateLeader",
            Some(_) => "StateFollower",
            None => "StateCandidate",
        };
        let attributes = self.node.store().attributes();
        let attributes = attributes.map_err(|error| {
            let mut body = "{\"message\":".to_owned();
            write_string(&mut body, &error.text());
            (StatusCode::INTERNAL_SERVER_ERROR, body + "}")
        })?;
        let name = attributes.get(&self.node.id).map(|own| own.name.as_str());
        let uptime = u64::try_from(now().saturating_sub(since)).unwrap_or(0);
        let mut out = "{\"name\":".to_owned();
        write_string(&mut out, name.unwrap_or_default());
        let _ = write!(
            out,
            ",\"id\":\"{:x}\",\"state\":\"{state}\",\"startTime\":\"{}\",\"leaderInfo\":{{\"leader\":\"{leader:x}\",\"uptime\":\"{}\",\"startTime\":\"{}\"}},\"recvAppendRequestCnt\":0,\"sendAppendRequestCnt\":0}}",
            self.node.id,
            timestamp(self.stats.started),
            format_duration(std::time::Duration::from_nanos(uptime)),
            timestamp(since),
        );
        Ok(out)
    }

    /// Of each follower the mean time of a round trip, and the probes and messages that failed.
    pub(super) fn leader_stats(&self) -> Result<String, (StatusCode, String)> {
        if self.node.leadership().leader != Some(self.node.id) {
            let body = "{\"message\":\"not current leader\"}".to_owned();
            return Err((StatusCode::FORBIDDEN, body));
        }
        let others = self.node.consensus.nodes();
        let others = others.iter().filter(|node| node.id != self.node.id);
        let followers: Vec<String> = others
            .map(|node| {
                let peer = self.node.metrics.peers.of(node.id);
                let (count, total) = peer.round_trips();
                let mean = total.as_secs_f64() * 1000.0 / count.max(1) as f64;
                format!(
                    "\"{:x}\":{{\"latency\":{{\"average\":{mean:.6}}},\"counts\":{{\"fail\":{},\"success\":{count}}}}}",
                    node.id,
                    peer.failures(),
                )
            })
            .collect();
        Ok(format!(
            "{{\"leader\":\"{:x}\",\"followers\":{{{}}}}}",
            self.node.id,
            followers.join(",")
        ))
    }

    /// Writes since the cluster began, reads and watches of this member since its start.
    pub(super) fn store_stats(&self) -> Result<String, (StatusCode, String)> {
        let store = self.node.store();
        let tally = store.v2().and_then(|rows| member_v2::tally(&rows));
        let tally = tally.map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.text()))?;
        let Tally {
            sets,
            sets_refused,
            deletes,
            deletes_refused,
            updates,
            updates_refused,
            creates,
            creates_refused,
            swaps,
            swaps_refused,
            compared_deletes,
            compared_deletes_refused,
            expired,
        } = tally;
        let stats = &self.stats;
        let fields = [
            ("getsSuccess", stats.gets.load(Ordering::Relaxed)),
            ("getsFail", stats.gets_refused.load(Ordering::Relaxed)),
            ("setsSuccess", sets),
            ("setsFail", sets_refused),
            ("deleteSuccess", deletes),
            ("deleteFail", deletes_refused),
            ("updateSuccess", updates),
            ("updateFail", updates_refused),
            ("createSuccess", creates),
            ("createFail", creates_refused),
            ("compareAndSwapSuccess", swaps),
            ("compareAndSwapFail", swaps_refused),
            ("compareAndDeleteSuccess", compared_deletes),
            ("compareAndDeleteFail", compared_deletes_refused),
            ("expireCount", expired),
            ("watchers", stats.watchers.load(Ordering::Relaxed)),
        ];
        let fields: Vec<String> = fields
            .iter()
            .map(|(name, count)| format!("\"{name}\":{count}"))
            .collect();
        Ok(format!("{{{}}}", fields.join(",")))
    }
}
