//! Worlds that change: alarms come, each answer does what it says, and a restart changes nothing of it.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::support::{Random, Row, compile, learn, model_of, pipeline, schema, text};
use crate::{
    event::Time,
    example::{FeatureValue::Category, Schema},
    learn::{
        Model, ServingModel, Standing,
        drift::{
            DriftKind,
            watch::{Done, DriftState, WatchSettings},
        },
        item_key,
        serving::Scoring,
    },
};

const NAMES: [&str; 2] = ["item", "x"];
const SECOND: i64 = 1_000_000;

fn model(learner: Value, drift: Value) -> Model {
    compile(&spec(learner, drift), &NAMES)
}

fn spec(learner: Value, drift: Value) -> millrace_crds::spec::PipelineSpec {
    let features = if learner.get("ftrl").is_some() { json!(["item", "x"]) } else { json!(["item"]) };
    pipeline(
        json!({}),
        "1s",
        json!({"name": "m", "outcome": "click", "features": features, "learner": learner, "drift": drift}),
    )
}

fn answering(answer: &str) -> Model {
    model(json!({"ftrl": {"bits": 10, "l1": 0.1}}), json!({"answer": answer, "tolerance": 0.1}))
}

/// Log-odds of a world in which an eighth is clicked: `shift` moves all, `slope` says how much items and users differ.
fn truth(item: u64, x: u64, shift: f64, slope: f64) -> f64 {
    -2.0 + shift + slope * (0.4 * (item as f64 - 2.0) + if item % 2 == x { 0.7 } else { -0.7 })
}

fn probability(margin: f64) -> f64 {
    1.0 / (1.0 + libm::exp(-margin))
}

/// Examples `from..to` of a world; each with its true probability.
fn world(random: &mut Random, from: i64, to: i64, shift: f64, slope: f64) -> Vec<(Row, f64)> {
    let one = |n: i64| {
        let (item, x) = (random.below(5), random.below(2));
        let p = probability(truth(item, x, shift, slope));
        let label = random.unit() < p;
        let id = format!("i{item}");
        let values = vec![text(&id), Category(x)];
        (Row { within: SECOND, item: id, ..Row::new(n * SECOND / 10, label, values) }, p)
    };
    (from..to).map(one).collect()
}

fn rows(of: &[(Row, f64)]) -> Vec<Row> {
    of.iter().map(|(row, _)| row.clone()).collect()
}

const N: i64 = 30_000;

/// A world of which twice as much is clicked from example N on.
fn doubled(seed: u64) -> Vec<Row> {
    let mut random = Random(seed);
    [rows(&world(&mut random, 0, N, 0.0, 1.0)), rows(&world(&mut random, N, 2 * N, 0.9, 1.0))].concat()
}

fn state(model: &Model) -> DriftState {
    model.summary().drift.unwrap().state
}

/// Examples until the state is another one than this.
fn until_not(model: &mut Model, schema: &Schema, rows: &[Row], state_now: DriftState) -> usize {
    let at = rows.iter().position(|row| {
        learn(model, schema, std::slice::from_ref(row));
        state(model) != state_now
    });
    at.expect("it becomes another one") + 1
}

fn loss(predicted: &[f64], rows: &[Row]) -> f64 {
    let loss = |(p, row): (&f64, &Row)| -libm::log(if row.label { *p } else { 1.0 - p });
    predicted.iter().zip(rows).map(loss).sum::<f64>() / rows.len() as f64
}

