//! A session on a socket: connects, shakes hands, and moves bytes in batches.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::session::{Done, Session};
use crate::traffic::target::Endpoint;

/// One HTTP/2 connection.
pub(crate) struct Connection {
    socket: Box<dyn Socket>,
    session: Session,
    input: Vec<u8>,
    /// How much of `input` holds bytes that no frame has used up yet.
    filled: usize,
}

trait Socket: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Socket for S {}

/// Room for the answers to some hundred calls in one read, and for the largest frame.
const INPUT_BYTES: usize = 64 * 1024;

impl Connection {
    /// Connects and waits for the server's settings. `tls` is used when the endpoint asks for it.
    pub(crate) async fn open(
        endpoint: &Endpoint,
        tls: Option<Arc<rustls::ClientConfig>>,
        path: &str,
    ) -> anyhow::Result<Self> {
        let authority = &endpoint.authority;
        let tcp = TcpStream::connect(authority)
            .await
            .with_context(|| format!("connect to {authority}"))?;
        tcp.set_nodelay(true).context("set TCP_NODELAY")?;
        let socket: Box<dyn Socket> = match (&endpoint.server_name, tls) {
            (None, _) => Box::new(tcp),
            (Some(name), Some(tls)) => {
                let connecting = TlsConnector::from(tls).connect(name.clone(), tcp);
                Box::new(
                    connecting
                        .await
                        .with_context(|| format!("set up TLS with {authority}"))?,
                )
            }
            (Some(_), None) => bail!("endpoint https://{authority} needs a CA; none was given"),
        };
        let session = Session::new(authority, endpoint.server_name.is_some(), path);
        let mut connection = Self {
            socket,
            session,
            input: vec![0; INPUT_BYTES],
            filled: 0,
        };
        while !connection.session.is_ready() {
            connection
                .exchange(&mut Vec::new())
                .await
                .with_context(|| format!("begin HTTP/2 with {authority}"))?;
        }
        Ok(connection)
    }

    /// The session, to make calls on.
    pub(crate) fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    /// Writes what is due, waits for one read, and collects the calls that it ended.
    pub(crate) async fn exchange(&mut self, done: &mut Vec<Done>) -> anyhow::Result<()> {
        let output = self.session.output();
        if !output.is_empty() {
            self.socket.write_all(output).await.context("write")?;
            self.socket.flush().await.context("write")?;
            output.clear();
        }
        let read = self
            .socket
            .read(&mut self.input[self.filled..])
            .await
            .context("read")?;
        if read == 0 {
            bail!("server closed the connection");
        }
        self.filled += read;
        let used = self.session.receive(&self.input[..self.filled], done)?;
        self.input.copy_within(used..self.filled, 0);
        self.filled -= used;
        Ok(())
    }
}
