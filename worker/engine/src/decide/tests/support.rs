//! A small shop whose models have learned something.

use std::collections::BTreeMap;

use millrace_crds::spec::PipelineSpec;
use serde_json::{Value as Json, json};

use crate::{
    catalog::{Catalog, CatalogItem, OwnedValue},
    decide::{Answer, Candidate, DecideError, Decider, Request, World, rng::Rng},
    event::{ConsentChange, Event, EventWriter, Head, Item, Pseudonym, Seq, Time, Value},
    example::{Example, ExampleHead, FeatureValue, write_example_of},
    feature::{Context, OwnedRow, RowRef},
    learn::{Model, ServingModel},
    plan::Plan,
    profile::View,
};

pub const HOUR: i64 = 3_600_000_000;
pub const NOW: Time = Time(20_000 * 24 * HOUR);
/// Attributes, by name.
pub const CATEGORY: u16 = 0;
pub const PRICE: u16 = 1;
pub const LOCALE: u16 = 2;
pub const HOME: usize = 0;
pub const SEARCH: usize = 1;
pub const CLOSED: usize = 2;
pub const TESTED: usize = 3;

pub fn spec() -> PipelineSpec {
    let event = |name: &str| json!({"name": name, "when": {"type": name}});
    serde_json::from_value(json!({
        "partitions": 1,
        "privacy": {"pseudonymKeys": {"active": "k"}, "user": {"field": "u"}, "consent": {"assumed": "a test"},
            "allowedAttributes": ["locale", "item.category", "item.price"]},
        "sources": [{"name": "s", "file": {"path": "x"}, "format": "Json", "eventTime": {"field": "t"},
            "events": [event("impression"), event("click"), event("order")]}],
        "features": {
            "clicks": {"count": "click"},
            "taste": {"affinity": "click", "by": "item.category", "halfLife": "7d"},
            "itemCtr": {"per": "item", "ratio": ["click", "impression"], "smoothing": 20},
            "traffic": {"per": "global", "count": "impression", "bucket": {"log2": 1}},
        },
        "outcomes": {"click": {"event": "click", "join": "item", "within": "1h"}},
        "models": [
            {"name": "ctr", "outcome": "click", "position": "TrainOnly",
                "features": ["clicks", "taste", "item", "item.category", "item.price", "locale", "placement", "itemCtr", "traffic"],
                "crosses": [["taste", "item.category"], ["locale", "item"]], "learner": {"ftrl": {"l1": 0, "bits": 12}}},
            {"name": "each", "outcome": "click", "features": ["item"], "learner": {"betaBernoulli": {"priorExamples": 10}}},
            {"name": "few", "outcome": "click", "features": ["item"], "learner": {"betaBernoulli": {"priorExamples": 10}},
                "trainOn": {"variants": "none"}},
        ],
        "policies": {
            "popular": {"rankBy": "itemCtr"},
            "popularWithChance": {"rankBy": "itemCtr", "explore": {"epsilonGreedy": {"epsilon": 0.2}}},
            "personal": {"score": {"ctr": 1, "each": 0.5}, "explore": {"epsilonGreedy": {"epsilon": 0.2}}, "minPropensity": 0.01},
            "best": {"score": {"ctr": 1}},
            "soft": {"score": {"ctr": 1}, "explore": {"softmax": {"temperature": 0.05}}},
            "likely": {"score": {"each": 2, "few": 1}, "explore": {"thompson": {"samples": 30}}},
            "given": {"rankBy": "request"},
        },
        "placements": [
            {"name": "home", "candidates": {"catalog": "available"}, "slots": 3, "default": "popular", "policy": "personal",
                "exclude": {"boughtWithin": "10d"}},
            {"name": "search", "candidates": {"fromRequest": 40}, "slots": 4, "default": "RequestOrder", "policy": "best"},
            {"name": "closed", "candidates": {"catalog": "available"}, "slots": 3, "default": "popularWithChance",
                "policy": "personal", "mode": "Default"},
            {"name": "tested", "candidates": {"catalog": "available"}, "slots": 3, "default": "popular"},
        ],
        "catalog": {"source": "s", "item": "id"},
        "experiments": [{"name": "launch", "placements": ["tested", "closed"], "metrics": ["ctr"],
            "variants": {"control": {"weight": 1, "policy": "popular"}, "a": {"weight": 1, "policy": "personal"},
                "b": {"weight": 1, "policy": "likely"}, "oracle": {"weight": 1, "policy": "given"}}}],
    }))
    .unwrap()
}

