//! Asks a running server: for the command line, for workers of a fleet, and for whoever places their tasks.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    body::Bytes,
    http::{Method, Request, StatusCode, Uri, header},
};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    },
};

use super::watched;

/// For everything together.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Of an answer.
const MAX_ANSWER_BYTES: usize = 64 << 20;

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("`{0}` is not the address of a server; expected such as http://127.0.0.1:8080")]
    Address(String),
    #[error("cannot reach {address}: {cause}; is `millrace run` serving there?")]
    Connect { address: String, cause: std::io::Error },
    #[error("{0} did not answer within 30 s")]
    Timeout(String),
    #[error("{0}")]
    File(String),
    #[error("{0}: https needs the certificates to trust: give --ca-file")]
    NoAuthority(String),
    #[error("{address}: the answer broke off: {cause}")]
    Broken { address: String, cause: String },
}

/// Where a server is, and what to show to it.
pub struct Target {
    address: Uri,
    /// A file with a bearer token, and what it held: it may be renewed.
    token: Option<PathBuf>,
    authorization: Mutex<Option<String>>,
    tls: Option<Arc<ClientConfig>>,
    /// Connections that nobody uses just now.
    idle: Mutex<Vec<Sender>>,
}

type Sender = http1::SendRequest<Full<Bytes>>;

/// More are closed.
const MAX_IDLE: usize = 32;

/// Is this `http://HOST:PORT` or `https://HOST:PORT`?
pub fn is_address(text: &str) -> bool {
    text.parse().is_ok_and(|uri: Uri| is_server(&uri) && matches!(uri.scheme_str(), Some("http" | "https")))
}

fn is_server(uri: &Uri) -> bool {
    uri.host().is_some() && ["", "/"].contains(&uri.path()) && uri.query().is_none()
}

impl Target {
    /// `address`: `http://HOST:PORT` or `https://HOST:PORT`. `token`: a file with a bearer token. `authority`: PEM
    /// certificates that are trusted, which https needs.
    pub fn new(address: &str, token: Option<&Path>, authority: Option<&Path>) -> Result<Self, ClientError> {
        let wrong = || ClientError::Address(address.to_owned());
        let uri: Uri = address.parse().map_err(|_| wrong())?;
        if !is_server(&uri) {
            return Err(wrong());
        }
        let tls = match (uri.scheme_str(), authority) {
            (Some("http"), _) => None,
            (Some("https"), Some(file)) => Some(trusting(file)?),
            (Some("https"), None) => return Err(ClientError::NoAuthority(address.to_owned())),
            _ => return Err(wrong()),
        };
        let authorization = Mutex::new(token.map(bearer).transpose()?);
        let token = token.map(Path::to_owned);
        Ok(Self { address: uri, token, authorization, tls, idle: Mutex::default() })
    }

    /// The answer's status and body. A connection is used again, so what is asked must bear being asked twice: it may have
    /// been closed meanwhile.
    pub async fn ask(
        &self,
        method: Method,
        path: &str,
        json: Option<Vec<u8>>,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let answered = self.ask_once(&method, path, json.clone()).await?;
        if answered.0 != StatusCode::UNAUTHORIZED || !self.renew()? {
            return Ok(answered);
        }
        self.ask_once(&method, path, json).await
    }

    /// Reads the token again. Is it another one?
    fn renew(&self) -> Result<bool, ClientError> {
        let new = self.token.as_deref().map(bearer).transpose()?;
        let mut known = self.authorization.lock().unwrap_or_else(PoisonError::into_inner);
        let is_other = *known != new;
        *known = new;
        Ok(is_other)
    }

    async fn ask_once(
        &self,
        method: &Method,
        path: &str,
        json: Option<Vec<u8>>,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, self.authority());
        if json.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        if let Some(authorization) = &*self.authorization.lock().unwrap_or_else(PoisonError::into_inner) {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let request = request.body(Full::new(Bytes::from(json.unwrap_or_default())));
        let request = request.map_err(|cause| self.broken(&cause))?;
        let asked = timeout(TIMEOUT, self.send(request)).await;
        asked.map_err(|_| ClientError::Timeout(self.address.to_string()))?
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), ClientError> {
        while let Some(mut sender) = self.take_idle() {
            if sender.ready().await.is_ok()
                && let Ok(answer) = self.exchange(sender, request.clone()).await
            {
                return Ok(answer);
            }
        }
        let sender = self.connect().await?;
        self.exchange(sender, request).await
    }

    fn take_idle(&self) -> Option<Sender> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn authority(&self) -> &str {
        self.address.authority().map_or("", |authority| authority.as_str())
    }

    fn broken(&self, cause: &dyn std::fmt::Display) -> ClientError {
        ClientError::Broken { address: self.address.to_string(), cause: cause.to_string() }
    }

    async fn connect(&self) -> Result<Sender, ClientError> {
        let unreached = |cause| ClientError::Connect { address: self.address.to_string(), cause };
        let host = self.address.host().unwrap_or_default().trim_matches(['[', ']']);
        let usual = if self.tls.is_some() { 443 } else { 80 };
        let port = self.address.port_u16().unwrap_or(usual);
        let stream = TcpStream::connect((host, port)).await.map_err(unreached)?;
        match &self.tls {
            None => self.open(stream).await,
            Some(config) => {
                let name = ServerName::try_from(host.to_owned());
                let name = name.map_err(|_| ClientError::Address(self.address.to_string()))?;
                let stream = TlsConnector::from(Arc::clone(config)).connect(name, stream).await.map_err(unreached)?;
                self.open(stream).await
            }
        }
    }

    async fn open<S>(&self, stream: S) -> Result<Sender, ClientError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| self.broken(&e))?;
        // With its sender the connection ends; why it broke is told to whoever asks.
        tokio::spawn(async { drop(connection.await) });
        Ok(sender)
    }

    async fn exchange(
        &self,
        mut sender: Sender,
        request: Request<Full<Bytes>>,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let response = sender.send_request(request).await.map_err(|e| self.broken(&e))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
        let body = body.map_err(|e| self.broken(&e))?.to_bytes();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MAX_IDLE {
            idle.push(sender);
        }
        Ok((status, body))
    }
}

fn bearer(file: &Path) -> Result<String, ClientError> {
    let token = watched::bytes(file).map_err(ClientError::File)?;
    Ok(format!("Bearer {}", String::from_utf8_lossy(token.trim_ascii())))
}

fn trusting(file: &Path) -> Result<Arc<ClientConfig>, ClientError> {
    let wrong = |what: &dyn std::fmt::Display| ClientError::File(format!("{}: {what}", file.display()));
    let pem = watched::bytes(file).map_err(ClientError::File)?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        roots.add(certificate.map_err(|e| wrong(&e))?).map_err(|e| wrong(&e))?;
    }
    if roots.is_empty() {
        return Err(wrong(&"no `BEGIN CERTIFICATE` in it"));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| wrong(&e))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
