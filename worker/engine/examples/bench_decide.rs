//! Microseconds of CPU per decision, on one thread: 20 features for each candidate, 8 of them crosses or of the item.
//!
//! `cargo run --release -p millrace-engine --example bench_decide [ROUNDS [CASE]]`. Users are drawn evenly of 20,000 rows; the model
//! has 2^20 weights and has learned 300,000 examples. Cases take turns; the median of the rounds is printed, with the least
//! and the greatest. Times are this thread's on the CPU (Linux), so that a busy machine distorts them less.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark")]

use millrace_crds::spec::PipelineSpec;
use millrace_engine::{
    catalog::{Catalog, CatalogItem, OwnedValue},
    decide::{Decider, Request, World, rng::Rng},
    event::{Event, Pseudonym, Time},
    example::{Example, ExampleHead, write_example},
    feature::{Context, OwnedRow, mix},
    learn::ServingModel,
    names::Names,
    plan::Plan,
    profile::View,
};
use serde_json::json;

const USERS: u64 = 20_000;
const EXAMPLES: u64 = 300_000;
/// Exploration, items, policy, decisions a round: at least a tenth of a second, since the kernel counts in milliseconds.
const CASES: [(&str, usize, &str, u64); 7] = [
    ("greedy", 100, "best", 4_000),
    ("epsilon-greedy", 100, "chance", 4_000),
    ("softmax", 100, "soft", 4_000),
    ("most popular", 100, "popular", 20_000),
    ("thompson, 200 rows", 100, "likely", 200),
    ("epsilon-greedy", 1_000, "chance", 400),
    ("epsilon-greedy", 10_000, "chance", 200),
];
const SLOTS: usize = 6;

fn spec(policy: &str) -> PipelineSpec {
    let mut spec = serde_json::to_value(mix::spec().unwrap()).unwrap();
    spec["features"]["itemCtr"] = json!({"per": "item", "ratio": ["click", "impression"], "smoothing": 50});
    spec["models"] = json!([
        {
            "name": "ctr", "outcome": "click", "learner": {"ftrl": {"l1": 0.5, "bits": 20}},
            // Twelve of the user and the context, four of the item, and four crosses.
            "features": ["clicks", "clicks1h", "viewsToday", "cartsToday", "spend", "interest", "lastCategory", "lastItems",
                "distinctCategories", "ctr", "sinceClick", "hasLocale", "taste", "priceBand", "item", "itemCtr"],
            "crosses": [["lastCategory", "item.category"], ["taste", "item.category"], ["clicks", "item"], ["lastItems", "item"]],
        },
        {"name": "each", "outcome": "click", "features": ["item"], "learner": {"betaBernoulli": {}}},
    ]);
    spec["policies"] = json!({
        "best": {"score": {"ctr": 1}},
        "chance": {"score": {"ctr": 1}, "explore": {"epsilonGreedy": {"epsilon": 0.1}}, "minPropensity": 0.001},
        "soft": {"score": {"ctr": 1}, "explore": {"softmax": {"temperature": 0.02}}},
        "likely": {"score": {"each": 1}, "explore": {"thompson": {"samples": 200}}},
        "popular": {"rankBy": "itemCtr"},
    });
    spec["catalog"] = json!({"source": "s", "item": "sku"});
    spec["placements"] = json!([
        {"name": "home", "candidates": {"catalog": "available"}, "slots": SLOTS, "default": "popular", "policy": policy,
            "exclude": {"boughtWithin": "30d"}},
    ]);
    serde_json::from_value(spec).unwrap()
}

fn catalog(names: &Names, items: usize) -> Catalog {
    let (category, price) = (names.attribute("item.category").unwrap(), names.attribute("item.price").unwrap());
    let mut catalog = Catalog::default();
    for n in 0..items {
        let attributes = vec![
            (category, OwnedValue::Text(format!("category-{}", (n % 12) * (n % 11)))),
            (price, OwnedValue::Number(n as f64 % 100.0 + 0.99)),
        ];
        catalog.upsert(CatalogItem { id: format!("sku-{n}"), attributes, available: true });
    }
    catalog
}

