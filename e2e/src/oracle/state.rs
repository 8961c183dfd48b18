//! Consent, duplicates, joins and examples, over events in merge order.

use std::collections::BTreeMap;

use millrace_crds::spec::{Join, Outcome, PipelineSpec};

use super::{
    Counts, OracleExample, OracleResult, OutcomeCounts,
    mapping::{Consent, Event},
    values::{self, OracleValue, Reading},
};

/// An impression that waits.
struct Impression<'e> {
    event: &'e Event,
    /// Its place in the merge.
    order: u64,
    /// By outcome, by item.
    labels: Vec<Vec<bool>>,
    /// By model, by item, by column.
    values: Vec<Vec<Vec<OracleValue>>>,
}

#[derive(Default)]
struct User<'e> {
    impressions: Vec<Impression<'e>>,
    history: Vec<&'e Event>,
    /// Stated time of the standing grant.
    granted: Option<i64>,
}

/// An example with what orders it: fire time, place of its impression in the merge.
type Placed = (i64, u64, OracleExample);

pub(super) struct State<'e> {
    spec: &'e PipelineSpec,
    outcomes: Vec<(&'e String, &'e Outcome, OutcomeCounts)>,
    with_values: bool,
    counts: Counts,
    users: BTreeMap<&'e str, User<'e>>,
    /// Time of the last accepted event of an (id, user, type).
    accepted: BTreeMap<(&'e str, &'e str, &'e str), i64>,
    examples: Vec<Vec<Placed>>,
    columns: Vec<Vec<String>>,
    order: u64,
}

impl<'e> State<'e> {
    pub fn new(spec: &'e PipelineSpec, with_values: bool, counts: Counts) -> Self {
        let columns = |model| if with_values { values::columns(spec, model) } else { Vec::new() };
        Self {
            spec,
            outcomes: spec.outcomes.iter().map(|(name, o)| (name, o, OutcomeCounts::default())).collect(),
            with_values,
            counts,
            users: BTreeMap::new(),
            accepted: BTreeMap::new(),
            examples: spec.models.iter().map(|_| Vec::new()).collect(),
            columns: spec.models.iter().map(columns).collect(),
            order: 0,
        }
    }

    pub fn apply(&mut self, event: &'e Event) {
        self.order += 1;
        match event.consent {
            Consent::Grant => {
                self.counts.accepted += 1;
                self.users.entry(&event.user).or_default().granted = Some(event.stated);
                return;
            }
            Consent::Withdraw => {
                self.counts.accepted += 1;
                return self.withdraw(event);
            }
            Consent::None => {}
        }
        if self.spec.privacy.consent.event.is_some() && !self.users.contains_key(event.user.as_str()) {
            self.counts.unconsented += 1;
            return;
        }
        if let Some(id) = &event.id {
            let key = (id.as_str(), event.user.as_str(), event.kind.as_str());
            if self.accepted.get(&key).is_some_and(|before| event.time - before <= event.dedup_within) {
                self.counts.duplicate += 1;
                return;
            }
            self.accepted.insert(key, event.time);
        }
        self.counts.accepted += 1;
        self.match_outcomes(event);
        if event.kind == "impression" {
            self.open(event);
        }
        if self.with_values {
            self.users.entry(&event.user).or_default().history.push(event);
        }
    }

    fn withdraw(&mut self, event: &Event) {
        let Some(user) = self.users.get(event.user.as_str()) else { return };
        if user.granted.is_some_and(|granted| granted > event.stated) {
            return;
        }
        if let Some(user) = self.users.remove(event.user.as_str()) {
            self.fire(user.impressions, Some(event.time));
        }
    }

