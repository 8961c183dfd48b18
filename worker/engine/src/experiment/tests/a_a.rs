//! Experiments without a difference, looked at all the time.
//!
//! Users enter one after the other and come back: visits are Pareto distributed (shape 1.5, cut at 300), each shows six
//! impressions. Users' own click rates are log-normal (sigma 1, about 3 %), so impressions of one user are far from
//! independent; one click in ten becomes an order of log-normal value (sigma 1).

use super::random::Random;
use crate::experiment::{
    Settings, UserSums, VariantSums,
    ratio::RatioSums,
    report::{lift, log_ratio},
};

const SEEDS: u64 = 500;
/// Visits between two looks.
const LOOK_EVERY: usize = 25;

struct User {
    rate: f64,
    variant: usize,
    sums: UserSums,
}

/// What became of an experiment: did it ever say that there is a difference?
#[derive(Default)]
struct Alarms {
    ctr: bool,
    revenue_per_user: bool,
    revenue_per_basket: bool,
    /// With the variance of independent impressions.
    per_impression: bool,
    looks: u32,
}

fn visit(user: &mut User, factor: f64, random: &mut Random) {
    for _ in 0..6 {
        user.sums.impressions += 1;
        if random.unit() < user.rate * factor {
            user.sums.clicks += 1;
            if random.below(10) == 0 {
                user.sums.orders += 1;
                user.sums.revenue_micros += (20e6 * libm::exp(random.normal())) as i64;
            }
        }
    }
}

/// As if each impression were a user.
fn of_impressions(sums: &VariantSums) -> RatioSums {
    let (x, y) = (sums.clicks() as f64, sums.impressions() as f64);
    RatioSums { users: sums.impressions(), with_outcome: sums.clicks(), x, xx: x, y, yy: y, xy: x }
}

/// A simulated experiment.
#[derive(Clone, Copy)]
struct World {
    users: usize,
    /// Of the Pareto distribution of visits.
    shape: f64,
    /// One user in so many is in variant 1.
    one_in: u64,
    /// What click rates of variant 1 are multiplied by.
    factor: f64,
    settings: Settings,
}

fn experiment(seed: u64, world: &World) -> Alarms {
    let (mut random, settings) = (Random(seed), world.settings);
    let factor = world.factor;
    let mut users = Vec::with_capacity(world.users);
    let mut visits: Vec<(f64, u32)> = Vec::new();
    for n in 0..world.users {
        let rate = (0.03 * libm::exp(random.normal() - 0.5)).min(0.5);
        users.push(User { rate, variant: usize::from(random.below(world.one_in) == 0), sums: UserSums::default() });
        let enters = random.unit();
        let count = random.pareto(world.shape).min(300.0) as u32;
        visits.extend((0..count).map(|_| (enters + (1.0 - enters) * random.unit(), n as u32)));
    }
    visits.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut variants = [VariantSums::default(), VariantSums::default()];
    let mut alarms = Alarms::default();
    for (number, (_, n)) in visits.iter().enumerate() {
        let user = &mut users[*n as usize];
        let before = user.sums;
        visit(user, if user.variant == 1 { factor } else { 1.0 }, &mut random);
        variants[user.variant].replace(&before, &user.sums).unwrap();
        if number % LOOK_EVERY == 0 || number + 1 == visits.len() {
            let [a, b] = &variants;
            let excludes = |a: &RatioSums, b: &RatioSums| lift(&settings, a, b).is_some_and(|lift| lift.excludes_zero);
            alarms.looks += u32::from(log_ratio(&settings, &a.ctr(), &b.ctr()).is_some());
            alarms.ctr |= excludes(&a.ctr(), &b.ctr());
            alarms.revenue_per_user |= excludes(&a.revenue_per_user(), &b.revenue_per_user());
            alarms.revenue_per_basket |= excludes(&a.revenue_per_basket(), &b.revenue_per_basket());
            alarms.per_impression |= excludes(&of_impressions(a), &of_impressions(b));
        }
    }
    alarms
}

/// Experiments that ever alarm: by CTR, revenue per user, revenue per basket, and CTR with a per-impression variance.
fn ever(world: &World) -> [u64; 4] {
    let (mut counts, mut looks) = ([0; 4], 0);
    for seed in 0..SEEDS {
        let alarms = experiment(seed, world);
        let ever = [alarms.ctr, alarms.revenue_per_user, alarms.revenue_per_basket, alarms.per_impression];
        counts.iter_mut().zip(ever).for_each(|(count, ever)| *count += u64::from(ever));
        looks += u64::from(alarms.looks);
    }
    println!("of {SEEDS} experiments, {} looks each, alarm: {counts:?}", looks / SEEDS);
    assert!(looks > 100 * SEEDS, "few looks prove little: {looks}");
    counts
}

/// τ = .3 spends nearly all of the 5 % among so few users, and so tests the interval harder than the default τ does.
#[test]
fn at_most_one_in_twenty_ever_alarms_but_for_a_per_impression_variance() {
    let wide = Settings { tau: 0.3, ..Settings::default() };
    let usual = Settings::default();
    for (shape, one_in, settings) in [(1.5, 2, wide), (1.5, 10, wide), (1.1, 2, usual), (1.1, 10, usual)] {
        let [ctr, per_user, per_basket, per_impression] =
            ever(&World { users: 4_000, shape, one_in, factor: 1.0, settings });
        for (name, count) in [("ctr", ctr), ("per user", per_user), ("per basket", per_basket)] {
            assert!(20 * count <= SEEDS, "{name}: {count} of {SEEDS}");
        }
        assert!(5 * per_impression > SEEDS, "per impression: only {per_impression} of {SEEDS}");
    }
}

#[test]
fn a_lift_that_is_there_is_found() {
    let world = World { users: 4_000, shape: 1.5, one_in: 2, factor: 2.0, settings: Settings::default() };
    let found = (0..50).filter(|seed| experiment(10_000 + seed, &world).ctr).count();
    assert!(found >= 40, "{found} of 50");
}
