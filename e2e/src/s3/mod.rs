//! Stores that speak S3's protocol, for tests: a real one ([`Server`]), faults before it ([`Proxy`]), and one that knows no
//! conditions ([`Careless`]).

mod careless;
mod http;
mod proxy;

use std::{
    env, fs, io,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

pub use careless::Careless;
pub use http::{Request, Responder};
pub use proxy::{Fault, Proxy};

/// Of the one account that a server has.
pub const ACCESS_KEY: &str = "test";
pub const SECRET_KEY: &str = "testsecret";
/// The bucket that a server has.
pub const BUCKET: &str = "checkpoints";
pub const REGION: &str = "us-east-1";

/// Starting takes a moment; much longer, and it will not.
const DEADLINE: Duration = Duration::from_secs(60);
/// Between taking a free port and listening on it, another process may take it.
const PORTS_TRIED: usize = 5;

/// versitygw over a folder, on loopback. It ends when this is dropped.
#[derive(Debug)]
pub struct Server {
    folder: PathBuf,
    address: SocketAddr,
    /// Certificate and key, both PEM.
    tls: Option<(PathBuf, PathBuf)>,
    process: Child,
}

/// Where `make versitygw` puts it.
fn program() -> io::Result<PathBuf> {
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cache")));
    let usual = cache.map(|cache| cache.join("millrace/bin/versitygw"));
    let program = env::var_os("MILLRACE_VERSITYGW").map(PathBuf::from).or(usual).unwrap_or_default();
    let missing = || io::Error::other(format!("{} is not there: run `make versitygw`", program.display()));
    if program.is_file() { Ok(program) } else { Err(missing()) }
}

impl Server {
    /// Starts one over `folder`, where its objects are also when it is started again.
    pub fn start(folder: &Path) -> io::Result<Self> {
        Self::start_with(folder, None)
    }

    /// Likewise, with TLS.
    pub fn start_with(folder: &Path, tls: Option<(PathBuf, PathBuf)>) -> io::Result<Self> {
        fs::create_dir_all(folder.join("buckets").join(BUCKET))?;
        let mut failed = io::Error::other("no port was tried");
        for _ in 0..PORTS_TRIED {
            let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
            match launch(folder, address, tls.as_ref()) {
                Ok(process) => return Ok(Self { folder: folder.to_owned(), address, tls, process }),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn endpoint(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// kill -9.
    pub fn kill(&mut self) -> io::Result<()> {
        self.process.kill()?;
        self.process.wait().map(drop)
    }

    /// At the same address, over the same objects.
    pub fn start_again(&mut self) -> io::Result<()> {
        self.process = launch(&self.folder, self.address, self.tls.as_ref())?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have been killed before.
        let _ = self.kill();
    }
}

/// Starts the process and waits until it listens.
fn launch(folder: &Path, address: SocketAddr, tls: Option<&(PathBuf, PathBuf)>) -> io::Result<Child> {
    let said = fs::File::create(folder.join("versitygw.log"))?;
    let mut command = Command::new(program()?);
    command.args(["--access", ACCESS_KEY, "--secret", SECRET_KEY, "--region", REGION, "--quiet", "--keep-alive"]);
    command.arg("--port").arg(address.to_string());
    if let Some((certificate, key)) = tls {
        command.arg("--cert").arg(certificate).arg("--key").arg(key);
    }
    command.arg("posix").arg(folder.join("buckets"));
    let mut process = command.stdin(Stdio::null()).stdout(said.try_clone()?).stderr(said).spawn()?;
    let started = Instant::now();
    loop {
        if let Some(status) = process.try_wait()? {
            let said = fs::read_to_string(folder.join("versitygw.log")).unwrap_or_default();
            return Err(io::Error::other(format!("versitygw ended with {status}: {said}")));
        }
        if TcpStream::connect_timeout(&address, Duration::from_millis(50)).is_ok() {
            return Ok(process);
        }
        if started.elapsed() > DEADLINE {
            process.kill()?;
            process.wait()?;
            return Err(io::Error::other(format!("versitygw did not listen within {DEADLINE:?}")));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
