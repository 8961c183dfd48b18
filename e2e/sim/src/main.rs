//! `sim --seeds 1000`, `sim --seed 42 --trace`.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use clap::Parser;
use millrace_sim::{Ended, ground::Ground, minimize, scenario::Scenario, simulate};

/// Runs a whole fleet in one thread, with crashes and lies, and checks what must never happen.
#[derive(Parser)]
#[command(
    after_help = "Examples:\n  sim --seeds 1000\n  sim --seed 42 --trace\n  sim --scenario e2e/sim/scenarios/told-otherwise-while-it-claims.txt --trace"
)]
struct Cli {
    /// So many worlds.
    #[arg(long, default_value_t = 500)]
    seeds: u64,
    /// The first one's seed.
    #[arg(long, default_value_t = 1)]
    first_seed: u64,
    /// Only this one.
    #[arg(long)]
    seed: Option<u64>,
    /// Only the world that this file tells of.
    #[arg(long, conflicts_with = "seed")]
    scenario: Option<PathBuf>,
    /// Print everything that happens.
    #[arg(long)]
    trace: bool,
    /// For each known bug, worlds until a check catches it.
    #[cfg(feature = "planted")]
    #[arg(long)]
    planted: bool,
    /// Only bugs whose name begins with this.
    #[cfg(feature = "planted")]
    #[arg(long, default_value = "")]
    bug: String,
    /// Worlds at a time.
    #[arg(long, default_value_t = 2)]
    threads: u64,
}

#[derive(Default)]
struct Sums {
    worlds: AtomicU64,
    task_crashes: AtomicU64,
    moves: AtomicU64,
    checkpoints: AtomicU64,
    ticks: AtomicU64,
    violations: AtomicU64,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let ground = match Ground::new() {
        Ok(ground) => ground,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    #[cfg(feature = "planted")]
    if cli.planted {
        return millrace_sim::planting::run(&ground, &cli.bug, cli.first_seed, cli.seeds, cli.threads);
    }
    let kept = match cli.scenario.as_deref().map(kept).transpose() {
        Ok(kept) => kept,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    let (first, worlds) =
        cli.seed.or(kept.as_ref().map(|kept| kept.seed)).map_or((cli.first_seed, cli.seeds), |seed| (seed, 1));
    let (next, sums, began) = (AtomicU64::new(first), Sums::default(), Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..cli.threads.clamp(1, worlds.max(1)) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + worlds {
                        return;
                    }
                    let tell: Option<fn(&str)> = if cli.trace { Some(|line| println!("{line}")) } else { None };
                    let scenario = kept.clone().unwrap_or_else(|| Scenario::drawn(seed));
                    match simulate(&ground, &scenario, tell) {
                        Ok(ended) => sums.add(&ground, &scenario, &ended),
                        Err(error) => {
                            sums.violations.fetch_add(1, Ordering::Relaxed);
                            eprintln!("error: {error}");
                        }
                    }
                }
            });
        }
    });
    sums.tell(began.elapsed().as_secs_f64())
}

fn kept(path: &Path) -> Result<Scenario, String> {
    let text = std::fs::read_to_string(path).map_err(|cause| format!("{}: {cause}", path.display()))?;
    Scenario::from_text(&text).map_err(|cause| format!("{}: {cause}", path.display()))
}

impl Sums {
    fn add(&self, ground: &Ground, scenario: &Scenario, ended: &Ended) {
        let (Ok(report) | Err((_, report))) = ended;
        self.worlds.fetch_add(1, Ordering::Relaxed);
        self.task_crashes.fetch_add(report.task_crashes, Ordering::Relaxed);
        self.moves.fetch_add(report.moves, Ordering::Relaxed);
        self.checkpoints.fetch_add(report.checkpoints, Ordering::Relaxed);
        self.ticks.fetch_add(report.ticks, Ordering::Relaxed);
        if let Err((violation, report)) = ended {
            self.violations.fetch_add(1, Ordering::Relaxed);
            let (seed, least) = (scenario.seed, minimize(ground, scenario, violation.check));
            println!("seed {seed}, tick {}: {}: {}", report.ticks, violation.check, violation.what);
            println!("  again, with all that happens: make sim SEED={seed} TRACE=1");
            println!("  the smallest like it, to be kept in e2e/sim/scenarios:\n{}", least.to_text());
        }
    }

    fn tell(&self, seconds: f64) -> ExitCode {
        let of = |sum: &AtomicU64| sum.load(Ordering::Relaxed);
        let (crashes, hours) = (of(&self.task_crashes), of(&self.ticks) as f64 / 3_600_000.0);
        println!(
            "{} checkpoints compared with the fold of their log; {hours:.2} h simulated in {seconds:.1} s, {:.0} task crashes a second",
            of(&self.checkpoints),
            crashes as f64 / seconds.max(1e-9)
        );
        let violations = of(&self.violations);
        println!(
            "sim: {} seeds, {crashes} task crashes, {} moves, {violations} violations",
            of(&self.worlds),
            of(&self.moves)
        );
        if violations == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
