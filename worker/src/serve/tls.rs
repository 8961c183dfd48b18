//! Certificates by file, read again when they are renewed.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use millrace_crds::spec::Tls;
use tokio_rustls::rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    version,
};

use super::{
    SetupError, access,
    watched::{self, Watched},
};

/// Certificates are looked at no more often.
const REREAD_EVERY: Duration = Duration::from_secs(10);

/// A certificate with its key, as of a moment ago.
pub struct Certificate(Watched<Arc<ServerConfig>>);

impl Certificate {
    pub fn get(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.0.get())
    }
}

/// `beside`: the folder to which files are relative.
pub fn load(tls: &Tls, beside: &Path) -> Result<Certificate, SetupError> {
    let certificate = access::file_of(&tls.certificate, "tls.certificate", beside)?;
    let key = access::file_of(&tls.key, "tls.key", beside)?;
    Watched::new(vec![certificate, key], REREAD_EVERY, read).map(Certificate).map_err(SetupError::Tls)
}

fn read(paths: &[PathBuf]) -> Result<Arc<ServerConfig>, String> {
    let [certificate, key] = paths else { return Err("expected a certificate and a key".into()) };
    let wrong = |path: &Path, what: String| format!("{}: {what}", path.display());
    let pem = watched::bytes(certificate)?;
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| wrong(certificate, format!("not PEM: {error}")))?;
    if chain.is_empty() {
        return Err(wrong(certificate, "no `BEGIN CERTIFICATE` in it; expected the chain, the server's first".into()));
    }
    let private = PrivateKeyDer::from_pem_slice(&watched::bytes(key)?)
        .map_err(|error| wrong(key, format!("no private key in PEM: {error}")))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(|error| wrong(certificate, format!("does not go with {}: {error}", key.display())))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
