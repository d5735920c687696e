//! A DNS server on UDP and TCP whose zone can be exchanged while it runs.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use hickory_server::net::runtime::Time;
use hickory_server::proto::op::{Edns, Header, HeaderCounts, Metadata, OpCode, ResponseCode};
use hickory_server::proto::rr::{DNSClass, Record};
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo, Server};
use hickory_server::zone_handler::MessageResponseBuilder;
use tokio::net::{TcpListener, UdpSocket};

use super::zone::{Answer, Zone, ZoneError};

// How long a connection may stay silent, and how many answers may wait for a slow reader.
const TCP_IDLE: Duration = Duration::from_secs(10);
const TCP_ANSWERS: usize = 32;
// What fits into one packet of an Ethernet: the size that resolvers recommend.
const UDP_LARGEST: u16 = 1232;
// Stopping closes two sockets and their connections.
const STOP_LIMIT: Duration = Duration::from_secs(5);
// A port that is free for TCP may be taken for UDP; another try gets another port.
const PORT_TRIES: usize = 16;

/// What the server does with questions.
#[derive(Clone, Debug)]
pub enum Behaviour {
    /// Answers from this zone.
    Serve(Arc<Zone>),
    /// Answers every question with SERVFAIL.
    Fail,
    /// Takes questions and never answers.
    Silent,
}

/// A running server; it ends when this is dropped.
pub struct DnsServer {
    server: Server<Handler>,
    source: Arc<Mutex<Source>>,
    address: SocketAddr,
}

/// Why the server does not run.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// The address is taken or not of this host.
    #[error("cannot listen on {address} ({protocol})")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// UDP or TCP.
        protocol: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The zone file cannot be read.
    #[error("cannot read {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The zone file is damaged.
    #[error("{}", .path.display())]
    Zone {
        /// The file.
        path: PathBuf,
        /// Where.
        #[source]
        source: ZoneError,
    },
}

#[derive(Debug)]
enum Source {
    Set(Behaviour),
    File {
        path: PathBuf,
        read: Option<(SystemTime, u64)>,
        behaviour: Behaviour,
    },
}

struct Handler {
    source: Arc<Mutex<Source>>,
}

impl DnsServer {
    /// Listens on `address`, UDP and TCP; port 0 takes a free one. Needs a runtime.
    ///
    /// # Errors
    /// [`DnsError::Listen`].
    pub async fn start(address: SocketAddr, behaviour: Behaviour) -> Result<Self, DnsError> {
        Self::with(address, Source::Set(behaviour)).await
    }

    /// As [`DnsServer::start`], from a zone file that is read again whenever it has changed. A file that cannot be
    /// read later is answered with SERVFAIL until it can.
    ///
    /// # Errors
    /// [`DnsError`]; the file must be readable now.
    pub async fn start_from_file(address: SocketAddr, path: &Path) -> Result<Self, DnsError> {
        let zone = read(path)?;
        let source = Source::File {
            path: path.to_owned(),
            read: stamp(path),
            behaviour: Behaviour::Serve(Arc::new(zone)),
        };
        Self::with(address, source).await
    }

