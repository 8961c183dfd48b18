//! Propensities against frequencies.

use std::collections::BTreeMap;

use super::*;

const SCORES: [f64; 6] = [0.10, 0.30, 0.25, 0.30, 0.05, 0.28];
const SLOTS: usize = 3;
const SEEDS: u64 = 60_000;

fn rules() -> Vec<Rule> {
    let explores = [
        Explore::Greedy,
        Explore::Epsilon { epsilon: 0.3, last_slot_only: false },
        Explore::Epsilon { epsilon: 0.6, last_slot_only: true },
        Explore::Softmax { temperature: 0.1 },
        Explore::Thompson { samples: 20 },
    ];
    explores
        .into_iter()
        .flat_map(|explore| [0.0, 0.05, 0.9].map(|min_propensity| Rule { explore, min_propensity }))
        .collect()
}

/// A belief around each score, wide enough to overlap.
fn draw(candidate: usize, rng: &mut Rng) -> f64 {
    rng.beta(20.0 * SCORES[candidate], 20.0 * (1.0 - SCORES[candidate]))
}

fn slate_of(rule: &Rule, seed: u64) -> Vec<Pick> {
    Slate::default().draw(&SCORES, rule, SLOTS, &mut Rng::new(seed), draw).to_vec()
}

/// Within 4.5 standard errors of a share p of n.
fn assert_share(found: f64, n: f64, p: f64, what: &str) {
    let error = (p * (1.0 - p) / n).sqrt();
    assert!((found / n - p).abs() <= 4.5 * error + 1e-12, "{what}: {found} of {n} for a propensity of {p}");
}

/// Each candidate's count and propensity.
type BySlot = BTreeMap<usize, (f64, f64)>;

#[test]
fn exact_propensities_are_the_frequencies_given_the_slots_before() {
    for rule in rules().iter().filter(|rule| !matches!(rule.explore, Explore::Thompson { .. })) {
        // By the slots before: how often, and each candidate's count and propensity.
        let mut seen: BTreeMap<Vec<usize>, (f64, BySlot)> = BTreeMap::new();
        for seed in 0..SEEDS {
            let mut before = Vec::new();
            for pick in slate_of(rule, seed) {
                assert_eq!(pick.error, None);
                let (n, of) = seen.entry(before.clone()).or_default();
                *n += 1.0;
                let (count, propensity) = of.entry(pick.candidate).or_insert((0.0, pick.propensity));
                *count += 1.0;
                assert_eq!(*propensity, pick.propensity, "{rule:?}: another propensity after {before:?}");
                before.push(pick.candidate);
            }
        }
        for (before, (n, of)) in &seen {
            let mut sum = 0.0;
            for (candidate, (count, propensity)) in of {
                assert_share(*count, *n, *propensity, &format!("{rule:?}: {candidate} after {before:?}"));
                sum += propensity;
            }
            assert!(sum < 1.0 + 1e-9, "{rule:?}");
            // Where much was seen, all was seen that can be.
            assert!(*n < 20_000.0 || (sum - 1.0).abs() < 1e-9, "{rule:?}: {sum} after {before:?}");
        }
    }
}

