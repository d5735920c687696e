//! Waiting until a member answers a linearizable read.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::observe::{Access, CallError, Client, Vitals};
use crate::topology::Member;

// A member binds its port some ten milliseconds after its start; asking this often costs nothing and wastes little.
const EAGER: Duration = Duration::from_millis(5);
const PATIENT: Duration = Duration::from_millis(50);
// By then the member is busy with something long, such as replaying its log.
const EAGER_FOR: Duration = Duration::from_secs(3);
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
const STATUS_LIMIT: Duration = Duration::from_secs(2);
// etcd 3.4 forgets reads that arrive before its leader has committed; the next one is answered at once.
const FIRST_READ_LIMIT: Duration = Duration::from_millis(60);
const LAST_READ_LIMIT: Duration = Duration::from_secs(2);

/// Waits without end; the caller holds the deadline. `trouble` always says why the member is not ready yet.
pub(super) async fn ready(
    access: &Access,
    member: &Member,
    port: u16,
    trouble: &mut String,
) -> Vitals {
    let began = Instant::now();
    let pause = || {
        sleep(if began.elapsed() < EAGER_FOR {
            EAGER
        } else {
            PATIENT
        })
    };
    loop {
        let client = match access.connect(member, port, CONNECT_LIMIT).await {
            Ok(client) => client,
            Err(error) => {
                *trouble = error.to_string();
                pause().await;
                continue;
            }
        };
        let mut read_limit = FIRST_READ_LIMIT;
        loop {
            match ask(&client, read_limit).await {
                Ok(Ok(vitals)) => return vitals,
                Ok(Err(not_yet)) => *trouble = not_yet,
                Err(CallError::Late(limit)) => {
                    *trouble = CallError::Late(limit).to_string();
                    read_limit = (read_limit * 2).min(LAST_READ_LIMIT);
                }
                Err(error) => {
                    *trouble = error.to_string();
                    pause().await;
                    break;
                }
            }
            pause().await;
        }
    }
}

async fn ask(client: &Client, read_limit: Duration) -> Result<Result<Vitals, String>, CallError> {
    let vitals = client.status(STATUS_LIMIT).await?;
    if vitals.leader == 0 {
        return Ok(Err("it knows no leader".to_owned()));
    }
    // A learner follows and answers no such reads.
    if !vitals.is_learner {
        client.linearizable_read(read_limit).await?;
    }
    Ok(Ok(vitals))
}
