//! As much of an HTTP/1.1 client as a load driver on the same machine needs: one connection that is kept alive.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// Longest answer that is read, in bytes.
const BODY_BYTES_MAX: usize = 16 << 20;

#[derive(Debug)]
pub struct Connection {
    address: SocketAddr,
    timeout: Duration,
    stream: Option<BufReader<TcpStream>>,
    message: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub status: u16,
    pub body: Vec<u8>,
}

impl Connection {
    pub fn new(address: SocketAddr, timeout: Duration) -> Self {
        Self { address, timeout, stream: None, message: Vec::new() }
    }

    pub fn get(&mut self, path: &str) -> io::Result<Reply> {
        self.request("GET", path, "", b"")
    }
    pub fn post(&mut self, path: &str, media_type: &str, body: &[u8]) -> io::Result<Reply> {
        self.request("POST", path, media_type, body)
    }

    /// After an error the next request opens another connection. Whether the request arrived is then not known.
    fn request(&mut self, method: &str, path: &str, media_type: &str, body: &[u8]) -> io::Result<Reply> {
        let had_stream = self.stream.is_some();
        let reply = self.exchange(method, path, media_type, body);
        match reply {
            Ok((reply, keeps)) => {
                if !keeps {
                    self.stream = None;
                }
                Ok(reply)
            }
            Err(error) => {
                self.stream = None;
                // The other side may have closed a connection that was idle: that is no answer to this request.
                if had_stream && is_closed(&error) {
                    return self.request(method, path, media_type, body);
                }
                Err(error)
            }
        }
    }

    fn exchange(&mut self, method: &str, path: &str, media_type: &str, body: &[u8]) -> io::Result<(Reply, bool)> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => {
                let stream = TcpStream::connect_timeout(&self.address, self.timeout)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(self.timeout))?;
                stream.set_write_timeout(Some(self.timeout))?;
                none.insert(BufReader::new(stream))
            }
        };
        self.message.clear();
        write!(self.message, "{method} {path} HTTP/1.1\r\nhost: {}\r\n", self.address)?;
        if !media_type.is_empty() {
            write!(self.message, "content-type: {media_type}\r\ncontent-length: {}\r\n", body.len())?;
        }
        self.message.extend_from_slice(b"\r\n");
        self.message.extend_from_slice(body);
        stream.get_mut().write_all(&self.message)?;
        read_reply(stream)
    }
}

fn is_closed(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// The reply, and whether the connection stays open.
fn read_reply(stream: &mut impl BufRead) -> io::Result<(Reply, bool)> {
    let mut line = String::new();
    read_line(stream, &mut line)?;
    let status = line.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or(invalid("no status"))?;
    let (mut length, mut chunked, mut keeps) = (0usize, false, true);
    loop {
        read_line(stream, &mut line)?;
        if line.is_empty() {
            break;
        }
        let Some((name, value)) = line.split_once(':') else { return Err(invalid("a header without a colon")) };
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().map_err(|_| invalid("content-length"))?,
            "transfer-encoding" => chunked = value.eq_ignore_ascii_case("chunked"),
            "connection" => keeps = !value.eq_ignore_ascii_case("close"),
            _ => {}
        }
    }
    let mut body = Vec::new();
    if chunked {
        loop {
            read_line(stream, &mut line)?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).map_err(|_| invalid("chunk size"))?;
            read_bytes(stream, size, &mut body)?;
            read_line(stream, &mut line)?;
            if size == 0 {
                break;
            }
        }
    } else {
        read_bytes(stream, length, &mut body)?;
    }
    Ok((Reply { status, body }, keeps))
}

fn read_line(stream: &mut impl BufRead, line: &mut String) -> io::Result<()> {
    line.clear();
    if stream.take(16_384).read_line(line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    line.truncate(line.trim_end().len());
    Ok(())
}

fn read_bytes(stream: &mut impl BufRead, count: usize, to: &mut Vec<u8>) -> io::Result<()> {
    let start = to.len();
    if start + count > BODY_BYTES_MAX {
        return Err(invalid("the answer is too long"));
    }
    to.resize(start + count, 0);
    stream.read_exact(&mut to[start..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{net::TcpListener, thread};

    fn read(text: &str) -> io::Result<(Reply, bool)> {
        read_reply(&mut text.as_bytes())
    }

    #[test]
    fn replies_of_either_framing() {
        let plain = read("HTTP/1.1 202 Accepted\r\nContent-Length: 3\r\n\r\nabcHTTP").unwrap();
        assert_eq!(plain, (Reply { status: 202, body: b"abc".to_vec() }, true));
        let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
        assert_eq!(read(chunked).unwrap(), (Reply { status: 200, body: b"abcde".to_vec() }, false));
    }

    #[test]
    fn damaged_replies_are_errors() {
        for text in [
            "",
            "HTTP/1.1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab",
            "HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\nab",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        ] {
            assert!(read(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_connection_that_was_closed_is_opened_again() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            for body in ["one", "two"] {
                let (mut stream, _) = listener.accept().unwrap();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut line = String::new();
                while reader.read_line(&mut line).unwrap() > 2 {
                    line.clear();
                }
                write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{body}").unwrap();
            }
        });
        let mut connection = Connection::new(address, Duration::from_secs(10));
        assert_eq!(connection.get("/").unwrap().body, b"one");
        assert_eq!(connection.get("/").unwrap().body, b"two");
        server.join().unwrap();
        assert!(connection.get("/").is_err(), "nobody is there any more");
    }
}
