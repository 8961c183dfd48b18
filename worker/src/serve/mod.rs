//! The HTTP server: decisions, events, users, status and the page, with everything around them.
//!
//! What answers is behind [`Backend`]. The server has a thread and a Tokio runtime of its own, so that it waits for
//! engine work no more than engine threads wait for it. Nothing that came with a request is ever logged.
//!
//! ```text
//! socket ─ connection (room, TLS, timeouts) ─ routes (access, rates) ─ body ─ json/records ─ Backend
//! ```

mod access;
pub mod api;
mod body;
pub mod client;
mod connection;
pub mod forwarded;
mod json;
mod limits;
pub mod orders;
mod page;
mod problem;
mod records;
mod room;
mod routes;
mod stream;
mod tls;
pub mod traffic;
mod watched;

#[cfg(test)]
mod tests;

use std::{
    io,
    net::{SocketAddr, TcpListener},
    path::Path,
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use axum::Router;
use futures::future::{BoxFuture, join_all};
use millrace_crds::spec::Serving;
use serde_json::Value;
use tokio::sync::watch;

use self::{
    access::Access,
    api::{Accepted, DecideAnswer, DecideRequest, EventsRequest, Identity},
    forwarded::Question,
    limits::Limits,
    orders::Told,
    problem::{BUSY, FAILED, INVALID, MOVING, NO_ANSWER, NO_ORDERS, Problem, STOPPING, UNKNOWN_USER},
    tls::Certificate,
};
pub use self::{connection::Listener, limits::Timeouts};
use crate::{host::fleet::Disobeyed, metrics::Shared};

/// What answers. Dropping a future gives its answer up; what it asked for may still happen.
pub trait Backend: Send + Sync + 'static {
    fn decide(&self, request: DecideRequest) -> BoxFuture<'_, Result<DecideAnswer, ServeError>>;
    /// Resolves once the accepted records are durable.
    fn accept(&self, request: EventsRequest) -> BoxFuture<'_, Result<Accepted, ServeError>>;
    /// Resolves once the erasure is durable. Of a user of whom nothing is kept, too.
    fn erase(&self, user: Identity) -> BoxFuture<'_, Result<(), ServeError>>;
    /// What is kept of a user, as JSON.
    fn profile(&self, user: Identity) -> BoxFuture<'_, Result<Value, ServeError>>;
    /// What is here of the pipeline's tasks.
    fn tasks(&self) -> Value;
    /// All that this worker is to have from now on.
    fn obey(&self, told: Told) -> Result<(), ServeError>;
    /// What another worker asks of the owner of a user's partition. Never forwarded again.
    fn forwarded(&self, question: Question) -> BoxFuture<'_, Result<Value, ServeError>>;
    /// These three are asked by pages every second and must not wait for anything.
    fn status(&self) -> Value;
    fn experiments(&self) -> Value;
    fn recent_decisions(&self) -> Value;
}

/// Why there is no answer: whose fault, and whether to come again. Texts hold nothing of the request's content.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServeError {
    /// The caller's: what the request's `field` asks is not there or does not fit.
    #[error("`{field}`: {detail}")]
    Invalid { field: &'static str, detail: String },
    /// Nothing is kept of this user.
    #[error("nothing is kept of this user")]
    UnknownUser,
    /// Nothing was done, because too much waits.
    #[error("too much waits")]
    Busy { retry_after: Duration },
    /// Nothing was done, because the user's profile is not here at the moment: it is being moved.
    #[error("the profile is not here")]
    NotHere { retry_after: Duration },
    /// It may have been done: whoever did it has the task no more.
    #[error("it is not known whether it was done")]
    NotKnown { retry_after: Duration },
    /// Nothing was done: these orders are not for this worker, or not any more.
    #[error(transparent)]
    Disobeyed(#[from] Disobeyed),
    /// Nothing was done, because the process stops.
    #[error("stopping")]
    Stopping,
    /// Ours. Goes to the log, not to the caller.
    #[error("{0}")]
    Failed(String),
}

impl From<ServeError> for Problem {
    fn from(error: ServeError) -> Self {
        match error {
            ServeError::Invalid { field, detail } => {
                Problem::new(INVALID, format!("`{field}`: {detail}")).with("field", field)
            }
            ServeError::UnknownUser => Problem::new(UNKNOWN_USER, "nothing is kept of this user"),
            ServeError::Busy { retry_after } => {
                Problem::new(BUSY, "the engine has too much to do; come again").retry_after(retry_after)
            }
            ServeError::NotHere { retry_after } => {
                Problem::new(MOVING, "the user's profile is being moved; come again").retry_after(retry_after)
            }
            ServeError::NotKnown { retry_after } => {
                let detail =
                    "the user's profile went to another worker meanwhile; whether the request was done is not known";
                Problem::new(NO_ANSWER, detail).retry_after(retry_after)
            }
            ServeError::Disobeyed(why) => Problem::new(NO_ORDERS, why.to_string()),
            ServeError::Stopping => {
                Problem::new(STOPPING, "the server is stopping; come again").retry_after(Duration::from_secs(5))
            }
            ServeError::Failed(cause) => {
                tracing::error!(%cause, "a request failed");
                Problem::new(FAILED, "the server's log says more")
            }
        }
    }
}

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error("cannot listen on {address}: {cause}; choose another address or port")]
    Listen { address: SocketAddr, cause: io::Error },
    #[error(
        "the {api} API has no token, and {address} can be reached from other machines; \
        give spec.serving.tokens.{api}.file, or listen on 127.0.0.1"
    )]
    Open { address: SocketAddr, api: String },
    #[error("{field}: a Secret exists only in a cluster; give `file` for a local run")]
    NoFile { field: String },
    #[error("token in {0}")]
    Token(String),
    #[error("TLS: {0}")]
    Tls(String),
    #[error("cannot start the server's threads: {0}")]
    Start(io::Error),
}

