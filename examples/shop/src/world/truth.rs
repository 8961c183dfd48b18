//! What a shopper really thinks of an item: the one place from which clicks, choices and the oracle's rankings come.

use super::{
    catalog::{Item, ItemId},
    settings::*,
    shopper::{Shopper, Taste},
};

/// How much of a shopper's taste is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// All of it.
    Everything,
    /// Without the hidden style: the most that allowed attributes could ever tell.
    Allowed,
    /// Nothing of the shopper.
    ItemOnly,
}

impl Taste {
    /// What this shopper adds to the item's log-odds.
    #[inline]
    pub fn log_odds(&self, item: &Item, sight: Sight) -> f64 {
        let hidden = if sight == Sight::Everything { self.style[usize::from(item.style)] } else { 0.0 };
        let seen = self.category[usize::from(item.category)] + self.brand[usize::from(item.brand)];
        let apart = f64::from(item.price_level - self.price);
        f64::from(hidden + seen) - TASTE_PRICE * apart * apart
    }
}

/// The truth of one scenario.
#[derive(Clone, Copy, Debug)]
pub struct Truth {
    base: f64,
    attention: [f64; SLOTS],
}

impl Truth {
    pub fn new(scenario: Scenario) -> Self {
        match scenario {
            Scenario::Position => Self { base: BASE_LOG_ODDS_FLAT, attention: ATTENTION_STEEP },
            Scenario::Homogeneous => Self { base: BASE_LOG_ODDS_ALIKE, attention: ATTENTION },
            _ => Self { base: BASE_LOG_ODDS, attention: ATTENTION },
        }
    }

    /// Log-odds of a click in the first slot, besides the base.
    pub fn liking(&self, shopper: &Shopper, item: &Item, now: Micros, sight: Sight) -> f64 {
        let quality = f64::from(item.quality);
        let Some(taste) = shopper.taste.as_ref().filter(|_| sight != Sight::ItemOnly) else { return quality };
        let needless = shopper.bought.iter().any(|(id, until)| *id == item.id && now < *until);
        quality + taste.log_odds(item, sight) + if needless { BOUGHT_LOG_ODDS } else { 0.0 }
    }

    /// Of a click on what is seen at this position (from 0).
    pub fn probability(&self, liking: f64, position: usize) -> f64 {
        let odds = libm::exp(self.base + liking) * self.attention.get(position).copied().unwrap_or(0.0);
        odds / (1.0 + odds)
    }
}

/// The best first, at most `top`; of equal ones the lowest number first.
pub fn ranked(mut likings: Vec<(f64, ItemId)>, top: usize) -> Vec<ItemId> {
    let better = |a: &(f64, ItemId), b: &(f64, ItemId)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
    if likings.len() > top && top > 0 {
        likings.select_nth_unstable_by(top - 1, better);
        likings.truncate(top);
    }
    likings.sort_unstable_by(better);
    likings.truncate(top);
    likings.into_iter().map(|(_, id)| id).collect()
}
