use super::*;
use crate::experiment::tests::random::Random;

/// Click rates of 4 items at 2 positions.
fn rate(item: usize, position: usize) -> f64 {
    [0.02, 0.05, 0.1, 0.2][item] / (position + 1) as f64
}

const LOGGING: [f64; 4] = [0.4, 0.3, 0.2, 0.1];

fn log(decisions: usize, seed: u64) -> Vec<Logged> {
    let mut random = Random(seed);
    let decide = |n: usize| {
        let (mut item, mut left) = (0, random.unit());
        while item < 3 && left > LOGGING[item] {
            left -= LOGGING[item];
            item += 1;
        }
        let position = n % 2;
        let reward = f64::from(u8::from(random.unit() < rate(item, position)));
        Logged { item, position, reward, propensity: LOGGING[item] }
    };
    (0..decisions).map(decide).collect()
}

fn target() -> Policy {
    let shares = [0.1, 0.1, 0.2, 0.6];
    Policy::new((0..2).flat_map(|p| (0..4).map(move |i| (i, p, shares[i])))).unwrap()
}

fn truth(target: &Policy) -> f64 {
    let of = |p: usize| (0..4).map(|i| target.probability(i, p) * rate(i, p)).sum::<f64>();
    (of(0) + of(1)) / 2.0
}

#[test]
fn every_estimator_finds_the_targets_value() {
    let (target, mut covered) = (target(), [0; 3]);
    for seed in 0..300 {
        let report = evaluate(&log(4_000, seed), &target, 200).unwrap();
        let values = [report.ips, report.snips, report.doubly_robust];
        for (count, found) in covered.iter_mut().zip(values) {
            assert!((found.value / truth(&target) - 1.0).abs() < 0.45, "{found:?} for {}", truth(&target));
            *count += u32::from(found.low <= truth(&target) && truth(&target) <= found.high);
        }
        assert!(report.is_believable() && report.warnings.is_empty(), "{report:?}");
    }
    // A percentile bootstrap of skewed terms covers a little less than it says.
    assert!(covered.iter().all(|c| (267..=294).contains(c)), "{covered:?} of 300 intervals of 95 % cover");
}

#[test]
fn the_logging_policy_itself_has_weights_of_one() {
    let log = log(2_000, 7);
    let same = Policy::new((0..2).flat_map(|p| (0..4).map(move |i| (i, p, LOGGING[i])))).unwrap();
    let report = evaluate(&log, &same, 10).unwrap();
    assert!((report.effective_sample_size - 2_000.0).abs() < 1e-6);
    for value in [report.ips.value, report.snips.value] {
        assert!((value - report.logged_value).abs() < 1e-12);
    }
}

/// The propensities are twice what they were: IPS is wrong by half, the weights say so.
#[test]
fn wrong_propensities_are_warned_of() {
    let mut log = log(4_000, 3);
    log.iter_mut().for_each(|d| d.propensity = (2.0 * d.propensity).min(1.0));
    let report = evaluate(&log, &target(), 10).unwrap();
    assert!(report.warnings.iter().any(|w| w.contains("mean weight")), "{:?}", report.warnings);
}

#[test]
fn items_never_logged_are_warned_of() {
    let log: Vec<Logged> = log(4_000, 3).into_iter().filter(|d| d.item != 3).collect();
    let report = evaluate(&log, &target(), 10).unwrap();
    assert!((report.unseen - 0.6).abs() < 1e-12);
    assert!(report.warnings.iter().any(|w| w.contains("never logged")), "{:?}", report.warnings);
}

#[test]
fn too_few_rewards_or_decisions_are_refused() {
    let few = evaluate(&log(60, 1), &target(), 10).unwrap();
    assert!(few.effective_sample_size < LEAST_EFFECTIVE && !few.is_believable());
    let mut without = log(4_000, 1);
    without.iter_mut().skip(100).for_each(|d| d.reward = 0.0);
    let report = evaluate(&without, &target(), 10).unwrap();
    assert!(report.effective_sample_size > LEAST_EFFECTIVE && !report.is_believable(), "{report:?}");
    assert!(report.refusals.iter().any(|r| r.contains("rewarded")));
}

/// Rewards that the model knows but for noise: doubly robust is as good as IPS where IPS is noisy.
#[test]
fn doubly_robust_varies_less_where_rewards_are_known() {
    let mut log = log(4_000, 5);
    log.iter_mut().for_each(|d| d.reward = 10.0 + rate(d.item, d.position));
    let report = evaluate(&log, &target(), 200).unwrap();
    let width = |i: Interval| i.high - i.low;
    assert!(width(report.doubly_robust) < 0.1 * width(report.ips), "{report:?}");
}

#[test]
fn what_cannot_be_evaluated_is_told() {
    let target = target();
    let one = Logged { item: 0, position: 0, reward: 1.0, propensity: 0.5 };
    let error = |d: Logged| evaluate(&[one, d], &target, 1).unwrap_err();
    assert_eq!(evaluate(&[], &target, 1), Err(OffPolicyError::Empty));
    assert_eq!(error(Logged { propensity: 0.0, ..one }), OffPolicyError::Propensity { row: 1, value: 0.0 });
    assert_eq!(error(Logged { position: 2, ..one }), OffPolicyError::Position { row: 1, position: 2 });
    assert!(matches!(error(Logged { reward: f64::NAN, ..one }), OffPolicyError::Reward { row: 1, .. }));
    assert!(matches!(Policy::new([(0, 1, 0.5)]), Err(OffPolicyError::Sum { position: 1, .. })));
    assert!(matches!(Policy::new([(0, 0, 1.5)]), Err(OffPolicyError::Probability { .. })));
    assert_eq!(Policy::new([(0, 0, 0.5), (0, 0, 0.5)]), Err(OffPolicyError::Twice { position: 0, item: 0 }));
}
