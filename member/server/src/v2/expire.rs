//! Keys that expire: the leader says when, through the log, so that every member removes the same ones.

use std::time::Duration;

use member_state::Op;
use member_v2::Command;

use super::now;
use crate::engine::Engine;
use crate::node::Node;

/// How often the clock is looked at while something may expire: clocks get set. etcd's figure.
const TICK: Duration = Duration::from_millis(500);

/// Ends what has expired for as long as this member leads. While no key has a TTL it waits for a change. Returns when
/// consensus ends.
pub(crate) async fn expire<E: Engine>(node: &Node<E>) {
    let mut leadership = node.consensus.leadership();
    let mut changed = node.replica.v2_changed.subscribe();
    loop {
        let now_leads = *leadership.borrow_and_update();
        changed.mark_unchanged();
        let leads = now_leads.leader == Some(node.id);
        let left = if leads { time_left(node) } else { None };
        match left {
            Some(Duration::ZERO) => {
                let end = Op::V2(Box::new(Command::expire(now())));
                if let Err(error) = node.writer.write_in(now_leads.term, end).await {
                    tracing::warn!(%error, "failed to remove expired v2 keys");
                    tokio::time::sleep(TICK).await;
                }
            }
            left => {
                tokio::select! {
                    moved = leadership.changed() => if moved.is_err() { return },
                    _ = changed.changed(), if leads => {}
                    () = tokio::time::sleep(left.unwrap_or(TICK).min(TICK)), if left.is_some() => {}
                }
            }
        }
    }
}

/// How long until the first key expires, if any will.
fn time_left<E: Engine>(node: &Node<E>) -> Option<Duration> {
    let store = node.store();
    match store.v2().and_then(|rows| member_v2::next_expiry(&rows)) {
        Ok(first) => {
            let left = first?.saturating_sub(now());
            Some(Duration::from_nanos(u64::try_from(left).unwrap_or(0)))
        }
        Err(error) => {
            tracing::error!(%error, "cannot read when v2 keys expire");
            Some(TICK)
        }
    }
}
