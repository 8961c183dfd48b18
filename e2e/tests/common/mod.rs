//! Where things are, and how the binary is run.
#![allow(dead_code)]

pub mod fleet;
pub mod http;
pub mod kafka;
pub mod shop;
pub mod siege;

use std::{
    collections::BTreeMap,
    env, fs,
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread,
    time::{Duration, Instant},
};

use millrace_e2e::trace::{TraceConfig, write_trace};
use serde_json::Value;

/// Nothing here takes this long; a run that does has stopped.
pub const DEADLINE: Duration = Duration::from_secs(600);

/// The root of the checkout in which the test runs: a target folder may be shared by several.
pub fn root() -> PathBuf {
    PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).parent().unwrap().to_owned()
}

/// An example's pipeline.
pub fn example(name: &str) -> PathBuf {
    root().join("examples").join(name).join("pipeline.yaml")
}

/// Are the real data sets here? A newcomer has none: then their tests say so and pass. CI must have them.
pub fn has_datasets() -> bool {
    let folder = datasets();
    let there = folder.is_dir() || env::var_os("CI").is_some();
    if !there {
        println!("skipped: no data sets in {}; MILLRACE_DATASETS says where they are", folder.display());
    }
    there
}

fn datasets() -> PathBuf {
    env::var_os("MILLRACE_DATASETS").map_or_else(|| root().join("../shared/data"), PathBuf::from)
}

/// Real data, in the folder beside the project (or where `MILLRACE_DATASETS` says).
pub fn shared_data(name: &str) -> PathBuf {
    let path = datasets().join(name);
    assert!(path.exists(), "{} is missing: set MILLRACE_DATASETS to the folder of the data sets", path.display());
    path
}

/// The binary beside this test's own.
pub fn binary() -> PathBuf {
    let test = env::current_exe().unwrap();
    let found = test.ancestors().skip(1).map(|folder| folder.join("millrace")).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("no binary `millrace` above {}: cargo build --release -p millrace", test.display()))
}

/// A trace in a folder: its pipeline, and what an undisturbed run of it comes to.
pub fn trace(folder: &Path, events: u64) -> (PathBuf, Value) {
    write_trace(folder, &TraceConfig { events, users: events / 50, ..TraceConfig::default() }).unwrap();
    let pipeline = folder.join("pipeline.yaml");
    let undisturbed = result(&Run::new(&pipeline, &folder.join("undisturbed")).summary());
    (pipeline, undisturbed)
}

/// What a process said and how it ended.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    /// The JSON object on the last line, of a run that went well.
    pub fn summary(&self) -> Value {
        assert!(self.status.success(), "{}\n{}", self.status, self.stderr);
        let last = self.stdout.lines().last().unwrap_or_else(|| panic!("no summary; stderr: {}", self.stderr));
        serde_json::from_str(last).unwrap_or_else(|e| panic!("{e} in the last line: {last}"))
    }

    /// That it failed with a message, not a panic, which names all of these.
    pub fn refused(&self, names: &[&str]) {
        assert!(!self.status.success(), "it should have been refused: {}", self.stdout);
        assert!(self.status.code().is_some_and(|code| code != 101), "{}: {}", self.status, self.stderr);
        for name in names {
            assert!(self.stderr.contains(name), "`{name}` is not in: {}", self.stderr);
        }
    }
}

/// A process whose output is read as it comes.
pub struct Running {
    child: Child,
    /// Closed when stdout is, that is when the process ends.
    stdout: Receiver<String>,
    stderr: Option<thread::JoinHandle<String>>,
    said: String,
}

impl Running {
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (send, stdout) = channel();
        let (out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        thread::spawn(move || forward(BufReader::new(out), &send));
        let stderr = thread::spawn(move || {
            let mut bytes = Vec::new();
            err.read_to_end(&mut bytes).unwrap();
            String::from_utf8_lossy(&bytes).into_owned()
        });
        Self { child, stdout, stderr: Some(stderr), said: String::new() }
    }

    /// All that it has said so far, as far as it was waited for.
    pub fn said(&self) -> &str {
        &self.said
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it ended of itself within this time.
    pub fn ended_within(&mut self, time: Duration) -> bool {
        let until = Instant::now() + time;
        loop {
            match self.stdout.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => self.said.push_str(&line),
                Err(RecvTimeoutError::Timeout) => return false,
                Err(RecvTimeoutError::Disconnected) => return true,
            }
        }
    }

