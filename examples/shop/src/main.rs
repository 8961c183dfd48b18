//! The command `shop`.

use clap::{Parser, Subcommand};
use millrace_shop::{
    expected::expected,
    world::{Scenario, Settings, World},
};

/// A simulated web shop.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// What rankings are worth, from the truth: clicks per item seen in percent, for each scenario
    Truth {
        #[arg(long, default_value_t = 20_000)]
        users: usize,
        #[arg(long, default_value_t = 500)]
        items: usize,
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Visits over which it is averaged
        #[arg(long, default_value_t = 4_000)]
        visits: usize,
    },
}

fn main() {
    match Cli::parse().command {
        Command::Truth { users, items, seed, visits } => truth(users, items, seed, visits),
    }
}

fn truth(users: usize, items: usize, seed: u64, visits: usize) {
    println!("{:<12} {:>8} {:>8} {:>8} {:>8}", "scenario", "random", "popular", "allowed", "oracle");
    for scenario in Scenario::ALL {
        let world = World::new(Settings { scenario, seed, users, items, ..Settings::default() });
        let e = expected(&world, visits, seed);
        let percent = [e.random, e.popular, e.allowed, e.oracle].map(|x| format!("{:8.2}", x * 100.0));
        println!("{:<12} {}", scenario.name(), percent.join(" "));
    }
}
