//! UDP sockets that are connected to the name server they ask, as Go's are: where nobody listens, the system says so at
//! once, and not only the lack of an answer in the end.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hickory_resolver::net::runtime::{DnsUdpSocket, RuntimeProvider, TokioRuntimeProvider};
use tokio::io::{Interest, ReadBuf};
use tokio::net::UdpSocket;

type Tokio = TokioRuntimeProvider;
type Receiving<'f> = Pin<Box<dyn Send + Future<Output = io::Result<(usize, SocketAddr)>> + 'f>>;
type Opening<T> = Pin<Box<dyn Send + Future<Output = io::Result<T>>>>;

/// Tokio's runtime but for the sockets.
#[derive(Clone, Default)]
pub(crate) struct Connecting {
    tokio: Tokio,
    /// Whether nobody listened where a query went. The resolver's own error does not tell.
    refused: Arc<AtomicBool>,
}

/// A socket and whom it is connected to.
pub(crate) struct Connected {
    socket: UdpSocket,
    server: SocketAddr,
    refused: Arc<AtomicBool>,
}

impl Connecting {
    /// Whether a query was refused since this was asked last.
    pub(crate) fn take_refused(&self) -> bool {
        self.refused.swap(false, Ordering::Relaxed)
    }
}

impl RuntimeProvider for Connecting {
    type Handle = <Tokio as RuntimeProvider>::Handle;
    type Timer = <Tokio as RuntimeProvider>::Timer;
    type Udp = Connected;
    type Tcp = <Tokio as RuntimeProvider>::Tcp;

    fn create_handle(&self) -> Self::Handle {
        self.tokio.create_handle()
    }

    fn connect_tcp(
        &self,
        server: SocketAddr,
        bind: Option<SocketAddr>,
        timeout: Option<Duration>,
    ) -> Opening<Self::Tcp> {
        self.tokio.connect_tcp(server, bind, timeout)
    }

    fn bind_udp(&self, local: SocketAddr, server: SocketAddr) -> Opening<Connected> {
        let refused = Arc::clone(&self.refused);
        Box::pin(async move {
            let socket = UdpSocket::bind(local).await?;
            socket.connect(server).await?;
            Ok(Connected {
                socket,
                server,
                refused,
            })
        })
    }
}

impl DnsUdpSocket for Connected {
    type Time = <Tokio as RuntimeProvider>::Timer;

    fn poll_recv_from(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<(usize, SocketAddr)>> {
        let mut buffer = ReadBuf::new(buffer);
        ready!(self.socket.poll_recv(cx, &mut buffer))?;
        Poll::Ready(Ok((buffer.filled().len(), self.server)))
    }

    // Readers are not woken by an error alone. The signature is what `async_trait` makes of the trait's.
    fn recv_from<'s, 'b, 'f>(&'s self, buffer: &'b mut [u8]) -> Receiving<'f>
    where
        's: 'f,
        'b: 'f,
        Self: 'f,
    {
        Box::pin(async move {
            let failed =
                self.socket
                    .async_io(Interest::ERROR, || match self.socket.take_error()? {
                        Some(error) => Ok(error),
                        None => Err(io::ErrorKind::WouldBlock.into()),
                    });
            let received = tokio::select! {
                received = self.socket.recv(buffer) => received,
                error = failed => error.and_then(Err),
            };
            if let Err(error) = &received
                && error.kind() == io::ErrorKind::ConnectionRefused
            {
                self.refused.store(true, Ordering::Relaxed);
            }
            Ok((received?, self.server))
        })
    }

    fn poll_send_to(
        &self,
        cx: &mut Context<'_>,
        buffer: &[u8],
        _: SocketAddr,
    ) -> Poll<io::Result<usize>> {
        self.socket.poll_send(cx, buffer)
    }
}
