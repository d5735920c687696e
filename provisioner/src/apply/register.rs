//! Telling the cluster's own discovery service how many members will come.

use std::time::Duration;

use member_proto::etcdserverpb::PutRequest;
use member_proto::etcdserverpb::kv_client::KvClient;
use testbed::service::discovery;
use tokio::time::{Instant, sleep};

use crate::error::Error;
use crate::services::{Registration, SizeKey};

// The service's member has opened its port and may not have elected itself yet.
const TRY_EVERY: Duration = Duration::from_millis(20);

/// Sets the size, as soon as the service can; at most for `limit`.
pub(super) async fn set_size(registration: &Registration, limit: Duration) -> Result<(), Error> {
    let deadline = Instant::now() + limit;
    loop {
        let refused = match tokio::time::timeout_at(deadline, once(registration)).await {
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

async fn once(registration: &Registration) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    match &registration.key {
        SizeKey::V2(path) => {
            let size = registration.size.to_string();
            let answer = discovery::set_size(&registration.backend, path, &size).await?;
            if !answer.is_success() {
                return Err(format!("the backend answered {answer}").into());
            }
        }
        SizeKey::V3(key) => {
            let mut client = KvClient::connect(registration.backend.clone()).await?;
            let request = PutRequest {
                key: key.clone().into(),
                value: registration.size.to_string().into(),
                ..PutRequest::default()
            };
            client.put(request).await?;
        }
    }
    Ok(())
}
