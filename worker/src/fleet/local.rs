//! Workers as processes of this machine: started, started again when they end, told to end by closing their input.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use millrace_lifecycle::placement::Member;

use super::{control::WorkerAt, member::drawn};

/// How the workers of a local fleet are started.
pub struct Recipe {
    /// The `millrace` binary.
    pub program: PathBuf,
    pub pipeline: PathBuf,
    /// Given to each as it is.
    pub arguments: Vec<String>,
}

/// A worker, or its place while there is none.
pub struct LocalWorker {
    pub shard: String,
    address: SocketAddr,
    life: Option<Life>,
    /// Lives so far.
    starts: u64,
    wait: Duration,
    start_at: Instant,
}

struct Life {
    child: Child,
    member: Member,
    since: Instant,
}

/// What has become of a worker since the last look.
#[derive(Debug)]
pub enum Change {
    Started { pid: u32 },
    Ended { status: ExitStatus, again_in: Duration },
    NotStarted { cause: io::Error, again_in: Duration },
}

/// A worker that ends soon after its start is started again after ever longer waits.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
const LASTED: Duration = Duration::from_secs(30);

impl LocalWorker {
    /// # Errors
    /// No port of 127.0.0.1 is free.
    pub fn new(number: usize, listen: Option<SocketAddr>) -> io::Result<Self> {
        let address = match listen {
            Some(address) => address,
            // Free just now; should somebody take it before the worker does, that says so.
            None => TcpListener::bind(("127.0.0.1", 0))?.local_addr()?,
        };
        let (starts, wait) = (0, FIRST_WAIT);
        Ok(Self { shard: format!("worker-{number}"), address, life: None, starts, wait, start_at: Instant::now() })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it is, while it is there. Each is a failure domain of its own.
    pub fn at(&self) -> Option<WorkerAt> {
        let member = self.life.as_ref()?.member.clone();
        let address = format!("http://{}", self.address);
        Some(WorkerAt { zone: member.shard.clone(), member, address, draining: false })
    }

    /// Sees whether it lives, and starts it if it is time.
    pub fn look(&mut self, recipe: &Recipe) -> Option<Change> {
        match &mut self.life {
            Some(life) => {
                let status = life.child.try_wait().ok().flatten()?;
                let lasted = life.since.elapsed() >= LASTED;
                self.life = None;
                Some(Change::Ended { status, again_in: self.again(lasted) })
            }
            None if Instant::now() < self.start_at => None,
            None => match self.start(recipe) {
                Ok(pid) => Some(Change::Started { pid }),
                Err(cause) => Some(Change::NotStarted { cause, again_in: self.again(false) }),
            },
        }
    }

    fn again(&mut self, lasted: bool) -> Duration {
        let wait = if lasted { FIRST_WAIT } else { self.wait };
        self.wait = (2 * wait).min(LONGEST_WAIT);
        self.start_at = Instant::now() + wait;
        wait
    }

    fn start(&mut self, recipe: &Recipe) -> io::Result<u32> {
        let member = Member::new(&self.shard, format!("{:016x}-{}", drawn(), self.starts));
        let mut command = Command::new(&recipe.program);
        command
            .arg("work")
            .arg(path(&recipe.pipeline))
            .args(["--shard", &member.shard, "--incarnation", &member.incarnation])
            .args(["--listen", &self.address.to_string(), "--leave-with-input"])
            .args(&recipe.arguments)
            .stdin(Stdio::piped());
        let child = command.spawn()?;
        let pid = child.id();
        self.starts += 1;
        self.life = Some(Life { child, member, since: Instant::now() });
        Ok(pid)
    }

    /// Tells it to save everything and end.
    pub fn leave(&mut self) {
        if let Some(life) = &mut self.life {
            drop(life.child.stdin.take());
        }
    }

    /// Has it ended?
    pub fn has_left(&mut self) -> bool {
        let is_there = self.life.as_mut().is_some_and(|life| matches!(life.child.try_wait(), Ok(None)));
        if !is_there {
            self.life = None;
        }
        !is_there
    }
}

impl Drop for LocalWorker {
    /// It saves everything and ends by itself, since its input is closed.
    fn drop(&mut self) {
        self.leave();
    }
}

/// A file that is not taken for an option.
fn path(path: &Path) -> PathBuf {
    if path.is_absolute() { path.to_owned() } else { Path::new(".").join(path) }
}
