//! What rankings are worth in expectation, computed from the truth: the ceiling and the floor of every experiment.

use crate::{
    rng::Rng,
    world::{ItemId, Sight, World, settings::*, truth::ranked},
};

/// Clicks per item seen, in expectation, of the average visit, if everybody was shown six items that are ...
#[derive(Clone, Copy, Debug, Default)]
pub struct Expected {
    /// drawn at random.
    pub random: f64,
    /// the same for everybody: the best ones on average over all visits.
    pub popular: f64,
    /// the best for this shopper as far as category, brand and price tell.
    pub allowed: f64,
    /// the best for this shopper.
    pub oracle: f64,
}

/// Over so many visits, drawn by activity.
pub fn expected(world: &World, visits: usize, seed: u64) -> Expected {
    let mut rng = Rng::new(seed);
    let shoppers: Vec<_> = (0..visits).map(|_| world.shoppers().next_visitor(&mut rng)).collect();
    let available: Vec<ItemId> = world.catalog().available().collect();
    let popular = popular(world, &shoppers, &available);
    let mut sums = Expected::default();
    for shopper in &shoppers {
        let random: Vec<ItemId> = (0..SLOTS).map(|_| available[rng.below(available.len())]).collect();
        let best = |sight| world.truth_ranking(*shopper, available.iter().copied(), sight);
        sums.random += ctr(world, *shopper, &random);
        sums.popular += ctr(world, *shopper, &popular);
        sums.allowed += ctr(world, *shopper, &best(Sight::Allowed));
        sums.oracle += ctr(world, *shopper, &best(Sight::Everything));
    }
    let n = visits as f64;
    Expected { random: sums.random / n, popular: sums.popular / n, allowed: sums.allowed / n, oracle: sums.oracle / n }
}

/// The best ranking for everybody, over these visits.
fn popular(world: &World, shoppers: &[u32], available: &[ItemId]) -> Vec<ItemId> {
    let over_all = |id: &ItemId| {
        let sum: f64 = shoppers.iter().map(|shopper| world.click_probability(*shopper, *id, 0, world.now())).sum();
        (sum, *id)
    };
    ranked(available.iter().map(over_all).collect(), SLOTS)
}

fn ctr(world: &World, shopper: u32, slate: &[ItemId]) -> f64 {
    let slots = || slate.iter().take(SLOTS).enumerate().zip(SEEN);
    let clicks: f64 =
        slots().map(|((at, id), seen)| seen * world.click_probability(shopper, *id, at, world.now())).sum();
    clicks / slots().map(|(_, seen)| seen).sum::<f64>()
}
