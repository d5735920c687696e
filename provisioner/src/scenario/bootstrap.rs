//! The steps of one cell of the matrix: from a file to a cluster that has been restarted, and back to nothing.

use std::collections::BTreeMap;
use std::path::Path;

use member_flags::ids::{cluster_id, member_id};
use serde_json::Value;

use super::authority::Authority;
use super::failure::Failure;
use super::matrix::{self, Cell, Method, Transport};
use super::stage::Stage;
use crate::topology;

/// The name of the cluster.
pub(super) const CLUSTER: &str = "cell";

// Within the scenario's limit, so that what hangs is explained by the one who waits for it.
const UP: [&str; 3] = ["up", "--timeout", "60s"];

pub(super) async fn cell(stage: &Stage, cell: Cell) -> Result<(), Failure> {
    let file = up(stage, cell, "").await?;
    let endpoints = all_ready(stage, cell.size).await?;
    let members = listed_as_expected(stage, cell, &file).await?;
    same_cluster_everywhere(stage, &members).await?;
    serves_through_each(stage, &endpoints).await?;
    no_drift(stage).await?;

    stage.step("down");
    stage.provision(&["down", CLUSTER]).await?.expect(0)?;
    stage.step("up again");
    stage
        .provision(&[&UP[..], &[&file]].concat())
        .await?
        .expect(0)?;
    all_ready(stage, cell.size).await?;
    stage.step("read what was written before the restart");
    for index in 0..endpoints.len() {
        let key = format!("k{index}");
        let get = ["etcdctl", "get", &key, "--print-value-only"];
        let done = stage.exec(CLUSTER, &get).await?.expect(0)?;
        done.prints(&format!("v{index}\n"))?;
    }
    let again = members_of(stage).await?;
    if again.ids != members.ids {
        return Err(Failure::check(
            format!("the IDs of before: {:x?}", members.ids),
            format!("{:x?}", again.ids),
        ));
    }
    purge(stage).await
}

/// Brings a cluster of the cell up, with `more` at the end of its file; the file.
pub(super) async fn up(stage: &Stage, cell: Cell, more: &str) -> Result<String, Failure> {
    let file = write_topology(stage, cell, more)?;
    stage.step("up");
    let done = stage.provision(&[&UP[..], &[&file]].concat()).await?;
    let refused = |line: &&str| line.contains("a private network");
    if let Some(line) = done.stderr.lines().find(refused) {
        return Err(Failure::skip(line));
    }
    done.expect(0)?;
    Ok(file)
}

async fn purge(stage: &Stage) -> Result<(), Failure> {
    stage.step("down --purge");
    let purge = ["down", "--purge", "--yes", CLUSTER];
    stage.provision(&purge).await?.expect(0)?;
    let list = stage.provision(&["list", "-o", "json"]).await?.expect(0)?;
    if list.stdout.contains(&format!("{CLUSTER:?}")) {
        return Err(Failure::check("no cluster is left", list.stdout));
    }
    Ok(())
}

fn write_topology(stage: &Stage, cell: Cell, more: &str) -> Result<String, Failure> {
    stage.step("write the topology");
    let mut ports = Vec::new();
    for _ in 0..cell.size {
        ports.push((stage.port()?, stage.port()?));
    }
    if cell.transport == Transport::OwnCa {
        let authority = Authority::new("own-ca")?;
        stage.write("ca.crt", authority.cert_pem())?;
        stage.write("ca.key", authority.key_pem())?;
    }
    let program = stage.subject.program.display().to_string();
    let binary = (!stage.subject.is_member()).then_some(program.as_str());
    let text = cell.topology(CLUSTER, stage.subject.server, binary, &ports);
    let file = stage.write("cell.toml", text + more)?;
    topology::load(&file).map_err(|error| invalid(&error))?;
    Ok(file.display().to_string())
}

