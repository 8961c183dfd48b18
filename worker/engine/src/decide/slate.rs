//! The slots of a decision, drawn one after the other, with the probability of each given the slots before.
//!
//! In each slot the policy has a distribution over the candidates that remain:
//!
//! - greedy: the best of them (of equal scores the first in the order of the candidates);
//! - epsilon-greedy: each with epsilon / n, the best with 1 - epsilon more;
//! - softmax: in proportion to exp(score / temperature), which is Plackett and Luce's model of rankings;
//! - Thompson sampling: as often as it is the best by scores drawn from what the models believe.
//!
//! With a least propensity m, at most 1 / n, that distribution p becomes m + (1 - n m) p. One is drawn, and its
//! probability is logged.
//!
//! # Thompson sampling
//!
//! How probable it is to be the best has no closed form. So R rows of scores are drawn for all candidates at once, and each
//! slot shows the best remaining candidate of a row that is chosen evenly and anew. Given the rows, a candidate's
//! propensity is exactly the share of the rows in which it is the best of those that remain: that is logged, and weighting by
//! its inverse is unbiased, since it is so for every set of rows (without m, but for candidates that are the best of
//! no row). As an estimate of the propensity over all rows that might have been drawn it has the standard error
//! `(1 - n m) sqrt(p (1 - p) / R)`, which is given too. But for slots that happen to choose the same row, with chance
//! 1 / R, the slots are drawn afresh from the beliefs.

use super::rng::Rng;

/// How other than the best candidates get shown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Explore {
    Greedy,
    Epsilon {
        epsilon: f64,
        last_slot_only: bool,
    },
    Softmax {
        temperature: f64,
    },
    /// Rows of draws.
    Thompson {
        samples: usize,
    },
}

/// How slots are filled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule {
    pub explore: Explore,
    /// Of each candidate in each slot; more than one in their number is that.
    pub min_propensity: f64,
}

impl Rule {
    /// The best first, always.
    pub const BEST: Rule = Rule { explore: Explore::Greedy, min_propensity: 0.0 };
}

/// Most numbers that a decision draws: of more candidates there are fewer rows.
const MAX_DRAWS: usize = 50_000;
const LEAST_ROWS: usize = 10;

/// A candidate in a slot.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pick {
    pub candidate: usize,
    /// Given the slots before.
    pub propensity: f64,
    /// Its standard error as an estimate, where it is one.
    pub error: Option<f64>,
}

/// Draws slates. Buffers are used again.
#[derive(Clone, Debug, Default)]
pub struct Slate {
    /// Candidates, best first.
    remaining: Vec<usize>,
    /// Of those remaining: the policy's, then with the least propensity.
    propensities: Vec<f64>,
    weights: Vec<f64>,
    rows: Rows,
    picks: Vec<Pick>,
}

/// Scores drawn for all candidates, row by row, and the best remaining one of each row.
#[derive(Clone, Debug, Default)]
struct Rows {
    scores: Vec<f64>,
    best: Vec<usize>,
    counts: Vec<u32>,
}

