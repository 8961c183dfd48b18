//! A real Kafka broker for tests, on loopback, with data of its own. It ends with the process that started it.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, OnceLock, PoisonError},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

/// A broker with its folder.
pub struct Broker {
    port: u16,
    controller_port: u16,
    folder: tempfile::TempDir,
    /// The script, and the broker's own process.
    running: Mutex<Option<(Child, Pid)>>,
}

const READY_WITHIN: Duration = Duration::from_secs(120);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Where the Makefile keeps the broker's jars.
pub fn jars() -> PathBuf {
    let cache = || {
        let home = std::env::var_os("HOME").unwrap_or_default();
        let caches = std::env::var_os("XDG_CACHE_HOME").filter(|cache| !cache.is_empty());
        caches.map_or_else(|| Path::new(&home).join(".cache"), PathBuf::from).join("millrace/kafka")
    };
    std::env::var_os("MILLRACE_KAFKA").map_or_else(cache, PathBuf::from)
}

/// Whatever crate's tests are running.
fn script() -> io::Result<PathBuf> {
    let from = std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(std::env::current_dir, |of| Ok(of.into()))?;
    let found =
        from.ancestors().map(|folder| folder.join("examples/kafka/broker/broker.sh")).find(|path| path.exists());
    found.ok_or_else(|| io::Error::other("examples/kafka/broker/broker.sh is not there"))
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

impl Broker {
    /// The one of this test process.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Broker> = OnceLock::new();
        SHARED.get_or_init(|| match Broker::start() {
            Ok(broker) => broker,
            Err(error) => fail(&format!("no Kafka broker: {error}")),
        })
    }

    /// # Errors
    /// The jars are not there (`make kafka-jars`), or the broker does not start.
    pub fn start() -> io::Result<Self> {
        if !jars().join(".complete").exists() {
            return Err(io::Error::other(format!("{} has no jars: run `make kafka-jars`", jars().display())));
        }
        let broker = Self {
            port: free_port()?,
            controller_port: free_port()?,
            folder: tempfile::tempdir()?,
            running: Mutex::new(None),
        };
        broker.go_on()?;
        Ok(broker)
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Starts it again on its data, and waits until it answers.
    pub fn go_on(&self) -> io::Result<()> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.is_some() {
            return Ok(());
        }
        let script = script()?;
        let mut child = Command::new("sh")
            .arg(script)
            .args([self.port.to_string(), self.controller_port.to_string()])
            .arg(self.folder.path())
            .env("KAFKA", jars())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(self.folder.path().join("script.log"))?)
            .spawn()?;
        let mut line = String::new();
        let stdout = child.stdout.take().ok_or_else(|| io::Error::other("no output"))?;
        BufReader::new(stdout).read_line(&mut line)?;
        let Some(broker) = line.trim().parse().ok().and_then(Pid::from_raw) else {
            return Err(io::Error::other(self.read("script.log")));
        };
        *running = Some((child, broker));
        let asked = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let is_gone = running.as_mut().is_none_or(|(child, _)| !matches!(child.try_wait(), Ok(None)));
            if is_gone || asked.elapsed() > READY_WITHIN {
                return Err(io::Error::other(self.read("broker.log")));
            }
            thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(name)).unwrap_or_default()
    }

    fn signal(&self, signal: Signal) {
        if let Some((_, broker)) = &*self.running.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = kill_process(*broker, signal);
        }
    }

    /// Stands still until [`Broker::wake`].
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }
    pub fn wake(&self) {
        self.signal(Signal::CONT);
    }

    /// At once, as by a power cut.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
        if let Some((mut script, _)) = self.take() {
            drop(script.stdin.take());
            let _ = script.wait();
        }
    }

    fn take(&self) -> Option<(Child, Pid)> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

#[expect(clippy::panic, reason = "a test without its broker is no test")]
fn fail(why: &str) -> ! {
    panic!("{why}")
}
