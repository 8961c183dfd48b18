//! A decision's way: a request of the API becomes a question of names and pseudonyms, an engine thread answers it, and
//! the answer becomes the API's.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use millrace_engine::{
    control::{Control, Decision},
    decide::{Answer, Candidate, DecideError, Reason, Request, World, policy::NO_EVIDENCE},
    event::{AttributeId, Pseudonym, Time, Value},
    example::VALUE_BYTES,
    frame::outbox::Outbox,
    plan::Plan,
    privacy::Pseudonymizer,
    profile::{Profile, View},
};
use serde_json::json;

use super::{
    desk::{ControlLog, Desk, Reply},
    figures::Recent,
};
use crate::{
    serve::{
        ServeError,
        api::{DecideAnswer, DecideRequest, RankedItem, Scalar, UsedModel},
        forwarded::{Draws, Whose},
    },
    values,
};

/// What is asked, without names and identities.
pub struct Question {
    /// Of the decision, as the caller gets it.
    pub id: String,
    pub decision: u64,
    pub seed: u64,
    /// The events partition whose owner answers: the user's, or any.
    pub partition: u32,
    pub user: Option<Pseudonym>,
    pub placement: usize,
    pub platform: String,
    pub session: u64,
    pub attributes: Attributes,
    pub candidates: Vec<(String, Attributes)>,
    pub ranking: Vec<String>,
    pub slots: Option<usize>,
    pub time: Time,
    pub asked: Instant,
}

type Attributes = Vec<(AttributeId, Scalar)>;

/// A question and who waits for its answer.
pub struct Ask {
    pub question: Question,
    pub reply: Reply<Result<Made, DecideError>>,
}

/// A decision as it was made.
pub struct Made {
    pub id: String,
    pub placement: usize,
    pub answer: Answer,
    /// (place among the plan's models, examples learned) of those that ranked.
    pub models: Vec<(usize, u64)>,
}

/// Who asks for a decision, and when. Asked again with the same, it counts once: the first that was appended.
#[derive(Clone, Copy, Debug)]
pub struct Asking {
    pub whose: Whose,
    /// The events partition whose owner answers.
    pub partition: u32,
    pub draws: Draws,
    pub time: Time,
}

impl Question {
    /// # Errors
    /// What the request names is not there.
    pub fn of(
        plan: &Plan,
        keys: &Pseudonymizer,
        Asking { whose, partition, draws, time }: Asking,
        request: DecideRequest,
    ) -> Result<Self, ServeError> {
        let asked = Instant::now();
        let placement = plan.placements.iter().position(|p| p.name == request.placement);
        let placement = placement.ok_or_else(|| {
            let known: Vec<&str> = plan.placements.iter().map(|p| p.name.as_str()).collect();
            let known = if known.is_empty() { "none".into() } else { known.join(", ") };
            ServeError::Invalid { field: "placement", detail: format!("no such placement; there is {known}") }
        })?;
        let id = format!("{:016x}", draws.id);
        let attributes_of = |given: BTreeMap<String, Scalar>| -> Attributes {
            // Others are not allowed, and go no further.
            given.into_iter().filter_map(|(name, value)| Some((plan.names.attribute(&name)?, value))).collect()
        };
        Ok(Self {
            decision: keys.decision_of(&id),
            id,
            seed: draws.seed,
            partition,
            user: whose.user.map(|user| user.0),
            placement,
            platform: request.platform.unwrap_or_default(),
            session: whose.session,
            attributes: attributes_of(request.attributes),
            candidates: request
                .candidates
                .into_iter()
                .flatten()
                .map(|candidate| (candidate.id, attributes_of(candidate.attributes)))
                .collect(),
            ranking: request.ranking,
            slots: request.count.map(|count| count as usize),
            time,
            asked,
        })
    }
}

fn borrowed(attributes: &Attributes) -> Vec<(AttributeId, Value<'_>)> {
    attributes.iter().map(|(id, scalar)| (*id, value_of(scalar))).collect()
}

fn value_of(scalar: &Scalar) -> Value<'_> {
    match scalar {
        Scalar::Text(text) => Value::Text(text),
        Scalar::Number(n) => Value::Number(*n),
        Scalar::Bool(b) => Value::Bool(*b),
    }
}