    fn match_outcomes(&mut self, event: &Event) {
        let nobody = &mut Vec::new();
        let impressions = match self.users.get_mut(event.user.as_str()) {
            Some(user) => &mut user.impressions,
            // Where nobody has to agree, a user is first seen here.
            None => nobody,
        };
        for (at, (_, outcome, counts)) in self.outcomes.iter_mut().enumerate() {
            if outcome.event != event.kind {
                continue;
            }
            let waiting = |i: &&mut Impression<'_>| event.time <= i.event.time + outcome.within.as_micros();
            let mut open = impressions.iter_mut().rev().take_while(waiting);
            let decision = event.decision.as_ref().filter(|_| outcome.join == Join::Decision);
            let latest = match (outcome.join, decision) {
                (Join::User, _) => open.find(|i| (i.event.origin, i.event.row) != (event.origin, event.row)),
                (_, Some(decision)) => open.find(|i| i.event.decision.as_ref() == Some(decision)),
                _ => None,
            };
            let whole = outcome.join == Join::User || event.items.is_empty();
            counts.events += if whole { 1 } else { event.items.len() as u64 };
            if whole {
                counts.matched += u64::from(latest.is_some());
                latest.into_iter().for_each(|impression| impression.labels[at].fill(true));
            } else if decision.is_some() {
                let Some(impression) = latest else { continue };
                counts.matched += event.items.iter().filter(|item| label_item(impression, at, &item.id)).count() as u64;
            } else {
                for item in &event.items {
                    let mut open = impressions.iter_mut().rev().take_while(waiting);
                    counts.matched += u64::from(open.any(|i| label_item(i, at, &item.id)));
                }
            }
        }
    }

    fn open(&mut self, event: &'e Event) {
        let user = self.users.entry(&event.user).or_default();
        let labels = self.outcomes.iter().map(|_| vec![false; event.items.len()]).collect();
        let spec = self.spec;
        let read = |columns: &Vec<String>| -> Vec<Vec<OracleValue>> {
            let of_item = |item| {
                let reading = Reading { spec, history: &user.history, now: event.time, event, item };
                columns.iter().map(|column| reading.column(column)).collect()
            };
            event.items.iter().map(of_item).collect()
        };
        let values = self.columns.iter().map(read).collect();
        user.impressions.push(Impression { event, order: self.order, labels, values });
    }

    /// Emits the examples of a user's impressions; only those that fire before `until`, if given.
    fn fire(&mut self, impressions: Vec<Impression<'e>>, until: Option<i64>) {
        for impression in impressions {
            for (n, model) in self.spec.models.iter().enumerate() {
                let outcome = self.outcomes.iter().position(|(name, ..)| **name == model.outcome);
                let Some(outcome) = outcome else { continue };
                let time = impression.event.time + self.outcomes[outcome].1.within.as_micros();
                if until.is_some_and(|until| time >= until) {
                    continue;
                }
                for (at, item) in impression.event.items.iter().enumerate() {
                    let example = OracleExample {
                        time,
                        impression: impression.event.time,
                        item: item.id.clone(),
                        position: item.position,
                        label: impression.labels[outcome][at],
                        propensity: item.propensity,
                        placement: impression.event.placement.clone(),
                        platform: impression.event.platform.clone(),
                        values: impression.values[n][at].clone(),
                    };
                    self.examples[n].push((time, impression.order, example));
                }
            }
        }
    }

    pub fn finish(mut self, now: i64) -> OracleResult {
        let mut profiles = BTreeMap::new();
        let users = std::mem::take(&mut self.users);
        for (id, user) in users {
            if self.with_values {
                profiles.insert(id.to_owned(), values::profile(self.spec, &user.history, now));
            }
            self.fire(user.impressions, None);
        }
        let mut result = OracleResult { counts: self.counts, profiles, ..OracleResult::default() };
        for ((model, mut placed), columns) in self.spec.models.iter().zip(self.examples).zip(self.columns) {
            placed.sort_by_key(|(time, order, _)| (*time, *order));
            result.examples.insert(model.name.clone(), placed.into_iter().map(|(_, _, example)| example).collect());
            result.columns.insert(model.name.clone(), columns);
        }
        result.outcomes = self.outcomes.into_iter().map(|(name, _, counts)| (name.clone(), counts)).collect();
        result
    }
}

/// Labels an item wherever it stands in an impression; whether it stands there.
fn label_item(impression: &mut Impression<'_>, outcome: usize, item: &str) -> bool {
    let mut found = false;
    for (shown, label) in impression.event.items.iter().zip(&mut impression.labels[outcome]) {
        if shown.id == item {
            *label = true;
            found = true;
        }
    }
    found
}