#[test]
fn an_alert_is_told_once_and_changes_nothing() {
    let (mut watched, schema) = (answering("alert"), schema(&NAMES));
    let mut plain = model(json!({"ftrl": {"bits": 10, "l1": 0.1}}), Value::Null);
    let rows = doubled(1);
    assert_eq!(learn(&mut watched, &schema, &rows[..N as usize]), learn(&mut plain, &schema, &rows[..N as usize]));
    assert!(watched.take_alarms().is_empty() && state(&watched) == DriftState::Stable);
    assert_eq!(learn(&mut watched, &schema, &rows[N as usize..]), learn(&mut plain, &schema, &rows[N as usize..]));
    let alarms = watched.take_alarms();
    let first = &alarms[0];
    assert_eq!((first.found.kind, first.done), (DriftKind::PredictsTooLow, Done::Told));
    assert!(first.found.example > N as u64 && first.found.example < N as u64 + 2_500, "{first:?}");
    assert_eq!(first.time_ms, (first.found.example as i64 - 1) * 100 + 1_000);
    assert!(first.observed_over_predicted > 1.1, "{first:?}");
    assert!(watched.take_alarms().is_empty());
    let report = watched.summary().drift.unwrap();
    assert_eq!((report.alarms_raised as usize, &report.alarms), (alarms.len(), &alarms));
    assert_eq!(watched.standing(), Standing::Trusted);
}

#[test]
fn who_forgets_faster_is_right_again_earlier() {
    let schema = schema(&NAMES);
    for seed in 0..5 {
        let rows = doubled(seed);
        let (before, after) = rows.split_at(N as usize);
        let of = |answer: &str| {
            let mut model = answering(answer);
            learn(&mut model, &schema, before);
            let found = until_not(&mut model, &schema, after, DriftState::Stable);
            let over = until_not(&mut model, &schema, &after[found..], DriftState::Predictions);
            let mut model = answering(answer);
            learn(&mut model, &schema, before);
            (found, over, loss(&learn(&mut model, &schema, after), after))
        };
        let (alert, faster) = (of("alert"), of("forgetFaster"));
        println!("seed {seed}: found, over, log loss: alert {alert:?}, forgetFaster {faster:?}");
        assert_eq!(alert.0, faster.0);
        assert!(faster.1 < alert.1 && faster.2 < alert.2, "{alert:?} {faster:?}");
    }
}

#[test]
fn less_evidence_leaves_the_weights_as_they_are() {
    for learner in [
        json!({"ftrl": {"bits": 10, "l1": 0.5}}),
        json!({"ftrl": {"bits": 10, "l1": 0.5, "halfLifeExamples": 3000}}),
        json!({"betaBernoulli": {}}),
    ] {
        let (mut model, schema) = (model(learner.clone(), json!({})), schema(&NAMES));
        let rows = rows(&world(&mut Random(4), 0, 5_000, 0.0, 1.0));
        learn(&mut model, &schema, &rows);
        let predict = |model: &mut Model| -> Vec<f64> {
            let of = |row: &Row| {
                model.predict(&crate::example::Example::read(&row.bytes(schema.id(), 0)).unwrap()).probability
            };
            rows[..50].iter().map(of).collect()
        };
        let before = predict(&mut model);
        let mut copy = model.serving([0]);
        copy.apply(&model.serving_delta()).unwrap();
        model.mark_clean();
        let mut whole = Vec::new();
        model.encode_all(&mut whole);
        model.discount();
        let after = predict(&mut model);
        let most = before.iter().zip(&after).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        // Items of Beta-Bernoulli go a little towards their base rate.
        let allowed = if learner.get("ftrl").is_some() { 1e-3 } else { 0.02 };
        assert!(most < allowed && before != after, "{learner}: {most}");
        // Changes and deltas hold all that is another one now.
        let mut changes = Vec::new();
        model.encode_changes(&mut changes);
        let mut loaded = compile(&spec(learner, json!({})), &NAMES);
        loaded.load_all(&whole).unwrap();
        loaded.apply_changes(&changes).unwrap();
        assert_eq!(loaded.digest(), model.digest());
    }
}

/// Scores the example as a serving copy does that is brought up to date before each.
fn served(model: &mut Model, copy: &mut ServingModel, row: &Row, scoring: &mut Scoring) -> f64 {
    copy.apply(&model.serving_delta()).unwrap();
    copy.score(&mut row.values.clone(), item_key(&row.item), Time(row.impression), scoring)
}

