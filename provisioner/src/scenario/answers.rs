//! What scenarios ask and no server under test answers: a discovery service, and ports that answer what no etcd says.

use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use http::StatusCode;
use testbed::service::discovery;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;

use super::failure::Failure;
use super::server::Server;
use super::stage::Stage;
use super::subject::Subject;

/// Tokens of the shared service and the sizes of their clusters, most of them bad ones.
const TOKENS: [(&str, &str); 6] = [
    ("zero", "0"),
    ("minus", "-1"),
    ("fraction", "1.5"),
    ("text", "abc"),
    ("empty", ""),
    ("x", "1"),
];

/// What all scenarios of a run share; each part is started when it is first asked for.
#[derive(Default)]
pub(super) struct Services {
    v2: OnceCell<(Stage, String)>,
}

impl Services {
    /// The registrations of a v2 discovery service with the tokens of [`TOKENS`]: the included member, as the guide's
    /// private service.
    pub(super) async fn v2(&self) -> Result<&str, Failure> {
        let start = || async {
            let included = Subject::find(None)
                .map_err(|error| Failure::setup("a discovery service", &error))?;
            let stage = Stage::new("services", Rc::new(included), Rc::default(), None)?;
            let url = {
                let server = Server::alone(&stage, "service")?
                    .with(["--enable-v2".to_owned()])
                    .started()
                    .await?;
                format!("{}/v2/keys/discovery", server.client_url())
            };
            for (token, size) in TOKENS {
                set_size(&format!("{url}/{token}"), size).await?;
            }
            Ok((stage, url))
        };
        Ok(&self.v2.get_or_try_init(start).await?.1)
    }

    /// Ends what was started.
    pub(super) async fn finish(&self) -> Result<(), Failure> {
        match self.v2.get() {
            Some((stage, _)) => stage.finish().await,
            None => Ok(()),
        }
    }
}

/// Says how many members the cluster of a registration, which must be a new one, is to have.
pub(super) async fn set_size(url: &str, size: &str) -> Result<(), Failure> {
    let (server, path) = url
        .find("/v2/")
        .and_then(|at| url.split_at_checked(at))
        .ok_or_else(|| Failure::check("http://HOST:PORT/v2/...", url))?;
    match discovery::set_size(server, &format!("{path}/_config/size"), size).await {
        Ok(StatusCode::CREATED) => Ok(()),
        Ok(other) => Err(Failure::check(
            format!("the size of {url} is set"),
            other.to_string(),
        )),
        Err(error) => Err(Failure::setup(
            format!("an answer of {server}"),
            error.as_ref(),
        )),
    }
}

async fn listen(what: &'static str) -> Result<(TcpListener, u16), Failure> {
    let listen = async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        Ok::<_, std::io::Error>((listener, port))
    };
    listen.await.map_err(|error| Failure::setup(what, &error))
}

/// A port of 127.0.0.1 that gives every request the same answer, or none; closed when dropped.
pub(super) struct Answerer {
    pub(super) port: u16,
    task: JoinHandle<()>,
}

impl Answerer {
    /// `None` takes connections and stays silent.
    pub(super) async fn new(answer: Option<&'static str>) -> Result<Self, Failure> {
        let (listener, port) = listen("a port that answers").await?;
        Ok(Self {
            port,
            task: tokio::spawn(serve(listener, answer)),
        })
    }
}

async fn serve(listener: TcpListener, answer: Option<&'static str>) {
    let mut silent = Vec::new();
    while let Ok((mut stream, _)) = listener.accept().await {
        let Some(answer) = answer else {
            silent.push(stream);
            continue;
        };
        // Requests come in one piece, one after another; who breaks off needs no answer.
        let _broken_off = async {
            let mut request = [0; 4096];
            let _all_of_it = stream.read(&mut request).await?;
            stream.write_all(answer.as_bytes()).await?;
            stream.shutdown().await
        }
        .await;
    }
}

impl Drop for Answerer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An HTTP proxy that knows one server, and remembers the first request; closed when dropped.
pub(super) struct Proxy {
    port: u16,
    first: Arc<Mutex<String>>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Passes everything on to the server of that URL.
    pub(super) async fn to(url: &str) -> Result<Self, Failure> {
        let host = url.trim_start_matches("http://").split('/').next();
        let host = host.unwrap_or_default().to_owned();
        let (listener, port) = listen("a proxy").await?;
        let first = Arc::new(Mutex::new(String::new()));
        let task = tokio::spawn(pass_on(listener, host, Arc::clone(&first)));
        Ok(Self { port, first, task })
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn first_request(&self) -> String {
        self.first
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

async fn pass_on(listener: TcpListener, host: String, first: Arc<Mutex<String>>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((mut client, _)) = listener.accept().await {
        let (host, first) = (host.clone(), Arc::clone(&first));
        connections.spawn(async move {
            let mut head = vec![0; 4096];
            let length = client.read(&mut head).await?;
            {
                let mut first = first.lock().unwrap_or_else(PoisonError::into_inner);
                if first.is_empty() {
                    *first = String::from_utf8_lossy(&head[..length]).into_owned();
                }
            }
            let mut server = TcpStream::connect(host).await?;
            server.write_all(&head[..length]).await?;
            tokio::io::copy_bidirectional(&mut client, &mut server).await
        });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}
