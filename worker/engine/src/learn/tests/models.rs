//! Whole models: order of prediction and learning, features, serving, no signal.

use proptest::prelude::*;
use serde_json::json;

use super::support::{HOUR, Random, Row, compile, learn, model_of, pipeline, schema, text};
use crate::{
    example::{
        Example,
        FeatureValue::{Category, Missing, Number},
    },
    learn::{CompileError, Model, SchemaMismatch},
};

#[test]
fn a_new_model_predicts_the_running_base_rate() {
    let spec = pipeline(json!({}), "1h", json!({"name": "m", "outcome": "click", "features": ["never"]}));
    let columns = schema(&["never"]);
    let mut model = compile(&spec, &["never"]);
    // A number that is 0 adds nothing, so only the base rate is left.
    let rows: Vec<Row> = (0..500).map(|n| Row::new(n, n % 10 == 0, vec![Number(0.0)])).collect();
    let predicted = learn(&mut model, &columns, &rows);
    let mut positives = 0.0;
    for (n, (row, p)) in rows.iter().zip(&predicted).enumerate() {
        assert!((p - (positives + 0.5) / (n as f64 + 1.0)).abs() < 1e-12);
        positives += f64::from(u8::from(row.label));
    }
    let total = model.summary().validation.total;
    assert!((total.log_loss.unwrap() - total.base_log_loss.unwrap()).abs() < 1e-12);
    assert_eq!(total.auc, Some(0.5));
}

#[test]
fn position_is_learned_and_not_served() {
    let of = |position: &str| {
        let spec = pipeline(
            json!({}),
            "1h",
            json!({"name": "m", "outcome": "click", "features": ["item"], "position": position,
                "learner": {"ftrl": {"l1": 0, "bits": 12}}}),
        );
        let columns = schema(&["item"]);
        let mut model = compile(&spec, &["item"]);
        let mut random = Random(3);
        let row = |n: i64| {
            let position = random.below(3) as i32;
            let label = random.unit() < [0.6, 0.3, 0.1][position as usize];
            Row { position, ..Row::new(n, label, vec![text("a")]) }
        };
        let rows: Vec<Row> = (0..5_000).map(row).collect();
        learn(&mut model, &columns, &rows);
        let mut serve = |position: i32| {
            let bytes = Row { position, ..Row::new(9_999, false, vec![text("a")]) }.bytes(columns.id(), 0);
            model.predict(&Example::read(&bytes).unwrap())
        };
        let served = [serve(0), serve(2), serve(-1)];
        (model.summary().validation.total, served)
    };
    let (with, served) = of("TrainOnly");
    assert!(with.auc.unwrap() > 0.7, "{with:?}");
    assert_eq!((served[0], served[1]), (served[2], served[2]));
    let (without, _) = of("Ignore");
    assert!((without.auc.unwrap() - 0.5).abs() < 0.05, "{without:?}");
}

#[test]
fn crosses_and_bags_learn_what_columns_alone_cannot() {
    let features = json!({"seen": {"lastN": "click", "of": "item", "n": 3}});
    let run = |features_used: serde_json::Value, crosses: serde_json::Value| {
        let spec = pipeline(
            features.clone(),
            "1h",
            json!({"name": "m", "outcome": "click", "features": features_used, "crosses": crosses,
                "learner": {"ftrl": {"l1": 0, "bits": 12}}}),
        );
        let names = ["a", "b", "seen", "seen", "seen", "size"];
        let mut model = compile(&spec, &names);
        let mut random = Random(5);
        let rows: Vec<Row> = (0..20_000)
            .map(|n| {
                let (a, b, size) = (random.below(2), random.below(2), random.unit() * 4.0 - 2.0);
                let bag = [random.below(4), random.below(4)];
                let score = if a == b { 1.0 } else { -1.0 } + if bag.contains(&2) { 1.0 } else { -1.0 };
                let score = score + if a == 1 { size } else { -size };
                let label = random.unit() < 1.0 / (1.0 + libm::exp(-score));
                let bag = bag.map(|c| Category(c + 1));
                Row::new(n, label, vec![Category(a), Category(b), bag[0], Missing, bag[1], Number(size)])
            })
            .collect();
        learn(&mut model, &schema(&names), &rows);
        model.summary().validation.total.auc.unwrap()
    };
    let alone = run(json!(["a", "b"]), json!([]));
    let bag = run(json!(["a", "b", "seen"]), json!([]));
    let crossed = run(json!(["a", "b", "seen"]), json!([["a", "b"]]));
    let scaled = run(json!(["a", "b", "seen"]), json!([["a", "b"], ["size", "a"]]));
    assert!(alone < 0.53 && bag > alone + 0.05 && crossed > bag + 0.05 && scaled > crossed + 0.05);
}

