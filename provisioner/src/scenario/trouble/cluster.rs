//! Members that do not fit together.

use futures_util::FutureExt;

use super::Trouble;
use crate::scenario::definition::Need;
use crate::scenario::failure::Failure;
use crate::scenario::paths::{has_key, member_list, three};
use crate::scenario::server::Server;
use crate::scenario::stage::Stage;
use crate::scenario::subject::Words;

pub(super) const TROUBLES: &[Trouble] = &[
    Trouble::new(
        "cluster/conflicting-id",
        "clustering guide: Static, Error cases (conflicting cluster ID)",
        "a member with another list of the same servers says that the cluster IDs differ and never serves; the cluster goes on. The guide's exit is of etcd 2.0",
        |stage| conflicting_id(stage).boxed_local(),
    ),
    Trouble::new(
        "cluster/conflicting-tokens",
        "clustering guide: Static (a unique token for each cluster)",
        "a member with another token says that the cluster IDs differ and never serves; the other two are a cluster",
        |stage| conflicting_tokens(stage).boxed_local(),
    ),
    Trouble::new(
        "cluster/count-unequal",
        "runtime reconfiguration: Error cases when adding members",
        "a member that was not added ends: member count is unequal",
        |stage| count_unequal(stage).boxed_local(),
    ),
    Trouble::new(
        "cluster/url-mismatch",
        "runtime reconfiguration: Error cases when adding members",
        "a member that was added with another URL ends: no match found for existing member",
        |stage| url_mismatch(stage).boxed_local(),
    ),
    Trouble::new(
        "cluster/removed-restarts",
        "runtime reconfiguration: Error cases when adding members (removed member)",
        "a member that was removed while it was down says so at its start and ends with exit code 0, each time",
        |stage| removed_restarts(stage).boxed_local(),
    ),
    Trouble::new(
        "cluster/wiped-restarts",
        "runtime reconfiguration: Replace a failed machine",
        "a member that lost its data is not taken back as if nothing had happened: it has already been bootstrapped",
        |stage| wiped_restarts(stage).boxed_local(),
    ),
    Trouble {
        needs: &[Need::Programs(&["setpriv"])],
        ..Trouble::new(
            "cluster/data-unwritable",
            "configuration guide: --data-dir",
            "a data directory that may not be written to is an error at once",
            |stage| data_unwritable(stage).boxed_local(),
        )
    },
];

async fn conflicting_id(stage: &Stage) -> Result<(), Failure> {
    let servers = three(stage).await?;
    stage.step("the guide's infra3");
    let mut fourth = Server::stranger(stage, "infra3")?;
    let initial = format!(
        "--initial-cluster=infra0={},infra1={},infra3={}",
        servers[0].peer_url(),
        servers[1].peer_url(),
        fourth.peer_url()
    );
    fourth.args.push(initial);
    fourth.start()?;
    fourth.says(Words::same("cluster ID mismatch")).await?;
    kept_out(&mut fourth).await?;
    has_key(stage, &servers[0].client_url()).await
}

/// It runs, and serves nobody.
async fn kept_out(server: &mut Server<'_>) -> Result<(), Failure> {
    server.runs()?;
    match server.serves(&server.client_url(), &[]).await? {
        false => Ok(()),
        true => Err(Failure::check("it serves nobody", "it answers a read")),
    }
}

async fn conflicting_tokens(stage: &Stage) -> Result<(), Failure> {
    stage.step("three members start, one with another token");
    let mut servers = Server::cluster(stage, 3)?;
    for (server, token) in servers.iter_mut().zip(["one", "one", "two"]) {
        server.args.push(format!("--initial-cluster-token={token}"));
        server.start()?;
    }
    servers[0].ready().await?;
    servers[1].ready().await?;
    servers[2].says(Words::same("cluster ID mismatch")).await?;
    kept_out(&mut servers[2]).await
}

/// A member that wants to join without having been added.
async fn intruder<'s>(stage: &'s Stage, first: &Server<'_>) -> Result<Server<'s>, Failure> {
    let second = Server::stranger(stage, "infra1")?;
    let initial = format!(
        "--initial-cluster=infra0={},infra1={}",
        first.peer_url(),
        second.peer_url()
    );
    Ok(second.with([initial, "--initial-cluster-state=existing".to_owned()]))
}

