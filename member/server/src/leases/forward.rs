//! Questions about leases on their way to the leader: all that wait travel in one message.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use member_proto::peerpb::control_request::Call;
use member_proto::peerpb::control_response::Answer;
use member_proto::peerpb::lease_answer::State;
use member_proto::peerpb::{LeaseAnswer, LeaseQuestion, LeaseRequest};
use tokio::sync::{mpsc, oneshot};

use crate::consensus::Consensus;
use crate::engine::Engine;
use crate::lessor::Found;

/// Questions that wait; more than clients can have in flight makes them wait for a place.
const QUEUE: usize = 64 * 1024;
/// Questions in one message.
const BATCH: usize = 4096;

/// A question about a lease.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question {
    pub(crate) id: i64,
    /// Whether to renew it.
    pub(crate) renew: bool,
}

struct Asked {
    leader: u64,
    question: Question,
    answer: oneshot::Sender<Found>,
}

/// The way to the leader.
pub(super) struct Forward {
    queue: mpsc::Sender<Asked>,
}

impl Forward {
    /// The way, and the work behind it.
    pub(super) fn new<E: Engine>(
        consensus: Arc<Consensus<E>>,
        patience: Duration,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let (queue, asked) = mpsc::channel(QUEUE);
        (Self { queue }, run(consensus, patience, asked))
    }

    /// The leader's answer; `None` when the member is stopping.
    pub(super) async fn ask(&self, leader: u64, question: Question) -> Option<Found> {
        let (answer, answered) = oneshot::channel();
        let asked = Asked {
            leader,
            question,
            answer,
        };
        self.queue.send(asked).await.ok()?;
        answered.await.ok()
    }
}

async fn run<E: Engine>(
    consensus: Arc<Consensus<E>>,
    patience: Duration,
    mut queue: mpsc::Receiver<Asked>,
) {
    let mut waiting = Vec::new();
    while queue.recv_many(&mut waiting, BATCH).await > 0 {
        // One leader but for the moment of an election.
        let mut batches: HashMap<u64, Vec<Asked>> = HashMap::new();
        for asked in waiting.drain(..) {
            batches.entry(asked.leader).or_default().push(asked);
        }
        for (leader, batch) in batches {
            let questions = batch
                .iter()
                .map(|asked| LeaseQuestion {
                    id: asked.question.id,
                    renew: asked.question.renew,
                })
                .collect();
            let call = Call::Lease(LeaseRequest { questions });
            // The leader's own check may take an election timeout; one that is gone must not hold the rest up for long.
            let answers = match consensus.call(leader, call, patience + patience / 2).await {
                Some(Answer::Lease(response)) => response.answers,
                _ => Vec::new(),
            };
            let mut answers = answers.iter().map(found_in);
            for asked in batch {
                let found = answers.next().unwrap_or(Found::Elsewhere);
                // Who asked may have given up.
                let _ = asked.answer.send(found);
            }
        }
    }
}

pub(super) fn question_in(question: &LeaseQuestion) -> Question {
    let LeaseQuestion { id, renew } = *question;
    Question { id, renew }
}

pub(super) fn found_out(found: Found) -> LeaseAnswer {
    let answer = |state: State| LeaseAnswer {
        state: state.into(),
        ..LeaseAnswer::default()
    };
    match found {
        Found::Alive { ttl, granted } => LeaseAnswer {
            ttl,
            granted,
            ..answer(State::Alive)
        },
        Found::Expired => answer(State::Expired),
        Found::Missing => answer(State::Missing),
        Found::Elsewhere => answer(State::Elsewhere),
    }
}

fn found_in(answer: &LeaseAnswer) -> Found {
    match answer.state() {
        State::Alive => Found::Alive {
            ttl: answer.ttl,
            granted: answer.granted,
        },
        State::Expired => Found::Expired,
        State::Missing => Found::Missing,
        State::Elsewhere => Found::Elsewhere,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_survive_the_wire() {
        for found in [
            Found::Alive { ttl: 3, granted: 5 },
            Found::Expired,
            Found::Missing,
            Found::Elsewhere,
        ] {
            assert_eq!(found_in(&found_out(found)), found);
        }
    }
}
