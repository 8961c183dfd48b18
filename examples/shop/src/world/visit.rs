//! What somebody does in a visit, once they see the answer: look, click, browse by taste, buy.

use std::sync::Arc;

use super::{
    World,
    catalog::ItemId,
    settings::*,
    shopper::{Consent, Shopper},
    tally::Tally,
    truth::Sight,
    wire::{Event, Fault, Head, What},
};
use crate::rng::Rng;

/// A visit that waits for its decision.
#[derive(Debug)]
pub(super) struct Visit {
    pub head: Head,
    pub rng: Rng,
}

/// What the recommender answered. Items that the shop does not know are not shown.
#[derive(Clone, Copy, Debug, Default)]
pub struct Answer<'a> {
    pub decision: Option<&'a str>,
    pub variant: Option<&'a str>,
    pub items: &'a [ItemId],
}

/// Tallies of visits whose answer named no variant, and of those that got no answer.
pub const NO_VARIANT: &str = "default";
pub const NO_ANSWER: &str = "none";

const STREAM_VISIT: u64 = 0x7151;
const PAGE_MICROS: Micros = 20_000;
const RENDER_MICROS: Micros = 30_000;
const NETWORK_MICROS: f64 = 5_000.0;

fn micros(seconds: f64) -> Micros {
    (seconds * SECOND as f64) as Micros
}

impl World {
    /// Somebody opens the shop's home page.
    pub(super) fn arrive(&mut self) {
        let number = self.visits_begun;
        self.visits_begun += 1;
        let mut rng = Rng::of(self.settings.seed, STREAM_VISIT, number);
        let is_new = self.settings.scenario == Scenario::Cold && rng.chance(NEWCOMERS);
        let id = if is_new { self.shoppers.come() } else { self.shoppers.next_visitor(&mut rng) };
        let (logged_in, bot) = (!rng.chance(NOT_LOGGED_IN), rng.chance(BOTS));
        let shopper = self.shoppers.get_mut(id);
        let head = Head {
            shopper: id,
            visit: number,
            platform: shopper.platform,
            locale: shopper.locale,
            version: shopper.version,
            logged_in: logged_in && !bot,
            bot,
        };
        if bot {
            for i in 0..BOT_VIEWS {
                let item = self.catalog.met_by_chance(&mut rng);
                self.send(&mut rng, head, self.now + i as Micros * micros(0.05), What::View(item));
            }
            return;
        }
        if logged_in {
            let said = match shopper.consent {
                Consent::NotAsked => Some(shopper.agrees),
                Consent::Granted => rng.chance(WITHDRAWS_IN_A_VISIT).then_some(false),
                Consent::Withdrawn => rng.chance(AGREES_AGAIN_IN_A_VISIT).then_some(true),
                Consent::Refused => None,
            };
            shopper.consent = match (said, shopper.consent) {
                (Some(true), _) => Consent::Granted,
                (Some(false), Consent::Granted) => Consent::Withdrawn,
                (Some(false), _) => Consent::Refused,
                (None, before) => before,
            };
            self.send(&mut rng, head, self.now, What::Login);
            if let Some(agrees) = said {
                self.send(&mut rng, head, self.now + 1_000, What::Consent(agrees));
            }
        }
        self.ask_at(self.now + PAGE_MICROS, number);
        self.waiting.insert(number, Visit { head, rng });
    }

    /// The answer to the request of this token has arrived at world time `at` (not before the request was made), or
    /// there is none: then the shop shows its best sellers. Tokens that do not wait for an answer are ignored.
    pub fn answer(&mut self, token: u64, at: Micros, answer: Option<&Answer<'_>>) {
        let Some(Visit { head, mut rng }) = self.waiting.remove(&token) else { return };
        let mut shown: Vec<ItemId> = match answer {
            Some(answer) => answer.items.iter().copied().filter(|id| self.catalog.get(*id).is_some()).collect(),
            None => self.catalog.available().take(SLOTS).collect(),
        };
        let (depth, at) = (rng.unit(), at.max(self.now) + RENDER_MICROS);
        shown.truncate(SEEN.iter().filter(|share| depth < **share).count());
        let clicked = self.look(head, &mut rng, at, &shown, answer);
        let decision: Option<Arc<str>> = answer.and_then(|a| a.decision).map(Arc::from);
        if !shown.is_empty() {
            self.send(&mut rng, head, at, What::Impression { decision: decision.clone(), shown });
        }
        self.browse(head, rng, at, &clicked, decision);
    }

    /// Which of the items that are seen get a click; counted.
    fn look(
        &mut self,
        head: Head,
        rng: &mut Rng,
        at: Micros,
        shown: &[ItemId],
        answer: Option<&Answer<'_>>,
    ) -> Vec<ItemId> {
        let mut tally = Tally { decisions: 1, exposed: shown.len() as u64, ..Tally::default() };
        let mut clicked = Vec::new();
        for (position, item) in shown.iter().enumerate() {
            let probability = self.click_probability(head.shopper, *item, position, at);
            tally.expected_clicks += probability;
            if rng.chance(probability) {
                clicked.push(*item);
            }
        }
        tally.clicks = clicked.len() as u64;
        let variant = answer.and_then(|a| a.variant);
        let name = variant.unwrap_or(if answer.is_some() { NO_VARIANT } else { NO_ANSWER });
        self.tallies.add(name, &tally);
        let shopper = self.shoppers.get_mut(head.shopper);
        if variant.is_some() && !shopper.decided {
            shopper.decided = true;
            self.first_decisions.add(name, &tally);
        }
        clicked
    }

