//! The ways to begin that are no cells of the matrix: joining, restoring, restarting, gateways, the environment's variables.

use std::path::Path;
use std::time::Duration;

use futures_util::FutureExt;
use serde_json::Value;

use super::answers::{Proxy, set_size};
use super::bootstrap::{self, CLUSTER};
use super::definition::{Body, Need, Scenario, Steps, Suite};
use super::failure::Failure;
use super::matrix::{Address, Cell, Method, Transport};
use super::server::Server;
use super::stage::Stage;
use super::subject::Words;
use crate::host::local::Attend;

const LIMIT: Duration = Duration::from_secs(90);

/// id, source, what is checked, steps
const PATHS: [(&str, &str, &str, Steps); 10] = [
    (
        "path/tokens-differ",
        "clustering guide: Static (a unique token for each cluster)",
        "equal settings with different tokens give different cluster and member IDs, and with equal tokens the same",
        |stage| tokens_differ(stage).boxed_local(),
    ),
    (
        "path/second-start",
        "clustering guide: Static (ignored on subsequent runs)",
        "a member that has data starts again whatever the initial flags say, with its ID and its data",
        |stage| second_start(stage).boxed_local(),
    ),
    (
        "path/join-by-flags",
        "runtime reconfiguration: Add a new member",
        "a member joins with the flags that etcdctl member add prints, and has the data",
        |stage| join(stage, false).boxed_local(),
    ),
    (
        "path/join-by-environment",
        "Kubernetes, operating etcd: Replacing a failed member",
        "a member joins with ETCD_NAME, ETCD_INITIAL_CLUSTER and ETCD_INITIAL_CLUSTER_STATE, and has the data",
        |stage| join(stage, true).boxed_local(),
    ),
    (
        "path/restore",
        "Kubernetes, operating etcd: Restoring an etcd cluster",
        "a snapshot of a running cluster becomes a new one with the same keys and another ID",
        |stage| restore(stage).boxed_local(),
    ),
    (
        "path/gateway",
        "gateway guide",
        "clients of a gateway reach a cluster of three, also after one of them has died",
        |stage| gateway(stage).boxed_local(),
    ),
    (
        "path/gateway-of-topology",
        "clustering guide: Gateway",
        "a [[gateway]] of the topology passes mutual TLS through to the members",
        |stage| gateway_of_topology(stage).boxed_local(),
    ),
    (
        "path/srv-clients",
        "clustering guide: DNS discovery (clients)",
        "etcdctl --discovery-srv finds the members by the records of the domain",
        |stage| srv_clients(stage).boxed_local(),
    ),
    (
        "path/discovery-by-environment",
        "clustering guide: Public etcd discovery service (ETCD_DISCOVERY)",
        "three members find each other by ETCD_DISCOVERY; with data the token is ignored and the service need not be there",
        |stage| discovery_by_environment(stage).boxed_local(),
    ),
    (
        "path/discovery-proxy",
        "clustering guide: Public etcd discovery service (ETCD_DISCOVERY_PROXY)",
        "a member reaches the discovery service through an HTTP proxy",
        |stage| discovery_proxy(stage).boxed_local(),
    ),
];

pub(super) fn scenarios() -> Vec<Scenario> {
    let scenario = |(id, source, checks, steps): (&str, &'static str, &str, Steps)| Scenario {
        id: id.to_owned(),
        suite: Suite::Bootstrap,
        source,
        checks: checks.to_owned(),
        limit: LIMIT,
        covering: true,
        needs: vec![Need::Programs(&["etcdctl"])],
        body: Body::Steps(steps),
    };
    PATHS.into_iter().map(scenario).collect()
}

/// The list of members as one of them has it.
pub(super) async fn member_list(stage: &Stage, endpoint: &str) -> Result<Value, Failure> {
    let list = ["member", "list", "-w", "json"];
    stage.etcdctl(endpoint, &list).await?.expect(0)?.json()
}

