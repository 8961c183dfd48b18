//! What a report says.

use super::random::Random;
use crate::experiment::{ExperimentReport, Metric, Settings, UserSums, VariantSums, report::Need};

const ALL: [Metric; 3] = [Metric::Ctr, Metric::RevenuePerUser, Metric::RevenuePerBasket];

fn sums(users: u64, rate: f64, seed: u64) -> VariantSums {
    let (mut random, mut sums) = (Random(seed), VariantSums::default());
    for _ in 0..users {
        let clicks = (0..10).filter(|_| random.unit() < rate).count() as u32;
        let orders = clicks.min(1);
        let revenue_micros = i64::from(orders) * (5_000_000 + random.below(10_000_000) as i64);
        let user = UserSums { impressions: 10, clicks, orders, revenue_micros };
        sums.replace(&UserSums::default(), &user).unwrap();
    }
    sums
}

#[test]
fn a_report_of_enough_users_tells_lifts() {
    let arms = [("a", 50, sums(4_000, 0.05, 1)), ("b", 25, sums(2_000, 0.05, 2)), ("c", 25, sums(2_000, 0.1, 3))];
    let report = ExperimentReport::running(&Settings::default(), &arms, 0, &ALL);
    assert_eq!(report.control, "a");
    assert!(report.sample_ratio.as_ref().is_some_and(|r| r.p_value == 1.0 && !r.alarm));
    let ctr = &report.metrics[0];
    assert!(ctr.variants[0].lift.is_none() && ctr.variants[0].fixed_horizon.is_none(), "control has none");
    let same = ctr.variants[1].lift.as_ref().unwrap();
    assert!(same.low < 0.0 && same.high > 0.0 && !same.excludes_zero, "{same:?}");
    let better = ctr.variants[2].lift.as_ref().unwrap();
    assert!(better.low < 1.0 && better.high > 1.0 && better.excludes_zero, "{better:?}");
    assert!(better.always_valid_p_value < 1e-6);
    assert!(ctr.variants[2].fixed_horizon.as_ref().is_some_and(|f| f.z > 10.0));
}

#[test]
fn a_variant_and_control_change_places_symmetrically() {
    let (a, b) = (sums(3_000, 0.05, 4), sums(3_000, 0.06, 5));
    let of = |control| {
        let arms = [("a", 1, a.clone()), ("b", 1, b.clone())];
        let report = ExperimentReport::running(&Settings::default(), &arms, control, &[Metric::Ctr]);
        report.metrics[0].variants[1 - control].lift.clone().unwrap()
    };
    let (there, back) = (of(0), of(1));
    assert!(((1.0 + there.low) * (1.0 + back.high) - 1.0).abs() < 1e-12);
    assert_eq!(there.excludes_zero, back.excludes_zero);
}

#[test]
fn too_few_users_say_nothing_and_why() {
    let arms = [("a", 1, sums(90, 0.3, 1)), ("b", 1, sums(2_000, 0.05, 2)), ("c", 1, VariantSums::default())];
    let report = ExperimentReport::running(&Settings::default(), &arms, 0, &ALL);
    for metric in &report.metrics {
        assert!(metric.variants.iter().all(|v| v.lift.is_none()), "{metric:?}");
    }
    assert_eq!(report.metrics[0].variants[0].needs, [Need::Users { has: 90, needs: 100 }]);
    assert_eq!(report.metrics[0].variants[1].needs, []);
    assert_eq!(report.metrics[0].variants[2].needs.len(), 3);
    assert!(report.sample_ratio.is_some_and(|r| r.alarm));
}

#[test]
fn the_json_is_in_camel_case_without_nan() {
    let arms = [("a", 1, sums(500, 0.1, 1)), ("b", 1, VariantSums::default())];
    let report = ExperimentReport::running(&Settings::default(), &arms, 0, &ALL);
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["metrics"][0]["metric"], "ctr");
    assert_eq!(json["metrics"][0]["variants"][1]["value"], serde_json::Value::Null);
    assert_eq!(
        json["metrics"][0]["variants"][1]["needs"][0],
        serde_json::json!({"kind": "users", "has": 0, "needs": 100})
    );
    assert!(json["sampleRatio"]["alwaysValidPValue"].is_number());
}