pub struct Shop {
    pub plan: Plan,
    pub catalog: Catalog,
    pub models: Vec<ServingModel>,
    pub trained: Vec<Model>,
    pub decider: Decider,
    pub row: OwnedRow,
}

pub fn item(n: usize) -> CatalogItem {
    let attributes =
        vec![(CATEGORY, OwnedValue::Text(format!("c{}", n % 3))), (PRICE, OwnedValue::Number(5.0 + n as f64))];
    CatalogItem { id: format!("i{n:02}"), attributes, available: true }
}

/// A row of someone who clicked items of this category.
pub fn row_of(plan: &Plan, category: &str, ordered: &[(&str, Time)]) -> OwnedRow {
    let mut row = plan.features.new_row();
    let mut apply = |kind: &str, item: &str, time: Time| {
        let bytes = event_bytes(plan, kind, item, category, time);
        plan.features.update(&mut row.row_mut(), &Event::read(&bytes).unwrap());
    };
    for n in 0..4 {
        apply("click", "seen", NOW.minus(HOUR * (10 - n)));
    }
    ordered.iter().for_each(|(item, time)| apply("order", item, *time));
    row
}

fn event_bytes(plan: &Plan, kind: &str, item: &str, category: &str, time: Time) -> Vec<u8> {
    let head = Head {
        seq: Seq::START,
        time,
        stated: time,
        user: Pseudonym(1),
        event_type: plan.names.event(kind).unwrap(),
        consent: ConsentChange::None,
        id: 0,
        decision: 0,
        session: 7,
        basket: 0,
        value: f64::NAN,
    };
    let mut bytes = Vec::new();
    let mut writer = EventWriter::new(&mut bytes, &head, "home", "web", "");
    writer.item(&Item::new(item));
    writer.item_attribute(plan.names.attribute("item.category").unwrap(), Value::Text(category));
    writer.attributes().finish();
    bytes.split_off(4)
}

impl Shop {
    /// Of twelve items in three categories; two are out of stock.
    pub fn new() -> Self {
        let mut shop = Self::untrained();
        shop.train(3_000);
        shop
    }

    pub fn untrained() -> Self {
        Self::of(&spec())
    }

    pub fn of(spec: &PipelineSpec) -> Self {
        let plan = Plan::compile(spec).unwrap();
        let mut catalog = Catalog::default();
        (0..12).for_each(|n| catalog.upsert(CatalogItem { available: n % 6 != 5, ..item(n) }));
        let copy = |model: &crate::plan::ModelPlan| model.fresh.serving(model.projection.item_columns());
        let models = plan.models.iter().map(copy).collect();
        let trained = plan.models.iter().map(|model| model.fresh.clone()).collect();
        let (decider, row) = (Decider::new(&plan), row_of(&plan, "c1", &[]));
        Self { plan, catalog, models, trained, decider, row }
    }

    /// Examples of two kinds of users, who like the items of their category.
    pub fn train(&mut self, examples: u64) {
        self.live(&mut Rng::new(99), 0..examples, examples, 1.0);
        self.serve();
    }