#[test]
fn default_content_shows_until_the_model_is_calibrated_again() {
    let (mut model, schema) = (answering("fallBackToDefault"), schema(&NAMES));
    let rows = doubled(2);
    let mut copy = model.serving([0]);
    let mut stood = Vec::new();
    for batch in rows.chunks(500) {
        learn(&mut model, &schema, batch);
        copy.apply(&model.serving_delta()).unwrap();
        stood.push(copy.standing());
    }
    let fell: Vec<usize> = (0..stood.len()).filter(|n| stood[*n] == Standing::FellBackToDefault).collect();
    println!("fell back in batches {fell:?} of 500");
    assert!(fell[0] >= 60 && fell[0] < 65, "{fell:?}");
    assert!(!fell.contains(&119) && stood.iter().all(|s| *s != Standing::FellBackToPrevious));
    let alarm = &model.take_alarms()[0];
    assert_eq!(alarm.done, Done::FellBackToDefault);
    // It is never back while its predictions are off.
    let first_back = fell[0] + fell.windows(2).take_while(|w| w[1] == w[0] + 1).count() + 1;
    let mut again = answering("alert");
    learn(&mut again, &schema, &rows[..(first_back - 2) * 500]);
    let window = &rows[(first_back - 2) * 500..first_back * 500];
    let predicted: f64 = learn(&mut again, &schema, window).iter().sum();
    let ratio = window.iter().filter(|row| row.label).count() as f64 / predicted;
    assert!((ratio - 1.0).abs() < 0.2, "{ratio}");
}

/// Sum of log losses against what is true, whatever was seen.
fn true_loss(p: f64, truth: f64) -> f64 {
    -truth * libm::log(p) - (1.0 - truth) * libm::log(1.0 - p)
}

#[test]
fn the_weights_of_before_outlast_a_passing_corruption() {
    let schema = schema(&NAMES);
    for seed in 0..3 {
        let mut random = Random(seed);
        let mut model = answering("fallBackToPrevious");
        learn(&mut model, &schema, &rows(&world(&mut random, 0, N, 0.0, 1.0)));
        // Clicks that nobody made: three times as many, on whatever.
        let mut seen = world(&mut random, N, N + 4_000, 0.0, 1.0);
        seen.iter_mut().for_each(|(row, _)| row.label |= random.below(4) == 0);
        seen.extend(world(&mut random, N + 4_000, 3 * N, 0.0, 1.0));
        let (mut copy, mut scoring) = (model.serving([0]), Scoring::default());
        let (mut of_served, mut of_model, mut fallen, mut back) = (0.0, 0.0, 0, None);
        for (n, (row, truth)) in seen.iter().enumerate() {
            let served = served(&mut model, &mut copy, row, &mut scoring);
            let stood = copy.standing();
            let own = learn(&mut model, &schema, std::slice::from_ref(row))[0];
            if stood == Standing::FellBackToPrevious {
                (of_served, of_model) = (of_served + true_loss(served, *truth), of_model + true_loss(own, *truth));
                fallen += 1;
                assert!(copy.version() < N as u64, "from before the corruption");
            } else {
                assert!((served - own).abs() < 1e-6, "the model itself serves: {served} {own}");
                back = back.or((fallen > 0).then_some(n));
            }
        }
        println!(
            "seed {seed}: {fallen} examples fell back, back at {back:?}; log loss {:.5} instead of {:.5}",
            of_served / fallen as f64,
            of_model / fallen as f64
        );
        assert!(fallen >= 10_000 && back.is_some(), "{fallen}");
        assert!(of_served < of_model, "{of_served} {of_model}");
        let first = &model.take_alarms()[0];
        assert_eq!((first.found.kind, first.done), (DriftKind::PredictsTooLow, Done::FellBackToPrevious));
        assert_eq!(model.standing(), Standing::Trusted);
    }
}

