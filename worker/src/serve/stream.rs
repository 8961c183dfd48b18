//! The bytes of one connection, with an eye on how long the other side takes.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

use super::{
    limits::Timeouts,
    room::{Phase, Place},
};

/// A stream that ends with an error when nothing comes or goes for too long.
///
/// It also keeps back what hyper answers by itself where it finds no request: that answer has no body, and the connection
/// sends a better one. hyper's shutdown only flushes; whoever owns the stream shuts it down.
pub struct Watch<S> {
    stream: S,
    place: Arc<Place>,
    timeouts: Timeouts,
    reading: Option<(Wait, Pin<Box<Sleep>>)>,
    writing: Option<Pin<Box<Sleep>>>,
    /// Whether a request had begun when the time was up.
    pub was_slow: bool,
}

/// What is waited for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wait {
    Request,
    RestOfHeaders,
}

impl<S> Watch<S> {
    pub fn new(stream: S, place: Arc<Place>, timeouts: Timeouts) -> Self {
        Self { stream, place, timeouts, reading: None, writing: None, was_slow: false }
    }
    pub fn into_inner(self) -> S {
        self.stream
    }

    /// Between requests: whether the time for the next one is up.
    fn check_reading(&mut self, phase: Phase, cx: &mut Context<'_>) -> io::Result<()> {
        let timeouts = &self.timeouts;
        let first = if phase == Phase::Fresh { timeouts.header } else { timeouts.idle };
        let (wait, timer) = self.reading.get_or_insert_with(|| (Wait::Request, Box::pin(sleep(first))));
        if timer.as_mut().poll(cx).is_pending() {
            return Ok(());
        }
        self.was_slow = *wait == Wait::RestOfHeaders;
        Err(io::ErrorKind::TimedOut.into())
    }

    fn check_writing(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let timer = timer(&mut self.writing, self.timeouts.write);
        if timer.poll(cx).is_pending() { Ok(()) } else { Err(io::ErrorKind::TimedOut.into()) }
    }
}

fn timer(of: &mut Option<Pin<Box<Sleep>>>, after: Duration) -> Pin<&mut Sleep> {
    of.get_or_insert_with(|| Box::pin(sleep(after))).as_mut()
}

impl<S: AsyncRead + Unpin> AsyncRead for Watch<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let phase = self.place.phase();
        if !phase.is_waiting() {
            self.reading = None;
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let before = buf.filled().len();
        match Pin::new(&mut self.stream).poll_read(cx, buf) {
            Poll::Ready(read) => {
                let begun = matches!(self.reading, Some((Wait::RestOfHeaders, _)));
                if buf.filled().len() > before && !begun {
                    self.reading = Some((Wait::RestOfHeaders, Box::pin(sleep(self.timeouts.header))));
                }
                Poll::Ready(read)
            }
            Poll::Pending => match self.check_reading(phase, cx) {
                Ok(()) => Poll::Pending,
                Err(slow) => Poll::Ready(Err(slow)),
            },
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watch<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.place.phase().is_waiting() {
            return Poll::Ready(Ok(buf.len()));
        }
        match Pin::new(&mut self.stream).poll_write(cx, buf) {
            Poll::Ready(written) => {
                self.writing = None;
                Poll::Ready(written)
            }
            Poll::Pending => match self.check_writing(cx) {
                Ok(()) => Poll::Pending,
                Err(slow) => Poll::Ready(Err(slow)),
            },
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_flush(cx) {
            Poll::Ready(flushed) => {
                self.writing = None;
                // The answer is with the kernel.
                if self.place.phase() == Phase::Writing {
                    self.place.set(Phase::Idle);
                    // hyper reads no more before something comes: the time begins here.
                    self.reading = None;
                    self.check_reading(Phase::Idle, cx)?;
                }
                Poll::Ready(flushed)
            }
            Poll::Pending => match self.check_writing(cx) {
                Ok(()) => Poll::Pending,
                Err(slow) => Poll::Ready(Err(slow)),
            },
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flush(cx))?;
        Poll::Ready(Ok(()))
    }
}