/// Rows of users, and models that learned from what they did.
fn train(plan: &Plan) -> (Vec<OwnedRow>, Vec<ServingModel>, Time) {
    let mut rows: Vec<OwnedRow> = (0..USERS).map(|_| plan.features.new_row()).collect();
    let mut models: Vec<_> = plan.models.iter().map(|model| model.fresh.clone()).collect();
    let (mut events, mut rng, mut now) = (mix::Events::new(USERS, &plan.names), Rng::new(1), Time(0));
    let (mut record, mut values, mut example) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..EXAMPLES {
        let user = rng.below(USERS);
        record.clear();
        events.write_of(user, &mut record);
        let event = Event::read(&record[4..]).unwrap();
        let (row, item) = (&mut rows[user as usize], event.items().next().unwrap());
        now = event.head.time;
        for (model, of) in models.iter_mut().zip(&plan.models) {
            values.clear();
            let context = Context { time: now, event: &event, item: Some(item) };
            plan.features.read(&of.projection, Some(row.row()), &context, &mut values);
            // The mix's 50,000 items, as a tenth of that.
            let id = format!("sku-{}", rng.below(5_000));
            let schema = of.schema.id();
            let label = rng.unit() < 0.05;
            let head = ExampleHead { time: now, impression: now, label, item: &id, schema, ..ExampleHead::default() };
            example.clear();
            write_example(&mut example, &head, &values);
            model.learn(&Example::read(&example[4..]).unwrap()).unwrap();
        }
        plan.features.update(&mut row.row_mut(), &event);
    }
    let mut copies = plan.serving_models();
    for (copy, model) in copies.iter_mut().zip(&mut models) {
        copy.apply(&model.serving_delta()).unwrap();
    }
    (rows, copies, now)
}

fn cpu_micros() -> f64 {
    let schedstat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    schedstat.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e3
}

fn main() {
    let rounds: usize = std::env::args().nth(1).map_or(15, |rounds| rounds.parse().expect("a number of rounds"));
    let only = std::env::args().nth(2);
    let plan = Plan::compile(&spec("best")).unwrap();
    let (rows, models, now) = train(&plan);
    let mut cases: Vec<_> = CASES
        .iter()
        .filter(|(name, ..)| only.as_ref().is_none_or(|only| name == only))
        .map(|(name, items, policy, decisions)| {
            let plan = Plan::compile(&spec(policy)).unwrap();
            let (catalog, decider) = (catalog(&plan.names, *items), Decider::new(&plan));
            (format!("{name}, {items} items"), *decisions, plan, catalog, decider, Vec::new())
        })
        .collect();
    let (mut rng, mut shown) = (Rng::new(2), 0);
    for _ in 0..=rounds {
        for (_, decisions, plan, catalog, decider, micros) in &mut cases {
            let world = World { plan, catalog: Some(catalog), models: &models };
            let start = cpu_micros();
            for _ in 0..*decisions {
                let user = rng.below(USERS);
                let request = Request {
                    user: Some(Pseudonym(u128::from(user))),
                    placement: 0,
                    platform: "web",
                    session: 1,
                    attributes: &[],
                    candidates: &[],
                    ranking: &[],
                    slots: None,
                    time: now,
                    seed: rng.bits(),
                    decision: user,
                };
                let view = View { consented: true, row: Some(rows[user as usize].row()) };
                shown += decider.decide(&world, &request, &view).unwrap().items.len();
            }
            micros.push((cpu_micros() - start) / *decisions as f64);
        }
    }
    let decisions: u64 = cases.iter().map(|(_, decisions, ..)| *decisions).sum();
    assert_eq!(shown, (rounds + 1) * decisions as usize * SLOTS);
    println!("{:>36} {:>10} {:>8} {:>8}", "us per decision", "median", "least", "most");
    for (name, .., micros) in &mut cases {
        let micros = &mut micros[1..];
        micros.sort_by(f64::total_cmp);
        println!("{name:>36} {:>10.1} {:>8.1} {:>8.1}", micros[rounds / 2], micros[0], micros[rounds - 1]);
    }
}