#[test]
fn a_column_that_moves_is_told_of_and_nothing_falls_back() {
    let (mut model, schema) = (answering("fallBackToDefault"), schema(&NAMES));
    let of = |random: &mut Random, from: i64, xs: u64| -> Vec<Row> {
        let plain = rows(&world(random, from, from + N, 0.0, 0.0));
        let moved = plain.into_iter().map(|row| {
            let x = random.below(xs);
            Row { values: vec![row.values[0], Category(x)], ..row }
        });
        moved.collect()
    };
    let mut random = Random(5);
    let (before, after) = (of(&mut random, 0, 2), of(&mut random, N, 4));
    learn(&mut model, &schema, &before);
    assert_eq!(model.take_alarms(), []);
    learn(&mut model, &schema, &after);
    let alarms = model.take_alarms();
    assert_eq!(alarms.len(), 1, "{alarms:?}");
    assert_eq!((alarms[0].found.column.as_deref(), alarms[0].done), (Some("x"), Done::Told));
    assert!(alarms[0].to_string().contains("`x`"), "{}", alarms[0]);
    assert_eq!((state(&model), model.standing()), (DriftState::Columns, Standing::Trusted));
}

#[test]
fn what_a_frozen_model_serves_stays_as_it_is() {
    for answer in ["forgetFaster", "fallBackToDefault", "fallBackToPrevious"] {
        let (mut live, schema) = (answering(answer), schema(&NAMES));
        let rows = doubled(3);
        learn(&mut live, &schema, &rows[..N as usize]);
        let mut state = Vec::new();
        live.encode_all(&mut state);
        let mut frozen = spec(json!({"ftrl": {"bits": 10, "l1": 0.1}}), json!({"answer": answer, "tolerance": 0.1}));
        frozen.models[0].frozen = true;
        let mut frozen = Model::compile(&frozen, model_of(&frozen), &schema).unwrap();
        frozen.load_all(&state).unwrap();
        let (mut copy, mut scoring) = (frozen.serving([0]), Scoring::default());
        let before: Vec<f64> = rows[..20].iter().map(|row| served(&mut frozen, &mut copy, row, &mut scoring)).collect();
        let version = copy.version();
        learn(&mut frozen, &schema, &rows[N as usize..]);
        let after: Vec<f64> = rows[..20].iter().map(|row| served(&mut frozen, &mut copy, row, &mut scoring)).collect();
        assert_eq!((before, version, Standing::Trusted), (after, copy.version(), copy.standing()), "{answer}");
        let alarms = frozen.take_alarms();
        assert!(!alarms.is_empty() && alarms.iter().all(|alarm| alarm.done == Done::Told), "{answer}: {alarms:?}");
    }
}

#[test]
fn only_what_it_learns_from_is_watched() {
    let mut of_one = spec(json!({"ftrl": {"bits": 10}}), json!({"tolerance": 0.1}));
    of_one.models[0].train_on = serde_json::from_value(json!({"variants": ["personal"]})).unwrap();
    let (mut model, schema) = (compile(&of_one, &NAMES), schema(&NAMES));
    let of = |variant: &str, rows: Vec<Row>| -> Vec<Row> {
        rows.into_iter().map(|row| Row { variant: format!("launch/{variant}"), ..row }).collect()
    };
    let rows = doubled(6);
    learn(&mut model, &schema, &of("personal", rows[..N as usize].to_vec()));
    learn(&mut model, &schema, &of("control", rows[N as usize..].to_vec()));
    assert_eq!(model.summary().drift.unwrap().detectors.examples, N as u64);
    assert_eq!(model.take_alarms(), []);
}

/// So sensitive that all there is happens within a few hundred examples, with false alarms.
fn nervous(model: &mut Model, answer: &str) {
    let drift =
        serde_json::from_value(json!({"answer": answer, "tolerance": 0.05, "runLengthExamples": 1000})).unwrap();
    let mut settings = WatchSettings::of(&drift);
    settings.detectors.warm_up_examples = 50;
    settings.detectors.window_examples = 150;
    settings.detectors.least_psi = 0.01;
    settings.detectors.examples_per_independent = 1.0;
    (settings.copy_every, settings.trial_examples, settings.contest_examples) = (40, 60, 90);
    settings.trial_positives = 8.0;
    // At so short a run, evidence is never far below what raises an alarm.
    settings.calm = 0.5;
    model.watch_with(settings);
}

const ANSWERS: [&str; 4] = ["alert", "forgetFaster", "fallBackToDefault", "fallBackToPrevious"];

