//! SRV records that are missing or name others. A cluster of one holds the network in which the name server answers.

use futures_util::FutureExt;

use super::Trouble;
use crate::scenario::bootstrap::{self, CLUSTER};
use crate::scenario::definition::Need;
use crate::scenario::failure::Failure;
use crate::scenario::matrix::{Address, Cell, Method, Transport};
use crate::scenario::stage::Stage;

const NEEDS: &[Need] = &[Need::PrivateNetwork];
const GUIDE: &str = "clustering guide: DNS discovery";

pub(super) const TROUBLES: &[Trouble] = &[
    Trouble {
        needs: NEEDS,
        ..Trouble::new(
            "srv/missing",
            GUIDE,
            "a domain without records ends the start, which names what was looked up and where",
            |stage| {
                let text = "error setting up initial cluster: error querying DNS SRV records for _etcd-server-ssl lookup _etcd-server-ssl._tcp.nosuch.com on 127.0.0.1:53: no such host";
                server(stage, "nosuch.com", text).boxed_local()
            },
        )
    },
    Trouble {
        needs: NEEDS,
        ..Trouble::new(
            "srv/not-matching",
            "clustering guide: Bootstrap the etcd cluster using DNS (must match one of the SRV targets)",
            "a member that is not among the records ends: cannot find local etcd member",
            |stage| {
                let text = "cannot find local etcd member \"stranger\" in SRV records";
                server(stage, "example.com", text).boxed_local()
            },
        )
    },
    Trouble {
        needs: NEEDS,
        ..Trouble::new(
            "srv/gateway-missing",
            "gateway guide: DNS",
            "a gateway for a domain without records ends, and names both look-ups",
            |stage| gateway(stage).boxed_local(),
        )
    },
];

/// Runs the server in the network of a cluster with records for example.com; it must end with exit code 1 and the text.
async fn ends(stage: &Stage, args: &[&str], text: &str) -> Result<(), Failure> {
    let cell = Cell {
        method: Method::DnsSrv,
        transport: Transport::Mutual,
        size: 1,
        address: Address::Name,
    };
    bootstrap::up(stage, cell, "").await?;
    stage.step(args.join(" "));
    let program = stage.subject.program.display().to_string();
    let done = stage
        .exec(CLUSTER, &[&[program.as_str()], args].concat())
        .await?;
    done.ends(1, text)
}

async fn server(stage: &Stage, domain: &str, text: &str) -> Result<(), Failure> {
    let data = format!("--data-dir={}", stage.path("stranger").display());
    let domain = format!("--discovery-srv={domain}");
    let args = [
        "--name=stranger",
        &data,
        &domain,
        "--listen-client-urls=http://127.0.0.1:9379",
        "--advertise-client-urls=http://127.0.0.1:9379",
        "--listen-peer-urls=http://127.0.0.1:9380",
        "--initial-advertise-peer-urls=http://127.0.0.1:9380",
    ];
    ends(stage, &args, text).await
}

async fn gateway(stage: &Stage) -> Result<(), Failure> {
    let text = "dns lookup errors: lookup _etcd-client-ssl._tcp.nosuch.com on 127.0.0.1:53: no such host and lookup _etcd-client._tcp.nosuch.com on 127.0.0.1:53: no such host";
    let args = ["gateway", "start", "--discovery-srv=nosuch.com"];
    ends(stage, &args, text).await
}
