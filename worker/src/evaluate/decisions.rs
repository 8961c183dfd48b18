//! Logged decisions and target policies, with items and positions as numbers.

use std::{collections::BTreeMap, path::Path};

use millrace_engine::off_policy::{Logged, OffPolicyError, Policy};

use super::{EvaluateError, table::Table};

/// Columns; each the first that there is.
#[derive(Clone, Debug)]
pub struct DecisionsShape {
    pub item: Vec<String>,
    /// Without such a column there is one position.
    pub position: String,
    pub reward: Vec<String>,
    pub propensity: Vec<String>,
    pub probability: String,
}

/// Names as numbers, in the order in which they come.
#[derive(Default)]
struct Numbers(BTreeMap<String, usize>);

impl Numbers {
    fn of(&mut self, name: &str) -> usize {
        let next = self.0.len();
        match self.0.get(name) {
            Some(number) => *number,
            None => *self.0.entry(name.to_owned()).or_insert(next),
        }
    }
    fn name(&self, number: usize) -> &str {
        self.0.iter().find(|(_, n)| **n == number).map_or("?", |(name, _)| name)
    }
}

/// A log of decisions, and the names in it.
pub struct DecisionLog {
    pub decisions: Vec<Logged>,
    items: Numbers,
    positions: Numbers,
}

const ONE_POSITION: &str = "(all)";

fn names(list: &[String]) -> Vec<&str> {
    list.iter().map(String::as_str).collect()
}

pub fn read(path: &Path, shape: &DecisionsShape) -> Result<DecisionLog, EvaluateError> {
    let mut table = Table::open(path)?;
    let item = table.column(&names(&shape.item))?;
    let position = if table.has(&shape.position) { Some(table.column(&[&shape.position])?) } else { None };
    let (reward, propensity) = (table.column(&names(&shape.reward))?, table.column(&names(&shape.propensity))?);
    let mut log = DecisionLog { decisions: Vec::new(), items: Numbers::default(), positions: Numbers::default() };
    while table.advance()? {
        let decision = Logged {
            item: log.items.of(table.text(item)),
            position: log.positions.of(position.map_or(ONE_POSITION, |column| table.text(column))),
            reward: table.number(reward)?,
            propensity: table.number(propensity)?,
        };
        if !(decision.propensity > 0.0 && decision.propensity <= 1.0) {
            let why = format!("a propensity must be above 0 and at most 1, not {}", decision.propensity);
            return Err(table.line(why));
        }
        log.decisions.push(decision);
    }
    if log.decisions.is_empty() { Err(EvaluateError::Empty { path: path.to_owned() }) } else { Ok(log) }
}

impl DecisionLog {
    /// Each item of the log alike, at each position.
    pub fn uniform(&self) -> Policy {
        Policy::uniform(self.positions.0.len(), self.items.0.len())
    }

    /// The policy of a file of item, position and probability.
    pub fn policy(&mut self, path: &Path, shape: &DecisionsShape) -> Result<Policy, EvaluateError> {
        let mut table = Table::open(path)?;
        let (item, probability) = (table.column(&names(&shape.item))?, table.column(&[&shape.probability])?);
        // Where the log has positions, so must the policy.
        let positions = !self.positions.0.contains_key(ONE_POSITION);
        let position = if positions { Some(table.column(&[&shape.position])?) } else { None };
        let mut rows = Vec::new();
        while table.advance()? {
            let position = self.positions.of(position.map_or(ONE_POSITION, |column| table.text(column)));
            rows.push((self.items.of(table.text(item)), position, table.number(probability)?));
        }
        let policy = Policy::new(rows).map_err(|cause| self.explain(path, cause))?;
        let unknown = self.decisions.iter().find(|d| policy.items(d.position).is_empty());
        match unknown {
            None => Ok(policy),
            Some(d) => Err(self.explain(path, OffPolicyError::Position { row: 0, position: d.position })),
        }
    }

    /// An error of a file of probabilities, with names.
    fn explain(&self, path: &Path, cause: OffPolicyError) -> EvaluateError {
        let at = match &cause {
            OffPolicyError::Sum { position, .. }
            | OffPolicyError::Probability { position, .. }
            | OffPolicyError::Position { position, .. } => format!("position `{}`", self.positions.name(*position)),
            OffPolicyError::Twice { position, item } => {
                format!("position `{}`, item `{}`", self.positions.name(*position), self.items.name(*item))
            }
            _ => return EvaluateError::OffPolicy { path: path.to_owned(), cause },
        };
        EvaluateError::Asked(format!("{}, {at}: {cause}", path.display()))
    }
}