async fn tokens_differ(stage: &Stage) -> Result<(), Failure> {
    let mut server = Server::alone(stage, "infra0")?;
    let data = server.data_dir();
    let mut ids = Vec::new();
    for token in ["one", "two", "one"] {
        stage.step(format!("a start with the token {token}"));
        server.args.push(format!("--initial-cluster-token={token}"));
        server.start()?;
        server.ready().await?;
        let list = member_list(stage, &server.client_url()).await?;
        let id = |value: &Value| value.as_u64().unwrap_or_default();
        ids.push((
            id(&list["header"]["cluster_id"]),
            id(&list["members"][0]["ID"]),
        ));
        server.kill().await?;
        std::fs::remove_dir_all(&data).map_err(|error| {
            let error = crate::error::Error::io("delete", &data)(error);
            Failure::setup("an empty data directory", &error)
        })?;
    }
    if ids[0] == ids[2] && ids[0].0 != ids[1].0 && ids[0].1 != ids[1].1 {
        return Ok(());
    }
    Err(Failure::check(
        "IDs of one, two, one: the first and the last equal, the second another",
        format!("{ids:x?}"),
    ))
}

async fn start_all(servers: &mut [Server<'_>]) -> Result<(), Failure> {
    for server in &mut *servers {
        server.start()?;
    }
    for server in servers {
        server.ready().await?;
    }
    Ok(())
}

/// Three members that serve, and a key.
pub(super) async fn three<'s>(stage: &'s Stage) -> Result<Vec<Server<'s>>, Failure> {
    stage.step("three members start");
    let mut servers = Server::cluster(stage, 3)?;
    start_all(&mut servers).await?;
    put(stage, &servers[0].client_url()).await?;
    Ok(servers)
}

async fn put(stage: &Stage, endpoint: &str) -> Result<(), Failure> {
    stage
        .etcdctl(endpoint, &["put", "a", "b"])
        .await?
        .expect(0)?;
    Ok(())
}

/// The key is there, by a linearizable read.
pub(super) async fn has_key(stage: &Stage, endpoint: &str) -> Result<(), Failure> {
    let get = ["get", "a", "--print-value-only"];
    let done = stage.etcdctl(endpoint, &get).await?;
    done.expect(0)?.prints("b\n")?;
    Ok(())
}

async fn second_start(stage: &Stage) -> Result<(), Failure> {
    let mut servers = three(stage).await?;
    let before = member_list(stage, &servers[0].client_url()).await?;
    stage.step("one starts again with other initial flags");
    servers[1].stop().await?;
    servers[1].args.extend(
        [
            "--initial-cluster=nobody=http://127.0.0.1:1",
            "--initial-cluster-token=another",
            "--initial-cluster-state=existing",
        ]
        .map(str::to_owned),
    );
    servers[1].start()?;
    servers[1].ready().await?;
    has_key(stage, &servers[1].client_url()).await?;
    let after = member_list(stage, &servers[1].client_url()).await?;
    let ids = |list: &Value| {
        let members = list["members"].as_array().cloned().unwrap_or_default();
        let mut ids: Vec<u64> = members.iter().filter_map(|of| of["ID"].as_u64()).collect();
        ids.sort_unstable();
        ids
    };
    if ids(&before) == ids(&after) && ids(&after).len() == 3 {
        return Ok(());
    }
    Err(Failure::check(
        format!("members {:x?}", ids(&before)),
        format!("{:x?}", ids(&after)),
    ))
}

/// What `member add` prints for the environment of the new member.
fn printed<'o>(out: &'o str, variable: &str) -> Result<&'o str, Failure> {
    out.lines()
        .find_map(|line| line.strip_prefix(variable)?.strip_prefix("=\""))
        .and_then(|value| value.strip_suffix('"'))
        .ok_or_else(|| Failure::check(format!("etcdctl member add prints {variable}"), out))
}

