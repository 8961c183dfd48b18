//! Items: what the shop sells, how it changes, and how a record of it looks.

use std::fmt::Write as _;

use super::settings::*;
use crate::rng::Rng;

/// Items are numbered in the order in which they came; a number is never used again.
pub type ItemId = u32;

#[derive(Clone, Debug)]
pub struct Item {
    pub id: ItemId,
    /// Popularity rank, from 0.
    pub rank: usize,
    pub category: u8,
    pub brand: u8,
    /// Hidden.
    pub style: u8,
    pub price_cents: u32,
    /// Of the price within its category: standard normal.
    pub price_level: f32,
    /// Hidden: log-odds of a click.
    pub quality: f32,
    pub in_stock: bool,
    /// Still sold at all.
    pub listed: bool,
}

impl Item {
    pub fn band(&self) -> usize {
        BAND_BOUNDS.iter().filter(|bound| f64::from(self.price_level) >= **bound).count()
    }
    pub fn is_available(&self) -> bool {
        self.listed && self.in_stock
    }
}

/// `p00042` and back.
pub fn sku(id: ItemId) -> String {
    format!("p{id:05}")
}
pub fn item_of_sku(sku: &str) -> Option<ItemId> {
    sku.strip_prefix('p').and_then(|number| number.parse().ok())
}
pub fn category_name(category: u8) -> String {
    format!("category-{category:02}")
}
pub fn brand_name(brand: u8) -> String {
    format!("brand-{brand:02}")
}

/// What a category's page leads to.
#[derive(Clone, Debug, Default)]
struct Page {
    items: Vec<ItemId>,
    /// Ascending sums of their popularity.
    popularity: Vec<f64>,
}

/// All items that ever were, and which of them are sold.
#[derive(Clone, Debug)]
pub struct Catalog {
    seed: u64,
    flat: bool,
    items: Vec<Item>,
    by_rank: Vec<ItemId>,
    /// Ascending sums of the ranks' popularity.
    popularity: Vec<f64>,
    pages: Vec<Page>,
    category_prices: [f64; CATEGORIES],
    category_sums: Vec<f64>,
    brands_of: Vec<Vec<u8>>,
}

fn popularity(rank: usize) -> f64 {
    libm::pow((rank + 1) as f64, -ZIPF_EXPONENT)
}

const STREAM_SHOP: u64 = 0x5109;
const STREAM_ITEM: u64 = 0x17E4;

impl Catalog {
    /// `flat`: all items have the same quality.
    pub fn new(seed: u64, items: usize, flat: bool) -> Self {
        let mut rng = Rng::of(seed, STREAM_SHOP, 0);
        let category_prices = std::array::from_fn(|_| rng.log_normal(PRICE_MEDIAN_CENTS, PRICE_SIGMA_OF_CATEGORIES));
        let mut brands_of = vec![Vec::new(); CATEGORIES];
        for brand in 0..BRANDS {
            let mut homes = vec![brand % CATEGORIES];
            while homes.len() < CATEGORIES_OF_A_BRAND {
                let category = rng.below(CATEGORIES);
                if !homes.contains(&category) {
                    homes.push(category);
                }
            }
            homes.into_iter().for_each(|category| brands_of[category].push(brand as u8));
        }
        let sums = |weight: &dyn Fn(usize) -> f64, n: usize| -> Vec<f64> {
            (0..n)
                .scan(0.0, |sum, i| {
                    *sum += weight(i);
                    Some(*sum)
                })
                .collect()
        };
        let popularity = sums(&popularity, items);
        let category_sums = sums(&|c| 1.0 / (1.0 + 0.15 * c as f64), CATEGORIES);
        let (by_rank, all) = (Vec::with_capacity(items), Vec::with_capacity(items * 2));
        let mut catalog = Self {
            seed,
            flat,
            items: all,
            by_rank,
            popularity,
            pages: Vec::new(),
            category_prices,
            category_sums,
            brands_of,
        };
        for rank in 0..items {
            let id = catalog.bring(rank);
            catalog.by_rank.push(id);
        }
        catalog.lay_out_pages();
        catalog
    }

    /// A new item of this rank.
    fn bring(&mut self, rank: usize) -> ItemId {
        let id = self.items.len() as ItemId;
        let mut rng = Rng::of(self.seed, STREAM_ITEM, u64::from(id));
        let category = rng.weighted(&self.category_sums);
        let brands = &self.brands_of[category];
        let brand = brands[rng.below(brands.len())];
        let (style, level) = (rng.below(STYLES) as u8, rng.normal());
        let price = self.category_prices[category] * libm::exp(PRICE_SIGMA * level);
        let quality = self.quality(rank, &mut rng);
        self.items.push(Item {
            id,
            rank,
            category: category as u8,
            brand,
            style,
            price_cents: price.clamp(50.0, 1e8) as u32,
            price_level: level as f32,
            quality,
            in_stock: true,
            listed: true,
        });
        id
    }

