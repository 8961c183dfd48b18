//! Fast paths against naive ones.

use std::collections::BTreeMap;

use millrace_crds::spec::{Bucket, Ftrl as Settings};
use proptest::prelude::*;
use serde_json::json;

use super::support::pipeline;
use crate::{
    event::{Seq, Time},
    example::{ExampleHead, FeatureValue},
    learn::{
        ftrl::{Entry, Ftrl},
        hashing::own_statistics,
        items::{Items, Series},
        ranking::Ranking,
        statistics::{Statistics, bucket_of},
        validation::{BaseRate, Prediction, Validation},
    },
};

/// McMahan et al. 2013, algorithm 1, as printed, with n and z multiplied down at every example.
#[derive(Default)]
struct NaiveFtrl {
    z: BTreeMap<u32, f64>,
    n: BTreeMap<u32, f64>,
}

impl NaiveFtrl {
    fn weight(&self, s: &Settings, i: u32) -> f64 {
        let (z, n) = (self.z.get(&i).copied().unwrap_or(0.0), self.n.get(&i).copied().unwrap_or(0.0));
        if z.abs() <= s.l1 { 0.0 } else { -(z - z.signum() * s.l1) / ((s.beta + n.sqrt()) / s.alpha + s.l2) }
    }
    fn margin(&self, s: &Settings, x: &BTreeMap<u32, f64>) -> f64 {
        x.iter().map(|(i, x)| self.weight(s, *i) * x).sum()
    }
    fn learn(&mut self, s: &Settings, x: &BTreeMap<u32, f64>, derivative: f64) {
        for (i, x) in x {
            let weight = self.weight(s, *i);
            let g = derivative * x;
            let n = self.n.entry(*i).or_default();
            let sigma = ((*n + g * g).sqrt() - n.sqrt()) / s.alpha;
            *self.z.entry(*i).or_default() += g - sigma * weight;
            *n += g * g;
        }
        if let Some(h) = s.half_life_examples {
            self.n.values_mut().for_each(|n| *n *= libm::exp2(-1.0 / h));
            self.z.values_mut().for_each(|z| *z *= libm::exp2(-0.5 / h));
        }
    }
}

fn examples() -> impl Strategy<Value = Vec<(BTreeMap<u32, f64>, bool)>> {
    let features = prop::collection::btree_map(0u32..40, prop_oneof![Just(1.0), -3.0..3.0], 1..8);
    prop::collection::vec((features, any::<bool>()), 1..200)
}

proptest! {
    #[test]
    fn ftrl_is_the_papers(examples in examples(), l1 in 0.0..2.0, l2 in 0.0..2.0, half_life in prop::option::of(2.0..50.0)) {
        let settings = Settings { alpha: 0.3, beta: 0.7, l1, l2, bits: 6, half_life_examples: half_life };
        let (mut fast, mut naive, mut weights) = (Ftrl::new(&settings), NaiveFtrl::default(), Vec::new());
        for (x, label) in &examples {
            let entries: Vec<Entry> = x.iter().map(|(index, value)| Entry { index: *index, value: *value }).collect();
            let (margin, expected) = (fast.margin(&entries, &mut weights), naive.margin(&settings, x));
            prop_assert!((margin - expected).abs() <= 1e-9 * (1.0 + expected.abs()), "{margin} {expected}");
            let derivative = Prediction::of(0.0, margin).probability - f64::from(u8::from(*label));
            fast.learn(&entries, &weights, derivative);
            naive.learn(&settings, x, derivative);
        }
    }

    #[test]
    fn predictions_are_the_logistic_function_and_its_loss(margin in -40.0..40.0, label: bool) {
        let prediction = Prediction::of(margin, 0.0);
        let p = 1.0 / (1.0 + libm::exp(-margin));
        prop_assert!((prediction.probability - p).abs() < 1e-15);
        let loss = libm::log1p(libm::exp(if label { -margin } else { margin }));
        prop_assert!((prediction.loss(label) - loss).abs() <= 1e-12 * (1.0 + loss));
    }

    #[test]
    fn statistics_see_exactly_the_closed_buckets(
        steps in prop::collection::vec((0i64..40, 0u8..4, any::<bool>()), 1..120),
        within in 0i64..60, buckets in 1u32..5, tumbling: bool,
    ) {
        statistics_case(&steps, within, buckets, tumbling)?;
    }

    #[test]
    fn validation_is_that_of_all_predictions_kept(
        scored in prop::collection::vec((-3.0..3.0f64, any::<bool>()), 1..400),
    ) {
        validation_case(&scored)?;
    }
}

/// All examples so far: (time in s, item, label).
type History = [(i64, u8, bool)];

fn tally(history: &History, item: Option<u8>, from: i64, to: i64) -> (f64, f64) {
    let seen = history.iter().filter(|(t, i, _)| (from..to).contains(t) && item.is_none_or(|item| item == *i));
    seen.fold((0.0, 0.0), |(n, p), (_, _, label)| (n + 1.0, p + f64::from(u8::from(*label))))
}