    async fn with(address: SocketAddr, source: Source) -> Result<Self, DnsError> {
        let (udp, tcp) = bind(address).await?;
        let address = tcp.local_addr().map_err(listen(address, "TCP"))?;
        let source = Arc::new(Mutex::new(source));
        let mut server = Server::new(Handler {
            source: Arc::clone(&source),
        });
        server.register_socket(udp);
        server.register_listener(tcp, TCP_IDLE, TCP_ANSWERS);
        Ok(Self {
            server,
            source,
            address,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Does so from the next question on.
    pub fn set(&self, behaviour: Behaviour) {
        *self.source.lock().unwrap_or_else(PoisonError::into_inner) = Source::Set(behaviour);
    }

    /// Serves until it fails. It does not by itself.
    ///
    /// # Errors
    /// What went wrong with a socket.
    pub async fn run(mut self) -> io::Result<()> {
        self.server
            .block_until_done()
            .await
            .map_err(io::Error::other)
    }

    /// Stops; the port is free afterwards. Answers whether that took no longer than a few seconds.
    pub async fn stop(mut self) -> bool {
        tokio::time::timeout(STOP_LIMIT, self.server.shutdown_gracefully())
            .await
            .is_ok()
    }
}

async fn bind(address: SocketAddr) -> Result<(UdpSocket, TcpListener), DnsError> {
    let mut tries = 0;
    loop {
        let tcp = TcpListener::bind(address)
            .await
            .map_err(listen(address, "TCP"))?;
        let taken = tcp.local_addr().map_err(listen(address, "TCP"))?;
        match UdpSocket::bind(taken).await {
            Ok(udp) => return Ok((udp, tcp)),
            Err(error) => {
                tries += 1;
                if address.port() != 0 || tries == PORT_TRIES {
                    return Err(listen(taken, "UDP")(error));
                }
            }
        }
    }
}

fn listen(address: SocketAddr, protocol: &'static str) -> impl FnOnce(io::Error) -> DnsError {
    move |source| DnsError::Listen {
        address,
        protocol,
        source,
    }
}

fn read(path: &Path) -> Result<Zone, DnsError> {
    let text = std::fs::read_to_string(path).map_err(|source| DnsError::Read {
        path: path.to_owned(),
        source,
    })?;
    Zone::parse(&text).map_err(|source| DnsError::Zone {
        path: path.to_owned(),
        source,
    })
}

// A file that is replaced by renaming has another inode even within one tick of the clock.
fn stamp(path: &Path) -> Option<(SystemTime, u64)> {
    use std::os::unix::fs::MetadataExt;
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.modified().ok()?, meta.ino()))
}

impl Source {
    fn behaviour(&mut self) -> Behaviour {
        match self {
            Self::Set(behaviour) => behaviour.clone(),
            Self::File {
                path,
                read: last,
                behaviour,
            } => {
                let now = stamp(path);
                if now.is_none() || now != *last {
                    *behaviour =
                        read(path).map_or(Behaviour::Fail, |zone| Behaviour::Serve(Arc::new(zone)));
                    *last = now;
                }
                behaviour.clone()
            }
        }
    }
}

#[async_trait::async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut handle: R,
    ) -> ResponseInfo {
        let behaviour = self
            .source
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .behaviour();
        let mut metadata = Metadata::response_from_request(&request.metadata);
        let answer = match behaviour {
            Behaviour::Silent => return info(metadata),
            Behaviour::Fail => Answer::error(ResponseCode::ServFail),
            Behaviour::Serve(zone) => answer(&zone, request),
        };
        metadata.response_code = answer.code;
        metadata.authoritative = true;
        // Nothing is left to ask elsewhere, and resolvers warn about servers that do not offer to.
        metadata.recursion_available = true;
        let edns = request.edns.as_ref().map(|asked| {
            let mut edns = Edns::new();
            edns.set_max_payload(asked.max_payload().clamp(512, UDP_LARGEST));
            edns
        });
        let none: &[Record] = &[];
        let response = MessageResponseBuilder::new(&request.queries, edns.as_ref()).build(
            metadata,
            &answer.records,
            none,
            &answer.authority,
            none,
        );
        // Who asked and went away gets no answer, and that is all right.
        handle
            .send_response(response)
            .await
            .unwrap_or_else(|_| info(metadata))
    }
}

fn answer(zone: &Zone, request: &Request) -> Answer {
    if request.metadata.op_code != OpCode::Query {
        return Answer::error(ResponseCode::NotImp);
    }
    let Ok(asked) = request.request_info() else {
        return Answer::error(ResponseCode::FormErr);
    };
    if !matches!(asked.query.query_class(), DNSClass::IN | DNSClass::ANY) {
        return Answer::error(ResponseCode::Refused);
    }
    zone.answer(asked.query.name(), asked.query.query_type())
}

fn info(metadata: Metadata) -> ResponseInfo {
    Header {
        metadata,
        counts: HeaderCounts::default(),
    }
    .into()
}

impl Answer {
    fn error(code: ResponseCode) -> Self {
        Self {
            code,
            records: Vec::new(),
            authority: Vec::new(),
        }
    }
}