fn invalid(invalid: &topology::Invalid) -> Failure {
    let problems = invalid.problems().iter();
    let texts: Vec<&str> = problems.map(|problem| problem.message.as_str()).collect();
    Failure::check(
        "a valid topology",
        format!("{invalid}: {}", texts.join("; ")),
    )
}

/// Every member is ready; the endpoints of all.
async fn all_ready(stage: &Stage, size: usize) -> Result<Vec<String>, Failure> {
    stage.step("status");
    let status = stage.provision(&["status", CLUSTER, "-o", "json"]).await?;
    let status = status.expect(0)?.json()?;
    let members = list(&status["members"]);
    let ready = members.iter().filter(|member| member["state"] == "ready");
    if members.len() != size || ready.count() != size {
        return Err(Failure::check(
            format!("{size} members, all ready"),
            status.to_string(),
        ));
    }
    Ok(members
        .iter()
        .flat_map(|member| texts(&member["endpoints"]))
        .collect())
}

/// What `member list` says.
struct Listed {
    cluster: u64,
    /// ID by name.
    ids: BTreeMap<String, u64>,
    peer_urls: BTreeMap<String, Vec<String>>,
    client_urls: BTreeMap<String, Vec<String>>,
}

async fn members_of(stage: &Stage) -> Result<Listed, Failure> {
    let list_json = ["etcdctl", "member", "list", "-w", "json"];
    let list_json = stage.exec(CLUSTER, &list_json).await?.expect(0)?.json()?;
    let mut listed = Listed {
        cluster: list_json["header"]["cluster_id"]
            .as_u64()
            .unwrap_or_default(),
        ids: BTreeMap::new(),
        peer_urls: BTreeMap::new(),
        client_urls: BTreeMap::new(),
    };
    for member in list(&list_json["members"]) {
        let name = member["name"].as_str().unwrap_or_default().to_owned();
        let id = member["ID"].as_u64().unwrap_or_default();
        listed.ids.insert(name.clone(), id);
        listed
            .peer_urls
            .insert(name.clone(), texts(&member["peerURLs"]));
        listed
            .client_urls
            .insert(name, texts(&member["clientURLs"]));
    }
    Ok(listed)
}

/// Names, URLs and IDs are what the file says and etcd computes of it.
async fn listed_as_expected(stage: &Stage, cell: Cell, file: &str) -> Result<Listed, Failure> {
    stage.step("etcdctl member list");
    let text = stage.path("cell.toml");
    let topology = topology::load(Path::new(&text))
        .map_err(|error| invalid(&error))?
        .topology;
    let ports: Vec<(u16, u16)> = topology
        .members
        .iter()
        .filter_map(|member| member.client_port.zip(member.peer_port))
        .collect();
    let mut peers = BTreeMap::new();
    let mut clients = BTreeMap::new();
    for index in 0..cell.size {
        let (host, client, peer) = cell.place_of(index, &ports);
        let url = |host: &str, port: u16| vec![format!("{}://{host}:{port}", cell.scheme())];
        clients.insert(format!("infra{index}"), url(&host, client));
        // By DNS, members are what the records name, also where they advertise addresses.
        let listed_as = match cell.method {
            Method::DnsSrv => matrix::name(index),
            _ => host,
        };
        peers.insert(format!("infra{index}"), url(&listed_as, peer));
    }
    let listed = members_of(stage).await?;
    if listed.client_urls != clients {
        return Err(Failure::check(
            format!("client URLs {clients:?}"),
            format!("{:?}", listed.client_urls),
        ));
    }
    if listed.peer_urls != peers {
        return Err(Failure::check(
            format!("peer URLs {peers:?}"),
            format!("{:?}", listed.peer_urls),
        ));
    }
    stage.step("member and cluster IDs");
    let token = token(stage, file).await?;
    let expected: BTreeMap<String, u64> = listed
        .peer_urls
        .iter()
        .map(|(name, urls)| (name.clone(), member_id(urls, &token, None)))
        .collect();
    if listed.ids != expected {
        return Err(Failure::check(
            format!("IDs {expected:x?} of the token {token:?}"),
            format!("{:x?}", listed.ids),
        ));
    }
    let ids: Vec<u64> = expected.into_values().collect();
    let cluster = cluster_id(&ids);
    if listed.cluster != cluster {
        return Err(Failure::check(
            format!("cluster ID {cluster:x}"),
            format!("{:x}", listed.cluster),
        ));
    }
    Ok(listed)
}

