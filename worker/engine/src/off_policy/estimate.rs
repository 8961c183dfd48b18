//! The estimators, their intervals and what they are worth.

use serde::Serialize;

use super::{
    FEW_REWARDED, FOLDS, LEAST_EFFECTIVE, LEAST_REWARDED, Logged, OffPolicyError, PRIOR_DECISIONS, Policy,
    WEIGHT_ERRORS,
};

/// A value with the middle 95 % of its bootstrap distribution.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Interval {
    pub value: f64,
    pub low: f64,
    pub high: f64,
}

/// What the target policy would have earned per decision, and whether to believe it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OffPolicyReport {
    pub decisions: usize,
    /// Decisions with a reward other than 0.
    pub rewarded: usize,
    /// Mean reward as logged: the logging policy's own value.
    pub logged_value: f64,
    pub ips: Interval,
    pub snips: Interval,
    pub doubly_robust: Interval,
    /// (Σ w)² / Σ w².
    pub effective_sample_size: f64,
    /// How many rewarded decisions of the target itself would say as much.
    pub effective_rewarded: f64,
    pub max_weight: f64,
    /// Near 1 if propensities and target are right.
    pub mean_weight: f64,
    /// Share of what the target shows that was never logged: IPS knows nothing of it.
    pub unseen: f64,
    /// Reasons not to believe any value.
    pub refusals: Vec<String>,
    /// Reasons to doubt the values.
    pub warnings: Vec<String>,
}

impl OffPolicyReport {
    pub fn is_believable(&self) -> bool {
        self.refusals.is_empty()
    }
}

/// One decision's parts of the three estimates.
#[derive(Clone, Copy)]
struct Term {
    weight: f64,
    weighted: f64,
    robust: f64,
}

/// Evaluates `target` from the log by `resamples` (1,000 is usual) bootstrap resamples from a fixed seed. The time is in
/// proportion to decisions times resamples: a second for some 10^8.
pub fn evaluate(log: &[Logged], target: &Policy, resamples: usize) -> Result<OffPolicyReport, OffPolicyError> {
    check(log, target)?;
    let models = RewardModels::fit(log, target);
    let term = |(row, d): (usize, &Logged)| {
        let weight = target.probability(d.item, d.position) / d.propensity;
        let (of_target, of_item) = models.predict(row % FOLDS, d);
        Term { weight, weighted: weight * d.reward, robust: of_target + weight * (d.reward - of_item) }
    };
    let terms: Vec<Term> = log.iter().enumerate().map(term).collect();
    let [ips, snips, doubly_robust] = intervals(&terms, resamples);
    let n = log.len() as f64;
    let weights = sum(&terms, |t| t.weight);
    let squares = sum(&terms, |t| t.weight * t.weight);
    let weighted = sum(&terms, |t| t.weighted);
    let effective_sample_size = ratio(weights * weights, squares);
    let of_rewards = ratio(weighted * weighted, sum(&terms, |t| t.weighted * t.weighted));
    let of_weights: f64 = log.iter().zip(&terms).filter(|(d, _)| d.reward != 0.0).map(|(_, t)| t.weight).sum();
    let mut report = OffPolicyReport {
        decisions: log.len(),
        rewarded: log.iter().filter(|d| d.reward != 0.0).count(),
        logged_value: log.iter().map(|d| d.reward).sum::<f64>() / n,
        ips,
        snips,
        doubly_robust,
        effective_sample_size,
        effective_rewarded: of_rewards.min(effective_sample_size * ratio(of_weights, weights)),
        max_weight: terms.iter().fold(0.0, |most, t| t.weight.max(most)),
        mean_weight: weights / n,
        unseen: models.unseen,
        refusals: Vec::new(),
        warnings: Vec::new(),
    };
    judge(&mut report, squares);
    Ok(report)
}

fn judge(report: &mut OffPolicyReport, squares: f64) {
    let (effective, rewarded) = (report.effective_sample_size, report.effective_rewarded);
    if effective < LEAST_EFFECTIVE {
        report.refusals.push(format!(
            "the weights are so unequal that {} decisions are worth {effective:.0} of the target's own; at least \
             {LEAST_EFFECTIVE:.0} are needed",
            report.decisions
        ));
    }
    if rewarded < LEAST_REWARDED {
        report.refusals.push(format!(
            "{} rewarded decisions are worth {rewarded:.1} of the target's own; at least {LEAST_REWARDED:.0} are needed",
            report.rewarded
        ));
    } else if rewarded < FEW_REWARDED {
        report.warnings.push(format!(
            "{} rewarded decisions are worth {rewarded:.1} of the target's own: below {FEW_REWARDED:.0} the interval may \
             be too narrow",
            report.rewarded
        ));
    }
    let (n, mean) = (report.decisions as f64, report.mean_weight);
    let error = ((squares / n - mean * mean).max(0.0) / n).sqrt();
    if (mean - 1.0).abs() > WEIGHT_ERRORS * error.max(1e-9) {
        report.warnings.push(format!(
            "the mean weight is {mean:.3} and should be 1 (standard error {error:.3}): the propensities are not those of \
             the logging policy, or the target shows what was never logged"
        ));
    }
    if report.unseen > 1e-3 {
        report.warnings.push(format!(
            "{:.1} % of what the target shows was never logged: of that, IPS and SNIPS know nothing",
            100.0 * report.unseen
        ));
    }
}