fn statistics_case(steps: &[(i64, u8, bool)], within: i64, buckets: u32, tumbling: bool) -> Result<(), TestCaseError> {
    let window = 20 * i64::from(buckets);
    let features = json!({
        "n": {"per": "item", "count": "impression", "window": format!("{window}s"), "buckets": buckets, "tumbling": tumbling},
        "both": {"per": "item", "count": ["impression", "click"]},
        "r": {"per": "item", "ratio": ["click", "impression"], "window": format!("{window}s"), "buckets": buckets,
            "smoothing": 2, "bucket": {"bounds": [0.1, 0.3, 0.5, 0.7]}, "tumbling": tumbling},
        "g": {"per": "global", "count": "click", "window": format!("{window}s"), "buckets": buckets, "tumbling": tumbling},
        "lift": {"per": "global", "ratio": ["click", "impression"], "window": format!("{window}s"), "buckets": buckets,
            "tumbling": tumbling},
    });
    let names = ["n", "both", "r", "g", "lift"];
    let spec = pipeline(features, &format!("{within}s"), json!({"name": "m", "outcome": "click", "features": names}));
    prop_assert_eq!(own_statistics(&spec, &spec.models[0]), names);
    let mut statistics = Statistics::compile(&spec, &names, &spec.outcomes["click"]).unwrap();
    let mut history = Vec::new();
    let mut now = 0;
    for (wait, item, label) in steps {
        now += wait;
        let head = ExampleHead {
            seq: Seq::START,
            time: Time((now + within) * 1_000_000),
            impression: Time(now * 1_000_000),
            label: *label,
            position: -1,
            propensity: f64::NAN,
            placement: "",
            platform: "",
            item: "",
            schema: 0,
            ..ExampleHead::default()
        };
        let mut values = Vec::new();
        let mut moments = Vec::new();
        statistics.moments(head.impression, &mut moments);
        values.extend((0..names.len()).map(|n| statistics.value(n, &moments[n], u64::from(*item))));
        let open = now.div_euclid(20) * 20;
        let first = if tumbling { now.div_euclid(window) * window } else { open - window };
        let number = |x: f64| FeatureValue::Number(x);
        let (n, p) = tally(&history, Some(*item), first, open);
        let (all_n, all_p) = tally(&history, None, first, open);
        prop_assert_eq!(values[0], number(n));
        // Unwindowed: buckets of an eighth of `within`, at least a second, in which all times here lie.
        let closed = (now * 8_000_000).div_euclid((within * 1_000_000).max(8_000_000)) as f64;
        let width = (within * 1_000_000 / 8).max(1_000_000) as f64 / 1e6;
        let seen: Vec<_> = history.iter().filter(|(t, ..)| ((*t as f64) / width).floor() < closed).copied().collect();
        let (total_n, total_p) = tally(&seen, Some(*item), i64::MIN, i64::MAX);
        prop_assert_eq!(values[1], number(total_n + total_p));
        let expected = match all_p > 0.0 {
            true => {
                let ratio = (p + 2.0 * (all_p / all_n)) / (n + 2.0);
                FeatureValue::Category([0.1, 0.3, 0.5, 0.7].iter().filter(|b| **b <= ratio).count() as u64)
            }
            false => FeatureValue::Missing,
        };
        prop_assert_eq!(values[2], expected);
        prop_assert_eq!(values[3], number(all_p));
        let (ever_n, ever_p) = tally(&history, None, i64::MIN, open);
        let expected = match all_n > 0.0 && ever_p > 0.0 {
            true => number(libm::log(((all_p / all_n) / (ever_p / ever_n)).max(1e-9)).clamp(-4.0, 4.0)),
            false => FeatureValue::Missing,
        };
        prop_assert_eq!(values[4], expected);
        statistics.learn(&head, u64::from(*item));
        history.push((now + within, *item, *label));
    }
    Ok(())
}

