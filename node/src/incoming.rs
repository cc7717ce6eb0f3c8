//! The connections of clients and of other validators: bounded in number, told apart from those that
//! never say anything, or never who they are, and without a spin when the process runs out of descriptors.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc},
    time::{Instant, Sleep},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

/// How long to leave the listener alone when the process has no descriptors, or the kernel no memory.
const BACK_OFF: Duration = Duration::from_millis(100);
/// How long a connection that must be used by somebody known may be used by nobody.
const UNUSED_MAX: Duration = Duration::from_secs(60);
/// What an HTTP/2 client sends first.
const PREFACE_BYTES: usize = 24;

/// How a connection earns its place.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Entry {
    /// Its first bytes are those of HTTP/2.
    Speaks,
    /// It is used by somebody who proved who he is ([`ConnectionHandle::enter`]), and goes on to be.
    Known,
}

/// Accepts connections until the receiving end goes away: at most `connections_max` at once, and none that has not earned its
/// place after `patience`.
pub(crate) fn accept(
    listener: TcpListener,
    connections_max: usize,
    entry: Entry,
    patience: Duration,
) -> ReceiverStream<io::Result<Connection>> {
    let (sender, receiver) = mpsc::channel(1);
    let places = Arc::new(Semaphore::new(connections_max));
    tokio::spawn(async move {
        tokio::select! {
            () = accept_all(&listener, &places, entry, patience, &sender) => {}
            () = sender.closed() => {}
        }
    });
    ReceiverStream::new(receiver)
}

