//! Preparing the cluster's own discovery service for members that are about to register.

use std::time::Duration;

use member_proto::etcdserverpb::kv_client::KvClient;
use member_proto::etcdserverpb::{DeleteRangeRequest, PutRequest};
use testbed::service::discovery;
use tokio::time::{Instant, sleep};

use crate::error::Error;
use crate::services::{Registration, TokenKeys};

// The service's member has opened its port and may not have elected itself yet.
const TRY_EVERY: Duration = Duration::from_millis(20);

/// Sets the size, and takes away what earlier starts of `registering` left, as soon as the service can; at most for `limit`.
pub(super) async fn prepare(
    registration: &Registration,
    registering: &[String],
    limit: Duration,
) -> Result<(), Error> {
    let deadline = Instant::now() + limit;
    loop {
        let once = once(registration, registering);
        let refused = match tokio::time::timeout_at(deadline, once).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it does not answer".to_owned(),
        };
        if Instant::now() >= deadline {
            return Err(Error::timed_out(
                format!("the discovery service at {}", registration.backend),
                limit,
                format!("it said: {refused}; see its log beside those of the members"),
            ));
        }
        sleep(TRY_EVERY).await;
    }
}

async fn once(
    registration: &Registration,
    registering: &[String],
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let Registration {
        backend,
        token,
        size,
        members,
    } = registration;
    let size = size.to_string();
    let old: Vec<String> = registering
        .iter()
        .filter_map(|name| Some(token.member(*members.get(name)?)))
        .collect();
    match token {
        TokenKeys::V2(_) => {
            let answer = discovery::set_size(backend, &token.size(), &size).await?;
            if !answer.is_success() {
                return Err(format!("the backend answered {answer}").into());
            }
            for key in &old {
                discovery::forget(backend, key).await?;
            }
        }
        TokenKeys::V3(_) => {
            let mut client = KvClient::connect(backend.clone()).await?;
            let request = PutRequest {
                key: token.size().into(),
                value: size.into(),
                ..PutRequest::default()
            };
            client.put(request).await?;
            for key in old {
                let request = DeleteRangeRequest {
                    key: key.into(),
                    ..DeleteRangeRequest::default()
                };
                client.delete_range(request).await?;
            }
        }
    }
    Ok(())
}