impl Desk {
    /// Decides, appends the decision, answers.
    /// `is_level`: the task has read what others had accepted for it when it came here.
    pub fn decide(
        &mut self,
        ask: Ask,
        profile: &mut Profile,
        is_level: bool,
        log: &mut ControlLog,
        outbox: &mut Outbox,
    ) {
        let Ask { question: q, reply } = ask;
        let attributes = borrowed(&q.attributes);
        let of_items: Vec<_> = q.candidates.iter().map(|(_, attributes)| borrowed(attributes)).collect();
        let candidates: Vec<Candidate<'_>> = (q.candidates.iter().zip(&of_items))
            .map(|((item, _), attributes)| Candidate { item, attributes })
            .collect();
        let ranking: Vec<&str> = q.ranking.iter().map(String::as_str).collect();
        let request = Request {
            user: q.user,
            placement: q.placement,
            platform: &q.platform,
            session: q.session,
            attributes: &attributes,
            candidates: &candidates,
            ranking: &ranking,
            slots: q.slots,
            time: q.time,
            seed: q.seed,
            decision: q.decision,
        };
        let profile_generation = profile.generation();
        let (view, catalog) = match q.user {
            Some(user) => profile.view_and_catalog(user),
            None => (View::CLOSED, profile.catalog()),
        };
        let is_behind = profile_generation < self.generation || !is_level || !self.catch_up.has_users();
        let is_withdrawn = |user| self.is_withdrawn(user, view.row.map_or(Time::MIN, |row| row.granted()));
        let view = if is_behind || q.user.is_some_and(is_withdrawn) { View::CLOSED } else { view };
        let world = World { plan: &self.plan, catalog, models: &self.models };
        let made = self.decider.decide(&world, &request, &view).map(|mut answer| {
            if is_behind && q.user.is_some() {
                answer.reason = Reason::NotReady;
            }
            let record = answer.record.take();
            let models = record.as_ref().map_or_else(Vec::new, |record| {
                let place = |name: &str| self.plan.models.iter().position(|model| model.name == name);
                record.models.iter().filter_map(|used| Some((place(&used.name)?, used.version))).collect()
            });
            let took = q.asked.elapsed();
            if let Some(record) = record {
                let control = Control::Decision(record);
                log.append(&control, outbox);
                let Control::Decision(record) = control else { unreachable!("made above") };
                self.remember(&q.id, &answer, &record, took);
                return Made {
                    id: q.id.clone(),
                    placement: q.placement,
                    answer: Answer { record: Some(record), ..answer },
                    models,
                };
            }
            self.figures.add(took, || None);
            Made { id: q.id.clone(), placement: q.placement, answer, models }
        });
        // Whoever asked may be gone.
        let _ = reply.send(made);
    }

    fn remember(&self, id: &str, answer: &Answer, decision: &Decision, took: Duration) {
        let recent = || Some(Recent { id: id.to_owned(), reason: answer.reason, decision: decision.clone(), took });
        self.figures.add(took, recent);
    }
}

/// What the caller gets.
pub fn answer(plan: &Plan, made: Result<Made, DecideError>, explain: bool) -> Result<DecideAnswer, ServeError> {
    let made = made.map_err(|error| ServeError::Invalid { field: field_of(&error), detail: error.to_string() })?;
    let Made { id, placement, answer, models } = made;
    let (experiment, variant) = answer.experiment.unzip();
    let record = answer.record.as_ref();
    let values = |position: usize| {
        let record = record.filter(|_| explain)?;
        Some(explained(plan, record, position))
    };
    let item = |item: millrace_engine::decide::RankedItem| RankedItem {
        values: values(item.position),
        position: item.position as u32 + 1,
        score: known(item.score),
        propensity: item.propensity,
        propensity_error: item.propensity_error,
        id: item.item,
    };
    Ok(DecideAnswer {
        decision: id,
        placement: plan.placements[placement].name.clone(),
        experiment,
        variant,
        policy: answer.policy,
        personalized: answer.personalized,
        reason: name_of(answer.reason),
        models: models
            .into_iter()
            .map(|(model, version)| UsedModel { name: plan.models[model].name.clone(), version })
            .collect(),
        items: answer.items.into_iter().map(item).collect(),
    })
}

fn field_of(error: &DecideError) -> &'static str {
    match error {
        DecideError::TooManyCandidates { .. } | DecideError::CandidatesOfCatalog | DecideError::ItemId => "candidates",
        DecideError::LongRanking { .. } => "ranking",
        DecideError::Platform => "platform",
    }
}

/// As it is written in JSON.
fn name_of(reason: millrace_engine::decide::Reason) -> String {
    json!(reason).as_str().unwrap_or_default().to_owned()
}

/// What each model saw of the item in this slot.
fn explained(plan: &Plan, decision: &Decision, slot: usize) -> BTreeMap<String, BTreeMap<String, serde_json::Value>> {
    let mut bytes = decision.slots.get(slot).map_or(&[][..], |slot| &slot.values);
    let mut explained = BTreeMap::new();
    for used in &decision.models {
        let Some(model) = plan.models.iter().find(|model| model.name == used.name) else { continue };
        let (own, rest) = bytes.split_at((model.served.columns.len() * VALUE_BYTES).min(bytes.len()));
        explained.insert(used.name.clone(), values::of_bytes(&model.served, own));
        bytes = rest;
    }
    explained
}

/// A decision of a moment ago, as the page shows it. It names no user.
pub fn recent(plan: &Plan, recent: &Recent) -> serde_json::Value {
    let decision = &recent.decision;
    let (experiment, variant) = decision.experiment.clone().unzip();
    let item = |(position, slot): (usize, &millrace_engine::control::Slot)| {
        let score = known(slot.score);
        // Models have features of the same names and values; the last one's are shown.
        let features: BTreeMap<_, _> = explained(plan, decision, position).into_values().flatten().collect();
        json!({"id": slot.item, "position": position + 1, "score": score, "propensity": slot.propensity,
            "features": features})
    };
    json!({
        "decision": recent.id, "timeMs": decision.time.0 / 1000, "placement": decision.placement,
        "platform": decision.platform, "experiment": experiment, "variant": variant, "policy": decision.policy,
        "personalized": recent.reason == millrace_engine::decide::Reason::Personalized, "reason": recent.reason,
        "models": decision.models.iter().map(|m| json!({"name": m.name, "version": m.version})).collect::<Vec<_>>(),
        "items": decision.slots.iter().enumerate().map(item).collect::<Vec<_>>(),
        "micros": recent.took.as_micros() as u64,
    })
}

/// A score that says something.
fn known(score: f64) -> Option<f64> {
    (score.is_finite() && score != NO_EVIDENCE).then_some(score)
}
