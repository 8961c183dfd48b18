//! The command `shop`.

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use clap::{Args, Parser, Subcommand, ValueEnum};
use millrace_crds::scalar::Span;
use millrace_shop::{
    bench::{pipeline::PIPELINE, summary::Summary, table::Row, threads::in_order},
    drive::{Drive, DriveError, Stop, drive},
    expected::expected,
    world::{Scenario, Settings, World, settings::DAY_MICROS},
};
use serde::Serialize;

/// A simulated web shop.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Shoppers who talk to a worker over HTTP, in real time
    Drive(DriveArgs),
    /// What decisions learn, in virtual time: the whole pipeline against the shop, a line for each world, and what of it
    /// must hold
    Bench(BenchArgs),
    /// What rankings are worth, from the truth: clicks per item seen in percent, for each scenario
    Truth(TruthArgs),
}

#[derive(Args)]
struct WorldArgs {
    /// Shoppers at the beginning
    #[arg(long, default_value_t = Settings::default().users)]
    users: usize,
    /// Items that are sold at any time
    #[arg(long, default_value_t = Settings::default().items)]
    items: usize,
    /// The same seed and the same decisions: the same events
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Args)]
struct DriveArgs {
    #[command(flatten)]
    world: WorldArgs,
    /// Where the worker serves
    #[arg(long, default_value = "127.0.0.1:8080")]
    address: SocketAddr,
    /// Events a second
    #[arg(long, default_value_t = Settings::default().events_per_second)]
    rate: f64,
    /// taste, homogeneous, drift, cold or position
    #[arg(long, default_value_t = Scenario::Taste)]
    scenario: Scenario,
    /// For how long, such as 90s or 2m; until Ctrl-C if it is not given
    #[arg(long = "for")]
    duration: Option<Span>,
    /// Scenario drift: when tastes change; half-way, or after a day of the shop, if it is not given
    #[arg(long)]
    drift_after: Option<Span>,
    /// How long to wait for the worker to serve
    #[arg(long, default_value = "30s")]
    patience: Span,
    /// Measure freshness with so many probes a second: shoppers of their own, who count in the experiment
    #[arg(long)]
    probes: Option<f64>,
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Args)]
struct BenchArgs {
    /// Only these; all, if none is given
    #[arg(long)]
    scenario: Vec<Scenario>,
    /// Worlds of each scenario
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// The first world's seed; those of the others follow
    #[arg(long, default_value_t = 1)]
    first_seed: u64,
    /// Days of the shop; tastes change half-way (scenario drift)
    #[arg(long, default_value_t = 12.0)]
    days: f64,
    /// Worlds at a time. The results do not depend on it
    #[arg(long, default_value_t = 2)]
    threads: usize,
    #[arg(long, default_value_t = 5_000)]
    users: usize,
    #[arg(long, default_value_t = 500)]
    items: usize,
    /// Events a second of world time
    #[arg(long, default_value_t = Settings::default().events_per_second)]
    rate: f64,
    /// Another pipeline than the demo's
    #[arg(long)]
    pipeline: Option<PathBuf>,
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Args)]
struct TruthArgs {
    #[command(flatten)]
    world: WorldArgs,
    /// Visits over which it is averaged
    #[arg(long, default_value_t = 4_000)]
    visits: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Drive(args) => match run_drive(&args) {
            Ok(text) => {
                println!("{}", text.trim_end());
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("error: {error}");
                ExitCode::FAILURE
            }
        },
        Command::Bench(args) => match bench(&args) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: {error}");
                ExitCode::FAILURE
            }
        },
        Command::Truth(args) => {
            truth(&args);
            ExitCode::SUCCESS
        }
    }
}

fn run_drive(args: &DriveArgs) -> Result<String, DriveError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let half = args.duration.map_or(DAY_MICROS, |span| span.as_micros() / 2);
    let plan = Drive {
        address: args.address,
        settings: Settings {
            scenario: args.scenario,
            seed: args.world.seed,
            users: args.world.users,
            items: args.world.items,
            events_per_second: args.rate,
            drift_at_micros: args.drift_after.map_or(half, Span::as_micros),
            start_micros: i64::try_from(now.as_micros()).unwrap_or(i64::MAX),
        },
        duration: args.duration.map(duration),
        patience: duration(args.patience),
        probes_per_second: args.probes.filter(|rate| *rate > 0.0),
    };
    let stop = Stop::default();
    stop_at_signal(stop.clone())?;
    let report = drive(&plan, &stop)?;
    Ok(match args.output {
        Output::Text => report.to_string(),
        Output::Json => serde_json::to_string(&report).map_err(std::io::Error::from)?,
    })
}

fn duration(span: Span) -> Duration {
    Duration::from_micros(span.as_micros().unsigned_abs())
}

/// Ctrl-C closes the shop, and it still says what it did.
fn stop_at_signal(stop: Stop) -> Result<(), DriveError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    thread::Builder::new().name("signal".into()).spawn(move || {
        if runtime.block_on(tokio::signal::ctrl_c()).is_ok() {
            stop.set();
        }
    })?;
    Ok(())
}

fn bench(args: &BenchArgs) -> Result<(), String> {
    let scenarios = if args.scenario.is_empty() { Scenario::ALL.to_vec() } else { args.scenario.clone() };
    let spec = match &args.pipeline {
        Some(path) => std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?,
        None => PIPELINE.to_owned(),
    };
    let drift_at_micros = (args.days / 2.0 * DAY_MICROS as f64) as i64;
    for scenario in scenarios {
        let settings = |seed| Settings {
            scenario,
            seed,
            users: args.users,
            items: args.items,
            events_per_second: args.rate,
            drift_at_micros,
            ..Settings::default()
        };
        let worlds: Vec<Settings> = (args.first_seed..args.first_seed + args.seeds).map(settings).collect();
        if args.output == Output::Text {
            println!("{}", Row::HEAD);
        }
        let mut rows = Vec::with_capacity(worlds.len());
        let work = |world: &Settings| Row::of(world.clone(), &spec, args.days);
        in_order(&worlds, args.threads, work, |row| {
            if let Ok(row) = &row {
                print_as(args.output, row, |row| row.to_string());
            }
            rows.push(row);
        });
        let rows = rows.into_iter().collect::<Result<Vec<Row>, String>>()?;
        print_as(args.output, &Summary::of(scenario, &rows), |summary| format!("{}\n", summary.text()));
    }
    Ok(())
}

fn print_as<T: Serialize>(output: Output, what: &T, text: impl Fn(&T) -> String) {
    match output {
        Output::Text => println!("{}", text(what)),
        // Numbers and texts only: it cannot fail.
        Output::Json => println!("{}", serde_json::to_string(what).unwrap_or_default()),
    }
}

fn truth(args: &TruthArgs) {
    let WorldArgs { users, items, seed } = args.world;
    println!("{:<12} {:>8} {:>8} {:>8} {:>8}", "scenario", "random", "popular", "allowed", "oracle");
    for scenario in Scenario::ALL {
        let world = World::new(Settings { scenario, seed, users, items, ..Settings::default() });
        let e = expected(&world, args.visits, seed);
        let percent = [e.random, e.popular, e.allowed, e.oracle].map(|x| format!("{:8.2}", x * 100.0));
        println!("{:<12} {}", scenario.name(), percent.join(" "));
    }
}
