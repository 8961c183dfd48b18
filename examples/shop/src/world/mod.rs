//! The simulated shop: a discrete-event world in one thread, with a clock of its own.
//!
//! [`World::next`] gives what happens next, in order of time: an event or a catalog record on its way to the pipeline,
//! or a request for a decision. [`World::answer`] tells it what was answered. Nothing else goes in: the same settings
//! and the same answers give the same actions, bit for bit.

pub mod catalog;
pub mod settings;
pub mod shopper;
pub mod tally;
pub mod truth;
pub mod visit;
pub mod wire;

#[cfg(test)]
mod tests;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
};

pub use catalog::{Catalog, ItemId};
pub use settings::{Micros, Scenario, Settings};
pub use shopper::{ShopperId, Shoppers};
pub use tally::{Tallies, Tally};
pub use truth::{Sight, Truth};
pub use visit::Answer;

use crate::rng::Rng;
use settings::*;
use visit::Visit;
use wire::Event;

/// What happens next.
#[derive(Clone, Debug)]
pub struct Action {
    /// World time.
    pub at: Micros,
    pub what: Act,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    /// A record for the events source: JSON, or what should have been.
    Event(String),
    /// A record of the products table: JSON.
    Product(String),
    Ask(Ask),
}

/// A request for a decision.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    /// For [`World::answer`].
    pub token: u64,
    pub shopper: ShopperId,
    /// None: not logged in.
    pub customer: Option<String>,
    pub session: String,
    pub platform: &'static str,
    pub locale: &'static str,
    /// Agreed to personalization, as the shop itself knows; a request does not say it.
    pub consents: bool,
    /// What is available, the truly best first, at most [`TRUE_RANKING`]. For the oracle's arm; only of who is logged in.
    pub ranking: Vec<ItemId>,
}

enum Entry {
    Arrive,
    Ask(u64),
    Deliver(Event),
    Product(ItemId),
    Replace,
    StockOut,
    Restock(ItemId),
    Drift,
}

/// Ordered by time, then by when it was planned.
struct Planned {
    at: Micros,
    number: u64,
    entry: Entry,
}

