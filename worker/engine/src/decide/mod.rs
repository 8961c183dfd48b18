//! Decisions: which items to show a user at a placement, in which order, and with which probability.
//!
//! A pure function of what it is given: the request with a seed, the user as serving sees it, the catalog, and the
//! serving copies of the models. In this order:
//!
//! 1. Without a user, or without consent, the placement's default content; nothing is kept. So it is in `mode: Default`,
//!    where the decision of a user with consent is kept, of no experiment.
//! 2. The user's variant says the policy; without an experiment the placement does.
//! 3. If a model of that policy fell back to the default, the default content; the user stays in the variant.
//! 4. Candidates are gathered ([`candidates`]), ranked by the policy ([`policy`]), and drawn into slots ([`slate`]).
//! 5. What was shown is recorded with its propensities and with the values that the models saw of it, their own
//!    statistics included, so that training sees what serving saw.
//!
//! **Default content** is the same for everybody: the default policy's rank of all candidates, best first, without
//! exploration and without leaving out what someone bought. Before any model has learned anything all ranks are equal, and
//! equal ranks, here and everywhere, stay in the order of the candidates: the catalog's, or the request's.
//!
//! A user without a row is read as one who did nothing yet; what the models know of items ranks for them.

pub mod candidates;
pub mod policy;
pub mod rng;
pub mod rules;
mod score;
pub mod slate;

#[cfg(test)]
mod tests;

use serde::Serialize;

use crate::{
    catalog::Catalog,
    control::{Decision, Slot, TEXT_BYTES_MAX, UsedModel},
    event::{AttributeId, Event, Pseudonym, Time, Value},
    feature::RowRef,
    learn::{ServingModel, Standing},
    plan::Plan,
    profile::View,
};
use candidates::{Entrant, Gathering, Shortlist};
use policy::{Policy, Rank};
use rng::Rng;
use rules::PlacementRules;
use score::{Contest, Scores};
use slate::{Explore, Pick, Rule, Slate};

pub use rules::{CompileError, Compiled, Rules};

/// Most items of a request's ranking.
const MAX_RANKING: usize = candidates::MAX_CANDIDATES;

/// An item that the request names.
#[derive(Clone, Copy, Debug, Default)]
pub struct Candidate<'a> {
    pub item: &'a str,
    /// Its own (`item.…`), in any order.
    pub attributes: &'a [(AttributeId, Value<'a>)],
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// None: not logged in.
    pub user: Option<Pseudonym>,
    /// Index in [`Plan::placements`].
    pub placement: usize,
    pub platform: &'a str,
    pub session: u64,
    /// Of the request, in any order.
    pub attributes: &'a [(AttributeId, Value<'a>)],
    /// For placements whose candidates are the request's.
    pub candidates: &'a [Candidate<'a>],
    /// An order of items, for policies that rank by the request.
    pub ranking: &'a [&'a str],
    /// At most the placement's, which is also the default.
    pub slots: Option<usize>,
    /// When it was received.
    pub time: Time,
    pub seed: u64,
    /// Keyed hash of the decision's id.
    pub decision: u64,
}

/// What a decision reads besides the user.
#[derive(Clone, Copy)]
pub struct World<'a> {
    pub plan: &'a Plan,
    pub catalog: Option<&'a Catalog>,
    /// A copy of each of the plan's models.
    pub models: &'a [ServingModel],
}

/// Why these items.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Reason {
    /// By models, which know the user.
    Personalized,
    /// By models; nothing is known of the user yet.
    NewUser,
    /// By a policy that ranks alike for all.
    NotPersonal,
    /// Default content: the request names no user.
    NotLoggedIn,
    /// Default content.
    NoConsent,
    /// Default content: the placement is switched to it.
    ModeDefault,
    /// Default content: a model of the policy drifted.
    FellBack,
    /// Default content: whoever knows the user, or a model of the policy, has not read all that was there at the start.
    NotReady,
}

impl Reason {
    pub fn is_default(self) -> bool {
        !matches!(self, Reason::Personalized | Reason::NewUser | Reason::NotPersonal)
    }
}

