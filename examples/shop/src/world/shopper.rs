//! Shoppers: how often they come, what they like, and what they agreed to.

use super::{catalog::ItemId, settings::*};
use crate::rng::Rng;

/// Shoppers are numbered in the order in which they came.
pub type ShopperId = u32;

/// Hidden: log-odds of a click that a shopper adds to an item's.
#[derive(Clone, Debug, PartialEq)]
pub struct Taste {
    pub category: [f32; CATEGORIES],
    pub brand: [f32; BRANDS],
    pub style: [f32; STYLES],
    /// The price level that is liked most.
    pub price: f32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consent {
    NotAsked,
    Granted,
    Refused,
    Withdrawn,
}

#[derive(Clone, Debug)]
pub struct Shopper {
    pub platform: u8,
    pub locale: u8,
    /// Of the schema in which the shopper's app writes.
    pub version: u8,
    pub consent: Consent,
    /// Would agree when asked.
    pub agrees: bool,
    /// None where tastes do not differ.
    pub taste: Option<Box<Taste>>,
    /// Got a decision of a variant before.
    pub decided: bool,
    /// What was bought, and until when it is not needed again.
    pub bought: Vec<(ItemId, Micros)>,
}

/// Everybody who ever came.
#[derive(Clone, Debug)]
pub struct Shoppers {
    seed: u64,
    tastes: bool,
    all: Vec<Shopper>,
    /// Ascending sums of activity.
    activity: Vec<f64>,
    of_platform: [[f32; CATEGORIES]; PLATFORMS.len()],
    of_locale: [[f32; BRANDS]; LOCALES.len()],
    /// Brands at home in each category.
    brands_of: Vec<Vec<u8>>,
    /// Raised by a drift.
    era: u64,
}

const STREAM_GROUPS: u64 = 0x6409;
const STREAM_SHOPPER: u64 = 0x5409;
const STREAM_TASTE: u64 = 0x7A57;

impl Shoppers {
    pub fn new(seed: u64, count: usize, tastes: bool, brands_of: Vec<Vec<u8>>) -> Self {
        let mut rng = Rng::of(seed, STREAM_GROUPS, 0);
        let mut shoppers = Self {
            seed,
            tastes,
            all: Vec::with_capacity(count),
            activity: Vec::with_capacity(count),
            of_platform: std::array::from_fn(|_| normals(&mut rng, TASTE_OF_PLATFORM)),
            of_locale: std::array::from_fn(|_| normals(&mut rng, TASTE_OF_LOCALE)),
            brands_of,
            era: 0,
        };
        (0..count).for_each(|_| {
            shoppers.come();
        });
        shoppers
    }

    /// Somebody new.
    pub fn come(&mut self) -> ShopperId {
        let id = self.all.len() as ShopperId;
        let mut rng = Rng::of(self.seed, STREAM_SHOPPER, u64::from(id));
        let (platform, locale) = (rng.weighted(&PLATFORM_SHARES) as u8, rng.weighted(&LOCALE_SHARES) as u8);
        let activity = rng.pareto(ACTIVITY_SHAPE).min(ACTIVITY_MAX);
        let version = match rng.unit() {
            x if x < VERSION_1 => 1,
            x if x < VERSION_1 + VERSION_UNKNOWN => 3,
            _ => 2,
        };
        let agrees = !rng.chance(REFUSES);
        let taste = self.tastes.then(|| Box::new(self.taste(id, platform, locale)));
        let shopper = Shopper {
            platform,
            locale,
            version,
            consent: Consent::NotAsked,
            agrees,
            taste,
            decided: false,
            bought: Vec::new(),
        };
        self.all.push(shopper);
        self.activity.push(self.activity.last().unwrap_or(&0.0) + activity);
        id
    }

    fn taste(&self, id: ShopperId, platform: u8, locale: u8) -> Taste {
        let mut rng = Rng::of(self.seed, STREAM_TASTE + self.era, u64::from(id));
        let mut category = normals(&mut rng, TASTE_SIGMA);
        add(&mut category, &self.of_platform[usize::from(platform)]);
        let mut brands: Vec<u8> = Vec::new();
        for _ in 0..=rng.below(FAVOURITE_CATEGORIES) {
            let favourite = rng.below(CATEGORIES);
            category[favourite] += between(&mut rng, FAVOURITE_CATEGORY);
            brands.extend(&self.brands_of[favourite]);
        }
        let mut brand = normals(&mut rng, TASTE_SIGMA);
        add(&mut brand, &self.of_locale[usize::from(locale)]);
        for _ in 0..=rng.below(FAVOURITE_BRANDS) {
            brand[usize::from(brands[rng.below(brands.len())])] += between(&mut rng, FAVOURITE_BRAND);
        }
        let mut style = [0.0; STYLES];
        for _ in 0..=rng.below(FAVOURITE_STYLES) {
            style[rng.below(STYLES)] += between(&mut rng, FAVOURITE_STYLE);
        }
        Taste { category, brand, style, price: rng.normal() as f32 }
    }

    pub fn len(&self) -> usize {
        self.all.len()
    }
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
    /// Of a number that [`Shoppers::come`] gave.
    pub fn get(&self, id: ShopperId) -> &Shopper {
        &self.all[id as usize]
    }
    pub fn get_mut(&mut self, id: ShopperId) -> &mut Shopper {
        &mut self.all[id as usize]
    }
    /// Who comes next, by activity.
    pub fn next_visitor(&self, rng: &mut Rng) -> ShopperId {
        rng.weighted(&self.activity) as ShopperId
    }
    /// Of all visits, those of this shopper.
    pub fn share_of_visits(&self, id: ShopperId) -> f64 {
        let (at, total) = (id as usize, self.activity.last().copied().unwrap_or(1.0));
        let before = if at == 0 { 0.0 } else { self.activity[at - 1] };
        (self.activity[at] - before) / total
    }

    /// Tastes change: this share of shoppers gets others.
    pub fn drift(&mut self, share: f64, rng: &mut Rng) {
        self.era += 1;
        for id in 0..self.all.len() {
            if rng.chance(share) {
                let (platform, locale) = (self.all[id].platform, self.all[id].locale);
                self.all[id].taste = self.tastes.then(|| Box::new(self.taste(id as ShopperId, platform, locale)));
            }
        }
    }
}

fn normals<const N: usize>(rng: &mut Rng, sigma: f64) -> [f32; N] {
    std::array::from_fn(|_| (sigma * rng.normal()) as f32)
}

fn between(rng: &mut Rng, (from, to): (f64, f64)) -> f32 {
    (from + (to - from) * rng.unit()) as f32
}

fn add<const N: usize>(to: &mut [f32; N], what: &[f32; N]) {
    to.iter_mut().zip(what).for_each(|(to, what)| *to += what);
}