fn unsteady(seed: u64, examples: i64) -> Vec<Row> {
    let mut random = Random(seed);
    let stretch = |n: i64| {
        let (shift, slope) = ([0.0, 1.2, 0.3, -0.9][n as usize % 4], [1.0, 1.0, -1.0, 2.0][n as usize / 2 % 4]);
        rows(&world(&mut random, n * 300, (n + 1) * 300, shift, slope))
    };
    (0..examples / 300).flat_map(stretch).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// Killed and restored anywhere: the same alarms, answers, copies and weights.
    #[test]
    fn a_restart_changes_nothing_of_it(
        seed in 0u64..50, answer in 0usize..4, is_beta: bool,
        cuts in prop::collection::vec((1usize..500, 0u8..3), 1..10),
    ) {
        let (schema, rows) = (schema(&NAMES), unsteady(seed, 3_000));
        let fresh = || {
            let learner = if is_beta { json!({"betaBernoulli": {}}) } else { json!({"ftrl": {"bits": 8, "l1": 0.01}}) };
            let mut model = model(learner, Value::Null);
            nervous(&mut model, ANSWERS[answer]);
            model
        };
        let mut straight = fresh();
        learn(&mut straight, &schema, &rows);
        let (mut live, mut parts, mut at) = (fresh(), Vec::<(Vec<u8>, usize)>::new(), 0);
        for (length, what) in cuts {
            let end = (at + length).min(rows.len());
            learn(&mut live, &schema, &rows[at..end]);
            at = end;
            if what == 0 && !parts.is_empty() {
                // Killed: what was learned since the last checkpoint is learned again.
                let digest = live.digest();
                let (last, mut restored) = (parts.len() - 1, fresh());
                let mut from = 0;
                for (n, (bytes, until)) in parts.iter().enumerate() {
                    if n == 0 { restored.load_all(bytes).unwrap() } else { restored.apply_changes(bytes).unwrap() }
                    if n == last { from = *until }
                }
                learn(&mut restored, &schema, &rows[from..at]);
                prop_assert_eq!(restored.digest(), digest);
                let mut whole = Vec::new();
                restored.encode_all(&mut whole);
                (live, parts) = (restored, vec![(whole, at)]);
            } else {
                let mut bytes = Vec::new();
                if parts.is_empty() || what == 1 {
                    parts.clear();
                    live.encode_all(&mut bytes);
                } else {
                    live.encode_changes(&mut bytes);
                }
                parts.push((bytes, at));
            }
            live.mark_clean();
        }
        learn(&mut live, &schema, &rows[at..]);
        prop_assert_eq!(live.digest(), straight.digest());
        prop_assert_eq!(live.summary(), straight.summary());
    }
}

#[test]
fn in_an_unsteady_world_everything_happens() {
    let (schema, mut done) = (schema(&NAMES), std::collections::BTreeMap::new());
    for answer in ANSWERS {
        for seed in 0..10 {
            let mut model = model(json!({"ftrl": {"bits": 8, "l1": 0.01}}), Value::Null);
            nervous(&mut model, answer);
            let mut copy = model.serving([0]);
            for row in unsteady(seed, 3_000) {
                let stood = model.standing();
                learn(&mut model, &schema, &[row]);
                copy.apply(&model.serving_delta()).unwrap();
                assert_eq!(copy.standing(), model.standing());
                if model.standing() != stood {
                    *done.entry(format!("{answer}: {stood:?} to {:?}", model.standing())).or_insert(0) += 1;
                }
            }
            for alarm in model.summary().drift.unwrap().alarms {
                *done.entry(format!("{answer}: {:?}, {:?}", alarm.found.kind, alarm.done)).or_insert(0) += 1;
            }
        }
    }
    println!("{done:#?}");
    for expected in [
        "alert: PredictsTooHigh, Told",
        "forgetFaster: PredictsTooLow, ForgotFaster",
        "fallBackToDefault: TooSteep, FellBackToDefault",
        "fallBackToDefault: TooFlat, Told",
        "fallBackToDefault: FellBackToDefault to Trusted",
        "fallBackToPrevious: PredictsTooHigh, FellBackToPrevious",
        "fallBackToPrevious: FellBackToPrevious to Trusted",
    ] {
        assert!(done.contains_key(expected), "{expected}");
    }
}

