//! Faults between a client and a store.

use std::{
    io::{self, Read},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::http::{Listener, Request, Responder};

/// What becomes of a request, or of its answer.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Nothing happens to it.
    None,
    /// Answered here with this status and error code.
    Instead(u16, &'static str),
    /// Done, and then answered here.
    DoneBut(u16, &'static str),
    /// Done; the connection is closed without an answer.
    DoneAndLost,
    /// Not done; the connection is closed without an answer.
    Lost,
    /// Done, and never answered.
    DoneAndSilent,
    /// Not done, and never answered.
    Silent,
    /// The last bytes of its answer are missing.
    Short(usize),
    /// The first byte of its answer's body is another one.
    Flipped,
    /// A header of its answer is missing.
    Without(&'static str),
    /// A header of its answer has another value.
    With(&'static str, &'static str),
}

/// In front of a store. Says what becomes of each request.
#[derive(Debug)]
pub struct Proxy {
    listener: Listener,
    requests: Arc<AtomicUsize>,
}

impl Proxy {
    pub fn start(store: SocketAddr, fault: impl Fn(&Request) -> Fault + Send + Sync + 'static) -> io::Result<Self> {
        let requests = Arc::new(AtomicUsize::new(0));
        let counted = requests.clone();
        let listener = Listener::start(move |request, responder| {
            counted.fetch_add(1, Ordering::Relaxed);
            pass(store, &request, &fault(&request), responder)
        })?;
        Ok(Self { listener, requests })
    }

    pub fn endpoint(&self) -> String {
        self.listener.endpoint()
    }

    /// How many there were so far.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }
}

fn pass(store: SocketAddr, request: &Request, fault: &Fault, responder: &mut Responder) -> io::Result<()> {
    let done = || -> io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(store)?;
        request.write(&mut stream)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer)
    };
    match *fault {
        Fault::None => responder.raw(&done()?),
        Fault::Instead(status, code) => responder.error(status, code),
        Fault::DoneBut(status, code) => {
            done()?;
            responder.error(status, code)
        }
        Fault::DoneAndLost => done().map(drop),
        Fault::Lost => Ok(()),
        Fault::DoneAndSilent => {
            done()?;
            responder.never()
        }
        Fault::Silent => responder.never(),
        Fault::Short(bytes) => {
            let answer = done()?;
            responder.raw(&answer[..answer.len().saturating_sub(bytes)])
        }
        Fault::Flipped => {
            let mut answer = done()?;
            if let Some(byte) =
                answer.windows(4).position(|end| end == b"\r\n\r\n").and_then(|end| answer.get_mut(end + 4))
            {
                *byte ^= 1;
            }
            responder.raw(&answer)
        }
        Fault::Without(name) => responder.raw(&edited(&done()?, name, None)),
        Fault::With(name, value) => responder.raw(&edited(&done()?, name, Some(value))),
    }
}

/// An answer whose header is gone, or has another value.
fn edited(answer: &[u8], name: &str, value: Option<&str>) -> Vec<u8> {
    let end = answer.windows(4).position(|end| end == b"\r\n\r\n").unwrap_or(answer.len());
    let head = String::from_utf8_lossy(&answer[..end]);
    let is_it = |line: &&str| line.split_once(':').is_some_and(|(found, _)| found.eq_ignore_ascii_case(name));
    let mut lines: Vec<String> = head.split("\r\n").filter(|line| !is_it(line)).map(str::to_owned).collect();
    lines.extend(value.map(|value| format!("{name}: {value}")));
    [lines.join("\r\n").as_bytes(), &answer[end..]].concat()
}
