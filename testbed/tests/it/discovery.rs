//! The discovery service, beside the one that Debian packages and with real members.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use testbed::port;
use testbed::service::discovery::{DiscoveryError, DiscoveryServer};

// Long enough for a busy machine; a test that passes never waits for it.
const PATIENCE: Duration = Duration::from_secs(60);

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ended_already = self.0.kill();
        let _ = self.0.wait();
    }
}

fn etcd(dir: &Path, name: &str, [client, peer]: [u16; 2], more: &[&str]) -> Running {
    let (client, peer) = (
        format!("http://127.0.0.1:{client}"),
        format!("http://127.0.0.1:{peer}"),
    );
    let log = fs::File::create(dir.join(format!("{name}.log"))).unwrap();
    let child = crate::etcd::etcd(name, &dir.join(name), &client, &peer)
        .args(more)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn();
    Running(child.unwrap())
}

/// Status, the headers that matter, and body, of a request by curl.
async fn curl(args: &[&str]) -> (u16, String, String) {
    let args: Vec<String> = ["-s", "-i", "--path-as-is", "--max-time", "30"]
        .iter()
        .chain(args)
        .map(|arg| (*arg).to_owned())
        .collect();
    let output = tokio::task::spawn_blocking(move || Command::new("curl").args(args).output());
    let text = String::from_utf8(output.await.unwrap().unwrap().stdout).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let kept = [
        "Content-Type",
        "Location",
        "X-Content-Type-Options",
        "X-Etcd-Cluster-Id",
    ];
    let mut headers: Vec<String> = head
        .lines()
        .skip(1)
        .map(str::to_owned)
        .filter(|line| kept.iter().any(|name| line.starts_with(name)))
        .collect();
    headers.sort();
    (status.unwrap_or(0), headers.join("\n"), body.to_owned())
}

async fn wait_for(url: &str) {
    let deadline = Instant::now() + PATIENCE;
    while curl(&[url]).await.0 != 200 {
        assert!(Instant::now() < deadline, "{url} does not answer");
    }
}

async fn serve(backend: u16) -> DiscoveryServer {
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let backends = [format!("http://127.0.0.1:{backend}")];
    DiscoveryServer::start(any, &backends, None).await.unwrap()
}

