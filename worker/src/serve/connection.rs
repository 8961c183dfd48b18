//! Connections: accepted, bounded, watched, and closed so that the last answer arrives.

use std::{convert::Infallible, io, net, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    http::{HeaderValue, Request, header},
    response::{IntoResponse, Response},
};
use hyper::{
    body::{Body as _, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc, watch},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use super::{
    limits::{MAX_HEADER_BYTES, MAX_URI_BYTES, Timeouts},
    problem::{BUSY, HEADERS_TOO_LARGE, MALFORMED_REQUEST, Problem, TOO_SLOW, URI_TOO_LONG},
    room::{Phase, Place, Room},
    stream::Watch,
    tls::Certificate,
};

/// A socket and what answers on it.
pub struct Listener {
    pub(super) socket: net::TcpListener,
    pub(super) certificate: Option<Certificate>,
    /// At a time.
    pub(super) connections: usize,
    pub(super) timeouts: Timeouts,
    pub(super) app: Router,
}

/// Connections at a time that are told that there is no room; more are closed without a word.
const REFUSING: usize = 64;
/// Pause after a connection could not be accepted, for want of file handles.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// What a connection holds of what it has read and not passed on.
const BUFFER_BYTES: usize = 2 * MAX_HEADER_BYTES;

/// What all connections of a listener share.
struct Common {
    certificate: Option<Certificate>,
    timeouts: Timeouts,
    app: Router,
    stop: watch::Receiver<bool>,
}

/// Accepts until `stop`, then waits for what is under way.
pub async fn serve(listener: Listener, mut stop: watch::Receiver<bool>) {
    let Listener { socket, certificate, connections, timeouts, app } = listener;
    let socket = match TcpListener::from_std(socket) {
        Ok(socket) => socket,
        Err(error) => return tracing::error!(%error, "cannot serve"),
    };
    let room = Room::new(handles::for_connections(connections));
    let refusing = Arc::new(Semaphore::new(REFUSING));
    let common = Arc::new(Common { certificate, timeouts, app, stop: stop.clone() });
    // Every connection holds a sender: when all are gone, nothing is left to do.
    let (alive, mut ended) = mpsc::channel::<Infallible>(1);
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            accepted = socket.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) if is_of_the_connection(&error) => continue,
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (common, alive) = (Arc::clone(&common), alive.clone());
        if let Some(place) = room.enter() {
            tokio::spawn(async move {
                converse(stream, Arc::new(place), &common).await;
                drop(alive);
            });
        } else if let (Ok(permit), None) = (Arc::clone(&refusing).try_acquire_owned(), &common.certificate) {
            tokio::spawn(async move {
                refuse(stream, common.timeouts.linger).await;
                drop((permit, alive));
            });
        }
    }
    drop(socket);
    drop(alive);
    if timeout(timeouts.stop, ended.recv()).await.is_err() {
        tracing::warn!("requests that were still under way are given up");
    }
}

fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

async fn refuse(mut stream: TcpStream, linger: Duration) {
    let problem = Problem::new(BUSY, "all connections are in use; come again").retry_after(Duration::from_secs(1));
    let _ = timeout(linger, async {
        stream.write_all(&problem.to_http()).await?;
        close(&mut stream).await
    })
    .await;
}

/// A connection from beginning to end, or until another needs its place.
async fn converse(stream: TcpStream, place: Arc<Place>, common: &Common) {
    let _ = stream.set_nodelay(true);
    let exchange = async {
        match &common.certificate {
            None => exchange(stream, Arc::clone(&place), common).await,
            Some(certificate) => {
                let handshake = TlsAcceptor::from(certificate.get()).accept(stream);
                if let Ok(Ok(stream)) = timeout(common.timeouts.header, handshake).await {
                    exchange(stream, Arc::clone(&place), common).await;
                }
            }
        }
    };
    tokio::select! {
        () = place.given_up() => {}
        () = exchange => {}
    }
}

