//! What can be chosen, and the numbers of the simulated world, all in one place.
//!
//! Time is compressed: a shop's day passes in [`DAY_MICROS`]. What happens between visits follows that clock; what
//! happens within a visit (looking, clicking, ordering) is faster than life by some ten to thirty times only, so that a
//! click still takes longer than its way through the pipeline.

use std::{fmt, str::FromStr};

/// Microseconds. World time begins at 0; on the wire it is [`Settings::start_micros`] later.
pub type Micros = i64;

pub const SECOND: Micros = 1_000_000;
/// A day of the shop.
pub const DAY_MICROS: Micros = 60 * SECOND;

/// Which world it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scenario {
    /// Shoppers differ in what they like.
    #[default]
    Taste,
    /// Items differ, shoppers do not: nothing can be gained by knowing them.
    Homogeneous,
    /// As `Taste`, until tastes and fashions change at once.
    Drift,
    /// As `Taste`, with many first visits all the time.
    Cold,
    /// Neither items nor shoppers differ: a click depends on the position alone, and strongly.
    Position,
}

impl Scenario {
    pub const ALL: [Scenario; 5] =
        [Scenario::Taste, Scenario::Homogeneous, Scenario::Drift, Scenario::Cold, Scenario::Position];

    pub fn name(self) -> &'static str {
        match self {
            Scenario::Taste => "taste",
            Scenario::Homogeneous => "homogeneous",
            Scenario::Drift => "drift",
            Scenario::Cold => "cold",
            Scenario::Position => "position",
        }
    }
    pub fn has_tastes(self) -> bool {
        matches!(self, Scenario::Taste | Scenario::Drift | Scenario::Cold)
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// `{0}` is no scenario.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no scenario; there are taste, homogeneous, drift, cold and position")]
pub struct UnknownScenario(String);

impl FromStr for Scenario {
    type Err = UnknownScenario;
    fn from_str(name: &str) -> Result<Self, UnknownScenario> {
        Scenario::ALL.into_iter().find(|s| s.name() == name).ok_or_else(|| UnknownScenario(name.to_owned()))
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub scenario: Scenario,
    /// The same seed, the same answers: the same events.
    pub seed: u64,
    /// Shoppers at the beginning.
    pub users: usize,
    /// Items listed at any time. At least [`SLOTS`].
    pub items: usize,
    /// Of the events source: what is sent in a second, nearly (see [`EVENTS_A_VISIT`]).
    pub events_per_second: f64,
    /// When tastes change (scenario `drift`), in world time.
    pub drift_at_micros: Micros,
    /// World time 0 in microseconds since 1970.
    pub start_micros: Micros,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            scenario: Scenario::Taste,
            seed: 1,
            users: 20_000,
            items: 500,
            events_per_second: 2_000.0,
            drift_at_micros: DAY_MICROS,
            start_micros: 1_767_225_600 * SECOND,
        }
    }
}

/// The placement, and how many items it shows.
pub const PLACEMENT: &str = "home";
pub const SLOTS: usize = 6;
/// Length of the true ranking that goes with a request.
pub const TRUE_RANKING: usize = 30;

// --- Items ---
pub const CATEGORIES: usize = 12;
pub const BRANDS: usize = 24;
/// A brand is at home in so many categories.
pub const CATEGORIES_OF_A_BRAND: usize = 3;
/// Hidden: in no record. Each item has one.
pub const STYLES: usize = 8;
/// The item of popularity rank r gets r^-s of what is looked at without a recommendation.
pub const ZIPF_EXPONENT: f64 = 1.0;
/// Median price of a category: log-normal around this, in cents; and of an item around its category's.
pub const PRICE_MEDIAN_CENTS: f64 = 3_500.0;
pub const PRICE_SIGMA_OF_CATEGORIES: f64 = 0.6;
pub const PRICE_SIGMA: f64 = 0.6;
/// Price levels within a category where one band ends and the next begins: five equal shares.
pub const BAND_BOUNDS: [f64; 4] = [-0.8416, -0.2533, 0.2533, 0.8416];
pub const BANDS: [&str; 5] = ["budget", "low", "middle", "high", "luxury"];
/// An item's hidden quality, in log-odds of a click, and how it goes with popularity.
pub const QUALITY_SIGMA: f64 = 0.35;
pub const QUALITY_WITH_POPULARITY: f64 = 0.5;
/// In a shop's day: the share of items that are replaced by new ones, and of those that run out of stock.
pub const REPLACED_A_DAY: f64 = 0.01;
pub const OUT_OF_STOCK_A_DAY: f64 = 0.04;
/// How long they are out of stock, on average.
pub const OUT_OF_STOCK_MICROS: f64 = 0.25 * DAY_MICROS as f64;

