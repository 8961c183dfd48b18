//! Serving copies and deltas; values that come with the decision; frozen models; `trainOn`; Beta-Bernoulli.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::support::{DAY, HOUR, Random, Row, compile, learn, model_of, pipeline, schema, text};
use crate::{
    event::Time,
    example::{
        Example,
        FeatureValue::{self, Category, Missing, Number},
        Schema,
    },
    learn::{
        CompileError, Model, ServingDelta, ServingModel, Standing, item_key,
        serving::{Belief, Scoring, ServingError},
    },
};

const NAMES: [&str; 4] = ["item", "x", "number", "seen"];
/// Of [`NAMES`]: what differs between the candidates of a decision.
const OF_ITEM: [usize; 1] = [0];

fn features() -> Value {
    json!({
        "ctr": {"per": "item", "ratio": ["click", "impression"], "window": "4h", "smoothing": 5},
        "shown": {"per": "item", "count": "impression"},
        "busy": {"per": "global", "count": "impression", "window": "2h", "bucket": {"log2": 1}},
    })
}

fn model_with(changes: Value) -> Model {
    let mut model = json!({"name": "m", "outcome": "click",
        "features": ["item", "x", "number", "ctr", "shown", "busy"],
        "crosses": [["item", "x"], ["x", "number", "ctr"], ["seen", "item"]], "position": "TrainOnly",
        "learner": {"ftrl": {"l1": 0.2, "bits": 9}}});
    for (key, value) in changes.as_object().unwrap() {
        model[key] = value.clone();
    }
    let spec = pipeline(features(), "1h", model);
    Model::compile(&spec, model_of(&spec), &schema(&NAMES)).unwrap()
}

fn ftrl(half_life: Option<f64>) -> Model {
    model_with(json!({"learner": {"ftrl": {"l1": 0.2, "bits": 9, "halfLifeExamples": half_life}}}))
}

fn beta(half_life: Option<f64>) -> Model {
    let learner = json!({"betaBernoulli": {"priorExamples": 20, "halfLifeExamples": half_life}});
    let spec =
        pipeline(json!({}), "1h", json!({"name": "m", "outcome": "click", "features": ["item"], "learner": learner}));
    compile(&spec, &["item"])
}

fn row(random: &mut Random, n: i64) -> Row {
    let item = format!("i{}", n / 60 + random.below(5) as i64);
    let number = if random.below(5) == 0 { Missing } else { Number(random.unit() * 9.0 - 2.0) };
    let values = vec![text(&item), Category(random.below(3)), number, Category(random.below(4))];
    let label = random.unit() < if random.below(3) == 0 { 0.5 } else { 0.1 };
    let position = random.below(4) as i32;
    Row { within: HOUR, position, item, ..Row::new(18_000 * DAY + n * HOUR / 20, label, values) }
}

fn rows(seed: u64, count: i64) -> Vec<Row> {
    let mut random = Random(seed);
    (0..count).map(|n| row(&mut random, n)).collect()
}

/// What the profile task gives, as far as the model asks for it.
fn asked(row: &Row, columns: usize) -> Row {
    Row { values: row.values[..columns].to_vec(), ..row.clone() }
}

/// Score and log-odds of the copy against the model's own prediction.
fn assert_alike(model: &mut Model, copy: &ServingModel, schema: &Schema, row: &Row) {
    let bytes = row.bytes(schema.id(), 0);
    let expected = model.predict(&Example::read(&bytes).unwrap());
    let (mut scoring, mut values) = (Scoring::default(), row.values.clone());
    let (item, time) = (item_key(&row.item), Time(row.impression));
    let score = copy.score(&mut values, item, time, &mut scoring);
    assert!((score - expected.probability).abs() < 1e-6, "{score} {expected:?}");
    // Each candidate after the first is read on top of what the decision has in common.
    let other = Row { values: [vec![text("other")], row.values[1..].to_vec()].concat(), ..row.clone() };
    copy.open(&other.values, time, &mut scoring);
    copy.believe(&other.values, item_key("other"), &mut scoring);
    let belief = copy.believe(&row.values, item, &mut scoring);
    assert_eq!(belief.probability(), score, "the order of candidates counts");
    if let Belief::LogOdds(margin) = belief {
        assert!((margin - expected.margin).abs() <= 1e-6 * (1.0 + expected.margin.abs()), "{margin} {expected:?}");
    }
    assert_eq!(values.len(), copy.width());
}