/// What is answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Experiment and variant.
    pub experiment: Option<(String, String)>,
    pub policy: String,
    pub personalized: bool,
    pub reason: Reason,
    /// By position.
    pub items: Vec<RankedItem>,
    /// To be appended to the user's events partition. None without consent, and where nothing is shown.
    pub record: Option<Decision>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct RankedItem {
    pub item: String,
    /// From 0.
    pub position: usize,
    pub score: f64,
    /// Given the items before. 1 in default content.
    pub propensity: f64,
    /// Standard error, for Thompson sampling, see [`slate`].
    pub propensity_error: Option<f64>,
}

/// Why there is no decision. All of these are the caller's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecideError {
    #[error("{given} candidates; this placement takes up to {limit}")]
    TooManyCandidates { given: usize, limit: usize },
    #[error("the candidates of this placement are the catalog's; give an order of items as `ranking`")]
    CandidatesOfCatalog,
    #[error("a ranking of {given} items; up to {limit} are taken")]
    LongRanking { given: usize, limit: usize },
    #[error("a candidate's id is empty or longer than {TEXT_BYTES_MAX} bytes")]
    ItemId,
    #[error("the platform is longer than {TEXT_BYTES_MAX} bytes")]
    Platform,
}

/// Makes decisions. Holds scratch space and the shortlists of large catalogs, nothing of users.
#[derive(Debug, Default)]
pub struct Decider {
    /// Of each placement.
    shortlists: Vec<Shortlist>,
    slate: Slate,
    scores: Scores,
    /// Encoded: the request's attributes, those of all candidates.
    of_request: Vec<u8>,
    of_items: Vec<u8>,
    excluded: Vec<u64>,
}

/// How a decision is to be made.
struct Course<'a> {
    reason: Reason,
    experiment: Option<(&'a str, &'a str)>,
    policy: &'a Policy,
}

impl Decider {
    pub fn new(plan: &Plan) -> Self {
        let shortlists = plan.rules.placements.iter().map(|_| Shortlist::default()).collect();
        Self { shortlists, ..Self::default() }
    }

    /// `view`: of the request's user; closed where there is none.
    pub fn decide(&mut self, world: &World<'_>, request: &Request<'_>, view: &View<'_>) -> Result<Answer, DecideError> {
        check(request)?;
        let placement = &world.plan.rules.placements[request.placement];
        let course = course(world, request, placement, view);
        let is_default = course.reason.is_default();
        let row = view.row.filter(|_| !is_default);
        exclude(placement, row, request.time, &mut self.excluded);
        let mut rng = Rng::new(request.seed);
        let gathering = Gathering {
            catalog: world.catalog,
            models: world.models,
            source: placement.source,
            rank: &world.plan.rules.policies[placement.default].rank,
            excluded: &self.excluded,
            is_default,
        };
        let shortlist = &mut self.shortlists[request.placement];
        let entrants = gathering.gather(request, shortlist, &mut rng, &mut self.of_items)?;

        self.of_request.clear();
        candidates::encode(&mut request.attributes.to_vec(), &mut self.of_request);
        let event =
            Event::of_request(request.time, request.session, &placement.name, request.platform, &self.of_request);
        let contest = Contest { world, event: &event, row, entrants: &entrants, attributes: &self.of_items };
        let rank = &course.policy.rank;
        let rule = if is_default { &Rule::BEST } else { &course.policy.rule };
        let scores = &mut self.scores;
        contest.score(rank, request.ranking, matches!(rule.explore, Explore::Thompson { .. }), scores);
        let slots = request.slots.unwrap_or(placement.slots).min(placement.slots);
        let picks = self.slate.draw(&scores.scores, rule, slots, &mut rng, |n, rng| scores.draw(rank, n, rng));

        let items: Vec<RankedItem> =
            picks.iter().enumerate().map(|pick| ranked(pick, &entrants, &scores.scores)).collect();
        let mut record = None;
        if let Some(user) = request.user.filter(|_| view.consented && !items.is_empty()) {
            let slot = |(item, pick): (&RankedItem, &Pick)| Slot {
                item: item.item.clone(),
                propensity: item.propensity,
                score: item.score,
                values: contest.values(rank, &entrants[pick.candidate], scores),
            };
            let slots = items.iter().zip(picks).map(slot).collect();
            record = Some(record_of(world, request, user, placement, &course, slots));
        }
        Ok(Answer {
            experiment: course.experiment.map(owned),
            policy: course.policy.name.clone(),
            personalized: course.reason == Reason::Personalized,
            reason: course.reason,
            items,
            record,
        })
    }
}

