use super::*;
use crate::experiment::tests::random::Random;

fn settings() -> DriftSettings {
    DriftSettings { warm_up_examples: 1_000, ..DriftSettings::default() }
}

/// Log-odds of a model whose predictions differ by a factor of e or so about 3 %.
fn margin(random: &mut Random) -> f64 {
    -3.5 + 0.7 * random.normal()
}

fn probability(margin: f64) -> f64 {
    1.0 / (1.0 + libm::exp(-margin))
}

/// Runs until `examples`, with positives as `truth` says of log-odds; alarms, and how many positives there were.
fn run(drift: &mut Drift, random: &mut Random, examples: u64, truth: impl Fn(f64) -> f64) -> (Vec<DriftAlarm>, u64) {
    let (mut alarms, mut positives) = (Vec::new(), 0);
    for _ in 0..examples {
        let margin = margin(random);
        let label = random.unit() < truth(margin);
        positives += u64::from(label);
        alarms.extend(drift.learn(&Prediction::of(-3.5, margin + 3.5), label, &[]));
    }
    (alarms, positives)
}

/// Positives until the first alarm, which must be of this kind, after 50,000 examples without drift.
fn delay(settings: DriftSettings, seed: u64, kind: DriftKind, truth: impl Fn(f64) -> f64) -> u64 {
    let (mut drift, mut random) = (Drift::new(settings, Vec::new()), Random(seed));
    let (before, _) = run(&mut drift, &mut random, 50_000, probability);
    assert_eq!(before, [], "seed {seed}");
    let mut positives = 0;
    for _ in 0..2_000 {
        let (alarms, more) = run(&mut drift, &mut random, 200, &truth);
        positives += more;
        if let Some(alarm) = alarms.first() {
            assert_eq!(alarm.kind, kind, "seed {seed}");
            return positives;
        }
    }
    panic!("seed {seed}: nothing found in {positives} positives");
}

fn mean_delay(kind: DriftKind, truth: impl Fn(f64) -> f64 + Copy) -> u64 {
    mean_delay_with(settings(), kind, truth)
}

fn mean_delay_with(settings: DriftSettings, kind: DriftKind, truth: impl Fn(f64) -> f64 + Copy) -> u64 {
    let mean = (0..20).map(|seed| delay(settings, seed, kind, truth)).sum::<u64>() / 20;
    println!("{kind:?}: found after {mean} positives");
    mean
}

/// The effect sizes that are found, see the numbers: twice, half, and one and a half times of what is predicted; ranks
/// that tell nothing any more; ranks that tell twice as much.
#[test]
fn drifts_are_found_within_so_many_positives() {
    assert!(mean_delay(DriftKind::PredictsTooLow, |m| 2.0 * probability(m)) <= 100);
    assert!(mean_delay(DriftKind::PredictsTooLow, |m| 1.5 * probability(m)) <= 300);
    assert!(mean_delay(DriftKind::PredictsTooHigh, |m| 0.5 * probability(m)) <= 70);
    assert!(mean_delay(DriftKind::PredictsTooHigh, |m| 0.7 * probability(m)) <= 400);
    assert!(mean_delay(DriftKind::TooSteep, |_| 0.0367) <= 300);
    assert!(mean_delay(DriftKind::TooFlat, |m| 0.75 * probability(-3.5 + 2.0 * (m + 3.5))) <= 400);
}

/// With what a pipeline has where it says nothing more than `drift: {}`; docs/pipeline.md tells these.
#[test]
fn the_defaults_of_a_pipeline_find_what_they_are_said_to() {
    let declared = watch::WatchSettings::of(&millrace_crds::spec::Drift::default()).detectors;
    assert!(mean_delay_with(declared, DriftKind::PredictsTooLow, |m| 2.0 * probability(m)) <= 100);
    assert!(mean_delay_with(declared, DriftKind::PredictsTooLow, |m| 1.5 * probability(m)) <= 400);
    assert!(mean_delay_with(declared, DriftKind::PredictsTooHigh, |m| 0.5 * probability(m)) <= 80);
    assert!(mean_delay_with(declared, DriftKind::PredictsTooHigh, |m| 0.7 * probability(m)) <= 1_000);
    assert!(mean_delay_with(declared, DriftKind::TooSteep, |_| 0.0367) <= 450);
}