fn copies_score_as_their_model(mut model: Model, columns: usize, seed: u64, cuts: &[usize]) {
    let schema = schema(&NAMES[..columns]);
    let mut copy = model.serving(OF_ITEM);
    assert_eq!(copy.seen(), None);
    let rows: Vec<Row> = rows(seed, 400).iter().map(|row| asked(row, columns)).collect();
    let mut at = 0;
    for length in cuts {
        let end = (at + length).min(rows.len());
        learn(&mut model, &schema, &rows[at..end]);
        let delta = model.serving_delta();
        assert_eq!((delta.is_full(), delta.to()), (at == 0, end as u64));
        let is_newer = copy.seen() != Some(end as u64);
        assert_eq!(copy.apply(&ServingDelta::read(delta.bytes().to_vec()).unwrap()), Ok(is_newer));
        assert_eq!(copy.apply(&delta), Ok(false), "twice is once");
        assert_eq!(
            (copy.seen(), copy.version(), copy.schema()),
            (Some(end as u64), end as u64, model.served_schema().id())
        );
        at = end;
        for ahead in [0, HOUR / 7, 3 * HOUR, 2 * DAY] {
            let last = rows[..at].last().map_or(0, |row| row.impression);
            for row in rows[at..].iter().take(3).chain(rows[..at].iter().rev().take(3)) {
                let later = Row { impression: row.impression.max(last) + ahead, ..row.clone() };
                assert_alike(&mut model, &copy, &schema, &later);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn a_copy_scores_as_its_model(
        seed: u64, half_life in prop::option::of(2.0f64..60.0), cuts in prop::collection::vec(1usize..90, 1..7), is_beta: bool,
    ) {
        match is_beta {
            true => copies_score_as_their_model(beta(half_life), 1, seed, &cuts),
            false => copies_score_as_their_model(ftrl(half_life), 4, seed, &cuts),
        }
    }

    #[test]
    fn damaged_deltas_are_errors(at in any::<prop::sample::Index>(), bit in 0u8..8, cut: bool) {
        let (mut model, schema) = (ftrl(None), schema(&NAMES));
        learn(&mut model, &schema, &rows(3, 80));
        let mut bytes = model.serving_delta().bytes().to_vec();
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] ^= 1 << bit }
        prop_assert!(ServingDelta::read(bytes).is_err());
    }
}

#[test]
fn forgetting_reaches_copies_beyond_the_change_of_unit() {
    // 2^(1/2H) an example: the unit of the accumulators changes every 128 examples.
    copies_score_as_their_model(ftrl(Some(2.0)), 4, 5, &[100, 20, 20, 20, 150, 3]);
}

#[test]
fn deltas_hold_what_changed_and_only_fit_where_they_follow() {
    let (mut model, schema, rows) = (ftrl(None), schema(&NAMES), rows(8, 300));
    learn(&mut model, &schema, &rows[..280]);
    let full = model.serving_delta();
    learn(&mut model, &schema, &rows[280..281]);
    let second = model.serving_delta_as(Standing::FellBackToDefault);
    learn(&mut model, &schema, &rows[281..300]);
    let third = model.serving_delta();
    assert!(second.bytes().len() * 3 < full.bytes().len(), "{} {}", second.bytes().len(), full.bytes().len());

    let mut copy = model.serving(OF_ITEM);
    assert_eq!(copy.apply(&second), Err(ServingError::Gap { from: 280, seen: 0 }));
    copy.apply(&full).unwrap();
    assert_eq!(copy.apply(&third), Err(ServingError::Gap { from: 281, seen: 280 }));
    assert_eq!(copy.standing(), Standing::Trusted);
    copy.apply(&second).unwrap();
    assert_eq!(copy.standing(), Standing::FellBackToDefault);
    copy.apply(&third).unwrap();
    assert_eq!(copy.apply(&full), Ok(false), "older than the copy");
    assert_eq!((copy.seen(), copy.standing()), (Some(300), Standing::Trusted));

    let mut other = beta(None).serving([0]);
    assert!(matches!(other.apply(&full), Err(ServingError::Layout { .. })));
    // A model that was saved and loaded ships all of it anew; its copies take what is new to them.
    let (mut state, mut loaded) = (Vec::new(), ftrl(None));
    model.encode_all(&mut state);
    loaded.load_all(&state).unwrap();
    let again = loaded.serving_delta();
    assert!(again.is_full());
    assert_eq!(copy.apply(&again), Ok(false));
    let mut fresh = loaded.serving(OF_ITEM);
    assert_eq!(fresh.apply(&again), Ok(true));
    assert_alike(&mut model, &fresh, &schema, &rows[299]);
}

/// If this fails because the format was changed on purpose: raise the version, and say so.
#[test]
fn version_1_of_deltas_is_as_it_was() {
    let of_ftrl = (ftrl(Some(50.0)), 4, include_str!("serving-ftrl-v1.hex"));
    let of_beta = (beta(Some(50.0)), 1, include_str!("serving-beta-v1.hex"));
    for (mut model, columns, golden) in [of_ftrl, of_beta] {
        let schema = schema(&NAMES[..columns]);
        let rows: Vec<Row> = rows(2026, 45).iter().map(|row| asked(row, columns)).collect();
        learn(&mut model, &schema, &rows[..40]);
        let full = model.serving_delta();
        learn(&mut model, &schema, &rows[40..]);
        let changes = model.serving_delta_as(Standing::FellBackToPrevious);
        let hex = |delta: &ServingDelta| delta.bytes().iter().map(|b| format!("{b:02x}")).collect::<String>();
        let written = format!("{}\n{}\n", hex(&full), hex(&changes));
        assert!(written == golden, "{columns} columns: deltas of version 1 are written otherwise");
    }
}

/// Values that came with the decision are learned from as they are; the model's own statistics are not looked up.
#[test]
fn trained_values_are_the_served_ones() {
    let (mut model, profile) = (ftrl(None), schema(&NAMES));
    let rows = rows(21, 300);
    learn(&mut model, &profile, &rows[..250]);
    let mut copy = model.serving(OF_ITEM);
    copy.apply(&model.serving_delta()).unwrap();
    let served = model.served_schema().clone();
    assert_eq!((served.columns.len(), served.columns[4].name.as_str()), (7, "ctr"));
    let mut scoring = Scoring::default();
    let decisions: Vec<(Row, f64)> = rows[250..]
        .iter()
        .map(|row| {
            let mut values = row.values.clone();
            let score = copy.score(&mut values, item_key(&row.item), Time(row.impression), &mut scoring);
            (Row { values, position: -1, ..row.clone() }, score)
        })
        .collect();
    // Decided at once, learned one after the other: by then the statistics are others, but not those of the decisions.
    let (first, score) = &decisions[0];
    let predicted = learn(&mut model, &served, std::slice::from_ref(first))[0];
    assert!((predicted - score).abs() < 1e-6, "{predicted} {score}");
    learn(&mut model, &served, &decisions[1..].iter().map(|(row, _)| row.clone()).collect::<Vec<_>>());
    let (last, _) = &decisions[49];
    let with = |value: FeatureValue| {
        let mut row = last.clone();
        row.values[4] = value;
        row
    };
    let mut predict = |row: &Row| model.predict(&Example::read(&row.bytes(served.id(), 0)).unwrap()).margin;
    assert_eq!(predict(&with(last.values[4])), predict(last));
    assert_ne!(predict(&with(Number(3.5))), predict(last));
    // Other numbers of values than either schema has are refused.
    let short = Row { values: last.values[..5].to_vec(), ..last.clone() };
    assert!(model.learn(&Example::read(&short.bytes(served.id(), 0)).unwrap()).is_err());
}

#[test]
fn a_frozen_model_scores_and_counts_but_does_not_learn() {
    let (mut live, schema, rows) = (ftrl(None), schema(&NAMES), rows(9, 400));
    learn(&mut live, &schema, &rows[..200]);
    let mut state = Vec::new();
    live.encode_all(&mut state);
    let mut frozen = model_with(json!({"frozen": true}));
    frozen.load_all(&state).unwrap();
    assert_eq!(frozen.digest(), live.digest());
    let mut copy = frozen.serving(OF_ITEM);
    copy.apply(&frozen.serving_delta()).unwrap();
    let values = |model: &mut Model, row: &Row| {
        let bytes = Row { values: [row.values.clone(), vec![Missing; 3]].concat(), ..row.clone() }
            .bytes(model.served_schema().id(), 0);
        model.predict(&Example::read(&bytes).unwrap()).margin
    };
    let before = values(&mut frozen, &rows[399]);
    learn(&mut frozen, &schema, &rows[200..]);
    assert_eq!(values(&mut frozen, &rows[399]), before, "weights or the base rate moved");
    let summary = frozen.summary().validation.total;
    assert_eq!(summary.examples, 400);
    // Statistics went on, as the features of users do; the copy still follows.
    copy.apply(&frozen.serving_delta()).unwrap();
    assert_eq!((copy.version(), copy.seen()), (200, Some(400)));
    let (last, shown) = (&rows[399], frozen.item_statistic("shown").unwrap());
    assert!(copy.numbers(shown, Time(last.impression + DAY))(item_key(&last.item)).unwrap() > 0.0);
    assert_alike(&mut frozen, &copy, &schema, last);
    // Thawed again it goes on from there.
    let mut state = Vec::new();
    frozen.encode_all(&mut state);
    let mut thawed = ftrl(None);
    thawed.load_all(&state).unwrap();
    assert_eq!(thawed.digest(), frozen.digest());
    learn(&mut thawed, &schema, &rows[..50]);
    assert_ne!(values(&mut thawed, &rows[399]), before);
}

#[test]
fn only_the_variants_trained_on_are_learned() {
    let of = |variants: Value| model_with(json!({"trainOn": {"variants": variants}}));
    let profile = schema(&NAMES);
    let rows: Vec<Row> = rows(31, 300)
        .into_iter()
        .enumerate()
        .map(|(n, row)| Row { variant: ["e/a", "e/oracle", "", "other/a"][n % 4].to_owned(), ..row })
        .collect();
    let mut some = of(json!(["a", "b"]));
    learn(&mut some, &profile, &rows);
    assert_eq!(some.summary().validation.total.examples, 150);
    let mut copy = some.serving(OF_ITEM);
    copy.apply(&some.serving_delta()).unwrap();
    assert_eq!(copy.version(), 150);
    // The same as a model that never met the others: weights, base rate, statistics and validation.
    let mut alone = of(json!("a"));
    let listed: Vec<Row> = rows.iter().filter(|row| row.variant.ends_with("/a")).cloned().collect();
    learn(&mut alone, &profile, &listed);
    assert_eq!(alone.summary().validation, some.summary().validation);
    let bytes = Row { impression: rows[299].impression + DAY, ..rows[299].clone() }.bytes(profile.id(), 0);
    let example = Example::read(&bytes).unwrap();
    assert_eq!(some.predict(&example), alone.predict(&example));
    let mut all = of(json!("All"));
    learn(&mut all, &profile, &rows);
    let mut untold = ftrl(None);
    learn(&mut untold, &profile, &rows);
    assert_eq!(all.digest(), untold.digest());
    assert_ne!(all.predict(&example), some.predict(&example));
}

#[test]
fn beta_bernoulli_is_the_mean_of_each_items_counts() {
    let (mut model, profile) = (beta(None), schema(&["item"]));
    let of = |item: &str, label: bool| Row { item: item.into(), ..Row::new(0, label, vec![text(item)]) };
    let rows: Vec<Row> = (0..100).map(|n| of(if n % 4 == 0 { "a" } else { "b" }, n % 10 == 0)).collect();
    learn(&mut model, &profile, &rows);
    let mut predict = |item: &str| {
        let bytes = of(item, false).bytes(profile.id(), 0);
        model.predict(&Example::read(&bytes).unwrap()).probability
    };
    let base = 10.5 / 101.0;
    assert!((predict("a") - (5.0 + 20.0 * base) / 45.0).abs() < 1e-12);
    assert!((predict("b") - (5.0 + 20.0 * base) / 95.0).abs() < 1e-12);
    assert!((predict("new") - base).abs() < 1e-12);
    assert_eq!(model.summary().items, 2);

    // With a half-life of 10 of its own examples an item forgets; others meanwhile do not.
    let mut forgetful = beta(Some(10.0));
    let clicks = |label| (0..200).map(move |_| of("a", label)).collect::<Vec<_>>();
    learn(&mut forgetful, &profile, &clicks(true));
    learn(&mut forgetful, &profile, &[of("b", true)]);
    learn(&mut forgetful, &profile, &clicks(false));
    let mut copy = forgetful.serving([0]);
    copy.apply(&forgetful.serving_delta()).unwrap();
    let belief = |item: &str| match copy.believe(&[], item_key(item), &mut Scoring::default()) {
        Belief::Beta(belief) => belief,
        Belief::LogOdds(_) => panic!("not a Beta"),
    };
    let (a, b, unseen) = (belief("a"), belief("b"), belief("new"));
    let decay = libm::exp2(-0.1);
    assert!((a.beta - unseen.beta - 1.0 / (1.0 - decay)).abs() < 1e-4, "{a:?} {unseen:?}");
    assert!((a.alpha - unseen.alpha).abs() < 1e-4);
    assert_eq!((b.alpha - unseen.alpha, b.beta), (1.0, unseen.beta));
}

#[test]
fn beta_bernoulli_states_are_saved_and_refused_where_they_do_not_fit() {
    let (mut model, profile) = (beta(Some(30.0)), schema(&["item"]));
    let rows: Vec<Row> = rows(12, 200).iter().map(|row| asked(row, 1)).collect();
    learn(&mut model, &profile, &rows[..120]);
    let (mut base, mut changes) = (Vec::new(), Vec::new());
    model.encode_all(&mut base);
    model.mark_clean();
    learn(&mut model, &profile, &rows[120..]);
    model.encode_changes(&mut changes);
    let mut loaded = beta(Some(30.0));
    loaded.load_all(&base).unwrap();
    loaded.apply_changes(&changes).unwrap();
    assert_eq!((loaded.digest(), loaded.summary()), (model.digest(), model.summary()));
    assert!(ftrl(None).load_all(&base).unwrap_err().what.starts_with("layout"));
    let mut of_base = beta(Some(30.0));
    of_base.load_all(&base).unwrap();
    let digest = of_base.digest();
    for at in (0..base.len()).step_by(7) {
        let mut damaged = base.clone();
        damaged[at] ^= 0x40;
        let mut other = beta(Some(30.0));
        // Or harmless: what is kept without buckets does not expire, whichever bucket is said to be the oldest.
        let mut again = Vec::new();
        let alike = other.load_all(&damaged).is_err() || other.digest() != digest || {
            other.encode_all(&mut again);
            again == base
        };
        assert!(alike, "byte {at}");
    }
}

#[test]
fn settings_and_features_that_beta_bernoulli_cannot_have() {
    let compile = |features: Value, crosses: Value, settings: Value| {
        let model = json!({"name": "m", "outcome": "click", "features": features, "crosses": crosses,
            "learner": {"betaBernoulli": settings}});
        let spec = pipeline(json!({}), "1h", model);
        Model::compile(&spec, model_of(&spec), &schema(&["item", "x"])).map(|_| ()).unwrap_err()
    };
    let features = |error| matches!(error, CompileError::BetaFeatures(_));
    assert!(features(compile(json!(["x"]), json!([]), json!({}))));
    assert!(features(compile(json!(["item", "x"]), json!([]), json!({}))));
    assert!(features(compile(json!(["item"]), json!([["item", "x"]]), json!({}))));
    for settings in [json!({"priorExamples": 0}), json!({"priorExamples": -1}), json!({"halfLifeExamples": 0.5})] {
        assert_eq!(compile(json!(["item"]), json!([]), settings), CompileError::BetaSetting);
    }
}

#[test]
fn what_is_left_of_a_delta_is_refused() {
    let mut model = ftrl(None);
    learn(&mut model, &schema(&NAMES), &rows(4, 60));
    let delta = model.serving_delta();
    // A well-formed frame around a body that says otherwise.
    let mut body = delta.bytes()[..delta.bytes().len() - 8].to_vec();
    body.extend_from_slice(&[0; 3]);
    let sum = xxhash_rust::xxh3::xxh3_64(&body);
    body.extend_from_slice(&sum.to_le_bytes());
    let longer = ServingDelta::read(body).unwrap();
    let mut copy = model.serving(OF_ITEM);
    assert!(matches!(copy.apply(&longer), Err(ServingError::Corrupt(_))));
    assert_eq!(copy.seen(), None, "half of a delta is none");
    assert_eq!(copy.apply(&delta), Ok(true));
}