async fn count_unequal(stage: &Stage) -> Result<(), Failure> {
    let first = Server::alone(stage, "infra0")?.started().await?;
    stage.step("a member that was not added");
    let mut second = intruder(stage, &first).await?;
    second.start()?;
    second.ends(1, &["member count is unequal"]).await
}

async fn url_mismatch(stage: &Stage) -> Result<(), Failure> {
    let first = Server::alone(stage, "infra0")?.started().await?;
    stage.step("etcdctl member add with another URL");
    let add = ["member", "add", "infra1", "--peer-urls=http://127.0.0.1:1"];
    stage.etcdctl(&first.client_url(), &add).await?.expect(0)?;
    let mut second = intruder(stage, &first).await?;
    second.start()?;
    let texts = [
        "PeerURLs: no match found for existing member (",
        "[http://127.0.0.1:1]), last resolver error (",
    ];
    second.ends(1, &texts).await
}

async fn removed_restarts(stage: &Stage) -> Result<(), Failure> {
    let mut servers = three(stage).await?;
    let id = id_of(stage, &servers[0], "infra2").await?;
    stage.step("infra2 stops and is removed");
    servers[2].stop().await?;
    let at = servers[0].client_url();
    stage
        .wait(
            "it is removed, which takes members that have known each other for 5 s",
            || async {
                let done = stage.etcdctl(&at, &["member", "remove", &id]).await?;
                Ok(done.ok().then_some(()))
            },
        )
        .await?;
    let removed = "the member has been permanently removed from the cluster";
    let directory = Words::but_3_4(
        "data-dir used by this member must be removed",
        "the data-dir used by this member must be removed",
    );
    for start in ["first", "second"] {
        stage.step(format!("the {start} start after the removal"));
        servers[2].start()?;
        servers[2]
            .ends(0, &[removed, stage.says(directory)])
            .await?;
    }
    has_key(stage, &at).await
}

async fn id_of(stage: &Stage, at: &Server<'_>, name: &str) -> Result<String, Failure> {
    let list = member_list(stage, &at.client_url()).await?;
    let members = list["members"].as_array().cloned().unwrap_or_default();
    members
        .iter()
        .find(|member| member["name"] == name)
        .and_then(|member| member["ID"].as_u64())
        .map(|id| format!("{id:x}"))
        .ok_or_else(|| Failure::check(format!("{name} is listed"), list.to_string()))
}

async fn wiped_restarts(stage: &Stage) -> Result<(), Failure> {
    let mut servers = three(stage).await?;
    stage.step("infra2 loses its data and starts");
    servers[2].kill().await?;
    let data = servers[2].data_dir();
    std::fs::remove_dir_all(&data).map_err(|error| {
        let error = crate::error::Error::io("delete", &data)(error);
        Failure::setup("an empty data directory", &error)
    })?;
    servers[2].start()?;
    servers[2]
        .ends(1, &["has already been bootstrapped"])
        .await?;
    has_key(stage, &servers[0].client_url()).await
}

async fn data_unwritable(stage: &Stage) -> Result<(), Failure> {
    use std::os::unix::fs::PermissionsExt;
    stage.step("a start over a directory of mode 0500");
    let mut server = Server::alone(stage, "infra0")?;
    let data = server.data_dir();
    let make = || {
        std::fs::create_dir(&data)?;
        std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o500))
    };
    make().map_err(|error| {
        let error = crate::error::Error::io("create", &data)(error);
        Failure::setup("a data directory", &error)
    })?;
    if rustix::process::geteuid().is_root() {
        // root writes everywhere until its capabilities are taken away.
        let wrapper = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--"];
        server.wrapper = wrapper.map(str::to_owned).to_vec();
    }
    server.start()?;
    // The system's words, as each runtime library writes them.
    let denied = Words {
        member: "Permission denied",
        ..Words::same("permission denied")
    };
    server.ends(1, &[stage.says(denied)]).await
}