fn nervous_model() -> Model {
    let mut model = model(json!({"ftrl": {"bits": 6, "l1": 0.01}}), Value::Null);
    nervous(&mut model, "fallBackToPrevious");
    model
}

/// One that has fallen back, in the midst of a contest.
fn fallen() -> Model {
    let (mut model, schema) = (nervous_model(), schema(&NAMES));
    for row in unsteady(1, 3_000) {
        learn(&mut model, &schema, &[row]);
        let drift = model.summary().drift.unwrap();
        if model.standing() == Standing::FellBackToPrevious && drift.alarms.len() == 16 {
            break;
        }
    }
    assert_eq!(model.standing(), Standing::FellBackToPrevious);
    model
}

fn whole(model: &Model) -> Vec<u8> {
    let mut bytes = Vec::new();
    model.encode_all(&mut bytes);
    bytes
}

/// If this fails because the format was changed on purpose: raise the version, keep reading this one, and say so.
/// If it fails because results changed: raise the engine's version.
#[test]
fn version_3_is_as_it_was() {
    let (mut live, golden) = (fallen(), include_bytes!("model-v3.bin"));
    assert!(whole(&live) == golden, "the state of version 3 is written otherwise");
    let mut loaded = nervous_model();
    loaded.load_all(golden).unwrap();
    assert_eq!((loaded.digest(), loaded.summary()), (live.digest(), live.summary()));
    assert_eq!(format!("{:032x}", loaded.digest()), include_str!("model-v3.digest").trim());
    assert_eq!(loaded.serving_delta().bytes(), live.serving_delta().bytes());
}

/// A watch that begins where there was none, and one that is not declared any more.
#[test]
fn a_state_without_a_watch_begins_one_and_one_that_nobody_wants_is_passed_over() {
    let schema = schema(&NAMES);
    let plain = || model(json!({"ftrl": {"bits": 6, "l1": 0.01}}), Value::Null);
    let mut unwatched = plain();
    unwatched.load_all(&whole(&fallen())).unwrap();
    assert_eq!((unwatched.standing(), &unwatched.summary().drift), (Standing::Trusted, &None));
    let mut watched = nervous_model();
    watched.load_all(&whole(&unwatched)).unwrap();
    assert_eq!(watched.summary().drift.unwrap().detectors.examples, 0);
    learn(&mut watched, &schema, &unsteady(8, 3_000));
    assert!(!watched.take_alarms().is_empty());
}

#[test]
fn a_watch_goes_on_when_its_pipeline_changes() {
    let answers_of = |answer: &str| {
        let mut model = nervous_model();
        nervous(&mut model, answer);
        let mut old = fallen();
        let seen = old.summary().drift.unwrap();
        let serves = old.serving_delta();
        model.take_over(old);
        let now = model.summary().drift.unwrap();
        assert_eq!((now.alarms, now.alarms_raised, now.state), (seen.alarms, seen.alarms_raised, seen.state));
        assert_eq!(now.detectors.examples, seen.detectors.examples);
        (model.standing(), model.serving_delta().bytes() == serves.bytes())
    };
    assert_eq!(answers_of("fallBackToPrevious"), (Standing::FellBackToPrevious, true));
    assert_eq!(answers_of("alert"), (Standing::Trusted, false));
}

proptest! {
    #[test]
    fn a_damaged_watch_is_an_error_and_never_a_panic(at in any::<prop::sample::Index>(), bit in 0u8..8, cut: bool) {
        let bytes = include_bytes!("model-v3.bin");
        let mut damaged = bytes.to_vec();
        let at = at.index(bytes.len());
        if cut {
            damaged.truncate(at);
            prop_assert!(nervous_model().load_all(&damaged).is_err());
        } else {
            damaged[at] ^= 1 << bit;
            let mut model = nervous_model();
            // Whatever is accepted can be used.
            if model.load_all(&damaged).is_ok() {
                learn(&mut model, &schema(&NAMES), &unsteady(2, 300));
                model.serving_delta();
                model.summary();
            }
        }
    }
}