/// What goes into the IDs: the token of the cluster, or in its place what members were given to find each other.
async fn token(stage: &Stage, file: &str) -> Result<String, Failure> {
    let render = ["render", file, "-o", "json"];
    let rendered = stage.provision(&render).await?.expect(0)?.json()?;
    let args = texts(&rendered["members"][0]["args"]);
    let value = |flag: &str| {
        args.iter()
            .find_map(|arg| arg.strip_prefix(flag)?.strip_prefix('='))
    };
    [
        "--discovery",
        "--discovery-token",
        "--initial-cluster-token",
    ]
    .into_iter()
    .find_map(value)
    .map(str::to_owned)
    .ok_or_else(|| Failure::check("a token among the flags", format!("{args:?}")))
}

/// Each member answers for itself, and all are of one cluster.
async fn same_cluster_everywhere(stage: &Stage, members: &Listed) -> Result<(), Failure> {
    stage.step("etcdctl endpoint status");
    let status = ["etcdctl", "endpoint", "status", "-w", "json"];
    let status = stage.exec(CLUSTER, &status).await?.expect(0)?.json()?;
    let mut answered: Vec<(u64, u64)> = list(&status)
        .iter()
        .map(|endpoint| {
            let header = &endpoint["Status"]["header"];
            let id = |name: &str| header[name].as_u64().unwrap_or_default();
            (id("cluster_id"), id("member_id"))
        })
        .collect();
    answered.sort_unstable();
    let mut expected: Vec<(u64, u64)> = members
        .ids
        .values()
        .map(|id| (members.cluster, *id))
        .collect();
    expected.sort_unstable();
    if answered == expected {
        return Ok(());
    }
    Err(Failure::check(
        format!("cluster and member IDs {expected:x?}"),
        format!("{answered:x?}"),
    ))
}

/// What is put through one member is read through the next.
async fn serves_through_each(stage: &Stage, endpoints: &[String]) -> Result<(), Failure> {
    for (index, endpoint) in endpoints.iter().enumerate() {
        stage.step(format!("put through {endpoint}"));
        let at = format!("ETCDCTL_ENDPOINTS={endpoint}");
        let (key, value) = (format!("k{index}"), format!("v{index}"));
        let put = ["env", &at, "etcdctl", "put", &key, &value];
        stage.exec(CLUSTER, &put).await?.expect(0)?.prints("OK\n")?;
    }
    for (index, endpoint) in endpoints.iter().enumerate() {
        let other = (index + 1) % endpoints.len();
        stage.step(format!("read through {endpoint}"));
        let at = format!("ETCDCTL_ENDPOINTS={endpoint}");
        let key = format!("k{other}");
        let get = ["env", &at, "etcdctl", "get", &key, "--print-value-only"];
        let done = stage.exec(CLUSTER, &get).await?.expect(0)?;
        done.prints(&format!("v{other}\n"))?;
    }
    Ok(())
}

async fn no_drift(stage: &Stage) -> Result<(), Failure> {
    stage.step("plan right after up");
    let plan = ["plan", "--detailed-exitcode", CLUSTER];
    stage.provision(&plan).await?.expect(0)?;
    Ok(())
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn texts(value: &Value) -> Vec<String> {
    let texts = list(value).iter().filter_map(Value::as_str);
    texts.map(str::to_owned).collect()
}