fn validation_case(scored: &[(f64, bool)]) -> Result<(), TestCaseError> {
    let (mut validation, mut base) = (Validation::default(), BaseRate::new(None));
    let (mut loss, mut base_loss, mut sum, mut positives) = (0.0, 0.0, 0.0, 0.0);
    for (seen, (margin, label)) in scored.iter().enumerate() {
        let prediction = Prediction::of(0.5, *margin);
        let p = 1.0 / (1.0 + libm::exp(-0.5 - margin));
        let q = (positives + 0.5) / (seen as f64 + 1.0);
        let cost = |p: f64| -libm::log(if *label { p } else { 1.0 - p });
        (loss, base_loss, sum) = (loss + cost(p), base_loss + cost(q), sum + p);
        validation.score(&prediction, base.loss(*label), *label, if *margin < 0.0 { "a" } else { "b" }, 3);
        base.learn(*label);
        positives += f64::from(u8::from(*label));
    }
    let summary = validation.summary();
    let close = |a: Option<f64>, b: f64| a.is_some_and(|a| (a - b).abs() < 1e-9 * (1.0 + b.abs()));
    let (total, n) = (&summary.total, scored.len() as f64);
    prop_assert!(close(total.log_loss, loss / n) && close(total.base_log_loss, base_loss / n));
    prop_assert!(positives == 0.0 || close(total.calibration, sum / positives));
    let mut pairs = 0.0;
    let mut right = 0.0;
    for (a, _) in scored.iter().filter(|(_, label)| *label) {
        for (b, _) in scored.iter().filter(|(_, label)| !*label) {
            pairs += 1.0;
            right += if a > b {
                1.0
            } else if a == b {
                0.5
            } else {
                0.0
            };
        }
    }
    match total.auc {
        Some(auc) => prop_assert!((auc - right / pairs).abs() <= total.auc_bin_error.unwrap() + 1e-12),
        None => prop_assert!(pairs == 0.0),
    }
    // Fewer than a window's examples: the same figures, summed in blocks.
    prop_assert_eq!(summary.window.auc, total.auc);
    prop_assert_eq!(summary.window.examples, total.examples);
    prop_assert_eq!(summary.placements.iter().map(|s| s.figures.examples).sum::<u64>(), total.examples);
    prop_assert_eq!(summary.positions[0].key.as_str(), "3");
    Ok(())
}

#[test]
fn the_window_forgets_and_the_worst_ratio_remembers() {
    let mut validation = Validation::default();
    let base = libm::log(2.0);
    for n in 0..25_500 {
        // Wrong at first, then right.
        let margin = if n < 5_000 { -1.0 } else { 1.0 };
        validation.score(&Prediction::of(0.0, margin), base, true, "p", -1);
    }
    let summary = validation.summary();
    assert_eq!(summary.window.examples, 9_500);
    assert!((summary.window.log_loss.unwrap() - libm::log1p(libm::exp(-1.0))).abs() < 1e-9);
    assert!((summary.worst_ratio_to_base.unwrap() - libm::log1p(libm::exp(1.0)) / base).abs() < 1e-9);
    assert!(summary.positions.is_empty());
}

#[test]
fn segments_are_bounded() {
    let mut validation = Validation::default();
    for n in 0..500 {
        validation.score(&Prediction::of(0.0, 0.1), 0.7, n % 2 == 0, &n.to_string(), n);
    }
    let summary = validation.summary();
    for segments in [&summary.placements, &summary.positions] {
        assert_eq!(segments.len(), 33);
        assert_eq!((segments[32].key.as_str(), segments[32].figures.examples), ("(other)", 468));
    }
}

#[test]
fn items_expire_and_the_longest_unseen_makes_room() {
    let mut items: Items<Series> = Items::with_capacity_limit(3);
    for (key, bucket) in [(1, 0), (2, 1), (3, 2), (1, 3), (4, 4)] {
        items.update(key, -10, |series| series.add(bucket, true, -10));
    }
    assert!(items.get(2).is_none(), "2 was not seen longest");
    assert_eq!(items.get(1).unwrap().between(0, 9).impressions, 2);
    items.update(5, 4, |series| series.add(20, false, 4));
    assert_eq!((items.len(), items.get(3).is_none(), items.get(1).is_none()), (2, true, true));
    assert_eq!(items.get(4).unwrap().between(4, 5).outcomes, 1);
}

#[test]
fn the_area_counts_ties_half() {
    let mut ranking = Ranking::new(3);
    for (bin, label) in [(0, false), (1, false), (1, true), (2, true)] {
        ranking.add(bin, label);
    }
    let auc = ranking.auc().unwrap();
    assert_eq!((auc.value, auc.bin_error), (0.875, 0.125));
    // Hanley and McNeil's own example (table I, 1982): area .893, 51 abnormal and 58 normal images.
    let printed = crate::learn::ranking::Auc { value: 0.893, bin_error: 0.0, positives: 51, negatives: 58 };
    assert!((printed.standard_error() - 0.032).abs() < 0.001, "{}", printed.standard_error());
}

#[test]
fn buckets_are_as_the_spec_says() {
    let log2 = Bucket { log2: Some(2.0), max: Some(14), ..Bucket::default() };
    let of = |x| bucket_of(&log2, x);
    assert_eq!([of(0.0), of(0.99), of(1.0), of(2.0), of(3.0), of(8.0), of(1e9)], [0, 0, 0, 2, 3, 6, 14]);
    let max = Bucket { max: Some(15), ..Bucket::default() };
    assert_eq!(
        [bucket_of(&max, 0.0), bucket_of(&max, 7.0), bucket_of(&max, 99.0), bucket_of(&max, -3.0)],
        [0, 7, 15, 0]
    );
}
