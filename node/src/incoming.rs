//! The connections of clients and of other validators: bounded in number, told apart from sockets that never say anything, and without a spin when
//! the process runs out of descriptors.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc},
    time::Sleep,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

/// How long to leave the listener alone when the process has no descriptors, or the kernel no memory.
const BACK_OFF: Duration = Duration::from_millis(100);
/// What an HTTP/2 client sends first.
const PREFACE_BYTES: usize = 24;

/// Accepts connections until the receiving end goes away: at most `connections_max` at once, and none that has not
/// begun to speak HTTP/2 after `first_bytes`.
pub(crate) fn accept(
    listener: TcpListener,
    connections_max: usize,
    first_bytes: Duration,
) -> ReceiverStream<io::Result<Connection>> {
    let (sender, receiver) = mpsc::channel(1);
    let places = Arc::new(Semaphore::new(connections_max));
    tokio::spawn(async move {
        tokio::select! {
            () = accept_all(&listener, &places, first_bytes, &sender) => {}
            () = sender.closed() => {}
        }
    });
    ReceiverStream::new(receiver)
}

async fn accept_all(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
    first_bytes: Duration,
    sender: &mpsc::Sender<io::Result<Connection>>,
) {
    // A place first: whoever finds none waits in the kernel's queue, which is bounded too.
    while let Ok(permit) = places.clone().acquire_owned().await {
        let stream = accept_one(listener).await;
        // Answers are small; waiting to fill packets would cost a client 40 ms. Fails only on a dead socket.
        let _ = stream.set_nodelay(true);
        let silence = Silence { deadline: Box::pin(tokio::time::sleep(first_bytes)), bytes: 0 };
        let hang_up = HangUp::default();
        let hung_up: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(hang_up.clone().waited_for());
        let connection =
            Connection { stream, silence: Some(silence), hang_up, hung_up: Some(hung_up), _permit: permit };
        if sender.send(Ok(connection)).await.is_err() {
            return;
        }
    }
}

async fn accept_one(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) => match error.kind() {
                // The client's affair.
                io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted => {}
                _ => {
                    tracing::warn!(%error, "cannot accept a connection now");
                    tokio::time::sleep(BACK_OFF).await;
                }
            },
        }
    }
}

/// A connection of a client.
pub(crate) struct Connection {
    stream: TcpStream,
    /// Until the client has said that it speaks HTTP/2.
    silence: Option<Silence>,
    hang_up: HangUp,
    /// None once it has happened: a future that ended is not polled again.
    hung_up: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    _permit: OwnedSemaphorePermit,
}

/// Closes the connection that a request came over. Every request carries one.
#[derive(Clone, Debug, Default)]
pub(crate) struct HangUp(Arc<Notify>);

impl HangUp {
    /// Does it, as if the client had gone away.
    pub(crate) fn now(&self) {
        self.0.notify_one();
    }

    async fn waited_for(self) {
        self.0.notified().await;
    }
}

#[derive(Debug)]
struct Silence {
    deadline: Pin<Box<Sleep>>,
    bytes: usize,
}

impl Connected for Connection {
    type ConnectInfo = HangUp;

    fn connect_info(&self) -> HangUp {
        self.hang_up.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.hung_up.as_mut().is_none_or(|hung_up| hung_up.as_mut().poll(context).is_ready()) {
            self.hung_up = None;
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        let Some(silence) = &mut self.silence else { return polled };
        silence.bytes = silence.bytes.saturating_add(buffer.filled().len().saturating_sub(before));
        if silence.bytes >= PREFACE_BYTES {
            self.silence = None;
            return polled;
        }
        if polled.is_pending() && silence.deadline.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        polled
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
