//! A policy to evaluate: with which probability it shows each item at each position, whoever looks.

use super::OffPolicyError;

/// Sums of probabilities may differ from 1 by this: tables are rounded.
const TOLERANCE: f64 = 1e-3;

/// Probabilities of items by position; at each position they add up to 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// By position, then item.
    probabilities: Vec<Vec<f64>>,
}

impl Policy {
    /// Each of these items alike at each position.
    pub fn uniform(positions: usize, items: usize) -> Self {
        Self { probabilities: vec![vec![1.0 / items as f64; items]; positions] }
    }

    /// Of (item, position, probability), in any order; what is not listed is never shown. Positions without any row have
    /// no distribution. Sums within a thousandth of 1 are made 1.
    pub fn new(rows: impl IntoIterator<Item = (usize, usize, f64)>) -> Result<Self, OffPolicyError> {
        let mut probabilities: Vec<Vec<f64>> = Vec::new();
        for (item, position, value) in rows {
            if !(0.0..=1.0).contains(&value) {
                return Err(OffPolicyError::Probability { position, value });
            }
            if probabilities.len() <= position {
                probabilities.resize(position + 1, Vec::new());
            }
            let items = &mut probabilities[position];
            if items.len() <= item {
                items.resize(item + 1, f64::NAN);
            }
            if !items[item].is_nan() {
                return Err(OffPolicyError::Twice { position, item });
            }
            items[item] = value;
        }
        for (position, items) in probabilities.iter_mut().enumerate().filter(|(_, items)| !items.is_empty()) {
            items.iter_mut().filter(|p| p.is_nan()).for_each(|p| *p = 0.0);
            let sum: f64 = items.iter().sum();
            if (sum - 1.0).abs() > TOLERANCE {
                return Err(OffPolicyError::Sum { position, sum });
            }
            items.iter_mut().for_each(|p| *p /= sum);
        }
        Ok(Self { probabilities })
    }

    /// 0 for an item that is not listed.
    pub fn probability(&self, item: usize, position: usize) -> f64 {
        self.items(position).get(item).copied().unwrap_or(0.0)
    }

    /// Probabilities by item; empty if nothing is said of the position.
    pub fn items(&self, position: usize) -> &[f64] {
        self.probabilities.get(position).map_or(&[], Vec::as_slice)
    }
}
