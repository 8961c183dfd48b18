//! The command line.

pub(crate) mod decide;
mod experiment;
mod explain;
mod fleet;
mod hosting;
mod inspect;
mod ope;
mod replay;
mod run;
mod server;
mod store;
mod validate;
mod work;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::{
    data,
    evaluate::EvaluateError,
    fleet::{control::ControlError, member::JoinError},
    host::HostError,
    log,
    pipeline::PipelineError,
    serve,
    source::partitions::PartitionsError,
    store::{checkpoint::LineageError, s3},
};

/// Real-time personalization: reads interaction events, keeps user profiles, trains models online.
#[derive(Parser)]
#[command(name = "millrace", version, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    /// How to print results: text for people, json for programs.
    #[arg(long, global = true, value_enum, default_value_t = Output::Text)]
    output: Output,
}

const EXIT_CODES: &str = "Exit codes: 0 done; 1 failed while running; 2 wrong arguments or an invalid pipeline; \
3 a check found a difference or damage.\nLogs go to standard error; RUST_LOG=debug shows more.";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Text,
    Json,
}

#[derive(Subcommand)]
enum Command {
    /// Run a pipeline in this process.
    #[command(after_help = "Examples:\n  millrace run pipeline.yaml --until-end\n  \
        millrace run pipeline.yaml --until-end --output json --source events=/data/2024-05\n  \
        millrace run pipeline.yaml --max-rate 500 --metrics-address 127.0.0.1:9090\n\n\
        Without --until-end, files are followed as they grow; files that appear later are read from the next start on.\n\
        Ctrl-C or SIGTERM saves everything, prints the summary and stops; the next run goes on there, also after kill -9.")]
    Run(run::RunArgs),
    /// Run a pipeline as a fleet of worker processes on this machine, for development and tests.
    ///
    /// Places tasks on the workers, starts those again that end, and tells each decision as it happens.
    #[command(
        after_help = "The pipeline's logs are topics (spec.kafka), its checkpoints in a bucket (spec.checkpoints.s3).\n\n\
        Examples:\n  millrace fleet pipeline.yaml --workers 3\n  millrace fleet pipeline.yaml --workers 5 --listen 127.0.0.1:8080 --output json\n\n\
        Ctrl-C or SIGTERM has all workers save everything and end. Whatever is killed is taken over and started again."
    )]
    Fleet(fleet::FleetArgs),
    /// Run one worker of a fleet: it has the tasks that it is told to have.
    #[command(
        after_help = "Told by `PUT /v1/orders`, or by --orders; `GET /v1/tasks` says what became of it. Answers requests for any user,\n\
        wherever the profile is.\n\nExample:\n  millrace work pipeline.yaml --shard shop-0 --listen 127.0.0.1:8080\n\n\
        SIGTERM saves and releases everything; kill -9 loses nothing."
    )]
    Work(work::WorkArgs),
    /// Check a pipeline's file: every problem with its line, path, value and what is allowed.
    ///
    /// First the shape (fields, types, ranges), then, if that is right, names and combinations.
    #[command(
        after_help = "Exit code 2: the pipeline is not valid.\n\nExample:\n  millrace validate pipeline.yaml --output json"
    )]
    Validate {
        /// The pipeline's YAML file.
        pipeline: PathBuf,
    },
    /// Say in words what a pipeline reads, drops, keeps, joins and learns from.
    #[command(after_help = "Example:\n  millrace explain examples/eshop-clickstream/pipeline.yaml")]
    Explain {
        /// The pipeline's YAML file.
        pipeline: PathBuf,
    },
    /// Rebuild profiles and models from the log and compare them with the checkpoints.
    #[command(
        after_help = "Not while a run has the folder. Exit code 3: something differs.\n\nExamples:\n  millrace replay --data millrace-data\n  \
        millrace replay --as-served        the loss that serving would have had"
    )]
    Replay(replay::ReplayArgs),
    /// Look at users' profiles, also while a run is going on.
    Profile {
        #[command(subcommand)]
        command: inspect::ProfileCommand,
    },
    /// Look at checkpoints.
    Checkpoints {
        #[command(subcommand)]
        command: inspect::CheckpointsCommand,
    },
    /// Look at the object store of checkpoints.
    Store {
        #[command(subcommand)]
        command: store::StoreCommand,
    },
    /// List what could not be used, and why: one a line, redacted.
    #[command(
        after_help = "Not while a run has the folder.\n\nExample:\n  millrace dead-letters --limit 20 --reason malformed"
    )]
    DeadLetters(inspect::DeadLettersArgs),
    /// List the training examples in the log, in the order in which they are learned.
    #[command(
        after_help = "Not while a run has the folder.\n\nExample:\n  millrace examples --model ctr --limit 3 --output json"
    )]
    Examples(inspect::ExamplesArgs),
    /// Look at experiments.
    Experiment {
        #[command(subcommand)]
        command: experiment::ExperimentCommand,
    },
    /// Estimate what another policy would have earned, from logged decisions with propensities.
    #[command(
        after_help = "Exit code 3: the effective sample size is too small to believe any value.\n\nExamples:\n  \
        millrace ope --file log.csv.gz --target uniform\n  millrace ope --file log.csv.gz --target policy.csv --output json"
    )]
    Ope(ope::OpeArgs),
    /// Ask a running worker what it would show to a user.
    #[command(after_help = "The decision is one: it counts where impressions are decisions.\n\nExamples:\n  \
        millrace decide u-1234 --placement home\n  millrace decide --placement home --explain --output json")]
    Decide(decide::DecideArgs),
    /// Print what a shell needs to complete this command's words.
    #[command(
        after_help = "Examples:\n  millrace completion bash > ~/.local/share/bash-completion/completions/millrace\n  \
        millrace completion zsh > \"${fpath[1]}/_millrace\""
    )]
    Completion { shell: Shell },
}

