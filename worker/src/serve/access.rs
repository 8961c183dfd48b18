//! Who may ask what.
//!
//! An API with a token answers whoever shows it. One without is for programs on this machine: it is refused on other
//! than loopback addresses, and it does not answer pages of other sites, which reach loopback addresses through a
//! browser (by cross-site requests and by DNS rebinding; `Origin` and `Host` tell them).

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use axum::http::{HeaderMap, header, uri::Authority};
use millrace_crds::spec::{SecretText, Tokens};
use subtle::ConstantTimeEq;

use super::{
    SetupError,
    problem::{FORBIDDEN, Problem, UNAUTHORIZED},
    watched::{self, Watched},
};

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    Decisions,
    Events,
    /// Erasure, profiles, status, metrics and all that the page shows.
    Admin,
}

/// Tokens are looked at no more often.
const REREAD_EVERY: Duration = Duration::from_secs(1);

type Token = Watched<Vec<u8>>;

/// The tokens of each API.
pub struct Access {
    decisions: Option<Token>,
    events: Option<Token>,
    admin: Option<Token>,
}

/// Whoever was let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    pub is_admin: bool,
}

impl Access {
    /// `beside`: the folder to which files are relative. `address`: where the server listens.
    pub fn load(tokens: &Tokens, beside: &Path, address: SocketAddr) -> Result<Self, SetupError> {
        let load = |api: &str, text: &Option<SecretText>| match text {
            Some(text) => {
                let path = file_of(text, &format!("tokens.{api}"), beside)?;
                Watched::new(vec![path], REREAD_EVERY, token).map(Some).map_err(SetupError::Token)
            }
            None if address.ip().to_canonical().is_loopback() => Ok(None),
            None => Err(SetupError::Open { address, api: api.to_owned() }),
        };
        Ok(Self {
            decisions: load("decisions", &tokens.decisions)?,
            events: load("events", &tokens.events)?,
            admin: load("admin", &tokens.admin)?,
        })
    }

    /// Lets the request in or says why not. The admin token opens everything.
    pub fn check(&self, api: Api, headers: &HeaderMap) -> Result<Caller, Problem> {
        let shown = bearer(headers);
        let shows = |token: &Token| shown.is_some_and(|shown| bool::from(shown.ct_eq(token.get().as_slice())));
        let is_admin = match &self.admin {
            Some(token) => shows(token),
            None => from_this_machine(headers).is_ok(),
        };
        let own = match api {
            Api::Decisions => &self.decisions,
            Api::Events => &self.events,
            Api::Admin => &self.admin,
        };
        match own {
            Some(own) if shows(own) => {}
            Some(_) if is_admin && self.admin.is_some() => {}
            Some(_) => {
                let detail = match shown {
                    Some(_) => "the token is not one of this API",
                    None => "send the header `Authorization: Bearer TOKEN` with a token of this API",
                };
                return Err(Problem::new(UNAUTHORIZED, detail));
            }
            None => from_this_machine(headers)?,
        }
        Ok(Caller { is_admin })
    }
}

/// The file of a secret text. `field`: of `spec.serving`.
pub fn file_of(text: &SecretText, field: &str, beside: &Path) -> Result<PathBuf, SetupError> {
    match &text.file {
        Some(file) => Ok(beside.join(file)),
        None => Err(SetupError::NoFile { field: format!("spec.serving.{field}") }),
    }
}

fn token(paths: &[PathBuf]) -> Result<Vec<u8>, String> {
    let mut token = Vec::new();
    for path in paths {
        let bytes = watched::bytes(path)?;
        token = bytes.trim_ascii().to_vec();
        // What a header can carry (RFC 6750: b64token is a part of it).
        if token.is_empty() || !token.iter().all(u8::is_ascii_graphic) {
            return Err(format!("{}: expected one token, a line of visible ASCII characters", path.display()));
        }
    }
    Ok(token)
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

fn from_this_machine(headers: &HeaderMap) -> Result<(), Problem> {
    let refused = || {
        let detail = "this API has no token and answers only programs and pages of this machine; \
            give it one (spec.serving.tokens), or address it as localhost or by a loopback address";
        Err(Problem::new(FORBIDDEN, detail))
    };
    // HTTP/1.0 may come without; browsers do not.
    let Some(host) = headers.get(header::HOST) else { return Ok(()) };
    let authority = |bytes: &[u8]| Authority::try_from(bytes).ok();
    let Some(host) = authority(host.as_bytes()).filter(is_local) else { return refused() };
    match headers.get(header::ORIGIN) {
        None => Ok(()),
        Some(origin) => {
            let origin = origin.as_bytes();
            let rest = origin.strip_prefix(b"http://").or_else(|| origin.strip_prefix(b"https://"));
            match rest.and_then(authority) {
                Some(origin) if origin == host => Ok(()),
                _ => refused(),
            }
        }
    }
}

fn is_local(host: &Authority) -> bool {
    let name = host.host();
    let ip = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    name.eq_ignore_ascii_case("localhost") || ip.is_ok_and(|ip| ip.to_canonical().is_loopback())
}