// --- Shoppers ---
/// A shopper's share of the visits is Pareto with this shape, cut at so many times the least.
pub const ACTIVITY_SHAPE: f64 = 1.5;
pub const ACTIVITY_MAX: f64 = 300.0;
/// Everybody has one to so many favourite categories; what they add to the log-odds of a click lies in this range.
pub const FAVOURITE_CATEGORIES: usize = 2;
pub const FAVOURITE_CATEGORY: (f64, f64) = (1.0, 1.6);
/// Likewise brands, of those that are at home in favourite categories, and hidden styles.
pub const FAVOURITE_BRANDS: usize = 2;
pub const FAVOURITE_BRAND: (f64, f64) = (0.4, 0.9);
pub const FAVOURITE_STYLES: usize = 2;
pub const FAVOURITE_STYLE: (f64, f64) = (0.3, 0.8);
/// Beside favourites: sigma of what is added to every category and brand.
pub const TASTE_SIGMA: f64 = 0.15;
/// Sigma of what all shoppers of a platform share about categories, and all of a locale about brands.
pub const TASTE_OF_PLATFORM: f64 = 0.2;
pub const TASTE_OF_LOCALE: f64 = 0.2;
/// Log-odds lost for each squared unit between an item's price level and the shopper's.
pub const TASTE_PRICE: f64 = 0.12;
pub const PLATFORMS: [&str; 3] = ["web", "ios", "android"];
pub const PLATFORM_SHARES: [f64; 3] = [0.5, 0.8, 1.0];
pub const LOCALES: [&str; 4] = ["de", "en", "fr", "nl"];
pub const LOCALE_SHARES: [f64; 4] = [0.55, 0.8, 0.9, 1.0];
/// Visits without a login; shoppers who refuse; who withdraw in a visit; who then agree again in a visit.
pub const NOT_LOGGED_IN: f64 = 0.2;
pub const REFUSES: f64 = 0.1;
pub const WITHDRAWS_IN_A_VISIT: f64 = 0.002;
pub const AGREES_AGAIN_IN_A_VISIT: f64 = 0.05;
/// Scenario `cold`: so many of the visits are somebody's first.
pub const NEWCOMERS: f64 = 0.3;
/// Scenario `drift`: shoppers whose tastes are drawn anew, and items whose quality is.
pub const DRIFT_SHOPPERS: f64 = 0.5;
pub const DRIFT_ITEMS: f64 = 0.5;

// --- A visit ---
/// Log-odds of a click on the average item, in the first slot: tastes and quality come on top.
pub const BASE_LOG_ODDS: f64 = -5.0;
/// The same where shoppers do not differ (scenario `homogeneous`), and where items do not either (`position`).
pub const BASE_LOG_ODDS_ALIKE: f64 = -4.2;
pub const BASE_LOG_ODDS_FLAT: f64 = -3.2;
/// How many of the visits get to see a slot at all. An impression tells only of those.
pub const SEEN: [f64; SLOTS] = [1.0, 0.95, 0.8, 0.65, 0.55, 0.45];
/// Odds of a click on what is seen, relative to the first slot; and in scenario `position`.
pub const ATTENTION: [f64; SLOTS] = [1.0, 0.85, 0.75, 0.68, 0.62, 0.58];
pub const ATTENTION_STEEP: [f64; SLOTS] = [1.0, 0.6, 0.4, 0.3, 0.22, 0.18];
/// What was bought is not needed again for so long: log-odds, world time.
pub const BOUGHT_LOG_ODDS: f64 = -2.0;
pub const BOUGHT_MICROS: Micros = 5 * DAY_MICROS;
/// Items looked at without a recommendation, on average, each opened by taste out of so many met by popularity: on the
/// page of a category, which is chosen by taste too, or (this share) anywhere in the shop.
pub const ANYWHERE: f64 = 0.2;
/// Whoever searches is choosier than whoever is shown something: tastes count so much more.
pub const CHOOSIER: f64 = 2.0;
pub const OWN_VIEWS: f64 = 6.0;
pub const CHOSEN_OUT_OF: usize = 8;
pub const CART_AFTER_CLICK: f64 = 0.2;
pub const CART_AFTER_VIEW: f64 = 0.03;
pub const ORDER_AFTER_CART: f64 = 0.35;
/// From seeing to clicking: log-normal.
pub const CLICK_DELAY_MEDIAN_SECONDS: f64 = 0.8;
pub const CLICK_DELAY_SIGMA: f64 = 0.7;
pub const BETWEEN_VIEWS_SECONDS: f64 = 1.0;
pub const VIEW_TO_CART_SECONDS: f64 = 1.0;
pub const CART_TO_ORDER_SECONDS: f64 = 2.0;

// --- What goes wrong on the way ---
/// Sent again under the same id; sent somewhat late (out of order); sent so late that nobody waits; a wrong clock.
pub const RETRIED: f64 = 0.01;
pub const OUT_OF_ORDER: f64 = 0.02;
pub const OUT_OF_ORDER_SECONDS: f64 = 0.3;
pub const LATE: f64 = 0.0005;
pub const LATE_SECONDS: f64 = 20.0;
pub const FROM_THE_FUTURE: f64 = 0.0001;
/// Broken: cut off, or a value of a wrong type.
pub const BROKEN: f64 = 0.001;
/// Shoppers whose app writes version 1, and a version that nobody was told of.
pub const VERSION_1: f64 = 0.12;
pub const VERSION_UNKNOWN: f64 = 0.02;
/// Visits by bots, which say so: they look at many items and are asked no decision.
pub const BOTS: f64 = 0.01;
pub const BOT_VIEWS: usize = 15;

/// Events of a visit on average, for turning a rate of events into one of visits. A test holds it against the world.
pub const EVENTS_A_VISIT: f64 = 8.0;