async fn join(stage: &Stage, by_environment: bool) -> Result<(), Failure> {
    stage.step("the first member");
    let first = Server::alone(stage, "infra0")?.started().await?;
    put(stage, &first.client_url()).await?;
    stage.step("etcdctl member add");
    let mut second = Server::stranger(stage, "infra1")?;
    let urls = format!("--peer-urls={}", second.peer_url());
    let add = ["member", "add", "infra1", &urls];
    let out = stage.etcdctl(&first.client_url(), &add).await?.expect(0)?;
    let variables = [
        "ETCD_NAME",
        "ETCD_INITIAL_CLUSTER",
        "ETCD_INITIAL_CLUSTER_STATE",
    ];
    for variable in variables {
        let value = printed(&out.stdout, variable)?.to_owned();
        if by_environment {
            second.env.push((variable.to_owned(), value));
        } else {
            let flag = variable.trim_start_matches("ETCD_").to_lowercase();
            second
                .args
                .push(format!("--{}={value}", flag.replace('_', "-")));
        }
    }
    if by_environment {
        // etcd refuses a setting that is given twice.
        second.args.retain(|arg| !arg.starts_with("--name="));
    }
    stage.step("the second member");
    second.start()?;
    second.ready().await?;
    has_key(stage, &second.client_url()).await?;
    let list = member_list(stage, &second.client_url()).await?;
    match list["members"].as_array().map(Vec::len) {
        Some(2) => Ok(()),
        _ => Err(Failure::check("two members", list.to_string())),
    }
}

async fn restore(stage: &Stage) -> Result<(), Failure> {
    let servers = three(stage).await?;
    let before = member_list(stage, &servers[0].client_url()).await?;
    stage.step("etcdctl snapshot save");
    let file = stage.path("backup.db").display().to_string();
    let save = ["snapshot", "save", &file];
    stage
        .etcdctl(&servers[0].client_url(), &save)
        .await?
        .expect(0)?;
    stage.step("snapshot restore");
    let mut restored = Server::alone(stage, "restored")?;
    let own = restored.peer_url();
    let args = [
        "snapshot",
        "restore",
        &file,
        "--name=restored",
        &format!("--initial-cluster=restored={own}"),
        &format!("--initial-advertise-peer-urls={own}"),
        "--initial-cluster-token=restored",
        &format!("--data-dir={}", restored.data_dir().display()),
    ];
    let tool = match stage.subject.is_member() {
        true => stage.subject.program.as_path(),
        false => Path::new("etcdctl"),
    };
    let env = [("ETCDCTL_API".to_owned(), "3".to_owned())];
    stage.run(tool, &args, &env).await?.expect(0)?;
    stage.step("a start over the restored data");
    restored.start()?;
    restored.ready().await?;
    has_key(stage, &restored.client_url()).await?;
    let after = member_list(stage, &restored.client_url()).await?;
    let cluster = |list: &Value| list["header"]["cluster_id"].as_u64();
    if cluster(&before) == cluster(&after) {
        return Err(Failure::check("another cluster ID", after.to_string()));
    }
    Ok(())
}

async fn gateway(stage: &Stage) -> Result<(), Failure> {
    let mut servers = three(stage).await?;
    stage.step("gateway start");
    let endpoints: Vec<String> = servers.iter().map(Server::client_url).collect();
    let address = format!("127.0.0.1:{}", stage.port()?);
    let args = [
        "gateway".to_owned(),
        "start".to_owned(),
        format!("--listen-addr={address}"),
        format!("--endpoints={}", endpoints.join(",")),
        "--retry-delay=1s".to_owned(),
    ];
    let _gateway = stage.start(Attend {
        program: &stage.subject.program,
        args: &args,
        env: &[],
        dir: &stage.path("."),
        log: Some(&stage.path("log")),
    })?;
    let url = format!("http://{address}");
    let through = || servers[0].answers(&url, &[]);
    through().await?;
    has_key(stage, &url).await?;
    stage.step("a member dies");
    servers[0].kill().await?;
    // One call for each member of before: whoever is asked first, one of them meets the dead one.
    for _ in 0..servers.len() {
        servers[1].answers(&url, &[]).await?;
        has_key(stage, &url).await?;
    }
    Ok(())
}