/// In every slot: the mean, over all seeds in which a candidate still remained, of [it is shown] / propensity is 1.
#[test]
fn inverse_propensities_are_unbiased_for_every_policy_and_slot() {
    for rule in rules() {
        let mut sums = [[(0.0, 0.0, 0.0); SCORES.len()]; SLOTS];
        for seed in 0..SEEDS {
            let mut shown = Vec::new();
            for (slot, pick) in slate_of(&rule, seed).iter().enumerate() {
                for candidate in (0..SCORES.len()).filter(|c| !shown.contains(c)) {
                    let weight = if candidate == pick.candidate { 1.0 / pick.propensity } else { 0.0 };
                    let (n, sum, squares) = &mut sums[slot][candidate];
                    (*n, *sum, *squares) = (*n + 1.0, *sum + weight, *squares + weight * weight);
                }
                shown.push(pick.candidate);
            }
        }
        for (slot, candidate) in (0..SLOTS).flat_map(|slot| (0..SCORES.len()).map(move |c| (slot, c))) {
            let (n, sum, squares) = sums[slot][candidate];
            let reaches_all = rule.min_propensity > 0.0
                || match rule.explore {
                    Explore::Greedy | Explore::Thompson { .. } => false,
                    Explore::Epsilon { last_slot_only, .. } => !last_slot_only || slot + 1 == SLOTS,
                    Explore::Softmax { .. } => true,
                };
            if n < 1_000.0 || !reaches_all {
                continue;
            }
            let (mean, error) = (sum / n, ((squares / n - sum / n * sum / n) / n).sqrt());
            assert!((mean - 1.0).abs() < 4.5 * error + 1e-9, "{rule:?}, slot {slot}, {candidate}: {mean} ± {error}");
        }
    }
}

#[test]
fn propensities_of_a_slot_sum_to_one_and_none_is_too_small() {
    for rule in rules() {
        for (seed, slots) in (0..200).flat_map(|seed| (1..=SCORES.len()).map(move |slots| (seed, slots))) {
            let mut slate = Slate::default();
            let picks = slate.draw(&SCORES, &rule, slots, &mut Rng::new(seed), draw).to_vec();
            // Of the last slot, or the first if there is one.
            let sum: f64 = slate.propensities.iter().sum();
            assert!((sum - 1.0).abs() < 1e-12, "{rule:?}: {sum}");
            assert_eq!(slate.propensities.len(), SCORES.len() + 1 - slots);
            let least = rule.min_propensity.min(1.0 / slate.propensities.len() as f64) - 1e-15;
            assert!(slate.propensities.iter().all(|p| *p >= least), "{rule:?}: {:?}", slate.propensities);
            let mut shown: Vec<usize> = picks.iter().map(|pick| pick.candidate).collect();
            shown.sort_unstable();
            shown.dedup();
            assert_eq!(shown.len(), slots, "one was shown twice");
        }
    }
}

/// Thompson: how often each is shown in the first slot, what was logged of it on average, and how probable it is to be the
/// best, by an integral over the Betas' densities.
#[test]
fn thompson_shows_each_as_often_as_it_is_probably_the_best() {
    let beliefs = [(2.0, 6.0), (3.0, 5.0), (6.0, 10.0), (1.0, 9.0)];
    let rule = Rule { explore: Explore::Thompson { samples: 50 }, min_propensity: 0.0 };
    let (mut shown, mut logged, mut spread) = ([0.0; 4], [0.0; 4], [0.0; 4]);
    let (n, mut errors) = (20_000.0, [0.0; 4]);
    for seed in 0..20_000u64 {
        let mut slate = Slate::default();
        let draw = |candidate: usize, rng: &mut Rng| rng.beta(beliefs[candidate].0, beliefs[candidate].1);
        let pick = slate.draw(&[0.0; 4], &rule, 1, &mut Rng::new(seed), draw)[0];
        shown[pick.candidate] += 1.0;
        let rows = slate.rows.best.len() as f64;
        for (candidate, share) in slate.propensities.iter().copied().enumerate() {
            logged[candidate] += share;
            spread[candidate] += share * share;
            errors[candidate] += share * (1.0 - share) / rows;
        }
        let share = pick.propensity;
        assert!((pick.error.unwrap() - (share * (1.0 - share) / rows).sqrt()).abs() < 1e-12);
    }
    let steps = 20_000;
    let log_beta = |a: f64, b: f64| libm::lgamma(a) + libm::lgamma(b) - libm::lgamma(a + b);
    let density =
        |(a, b): (f64, f64), x: f64| libm::exp((a - 1.0) * libm::log(x) + (b - 1.0) * libm::log1p(-x) - log_beta(a, b));
    let mut below = [0.0; 4];
    let mut best = [0.0; 4];
    for step in 0..steps {
        let x = (f64::from(step) + 0.5) / f64::from(steps);
        let densities = beliefs.map(|belief| density(belief, x) / f64::from(steps));
        for candidate in 0..4 {
            let others = (0..4).filter(|c| *c != candidate).map(|c| below[c] + densities[c] / 2.0);
            best[candidate] += densities[candidate] * others.product::<f64>();
        }
        (0..4).for_each(|c| below[c] += densities[c]);
    }
    assert!((best.iter().sum::<f64>() - 1.0).abs() < 1e-4, "{best:?}");
    for candidate in 0..4 {
        assert_share(shown[candidate], n, best[candidate], "shown");
        let mean = logged[candidate] / n;
        let variance = spread[candidate] / n - mean * mean;
        assert!((mean - best[candidate]).abs() < 4.5 * (variance / n).sqrt() + 1e-4, "{mean} for {}", best[candidate]);
        // The error that is told is that of a share of 50 rows.
        let told = errors[candidate] / n * 50.0 / 49.0;
        assert!((variance / told - 1.0).abs() < 0.1, "variance {variance}, told {told}");
    }
}