/// Labels that nothing tells, items with statistics, outcomes that are known late.
fn no_signal(seed: u64) -> (f64, f64) {
    let features = json!({
        "ctr": {"per": "item", "ratio": ["click", "impression"], "window": "4h", "smoothing": 5},
        "shown": {"per": "item", "count": "impression"},
        "all": {"per": "global", "ratio": ["click", "impression"], "window": "2h", "bucket": {"bounds": [0.05, 0.1]}},
        "clicks": {"per": "item", "count": "click", "window": "1h", "bucket": {"max": 5}},
    });
    let spec = pipeline(
        features,
        "2h",
        json!({"name": "m", "outcome": "click", "features": ["item", "x", "number", "ctr", "shown", "all", "clicks"],
            "crosses": [["x", "clicks"], ["item", "x"]], "position": "TrainOnly"}),
    );
    let names = ["item", "x", "number"];
    let mut model = compile(&spec, &names);
    let mut random = Random(seed);
    let rows: Vec<Row> = (0..20_000)
        .map(|n| {
            let item = random.below(50).to_string();
            let values = vec![text(&item), Category(random.below(20)), Number(random.unit() * 9.0)];
            let position = random.below(5) as i32;
            Row { within: 2 * HOUR, position, item, ..Row::new(n * 10_000_000, random.unit() < 0.1, values) }
        })
        .collect();
    learn(&mut model, &schema(&names), &rows);
    let summary = model.summary();
    assert!(summary.leaks.is_empty());
    let total = summary.validation.total;
    (
        (total.auc.unwrap() - 0.5) / total.auc_standard_error.unwrap(),
        total.log_loss.unwrap() / total.base_log_loss.unwrap(),
    )
}

#[test]
fn without_signal_nothing_is_found() {
    let runs: Vec<(f64, f64)> = (0..20).map(no_signal).collect();
    println!("{runs:?}");
    let mean = runs.iter().map(|(z, _)| z).sum::<f64>() / 20.0;
    // A leaked label would be worth dozens of standard errors.
    assert!(runs.iter().all(|(z, _)| z.abs() < 4.0) && mean.abs() < 1.0, "{mean}: {runs:?}");
    assert!(runs.iter().all(|(_, ratio)| (0.999..1.02).contains(ratio)), "{runs:?}");
}

#[test]
fn an_item_statistic_finds_good_items_without_their_ids() {
    let features = json!({"ctr": {"per": "item", "ratio": ["click", "impression"], "smoothing": 20}});
    let spec = pipeline(
        features,
        "1h",
        json!({"name": "m", "outcome": "click", "features": ["ctr"], "learner": {"ftrl": {"l1": 0}}}),
    );
    let mut model = compile(&spec, &[]);
    let mut random = Random(9);
    let rows: Vec<Row> = (0..30_000)
        .map(|n| {
            let item = random.below(100);
            let label = random.unit() < 0.02 + 0.002 * item as f64;
            Row { within: HOUR, item: item.to_string(), ..Row::new(n * 10_000_000, label, vec![]) }
        })
        .collect();
    learn(&mut model, &schema(&[]), &rows);
    let total = model.summary().validation.total;
    assert!(total.auc.unwrap() > 0.62, "{total:?}");
}

