//! Asking a running worker.

use std::path::PathBuf;

use axum::{body::Bytes, http::Method};
use clap::Args;
use serde_json::{Map, Value};

use super::CliError;
use crate::serve::client::Target;

/// Where a worker serves, and what to show to it.
#[derive(Args, Clone)]
pub struct ServerArgs {
    /// Where a worker serves.
    #[arg(long, default_value = "http://127.0.0.1:8080", env = "MILLRACE_ADDRESS", value_name = "URL")]
    pub address: String,
    /// File with the token that the API asks for: the one of decisions, or the admin token.
    #[arg(long, env = "MILLRACE_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Certificates to trust, in PEM, for an https address: the server's own or its authority's.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

impl ServerArgs {
    /// The body of a good answer.
    ///
    /// # Errors
    /// There is no answer, or it is a problem.
    pub fn ask(&self, method: Method, path: &str, json: Option<&Value>) -> Result<Bytes, CliError> {
        let target = Target::new(&self.address, self.token_file.as_deref(), self.ca_file.as_deref())?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| CliError::Other(format!("cannot start: {e}")))?;
        let json = json.map(|json| json.to_string().into_bytes());
        let (status, body) = runtime.block_on(target.ask(method, path, json))?;
        if status.is_success() {
            return Ok(body);
        }
        let problem: Map<String, Value> = serde_json::from_slice(&body).unwrap_or_default();
        let text = |member: &str| shown(problem.get(member).and_then(Value::as_str).unwrap_or_default());
        let answered = format!("{} answered {}", self.address, status.as_u16());
        Err(CliError::Other(format!("{answered}: {}: {}", text("title"), text("detail"))))
    }
}

/// What came over the network, without characters that steer a terminal.
pub fn shown(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