fn check(request: &Request<'_>) -> Result<(), DecideError> {
    if request.platform.len() > TEXT_BYTES_MAX {
        return Err(DecideError::Platform);
    }
    if request.ranking.len() > MAX_RANKING {
        return Err(DecideError::LongRanking { given: request.ranking.len(), limit: MAX_RANKING });
    }
    Ok(())
}

fn course<'a>(world: &World<'a>, request: &Request<'_>, placement: &'a PlacementRules, view: &View<'_>) -> Course<'a> {
    let policies = &world.plan.rules.policies;
    let default = |reason, experiment| Course { reason, experiment, policy: &policies[placement.default] };
    let Some(user) = request.user else { return default(Reason::NotLoggedIn, None) };
    if !view.consented {
        return default(Reason::NoConsent, None);
    }
    if placement.is_default_only {
        return default(Reason::ModeDefault, None);
    }
    let (experiment, policy) = match &placement.experiment {
        None => (None, placement.policy),
        Some((n, of_variants)) => {
            let plan = &world.plan.experiments[*n];
            let variant = plan.variant_of(user);
            (Some((plan.name.as_str(), plan.variants[variant].as_str())), of_variants[variant])
        }
    };
    let policy = &policies[policy];
    let Rank::Score(weights) = &policy.rank else {
        return Course { reason: Reason::NotPersonal, experiment, policy };
    };
    if weights.iter().any(|(model, _)| world.models[*model].seen().is_none()) {
        return default(Reason::NotReady, experiment);
    }
    if weights.iter().any(|(model, _)| world.models[*model].standing() == Standing::FellBackToDefault) {
        return default(Reason::FellBack, experiment);
    }
    let reason = if view.row.is_some() { Reason::Personalized } else { Reason::NewUser };
    Course { reason, experiment, policy }
}

/// What the user bought within the placement's time.
fn exclude(placement: &PlacementRules, row: Option<RowRef<'_>>, now: Time, out: &mut Vec<u64>) {
    out.clear();
    if let (Some((ring, within_micros)), Some(row)) = (placement.bought, row) {
        let since = now.minus(within_micros);
        out.extend(row.bought(ring).filter(|(_, time)| *time >= since).map(|(item, _)| item));
    }
}

fn ranked((position, pick): (usize, &Pick), entrants: &[Entrant<'_>], scores: &[f64]) -> RankedItem {
    RankedItem {
        item: entrants[pick.candidate].item.to_owned(),
        position,
        score: scores[pick.candidate],
        propensity: pick.propensity,
        propensity_error: pick.error,
    }
}

fn record_of(
    world: &World<'_>,
    request: &Request<'_>,
    user: Pseudonym,
    placement: &PlacementRules,
    course: &Course<'_>,
    slots: Vec<Slot>,
) -> Decision {
    let used = |(model, _): &(usize, f64)| UsedModel {
        name: world.plan.models[*model].name.clone(),
        version: world.models[*model].version(),
        schema: world.models[*model].schema(),
    };
    Decision {
        id: request.decision,
        user,
        time: request.time,
        session: request.session,
        placement: placement.name.clone(),
        platform: request.platform.to_owned(),
        experiment: course.experiment.map(owned),
        policy: course.policy.name.clone(),
        models: match &course.policy.rank {
            Rank::Score(weights) => weights.iter().map(used).collect(),
            _ => Vec::new(),
        },
        slots,
    }
}

fn owned((experiment, variant): (&str, &str)) -> (String, String) {
    (experiment.to_owned(), variant.to_owned())
}