/// At the edges of what is tolerated, with a run length so short that false alarms can be counted.
#[test]
fn false_alarms_are_as_rare_as_said() {
    let settings = DriftSettings { run_length_examples: 5_000.0, warm_up_examples: 0, ..settings() };
    type Truth = fn(f64) -> f64;
    let edges: [(&str, Truth); 5] = [
        ("right", probability),
        ("high", |m| 1.1 * probability(m)),
        ("low", |m| 0.9 * probability(m)),
        ("flat", |m| probability(-3.5 + 1.3 * (m + 3.5))),
        ("steep", |m| probability(-3.5 + 0.7 * (m + 3.5))),
    ];
    for (name, truth) in edges {
        let (mut alarms, examples) = (0, 100 * 20_000);
        for seed in 0..100 {
            let mut drift = Drift::new(settings, Vec::new());
            alarms += run(&mut drift, &mut Random(500 + seed), 20_000, truth).0.len();
        }
        println!("{name}: {alarms} alarms, at most {}", examples / 5_000);
        assert!(alarms <= examples / 5_000, "{name}: {alarms}");
    }
}

/// The bets win without bound against what is not so, and the evidence stays a number all the same.
#[test]
fn extreme_predictions_neither_over_nor_underflow() {
    let mut drift = Drift::new(DriftSettings { warm_up_examples: 0, ..settings() }, Vec::new());
    let mut alarms = 0;
    for n in 0..50_000 {
        let margin = if n % 2 == 0 { 700.0 } else { -700.0 };
        alarms += drift.learn(&Prediction::of(0.0, margin), margin < 0.0, &[]).len();
    }
    assert!(alarms > 100, "{alarms}");
    for _ in 0..200_000 {
        drift.learn(&Prediction::of(0.0, 20.0), true, &[]);
    }
    assert!(drift.summary().predictions.iter().all(|p| p.evidence.is_finite() && p.evidence >= 0.0));
}

const COLUMNS: usize = 10;

/// Numbers, categories, and a column with missing values; `shift` moves column 0, `other` favours a category in column 1.
fn values(random: &mut Random, shift: f64, other: f64) -> Vec<FeatureValue> {
    let value = |n: usize| match n {
        0 => FeatureValue::Number(random.normal() + shift),
        1 if random.unit() < other => FeatureValue::Category(3),
        2 if random.below(3) == 0 => FeatureValue::Missing,
        n if n % 2 == 1 => FeatureValue::Category(random.below(200) * random.below(50)),
        _ => FeatureValue::Number(libm::floor(10.0 * random.unit() * random.unit())),
    };
    (0..COLUMNS).map(value).collect()
}

fn names() -> Vec<String> {
    (0..COLUMNS).map(|n| format!("c{n}")).collect()
}

fn columns(settings: DriftSettings, seed: u64, examples: u64, shift: f64, other: f64) -> (Vec<DriftAlarm>, Drift) {
    let (mut drift, mut random, mut alarms) = (Drift::new(settings, names()), Random(seed), Vec::new());
    for n in 0..2 * examples {
        let values = if n < examples { values(&mut random, 0.0, 0.0) } else { values(&mut random, shift, other) };
        alarms.extend(drift.learn(&Prediction::of(-3.5, 0.0), random.below(33) == 0, &values));
    }
    alarms.retain(|a| a.kind == DriftKind::Column);
    (alarms, drift)
}

#[test]
fn columns_raise_false_alarms_as_rarely_as_said() {
    let settings = DriftSettings {
        run_length_examples: 20_000.0,
        window_examples: 1_000,
        least_psi: 0.0,
        examples_per_independent: 1.0,
        ..settings()
    };
    let alarms: usize = (0..20).map(|seed| columns(settings, seed, 11_000, 0.0, 0.0).0.len()).sum();
    println!("{alarms} alarms, {} expected at most", 20 * 20 * 1_000 / 20_000);
    assert!((1..=30).contains(&alarms), "{alarms} alarms, 20 expected at most");
}

