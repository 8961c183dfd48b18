//! Ranks candidates: by the request, by an item statistic, or by what models predict.

use super::{
    World,
    candidates::Entrant,
    policy::{NO_EVIDENCE, Rank},
    rng::Rng,
};
use crate::{
    event::{Event, Item},
    example::{FeatureValue, VALUE_BYTES},
    feature::{Context, RowRef},
    learn::{
        item_key,
        serving::{Belief, Scoring},
    },
};

/// The candidates of a decision, and all that is known for scoring them.
pub struct Contest<'a> {
    pub world: &'a World<'a>,
    /// The decision as an impression.
    pub event: &'a Event<'a>,
    pub row: Option<RowRef<'a>>,
    pub entrants: &'a [Entrant<'a>],
    /// Encoded attributes of all entrants.
    pub attributes: &'a [u8],
}

/// Scores of a contest; buffers are used again.
#[derive(Debug, Default)]
pub struct Scores {
    /// Of each entrant. Finite.
    pub scores: Vec<f64>,
    /// Of each entrant what each model believes, where a policy draws from that.
    beliefs: Vec<Belief>,
    values: Vec<FeatureValue>,
    scoring: Scoring,
}

impl Contest<'_> {
    /// Scores all entrants. `ranking`: the request's.
    pub fn score(&self, rank: &Rank, ranking: &[&str], keeps_beliefs: bool, out: &mut Scores) {
        out.scores.clear();
        out.beliefs.clear();
        match rank {
            Rank::Request => self.by_request(ranking, &mut out.scores),
            Rank::Statistic { model, statistic } => {
                let number = self.world.models[*model].numbers(*statistic, self.event.head.time);
                out.scores.extend(self.entrants.iter().map(|entrant| number(entrant.key).unwrap_or(NO_EVIDENCE)));
            }
            Rank::Score(weights) => self.by_models(weights, keeps_beliefs, out),
        }
        out.scores.iter_mut().for_each(|score| *score = finite(*score));
    }

    fn by_request(&self, ranking: &[&str], scores: &mut Vec<f64>) {
        let mut places: Vec<(u64, usize)> = ranking.iter().enumerate().map(|(at, item)| (item_key(item), at)).collect();
        places.sort_unstable();
        let place = |key: u64| {
            let at = places.partition_point(|(k, _)| *k < key);
            places.get(at).filter(|(k, _)| *k == key).map_or(ranking.len(), |(_, place)| *place)
        };
        scores.extend(self.entrants.iter().map(|entrant| -(place(entrant.key) as f64)));
    }

    /// What all entrants have in common is read and hashed once for each model.
    fn by_models(&self, weights: &[(usize, f64)], keeps_beliefs: bool, out: &mut Scores) {
        out.scores.resize(self.entrants.len(), 0.0);
        if keeps_beliefs {
            out.beliefs.resize(self.entrants.len() * weights.len(), Belief::LogOdds(0.0));
        }
        let features = &self.world.plan.features;
        for (place, (model, weight)) in weights.iter().enumerate() {
            let (projection, copy) = (&self.world.plan.models[*model].projection, &self.world.models[*model]);
            out.values.clear();
            for (n, entrant) in self.entrants.iter().enumerate() {
                let context = self.context(entrant);
                if n == 0 {
                    features.read(projection, self.row, &context, &mut out.values);
                    copy.open(&out.values, self.event.head.time, &mut out.scoring);
                } else {
                    features.read_other_item(projection, self.row, &context, &mut out.values);
                }
                let belief = copy.believe(&out.values, entrant.key, &mut out.scoring);
                out.scores[n] += weight * belief.probability();
                if keeps_beliefs {
                    out.beliefs[n * weights.len() + place] = belief;
                }
            }
        }
    }

    fn context<'e>(&'e self, entrant: &Entrant<'e>) -> Context<'e> {
        let item = Item::with_attributes(entrant.item, &self.attributes[entrant.attributes.clone()]);
        Context { time: self.event.head.time, event: self.event, item: Some(item) }
    }

    /// What each of the models saw of an entrant, as examples hold it: the profile's columns and the model's own statistics.
    pub fn values(&self, rank: &Rank, entrant: &Entrant<'_>, s: &mut Scores) -> Vec<u8> {
        let Rank::Score(weights) = rank else { return Vec::new() };
        let width = |(model, _): &(usize, f64)| self.world.models[*model].width();
        let mut encoded = Vec::with_capacity(weights.iter().map(width).sum::<usize>() * VALUE_BYTES);
        for (model, _) in weights {
            let (projection, copy) = (&self.world.plan.models[*model].projection, &self.world.models[*model]);
            s.values.clear();
            self.world.plan.features.read(projection, self.row, &self.context(entrant), &mut s.values);
            copy.score(&mut s.values, entrant.key, self.event.head.time, &mut s.scoring);
            s.values.iter().for_each(|value| value.write(&mut encoded));
        }
        encoded
    }
}

impl Scores {
    /// A score of the `n`th entrant at random, by what the models believe of it.
    pub fn draw(&self, rank: &Rank, n: usize, rng: &mut Rng) -> f64 {
        let Rank::Score(weights) = rank else { return self.scores[n] };
        let beliefs = &self.beliefs[n * weights.len()..];
        let of_model = |belief: &Belief, rng: &mut Rng| match belief {
            Belief::Beta(belief) => rng.beta(belief.alpha, belief.beta),
            Belief::LogOdds(_) => belief.probability(),
        };
        finite(weights.iter().zip(beliefs).fold(0.0, |sum, ((_, weight), belief)| sum + weight * of_model(belief, rng)))
    }
}

/// What is no number is the worst.
fn finite(score: f64) -> f64 {
    if score.is_nan() { f64::MIN } else { score.clamp(f64::MIN, f64::MAX) }
}