/// A server that has its port, tokens and certificate, so that it can start.
pub struct Prepared {
    socket: TcpListener,
    address: SocketAddr,
    certificate: Option<Certificate>,
    access: Access,
    limits: Limits,
    connections: usize,
}

impl Prepared {
    /// `beside`: the folder to which files are relative.
    pub fn new(serving: &Serving, beside: &Path, address: SocketAddr, timeouts: Timeouts) -> Result<Self, SetupError> {
        let access = Access::load(&serving.tokens, beside, address)?;
        let certificate = serving.tls.as_ref().map(|tls| tls::load(tls, beside)).transpose()?;
        let (socket, address) = listen(address)?;
        let connections = serving.limits.connections as usize;
        Ok(Self { socket, address, certificate, access, limits: Limits::new(&serving.limits, timeouts), connections })
    }

    /// With the port that port 0 became.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn is_tls(&self) -> bool {
        self.certificate.is_some()
    }

    pub fn listener(self, backend: Arc<dyn Backend>, shared: Arc<Shared>) -> Listener {
        let timeouts = self.limits.timeouts;
        let app = routes::router(routes::App { backend, shared, access: self.access, limits: self.limits });
        let Self { socket, certificate, connections, .. } = self;
        Listener { socket, certificate, connections, timeouts, app }
    }
}

/// A port for `/metrics`, `/healthz` and `/readyz` alone, open to all.
pub struct PreparedPages {
    socket: TcpListener,
}

/// Scrapers and probes are few.
const PAGES_CONNECTIONS: usize = 64;

impl PreparedPages {
    pub fn new(address: SocketAddr) -> Result<Self, SetupError> {
        listen(address).map(|(socket, _)| Self { socket })
    }

    pub fn listener(self, shared: Arc<Shared>) -> Listener {
        let app: Router = routes::pages(shared);
        let timeouts = Timeouts::default();
        Listener { socket: self.socket, certificate: None, connections: PAGES_CONNECTIONS, timeouts, app }
    }
}

fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), SetupError> {
    let failed = |cause| SetupError::Listen { address, cause };
    let socket = TcpListener::bind(address).map_err(failed)?;
    socket.set_nonblocking(true).map_err(failed)?;
    let address = socket.local_addr().map_err(failed)?;
    Ok((socket, address))
}

/// A running server.
pub struct Server {
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

/// More would take cores from engine threads.
const THREADS: usize = 2;

impl Server {
    /// Serves on all of `listeners` until it is stopped.
    pub fn start(listeners: Vec<Listener>) -> Result<Self, SetupError> {
        let (stop, stopped) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("http")
            .enable_all()
            .build()
            .map_err(SetupError::Start)?;
        let run = move || {
            let servers = listeners.into_iter().map(|listener| connection::serve(listener, stopped.clone()));
            runtime.block_on(join_all(servers));
            // What is still under way after `Timeouts::stop` is given up.
            runtime.shutdown_background();
        };
        let thread = std::thread::Builder::new().name("http-server".into()).spawn(run).map_err(SetupError::Start)?;
        Ok(Self { stop, thread })
    }

    /// Takes no more requests, answers those under way, and blocks until that is done.
    pub fn stop(self) {
        self.stop.send_replace(true);
        if self.thread.join().is_err() {
            tracing::error!("the HTTP server has failed");
        }
    }
}