impl PartialEq for Planned {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}
impl Eq for Planned {}
impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Planned {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

pub struct World {
    settings: Settings,
    truth: Truth,
    catalog: Catalog,
    shoppers: Shoppers,
    now: Micros,
    /// Microseconds since 1970 at world time 0. Later after [`World::postpone`].
    start: Micros,
    /// Tells this run's ids from those of others.
    run: i64,
    agenda: BinaryHeap<Reverse<Planned>>,
    planned: u64,
    /// Visits that wait for an answer, by token.
    waiting: BTreeMap<u64, Visit>,
    visits_begun: u64,
    events_made: u64,
    arrivals: Rng,
    changes: Rng,
    tallies: Tallies,
    first_decisions: Tallies,
}

const STREAM_ARRIVALS: u64 = 0xA221;
const STREAM_CHANGES: u64 = 0xC4A6;

impl World {
    pub fn new(settings: Settings) -> Self {
        let (seed, scenario) = (settings.seed, settings.scenario);
        let catalog = Catalog::new(seed, settings.items.max(SLOTS), scenario == Scenario::Position);
        let brands_of = catalog.brands_of().to_vec();
        let mut world = Self {
            truth: Truth::new(scenario),
            catalog,
            shoppers: Shoppers::new(seed, settings.users.max(1), scenario.has_tastes(), brands_of),
            now: 0,
            start: settings.start_micros,
            run: settings.start_micros / 1_000,
            agenda: BinaryHeap::new(),
            planned: 0,
            waiting: BTreeMap::new(),
            visits_begun: 0,
            events_made: 0,
            arrivals: Rng::of(seed, STREAM_ARRIVALS, 0),
            changes: Rng::of(seed, STREAM_CHANGES, 0),
            tallies: Tallies::default(),
            first_decisions: Tallies::default(),
            settings,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        for id in self.catalog.listed().to_vec() {
            self.plan(0, Entry::Product(id));
        }
        // The shop opens once its catalog has been sent.
        self.plan(SECOND, Entry::Arrive);
        for (entry, share) in [(Entry::Replace, REPLACED_A_DAY), (Entry::StockOut, OUT_OF_STOCK_A_DAY)] {
            let first = self.until_next_change(share);
            self.plan(first, entry);
        }
        if self.settings.scenario == Scenario::Drift {
            self.plan(self.settings.drift_at_micros, Entry::Drift);
        }
    }

    /// What happens next. Never ends.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Action {
        loop {
            let Some(Reverse(Planned { at, entry, .. })) = self.agenda.pop() else {
                // An arrival is always planned.
                self.plan(self.now, Entry::Arrive);
                continue;
            };
            self.now = at;
            if let Some(what) = self.happen(entry) {
                return Action { at, what };
            }
        }
    }

    /// World time of the next action, or of something before it.
    pub fn next_at(&self) -> Micros {
        self.agenda.peek().map_or(self.now, |Reverse(planned)| planned.at)
    }

    fn happen(&mut self, entry: Entry) -> Option<Act> {
        match entry {
            Entry::Arrive => {
                let gap = self.arrivals.exponential(SECOND as f64 * EVENTS_A_VISIT / self.settings.events_per_second);
                self.plan(self.now + gap as Micros, Entry::Arrive);
                self.arrive();
                None
            }
            Entry::Ask(token) => self.ask(token).map(Act::Ask),
            Entry::Deliver(event) => Some(Act::Event(event.json(self.start, self.run))),
            Entry::Product(id) => Some(self.product(id)),
            Entry::Replace => {
                let gap = self.until_next_change(REPLACED_A_DAY);
                self.plan(self.now + gap, Entry::Replace);
                let (old, new) = self.catalog.replace(&mut self.changes);
                self.plan(self.now, Entry::Product(new));
                Some(self.product(old))
            }
            Entry::StockOut => {
                let gap = self.until_next_change(OUT_OF_STOCK_A_DAY);
                self.plan(self.now + gap, Entry::StockOut);
                let id = self.catalog.any_listed(&mut self.changes);
                if !self.catalog.item(id).in_stock {
                    return None;
                }
                self.catalog.set_in_stock(id, false);
                let away = self.changes.exponential(OUT_OF_STOCK_MICROS) as Micros;
                self.plan(self.now + away, Entry::Restock(id));
                Some(self.product(id))
            }
            Entry::Restock(id) => {
                self.catalog.set_in_stock(id, true);
                self.catalog.item(id).listed.then(|| self.product(id))
            }
            Entry::Drift => {
                self.catalog.drift(DRIFT_ITEMS, &mut self.changes);
                self.shoppers.drift(DRIFT_SHOPPERS, &mut self.changes);
                None
            }
        }
    }

    fn ask(&self, token: u64) -> Option<Ask> {
        let head = self.waiting.get(&token)?.head;
        let shopper = self.shoppers.get(head.shopper);
        Some(Ask {
            token,
            shopper: head.shopper,
            customer: head.logged_in.then(|| wire::customer(head.shopper)),
            session: wire::session(self.run, head.visit),
            platform: PLATFORMS[usize::from(head.platform)],
            locale: LOCALES[usize::from(head.locale)],
            consents: head.logged_in && shopper.consent == shopper::Consent::Granted,
            ranking: match head.logged_in {
                true => self.truth_ranking(head.shopper, self.catalog.available(), Sight::Everything),
                false => Vec::new(),
            },
        })
    }

    fn product(&self, id: ItemId) -> Act {
        Act::Product(self.catalog.record(id, (self.start + self.now).div_euclid(1_000)))
    }

    fn plan(&mut self, at: Micros, entry: Entry) {
        self.planned += 1;
        self.agenda.push(Reverse(Planned { at, number: self.planned, entry }));
    }
    fn deliver_at(&mut self, at: Micros, event: Event) {
        self.plan(at, Entry::Deliver(event));
    }
    fn ask_at(&mut self, at: Micros, token: u64) {
        self.plan(at, Entry::Ask(token));
    }

    /// Until the next of changes that hit this share of the items in a day.
    fn until_next_change(&mut self, share: f64) -> Micros {
        let a_day = share * self.settings.items.max(SLOTS) as f64;
        self.changes.exponential(DAY_MICROS as f64 / a_day) as Micros
    }

    /// The true probability of a click on an item that is seen at this position (from 0) at world time `now`.
    /// 0 for a shopper or an item that does not exist.
    pub fn click_probability(&self, shopper: ShopperId, item: ItemId, position: usize, now: Micros) -> f64 {
        let Some(item) = self.catalog.get(item).filter(|_| (shopper as usize) < self.shoppers.len()) else {
            return 0.0;
        };
        let liking = self.truth.liking(self.shoppers.get(shopper), item, now, Sight::Everything);
        self.truth.probability(liking, position)
    }

    /// These items, the truly best for this shopper first, at most [`TRUE_RANKING`], as far as `sight` goes.
    pub fn truth_ranking(
        &self,
        shopper: ShopperId,
        candidates: impl Iterator<Item = ItemId>,
        sight: Sight,
    ) -> Vec<ItemId> {
        let shopper = self.shoppers.get(shopper);
        let liking = |id| (self.truth.liking(shopper, self.catalog.item(id), self.now, sight), id);
        truth::ranked(candidates.map(liking).collect(), TRUE_RANKING)
    }

    /// From now on, what happens is said to happen so much later: the world stood still.
    pub fn postpone(&mut self, micros: Micros) {
        self.start += micros;
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }
    pub fn now(&self) -> Micros {
        self.now
    }
    /// Microseconds since 1970 at world time 0.
    pub fn start(&self) -> Micros {
        self.start
    }
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }
    pub fn shoppers(&self) -> &Shoppers {
        &self.shoppers
    }
    pub fn truth(&self) -> &Truth {
        &self.truth
    }
    pub fn visits(&self) -> u64 {
        self.visits_begun
    }
    /// Of all visits so far, by variant.
    pub fn tallies(&self) -> &Tallies {
        &self.tallies
    }
    /// Of each shopper's first decision by a variant.
    pub fn first_decisions(&self) -> &Tallies {
        &self.first_decisions
    }
}