fn check(log: &[Logged], target: &Policy) -> Result<(), OffPolicyError> {
    if log.is_empty() {
        return Err(OffPolicyError::Empty);
    }
    for (row, d) in log.iter().enumerate() {
        if !(d.propensity > 0.0 && d.propensity <= 1.0) {
            return Err(OffPolicyError::Propensity { row, value: d.propensity });
        }
        if !d.reward.is_finite() {
            return Err(OffPolicyError::Reward { row, value: d.reward });
        }
        if target.items(d.position).is_empty() {
            return Err(OffPolicyError::Position { row, position: d.position });
        }
    }
    Ok(())
}

fn sum(terms: &[Term], of: impl Fn(&Term) -> f64) -> f64 {
    terms.iter().map(of).sum()
}

/// 0 where there is nothing to divide by.
fn ratio(x: f64, y: f64) -> f64 {
    if y == 0.0 { 0.0 } else { x / y }
}

/// IPS, SNIPS and doubly robust with the 2.5 and 97.5 percentiles over resamples (Efron 1979).
fn intervals(terms: &[Term], resamples: usize) -> [Interval; 3] {
    let n = terms.len();
    let of =
        |weight: f64, weighted: f64, robust: f64| [weighted / n as f64, ratio(weighted, weight), robust / n as f64];
    let values = of(sum(terms, |t| t.weight), sum(terms, |t| t.weighted), sum(terms, |t| t.robust));
    let mut drawn: [Vec<f64>; 3] = Default::default();
    let mut state = 0x5EED;
    for _ in 0..resamples {
        let (mut weight, mut weighted, mut robust) = (0.0, 0.0, 0.0);
        for _ in 0..n {
            let term = &terms[((u128::from(next(&mut state)) * n as u128) >> 64) as usize];
            weight += term.weight;
            weighted += term.weighted;
            robust += term.robust;
        }
        drawn.iter_mut().zip(of(weight, weighted, robust)).for_each(|(drawn, value)| drawn.push(value));
    }
    let mut values = values.into_iter();
    drawn.map(|mut drawn| {
        drawn.sort_by(f64::total_cmp);
        let value = values.next().unwrap_or_default();
        Interval { value, low: percentile(&drawn, 0.025, value), high: percentile(&drawn, 0.975, value) }
    })
}

/// Linear between neighbours; `otherwise` for none.
fn percentile(sorted: &[f64], share: f64, otherwise: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return otherwise };
    let at = share * last as f64;
    let (below, above) = (sorted[at as usize], sorted[(at as usize + 1).min(last)]);
    below + (above - below) * (at - libm::floor(at))
}

/// SplitMix64 (Steele, Lea, Flood 2014).
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let x = (*state ^ *state >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ x >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ x >> 31
}

/// Decisions and rewards by item.
type Cells = Vec<(f64, f64)>;

/// Smoothed mean rewards of item and position, for each fold without that fold.
struct RewardModels {
    /// By fold, position, item.
    means: Vec<Vec<Vec<f64>>>,
    /// By fold and position: of what the target shows.
    of_target: Vec<Vec<f64>>,
    unseen: f64,
}

impl RewardModels {
    fn fit(log: &[Logged], target: &Policy) -> Self {
        let positions = log.iter().map(|d| d.position + 1).max().unwrap_or(0);
        let shown = (0..positions).map(|p| target.items(p).len()).max().unwrap_or(0);
        let items = log.iter().map(|d| d.item + 1).max().unwrap_or(0).max(shown);
        // Decisions and rewards: of everything, and of each fold, which is then taken away.
        let mut counts = vec![vec![vec![(0.0, 0.0); items]; positions]; FOLDS + 1];
        for (row, d) in log.iter().enumerate() {
            for fold in [row % FOLDS, FOLDS] {
                let (n, r) = &mut counts[fold][d.position][d.item];
                *n += 1.0;
                *r += d.reward;
            }
        }
        let all = counts.split_off(FOLDS).remove(0);
        let without = |fold: &Vec<Cells>| -> Vec<Vec<f64>> {
            let of_position = |(all, own): (&Cells, &Cells)| {
                let left: Cells = all.iter().zip(own).map(|(a, o)| (a.0 - o.0, a.1 - o.1)).collect();
                smoothed(&left)
            };
            all.iter().zip(fold).map(of_position).collect()
        };
        let means: Vec<Vec<Vec<f64>>> = counts.iter().map(without).collect();
        let expect = |position: usize, means: &Vec<f64>| -> f64 {
            target.items(position).iter().zip(means).map(|(p, m)| p * m).sum()
        };
        let expectations = |fold: &Vec<Vec<f64>>| fold.iter().enumerate().map(|(p, m)| expect(p, m)).collect();
        let of_target = means.iter().map(expectations).collect();
        let never = |(position, cells): (usize, &Cells)| -> f64 {
            let decisions: f64 = cells.iter().map(|cell| cell.0).sum();
            let shown = target.items(position).iter().zip(cells);
            decisions * shown.filter(|(_, cell)| cell.0 == 0.0).map(|(p, _)| p).sum::<f64>()
        };
        let unseen = all.iter().enumerate().map(never).sum::<f64>() / log.len() as f64;
        Self { means, of_target, unseen }
    }

    /// Expected reward of the target at the decision's position, and of the decision's item there.
    fn predict(&self, fold: usize, d: &Logged) -> (f64, f64) {
        (self.of_target[fold][d.position], self.means[fold][d.position][d.item])
    }
}

/// Mean rewards of (decisions, rewards), drawn towards their common mean.
fn smoothed(cells: &[(f64, f64)]) -> Vec<f64> {
    let (n, r) = cells.iter().fold((0.0, 0.0), |sum, cell| (sum.0 + cell.0, sum.1 + cell.1));
    let mean = ratio(r, n);
    cells.iter().map(|(n, r)| (r + PRIOR_DECISIONS * mean) / (n + PRIOR_DECISIONS)).collect()
}