#[test]
fn a_column_that_moves_is_found_and_named_once() {
    let settings = DriftSettings { window_examples: 2_000, examples_per_independent: 2.0, ..settings() };
    for seed in 0..10 {
        let (alarms, drift) = columns(settings, seed, 11_000, 0.8, 0.3);
        let found: Vec<Option<&str>> = alarms.iter().map(|a| a.column.as_deref()).collect();
        assert_eq!(found, [Some("c0"), Some("c1")], "seed {seed}: {alarms:?}");
        assert!(alarms.iter().all(|a| a.example == 13_000), "in the first whole window: {alarms:?}");
        let summary = drift.summary();
        assert!(summary.columns[0].drifted && !summary.columns[2].drifted);
        assert!(summary.columns[0].psi.is_some_and(|psi| psi > 0.2));
    }
    let (alarms, _) = columns(settings, 3, 11_000, 0.1, 0.02);
    assert_eq!(alarms, [], "small moves are no drift");
}

#[test]
fn kinds_are_named_as_they_are_serialised() {
    for number in 0..5 {
        let kind = DriftKind::of(number).unwrap();
        assert_eq!((serde_json::json!(kind), kind as u8), (serde_json::json!(kind.name()), number));
    }
    assert_eq!(DriftKind::of(5), None);
}

fn state() -> Drift {
    let settings = DriftSettings { window_examples: 200, warm_up_examples: 100, ..settings() };
    let (mut drift, mut random) = (Drift::new(settings, vec!["a".to_owned(), "b".to_owned()]), Random(9));
    for n in 0..1_450 {
        let values = [FeatureValue::Number((n % 37) as f64), FeatureValue::Category(random.below(5))];
        drift.learn(&Prediction::of(-2.0, random.unit()), random.below(9) == 0, &values);
    }
    drift
}

fn bytes(drift: &Drift) -> Vec<u8> {
    let mut out = Vec::new();
    drift.encode(&mut out);
    out
}

#[test]
fn the_state_is_golden() {
    let hex: String = bytes(&state()).iter().map(|b| format!("{b:02x}")).collect();
    let golden: String = include_str!("golden_v1.hex").split_whitespace().collect();
    assert_eq!(hex, golden);
}

#[test]
fn a_loaded_state_goes_on_alike() {
    for examples in [500, 1_100, 1_450] {
        let fresh = || Drift::new(settings(), names());
        let (mut one, mut random) = (fresh(), Random(4));
        for _ in 0..examples {
            one.learn(&Prediction::of(-2.0, random.unit()), random.below(9) == 0, &values(&mut random, 0.0, 0.0));
        }
        let (saved, mut other) = (bytes(&one), fresh());
        let mut r = Reader::new(&saved);
        other.load(&mut r).unwrap();
        assert!(r.is_empty());
        for _ in 0..3_000 {
            let (prediction, label) = (Prediction::of(-2.0, random.unit()), random.below(3) == 0);
            let values = values(&mut random, 1.0, 0.0);
            assert_eq!(one.learn(&prediction, label, &values), other.learn(&prediction, label, &values));
        }
        assert_eq!(bytes(&one), bytes(&other));
    }
}

#[test]
fn damaged_states_are_refused_and_never_panic() {
    let saved = bytes(&state());
    let load = |bytes: &[u8], names: [&str; 2]| {
        Drift::new(settings(), names.map(str::to_owned).to_vec()).load(&mut Reader::new(bytes))
    };
    assert_eq!(load(&saved, ["a", "b"]), Ok(()));
    assert!(load(&saved, ["a", "c"]).is_err(), "other columns");
    (0..saved.len()).for_each(|n| assert!(load(&saved[..n], ["a", "b"]).is_err(), "cut at {n}"));
    let mut random = Random(1);
    for _ in 0..2_000 {
        let mut damaged = saved.clone();
        let at = random.below(saved.len() as u64) as usize;
        let until = (at + 1 + random.below(8) as usize).min(saved.len());
        damaged[at..until].fill(random.bits() as u8 | (0xF0 * random.below(2) as u8));
        // Whatever is accepted can be used.
        let mut drift = Drift::new(settings(), vec!["a".to_owned(), "b".to_owned()]);
        if drift.load(&mut Reader::new(&damaged)).is_ok() {
            for _ in 0..300 {
                drift.learn(&Prediction::of(-2.0, 1.0), true, &[FeatureValue::Number(1.0), FeatureValue::Missing]);
            }
        }
    }
}