async fn accept_all(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
    entry: Entry,
    patience: Duration,
    sender: &mpsc::Sender<io::Result<Connection>>,
) {
    // A place first: whoever finds none waits in the kernel's queue, which is bounded too.
    while let Ok(permit) = places.clone().acquire_owned().await {
        let stream = accept_one(listener).await;
        // Answers are small; waiting to fill packets would cost a client 40 ms. Fails only on a dead socket.
        let _ = stream.set_nodelay(true);
        let trial = Trial { entry, deadline: Box::pin(tokio::time::sleep(patience)), bytes: 0 };
        let handle = ConnectionHandle::default();
        let hung_up: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(handle.clone().hung_up());
        let connection = Connection { stream, trial: Some(trial), handle, hung_up: Some(hung_up), _permit: permit };
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

/// A connection of a client or a validator.
pub(crate) struct Connection {
    stream: TcpStream,
    /// Until it has earned its place.
    trial: Option<Trial>,
    handle: ConnectionHandle,
    /// None once it has happened: a future that ended is not polled again.
    hung_up: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    _permit: OwnedSemaphorePermit,
}

/// The connection that a request came over. Every request carries one.
#[derive(Clone, Debug, Default)]
pub(crate) struct ConnectionHandle(Arc<Ends>);

#[derive(Debug, Default)]
struct Ends {
    hang_up: Notify,
    uses: AtomicUsize,
    /// Whether there were any since this was last asked.
    was_used: AtomicBool,
}

impl ConnectionHandle {
    /// Closes it, as if the client had gone away.
    pub(crate) fn hang_up(&self) {
        self.0.hang_up.notify_one();
    }

    /// Somebody who is known uses it, until the end of what is returned.
    pub(crate) fn enter(&self) -> ConnectionUse {
        self.0.uses.fetch_add(1, Ordering::Relaxed);
        self.0.was_used.store(true, Ordering::Relaxed);
        ConnectionUse(self.clone())
    }

    fn is_used(&self) -> bool {
        self.0.was_used.swap(false, Ordering::Relaxed) || self.0.uses.load(Ordering::Relaxed) > 0
    }

    pub(crate) async fn hung_up(self) {
        self.0.hang_up.notified().await;
    }
}

/// See [`ConnectionHandle::enter`].
#[derive(Debug)]
pub(crate) struct ConnectionUse(ConnectionHandle);

impl Drop for ConnectionUse {
    fn drop(&mut self) {
        self.0.0.uses.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Trial {
    entry: Entry,
    deadline: Pin<Box<Sleep>>,
    bytes: usize,
}

impl Connected for Connection {
    type ConnectInfo = ConnectionHandle;

    fn connect_info(&self) -> ConnectionHandle {
        self.handle.clone()
    }
}

impl Connection {
    /// Why it ends here. Asked before every read and write: with nothing to read that may be, and nothing to write that can be,
    /// only one of them is tried.
    fn ends(&mut self, context: &mut Context<'_>) -> Option<io::Error> {
        if self.hung_up.as_mut().is_none_or(|hung_up| hung_up.as_mut().poll(context).is_ready()) {
            self.hung_up = None;
            return Some(io::ErrorKind::ConnectionAborted.into());
        }
        let trial = self.trial.as_mut()?;
        // By the clock as well: a task that is always busy does not see its timers.
        let mut is_over = |trial: &mut Trial| {
            trial.deadline.as_mut().poll(context).is_ready() || trial.deadline.deadline() <= Instant::now()
        };
        if !is_over(trial) {
            return None;
        }
        if matches!(trial.entry, Entry::Known) && self.handle.is_used() {
            trial.deadline.as_mut().reset(Instant::now() + UNUSED_MAX);
            is_over(trial);
            return None;
        }
        Some(io::ErrorKind::TimedOut.into())
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(end) = self.ends(context) {
            return Poll::Ready(Err(end));
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        if let Some(trial) = &mut self.trial {
            trial.bytes = trial.bytes.saturating_add(buffer.filled().len().saturating_sub(before));
            if matches!(trial.entry, Entry::Speaks) && trial.bytes >= PREFACE_BYTES {
                self.trial = None;
            }
        }
        polled
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(end) = self.ends(context) {
            return Poll::Ready(Err(end));
        }
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
        if let Some(end) = self.ends(context) {
            return Poll::Ready(Err(end));
        }
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio_stream::StreamExt as _;

    use super::*;

    /// What a read of a connection that went on speaking for long comes to, and whether its caller was known.
    async fn outcome(entry: Entry, known: bool) -> io::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut connections = accept(listener, 1, entry, Duration::from_millis(50));
        let mut client = TcpStream::connect(address).await.unwrap();
        let mut connection = connections.next().await.unwrap().unwrap();
        let talking = tokio::spawn(async move {
            for _ in 0..50 {
                client.write_all(&[0; PREFACE_BYTES]).await?;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            io::Result::Ok(())
        });
        let _used = known.then(|| connection.connect_info().enter());
        let mut read = Vec::new();
        let ended = connection.read_to_end(&mut read).await.map(|_| ());
        drop(connection);
        let _ = talking.await.unwrap();
        ended
    }

    #[tokio::test]
    async fn who_speaks_on_without_saying_who_it_is_loses_its_place_between_validators() {
        let ended = outcome(Entry::Known, false).await.map_err(|error| error.kind());
        assert_eq!(ended, Err(io::ErrorKind::TimedOut));
        outcome(Entry::Known, true).await.unwrap();
        outcome(Entry::Speaks, false).await.unwrap();
    }

    /// Its window is full of pongs, so that nothing is read any more.
    #[tokio::test]
    async fn a_connection_that_cannot_be_written_to_is_closed_all_the_same() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut connections = accept(listener, 1, Entry::Speaks, Duration::from_secs(3600));
        let _client = TcpStream::connect(address).await.unwrap();
        let mut connection = connections.next().await.unwrap().unwrap();
        let handle = connection.connect_info();
        let writing = tokio::spawn(async move {
            loop {
                if let Err(error) = connection.write_all(&[0; 1 << 20]).await {
                    return error.kind();
                }
            }
        });
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!writing.is_finished());
        handle.hang_up();
        let ended = tokio::time::timeout(Duration::from_secs(30), writing).await;
        assert_eq!(ended.expect("closed").unwrap(), io::ErrorKind::ConnectionAborted);
    }
}