    /// Some of so many examples, in which users like as much as usual or less.
    pub fn live(&mut self, rng: &mut Rng, some: std::ops::Range<u64>, examples: u64, liking: f64) {
        let rows = ["c0", "c1"].map(|category| row_of(&self.plan, category, &[]));
        for n in some {
            let (who, what) = (rng.below(2) as usize, rng.below(12) as usize);
            let likes = what % 3 == who;
            let label = rng.unit() < liking * if likes { 0.5 } else { 0.02 + 0.01 * what as f64 };
            let time = NOW.minus((examples - n) as i64 * HOUR / 100 + 2 * HOUR);
            let item = item(what);
            let bytes = event_bytes(&self.plan, "impression", &item.id, &format!("c{}", what % 3), time);
            let event = Event::read(&bytes).unwrap();
            for (model, plan) in self.trained.iter_mut().zip(&self.plan.models) {
                let mut values = Vec::new();
                let context = Context { time, event: &event, item: event.items().next() };
                self.plan.features.read(&plan.projection, Some(rows[who].row()), &context, &mut values);
                let head = ExampleHead {
                    time: time.plus(HOUR),
                    impression: time,
                    label,
                    item: &item.id,
                    placement: "home",
                    schema: plan.schema.id(),
                    ..ExampleHead::default()
                };
                model.learn(&Example::read(&example(&head, &encoded(&values))).unwrap()).unwrap();
            }
        }
    }

    pub fn serve(&mut self) {
        for (model, copy) in self.trained.iter_mut().zip(&mut self.models) {
            copy.apply(&model.serving_delta()).unwrap();
        }
    }

    pub fn decide(&mut self, request: &Request<'_>, view: &View<'_>) -> Result<Answer, DecideError> {
        let world = World { plan: &self.plan, catalog: Some(&self.catalog), models: &self.models };
        self.decider.decide(&world, request, view)
    }

    /// Of the shop's own user.
    pub fn personal(&mut self, request: &Request<'_>) -> Answer {
        let Self { plan, catalog, models, decider, row, .. } = self;
        let world = World { plan, catalog: Some(catalog), models };
        decider.decide(&world, request, &known(row.row())).unwrap()
    }

    /// How often each item was shown in the first slot, over seeds.
    pub fn firsts(&mut self, request: &Request<'_>, seeds: u64) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for seed in 0..seeds {
            let first = self.personal(&Request { seed, ..*request }).items.swap_remove(0);
            *counts.entry(first.item).or_insert(0) += 1;
        }
        counts
    }
}

pub fn known(row: RowRef<'_>) -> View<'_> {
    View { consented: true, row: Some(row) }
}

pub const NEW: View<'static> = View { consented: true, row: None };
pub const UNKNOWN: View<'static> = View { consented: false, row: None };

pub fn request(placement: usize) -> Request<'static> {
    Request {
        user: Some(Pseudonym(1)),
        placement,
        platform: "web",
        session: 7,
        attributes: &[],
        candidates: &[],
        ranking: &[],
        slots: None,
        time: NOW,
        seed: 1,
        decision: 11,
    }
}

pub fn named<'a>(items: &[&'a str]) -> Vec<Candidate<'a>> {
    items.iter().map(|item| Candidate { item, attributes: &[] }).collect()
}

pub fn items(answer: &Answer) -> Vec<&str> {
    answer.items.iter().map(|item| item.item.as_str()).collect()
}

pub fn encoded(values: &[FeatureValue]) -> Vec<u8> {
    let mut out = Vec::new();
    values.iter().for_each(|value| value.write(&mut out));
    out
}

pub fn example(head: &ExampleHead<'_>, values: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_example_of(&mut bytes, head, values);
    bytes.split_off(4)
}

/// The spec with one value replaced.
pub fn with(path: &[&str], value: Json) -> PipelineSpec {
    let mut spec = serde_json::to_value(spec()).unwrap();
    let mut at = &mut spec;
    for key in path {
        at = match key.parse::<usize>() {
            Ok(index) => &mut at[index],
            Err(_) => &mut at[*key],
        };
    }
    *at = value;
    serde_json::from_value(spec).unwrap()
}