impl Slate {
    /// Fills up to `slots` slots. `scores` of the candidates must be finite; `draw` gives a score of a candidate at random,
    /// for Thompson sampling.
    pub fn draw(
        &mut self,
        scores: &[f64],
        rule: &Rule,
        slots: usize,
        rng: &mut Rng,
        mut draw: impl FnMut(usize, &mut Rng) -> f64,
    ) -> &[Pick] {
        self.picks.clear();
        self.weights.clear();
        self.remaining.clear();
        self.remaining.extend(0..scores.len());
        self.remaining.sort_unstable_by(|a, b| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b)));
        self.rows.clear();
        if let Explore::Thompson { samples } = rule.explore {
            self.rows.draw(scores.len(), samples, |candidate| draw(candidate, rng));
        }
        let slots = slots.min(scores.len());
        for slot in 0..slots {
            let error = self.distribution(scores, rule, slot + 1 == slots);
            let at = chosen(&self.propensities, rng);
            let propensity = self.propensities[at];
            let error = error.map(|estimate| estimate.error_at(propensity));
            self.picks.push(Pick { candidate: self.remaining[at], propensity, error });
            self.take(at);
        }
        &self.picks
    }

    /// Fills in the propensities of those remaining; how they err where they are estimates.
    fn distribution(&mut self, scores: &[f64], rule: &Rule, is_last: bool) -> Option<Estimate> {
        let n = self.remaining.len();
        let p = &mut self.propensities;
        p.clear();
        p.resize(n, 0.0);
        let mut rows = None;
        match rule.explore {
            Explore::Greedy => p[0] = 1.0,
            Explore::Epsilon { last_slot_only, .. } if last_slot_only && !is_last => p[0] = 1.0,
            Explore::Epsilon { epsilon, .. } => {
                p.fill(epsilon / n as f64);
                p[0] += 1.0 - epsilon;
            }
            Explore::Softmax { temperature } => {
                if self.weights.is_empty() {
                    // Relative to the best remaining, so that none is infinite, and one is 1.
                    let best = scores[self.remaining[0]];
                    self.weights.extend(self.remaining.iter().map(|c| libm::exp((scores[*c] - best) / temperature)));
                }
                let sum = self.weights.iter().fold(0.0, |sum, weight| sum + weight);
                p.iter_mut().zip(&self.weights).for_each(|(p, weight)| *p = weight / sum);
            }
            Explore::Thompson { .. } => {
                self.rows.shares(&self.remaining, p);
                rows = Some(self.rows.best.len() as f64);
            }
        }
        let least = rule.min_propensity.min(1.0 / n as f64);
        let kept = (1.0 - n as f64 * least).max(0.0);
        if least > 0.0 {
            p.iter_mut().for_each(|p| *p = least + kept * *p);
        }
        rows.map(|rows| Estimate { rows, least, kept })
    }

    /// The candidate at this place is shown.
    fn take(&mut self, at: usize) {
        let candidate = self.remaining.remove(at);
        if at == 0 {
            // The others' weights are relative to its score, and may all be 0.
            self.weights.clear();
        } else if at < self.weights.len() {
            self.weights.remove(at);
        }
        self.rows.without(candidate, &self.remaining);
    }
}

/// A share of rows, as it is logged.
struct Estimate {
    rows: f64,
    least: f64,
    kept: f64,
}

impl Estimate {
    fn error_at(&self, propensity: f64) -> f64 {
        let p = if self.kept > 0.0 { ((propensity - self.least) / self.kept).clamp(0.0, 1.0) } else { 0.0 };
        self.kept * (p * (1.0 - p) / self.rows).sqrt()
    }
}

impl Rows {
    fn clear(&mut self) {
        self.scores.clear();
        self.best.clear();
        self.counts.clear();
    }

    fn draw(&mut self, candidates: usize, samples: usize, mut draw: impl FnMut(usize) -> f64) {
        if candidates == 0 {
            return;
        }
        for row in 0..samples.min(MAX_DRAWS / candidates).max(LEAST_ROWS) {
            self.scores.extend((0..candidates).map(&mut draw));
            let scores = &self.scores[row * candidates..];
            self.best.push(best_of(0..candidates, scores));
        }
        self.counts.resize(candidates, 0);
        self.best.iter().for_each(|best| self.counts[*best] += 1);
    }

    fn shares(&self, remaining: &[usize], shares: &mut [f64]) {
        let rows = self.best.len() as f64;
        shares.iter_mut().zip(remaining).for_each(|(share, c)| *share = f64::from(self.counts[*c]) / rows);
    }

    fn without(&mut self, candidate: usize, remaining: &[usize]) {
        if remaining.is_empty() {
            return;
        }
        let candidates = self.counts.len();
        for (row, best) in self.best.iter_mut().enumerate().filter(|(_, best)| **best == candidate) {
            let scores = &self.scores[row * candidates..];
            *best = best_of(remaining.iter().copied(), scores);
            self.counts[*best] += 1;
        }
        if let Some(count) = self.counts.get_mut(candidate) {
            *count = 0;
        }
    }
}

/// Of equal scores the first.
fn best_of(candidates: impl Iterator<Item = usize>, scores: &[f64]) -> usize {
    let better = |best: usize, c: usize| match scores[c].total_cmp(&scores[best]) {
        std::cmp::Ordering::Greater => c,
        _ => best,
    };
    candidates.reduce(better).unwrap_or(0)
}

/// The place of one drawn in proportion.
fn chosen(propensities: &[f64], rng: &mut Rng) -> usize {
    let point = rng.unit();
    let mut upto = 0.0;
    let mut last = 0;
    for (at, p) in propensities.iter().enumerate().filter(|(_, p)| **p > 0.0) {
        upto += p;
        last = at;
        if point < upto {
            break;
        }
    }
    last
}

#[cfg(test)]
#[path = "tests/slates.rs"]
mod tests;
