//! Writers that remember: unique values through all endpoints while faults happen, each with its outcome.
//!
//! Each writer has its own keys and one operation in flight, moves to the next endpoint with every operation, and reads
//! its keys back now and then. Judging is [`crate::check`]'s affair. Nothing is retried: a retry would
//! hide whether the first attempt took effect.

use std::error::Error as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use member_proto::etcdserverpb::kv_client::KvClient;
use member_proto::etcdserverpb::{PutRequest, RangeRequest};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::target::Target;
use crate::check::History;
use crate::check::history::{Action, Get, Op, Outcome};
use crate::check::read_back::state;

/// What to write.
#[derive(Clone, Debug)]
pub struct Writers {
    /// The cluster.
    pub target: Target,
    /// All keys begin with this; it must be new to the cluster and end in an ASCII character.
    pub prefix: String,
    /// How many write at once.
    pub writers: usize,
    /// Keys of each writer, written in turn.
    pub keys_each: usize,
    /// Every so many operations a writer reads one of its keys instead; 0: never.
    pub read_every: usize,
    /// How long an operation may take before its outcome counts as unknown.
    pub request_timeout: Duration,
    /// Pause of each writer between its operations.
    pub pause: Duration,
    /// Each writer ends after so many operations.
    pub operations_each: usize,
    /// All writers end after so long.
    pub time: Duration,
}

/// Writers at work. Dropped, they stop at once and their history is lost.
#[derive(Debug)]
pub struct Running {
    tasks: JoinSet<Vec<Op>>,
    stop: CancellationToken,
    acknowledged: watch::Receiver<u64>,
}

impl Writers {
    /// Starts the writers on the current runtime.
    pub fn start(&self) -> anyhow::Result<Running> {
        ensure!(
            self.writers > 0 && self.keys_each > 0,
            "writers need at least one writer and one key each"
        );
        ensure!(
            !self.target.endpoints.is_empty(),
            "writers need at least one endpoint"
        );
        let clients: Vec<_> = self
            .target
            .channels(self.request_timeout)?
            .into_iter()
            .map(KvClient::<Channel>::new)
            .collect();
        let (acknowledged, count) = watch::channel(0);
        let stop = CancellationToken::new();
        let begun = Instant::now();
        let mut tasks = JoinSet::new();
        for writer in 0..self.writers {
            let task = Writer {
                plan: self.clone(),
                writer,
                clients: clients.clone(),
                stop: stop.clone(),
                acknowledged: acknowledged.clone(),
                begun,
            };
            tasks.spawn(task.run());
        }
        Ok(Running {
            tasks,
            stop,
            acknowledged: count,
        })
    }
}

impl Running {
    /// Writes acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        *self.acknowledged.borrow()
    }

    /// Waits until `more` writes have been acknowledged from now on.
    pub async fn until_acknowledged(&mut self, more: u64, limit: Duration) -> anyhow::Result<()> {
        let goal = self.acknowledged() + more;
        let reached = timeout(limit, self.acknowledged.wait_for(|count| *count >= goal))
            .await
            .is_ok_and(|it| it.is_ok());
        ensure!(
            reached,
            "only {} of {goal} writes were acknowledged within {limit:?}",
            self.acknowledged()
        );
        Ok(())
    }

    /// Lets each writer finish its operation and returns what all of them saw.
    pub async fn stop(self) -> anyhow::Result<History> {
        self.stop.cancel();
        self.finish().await
    }

    /// Waits until the writers have reached their limits and returns what they saw.
    pub async fn finish(mut self) -> anyhow::Result<History> {
        let mut history = History::default();
        while let Some(ops) = self.tasks.join_next().await {
            history.ops.extend(ops.context("join a writer")?);
        }
        Ok(history)
    }
}

struct Writer {
    plan: Writers,
    writer: usize,
    clients: Vec<KvClient<Channel>>,
    stop: CancellationToken,
    acknowledged: watch::Sender<u64>,
    begun: Instant,
}

impl Writer {
    async fn run(mut self) -> Vec<Op> {
        let mut ops = Vec::new();
        let mut puts = 0;
        for number in 0..self.plan.operations_each {
            if self.stop.is_cancelled() || self.begun.elapsed() >= self.plan.time {
                break;
            }
            // Writers begin apart, so that together they always use every endpoint.
            let endpoint = (self.writer + number) % self.clients.len();
            let reads = self.plan.read_every > 0
                && number % self.plan.read_every == self.plan.read_every - 1;
            let start = self.begun.elapsed();
            let action = if reads {
                self.get(endpoint, puts).await
            } else {
                self.put(endpoint, puts).await
            };
            puts += u64::from(!reads);
            ops.push(Op {
                writer: self.writer,
                endpoint,
                start,
                end: self.begun.elapsed(),
                action,
            });
            if !self.plan.pause.is_zero() {
                sleep(self.plan.pause).await;
            }
        }
        ops
    }

    async fn put(&mut self, endpoint: usize, puts: u64) -> Action {
        let key = self.key(puts);
        let value = format!("{}-{puts}", self.writer);
        let request = PutRequest {
            key: key.clone().into(),
            value: value.clone().into(),
            ..Default::default()
        };
        let outcome = match timeout(
            self.plan.request_timeout,
            self.clients[endpoint].put(request),
        )
        .await
        {
            Ok(Ok(answer)) => {
                self.acknowledged.send_modify(|count| *count += 1);
                Outcome::Acknowledged {
                    revision: answer.into_inner().header.unwrap_or_default().revision,
                }
            }
            Ok(Err(status)) if did_not_happen(&status) => Outcome::Refused {
                error: describe(&status),
            },
            Ok(Err(status)) => Outcome::Unknown {
                error: describe(&status),
            },
            Err(_) => Outcome::Unknown {
                error: format!("no answer within {:?}", self.plan.request_timeout),
            },
        };
        Action::Put {
            key,
            value,
            outcome,
        }
    }

    async fn get(&mut self, endpoint: usize, puts: u64) -> Action {
        // The key of the last put: its acknowledgement is the freshest.
        let key = self.key(puts.saturating_sub(1));
        let request = RangeRequest {
            key: key.clone().into(),
            ..Default::default()
        };
        let outcome = match timeout(
            self.plan.request_timeout,
            self.clients[endpoint].range(request),
        )
        .await
        {
            Ok(Ok(answer)) => {
                let answer = answer.into_inner();
                let header_revision = answer.header.unwrap_or_default().revision;
                Ok(Get {
                    header_revision,
                    kv: answer.kvs.first().map(state),
                })
            }
            Ok(Err(status)) => Err(describe(&status)),
            Err(_) => Err(format!("no answer within {:?}", self.plan.request_timeout)),
        };
        Action::Get { key, outcome }
    }

    fn key(&self, puts: u64) -> String {
        format!(
            "{}{}/{}",
            self.plan.prefix,
            self.writer,
            puts % self.plan.keys_each as u64
        )
    }
}

/// Whether a failed write is certain not to take effect: it was never sent, or refused for what it is.
fn did_not_happen(status: &Status) -> bool {
    let refused = matches!(
        status.code(),
        Code::InvalidArgument
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::Unimplemented
    );
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    refused
}

fn describe(status: &Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}