async fn exchange<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, place: Arc<Place>, common: &Common) {
    let io = TokioIo::new(Watch::new(stream, Arc::clone(&place), common.timeouts));
    let service = service_fn(|request: Request<Incoming>| {
        let (place, app) = (Arc::clone(&place), common.app.clone());
        place.set(if request.body().is_end_stream() { Phase::Answering } else { Phase::Reading });
        async move { Ok::<_, Infallible>(answer(app, request, &place).await) }
    });
    let mut connection = http1::Builder::new()
        // Ours tells headers from pauses between requests.
        .header_read_timeout(None)
        .max_header_size(MAX_HEADER_BYTES)
        .max_buf_size(BUFFER_BYTES)
        .serve_connection(io, service);
    let mut stop = common.stop.clone();
    let mut is_stopping = false;
    let ended = loop {
        tokio::select! {
            ended = &mut connection => break ended,
            _ = stop.wait_for(|stop| *stop), if !is_stopping => {
                if place.phase().is_waiting() {
                    return;
                }
                is_stopping = true;
                std::pin::Pin::new(&mut connection).graceful_shutdown();
            }
        }
    };
    let watch = connection.into_parts().io.into_inner();
    let told = ended.err().filter(|_| place.phase().is_waiting());
    let problem = told.and_then(|error| problem(&error, watch.was_slow, &common.timeouts));
    let mut stream = watch.into_inner();
    let _ = timeout(common.timeouts.linger, async {
        if let Some(problem) = problem {
            stream.write_all(&problem.to_http()).await?;
        }
        close(&mut stream).await
    })
    .await;
}

async fn answer(app: Router, request: Request<Incoming>, place: &Arc<Place>) -> Response {
    let uri = request.uri().path_and_query().map_or(0, |uri| uri.as_str().len());
    let mut response = if uri > MAX_URI_BYTES {
        let detail = format!("a path with its parameters may have {MAX_URI_BYTES} bytes");
        Problem::new(URI_TOO_LONG, detail).with("limit", MAX_URI_BYTES).into_response()
    } else {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Arc::clone(place));
        match app.oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    };
    // The body was not read to its end, so that nothing can follow on this connection.
    if place.phase() == Phase::Reading {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    place.set(Phase::Writing);
    response
}

/// What to say of a request that could not be told.
fn problem(error: &hyper::Error, was_slow: bool, timeouts: &Timeouts) -> Option<Problem> {
    if was_slow {
        let seconds = timeouts.header.as_secs_f64();
        let detail = format!("the headers took longer than {seconds} s");
        return Some(Problem::new(TOO_SLOW, detail).with("seconds", seconds));
    }
    if error.is_parse_too_large() {
        let detail = format!("request line and headers may have {MAX_HEADER_BYTES} bytes together, and 100 headers");
        return Some(Problem::new(HEADERS_TOO_LARGE, detail).with("limit", MAX_HEADER_BYTES));
    }
    error.is_parse().then(|| Problem::new(MALFORMED_REQUEST, "what came is not a request of HTTP/1.1"))
}

/// Ends the stream, then reads what the other side still sends: closing at once would reset the connection and could
/// take the last answer from it.
async fn close<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> io::Result<()> {
    stream.shutdown().await?;
    let mut rest = vec![0; 16 << 10];
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
}

/// File handles: connections must not take those of the log and the store.
mod handles {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    /// For everything besides connections.
    const RESERVED: u64 = 512;

    /// As many of `connections` as there are file handles for. Raises the process's limit as far as it may.
    pub fn for_connections(connections: usize) -> usize {
        let wanted = connections as u64 + RESERVED;
        let limit = getrlimit(Resource::Nofile);
        let soft = limit.current.unwrap_or(u64::MAX);
        let raised = limit.maximum.unwrap_or(u64::MAX).min(wanted).max(soft);
        let new = Rlimit { current: Some(raised), maximum: limit.maximum };
        let handles = if raised > soft && setrlimit(Resource::Nofile, new).is_err() { soft } else { raised };
        let room = handles.saturating_sub(RESERVED).max(handles / 2);
        let granted = usize::try_from(room).unwrap_or(usize::MAX).min(connections);
        if granted < connections {
            tracing::warn!(connections, granted, handles, "fewer connections than configured: raise `ulimit -n`");
        }
        granted
    }
}