#[test]
fn equal_scores_stay_in_order_and_the_best_comes_first() {
    let draw = |_: usize, _: &mut Rng| 0.0;
    let mut slate = Slate::default();
    let mut order = |scores: &[f64], slots: usize| -> Vec<usize> {
        slate.draw(scores, &Rule::BEST, slots, &mut Rng::new(1), draw).iter().map(|pick| pick.candidate).collect()
    };
    assert_eq!(order(&[0.5; 5], 5), [0, 1, 2, 3, 4]);
    assert_eq!(order(&[0.1, 0.5, 0.2, 0.5, 0.0, -0.0], 9), [1, 3, 2, 0, 4, 5]);
    assert_eq!(order(&[], 3), [0usize; 0]);
    assert_eq!(order(&[0.4], 0), [0usize; 0]);
}

#[test]
fn few_candidates_and_extreme_scores() {
    let extremes = [f64::MAX, f64::MIN, 0.0, -0.0, 5e-324, f64::MAX];
    for rule in rules().into_iter().chain(
        [1e-300, 5e-324, 1e300]
            .map(|temperature| Rule { explore: Explore::Softmax { temperature }, min_propensity: 0.0 }),
    ) {
        for n in 0..=extremes.len() {
            let mut slate = Slate::default();
            let draw = |candidate: usize, _: &mut Rng| extremes[candidate];
            let picks = slate.draw(&extremes[..n], &rule, 100, &mut Rng::new(n as u64), draw);
            assert_eq!(picks.len(), n, "{rule:?}");
            assert!(
                picks.iter().all(|pick| pick.propensity > 0.0 && pick.propensity <= 1.0 + 1e-12),
                "{rule:?}: {picks:?}"
            );
            assert!(n == 0 || (picks[n - 1].propensity - 1.0).abs() < 1e-12, "what is left is certain: {picks:?}");
        }
    }
}

/// Of a thousand candidates there are fewer rows than asked for, and each still says what its share was.
#[test]
fn the_numbers_drawn_are_bounded() {
    let rule = Rule { explore: Explore::Thompson { samples: 10_000 }, min_propensity: 0.0 };
    let (mut slate, mut draws) = (Slate::default(), 0);
    let picks = slate.draw(&vec![0.0; 1_000], &rule, 5, &mut Rng::new(3), |_, rng| {
        draws += 1;
        rng.unit()
    });
    assert!(picks.iter().all(|pick| (pick.propensity * 50.0).fract().abs() < 1e-9 && pick.error.unwrap() > 0.0));
    assert_eq!(draws, MAX_DRAWS);
    // A decision after it by other means has none.
    assert_eq!(slate.draw(&SCORES, &Rule::BEST, 2, &mut Rng::new(3), draw)[1].error, None);
}