#[test]
fn half_life_follows_a_change() {
    let run = |half_life: serde_json::Value| {
        let spec = pipeline(
            json!({}),
            "1h",
            json!({"name": "m", "outcome": "click", "features": ["x"],
                "learner": {"ftrl": {"l1": 0, "bits": 10, "halfLifeExamples": half_life}}}),
        );
        let mut random = Random(11);
        let rows: Vec<Row> = (0..60_000)
            .map(|n| {
                let x = random.below(10);
                // From the middle on, what was good is bad.
                let good = (x < 5) == (n < 30_000);
                Row::new(n, random.unit() < if good { 0.6 } else { 0.1 }, vec![Category(x)])
            })
            .collect();
        let mut model = compile(&spec, &["x"]);
        learn(&mut model, &schema(&["x"]), &rows);
        model.summary().validation.total.log_loss.unwrap()
    };
    let (forgets, remembers) = (run(json!(2_000)), run(json!(null)));
    assert!(forgets < remembers - 0.01, "{forgets} {remembers}");
}

#[test]
fn what_does_not_fit_is_refused() {
    let refused = |features: serde_json::Value, model: serde_json::Value| {
        let spec = pipeline(features, "1h", model);
        Model::compile(&spec, model_of(&spec), &schema(&["a"])).unwrap_err()
    };
    let none = || json!({});
    let error = refused(none(), json!({"name": "m", "outcome": "order", "features": ["a"]}));
    assert_eq!(error, CompileError::Outcome("order".into()));
    let error = refused(none(), json!({"name": "m", "outcome": "click", "features": ["b"]}));
    assert_eq!(error, CompileError::Column("b".into()));
    let error = refused(none(), json!({"name": "m", "outcome": "click", "features": ["a"], "crosses": [["a"]]}));
    assert_eq!(error, CompileError::Cross("a".into()));
    let error = refused(
        json!({"s": {"per": "item", "count": "order"}}),
        json!({"name": "m", "outcome": "click", "features": ["s"]}),
    );
    assert!(matches!(error, CompileError::Statistic { .. }));
    for (name, settings) in [("bits", json!({"bits": 40})), ("alpha", json!({"alpha": 0})), ("l1", json!({"l1": -1}))] {
        let model = json!({"name": "m", "outcome": "click", "features": ["a"], "learner": {"ftrl": settings}});
        assert_eq!(refused(none(), model), CompileError::Setting(name));
    }
    let spec = pipeline(none(), "1h", json!({"name": "m", "outcome": "click", "features": ["a"]}));
    let mut model = compile(&spec, &["a"]);
    let before = model.digest();
    let bytes = Row::new(0, true, vec![Missing]).bytes(schema(&["b"]).id(), 0);
    let mismatch = model.learn(&Example::read(&bytes).unwrap());
    assert!(matches!(mismatch, Err(SchemaMismatch { columns: 1, values: 1, .. })));
    assert_eq!(model.digest(), before);
}

proptest! {
    #[test]
    fn any_number_is_learned_without_harm(numbers in prop::collection::vec(any::<f64>(), 1..50)) {
        let spec = pipeline(json!({}), "1h", json!({"name": "m", "outcome": "click", "features": ["x"]}));
        let mut model = compile(&spec, &["x"]);
        let rows: Vec<Row> =
            numbers.iter().enumerate().map(|(n, x)| Row::new(n as i64, n % 3 == 0, vec![Number(*x)])).collect();
        let predicted = learn(&mut model, &schema(&["x"]), &rows);
        prop_assert!(predicted.iter().all(|p| (0.0..=1.0).contains(p)));
        prop_assert!(model.summary().validation.total.log_loss.unwrap().is_finite());
    }
}