    fn quality(&self, rank: usize, rng: &mut Rng) -> f32 {
        let own = rng.normal();
        if self.flat {
            return 0.0;
        }
        // ln(rank) of a uniform rank is nearly an exponential's negative: mean ln(n) - 1, deviation 1.
        let popular = libm::log(self.popularity.len() as f64) - 1.0 - libm::log((rank + 1) as f64);
        let with = QUALITY_WITH_POPULARITY;
        (QUALITY_SIGMA * (with * popular + libm::sqrt(1.0 - with * with) * own)) as f32
    }

    /// Every item that is sold, by popularity; in stock or not.
    pub fn listed(&self) -> &[ItemId] {
        &self.by_rank
    }
    /// What can be bought now, by popularity.
    pub fn available(&self) -> impl Iterator<Item = ItemId> {
        self.by_rank.iter().copied().filter(|id| self.item(*id).is_available())
    }
    /// Of a number that this catalog gave.
    pub fn item(&self, id: ItemId) -> &Item {
        &self.items[id as usize]
    }
    /// Of any number.
    pub fn get(&self, id: ItemId) -> Option<&Item> {
        self.items.get(id as usize)
    }
    /// Somewhere in the shop, by popularity alone.
    pub fn met_by_chance(&self, rng: &mut Rng) -> ItemId {
        self.by_rank[rng.weighted(&self.popularity)]
    }
    /// On the page of this category, by popularity alone.
    pub fn met_on_page(&self, category: usize, rng: &mut Rng) -> Option<ItemId> {
        let page = &self.pages[category];
        page.items.get(rng.weighted(&page.popularity)).copied()
    }
    /// How popular all items of a category are together.
    pub fn page_popularity(&self, category: usize) -> f64 {
        self.pages[category].popularity.last().copied().unwrap_or(0.0)
    }
    /// Brands at home in each category.
    pub fn brands_of(&self) -> &[Vec<u8>] {
        &self.brands_of
    }

    fn lay_out_pages(&mut self) {
        self.pages = vec![Page::default(); CATEGORIES];
        for (rank, id) in self.by_rank.iter().enumerate() {
            let page = &mut self.pages[usize::from(self.items[*id as usize].category)];
            let before = page.popularity.last().copied().unwrap_or(0.0);
            page.items.push(*id);
            page.popularity.push(before + popularity(rank));
        }
    }

    /// One item leaves, another takes its rank: (old, new).
    pub fn replace(&mut self, rng: &mut Rng) -> (ItemId, ItemId) {
        let rank = rng.below(self.by_rank.len());
        let (old, new) = (self.by_rank[rank], self.bring(rank));
        self.items[old as usize].listed = false;
        self.by_rank[rank] = new;
        self.lay_out_pages();
        (old, new)
    }
    pub fn any_listed(&self, rng: &mut Rng) -> ItemId {
        self.by_rank[rng.below(self.by_rank.len())]
    }
    pub fn set_in_stock(&mut self, id: ItemId, in_stock: bool) {
        self.items[id as usize].in_stock = in_stock;
    }
    /// Fashions change: this share of items gets another quality.
    pub fn drift(&mut self, share: f64, rng: &mut Rng) {
        for rank in 0..self.by_rank.len() {
            if rng.chance(share) {
                let quality = self.quality(rank, rng);
                self.items[self.by_rank[rank] as usize].quality = quality;
            }
        }
    }

    /// The record of an item as of `time_ms` (since 1970). What nobody may see is not in it.
    pub fn record(&self, id: ItemId, time_ms: i64) -> String {
        let item = self.item(id);
        let mut out = String::with_capacity(160);
        // Writing into a string cannot fail.
        let _ = write!(
            out,
            r#"{{"ts":{time_ms},"sku":"{}","category":"{}","brand":"{}","price":{}.{:02},"priceBand":"{}","inStock":{},"listed":{}}}"#,
            sku(id),
            category_name(item.category),
            brand_name(item.brand),
            item.price_cents / 100,
            item.price_cents % 100,
            BANDS[item.band()],
            item.is_available(),
            item.listed,
        );
        out
    }
}