#[tokio::test]
async fn answers_are_those_of_the_packaged_service() {
    let dir = tempfile::tempdir().unwrap();
    let [client, peer, theirs] = port::claim();
    let _etcd = etcd(dir.path(), "backend", [client, peer], &["--enable-v2"]);
    let backend = format!("http://127.0.0.1:{client}");
    let theirs = format!("http://127.0.0.1:{theirs}");
    let oracle = Command::new("/usr/bin/discovery.etcd.io")
        .args([
            "-a",
            &theirs["http://".len()..],
            "-e",
            &backend,
            "-h",
            &theirs,
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let _oracle = Running(oracle.unwrap());
    wait_for(&format!("{backend}/health")).await;
    wait_for(&format!("{theirs}/health")).await;
    let server = serve(client).await;
    let ours = format!("http://{}", server.address());

    let (_, _, token) = curl(&[&format!("{ours}/new")]).await;
    let token = token.strip_prefix(&format!("{ours}/")).unwrap().to_owned();
    assert!(
        token.len() == 32 && token.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "{token}"
    );
    let none = "0".repeat(32);

    let requests: Vec<Vec<String>> = [
        "/new",
        "/new?size=5",
        "/new?size=0",
        "/new?size=-1",
        "/new?size=%2B4",
        "/new?size=abc",
        "/new?size=1.5",
        "/new?size=+4",
        "/new?size=99999999999999999999",
        "/new?size=",
        "/new/",
        "/",
        "/health",
        "/robots.txt",
        "/nope",
        "/TOKEN",
        "/TOKEN/",
        "/TOKEN/_config/size",
        "/NONE",
        "/TOKEN?recursive=true&sorted=true",
        "/TOKEN/a/b",
        "/TOKEN/nobody",
        "/TOKEN0",
        "/NONE/_config/size",
        "-X PUT /new?size=5",
        "-X POST /new",
        "-X DELETE /new",
        "-I /new",
        "-X PUT -d size=7 /new?size=1",
        "-X PUT -d value=a=http://127.0.0.1:1 /TOKEN/1?prevExist=false",
        "-X PUT -d value=a=http://127.0.0.1:1 /TOKEN/1?prevExist=false",
        "-X PUT -d value=4 /TOKEN/_config/size",
        "-X DELETE /TOKEN/1",
        "-X DELETE /TOKEN",
        "-X POST /TOKEN",
    ]
    .iter()
    .map(|line| line.split(' ').map(str::to_owned).collect())
    .collect();
    for request in requests {
        let mut answers = Vec::new();
        for base in [&theirs, &ours] {
            let args: Vec<String> = request
                .iter()
                .map(|word| match word.strip_prefix('/') {
                    Some(path) => format!("{base}/{path}")
                        .replace("TOKEN", &token)
                        .replace("NONE", &none),
                    None => word.clone(),
                })
                .collect();
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            answers.push(curl(&args).await);
            // Undone, so that the second asks what the first asked.
            if request.contains(&"PUT".to_owned()) && answers.len() == 1 && answers[0].0 == 201 {
                curl(&[
                    "-X",
                    "DELETE",
                    &format!("{backend}/v2/keys/_etcd/registry/{token}/1"),
                ])
                .await;
            }
            if request.ends_with(&["/TOKEN/1".to_owned()]) && answers.len() == 1 {
                let member = format!("{backend}/v2/keys/_etcd/registry/{token}/1");
                curl(&["-X", "PUT", "-d", "value=a=http://127.0.0.1:1", &member]).await;
            }
        }
        let without_counters: Vec<_> = answers
            .iter()
            .map(|answer| comparable(answer, &theirs, &ours))
            .collect();
        assert_eq!(without_counters[0], without_counters[1], "{request:?}");
    }
    for (size, wanted) in [("", "3"), ("?size=5", "5"), ("?size=-1", "-1")] {
        let (_, _, url) = curl(&[&format!("{ours}/new{size}")]).await;
        let (_, _, body) = curl(&[&format!("{url}/_config/size")]).await;
        assert!(body.contains(&format!("\"value\":\"{wanted}\"")), "{body}");
    }
}

// Tokens, revisions and the two addresses differ by nature.
fn comparable(
    (status, headers, body): &(u16, String, String),
    theirs: &str,
    ours: &str,
) -> (u16, String, String) {
    let mut body = body.replace(theirs, ours);
    if let Some(token) = body.strip_prefix(ours).filter(|rest| rest.len() == 33) {
        body = body.replace(token, "/TOKEN");
    }
    for counter in ["\"index\":", "Index\":"] {
        let mut from = 0;
        while let Some(at) = body[from..].find(counter) {
            let start = from + at + counter.len();
            let end = body[start..]
                .find(|c: char| !c.is_ascii_digit())
                .map_or(body.len(), |n| start + n);
            body.replace_range(start..end, "N");
            from = start;
        }
    }
    (*status, headers.clone(), body)
}

#[tokio::test]
async fn three_members_find_each_other_with_a_token() {
    let dir = tempfile::tempdir().unwrap();
    let [client, peer] = port::claim();
    let _backend = etcd(dir.path(), "backend", [client, peer], &["--enable-v2"]);
    wait_for(&format!("http://127.0.0.1:{client}/health")).await;
    let server = serve(client).await;
    let (_, _, token) = curl(&[
        "-X",
        "PUT",
        &format!("http://{}/new?size=3", server.address()),
    ])
    .await;

    let ports: [u16; 6] = port::claim();
    let _members: Vec<Running> = (0..3)
        .map(|index| {
            let own = [ports[2 * index], ports[2 * index + 1]];
            etcd(
                dir.path(),
                &format!("infra{index}"),
                own,
                &["--discovery", &token],
            )
        })
        .collect();
    for index in 0..3 {
        wait_for(&format!("http://127.0.0.1:{}/health", ports[2 * index])).await;
    }
    let output = Command::new("etcdctl")
        .args([
            "--endpoints",
            &format!("http://127.0.0.1:{}", ports[0]),
            "member",
            "list",
        ])
        .env("ETCDCTL_API", "3")
        .output()
        .unwrap();
    let members = String::from_utf8(output.stdout).unwrap();
    assert_eq!(members.matches("started").count(), 3, "{members}");
}

#[tokio::test]
async fn a_backend_that_is_away_is_said_so() {
    let [away] = port::claim();
    let server = serve(away).await;
    let ours = format!("http://{}", server.address());
    let (status, _, body) = curl(&[&format!("{ours}/new")]).await;
    assert_eq!((status, body.as_str()), (400, "Unable to generate token\n"));
    let (status, _, _) = curl(&[&format!("{ours}/{}", "0".repeat(32))]).await;
    assert_eq!(status, 500);
    let taken =
        DiscoveryServer::start(server.address(), &["http://127.0.0.1:1".to_owned()], None).await;
    assert!(matches!(taken, Err(DiscoveryError::Listen { .. })));
    let none = DiscoveryServer::start("127.0.0.1:0".parse().unwrap(), &[], None).await;
    assert!(matches!(none, Err(DiscoveryError::Backend { .. })));
}