    /// The rest of the visit: pages of items that were clicked, then of items found otherwise; carts; an order.
    fn browse(&mut self, head: Head, mut rng: Rng, from: Micros, clicked: &[ItemId], decision: Option<Arc<str>>) {
        let rng = &mut rng;
        let (mut at, mut cart) = (from, Vec::new());
        for item in clicked {
            let delay = micros(rng.log_normal(CLICK_DELAY_MEDIAN_SECONDS, CLICK_DELAY_SIGMA));
            let click = from + delay;
            self.send(rng, head, click, What::Click { decision: decision.clone(), item: *item });
            self.send(rng, head, click + RENDER_MICROS, What::View(*item));
            at = at.max(click + RENDER_MICROS);
            if rng.chance(CART_AFTER_CLICK) {
                cart.push((*item, click + RENDER_MICROS));
            }
        }
        for _ in 0..rng.geometric(OWN_VIEWS) {
            at += micros(rng.exponential(BETWEEN_VIEWS_SECONDS));
            let Some(item) = self.choose(head, rng, at) else { continue };
            self.send(rng, head, at, What::View(item));
            if rng.chance(CART_AFTER_VIEW) {
                cart.push((item, at));
            }
        }
        let mut lines: Vec<(ItemId, u32)> = Vec::new();
        for (item, viewed) in cart {
            let added = viewed + micros(rng.exponential(VIEW_TO_CART_SECONDS));
            at = at.max(added);
            self.send(rng, head, added, What::CartAdd(item));
            if !lines.iter().any(|(id, _)| *id == item) {
                lines.push((item, self.catalog.item(item).price_cents));
            }
        }
        // Who is not logged in cannot order.
        if head.logged_in && !lines.is_empty() && rng.chance(ORDER_AFTER_CART) {
            at += micros(rng.exponential(CART_TO_ORDER_SECONDS));
            let until = at + BOUGHT_MICROS;
            let bought = &mut self.shoppers.get_mut(head.shopper).bought;
            bought.retain(|(_, until)| at < *until);
            bought.extend(lines.iter().map(|(id, _)| (*id, until)));
            self.send(rng, head, at, What::Order(lines));
        }
    }

    /// An item found without a recommendation: on a page, or anywhere, some are met by popularity, and one is opened
    /// by taste (Luce 1959).
    fn choose(&self, head: Head, rng: &mut Rng, at: Micros) -> Option<ItemId> {
        let shopper = self.shoppers.get(head.shopper);
        let page = (!rng.chance(ANYWHERE)).then(|| self.choose_page(shopper, rng));
        let (mut met, mut sums) = ([0; CHOSEN_OUT_OF], [0.0; CHOSEN_OUT_OF]);
        let (mut count, mut sum) = (0, 0.0);
        for _ in 0..CHOSEN_OUT_OF {
            let id = match page {
                Some(category) => self.catalog.met_on_page(category, rng)?,
                None => self.catalog.met_by_chance(rng),
            };
            let item = self.catalog.item(id);
            if item.is_available() {
                // Popularity has brought it here: quality does not count twice.
                let liking = self.truth.liking(shopper, item, at, Sight::Everything) - f64::from(item.quality);
                sum += libm::exp(CHOOSIER * liking);
                (met[count], sums[count]) = (id, sum);
                count += 1;
            }
        }
        (count > 0).then(|| met[rng.weighted(&sums[..count])])
    }

    fn choose_page(&self, shopper: &Shopper, rng: &mut Rng) -> usize {
        let mut sum = 0.0;
        let sums: [f64; CATEGORIES] = std::array::from_fn(|category| {
            let taste = shopper.taste.as_ref().map_or(0.0, |taste| f64::from(taste.category[category]));
            sum += self.catalog.page_popularity(category) * libm::exp(CHOOSIER * taste);
            sum
        });
        rng.weighted(&sums)
    }

    /// An event on its way, with what may go wrong there.
    fn send(&mut self, rng: &mut Rng, head: Head, at: Micros, what: What) {
        let number = self.events_made;
        self.events_made += 1;
        let mut event = Event { at, number, head, what, fault: Fault::None };
        let mut sent = at + rng.exponential(NETWORK_MICROS) as Micros;
        let luck = rng.unit();
        let mut limit = 0.0;
        let mut is = |share: f64| {
            limit += share;
            luck >= limit - share && luck < limit
        };
        if is(OUT_OF_ORDER) {
            sent += micros(rng.exponential(OUT_OF_ORDER_SECONDS));
        } else if is(RETRIED) {
            self.deliver_at(sent + micros(rng.exponential(OUT_OF_ORDER_SECONDS)), event.clone());
        } else if is(LATE) {
            sent += micros(LATE_SECONDS);
        } else if is(FROM_THE_FUTURE) {
            event.fault = Fault::ClockADayAhead;
        } else if is(BROKEN) {
            event.fault = if rng.chance(0.5) { Fault::CutOff } else { Fault::WrongType };
        }
        self.deliver_at(sent, event);
    }
}