async fn gateway_of_topology(stage: &Stage) -> Result<(), Failure> {
    let cell = Cell {
        method: Method::StaticFlags,
        transport: Transport::Mutual,
        size: 3,
        address: Address::Ip,
    };
    let address = format!("127.0.0.1:{}", stage.port()?);
    let binary = match stage.subject.is_member() {
        true => String::new(),
        false => format!("binary = {:?}\n", stage.subject.program),
    };
    let gateway = format!("[[gateway]]\nlisten = {address:?}\n{binary}");
    bootstrap::up(stage, cell, &gateway).await?;
    stage.step("put and get through the gateway");
    let at = format!("ETCDCTL_ENDPOINTS=https://{address}");
    let put = ["env", &at, "etcdctl", "put", "a", "b"];
    stage.exec(CLUSTER, &put).await?.expect(0)?.prints("OK\n")?;
    let get = ["env", &at, "etcdctl", "get", "a", "--print-value-only"];
    stage.exec(CLUSTER, &get).await?.expect(0)?.prints("b\n")?;
    Ok(())
}

async fn srv_clients(stage: &Stage) -> Result<(), Failure> {
    let cell = Cell {
        method: Method::DnsSrv,
        transport: Transport::Mutual,
        size: 3,
        address: Address::Name,
    };
    bootstrap::up(stage, cell, "").await?;
    stage.step("etcdctl --discovery-srv");
    // Without other endpoints to fall back on.
    let list = [
        "env",
        "-u",
        "ETCDCTL_ENDPOINTS",
        "etcdctl",
        "--discovery-srv",
        "example.com",
        "member",
        "list",
    ];
    let done = stage.exec(CLUSTER, &list).await?.expect(0)?;
    match done.stdout.matches(", started, infra").count() {
        3 => Ok(()),
        _ => Err(Failure::check("three started members", done.stdout)),
    }
}

async fn discovery_by_environment(stage: &Stage) -> Result<(), Failure> {
    stage.step("a discovery service");
    let url = format!("{}/by-environment", stage.services.v2().await?);
    set_size(&url, "3").await?;
    stage.step("three members start");
    let mut servers = Vec::new();
    for index in 0..3 {
        let mut server = Server::stranger(stage, &format!("infra{index}"))?;
        server.env.push(("ETCD_DISCOVERY".to_owned(), url.clone()));
        servers.push(server);
    }
    start_all(&mut servers).await?;
    put(stage, &servers[2].client_url()).await?;
    stage.step("a start with data and a dead service");
    servers[0].stop().await?;
    let nobody = stage.port()?;
    servers[0].env = vec![(
        "ETCD_DISCOVERY".to_owned(),
        format!("http://127.0.0.1:{nobody}/v2/keys/discovery/gone"),
    )];
    servers[0].start()?;
    servers[0].ready().await?;
    has_key(stage, &servers[0].client_url()).await?;
    let ignored = Words::but_3_4(
        "discovery token is ignored since cluster already initialized; valid logs are found",
        "discovery token ignored since a cluster has already been initialized. Valid log found at",
    );
    servers[0].says(ignored).await
}

async fn discovery_proxy(stage: &Stage) -> Result<(), Failure> {
    stage.step("a discovery service and a proxy");
    let service = stage.services.v2().await?;
    let url = format!("{service}/by-proxy");
    set_size(&url, "1").await?;
    let proxy = Proxy::to(service).await?;
    stage.step("a member starts");
    let mut server = Server::stranger(stage, "infra0")?.with([format!("--discovery={url}")]);
    server.env.push((
        "ETCD_DISCOVERY_PROXY".to_owned(),
        format!("http://127.0.0.1:{}", proxy.port()),
    ));
    server.start()?;
    server.ready().await?;
    let whole = format!("GET {url}/_config/size");
    let first = proxy.first_request();
    if first.starts_with(&whole) {
        return Ok(());
    }
    Err(Failure::check(
        format!("the proxy is asked for {whole}"),
        first,
    ))
}