    /// Looks again and again until this holds; fails if the process ends before, or at the deadline.
    pub fn until(&mut self, what: &str, mut holds: impl FnMut() -> bool) {
        let started = Instant::now();
        while !holds() {
            assert!(!self.ended_within(Duration::from_millis(5)), "it ended before {what}: {}", self.said);
            assert!(started.elapsed() < DEADLINE, "not in time: {what}");
        }
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        let sent = Command::new("kill").args(["-TERM", &self.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// kill -9.
    pub fn kill(mut self) -> Ended {
        self.child.kill().unwrap();
        self.finish()
    }

    /// Waits for its end, up to the deadline.
    pub fn finish(mut self) -> Ended {
        if !self.ended_within(DEADLINE) {
            self.child.kill().unwrap();
            panic!("still running after {DEADLINE:?}: {}", self.said);
        }
        let status = self.child.wait().unwrap();
        Ended { status, stdout: std::mem::take(&mut self.said), stderr: self.stderr.take().unwrap().join().unwrap() }
    }

    /// Peak resident memory in KiB, while it lives.
    pub fn peak_kib(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
        line.split_whitespace().nth(1)?.parse().ok()
    }
}

/// A test that fails leaves nothing running.
impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended long ago.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn forward(mut from: impl BufRead, to: &Sender<String>) {
    let mut line = Vec::new();
    while from.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
        if to.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
            return;
        }
        line.clear();
    }
}

/// `millrace run`, as it is to be called.
#[derive(Clone, Debug)]
pub struct Run {
    pub pipeline: PathBuf,
    pub data: PathBuf,
    pub sources: BTreeMap<String, PathBuf>,
    pub arguments: Vec<String>,
}

impl Run {
    pub fn new(pipeline: &Path, data: &Path) -> Self {
        Self { pipeline: pipeline.into(), data: data.into(), sources: BTreeMap::new(), arguments: Vec::new() }
    }
    pub fn source(mut self, name: &str, path: &Path) -> Self {
        self.sources.insert(name.into(), path.into());
        self
    }
    /// Arguments added to the usual ones.
    pub fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|a| (*a).to_owned()));
        self
    }
    pub fn command(&self) -> Command {
        let mut command = Command::new(binary());
        command.arg("run").arg(&self.pipeline).arg("--until-end").arg("--data").arg(&self.data);
        command.args(["--output", "json"]);
        for (name, path) in &self.sources {
            command.arg("--source").arg(format!("{name}={}", path.display()));
        }
        command.args(&self.arguments);
        command
    }
    pub fn start(&self) -> Running {
        Running::start(&mut self.command())
    }
    pub fn finish(&self) -> Ended {
        self.start().finish()
    }
    pub fn summary(&self) -> Value {
        self.finish().summary()
    }
    /// Another command on the same folder: `millrace ARGUMENTS... --data DIR --output json`.
    pub fn other(&self, arguments: &[&str]) -> Ended {
        let mut process = Command::new(binary());
        process.args(arguments).arg("--data").arg(&self.data);
        Running::start(process.args(["--output", "json"])).finish()
    }
    /// A command on the pipeline's file alone: `millrace COMMAND PIPELINE --output json`.
    pub fn of_file(&self, command: &str) -> Ended {
        Running::start(Command::new(binary()).arg(command).arg(&self.pipeline).args(["--output", "json"])).finish()
    }
    /// Gives every example in the examples logs, one after the other: there may be millions.
    pub fn for_each_example(&self, mut take: impl FnMut(Value)) {
        let mut process = Command::new(binary());
        process.arg("examples").arg("--data").arg(&self.data).args(["--output", "json"]).stdout(Stdio::piped());
        let mut child = process.spawn().unwrap();
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            take(serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e} in {line}")));
        }
        assert!(child.wait().unwrap().success());
    }
}

/// What must be the same however a pipeline was run: counts, models, outcomes, digests.
pub fn result(summary: &Value) -> Value {
    let parts = ["events", "models", "outcomes", "digests"];
    parts.iter().map(|part| ((*part).to_owned(), summary[*part].clone())).collect::<serde_json::Map<_, _>>().into()
}

/// A count in the summary; where it is by reason, their sum.
pub fn count(summary: &Value, name: &str) -> u64 {
    match &summary["events"][name] {
        Value::Object(reasons) => reasons.values().filter_map(Value::as_u64).sum(),
        number => number.as_u64().unwrap_or_else(|| panic!("events.{name} is not in {summary}")),
    }
}

/// A figure of a model.
pub fn figure(summary: &Value, model: &str, name: &str) -> f64 {
    let value = &summary["models"][model][name];
    value.as_f64().unwrap_or_else(|| panic!("models.{model}.{name} is not a number in {summary}"))
}

/// All files below a folder.
pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap().filter_map(Result::ok) {
        let path = entry.path();
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files
}

/// Writes lines, gzipped where the name ends so.
pub fn write_lines(path: &Path, lines: impl IntoIterator<Item = impl AsRef<[u8]>>) {
    let file = std::io::BufWriter::new(fs::File::create(path).unwrap());
    let mut out: Box<dyn Write> = if path.extension().is_some_and(|e| e == "gz") {
        Box::new(flate2::write::GzEncoder::new(file, flate2::Compression::fast()))
    } else {
        Box::new(file)
    };
    for line in lines {
        out.write_all(line.as_ref()).unwrap();
        out.write_all(b"\n").unwrap();
    }
}
