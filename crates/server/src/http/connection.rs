//! Connections: counted, and closed when they keep nobody busy for too long.
//!
//! The head of a request has to arrive soon after its first byte; a connection without a request
//! may wait longer. While a request runs there is no deadline here, queries have their own.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use futures::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, Sleep, sleep_until};

/// How long a connection may keep silent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// From the first byte of a request to the end of its head.
    pub(super) head: Duration,
    /// Without a request.
    pub(super) idle: Duration,
}

/// A TCP listener whose connections have deadlines.
pub(super) struct PatientListener {
    pub(super) listener: TcpListener,
    pub(super) patience: Patience,
}

impl Listener for PatientListener {
    type Io = Connection<TcpStream>;
    type Addr = Activity;

    async fn accept(&mut self) -> (Self::Io, Activity) {
        let (stream, _) = Listener::accept(&mut self.listener).await;
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "could not switch off Nagle's algorithm");
        }
        let activity = Activity::default();
        (Connection::new(stream, activity.clone(), self.patience), activity)
    }

    fn local_addr(&self) -> io::Result<Activity> {
        self.listener.local_addr().map(|_: SocketAddr| Activity::default())
    }
}

/// How many requests of a connection are running.
#[derive(Clone, Debug, Default)]
pub(super) struct Activity(Arc<Running>);

#[derive(Debug, Default)]
struct Running {
    requests: AtomicUsize,
    /// Woken when the last request ends, so that the idle deadline starts.
    reader: AtomicWaker,
}

impl Activity {
    /// Counts a request as running until the guard is dropped.
    pub(super) fn begin(&self) -> ActiveRequest {
        self.0.requests.fetch_add(1, Ordering::AcqRel);
        ActiveRequest(self.clone())
    }

    fn is_busy(&self, cx: &Context<'_>) -> bool {
        self.0.reader.register(cx.waker());
        self.0.requests.load(Ordering::Acquire) > 0
    }
}

impl Connected<IncomingStream<'_, PatientListener>> for Activity {
    fn connect_info(stream: IncomingStream<'_, PatientListener>) -> Self {
        stream.remote_addr().clone()
    }
}

/// A request that is running.
#[derive(Debug)]
pub(super) struct ActiveRequest(Activity);

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        if self.0.0.requests.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.0.reader.wake();
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Waiting for the first byte of a request.
    Idle,
    /// Reading the head of a request.
    Head,
    /// Running a request.
    Busy,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Connection<S> {
    stream: S,
    activity: Activity,
    patience: Patience,
    state: State,
    deadline: Pin<Box<Sleep>>,
}

impl<S> Connection<S> {
    fn new(stream: S, activity: Activity, patience: Patience) -> Self {
        metrics::gauge!("highwater_server_open_connections").increment(1);
        let deadline = Box::pin(sleep_until(Instant::now() + patience.idle));
        Connection { stream, activity, patience, state: State::Idle, deadline }
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        let wait = if state == State::Head { self.patience.head } else { self.patience.idle };
        self.deadline.as_mut().reset(Instant::now() + wait);
    }

    /// Pending until the deadline, for ever while a request runs.
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if self.activity.is_busy(cx) {
            self.state = State::Busy;
            return Poll::Pending;
        }
        if self.state == State::Busy {
            self.enter(State::Idle);
        }
        ready!(self.deadline.as_mut().poll(cx));
        Poll::Ready(io::Error::new(ErrorKind::TimedOut, "the client kept silent for too long"))
    }
}

impl<S> Drop for Connection<S> {
    fn drop(&mut self) {
        metrics::gauge!("highwater_server_open_connections").decrement(1);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_read(cx, buffer) {
            Poll::Pending => self.poll_silence(cx).map(Err),
            Poll::Ready(outcome) => {
                if self.state != State::Head && !self.activity.is_busy(cx) {
                    self.enter(State::Head);
                }
                Poll::Ready(outcome)
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.enter(State::Idle);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, slices))?;
        self.enter(State::Idle);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    const PATIENCE: Patience =
        Patience { head: Duration::from_millis(20), idle: Duration::from_millis(60) };

    fn connection(patience: Patience) -> (DuplexStream, Connection<DuplexStream>, Activity) {
        let (client, server) = duplex(1024);
        let activity = Activity::default();
        (client, Connection::new(server, activity.clone(), patience), activity)
    }

    /// How long reading waits before it gives up.
    async fn silence(connection: &mut Connection<DuplexStream>) -> Duration {
        let start = Instant::now();
        let error = connection.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        start.elapsed()
    }

    #[tokio::test]
    async fn a_silent_connection_is_closed() {
        let (_client, mut connection, _) = connection(PATIENCE);
        assert!(silence(&mut connection).await >= PATIENCE.idle / 2);
    }

    #[tokio::test]
    async fn a_head_that_trickles_in_is_cut_off() {
        let patience = Patience { idle: Duration::from_secs(3_600), ..PATIENCE };
        let (mut client, mut connection, _) = connection(patience);
        client.write_all(b"GET").await.unwrap();
        connection.read_exact(&mut [0; 3]).await.unwrap();
        let deadline = connection.deadline.deadline();
        client.write_all(b" ").await.unwrap();
        connection.read_exact(&mut [0; 1]).await.unwrap();
        assert_eq!(connection.deadline.deadline(), deadline);
        silence(&mut connection).await;
    }

    #[tokio::test]
    async fn a_running_request_has_all_the_time() {
        let (mut client, mut connection, activity) = connection(PATIENCE);
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        connection.read_exact(&mut [0; 18]).await.unwrap();
        let request = activity.begin();
        let many = PATIENCE.idle * 3;
        assert!(tokio::time::timeout(many, connection.read_u8()).await.is_err());
        drop(request);
        silence(&mut connection).await;
    }
}
