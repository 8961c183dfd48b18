//! A small HTTP/1.1 client: one connection that is kept, opened again when it was lost.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use serde_json::Value;

/// An answer as it came.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("{e} in {} {}", self.status, String::from_utf8_lossy(&self.body)))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body of an answer with this status.
    pub fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        if self.body.is_empty() { Value::Null } else { self.json() }
    }
}

pub struct Client {
    address: SocketAddr,
    token: Option<String>,
    stream: Option<BufReader<TcpStream>>,
}

impl Client {
    pub fn new(address: SocketAddr) -> Self {
        Self { address, token: None, stream: None }
    }
    pub fn address(&self) -> SocketAddr {
        self.address
    }
    pub fn with_token(mut self, token: &str) -> Self {
        self.token = Some(token.to_owned());
        self
    }

    /// None: nobody is there, or the connection broke.
    pub fn request(&mut self, method: &str, path: &str, body: Option<(&str, &[u8])>) -> Option<Reply> {
        let reply = self.try_request(method, path, body);
        if reply.is_err() {
            self.stream = None;
        }
        reply.ok()
    }

    fn try_request(&mut self, method: &str, path: &str, body: Option<(&str, &[u8])>) -> std::io::Result<Reply> {
        if self.stream.is_none() {
            let stream = TcpStream::connect(self.address)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(Duration::from_secs(60)))?;
            self.stream = Some(BufReader::new(stream));
        }
        let Some(stream) = &mut self.stream else { unreachable!() };
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\n", self.address);
        if let Some(token) = &self.token {
            head.push_str(&format!("authorization: Bearer {token}\r\n"));
        }
        let (kind, bytes) = body.unwrap_or(("", b""));
        if body.is_some() {
            head.push_str(&format!("content-type: {kind}\r\ncontent-length: {}\r\n", bytes.len()));
        }
        let mut message = head.into_bytes();
        message.extend_from_slice(b"\r\n");
        message.extend_from_slice(bytes);
        stream.get_mut().write_all(&message)?;
        let reply = read_reply(stream, method)?;
        if reply.head.to_ascii_lowercase().contains("connection: close") {
            self.stream = None;
        }
        Ok(reply)
    }

    pub fn get(&mut self, path: &str) -> Reply {
        self.request("GET", path, None).unwrap_or_else(|| panic!("no answer to GET {path}"))
    }
    pub fn delete(&mut self, path: &str) -> Reply {
        self.request("DELETE", path, None).unwrap_or_else(|| panic!("no answer to DELETE {path}"))
    }
    pub fn post(&mut self, path: &str, body: &Value) -> Reply {
        let bytes = body.to_string();
        let reply = self.request("POST", path, Some(("application/json", bytes.as_bytes())));
        reply.unwrap_or_else(|| panic!("no answer to POST {path}"))
    }
}

fn broken(why: &str) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::UnexpectedEof, why.to_owned())
}

fn read_reply(stream: &mut BufReader<TcpStream>, method: &str) -> std::io::Result<Reply> {
    let mut head = String::new();
    loop {
        let before = head.len();
        if stream.read_line(&mut head)? == 0 {
            return Err(broken("the connection was closed"));
        }
        if &head[before..] == "\r\n" {
            break;
        }
    }
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or_else(|| broken("no status"))?;
    let lower = head.to_ascii_lowercase();
    let mut body = Vec::new();
    if method == "HEAD" || status == 204 {
    } else if let Some(rest) = lower.split("content-length: ").nth(1) {
        let length = rest.lines().next().and_then(|n| n.trim().parse().ok()).ok_or_else(|| broken("no length"))?;
        body = vec![0; length];
        stream.read_exact(&mut body)?;
    } else if lower.contains("transfer-encoding: chunked") {
        loop {
            let mut line = String::new();
            stream.read_line(&mut line)?;
            let length = usize::from_str_radix(line.trim(), 16).map_err(|_| broken("no chunk length"))?;
            let mut chunk = vec![0; length + 2];
            stream.read_exact(&mut chunk)?;
            body.extend_from_slice(&chunk[..length]);
            if length == 0 {
                break;
            }
        }
    }
    Ok(Reply { status, head, body })
}
