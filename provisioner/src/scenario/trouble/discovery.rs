//! What goes wrong with a discovery service. The token is another one in each scenario: the service is shared.

use futures_util::FutureExt;

use super::{LIMIT, Trouble};
use crate::scenario::answers::{Answerer, set_size};
use crate::scenario::failure::Failure;
use crate::scenario::server::Server;
use crate::scenario::stage::Stage;
use crate::scenario::subject::Words;

const ERROR: &str = "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n";

pub(super) const TROUBLES: &[Trouble] = &[
    Trouble::new(
        "discovery/full",
        "clustering guide: Lifetime of a discovery URL",
        "a member more than the size of the cluster ends: cluster is full",
        |stage| full(stage).boxed_local(),
    ),
    Trouble::new(
        "discovery/duplicate-name",
        "clustering guide: Custom etcd discovery service (each member must have a different name)",
        "two members of one name both end: duplicate name",
        |stage| duplicate_name(stage).boxed_local(),
    ),
    Trouble::new(
        "discovery/registered-twice",
        "clustering guide: Lifetime of a discovery URL",
        "a member that has registered and comes back without data ends: duplicate id",
        |stage| registered_twice(stage).boxed_local(),
    ),
    Trouble {
        covering: false,
        ..Trouble::new(
            "discovery/service-refuses",
            "discovery protocol",
            "a service that is not there: a member ends within a minute and says why; etcd tries for ever, and says so",
            |stage| given_up(stage, Away::Refuses).boxed_local(),
        )
    },
    Trouble {
        covering: false,
        ..Trouble::new(
            "discovery/service-hangs",
            "discovery protocol",
            "a service that never answers: a member ends within a minute and says why; etcd ends after 5 s",
            |stage| given_up(stage, Away::Hangs).boxed_local(),
        )
    },
    Trouble {
        covering: false,
        ..Trouble::new(
            "discovery/service-fails",
            "discovery protocol",
            "a service that answers 500: a member ends within a minute and says why; etcd tries for ever, and says so",
            |stage| given_up(stage, Away::Fails).boxed_local(),
        )
    },
];

/// What the service does instead of answering.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Away {
    Refuses,
    Hangs,
    Fails,
}

/// A token of the shared service for a cluster of that size.
async fn token(stage: &Stage, name: &str, size: &str) -> Result<String, Failure> {
    stage.step("a discovery service");
    let url = format!("{}/{name}", stage.services.v2().await?);
    set_size(&url, size).await?;
    Ok(url)
}

/// A member that is given the token; without a place it ends, where etcd would become a proxy.
fn member<'s>(stage: &'s Stage, name: &str, url: &str) -> Result<Server<'s>, Failure> {
    Ok(Server::stranger(stage, name)?.with([
        format!("--discovery={url}"),
        "--discovery-fallback=exit".to_owned(),
    ]))
}

async fn full(stage: &Stage) -> Result<(), Failure> {
    let url = token(stage, "full", "1").await?;
    stage.step("the first member");
    let mut first = member(stage, "infra0", &url)?;
    first.start()?;
    first.ready().await?;
    stage.step("a second member");
    let mut second = member(stage, "infra1", &url)?;
    second.start()?;
    let advice = Words::but_3_4(
        "do not reuse discovery token; generate a new one to bootstrap a cluster",
        "please generate a new discovery token and try to bootstrap again",
    );
    let full = "failed to join discovery cluster (discovery: cluster is full)";
    second.ends(1, &[full, stage.says(advice)]).await
}

async fn duplicate_name(stage: &Stage) -> Result<(), Failure> {
    let url = token(stage, "duplicate-name", "2").await?;
    stage.step("two members of one name");
    let mut twins = Vec::new();
    for dir in ["infra0", "infra1"] {
        let mut twin = member(stage, dir, &url)?.with(["--name=same".to_owned()]);
        twin.start()?;
        twins.push(twin);
    }
    let text = Words::but_3_4(
        "member with duplicated name has already been registered",
        "member with duplicated name has registered with discovery service token",
    );
    for twin in &mut twins {
        twin.ends(1, &[stage.says(text)]).await?;
    }
    Ok(())
}

async fn registered_twice(stage: &Stage) -> Result<(), Failure> {
    let url = token(stage, "registered-twice", "3").await?;
    stage.step("a member registers");
    let mut first = member(stage, "infra0", &url)?;
    first.start()?;
    first
        .says(Words::but_3_4("waiting for more", "waiting for 2 more"))
        .await?;
    stage.step("it registers again");
    first.kill().await?;
    first.start()?;
    let text = Words::but_3_4(
        "member has been registered with discovery service",
        "has previously registered with discovery service token",
    );
    first.ends(1, &[stage.says(text)]).await
}

async fn given_up(stage: &Stage, away: Away) -> Result<(), Failure> {
    let service = match away {
        Away::Refuses => None,
        Away::Hangs => Some(Answerer::new(None).await?),
        Away::Fails => Some(Answerer::new(Some(ERROR)).await?),
    };
    let port = match &service {
        Some(service) => service.port,
        None => stage.port()?,
    };
    stage.step("a member starts");
    let url = format!("http://127.0.0.1:{port}/v2/keys/discovery/t");
    let mut server = member(stage, "infra0", &url)?;
    server.start()?;
    if stage.subject.is_member() {
        let last = match away {
            Away::Refuses => "Connection refused",
            Away::Hangs => "no answer within 5s",
            Away::Fails => "server error [500 Internal Server Error]",
        };
        let gave_up = "discovery: no answer from http://127.0.0.1:";
        return server.ends(1, &[gave_up, last]).await;
    }
    if away == Away::Hangs {
        let late = "failed to join discovery cluster (context deadline exceeded)";
        return server.ends(1, &[late]).await;
    }
    let tries = Words::but_3_4(
        "retry connecting to discovery service",
        "cluster status check: error connecting to",
    );
    server.says(tries).await?;
    server.runs()
}

// The longest of them waits 30 s for a service.
const _: () = assert!(LIMIT.as_secs() >= 60);