/// Where a pipeline's log and checkpoints are.
#[derive(Args, Clone)]
pub struct DataArgs {
    /// Folder of the log and the checkpoints.
    #[arg(long, default_value = "millrace-data", env = "MILLRACE_DATA", value_name = "DIR")]
    data: PathBuf,
    /// The pipeline's file, if it is no longer where it was at the last run.
    #[arg(long, value_name = "FILE")]
    pipeline: Option<PathBuf>,
}

impl DataArgs {
    fn pipeline(&self) -> Result<PathBuf, CliError> {
        match &self.pipeline {
            Some(path) => Ok(path.clone()),
            None => Ok(data::last_pipeline(&self.data)?),
        }
    }
}

/// `NAME=PATH`
fn parse_source(text: &str) -> Result<(String, PathBuf), String> {
    let (name, path) = text.split_once('=').ok_or("expected NAME=PATH, such as events=/data/events")?;
    Ok((name.to_owned(), PathBuf::from(path)))
}

fn sources(list: &[(String, PathBuf)]) -> BTreeMap<String, PathBuf> {
    list.iter().cloned().collect()
}

/// Why a command did not do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    #[error(transparent)]
    Partitions(#[from] PartitionsError),
    #[error(transparent)]
    Data(#[from] data::DataError),
    #[error(transparent)]
    Log(#[from] log::OpenError),
    #[error(transparent)]
    Read(#[from] log::ReadError),
    #[error(transparent)]
    Lineage(#[from] LineageError),
    #[error(transparent)]
    Store(#[from] s3::OpenError),
    #[error("{} keeps its checkpoints in its data folder: spec.checkpoints.s3 names no bucket", path.display())]
    NoStore { path: PathBuf },
    #[error(transparent)]
    Host(#[from] HostError),
    #[error(transparent)]
    Evaluate(#[from] EvaluateError),
    #[error(transparent)]
    Serve(#[from] serve::SetupError),
    #[error(transparent)]
    Client(#[from] serve::client::ClientError),
    #[error(transparent)]
    Join(#[from] JoinError),
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error(transparent)]
    Posted(#[from] crate::source::http::StartError),
    #[error("{0}")]
    Other(String),
    /// What was found is printed already; only the exit code is left to say.
    #[error("see above")]
    Printed { exit_code: u8 },
}

impl CliError {
    /// A check found a difference or damage.
    const FOUND: CliError = CliError::Printed { exit_code: 3 };

    fn exit_code(&self) -> u8 {
        match self {
            CliError::Pipeline(_) | CliError::Partitions(_) | CliError::NoStore { .. } => 2,
            CliError::Evaluate(e) if e.is_usage() => 2,
            CliError::Printed { exit_code } => *exit_code,
            _ => 1,
        }
    }
}

impl Cli {
    /// Runs the command; errors go to standard error, as text or as one JSON object.
    pub fn run(self) -> ExitCode {
        let output = self.output;
        match self.dispatch() {
            Ok(()) => ExitCode::SUCCESS,
            Err(CliError::Printed { exit_code }) => ExitCode::from(exit_code),
            Err(error) => {
                let code = error.exit_code();
                match output {
                    Output::Text => eprintln!("error: {error}"),
                    Output::Json => {
                        let json =
                            serde_json::json!({"formatVersion": 1, "error": error.to_string(), "exitCode": code});
                        eprintln!("{json}");
                    }
                }
                ExitCode::from(code)
            }
        }
    }

    fn dispatch(self) -> Result<(), CliError> {
        let output = self.output;
        match self.command {
            Command::Run(args) => run::run(&args, output),
            Command::Fleet(args) => fleet::fleet(&args, output),
            Command::Work(args) => work::work(&args, output),
            Command::Validate { pipeline } => validate::validate(&pipeline, output),
            Command::Explain { pipeline } => explain::explain(&pipeline, output),
            Command::Replay(args) => replay::replay(&args, output),
            Command::Profile { command } => inspect::profile(&command, output),
            Command::Checkpoints { command } => inspect::checkpoints(&command, output),
            Command::Store { command } => store::store(&command, output),
            Command::DeadLetters(args) => inspect::dead_letters(&args, output),
            Command::Examples(args) => inspect::examples(&args, output),
            Command::Experiment { command } => experiment::experiment(&command, output),
            Command::Ope(args) => ope::ope(&args, output),
            Command::Decide(args) => decide::decide(&args, output),
            Command::Completion { shell } => completion(shell),
        }
    }
}

fn completion(shell: Shell) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "millrace", &mut script);
    print(String::from_utf8_lossy(&script));
    Ok(())
}

/// Prints one result on standard output. A reader that went away is no error; a result that cannot be written is.
fn print(text: impl AsRef<str>) {
    use std::io::{ErrorKind, Write};
    let mut out = std::io::stdout().lock();
    let written =
        out.write_all(text.as_ref().as_bytes()).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush());
    if let Err(error) = written
        && error.kind() != ErrorKind::BrokenPipe
    {
        tracing::error!(%error, "the result could not be written to standard output");
        std::process::exit(1);
    }
}

fn display(path: &Path) -> String {
    path.display().to_string()
}
