//! The fixed mix of 20 features by which speed and size are measured, and events for it.

use millrace_crds::spec::PipelineSpec;

use crate::{
    event::{ConsentChange, EventWriter, Head, Item, Pseudonym, Seq, Time, Value},
    names::Names,
};

/// 20 features: counts, windows (sliding and tumbling), sum, mean, maximum, decayed sums, last value, last-N, distinct
/// count, ratios, time since, affinity, session counts, context; and a model that reads all of them.
const MIX: &str = r##"{
  "partitions": 1,
  "privacy": {
    "pseudonymKeys": {"file": "keys.yaml", "active": "k1"},
    "user": {"field": "user"},
    "consent": {"assumed": "generated events"},
    "allowedAttributes": ["locale", "item.category", "item.price"]
  },
  "sources": [{
    "name": "events", "file": {"path": "events.jsonl"}, "format": "Json", "eventTime": {"field": "ts"},
    "events": [
      {"name": "impression", "when": {"type": "impression"}}, {"name": "click", "when": {"type": "click"}},
      {"name": "cartAdd", "when": {"type": "cartAdd"}}, {"name": "order", "when": {"type": "order"}}
    ]
  }],
  "features": {
    "clicks":             {"count": "click", "bucket": {"log2": 1, "max": 12}},
    "clicks1h":           {"count": "click", "window": "1h", "buckets": 4},
    "viewsToday":         {"count": "impression", "window": "1d", "tumbling": true},
    "cartsToday":         {"count": "cartAdd", "window": "1d", "tumbling": true},
    "spend":              {"sum": "order", "of": "value"},
    "meanPrice":          {"mean": "click", "of": "item.price"},
    "maxOrder":           {"max": "order", "of": "value"},
    "interest":           {"decayedSum": ["click", "cartAdd"], "halfLife": "7d"},
    "revenue":            {"decayedSum": "order", "of": "value", "halfLife": "7d"},
    "lastCategory":       {"last": "click", "of": "item.category"},
    "lastItems":          {"lastN": "click", "of": "item", "n": 2},
    "distinctCategories": {"distinct": "click", "of": "item.category"},
    "ctr":                {"ratio": ["click", "impression"], "smoothing": 10},
    "orderRate":          {"ratio": ["order", "click"], "smoothing": 5},
    "sinceClick":         {"timeSince": "click", "bucket": {"log2": 1, "max": 20}},
    "taste":              {"affinity": ["click", "cartAdd"], "by": "item.category", "halfLife": "7d"},
    "sessionClicks":      {"per": "session", "count": "click"},
    "sessionViews":       {"per": "session", "count": "impression"},
    "hasLocale":          {"anyOf": ["locale"]},
    "priceBand":          {"attribute": "item.price", "bucket": {"log2": 2}}
  },
  "outcomes": {"click": {"event": "click", "join": "item", "within": "10m"}},
  "models": [{
    "name": "ctr", "outcome": "click",
    "features": [
      "clicks", "clicks1h", "viewsToday", "cartsToday", "spend", "meanPrice", "maxOrder", "interest", "revenue",
      "lastCategory", "lastItems", "distinctCategories", "ctr", "orderRate", "sinceClick", "taste", "sessionClicks",
      "sessionViews", "hasLocale", "priceBand"
    ]
  }]
}"##;

/// The mix, as a pipeline.
pub fn spec() -> Result<PipelineSpec, serde_json::Error> {
    serde_json::from_str(MIX)
}

/// Makes events for the mix: users drawn evenly, 60 % impressions, 28 % clicks, 8 % carts, 4 % orders, one item each;
/// about a hundred a second of event time.
#[derive(Clone, Debug)]
pub struct Events {
    random: u64,
    users: u64,
    time: i64,
    offset: u64,
    has_ids: bool,
    types: [u8; 4],
    attributes: [u16; 3],
}

impl Events {
    /// For names of [`spec`].
    pub fn new(users: u64, names: &Names) -> Self {
        let event = |name| names.event(name).unwrap_or_default();
        let attribute = |name| names.attribute(name).unwrap_or_default();
        Self {
            random: 0x9e37_79b9_7f4a_7c15,
            users: users.max(1),
            time: 1_700_000_000_000_000,
            offset: 0,
            has_ids: false,
            types: ["impression", "click", "cartAdd", "order"].map(event),
            attributes: ["locale", "item.category", "item.price"].map(attribute),
        }
    }

    /// Every event has an id of its own.
    pub fn with_ids(self) -> Self {
        Self { has_ids: true, ..self }
    }

    /// xorshift64* (Vigna 2014).
    fn next(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    /// The pseudonym of user `i`.
    pub fn pseudonym(i: u64) -> Pseudonym {
        Pseudonym(xxhash_rust::xxh3::xxh3_128(&i.to_le_bytes()))
    }

    /// Appends the next event, led by its length (u32).
    pub fn write(&mut self, out: &mut Vec<u8>) {
        let user = self.next() % self.users;
        self.write_of(user, out);
    }

    /// Appends the next event, of this user.
    pub fn write_of(&mut self, user: u64, out: &mut Vec<u8>) {
        self.offset += 1;
        self.time += (self.next() % 20_000) as i64;
        let dice = self.next() % 100;
        let which = [60, 88, 96, 100].iter().position(|below| dice < *below).unwrap_or_default();
        let time = Time(self.time);
        let head = Head {
            seq: Seq { offset: self.offset, index: 0 },
            time,
            stated: time,
            user: Self::pseudonym(user),
            event_type: self.types[which],
            consent: ConsentChange::None,
            id: if self.has_ids { xxhash_rust::xxh3::xxh3_128(&self.offset.to_le_bytes()) } else { 0 },
            decision: 0,
            session: (time.0 / 1_800_000_000) as u64 + user,
            basket: 0,
            value: if which == 3 { (self.next() % 20_000) as f64 / 100.0 } else { f64::NAN },
        };
        let sku = format!("sku-{}", self.next() % 50_000);
        let category = format!("category-{}", (self.next() % 12) * (self.next() % 12));
        let [locale, item_category, item_price] = self.attributes;
        let mut writer = EventWriter::new(out, &head, "home", "web", "EUR");
        let mut item = Item::new(&sku);
        item.position = 1;
        writer.item(&item);
        writer.item_attribute(item_category, Value::Text(&category));
        writer.item_attribute(item_price, Value::Number((self.next() % 10_000) as f64 / 100.0));
        let mut writer = writer.attributes();
        writer.attribute(locale, Value::Text("de-DE"));
        writer.finish();
    }
}
